//! What peers say about one CID.

use std::collections::BTreeMap;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::addr::{AddrsJson, deserialize_addrs};
use super::cid::{CidJson, deserialize_cid};
use super::misc::or_default;
use super::peer::{PeerJson, PeersJson, deserialize_peer, deserialize_peers, with_peer_text};
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
#[derive(Debug, Clone, Default, Deserialize)]
pub struct GlobalPinInfo {
    /// The content; `None` before the first merge.
    #[serde(default, deserialize_with = "deserialize_cid")]
    pub cid: Option<Cid>,
    /// Name of the pin.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// Of the pin; `None` prints `null`.
    #[serde(default, deserialize_with = "deserialize_peers")]
    pub allocations: Option<Vec<PeerId>>,
    /// Of the pin; `None` prints `null`.
    #[serde(default, deserialize_with = "deserialize_addrs")]
    pub origins: Option<Vec<Multiaddr>>,
    /// The pin's timestamp.
    #[serde(default, deserialize_with = "or_default")]
    pub created: Time,
    /// Of the pin; `None` prints `null`.
    #[serde(default)]
    pub metadata: Option<BTreeMap<String, String>>,
    /// Views by peer; printed with base58 keys in byte order of the text.
    #[serde(default, deserialize_with = "or_default")]
    pub peer_map: PeerMap,
}

/// Views by the text of their peers, in byte order. A list: nearly all are short, and the nodes of a tree have room for
/// eleven, which is 2.5 KB for each pin of a listing.
#[derive(Debug, Clone, Default)]
pub struct PeerMap(Vec<(String, PinInfoShort)>);

impl PeerMap {
    /// The view of a peer.
    pub fn get(&self, peer: &str) -> Option<&PinInfoShort> {
        self.place(peer).ok().map(|at| &self.0[at].1)
    }

    /// Whether a peer has a view.
    pub fn contains_key(&self, peer: &str) -> bool {
        self.place(peer).is_ok()
    }

    /// Puts a view in its place, for another one of that peer if there is one.
    pub fn insert(&mut self, peer: String, short: PinInfoShort) {
        match self.place(&peer) {
            Ok(at) => self.0[at].1 = short,
            Err(at) => {
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, (peer, short));
            }
        }
    }

    /// Peers and views.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &PinInfoShort)> {
        self.0.iter().map(|(peer, short)| (peer, short))
    }

    /// The views.
    pub fn values(&self) -> impl Iterator<Item = &PinInfoShort> {
        self.0.iter().map(|(_, short)| short)
    }

    /// The views, without their peers.
    pub fn into_values(self) -> impl Iterator<Item = PinInfoShort> {
        self.0.into_iter().map(|(_, short)| short)
    }

    /// Keeps the views that `wanted` says.
    pub fn retain(&mut self, mut wanted: impl FnMut(&str, &PinInfoShort) -> bool) {
        self.0.retain(|(peer, short)| wanted(peer, short));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn place(&self, peer: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.as_str().cmp(peer))
    }
}

impl Serialize for PeerMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for PeerMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let views = BTreeMap::<String, PinInfoShort>::deserialize(deserializer)?;
        Ok(Self(views.into_iter().collect()))
    }
}

impl PinInfo {
    /// What all peers say, with this one as the only peer.
    pub fn into_global(self) -> GlobalPinInfo {
        let mut global = GlobalPinInfo::default();
        global.add(self);
        global
    }
}

impl GlobalPinInfo {
    /// Takes in the view of one more peer. What it says about the pin itself wins, unless it failed to say
    /// anything and the pin is already known (spec: core 1.4).
    pub fn add(&mut self, info: PinInfo) {
        if self.cid.is_none() || !info.short.status.matches(TrackerStatus::CLUSTER_ERROR) {
            self.cid = Some(info.cid);
            self.name = info.name;
            self.allocations = info.allocations;
            self.origins = info.origins;
            self.created = info.created;
            self.metadata = info.metadata;
        }
        self.add_view(&info.peer, info.short);
    }

    /// Takes in the view of one more peer, and nothing of what it says about the pin itself.
    pub fn add_view(&mut self, peer: &PeerId, short: PinInfoShort) {
        self.peer_map.insert(with_peer_text(peer, str::to_owned), short);
    }

    /// Whether any peer's status is wanted by a filter.
    pub fn matches(&self, filter: TrackerStatus) -> bool {
        filter == TrackerStatus::UNDEFINED || self.peer_map.values().any(|short| short.status.matches(filter))
    }
}

impl Serialize for PinInfoShort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("PinInfoShort", 8)?;
        out.serialize_field("peername", &self.peername)?;
        if self.ipfs_peer_id.is_some() {
            out.serialize_field("ipfs_peer_id", &PeerJson(self.ipfs_peer_id.as_ref()))?;
        }
        if !self.ipfs_peer_addresses.is_empty() {
            out.serialize_field("ipfs_peer_addresses", &AddrsJson(Some(&self.ipfs_peer_addresses)))?;
        }
        out.serialize_field("status", &self.status)?;
        out.serialize_field("timestamp", &self.timestamp)?;
        out.serialize_field("error", &self.error)?;
        out.serialize_field("attempt_count", &self.attempt_count)?;
        out.serialize_field("priority_pin", &self.priority_pin)?;
        out.end()
    }
}

