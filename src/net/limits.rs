//! The connection manager: how many connections to keep (spec: wire 1.4).
//!
//! Pure. Above the high-water mark the oldest connections are closed until the low-water mark is reached; young ones
//! and those of protected peers are spared.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use cluster_compat::config;
use cluster_compat::go::size::bytes;
use cluster_compat::types::PeerId;
use libp2p::connection_limits::ConnectionLimits;
use libp2p::swarm::ConnectionId;
use tracing::info;

use super::figures::Limits;

/// Connections that have not finished their handshakes; a flood of them is refused.
const MAX_PENDING_INCOMING: u32 = 128;

/// Connections to one peer. Two are normal when both dial at once.
const MAX_PER_PEER: u32 = 8;

/// Incoming connections that any machine has room for. (Go: `clusterhost.go`, `makeResourceMgr`)
const MIN_INCOMING: u32 = 800;

const MEBIBYTE: u64 = 1 << 20;

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

/// What connections may use; `None` is as much as they want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resources {
    max_connections: Option<u32>,
    max_incoming: Option<u32>,
}

impl Resources {
    /// For whoever watches: what [`hard_limits`] makes of them.
    pub(super) fn limits(self, marks: Marks) -> Limits {
        let floor = floor(marks);
        Limits {
            max_connections: self.max_connections,
            max_incoming: self.max_incoming.map(|limit| limit.max(floor)),
        }
    }

    /// Resolves zeros as the reference does, and says what came of it.
    pub(super) fn new(config: &config::ResourceManager) -> Self {
        if !config.enabled {
            info!(target: "cluster", "go-libp2p Resource Manager DISABLED");
            return Self { max_connections: None, max_incoming: None };
        }
        let max_memory_bytes = match config.memory_limit_bytes {
            0 => (total_memory_bytes() / 4).max(MEBIBYTE),
            limit => limit,
        };
        let max_files = match config.file_descriptors_limit {
            0 => open_files_limit() / 2,
            limit => limit,
        };
        info!(
            target: "cluster",
            "go-libp2p Resource Manager ENABLED: Limits based on max_memory: {}, max_fds: {max_files}",
            bytes(max_memory_bytes)
        );
        Self::of(max_memory_bytes, max_files)
    }

    /// Those of the embedded node, which shares the process with its peer.
    pub(super) fn of_node() -> Self {
        Self::of(total_memory_bytes() / 4, open_files_limit() / 2)
    }

    /// A connection for each file, an incoming one for each mebibyte.
    fn of(max_memory_bytes: u64, max_files: u64) -> Self {
        let count = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            max_connections: Some(count(max_files)),
            max_incoming: Some(count(max_memory_bytes / MEBIBYTE)),
        }
    }
}

/// The hard limits, checked by the swarm before a connection stands. Those of the resources give way to the marks of
/// the connection manager, which trims in an orderly way.
pub(super) fn hard_limits(marks: Marks, resources: Resources) -> ConnectionLimits {
    let limits = resources.limits(marks);
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING_INCOMING))
        .with_max_established_per_peer(Some(MAX_PER_PEER))
        .with_max_established_incoming(limits.max_incoming)
        .with_max_established(limits.max_connections)
}

/// Incoming connections that the marks leave room for in any case.
fn floor(marks: Marks) -> u32 {
    u32::try_from(marks.high.saturating_mul(2)).unwrap_or(u32::MAX).max(MIN_INCOMING)
}

/// Bytes of this machine's memory; unknown ones are plenty.
fn total_memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = text.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    kibibytes.map_or(u64::MAX, |kibibytes| kibibytes * 1024)
}

/// Files this process may open.
fn open_files_limit() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
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
    fn resources_are_resolved_and_give_way_to_the_marks() {
        let off =
            config::ResourceManager { enabled: false, memory_limit_bytes: 1, file_descriptors_limit: 1 };
        assert_eq!(Resources::new(&off), Resources { max_connections: None, max_incoming: None });
        let set = config::ResourceManager {
            enabled: true,
            memory_limit_bytes: 5000 * MEBIBYTE,
            file_descriptors_limit: 300,
        };
        assert_eq!(Resources::new(&set), Resources { max_connections: Some(300), max_incoming: Some(5000) });
        let automatic =
            config::ResourceManager { enabled: true, memory_limit_bytes: 0, file_descriptors_limit: 0 };
        let resolved = Resources::new(&automatic);
        assert!(resolved.max_connections > Some(100) && resolved.max_incoming >= Some(1), "{resolved:?}");
    }

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
