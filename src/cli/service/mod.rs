//! `ipfs-cluster-service`: makes a configuration, runs a peer, looks after its state.
//!
//! Every command works in one folder ([`Context`]). Those that touch what a running peer owns hold its lock
//! (`daemon::lock`) while they do. An error is one line, `error <doing>: <cause>`, and exit code 1.

mod demo;
mod init;
mod node;
mod prompt;
mod run;
mod state;
mod words;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cluster_compat::config::{Config, Env, Identity, Lmdb};

use super::complete;
use super::exit::{self, Failure, failed};
use super::folder;
use super::table::{App, Command, Flag, Parsed, Run, Values};
use crate::daemon::lock::Lock;
use crate::observe::log::{LogArgs, Program};

/// The version of the reference, which tools compare.
pub const VERSION: &str = "1.1.6";

/// The program's name.
const NAME: &str = "ipfs-cluster-service";

/// Where a command works.
pub(super) struct Context {
    folder: PathBuf,
    env: Env,
}

impl Context {
    fn service_json(&self) -> PathBuf {
        self.folder.join("service.json")
    }

    fn identity_json(&self) -> PathBuf {
        self.folder.join("identity.json")
    }

    /// Takes the lock of the folder, unless a follower runs on its database.
    fn lock(&self) -> Result<Lock, Failure> {
        let refused = |folder: &Path, why: String| {
            let path = folder.join("cluster.lock");
            let cause = format!(
                "{why}. If no other {NAME} process is running, remove {}, or make sure that the config folder is \
                 writable for the user running {NAME}.",
                path.display()
            );
            Failure::new("obtaining execution lock", cause)
        };
        let lock = Lock::take(&self.folder).map_err(|why| refused(&self.folder, why))?;
        let database = Lmdb::default().path(&self.folder);
        Lock::check(&database).map_err(|why| refused(&database, why))?;
        Ok(lock)
    }

    /// Loads configuration and identity.
    async fn load(&self) -> Result<(Config, Identity), Failure> {
        let doing = "loading configurations";
        let config = Config::load(&self.service_json(), &self.env).await.map_err(failed(doing))?;
        let (identity, is_extracted) =
            Identity::load(&self.identity_json(), &self.service_json(), &self.env).map_err(failed(doing))?;
        if is_extracted {
            exit::print_error(&format!(
                "\nNOTICE: identity information extracted from {} and saved as {}.\n\n",
                self.service_json().display(),
                self.identity_json().display()
            ));
        }
        Ok((config, identity))
    }
}

/// Releases a lock after a command and says how both went.
fn released(lock: Lock, result: Result<(), Failure>) -> Result<(), Failure> {
    let release = lock.release();
    match (result, release) {
        (Err(failure), Err(reason)) => {
            let line = format!("{}\nerror releasing execution lock: {reason}", failure.line);
            Err(Failure { line, ..failure })
        }
        (Ok(()), Err(reason)) => Err(Failure::new("releasing execution lock", reason)),
        (result, Ok(())) => result,
    }
}

/// The program.
pub fn main() -> ExitCode {
    let env = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let app = app(&folder::home(".ipfs-cluster"));
    match app.parse(std::env::args_os().skip(1).collect::<Vec<OsString>>(), &env) {
        Parsed::Done(done) => exit::done(&done),
        Parsed::Run(run) => match complete::answer(&self::app(Path::new("~/.ipfs-cluster")), &run) {
            Some(answer) => exit::finish(answer.map(|text| exit::print(&text))),
            None => exit::finish(start(&run, &env)),
        },
    }
}

fn start(run: &Run, env: &dyn Fn(&str) -> Option<String>) -> Result<(), Failure> {
    let levels = match run.globals.string("loglevel") {
        // its table is what it shows
        "" if run.path == ["demo"] => "error",
        levels => levels,
    };
    let log = LogArgs { program: Program::Service, levels, debug: run.globals.bool("debug"), env };
    for line in crate::observe::log::init(&log).map_err(failed("setting up logging"))? {
        exit::print(&format!("{line}\n"));
    }
    if run.path == ["version"] {
        exit::print(&version(&run.flags));
        return Ok(());
    }
    let folder =
        folder::absolute(run.globals.string("config")).map_err(failed("finding the configuration folder"))?;
    let context = Context { folder, env: Env::process() };
    let runtime = tokio::runtime::Runtime::new().map_err(failed("starting the runtime"))?;
    runtime.block_on(dispatch(&context, run))
}

async fn dispatch(context: &Context, run: &Run) -> Result<(), Failure> {
    match run.path[..] {
        ["init"] => init::run(context, run),
        ["daemon"] => run::run(context, run).await,
        ["node"] => node::run(context).await,
        ["demo"] => demo::run(run).await,
        ["state", "export"] => state::export(context, run).await,
        ["state", "import"] => state::import(context, run).await,
        ["state", "cleanup"] => state::cleanup(context, run).await,
        ["state", "crdt", command] => state::crdt(context, run, command).await,
        _ => Err(Failure::new("", format!("{} is not known", run.path.join(" ")))),
    }
}

/// What `version` prints.
fn version(flags: &Values) -> String {
    if flags.bool("all") {
        format!("{VERSION}\nipfs-cluster-rs/{}\n", env!("CARGO_PKG_VERSION"))
    } else {
        format!("{VERSION}\n")
    }
}

