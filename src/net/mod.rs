//! The swarm: every connection to other peers (spec: wire 1, 2).
//!
//! ```text
//!   rooms ── Network (handle) ──Cmd──▶ Worker: one select! over commands, swarm events and a slow tick
//!                │                        │ transport: TCP, WebSocket, QUIC, secret, noise, TLS, yamux
//!                └── Shared (read-only ◀──┤ behaviour: limits, identify, ping, gossip, DHTs, reachability, raw streams
//!                    answers, no await)   └─▶ subscriptions: one bounded channel per topic
//! ```
//!
//! It has two users, and [`plan`] says what each gets. The cluster's swarm ([`Network::start`]) has a secret, gossip and
//! a peerstore, and its DHTs find addresses of peers. The open one of the embedded node ([`Network::start_open`]) has
//! none of these; it listens on QUIC too, and its DHTs find and announce providers of content (`content`).
//!
//! [`host`] is the same transport and the same streams without a swarm around them, for HTTP over libp2p.
//! `addrs`, `peerstore`, `bootstrap`, `dht` and `limits` decide and do nothing: no sockets, no clock.
//!
//! Invariants: a queue to or from the swarm is bounded; a topic nobody else subscribes to costs nothing to publish
//! on (no signature, no command); no lock of [`Shared`] is held over an await; what a peer sends is never delivered
//! before the validator of its topic accepts the signer. Not here: what the messages mean.

mod addrs;
mod bandwidth;
mod behaviour;
mod bitswap;
mod bootstrap;
mod contacts;
mod content;
mod dht;
mod dnsaddr;
mod figures;
mod gossip;
pub mod host;
mod limits;
mod mdns;
mod observed;
mod peerstore;
mod plan;
mod strangers;
mod streams;
#[cfg(test)]
mod testing;
mod transport;
mod worker;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use cluster_compat::config;
use cluster_compat::types::{Bandwidths, Cid, Multiaddr, PeerId};
use libp2p::gossipsub::IdentTopic;
use libp2p::identity::Keypair;
use libp2p::kad::RecordKey as Key;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, warn};

use self::bandwidth::Traffic;
use self::bitswap::Bitswap;
pub use self::bitswap::{Blocks, Digest, Fetched, Stat};
use self::contacts::Contacts;
pub use self::contacts::{Connection, Contact, Identity};
pub use self::dnsaddr::resolve;
pub use self::figures::{Figures, Limits, Opened};
use self::mdns::Mdns;
use self::peerstore::Peerstore;
pub use self::plan::OpenArgs;
use self::plan::{Known, Plan};
use self::streams::Streams;
pub use self::streams::{PeerEvent, Stream};
use self::worker::Worker;
use crate::task::Tasks;

/// Commands that wait for the swarm; filled by bursts of announcements.
const MAX_COMMANDS: usize = 1024;

/// Messages of one topic that wait for their reader; a reader that is slower loses messages, and the log says so.
const MAX_MESSAGES: usize = 1024;

