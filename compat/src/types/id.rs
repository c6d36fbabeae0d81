//! Who a peer is.

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use super::addr::{AddrsJson, deserialize_addrs};
use super::misc::or_default;
use super::peer::{PeerJson, PeersJson, deserialize_peer, deserialize_peers};
use super::{Multiaddr, PeerId};

/// A daemon, as its peer sees it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct IpfsId {
    /// Its peer id, when it answered.
    #[serde(deserialize_with = "deserialize_peer")]
    pub id: Option<PeerId>,
    /// Its addresses; `None` prints `null`.
    #[serde(deserialize_with = "deserialize_addrs")]
    pub addresses: Option<Vec<Multiaddr>>,
    /// Why it did not answer.
    #[serde(deserialize_with = "or_default")]
    pub error: String,
}

/// A cluster peer.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Id {
    /// Its peer id; `None` prints `""`.
    #[serde(deserialize_with = "deserialize_peer")]
    pub id: Option<PeerId>,
    /// Listen addresses with `/p2p/<id>`; `None` prints `null`.
    #[serde(deserialize_with = "deserialize_addrs")]
    pub addresses: Option<Vec<Multiaddr>>,
    /// The current members, itself included; `None` prints `null`.
    #[serde(deserialize_with = "deserialize_peers")]
    pub cluster_peers: Option<Vec<PeerId>>,
    /// Known addresses of the other members; `None` prints `null`.
    #[serde(deserialize_with = "deserialize_addrs")]
    pub cluster_peers_addresses: Option<Vec<Multiaddr>>,
    /// The version it says it is.
    #[serde(deserialize_with = "or_default")]
    pub version: String,
    /// Always empty.
    #[serde(deserialize_with = "or_default")]
    pub commit: String,
    /// Protocol id of calls between peers.
    #[serde(deserialize_with = "or_default")]
    pub rpc_protocol_version: String,
    /// Why it could not be asked.
    #[serde(deserialize_with = "or_default")]
    pub error: String,
    /// Its daemon.
    #[serde(deserialize_with = "or_default")]
    pub ipfs: IpfsId,
    /// Its configured name.
    #[serde(deserialize_with = "or_default")]
    pub peername: String,
}

impl Serialize for IpfsId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("IPFSID", 3)?;
        if self.id.is_some() {
            out.serialize_field("id", &PeerJson(self.id.as_ref()))?;
        }
        out.serialize_field("addresses", &AddrsJson(self.addresses.as_deref()))?;
        out.serialize_field("error", &self.error)?;
        out.end()
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("ID", 10)?;
        out.serialize_field("id", &PeerJson(self.id.as_ref()))?;
        out.serialize_field("addresses", &AddrsJson(self.addresses.as_deref()))?;
        out.serialize_field("cluster_peers", &PeersJson(self.cluster_peers.as_deref()))?;
        out.serialize_field("cluster_peers_addresses", &AddrsJson(self.cluster_peers_addresses.as_deref()))?;
        out.serialize_field("version", &self.version)?;
        out.serialize_field("commit", &self.commit)?;
        out.serialize_field("rpc_protocol_version", &self.rpc_protocol_version)?;
        out.serialize_field("error", &self.error)?;
        out.serialize_field("ipfs", &self.ipfs)?;
        out.serialize_field("peername", &self.peername)?;
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go::json;

    #[test]
    fn an_empty_peer_prints_nulls_and_empty_texts() {
        let expected = r#"{"id":"","addresses":null,"cluster_peers":null,"cluster_peers_addresses":null,"version":"","commit":"","rpc_protocol_version":"","error":"","ipfs":{"addresses":null,"error":""},"peername":""}"#;
        assert_eq!(json::to_string(&Id::default()), expected);
    }

    #[test]
    fn documents_of_the_reference_survive_a_round_trip() {
        let text = r#"{"id":"12D3KooWGHTKzeT4KaLGLrbKKyT8zKrBPXAUBRzCAN6ZMDMo4M6M","addresses":["/ip4/127.0.0.1/tcp/9096/p2p/12D3KooWGHTKzeT4KaLGLrbKKyT8zKrBPXAUBRzCAN6ZMDMo4M6M"],"cluster_peers":["12D3KooWGHTKzeT4KaLGLrbKKyT8zKrBPXAUBRzCAN6ZMDMo4M6M"],"cluster_peers_addresses":[],"version":"1.1.6","commit":"","rpc_protocol_version":"/ipfscluster/1.0/rpc","error":"","ipfs":{"id":"12D3KooWKuJ8LPTyHbyX4nt4C7uWmUobzFsiceTVoFw7HpmoNakM","addresses":["/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWKuJ8LPTyHbyX4nt4C7uWmUobzFsiceTVoFw7HpmoNakM"],"error":""},"peername":"cluster0"}"#;
        match serde_json::from_str::<Id>(text) {
            Ok(id) => assert_eq!(json::to_string(&id), text),
            Err(error) => panic!("{error}"),
        }
    }
}
