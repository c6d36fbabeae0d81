//! Getting the nodes that a walk asks for.
//!
//! ```text
//!   worker ──want──▶ queue ──▶ a peer of ours that may have it: the node, and a stream of what lies beneath
//!     ▲  ▲                └──▶ anyone: one block over bitswap
//!     │  └──arrival── the node, or that nobody has it
//!     └──taken────── ahead: what came beneath it, before it was asked for
//! ```
//!
//! A chain of nodes can be fetched only one after another, since each names the next; peers of ours therefore send
//! the next ones unasked, in one stream. What is asked for while such a stream runs is given a moment to come with it.
//!
//! Invariants: asking never waits; a node is fetched once at a time; what came ahead is bounded and checked by hash;
//! a peer that announces what nobody serves holds up only what it announced itself.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cluster_compat::types::{Cid, PeerId};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::wire::crdt_pb::node_cid;
use crate::wire::nodes_pb::Request;

/// Longest wait for a node, that of the reference (go-ds-crdt 0.6.8, `dagSyncerTimeout` of ipfs-cluster: 2 minutes).
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(120);

/// Nodes that are fetched at the same time: the branches of the DAG, and heads of several peers.
const MAX_FETCHES: usize = 256;

/// Those of them for heads that one peer announced, so that one who announces what nobody serves holds up only itself.
const MAX_FETCHES_PER_PEER: usize = 16;

/// Bytes of nodes that came before they were asked for.
const MAX_AHEAD_BYTES: usize = 16 << 20;

/// How long nodes that came unasked are kept after the last fetch.
const AHEAD_TTL: Duration = Duration::from_secs(5);

/// Bytes asked for with a stream while little is missing: a peer that has nothing new to send cannot know it, and
/// reads its whole history where the branches it follows pass by the heads we name.
const MIN_STREAM_BYTES: u64 = 64 << 10;

/// Bytes asked for with one stream at most.
const MAX_STREAM_BYTES: u64 = 64 << 20;

/// How much more is asked for after a stream that was worth it.
const STREAM_GROWTH: u64 = 8;

/// Longest silence on a stream of nodes, or wait for room for the next.
const STREAM_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a wanted node may still come with a stream that is under way, before it is fetched by itself.
const STREAM_GRACE: Duration = Duration::from_millis(250);

/// So many known nodes in a row mean that a stream has nothing new.
const MAX_KNOWN_IN_A_ROW: usize = 32;

/// Pause before everyone is asked again, where the network could not take the request.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Peers of ours that are asked for a stream before all are asked for the one block.
const MAX_STREAM_ATTEMPTS: usize = 3;

/// How long things may take. [`Limits::default`] is the constants of this file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    fetch: Duration,
    stream: Duration,
    grace: Duration,
    ahead: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { fetch: FETCH_TIMEOUT, stream: STREAM_TIMEOUT, grace: STREAM_GRACE, ahead: AHEAD_TTL }
    }
}

/// What comes of a wanted node.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Its block; the hash is checked.
    Block { cid: Cid, data: Vec<u8> },
    /// Nobody served it in time.
    Unavailable(Cid),
}

/// A node to fetch.
#[derive(Debug, Clone)]
pub(super) struct Want {
    pub(super) cid: Cid,
    /// Peers that may have it, first the one that announced it.
    pub(super) likely: Vec<PeerId>,
}

impl Want {
    fn announced_by(&self) -> Option<PeerId> {
        self.likely.first().copied()
    }
}

/// How nodes are fetched from others.
#[async_trait]
pub(super) trait Exchange: Send + Sync + 'static {
    /// Asks everyone, `likely` first, and waits until somebody sends the block.
    async fn block(&self, cid: Cid, likely: &[PeerId]) -> Result<Vec<u8>, String>;

    /// Connected peers that stream nodes: those of `likely`; any, if none of `likely` is connected.
    fn streamers(&self, likely: &[PeerId]) -> Vec<PeerId>;

    /// Opens a stream of nodes.
    async fn stream(&self, peer: PeerId, request: Request) -> Result<Box<dyn Nodes>, String>;
}

