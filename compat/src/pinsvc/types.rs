//! The service's own nouns: what clients send and read.
//!
//! A body is read as Go's decoder reads it: the first value of it, names of fields in any case, the last of two
//! counts, unknown ones are skipped, and what is wrong is said in Go's words.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeStruct, Serializer};

use crate::config::json::{Json, Kind, parse, parse_first};
use crate::go::query::Query;
use crate::go::quote::quote;
use crate::go::time::Time;
use crate::types::{AddrsJson, Cid, CidJson, Multiaddr, parse_cid, parse_multiaddr};

/// Longest name in a query, and in a body without its quotes, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// Results of a list that asks for no number.
const DEFAULT_LIMIT: u64 = 10;

/// What a client asks to be pinned, and reads back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pin {
    /// The content; only a pin of nobody's has none.
    pub(super) cid: Option<Cid>,
    /// Free text; left out when empty.
    pub(super) name: String,
    /// Peers that hold the content; left out when empty.
    pub(super) origins: Vec<Multiaddr>,
    /// Free key-value pairs; left out when empty.
    pub(super) meta: BTreeMap<String, String>,
}

/// Where a pin stands, in the service's words: bits, as filters are unions of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status(u8);

impl Status {
    pub(super) const QUEUED: Self = Self(1);
    pub(super) const PINNED: Self = Self(2);
    pub(super) const PINNING: Self = Self(4);
    pub(super) const FAILED: Self = Self(8);
    /// As a filter.
    pub(super) const ANY: Self = Self(15);

    const NAMES: [(Self, &str); 4] = [
        (Self::QUEUED, "queued"),
        (Self::PINNED, "pinned"),
        (Self::PINNING, "pinning"),
        (Self::FAILED, "failed"),
    ];

    /// Whether a filter holds a status.
    pub(super) const fn holds(self, status: Self) -> bool {
        self.0 & status.0 != 0
    }

    /// Reads a comma list: spaces are removed, unknown words ignored; `None` if no known one is left.
    fn parse_filter(text: &str) -> Option<Self> {
        let text = text.replace(' ', "");
        let known = text.split(',').filter_map(|word| Self::NAMES.iter().find(|(_, name)| *name == word));
        let union = known.fold(0, |union, (status, _)| union | status.0);
        (union != 0).then_some(Self(union))
    }
}

/// The state of a request to pin.
#[derive(Debug, Clone)]
pub(super) struct PinStatus {
    /// Names the request: its CID.
    pub(super) request_id: Cid,
    pub(super) status: Status,
    pub(super) created: Time,
    pub(super) pin: Pin,
    /// Addresses of the daemons that hold it or shall.
    pub(super) delegates: Vec<Multiaddr>,
}

/// A page of a list.
#[derive(Debug)]
pub(super) struct PinList {
    /// Matches before the limit.
    pub(super) count: u64,
    pub(super) results: Vec<PinStatus>,
}

/// How names are compared with the one asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Matching {
    Exact,
    /// Whatever the case.
    Iexact,
    Partial,
    /// Whatever the case.
    Ipartial,
}

/// Which pins a list shows, without its place in time and its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filters {
    name: String,
    matching: Matching,
    pub(super) status: Status,
    meta: BTreeMap<String, String>,
    /// The zero time is none.
    pub(super) after: Time,
}

/// What a list is asked for.
#[derive(Debug, Clone)]
pub(super) struct ListOptions {
    /// Exactly these, if any; the filters do not count then.
    pub(super) cids: Vec<Cid>,
    pub(super) filters: Filters,
    /// The zero time is none.
    pub(super) before: Time,
    pub(super) limit: u64,
}

