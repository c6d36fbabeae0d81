//! A cluster of several peers in one process, each with its own IPFS node: to try things out.
//!
//! Everything listens on loopback, on ports that were free; everything is stored in one folder, which goes at the end.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use cluster_compat::api::ClusterApi as _;
use cluster_compat::config::{Config, Consensus, Engine, Identity};
use cluster_compat::go::time::Duration;
use cluster_compat::types::{Multiaddr, PeerId, TrackerStatus};
use futures::StreamExt as _;
use libp2p::multiaddr::Protocol;

use super::build::{Running, build};
use super::{Error, RunArgs, signals};

/// Most peers: each has some twenty files and sockets, and all of them talk with each other.
pub const MAX_PEERS: usize = 32;

/// Times that are short where a cluster of one machine need not wait.
const SOON: Duration = Duration::from_secs(1);

/// One peer of a demo.
pub struct DemoPeer {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: PeerId,
    /// The REST API.
    pub rest: Multiaddr,
    /// The IPFS proxy.
    pub proxy: Multiaddr,
    /// The pinning service.
    pub pinsvc: Multiaddr,
    /// The gateway of its node.
    pub gateway: Multiaddr,
    running: Running,
}

/// What a peer is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doing {
    /// Peers it sees, itself included.
    pub n_peers: usize,
    /// Pins it holds.
    pub n_pinned: usize,
    /// Pins it works on, or that have failed.
    pub n_others: usize,
    /// Blocks of its node.
    pub n_blocks: u64,
    /// Bytes of its node.
    pub n_bytes: u64,
}

/// A cluster at work.
pub struct Demo {
    folder: PathBuf,
    peers: Vec<DemoPeer>,
}

impl Demo {
    /// Starts `n_peers` peers with everything in `folder`.
    pub async fn start(folder: PathBuf, n_peers: usize) -> Result<Self, Error> {
        super::allow_open_files();
        let secret = Config::defaults(Consensus::Crdt, Engine::Lmdb, &folder).cluster.secret;
        let mut demo = Self { folder, peers: Vec::new() };
        let mut first: Option<Multiaddr> = None;
        for n in 0..n_peers {
            match demo.add(n, secret, first.clone()).await {
                Ok(addr) => first = first.or(Some(addr)),
                Err(cause) => {
                    demo.stop().await;
                    return Err(cause);
                }
            }
        }
        Ok(demo)
    }

    async fn add(
        &mut self,
        n: usize,
        secret: Option<[u8; 32]>,
        first: Option<Multiaddr>,
    ) -> Result<Multiaddr, Error> {
        let name = format!("peer{n}");
        let folder = self.folder.join(&name);
        let ports = free_ports().map_err(Error::step("choosing ports"))?;
        let identity = Identity::generate().map_err(Error::step("making an identity"))?;
        let config = config(&folder, &name, secret, &ports);
        let [cluster, rest, proxy, pinsvc, _, gateway] = ports;
        let peer_addr = cluster.with(Protocol::P2p(identity.id));
        let id = identity.id;
        let running = build(RunArgs {
            config,
            identity,
            folder,
            bootstrap: first.into_iter().collect(),
            leave: false,
            no_trust: false,
            start_empty: false,
            follows: false,
            embedded: true,
        })
        .await?;
        self.peers.push(DemoPeer { name, id, rest, proxy, pinsvc, gateway, running });
        Ok(peer_addr)
    }

    /// The peers.
    pub fn peers(&self) -> &[DemoPeer] {
        &self.peers
    }

    /// What each of them is doing.
    pub async fn doing(&self) -> Vec<Doing> {
        futures::future::join_all(self.peers.iter().map(DemoPeer::doing)).await
    }

