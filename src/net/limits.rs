//! The connection manager: how many connections to keep (spec: wire 1.4).
//!
//! Pure. Above the high-water mark the oldest connections are closed until the low-water mark is reached; young ones
//! and those of protected peers are spared.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use cluster_compat::types::PeerId;
use libp2p::connection_limits::ConnectionLimits;
use libp2p::swarm::ConnectionId;

/// Connections that have not finished their handshakes; a flood of them is refused.
const MAX_PENDING_INCOMING: u32 = 128;

/// Connections to one peer. Two are normal when both dial at once.
const MAX_PER_PEER: u32 = 8;

/// Marks and grace of the connection manager.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    /// More than this is too many.
    pub(super) high: usize,
    /// Trimmed down to this.
    pub(super) low: usize,
    /// Younger connections are spared.
    pub(super) grace: Duration,
}

/// The hard limits, checked by the swarm before a connection stands.
pub(super) fn hard_limits() -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING_INCOMING))
        .with_max_established_per_peer(Some(MAX_PER_PEER))
}

/// The connections that stand.
#[derive(Debug, Default)]
pub(super) struct Connections {
    by_id: HashMap<ConnectionId, (PeerId, Instant)>,
}

impl Connections {
    /// A connection stands.
    pub(super) fn opened(&mut self, id: ConnectionId, peer: PeerId, now: Instant) {
        self.by_id.insert(id, (peer, now));
    }

    /// A connection ended.
    pub(super) fn closed(&mut self, id: ConnectionId) {
        self.by_id.remove(&id);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Those to close now, oldest first.
    pub(super) fn excess(
        &self,
        marks: Marks,
        protected: &HashSet<PeerId>,
        now: Instant,
    ) -> Vec<ConnectionId> {
        if self.by_id.len() <= marks.high {
            return Vec::new();
        }
        let is_spared = |peer: &PeerId, since: Instant| {
            protected.contains(peer) || now.duration_since(since) < marks.grace
        };
        let mut candidates: Vec<(Instant, ConnectionId)> = self
            .by_id
            .iter()
            .filter(|(_, (peer, since))| !is_spared(peer, *since))
            .map(|(id, (_, since))| (*since, *id))
            .collect();
        candidates.sort_unstable();
        candidates.truncate(self.by_id.len() - marks.low);
        candidates.into_iter().map(|(_, id)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_unprotected_connections_go_first() {
        let start = Instant::now();
        let peers: Vec<PeerId> = (0..6).map(|_| PeerId::random()).collect();
        let mut connections = Connections::default();
        for (i, peer) in peers.iter().enumerate() {
            connections.opened(ConnectionId::new_unchecked(i), *peer, start + Duration::from_secs(i as u64));
        }
        let marks = Marks { high: 5, low: 3, grace: Duration::from_secs(10) };
        let protected = HashSet::from([peers[0]]);
        let excess = |now| connections.excess(marks, &protected, now);
        assert!(excess(start + Duration::from_secs(10)).is_empty());
        let ids = [1, 2, 3].map(ConnectionId::new_unchecked);
        assert_eq!(excess(start + Duration::from_secs(60)), ids);
        connections.closed(ConnectionId::new_unchecked(5));
        assert!(connections.excess(marks, &protected, start + Duration::from_secs(60)).is_empty());
    }
}
