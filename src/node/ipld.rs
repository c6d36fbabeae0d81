//! IPLD: values, and the codecs they are written in.
//!
//! Blocks come from others: lengths and depths are bounded, and what is no valid block is an error that says so.

mod cbor;
mod jose;
mod json;
pub(super) mod pb;

use std::collections::BTreeMap;

use cluster_compat::types::Cid;

/// Codecs of blocks.
pub(super) const RAW: u64 = 0x55;
pub(super) const DAG_PB: u64 = 0x70;
pub(super) const DAG_CBOR: u64 = 0x71;
pub(super) const DAG_JSON: u64 = 0x0129;
pub(super) const CBOR: u64 = 0x51;
pub(super) const JSON: u64 = 0x0200;
pub(super) const DAG_JOSE: u64 = 0x85;
pub(super) const LIBP2P_KEY: u64 = 0x72;

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 256;

pub(super) use self::cbor::{decode as decode_cbor, encode as encode_cbor};
pub(super) use self::json::{decode as decode_json, encode as encode_json};

/// A value of the data model.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    /// Mostly UTF-8: blocks of others hold what they like.
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    /// In the order of the block.
    Map(Vec<(Vec<u8>, Value)>),
    Link(Cid),
}

impl Value {
    /// What `segment` of a path leads to.
    pub(super) fn step(&self, segment: &str) -> Option<&Value> {
        match self {
            Self::Map(entries) => {
                entries.iter().find(|(key, _)| key == segment.as_bytes()).map(|(_, value)| value)
            }
            Self::List(items) => segment.parse::<usize>().ok().and_then(|at| items.get(at)),
            _ => None,
        }
    }

    /// All links in it, in order.
    pub(super) fn links(&self, out: &mut Vec<Cid>) {
        match self {
            Self::Link(cid) => out.push(*cid),
            Self::List(items) => items.iter().for_each(|item| item.links(out)),
            Self::Map(entries) => entries.iter().for_each(|(_, value)| value.links(out)),
            _ => {}
        }
    }
}

/// A link of a block with what its format says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) cid: Cid,
    pub(super) size: u64,
}

/// What a block links to. (Go: `go-ipld-legacy`: formats without links are leaves, unknown ones errors.)
pub(super) fn links(cid: &Cid, block: &[u8]) -> Result<Vec<Link>, String> {
    match cid.codec() {
        RAW => Ok(Vec::new()),
        DAG_PB => {
            let node = pb::Node::decode(block)?;
            Ok(node
                .links
                .into_iter()
                .map(|link| Link {
                    name: String::from_utf8_lossy(&link.name).into_owned(),
                    cid: link.cid,
                    size: link.tsize,
                })
                .collect())
        }
        _ => {
            let mut found = Vec::new();
            value(cid, block)?.links(&mut found);
            Ok(found.into_iter().map(|cid| Link { name: String::new(), cid, size: 0 }).collect())
        }
    }
}

/// A block as a value.
pub(super) fn value(cid: &Cid, block: &[u8]) -> Result<Value, String> {
    match cid.codec() {
        RAW | LIBP2P_KEY => Ok(Value::Bytes(block.to_vec())),
        DAG_PB => Ok(pb::Node::decode(block)?.to_value()),
        DAG_CBOR => decode_cbor(block, true),
        CBOR => decode_cbor(block, false),
        DAG_JOSE => jose::decode(block),
        DAG_JSON => decode_json(block, true),
        JSON => decode_json(block, false),
        code => Err(format!("no decoder registered for multicodec code {code} ({code:#x})")),
    }
}

/// A value in a codec.
pub(super) fn encode(codec: u64, value: &Value) -> Result<Vec<u8>, String> {
    match codec {
        RAW => match value {
            Value::Bytes(bytes) => Ok(bytes.clone()),
            other => Err(format!(
                "func called on wrong kind: \"AsBytes\" called on a {} node (kind: {}), but only makes sense on bytes",
                other.kind(),
                other.kind()
            )),
        },
        DAG_PB => pb::Node::from_value(value).map(|node| node.encode()),
        DAG_CBOR => Ok(encode_cbor(value)),
        CBOR => match has_link(value) {
            false => Ok(encode_cbor(value)),
            true => Err("cannot encode link in cbor".into()),
        },
        DAG_JOSE => jose::encode(value),
        DAG_JSON => Ok(encode_json(value, true)),
        JSON => match has_link(value) {
            false => Ok(encode_json(value, false)),
            true => Err("cannot marshal IPLD links to this codec".into()),
        },
        code => Err(format!("no encoder registered for multicodec code {code} ({code:#x})")),
    }
}

/// A key that stands twice.
fn repeated(entries: &[(Vec<u8>, Value)]) -> Option<std::borrow::Cow<'_, str>> {
    let mut keys: Vec<&[u8]> = entries.iter().map(|(key, _)| key.as_slice()).collect();
    keys.sort_unstable();
    keys.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| String::from_utf8_lossy(pair[0]))
}

fn has_link(value: &Value) -> bool {
    let mut found = Vec::new();
    value.links(&mut found);
    !found.is_empty()
}

impl Value {
    /// Its kind in IPLD's words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Text(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Link(_) => "link",
        }
    }
}

/// Keys in the order of DAG-CBOR and DAG-JSON: DAG-CBOR by length first.
fn sorted(entries: &[(Vec<u8>, Value)], by_length: bool) -> Vec<&(Vec<u8>, Value)> {
    type Key<'a> = (usize, &'a [u8]);
    let mut by_key: BTreeMap<Key<'_>, &(Vec<u8>, Value)> = BTreeMap::new();
    for entry in entries {
        by_key.insert((if by_length { entry.0.len() } else { 0 }, entry.0.as_slice()), entry);
    }
    by_key.into_values().collect()
}
