//! Where blocks go: to one set of peers under one pin, or to a set for each shard.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cluster_compat::types::{AddParams, AddedOutput, Block, Cid, PeerId, PinMode, PinOptions};
use tokio::sync::mpsc;

use super::shard::Sharded;
use super::single::Single;
use super::transfer::Starts;
use super::{Error, Host, hash};

/// What an import writes to.
pub(super) enum Sink {
    Single(Box<Single>),
    Sharded(Box<Sharded>),
}

/// What both kinds need.
pub(super) struct SinkArgs {
    pub(super) host: Arc<dyn Host>,
    pub(super) options: PinOptions,
    /// Blocks go to this peer alone.
    pub(super) is_local: bool,
    /// Nothing is pinned.
    pub(super) no_pin: bool,
    pub(super) starts: Starts,
    pub(super) outputs: mpsc::Sender<AddedOutput>,
    pub(super) unfinished: Arc<Unfinished>,
}

impl Sink {
    /// The sink for these parameters.
    pub(super) fn new(
        params: &AddParams,
        unfinished: &Arc<Unfinished>,
        starts: Starts,
        outputs: mpsc::Sender<AddedOutput>,
    ) -> Self {
        let args = SinkArgs {
            host: unfinished.host.clone(),
            // What is added is held whole, whatever was asked for, and copies no other pin.
            options: PinOptions { mode: PinMode::Recursive, pin_update: None, ..params.options.clone() },
            is_local: params.local,
            no_pin: params.no_pin,
            starts,
            outputs,
            unfinished: unfinished.clone(),
        };
        if params.shard {
            Self::Sharded(Box::new(Sharded::new(args)))
        } else {
            Self::Single(Box::new(Single::new(args)))
        }
    }

    /// Peers the content, or the shard being written, is allocated to; none before the first block.
    pub(super) fn allocations(&self) -> Vec<PeerId> {
        match self {
            Self::Single(sink) => sink.allocations(),
            Self::Sharded(sink) => sink.allocations(),
        }
    }

    /// Sends a block; waits for room.
    pub(super) async fn put(&mut self, block: Block) -> Result<(), Error> {
        if !hash::is_named(&block.cid, &block.data) {
            return Err(Error::NotSupported("hash identity for blocks of more than 64 bytes".into()));
        }
        match self {
            Self::Single(sink) => sink.put(block).await,
            Self::Sharded(sink) => sink.put(block).await,
        }
    }

    /// Whether all blocks of a root have to come between its beginning and its end.
    pub(super) fn wants_roots_apart(&self) -> bool {
        matches!(self, Self::Sharded(_))
    }

    /// What follows belongs to another root than what came before.
    pub(super) async fn begin_root(&mut self) -> Result<(), Error> {
        match self {
            Self::Single(_) => Ok(()),
            Self::Sharded(sink) => sink.begin_root().await,
        }
    }

    /// What came since the last beginning, and what comes until the next, is the DAG of `root`.
    pub(super) fn name_root(&mut self, root: Cid) {
        if let Self::Sharded(sink) = self {
            sink.name_root(root);
        }
    }

    /// Waits until all blocks are with their destinations, and pins the roots.
    pub(super) async fn finish(self, roots: &[Cid]) -> Result<(), Error> {
        match self {
            Self::Single(sink) => sink.finish(roots).await,
            Self::Sharded(sink) => sink.finish().await,
        }
    }
}

/// Who holds content, and who gets its blocks.
pub(super) struct Allocated {
    pub(super) allocations: Vec<PeerId>,
    pub(super) destinations: Vec<PeerId>,
}

impl Allocated {
    /// Asks the host. If all blocks go to this peer, it takes the last place among those who hold them, unless
    /// the user chose them. (Go: `adder/single/dag_service.go`)
    pub(super) async fn new(host: &dyn Host, options: &PinOptions, is_local: bool) -> Result<Self, Error> {
        let mut allocations = host.allocate(options).await?;
        if !is_local {
            return Ok(Self { destinations: allocations.clone(), allocations });
        }
        let local = host.local_peer();
        let was_chosen = options.user_allocations.as_ref().is_some_and(|peers| !peers.is_empty());
        if !was_chosen && !allocations.contains(&local) {
            allocations.pop();
            allocations.push(local);
        }
        Ok(Self { destinations: vec![local], allocations })
    }
}

/// Pins that an import makes on its way and that must not outlive its failure: taken back when this is dropped.
pub(super) struct Unfinished {
    host: Arc<dyn Host>,
    /// Taken for a push, or to empty it; never over an await.
    cids: Mutex<Vec<Cid>>,
}

impl Unfinished {
    pub(super) fn new(host: Arc<dyn Host>) -> Self {
        Self { host, cids: Mutex::default() }
    }

    pub(super) fn add(&self, cid: Cid) {
        self.lock().push(cid);
    }

    /// How many pins there are now, for [`Unfinished::take_back_from`].
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// The import succeeded: its pins stay.
    pub(super) fn keep(&self) {
        self.lock().clear();
    }

    /// Takes back all pins but the first `n`.
    pub(super) async fn take_back_from(&self, n: usize) {
        let cids = self.lock().split_off(n);
        if !cids.is_empty() {
            // A host that is stopping drops its end.
            let _ = self.host.take_back(cids).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Cid>> {
        self.cids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let cids = std::mem::take(&mut *self.lock());
        if !cids.is_empty() {
            drop(self.host.take_back(cids));
        }
    }
}
