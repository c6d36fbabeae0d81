//! Parameters of an add and the objects it answers with.

use std::collections::BTreeMap;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use super::cid::{CidJson, deserialize_cid};
use super::misc::or_default;
use super::options::parse_int;
use super::peer::{PeersJson, deserialize_peers};
use super::{Cid, PeerId, PinMode, PinOptions};
use crate::go::query::Query;

/// Bytes per shard where an add asks for shards and not for a size; the reference's clients send it.
pub const DEFAULT_SHARD_SIZE: u64 = 100 * 1024 * 1024;

/// The chunker of an add that names none.
const DEFAULT_CHUNKER: &str = "size-262144";

/// The hash function of an add that names none.
const DEFAULT_HASH: &str = "sha2-256";

/// Shape of a file's DAG.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// Kubo's default.
    #[default]
    Balanced,
    /// For streams.
    Trickle,
}

/// What an upload holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Files to import.
    #[default]
    UnixFs,
    /// A CAR of finished blocks.
    Car,
}

/// Parameters of an add (spec: adder 2).
#[derive(Debug, Clone)]
pub struct AddParams {
    /// Options of the pin at the end.
    pub options: PinOptions,
    /// Write blocks to this peer's daemon alone.
    pub local: bool,
    /// No effect on the server.
    pub recursive: bool,
    /// No effect on the server.
    pub hidden: bool,
    /// Put all entries into one unnamed directory.
    pub wrap_with_directory: bool,
    /// Spread the DAG over shards.
    pub shard: bool,
    /// Stream outputs as they come (default), or send one list at the end.
    pub stream_channels: bool,
    /// Write blocks, pin nothing.
    pub no_pin: bool,
    /// Files or CAR.
    pub format: Format,
    /// Shape of a file's DAG.
    pub layout: Layout,
    /// `size-262144`, `rabin-…`, `buzhash`.
    pub chunker: String,
    /// Leaves as raw blocks.
    pub raw_leaves: bool,
    /// Byte-count events.
    pub progress: bool,
    /// 0 or 1.
    pub cid_version: i64,
    /// Name of the hash function.
    pub hash: String,
    /// Reference files instead of copying.
    pub no_copy: bool,
}

impl Default for AddParams {
    fn default() -> Self {
        Self {
            options: PinOptions {
                shard_size: DEFAULT_SHARD_SIZE,
                metadata: Some(BTreeMap::new()),
                ..PinOptions::default()
            },
            local: false,
            recursive: false,
            hidden: false,
            wrap_with_directory: false,
            shard: false,
            stream_channels: true,
            no_pin: false,
            format: Format::UnixFs,
            layout: Layout::Balanced,
            chunker: DEFAULT_CHUNKER.into(),
            raw_leaves: false,
            progress: false,
            cid_version: 0,
            hash: DEFAULT_HASH.into(),
            no_copy: false,
        }
    }
}

