//! CIDs: text with the reference's errors, JSON.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use cid::Cid;

use super::base::{self, Text};
use super::cid_fast;

/// Code of sha2-256, the only hash of a CIDv0.
const SHA2_256: u64 = 0x12;

/// Longest digest a [`Cid`] holds.
const MAX_DIGEST_BYTES: usize = 64;

/// Parses a CID as go-cid does; the error is its text, from `invalid cid: …` on (spec: rest-api 5.4).
pub fn parse_cid(text: &str) -> Result<Cid, String> {
    parse_cid_bytes(text.as_bytes())
}

/// As [`parse_cid`], for text that may be any bytes.
pub fn parse_cid_bytes(text: &[u8]) -> Result<Cid, String> {
    cid_fast::parse(text).map_or_else(|| parse_carefully(text), Ok)
}

/// Reads every spelling, or says what is wrong.
pub(super) fn parse_carefully(text: &[u8]) -> Result<Cid, String> {
    let invalid = |error: String| format!("invalid cid: {error}");
    if text.len() < 2 {
        return Err(invalid("cid too short".into()));
    }
    if text.len() == 46 && text.starts_with(b"Qm") {
        let bytes = base::decode_base58(text).map_err(|_| invalid("input isn't valid multihash".into()))?;
        let (hash, len) = read_multihash(&bytes).map_err(invalid)?;
        if len != bytes.len() {
            return Err(invalid(inconsistent_length(&hash, len)));
        }
        return Cid::new_v0(hash)
            .map_err(|_| invalid(format!("invalid hash for cidv0 {}-{}", hash.code(), hash.size())));
    }
    let bytes = base::decode(text).map_err(invalid)?;
    // the prefix stands twice where the bytes, not the text, are at fault
    let (cid, len) = read_cid(&bytes).map_err(|error| invalid(invalid(error)))?;
    if len != bytes.len() {
        return Err(invalid("trailing bytes in data buffer passed to cid Cast".into()));
    }
    Ok(cid)
}

/// The text of a CID without allocation: base58 for version 0, lower-case base32 for version 1.
pub fn cid_text(cid: &Cid) -> Text {
    let mut bytes = [0; 96];
    // a CID has at most 1 + 10 + 10 + 1 + 64 bytes
    let len = cid.write_bytes(&mut bytes[..]).unwrap_or(0);
    let mut text = Text::new();
    match cid.version() {
        cid::Version::V0 => text.push_base58(&bytes[..len]),
        cid::Version::V1 => text.push_base32(b'b', &bytes[..len]),
    }
    text
}

/// Reads a CID from the front of some bytes; returns its length too.
fn read_cid(bytes: &[u8]) -> Result<(Cid, usize), String> {
    if bytes.len() > 2 && bytes.starts_with(&[SHA2_256 as u8, 32]) {
        let Some(digest) = bytes.get(2..34) else {
            return Err("not enough bytes for cid v0".into());
        };
        let hash = wrap(SHA2_256, digest)?;
        return Ok((Cid::new_v0(hash).map_err(|error| error.to_string())?, 34));
    }
    let (version, rest) = read_varint(bytes)?;
    if version != 1 {
        return Err(format!("expected 1 as the cid version number, got: {version}"));
    }
    let (codec, rest) = read_varint(rest)?;
    let (hash, len) = read_multihash(rest)?;
    Ok((Cid::new_v1(codec, hash), bytes.len() - rest.len() + len))
}

/// Reads a multihash from the front of some bytes, with the errors of go-multihash; returns its length too.
pub(super) fn read_multihash(bytes: &[u8]) -> Result<(multihash::Multihash<64>, usize), String> {
    if bytes.len() < 2 {
        return Err("multihash too short. must be >= 2 bytes".into());
    }
    let (code, rest) = read_varint(bytes)?;
    let (len, rest) = read_varint(rest)?;
    if len > i32::MAX as u64 {
        return Err("digest too long, supporting only <= 2^31-1".into());
    }
    let Some(digest) = rest.get(..len as usize) else {
        return Err("length greater than remaining number of bytes in buffer".into());
    };
    Ok((wrap(code, digest)?, bytes.len() - rest.len() + digest.len()))
}

pub(super) fn inconsistent_length(hash: &multihash::Multihash<64>, found: usize) -> String {
    format!("multihash length inconsistent: expected {}; got {found}", hash.size())
}

fn wrap(code: u64, digest: &[u8]) -> Result<multihash::Multihash<64>, String> {
    multihash::Multihash::wrap(code, digest).map_err(|_| {
        format!("digests of more than {MAX_DIGEST_BYTES} bytes are not supported, got {}", digest.len())
    })
}

/// A number of at most 63 bits, with the errors of go-varint.
fn read_varint(bytes: &[u8]) -> Result<(u64, &[u8]), String> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().enumerate() {
        if i >= 9 || (i == 8 && byte >= 0x80) {
            return Err("varints larger than uint63 not supported".into());
        }
        if byte < 0x80 {
            if byte == 0 && i > 0 {
                return Err("varint not minimally encoded".into());
            }
            return Ok((value | u64::from(byte) << (7 * i), &bytes[i + 1..]));
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
    }
    Err("varints malformed, could not reach the end".into())
}

