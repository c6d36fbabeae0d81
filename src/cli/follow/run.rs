//! `run`: the follower's peer, until a signal stops it.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use cluster_compat::config::{Config, HttpApi, IpfsHttp, Metrics, Section, Tracing, go_error};

use super::init::init_unless_there;
use super::{Follower, caused, silent, start_log};
use crate::cli::exit::{Failure, failed, print, print_error};
use crate::cli::table::Values;
use crate::daemon::lock::Lock;
use crate::daemon::signals::Signals;
use crate::daemon::{self, Ended, RunArgs};
use crate::ipfs;
use crate::observe::log::Program;

/// Longest time for the daemon to come up. (Go: `runCmd`)
const DAEMON_TIMEOUT: Duration = Duration::from_secs(120);

/// Pause between two looks for the daemon, and for its gateway to come up after it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks between two lines that say so.
const LOOKS_PER_LINE: u32 = 10;

/// Everything at `info`, libraries too, except what `list` does every time. (Go: `setLogLevels`)
const LEVELS: &str = "info,restapilog:error,p2p-gorpc:info,swarm2:info,libp2p-raft:info,raftlib:info,badger:info,\
                      badger3:info,pebble:info";

pub(super) async fn run(
    follower: &Follower,
    flags: &Values,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(), Failure> {
    let url = flags.string("init");
    if !url.is_empty() {
        init_unless_there(follower, flags, url)?;
    }
    follower.check_initialized()?;
    print(&format!(
        "Starting the IPFS Cluster follower peer for \"{}\".\nCTRL-C to stop it.\n",
        follower.name
    ));
    let mut signals = Signals::listen().map_err(failed("listening for signals"))?;
    let args = tokio::select! {
        biased;
        () = signals.first() => return Err(silent()),
        prepared = prepare(follower, flags.bool("embedded"), env) => prepared?,
    };
    let args = RunArgs { start_empty: flags.bool("start-empty"), ..args };
    let lock = lock(&args.config)?;
    remove_stale_socket(follower)?;
    let ended = daemon::run_until(args, signals).await;
    if let Err(cause) = lock.release() {
        print_error(&format!("{cause}\nerror releasing execution lock\n"));
    }
    match ended {
        Ok(Ended::Stopped) => Ok(()),
        Ok(Ended::BeforeStart) => Err(silent()),
        Err(daemon::Error::Step { step, cause }) => Err(caused(cause, step)),
        Err(cause) => Err(Failure { line: cause.to_string(), code: 1 }),
    }
}

/// Waits for the daemon, loads, and puts in force what no template can change.
async fn prepare(
    follower: &Follower,
    is_embedded: bool,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<RunArgs, Failure> {
    if !is_embedded {
        wait_for_daemon(follower).await?;
    }
    start_log(Program::Service, LEVELS, env)?;
    let (mut config, identity) = follower.load().await.map_err(|cause| follower.unreadable(&cause))?;
    force(follower, &mut config)?;
    Ok(RunArgs {
        config,
        identity,
        folder: follower.folder.clone(),
        bootstrap: Vec::new(),
        leave: false,
        no_trust: false,
        start_empty: false,
        embedded: is_embedded,
        follows: true,
    })
}

/// Waits until the IPFS daemon answers: the template may be a page of it. A template that can be had without, and asks
/// for a node in the peer's own process, needs no daemon.
async fn wait_for_daemon(follower: &Follower) -> Result<(), Failure> {
    print("Checking if IPFS is online (will wait for 2 minutes)...\n");
    let config = IpfsHttp::from_env(&follower.env).unwrap_or_default();
    let client = ipfs::Client::new(&config)
        .map_err(|cause| caused(cause, "error creating an ipfshttp instance to wait for IPFS"))?;
    let waiting = async {
        let mut n_looks = 0;
        loop {
            if n_looks % LOOKS_PER_LINE == 0 {
                print(&format!("waiting for IPFS to become available on {}...\n", config.node_multiaddress));
            }
            if client.id().await.is_ok() {
                return;
            }
            if n_looks == 0 && follower.load().await.is_ok_and(|(config, _)| config.embedded.present) {
                return;
            }
            n_looks += 1;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let late = |_| Failure { line: "timed out waiting for IPFS to be available".to_owned(), code: 1 };
    tokio::time::timeout(DAEMON_TIMEOUT, waiting).await.map_err(late)
}

/// What holds for every follower, whatever its template says: no writes, no API but the one on its socket, which only
/// `CLUSTER_RESTAPI_*` variables move, no figures and no traces for others. (Go: `runCmd`)
fn force(follower: &Follower, config: &mut Config) -> Result<(), Failure> {
    config.crdt.present = true;
    config.raft.present = false;
    if config.datastore.present().is_none() {
        return Err(caused("unknown datastore", "creating datastore"));
    }
    config.cluster.follower_mode = true;
    let mut api = HttpApi::rest();
    api.http_listen_multiaddress = vec![follower.socket_address()?];
    let doing = "error applying environmental variables to restapi configuration";
    let api = api.with_env(&follower.env, &follower.folder).map_err(|cause| caused(cause, doing))?;
    config.restapi = Section { present: true, value: api };
    config.pinsvcapi.present = false;
    config.ipfsproxy.present = false;
    config.metrics.value = Metrics { enable_stats: false, ..Metrics::default() };
    config.tracing.value = Tracing { enable_tracing: false, ..Tracing::default() };
    Ok(())
}

/// Keeps a second peer out of the folder, and the service's commands. The lock lies beside the database: a follower has
/// none in its own folder.
fn lock(config: &Config) -> Result<Lock, Failure> {
    let place = config.datastore.lmdb.path(&config.folder);
    let taken = Lock::check(&config.folder).and_then(|()| Lock::take(&place));
    taken.map_err(|cause| caused(cause, "creating datastore"))
}

/// Removes the socket that a peer left which was killed; nobody else runs in this folder.
fn remove_stale_socket(follower: &Follower) -> Result<(), Failure> {
    let path = follower.socket();
    let is_stale =
        UnixStream::connect(&path).is_err_and(|cause| cause.kind() == std::io::ErrorKind::ConnectionRefused);
    if !is_stale {
        return Ok(());
    }
    std::fs::remove_file(&path)
        .map_err(|cause| caused(go_error("remove", &path, &cause), "creating REST API component"))
}

#[cfg(test)]
mod tests {
    use cluster_compat::config::{Consensus, Engine, Env};

    use super::*;

    fn follower(folder: &std::path::Path, env: &[(&str, &str)]) -> Follower {
        let env: Env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Follower { name: "one".to_owned(), folder: folder.to_owned(), env }
    }

    #[test]
    fn a_template_changes_nothing_of_what_makes_a_follower() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::defaults(Consensus::Raft, Engine::Pebble, folder.path());
        config.datastore.pebble.present = true;
        config.metrics.enable_stats = true;
        config.tracing.enable_tracing = true;
        config.restapi.http_listen_multiaddress = vec!["/ip4/0.0.0.0/tcp/9094".parse().unwrap()];
        let one = follower(folder.path(), &[]);
        force(&one, &mut config).unwrap();
        assert!(config.cluster.follower_mode && config.consensus() == Some(Consensus::Crdt));
        assert!(config.restapi.present && !config.pinsvcapi.present && !config.ipfsproxy.present);
        assert!(!config.metrics.enable_stats && !config.tracing.enable_tracing);
        assert_eq!(config.restapi.http_listen_multiaddress, [one.socket_address().unwrap()]);
    }

    #[test]
    fn variables_move_the_api() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::defaults(Consensus::Crdt, Engine::Lmdb, folder.path());
        let addr = "/ip4/127.0.0.1/tcp/1234";
        force(&follower(folder.path(), &[(super::super::API_VARIABLE, addr)]), &mut config).unwrap();
        assert_eq!(config.restapi.http_listen_multiaddress, [addr.parse().unwrap()]);
    }

    #[test]
    fn only_a_socket_that_nobody_serves_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let one = follower(folder.path(), &[]);
        remove_stale_socket(&one).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(one.socket()).unwrap();
        remove_stale_socket(&one).unwrap();
        assert!(one.socket().exists());
        drop(listener);
        remove_stale_socket(&one).unwrap();
        assert!(!one.socket().exists());
    }
}