impl ListOptions {
    /// Reads a query in the reference's order; the first failure is returned in its words.
    pub(super) fn from_query(query: &Query) -> Result<Self, String> {
        let cids = match query.get("cid") {
            "" => Vec::new(),
            list => list
                .split(',')
                .map(|cid| parse_cid(cid).map_err(|error| format!("error decoding cid {cid}: {error}")))
                .collect::<Result<_, _>>()?,
        };
        let name = query.get("name");
        if name.len() > MAX_NAME_BYTES {
            return Err("error in 'name' query param: longer than 255 chars".into());
        }
        let matching = match query.get("match") {
            "iexact" => Matching::Iexact,
            "partial" => Matching::Partial,
            "ipartial" => Matching::Ipartial,
            _ => Matching::Exact,
        };
        let status = match query.get("status") {
            "" => Status::ANY,
            list => {
                Status::parse_filter(list).ok_or("error decoding 'status' query param: no valid filter")?
            }
        };
        let time = |key: &str| match query.get(key) {
            "" => Ok(Time::ZERO),
            text => Time::parse_rfc3339(text)
                .map_err(|error| format!("error decoding '{key}' query param: {text}: {error}")),
        };
        let (before, after) = (time("before")?, time("after")?);
        let limit = match query.get("limit") {
            "" => DEFAULT_LIMIT,
            text => parse_uint(text)
                .map_err(|error| format!("error parsing 'limit' query param: {text}: {error}"))?,
        };
        let meta = match query.get("meta") {
            "" => BTreeMap::new(),
            text => read_meta_filter(text)
                .map_err(|error| format!("error unmarshalling 'meta' query param: {text}: {error}"))?,
        };
        let filters = Filters { name: name.to_owned(), matching, status, meta, after };
        Ok(Self { cids, filters, before, limit })
    }
}

impl Filters {
    /// Whether a pin has the name and the metadata asked for. A missing key equals an empty value.
    pub(super) fn match_pin(&self, name: &str, meta: Option<&BTreeMap<String, String>>) -> bool {
        let value = |key: &String| meta.and_then(|meta| meta.get(key)).map_or("", String::as_str);
        self.match_name(name) && self.meta.iter().all(|(key, wanted)| value(key) == wanted)
    }

    fn match_name(&self, name: &str) -> bool {
        if self.name.is_empty() {
            return true;
        }
        match self.matching {
            Matching::Exact => name == self.name,
            Matching::Iexact => name.chars().map(folded).eq(self.name.chars().map(folded)),
            Matching::Partial => name.contains(&self.name),
            Matching::Ipartial => lowered(name).contains(&lowered(&self.name)),
        }
    }
}

/// A letter without its case, as `strings.EqualFold` compares: each letter by itself, nothing grows.
fn folded(letter: char) -> char {
    fn single(mut letters: impl Iterator<Item = char>, otherwise: char) -> char {
        match (letters.next(), letters.next()) {
            (Some(letter), None) => letter,
            _ => otherwise,
        }
    }
    // the dotless i is no i, though its capital is
    if letter == 'ı' {
        return letter;
    }
    let upper = single(letter.to_uppercase(), letter);
    single(upper.to_lowercase(), upper)
}

/// `strings.ToLower`: letter by letter.
fn lowered(text: &str) -> String {
    text.chars().filter_map(|letter| letter.to_lowercase().next()).collect()
}

/// `strconv.ParseUint` with base 10.
fn parse_uint(text: &str) -> Result<u64, String> {
    let failed = |what: &str| format!("strconv.ParseUint: parsing {}: {what}", quote(text));
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(failed("invalid syntax"));
    }
    text.parse().map_err(|_| failed("value out of range"))
}

/// An object of strings, or `null`.
fn read_meta_filter(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mismatch = |kind: &Kind<'_>, wanted| {
        format!("json: cannot unmarshal {} into Go value of type {wanted}", kind.word())
    };
    let mut meta = BTreeMap::new();
    let mut failure = None;
    match parse(text)?.kind {
        Kind::Null => {}
        Kind::Object(entries) => {
            for (key, value) in entries {
                match value.kind {
                    Kind::String(value) => drop(meta.insert(key, value)),
                    Kind::Null => drop(meta.insert(key, String::new())),
                    other => drop(failure.get_or_insert_with(|| mismatch(&other, "string"))),
                }
            }
        }
        other => return Err(mismatch(&other, "map[string]string")),
    }
    failure.map_or(Ok(meta), Err)
}

/// What a body can say of one field: the field cannot be, and nothing more is looked at; or it has another type,
/// which is told if nothing worse follows.
enum Wrong {
    Value(String),
    Type(String),
}

impl Pin {
    /// Reads the body of a request, in the order and the words of Go's decoder.
    pub(super) fn from_body(text: &str) -> Result<Self, String> {
        let mut pin = Self { cid: None, name: String::new(), origins: Vec::new(), meta: BTreeMap::new() };
        let mut failure = None;
        match parse_first(text)?.kind {
            Kind::Null => {}
            Kind::Object(entries) => {
                for (key, value) in entries {
                    match pin.read_field(&key, value) {
                        Ok(()) => {}
                        Err(Wrong::Value(error)) => return Err(error),
                        Err(Wrong::Type(error)) => drop(failure.get_or_insert(error)),
                    }
                }
            }
            other => {
                return Err(format!(
                    "json: cannot unmarshal {} into Go value of type pinsvc.Pin",
                    other.word()
                ));
            }
        }
        failure.map_or(Ok(pin), Err)
    }

