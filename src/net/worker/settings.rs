//! What the swarm needs of the configuration.

use std::collections::HashSet;

use cluster_compat::config;
use cluster_compat::types::{Multiaddr, PeerId};

use crate::net::limits::Marks;
use crate::net::{GossipSettings, addrs};

/// What the worker needs of the configuration.
pub(super) struct Settings {
    pub(super) listen: Vec<Multiaddr>,
    pub(super) announce: Vec<Multiaddr>,
    pub(super) no_announce: Vec<Multiaddr>,
    pub(super) marks: Marks,
    pub(super) has_peer_addresses: bool,
    pub(super) priority_peers: HashSet<PeerId>,
}

impl From<&config::Cluster> for Settings {
    fn from(config: &config::Cluster) -> Self {
        let manager = &config.connection_manager;
        let priority_peers =
            config.peer_addresses.iter().filter_map(addrs::split_peer).map(|(peer, _)| peer).collect();
        Self {
            listen: config.listen_multiaddress.clone(),
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