/// Why the network cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Someone else listens there.
    #[error("listen address {addr} is already in use")]
    AddressInUse {
        /// As configured.
        addr: Multiaddr,
    },
    /// The system refuses to listen there.
    #[error("cannot listen on {addr}: {reason}")]
    Listen {
        /// As configured.
        addr: Multiaddr,
        /// Why.
        reason: String,
    },
    /// A transport that we do not serve.
    #[error(
        "listen address {addr} is not supported: only /ip4 and /ip6 with /tcp, with /tcp and /ws, and for the embedded node with /udp and /quic-v1 are"
    )]
    UnsupportedListenAddress {
        /// As configured.
        addr: Multiaddr,
    },
    /// Nothing is left to listen on.
    #[error("none of the listen addresses can be used: {addrs}")]
    NoListenAddress {
        /// As configured, comma separated.
        addrs: String,
    },
    /// The system's resolver configuration cannot be read.
    #[error("cannot set up name resolution: {source}")]
    Dns {
        /// Why.
        source: io::Error,
    },
    /// The identity cannot be used for encryption.
    #[error("cannot use the identity's key: {reason}")]
    Keypair {
        /// Why.
        reason: String,
    },
    /// `cluster.pubsub` does not fit together.
    #[error("cluster.pubsub: {reason}")]
    GossipSettings {
        /// Names the value.
        reason: String,
    },
    /// An address of another peer must say which peer.
    #[error("invalid p2p multiaddr: {addr} does not end in /p2p/<peer id>")]
    NoPeerId {
        /// As given.
        addr: Multiaddr,
    },
    /// A name stands for no peer.
    #[error("{addr}: no resolved addresses")]
    Unresolved {
        /// As given.
        addr: Multiaddr,
    },
    /// A peer could not be reached.
    #[error("failed to dial {peer}: {reason}")]
    Dial {
        /// Whom.
        peer: PeerId,
        /// Why.
        reason: String,
    },
    /// Streams go to others.
    #[error("cannot open a stream to ourselves")]
    OpenToSelf,
    /// A connected peer gives us no stream.
    #[error("cannot open a stream to {peer}: {reason}")]
    Open {
        /// Whom.
        peer: PeerId,
        /// Which protocols, and why not.
        reason: String,
    },
    /// A peer says nothing to a stream proposed to it.
    #[error("cannot open a stream to {peer}: {protocols}: no answer in {limit:?}")]
    OpenTimeout {
        /// Whom.
        peer: PeerId,
        /// Those we proposed, comma separated.
        protocols: String,
        /// For how long.
        limit: Duration,
    },
    /// A peer that knows none of the protocols.
    #[error("{peer} does not speak {protocols}")]
    Unsupported {
        /// Whom.
        peer: PeerId,
        /// Those we proposed, comma separated.
        protocols: String,
    },
    /// A protocol has one acceptor.
    #[error("streams for {protocol} are accepted already")]
    AlreadyAccepted {
        /// Its id.
        protocol: &'static str,
    },
    /// A block whose bytes we could not check.
    #[error(
        "cannot fetch {cid}: its hash function 0x{code:x}, or the length of its digest, is not supported"
    )]
    Unverifiable {
        /// Which block.
        cid: Cid,
        /// Its multihash code.
        code: u64,
    },
    /// A topic has one reader.
    #[error("topic {topic} is subscribed already")]
    AlreadySubscribed {
        /// Its name.
        topic: String,
    },
    /// Nobody to ask or to tell about content.
    #[error("failed to find any peer in table")]
    NoDhtPeers,
    /// No peer of the DHTs took the announcement.
    #[error("no peer of the DHT took the record")]
    NotProvided,
    /// The swarm has more to do than it can.
    #[error("the network has {MAX_COMMANDS} requests waiting")]
    Busy,
    /// The peer is shutting down.
    #[error("the network has stopped")]
    Stopped,
}

/// Whether the signer of a message may write to a topic. Called for every message on the swarm's loop: quick, and
/// free of locks that are held for long.
pub type Validator = Arc<dyn Fn(&PeerId) -> bool + Send + Sync>;

/// A message of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who signed it.
    /// Who signed it.
    pub source: PeerId,
    /// The connected peer that passed it on; the signer itself, or somebody between.
    pub from: PeerId,
    /// What it says.
    pub data: Vec<u8>,
}

/// The swarm, from outside. Clones share it.
#[derive(Clone)]
pub struct Network {
    local_peer: PeerId,
    commands: mpsc::Sender<Cmd>,
    shared: Arc<Shared>,
}

/// What [`Network::start`] needs.
pub struct NetworkArgs<'a> {
    /// Who we are.
    pub keypair: Keypair,
    /// Key of the private network; `None` is an open one.
    pub secret: Option<[u8; 32]>,
    /// Addresses, gossip, limits, timeouts.
    pub config: &'a config::Cluster,
    /// The lines of the peerstore file, in their order.
    pub peerstore: Vec<Multiaddr>,
    /// Owner of the swarm's task.
    pub tasks: Tasks,
}

enum Cmd {
    Subscribe {
        topic: Arc<Topic>,
        validator: Validator,
        messages: mpsc::Sender<Message>,
    },
    Publish {
        topic: Arc<Topic>,
        data: Vec<u8>,
    },
    Bootstrap {
        wanted: usize,
        respond_to: oneshot::Sender<Vec<PeerId>>,
    },
    /// Discovery has seen a peer on the local network, or a name stands for it.
    Found {
        peer: PeerId,
        addrs: Vec<Multiaddr>,
    },
    Dial {
        peer: PeerId,
        respond_to: oneshot::Sender<Result<(), Error>>,
    },
    /// Ends the connections to a peer, or the one at an address; says how many there were.
    Disconnect {
        peer: PeerId,
        addr: Option<Multiaddr>,
        respond_to: oneshot::Sender<usize>,
    },
    /// A peer that misbehaves: its connections end, now and for a while.
    Shun {
        peer: PeerId,
    },
    /// Who has a block, by the key of its records.
    FindProviders {
        key: Key,
        found: mpsc::Sender<Contact>,
    },
    /// Puts a value into the DHTs.
    PutValue {
        key: Key,
        value: Vec<u8>,
        respond_to: oneshot::Sender<Result<(), Error>>,
    },
    /// The values of a key, as peers tell them.
    GetValues {
        key: Key,
        found: mpsc::Sender<Vec<u8>>,
    },
    /// Tells the DHTs that we have a block.
    Provide {
        key: Key,
        respond_to: oneshot::Sender<Result<(), Error>>,
    },
}

