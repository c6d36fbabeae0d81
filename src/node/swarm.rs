//! The node's own swarm: an instance of `net` that any IPFS peer may join, and what the RPC asks of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster_compat::types::{Bandwidths, Cid, Multiaddr, PeerId};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::identity::Keypair;
use rand::RngCore as _;
use tokio::sync::{Notify, mpsc};

use super::providers::{Announced, Announcer};
use crate::adder;
use crate::net::{self, Blocks, Connection, Contact, Fetched, Network, OpenArgs};
use crate::task::Tasks;

/// What is echoed. (Go: `go-libp2p/p2p/protocol/ping`)
const PING: &str = "/ipfs/ping/1.0.0";

/// What the node answers to. (The WAN's DHT only where the internet reaches it: peers tell each other.)
const PROTOCOLS: &[&str] = &[
    "/ipfs/bitswap",
    "/ipfs/bitswap/1.0.0",
    "/ipfs/bitswap/1.1.0",
    "/ipfs/bitswap/1.2.0",
    "/ipfs/id/1.0.0",
    "/ipfs/id/push/1.0.0",
    "/ipfs/lan/kad/1.0.0",
    PING,
    "/libp2p/autonat/1.0.0",
    "/libp2p/circuit/relay/0.2.0/stop",
    "/libp2p/dcutr",
];

/// Bytes of one echo.
const PING_BYTES: usize = 32;

/// Longest wait for one echo. (Go: Kubo `ping.go`, `kPingTimeout`)
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What [`Swarm::start`] needs.
pub(super) struct SwarmArgs {
    /// Who the node is.
    pub(super) keypair: Keypair,
    /// Where others reach it.
    pub(super) listen: Vec<Multiaddr>,
    /// First peers.
    pub(super) bootstrap: Vec<Multiaddr>,
    /// Find peers on the local network.
    pub(super) mdns: bool,
    /// What is served.
    pub(super) blocks: Arc<dyn Blocks>,
    /// What the DHTs are told again and again.
    pub(super) announced: Announced,
    /// Owner of its tasks.
    pub(super) tasks: Tasks,
}

/// The swarm, from outside. Clones share it.
#[derive(Clone)]
pub(super) struct Swarm {
    network: Network,
    announcer: Announcer,
}

impl Swarm {
    /// Listens; everything else happens in the background.
    pub(super) async fn start(args: SwarmArgs) -> Result<Self, net::Error> {
        let SwarmArgs { keypair, listen, bootstrap, mdns, blocks, announced, tasks } = args;
        let network = Network::start_open(OpenArgs {
            keypair,
            listen,
            bootstrap,
            mdns,
            blocks,
            digest: adder::digest,
            tasks: tasks.clone(),
        });
        let network = network.await?;
        let announcer = Announcer::start(network.clone(), announced, &tasks);
        Ok(Self { network, announcer })
    }

    /// Its peer id.
    pub(super) const fn local_peer(&self) -> PeerId {
        self.network.local_peer()
    }

    /// What others are told, without `/p2p`.
    pub(super) fn addrs(&self) -> Vec<Multiaddr> {
        self.network.listen_addrs()
    }

    /// What it speaks.
    #[expect(clippy::unused_self, reason = "what it speaks may come to depend on who reaches it")]
    pub(super) fn protocols(&self) -> Vec<String> {
        PROTOCOLS.iter().map(|protocol| (*protocol).to_owned()).collect()
    }

    /// Where the sockets are.
    pub(super) fn sockets(&self) -> Vec<Multiaddr> {
        self.network.sockets()
    }

    /// All connections.
    pub(super) fn connections(&self) -> Vec<Connection> {
        self.network.connections()
    }

    /// The known addresses of all peers.
    pub(super) fn known_peers(&self) -> Vec<Contact> {
        self.network.known_peers()
    }

    /// Whether a peer has a connection.
    pub(super) fn is_connected(&self, peer: &PeerId) -> bool {
        self.network.connected_peers().binary_search(peer).is_ok()
    }

