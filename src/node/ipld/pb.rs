//! dag-pb, and the UnixFS message inside.

use cluster_compat::types::Cid;

use super::Value;

const EOF: &str = "unexpected EOF";

/// A link of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::node) struct PbLink {
    pub(in crate::node) name: Vec<u8>,
    pub(in crate::node) cid: Cid,
    pub(in crate::node) tsize: u64,
    has_name: bool,
    has_tsize: bool,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::node) struct Node {
    pub(in crate::node) links: Vec<PbLink>,
    pub(in crate::node) data: Option<Vec<u8>>,
}

/// A field of a message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn take<'a>(bytes: &mut &'a [u8], len: u64) -> Result<&'a [u8], String> {
    let len = usize::try_from(len).map_err(|_| EOF)?;
    let (taken, rest) = bytes.split_at_checked(len).ok_or(EOF)?;
    *bytes = rest;
    Ok(taken)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0u64;
    for n in 0..10 {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << (7 * n);
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("protobuf: varint overflow".into())
}

/// Takes a field; only the wire types that these messages have.
fn field<'a>(bytes: &mut &'a [u8]) -> Result<(u64, Field<'a>), String> {
    let tag = varint(bytes)?;
    match tag & 7 {
        0 => Ok((tag >> 3, Field::Number(varint(bytes)?))),
        1 => take(bytes, 8).map(|eight| (tag >> 3, Field::Bytes(eight))),
        2 => {
            let len = varint(bytes)?;
            Ok((tag >> 3, Field::Bytes(take(bytes, len)?)))
        }
        5 => take(bytes, 4).map(|four| (tag >> 3, Field::Bytes(four))),
        wire_type => Err(format!("protobuf: invalid wireType {wire_type}")),
    }
}

impl Node {
    /// Reads a node as strictly as go-codec-dagpb.
    pub(in crate::node) fn decode(mut bytes: &[u8]) -> Result<Self, String> {
        let mut node = Self::default();
        while !bytes.is_empty() {
            let tag = bytes[0];
            match field(&mut bytes)? {
                (1, Field::Bytes(_)) if node.data.is_some() => {
                    return Err("protobuf: (PBNode) duplicate Data section".into());
                }
                (1, Field::Bytes(data)) if tag & 7 == 2 => node.data = Some(data.to_vec()),
                (2, Field::Bytes(link)) if tag & 7 == 2 => node.links.push(decode_link(link)?),
                (1 | 2, _) => {
                    return Err(format!("protobuf: (PBNode) invalid wireType, expected 2, got {}", tag & 7));
                }
                (number, _) => {
                    return Err(format!(
                        "protobuf: (PBNode) invalid fieldNumber, expected 1 or 2, got {number}"
                    ));
                }
            }
        }
        Ok(node)
    }

    /// Writes it: links first, as the format has it.
    pub(in crate::node) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for link in &self.links {
            let mut inner = Vec::new();
            put_bytes(&mut inner, 0x0a, &link.cid.to_bytes());
            if link.has_name {
                put_bytes(&mut inner, 0x12, &link.name);
            }
            if link.has_tsize {
                inner.push(0x18);
                put_varint(&mut inner, link.tsize);
            }
            put_bytes(&mut out, 0x12, &inner);
        }
        if let Some(data) = &self.data {
            put_bytes(&mut out, 0x0a, data);
        }
        out
    }

    /// The link of a name.
    pub(in crate::node) fn link(&self, name: &str) -> Option<&PbLink> {
        self.links.iter().find(|link| link.name == name.as_bytes())
    }

    /// Its view in the data model.
    pub(super) fn to_value(&self) -> Value {
        let mut entries = Vec::new();
        if let Some(data) = &self.data {
            entries.push(("Data".into(), Value::Bytes(data.clone())));
        }
        let links = self.links.iter().map(|link| {
            let mut entry = vec![("Hash".into(), Value::Link(link.cid))];
            if link.has_name {
                entry.push(("Name".into(), Value::Text(link.name.clone())));
            }
            if link.has_tsize {
                entry.push(("Tsize".into(), Value::Int(i128::from(link.tsize))));
            }
            Value::Map(entry)
        });
        entries.push(("Links".into(), Value::List(links.collect())));
        Value::Map(entries)
    }

    /// The node of a value in that shape.
    pub(super) fn from_value(value: &Value) -> Result<Self, String> {
        let Value::Map(entries) = value else {
            return Err("invalid DAG-PB form: a node is a map".into());
        };
        let mut node = Self::default();
        for (key, value) in entries {
            match (key.as_slice(), value) {
                (b"Data", Value::Bytes(data)) => node.data = Some(data.clone()),
                (b"Links", Value::List(links)) => {
                    node.links = links.iter().map(link_of).collect::<Result<_, _>>()?;
                }
                (key, _) => return Err(no_field(key, "PBNode")),
            }
        }
        if !entries.iter().any(|(key, _)| key == b"Links") {
            return Err("missing required fields: Links".into());
        }
        node.links.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(node)
    }
}

fn no_field(key: &[u8], of: &str) -> String {
    format!("invalid key: {:?} is not a field in type {of}", String::from_utf8_lossy(key))
}

fn link_of(value: &Value) -> Result<PbLink, String> {
    let Value::Map(entries) = value else { return Err("invalid DAG-PB form: a link is a map".into()) };
    let (mut cid, mut name, mut tsize) = (None, None, None);
    for (key, value) in entries {
        match (key.as_slice(), value) {
            (b"Hash", Value::Link(link)) => cid = Some(*link),
            (b"Name", Value::Text(text)) => name = Some(text.clone()),
            (b"Tsize", Value::Int(size)) => tsize = u64::try_from(*size).ok(),
            (key, _) => return Err(no_field(key, "PBLink")),
        }
    }
    Ok(PbLink {
        cid: cid.ok_or("missing required fields: Hash")?,
        has_name: name.is_some(),
        has_tsize: tsize.is_some(),
        name: name.unwrap_or_default(),
        tsize: tsize.unwrap_or_default(),
    })
}

