//! The protocols of the swarm.

use std::sync::Arc;
use std::time::Duration;

use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{autonat, connection_limits, dcutr, gossipsub, identify, ping, relay, upnp};

use super::content::Records;
use super::dht::{Dht, Scope};
use super::observed::Identify;
use super::plan::{GossipSettings, Plan};
use super::streams::{self, Streams};
use super::{Error, addrs, dht, gossip, limits};

/// Pause between pings on one connection: they only find peers that vanished without a word.
const PING_EVERY: Duration = Duration::from_secs(60);

/// Addresses that identify remembers for dials by peer id.
const IDENTIFY_CACHE_PEERS: usize = 1000;

/// Time in which [`MAX_DIAL_BACKS`] and [`MAX_DIAL_BACKS_PER_PEER`] count.
const DIAL_BACK_PERIOD: Duration = Duration::from_secs(60);

/// Dials to find out whether others can be reached.
const MAX_DIAL_BACKS: usize = 30;

/// Such dials for one peer.
const MAX_DIAL_BACKS_PER_PEER: usize = 3;

/// The protocols of the swarm.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) limits: connection_limits::Behaviour,
    pub(super) identify: Identify,
    pub(super) ping: ping::Behaviour,
    pub(super) gossip: Toggle<gossipsub::Behaviour>,
    pub(super) wan: Dht,
    pub(super) lan: Dht,
    pub(super) autonat: autonat::v1::Behaviour,
    pub(super) upnp: Toggle<upnp::tokio::Behaviour>,
    pub(super) relay: Toggle<relay::Behaviour>,
    pub(super) relay_client: relay::client::Behaviour,
    pub(super) dcutr: dcutr::Behaviour,
    pub(super) streams: streams::Behaviour,
}

impl Behaviour {
    pub(super) fn new(
        plan: &Plan,
        relay_client: relay::client::Behaviour,
        streams: Arc<Streams>,
    ) -> Result<Self, Error> {
        let keypair = &plan.keypair;
        let local_peer = keypair.public().to_peer_id();
        // the listen addresses are hidden because what is announced is decided by `addrs`; the signed record lets
        // original peers pass our addresses on
        let identify =
            identify::Config::new_with_signed_peer_record(plan.protocol_version.to_owned(), keypair)
                .with_agent_version(plan.agent.to_owned())
                .with_hide_listen_addrs(true)
                .with_push_listen_addr_updates(true)
                .with_cache_size(IDENTIFY_CACHE_PEERS);
        let autonat = autonat::v1::Config {
            throttle_clients_period: DIAL_BACK_PERIOD,
            throttle_clients_global_max: MAX_DIAL_BACKS,
            throttle_clients_peer_max: MAX_DIAL_BACKS_PER_PEER,
            ..autonat::v1::Config::default()
        };
        let relay = plan.relays.then(|| {
            let mut relay = relay::Behaviour::new(local_peer, relay::Config::default());
            // left alone it would begin with the first address we announce
            relay.set_status(Some(relay::Status::Disable));
            relay
        });
        // a gateway does not help a peer that only its own machine reaches
        let opens_ports = plan.settings.listen.iter().any(|addr| !addrs::is_loopback(addr));
        let gossip = |settings: &GossipSettings| gossip::behaviour(keypair, settings);
        let dht = |scope| {
            let records = Records::new(local_peer, plan.content.clone());
            dht::behaviour(local_peer, scope, records, plan.query_timeout)
        };
        let limits = limits::hard_limits(plan.settings.marks, plan.resources);
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits),
            identify: Identify::new(identify),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_EVERY)),
            gossip: plan.gossip.as_ref().map(gossip).transpose()?.into(),
            wan: dht(Scope::Wan),
            lan: dht(Scope::Lan),
            autonat: autonat::v1::Behaviour::new(local_peer, autonat),
            upnp: opens_ports.then(upnp::tokio::Behaviour::default).into(),
            relay: relay.into(),
            relay_client,
            dcutr: dcutr::Behaviour::new(local_peer),
            streams: streams::Behaviour::new(streams),
        })
    }
}
