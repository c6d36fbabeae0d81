//! Blocks on their way to the allocated peers: this peer's go straight to its daemon, others' by a call each.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use cluster_compat::types::PeerId;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::Cluster;
use crate::adder::{Batch, Error};
use crate::observe::metrics;
use crate::rpc::{self, Call};
use crate::wire;

/// Batches waiting for one destination: at most this many, of 128 KiB or one block each.
const BATCHES_AHEAD: usize = 2;

/// How long a destination may take no block while the others wait for it, and how long it may take to end after
/// another has.
const TAKE_TIMEOUT: Duration = Duration::from_secs(60);

/// The queue of a destination.
enum Queue {
    Own(mpsc::Sender<Batch>),
    Other(mpsc::Sender<Vec<Bytes>>),
}

impl Cluster {
    /// Sends all blocks to all destinations; one that succeeds suffices. It works beside the task that asks, on a core
    /// of its own; dropping the future ends it.
    pub(super) async fn stream_blocks(
        &self,
        destinations: Vec<PeerId>,
        blocks: mpsc::Receiver<Batch>,
    ) -> Result<(), Error> {
        let (respond_to, answer) = oneshot::channel();
        let cluster = self.clone();
        let stop = CancellationToken::new();
        let _stop_when_dropped = stop.clone().drop_guard();
        self.inner.tasks.spawn("blocks of an add", async move {
            // a panic ends the add, not the process
            let work = AssertUnwindSafe(cluster.send_blocks(&destinations, blocks)).catch_unwind();
            if let Some(ended) = stop.run_until_cancelled_owned(work).await {
                // who asked may have left
                let _ = respond_to.send(ended.unwrap_or(Err(Error::Interrupted)));
            }
        });
        answer.await.unwrap_or(Err(Error::Interrupted))
    }

    async fn send_blocks(
        &self,
        destinations: &[PeerId],
        mut blocks: mpsc::Receiver<Batch>,
    ) -> Result<(), Error> {
        if destinations == [self.inner.peer] {
            let is_done = self.send_to_own(blocks).await;
            return if is_done { Ok(()) } else { Err(Error::AllDestinationsFailed) };
        }
        let mut queues = Vec::new();
        let mut ends = FuturesUnordered::new();
        for peer in destinations {
            let cut = CancellationToken::new();
            let (queue, end) = if *peer == self.inner.peer {
                let (tx, rx) = mpsc::channel(BATCHES_AHEAD);
                (Queue::Own(tx), self.send_to_own(rx).left_future())
            } else {
                let (tx, rx) = mpsc::channel(BATCHES_AHEAD);
                (Queue::Other(tx), self.send_to(*peer, rx).right_future())
            };
            queues.push((*peer, queue, cut.clone()));
            ends.push(async move { (*peer, cut.run_until_cancelled_owned(end).await.unwrap_or(false)) });
        }
        // What nobody takes any more is read and thrown away, so that the upload ends in its own time.
        let feed = async {
            while let Some(batch) = blocks.recv().await {
                let needs_bytes = queues.iter().any(|(_, queue, _)| matches!(queue, Queue::Other(_)));
                let encoded: Vec<Bytes> = match needs_bytes {
                    true => batch.iter().map(|block| wire::add::encode(block).into()).collect(),
                    false => Vec::new(),
                };
                let is_alone = queues.len() == 1;
                let takes = queues.iter().map(|(_, queue, _)| queue.push(&batch, &encoded, is_alone));
                let mut taken = join_all(takes).await.into_iter();
                queues.retain(|(peer, _, cut)| match taken.next() {
                    Some(Taken::Yes) => true,
                    Some(Taken::TooLate) => {
                        error!(target: "adder", "{peer} takes no more blocks");
                        // it would take the end of its queue for the end of the blocks
                        cut.cancel();
                        false
                    }
                    // it says itself why
                    Some(Taken::No) | None => false,
                });
            }
            // whoever has taken all may succeed
            queues.into_iter().map(|(peer, ..)| peer).collect::<Vec<PeerId>>()
        };
        let mut feed = pin!(feed);
        let mut ended = Vec::new();
        let took_all = loop {
            tokio::select! {
                took_all = &mut feed => break took_all,
                Some(end) = ends.next() => ended.push(end),
            }
        };
        let is_success = |(peer, is_good): (PeerId, bool)| is_good && took_all.contains(&peer);
        let mut n_good = ended.into_iter().filter(|end| is_success(*end)).count();
        loop {
            let next = match n_good > 0 {
                true => tokio::time::timeout(TAKE_TIMEOUT, ends.next()).await,
                false => Ok(ends.next().await),
            };
            match next {
                Ok(Some(end)) => n_good += usize::from(is_success(end)),
                Ok(None) => break,
                Err(_) => {
                    error!(target: "adder", "{} destinations of blocks do not end and are given up", ends.len());
                    break;
                }
            }
        }
        if n_good == 0 {
            return Err(Error::AllDestinationsFailed);
        }
        metrics::ADD_FAILED_DESTINATIONS.add((destinations.len() - n_good) as u64);
        Ok(())
    }

    async fn send_to_own(&self, blocks: mpsc::Receiver<Batch>) -> bool {
        has_succeeded(&self.inner.peer, self.inner.ipfs.block_stream(blocks).await)
    }

    async fn send_to(&self, peer: PeerId, blocks: mpsc::Receiver<Vec<Bytes>>) -> bool {
        let batches =
            stream::unfold(blocks, |mut blocks| async move { Some((blocks.recv().await?, blocks)) });
        let blocks = batches.flat_map(stream::iter);
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

/// What became of a batch at a destination.
enum Taken {
    Yes,
    No,
    TooLate,
}

impl Queue {
    async fn push(&self, batch: &Batch, encoded: &[Bytes], is_alone: bool) -> Taken {
        let pushed = async {
            match self {
                Self::Own(tx) => tx.send(batch.clone()).await.is_ok(),
                Self::Other(tx) => tx.send(encoded.to_vec()).await.is_ok(),
            }
        };
        let taken = match self {
            // the daemon's client has a limit of its own, and nobody else waits
            Self::Own(_) if is_alone => Ok(pushed.await),
            Self::Own(_) | Self::Other(_) => tokio::time::timeout(TAKE_TIMEOUT, pushed).await,
        };
        match taken {
            Ok(true) => Taken::Yes,
            Ok(false) => Taken::No,
            Err(_) => Taken::TooLate,
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
