//! The CRDT itself: an add-wins set over a Merkle DAG, as go-ds-crdt 0.6.8 keeps it.
//!
//! ```text
//!   Event ──▶ State::handle(event, view) ──▶ Effects: writes, changes of keys, blocks to fetch
//! ```
//!
//! The core never reads a clock, never waits, never touches a socket or a disk: it reads through the snapshot it is
//! given and answers with effects. Whoever calls it applies the writes before the next event, in order, and tells
//! about the changes only when the writes are durable. One call merges at most one node; while
//! [`Effects::more`] is set, [`Event::Continue`] follows.
//!
//! Invariants:
//! - A node that is marked processed has its block, its adds and its tombstones in the same transaction.
//! - A node written here names all heads as its parents and becomes the only head.
//! - What [`Table::Journal`] holds is what the pending batch holds.

mod batch;
#[cfg(test)]
mod goldens;
mod heads;
pub mod keys;
mod repair;
mod set;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
mod walk;

use cluster_compat::types::Cid;

use self::batch::Batch;
pub use self::heads::Heads;
use self::repair::{Dirt, Repair};
pub use self::set::Row;
use self::walk::Walk;
use crate::store::{self, KvRead, KvWrite, Table, blocks};
use crate::wire::crdt_pb::{self, Delta, Element};

/// Set while a branch of the DAG is known to be incomplete, in [`Table::Meta`].
const DIRTY_KEY: &[u8] = b"crdt/dirty";

/// The row of [`DIRTY_KEY`] where [`Table::Unfinished`] says what is missing.
const UNFINISHED: &[u8] = b"unfinished";

/// Why an event could not be handled. The state is to be loaded again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A stored row makes no sense.
    #[error("damaged CRDT store: {0}")]
    Damaged(String),
    /// A node that was merged has lost its block.
    #[error("damaged CRDT store: the block of node {0} is missing")]
    MissingBlock(String),
    /// A block is no node.
    #[error("error decoding CRDT node: {0}")]
    Node(String),
}

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// Write a key, in a node of its own.
    Put {
        /// See [`keys`].
        key: &'a str,
        /// Any bytes.
        value: &'a [u8],
    },
    /// Delete a key, in a node of its own; no node where there is nothing to delete.
    Delete {
        /// See [`keys`].
        key: &'a str,
    },
    /// Add a write (`Some`) or a delete to the pending batch, which is committed first where it grows too large.
    Queue {
        /// See [`keys`].
        key: &'a str,
        /// The value to write.
        value: Option<&'a [u8]>,
        /// Whether the item must survive a restart before the commit. Where it need not, a delete that has nothing
        /// to delete adds nothing.
        is_journalled: bool,
    },
    /// Make a node of the pending batch.
    Commit,
    /// A trusted peer announced these heads, in one message.
    Announced(&'a [Cid]),
    /// A block that was to be fetched, whose hash has been checked.
    Block {
        /// Its CID.
        cid: Cid,
        /// Its bytes.
        data: Vec<u8>,
    },
    /// A block that was to be fetched cannot be had.
    Unavailable(Cid),
    /// Go on with what is left; follows [`Effects::more`].
    Continue,
    /// Try again what could not be had, and walk the whole DAG if it was marked dirty.
    Repair,
    /// Note that the DAG has to be walked, or that it is whole.
    MarkDirty(bool),
}

/// One change of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Add or replace.
    Put(Table, Vec<u8>, Vec<u8>),
    /// Remove.
    Delete(Table, Vec<u8>),
}

/// A key whose value has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This became the current value: an element, or what is left after a tombstone.
    Put {
        /// The key.
        key: String,
        /// Its value.
        value: Vec<u8>,
    },
    /// No value is left.
    Deleted {
        /// The key.
        key: String,
    },
}

/// What is to be done, in this order: writes, then (when durable) changes and fetches.
#[derive(Debug, Default)]
pub struct Effects {
    /// Rows, in order; one transaction.
    pub writes: Vec<Write>,
    /// Keys, in order.
    pub changes: Vec<Change>,
    /// Blocks to get; each is answered by [`Event::Block`] or [`Event::Unavailable`].
    pub fetch: Vec<Fetch>,
    /// The node this event made.
    pub made: Option<Cid>,
    /// Something is left to do: send [`Event::Continue`].
    pub more: bool,
    /// Nodes that were left out, and why, for the log.
    pub skipped: Vec<(Cid, Error)>,
    /// Nodes that are given up for now: those that could not be had, or not be read.
    pub given_up: Vec<Fetch>,
    /// A node of somebody else that was merged.
    pub merged: Option<Cid>,
}

/// A block to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    /// Its CID.
    pub cid: Cid,
    /// The announced head it lies beneath: whoever announced that may have it.
    pub tip: Cid,
}

impl Effects {
    fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.writes.push(Write::Put(table, key, value));
    }

    fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.writes.push(Write::Delete(table, key));
    }

    /// Performs the writes.
    pub fn apply(&self, transaction: &mut dyn KvWrite) -> Result<(), store::Error> {
        for write in &self.writes {
            match write {
                Write::Put(table, key, value) => transaction.put(*table, key, value)?,
                Write::Delete(table, key) => {
                    transaction.delete(*table, key)?;
                }
            }
        }
        Ok(())
    }
}

/// What the core remembers between events; all but the walks under way is in the store too.
#[derive(Debug)]
pub struct State {
    heads: Heads,
    batch: Batch,
    walk: Walk,
    repair: Option<Repair>,
}

