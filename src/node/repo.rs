//! Blocks and pins on disk.
//!
//! ```text
//!   get, size ──▶ snapshot of the database
//!   put, pins ──▶ queue ──▶ one writing thread: what has queued up meanwhile is one transaction, one sync
//!   sweep     ──▶   "       so a block that is put again and a block that is swept never cross
//! ```
//!
//! - What [`Repo::put`], [`Repo::set_pin`] and [`Repo::remove_pin`] answer is on disk.
//! - A block is stored once, by its multihash; CIDs that hold their block themselves are never stored.
//! - Number and sum of blocks are counted in the transaction that changes them.
//! - Every row of [`Table::Sizes`] says when its block was put last: collections spare what was put under a
//!   lease ([`super::lease`]).
//! - Calls block: use `spawn_blocking`.

mod writer;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use cluster_compat::types::{Block, Cid};

use self::writer::run;
use super::Error;
use super::lease::Leases;
use crate::store::kv::read;
use crate::store::{Db, KvRead, Table};

/// Multihash code of CIDs that hold their block.
const IDENTITY: u64 = 0;
/// Changes that wait for the writing thread; filled by many clients at once.
const MAX_QUEUED: usize = 256;
/// Bytes of blocks in one transaction, unless one change alone has more.
const MAX_BATCH_BYTES: usize = 16 << 20;
/// Changes in one transaction.
const MAX_BATCH: usize = 256;
/// Address space for the database, which is no limit on blocks: `storage_max_bytes` is.
const MAP_SIZE_BYTES: u64 = 1 << 40;
/// Bytes that stay free on the disk.
const DISK_RESERVE_BYTES: u64 = 64 << 20;
/// Rows read at a time by walks over a whole table.
const PAGE: usize = 1024;

const N_OBJECTS: &[u8] = b"node/objects";
const N_BYTES: &[u8] = b"node/bytes";
const SEQUENCE: &[u8] = b"node/sequence";
const FILES: &[u8] = b"node/files";
/// Before the multihash of a name.
const NAMES: &[u8] = b"node/ipns/";

/// How much of a DAG a pin holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PinKind {
    /// The block alone.
    Direct,
    /// All of it.
    Recursive,
}

/// A pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pin {
    pub(super) kind: PinKind,
    pub(super) name: String,
}

/// Key and value.
type Row = (Vec<u8>, Vec<u8>);

/// What is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stat {
    pub(super) n_objects: u64,
    pub(super) n_bytes: u64,
}

/// Blocks and pins of the node. Clones share them; the database closes with the last one.
#[derive(Clone)]
pub(super) struct Repo {
    inner: Arc<Inner>,
}

