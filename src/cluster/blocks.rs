//! Blocks on their way to the allocated peers: this peer's go straight to its daemon.

use cluster_compat::types::{Block, PeerId};
use tokio::sync::mpsc;
use tracing::{error, warn};

use super::Cluster;
use crate::adder::Error;

impl Cluster {
    /// Sends all blocks to this peer's daemon, where it is a destination. Other peers cannot be sent blocks yet
    /// and count as failed destinations; one success suffices. The rest of the blocks is read and thrown away
    /// when nobody takes them any more, so that the upload ends in its own time.
    pub(super) async fn stream_blocks(
        &self,
        destinations: &[PeerId],
        mut blocks: mpsc::Receiver<Block>,
    ) -> Result<(), Error> {
        let own = self.inner.peer;
        for peer in destinations.iter().filter(|peer| **peer != own) {
            warn!(target: "adder", "{peer} cannot be sent blocks: calls between peers are not supported yet");
        }
        if !destinations.contains(&own) {
            while blocks.recv().await.is_some() {}
            return Err(Error::AllDestinationsFailed);
        }
        // the daemon reads from a channel of its own, so that the upload can be drained once it has failed
        let (tx, rx) = mpsc::channel(BLOCKS_AHEAD);
        let feed = async {
            while let Some(block) = blocks.recv().await {
                if tx.send(block).await.is_err() {
                    while blocks.recv().await.is_some() {}
                }
            }
            drop(tx);
        };
        let ((), stored) = tokio::join!(feed, self.inner.ipfs.block_stream(rx));
        stored.map_err(|cause| {
            error!(target: "adder", "error streaming blocks to {own}: {cause}");
            Error::AllDestinationsFailed
        })
    }
}

/// Blocks waiting for the daemon: at most this many of up to 1 MiB each.
const BLOCKS_AHEAD: usize = 8;
