//! The thread that writes: changes that wait together share a transaction.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use cluster_compat::types::{Block, Cid};

use super::super::Error;
use super::{
    Change, DISK_RESERVE_BYTES, Job, MAX_BATCH, MAX_BATCH_BYTES, N_BYTES, N_OBJECTS, Outcome, Pin, PinKind,
    Pinning, SEQUENCE, Shared, Stat, key, pin_of, pin_row, sequence_of, size_row, u64_of,
};
use crate::store::kv::write;
use crate::store::{Db, KvWrite, Table};

/// The writing thread: takes what has queued up, writes it in one transaction, answers.
pub(super) fn run(db: &Db, shared: &Shared, queue: &Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let mut n_bytes = first.change.n_bytes();
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH
            && n_bytes < MAX_BATCH_BYTES
            && let Ok(job) = queue.try_recv()
        {
            n_bytes += job.change.n_bytes();
            batch.push(job);
        }
        commit(db, shared, batch);
    }
}

impl Change {
    fn n_bytes(&self) -> usize {
        match self {
            Self::Put(blocks) => blocks.iter().map(|block| block.data.len()).sum(),
            _ => 0,
        }
    }
}

/// Writes a batch. A change that is refused leaves the others alone; a failure of the database fails all.
fn commit(db: &Db, shared: &Shared, batch: Vec<Job>) {
    let has_room = disk_has_room(&shared.folder);
    // marks and sweeps shut each other out until the removal is on disk
    let mut sweeping =
        batch.iter().any(|job| matches!(job.change, Change::Sweep { .. })).then(|| shared.leases.sweeping());
    let written = write(db, |transaction| {
        let mut batch_state = Batch {
            transaction,
            sequence: shared.leases.next_sequence(),
            stat: Stat {
                n_objects: shared.n_objects.load(Ordering::Relaxed),
                n_bytes: shared.n_bytes.load(Ordering::Relaxed),
            },
            max_bytes: shared.max_bytes,
            has_room,
        };
        let mut outcomes = Vec::with_capacity(batch.len());
        for job in &batch {
            let outcome = match &job.change {
                Change::Put(blocks) => batch_state.put(blocks)?,
                Change::Remove(cids) => batch_state.remove(cids)?,
                Change::Sweep { keys, horizon } => {
                    let marks = sweeping.as_mut();
                    batch_state.sweep(keys, *horizon, |key| {
                        marks.as_ref().is_none_or(|marks| marks.is_marked(key))
                    })?
                }
                Change::Pin(pinning) => batch_state.pin(pinning)?,
                Change::Unpin { cid, recursive } => batch_state.unpin(*cid, *recursive)?,
                Change::Meta { key, value } => batch_state.meta(key, value)?,
            };
            outcomes.push(outcome);
        }
        batch_state.finish()?;
        Ok::<_, crate::store::Error>((outcomes, batch_state.stat))
    });
    drop(sweeping);
    match written {
        Ok((outcomes, stat)) => {
            shared.n_objects.store(stat.n_objects, Ordering::Relaxed);
            shared.n_bytes.store(stat.n_bytes, Ordering::Relaxed);
            for (job, outcome) in batch.into_iter().zip(outcomes) {
                // an asker who left is no error
                let _ = job.done.send(outcome);
            }
        }
        Err(cause) => {
            let words = cause.to_string();
            for job in batch {
                let _ = job.done.send(Err(Error::Write(words.clone())));
            }
        }
    }
}

/// Whether the disk can take more than a transaction.
fn disk_has_room(folder: &Path) -> bool {
    match rustix::fs::statvfs(folder) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize) > DISK_RESERVE_BYTES,
        Err(_) => true,
    }
}

/// One transaction on its way. The outer error is the database's, the inner one the change's.
struct Batch<'t> {
    transaction: &'t mut dyn KvWrite,
    sequence: u64,
    stat: Stat,
    max_bytes: u64,
    has_room: bool,
}

type Changed = Result<Result<Outcome, Error>, crate::store::Error>;

