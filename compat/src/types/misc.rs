//! Small answers: version, garbage collection, alerts, bandwidth, repository sizes.

use std::collections::BTreeMap;

use super::{Cid, Metric, PeerId};
use crate::go::time::Time;

/// The version a peer says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// `1.1.6`.
    pub version: String,
}

/// A metric that stopped.
#[derive(Debug, Clone)]
pub struct Alert {
    /// Its last sample.
    pub metric: Metric,
    /// When this peer noticed.
    pub triggered_at: Time,
}

/// Traffic of one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bandwidth {
    /// Bytes received.
    pub total_in: i64,
    /// Bytes sent.
    pub total_out: i64,
    /// Bytes a second received.
    pub rate_in: f64,
    /// Bytes a second sent.
    pub rate_out: f64,
}

/// Traffic by libp2p protocol id.
pub type Bandwidths = BTreeMap<String, Bandwidth>;

/// One step of a garbage collection.
#[derive(Debug, Clone)]
pub struct RepoGcKey {
    /// The removed block; `None` prints `null`.
    pub key: Option<Cid>,
    /// Why it could not be removed.
    pub error: String,
}

/// A garbage collection on one peer.
#[derive(Debug, Clone)]
pub struct RepoGc {
    /// The peer.
    pub peer: PeerId,
    /// Its name.
    pub peername: String,
    /// Steps; `None` prints `null`.
    pub keys: Option<Vec<RepoGcKey>>,
    /// Why it failed as a whole.
    pub error: String,
}

/// A garbage collection on all peers, keyed by peer id text.
#[derive(Debug, Clone, Default)]
pub struct GlobalRepoGc {
    /// By peer.
    pub peer_map: BTreeMap<String, RepoGc>,
}

/// Size of a daemon's repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IpfsRepoStat {
    /// Bytes used.
    pub repo_size: u64,
    /// Bytes allowed; 18446744073709551615 is "no limit".
    pub storage_max: u64,
}

/// A finished block on its way to a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its CID.
    pub cid: Cid,
    /// Its bytes.
    pub data: bytes::Bytes,
}