    /// Shows what the peers are doing, again and again, until a signal comes; then stops them.
    pub async fn run<F: Future<Output = ()>>(
        self,
        mut show: impl FnMut(Vec<Doing>) -> F,
    ) -> Result<(), Error> {
        let mut signals = match signals::Signals::listen() {
            Ok(signals) => signals,
            Err(cause) => {
                self.stop().await;
                return Err(Error::step("listening for signals")(cause));
            }
        };
        let shown = async {
            loop {
                show(self.doing().await).await;
            }
        };
        let panicked = futures::future::select_all(
            self.peers.iter().map(|peer| Box::pin(peer.running.panicked())).collect::<Vec<_>>(),
        );
        let outcome = tokio::select! {
            biased;
            () = signals.first() => Ok(()),
            (name, ..) = panicked => Err(Error::Panicked(name)),
            () = shown => Ok(()),
        };
        tokio::select! {
            () = self.stop() => outcome,
            () = signals.escalate() => outcome,
        }
    }

    /// Stops all peers, the last first, and removes what they have written.
    pub async fn stop(mut self) {
        while let Some(peer) = self.peers.pop() {
            peer.running.stop().await;
        }
        if let Err(cause) = std::fs::remove_dir_all(&self.folder)
            && cause.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(target: "service", "{} stays: {cause}", self.folder.display());
        }
    }
}

impl DemoPeer {
    async fn doing(&self) -> Doing {
        let cluster = &self.running.cluster;
        let (n_blocks, n_bytes) = self.running.node.as_ref().map_or((0, 0), crate::node::Node::stat);
        let mut doing = Doing { n_blocks, n_bytes, ..Doing::default() };
        let peers = cluster.metrics("ping").await.unwrap_or_default();
        doing.n_peers = peers.len();
        let me = self.id.to_base58();
        let mut pins = cluster.status_all(TrackerStatus::UNDEFINED, true);
        while let Some(pin) = pins.next().await {
            let Ok(pin) = pin else { continue };
            let status = pin.peer_map.get(&me).map(|info| info.status);
            match status {
                Some(TrackerStatus::PINNED) => doing.n_pinned += 1,
                Some(TrackerStatus::REMOTE) | None => {}
                Some(_) => doing.n_others += 1,
            }
        }
        doing
    }
}

fn config(folder: &Path, name: &str, secret: Option<[u8; 32]>, ports: &[Multiaddr; 6]) -> Config {
    let [cluster, rest, proxy, pinsvc, swarm, gateway] = ports;
    let mut config = Config::defaults(Consensus::Crdt, Engine::Lmdb, folder);
    config.cluster.peername = name.to_owned();
    config.cluster.secret = secret;
    config.cluster.listen_multiaddress = vec![cluster.clone()];
    config.cluster.mdns_interval = Duration::ZERO;
    config.cluster.monitor_ping_interval = SOON;
    config.cluster.pubsub.heartbeat_interval = SOON;
    config.restapi.http_listen_multiaddress = vec![rest.clone()];
    config.ipfsproxy.listen_multiaddress = vec![proxy.clone()];
    config.pinsvcapi.http_listen_multiaddress = vec![pinsvc.clone()];
    config.ipfshttp.connect_swarms_delay = SOON;
    config.embedded.present = true;
    config.embedded.swarm_listen_multiaddress = vec![swarm.clone()];
    config.embedded.bootstrap = Vec::new();
    config.embedded.gateway_listen_multiaddress = vec![gateway.clone()];
    config.embedded.mdns = false;
    config
}

/// Six addresses on loopback whose ports were free a moment ago, all different.
fn free_ports() -> std::io::Result<[Multiaddr; 6]> {
    let mut held = Vec::new();
    let mut addrs: [Multiaddr; 6] = std::array::from_fn(|_| Multiaddr::empty());
    for addr in &mut addrs {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = socket.local_addr()?.port();
        *addr = Multiaddr::from(Ipv4Addr::LOCALHOST).with(Protocol::Tcp(port));
        held.push(socket);
    }
    Ok(addrs)
}
