//! Pin options, and how they are read from a query string.

use std::collections::BTreeMap;

use super::{Cid, Multiaddr, PeerId};
use crate::go::time::Time;

/// How much of a DAG a pin holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PinMode {
    /// The whole DAG.
    #[default]
    Recursive,
    /// The root block alone.
    Direct,
}

/// What the submitter of a pin can choose.
#[derive(Debug, Clone, Default)]
pub struct PinOptions {
    /// Fewest copies; -1 everywhere, 0 the peer's default.
    pub replication_factor_min: i64,
    /// Most copies; -1 everywhere, 0 the peer's default.
    pub replication_factor_max: i64,
    /// Free text.
    pub name: String,
    /// Recursive or direct.
    pub mode: PinMode,
    /// Bytes per shard of a sharded add.
    pub shard_size: u64,
    /// Peers to prefer in one allocation run; `None` prints `null`. Never stored.
    pub user_allocations: Option<Vec<PeerId>>,
    /// When the pin expires; the zero time is never.
    pub expire_at: Time,
    /// Free key-value pairs; `None` prints `null`.
    pub metadata: Option<BTreeMap<String, String>>,
    /// The pin this one was copied from.
    pub pin_update: Option<Cid>,
    /// Peers that hold the content; `None` prints `null`.
    pub origins: Option<Vec<Multiaddr>>,
}