/// A stream of nodes.
#[async_trait]
pub(super) trait Nodes: Send {
    /// The next block, `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, String>;
}

/// What is known here, so that streams neither bring it nor go on below it.
pub(super) trait Known: Send + Sync + 'static {
    /// Nodes to name as known: heads of now and of late.
    fn have(&self) -> Vec<Cid>;
    /// Whether a node is processed.
    fn is_processed(&self, cid: &Cid) -> bool;
}

/// The worker's end of the fetching.
#[derive(Default)]
pub(super) struct Fetcher {
    limits: Limits,
    /// Taken for a moment by the worker, the fetching task and its streams; no await inside.
    state: Mutex<State>,
    /// Something is wanted.
    wanted: Notify,
    /// Something that came ahead was taken.
    taken: Notify,
}

/// Wants by the peer that announced them; the peers take turns.
#[derive(Default)]
struct Queue {
    by_peer: HashMap<Option<PeerId>, Group>,
    /// Peers with wants that wait, and may be served.
    turns: VecDeque<Option<PeerId>>,
}

#[derive(Default)]
struct Group {
    waiting: VecDeque<Want>,
    n_running: usize,
}

impl Queue {
    fn push(&mut self, want: Want) {
        let peer = want.announced_by();
        let group = self.by_peer.entry(peer).or_default();
        group.waiting.push_back(want);
        if group.waiting.len() == 1 && group.n_running < MAX_FETCHES_PER_PEER {
            self.turns.push_back(peer);
        }
    }

    fn pop(&mut self) -> Option<Want> {
        let peer = self.turns.pop_front()?;
        let group = self.by_peer.get_mut(&peer)?;
        let want = group.waiting.pop_front()?;
        group.n_running += 1;
        if !group.waiting.is_empty() && group.n_running < MAX_FETCHES_PER_PEER {
            self.turns.push_back(peer);
        }
        Some(want)
    }

    /// A want that was popped is done with.
    fn on_done(&mut self, peer: Option<PeerId>) {
        let Some(group) = self.by_peer.get_mut(&peer) else { return };
        group.n_running -= 1;
        if group.waiting.is_empty() {
            if group.n_running == 0 {
                self.by_peer.remove(&peer);
            }
        } else if group.n_running == MAX_FETCHES_PER_PEER - 1 {
            self.turns.push_back(peer);
        }
    }
}

struct State {
    queue: Queue,
    /// Wants in the queue, under way, or parked.
    asked: HashSet<Cid>,
    /// Wants that a stream may bring, and since when.
    parked: HashMap<Cid, (Want, Instant)>,
    n_streams: usize,
    /// Bytes to ask for with the next stream.
    stream_bytes: u64,
    ahead: HashMap<Cid, Vec<u8>>,
    ahead_bytes: usize,
}

impl Default for State {
    fn default() -> Self {
        Self {
            queue: Queue::default(),
            asked: HashSet::new(),
            parked: HashMap::new(),
            n_streams: 0,
            stream_bytes: MIN_STREAM_BYTES,
            ahead: HashMap::new(),
            ahead_bytes: 0,
        }
    }
}

impl State {
    /// A stream of at most `asked` bytes has brought `new` ones that were not known.
    fn on_streamed(&mut self, asked: u64, new: u64) {
        let was_worth_it = new >= asked / 2;
        self.stream_bytes = match was_worth_it {
            true => self.stream_bytes.max(asked.saturating_mul(STREAM_GROWTH)).min(MAX_STREAM_BYTES),
            false => MIN_STREAM_BYTES,
        };
    }

    fn forget_ahead(&mut self) {
        self.ahead = HashMap::new();
        self.ahead_bytes = 0;
    }
}

impl Fetcher {
    /// Takes a node that came before it was asked for.
    pub(super) fn take_ahead(&self, cid: &Cid) -> Option<Vec<u8>> {
        let mut state = self.lock();
        let data = state.ahead.remove(cid)?;
        state.ahead_bytes -= data.len();
        drop(state);
        self.taken.notify_one();
        Some(data)
    }

