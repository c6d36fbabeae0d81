//! Reading blocks that others made: whether they are what their codec says, and what a CAR's header holds.

use cluster_compat::types::{Block, Cid};

/// Deepest nesting of CBOR that is read; deeper blocks are refused.
const MAX_CBOR_DEPTH: usize = 128;
/// The tag of links in DAG-CBOR.
pub(super) const LINK_TAG: u64 = 42;
/// UnixFS type of a directory.
const DIRECTORY: u64 = 1;

const EOF: &str = "unexpected EOF";

/// A field of a protobuf message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Takes `len` bytes.
fn take<'a>(bytes: &mut &'a [u8], len: u64) -> Result<&'a [u8], String> {
    let len = usize::try_from(len).map_err(|_| EOF)?;
    let (taken, rest) = bytes.split_at_checked(len).ok_or(EOF)?;
    *bytes = rest;
    Ok(taken)
}

/// Takes a varint.
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

/// Takes a field whose wire type must be `wanted`; `message` names it in errors.
fn field<'a>(
    bytes: &mut &'a [u8],
    message: &str,
    wanted: impl Fn(u64) -> u64,
) -> Result<(u64, Field<'a>), String> {
    let tag = varint(bytes)?;
    let (number, wire_type) = (tag >> 3, tag & 7);
    let wanted = wanted(number);
    if wire_type != wanted {
        return Err(format!("protobuf: ({message}) invalid wireType, expected {wanted}, got {wire_type}"));
    }
    let value = varint(bytes)?;
    Ok((number, if wanted == 0 { Field::Number(value) } else { Field::Bytes(take(bytes, value)?) }))
}

/// Whether a block is a dag-pb node.
pub(super) fn check_dag_pb(mut node: &[u8]) -> Result<(), String> {
    let mut has_data = false;
    while !node.is_empty() {
        match field(&mut node, "PBNode", |_| 2)? {
            (1, _) if has_data => return Err("protobuf: (PBNode) duplicate Data section".into()),
            (1, _) => has_data = true,
            (2, Field::Bytes(link)) => check_link(link)?,
            (number, _) => {
                return Err(format!("protobuf: (PBNode) invalid fieldNumber, expected 1 or 2, got {number}"));
            }
        }
    }
    Ok(())
}

fn check_link(mut link: &[u8]) -> Result<(), String> {
    let mut has_hash = false;
    while !link.is_empty() {
        match field(&mut link, "PBLink", |number| if number == 3 { 0 } else { 2 })? {
            (1, Field::Bytes(hash)) => {
                Cid::try_from(hash).map_err(|error| format!("invalid cid: {error}"))?;
                has_hash = true;
            }
            (2 | 3, _) => {}
            (number, _) => {
                return Err(format!(
                    "protobuf: (PBLink) invalid fieldNumber, expected 1, 2 or 3, got {number}"
                ));
            }
        }
    }
    if has_hash { Ok(()) } else { Err("invalid Hash field found in link, expected CID".into()) }
}

/// The size of the file whose root a block is; 0 if it is none.
pub(super) fn file_size(block: &Block) -> u64 {
    let mut node = &block.data[..];
    if block.cid.codec() != super::hash::DAG_PB {
        return 0;
    }
    while let Ok((number, Field::Bytes(mut data))) = field(&mut node, "PBNode", |_| 2) {
        if number != 1 {
            continue;
        }
        let (mut kind, mut size) = (None, 0);
        while let Ok((number, value)) = field(&mut data, "Data", |number| if number == 2 { 2 } else { 0 }) {
            match (number, value) {
                (1, Field::Number(value)) => kind = Some(value),
                (3, Field::Number(value)) => size = value,
                _ => {}
            }
        }
        return if kind.is_none_or(|kind| kind == DIRECTORY) { 0 } else { size };
    }
    0
}

/// What a CAR's header says.
#[derive(Debug, Default)]
pub(super) struct CarHeader {
    pub(super) roots: Vec<Cid>,
    pub(super) version: u64,
}

/// The head of a CBOR item: major type and argument.
fn head(bytes: &mut &[u8]) -> Result<(u8, u64), String> {
    let first = take(bytes, 1)?[0];
    let (major, short) = (first >> 5, first & 31);
    let argument = match short {
        0..=23 => u64::from(short),
        24..=27 => {
            take(bytes, 1 << (short - 24))?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
        }
        _ => return Err("indefinite lengths are not allowed in DAG-CBOR".into()),
    };
    Ok((major, argument))
}

