//! What the importer needs from the peer around it.

use async_trait::async_trait;
use cluster_compat::types::{Block, PeerId, Pin, PinOptions};
use tokio::sync::mpsc;

use super::Error;

/// Blocks that travel together: many small ones, or a single large one.
pub type Batch = Vec<Block>;

/// The peer an import runs in. Implemented by the cluster peer, and by the collector of the tests.
#[async_trait]
pub trait Host: Send + Sync {
    /// This peer, for imports with `local=true`.
    fn local_peer(&self) -> PeerId;

    /// Peers that shall hold content with these options, in the order shown to clients; asked once an import,
    /// when its first block is ready.
    async fn allocate(&self, options: &PinOptions) -> Result<Vec<PeerId>, Error>;

    /// Writes blocks to every destination until the channel ends. A destination that fails is left out from
    /// then on; [`Error::AllDestinationsFailed`] if none took all blocks. Called once an import; dropping the
    /// future ends all transfers.
    async fn put_blocks(&self, destinations: &[PeerId], blocks: mpsc::Receiver<Batch>) -> Result<(), Error>;

    /// Submits a pin whose allocations are given.
    async fn pin(&self, pin: Pin) -> Result<Pin, Error>;
}