/// A topic we subscribe to.
struct Topic {
    ident: IdentTopic,
    /// Other peers that subscribe to it; set by the worker.
    subscribers: watch::Sender<usize>,
}

/// What the worker keeps ready for [`Network`] to read. Each lock is taken for a moment by either side, never over
/// an await and never two at once.
struct Shared {
    announced: RwLock<Vec<Multiaddr>>,
    /// Where the sockets are, announced or not.
    listening: RwLock<BTreeSet<Multiaddr>>,
    connected: RwLock<BTreeSet<PeerId>>,
    topics: RwLock<HashMap<String, Arc<Topic>>>,
    protected: Mutex<HashSet<PeerId>>,
    peerstore: Mutex<Peerstore>,
    traffic: Arc<Traffic>,
    streams: Arc<Streams>,
    bitswap: Bitswap,
    contacts: Contacts,
}

impl Shared {
    fn new(now: Instant, streams: Streams, bitswap: Bitswap) -> Self {
        Self {
            announced: RwLock::default(),
            listening: RwLock::default(),
            connected: RwLock::default(),
            topics: RwLock::default(),
            protected: Mutex::default(),
            peerstore: Mutex::default(),
            traffic: Arc::new(Traffic::new(now)),
            streams: Arc::new(streams),
            bitswap,
            contacts: Contacts::default(),
        }
    }

