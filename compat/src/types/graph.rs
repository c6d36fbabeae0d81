//! Who is connected to whom.

use std::collections::BTreeMap;

use super::PeerId;

/// The connections of all members, keyed by peer id text.
#[derive(Debug, Clone)]
pub struct ConnectGraph {
    /// The peer that drew it.
    pub cluster_id: PeerId,
    /// Names of the members.
    pub id_to_peername: BTreeMap<String, String>,
    /// Swarm peers of each daemon.
    pub ipfs_links: BTreeMap<String, Vec<PeerId>>,
    /// Members each member reaches.
    pub cluster_links: BTreeMap<String, Vec<PeerId>>,
    /// Whether the drawing peer trusts them.
    pub cluster_trust_links: BTreeMap<String, bool>,
    /// Each member's daemon.
    pub cluster_to_ipfs: BTreeMap<String, PeerId>,
}
