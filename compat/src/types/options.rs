//! Pin options, and how they are read from a query string.

use std::collections::BTreeMap;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::addr::{AddrsJson, multiaddr_peer, multiaddr_text};
use super::cid::CidJson;
use super::peer::PeersJson;
use super::{Cid, Multiaddr, PeerId, PinDepth, parse_cid, parse_multiaddr, parse_peer_id};
use crate::go::query::Query;
use crate::go::time::{Duration, Time};

/// What a query parameter starts with that is an entry of the metadata.
const META_PREFIX: &str = "meta-";

/// How much of a DAG a pin holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PinMode {
    /// The whole DAG.
    #[default]
    Recursive,
    /// The root block alone.
    Direct,
}

impl PinMode {
    /// `recursive` or `direct`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recursive => "recursive",
            Self::Direct => "direct",
        }
    }

    /// Reads a mode; unknown ones are recursive.
    pub fn parse(text: &str) -> Self {
        if text == "direct" { Self::Direct } else { Self::Recursive }
    }

    /// The depth of a pin submitted in this mode.
    pub const fn to_depth(self) -> PinDepth {
        match self {
            Self::Recursive => -1,
            Self::Direct => 0,
        }
    }

    /// The mode of a stored pin: only depth 0 is direct.
    pub const fn from_depth(depth: PinDepth) -> Self {
        if depth == 0 { Self::Direct } else { Self::Recursive }
    }
}

/// What the submitter of a pin can choose.
#[derive(Debug, Clone, Default)]
pub struct PinOptions {
    /// Fewest copies; -1 everywhere, 0 the peer's default.
    pub replication_factor_min: i64,
    /// Most copies; -1 everywhere, 0 the peer's default.
    pub replication_factor_max: i64,
    /// Free text.
    pub name: String,
    /// Recursive or direct.
    pub mode: PinMode,
    /// Bytes per shard of a sharded add.
    pub shard_size: u64,
    /// Peers to prefer in one allocation run; `None` prints `null`. Never stored.
    pub user_allocations: Option<Vec<PeerId>>,
    /// When the pin expires; the zero time is never.
    pub expire_at: Time,
    /// Free key-value pairs; `None` prints `null`.
    pub metadata: Option<BTreeMap<String, String>>,
    /// The pin this one was copied from.
    pub pin_update: Option<Cid>,
    /// Peers that hold the content; `None` prints `null`.
    pub origins: Option<Vec<Multiaddr>>,
}

impl PinOptions {
    /// Reads the options of a query, in the reference's order (spec: rest-api 10.2). The first failure is
    /// returned in the reference's words. `expire-in` counts from now.
    pub fn from_query(query: &Query) -> Result<Self, String> {
        let mut options = Self {
            name: query.get("name").to_string(),
            mode: PinMode::parse(query.get("mode")),
            ..Self::default()
        };
        let both = query.get("replication");
        let factor = |name: &str| {
            let text = if both.is_empty() { query.get(name) } else { both };
            parse_int(name, text)
        };
        options.replication_factor_min = factor("replication-min")?.unwrap_or(0);
        options.replication_factor_max = factor("replication-max")?.unwrap_or(0);
        options.shard_size = match query.get("shard-size") {
            "" => 0,
            text => parse_uint(text).ok_or("parameter shard_size is invalid")?,
        };
        let allocations = query.get("user-allocations");
        if !allocations.is_empty() {
            let peers = allocations.split(',').filter_map(|peer| parse_peer_id(peer).ok());
            options.user_allocations = Some(peers.collect());
        }
        options.expire_at = expiry(query)?;
        options.metadata = Some(metadata(query));
        let update = query.get("pin-update");
        if !update.is_empty() {
            let cid = parse_cid(update)
                .map_err(|error| format!("error decoding update option parameter: {error}"))?;
            options.pin_update = Some(cid);
        }
        let origins = query.get("origins");
        if !origins.is_empty() {
            options.origins = Some(origins.split(',').map(parse_origin).collect::<Result<_, _>>()?);
        }
        Ok(options)
    }