struct Inner {
    db: Db,
    shared: Arc<Shared>,
    folder: PathBuf,
    /// `None` only while it is dropped. The lock is held for the moment of a clone.
    jobs: Mutex<Option<SyncSender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the writing thread shares with readers.
struct Shared {
    leases: Leases,
    max_bytes: u64,
    folder: PathBuf,
    n_objects: AtomicU64,
    n_bytes: AtomicU64,
}

/// One change and where its outcome goes.
struct Job {
    change: Change,
    done: SyncSender<Result<Outcome, Error>>,
}

enum Change {
    Put(Vec<Block>),
    /// Removes blocks that are not marked and were put before the horizon.
    Sweep {
        keys: Vec<Vec<u8>>,
        horizon: u64,
    },
    Remove(Vec<Cid>),
    Pin(Box<Pinning>),
    Unpin {
        cid: Cid,
        recursive: bool,
    },
    /// A row beside blocks and pins.
    Meta {
        key: Vec<u8>,
        value: Vec<u8>,
    },
}

/// A pin to write.
struct Pinning {
    cid: Cid,
    pin: Pin,
    /// Only if this is pinned recursively; the pin takes its name.
    like: Option<Cid>,
    unpin: Option<Cid>,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Removed(Vec<Vec<u8>>),
}

impl Repo {
    /// Opens or makes the repository in `folder`. A process opens a folder once.
    pub(super) fn open(folder: &Path, max_bytes: u64) -> Result<Self, Error> {
        let db = Db::open(&folder.join("blocks"), MAP_SIZE_BYTES.max(max_bytes.saturating_mul(2)))?;
        let number = |key: &'static [u8]| {
            read(&db, |view| {
                let row = view.get(Table::Meta, key)?;
                Ok::<_, crate::store::Error>(row.map_or(0, u64_of))
            })
        };
        let shared = Arc::new(Shared {
            leases: Leases::new(number(SEQUENCE)?),
            max_bytes,
            folder: folder.to_owned(),
            n_objects: AtomicU64::new(number(N_OBJECTS)?),
            n_bytes: AtomicU64::new(number(N_BYTES)?),
        });
        let (jobs, queue) = sync_channel(MAX_QUEUED);
        let writer = {
            let (db, shared) = (db.clone(), Arc::clone(&shared));
            std::thread::Builder::new()
                .name("node writer".into())
                .spawn(move || run(&db, &shared, &queue))
                .map_err(|cause| Error::Start(format!("starting the writing thread: {cause}")))?
        };
        let inner = Inner {
            db,
            shared,
            folder: folder.to_owned(),
            jobs: Mutex::new(Some(jobs)),
            writer: Mutex::new(Some(writer)),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Where it lies.
    pub(super) fn folder(&self) -> &Path {
        &self.inner.folder
    }

    /// Most bytes of blocks.
    pub(super) fn max_bytes(&self) -> u64 {
        self.inner.shared.max_bytes
    }

    /// Who is adding, and what a collection must spare.
    pub(super) fn leases(&self) -> &Leases {
        &self.inner.shared.leases
    }

    /// A block.
    pub(super) fn get(&self, cid: &Cid) -> Result<Option<Bytes>, Error> {
        if let Some(block) = inline(cid) {
            return Ok(Some(block));
        }
        self.read(|view| Ok(view.get(Table::Blocks, &key(cid))?.map(Bytes::copy_from_slice)))
    }

    /// Blocks, in one look.
    pub(super) fn get_all(&self, cids: &[Cid]) -> Result<Vec<Option<Bytes>>, Error> {
        self.read(|view| {
            let get = |cid: &Cid| match inline(cid) {
                Some(block) => Ok(Some(block)),
                None => Ok(view.get(Table::Blocks, &key(cid))?.map(Bytes::copy_from_slice)),
            };
            cids.iter().map(get).collect()
        })
    }

    /// The size of a block, without reading it.
    pub(super) fn size(&self, cid: &Cid) -> Result<Option<u64>, Error> {
        if let Some(block) = inline(cid) {
            return Ok(Some(block.len() as u64));
        }
        self.read(|view| Ok(view.get(Table::Sizes, &key(cid))?.map(u64_of)))
    }

    /// Stores blocks; they are on disk when it returns. Who named them has checked them.
    pub(super) fn put(&self, blocks: &[Block]) -> Result<(), Error> {
        let missing = self.missing(blocks)?;
        if missing.is_empty() {
            return Ok(());
        }
        self.change(Change::Put(missing)).map(drop)
    }

    /// Those of `blocks` that must go through the writer: new ones, and old ones a collection might take.
    fn missing(&self, blocks: &[Block]) -> Result<Vec<Block>, Error> {
        let spared_from = self.leases().spared_from();
        self.read(|view| {
            let mut missing = Vec::new();
            for block in blocks.iter().filter(|block| inline(&block.cid).is_none()) {
                let row = view.get(Table::Sizes, &key(&block.cid))?;
                if row.is_none_or(|row| sequence_of(row) < spared_from) {
                    missing.push(block.clone());
                }
            }
            Ok(missing)
        })
    }

    /// Removes blocks, pinned or not.
    pub(super) fn remove(&self, cids: &[Cid]) -> Result<(), Error> {
        self.change(Change::Remove(cids.to_vec())).map(drop)
    }

    /// Removes those of `keys` that are garbage for the running collection; returns which.
    pub(super) fn sweep(&self, keys: Vec<Vec<u8>>, horizon: u64) -> Result<Vec<Vec<u8>>, Error> {
        match self.change(Change::Sweep { keys, horizon })? {
            Outcome::Removed(keys) => Ok(keys),
            Outcome::Done => Ok(Vec::new()),
        }
    }

    /// What is stored.
    pub(super) fn stat(&self) -> Stat {
        let shared = &self.inner.shared;
        Stat {
            n_objects: shared.n_objects.load(Ordering::Relaxed),
            n_bytes: shared.n_bytes.load(Ordering::Relaxed),
        }
    }

    /// How a CID itself is pinned.
    pub(super) fn pin_of(&self, cid: &Cid) -> Result<Option<Pin>, Error> {
        self.read(|view| view.get(Table::Pins, &cid.to_bytes())?.map(pin_of).transpose())
    }

    /// The pins after a CID, a page of them.
    pub(super) fn pins_after(&self, after: Option<&Cid>) -> Result<Vec<(Cid, Pin)>, Error> {
        let after = after.map(Cid::to_bytes);
        let mut pins = Vec::new();
        for (key, row) in self.page(Table::Pins, after.as_deref())? {
            let cid = Cid::try_from(&key[..]).map_err(|cause| damaged(Table::Pins, &cause.to_string()))?;
            pins.push((cid, pin_of(&row)?));
        }
        Ok(pins)
    }

    /// Pins a CID whose blocks are here, in place of its pin before.
    pub(super) fn set_pin(&self, cid: Cid, pin: Pin) -> Result<(), Error> {
        let pinning = Pinning { cid, pin, like: None, unpin: None };
        self.change(Change::Pin(Box::new(pinning))).map(drop)
    }

    /// Pins a CID like another one, which may go.
    pub(super) fn update_pin(&self, from: Cid, to: Cid, unpins: bool) -> Result<(), Error> {
        let pin = Pin { kind: PinKind::Recursive, name: String::new() };
        let unpin = unpins.then_some(from);
        let pinning = Pinning { cid: to, pin, like: Some(from), unpin };
        self.change(Change::Pin(Box::new(pinning))).map(drop)
    }

    /// Takes a pin away.
    pub(super) fn remove_pin(&self, cid: Cid, recursive: bool) -> Result<(), Error> {
        self.change(Change::Unpin { cid, recursive }).map(drop)
    }

    /// The root of the mutable files, once there was one.
    pub(super) fn files(&self) -> Result<Option<Cid>, Error> {
        let row = self.read(|view| Ok(view.get(Table::Meta, FILES)?.map(<[u8]>::to_vec)))?;
        row.map(|row| Cid::try_from(&row[..]).map_err(|cause| damaged(Table::Meta, &cause.to_string())))
            .transpose()
    }

    /// Puts another root in its place.
    pub(super) fn set_files(&self, root: Cid) -> Result<(), Error> {
        self.change(Change::Meta { key: FILES.to_vec(), value: root.to_bytes() }).map(drop)
    }

    /// The record of a name, once there was one.
    pub(super) fn name_record(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let key = [NAMES, name].concat();
        self.read(|view| Ok(view.get(Table::Meta, &key)?.map(<[u8]>::to_vec)))
    }

    /// Puts the record of a name in place of the one before.
    pub(super) fn set_name_record(&self, name: &[u8], record: Vec<u8>) -> Result<(), Error> {
        self.change(Change::Meta { key: [NAMES, name].concat(), value: record }).map(drop)
    }

    /// Multihashes after one, with the sizes of their blocks: a page of them.
    pub(super) fn blocks_after(&self, after: Option<&[u8]>) -> Result<Vec<(Vec<u8>, u64)>, Error> {
        Ok(self.page(Table::Sizes, after)?.into_iter().map(|(key, row)| (key, u64_of(&row))).collect())
    }

    fn page(&self, table: Table, after: Option<&[u8]>) -> Result<Vec<Row>, Error> {
        self.read(|view| {
            let mut rows = Vec::new();
            view.scan(table, b"", after, &mut |key, row| {
                rows.push((key.to_vec(), row.to_vec()));
                if rows.len() < PAGE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            Ok(rows)
        })
    }

    fn read<R>(&self, job: impl FnOnce(&dyn KvRead) -> Result<R, Error>) -> Result<R, Error> {
        read(&self.inner.db, job)
    }

    fn change(&self, change: Change) -> Result<Outcome, Error> {
        let jobs = self.inner.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (done, outcome) = sync_channel(1);
        jobs.ok_or(Error::Stopped)?.send(Job { change, done }).map_err(|_| Error::Stopped)?;
        outcome.recv().map_err(|_| Error::Stopped)?
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // the queue ends, then the thread, then the database closes
        self.jobs.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner).take()
            && writer.thread().id() != std::thread::current().id()
        {
            let _ = writer.join();
        }
    }
}

impl crate::net::Blocks for Repo {
    fn block(&self, cid: &Cid) -> Option<Vec<u8>> {
        Repo::get(self, cid).ok().flatten().map(Vec::from)
    }

    fn size(&self, cid: &Cid) -> Option<usize> {
        Repo::size(self, cid).ok().flatten().and_then(|size| usize::try_from(size).ok())
    }
}

/// The block that a CID holds itself.
pub(super) fn inline(cid: &Cid) -> Option<Bytes> {
    (cid.hash().code() == IDENTITY).then(|| Bytes::copy_from_slice(cid.hash().digest()))
}

/// What a block is stored under.
pub(super) fn key(cid: &Cid) -> Vec<u8> {
    cid.hash().to_bytes()
}

fn u64_of(row: &[u8]) -> u64 {
    row.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// When a block was put last.
fn sequence_of(row: &[u8]) -> u64 {
    row.get(8..).map_or(0, u64_of)
}

fn size_row(size: u64, sequence: u64) -> [u8; 16] {
    let mut row = [0; 16];
    row[..8].copy_from_slice(&size.to_be_bytes());
    row[8..].copy_from_slice(&sequence.to_be_bytes());
    row
}

fn pin_of(row: &[u8]) -> Result<Pin, Error> {
    let (kind, name) = match row {
        [0, name @ ..] => (PinKind::Direct, name),
        [1, name @ ..] => (PinKind::Recursive, name),
        _ => return Err(damaged(Table::Pins, "a pin of no kind")),
    };
    Ok(Pin { kind, name: String::from_utf8_lossy(name).into_owned() })
}

fn pin_row(pin: &Pin) -> Vec<u8> {
    let mut row = vec![u8::from(pin.kind == PinKind::Recursive)];
    row.extend_from_slice(pin.name.as_bytes());
    row
}

fn damaged(table: Table, message: &str) -> Error {
    Error::from(crate::store::Error::Damaged { table: table.name(), message: message.to_owned() })
}

#[cfg(test)]
mod tests;
