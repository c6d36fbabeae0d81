//! Blocks on their way to their destinations: the importer has one end, the host the other.
//!
//! ```text
//!   Transfer::put ──► channel of batches ──► Host::put_blocks      (polled by `run`, beside the import)
//!   Transfer::end ◄───────────────────────── its result
//! ```

use std::sync::Arc;

use cluster_compat::types::{Block, PeerId};
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use super::{BATCH_BLOCKS, BATCH_BYTES, Batch, Error, Host, MAX_QUEUED_BATCHES};

/// Where new transfers are announced. One is under way at a time.
pub(super) type Starts = mpsc::Sender<Start>;

/// A transfer that begins.
pub(super) struct Start {
    destinations: Vec<PeerId>,
    blocks: mpsc::Receiver<Batch>,
    ended: oneshot::Sender<Result<(), Error>>,
}

/// Where transfers are announced, and for [`run`].
pub(super) fn starts() -> (Starts, mpsc::Receiver<Start>) {
    mpsc::channel(1)
}

/// Does all transfers of an import, one after the other. Dropping it ends the one under way.
pub(super) async fn run(host: Arc<dyn Host>, mut starts: mpsc::Receiver<Start>) {
    while let Some(Start { destinations, blocks, ended }) = starts.recv().await {
        let result = host.put_blocks(&destinations, blocks).await;
        // Nobody listens only if the import is being dropped.
        let _ = ended.send(result);
    }
}

/// The importer's end.
pub(super) struct Transfer {
    starts: Starts,
    destinations: Vec<PeerId>,
    stream: Option<Stream>,
}

/// Blocks of one hash function: a daemon is told the function of all blocks of a stream at its start.
struct Stream {
    /// Code of the hash function and length of its digests.
    function: (u64, u8),
    /// `None` after all destinations failed.
    blocks: Option<mpsc::Sender<Batch>>,
    /// Blocks that wait for company, and their bytes.
    batch: Batch,
    n_batch_bytes: usize,
    ended: oneshot::Receiver<Result<(), Error>>,
}

impl Transfer {
    pub(super) fn new(starts: Starts, destinations: Vec<PeerId>) -> Self {
        Self { starts, destinations, stream: None }
    }

    /// Sends a block; waits for room. If all destinations have failed, the block is thrown away: the error
    /// comes at the end, when the client has sent everything and listens.
    pub(super) async fn put(&mut self, block: Block) -> Result<(), Error> {
        let function = (block.cid.hash().code(), block.cid.hash().size());
        if self.stream.as_ref().is_none_or(|stream| stream.function != function) {
            self.end().await?;
            self.stream = Some(self.start(function).await?);
        }
        if let Some(stream) = &mut self.stream {
            stream.n_batch_bytes += block.data.len();
            stream.batch.push(block);
            if stream.n_batch_bytes >= BATCH_BYTES || stream.batch.len() >= BATCH_BLOCKS {
                stream.flush().await;
            }
        }
        Ok(())
    }

    async fn start(&self, function: (u64, u8)) -> Result<Stream, Error> {
        let (blocks, received) = mpsc::channel(MAX_QUEUED_BATCHES);
        let (result, ended) = oneshot::channel();
        let start = Start { destinations: self.destinations.clone(), blocks: received, ended: result };
        // It is full or closed only while the import is being dropped.
        self.starts.send(start).await.map_err(|_| Error::Interrupted)?;
        Ok(Stream { function, blocks: Some(blocks), batch: Batch::new(), n_batch_bytes: 0, ended })
    }

    /// Sends no more, and waits for the destinations.
    pub(super) async fn end(&mut self) -> Result<(), Error> {
        match self.stream.take() {
            Some(mut stream) => {
                stream.flush().await;
                stream.blocks = None;
                stream.ended.await.map_err(|_| Error::Interrupted)?
            }
            None => Ok(()),
        }
    }
}

impl Stream {
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
}
