//! What peers say about one CID.

use std::collections::BTreeMap;

use super::{Cid, Multiaddr, PeerId, TrackerStatus};
use crate::go::time::Time;

/// One peer's view of a CID without what the pin itself says.
#[derive(Debug, Clone)]
pub struct PinInfoShort {
    /// Configured name of the peer.
    pub peername: String,
    /// Its daemon, when known.
    pub ipfs_peer_id: Option<PeerId>,
    /// Its daemon's addresses, when known.
    pub ipfs_peer_addresses: Vec<Multiaddr>,
    /// Where the CID stands there.
    pub status: TrackerStatus,
    /// Of the last change.
    pub timestamp: Time,
    /// Why it failed.
    pub error: String,
    /// Attempts so far.
    pub attempt_count: u64,
    /// Whether it waits in the priority queue.
    pub priority_pin: bool,
}

/// One peer's view of a CID.
#[derive(Debug, Clone)]
pub struct PinInfo {
    /// The content.
    pub cid: Cid,
    /// Name of the pin.
    pub name: String,
    /// The peer that says so.
    pub peer: PeerId,
    /// Of the pin; `None` prints `null`.
    pub allocations: Option<Vec<PeerId>>,
    /// Of the pin; `None` prints `null`.
    pub origins: Option<Vec<Multiaddr>>,
    /// The pin's timestamp.
    pub created: Time,
    /// Of the pin; `None` prints `null`.
    pub metadata: Option<BTreeMap<String, String>>,
    /// The peer's own part.
    pub short: PinInfoShort,
}

/// All peers' views of a CID.
#[derive(Debug, Clone)]
pub struct GlobalPinInfo {
    /// The content; `None` before the first merge.
    pub cid: Option<Cid>,
    /// Name of the pin.
    pub name: String,
    /// Of the pin; `None` prints `null`.
    pub allocations: Option<Vec<PeerId>>,
    /// Of the pin; `None` prints `null`.
    pub origins: Option<Vec<Multiaddr>>,
    /// The pin's timestamp.
    pub created: Time,
    /// Of the pin; `None` prints `null`.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Views by peer; printed with base58 keys in byte order of the text.
    pub peer_map: BTreeMap<String, PinInfoShort>,
}
