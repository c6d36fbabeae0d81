//! What a swarm is built from, for each of its two users.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cluster_compat::config;
use cluster_compat::types::{Multiaddr, PeerId};
use libp2p::identity::Keypair;
use tracing::warn;

use super::bitswap::{self, Blocks, Digest};
use super::limits::{Marks, Resources};
use super::mdns::Service;
use super::{NetworkArgs, addrs, peerstore};

/// Who a peer of the cluster says it is; nobody parses it, operators read it.
pub(super) const CLUSTER_AGENT: &str = concat!("ipfs-cluster-rs/", env!("CARGO_PKG_VERSION"), " (1.1.6)");

/// Who the embedded node says it is.
const NODE_AGENT: &str = concat!("ipfs-cluster-rs/", env!("CARGO_PKG_VERSION"), " (node)");

/// What IPFS peers say they speak. (Go: `go-libp2p`, `DefaultProtocolVersion`)
const NODE_PROTOCOL_VERSION: &str = "ipfs/0.1.0";

/// Connections of the embedded node. (Go: Kubo `config/init.go`)
const NODE_MARKS: Marks = Marks { high: 96, low: 32, grace: Duration::from_secs(20) };

/// Longest dial of the embedded node, and as long again for its handshake. (Go: `DialTimeout` is 15 s for both)
const NODE_DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest search in a DHT for the address of a peer.
const SHORT_QUERY: Duration = Duration::from_secs(10);

/// Longest search in a DHT for content, which passes peers that do not answer.
const LONG_QUERY: Duration = Duration::from_secs(60);

/// What [`super::Network::start_open`] needs.
pub struct OpenArgs {
    /// Who we are.
    pub keypair: Keypair,
    /// Where others reach us; QUIC beside what the cluster's swarm takes.
    pub listen: Vec<Multiaddr>,
    /// First peers; `/dnsaddr` too.
    pub bootstrap: Vec<Multiaddr>,
    /// Find peers on the local network, and let them find us.
    pub mdns: bool,
    /// What is served, and what the DHTs are told we have.
    pub blocks: Arc<dyn Blocks>,
    /// How blocks from others are named.
    pub digest: Digest,
    /// Owner of the swarm's tasks.
    pub tasks: crate::task::Tasks,
}

/// A peer's address that is known from the start.
pub(super) struct Known {
    pub(super) addr: Multiaddr,
    /// `None` is for good.
    pub(super) ttl: Option<Duration>,
    /// Low ones are dialled first.
    pub(super) priority: u32,
    /// Names the list it is from.
    pub(super) origin: &'static str,
}

/// What a swarm is built from.
pub(super) struct Plan {
    pub(super) keypair: Keypair,
    pub(super) secret: Option<[u8; 32]>,
    pub(super) agent: &'static str,
    pub(super) protocol_version: &'static str,
    pub(super) gossip: Option<GossipSettings>,
    /// Blocks that the DHTs may answer for; without them no content is found, announced or kept records of.
    pub(super) content: Option<Arc<dyn Blocks>>,
    pub(super) bitswap: bitswap::Rules,
    /// Longest search in a DHT.
    pub(super) query_timeout: Duration,
    pub(super) settings: Settings,
    pub(super) resources: Resources,
    /// Relay for others, once others reach us.
    pub(super) relays: bool,
    /// For a connection and, once that stands, for its handshake.
    pub(super) dial_timeout: Duration,
    pub(super) discovery: Option<Service>,
    pub(super) known: Vec<Known>,
    pub(super) tasks: crate::task::Tasks,
}

/// What the worker needs of the configuration.
pub(super) struct Settings {
    pub(super) listen: Vec<Multiaddr>,
    /// Listen on QUIC, and dial it.
    pub(super) has_quic: bool,
    pub(super) announce: Vec<Multiaddr>,
    pub(super) no_announce: Vec<Multiaddr>,
    pub(super) marks: Marks,
    pub(super) has_peer_addresses: bool,
    pub(super) priority_peers: HashSet<PeerId>,
}

/// `cluster.pubsub` as the gossip protocol wants it.
#[derive(Debug, Clone)]
pub(super) struct GossipSettings {
    pub(super) heartbeat_every: Duration,
    pub(super) degree_factor: usize,
    pub(super) history_length: usize,
    pub(super) history_gossip: usize,
    pub(super) floods: bool,
    pub(super) exchanges_peers: bool,
}

