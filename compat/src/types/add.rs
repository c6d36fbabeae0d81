//! Parameters of an add and the objects it answers with.

use super::{Cid, PeerId, PinOptions};

/// Shape of a file's DAG.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// Kubo's default.
    #[default]
    Balanced,
    /// For streams.
    Trickle,
}

/// What an upload holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Files to import.
    #[default]
    UnixFs,
    /// A CAR of finished blocks.
    Car,
}

/// Parameters of an add (spec: adder 2).
#[derive(Debug, Clone)]
pub struct AddParams {
    /// Options of the pin at the end.
    pub options: PinOptions,
    /// Write blocks to this peer's daemon alone.
    pub local: bool,
    /// No effect on the server.
    pub recursive: bool,
    /// No effect on the server.
    pub hidden: bool,
    /// Put all entries into one unnamed directory.
    pub wrap_with_directory: bool,
    /// Spread the DAG over shards.
    pub shard: bool,
    /// Stream outputs as they come (default), or send one list at the end.
    pub stream_channels: bool,
    /// Write blocks, pin nothing.
    pub no_pin: bool,
    /// Files or CAR.
    pub format: Format,
    /// Shape of a file's DAG.
    pub layout: Layout,
    /// `size-262144`, `rabin-…`, `buzhash`.
    pub chunker: String,
    /// Leaves as raw blocks.
    pub raw_leaves: bool,
    /// Byte-count events.
    pub progress: bool,
    /// 0 or 1.
    pub cid_version: i64,
    /// Name of the hash function.
    pub hash: String,
    /// Reference files instead of copying.
    pub no_copy: bool,
}

/// One event of an add.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddedOutput {
    /// Path of the entry.
    pub name: String,
    /// Its root; `None` prints `null` (progress events).
    pub cid: Option<Cid>,
    /// Bytes read so far (progress events).
    pub bytes: u64,
    /// Cumulative size of the DAG.
    pub size: u64,
    /// Peers that got the blocks.
    pub allocations: Vec<PeerId>,
}