    /// Writes the options as clients of the reference send them.
    pub fn to_query(&self) -> Query {
        let mut query = Query::default();
        query.set("replication-min", self.replication_factor_min.to_string());
        query.set("replication-max", self.replication_factor_max.to_string());
        query.set("name", &self.name);
        query.set("mode", self.mode.as_str());
        query.set("shard-size", self.shard_size.to_string());
        query.set("user-allocations", join(self.user_allocations.iter().flatten()));
        if !self.expire_at.is_zero() {
            query.set("expire-at", self.expire_at.to_string());
        }
        for (key, value) in self.metadata.iter().flatten().filter(|(key, _)| !key.is_empty()) {
            query.set(format!("{META_PREFIX}{key}"), value);
        }
        if let Some(cid) = &self.pin_update {
            query.set("pin-update", cid.to_string());
        }
        if let Some(origins) = self.origins.as_ref().filter(|origins| !origins.is_empty()) {
            query.set("origins", join(origins.iter().map(multiaddr_text)));
        }
        query
    }

    /// Whether two sets of options ask for the same, as the reference compares them: `pin_update` does not
    /// count, lists are sets, and only the keys of `self` are compared in the metadata (spec: core 1.1).
    pub fn equals(&self, other: &Self) -> bool {
        let sorted = |peers: &Option<Vec<PeerId>>| {
            let mut peers: Vec<_> = peers.iter().flatten().copied().collect();
            peers.sort_unstable();
            peers
        };
        let addrs = |options: &Self| options.origins.iter().flatten().cloned().collect::<Vec<_>>();
        let (origins, other_origins) = (addrs(self), addrs(other));
        self.name == other.name
            && self.mode == other.mode
            && self.replication_factor_min == other.replication_factor_min
            && self.replication_factor_max == other.replication_factor_max
            && self.shard_size == other.shard_size
            && sorted(&self.user_allocations) == sorted(&other.user_allocations)
            && self.expire_at == other.expire_at
            && self.metadata.iter().flatten().filter(|(key, _)| !key.is_empty()).all(|(key, value)| {
                other.metadata.iter().flatten().find(|(k, _)| *k == key).map_or("", |(_, v)| v) == value
            })
            && origins.len() == other_origins.len()
            && origins.iter().all(|origin| other_origins.contains(origin))
    }
}

fn join<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

/// `strconv.Atoi`: an optional sign, then digits. Empty is absent.
pub(super) fn parse_int(name: &str, text: &str) -> Result<Option<i64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    // the standard library reads exactly Go's grammar here
    text.parse().map(Some).map_err(|_| format!("parameter {name} invalid"))
}

/// `strconv.ParseUint`: digits alone.
fn parse_uint(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn expiry(query: &Query) -> Result<Time, String> {
    let at = query.get("expire-at");
    if !at.is_empty() {
        return Time::parse_rfc3339(at).map_err(|error| format!("expire-at cannot be parsed: {error}"));
    }
    let span = query.get("expire-in");
    if span.is_empty() {
        return Ok(Time::ZERO);
    }
    let span = Duration::parse(span).map_err(|error| format!("expire-in cannot be parsed: {error}"))?;
    if span < Duration::from_secs(1) {
        return Err("expire-in duration too short".into());
    }
    Ok(Time::now().add(span))
}

fn metadata(query: &Query) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::new();
    for (key, value) in query.iter() {
        if let Some(key) = key.strip_prefix(META_PREFIX).filter(|key| !key.is_empty()) {
            metadata.entry(key.to_string()).or_insert_with(|| value.to_string());
        }
    }
    metadata
}

fn parse_origin(text: &str) -> Result<Multiaddr, String> {
    let addr = parse_multiaddr(text).map_err(|error| format!("error decoding multiaddress: {error}"))?;
    match multiaddr_peer(&addr) {
        Some(_) => Ok(addr),
        None => Err("multiaddress does not contain peer ID: protocol not found in multiaddr".into()),
    }
}

impl Serialize for PinMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for PinMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::parse(&std::borrow::Cow::<str>::deserialize(deserializer)?))
    }
}

/// Writes the options' fields into a larger document, where they come first.
pub(super) fn serialize_fields<S: SerializeStruct>(
    options: &PinOptions,
    out: &mut S,
) -> Result<(), S::Error> {
    out.serialize_field("replication_factor_min", &options.replication_factor_min)?;
    out.serialize_field("replication_factor_max", &options.replication_factor_max)?;
    out.serialize_field("name", &options.name)?;
    out.serialize_field("mode", &options.mode)?;
    out.serialize_field("shard_size", &options.shard_size)?;
    out.serialize_field("user_allocations", &PeersJson(options.user_allocations.as_deref()))?;
    out.serialize_field("expire_at", &options.expire_at)?;
    out.serialize_field("metadata", &options.metadata)?;
    out.serialize_field("pin_update", &CidJson(options.pin_update.as_ref()))?;
    out.serialize_field("origins", &AddrsJson(options.origins.as_deref()))
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
