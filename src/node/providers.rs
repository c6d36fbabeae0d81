//! Telling the DHTs what the node has: new blocks when they come, all that is kept again before records expire.
//!
//! One announcement asks up to twenty peers of each DHT, so there are only a few at a time, and what waits is bounded:
//! beyond that the oldest are left to the next round. Where nobody is there to be told, everything waits.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cluster_compat::types::Cid;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::net::{self, Network};
use crate::task::Tasks;

/// CIDs that wait for their turn, about 100 bytes each.
const MAX_WAITING: usize = 65_536;

/// Announcements at the same time.
const MAX_RUNNING: usize = 16;

/// Pause before all that is kept is announced again; records are kept for two days. (Go: Kubo, `Provide.DHT.Interval`)
const AGAIN_EVERY: Duration = Duration::from_secs(22 * 60 * 60);

/// Pause before the next attempt when there is nobody to tell.
const RETRY_EVERY: Duration = Duration::from_secs(10);

/// What is kept, in pages: those after a CID, or the first; an empty page is the end. Called on a blocking thread.
pub(super) type Announced = Arc<dyn Fn(Option<&Cid>) -> Vec<Cid> + Send + Sync>;

/// What waits to be announced. Clones share it.
#[derive(Clone)]
pub(super) struct Announcer {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Taken for a moment by whoever adds and by the worker.
    waiting: Mutex<Waiting>,
    wake: Notify,
    again: Notify,
}

#[derive(Default)]
struct Waiting {
    queue: VecDeque<Cid>,
    known: HashSet<Cid>,
    n_lost: usize,
}

impl Waiting {
    fn add(&mut self, cid: Cid) {
        if !self.known.insert(cid) {
            return;
        }
        self.queue.push_back(cid);
        if self.queue.len() > MAX_WAITING
            && let Some(oldest) = self.queue.pop_front()
        {
            self.known.remove(&oldest);
            self.n_lost += 1;
        }
    }

    fn next(&mut self) -> Option<Cid> {
        let cid = self.queue.pop_front()?;
        self.known.remove(&cid);
        Some(cid)
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Announcer {
    /// Announces what is added, and all of `announced` again and again.
    pub(super) fn start(network: Network, announced: Announced, tasks: &Tasks) -> Self {
        let announcer = Self { shared: Arc::default() };
        let worker = Worker { network, shared: Arc::clone(&announcer.shared) };
        tasks.spawn("provider records", worker.run(tasks.token()));
        let (shared, stop) = (Arc::clone(&announcer.shared), tasks.token());
        tasks.spawn("provider records again", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = again(&shared, announced) => {}
            }
        });
        announcer
    }

    /// Announces blocks when their turn comes. Never waits.
    pub(super) fn add(&self, cids: &[Cid]) {
        let mut waiting = self.shared.waiting();
        for cid in cids {
            waiting.add(*cid);
        }
        drop(waiting);
        self.shared.wake.notify_one();
    }

    /// Announces all that is kept, now.
    pub(super) fn again(&self) {
        self.shared.again.notify_one();
    }
}

/// Goes through what is kept, no faster than it is announced.
async fn again(shared: &Shared, announced: Announced) {
    loop {
        // a peer that has just started has announced nothing for longer than it knows
        let mut last: Option<Cid> = None;
        loop {
            let (pages, after) = (Arc::clone(&announced), last);
            let page = tokio::task::spawn_blocking(move || pages(after.as_ref())).await.unwrap_or_default();
            last = page.last().copied();
            if page.is_empty() {
                break;
            }
            for cid in page {
                shared.waiting().add(cid);
            }
            shared.wake.notify_one();
            while shared.waiting().queue.len() > MAX_WAITING / 2 {
                tokio::time::sleep(RETRY_EVERY).await;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN_EVERY) => {}
            () = shared.again.notified() => {}
        }
    }
}

struct Worker {
    network: Network,
    shared: Arc<Shared>,
}

impl Worker {
    async fn run(self, stop: CancellationToken) {
        let mut running = FuturesUnordered::new();
        let mut is_alone = false;
        loop {
            while !is_alone && running.len() < MAX_RUNNING {
                let Some(cid) = self.shared.waiting().next() else { break };
                let network = self.network.clone();
                running.push(async move { (cid, network.provide(&cid).await) });
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep(RETRY_EVERY), if is_alone => is_alone = false,
                Some((cid, result)) = running.next() => match result {
                    Ok(()) => {}
                    Err(net::Error::NoDhtPeers | net::Error::Busy) => {
                        is_alone = true;
                        self.shared.waiting().add(cid);
                    }
                    Err(e) => debug!(target: "provider", %cid, "not announced: {e}"),
                },
            }
            let n_lost = std::mem::take(&mut self.shared.waiting().n_lost);
            if n_lost > 0 {
                warn!(target: "provider", n_lost, "too many new blocks to announce: some wait for the next round");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use multihash_codetable::{Code, MultihashDigest as _};

    use super::*;

    #[test]
    fn what_waits_is_bounded_and_waits_once() {
        let cid = |n: usize| Cid::new_v1(0x55, Code::Sha2_256.digest(&n.to_be_bytes()));
        let mut waiting = Waiting::default();
        for n in [1, 1, 2] {
            waiting.add(cid(n));
        }
        assert_eq!((waiting.next(), waiting.next(), waiting.next()), (Some(cid(1)), Some(cid(2)), None));
        for n in 0..MAX_WAITING + 10 {
            waiting.add(cid(n));
        }
        assert_eq!(
            (waiting.queue.len(), waiting.known.len(), waiting.n_lost),
            (MAX_WAITING, MAX_WAITING, 10)
        );
        assert_eq!(waiting.next(), Some(cid(10)));
    }
}
