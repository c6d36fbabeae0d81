//! DAG-CBOR: definite lengths, text keys, links behind tag 42, floats of 64 bits. Texts need not be UTF-8, as in Kubo:
//! chains keep what they once wrote.

use cluster_compat::types::Cid;

use super::{MAX_DEPTH, Value, repeated, sorted};

const LINK_TAG: u64 = 42;
const EOF: &str = "unexpected EOF";

/// Reads a block. `links` tells whether tag 42 has its meaning.
pub(in crate::node) fn decode(mut bytes: &[u8], links: bool) -> Result<Value, String> {
    let value = item(&mut bytes, links, 0)?;
    if bytes.is_empty() { Ok(value) } else { Err("unexpected content after end of cbor object".into()) }
}

fn take<'a>(bytes: &mut &'a [u8], len: u64) -> Result<&'a [u8], String> {
    let len = usize::try_from(len).map_err(|_| EOF)?;
    let (taken, rest) = bytes.split_at_checked(len).ok_or(EOF)?;
    *bytes = rest;
    Ok(taken)
}

/// The head of an item: major type, short count, argument.
fn head(bytes: &mut &[u8]) -> Result<(u8, u8, u64), String> {
    let first = take(bytes, 1)?[0];
    let (major, short) = (first >> 5, first & 31);
    let argument = match short {
        0..=23 => u64::from(short),
        24..=27 => {
            take(bytes, 1 << (short - 24))?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
        }
        _ => return Err("indefinite lengths are not allowed in DAG-CBOR".into()),
    };
    Ok((major, short, argument))
}

fn item(bytes: &mut &[u8], links: bool, depth: usize) -> Result<Value, String> {
    if depth == MAX_DEPTH {
        return Err(format!("CBOR is nested more than {MAX_DEPTH} levels deep"));
    }
    let (major, short, argument) = head(bytes)?;
    Ok(match major {
        0 => Value::Int(i128::from(argument)),
        1 => Value::Int(-1 - i128::from(argument)),
        2 => Value::Bytes(take(bytes, argument)?.to_vec()),
        3 => Value::Text(take(bytes, argument)?.to_vec()),
        4 => {
            let mut items = Vec::new();
            for _ in 0..argument {
                items.push(item(bytes, links, depth + 1)?);
            }
            Value::List(items)
        }
        5 => {
            let mut entries: Vec<(Vec<u8>, Value)> = Vec::new();
            for _ in 0..argument {
                let (3, _, len) = head(bytes)? else { return Err("keys of maps are texts".into()) };
                let key = take(bytes, len)?.to_vec();
                entries.push((key, item(bytes, links, depth + 1)?));
            }
            if let Some(key) = repeated(&entries) {
                return Err(format!("duplicate map key {key:?}"));
            }
            Value::Map(entries)
        }
        6 if argument == LINK_TAG && links => link(bytes)?,
        6 => return Err(format!("unhandled cbor tag {argument}")),
        _ => match short {
            20 => Value::Bool(false),
            21 => Value::Bool(true),
            22 | 23 => Value::Null,
            25 => Value::Float(half(argument as u16)),
            26 => Value::Float(f64::from(f32::from_bits(argument as u32))),
            27 => Value::Float(f64::from_bits(argument)),
            other => return Err(format!("unknown simple value {other} in CBOR")),
        },
    })
}

fn link(bytes: &mut &[u8]) -> Result<Value, String> {
    let (2, _, len) = head(bytes)? else { return Err("a link in DAG-CBOR is a byte string".into()) };
    match take(bytes, len)? {
        [0, cid @ ..] => Cid::try_from(cid).map(Value::Link).map_err(|cause| format!("invalid cid: {cause}")),
        _ => Err("invalid multibase on IPLD link".into()),
    }
}

/// A float of 16 bits.
fn half(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let mantissa = f64::from(bits & 0x3ff);
    sign * match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (mantissa + 1024.0) * 2f64.powi(exponent - 25),
    }
}

/// Writes a value canonically.
pub(in crate::node) fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, value);
    out
}

fn put_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    match argument {
        0..=23 => out.push(major | argument as u8),
        24..=0xff => out.extend([major | 24, argument as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend((argument as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend((argument as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend(argument.to_be_bytes());
        }
    }
}

fn put(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0xf6),
        Value::Bool(is) => out.push(if *is { 0xf5 } else { 0xf4 }),
        Value::Int(number) if *number >= 0 => put_head(out, 0, u64::try_from(*number).unwrap_or(u64::MAX)),
        Value::Int(number) => put_head(out, 1, u64::try_from(-1 - *number).unwrap_or(u64::MAX)),
        Value::Float(number) => {
            out.push(0xfb);
            out.extend(number.to_bits().to_be_bytes());
        }
        Value::Text(text) => {
            put_head(out, 3, text.len() as u64);
            out.extend_from_slice(text);
        }
        Value::Bytes(bytes) => {
            put_head(out, 2, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
        Value::List(items) => {
            put_head(out, 4, items.len() as u64);
            items.iter().for_each(|item| put(out, item));
        }
        Value::Map(entries) => {
            let entries = sorted(entries, true);
            put_head(out, 5, entries.len() as u64);
            for (key, value) in entries {
                put_head(out, 3, key.len() as u64);
                out.extend_from_slice(key);
                put(out, value);
            }
        }
        Value::Link(cid) => {
            let bytes = cid.to_bytes();
            put_head(out, 6, LINK_TAG);
            put_head(out, 2, bytes.len() as u64 + 1);
            out.push(0);
            out.extend_from_slice(&bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode_json;
    use super::*;

    #[test]
    fn a_text_that_is_not_utf8_is_kept_and_told_as_kubo_tells_it() {
        // a2 61 ff 01 61 80 62 c3 28: two keys and a value that are none
        let block = [0xa2, 0x61, 0xff, 0x01, 0x61, 0x80, 0x62, 0xc3, 0x28];
        let value = decode(&block, true).unwrap();
        assert_eq!(encode_json(&value, true), br#"{"\ufffd":"\ufffd(","\ufffd":1}"#);
        assert_eq!(decode(&encode(&value), true).unwrap().kind(), "map");
    }

    #[test]
    fn what_is_no_block_is_refused_by_name() {
        let refused = |block: &[u8]| decode(block, true).unwrap_err();
        assert_eq!(refused(&[]), EOF);
        assert_eq!(refused(&[0x01, 0x02]), "unexpected content after end of cbor object");
        assert_eq!(refused(&[0xa2, 0x61, b'a', 0x01, 0x61, b'a', 0x02]), "duplicate map key \"a\"");
        assert_eq!(refused(&[0x9f, 0xff]), "indefinite lengths are not allowed in DAG-CBOR");
        assert_eq!(refused(&[0x7b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), EOF);
        assert_eq!(refused(&vec![0x81; 1 << 20]), "CBOR is nested more than 256 levels deep");
        assert_eq!(refused(&[0xd8, 0x2a, 0x41, 0x01]), "invalid multibase on IPLD link");
    }
}
