//! The agreed pinset as a CRDT: every peer writes its own, the Merkle DAGs merge.
//!
//! ```text
//!  log_pin ─┐                     ┌─▶ events (tracker)
//!  log_pin ─┼─▶ worker ─▶ core ───┤
//!  log_pin ─┘   ▲  ▲  │           ├─▶ heads ─▶ announcer ─▶ gossip
//!               │  │  │           └─▶ nodes to fetch ─▶ fetcher ─▶ bitswap, streams of nodes
//!  gossip ─▶ inbox │  └─ one transaction, one fsync for all that wait
//!                  └───── nodes that have come
//! ```
//!
//! [`core`] decides, the worker writes; the [`Pinset`] reads the store beside it. Invariants:
//! - A head is announced only when its node is on disk, where those who ask for it get it.
//! - What others announce is never dropped for coming too fast, and never makes a local write wait longer than a
//!   round of the worker.
//! - An acknowledged write is on disk; without batching it is also listed. With batching it is in the journal until
//!   its batch becomes a node, and a restart goes on with it.
//! - Events are sent in the order of the writes, after they are durable and before they are acknowledged.
//! - Without batching, a write that waits alone is a node of its own, as in the reference; writes that wait for the
//!   same transaction share one. A chain of nodes is what costs others time: an original takes 20 ms for each.

mod announce;
pub mod core;
mod fetch;
mod inbox;
mod nodes;
pub mod offline;
mod replicate;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod together;
mod trust;
mod unheard;
mod view;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster_compat::config;
use cluster_compat::types::{Cid, PeerId, Pin};
use md5::{Digest, Md5};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{error, info};

use self::announce::Announcer;
use self::fetch::{Arrival, Fetcher};
use self::inbox::Inbox;
use self::nodes::Stored;
use self::replicate::{Recent, Replication};
use self::trust::Trust;
use self::unheard::Unheard;
pub use self::view::SetReads;
use self::worker::{Batching, Cmd, OnStored, SHUTTING_DOWN, Worker, WorkerArgs};
use super::{Consensus, Error, PinsetEvent};
use crate::net::Network;
use crate::state::Pinset;
use crate::store::{self, Db};
use crate::task::Tasks;
use crate::wire::{key, pin_pb};

/// Fetched nodes that wait for the worker, of up to 2 MiB each; more make the fetches wait.
const WAITING_NODES: usize = 32;

/// Writes that may wait for the worker; more make their callers wait. Filled while a group is written.
const WAITING_WRITES: usize = 1024;

/// Longest wait for the last writes when stopping.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// consensus/crdt/consensus.go: a batch queue that is full.
const QUEUE_FULL: &str = "error batching item: batching max_queue_size reached. Too many operations are waiting to be \
                          batched. Try increasing the max_queue_size or adjusting the batching options";

/// consensus/crdt/consensus.go: removing a peer.
const NO_REMOVAL: &str = "crdt consensus component cannot remove peers";

/// What a CRDT is started with.
pub struct CrdtArgs {
    /// The `crdt` section.
    pub config: config::Crdt,
    /// This peer.
    pub peer: PeerId,
    /// Its database.
    pub db: Db,
    /// Where heads are told and heard; `None` offline and in tests.
    pub network: Option<Network>,
    /// The peers with a live ping.
    pub members: Arc<dyn Fn() -> Vec<PeerId> + Send + Sync>,
    /// Where changes of the pinset are told.
    pub events: mpsc::Sender<PinsetEvent>,
    /// The owner of its tasks.
    pub tasks: Tasks,
    /// Peers to trust besides those of the configuration.
    pub trusted: Vec<PeerId>,
}

/// The CRDT of a running peer.
pub struct Crdt {
    db: Db,
    peer: PeerId,
    commands: mpsc::Sender<Cmd>,
    is_batching: bool,
    heads: watch::Receiver<Vec<Cid>>,
    members: Arc<dyn Fn() -> Vec<PeerId> + Send + Sync>,
    trust: Arc<Trust>,
    unheard: Arc<Unheard>,
    /// How many others listen to the cluster's topic.
    listeners: watch::Receiver<usize>,
    stopped: watch::Receiver<bool>,
}

/// Name of the gossip topic of a cluster: the base58 of an MD5 multihash.
pub fn topic(cluster_name: &str) -> String {
    let mut multihash = vec![0xd5, 0x01, 0x10];
    multihash.extend_from_slice(&Md5::digest(cluster_name));
    multibase::Base::Base58Btc.encode(multihash)
}

