//! Tables of keys and values, and what any implementation of them must do.

use std::borrow::Cow;
use std::ops::ControlFlow;

use sha2::{Digest, Sha256};

use super::Error;

/// Longest key LMDB takes.
const MAX_KEY_BYTES: usize = 511;

/// What is left of a long key before its hash, so that scans by prefix still find it.
const LONG_KEY_PREFIX_BYTES: usize = MAX_KEY_BYTES - 32;

/// A named table. Each room knows the layout of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Format version, flags of the CRDT.
    Meta,
    /// Blocks by multihash ([`super::blocks`]).
    Blocks,
    /// CRDT: heads of the DAG.
    Heads,
    /// CRDT: which node added which key.
    Adds,
    /// CRDT: which adds are dead.
    Tombs,
    /// CRDT: current value of each key, with its priority.
    Values,
    /// CRDT: batched items that are acknowledged but in no node yet.
    Journal,
    /// CRDT: nodes that are known and not processed yet, and for which heads.
    Unfinished,
    /// Embedded node: sizes of its blocks, by multihash.
    Sizes,
    /// Embedded node: its pins.
    Pins,
}

impl Table {
    /// All tables, in the order of their discriminants.
    pub const ALL: [Self; 10] = [
        Self::Meta,
        Self::Blocks,
        Self::Heads,
        Self::Adds,
        Self::Tombs,
        Self::Values,
        Self::Journal,
        Self::Unfinished,
        Self::Sizes,
        Self::Pins,
    ];

    /// Its name in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Blocks => "blocks",
            Self::Heads => "heads",
            Self::Adds => "adds",
            Self::Tombs => "tombs",
            Self::Values => "values",
            Self::Journal => "journal",
            Self::Unfinished => "unfinished",
            Self::Sizes => "sizes",
            Self::Pins => "pins",
        }
    }
}

/// Looks at a row, key and value, and says whether to go on.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// A snapshot: what was committed when it was taken, or the state within a write transaction.
pub trait KvRead {
    /// The value of a key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, Error>;

    /// Visits the rows whose keys start with `prefix` and stand after `after`, in byte order of the keys, until
    /// the visitor breaks. (Keys of 511 bytes and more that share their first 479 stand in another, fixed order.)
    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error>;

    /// Whether a key is there.
    fn has(&self, table: Table, key: &[u8]) -> Result<bool, Error> {
        Ok(self.get(table, key)?.is_some())
    }
}

/// A write transaction, which reads its own writes.
pub trait KvWrite: KvRead {
    /// Adds or replaces.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Error>;
    /// Removes; says whether the key was there.
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, Error>;
    /// Removes all rows of a table.
    fn clear(&mut self, table: Table) -> Result<(), Error>;
    /// This transaction as a reader.
    fn as_read(&self) -> &dyn KvRead;
}

/// What shall become of a write transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Keep it, durably.
    Commit,
    /// Undo it.
    Abort,
}

/// Something that can be read.
pub trait Reads: Send + Sync {
    /// Runs `job` once on a snapshot. Use [`read`], which returns the job's answer.
    fn with_snapshot(&self, job: &mut dyn FnMut(&dyn KvRead)) -> Result<(), Error>;
}

/// Something that can be read and written.
pub trait Kv: Reads {
    /// Runs `job` once in a write transaction; after [`Outcome::Commit`] it is durable when this returns.
    /// Use [`write`], which returns the job's answer.
    fn with_transaction(&self, job: &mut dyn FnMut(&mut dyn KvWrite) -> Outcome) -> Result<(), Error>;
}

/// Reads from a snapshot.
pub fn read<R, E: From<Error>>(
    kv: &(impl Reads + ?Sized),
    job: impl FnOnce(&dyn KvRead) -> Result<R, E>,
) -> Result<R, E> {
    let mut job = Some(job);
    let mut answer = None;
    kv.with_snapshot(&mut |view| answer = job.take().map(|job| job(view)))?;
    answer.unwrap_or_else(|| Err(not_run().into()))
}

/// Writes atomically: an `Ok` is committed and durable, an `Err` is undone.
pub fn write<R, E: From<Error>>(
    kv: &(impl Kv + ?Sized),
    job: impl FnOnce(&mut dyn KvWrite) -> Result<R, E>,
) -> Result<R, E> {
    let mut job = Some(job);
    let mut answer = None;
    kv.with_transaction(&mut |transaction| {
        answer = job.take().map(|job| job(transaction));
        if matches!(answer, Some(Ok(_))) { Outcome::Commit } else { Outcome::Abort }
    })?;
    answer.unwrap_or_else(|| Err(not_run().into()))
}

fn not_run() -> Error {
    Error::Database("the transaction was not run".into())
}

/// The key as it is stored. LMDB takes up to 511 bytes: a longer key is cut and gets a hash of the whole as its
/// end, so stored keys of exactly 511 bytes are those, and their rows begin with the whole key ([`wrap_long`]).
pub fn physical(key: &[u8]) -> Cow<'_, [u8]> {
    if key.len() < MAX_KEY_BYTES {
        return Cow::Borrowed(key);
    }
    let mut short = key[..LONG_KEY_PREFIX_BYTES].to_vec();
    short.extend_from_slice(&Sha256::digest(key));
    Cow::Owned(short)
}

/// Whether a stored key stands for a long one.
pub(super) fn is_long(stored: &[u8]) -> bool {
    stored.len() == MAX_KEY_BYTES
}

/// The part of a prefix that stored keys are sure to begin with.
pub(super) fn physical_prefix(prefix: &[u8]) -> &[u8] {
    &prefix[..prefix.len().min(LONG_KEY_PREFIX_BYTES)]
}

/// The row of a long key: its length, itself, the value.
pub(super) fn wrap_long(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(4 + key.len() + value.len());
    row.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes());
    row.extend_from_slice(key);
    row.extend_from_slice(value);
    row
}

/// Key and value of a row written by [`wrap_long`].
pub(super) fn unwrap_long(table: Table, row: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    let damaged =
        || Error::Damaged { table: table.name(), message: "the row of a long key is cut short".into() };
    let (length, rest) = row.split_first_chunk::<4>().ok_or_else(damaged)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| damaged())?;
    rest.split_at_checked(length).ok_or_else(damaged)
}
