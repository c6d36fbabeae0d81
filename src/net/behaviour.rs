//! The protocols of the swarm.

use std::sync::Arc;
use std::time::Duration;

use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{connection_limits, gossipsub, identify, ping, relay};

use super::dht::{Dht, Scope};
use super::streams::{self, Streams};
use super::{Error, GossipSettings, dht, gossip, limits};

/// Who we say we are; nobody parses it, operators read it.
pub(super) const AGENT: &str = concat!("ipfs-cluster-rs/", env!("CARGO_PKG_VERSION"), " (1.1.6)");

/// Pause between pings on one connection: they only find peers that vanished without a word.
const PING_EVERY: Duration = Duration::from_secs(60);

/// Addresses that identify remembers for dials by peer id.
const IDENTIFY_CACHE_PEERS: usize = 1000;

/// The protocols of the swarm.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) limits: connection_limits::Behaviour,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) gossip: gossipsub::Behaviour,
    pub(super) wan: Dht,
    pub(super) lan: Dht,
    pub(super) relay_client: relay::client::Behaviour,
    pub(super) streams: streams::Behaviour,
}

impl Behaviour {
    pub(super) fn new(
        keypair: &Keypair,
        settings: &GossipSettings,
        relay_client: relay::client::Behaviour,
        streams: Arc<Streams>,
    ) -> Result<Self, Error> {
        let local_peer = keypair.public().to_peer_id();
        // the listen addresses are hidden because what is announced is decided by `addrs`; the signed record lets
        // original peers pass our addresses on
        let identify = identify::Config::new_with_signed_peer_record(String::new(), keypair)
            .with_agent_version(AGENT.to_owned())
            .with_hide_listen_addrs(true)
            .with_push_listen_addr_updates(true)
            .with_cache_size(IDENTIFY_CACHE_PEERS);
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits::hard_limits()),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_EVERY)),
            gossip: gossip::behaviour(keypair, settings)?,
            wan: dht::behaviour(local_peer, Scope::Wan),
            lan: dht::behaviour(local_peer, Scope::Lan),
            relay_client,
            streams: streams::Behaviour::new(streams),
        })
    }
}
