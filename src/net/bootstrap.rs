//! First connections, and new ones when there are too few (spec: wire 1.7).
//!
//! Pure: a [`Round`] says whom to dial and is told how that went. It counts peers that are connected already towards
//! its goal, and tries the next candidate for each one that fails.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use cluster_compat::types::PeerId;
use tokio::sync::oneshot;

/// Peers to connect to at the start.
pub(super) const FIRST_PEERS: usize = 3;

/// Pause between looks at the number of connections.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Looks between attempts to have one of the configured peers connected: five minutes.
pub(super) const LOOKS_PER_PRIORITY_ROUND: u64 = 10;

/// Dials of one round at the same time; a big peerstore must not become a storm.
const MAX_DIALS: usize = 16;

/// One attempt to be connected to a number of peers.
#[derive(Debug)]
pub(super) struct Round {
    wanted: usize,
    candidates: VecDeque<PeerId>,
    dialling: HashSet<PeerId>,
    reached: Vec<PeerId>,
    respond_to: Option<oneshot::Sender<Vec<PeerId>>>,
}

impl Round {
    /// `wanted` more connections, out of `candidates` in their order. The answer names those that came about.
    pub(super) fn new(
        wanted: usize,
        candidates: impl IntoIterator<Item = PeerId>,
        respond_to: Option<oneshot::Sender<Vec<PeerId>>>,
    ) -> Self {
        Self {
            wanted,
            candidates: candidates.into_iter().collect(),
            dialling: HashSet::new(),
            reached: Vec::new(),
            respond_to,
        }
    }

    /// The next peer to dial now, if any.
    pub(super) fn next(&mut self) -> Option<PeerId> {
        if self.dialling.len() >= MAX_DIALS || self.reached.len() + self.dialling.len() >= self.wanted {
            return None;
        }
        let peer = self.candidates.pop_front()?;
        self.dialling.insert(peer);
        Some(peer)
    }

    /// A dial ended. Tells whether the round had asked for it.
    pub(super) fn on_ended(&mut self, peer: &PeerId, is_connected: bool) -> bool {
        let was_ours = self.dialling.remove(peer);
        if was_ours && is_connected {
            self.reached.push(*peer);
        }
        was_ours
    }

    /// Whether nothing is left to do; answers whoever waits.
    pub(super) fn is_done(&mut self) -> bool {
        let is_done =
            self.dialling.is_empty() && (self.reached.len() >= self.wanted || self.candidates.is_empty());
        if is_done && let Some(respond_to) = self.respond_to.take() {
            // an asker who left is no error
            let _ = respond_to.send(std::mem::take(&mut self.reached));
        }
        is_done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_dial_is_replaced_by_the_next_candidate() {
        let peers: Vec<PeerId> = (0..4).map(|_| PeerId::random()).collect();
        let (tx, mut rx) = oneshot::channel();
        let mut round = Round::new(2, peers.clone(), Some(tx));
        assert_eq!((round.next(), round.next(), round.next()), (Some(peers[0]), Some(peers[1]), None));
        assert!(round.on_ended(&peers[0], false));
        assert_eq!(round.next(), Some(peers[2]));
        assert!(!round.on_ended(&peers[3], true));
        assert!(round.on_ended(&peers[2], true));
        assert!(!round.is_done());
        assert!(round.on_ended(&peers[1], true));
        assert!(round.is_done());
        assert_eq!(rx.try_recv().unwrap(), [peers[2], peers[1]]);
    }

    #[test]
    fn a_round_without_candidates_is_done_at_once() {
        let (tx, mut rx) = oneshot::channel();
        let mut round = Round::new(3, [], Some(tx));
        assert_eq!(round.next(), None);
        assert!(round.is_done());
        assert_eq!(rx.try_recv().unwrap(), []);
    }
}
