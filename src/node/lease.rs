//! What a collection must spare: blocks that are being added, and DAGs that are being pinned.
//!
//! Every transaction of the repository has a number, and every block carries that of the last one that put it. A
//! [`Lease`] remembers the number at which its work began. A collection removes only blocks that were put before it
//! began itself, and before the oldest lease that was held then. A block that is there already and is put again under
//! a lease gets a new number.
//!
//! Walks that find their blocks here put none. So a lease may name the root it walks: a collection marks what can be
//! reached from it, and while one runs each block a walk looks at is marked first ([`Leases::mark`]). Marking waits
//! while a removal is being written, so that what a walk finds after marking it stays.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cluster_compat::types::Cid;

use super::repo::key;

/// Who is adding, and the marks of a running collection.
pub(super) struct Leases {
    inner: Arc<Inner>,
}

struct Inner {
    /// The last transaction's number.
    sequence: AtomicU64,
    /// Taken by leases as they come and go, by walks for each block while a collection runs, and by the writing thread
    /// while it removes blocks. Never held over an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    held: BTreeMap<u64, Held>,
    collection: Option<Collection>,
}

struct Held {
    from: u64,
    root: Option<Cid>,
}

struct Collection {
    marks: HashSet<u64>,
    began: u64,
}

/// Spares what is put while it is held.
pub(super) struct Lease {
    inner: Arc<Inner>,
    id: u64,
}

/// What a collection begins with.
pub(super) struct Began {
    /// Blocks put from this transaction on are spared.
    pub(super) horizon: u64,
    /// Roots that are being walked.
    pub(super) roots: Vec<Cid>,
    /// Ends the collection when it goes.
    pub(super) end: End,
}

/// Ends a collection.
pub(super) struct End {
    inner: Arc<Inner>,
}

/// Marks while a removal is written.
pub(super) struct Sweeping<'a>(MutexGuard<'a, State>);

/// A block as marks know it. Two blocks with the same mark are both kept, which does no harm.
fn mark_of(key: &[u8]) -> u64 {
    key.last_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl Leases {
    pub(super) fn new(sequence: u64) -> Self {
        let inner = Inner { sequence: AtomicU64::new(sequence), state: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// The number of the next transaction; called by the writing thread alone.
    pub(super) fn next_sequence(&self) -> u64 {
        self.inner.sequence.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Holds what is put from now on, and what is beneath `root`.
    pub(super) fn hold(&self, root: Option<Cid>) -> Lease {
        let mut state = self.inner.lock();
        let id = state.next;
        state.next += 1;
        let from = self.inner.sequence.load(Ordering::SeqCst) + 1;
        state.held.insert(id, Held { from, root });
        Lease { inner: Arc::clone(&self.inner), id }
    }

    /// Blocks put before this may be removed although they are put again now: they need a new number.
    pub(super) fn spared_from(&self) -> u64 {
        let state = self.inner.lock();
        let held = state.held.values().map(|held| held.from).max().unwrap_or(0);
        let began = state.collection.as_ref().map_or(0, |collection| collection.began);
        held.max(began)
    }

    /// Begins a collection; `None` while another one runs.
    pub(super) fn collect(&self) -> Option<Began> {
        let mut state = self.inner.lock();
        if state.collection.is_some() {
            return None;
        }
        let began = self.inner.sequence.load(Ordering::SeqCst) + 1;
        let horizon = state.held.values().map(|held| held.from).min().unwrap_or(began).min(began);
        let roots = state.held.values().filter_map(|held| held.root).collect();
        state.collection = Some(Collection { marks: HashSet::new(), began });
        Some(Began { horizon, roots, end: End { inner: Arc::clone(&self.inner) } })
    }

    /// Marks blocks for the running collection, if there is one.
    pub(super) fn mark<'c>(&self, cids: impl IntoIterator<Item = &'c Cid>) {
        if let Some(collection) = &mut self.inner.lock().collection {
            collection.marks.extend(cids.into_iter().map(|cid| mark_of(&key(cid))));
        }
    }

    /// Whether a block is marked.
    pub(super) fn is_marked(&self, key: &[u8]) -> bool {
        is_marked(&self.inner.lock(), key)
    }

    /// Keeps marks as they are while a removal is written.
    pub(super) fn sweeping(&self) -> Sweeping<'_> {
        Sweeping(self.inner.lock())
    }
}

impl Sweeping<'_> {
    /// Whether a block is marked.
    pub(super) fn is_marked(&self, key: &[u8]) -> bool {
        is_marked(&self.0, key)
    }
}

/// Everything is, while nothing is collected.
fn is_marked(state: &State, key: &[u8]) -> bool {
    state.collection.as_ref().is_none_or(|collection| collection.marks.contains(&mark_of(key)))
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.inner.lock().held.remove(&self.id);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.inner.lock().collection = None;
    }
}
