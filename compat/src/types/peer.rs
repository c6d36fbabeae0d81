//! Peer ids: text with the reference's errors, JSON.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use libp2p_identity::PeerId;

use super::base::{self, Text};
use super::cid::{inconsistent_length, parse_cid, read_multihash};
use super::memo::{Memo, memo, with_text};

/// Codec of CIDs that stand for a key.
const LIBP2P_KEY: u64 = 0x72;

/// Parses a peer id in base58 or CID form; the error is go-libp2p's text.
pub fn parse_peer_id(text: &str) -> Result<PeerId, String> {
    let failed = |error: String| format!("failed to parse peer ID: {error}");
    let hash = if text.starts_with("Qm") || text.starts_with('1') {
        parse_base58_hash(text).map_err(failed)?
    } else {
        let cid = parse_cid(text).map_err(failed)?;
        if cid.codec() != LIBP2P_KEY {
            return Err(format!("can't convert CID of type {} to a peer ID", codec_name(cid.codec())));
        }
        *cid.hash()
    };
    PeerId::from_multihash(hash).map_err(|hash| failed(unusable_hash(&hash)))
}

/// A multihash in base58, with the errors of go-multihash.
pub(super) fn parse_base58_hash(text: &str) -> Result<multihash::Multihash<64>, String> {
    let bytes =
        base::decode_base58(text.as_bytes()).map_err(|_| "input isn't valid multihash".to_string())?;
    let (hash, len) = read_multihash(&bytes)?;
    if len != bytes.len() {
        return Err(inconsistent_length(&hash, len));
    }
    Ok(hash)
}

/// Why a multihash cannot be a peer id.
pub(super) fn unusable_hash(hash: &multihash::Multihash<64>) -> String {
    match hash.code() {
        0 => format!("invalid digest length {} for an identity multihash: expected at most 42", hash.size()),
        code => format!("invalid multihash code {code} expected sha-256 or identity"),
    }
}

/// A codec as go-multicodec quotes it; codes it is not worth naming are shown as numbers.
fn codec_name(codec: u64) -> String {
    let name = match codec {
        0x51 => "cbor",
        0x55 => "raw",
        0x70 => "dag-pb",
        0x71 => "dag-cbor",
        0x78 => "git-raw",
        0x129 => "dag-json",
        0x202 => "car",
        0x200 => "json",
        _ => return format!("\"Code({codec})\""),
    };
    format!("\"{name}\"")
}

/// The text of a peer id without allocation.
pub(crate) fn peer_text(peer: &PeerId) -> Text {
    let mut bytes = [0; 96];
    let len = AsRef::<multihash::Multihash<64>>::as_ref(peer).write(&mut bytes[..]).unwrap_or(0);
    let mut text = Text::new();
    text.push_base58(&bytes[..len]);
    text
}

thread_local! {
    static TEXTS: Memo<PeerId> = const { memo() };
}

/// Gives the text of a peer id to `read`: quick for one that was printed lately, where base58 is a long division.
pub(super) fn with_peer_text<R>(peer: &PeerId, read: impl FnOnce(&str) -> R) -> R {
    let digest = AsRef::<multihash::Multihash<64>>::as_ref(peer).digest();
    with_text(&TEXTS, digest, peer, || peer_text(peer).to_string(), read)
}

/// A peer id in a document; `None` is the empty string.
pub(super) struct PeerJson<'a>(pub(super) Option<&'a PeerId>);

impl Serialize for PeerJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(peer) = self.0 else { return serializer.serialize_str("") };
        with_peer_text(peer, |text| serializer.serialize_str(text))
    }
}

/// Peer ids in a document; `None` is `null`.
pub(super) struct PeersJson<'a>(pub(super) Option<&'a [PeerId]>);

impl Serialize for PeersJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(peers) => serializer.collect_seq(peers.iter().map(|peer| PeerJson(Some(peer)))),
            None => serializer.serialize_none(),
        }
    }
}

/// Reads a peer id; `null` and `""` are none.
pub(super) fn deserialize_peer<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<PeerId>, D::Error> {
    match Option::<std::borrow::Cow<str>>::deserialize(deserializer)? {
        Some(text) if !text.is_empty() => parse_peer_id(&text).map(Some).map_err(D::Error::custom),
        _ => Ok(None),
    }
}

/// Reads a peer id that must be there.
pub(super) fn deserialize_some_peer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PeerId, D::Error> {
    deserialize_peer(deserializer)?.ok_or_else(|| D::Error::custom("peer ID is missing"))
}

/// Reads a list of peer ids or `null`.
pub(super) fn deserialize_peers<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<PeerId>>, D::Error> {
    Ok(Option::<Vec<PeerText>>::deserialize(deserializer)?
        .map(|peers| peers.into_iter().map(|peer| peer.0).collect()))
}

/// A peer id as an item of a list.
#[derive(Deserialize)]
pub(super) struct PeerText(#[serde(deserialize_with = "deserialize_some_peer")] pub(super) PeerId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_ids_are_read_in_both_forms() {
        let text = "12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt";
        let cases = [text, "QmXZrtE5jQwXNqCJMfHUTQkvhQ4ZAnqMnmzFMJfLewuabc"];
        for input in cases {
            match parse_peer_id(input) {
                Ok(peer) => {
                    assert_eq!(&*peer_text(&peer), input);
                    let cid = cid::Cid::new_v1(LIBP2P_KEY, *peer.as_ref()).to_string();
                    assert_eq!(parse_peer_id(&cid), Ok(peer), "{cid}");
                }
                Err(error) => panic!("{input}: {error}"),
            }
        }
    }

    #[test]
    fn texts_that_are_kept_are_those_of_their_peers() {
        let peers: Vec<PeerId> = (0..20u8)
            .map(|n| PeerId::from_multihash(multihash::Multihash::wrap(0x12, &[n; 32]).unwrap()).unwrap())
            .collect();
        for _ in 0..3 {
            for peer in peers.iter().chain(peers.iter().rev()).chain(&peers[..3]) {
                assert_eq!(&*peer_text(peer), peer.to_string());
                with_peer_text(peer, |text| assert_eq!(text, peer.to_string()));
            }
        }
    }

    #[test]
    fn bad_peer_ids_are_refused_with_gos_words() {
        let cases = [
            ("", "failed to parse peer ID: invalid cid: cid too short"),
            ("x", "failed to parse peer ID: invalid cid: cid too short"),
            ("abc", "failed to parse peer ID: invalid cid: selected encoding not supported"),
            ("Qm", "failed to parse peer ID: length greater than remaining number of bytes in buffer"),
            ("1", "failed to parse peer ID: multihash too short. must be >= 2 bytes"),
            ("1O", "failed to parse peer ID: input isn't valid multihash"),
            (
                "bafkreiardpf2hbld7fyvfdcq2gqfdgg4jffzwwaur5ht3uubb57ueqra4m",
                "can't convert CID of type \"raw\" to a peer ID",
            ),
        ];
        for (input, expected) in cases {
            assert_eq!(parse_peer_id(input), Err(expected.to_string()), "{input}");
        }
    }
}
