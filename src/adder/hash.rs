//! CIDs of blocks: version and hash function of an import.

use cluster_compat::types::Cid;
use multihash_codetable::{Code, MultihashDigest};

use super::Error;

/// Multicodec of dag-pb.
const DAG_PB: u64 = 0x70;
/// Multicodec of raw blocks.
const RAW: u64 = 0x55;

/// Names of go-multihash that this table cannot compute; the name is known, so the error says so.
const NOT_YET: &[&str] = &[
    "identity",
    "sha1",
    "sha3",
    "sha3-224",
    "sha3-256",
    "sha3-384",
    "sha3-512",
    "keccak-224",
    "keccak-256",
    "keccak-384",
    "keccak-512",
    "blake3",
    "dbl-sha2-256",
    "murmur3-x64-64",
    "shake-128",
    "shake-256",
    "sha2-256-trunc254-padded",
    "x11",
    "md5",
    "poseidon-bls12_381-a2-fc1",
];

/// How blocks of one import are named.
#[derive(Debug, Clone, Copy)]
pub(super) struct CidBuilder {
    version: i64,
    code: Code,
}

impl CidBuilder {
    /// From the parameters `cid-version` and `hash`. A hash other than SHA-256 needs version 1 (ruling A3).
    pub(super) fn new(version: i64, hash: &str) -> Result<Self, Error> {
        if !(0..=1).contains(&version) {
            return Err(Error::CidVersion(version));
        }
        let code = parse_hash(&hash.to_lowercase())?;
        let version = if code == Code::Sha2_256 { version } else { 1 };
        Ok(Self { version, code })
    }

    /// The version after [`CidBuilder::new`] looked at the hash.
    pub(super) fn version(self) -> i64 {
        self.version
    }

    /// The CID of a dag-pb node.
    pub(super) fn dag_pb(self, block: &[u8]) -> Cid {
        let digest = self.code.digest(block);
        if self.version == 0
            && let Ok(cid) = Cid::new_v0(digest)
        {
            return cid;
        }
        Cid::new_v1(DAG_PB, digest)
    }

    /// The CID of a raw block; version 1 always.
    pub(super) fn raw(self, block: &[u8]) -> Cid {
        Cid::new_v1(RAW, self.code.digest(block))
    }
}

/// The hash function go-multihash calls `name`.
fn parse_hash(name: &str) -> Result<Code, Error> {
    Ok(match name {
        "sha2-256" => Code::Sha2_256,
        "sha2-512" => Code::Sha2_512,
        _ if NOT_YET.contains(&name) || is_blake2(name) => {
            return Err(Error::NotSupported(format!("hash {name}")));
        }
        _ => return Err(Error::UnknownHash),
    })
}

/// Whether `name` is one of `blake2b-8` … `blake2b-512`, `blake2s-8` … `blake2s-256`.
fn is_blake2(name: &str) -> bool {
    let (bits, most) = match (name.strip_prefix("blake2b-"), name.strip_prefix("blake2s-")) {
        (Some(bits), _) => (bits, 512),
        (_, Some(bits)) => (bits, 256),
        _ => return false,
    };
    bits.parse::<u32>().is_ok_and(|n| n > 0 && n <= most && n.is_multiple_of(8) && n.to_string() == bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_zero_is_raised_for_other_hashes() {
        assert_eq!(CidBuilder::new(0, "sha2-256").unwrap().version(), 0);
        assert_eq!(CidBuilder::new(0, "SHA2-512").unwrap().version(), 1);
    }

    #[test]
    fn unknown_versions_and_hashes_are_named_in_this_order() {
        let text = |version, hash| CidBuilder::new(version, hash).unwrap_err().to_string();
        assert_eq!(text(7, "nope"), "bad CID Version: unknown CID version: 7");
        assert_eq!(text(-1, "sha2-256"), "bad CID Version: unknown CID version: -1");
        assert_eq!(text(1, "nope"), "hash function name not known");
        assert_eq!(text(1, "blake2b-9"), "hash function name not known");
        assert_eq!(text(1, "md5"), "hash md5 is not supported yet");
        assert_eq!(text(1, "blake2b-8"), "hash blake2b-8 is not supported yet");
    }
}
