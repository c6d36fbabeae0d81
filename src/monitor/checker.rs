//! Which metrics have stopped, and which of them deserve an alert now.

use std::collections::HashMap;

use cluster_compat::go::time::Time;
use cluster_compat::types::{Alert, PeerId};

use super::peers::Peers;
use super::window::{Window, is_expired};

/// Failures of one metric after which it may alert again: 75 minutes of checks every 15 s.
const N_FAILURES_UNTIL_AGAIN: u32 = 300;

/// How often each metric of each peer was found expired since it was last good.
#[derive(Debug, Default)]
pub(super) struct Checker {
    failures: HashMap<(PeerId, String), u32>,
}

impl Checker {
    /// A good sample arrived: its next failure is news again.
    pub(super) fn reset(&mut self, peer: &PeerId, name: &str) {
        if !self.failures.is_empty() {
            self.failures.remove(&(*peer, name.to_owned()));
        }
    }

    /// Forgets the failures of a peer.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.failures.retain(|(failed, _), _| failed != peer);
    }

    /// One round. With `members` only theirs are looked at. `emit` takes an alert, or answers false when there is
    /// no room: then the round ends, and the alert comes in the next.
    pub(super) fn check(
        &mut self,
        peers: &Peers,
        members: Option<&[PeerId]>,
        now: Time,
        mut emit: impl FnMut(Alert) -> bool,
    ) {
        for (name, peer, window) in peers.windows() {
            if !is_expired(window.latest(), now.unix_nanos()) || !window.is_received() {
                continue;
            }
            // with a fixed set of members every stored sample counts, and an invalid one fails too; without, one
            // failure a round (Go: `monitor/metrics/checker.go`, CheckPeers and CheckAll)
            let n_failures = match members {
                Some(members) if members.contains(peer) => window.n_samples(),
                Some(_) => 0,
                None => u32::from(window.latest().valid),
            };
            for _ in 0..n_failures {
                if !self.fail(name, peer, window, now, &mut emit) {
                    return;
                }
            }
        }
    }

    /// Counts a failure; false when an alert was due and could not be sent.
    fn fail(
        &mut self,
        name: &str,
        peer: &PeerId,
        window: &Window,
        now: Time,
        emit: &mut impl FnMut(Alert) -> bool,
    ) -> bool {
        let key = (*peer, name.to_owned());
        let failures = self.failures.get(&key).copied().unwrap_or(0) + 1;
        if failures == 1 && !emit(Alert { metric: window.latest().clone(), triggered_at: now }) {
            return false;
        }
        if failures >= N_FAILURES_UNTIL_AGAIN {
            self.failures.remove(&key);
        } else {
            self.failures.insert(key, failures);
        }
        true
    }
}
