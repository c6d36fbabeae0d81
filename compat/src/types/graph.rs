//! Who is connected to whom.

use std::collections::BTreeMap;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use super::PeerId;
use super::misc::or_default;
use super::peer::{PeerJson, PeerText, PeersJson, deserialize_some_peer};

/// The connections of all members, keyed by peer id text.
#[derive(Debug, Clone, Deserialize)]
pub struct ConnectGraph {
    /// The peer that drew it.
    #[serde(deserialize_with = "deserialize_some_peer")]
    pub cluster_id: PeerId,
    /// Names of the members.
    #[serde(default, deserialize_with = "or_default")]
    pub id_to_peername: BTreeMap<String, String>,
    /// Swarm peers of each daemon.
    #[serde(default, deserialize_with = "deserialize_links")]
    pub ipfs_links: BTreeMap<String, Vec<PeerId>>,
    /// Members each member reaches.
    #[serde(default, deserialize_with = "deserialize_links")]
    pub cluster_links: BTreeMap<String, Vec<PeerId>>,
    /// Whether the drawing peer trusts them.
    #[serde(default, deserialize_with = "or_default")]
    pub cluster_trust_links: BTreeMap<String, bool>,
    /// Each member's daemon.
    #[serde(default, deserialize_with = "deserialize_daemons")]
    pub cluster_to_ipfs: BTreeMap<String, PeerId>,
}

/// Peers by a peer's text.
struct LinksJson<'a>(&'a BTreeMap<String, Vec<PeerId>>);

impl Serialize for LinksJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(peer, links)| (peer, PeersJson(Some(links)))))
    }
}

/// A peer by a peer's text.
struct DaemonsJson<'a>(&'a BTreeMap<String, PeerId>);

impl Serialize for DaemonsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(peer, daemon)| (peer, PeerJson(Some(daemon)))))
    }
}

impl Serialize for ConnectGraph {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("ConnectGraph", 6)?;
        out.serialize_field("cluster_id", &PeerJson(Some(&self.cluster_id)))?;
        out.serialize_field("id_to_peername", &self.id_to_peername)?;
        out.serialize_field("ipfs_links", &LinksJson(&self.ipfs_links))?;
        out.serialize_field("cluster_links", &LinksJson(&self.cluster_links))?;
        out.serialize_field("cluster_trust_links", &self.cluster_trust_links)?;
        out.serialize_field("cluster_to_ipfs", &DaemonsJson(&self.cluster_to_ipfs))?;
        out.end()
    }
}

fn deserialize_links<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Vec<PeerId>>, D::Error> {
    let links = Option::<BTreeMap<String, Option<Vec<PeerText>>>>::deserialize(deserializer)?;
    let peers =
        |peers: Option<Vec<PeerText>>| peers.unwrap_or_default().into_iter().map(|peer| peer.0).collect();
    Ok(links.unwrap_or_default().into_iter().map(|(peer, links)| (peer, peers(links))).collect())
}

fn deserialize_daemons<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, PeerId>, D::Error> {
    let daemons = Option::<BTreeMap<String, PeerText>>::deserialize(deserializer)?;
    Ok(daemons.unwrap_or_default().into_iter().map(|(peer, daemon)| (peer, daemon.0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go::json;

    #[test]
    fn documents_of_the_reference_survive_a_round_trip() {
        let peer = "12D3KooWGHTKzeT4KaLGLrbKKyT8zKrBPXAUBRzCAN6ZMDMo4M6M";
        let ipfs = "12D3KooWKuJ8LPTyHbyX4nt4C7uWmUobzFsiceTVoFw7HpmoNakM";
        let text = format!(
            r#"{{"cluster_id":"{peer}","id_to_peername":{{"{peer}":"cluster0"}},"ipfs_links":{{"{ipfs}":[]}},"cluster_links":{{"{peer}":["{ipfs}"]}},"cluster_trust_links":{{"{peer}":true}},"cluster_to_ipfs":{{"{peer}":"{ipfs}"}}}}"#
        );
        match serde_json::from_str::<ConnectGraph>(&text) {
            Ok(graph) => assert_eq!(json::to_string(&graph), text),
            Err(error) => panic!("{error}"),
        }
    }
}
