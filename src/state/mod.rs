//! The pinset as it stands, read from a [`Reads`](crate::store::Reads); its export and import.
//!
//! Rows of [`Table::Values`](crate::store::Table) are pins: the key is spelt as [`crate::wire::key`] says, the value is
//! [`crate::wire::pin_pb`]. The room never writes: the consensus does.
//!
//! Invariants: a pin's CID is that of its key; rows that cannot be read are logged and left out of listings; a listing
//! holds a snapshot for one page only, so it shows each pin that stood from beginning to end, once.

mod export;
mod pinset;
mod sort;

use cluster_compat::types::Cid;

pub use self::export::{Import, export, import};
pub use self::pinset::{Cursor, Pinset};
pub use self::sort::{Entry, Sorted, Sorter};

/// Why the pinset could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// The stored pin cannot be read.
    #[error("error deserializing pin ({cid}): {cause}")]
    Pin {
        /// Its CID.
        cid: Box<Cid>,
        /// What is wrong with it.
        cause: crate::wire::Error,
    },
    /// A page was not read because the process is stopping.
    #[error("full pinset listing aborted: {0}")]
    Aborted(String),
    /// The export could not be written.
    #[error("{0}")]
    Export(String),
    /// The pins of an import could not be put in order.
    #[error("sorting the pins in {}: {cause}", folder.display())]
    Sort {
        /// Where the file of runs is.
        folder: std::path::PathBuf,
        /// Why it cannot be written or read.
        cause: std::io::Error,
    },
    /// The import could not be read. The text is the reference's, which does not count pins; the log does.
    #[error("{cause}")]
    Import {
        /// Which pin of the input, from 1.
        number: u64,
        /// What is wrong with it.
        cause: String,
    },
}