impl AddParams {
    /// Reads the parameters of a query, in the reference's order (spec: adder 2). The first failure is
    /// returned in the reference's words.
    pub fn from_query(query: &Query) -> Result<Self, String> {
        let mut options = PinOptions::from_query(query)?;
        // parsed above only to fail where the reference fails
        options.pin_update = None;
        options.mode = PinMode::Recursive;
        let mut params = Self { options, ..Self::default() };
        params.layout = match query.get("layout") {
            "" | "balanced" => Layout::Balanced,
            "trickle" => Layout::Trickle,
            _ => return Err("layout parameter is invalid".into()),
        };
        for (name, value) in [("chunker", &mut params.chunker), ("hash", &mut params.hash)] {
            if !query.get(name).is_empty() {
                *value = query.get(name).to_string();
            }
        }
        params.format = match query.get("format") {
            "" | "unixfs" => Format::UnixFs,
            "car" => Format::Car,
            _ => return Err("format parameter is invalid".into()),
        };
        params.local = parse_bool(query, "local", false)?;
        params.recursive = parse_bool(query, "recursive", false)?;
        params.hidden = parse_bool(query, "hidden", false)?;
        params.wrap_with_directory = parse_bool(query, "wrap-with-directory", false)?;
        params.shard = parse_bool(query, "shard", false)?;
        params.progress = parse_bool(query, "progress", false)?;
        params.cid_version = parse_int("cid-version", query.get("cid-version"))?.unwrap_or(0);
        // another hash raises the version, as in Kubo
        let is_version_1 = params.cid_version > 0 || !params.hash.eq_ignore_ascii_case(DEFAULT_HASH);
        params.raw_leaves = parse_bool(query, "raw-leaves", is_version_1)?;
        params.stream_channels = parse_bool(query, "stream-channels", true)?;
        params.no_copy = parse_bool(query, "nocopy", false)?;
        params.no_pin = parse_bool(query, "no-pin", false)?;
        // A size of 0 that was asked for has room for nothing, as in the reference.
        if params.shard && query.get("shard-size").is_empty() {
            params.options.shard_size = DEFAULT_SHARD_SIZE;
        }
        Ok(params)
    }

    /// Writes the parameters as clients of the reference send them: all of them.
    pub fn to_query(&self) -> Query {
        let mut query = self.options.to_query();
        let layout = match self.layout {
            Layout::Balanced => "balanced",
            Layout::Trickle => "trickle",
        };
        let format = match self.format {
            Format::UnixFs => "unixfs",
            Format::Car => "car",
        };
        query.set("shard", self.shard.to_string());
        query.set("local", self.local.to_string());
        query.set("recursive", self.recursive.to_string());
        query.set("layout", layout);
        query.set("chunker", &self.chunker);
        query.set("raw-leaves", self.raw_leaves.to_string());
        query.set("hidden", self.hidden.to_string());
        query.set("wrap-with-directory", self.wrap_with_directory.to_string());
        query.set("progress", self.progress.to_string());
        query.set("cid-version", self.cid_version.to_string());
        query.set("hash", &self.hash);
        query.set("stream-channels", self.stream_channels.to_string());
        query.set("nocopy", self.no_copy.to_string());
        query.set("format", format);
        query.set("no-pin", self.no_pin.to_string());
        query
    }
}

/// `strconv.ParseBool`; empty is the default.
fn parse_bool(query: &Query, name: &str, default: bool) -> Result<bool, String> {
    match query.get(name) {
        "" => Ok(default),
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("parameter {name} invalid")),
    }
}

/// One event of an add.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(from = "AddedOutputJson")]
pub struct AddedOutput {
    /// Path of the entry.
    pub name: String,
    /// Its root; `None` prints `null` (progress events).
    pub cid: Option<Cid>,
    /// Bytes read so far (progress events).
    pub bytes: u64,
    /// Cumulative size of the DAG.
    pub size: u64,
    /// Peers that got the blocks.
    pub allocations: Vec<PeerId>,
}

#[derive(Deserialize)]
struct AddedOutputJson {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "deserialize_cid")]
    cid: Option<Cid>,
    #[serde(default, deserialize_with = "or_default")]
    bytes: u64,
    #[serde(default, deserialize_with = "or_default")]
    size: u64,
    #[serde(default, deserialize_with = "deserialize_peers")]
    allocations: Option<Vec<PeerId>>,
}

impl From<AddedOutputJson> for AddedOutput {
    fn from(json: AddedOutputJson) -> Self {
        let AddedOutputJson { name, cid, bytes, size, allocations } = json;
        Self { name, cid, bytes, size, allocations: allocations.unwrap_or_default() }
    }
}

