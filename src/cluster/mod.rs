//! The peer: what it does when asked, and what it does by itself.
//!
//! [`Cluster`] implements `ClusterApi` for everything in this process: the HTTP faces, the shell, the offline
//! tools. It holds no pins of its own: the pinset is the consensus's, the operations are the tracker's, the
//! metrics are the monitor's. Each call is a short path through them:
//!
//! ```text
//!   HTTP ─► api ─► pin ──► allocate ─► Consensus::log_pin ─► PinsetEvent ─► events ─► Tracker
//!                  status ──┬──────────► Tracker, for this peer
//!                           └─► rpc::Client, for the others ─► merge
//!                  add ──► adder::import ─► Host ─► blocks ─► this peer's daemon, other peers
//!   others ─► rpc::Server ─► serve
//!   jobs: pings, informers, recover, state sync, alerts, join
//! ```
//!
//! Invariants:
//! - No lock is held over an await; the few locks guard plain values.
//! - A member that is slow, gone or hostile costs its own row: what is gathered from others is bounded, and an answer
//!   waits for nobody who shows no sign of life.
//! - Messages of errors are the reference's wherever a client can see them.

mod add;
mod alerts;
mod allocate;
mod api;
mod blocks;
mod closest;
mod events;
mod gc;
mod graph;
mod id;
mod jobs;
mod join;
mod members;
mod merge;
mod path;
mod peers;
mod pin;
mod recover;
mod repin;
mod serve;
mod sharded;
mod status;

use std::sync::{Arc, Mutex, PoisonError};

use cluster_compat::api::Error;
use cluster_compat::config;
use cluster_compat::types::{Alert, Multiaddr, PeerId};
use tokio::sync::{mpsc, watch};

use crate::consensus::{Consensus, PinsetEvent};
use crate::informer::Informer;
use crate::ipfs;
use crate::monitor::Monitor;
use crate::net::{self, Network};
use crate::rpc;
use crate::task::Tasks;
use crate::tracker::Tracker;

/// The version clients and other peers compare with. (rulings: versions)
pub const VERSION: &str = "1.1.6";

/// `cluster.go`: what a follower answers to every write.
const FOLLOWER: &str = "this peer is configured to be in follower mode. Write operations are disabled";

/// Everything a peer is built from.
pub struct ClusterArgs {
    /// The `cluster` section.
    pub config: config::Cluster,
    /// `allocator.balanced.allocate_by`.
    pub allocate_by: Vec<String>,
    /// Pause between ready and telling the daemon of the members' daemons; zero is never.
    pub connect_swarms_delay: std::time::Duration,
    /// The agreed pinset.
    pub consensus: Arc<dyn Consensus>,
    /// Changes of the pinset, in order.
    pub events: mpsc::Receiver<PinsetEvent>,
    /// The swarm.
    pub network: Network,
    /// The daemon.
    pub ipfs: ipfs::Client,
    /// This peer's pins against the pinset.
    pub tracker: Tracker,
    /// Metrics of all peers.
    pub monitor: Monitor,
    /// Alerts, as the monitor notices them.
    pub alerts: mpsc::Receiver<Alert>,
    /// What this peer tells about itself.
    pub informers: Vec<Informer>,
    /// The daemon as this peer's pings last described it.
    pub daemon_seen: DaemonSeen,
    /// Calls of other peers, as they open their streams.
    pub calls: mpsc::Receiver<(PeerId, net::Stream)>,
    /// What nobody else may call, trusted or not, beside what is never offered.
    pub closed: &'static [rpc::Call],
    /// Owner of the periodic jobs.
    pub tasks: Tasks,
}

/// This peer's daemon as its last good ping described it; shared with the tracker, which prints it in statuses.
#[derive(Clone, Default)]
pub struct DaemonSeen {
    /// Written by the ping job, read by statuses; held for a copy only.
    seen: Arc<Mutex<(Option<PeerId>, Vec<Multiaddr>)>>,
}

impl DaemonSeen {
    /// Its id and the addresses others may be told; nothing before the first good ping.
    pub fn get(&self) -> (Option<PeerId>, Vec<Multiaddr>) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, id: PeerId, addresses: Vec<Multiaddr>) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = (Some(id), addresses);
    }
}

/// A running peer. Clones are handles to the same one.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    config: config::Cluster,
    allocate_by: Vec<String>,
    connect_swarms_delay: std::time::Duration,
    peer: PeerId,
    consensus: Arc<dyn Consensus>,
    network: Network,
    rpc: rpc::Client,
    ipfs: ipfs::Client,
    tracker: Tracker,
    monitor: Monitor,
    informers: Vec<Arc<Informer>>,
    daemon_seen: DaemonSeen,
    /// Alerts by age; taken by the alert job and by the listing, for a push or a copy.
    alerts: Mutex<Vec<Alert>>,
    ready: watch::Sender<bool>,
    /// Counts the rounds of informers that published: an add waits for the first.
    first_metrics: watch::Sender<u64>,
    closed: &'static [rpc::Call],
    tasks: Tasks,
}

impl Cluster {
    /// Starts the peer's own work. It becomes ready in the background (spec: core 2.2); calls are served at once.
    pub fn start(args: ClusterArgs) -> Self {
        let (ready, _) = watch::channel(false);
        let inner = Arc::new(Inner {
            peer: args.network.local_peer(),
            config: args.config,
            allocate_by: args.allocate_by,
            connect_swarms_delay: args.connect_swarms_delay,
            consensus: args.consensus,
            rpc: rpc::Client::new(args.network.clone()),
            network: args.network,
            ipfs: args.ipfs,
            tracker: args.tracker,
            monitor: args.monitor,
            informers: args.informers.into_iter().map(Arc::new).collect(),
            daemon_seen: args.daemon_seen,
            alerts: Mutex::default(),
            ready,
            first_metrics: watch::channel(0).0,
            closed: args.closed,
            tasks: args.tasks,
        });
        let cluster = Self { inner };
        cluster.spawn_events(args.events);
        cluster.spawn_alerts(args.alerts);
        cluster.spawn_ready();
        let server = rpc::Server::new(Arc::new(cluster.clone()));
        let stop = cluster.inner.tasks.token();
        cluster.inner.tasks.spawn("calls of peers", server.run(args.calls, stop));
        cluster
    }

    /// Resolves when the peer has become ready; never, where its daemon never answers.
    pub async fn ready(&self) {
        let mut ready = self.inner.ready.subscribe();
        // the sender lives in `inner`, which `self` holds
        let _ = ready.wait_for(|ready| *ready).await;
    }

    /// Whether the peer has become ready.
    pub fn is_ready(&self) -> bool {
        *self.inner.ready.borrow()
    }

    /// Who this peer is.
    pub fn peer(&self) -> PeerId {
        self.inner.peer
    }

    fn refuse_follower(&self) -> Result<(), Error> {
        if self.inner.config.follower_mode { Err(Error::internal(FOLLOWER)) } else { Ok(()) }
    }
}

/// A failure of a room below, as clients read it.
fn failed(error: impl std::fmt::Display) -> Error {
    Error::internal(error.to_string())
}
