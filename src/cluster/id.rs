//! Who this peer is (spec: core 15).

use cluster_compat::types::{Id, IpfsId, Multiaddr};

use super::{Cluster, VERSION};
use crate::rpc;

impl Cluster {
    /// Never fails: a daemon that does not answer is said in `ipfs.error`.
    pub(super) async fn own_id(&self) -> Id {
        let inner = &self.inner;
        let ipfs = match inner.ipfs.id().await {
            Ok(id) => id,
            Err(cause) => IpfsId { error: cause.to_string(), ..IpfsId::default() },
        };
        let (members, error) = match inner.consensus.peers().await {
            Ok(members) => (Some(members), String::new()),
            Err(cause) => (None, cause.to_string()),
        };
        let others: Vec<_> = members.iter().flatten().filter(|peer| **peer != inner.peer).copied().collect();
        let addresses = inner.network.listen_addrs();
        let own = libp2p_suffix(inner.peer);
        Id {
            id: Some(inner.peer),
            addresses: Some(addresses.into_iter().map(|addr| addr.with(own.clone())).collect()),
            cluster_peers: members,
            cluster_peers_addresses: Some(inner.network.addrs_of(&others)),
            version: VERSION.into(),
            commit: String::new(),
            rpc_protocol_version: rpc::PROTOCOL.into(),
            error,
            ipfs,
            peername: inner.config.peername.clone(),
        }
    }

    /// This peer's listen addresses with its id.
    pub(super) fn own_addrs(&self) -> Vec<Multiaddr> {
        let own = libp2p_suffix(self.inner.peer);
        self.inner.network.listen_addrs().into_iter().map(|addr| addr.with(own.clone())).collect()
    }
}

fn libp2p_suffix(peer: cluster_compat::types::PeerId) -> libp2p::multiaddr::Protocol<'static> {
    libp2p::multiaddr::Protocol::P2p(peer)
}