/// Takes the link after its tag.
fn link(bytes: &mut &[u8]) -> Result<Cid, String> {
    match head(bytes)? {
        (2, len) => match take(bytes, len)? {
            [0, cid @ ..] => Cid::try_from(cid).map_err(|error| format!("invalid cid: {error}")),
            _ => Err("a link in DAG-CBOR starts with a zero byte".into()),
        },
        _ => Err("a link in DAG-CBOR is a byte string".into()),
    }
}

/// Takes one item of any kind.
fn skip(bytes: &mut &[u8], depth: usize) -> Result<(), String> {
    if depth == MAX_CBOR_DEPTH {
        return Err(format!("CBOR is nested more than {MAX_CBOR_DEPTH} levels deep"));
    }
    match head(bytes)? {
        (0 | 1, _) => Ok(()),
        (2, len) => take(bytes, len).map(|_| ()),
        (3, len) => match std::str::from_utf8(take(bytes, len)?) {
            Ok(_) => Ok(()),
            Err(_) => Err("a text in CBOR is not UTF-8".into()),
        },
        (4, len) => (0..len).try_for_each(|_| skip(bytes, depth + 1)),
        (5, len) => (0..len).try_for_each(|_| {
            skip(bytes, depth + 1)?;
            skip(bytes, depth + 1)
        }),
        (6, LINK_TAG) => link(bytes).map(|_| ()),
        (6, tag) => Err(format!("unhandled cbor tag {tag}")),
        // false, true, null, and floats, whose bytes are the argument
        (_, _) => Ok(()),
    }
}

/// Reads a map from decimal numbers to links, and nothing after it.
pub(super) fn numbered_links(mut node: &[u8]) -> Result<Vec<(u64, Cid)>, String> {
    let bytes = &mut node;
    let (5, n) = head(bytes)? else { return Err("not a map".into()) };
    let mut links = Vec::new();
    for _ in 0..n {
        let (3, len) = head(bytes)? else { return Err("a key of the map is no text".into()) };
        let key = String::from_utf8_lossy(take(bytes, len)?);
        let number = key.parse().map_err(|_| format!("key {key:?} of the map is no number"))?;
        let (6, LINK_TAG) = head(bytes)? else { return Err(format!("entry {key} of the map is no link")) };
        links.push((number, link(bytes)?));
    }
    if bytes.is_empty() { Ok(links) } else { Err(format!("{} bytes after the map", bytes.len())) }
}

/// Whether a block is DAG-CBOR.
pub(super) fn check_dag_cbor(mut block: &[u8]) -> Result<(), String> {
    skip(&mut block, 0)?;
    if block.is_empty() { Ok(()) } else { Err("unexpected content after end of cbor object".into()) }
}

/// Reads a header: a map with `roots` and `version`.
pub(super) fn car_header(mut bytes: &[u8]) -> Result<CarHeader, String> {
    if bytes.is_empty() {
        return Err("EOF".into());
    }
    let bytes = &mut bytes;
    let mut header = CarHeader::default();
    let len = match head(bytes)? {
        (5, len) => len,
        (2 | 3, len) => return take(bytes, len).and(Err("a header is a map".into())),
        _ => return Err("a header is a map".into()),
    };
    for _ in 0..len {
        let key = match head(bytes)? {
            (3, len) => take(bytes, len)?,
            _ => return Err("keys of a header are texts".into()),
        };
        match key {
            b"version" => match head(bytes)? {
                (0, version) => header.version = version,
                _ => return Err("the version is a number".into()),
            },
            b"roots" => {
                let (4, len) = head(bytes)? else { return Err("roots are a list".into()) };
                for _ in 0..len {
                    match head(bytes)? {
                        (6, LINK_TAG) => header.roots.push(link(bytes)?),
                        _ => return Err("roots are links".into()),
                    }
                }
            }
            _ => skip(bytes, 0)?,
        }
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_cut_or_made_up_makes_it_panic() {
        let header = hex::decode("a265726f6f747381d82a58250001551220b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde96776657273696f6e01").unwrap();
        assert_eq!(car_header(&header).unwrap().roots.len(), 1);
        for len in 0..header.len() {
            assert!(car_header(&header[..len]).is_err());
            assert!(check_dag_cbor(&header[..len]).is_err());
        }
        assert!(check_dag_cbor(&header).is_ok());
        for byte in 0..=255 {
            let _ = car_header(&[byte, 255, 255, 255, 255, 255, 255, 255, 255]);
            let _ = check_dag_pb(&[byte, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255]);
        }
        assert!(check_dag_cbor(&[0x81; 4096]).unwrap_err().contains("nested"));
        assert_eq!(check_dag_cbor(&[0x9a, 255, 255, 255, 255]).unwrap_err(), EOF);
    }
}
