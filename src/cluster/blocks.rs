//! Blocks on their way to the allocated peers: this peer's go straight to its daemon, others' by a call each.

use std::time::Duration;

use bytes::Bytes;
use cluster_compat::types::{Block, PeerId};
use futures::future::join_all;
use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::mpsc;
use tracing::error;

use super::Cluster;
use crate::adder::Error;
use crate::rpc::{self, Call};
use crate::wire;

/// Blocks waiting for one destination: at most this many of up to 1 MiB each.
pub(super) const BLOCKS_AHEAD: usize = 8;

/// How long a destination may take no block while the others wait for it.
const TAKE_TIMEOUT: Duration = Duration::from_secs(60);

/// The queue of a destination.
enum Queue {
    Own(mpsc::Sender<Block>),
    Other(mpsc::Sender<Bytes>),
}

impl Cluster {
    /// Sends all blocks to all destinations; one that succeeds suffices. The rest of the blocks is read and thrown
    /// away when nobody takes them any more, so that the upload ends in its own time.
    pub(super) async fn stream_blocks(
        &self,
        destinations: &[PeerId],
        mut blocks: mpsc::Receiver<Block>,
    ) -> Result<(), Error> {
        let mut queues = Vec::new();
        let mut ends = Vec::new();
        for peer in destinations {
            if *peer == self.inner.peer {
                let (tx, rx) = mpsc::channel(BLOCKS_AHEAD);
                queues.push((*peer, Queue::Own(tx)));
                ends.push(self.send_to_own(rx).left_future());
            } else {
                let (tx, rx) = mpsc::channel(BLOCKS_AHEAD);
                queues.push((*peer, Queue::Other(tx)));
                ends.push(self.send_to(*peer, rx).right_future());
            }
        }
        let feed = async {
            while let Some(block) = blocks.recv().await {
                let needs_bytes = queues.iter().any(|(_, queue)| matches!(queue, Queue::Other(_)));
                let encoded = if needs_bytes { wire::add::encode(&block).into() } else { Bytes::new() };
                let takes = queues.iter().map(|(_, queue)| queue.push(&block, &encoded));
                let mut taken = join_all(takes).await.into_iter();
                queues.retain(|(peer, _)| match taken.next() {
                    Some(Taken::Yes) => true,
                    Some(Taken::TooLate) => {
                        error!(target: "adder", "{peer} takes no more blocks");
                        false
                    }
                    // it says itself why
                    Some(Taken::No) | None => false,
                });
            }
            drop(queues);
        };
        let ((), ends) = tokio::join!(feed, join_all(ends));
        if ends.contains(&true) { Ok(()) } else { Err(Error::AllDestinationsFailed) }
    }

    async fn send_to_own(&self, blocks: mpsc::Receiver<Block>) -> bool {
        has_succeeded(&self.inner.peer, self.inner.ipfs.block_stream(blocks).await)
    }

    async fn send_to(&self, peer: PeerId, blocks: mpsc::Receiver<Bytes>) -> bool {
        let blocks = stream::unfold(blocks, |mut blocks| async move { Some((blocks.recv().await?, blocks)) });
        let mut replies = self.inner.rpc.stream(peer, Call::BlockStream, blocks.boxed());
        // a peer that is gone is known by its pings, one that is slow by its queue
        let ended = async {
            while let Some(reply) = replies.next().await {
                reply?;
            }
            Ok(())
        };
        let ended = tokio::select! {
            ended = ended => ended,
            () = self.is_gone(&peer) => Err(rpc::Error::Gone),
        };
        has_succeeded(&peer, ended)
    }
}

/// What became of a block at a destination.
enum Taken {
    Yes,
    No,
    TooLate,
}

impl Queue {
    async fn push(&self, block: &Block, encoded: &Bytes) -> Taken {
        let pushed = async {
            match self {
                Self::Own(tx) => tx.send(block.clone()).await.is_ok(),
                Self::Other(tx) => tx.send(encoded.clone()).await.is_ok(),
            }
        };
        match self {
            // the daemon's client has a limit of its own
            Self::Own(_) => {
                if pushed.await {
                    Taken::Yes
                } else {
                    Taken::No
                }
            }
            Self::Other(_) => match tokio::time::timeout(TAKE_TIMEOUT, pushed).await {
                Ok(true) => Taken::Yes,
                Ok(false) => Taken::No,
                Err(_) => Taken::TooLate,
            },
        }
    }
}

/// Whether it went well; a failure goes to the log.
fn has_succeeded<E: std::fmt::Display>(peer: &PeerId, ended: Result<(), E>) -> bool {
    if let Err(cause) = &ended {
        error!(target: "adder", "error streaming blocks to {peer}: {cause}");
    }
    ended.is_ok()
}