impl Crdt {
    /// Reads the state and starts its worker.
    pub fn start(args: CrdtArgs) -> Result<Arc<Self>, Error> {
        let CrdtArgs { config, peer, db, network, members, events, tasks, trusted } = args;
        let batching = batching(&config);
        let capacity = match batching {
            Some(_) => usize::try_from(config.batching.max_queue_size).unwrap_or(1).max(1),
            None => WAITING_WRITES,
        };
        let (commands, receiver) = mpsc::channel(capacity);
        let (arrivals_tx, arrivals) = mpsc::channel(WAITING_NODES);
        let (inbox, repair) = (Arc::new(Inbox::default()), Arc::new(Notify::new()));
        let unheard = Arc::new(Unheard::default());
        let (fetcher, recent) = (Arc::new(Fetcher::default()), Arc::new(Recent::new(db.clone())));
        let worker = Worker::new(WorkerArgs {
            kv: Arc::new(db.clone()),
            commands: receiver,
            events,
            batching,
            inbox: Arc::clone(&inbox),
            arrivals,
            repair: Arc::clone(&repair),
            replication: Replication::new(Arc::clone(&fetcher), Arc::clone(&recent)),
            unheard: Arc::clone(&unheard),
            on_stored: on_stored(network.clone()),
        })?;
        let (heads, n_made, due) = (worker.heads(), worker.n_made(), worker.due());
        info!(
            target: "crdt",
            "crdt Datastore created. Number of heads: {}. Current max-height: {}. Dirty: {}",
            worker.state().heads().list().len(),
            worker.state().heads().max_height(),
            store::kv::read(&db, core::is_dirty)?,
        );
        if config.trust_all {
            info!(target: "crdt", "'trust all' mode enabled. Any peer in the cluster can modify the pinset.");
        }
        let (stopped_tx, stopped) = watch::channel(false);
        spawn_worker(&tasks, worker, stopped_tx);
        spawn_stopper(&tasks, commands.clone());
        if let Some(batching) = batching {
            let (size, age) = (batching.max_size, config.batching.max_batch_age);
            info!(target: "crdt", "'crdt batching' enabled: {size} items / {age}");
            tasks.spawn("crdt batch age", watch_age(due, commands.clone()));
        }
        let trust =
            Arc::new(Trust::new(peer, config.trust_all, config.trusted_peers.iter().copied().chain(trusted)));
        let mut listeners = watch::channel(0).1;
        if let Some(network) = network {
            let stored = Stored { db: db.clone(), unheard: Arc::clone(&unheard) };
            spawn_fetcher(&tasks, &network, stored, fetcher, recent, arrivals_tx)?;
            spawn_repair(&tasks, config.repair_interval.to_std(), Arc::clone(&repair));
            let topic = topic(&config.cluster_name);
            let gossip = join_topic(&network, &topic, Arc::clone(&trust))?;
            listeners = network.subscribers(&topic).unwrap_or(listeners);
            let announcer = Announcer {
                publish: Arc::new(move |data| network.publish(&topic, data)),
                heads: heads.clone(),
                n_made,
                gossip,
                inbox,
                unheard: Arc::clone(&unheard),
                repair,
                listeners: listeners.clone(),
                rebroadcast_interval: config.rebroadcast_interval.to_std(),
            };
            tasks.spawn("crdt announcements", announcer.run(tasks.token()));
        }
        Ok(Arc::new(Self {
            db,
            peer,
            commands,
            is_batching: batching.is_some(),
            heads,
            members,
            trust,
            unheard,
            listeners,
            stopped,
        }))
    }

    /// The current heads, sorted by their bytes.
    pub fn heads(&self) -> Vec<Cid> {
        self.heads.borrow().clone()
    }

    /// From now on, until the process ends, a peer's writes count.
    pub fn trust(&self, peer: PeerId) {
        self.trust.add(peer);
    }

    /// Takes back [`Crdt::trust`].
    pub fn distrust(&self, peer: &PeerId) {
        self.trust.remove(peer);
    }

    async fn write(&self, key: String, value: Option<Vec<u8>>) -> Result<(), Error> {
        let late = || Error::Message(SHUTTING_DOWN.into());
        let (respond_to, answer) = oneshot::channel();
        let command = Cmd::Write { key, value, respond_to };
        if self.is_batching {
            self.commands.try_send(command).map_err(|refused| match refused {
                mpsc::error::TrySendError::Full(_) => {
                    error!(target: "crdt", "{QUEUE_FULL}");
                    Error::Message(QUEUE_FULL.into())
                }
                mpsc::error::TrySendError::Closed(_) => late(),
            })?;
        } else {
            self.commands.send(command).await.map_err(|_| late())?;
        }
        answer.await.unwrap_or_else(|_| Err(late()))
    }
}

#[async_trait]
impl Consensus for Crdt {
    async fn log_pin(&self, pin: Pin) -> Result<(), Error> {
        self.write(key::of_cid(&pin.cid), Some(pin_pb::encode(&pin))).await
    }

    async fn log_unpin(&self, pin: Pin) -> Result<(), Error> {
        self.write(key::of_cid(&pin.cid), None).await
    }