#[derive(Deserialize)]
struct PinInfoShortJson {
    #[serde(default, deserialize_with = "or_default")]
    peername: String,
    #[serde(default, deserialize_with = "deserialize_peer")]
    ipfs_peer_id: Option<PeerId>,
    #[serde(default, deserialize_with = "deserialize_addrs")]
    ipfs_peer_addresses: Option<Vec<Multiaddr>>,
    #[serde(default, deserialize_with = "or_default")]
    status: TrackerStatus,
    #[serde(default, deserialize_with = "or_default")]
    timestamp: Time,
    #[serde(default, deserialize_with = "or_default")]
    error: String,
    #[serde(default, deserialize_with = "or_default")]
    attempt_count: u64,
    #[serde(default, deserialize_with = "or_default")]
    priority_pin: bool,
}

impl<'de> Deserialize<'de> for PinInfoShort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = PinInfoShortJson::deserialize(deserializer)?;
        Ok(Self {
            peername: json.peername,
            ipfs_peer_id: json.ipfs_peer_id,
            ipfs_peer_addresses: json.ipfs_peer_addresses.unwrap_or_default(),
            status: json.status,
            timestamp: json.timestamp,
            error: json.error,
            attempt_count: json.attempt_count,
            priority_pin: json.priority_pin,
        })
    }
}

impl Serialize for GlobalPinInfo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("GlobalPinInfo", 7)?;
        out.serialize_field("cid", &CidJson(self.cid.as_ref()))?;
        out.serialize_field("name", &self.name)?;
        out.serialize_field("allocations", &PeersJson(self.allocations.as_deref()))?;
        out.serialize_field("origins", &AddrsJson(self.origins.as_deref()))?;
        out.serialize_field("created", &self.created)?;
        out.serialize_field("metadata", &self.metadata)?;
        out.serialize_field("peer_map", &self.peer_map)?;
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go::json;
    use crate::types::{parse_cid, parse_peer_id};

    const PEER: &str = "12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt";

    fn info(status: TrackerStatus, name: &str) -> Result<PinInfo, String> {
        Ok(PinInfo {
            cid: parse_cid("QmP63DkAFEnDYNjDYBpyNDfttu1fvUw99x1brscPzpqmmq")?,
            name: name.into(),
            peer: parse_peer_id(PEER)?,
            allocations: Some(vec![]),
            origins: None,
            created: Time::from_unix(1, 0),
            metadata: None,
            short: PinInfoShort {
                peername: "cluster0".into(),
                ipfs_peer_id: None,
                ipfs_peer_addresses: vec![],
                status,
                timestamp: Time::ZERO,
                error: String::new(),
                attempt_count: 0,
                priority_pin: false,
            },
        })
    }

    #[test]
    fn a_row_that_failed_does_not_erase_what_is_known_of_the_pin() -> Result<(), String> {
        let mut global = info(TrackerStatus::CLUSTER_ERROR, "first")?.into_global();
        assert_eq!(global.name, "first");
        global.add(info(TrackerStatus::PINNED, "second")?);
        assert_eq!(global.name, "second");
        global.add(info(TrackerStatus::CLUSTER_ERROR, "third")?);
        assert_eq!(global.name, "second");
        assert_eq!(global.peer_map.len(), 1);
        assert!(global.matches(TrackerStatus::ERROR) && !global.matches(TrackerStatus::PINNED));
        Ok(())
    }

    #[test]
    fn documents_of_the_reference_survive_a_round_trip() {
        let text = r#"{"cid":"QmP63DkAFEnDYNjDYBpyNDfttu1fvUw99x1brscPzpqmmq","name":"hello","allocations":[],"origins":[],"created":"2026-05-01T10:00:00Z","metadata":{"k":"v"},"peer_map":{"12D3KooWGHTKzeT4KaLGLrbKKyT8zKrBPXAUBRzCAN6ZMDMo4M6M":{"peername":"cluster0","ipfs_peer_id":"12D3KooWKuJ8LPTyHbyX4nt4C7uWmUobzFsiceTVoFw7HpmoNakM","ipfs_peer_addresses":["/ip4/172.18.0.2/tcp/4001/p2p/12D3KooWKuJ8LPTyHbyX4nt4C7uWmUobzFsiceTVoFw7HpmoNakM"],"status":"pinned","timestamp":"2026-05-01T10:00:00Z","error":"","attempt_count":0,"priority_pin":false},"QmUZ13osndQ5uL4tPWHXe3iBgBgq9gfewcBMSCAuMBsDJ6":{"peername":"","status":"unexpectedly_unpinned","timestamp":"2026-05-01T10:00:00.5Z","error":"x","attempt_count":3,"priority_pin":true}}}"#;
        match serde_json::from_str::<GlobalPinInfo>(text) {
            Ok(info) => assert_eq!(json::to_string(&info), text),
            Err(error) => panic!("{error}"),
        }
    }
}