fn decode_link(mut bytes: &[u8]) -> Result<PbLink, String> {
    let (mut cid, mut name, mut tsize) = (None, None, None);
    while !bytes.is_empty() {
        match field(&mut bytes)? {
            (1, Field::Bytes(hash)) => {
                cid = Some(Cid::try_from(hash).map_err(|cause| format!("invalid cid: {cause}"))?);
            }
            (2, Field::Bytes(text)) => name = Some(text.to_vec()),
            (3, Field::Number(size)) => tsize = Some(size),
            (number @ 1..=3, _) => {
                return Err(format!("protobuf: (PBLink) invalid wireType of field {number}"));
            }
            (number, _) => {
                return Err(format!(
                    "protobuf: (PBLink) invalid fieldNumber, expected 1, 2 or 3, got {number}"
                ));
            }
        }
    }
    Ok(PbLink {
        cid: cid.ok_or("invalid Hash field found in link, expected CID")?,
        has_name: name.is_some(),
        has_tsize: tsize.is_some(),
        name: name.unwrap_or_default(),
        tsize: tsize.unwrap_or_default(),
    })
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// What a UnixFS node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum Kind {
    Raw,
    Directory,
    File,
    Metadata,
    Symlink,
    Hamt,
}

/// The UnixFS message of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::node) struct UnixFs {
    pub(in crate::node) kind: Kind,
    pub(in crate::node) data: Vec<u8>,
    pub(in crate::node) file_size: Option<u64>,
    pub(in crate::node) block_sizes: Vec<u64>,
    pub(in crate::node) fanout: u64,
    pub(in crate::node) mode: Option<u32>,
    pub(in crate::node) mtime: Option<(i64, u32)>,
}

impl UnixFs {
    /// Reads the message.
    pub(in crate::node) fn decode(mut bytes: &[u8]) -> Result<Self, String> {
        let mut kind = None;
        let mut message = Self {
            kind: Kind::File,
            data: Vec::new(),
            file_size: None,
            block_sizes: Vec::new(),
            fanout: 0,
            mode: None,
            mtime: None,
        };
        while !bytes.is_empty() {
            match field(&mut bytes)? {
                (1, Field::Number(number)) => {
                    kind = Some(match number {
                        0 => Kind::Raw,
                        1 => Kind::Directory,
                        2 => Kind::File,
                        3 => Kind::Metadata,
                        4 => Kind::Symlink,
                        5 => Kind::Hamt,
                        other => return Err(format!("unrecognized type of node: {other}")),
                    });
                }
                (2, Field::Bytes(data)) => message.data = data.to_vec(),
                (3, Field::Number(size)) => message.file_size = Some(size),
                (4, Field::Number(size)) => message.block_sizes.push(size),
                (4, Field::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        message.block_sizes.push(varint(&mut packed)?);
                    }
                }
                (6, Field::Number(fanout)) => message.fanout = fanout,
                (7, Field::Number(mode)) => message.mode = u32::try_from(mode).ok(),
                (8, Field::Bytes(mut time)) => {
                    let (mut seconds, mut nanos) = (0, 0);
                    while !time.is_empty() {
                        match field(&mut time)? {
                            (1, Field::Number(number)) => seconds = number as i64,
                            (2, Field::Bytes(four)) => {
                                nanos = four.first_chunk::<4>().map_or(0, |four| u32::from_le_bytes(*four));
                            }
                            _ => {}
                        }
                    }
                    message.mtime = Some((seconds, nanos));
                }
                _ => {}
            }
        }
        message.kind = kind.ok_or("proto: required field \"Type\" not set")?;
        Ok(message)
    }

    /// The message `bytes` with mode and time as given, and all else as it was.
    pub(in crate::node) fn with_meta(
        mut bytes: &[u8],
        mode: Option<u32>,
        mtime: Option<(i64, u32)>,
    ) -> Result<Vec<u8>, String> {
        let mut out = Vec::with_capacity(bytes.len() + 24);
        while !bytes.is_empty() {
            let whole = bytes;
            let (number, _) = field(&mut bytes)?;
            if number != 7 && number != 8 {
                out.extend_from_slice(&whole[..whole.len() - bytes.len()]);
            }
        }
        if let Some(mode) = mode {
            out.push(0x38);
            put_varint(&mut out, u64::from(mode));
        }
        if let Some((seconds, nanos)) = mtime {
            let mut time = vec![0x08];
            put_varint(&mut time, seconds as u64);
            if nanos > 0 {
                time.push(0x15);
                time.extend(nanos.to_le_bytes());
            }
            put_bytes(&mut out, 0x42, &time);
        }
        Ok(out)
    }

    /// The message of a file whose content is in it. (Go: boxo `FilePBData`)
    pub(in crate::node) fn file(data: &[u8]) -> Vec<u8> {
        let mut out = vec![0x08, 2];
        if !data.is_empty() {
            put_bytes(&mut out, 0x12, data);
        }
        out.push(0x18);
        put_varint(&mut out, data.len() as u64);
        out
    }

    /// Bytes of content beneath the node.
    pub(in crate::node) fn size(&self) -> u64 {
        match self.kind {
            Kind::File | Kind::Raw => self.file_size.unwrap_or(self.data.len() as u64),
            Kind::Symlink => self.data.len() as u64,
            Kind::Directory | Kind::Hamt | Kind::Metadata => 0,
        }
    }
}