    fn peerstore(&self) -> MutexGuard<'_, Peerstore> {
        self.peerstore.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Network {
    /// The cluster's swarm. Listens, then dials known peers in the background. Returns when the addresses are known.
    pub async fn start(args: NetworkArgs<'_>) -> Result<Self, Error> {
        Self::run(Plan::of_cluster(args)).await
    }

    /// The embedded node's swarm, which any IPFS peer may join.
    pub async fn start_open(args: OpenArgs) -> Result<Self, Error> {
        Self::run(Plan::of_node(args)).await
    }

    async fn run(mut plan: Plan) -> Result<Self, Error> {
        let local_peer = plan.keypair.public().to_peer_id();
        let (commands, inbox) = mpsc::channel(MAX_COMMANDS);
        let streams = Streams::new(local_peer, plan.dial_timeout);
        let (bitswap, of_bitswap) = Bitswap::new(std::mem::take(&mut plan.bitswap));
        let shared = Arc::new(Shared::new(Instant::now(), streams, bitswap));
        let network = Self { local_peer, commands, shared };
        let mut nameless = Vec::new();
        for Known { addr, ttl, priority, origin } in &plan.known {
            match network.know(addr, *ttl, Some(*priority)) {
                Ok(_) => {}
                Err(Error::NoPeerId { addr }) if addrs::is_dns(&addr) => nameless.push(addr),
                // these lists are written by hand: one bad line must not stop the peer
                Err(e) => error!(target: "pstoremgr", "error importing {origin}: {e}"),
            }
        }
        let (discovery, stop, tasks) = (plan.discovery, plan.tasks.token(), plan.tasks.clone());
        let (dnsaddrs, nameless): (Vec<_>, Vec<_>) = nameless.into_iter().partition(addrs::is_dnsaddr);
        let mut worker = Worker::new(plan, nameless, inbox, Arc::clone(&network.shared))?;
        // before the first connection, which is told what we speak
        bitswap::start(&network, of_bitswap, &tasks)?;
        worker.listen().await?;
        if !dnsaddrs.is_empty() {
            let import = dnsaddr::import(dnsaddrs, network.commands.clone(), stop.clone());
            tasks.spawn("dnsaddr", import);
        }
        if let Some(service) = discovery {
            let shared = Arc::clone(&network.shared);
            let mdns = Mdns::new(service, local_peer, shared, network.commands.clone());
            tasks.spawn("mdns", mdns.run(stop.clone()));
        }
        tasks.spawn("network", worker.run(stop));
        Ok(network)
    }

    /// Our peer id.
    pub const fn local_peer(&self) -> PeerId {
        self.local_peer
    }

    /// Our announced addresses, without `/p2p`, as `addresses` of the reference's `id` shows them.
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        self.shared.announced.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Known addresses of `peers`, with `/p2p`, by priority: `cluster_peers_addresses` of `id`.
    pub fn addrs_of(&self, peers: &[PeerId]) -> Vec<Multiaddr> {
        self.shared.peerstore().full_addrs(peers, Instant::now())
    }

    /// Peers with a connection, by id.
    pub fn connected_peers(&self) -> Vec<PeerId> {
        self.shared.connected.read().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Remembers an address that ends in `/p2p/<id>` for good and names its peer. Our own is not remembered.
    pub fn add_addr(&self, addr: &Multiaddr) -> Result<PeerId, Error> {
        self.know(addr, None, None)
    }

    /// Spares the connections to `peers` when there are too many.
    pub fn protect(&self, peers: impl IntoIterator<Item = PeerId>) {
        self.shared.protected.lock().unwrap_or_else(PoisonError::into_inner).extend(peers);
    }

    /// The lines of the peerstore file: all known peers by priority.
    pub fn peerstore_lines(&self) -> Vec<String> {
        let now = Instant::now();
        let store = self.shared.peerstore();
        let peers = store.by_priority(now);
        store.full_addrs(&peers, now).iter().map(ToString::to_string).collect()
    }

    /// Connects to known peers, by priority, until `wanted` are connected or none is left; names those it reached.
    pub async fn bootstrap(&self, wanted: usize) -> Result<Vec<PeerId>, Error> {
        let (respond_to, answer) = oneshot::channel();
        self.ask(Cmd::Bootstrap { wanted, respond_to }, answer).await
    }

    /// Connects to a peer by its known addresses; at once if it is connected.
    pub async fn dial(&self, peer: PeerId) -> Result<(), Error> {
        let (respond_to, answer) = oneshot::channel();
        self.ask(Cmd::Dial { peer, respond_to }, answer).await?
    }

    /// Subscribes to a topic: messages of others whose signer `validator` accepts. Own messages do not come back.
    pub fn subscribe(&self, topic: &str, validator: Validator) -> Result<mpsc::Receiver<Message>, Error> {
        let mut topics = self.shared.topics.write().unwrap_or_else(PoisonError::into_inner);
        if topics.contains_key(topic) {
            return Err(Error::AlreadySubscribed { topic: topic.to_owned() });
        }
        let (messages, reader) = mpsc::channel(MAX_MESSAGES);
        let (subscribers, _) = watch::channel(0);
        let known = Arc::new(Topic { ident: IdentTopic::new(topic), subscribers });
        self.tell(Cmd::Subscribe { topic: Arc::clone(&known), validator, messages })?;
        topics.insert(topic.to_owned(), known);
        Ok(reader)
    }

    /// Sends a message to the peers of a subscribed topic. Without such peers it does nothing; it never waits, and a
    /// message that cannot be sent is logged.
    pub fn publish(&self, topic: &str, data: Vec<u8>) {
        let known = {
            let topics = self.shared.topics.read().unwrap_or_else(PoisonError::into_inner);
            topics.get(topic).cloned()
        };
        let Some(known) = known else {
            error!(target: "pubsub", topic, "not publishing on a topic without subscription");
            return;
        };
        if *known.subscribers.borrow() == 0 {
            return;
        }
        let n_bytes = data.len();
        if n_bytes > gossip::MAX_MESSAGE_BYTES - gossip::FRAME_BYTES {
            error!(target: "pubsub", topic, n_bytes, "not publishing a message that no peer takes in");
            return;
        }
        match self.tell(Cmd::Publish { topic: known, data }) {
            // whoever still publishes while the peer stops is not at fault
            Ok(()) | Err(Error::Stopped) => {}
            Err(e) => warn!(target: "pubsub", topic, "message not published: {e}"),
        }
    }

    /// How many other peers subscribe to a subscribed topic, and when that changes.
    pub fn subscribers(&self, topic: &str) -> Option<watch::Receiver<usize>> {
        let topics = self.shared.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.get(topic).map(|known| known.subscribers.subscribe())
    }

    /// Traffic by protocol since the start; rates since the last question.
    pub fn bandwidth(&self) -> Bandwidths {
        self.shared.traffic.read(Instant::now())
    }

    fn know(&self, addr: &Multiaddr, ttl: Option<Duration>, priority: Option<u32>) -> Result<PeerId, Error> {
        let Some((peer, addr)) = addrs::split_peer(addr) else {
            return Err(Error::NoPeerId { addr: addr.clone() });
        };
        if peer != self.local_peer {
            let mut store = self.shared.peerstore();
            store.add(peer, addr, ttl, Instant::now());
            if let Some(priority) = priority {
                store.set_priority(peer, priority);
            }
        }
        Ok(peer)
    }

    /// Ends the connections to a peer that misbehaves, now and for a while.
    fn shun(&self, peer: PeerId) {
        if let Err(e) = self.tell(Cmd::Shun { peer }) {
            warn!(target: "swarm2", %peer, "not shunned: {e}");
        }
    }

    fn tell(&self, cmd: Cmd) -> Result<(), Error> {
        self.commands.try_send(cmd).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Error::Busy,
            mpsc::error::TrySendError::Closed(_) => Error::Stopped,
        })
    }

    async fn ask<T>(&self, cmd: Cmd, answer: oneshot::Receiver<T>) -> Result<T, Error> {
        self.commands.send(cmd).await.map_err(|_| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)
    }
}