impl Batch<'_> {
    fn put(&mut self, blocks: &[Block]) -> Changed {
        // nothing of a refused change may stay behind, so its size is known before the first write
        let mut new_bytes = 0;
        for block in blocks {
            if !self.transaction.has(Table::Sizes, &key(&block.cid))? {
                new_bytes += block.data.len() as u64;
            }
        }
        if new_bytes > 0 && (!self.has_room || self.stat.n_bytes.saturating_add(new_bytes) > self.max_bytes) {
            return Ok(Err(Error::Full));
        }
        for block in blocks {
            let key = key(&block.cid);
            if !self.transaction.has(Table::Sizes, &key)? {
                self.transaction.put(Table::Blocks, &key, &block.data)?;
                self.stat.n_objects += 1;
                self.stat.n_bytes += block.data.len() as u64;
            }
            let row = size_row(block.data.len() as u64, self.sequence);
            self.transaction.put(Table::Sizes, &key, &row)?;
        }
        Ok(Ok(Outcome::Done))
    }

    fn remove_key(&mut self, key: &[u8]) -> Result<bool, crate::store::Error> {
        let Some(size) = self.transaction.get(Table::Sizes, key)?.map(u64_of) else { return Ok(false) };
        self.transaction.delete(Table::Sizes, key)?;
        self.transaction.delete(Table::Blocks, key)?;
        self.stat.n_objects = self.stat.n_objects.saturating_sub(1);
        self.stat.n_bytes = self.stat.n_bytes.saturating_sub(size);
        Ok(true)
    }

    fn remove(&mut self, cids: &[Cid]) -> Changed {
        for cid in cids {
            self.remove_key(&key(cid))?;
        }
        Ok(Ok(Outcome::Done))
    }

    fn sweep(&mut self, keys: &[Vec<u8>], horizon: u64, is_marked: impl Fn(&[u8]) -> bool) -> Changed {
        let mut removed = Vec::new();
        for key in keys {
            let is_old =
                self.transaction.get(Table::Sizes, key)?.is_some_and(|row| sequence_of(row) < horizon);
            if is_old && !is_marked(key) && self.remove_key(key)? {
                removed.push(key.clone());
            }
        }
        Ok(Ok(Outcome::Removed(removed)))
    }

    fn pinned(&self, cid: &Cid) -> Result<Option<Pin>, crate::store::Error> {
        let row = self.transaction.get(Table::Pins, &cid.to_bytes())?;
        row.map(pin_of).transpose().map_err(|cause| crate::store::Error::Database(cause.to_string()))
    }

    fn pin(&mut self, pinning: &Pinning) -> Changed {
        let Pinning { cid, like, unpin, .. } = pinning;
        let mut pin = pinning.pin.clone();
        let before = self.pinned(cid)?;
        if let Some(like) = like {
            match self.pinned(like)? {
                Some(Pin { kind: PinKind::Recursive, name }) => pin.name = name,
                _ => return Ok(Err(Error::UpdateFrom)),
            }
            if like == cid {
                return Ok(Ok(Outcome::Done));
            }
            if before.as_ref().is_some_and(|before| before.kind == PinKind::Recursive) {
                return Ok(Err(Error::UpdateTo));
            }
        }
        if pin.kind == PinKind::Direct && before.is_some_and(|before| before.kind == PinKind::Recursive) {
            return Ok(Err(Error::PinnedRecursively(*cid)));
        }
        self.transaction.put(Table::Pins, &cid.to_bytes(), &pin_row(&pin))?;
        if let Some(unpin) = unpin {
            self.transaction.delete(Table::Pins, &unpin.to_bytes())?;
        }
        Ok(Ok(Outcome::Done))
    }

    fn unpin(&mut self, cid: Cid, recursive: bool) -> Changed {
        match self.pinned(&cid)? {
            None => Ok(Err(Error::NotPinned)),
            Some(Pin { kind: PinKind::Recursive, .. }) if !recursive => {
                Ok(Err(Error::IsPinnedRecursively(cid)))
            }
            Some(_) => {
                self.transaction.delete(Table::Pins, &cid.to_bytes())?;
                Ok(Ok(Outcome::Done))
            }
        }
    }

    fn meta(&mut self, key: &[u8], value: &[u8]) -> Changed {
        self.transaction.put(Table::Meta, key, value)?;
        Ok(Ok(Outcome::Done))
    }

    fn finish(&mut self) -> Result<(), crate::store::Error> {
        for (key, number) in
            [(N_OBJECTS, self.stat.n_objects), (N_BYTES, self.stat.n_bytes), (SEQUENCE, self.sequence)]
        {
            self.transaction.put(Table::Meta, key, &number.to_be_bytes())?;
        }
        Ok(())
    }
}
