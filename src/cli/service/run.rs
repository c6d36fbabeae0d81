//! `daemon`: runs the peer until a signal stops it.

use cluster_compat::config::{Config, Consensus};
use cluster_compat::types::{Multiaddr, parse_multiaddr};

use super::{Context, init, released};
use crate::cli::exit::Failure;
use crate::cli::table::Run;
use crate::daemon::{self, RunArgs};

pub(super) async fn run(context: &Context, run: &Run) -> Result<(), Failure> {
    tracing::info!(target: "service", "Initializing. For verbose output run with \"-l debug\". Please wait...");
    let bootstrap = bootstrap(run.flags.string("bootstrap"))?;
    let lock = context.lock()?;
    let result = async {
        if run.flags.bool("init") && !context.service_json().exists() {
            init::fresh(context, run.flags.bool("embedded"))?;
        }
        let (mut config, identity) = context.load().await?;
        check_sections(&config)?;
        config.metrics.enable_stats |= run.flags.bool("stats");
        config.tracing.enable_tracing |= run.flags.bool("tracing");
        let args = RunArgs {
            config,
            identity,
            folder: context.folder.clone(),
            bootstrap,
            leave: run.flags.bool("leave"),
            no_trust: run.flags.bool("no-trust"),
            start_empty: run.flags.bool("start-empty"),
            embedded: run.flags.bool("embedded"),
            follows: false,
        };
        daemon::run(args).await.map(drop).map_err(|cause| Failure { line: cause.to_string(), code: 1 })
    };
    let result = result.await;
    released(lock, result)
}

/// The addresses of `--bootstrap`: a comma list, each trimmed.
fn bootstrap(list: &str) -> Result<Vec<Multiaddr>, Failure> {
    let items = list.split(',').filter(|_| !list.is_empty());
    items
        .map(|item| {
            parse_multiaddr(item.trim()).map_err(|cause| {
                Failure::new(&format!("error parsing bootstrap multiaddress ({item})"), cause)
            })
        })
        .collect()
}

/// What the file must say for a peer to be built. (Go: `cmdutils/state.go`, `daemon.go`)
fn check_sections(config: &Config) -> Result<(), Failure> {
    match config.consensus() {
        None => Err(Failure::new("creating state manager", "could not determine the consensus component")),
        Some(Consensus::Crdt) if config.datastore.present().is_none() => {
            Err(Failure::new("creating datastore", "unknown datastore"))
        }
        Some(Consensus::Crdt | Consensus::Raft) => Ok(()),
    }
}
