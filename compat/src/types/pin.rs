//! A pin: an item of the pinset.

use std::fmt;

use serde::de::Error as _;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::addr::deserialize_addrs;
use super::cid::{CidJson, deserialize_cid};
use super::misc::or_default;
use super::options::serialize_fields;
use super::peer::{PeersJson, deserialize_peers};
use super::{Cid, Multiaddr, PeerId, PinMode, PinOptions};
use crate::go::time::Time;

/// What a pin stands for (the reference's in-memory bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PinType {
    /// Never valid.
    Bad,
    /// Ordinary content.
    #[default]
    Data,
    /// The root of a sharded add.
    Meta,
    /// The index of shards.
    ClusterDag,
    /// One shard.
    Shard,
}

impl PinType {
    /// Its name in documents and filters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bad => "bad-type",
            Self::Data => "pin",
            Self::Meta => "meta-pin",
            Self::ClusterDag => "clusterdag-pin",
            Self::Shard => "shard-pin",
        }
    }

    /// Its bit in [`PinTypes`].
    pub const fn bit(self) -> u64 {
        match self {
            Self::Bad => 1,
            Self::Data => 2,
            Self::Meta => 4,
            Self::ClusterDag => 8,
            Self::Shard => 16,
        }
    }

    /// The type with a bit; [`PinType::Bad`] for any other number.
    pub const fn from_bit(bit: u64) -> Self {
        match bit {
            2 => Self::Data,
            4 => Self::Meta,
            8 => Self::ClusterDag,
            16 => Self::Shard,
            _ => Self::Bad,
        }
    }

    /// Reads a name; [`PinType::Bad`] for any other text.
    pub fn parse(text: &str) -> Self {
        match text {
            "pin" => Self::Data,
            "meta-pin" => Self::Meta,
            "clusterdag-pin" => Self::ClusterDag,
            "shard-pin" => Self::Shard,
            _ => Self::Bad,
        }
    }
}

impl fmt::Display for PinType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A union of pin types, used as a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinTypes(
    /// Bits 1 bad, 2 data, 4 meta, 8 cluster DAG, 16 shard.
    pub u64,
);

impl PinTypes {
    /// Every type.
    pub const ALL: Self = Self(30);

    /// Whether a pin of this type is wanted.
    pub const fn matches(self, pin_type: PinType) -> bool {
        self.0 == Self::ALL.0 || self.0 & pin_type.bit() != 0
    }

    /// Reads a comma list of type names, not trimmed; `all` and the empty name are all types. `None` if it
    /// holds unknown names alone.
    pub fn parse(text: &str) -> Option<Self> {
        let bits = text.split(',').fold(0, |bits, token| {
            bits | match token {
                "" | "all" => Self::ALL.0,
                token => PinType::parse(token).bit(),
            }
        });
        (bits != PinType::Bad.bit()).then_some(Self(bits))
    }
}

impl Default for PinTypes {
    fn default() -> Self {
        Self::ALL
    }
}

/// The comma list that [`PinTypes::parse`] reads.
impl fmt::Display for PinTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return f.pad("all");
        }
        let types = [PinType::Data, PinType::Meta, PinType::ClusterDag, PinType::Shard];
        let names: Vec<_> =
            types.into_iter().filter(|t| self.0 & t.bit() != 0).map(PinType::as_str).collect();
        f.pad(&names.join(","))
    }
}

/// How deep a pin goes: -1 recursive, 0 direct, 1 and 2 shards.
pub type PinDepth = i64;

/// An item of the pinset.
#[derive(Debug, Clone)]
pub struct Pin {
    /// What the submitter chose.
    pub options: PinOptions,
    /// The content.
    pub cid: Cid,
    /// What the pin stands for.
    pub pin_type: PinType,
    /// Peers that must hold it; empty with factors -1 is everywhere. `None` prints `null`.
    pub allocations: Option<Vec<PeerId>>,
    /// See [`PinDepth`].
    pub max_depth: PinDepth,
    /// The CID a meta, cluster DAG or shard pin refers to.
    pub reference: Option<Cid>,
    /// When it was submitted.
    pub timestamp: Time,
}

