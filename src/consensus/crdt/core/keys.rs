//! How keys and ids of the set are stored.
//!
//! Usual ones are spelt as [`crate::wire::key`] says; other peers may write any text. [`Table::Values`](crate::store::Table) is keyed by the text, so that it lists in the reference's
//! order. The other tables keep pairs of key and id, and there base32 is packed back into bytes.

use std::borrow::Cow;

use crate::wire::key::{spell, unspell};

/// First byte of a packed text that was `/` and base32.
const PACKED: u8 = 1;

/// First byte of a packed text that was anything else.
const PLAIN: u8 = 0;

/// A key as the reference's datastore cleans it: one leading slash, no empty, `.` or `..` parts.
pub fn clean(key: &str) -> Cow<'_, str> {
    if is_clean(key) {
        return Cow::Borrowed(key);
    }
    let mut parts = Vec::new();
    for part in key.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Cow::Owned(format!("/{}", parts.join("/")))
}

fn is_clean(key: &str) -> bool {
    match key.as_bytes() {
        [b'/', rest @ ..] if rest.iter().all(|b| !matches!(b, b'/' | b'.')) => true,
        [b'/', ..] => key[1..].split('/').all(|part| !matches!(part, "" | "." | "..")),
        _ => false,
    }
}

fn pack(text: &str, out: &mut Vec<u8>) {
    match unspell(text.as_bytes()) {
        Some(bytes) => {
            out.push(PACKED);
            out.extend_from_slice(&bytes);
        }
        None => {
            out.push(PLAIN);
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// What the stored pairs of a key begin with, and those of no other key: the length of the packed key (one byte,
/// or 255 and four), then the packed key.
pub fn pair_prefix(key: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + key.len() + 40);
    out.push(0);
    pack(key, &mut out);
    match u8::try_from(out.len() - 1) {
        Ok(length) if length < 0xff => out[0] = length,
        _ => {
            let length = u32::try_from(out.len() - 1).unwrap_or(u32::MAX).to_be_bytes();
            out[0] = 0xff;
            out.splice(1..1, length);
        }
    }
    out
}

/// A stored pair: the prefix of its key, then the packed id.
pub fn pair(prefix: &[u8], id: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(prefix.len() + 1 + id.len());
    out.extend_from_slice(prefix);
    pack(id, &mut out);
    out
}

/// A stored pair whose id is that of a node.
pub fn pair_of_node(mut prefix: Vec<u8>, multihash: &[u8]) -> Vec<u8> {
    prefix.push(PACKED);
    prefix.extend_from_slice(multihash);
    prefix
}

/// The node of a pair, given the pair without its prefix.
pub fn node_of_pair(packed_id: &[u8]) -> Option<&[u8]> {
    match packed_id {
        [PACKED, multihash @ ..] => Some(multihash),
        _ => None,
    }
}

/// The text of an id, given the pair without its prefix.
pub fn id_of_pair(packed_id: &[u8]) -> Option<String> {
    match packed_id {
        [PACKED, bytes @ ..] => Some(spell(bytes)),
        [_, text @ ..] => String::from_utf8(text.to_vec()).ok(),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_cleaned_as_paths() {
        for (key, cleaned) in [
            ("/a", "/a"),
            ("a", "/a"),
            ("/a//b/", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("", "/"),
            ("/", "/"),
            ("/a.b", "/a.b"),
        ] {
            assert_eq!(clean(key), cleaned, "{key}");
        }
    }

    #[test]
    fn pairs_of_a_key_are_told_from_those_of_longer_keys() {
        let texts = ["/", "/a", "/a/b", "/AFKREI", "/AFKREIAA", &format!("/{}", "x".repeat(300))];
        let prefixes: Vec<_> = texts.iter().map(|text| pair_prefix(text)).collect();
        for (i, a) in prefixes.iter().enumerate() {
            for b in &prefixes[i + 1..] {
                assert!(!a.starts_with(b) && !b.starts_with(a));
            }
            for id in ["/CIQO4PNZCNR3O4PO6WNREKBAN664UIMDBSINA7B3X5HRVUWNX2PVDSQ", "any/thing", ""] {
                assert_eq!(id_of_pair(&pair(a, id)[a.len()..]).as_deref(), Some(id));
            }
        }
    }
}
