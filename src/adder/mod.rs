//! Files to blocks and pins: the importer behind `POST /add` and the proxy's `/api/v0/add`.
//!
//! ```text
//! Upload ──► files (which entry stands where) ──► chunker ──► leaves ──► layout ─┐
//!                                                   directories, links, HAMT ───┴─► sink ──► Host::put_blocks
//!        └─► car (finished blocks, checked) ──────────────────────────────────────┘
//!                                                   events ──► the stream                └─► Host::pin, at the end
//! ```
//!
//! What holds, whatever is uploaded:
//! - CIDs equal Kubo's for the same parameters (`fixtures/add`).
//! - Blocks come in the reference's order, with its extra ones (`extras`).
//! - Memory does not grow with the size of files: chunks being hashed (one for each core, 16 at most), 174 links for
//!   each level of a file's DAG, and a channel of [`MAX_QUEUED_BATCHES`]; some 10 MiB at the default chunk size. It
//!   grows by some 90 bytes and its name for each entry of an upload (`tree`), and by 20 while its directory is written.
//! - Nothing is pinned before every block is with its destinations, shards excepted; an import that fails, or
//!   whose stream is dropped, leaves nothing pinned that was not pinned before.
//! - Nothing is spawned: the import runs while its stream is polled, hashing aside, and stops when it is dropped.
//! - Without wrapping, top-level entries are independent roots and each is pinned (ruling A4).

mod buffer;
mod car;
mod chunker;
#[cfg(test)]
mod collector;
mod decode;
mod directory;
mod extras;
mod files;
mod hamt;
mod hash;
mod host;
mod import;
mod layout;
mod rolling;
mod shard;
mod shard_dag;
mod single;
mod sink;
#[cfg(test)]
mod tests;
mod transfer;
mod tree;
mod unixfs;

use cluster_compat::api;

pub use self::directory::{DirectoryEntry, directory_of};
pub use self::hash::digest;
pub use self::host::{Batch, Host};
pub use self::import::{Shape, import, import_shaped};
pub use self::shard_dag::shard_links;

/// The hash by which names are spread over sharded directories.
pub fn hamt_hash(name: &[u8]) -> u64 {
    hamt::hash(name)
}

/// Batches between the importer and the slowest destination; at the default chunk size 2 MiB of blocks, at the largest
/// 16 MiB.
const MAX_QUEUED_BATCHES: usize = 8;

/// Bytes from which a batch of blocks leaves the importer.
const BATCH_BYTES: usize = 128 * 1024;

/// Blocks after which a batch leaves the importer, however small they are.
const BATCH_BLOCKS: usize = 64;

/// Events between the importer and its reader; the reference has 200.
const MAX_QUEUED_OUTPUTS: usize = 200;

/// Deepest path taken from an upload. Kubo has no limit; walking and dropping a tree must not exhaust the stack.
const MAX_DEPTH: usize = 1024;

/// Why an import failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The upload could not be read, or the cluster refused to allocate or to pin.
    #[error(transparent)]
    Api(#[from] api::Error),
    /// No destination took the blocks. (Go: `adder/util.go`)
    #[error("failed to put block on all destinations")]
    AllDestinationsFailed,
    /// The `chunker` parameter; the text is the reference's.
    #[error("{0}")]
    Chunker(String),
    /// The `cid-version` parameter. (Go: `adder/adder.go`)
    #[error("bad CID Version: unknown CID version: {0}")]
    CidVersion(i64),
    /// The `hash` parameter. (Go: `adder/adder.go`)
    #[error("hash function name not known")]
    UnknownHash,
    /// A `hash` that has a name and no function. (Go: `go-multihash`, `go-cid`)
    #[error("invalid cid: unknown multihash code {0} ({0:#x}): no such hash registered")]
    UnregisteredHash(u64),
    /// A valid parameter that this release does not implement.
    #[error("{0} is not supported yet")]
    NotSupported(String),
    /// `nocopy` without a path in the part. (Go: `boxo/ipld/unixfs/importer/helpers`)
    #[error("missing file path or URL, can't create filestore reference")]
    MissingPath,
    /// The body held no part that is a file, link or directory.
    #[error("nothing to add: the multipart body has no file parts")]
    NoParts,
    /// A CAR that is broken, or not one; the text is the reference's where it has one.
    #[error("{0}")]
    Car(String),
    /// A CAR that is a header alone.
    #[error("nothing to add: the CAR file has no blocks")]
    NoBlocks,
    /// A file stands where a directory is. (Go: `boxo/mfs`)
    #[error("directory already has entry by that name")]
    EntryExists,
    /// A directory is announced where a file stands.
    #[error("file already exists: {0}")]
    NotADirectory(String),
    /// More path components than [`MAX_DEPTH`].
    #[error("path has more than {MAX_DEPTH} components: {0}…")]
    TooDeep(String),
    /// More names than can be counted, or a name as long.
    #[error("more than 4294967294 entries, or a name as long")]
    TooManyEntries,
    /// Two names of one large directory with the same 64-bit hash. (Go: `boxo/ipld/unixfs/hamt`)
    #[error("sharded directory too deep")]
    HamtTooDeep,
    /// A block as large as a shard may be, or larger. (Go: `adder/sharding/dag_service.go`)
    #[error("block doesn't fit in empty shard: shard size too small?")]
    BlockTooLarge,
    /// An upload without parts that is sharded. (Go: `adder/sharding/dag_service.go`)
    #[error("cannot flush a nil shard")]
    NoShard,
    /// A directory with other entries between its parts, in an upload that is sharded.
    #[error("the parts of {0} must follow each other in an upload with shard=true")]
    PartedDirectory(String),
    /// Hashing stopped because the process is stopping.
    #[error("hashing was interrupted")]
    Interrupted,
}

impl Error {
    fn car(text: impl Into<String>) -> Self {
        Self::Car(text.into())
    }
}

impl From<Error> for api::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(error) => error,
            Error::NoParts
            | Error::NoBlocks
            | Error::NotSupported(_)
            | Error::TooDeep(_)
            | Error::PartedDirectory(_)
            | Error::TooManyEntries
            | Error::NotADirectory(_) => Self::bad_request(error.to_string()),
            Error::AllDestinationsFailed
            | Error::Chunker(_)
            | Error::CidVersion(_)
            | Error::UnknownHash
            | Error::UnregisteredHash(_)
            | Error::MissingPath
            | Error::Car(_)
            | Error::EntryExists
            | Error::HamtTooDeep
            | Error::BlockTooLarge
            | Error::NoShard
            | Error::Interrupted => Self::internal(error.to_string()),
        }
    }
}
