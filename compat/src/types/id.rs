//! Who a peer is.

use super::{Multiaddr, PeerId};

/// A daemon, as its peer sees it.
#[derive(Debug, Clone, Default)]
pub struct IpfsId {
    /// Its peer id, when it answered.
    pub id: Option<PeerId>,
    /// Its addresses; `None` prints `null`.
    pub addresses: Option<Vec<Multiaddr>>,
    /// Why it did not answer.
    pub error: String,
}

/// A cluster peer.
#[derive(Debug, Clone, Default)]
pub struct Id {
    /// Its peer id; `None` prints `""`.
    pub id: Option<PeerId>,
    /// Listen addresses with `/p2p/<id>`; `None` prints `null`.
    pub addresses: Option<Vec<Multiaddr>>,
    /// The current members, itself included; `None` prints `null`.
    pub cluster_peers: Option<Vec<PeerId>>,
    /// Known addresses of the other members; `None` prints `null`.
    pub cluster_peers_addresses: Option<Vec<Multiaddr>>,
    /// The version it says it is.
    pub version: String,
    /// Always empty.
    pub commit: String,
    /// Protocol id of calls between peers.
    pub rpc_protocol_version: String,
    /// Why it could not be asked.
    pub error: String,
    /// Its daemon.
    pub ipfs: IpfsId,
    /// Its configured name.
    pub peername: String,
}
