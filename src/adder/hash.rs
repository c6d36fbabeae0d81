//! CIDs of blocks: version and hash function of an import.

use blake2::digest::{Update, VariableOutput};
use blake2::{Blake2bVar, Blake2sVar};
use cluster_compat::types::Cid;
use multihash::Multihash;
use multihash_codetable::{Code, MultihashDigest};

use super::Error;

/// Multicodec of dag-pb.
pub(super) const DAG_PB: u64 = 0x70;
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
    "murmur3-x64-64",
    "shake-128",
    "shake-256",
    "sha2-256-trunc254-padded",
    "x11",
    "md5",
    "poseidon-bls12_381-a2-fc1",
];

/// Multihash codes of BLAKE2b and BLAKE2s with digests of one byte; each further byte adds one.
const BLAKE2B_8: u64 = 0xb201;
const BLAKE2S_8: u64 = 0xb241;
/// Multihash code of SHA-256 applied twice.
const DBL_SHA2_256: u64 = 0x56;

/// A hash function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Sha2_256,
    Sha2_512,
    DoubleSha2_256,
    /// With a digest of so many bytes, as the next one.
    Blake2b(u8),
    Blake2s(u8),
}

impl Function {
    fn digest(self, data: &[u8]) -> Multihash<64> {
        let mut buffer = [0; 64];
        let (code, len) = match self {
            Self::Sha2_256 => return Code::Sha2_256.digest(data),
            Self::Sha2_512 => return Code::Sha2_512.digest(data),
            Self::DoubleSha2_256 => {
                let once = Code::Sha2_256.digest(data);
                buffer[..32].copy_from_slice(Code::Sha2_256.digest(once.digest()).digest());
                (DBL_SHA2_256, 32)
            }
            Self::Blake2b(len) => {
                finish(Blake2bVar::new(usize::from(len)), data, &mut buffer[..usize::from(len)]);
                (BLAKE2B_8 + u64::from(len) - 1, len)
            }
            Self::Blake2s(len) => {
                finish(Blake2sVar::new(usize::from(len)), data, &mut buffer[..usize::from(len)]);
                (BLAKE2S_8 + u64::from(len) - 1, len)
            }
        };
        // A digest of at most 64 bytes always fits.
        Multihash::wrap(code, &buffer[..usize::from(len)]).unwrap_or_default()
    }
}

/// The multihash of `data` with the function of a multicodec and a digest of `len` bytes; `None` if this table
/// cannot compute it.
pub(super) fn digest(code: u64, len: u8, data: &[u8]) -> Option<Multihash<64>> {
    let function = match code {
        0 => return Multihash::wrap(0, data).ok(),
        0x12 => Function::Sha2_256,
        0x13 => Function::Sha2_512,
        DBL_SHA2_256 => Function::DoubleSha2_256,
        BLAKE2B_8..=0xb240 => Function::Blake2b((code - BLAKE2B_8 + 1) as u8),
        BLAKE2S_8..=0xb260 => Function::Blake2s((code - BLAKE2S_8 + 1) as u8),
        _ => return None,
    };
    let whole = function.digest(data);
    // A digest may be cut short.
    Multihash::wrap(code, whole.digest().get(..usize::from(len))?).ok()
}

/// Hashes into `out`, whose length is the one the hasher was made for.
fn finish<H: Update + VariableOutput, E>(hasher: Result<H, E>, data: &[u8], out: &mut [u8]) {
    if let Ok(mut hasher) = hasher {
        hasher.update(data);
        let _ = hasher.finalize_variable(out);
    }
}

/// How blocks of one import are named.
#[derive(Debug, Clone, Copy)]
pub(super) struct CidBuilder {
    version: i64,
    function: Function,
}

