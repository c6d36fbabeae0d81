//! Blocks that are not here: bitswap sessions, and a search for providers when no connected peer has them.
//!
//! ```text
//!   Session::block ─ room (bytes in flight) ─▶ bitswap, those who had the last blocks first ─▶ writer ─▶ on disk
//!                        │ nobody has it, or nothing for a while
//!                        └─▶ one search at a time per session: DHT ─▶ dial providers ─▶ bitswap asks them by itself
//! ```
//!
//! Invariants: a block is returned when its bytes gave its CID and it is stored; what is in flight is bounded by the
//! bytes it is expected to have, so that small blocks come by thousands and large ones by dozens; dropping a future
//! takes back its want. There is no time limit here: the caller has one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster_compat::types::{Block, Cid, PeerId};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Error;
use super::source::Remote;
use super::swarm::Swarm;
use crate::task::Tasks;

/// Kibibytes that wanted blocks are expected to take, all sessions together.
const MAX_IN_FLIGHT_KIB: usize = 64 << 10;

/// What a block is expected to take before a session has seen any: the chunk of a file.
const FIRST_GUESS_KIB: u32 = 256;

/// The least a block is expected to take: what a want costs here and there.
const LEAST_KIB: u32 = 8;

/// The most, the largest block that bitswap carries.
const MOST_KIB: u32 = 2048;

/// Silence of a session after which the DHTs are asked. (Go: boxo `ProviderSearchDelay`)
const SEARCH_AFTER: Duration = Duration::from_secs(1);

/// Pauses between two searches of one session.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// Searches of all sessions at the same time.
const MAX_SEARCHES: usize = 16;

/// Providers dialled at the same time by one search.
const MAX_DIALS: usize = 4;

/// Providers that one search brings; more add little.
const ENOUGH_PROVIDERS: usize = 10;

/// Peers a session remembers: who had the last blocks.
const MAX_LIKELY: usize = 8;

/// Blocks that wait to be written.
const MAX_UNWRITTEN: usize = 1024;

/// Blocks, and bytes of them, written in one go.
const MAX_BATCH: usize = 512;
const MAX_BATCH_BYTES: usize = 8 << 20;

/// Batches being written: while one is synced the next goes in.
const MAX_WRITES: usize = 2;

/// Stores blocks; they are on disk when it returns. Called on a blocking thread.
pub(super) type Keep = Arc<dyn Fn(&[Block]) -> Result<(), Error> + Send + Sync>;

/// Gets blocks from others. Clones share it.
#[derive(Clone)]
pub(super) struct Fetcher {
    inner: Arc<Inner>,
}

struct Inner {
    swarm: Swarm,
    room: Semaphore,
    searches: Semaphore,
    writes: mpsc::Sender<Write>,
}

struct Write {
    block: Block,
    respond_to: oneshot::Sender<Result<(), Error>>,
}

/// Blocks of one piece of work, most likely of one DAG. Clones share what it has learned.
#[derive(Clone)]
pub(super) struct Session {
    inner: Arc<Inner>,
    state: Arc<State>,
}

struct State {
    /// Who had the last blocks, the last first. Taken for a moment by each block.
    likely: Mutex<VecDeque<PeerId>>,
    /// When the last block came, or the session began. As `likely`.
    active_at: Mutex<Instant>,
    expected_kib: AtomicU32,
    turn: Semaphore,
}

impl Fetcher {
    /// A fetcher that stores what it gets by `keep`.
    pub(super) fn start(swarm: Swarm, keep: Keep, tasks: &Tasks) -> Self {
        let (writes, inbox) = mpsc::channel(MAX_UNWRITTEN);
        let writer = Writer { swarm: swarm.clone(), keep, inbox };
        tasks.spawn("fetched blocks", writer.run(tasks.token()));
        let (room, searches) = (Semaphore::new(MAX_IN_FLIGHT_KIB), Semaphore::new(MAX_SEARCHES));
        Self { inner: Arc::new(Inner { swarm, room, searches, writes }) }
    }

    /// A new piece of work.
    pub(super) fn session(&self) -> Session {
        let state = State {
            likely: Mutex::default(),
            active_at: Mutex::new(Instant::now()),
            expected_kib: AtomicU32::new(FIRST_GUESS_KIB),
            turn: Semaphore::new(1),
        };
        Session { inner: Arc::clone(&self.inner), state: Arc::new(state) }
    }
}

impl State {
    fn likely(&self) -> MutexGuard<'_, VecDeque<PeerId>> {
        self.likely.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn active_at(&self) -> MutexGuard<'_, Instant> {
        self.active_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block came.
    fn learn(&self, from: Option<PeerId>, n_bytes: usize) {
        *self.active_at() = Instant::now();
        let kib = u32::try_from(n_bytes.div_ceil(1024)).unwrap_or(MOST_KIB);
        let old = self.expected_kib.load(Ordering::Relaxed);
        // up at once, down slowly: large blocks must not come by thousands
        let new = if kib > old { kib } else { old - (old - kib).div_ceil(8) };
        self.expected_kib.store(new.clamp(LEAST_KIB, MOST_KIB), Ordering::Relaxed);
        let Some(from) = from else { return };
        let mut likely = self.likely();
        if likely.front() != Some(&from) {
            likely.retain(|peer| *peer != from);
            likely.push_front(from);
            likely.truncate(MAX_LIKELY);
        }
    }
}

