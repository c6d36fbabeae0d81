//! Peers for the tests of this room: networks of our own, and bare swarms that do as they are told.

use std::sync::Arc;
use std::time::Duration;

use cluster_compat::config::Cluster;
use cluster_compat::types::PeerId;
use futures::StreamExt as _;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{Swarm, Transport as _, identify, noise, swarm, tcp, yamux};
use tokio::sync::mpsc;

use super::streams::{self, Stream, Streams};
use super::{Network, NetworkArgs};
use crate::task::Tasks;

/// Longest wait for anything; far more than a busy machine needs.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// What `future` gives, or a panic that says what was missing.
pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("too late: {what}"))
}

/// A network of our own.
pub(super) struct TestPeer {
    pub(super) network: Network,
    pub(super) tasks: Tasks,
}

impl Drop for TestPeer {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl TestPeer {
    pub(super) async fn start() -> Self {
        let config = Cluster {
            listen_multiaddress: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            dial_peer_timeout: cluster_compat::go::time::Duration::from_secs(5),
            mdns_interval: cluster_compat::go::time::Duration::from_secs(0),
            ..Cluster::default()
        };
        let tasks = Tasks::new();
        let keypair = Keypair::generate_ed25519();
        let args =
            NetworkArgs { keypair, secret: None, config: &config, peerstore: vec![], tasks: tasks.clone() };
        Self { network: Network::start(args).await.unwrap(), tasks }
    }

    pub(super) fn id(&self) -> PeerId {
        self.network.local_peer()
    }

    pub(super) fn knows(&self, other: &Self) {
        let addr = other.network.listen_addrs()[0].clone().with(Protocol::P2p(other.id()));
        self.network.add_addr(&addr).unwrap();
    }

    /// A connection, and each side knows what the other speaks.
    pub(super) async fn meets(&self, other: &Self, protocol: &str) {
        self.knows(other);
        self.network.dial(other.id()).await.unwrap();
        self.hears_of(other.id(), protocol).await;
        other.hears_of(self.id(), protocol).await;
    }

    pub(super) async fn hears_of(&self, other: PeerId, protocol: &str) {
        let mut events = self.network.peer_events();
        let told = async {
            while !self.network.speaks(&other, protocol) {
                events.recv().await.unwrap();
            }
        };
        within("identify", told).await;
    }
}

/// A swarm without limits and without protocols of its own but identify.
pub(super) struct RawPeer {
    id: PeerId,
    streams: Arc<Streams>,
    tasks: Tasks,
}

impl Drop for RawPeer {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    streams: streams::Behaviour,
}

impl RawPeer {
    /// Connected to `target`.
    pub(super) async fn connect(target: &TestPeer) -> Self {
        let (raw, _) = Self::connect_speaking(target, &[]).await;
        raw
    }

    /// Connected to `target`, which has been told that we speak `protocols`; and the streams it opens for them.
    pub(super) async fn connect_speaking(
        target: &TestPeer,
        protocols: &[&'static str],
    ) -> (Self, mpsc::Receiver<(PeerId, Stream)>) {
        let keypair = Keypair::generate_ed25519();
        let id = keypair.public().to_peer_id();
        let streams = Arc::new(Streams::unbounded(id));
        let accepted = streams.accept(protocols, 1 << 12).unwrap();
        let mut muxer = yamux::Config::default();
        muxer.set_max_num_streams(1 << 12);
        let transport = tcp::tokio::Transport::default()
            .upgrade(Version::V1Lazy)
            .authenticate(noise::Config::new(&keypair).unwrap())
            .multiplex(muxer)
            .boxed();
        let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(LIMIT);
        let behaviour = Behaviour {
            identify: identify::Behaviour::new(identify::Config::new(String::new(), keypair.public())),
            streams: streams::Behaviour::new(Arc::clone(&streams)),
        };
        let mut swarm = Swarm::new(transport, behaviour, id, config);
        swarm.dial(target.network.listen_addrs()[0].clone()).unwrap();
        let tasks = Tasks::new();
        let stop = tasks.token();
        tasks.spawn("raw swarm", async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = swarm.select_next_some() => {}
                }
            }
        });
        let raw = Self { id, streams, tasks };
        let connected = async {
            while !raw.streams.is_connected(&target.id()) {
                tokio::task::yield_now().await;
            }
        };
        within("the connection", connected).await;
        if let Some(protocol) = protocols.first() {
            target.hears_of(id, protocol).await;
        }
        (raw, accepted)
    }

    pub(super) const fn id(&self) -> PeerId {
        self.id
    }

    pub(super) async fn open(&self, peer: PeerId, protocol: &'static str) -> Option<Stream> {
        self.streams.open_raw(&peer, protocol).await
    }
}