/// A CID in a document; `None` is `null`.
pub(crate) struct CidJson<'a>(pub(crate) Option<&'a Cid>);

impl Serialize for CidJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(cid) => serializer.serialize_str(&cid_text(cid)),
            None => serializer.serialize_none(),
        }
    }
}

/// Reads a CID or `null`.
pub(super) fn deserialize_cid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cid>, D::Error> {
    match Option::<std::borrow::Cow<str>>::deserialize(deserializer)? {
        Some(text) => parse_cid(&text).map(Some).map_err(D::Error::custom),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "bafkreiardpf2hbld7fyvfdcq2gqfdgg4jffzwwaur5ht3uubb57ueqra4m";

    #[test]
    fn all_forms_of_a_cid_are_read_and_printed_canonically() {
        let cases = [
            ("BAFKREIARDPF2HBLD7FYVFDCQ2GQFDGG4JFFZWWAUR5HT3UUBB57UEQRA4M", V1),
            ("zb2rhXo4hw8PS9PCf5b6b6TWYWiZkbcrBUjBkanmZQo3RYfgW", V1),
            ("f01551220111bcba38563f971528c50d1a05198dc494b9b58148f4f3dd2810f7f424220e3", V1),
            ("F01551220111BCBA38563F971528C50D1A05198DC494B9B58148F4F3DD2810F7F424220E3", V1),
            ("k2cwue92r6mdqrbywjcrzgawdx1skgq5pip64pkvyzonhhno09n02kmb", V1),
            ("uAVUSIBEby6OFY_lxUoxQ0aBRmNxJS5tYFI9PPdKBD39CQiDj", V1),
            (
                "QmXw2sSTXLXyJjrAv6rnWL1oZ1HA8eqvkrngCm7dpxjtFM",
                "QmXw2sSTXLXyJjrAv6rnWL1oZ1HA8eqvkrngCm7dpxjtFM",
            ),
            (
                "zQmXw2sSTXLXyJjrAv6rnWL1oZ1HA8eqvkrngCm7dpxjtFM",
                "QmXw2sSTXLXyJjrAv6rnWL1oZ1HA8eqvkrngCm7dpxjtFM",
            ),
        ];
        for (input, expected) in cases {
            match parse_cid(input) {
                Ok(cid) => {
                    assert_eq!(&*cid_text(&cid), expected, "{input}");
                    assert_eq!(cid.to_string(), expected);
                }
                Err(error) => panic!("{input}: {error}"),
            }
        }
    }

    #[test]
    fn bad_cids_are_refused_with_the_texts_of_go_cid() {
        let cases = [
            ("", "invalid cid: cid too short"),
            ("x", "invalid cid: cid too short"),
            ("abc", "invalid cid: selected encoding not supported"),
            ("Qm", "invalid cid: selected encoding not supported"),
            ("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3N0", "invalid cid: input isn't valid multihash"),
            ("bafy", "invalid cid: invalid cid: varints malformed, could not reach the end"),
            ("bafkreif", "invalid cid: invalid cid: length greater than remaining number of bytes in buffer"),
            ("bb", "invalid cid: invalid cid: varints malformed, could not reach the end"),
            ("zz0", "invalid cid: invalid base58 digit ('0')"),
            ("f02551220", "invalid cid: invalid cid: expected 1 as the cid version number, got: 2"),
            ("f0155122", "invalid cid: encoding/hex: odd length hex string"),
            ("f00", "invalid cid: invalid cid: expected 1 as the cid version number, got: 0"),
            ("k0", "invalid cid: invalid cid: expected 1 as the cid version number, got: 0"),
            ("mAVUSIA", "invalid cid: invalid cid: length greater than remaining number of bytes in buffer"),
            ("é", "invalid cid: selected encoding not supported"),
            ("\0\0", "invalid cid: invalid cid: expected 1 as the cid version number, got: 0"),
            ("f015500", "invalid cid: invalid cid: multihash too short. must be >= 2 bytes"),
            ("f1220", "invalid cid: invalid cid: expected 1 as the cid version number, got: 18"),
            ("f122000", "invalid cid: invalid cid: not enough bytes for cid v0"),
            ("f018000", "invalid cid: invalid cid: varint not minimally encoded"),
            ("f01808080808080808080", "invalid cid: invalid cid: varints larger than uint63 not supported"),
            (
                "f01551220000000000000000000000000000000000000000000000000000000000000000000",
                "invalid cid: trailing bytes in data buffer passed to cid Cast",
            ),
            (
                "bafkreiardpf2hbld7fyvfdcq2gqfdgg4jffzwwaur5ht3uubb57ueqra4ma",
                "invalid cid: invalid cid: length greater than remaining number of bytes in buffer",
            ),
            (
                "bafybeigxhyyshaovknmxuqstphof2nyek54wqgvu5om5fkwzklsb4se63u ",
                "invalid cid: illegal base32 data at input byte 58",
            ),
        ];
        for (input, expected) in cases {
            assert_eq!(parse_cid(input), Err(expected.to_string()), "{input}");
        }
        assert!(parse_cid_bytes(b"\xff\xff").is_err());
        assert!(parse_cid(&format!("f0155004{}", "00".repeat(65))).is_err());
    }
}
