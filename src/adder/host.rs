//! What the importer needs from the peer around it.

use async_trait::async_trait;
use cluster_compat::types::{Block, Cid, PeerId, Pin, PinOptions};
use tokio::sync::{mpsc, oneshot};

use super::Error;

/// Blocks that travel together: many small ones, or a single large one.
pub type Batch = Vec<Block>;

/// The peer an import runs in. Implemented by the cluster peer, and by the collector of the tests.
#[async_trait]
pub trait Host: Send + Sync {
    /// This peer, for imports with `local=true`.
    fn local_peer(&self) -> PeerId;

    /// Peers that shall hold content with these options, in the order shown to clients; asked when the first
    /// block is ready: of an import, or of each of its shards.
    async fn allocate(&self, options: &PinOptions) -> Result<Vec<PeerId>, Error>;

    /// Writes blocks to every destination until the channel ends. A destination that fails is left out from
    /// then on; [`Error::AllDestinationsFailed`] if none took all blocks, which are of one hash function. Called
    /// once an import, or shard; dropping the future ends all transfers.
    async fn put_blocks(&self, destinations: &[PeerId], blocks: mpsc::Receiver<Batch>) -> Result<(), Error>;

    /// Submits a pin whose allocations are given.
    async fn pin(&self, pin: Pin) -> Result<Pin, Error>;

    /// Whether the pinset has a pin of this CID.
    async fn is_pinned(&self, cid: &Cid) -> Result<bool, Error>;

    /// Removes pins that an import made before it failed, whether or not anyone waits for the end of it.
    fn take_back(&self, cids: Vec<Cid>) -> oneshot::Receiver<()>;
}
