//! `id`, `swarm/peers` and `swarm/connect`.

use cluster_compat::go::query::escape;
use cluster_compat::types::{IpfsId, Multiaddr, PeerId, parse_multiaddr, parse_peer_id};
use tracing::{debug, error, warn};

use super::json::{self, Text};
use super::request::Limit;
use super::{Client, Error};

json::object! {
    /// `id`.
    IdReply {
        id: Text<'a> = "ID",
        addresses: Vec<Text<'a>> = "Addresses",
    }
}

json::object! {
    /// A peer of `swarm/peers`.
    SwarmPeer {
        peer: Text<'a> = "Peer",
    }
}

json::object! {
    /// `swarm/peers`.
    SwarmPeersReply {
        peers: Vec<SwarmPeer<'a>> = "Peers",
    }
}

impl Client {
    /// Who the daemon is. Addresses that cannot be read are left out.
    pub async fn id(&self) -> Result<IpfsId, Error> {
        let body = self.inner.daemon.call("id", self.request_limit()).await?;
        let reply: IdReply<'_> = json::document(&body).map_err(Error::Reply)?;
        let id = parse_peer_id(&reply.id.0).map_err(Error::Reply)?;
        let mut addresses = Vec::with_capacity(reply.addresses.len());
        for text in &reply.addresses {
            match parse_multiaddr(&text.0) {
                Ok(address) => addresses.push(address),
                Err(failure) => {
                    warn!(target: "ipfshttp", "cannot parse IPFS multiaddress: {} ({failure})... ignoring", text.0);
                }
            }
        }
        Ok(IpfsId { id: Some(id), addresses: Some(addresses), error: String::new() })
    }

    /// The peers the daemon is connected to, in its order.
    pub async fn swarm_peers(&self) -> Result<Vec<PeerId>, Error> {
        let body = self.inner.daemon.call("swarm/peers", self.request_limit()).await?;
        let parse = || -> Result<Vec<PeerId>, String> {
            let reply: SwarmPeersReply<'_> = json::document(&body)?;
            reply.peers.iter().map(|peer| parse_peer_id(&peer.peer.0)).collect()
        };
        parse().map_err(|text| {
            error!(target: "ipfshttp", "{text}");
            Error::Reply(text)
        })
    }

    /// Asks the daemon to connect to a peer.
    pub async fn swarm_connect(&self, address: &Multiaddr) -> Result<(), Error> {
        self.connect(address, self.request_limit()).await
    }

    pub(super) async fn connect(&self, address: &Multiaddr, limit: Limit) -> Result<(), Error> {
        let path = format!("swarm/connect?arg={}", escape(&address.to_string()));
        self.inner.daemon.call(&path, limit).await?;
        debug!(target: "ipfshttp", "ipfs successfully connected to {address}");
        Ok(())
    }
}
