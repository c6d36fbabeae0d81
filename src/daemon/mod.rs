//! Builds a peer and its servers, and stops them in order.
//!
//! ```text
//!   run ─► build: node ► store ► swarm ► listeners ► daemon client ► monitor ► consensus ► tracker ► informers ► peer ► APIs
//!       ─► wait: ready (systemd), signals, panics
//!       ─► stop: the other way round, acknowledged data first
//! ```
//!
//! - What is configured and not served is refused by the name of its key before anything is opened.
//! - The first signal stops the peer in order; the third ends the process (see [`signals`]).
//! - A panic in one of the peer's own tasks stops the peer: half a peer is worse than none.

mod build;
mod data;
pub mod demo;
pub mod lock;
mod metrics;
mod node;
pub mod notify;
pub mod offline;
mod process;
pub mod signals;
mod stop;
mod tunnel;
mod unserved;
mod vitals;

use std::path::PathBuf;

use cluster_compat::config::{Config, Identity};
use cluster_compat::types::Multiaddr;
use tracing::error;

use crate::node::{Node, NodeArgs};

/// Why a peer could not be started, or stopped in error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step of the start failed; `step` is one of the reference's words for it.
    #[error("error {step}: {cause}")]
    Step {
        /// What was being done: `opening datastore`, `creating REST API component`, …
        step: &'static str,
        /// Why it failed.
        cause: String,
    },
    /// Something is configured that this version does not serve; the text names its key.
    #[error("error loading configurations: {0}")]
    Unserved(String),
    /// One of the peer's tasks panicked.
    #[error("error running cluster: {0} panicked; see the log for the place. Please report this")]
    Panicked(String),
}

impl Error {
    /// Turns a cause into the failure of a step.
    fn step<E: std::fmt::Display>(step: &'static str) -> impl Fn(E) -> Self {
        move |cause| Self::Step { step, cause: cause.to_string() }
    }
}

/// What a peer is started with.
pub struct RunArgs {
    /// The configuration, loaded and checked.
    pub config: Config,
    /// Who the peer is.
    pub identity: Identity,
    /// The folder of configuration and data.
    pub folder: PathBuf,
    /// Peers to connect to first.
    pub bootstrap: Vec<Multiaddr>,
    /// Leave the cluster on exit, whatever the configuration says.
    pub leave: bool,
    /// Do not trust the bootstrap peers.
    pub no_trust: bool,
    /// Start with an empty set beside the data of an original peer.
    pub start_empty: bool,
    /// Run an IPFS node in this process, with defaults where the configuration has no section for it.
    pub embedded: bool,
    /// Follow a cluster of others: nobody else may have this peer's daemon collect its garbage. (Go: `runCmd`)
    pub follows: bool,
}

/// When a signal stopped the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Before it was built.
    BeforeStart,
    /// While it ran: in order.
    Stopped,
}

/// Raises the limit on open files as far as it goes, as Go's programs do, and leaves each listener a quarter of it: a
/// crowd of clients must not keep the peer from its daemon, its database and its swarm.
fn allow_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(cause) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(target: "service", "the limit on open files stays as it is: {cause}");
        }
    }
    let n_files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let n_connections = (n_files / 4).clamp(MIN_CLIENTS, MAX_CLIENTS);
    cluster_compat::http::conn::limit_connections(usize::try_from(n_connections).unwrap_or(usize::MAX));
}

/// Clients that a listener serves at a time however few files there may be.
const MIN_CLIENTS: u64 = 64;
/// Clients that a listener serves at a time however many files there may be; 4,000 idle ones
/// that had been answered once took 23 KB each.
const MAX_CLIENTS: u64 = 16_384;

/// Runs an IPFS node alone until a signal, or a caller of its RPC, stops it.
pub async fn run_node(args: NodeArgs, announce: impl FnOnce(&Node)) -> Result<(), Error> {
    allow_open_files();
    let mut signals = signals::Signals::listen().map_err(Error::step("listening for signals"))?;
    let node = Node::start(args).await.map_err(Error::step("starting the IPFS node"))?;
    announce(&node);
    if let Err(cause) = notify::ready() {
        tracing::warn!(target: "service", "notifying systemd: {cause}");
    }
    let outcome = tokio::select! {
        biased;
        () = signals.first() => Ok(()),
        () = node.asked_to_stop() => Ok(()),
        name = node.panicked() => {
            error!(target: "service", "{name} panicked: stopping the node");
            Err(Error::Panicked(name))
        }
    };
    tokio::select! {
        () = node.stop() => outcome,
        () = signals.escalate() => outcome,
    }
}

/// Runs a peer until a signal stops it.
pub async fn run(args: RunArgs) -> Result<Ended, Error> {
    let signals = signals::Signals::listen().map_err(Error::step("listening for signals"))?;
    run_until(args, signals).await
}

/// Runs a peer until one of these signals stops it.
pub async fn run_until(args: RunArgs, mut signals: signals::Signals) -> Result<Ended, Error> {
    allow_open_files();
    let running = tokio::select! {
        biased;
        () = signals.first() => return Ok(Ended::BeforeStart),
        running = build::build(args) => running?,
    };
    let outcome = tokio::select! {
        biased;
        () = signals.first() => Ok(Ended::Stopped),
        name = running.panicked() => {
            error!(target: "service", "{name} panicked: stopping the peer");
            Err(Error::Panicked(name))
        }
        () = running.announce_and_wait() => Ok(Ended::Stopped),
    };
    tokio::select! {
        () = running.stop() => outcome,
        () = signals.escalate() => outcome,
    }
}
