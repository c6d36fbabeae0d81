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
    "keccak-224",
    "keccak-384",
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
    /// One of the table's.
    Listed(Code),
    DoubleSha2_256,
    /// With a digest of so many bytes, as the next one.
    Blake2b(u8),
    Blake2s(u8),
}

impl Function {
    fn digest(self, data: &[u8]) -> Multihash<64> {
        let mut buffer = [0; 64];
        let (code, len) = match self {
            Self::Listed(code) => return code.digest(data),
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
        0x12..=0x17 | 0x1b | 0x1d | 0x1e => Function::Listed(Code::try_from(code).ok()?),
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
        let version = if function == Function::Listed(Code::Sha2_256) { version } else { 1 };
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
        "sha2-256" => Function::Listed(Code::Sha2_256),
        "sha2-512" => Function::Listed(Code::Sha2_512),
        "sha3-224" => Function::Listed(Code::Sha3_224),
        "sha3-256" => Function::Listed(Code::Sha3_256),
        "sha3-384" => Function::Listed(Code::Sha3_384),
        "sha3" | "sha3-512" => Function::Listed(Code::Sha3_512),
        "keccak-256" => Function::Listed(Code::Keccak256),
        "keccak-512" => Function::Listed(Code::Keccak512),
        "blake3" => Function::Listed(Code::Blake3_256),
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
        // what Kubo 0.42.0 answers to `add --cid-version=1 --raw-leaves --hash=…`
        for (hash, cid) in [
            ("sha3-224", "bafkrohg7w7yyy57jfc5vn6xlfwrhfen5pef4cbc43zc7giilw3cq"),
            ("sha3-256", "bafkrmidejpgh4vsdomcatgnkzcphmixtzjy7xiozol6zjiy4hp57etrzha"),
            (
                "sha3-384",
                "bafkrkmedx7zi3xq3dp2ycadryzsdychfwbn5xa3o77lqwqb6vdvauy2nysmx5mifhkrvsp2zb6oggyyn3efq",
            ),
            (
                "sha3-512",
                "bafkriqeeaadgkpu2zhuvcf5blsivzkvyczrjdduslxu6abhxot7yfvyhtjanjut3dm3smv6gdvdni4bqjsempcfturj\
                 hvudu2homx3s5xkuzu",
            ),
            ("keccak-256", "bafkrwichc4zilkgxgqpf5fzpyz3sqy4e7abpr32cuxwf6a537isuzma7vu"),
            (
                "keccak-512",
                "bafkr2qb64k2aar5yayhwrrtsiilvmyhuc5gqv5oadvdrndwcb3lbtmfxyqqyd5akuecg6opc56ppy2iqpavjtdqacpi\
                 xermjk6kx7leuaw3h2",
            ),
            ("blake3", "bafkr4igxjga67jykbseaxdmmdgc5a5o3zp3htom2l6mrjznk7fvyggu6eq"),
        ] {
            let found = raw(hash, "hello world");
            assert_eq!(found, cid, "{hash}");
            let hash = cluster_compat::types::parse_cid(cid).unwrap().hash().to_owned();
            let again = digest(hash.code(), hash.size(), b"hello world");
            assert_eq!(again, Some(hash));
        }
        assert_eq!(raw("sha3", "x"), raw("sha3-512", "x"));
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
