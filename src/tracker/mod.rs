//! This peer's pins against the pinset: what the daemon should hold, what it does hold, and what is being done.
//!
//! ```text
//!   PinsetEvent ─► track / untrack ─► ops (table, queues) ─► workers ─► ipfs::Client
//!                                       │
//!   status / status_all / recover ◄─────┴── pinset ── pin/ls of the daemon
//! ```
//!
//! The table ([`ops`]) is pure and holds what is under way or failed, nothing else; what is neither is told by the
//! pinset and the daemon when somebody asks, so there is no second copy of the truth that could go stale, and a
//! restart forgets failures only. The table lies behind one lock that is held for microseconds and never over an
//! await; tracking therefore never waits for the daemon. Dropping a request to the daemon aborts it, and that is
//! how an unpin stops the pin it overtakes.
//!
//! Absences: no room above is called from here; no clock is read in [`ops`]; nothing is collected but one
//! fingerprint a pin while a list is made.

mod held;
mod ops;
mod queue;
mod recover;
mod status;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cluster_compat::config::Stateless;
use cluster_compat::go::time::Time;
use cluster_compat::types::{Cid, Multiaddr, PeerId, Pin, PinInfo, PinInfoShort, PinType, TrackerStatus};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use self::ops::{Change, Kind, Lane, Limits, OpId, Operation, Ops, Outcome};
use crate::ipfs;
use crate::state::{self, Pinset};
use crate::task::Tasks;

/// Go: `pintracker/stateless/stateless.go`, ErrFullQueue.
const QUEUE_FULL: &str = "pin/unpin operation queue is full. Try increasing max_pin_queue_size";

/// Go: `pintracker/stateless/stateless.go`, errUnexpectedlyUnpinned.
const UNEXPECTEDLY_UNPINNED: &str = "the item should be pinned but it is not";

