//! Statuses of a pin on a peer.

/// One status or a union of them: bit flags whose values travel between peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TrackerStatus(
    /// The bits (spec: core 1.3).
    pub u64,
);

impl TrackerStatus {
    /// Unknown; as a filter, everything.
    pub const UNDEFINED: Self = Self(0);
    /// The peer or its daemon could not be asked.
    pub const CLUSTER_ERROR: Self = Self(2);
    /// Pinning failed.
    pub const PIN_ERROR: Self = Self(4);
    /// Unpinning failed.
    pub const UNPIN_ERROR: Self = Self(8);
    /// Any of the three errors.
    pub const ERROR: Self = Self(14);
    /// The daemon holds it.
    pub const PINNED: Self = Self(16);
    /// The daemon is fetching it.
    pub const PINNING: Self = Self(32);
    /// The daemon is unpinning it.
    pub const UNPINNING: Self = Self(64);
    /// Not in the pinset.
    pub const UNPINNED: Self = Self(128);
    /// Allocated to other peers.
    pub const REMOTE: Self = Self(256);
    /// Waiting for a pin worker.
    pub const PIN_QUEUED: Self = Self(512);
    /// Waiting for the unpin worker.
    pub const UNPIN_QUEUED: Self = Self(1024);
    /// Either queue.
    pub const QUEUED: Self = Self(1536);
    /// Held as shards.
    pub const SHARDED: Self = Self(2048);
    /// The daemon should hold it and does not.
    pub const UNEXPECTEDLY_UNPINNED: Self = Self(4096);
}