impl Serialize for AddedOutput {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("AddedOutput", 5)?;
        out.serialize_field("name", &self.name)?;
        out.serialize_field("cid", &CidJson(self.cid.as_ref()))?;
        if self.bytes > 0 {
            out.serialize_field("bytes", &self.bytes)?;
        }
        if self.size > 0 {
            out.serialize_field("size", &self.size)?;
        }
        if !self.allocations.is_empty() {
            out.serialize_field("allocations", &PeersJson(Some(&self.allocations)))?;
        }
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go::json;

    fn parse(raw: &str) -> Result<AddParams, String> {
        AddParams::from_query(&Query::parse(raw))
    }

    #[test]
    fn parameters_are_read_with_the_references_defaults() -> Result<(), String> {
        let params = parse("")?;
        assert!(params.stream_channels && !params.raw_leaves && !params.shard);
        assert_eq!((params.chunker.as_str(), params.hash.as_str()), ("size-262144", "sha2-256"));
        assert_eq!(params.options.shard_size, 0);
        assert_eq!(parse("shard=t")?.options.shard_size, DEFAULT_SHARD_SIZE);
        assert_eq!(parse("shard=t&shard-size=")?.options.shard_size, DEFAULT_SHARD_SIZE);
        assert_eq!(parse("shard=t&shard-size=0")?.options.shard_size, 0);
        assert!(parse("cid-version=1")?.raw_leaves && !parse("cid-version=1&raw-leaves=F")?.raw_leaves);
        assert!(parse("hash=sha1")?.raw_leaves && !parse("hash=sha1&raw-leaves=F")?.raw_leaves);
        assert!(!parse("hash=SHA2-256")?.raw_leaves);
        assert!(!parse("stream-channels=0")?.stream_channels);
        let params = parse("mode=direct&pin-update=QmXw2sSTXLXyJjrAv6rnWL1oZ1HA8eqvkrngCm7dpxjtFM&name=x")?;
        assert_eq!(
            (params.options.mode, params.options.pin_update, params.options.name.as_str()),
            (PinMode::Recursive, None, "x")
        );
        let again = AddParams::from_query(&params.to_query())?;
        assert_eq!(again.to_query().encode(), params.to_query().encode());
        Ok(())
    }

    #[test]
    fn the_first_bad_parameter_is_named_in_the_references_words() {
        let cases = [
            ("shard=x&shard-size=x", "parameter shard_size is invalid"),
            ("layout=x&format=x", "layout parameter is invalid"),
            ("format=x&local=x", "format parameter is invalid"),
            ("local=yes", "parameter local invalid"),
            ("recursive=2", "parameter recursive invalid"),
            ("hidden=tRue", "parameter hidden invalid"),
            ("wrap-with-directory=x", "parameter wrap-with-directory invalid"),
            ("shard=x", "parameter shard invalid"),
            ("progress=x", "parameter progress invalid"),
            ("cid-version=x", "parameter cid-version invalid"),
            ("raw-leaves=x", "parameter raw-leaves invalid"),
            ("stream-channels=x", "parameter stream-channels invalid"),
            ("nocopy=x", "parameter nocopy invalid"),
            ("no-pin=x", "parameter no-pin invalid"),
            ("pin-update=x", "error decoding update option parameter: invalid cid: cid too short"),
        ];
        for (input, expected) in cases {
            assert_eq!(parse(input).err().as_deref(), Some(expected), "{input}");
        }
    }

    #[test]
    fn empty_fields_of_an_output_are_left_out() {
        let mut output = AddedOutput { name: "f".into(), bytes: 5, ..AddedOutput::default() };
        assert_eq!(json::to_string(&output), r#"{"name":"f","cid":null,"bytes":5}"#);
        output = AddedOutput { name: "f".into(), size: 7, ..AddedOutput::default() };
        assert_eq!(json::to_string(&output), r#"{"name":"f","cid":null,"size":7}"#);
        assert_eq!(
            serde_json::from_str::<AddedOutput>(r#"{"name":"f","cid":null,"size":7}"#).ok(),
            Some(output)
        );
    }
}
