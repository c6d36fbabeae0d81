//! Where blocks go: destinations are asked for when the first block is ready, pins are made after the last.

use std::sync::Arc;

use cluster_compat::go::time::Time;
use cluster_compat::types::{Block, Cid, PeerId, Pin, PinMode, PinOptions, PinType};
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use super::{BATCH_BLOCKS, BATCH_BYTES, Batch, Error, Host, MAX_QUEUED_BATCHES, hash};

/// What [`transfer`] waits for: destinations and the blocks for them.
type Start = (Vec<PeerId>, mpsc::Receiver<Batch>);

/// The importer's end of a transfer.
pub(super) struct Sink {
    host: Arc<dyn Host>,
    options: PinOptions,
    is_local: bool,
    /// Peers the content is allocated to, once known.
    allocations: Option<Vec<PeerId>>,
    start: Option<oneshot::Sender<Start>>,
    /// `None` before the first block, and after all destinations failed.
    blocks: Option<mpsc::Sender<Batch>>,
    /// Blocks that wait for company, and their bytes.
    batch: Batch,
    n_batch_bytes: usize,
    /// The last two blocks, which are not sent again. (Go: `adder/single/dag_service.go`)
    recent: [Option<Cid>; 2],
}

/// What is left to do when all blocks have been sent.
pub(super) struct Pins {
    host: Arc<dyn Host>,
    options: PinOptions,
    allocations: Vec<PeerId>,
}

/// The other end: sends blocks to their destinations from the first one on. Ends at once if there is none.
pub(super) async fn transfer(host: Arc<dyn Host>, start: oneshot::Receiver<Start>) -> Result<(), Error> {
    match start.await {
        Ok((destinations, blocks)) => host.put_blocks(&destinations, blocks).await,
        Err(_) => Ok(()),
    }
}

impl Sink {
    /// A sink, and what [`transfer`] needs.
    pub(super) fn new(
        host: Arc<dyn Host>,
        mut options: PinOptions,
        is_local: bool,
    ) -> (Self, oneshot::Receiver<Start>) {
        // What is added is held whole, whatever was asked for, and copies no other pin.
        options.mode = PinMode::Recursive;
        options.pin_update = None;
        let (start, started) = oneshot::channel();
        let sink = Self {
            host,
            options,
            is_local,
            allocations: None,
            start: Some(start),
            blocks: None,
            batch: Batch::new(),
            n_batch_bytes: 0,
            recent: [None; 2],
        };
        (sink, started)
    }

    /// Peers the content is allocated to; none before the first block.
    pub(super) fn allocations(&self) -> Vec<PeerId> {
        self.allocations.clone().unwrap_or_default()
    }

    /// Sends a block; waits for room. If all destinations have failed, the block is thrown away: the error
    /// comes at the end, when the client has sent everything and listens.
    pub(super) async fn put(&mut self, block: Block) -> Result<(), Error> {
        if !hash::is_named(&block.cid, &block.data) {
            return Err(Error::NotSupported("hash identity for blocks of more than 64 bytes".into()));
        }
        if self.recent.contains(&Some(block.cid)) {
            return Ok(());
        }
        self.recent = [self.recent[1], Some(block.cid)];
        if let Some(start) = self.start.take() {
            let (blocks, received) = mpsc::channel(MAX_QUEUED_BATCHES);
            let destinations = self.allocate().await?;
            // Nobody receives only if the transfer is being dropped together with this sink.
            if start.send((destinations, received)).is_ok() {
                self.blocks = Some(blocks);
            }
        }
        self.n_batch_bytes += block.data.len();
        self.batch.push(block);
        if self.n_batch_bytes >= BATCH_BYTES || self.batch.len() >= BATCH_BLOCKS {
            self.flush().await;
        }
        Ok(())
    }

    /// Sends what waits for company.
    async fn flush(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        self.n_batch_bytes = 0;
        if let Some(blocks) = &self.blocks
            && !batch.is_empty()
            && blocks.send(batch).await.is_err()
        {
            debug!(target: "adder", "all destinations failed; reading the rest of the upload");
            self.blocks = None;
        }
    }

    /// Chooses who holds the content, and returns who gets the blocks.
    async fn allocate(&mut self) -> Result<Vec<PeerId>, Error> {
        let mut allocations = self.host.allocate(&self.options).await?;
        let mut destinations = allocations.clone();
        if self.is_local {
            let local = self.host.local_peer();
            destinations = vec![local];
            let was_chosen = self.options.user_allocations.as_ref().is_some_and(|peers| !peers.is_empty());
            if !was_chosen && !allocations.contains(&local) {
                allocations.pop();
                allocations.push(local);
            }
        }
        self.allocations = Some(allocations);
        Ok(destinations)
    }

    /// Ends the transfer: no more blocks.
    pub(super) async fn finish(mut self) -> Pins {
        self.flush().await;
        Pins { host: self.host, options: self.options, allocations: self.allocations.unwrap_or_default() }
    }
}

impl Pins {
    /// Pins one root where its blocks are.
    pub(super) async fn pin(&self, root: Cid) -> Result<(), Error> {
        let allocations =
            if self.options.replication_factor_min < 0 { Vec::new() } else { self.allocations.clone() };
        let pin = Pin {
            options: self.options.clone(),
            cid: root,
            pin_type: PinType::Data,
            allocations: Some(allocations),
            max_depth: -1,
            reference: None,
            timestamp: Time::now(),
        };
        self.host.pin(pin).await.map(|_| ())
    }
}