impl Plan {
    /// The cluster's swarm.
    pub(super) fn of_cluster(args: NetworkArgs<'_>) -> Self {
        let config = args.config;
        if args.secret.is_none() {
            warn!(target: "cluster", "the cluster has no secret: any libp2p peer can connect");
        }
        let known =
            |addr: &Multiaddr, ttl, priority, origin| Known { addr: addr.clone(), ttl, priority, origin };
        let from_file = (1..).zip(&args.peerstore).map(|(priority, addr)| {
            known(addr, Some(peerstore::FILE_TTL), priority, "peer from the peerstore file")
        });
        let configured = config.peer_addresses.iter();
        let configured = configured.map(|addr| known(addr, None, 0, "cluster.peer_addresses"));
        let known = from_file.chain(configured).collect();
        // a peer that only this machine reaches has nobody to tell of it
        let discovers = config.mdns_interval.0 != 0 && !is_local(&config.listen_multiaddress);
        Self {
            keypair: args.keypair,
            secret: args.secret,
            agent: CLUSTER_AGENT,
            protocol_version: "",
            gossip: Some(GossipSettings::from(config)),
            content: None,
            bitswap: bitswap::Rules::default(),
            query_timeout: SHORT_QUERY,
            settings: Settings::from(config),
            resources: Resources::new(&config.resource_manager),
            relays: config.enable_relay_hop,
            dial_timeout: config.dial_peer_timeout.to_std(),
            discovery: discovers.then_some(Service::Cluster),
            known,
            tasks: args.tasks,
        }
    }

    /// The swarm of the embedded node.
    pub(super) fn of_node(args: OpenArgs) -> Self {
        let known = |addr| Known { addr, ttl: None, priority: 0, origin: "the bootstrap list" };
        let discovers = args.mdns && !is_local(&args.listen);
        let settings = Settings {
            listen: args.listen,
            has_quic: true,
            announce: Vec::new(),
            no_announce: Vec::new(),
            marks: NODE_MARKS,
            has_peer_addresses: !args.bootstrap.is_empty(),
            priority_peers: args
                .bootstrap
                .iter()
                .filter_map(addrs::split_peer)
                .map(|(peer, _)| peer)
                .collect(),
        };
        Self {
            keypair: args.keypair,
            secret: None,
            agent: NODE_AGENT,
            protocol_version: NODE_PROTOCOL_VERSION,
            gossip: None,
            content: Some(Arc::clone(&args.blocks)),
            bitswap: bitswap::Rules { digest: args.digest, drops_liars: true, blocks: Some(args.blocks) },
            query_timeout: LONG_QUERY,
            settings,
            resources: Resources::of_node(),
            relays: false,
            dial_timeout: NODE_DIAL_TIMEOUT,
            discovery: discovers.then_some(Service::Node),
            known: args.bootstrap.into_iter().map(known).collect(),
            tasks: args.tasks,
        }
    }
}

fn is_local(listen: &[Multiaddr]) -> bool {
    listen.iter().all(addrs::is_loopback)
}

impl From<&config::Cluster> for Settings {
    fn from(config: &config::Cluster) -> Self {
        let manager = &config.connection_manager;
        let priority_peers =
            config.peer_addresses.iter().filter_map(addrs::split_peer).map(|(peer, _)| peer).collect();
        Self {
            listen: config.listen_multiaddress.clone(),
            has_quic: false,
            announce: config.announce_multiaddress.clone(),
            no_announce: config.no_announce_multiaddress.clone(),
            marks: Marks {
                high: usize::try_from(manager.high_water).unwrap_or(usize::MAX),
                low: usize::try_from(manager.low_water).unwrap_or(0),
                grace: manager.grace_period.to_std(),
            },
            has_peer_addresses: !config.peer_addresses.is_empty(),
            priority_peers,
        }
    }
}

impl From<&config::Cluster> for GossipSettings {
    fn from(config: &config::Cluster) -> Self {
        let pubsub = &config.pubsub;
        let positive = |value: i64| usize::try_from(value).unwrap_or(0);
        Self {
            heartbeat_every: pubsub.heartbeat_interval.to_std(),
            degree_factor: positive(pubsub.d_factor),
            history_length: positive(pubsub.history_length),
            history_gossip: positive(pubsub.history_gossip),
            floods: pubsub.flood_publish,
            exchanges_peers: !config.follower_mode,
        }
    }
}