    /// Wants a node; one [`Arrival`] answers, however often it was wanted meanwhile.
    pub(super) fn want(&self, want: Want) {
        let mut state = self.lock();
        if !state.asked.insert(want.cid) {
            return;
        }
        if state.n_streams > 0 {
            state.parked.insert(want.cid, (want, Instant::now()));
        } else {
            state.queue.push(want);
        }
        drop(state);
        self.wanted.notify_one();
    }

    /// Fetches until stopped.
    pub(super) async fn run(
        self: Arc<Self>,
        exchange: Arc<dyn Exchange>,
        known: Arc<dyn Known>,
        arrivals: mpsc::Sender<Arrival>,
        stop: CancellationToken,
    ) {
        let mut fetches = FuturesUnordered::new();
        loop {
            while fetches.len() < MAX_FETCHES
                && let Some(want) = self.lock().queue.pop()
            {
                let (cid, peer, limit) = (want.cid, want.announced_by(), self.limits.fetch);
                let (fetcher, exchange, known, arrivals) = (&self, &exchange, &known, &arrivals);
                fetches.push(async move {
                    let fetched = timeout(limit, fetcher.fetch(want, exchange, known, arrivals)).await;
                    fetcher.on_done(&cid, peer);
                    let arrival = match fetched {
                        Ok(Some(data)) => Arrival::Block { cid, data },
                        // it came with a stream
                        Ok(None) => return,
                        Err(_) => Arrival::Unavailable(cid),
                    };
                    let _ = arrivals.send(arrival).await;
                });
            }
            let unparked_at = self.next_unparking();
            let is_idle = fetches.is_empty();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(()) = fetches.next() => {}
                () = self.wanted.notified() => {}
                () = sleep_until(unparked_at.unwrap_or_else(Instant::now)), if unparked_at.is_some() => self.unpark(),
                () = sleep(self.limits.ahead), if is_idle && !self.lock().ahead.is_empty() => self.lock().forget_ahead(),
            }
        }
    }

    fn on_done(&self, cid: &Cid, announced_by: Option<PeerId>) {
        let mut state = self.lock();
        state.asked.remove(cid);
        state.queue.on_done(announced_by);
    }

    fn next_unparking(&self) -> Option<Instant> {
        self.lock().parked.values().map(|(_, since)| *since + self.limits.grace).min()
    }

    /// Wants that no stream has brought go the usual way.
    fn unpark(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        let due: Vec<Cid> = state
            .parked
            .iter()
            .filter(|(_, (_, since))| *since + self.limits.grace <= now)
            .map(|(cid, _)| *cid)
            .collect();
        for cid in due {
            if let Some((want, _)) = state.parked.remove(&cid) {
                state.queue.push(want);
            }
        }
    }

    /// The block of a node, unless a stream has brought it to the worker already.
    async fn fetch(
        &self,
        want: Want,
        exchange: &Arc<dyn Exchange>,
        known: &Arc<dyn Known>,
        arrivals: &mpsc::Sender<Arrival>,
    ) -> Option<Vec<u8>> {
        if let Some(data) = self.take_ahead(&want.cid) {
            return Some(data);
        }
        for peer in exchange.streamers(&want.likely).into_iter().take(MAX_STREAM_ATTEMPTS) {
            let streaming = Streaming::begin(self);
            match streaming.run(&want, peer, exchange, known, arrivals).await {
                Ok(true) => return None,
                Ok(false) => debug!(target: "crdt", %peer, cid = %want.cid, "peer does not have the node"),
                Err(cause) => debug!(target: "crdt", %peer, cid = %want.cid, "no stream of nodes: {cause}"),
            }
        }
        loop {
            match exchange.block(want.cid, &want.likely).await {
                Ok(data) => return Some(data),
                // the network is stopping, or cannot take the request now: the time limit is the caller's
                Err(cause) => debug!(target: "crdt", cid = %want.cid, "cannot fetch a block: {cause}"),
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream of nodes under way; when it ends, in whatever manner, nobody waits for it any longer.
struct Streaming<'a> {
    fetcher: &'a Fetcher,
}

impl<'a> Streaming<'a> {
    fn begin(fetcher: &'a Fetcher) -> Self {
        let mut state = fetcher.lock();
        if state.n_streams == 0 {
            // what earlier streams brought was not what was wanted next
            state.forget_ahead();
        }
        state.n_streams += 1;
        drop(state);
        Self { fetcher }
    }

    /// Whether the wanted node came.
    async fn run(
        self,
        want: &Want,
        peer: PeerId,
        exchange: &Arc<dyn Exchange>,
        known: &Arc<dyn Known>,
        arrivals: &mpsc::Sender<Arrival>,
    ) -> Result<bool, String> {
        let patience = self.fetcher.limits.stream;
        let max_bytes = self.fetcher.lock().stream_bytes;
        let request = Request { want: want.cid, have: known.have(), max_bytes };
        let late = |_| format!("silent for {patience:?}");
        let mut nodes = timeout(patience, exchange.stream(peer, request)).await.map_err(late)??;
        let (mut has_come, mut n_known, mut new_bytes) = (false, 0, 0);
        loop {
            let data = match timeout(patience, nodes.next()).await {
                Ok(Ok(Some(data))) => data,
                Ok(Ok(None)) => break,
                // what came so far counts
                Ok(Err(_)) | Err(_) if has_come => break,
                Ok(Err(cause)) => return Err(cause),
                Err(elapsed) => return Err(late(elapsed)),
            };
            let cid = node_cid(&data);
            let size = data.len() as u64;
            if !has_come {
                if cid != want.cid {
                    return Err(format!("sent {cid} instead"));
                }
                has_come = true;
                if arrivals.send(Arrival::Block { cid, data }).await.is_err() {
                    break;
                }
            } else if known.is_processed(&cid) {
                n_known += 1;
                if n_known >= MAX_KNOWN_IN_A_ROW {
                    break;
                }
                continue;
            } else if !self.put(cid, data, arrivals).await {
                break;
            }
            n_known = 0;
            new_bytes += size;
        }
        self.fetcher.lock().on_streamed(max_bytes, new_bytes);
        Ok(has_come)
    }

    /// Hands a node to the worker if that waits for it, or keeps it. False when there is no room for long.
    async fn put(&self, cid: Cid, data: Vec<u8>, arrivals: &mpsc::Sender<Arrival>) -> bool {
        let data = match self.fetcher.keep(cid, data) {
            Keep::Kept => return true,
            Keep::Wanted(data) => return arrivals.send(Arrival::Block { cid, data }).await.is_ok(),
            Keep::NoRoom(data) => data,
        };
        let deadline = Instant::now() + self.fetcher.limits.stream;
        let mut data = data;
        loop {
            tokio::select! {
                () = self.fetcher.taken.notified() => {}
                () = sleep_until(deadline) => return false,
            }
            match self.fetcher.keep(cid, data) {
                Keep::Kept => return true,
                Keep::Wanted(data) => return arrivals.send(Arrival::Block { cid, data }).await.is_ok(),
                Keep::NoRoom(back) => data = back,
            }
        }
    }
}

enum Keep {
    Kept,
    /// The worker waits for it.
    Wanted(Vec<u8>),
    NoRoom(Vec<u8>),
}

impl Fetcher {
    fn keep(&self, cid: Cid, data: Vec<u8>) -> Keep {
        let mut state = self.lock();
        if state.parked.remove(&cid).is_some() {
            state.asked.remove(&cid);
            return Keep::Wanted(data);
        }
        if state.ahead_bytes + data.len() > MAX_AHEAD_BYTES {
            return Keep::NoRoom(data);
        }
        state.ahead_bytes += data.len();
        if let Some(old) = state.ahead.insert(cid, data) {
            state.ahead_bytes -= old.len();
        }
        Keep::Kept
    }
}

impl Drop for Streaming<'_> {
    fn drop(&mut self) {
        let mut state = self.fetcher.lock();
        state.n_streams -= 1;
        if state.n_streams == 0 {
            let parked: Vec<Cid> = state.parked.keys().copied().collect();
            for cid in parked {
                if let Some((want, _)) = state.parked.remove(&cid) {
                    state.queue.push(want);
                }
            }
            self.fetcher.wanted.notify_one();
        }
    }
}