impl State {
    /// Reads the state, the batch that was pending when it was last written, and the walks that were under way:
    /// [`Event::Continue`] resumes them.
    pub fn load(view: &dyn KvRead) -> Result<Self, Error> {
        let (heads, walk) = (Heads::load(view)?, Walk::load(view)?);
        let mut state = Self { heads, batch: Batch::default(), walk, repair: None };
        state.batch.resume(view)?;
        Ok(state)
    }

    /// The current heads.
    pub fn heads(&self) -> &Heads {
        &self.heads
    }

    /// Items of the pending batch.
    pub fn n_pending(&self) -> usize {
        self.batch.n_items()
    }

    /// Nodes that are known, not processed, and could not be had: [`Event::Repair`] tries them again.
    pub fn n_stalled(&self) -> usize {
        self.walk.n_stalled()
    }

    /// Nodes that are known to lie below processed ones and are not processed yet.
    pub fn n_unfinished(&self) -> usize {
        self.walk.n_unfinished()
    }

    /// Whether any node is known that is to be processed.
    pub fn is_walking(&self) -> bool {
        self.walk.has_claims()
    }

    /// Whether [`Event::Continue`] has something to do.
    pub fn has_more(&self) -> bool {
        self.walk.has_ready() || self.repair.is_some()
    }

    /// Handles an event, given the rows as all effects before have left them.
    pub fn handle(&mut self, event: Event<'_>, view: &dyn KvRead) -> Result<Effects, Error> {
        let mut effects = Effects::default();
        match event {
            Event::Put { key, value } => {
                let delta = Delta { elements: vec![Element { key, id: "", value }], ..Delta::default() };
                self.make_node(delta, view, &mut effects)?;
            }
            Event::Delete { key } => self.on_delete(key, view, &mut effects)?,
            // nothing to delete, in a batch that is made in one go: as [`Event::Delete`]
            Event::Queue { key, value: None, is_journalled: false } if !self.has_living(key, view)? => {}
            Event::Queue { key, value, is_journalled } => {
                self.batch.add(key, value, is_journalled, view, &mut effects)?;
                if self.batch.is_too_large() {
                    self.on_commit(view, &mut effects)?;
                }
            }
            Event::Commit => self.on_commit(view, &mut effects)?,
            Event::Announced(cids) => {
                self.on_announced(cids, view)?;
                self.walk_on(view, &mut effects)?;
            }
            Event::Block { cid, data } => {
                self.walk.on_block(cid, data);
                self.walk_on(view, &mut effects)?;
            }
            Event::Unavailable(cid) => self.on_unavailable(cid, &mut effects),
            Event::Continue if self.walk.has_ready() => self.walk_on(view, &mut effects)?,
            Event::Continue => self.repair_on(view, &mut effects)?,
            Event::Repair => self.on_repair(),
            Event::MarkDirty(true) => self.walk.set_dirt(Dirt::Marked, &mut effects),
            Event::MarkDirty(false) => self.walk.set_dirt(Dirt::None, &mut effects),
        }
        effects.more = self.has_more();
        Ok(effects)
    }

    fn on_delete(&mut self, key: &str, view: &dyn KvRead, effects: &mut Effects) -> Result<(), Error> {
        let ids = set::living_ids(key, view)?;
        if ids.is_empty() {
            return Ok(());
        }
        let tombstones = ids.iter().map(|id| Element { key, id, value: b"" }).collect();
        self.make_node(Delta { tombstones, ..Delta::default() }, view, effects)
    }

    fn has_living(&self, key: &str, view: &dyn KvRead) -> Result<bool, Error> {
        Ok(self.batch.has_write_of(key) || !set::living_ids(key, view)?.is_empty())
    }

    fn on_commit(&mut self, view: &dyn KvRead, effects: &mut Effects) -> Result<(), Error> {
        if self.batch.n_items() == 0 {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        self.make_node(batch.delta(), view, effects)?;
        self.batch = batch.emptied(effects);
        Ok(())
    }

    /// Writes a node over all heads; it becomes the only one.
    fn make_node(
        &mut self,
        mut delta: Delta<'_>,
        view: &dyn KvRead,
        effects: &mut Effects,
    ) -> Result<(), Error> {
        let parents = self.heads.list();
        // heights come from other peers as they like; the reference wraps around too
        delta.priority = self.heads.max_height().wrapping_add(1);
        let block = crdt_pb::encode_node(&parents, &delta);
        let cid = crdt_pb::node_cid(&block);
        let multihash = blocks::key(&cid);
        set::merge(&delta, &multihash, view, effects)?;
        effects.put(Table::Blocks, multihash, blocks::row(&block, true));
        for parent in &parents {
            self.heads.remove(parent, effects);
        }
        self.heads.add(cid, delta.priority, effects);
        effects.made = Some(cid);
        Ok(())
    }
}

/// Whether a branch of the DAG is known to be incomplete.
pub fn is_dirty(view: &dyn KvRead) -> Result<bool, store::Error> {
    view.has(Table::Meta, DIRTY_KEY)
}

/// Removes the whole CRDT: its set, its DAG, its pending batch.
pub fn clean(transaction: &mut dyn KvWrite) -> Result<(), store::Error> {
    let tables = [
        Table::Heads,
        Table::Adds,
        Table::Tombs,
        Table::Values,
        Table::Journal,
        Table::Unfinished,
        Table::Blocks,
    ];
    for table in tables {
        transaction.clear(table)?;
    }
    transaction.delete(Table::Meta, DIRTY_KEY)?;
    Ok(())
}