    /// Connects to a peer; where only its id is given the DHTs are searched.
    pub(super) async fn connect(&self, addr: &Multiaddr) -> Result<PeerId, net::Error> {
        self.network.connect(addr).await
    }

    /// Connects to a peer at any of its addresses.
    pub(super) async fn dial(&self, contact: &Contact) -> Result<(), net::Error> {
        self.network.dial_at(contact).await
    }

    /// Ends the connections to a peer, or the one at an address; says how many there were.
    pub(super) async fn disconnect(
        &self,
        peer: PeerId,
        addr: Option<Multiaddr>,
    ) -> Result<usize, net::Error> {
        self.network.disconnect(peer, addr).await
    }

    /// A stream on which a peer echoes.
    pub(super) async fn pinger(&self, peer: PeerId) -> Result<Pinger, net::Error> {
        let (stream, _) = self.network.open(peer, &[PING]).await?;
        Ok(Pinger { stream })
    }

    /// Peers that have a block, as they are found. Its end is the end of the search.
    pub(super) async fn find_providers(&self, cid: &Cid) -> Result<mpsc::Receiver<Contact>, net::Error> {
        self.network.find_providers(cid).await
    }

    /// Tells the DHTs of blocks, when their turn comes.
    pub(super) fn provide(&self, cids: &[Cid]) {
        self.announcer.add(cids);
    }

    /// Tells the DHTs of a block now.
    pub(super) async fn provide_now(&self, cid: &Cid) -> Result<(), net::Error> {
        self.network.provide(cid).await
    }

    /// Puts a value into the DHTs.
    pub(super) async fn put_value(&self, key: Vec<u8>, value: Vec<u8>) -> Result<(), net::Error> {
        self.network.put_value(key, value).await
    }

    /// The values of a key, as peers tell them.
    pub(super) async fn get_values(&self, key: Vec<u8>) -> Result<mpsc::Receiver<Vec<u8>>, net::Error> {
        self.network.get_values(key).await
    }

    /// Tells the DHTs again of all that is kept.
    pub(super) fn reprovide(&self) {
        self.announcer.again();
    }

    /// Blocks are here now: peers that wait for them get them.
    pub(super) fn stored(&self, cids: &[Cid]) {
        self.network.blocks_stored(cids);
    }

    /// A block from whoever has it; see [`Network::fetch_block_from`].
    pub(super) async fn fetch(
        &self,
        cid: Cid,
        likely: &[PeerId],
        missing: Arc<Notify>,
    ) -> Result<Fetched, net::Error> {
        self.network.fetch_block_from(cid, likely, Some(missing)).await
    }

    /// What bitswap has exchanged.
    pub(super) async fn bitswap_stat(&self) -> Result<net::Stat, net::Error> {
        self.network.bitswap_stat().await
    }

    /// What a peer wants of us.
    pub(super) fn wantlist_of(&self, peer: &PeerId) -> Vec<Cid> {
        self.network.wantlist_of(peer)
    }

    /// Traffic by protocol.
    pub(super) fn bandwidth(&self) -> Bandwidths {
        self.network.bandwidth()
    }
}

/// A stream on which a peer echoes.
pub(super) struct Pinger {
    stream: net::Stream,
}

impl Pinger {
    /// How long an echo takes.
    pub(super) async fn ping(&mut self) -> std::io::Result<Duration> {
        let mut sent = [0; PING_BYTES];
        rand::rng().fill_bytes(&mut sent);
        let began = Instant::now();
        let echoed = async {
            self.stream.write_all(&sent).await?;
            self.stream.flush().await?;
            let mut heard = [0; PING_BYTES];
            self.stream.read_exact(&mut heard).await?;
            std::io::Result::Ok(heard)
        };
        let heard = tokio::time::timeout(PING_TIMEOUT, echoed).await;
        let heard: [u8; PING_BYTES] = heard.map_err(|_| std::io::ErrorKind::TimedOut)??;
        if heard != sent {
            return Err(std::io::Error::other("ping packet was incorrect"));
        }
        Ok(began.elapsed())
    }
}
