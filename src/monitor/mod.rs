//! Metrics that peers tell about themselves: the newest of each, and alerts when one stops.
//!
//! ```text
//!   publish ──┬─► windows (name, peer) ◄── gossip, if the signer is the peer it speaks of
//!             └─► gossip         │
//!                                └─► checker, every check_interval ─► alerts
//! ```
//!
//! What is known of a peer lies in one table behind one lock; every question is a lookup. [`window`], [`peers`] and
//! [`checker`] are pure: the time is an argument. Expiry is by the sender's clock; one that is off is named ([`clock`]).
//!
//! Absences: nothing is stored on disk; no peer is asked for anything; a metric that names another peer than its
//! signer is dropped.

mod checker;
mod clock;
mod peers;
mod publish;
#[cfg(test)]
mod tests;
mod window;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cluster_compat::config::Pubsubmon;
use cluster_compat::go::time::{Duration, Time};
use cluster_compat::types::{Alert, Metric, PeerId};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing::{debug, error, info, warn};

use self::checker::Checker;
use self::clock::{Clock, Verdict};
use self::peers::Peers;
use self::window::{Window, is_discarded};
use crate::net;
use crate::task::Tasks;

/// Name of the metric that makes a peer a member (Go: `monitor/metrics`, `cluster.go`).
pub const PING: &str = "ping";

/// Alerts that may wait to be handled (Go: `monitor/metrics/checker.go`, AlertChannelCap): the capacity for the
/// channel given to [`MonitorArgs`].
pub const ALERTS_CAPACITY: usize = 256;

/// Why the monitor could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The topic could not be joined.
    #[error("joining the topic of metrics: {0}")]
    Network(#[from] net::Error),
}

/// The fixed members of a cluster that has such (raft).
pub type Members = Arc<dyn Fn() -> Vec<PeerId> + Send + Sync>;

/// What a monitor needs.
pub struct MonitorArgs {
    /// Section `monitor.pubsubmon`.
    pub config: Pubsubmon,
    /// This peer.
    pub peer: PeerId,
    /// The swarm; `None` keeps metrics to ourselves.
    pub network: Option<net::Network>,
    /// Takes alerts; of capacity [`ALERTS_CAPACITY`]. One that finds no room comes again with the next check.
    pub alerts: mpsc::Sender<Alert>,
    /// The fixed members under raft, whose metrics alone count; `None` lets every peer count.
    pub members: Option<Members>,
    /// Runs the checks.
    pub tasks: Tasks,
}

/// A handle on the monitor; clones share it.
#[derive(Clone)]
pub struct Monitor {
    shared: Arc<Shared>,
}

struct Shared {
    peer: PeerId,
    network: Option<net::Network>,
    alerts: mpsc::Sender<Alert>,
    members: Option<Members>,
    /// Taken by everyone who asks, by every metric that arrives and by each check; never held over an await.
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    peers: Peers,
    checker: Checker,
    /// Of each peer that pings.
    clocks: HashMap<PeerId, Clock>,
}

impl Monitor {
    /// Joins the topic and starts the checks.
    pub fn start(args: MonitorArgs) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            peer: args.peer,
            network: args.network,
            alerts: args.alerts,
            members: args.members,
            known: Mutex::default(),
        });
        publish::subscribe(&shared, &args.tasks)?;
        let checked = Arc::clone(&shared);
        args.tasks.every("monitor checks", args.config.check_interval.to_std(), false, move || {
            checked.check(Time::now());
            std::future::ready(())
        });
        Ok(Self { shared })
    }

    /// Of each peer the newest metric of a name, unless that one is invalid or expired; sorted by peer id.
    pub fn latest_valid(&self, name: &str) -> Vec<Metric> {
        let mut metrics = self.shared.lock().peers.latest_valid(name, Time::now().unix_nanos());
        if let Some(members) = &self.shared.members {
            let members = members();
            metrics.retain(|metric| metric.peer.is_some_and(|peer| members.contains(&peer)));
        }
        metrics
    }

    /// The newest metric of a name and peer, expired or not.
    pub fn latest_of(&self, name: &str, peer: &PeerId) -> Option<Metric> {
        self.shared.lock().peers.latest_of(name, peer).map(Window::latest).cloned()
    }

    /// Every name ever seen, sorted.
    pub fn names(&self) -> Vec<String> {
        self.shared.lock().peers.names()
    }

    /// Makes up a ping for a peer we have just met, so that it counts as a member until its own arrives or
    /// `lifetime` is over. No alert is raised when it runs out.
    pub fn assume_alive(&self, peer: PeerId, lifetime: std::time::Duration) {
        let lifetime = i64::try_from(lifetime.as_nanos()).unwrap_or(i64::MAX);
        let metric = Metric {
            name: PING.to_owned(),
            peer: Some(peer),
            value: String::new(),
            expire: Time::now().unix_nanos().saturating_add(lifetime),
            valid: true,
            weight: 0,
            partitionable: false,
            received_at: 0,
        };
        self.shared.store(metric, false, Time::now());
    }

    /// Forgets all metrics of a peer.
    pub fn forget_peer(&self, peer: &PeerId) {
        let mut known = self.shared.lock();
        known.peers.forget(peer);
        known.checker.forget(peer);
        known.clocks.remove(peer);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, mut metric: Metric, is_received: bool, now: Time) {
        metric.received_at = now.unix_nanos();
        let Some(peer) = metric.peer else {
            return warn!(target: "monitor", "a metric without a peer is dropped");
        };
        let (name, expire) = (metric.name.clone(), metric.expire);
        let is_good = !is_discarded(&metric, metric.received_at);
        let mut known = self.lock();
        if let Err(refusal) = known.peers.add(metric, is_received) {
            drop(known);
            warn!(target: "monitor", name, "{refusal}");
            return;
        }
        if is_good {
            known.checker.reset(&peer, &name);
        }
        if name != PING || !is_received || peer == self.peer {
            return;
        }
        let verdict = known.clocks.entry(peer).or_default().on_ping(now.unix_nanos(), expire);
        drop(known);
        if let Some(verdict) = verdict {
            tell_clock(&peer, verdict);
        }
    }

    fn check(&self, now: Time) {
        let members = self.members.as_ref().map(|members| members());
        let known = &mut *self.lock();
        known.checker.check(&known.peers, members.as_deref(), now, |alert| {
            match self.alerts.try_send(alert) {
                Ok(()) => true,
                Err(TrySendError::Full(_)) => {
                    error!(target: "monitor", "alert channel is full");
                    false
                }
                Err(TrySendError::Closed(_)) => {
                    debug!(target: "monitor", "nobody takes alerts any more");
                    false
                }
            }
        });
    }
}

fn tell_clock(peer: &PeerId, verdict: Verdict) {
    match verdict {
        Verdict::Off(by) if by.0 < 0 => warn!(
            target: "monitor",
            "the clock of {peer} is about {} behind ours: its metrics have expired when they arrive, and it is no member",
            Duration(by.0.saturating_abs())
        ),
        Verdict::Off(by) => warn!(
            target: "monitor",
            "the clock of {peer} is about {by} ahead of ours: were it gone, it would be a member for so much longer"
        ),
        Verdict::Right => info!(target: "monitor", "the clock of {peer} agrees with ours again"),
    }
}