    fn read_field(&mut self, key: &str, value: Json<'_>) -> Result<(), Wrong> {
        if key.eq_ignore_ascii_case("cid") {
            self.cid = match value.kind {
                Kind::Null => None,
                Kind::String(text) => Some(parse_cid(&text).map_err(Wrong::Value)?),
                other => return Err(Wrong::Value(mismatch(&other, "cid", "string"))),
            };
        } else if key.eq_ignore_ascii_case("name") {
            if value.raw.len() > MAX_NAME_BYTES + 2 {
                return Err(Wrong::Value("pin name is over 255 chars".into()));
            }
            self.name = match value.kind {
                Kind::Null => String::new(),
                Kind::String(text) => text,
                other => return Err(Wrong::Value(mismatch(&other, "name", "string"))),
            };
        } else if key.eq_ignore_ascii_case("origins") {
            self.origins = match value.kind {
                Kind::Null => Vec::new(),
                Kind::Array(items) => items.into_iter().map(read_origin).collect::<Result<_, _>>()?,
                other => return Err(Wrong::Type(mismatch(&other, "origins", "[]api.Multiaddr"))),
            };
        } else if key.eq_ignore_ascii_case("meta") {
            match value.kind {
                Kind::Null => self.meta.clear(),
                Kind::Object(entries) => return self.read_meta(entries),
                other => return Err(Wrong::Type(mismatch(&other, "meta", "map[string]string"))),
            }
        }
        Ok(())
    }

    fn read_meta(&mut self, entries: Vec<(String, Json<'_>)>) -> Result<(), Wrong> {
        let mut failure = None;
        for (key, value) in entries {
            match value.kind {
                Kind::String(value) => drop(self.meta.insert(key, value)),
                Kind::Null => drop(self.meta.insert(key, String::new())),
                other => drop(failure.get_or_insert_with(|| mismatch(&other, "meta", "string"))),
            }
        }
        failure.map_or(Ok(()), |error| Err(Wrong::Type(error)))
    }
}

fn read_origin(value: Json<'_>) -> Result<Multiaddr, Wrong> {
    let text = match value.kind {
        Kind::String(text) => text,
        Kind::Null => String::new(),
        other => return Err(Wrong::Value(mismatch(&other, "origins", "string"))),
    };
    parse_multiaddr(&text).map_err(Wrong::Value)
}

fn mismatch(kind: &Kind<'_>, field: &str, wanted: &str) -> String {
    format!("json: cannot unmarshal {} into Go struct field Pin.{field} of type {wanted}", kind.word())
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name =
            Self::NAMES.iter().find(|(status, _)| status == self).map_or("undefined", |(_, name)| name);
        serializer.serialize_str(name)
    }
}

impl Serialize for Pin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Pin", 4)?;
        out.serialize_field("cid", &CidJson(self.cid.as_ref()))?;
        if !self.name.is_empty() {
            out.serialize_field("name", &self.name)?;
        }
        if !self.origins.is_empty() {
            out.serialize_field("origins", &AddrsJson(Some(&self.origins)))?;
        }
        if !self.meta.is_empty() {
            out.serialize_field("meta", &self.meta)?;
        }
        out.end()
    }
}

impl Serialize for PinStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("PinStatus", 6)?;
        out.serialize_field("requestid", &CidJson(Some(&self.request_id)))?;
        out.serialize_field("status", &self.status)?;
        out.serialize_field("created", &self.created)?;
        out.serialize_field("pin", &self.pin)?;
        out.serialize_field("delegates", &AddrsJson(Some(&self.delegates)))?;
        out.serialize_field("info", &Info)?;
        out.end()
    }
}

/// What the service says of itself with every pin. (Go: `pinsvcapi.go`, `apiInfo`)
struct Info;

impl Serialize for Info {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_map(Some(3))?;
        out.serialize_entry("source", "IPFS cluster API")?;
        out.serialize_entry("warning1", "CID used for requestID. Conflicts possible")?;
        out.serialize_entry("warning2", "experimental")?;
        out.end()
    }
}

impl Serialize for PinList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("PinList", 2)?;
        out.serialize_field("count", &self.count)?;
        out.serialize_field("results", &self.results)?;
        out.end()
    }
}

#[cfg(test)]
#[path = "types_tests.rs"]
mod tests;
