//! Every byte of the database.
//!
//! One LMDB environment per peer, opened as a [`Db`], holds all tables ([`Table`]). Rooms above see it through
//! three small traits: [`Reads`] gives a snapshot ([`KvRead`]), [`Kv`] adds one atomic, durable write
//! transaction ([`KvWrite`]). [`Mem`] is the same in memory, for tests and simulations.
//!
//! Invariants:
//! - A write transaction is durable when [`Kv::write`] returns, or has left no trace.
//! - All calls block; an actor that writes has its own thread, point reads take a few microseconds.
//! - No snapshot outlives its closure: a reader that stays open would keep every freed page from being reused,
//!   so long scans go page by page.
//! - No key is refused for its length ([`kv::physical`]).

pub mod blocks;
mod disk;
pub mod kv;
mod mem;
#[cfg(test)]
pub(crate) mod suite;

use std::path::PathBuf;

pub use self::disk::{Db, FORMAT};
pub use self::kv::{Kv, KvRead, KvWrite, Outcome, Reads, Table, Visit};
pub use self::mem::Mem;

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder could not be made or opened as a database.
    #[error("opening the database in {}: {message}", folder.display())]
    Open {
        /// The folder.
        folder: PathBuf,
        /// What went wrong.
        message: String,
    },
    /// The folder holds a database of another program or another version.
    #[error("the database in {} has format {found:?}, this program reads format {FORMAT:?}", folder.display())]
    Format {
        /// The folder.
        folder: PathBuf,
        /// The format it says it has; empty when it says none.
        found: String,
    },
    /// The map is used up: a configured limit.
    #[error(
        "the database is full: its map of {map_size_bytes} bytes is used up; raise datastore.lmdb.map_size_bytes"
    )]
    Full {
        /// The limit.
        map_size_bytes: u64,
    },
    /// Anything else LMDB reports.
    #[error("database: {0}")]
    Database(String),
    /// A row that cannot be read.
    #[error("database: damaged row in table {table}: {message}")]
    Damaged {
        /// The table.
        table: &'static str,
        /// What is wrong with it.
        message: String,
    },
}
