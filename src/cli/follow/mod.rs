//! `ipfs-cluster-follow`: runs peers that follow clusters of others.
//!
//! ```text
//!   arguments ─ app ─ Request ─┬─ info: clusters │ info │ list
//!                              ├─ init: identity and a configuration that points to a URL
//!                              └─ run:  wait for IPFS ─ load ─ force ─ daemon::run
//! ```
//!
//! - Each cluster has a folder of its own below `--config`; a cluster is initialized if that folder exists.
//! - A follower's peer is the service's, with settings that no template can change (`run::force`).
//! - There is no `cluster.lock` as in the service's folder; two peers of one folder are kept apart by a lock beside
//!   the database.
//! - An error is its cause, then what was being done, each on a line of its own; exit code 1.

mod app;
mod info;
mod init;
mod pages;
mod run;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cluster_compat::client::{Options, RestClient};
use cluster_compat::config::{Config, Env, Error, Identity};
use cluster_compat::types::{Multiaddr, parse_multiaddr};

use self::app::{NAME, Request, What};
use super::exit::{self, Failure, failed, print};
use super::folder;
use super::table::Values;
use crate::observe::log::{self, LogArgs, Program};

/// Where the REST API of a running peer is asked, unless this variable says otherwise. (Go: `getClient`)
const API_VARIABLE: &str = "CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS";

/// The socket of the REST API, in the folder of the cluster.
const SOCKET: &str = "api-socket";

/// The peer of one cluster.
struct Follower {
    name: String,
    folder: PathBuf,
    env: Env,
}

impl Follower {
    fn service_json(&self) -> PathBuf {
        self.folder.join("service.json")
    }

    fn identity_json(&self) -> PathBuf {
        self.folder.join("identity.json")
    }

    fn socket(&self) -> PathBuf {
        self.folder.join(SOCKET)
    }

    /// Ends a command where there is no folder of the cluster.
    fn check_initialized(&self) -> Result<(), Failure> {
        if self.folder.exists() {
            return Ok(());
        }
        print(&format!(
            "\nThis cluster peer has not been initialized.\n\nTry running \"{NAME} {} init <config-url>\" first.\n",
            self.name
        ));
        Err(silent())
    }

    /// Loads configuration and identity.
    async fn load(&self) -> Result<(Config, Identity), Error> {
        let config = Config::load(&self.service_json(), &self.env).await?;
        let (identity, _) = Identity::load(&self.identity_json(), &self.service_json(), &self.env)?;
        Ok((config, identity))
    }

    /// The failure of [`Follower::load`].
    fn unreadable(&self, cause: &Error) -> Failure {
        caused(cause, &format!("reading the configurations in {}", self.folder.display()))
    }

    /// The address of the socket.
    fn socket_address(&self) -> Result<Multiaddr, Failure> {
        let text = format!("/unix{}", self.socket().display());
        parse_multiaddr(&text).map_err(|cause| caused(cause, &format!("error parsing socket: {text}")))
    }

    /// A client of the running peer's API.
    async fn client(&self) -> Result<RestClient, Failure> {
        let doing = "error creating client";
        let addr = match self.env.get(API_VARIABLE).filter(|value| !value.is_empty()) {
            // the peer listens on all of them, and is asked at the first
            Some(list) => {
                let first = list.split(',').next().unwrap_or_default();
                parse_multiaddr(first).map_err(|cause| {
                    caused(cause, &format!("error parsing the value of {API_VARIABLE}: {list}\n{doing}"))
                })?
            }
            None => self.socket_address()?,
        };
        let options = Options { hosts: vec![addr], ..Options::default() };
        RestClient::new(options).await.map_err(|cause| caused(cause, doing))
    }
}

/// Two lines: the cause, then what was being done.
fn caused(cause: impl Display, doing: &str) -> Failure {
    Failure { line: format!("{cause}\n{doing}"), code: 1 }
}

/// An end without last words: they were said before.
fn silent() -> Failure {
    Failure { line: String::new(), code: 1 }
}

/// The program.
pub fn main() -> ExitCode {
    let env = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let home = folder::home(".ipfs-cluster-follow");
    match app::parse(&home, std::env::args_os().skip(1).collect(), &env) {
        Err(done) => exit::done(&done),
        Ok(request) => exit::finish(start(request, &env)),
    }
}

fn start(request: Request, env: &dyn Fn(&str) -> Option<String>) -> Result<(), Failure> {
    let parent = folder::absolute(&request.folder).map_err(failed("finding the configuration folder"))?;
    let (name, command, flags, args) = match request.what {
        What::Clusters => return info::clusters(&parent),
        What::Cluster { name, command, flags, args } => (name, command, flags, args),
    };
    let folder = folder::clean(&parent.join(Path::new(&name).strip_prefix("/").unwrap_or(Path::new(&name))));
    let follower = Follower { name, folder, env: Env::process() };
    if command == "init" {
        let url = args.first().map(|url| url.to_string_lossy().into_owned()).unwrap_or_default();
        return init::init(&follower, &flags, &url);
    }
    let runtime = tokio::runtime::Runtime::new().map_err(failed("starting the runtime"))?;
    let result = runtime.block_on(dispatch(&follower, command, &flags, env));
    // a look-up of a name or a read may still be on its way; nobody waits for it
    runtime.shutdown_background();
    result
}

async fn dispatch(
    follower: &Follower,
    command: &str,
    flags: &Values,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(), Failure> {
    match command {
        "run" => run::run(follower, flags, env).await,
        "list" => {
            start_log(Program::Client, "", env)?;
            info::list(follower).await
        }
        _ => {
            start_log(Program::Client, "", env)?;
            info::info(follower).await
        }
    }
}

fn start_log(program: Program, levels: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<(), Failure> {
    let args = LogArgs { program, levels, debug: false, env };
    log::init(&args).map(drop).map_err(failed("setting up logging"))
}
