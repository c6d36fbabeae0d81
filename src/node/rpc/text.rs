//! Names of codecs and hashes. (multicodec table; go-multihash `multihash.go`, `Names`)

use super::super::ipld::{CBOR, DAG_CBOR, DAG_JSON, DAG_PB, JSON, LIBP2P_KEY, RAW};

/// Multihash code of SHA-256.
pub(super) const SHA2_256: u64 = 0x12;
/// Shortest digest of a block. (Go: boxo `verifcid`)
pub(super) const MIN_DIGEST: u8 = 20;

/// Codecs that blocks may be named with.
const CODECS: &[(&str, u64)] = &[
    ("raw", RAW),
    ("dag-pb", DAG_PB),
    ("dag-cbor", DAG_CBOR),
    ("dag-json", DAG_JSON),
    ("cbor", CBOR),
    ("json", JSON),
    ("libp2p-key", LIBP2P_KEY),
    ("protobuf", 0x50),
    ("rlp", 0x60),
    ("bencode", 0x63),
    ("git-raw", 0x78),
    ("torrent-info", 0x7b),
    ("torrent-file", 0x7c),
    ("blake3-hashseq", 0x80),
    ("leofcoin-block", 0x81),
    ("leofcoin-tx", 0x82),
    ("leofcoin-pr", 0x83),
    ("dag-jose", 0x85),
    ("dag-cose", 0x86),
    ("eth-block", 0x90),
    ("eth-block-list", 0x91),
    ("eth-tx-trie", 0x92),
    ("eth-tx", 0x93),
    ("eth-tx-receipt-trie", 0x94),
    ("eth-tx-receipt", 0x95),
    ("eth-state-trie", 0x96),
    ("eth-account-snapshot", 0x97),
    ("eth-storage-trie", 0x98),
    ("eth-receipt-log-trie", 0x99),
    ("eth-receipt-log", 0x9a),
    ("bitcoin-block", 0xb0),
    ("bitcoin-tx", 0xb1),
    ("bitcoin-witness-commitment", 0xb2),
    ("zcash-block", 0xc0),
    ("zcash-tx", 0xc1),
    ("stellar-block", 0xd0),
    ("stellar-tx", 0xd1),
    ("decred-block", 0xe0),
    ("decred-tx", 0xe1),
    ("dash-block", 0xf0),
    ("dash-tx", 0xf1),
    ("swarm-manifest", 0xfa),
    ("swarm-feed", 0xfb),
    ("beeson", 0xfc),
    ("swhid-1-snp", 0x01f0),
    ("messagepack", 0x0201),
    ("car", 0x0202),
    ("x509-certificate", 0x0210),
    ("ipns-record", 0x0300),
    ("car-index-sorted", 0x0400),
    ("car-multihash-index-sorted", 0x0401),
    ("provenance-log", 0x1208),
    ("provenance-log-entry", 0x1209),
    ("provenance-log-script", 0x120a),
    ("rdfc-1", 0xb403),
    ("ssz", 0xb501),
    ("json-jcs", 0xb601),
];

/// Hashes with the lengths of their digests; no length where there is no function.
const HASHES: &[(&str, u64, Option<u8>)] = &[
    ("sha1", 0x11, Some(20)),
    ("sha2-256", SHA2_256, Some(32)),
    ("sha2-512", 0x13, Some(64)),
    ("sha3-512", 0x14, Some(64)),
    ("sha3", 0x14, Some(64)),
    ("sha3-384", 0x15, Some(48)),
    ("sha3-256", 0x16, Some(32)),
    ("sha3-224", 0x17, Some(28)),
    ("shake-128", 0x18, Some(32)),
    ("shake-256", 0x19, Some(64)),
    ("keccak-224", 0x1a, None),
    ("keccak-256", 0x1b, Some(32)),
    ("keccak-384", 0x1c, None),
    ("keccak-512", 0x1d, Some(64)),
    ("blake3", 0x1e, Some(32)),
    ("murmur3-x64-64", 0x22, Some(8)),
    ("dbl-sha2-256", 0x56, Some(32)),
    ("md5", 0xd5, Some(16)),
    ("sha2-256-trunc254-padded", 0x1012, None),
    ("x11", 0x1100, None),
    ("poseidon-bls12_381-a2-fc1", 0xb401, None),
];

/// The code of a codec.
pub(super) fn codec_code(name: &str) -> Option<u64> {
    CODECS.iter().find(|(known, _)| *known == name).map(|(_, code)| *code)
}

/// The code of a hash.
pub(super) fn hash_code(name: &str) -> Option<u64> {
    if name == "identity" {
        return Some(0);
    }
    let bits = |bits: &str, most: u64| {
        let n: u64 = bits.parse().ok()?;
        (n > 0 && n <= most && n.is_multiple_of(8)).then_some(n / 8)
    };
    if let Some(n) = name.strip_prefix("blake2b-") {
        return bits(n, 512).map(|n| 0xb200 + n);
    }
    if let Some(n) = name.strip_prefix("blake2s-") {
        return bits(n, 256).map(|n| 0xb240 + n);
    }
    HASHES.iter().find(|(known, ..)| *known == name).map(|(_, code, _)| *code)
}

/// The name of a hash.
pub(in crate::node) fn hash_name(code: u64) -> String {
    match code {
        0 => "identity".into(),
        0xb201..=0xb240 => format!("blake2b-{}", (code - 0xb200) * 8),
        0xb241..=0xb260 => format!("blake2s-{}", (code - 0xb240) * 8),
        code => {
            let known = HASHES.iter().find(|(_, known, _)| *known == code);
            known.map_or_else(|| format!("{code:#x}"), |(name, ..)| (*name).to_owned())
        }
    }
}

/// The length of a digest that is not cut; `None` where there is no function.
pub(super) fn natural_length(code: u64, data: &[u8]) -> Option<u8> {
    match code {
        0 => u8::try_from(data.len()).ok().filter(|length| *length <= 64),
        0xb201..=0xb240 => Some((code - 0xb200) as u8),
        0xb241..=0xb260 => Some((code - 0xb240) as u8),
        code => HASHES.iter().find(|(_, known, _)| *known == code).and_then(|(.., length)| *length),
    }
}

/// (Go: go-multihash `registry.go`)
pub(super) fn no_such_hash(code: u64) -> String {
    format!("invalid cid: unknown multihash code {code} ({code:#x}): no such hash registered")
}