impl Pin {
    /// An ordinary recursive pin, submitted now, with no options.
    pub fn new(cid: Cid) -> Self {
        Self::with_options(cid, PinOptions::default())
    }

    /// An ordinary pin, submitted now; its depth is that of its mode.
    pub fn with_options(cid: Cid, options: PinOptions) -> Self {
        Self {
            cid,
            pin_type: PinType::Data,
            allocations: Some(Vec::new()),
            max_depth: options.mode.to_depth(),
            reference: None,
            timestamp: Time::now(),
            options,
        }
    }

    /// Whether every peer must hold it.
    pub fn is_pin_everywhere(&self) -> bool {
        self.options.replication_factor_min == -1 && self.options.replication_factor_max == -1
    }

    /// Whether a peer is not one of those that must hold it.
    pub fn is_remote(&self, peer: &PeerId) -> bool {
        !self.is_pin_everywhere() && !self.allocations.iter().flatten().any(|allocated| allocated == peer)
    }

    /// Whether it has an expiry that lies before `now`.
    pub fn is_expired_at(&self, now: Time) -> bool {
        let at = self.options.expire_at;
        !at.is_zero() && at != Time::from_unix(0, 0) && at < now
    }

    /// Whether two pins are equal as the reference compares them (spec: core 1.1); timestamps do not count.
    pub fn equals(&self, other: &Self) -> bool {
        let sorted = |pin: &Self| {
            let mut peers: Vec<_> = pin.allocations.iter().flatten().copied().collect();
            peers.sort_unstable();
            peers
        };
        self.cid == other.cid
            && self.pin_type == other.pin_type
            && self.max_depth == other.max_depth
            && self.reference == other.reference
            && sorted(self) == sorted(other)
            && self.options.equals(&other.options)
    }
}

impl Serialize for PinType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for PinType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::parse(&std::borrow::Cow::<str>::deserialize(deserializer)?))
    }
}

impl Serialize for Pin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Pin", 16)?;
        serialize_fields(&self.options, &mut out)?;
        out.serialize_field("cid", &CidJson(Some(&self.cid)))?;
        out.serialize_field("type", &self.pin_type)?;
        out.serialize_field("allocations", &PeersJson(self.allocations.as_deref()))?;
        out.serialize_field("max_depth", &self.max_depth)?;
        out.serialize_field("reference", &CidJson(self.reference.as_ref()))?;
        out.serialize_field("timestamp", &self.timestamp)?;
        out.end()
    }
}

/// The document of a pin; whatever is missing or null has its zero value.
#[derive(Deserialize)]
struct PinJson {
    #[serde(default, deserialize_with = "or_default")]
    replication_factor_min: i64,
    #[serde(default, deserialize_with = "or_default")]
    replication_factor_max: i64,
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    mode: PinMode,
    #[serde(default, deserialize_with = "or_default")]
    shard_size: u64,
    #[serde(default, deserialize_with = "deserialize_peers")]
    user_allocations: Option<Vec<PeerId>>,
    #[serde(default, deserialize_with = "or_default")]
    expire_at: Time,
    #[serde(default)]
    metadata: Option<std::collections::BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "deserialize_cid")]
    pin_update: Option<Cid>,
    #[serde(default, deserialize_with = "deserialize_addrs")]
    origins: Option<Vec<Multiaddr>>,
    #[serde(default, deserialize_with = "deserialize_cid")]
    cid: Option<Cid>,
    #[serde(default, rename = "type", deserialize_with = "or_default")]
    pin_type: Option<PinType>,
    #[serde(default, deserialize_with = "deserialize_peers")]
    allocations: Option<Vec<PeerId>>,
    #[serde(default, deserialize_with = "or_default")]
    max_depth: PinDepth,
    #[serde(default, deserialize_with = "deserialize_cid")]
    reference: Option<Cid>,
    #[serde(default, deserialize_with = "or_default")]
    timestamp: Time,
}

impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = PinJson::deserialize(deserializer)?;
        Ok(Self {
            options: PinOptions {
                replication_factor_min: json.replication_factor_min,
                replication_factor_max: json.replication_factor_max,
                name: json.name,
                mode: json.mode,
                shard_size: json.shard_size,
                user_allocations: json.user_allocations,
                expire_at: json.expire_at,
                metadata: json.metadata,
                pin_update: json.pin_update,
                origins: json.origins,
            },
            cid: json.cid.ok_or_else(|| D::Error::missing_field("cid"))?,
            pin_type: json.pin_type.unwrap_or(PinType::Bad),
            allocations: json.allocations,
            max_depth: json.max_depth,
            reference: json.reference,
            timestamp: json.timestamp,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go::json;

    const PEER: &str = "12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt";

    fn round_trip(text: &str) {
        match serde_json::from_str::<Pin>(text) {
            Ok(pin) => assert_eq!(json::to_string(&pin), text),
            Err(error) => panic!("{text}: {error}"),
        }
    }

    #[test]
    fn documents_of_the_reference_survive_a_round_trip() {
        round_trip(
            r#"{"replication_factor_min":-1,"replication_factor_max":-1,"name":"","mode":"recursive","shard_size":0,"user_allocations":null,"expire_at":"0001-01-01T00:00:00Z","metadata":{},"pin_update":null,"origins":null,"cid":"QmP63DkAFEnDYNjDYBpyNDfttu1fvUw99x1brscPzpqmmq","type":"pin","allocations":[],"max_depth":-1,"reference":null,"timestamp":"2026-11-21T03:16:29.630103056Z"}"#,
        );
        round_trip(&format!(
            r#"{{"replication_factor_min":3,"replication_factor_max":3,"name":"\u003ca\u003e\u0026","mode":"direct","shard_size":5,"user_allocations":["{PEER}"],"expire_at":"2026-11-21T13:37:39.606649968+01:00","metadata":{{"a":"b"}},"pin_update":"QmP63DkAFEnDYNjDYBpyNDfttu1fvUw99x1brscPzpqmmq","origins":["/ip4/1.2.3.4/tcp/1/p2p/{PEER}"],"cid":"bafkreiardpf2hbld7fyvfdcq2gqfdgg4jffzwwaur5ht3uubb57ueqra4m","type":"shard-pin","allocations":null,"max_depth":1,"reference":"QmP63DkAFEnDYNjDYBpyNDfttu1fvUw99x1brscPzpqmmq","timestamp":"2026-11-21T03:37:39Z"}}"#
        ));
    }

    #[test]
    fn type_filters_are_read_as_the_reference_reads_them() {
        let cases = [
            ("", Some(30)),
            ("all", Some(30)),
            ("pin", Some(2)),
            ("pin,foo", Some(3)),
            ("pin,", Some(30)),
            (" pin", None),
            ("foo,bar", None),
            ("meta-pin,shard-pin", Some(20)),
        ];
        for (input, expected) in cases {
            assert_eq!(PinTypes::parse(input).map(|types| types.0), expected, "{input}");
        }
        assert!(PinTypes(3).matches(PinType::Data) && !PinTypes(3).matches(PinType::Meta));
        assert_eq!(PinTypes(20).to_string(), "meta-pin,shard-pin");
    }

    #[test]
    fn a_pin_without_cid_is_refused() {
        assert!(serde_json::from_str::<Pin>("{}").is_err());
        assert!(serde_json::from_str::<Pin>(r#"{"cid":null}"#).is_err());
        assert!(serde_json::from_str::<Pin>(r#"{"cid":"x"}"#).is_err());
    }

    #[test]
    fn remote_means_allocated_elsewhere() {
        let peer = PEER.parse().ok();
        let cid = super::super::parse_cid("QmP63DkAFEnDYNjDYBpyNDfttu1fvUw99x1brscPzpqmmq");
        if let (Some(peer), Ok(cid)) = (peer, cid) {
            let mut pin = Pin::new(cid);
            assert!(pin.is_remote(&peer));
            pin.allocations = Some(vec![peer]);
            assert!(!pin.is_remote(&peer));
            pin.allocations = None;
            pin.options.replication_factor_min = -1;
            pin.options.replication_factor_max = -1;
            assert!(!pin.is_remote(&peer));
        }
    }
}
