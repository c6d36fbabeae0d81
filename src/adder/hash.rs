//! CIDs of blocks: version and hash function of an import.

use blake2::digest::{Update, VariableOutput};
use blake2::{Blake2bVar, Blake2sVar};
use cluster_compat::types::Cid;
use md5::Md5;
use multihash::Multihash;
use multihash_codetable::{Code, MultihashDigest};
use sha2::Digest;
use shake::digest::ExtendableOutput;
use shake::{Shake128, Shake256};

use super::{Error, hamt};

/// Multicodec of dag-pb.
pub(super) const DAG_PB: u64 = 0x70;
/// Multicodec of raw blocks.
const RAW: u64 = 0x55;

/// Names go-multihash knows without having the function: their multihash codes.
const UNREGISTERED: &[(&str, u64)] = &[
    ("keccak-224", 0x1a),
    ("keccak-384", 0x1c),
    ("sha2-256-trunc254-padded", 0x1012),
    ("x11", 0x1100),
    ("poseidon-bls12_381-a2-fc1", 0xb401),
];

/// Multihash code of the identity, whose digest is the data.
pub(super) const IDENTITY: u64 = 0;
/// Multihash codes of BLAKE2b and BLAKE2s with digests of one byte; each further byte adds one.
const BLAKE2B_8: u64 = 0xb201;
const BLAKE2S_8: u64 = 0xb241;
/// Multihash codes outside that table.
const SHA1: u64 = 0x11;
const SHAKE_128: u64 = 0x18;
const SHAKE_256: u64 = 0x19;
const MURMUR3_X64_64: u64 = 0x22;
const DBL_SHA2_256: u64 = 0x56;
const MD5: u64 = 0xd5;

/// A hash function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Identity,
    Sha1,
    /// One of the table of `multihash-codetable`.
    Listed(Code),
    /// SHA-256 applied twice.
    DoubleSha2_256,
    /// With a digest of so many bytes, as the next one.
    Blake2b(u8),
    Blake2s(u8),
    Shake128,
    Shake256,
    /// This and the next are no safe names for blocks: every daemon refuses them.
    Murmur3,
    Md5,
}

impl Function {
    /// The function go-multihash calls `name`.
    fn parse(name: &str) -> Result<Self, Error> {
        Ok(match name {
            "identity" => Self::Identity,
            "sha1" => Self::Sha1,
            "sha2-256" => Self::Listed(Code::Sha2_256),
            "sha2-512" => Self::Listed(Code::Sha2_512),
            "sha3-224" => Self::Listed(Code::Sha3_224),
            "sha3-256" => Self::Listed(Code::Sha3_256),
            "sha3-384" => Self::Listed(Code::Sha3_384),
            "sha3" | "sha3-512" => Self::Listed(Code::Sha3_512),
            "keccak-256" => Self::Listed(Code::Keccak256),
            "keccak-512" => Self::Listed(Code::Keccak512),
            "dbl-sha2-256" => Self::DoubleSha2_256,
            "blake3" => Self::Listed(Code::Blake3_256),
            "shake-128" => Self::Shake128,
            "shake-256" => Self::Shake256,
            "murmur3-x64-64" => Self::Murmur3,
            "md5" => Self::Md5,
            _ => match UNREGISTERED.iter().find(|known| known.0 == name) {
                Some(&(_, code)) => return Err(Error::UnregisteredHash(code)),
                None => blake2(name)?,
            },
        })
    }

    /// The function of a multihash code.
    fn from_code(code: u64) -> Option<Self> {
        Some(match code {
            IDENTITY => Self::Identity,
            SHA1 => Self::Sha1,
            DBL_SHA2_256 => Self::DoubleSha2_256,
            SHAKE_128 => Self::Shake128,
            SHAKE_256 => Self::Shake256,
            MURMUR3_X64_64 => Self::Murmur3,
            MD5 => Self::Md5,
            BLAKE2B_8..=0xb240 => Self::Blake2b((code - BLAKE2B_8 + 1) as u8),
            BLAKE2S_8..=0xb260 => Self::Blake2s((code - BLAKE2S_8 + 1) as u8),
            _ => Self::Listed(Code::try_from(code).ok()?),
        })
    }

    fn digest(self, data: &[u8]) -> Multihash<64> {
        let mut buffer = [0; 64];
        let (code, len) = match self {
            // What is too long for a CID of ours becomes the name of nothing, which the sink refuses.
            Self::Identity => return Multihash::wrap(IDENTITY, data).unwrap_or_default(),
            Self::Listed(code) => return code.digest(data),
            Self::Sha1 => {
                buffer[..20].copy_from_slice(&<sha1::Sha1 as sha1::Digest>::digest(data));
                (SHA1, 20)
            }
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
            Self::Shake128 => {
                Shake128::digest_xof(data, &mut buffer[..32]);
                (SHAKE_128, 32)
            }
            Self::Shake256 => {
                Shake256::digest_xof(data, &mut buffer);
                (SHAKE_256, 64)
            }
            Self::Murmur3 => {
                buffer[..8].copy_from_slice(&hamt::hash(data).to_be_bytes());
                (MURMUR3_X64_64, 8)
            }
            Self::Md5 => {
                buffer[..16].copy_from_slice(&Md5::digest(data));
                (MD5, 16)
            }
        };
        // A digest of at most 64 bytes always fits.
        Multihash::wrap(code, &buffer[..usize::from(len)]).unwrap_or_default()
    }
}