    fn pinset(&self) -> Pinset {
        Pinset::new(Arc::new(SetReads(self.db.clone())))
    }

    async fn peers(&self) -> Result<Vec<PeerId>, Error> {
        let mut peers = (self.members)();
        peers.push(self.peer);
        peers.sort_unstable_by_key(|peer| peer.to_bytes());
        peers.dedup();
        Ok(peers)
    }

    fn is_trusted(&self, peer: &PeerId) -> bool {
        self.trust.is_trusted(peer)
    }

    /// Members are the peers that ping: nothing to do.
    async fn add_peer(&self, _peer: PeerId) -> Result<(), Error> {
        Ok(())
    }

    async fn rm_peer(&self, _peer: PeerId) -> Result<(), Error> {
        Err(Error::Message(NO_REMOVAL.into()))
    }

    async fn stop(&self) -> Result<(), Error> {
        info!(target: "crdt", "stopping Consensus component");
        // a worker that has ended has already flushed
        let _ = self.commands.send(Cmd::Stop).await;
        let mut stopped = self.stopped.clone();
        if tokio::time::timeout(STOP_TIMEOUT, stopped.wait_for(|stopped| *stopped)).await.is_err() {
            return Err(Error::Message(format!("the last writes took longer than {STOP_TIMEOUT:?}")));
        }
        // what nobody else has is gone with this peer until it comes back
        self.unheard.wait(self.listeners.clone()).await;
        Ok(())
    }
}

fn batching(config: &config::Crdt) -> Option<Batching> {
    let max_size = usize::try_from(config.batching.max_batch_size).ok()?;
    let max_age = config.batching.max_batch_age.to_std();
    config.batching.is_enabled().then_some(Batching { max_size, max_age })
}

/// The worker blocks, so it has a thread; its task ends with it, and panics as it does.
fn spawn_worker(tasks: &Tasks, worker: Worker, stopped: watch::Sender<bool>) {
    tasks.spawn("crdt worker", async move {
        let runtime = Handle::current();
        let ended = tokio::task::spawn_blocking(move || worker.run(&runtime)).await;
        let _ = stopped.send(true);
        if let Err(failure) = ended
            && failure.is_panic()
        {
            std::panic::resume_unwind(failure.into_panic());
        }
    });
}

/// Where the tasks are stopped without [`Consensus::stop`], the worker flushes all the same.
fn spawn_stopper(tasks: &Tasks, commands: mpsc::Sender<Cmd>) {
    let stop = tasks.token();
    tasks.spawn("crdt stop", async move {
        tokio::select! {
            () = commands.closed() => {}
            () = stop.cancelled() => {
                let _ = commands.send(Cmd::Stop).await;
            }
        }
    });
}

/// Joins the cluster's topic. Messages of untrusted peers are dropped, and not passed on.
fn join_topic(
    network: &Network,
    topic: &str,
    trust: Arc<Trust>,
) -> Result<mpsc::Receiver<crate::net::Message>, Error> {
    let gossip = network.subscribe(topic, Arc::new(move |peer| trust.accepts_update_of(peer)));
    gossip.map_err(|cause| Error::Message(cause.to_string()))
}

/// Others get our nodes, and we theirs.
fn spawn_fetcher(
    tasks: &Tasks,
    network: &Network,
    stored: Stored,
    fetcher: Arc<Fetcher>,
    recent: Arc<Recent>,
    arrivals: mpsc::Sender<Arrival>,
) -> Result<(), Error> {
    network.serve_blocks(Arc::new(stored.clone()));
    nodes::serve(network, stored, tasks).map_err(|cause| Error::Message(cause.to_string()))?;
    let exchange = Arc::new(network.clone());
    tasks.spawn("crdt fetcher", fetcher.run(exchange, recent, arrivals, tasks.token()));
    Ok(())
}

/// At the start and every interval, what could not be had is tried again; 0 is never, as in the reference.
fn spawn_repair(tasks: &Tasks, interval: Duration, repair: Arc<Notify>) {
    repair.notify_one();
    if !interval.is_zero() {
        tasks.every("crdt repair", interval, false, move || {
            repair.notify_one();
            std::future::ready(())
        });
    }
}

/// What a worker does with nodes it has stored: peers that wait for one get it.
fn on_stored(network: Option<Network>) -> OnStored {
    match network {
        Some(network) => Arc::new(move |cids| network.blocks_stored(cids)),
        None => Arc::new(|_| {}),
    }
}

/// Tells the worker when its batch is old enough.
async fn watch_age(mut due: watch::Receiver<Option<Instant>>, commands: mpsc::Sender<Cmd>) {
    loop {
        let at = *due.borrow_and_update();
        let is_due = async {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = due.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = is_due => {
                if let Some(at) = at
                    && commands.send(Cmd::BatchAge(at)).await.is_err()
                {
                    return;
                }
                if due.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}