impl CidBuilder {
    /// From the parameters `cid-version` and `hash`. A hash other than SHA-256 needs version 1 (ruling A3).
    pub(super) fn new(version: i64, hash: &str) -> Result<Self, Error> {
        if !(0..=1).contains(&version) {
            return Err(Error::CidVersion(version));
        }
        let function = parse_hash(&hash.to_lowercase())?;
        let version = if function == Function::Sha2_256 { version } else { 1 };
        Ok(Self { version, function })
    }

    /// The version after [`CidBuilder::new`] looked at the hash.
    pub(super) fn version(self) -> i64 {
        self.version
    }

    /// The CID of a dag-pb node.
    pub(super) fn dag_pb(self, block: &[u8]) -> Cid {
        let digest = self.function.digest(block);
        if self.version == 0
            && let Ok(cid) = Cid::new_v0(digest)
        {
            return cid;
        }
        Cid::new_v1(DAG_PB, digest)
    }

    /// The CID of a raw block; version 1 always.
    pub(super) fn raw(self, block: &[u8]) -> Cid {
        Cid::new_v1(RAW, self.function.digest(block))
    }
}

/// The hash function go-multihash calls `name`.
fn parse_hash(name: &str) -> Result<Function, Error> {
    Ok(match name {
        "sha2-256" => Function::Sha2_256,
        "sha2-512" => Function::Sha2_512,
        "dbl-sha2-256" => Function::DoubleSha2_256,
        _ if NOT_YET.contains(&name) => return Err(Error::NotSupported(format!("hash {name}"))),
        _ => blake2(name).ok_or(Error::UnknownHash)?,
    })
}

/// `blake2b-8` … `blake2b-512`, `blake2s-8` … `blake2s-256`.
fn blake2(name: &str) -> Option<Function> {
    let (bits, most, function): (_, _, fn(u8) -> Function) =
        match (name.strip_prefix("blake2b-"), name.strip_prefix("blake2s-")) {
            (Some(bits), _) => (bits, 512, Function::Blake2b),
            (_, Some(bits)) => (bits, 256, Function::Blake2s),
            _ => return None,
        };
    let n: u32 = bits.parse().ok().filter(|n: &u32| n.to_string() == bits)?;
    (n > 0 && n <= most && n.is_multiple_of(8)).then(|| function((n / 8) as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_zero_is_raised_for_other_hashes() {
        assert_eq!(CidBuilder::new(0, "sha2-256").unwrap().version(), 0);
        assert_eq!(CidBuilder::new(0, "SHA2-512").unwrap().version(), 1);
    }

    /// Vectors D08 and A04, and `hashes-refused.json`.
    #[test]
    fn digests_carry_their_code_and_length() {
        let raw = |hash, data: &str| CidBuilder::new(1, hash).unwrap().raw(data.as_bytes()).to_string();
        let cid = "bafk2bzaceawsyhsnrwwy5mtit2emnjfalkxsyq2p2ptd6fuliolzwwjbs42fq";
        assert_eq!(raw("blake2b-256", "Cid4Data"), cid);
        let cid = "bafkvmif4mlklqdm6g3nctqlmlvgz6eltd43akldsianhnqr4b622tn2eem";
        assert_eq!(raw("dbl-sha2-256", "hello world"), cid);
        assert_eq!(CidBuilder::new(1, "blake2b-8").unwrap().raw(b"").hash().digest().len(), 1);
    }

    #[test]
    fn unknown_versions_and_hashes_are_named_in_this_order() {
        let text = |version, hash| CidBuilder::new(version, hash).unwrap_err().to_string();
        assert_eq!(text(7, "nope"), "bad CID Version: unknown CID version: 7");
        assert_eq!(text(-1, "sha2-256"), "bad CID Version: unknown CID version: -1");
        assert_eq!(text(1, "nope"), "hash function name not known");
        assert_eq!(text(1, "blake2b-9"), "hash function name not known");
        assert_eq!(text(1, "md5"), "hash md5 is not supported yet");
        assert_eq!(text(1, "blake2s-264"), "hash function name not known");
        assert_eq!(text(1, "blake2b-0256"), "hash function name not known");
    }
}