#[async_trait::async_trait]
impl Remote for Session {
    async fn block(&self, cid: Cid) -> Result<Bytes, Error> {
        let expected = self.state.expected_kib.load(Ordering::Relaxed);
        let Ok(_room) = self.inner.room.acquire_many(expected).await else { return Err(Error::Stopped) };
        let missing = Arc::new(Notify::new());
        let likely: Vec<PeerId> = self.state.likely().iter().copied().collect();
        let fetched = tokio::select! {
            biased;
            fetched = self.inner.swarm.fetch(cid, &likely, Arc::clone(&missing)) => fetched,
            () = self.search(&cid, &missing) => return Err(Error::Stopped),
        };
        let fetched = fetched.map_err(|e| Error::message(e.to_string()))?;
        self.state.learn(fetched.from, fetched.block.len());
        // the CID itself held it
        if fetched.from.is_some() {
            let (respond_to, written) = oneshot::channel();
            let block = Block { cid, data: fetched.block.clone(), is_spare: false };
            let write = Write { block, respond_to };
            self.inner.writes.send(write).await.map_err(|_| Error::Stopped)?;
            written.await.map_err(|_| Error::Stopped)??;
        }
        Ok(fetched.block)
    }
}

impl Session {
    /// Looks for peers that have a block, again and again, whenever the session gets nowhere. Ends when the swarm does.
    async fn search(&self, cid: &Cid, missing: &Notify) {
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::select! {
                () = missing.notified() => {}
                () = tokio::time::sleep(SEARCH_AFTER) => {}
            }
            let Ok(_turn) = self.state.turn.acquire().await else { return };
            // what was found for another block may have this one too
            let idle = self.state.active_at().elapsed();
            if idle < SEARCH_AFTER {
                tokio::time::sleep(SEARCH_AFTER - idle).await;
                continue;
            }
            let Ok(searching) = self.inner.searches.acquire().await else { return };
            if self.find(cid).await.is_err() {
                return;
            }
            drop(searching);
            // those that were reached are asked meanwhile
            tokio::time::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    /// Connects to providers of a block as they are found.
    async fn find(&self, cid: &Cid) -> Result<(), Error> {
        let swarm = &self.inner.swarm;
        let mut found = swarm.find_providers(cid).await.map_err(|_| Error::Stopped)?;
        let (mut dials, mut n_reached, mut is_over) = (FuturesUnordered::new(), 0, false);
        while n_reached < ENOUGH_PROVIDERS && !(is_over && dials.is_empty()) {
            tokio::select! {
                contact = found.recv(), if !is_over && dials.len() < MAX_DIALS => match contact {
                    Some(contact) if contact.peer == swarm.local_peer() => {}
                    Some(contact) if swarm.is_connected(&contact.peer) => n_reached += 1,
                    Some(contact) => dials.push(async move { (contact.peer, swarm.dial(&contact).await) }),
                    None => is_over = true,
                },
                Some((peer, dialled)) = dials.next() => match dialled {
                    Ok(()) => n_reached += 1,
                    Err(e) => debug!(target: "bitswap", %peer, %cid, "provider not reached: {e}"),
                },
            }
        }
        debug!(target: "bitswap", %cid, n_reached, "searched for providers");
        Ok(())
    }
}

/// Writes what was fetched, much at a time.
struct Writer {
    swarm: Swarm,
    keep: Keep,
    inbox: mpsc::Receiver<Write>,
}

impl Writer {
    async fn run(mut self, stop: CancellationToken) {
        let mut writing = FuturesUnordered::new();
        loop {
            let batch = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(()) = writing.next() => continue,
                first = self.inbox.recv(), if writing.len() < MAX_WRITES => match first {
                    Some(first) => self.batch(first),
                    None => return,
                },
            };
            writing.push(write(self.swarm.clone(), Arc::clone(&self.keep), batch));
        }
    }

    /// A write and what waits behind it.
    fn batch(&mut self, first: Write) -> Vec<Write> {
        let mut n_bytes = first.block.data.len();
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH
            && n_bytes < MAX_BATCH_BYTES
            && let Ok(write) = self.inbox.try_recv()
        {
            n_bytes += write.block.data.len();
            batch.push(write);
        }
        batch
    }
}

async fn write(swarm: Swarm, keep: Keep, batch: Vec<Write>) {
    let (blocks, askers): (Vec<Block>, Vec<_>) =
        batch.into_iter().map(|write| (write.block, write.respond_to)).unzip();
    let cids: Vec<Cid> = blocks.iter().map(|block| block.cid).collect();
    let kept = tokio::task::spawn_blocking(move || keep(&blocks)).await.unwrap_or(Err(Error::Stopped));
    if kept.is_ok() {
        swarm.stored(&cids);
    }
    for respond_to in askers {
        // whoever asked may have given up
        let _ = respond_to.send(kept.clone());
    }
}