/// Why the tracker could not answer. Texts are the reference's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No room for another operation.
    #[error("{QUEUE_FULL}")]
    QueueFull,
    /// The daemon did not list its pins.
    #[error("could not get pinset from IPFS: {0}")]
    Listing(#[source] ipfs::Error),
    /// The pinset could not be read.
    #[error("{0}")]
    State(#[from] state::Error),
    /// A recover of all pins ended early.
    #[error("RecoverAll error: {0}")]
    RecoverAll(#[source] Box<Error>),
}

/// The daemon behind this peer: its id and addresses as of the last ping that knew them.
pub type IpfsIdOf = Arc<dyn Fn() -> (Option<PeerId>, Vec<Multiaddr>) + Send + Sync>;

/// What a tracker needs.
pub struct TrackerArgs {
    /// Section `pin_tracker.stateless`.
    pub config: Stateless,
    /// This peer.
    pub peer: PeerId,
    /// Its configured name.
    pub peername: String,
    /// Its daemon.
    pub ipfs: ipfs::Client,
    /// What the cluster agreed on.
    pub pinset: Pinset,
    /// Who the daemon is, for statuses.
    pub ipfs_id: IpfsIdOf,
    /// Runs the workers.
    pub tasks: Tasks,
}

/// A handle on the tracker; clones share it.
#[derive(Clone)]
pub struct Tracker {
    shared: Arc<Shared>,
}

struct Shared {
    peer: PeerId,
    peername: String,
    ipfs: ipfs::Client,
    pinset: Pinset,
    ipfs_id: IpfsIdOf,
    /// Taken by everyone who asks or tells the tracker anything, for a few lookups; never held over an await.
    state: Mutex<State>,
    /// Pins in the daemon's last list.
    n_held: AtomicUsize,
    /// One permit is enough: a worker that finds more work than its own wakes the next.
    pins_wait: Notify,
    unpins_wait: Notify,
    remotes_wait: Notify,
}

struct State {
    ops: Ops,
    /// Aborts the request of an operation in progress.
    running: HashMap<OpId, CancellationToken>,
}

/// Operations of pins, by how far they got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// They wait for a worker.
    pub queued: u64,
    /// A worker has them.
    pub pinning: u64,
    /// They failed.
    pub errors: u64,
}

impl Tracker {
    /// Starts the workers.
    pub fn start(args: TrackerArgs) -> Self {
        let config = &args.config;
        let limits = Limits {
            n_queued_max: usize::try_from(config.max_pin_queue_size).unwrap_or(usize::MAX),
            priority_max_age: config.priority_pin_max_age,
            n_priority_retries_max: u64::try_from(config.priority_pin_max_retries).unwrap_or(0),
        };
        let n_pin_workers = usize::try_from(config.concurrent_pins).unwrap_or(1).max(1);
        let shared = Arc::new(Shared {
            peer: args.peer,
            peername: args.peername,
            ipfs: args.ipfs,
            pinset: args.pinset,
            ipfs_id: args.ipfs_id,
            state: Mutex::new(State { ops: Ops::new(limits), running: HashMap::new() }),
            n_held: AtomicUsize::new(0),
            pins_wait: Notify::new(),
            unpins_wait: Notify::new(),
            remotes_wait: Notify::new(),
        });
        worker::start(&shared, &args.tasks, n_pin_workers);
        Self { shared }
    }

    /// A pin was written to the pinset: pins it on the daemon, or unpins it where it is for other peers.
    /// A full queue is logged and shown by the status.
    pub async fn track(&self, pin: Pin) {
        debug!(target: "pintracker", cid = %pin.cid, "tracking");
        if pin.pin_type == PinType::Meta {
            return;
        }
        let kind = if pin.is_remote(&self.shared.peer) { Kind::Remote } else { Kind::Pin };
        let _ = self.shared.wish(kind, pin, |_| ());
    }

    /// A CID left the pinset: unpins it.
    pub async fn untrack(&self, cid: Cid) {
        debug!(target: "pintracker", %cid, "untracking");
        let _ = self.shared.wish(Kind::Unpin, Pin::new(cid), |_| ());
    }

    /// What is under way or failed.
    pub fn counts(&self) -> Counts {
        self.shared.lock().ops.counts()
    }

    /// Pins that wait for a worker.
    pub fn pin_queue_size(&self) -> u64 {
        self.shared.lock().ops.n_queued_pins() as u64
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiters(&self, lane: Lane) -> &Notify {
        match lane {
            Lane::Pins => &self.pins_wait,
            Lane::Unpins => &self.unpins_wait,
            Lane::Remotes => &self.remotes_wait,
        }
    }

    /// Enters a wish into the table, aborts what it replaces, wakes a worker; `look` sees the operation as it is
    /// before any worker can take it.
    fn wish<T>(&self, kind: Kind, pin: Pin, look: impl FnOnce(&Operation) -> T) -> Result<Option<T>, Error> {
        let cid = pin.cid;
        let mut state = self.lock();
        let Change { aborted, outcome } = state.ops.wish(kind, Arc::new(pin), Time::now());
        if let Some(running) = aborted.and_then(|id| state.running.remove(&id)) {
            running.cancel();
        }
        let seen = state.ops.get(&cid).map(look);
        drop(state);
        match outcome {
            Outcome::Queued(lane) => self.waiters(lane).notify_one(),
            Outcome::Absorbed => {}
            Outcome::Refused => {
                error!(target: "pintracker", %cid, "{QUEUE_FULL}");
                return Err(Error::QueueFull);
            }
        }
        Ok(seen)
    }

    fn me(&self) -> Me {
        let (ipfs_id, ipfs_addresses) = (self.ipfs_id)();
        Me { peer: self.peer, peername: self.peername.clone(), ipfs_id, ipfs_addresses }
    }
}

/// This peer, as its statuses name it.
struct Me {
    peer: PeerId,
    peername: String,
    ipfs_id: Option<PeerId>,
    ipfs_addresses: Vec<Multiaddr>,
}

impl Me {
    fn short(&self, status: TrackerStatus, timestamp: Time) -> PinInfoShort {
        PinInfoShort {
            peername: self.peername.clone(),
            ipfs_peer_id: self.ipfs_id,
            ipfs_peer_addresses: self.ipfs_addresses.clone(),
            status,
            timestamp,
            error: String::new(),
            attempt_count: 0,
            priority_pin: false,
        }
    }

    /// A CID without a pin.
    fn about_cid(&self, cid: Cid, status: TrackerStatus) -> PinInfo {
        PinInfo {
            cid,
            name: String::new(),
            peer: self.peer,
            allocations: None,
            origins: None,
            created: Time::ZERO,
            metadata: None,
            short: self.short(status, Time::now()),
        }
    }

    /// A pin of the pinset.
    fn about_pin(&self, pin: Pin, status: TrackerStatus) -> PinInfo {
        PinInfo {
            cid: pin.cid,
            name: pin.options.name,
            peer: self.peer,
            allocations: pin.allocations,
            origins: pin.options.origins,
            created: pin.timestamp,
            metadata: pin.options.metadata,
            short: self.short(status, pin.timestamp),
        }
    }

    /// An operation.
    fn about_operation(&self, operation: &Operation) -> PinInfo {
        let mut info = self.about_pin(Pin::clone(&operation.pin), operation.status());
        info.short.timestamp = operation.changed_at;
        info.short.error.clone_from(&operation.error);
        info.short.attempt_count = operation.n_attempts;
        info.short.priority_pin = operation.is_priority;
        info
    }
}