/// The commands and flags.
fn app(folder: &Path) -> App {
    let mut app = App {
        name: NAME.to_owned(),
        usage: "IPFS Cluster peer".to_owned(),
        version: VERSION.to_owned(),
        description: words::APP,
        flags: vec![
            Flag::string(
                "config, c",
                "path to the configuration and data `FOLDER`",
                folder.to_string_lossy(),
            )
            .env("IPFS_CLUSTER_PATH"),
            Flag::bool("force, f", "forcefully proceed with some actions. i.e. overwriting configuration"),
            Flag::bool("debug, d", "enable full debug logging (very verbose)"),
            Flag::string("loglevel, l", "set overall and component-wise log levels", "")
                .env("IPFS_CLUSTER_LOG_LEVEL"),
        ],
        commands: vec![
            Command {
                name: "init",
                usage: "Creates a configuration and generates an identity",
                args_usage: "[http-source-url]",
                description: words::INIT,
                flags: vec![
                    Flag::string("consensus", "select consensus: 'crdt' or 'raft'", "crdt"),
                    Flag::string(
                        "datastore",
                        "select datastore: 'badger', 'badger3', 'leveldb', 'lmdb' or 'pebble'",
                        "lmdb",
                    ),
                    Flag::bool(
                        "custom-secret, s",
                        "prompt for the cluster secret (when no source specified)",
                    ),
                    Flag::string(
                        "peers",
                        "comma-separated list of multiaddresses to init with (see help)",
                        "",
                    ),
                    Flag::bool("force, f", "overwrite configuration without prompting"),
                    Flag::bool("randomports", "configure random ports to listen on instead of defaults"),
                    Flag::bool("embedded", "run an IPFS node in the peer's own process: no Kubo is needed"),
                    Flag::bool("convert", "carry the values of a service.json of versions 0.0.x over"),
                ],
                ..Command::default()
            },
            Command {
                name: "daemon",
                usage: "Runs the IPFS Cluster peer (default)",
                flags: vec![
                    Flag::bool("upgrade, u", "run state migrations before starting (deprecated/unused)"),
                    Flag::string(
                        "bootstrap, j",
                        "join a cluster providing a comma-separated list of existing peers multiaddress(es)",
                        "",
                    ),
                    Flag::bool(
                        "leave, x",
                        "remove peer from cluster on exit. Overrides \"leave_on_shutdown\"",
                    )
                    .hidden(),
                    Flag::bool("stats", "enable stats collection"),
                    Flag::bool("tracing", "enable tracing collection"),
                    Flag::bool("no-trust", "do not trust bootstrap peers (only for \"crdt\" consensus)"),
                    Flag::bool(
                        "start-empty",
                        "start with an empty pinset beside the data of an original peer, which is not read",
                    )
                    .hidden(),
                    Flag::bool("embedded", "run an IPFS node in the peer's own process: no Kubo is needed"),
                    Flag::bool("init", "make a configuration first where there is none"),
                ],
                ..Command::default()
            },
            Command {
                name: "node",
                usage: "Runs the embedded IPFS node alone",
                description: words::NODE,
                ..Command::default()
            },
            Command {
                name: "demo",
                usage: "Runs a cluster of several peers in one process, to try things out",
                description: words::DEMO,
                flags: vec![Flag::int("peers", "how many peers", 3)],
                ..Command::default()
            },
            state_commands(),
            Command {
                name: "version",
                usage: "Prints the ipfs-cluster version",
                flags: vec![Flag::bool("all", "also print the version of this implementation").hidden()],
                ..Command::default()
            },
        ],
        needs_command: true,
    };
    app.commands.extend(complete::commands());
    app
}

fn state_commands() -> Command {
    let force = |usage| Flag::bool("force, f", usage);
    Command {
        name: "state",
        usage: "Manages the peer's persistent state (pinset)",
        commands: vec![
            crdt_commands(),
            Command {
                name: "export",
                usage: "save the state to a JSON file",
                description: words::EXPORT,
                flags: vec![Flag::string("file, f", "writes to an output file", "")],
                ..Command::default()
            },
            Command {
                name: "import",
                usage: "load the state from a file produced by 'export'",
                description: words::IMPORT,
                flags: vec![
                    force("skips confirmation prompt"),
                    Flag::int(
                        "replication-min, rmin",
                        "Overwrite replication-factor-min for all pins on import",
                        0,
                    ),
                    Flag::int(
                        "replication-max, rmax",
                        "Overwrite replication-factor-max for all pins on import",
                        0,
                    ),
                    Flag::string(
                        "allocations, allocs",
                        "Overwrite allocations for all pins on import. Comma-separated list of peer IDs",
                        "",
                    ),
                ],
                ..Command::default()
            },
            Command {
                name: "cleanup",
                usage: "remove persistent data",
                description: words::CLEANUP,
                flags: vec![force("skip confirmation prompt")],
                ..Command::default()
            },
        ],
        ..Command::default()
    }
}

fn crdt_commands() -> Command {
    let plain = |name, usage| Command { name, usage, ..Command::default() };
    Command {
        name: "crdt",
        usage: "CRDT-state commands",
        commands: vec![
            plain("info", "Print information about the CRDT store"),
            Command {
                name: "dot",
                usage: "Write the CRDT-DAG as DOT file",
                flags: vec![Flag::string("file, f", "writes to file instead of stdout", "")],
                ..Command::default()
            },
            plain("mark-dirty", "Marks the CRDT-store as dirty"),
            plain("mark-clean", "Marks the CRDT-store as clean"),
        ],
        ..Command::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_references_and_ours_on_request() {
        let run = |args: &[&str]| {
            let args = args.iter().map(OsString::from).collect();
            match app(Path::new("/x")).parse(args, &|_| None) {
                Parsed::Run(run) => version(&run.flags),
                Parsed::Done(done) => done.stdout,
            }
        };
        assert_eq!(run(&["version"]), "1.1.6\n");
        assert_eq!(run(&["--version"]), "ipfs-cluster-service version 1.1.6\n");
        assert!(run(&["version", "--all"]).starts_with("1.1.6\nipfs-cluster-rs/"));
    }
}
