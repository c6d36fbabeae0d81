//! A pin: an item of the pinset.

use super::{Cid, PeerId, PinOptions};
use crate::go::time::Time;

/// What a pin stands for (the reference's in-memory bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PinType {
    /// Never valid.
    Bad,
    /// Ordinary content.
    #[default]
    Data,
    /// The root of a sharded add.
    Meta,
    /// The index of shards.
    ClusterDag,
    /// One shard.
    Shard,
}

/// A union of pin types, used as a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinTypes(
    /// Bits 2 data, 4 meta, 8 cluster DAG, 16 shard.
    pub u64,
);

/// How deep a pin goes: -1 recursive, 0 direct, 1 and 2 shards.
pub type PinDepth = i64;

/// An item of the pinset.
#[derive(Debug, Clone)]
pub struct Pin {
    /// What the submitter chose.
    pub options: PinOptions,
    /// The content.
    pub cid: Cid,
    /// What the pin stands for.
    pub pin_type: PinType,
    /// Peers that must hold it; empty with factors -1 is everywhere. `None` prints `null`.
    pub allocations: Option<Vec<PeerId>>,
    /// See [`PinDepth`].
    pub max_depth: PinDepth,
    /// The CID a meta, cluster DAG or shard pin refers to.
    pub reference: Option<Cid>,
    /// When it was submitted.
    pub timestamp: Time,
}