/// The multihash of `data` with the function of a multicodec and a digest of `len` bytes; `None` if this table
/// cannot compute it.
pub fn digest(code: u64, len: u8, data: &[u8]) -> Option<Multihash<64>> {
    let whole = Function::from_code(code)?.digest(data);
    if code == IDENTITY {
        return Some(whole);
    }
    // A digest may be cut short.
    Multihash::wrap(code, whole.digest().get(..usize::from(len))?).ok()
}

/// Whether a CID that this module made names its block; not if the block is too long to be its own name.
pub(super) fn is_named(cid: &Cid, block: &[u8]) -> bool {
    cid.hash().code() != IDENTITY || cid.hash().digest() == block
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
    /// Blocks up to this size stand in their CIDs. (Go: `cidutil.InlineBuilder`)
    inline_limit: Option<usize>,
}

impl CidBuilder {
    /// From the parameters `cid-version` and `hash`. A hash other than SHA-256 needs version 1 (ruling A3).
    pub(super) fn new(version: i64, hash: &str) -> Result<Self, Error> {
        if !(0..=1).contains(&version) {
            return Err(Error::CidVersion(version));
        }
        let function = Function::parse(&hash.to_lowercase())?;
        let version = if function == Function::Listed(Code::Sha2_256) { version } else { 1 };
        Ok(Self { version, function, inline_limit: None })
    }

    /// The version after [`CidBuilder::new`] looked at the hash.
    #[cfg(test)]
    pub(super) fn version(self) -> i64 {
        self.version
    }

    /// The same, with small blocks in their CIDs.
    pub(super) fn with_inline(self, inline_limit: Option<usize>) -> Self {
        Self { inline_limit, ..self }
    }

    /// A CID that holds its block, where the block is small enough.
    fn inlined(self, codec: u64, block: &[u8]) -> Option<Cid> {
        self.inline_limit.filter(|limit| block.len() <= *limit)?;
        Multihash::wrap(IDENTITY, block).ok().map(|hash| Cid::new_v1(codec, hash))
    }

    /// The CID of a dag-pb node.
    pub(super) fn dag_pb(self, block: &[u8]) -> Cid {
        if let Some(cid) = self.inlined(DAG_PB, block) {
            return cid;
        }
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
        if let Some(cid) = self.inlined(RAW, block) {
            return cid;
        }
        Cid::new_v1(RAW, self.function.digest(block))
    }
}

/// `blake2b-8` … `blake2b-512`, `blake2s-8` … `blake2s-256`; of the latter only the last is registered.
fn blake2(name: &str) -> Result<Function, Error> {
    let (bits, most) = match (name.strip_prefix("blake2b-"), name.strip_prefix("blake2s-")) {
        (Some(bits), _) => (bits, 512),
        (_, Some(bits)) => (bits, 256),
        _ => return Err(Error::UnknownHash),
    };
    let n: u32 = bits.parse().ok().filter(|n: &u32| n.to_string() == bits).ok_or(Error::UnknownHash)?;
    if n == 0 || n > most || !n.is_multiple_of(8) {
        return Err(Error::UnknownHash);
    }
    let len = (n / 8) as u8;
    match (most, n) {
        (512, _) => Ok(Function::Blake2b(len)),
        (_, 256) => Ok(Function::Blake2s(len)),
        _ => Err(Error::UnregisteredHash(BLAKE2S_8 + u64::from(len) - 1)),
    }
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
            ("identity", "bafkqac3imvwgy3zao5xxe3de"),
            ("sha1", "bafkrcfbkvzwdlskpz62blw7jl5aixhhjd3uen3i"),
            ("blake2b-160", "bafkzjzaccryor3hf4kj6dpnamtpo62yib3o6gvybb4"),
            ("blake2b-256", "bafk2bzaceaswza5ss4iu2ia3galz6pyo6dfm5f4dmiw2lf2de22dmf4k533ba"),
            (
                "blake2b-512",
                "bafk4bzaciabbz3mhteuwz3ffk6bsvokbuufuuepygr4m6fa7kh4th5stvop3zqc2an6n3pwqnyyjx4zusqwe4wgn6gs\
                 g4i3zchgnp7hzpb6ly76q",
            ),
            ("blake2s-256", "bafk6bzacecnoy2agpfcwced6lffr62uknmgjfiglvgwplzpjhtfan54bqe5qw"),
            (
                "shake-256",
                "bafkrsqbws5y3wlfz2kyeyhkuzssipy3s3hyyp5z7por7mw4vzdxhpggfe72phqwvlqwuniu7f2kf2ru4hxzhqu5ionj\
                 hd5omfwpirfkegvyrm",
            ),
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
        assert_eq!(
            text(1, "x11"),
            "invalid cid: unknown multihash code 4352 (0x1100): no such hash registered"
        );
        assert_eq!(
            text(1, "blake2s-128"),
            "invalid cid: unknown multihash code 45648 (0xb250): no such hash registered"
        );
        // those Kubo 0.42.0 has a name and no function for
        for (hash, code) in [
            ("keccak-224", "26 (0x1a)"),
            ("keccak-384", "28 (0x1c)"),
            ("sha2-256-trunc254-padded", "4114 (0x1012)"),
            ("poseidon-bls12_381-a2-fc1", "46081 (0xb401)"),
            ("blake2s-8", "45633 (0xb241)"),
        ] {
            let expected = format!("invalid cid: unknown multihash code {code}: no such hash registered");
            assert_eq!(text(1, hash), expected);
        }
        // and those it does not know
        for hash in ["murmur3", "sha2-384", "sha2-224", "skein256-256", "ripemd-160", "sm3-256"] {
            assert_eq!(text(1, hash), "hash function name not known");
        }
        assert_eq!(text(1, "blake2s-264"), "hash function name not known");
        assert_eq!(text(1, "blake2b-0256"), "hash function name not known");
    }
}
