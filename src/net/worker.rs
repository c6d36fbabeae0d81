//! The swarm's loop. `listen`, `dial`, `routing`, `content`, `reach` and `topics` are its parts by subject.

mod content;
mod dial;
mod listen;
mod reach;
mod routing;
#[cfg(test)]
mod tests;
mod topics;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use cluster_compat::types::{Multiaddr, PeerId};
use futures::StreamExt as _;
use libp2p::core::ConnectedPoint;
use libp2p::gossipsub::TopicHash;
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Swarm, identify, ping, relay, swarm};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::content::Content;
use self::dial::Dial;
pub(super) use self::dial::reason;
pub(super) use self::listen::check_free;
use self::reach::Reachability;
use self::routing::Searches;
use self::topics::Subscription;
use super::behaviour::{Behaviour, BehaviourEvent};
use super::bootstrap::{FIRST_PEERS, LOOK_EVERY, Round};
use super::dht::Scope;
use super::limits::Connections;
use super::peerstore::RECENT_TTL;
use super::plan::{Plan, Settings};
use super::{Cmd, Error, PeerEvent, Shared, addrs, transport};

/// Silence after which the library would close a connection; ours stay until the connection manager ends them.
const IDLE_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Incoming streams of one connection that still negotiate; original peers open hundreds at once.
const MAX_NEGOTIATING: usize = 1024;

/// How long a peer that misbehaved is shunned.
const SHUN_FOR: Duration = Duration::from_secs(10 * 60);

/// Peers that are shunned at the same time; a flood of new ones is up to the limits.
const MAX_SHUNNED: usize = 1024;

/// Runs the swarm.
pub(super) struct Worker {
    swarm: Swarm<Behaviour>,
    commands: mpsc::Receiver<Cmd>,
    shared: Arc<Shared>,
    config: Settings,
    /// Addresses without a peer id, whose names are resolved at each dial.
    nameless: Vec<Multiaddr>,
    listening: BTreeSet<Multiaddr>,
    subscriptions: HashMap<TopicHash, Subscription>,
    connections: Connections,
    /// Where the other side of each connection is.
    seen: HashMap<ConnectionId, Multiaddr>,
    /// Connections whose other side has not shown its key yet, and whether we made them.
    unidentified: HashMap<ConnectionId, bool>,
    rounds: Vec<Round>,
    dials: HashMap<PeerId, Dial>,
    searches: Searches,
    content: Content,
    /// Connections are remembered for those who ask.
    has_contacts: bool,
    reach: Reachability,
    looks: u64,
    /// Peers that misbehaved, and until when their connections end at once.
    shunned: HashMap<PeerId, Instant>,
}

impl Worker {
    pub(super) fn new(
        plan: Plan,
        nameless: Vec<Multiaddr>,
        commands: mpsc::Receiver<Cmd>,
        shared: Arc<Shared>,
    ) -> Result<Self, Error> {
        let local_peer = plan.keypair.public().to_peer_id();
        let (relayed, relay_client) = relay::client::new(local_peer);
        shared.traffic.counts.set_limits(plan.resources.limits(plan.settings.marks));
        let transport = transport::build(transport::Args {
            keypair: &plan.keypair,
            secret: plan.secret,
            dial_timeout: plan.dial_timeout,
            has_quic: plan.settings.has_quic,
            traffic: Arc::clone(&shared.traffic),
            relayed,
        })?;
        let behaviour = Behaviour::new(&plan, relay_client, Arc::clone(&shared.streams))?;
        // the library's own executor: a panic in the handling of one connection ends that connection alone
        let swarm_config = swarm::Config::with_tokio_executor()
            .with_idle_connection_timeout(IDLE_TIMEOUT)
            .with_max_negotiating_inbound_streams(MAX_NEGOTIATING);
        Ok(Self {
            swarm: Swarm::new(transport, behaviour, local_peer, swarm_config),
            commands,
            shared,
            config: plan.settings,
            nameless,
            listening: BTreeSet::new(),
            subscriptions: HashMap::new(),
            connections: Connections::default(),
            seen: HashMap::new(),
            unidentified: HashMap::new(),
            rounds: Vec::new(),
            dials: HashMap::new(),
            searches: Searches::default(),
            content: Content::default(),
            has_contacts: plan.content.is_some(),
            reach: Reachability::default(),
            looks: 0,
            shunned: HashMap::new(),
        })
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut look = tokio::time::interval_at(tokio::time::Instant::now() + LOOK_EVERY, LOOK_EVERY);
        self.bootstrap(FIRST_PEERS, None);
        self.dial_nameless();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(cmd) = self.commands.recv() => self.on_cmd(cmd),
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
                _ = look.tick() => self.on_look(),
            }
        }
    }

    fn on_cmd(&mut self, cmd: Cmd) {
        match cmd {
            Cmd::Subscribe { topic, validator, messages } => self.on_subscribe(topic, validator, messages),
            Cmd::Publish { topic, data } => self.on_publish(&topic, data),
            Cmd::Bootstrap { wanted, respond_to } => self.bootstrap(wanted, Some(respond_to)),
            Cmd::Found { peer, addrs } => self.on_discovered(peer, addrs),
            Cmd::Dial { peer, respond_to } => self.on_dial(peer, respond_to),
            Cmd::Disconnect { peer, addr, respond_to } => self.on_disconnect(peer, addr.as_ref(), respond_to),
            Cmd::Shun { peer } => self.on_shun(peer),
            Cmd::FindProviders { key, found } => self.on_find_providers(&key, found),
            Cmd::PutValue { key, value, respond_to } => self.on_put_value(&key, &value, respond_to),
            Cmd::GetValues { key, found } => self.on_get_values(&key, found),
            Cmd::Provide { key, respond_to } => self.on_provide(&key, respond_to),
        }
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(event)) => self.on_gossip(event),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                connection_id,
                peer_id,
                info,
            })) => self.on_identified(connection_id, peer_id, info),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Sent { .. })) => {
                self.shared.traffic.counts.identified(true);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Wan(event)) => self.on_dht_event(Scope::Wan, event),
            SwarmEvent::Behaviour(BehaviourEvent::Lan(event)) => self.on_dht_event(Scope::Lan, event),
            SwarmEvent::Behaviour(BehaviourEvent::Autonat(event)) => self.on_autonat(event),
            SwarmEvent::Behaviour(BehaviourEvent::Upnp(event)) => self.on_upnp(event),
            SwarmEvent::Behaviour(BehaviourEvent::RelayClient(event)) => self.on_relay_client(event),
            SwarmEvent::Behaviour(BehaviourEvent::Dcutr(event)) => self.on_hole_punched(event),
            SwarmEvent::ExternalAddrConfirmed { address } => self.on_confirmed(&address),
            SwarmEvent::ExternalAddrExpired { address } => self.on_unconfirmed(&address),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event {
                connection,
                result: Ok(latency),
                ..
            })) => {
                self.shared.contacts.answered(connection, latency);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event {
                connection,
                peer,
                result: Err(ping::Failure::Timeout),
            })) => {
                debug!(target: "swarm2", %peer, "no answer to a ping: closing the connection");
                self.swarm.close_connection(connection);
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connected(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, endpoint, num_established, cause } => {
                self.shared.traffic.counts.connected(endpoint.is_dialer(), -1);
                self.unidentified.remove(&connection_id);
                debug!(target: "swarm2", peer = %peer_id, ?cause, "connection closed");
                self.on_closed(peer_id, connection_id, num_established == 0);
            }
            SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => {
                self.on_dial_failed(peer_id, &error)
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                debug!(target: "swarm2", from = %send_back_addr, "incoming connection failed: {error}");
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                // one at a relay is announced when the relay has agreed
                if !addrs::is_relayed(&address) {
                    self.listening.insert(address);
                }
                self.announce();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.listening.remove(&address);
                self.announce();
            }
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                self.on_listener_closed(listener_id, &addresses, reason);
            }
            SwarmEvent::ListenerError { error, .. } => warn!(target: "cluster", "listener: {error}"),
            _ => {}
        }
    }

    fn on_connected(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let now = Instant::now();
        let addr = endpoint.get_remote_address();
        debug!(target: "swarm2", %peer, %addr, "connected");
        self.connections.opened(connection, peer, now);
        self.seen.insert(connection, addr.clone());
        self.shared.traffic.counts.connected(endpoint.is_dialer(), 1);
        self.unidentified.insert(connection, endpoint.is_dialer());
        if self.has_contacts {
            self.shared.contacts.opened(connection, peer, addr, endpoint.is_dialer());
        }
        {
            let mut store = self.shared.peerstore();
            if endpoint.is_dialer() {
                let addr = addrs::split_peer(addr).map_or_else(|| addr.clone(), |(_, addr)| addr);
                store.add(peer, addr, Some(RECENT_TTL), now);
            }
            store.set_connected(&peer, true, now);
        }
        if self.shared.connected.write().unwrap_or_else(PoisonError::into_inner).insert(peer) {
            self.shared.streams.tell(PeerEvent::Connected(peer));
        }
        self.end_dial(&peer, Ok(()));
        if self.shunned.get(&peer).is_some_and(|until| now < *until) {
            self.swarm.close_connection(connection);
        }
    }

    fn on_shun(&mut self, peer: PeerId) {
        let now = Instant::now();
        self.shunned.retain(|_, until| now < *until);
        if self.shunned.len() < MAX_SHUNNED {
            self.shunned.insert(peer, now + SHUN_FOR);
        }
        // the error says that there is none
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    fn on_closed(&mut self, peer: PeerId, connection: ConnectionId, was_last: bool) {
        self.connections.closed(connection);
        self.seen.remove(&connection);
        self.shared.contacts.closed(connection);
        if !was_last {
            return;
        }
        self.shared.peerstore().set_connected(&peer, false, Instant::now());
        self.shared.connected.write().unwrap_or_else(PoisonError::into_inner).remove(&peer);
        self.shared.streams.tell(PeerEvent::Disconnected(peer));
        self.on_relay_gone(&peer);
        for subscription in self.subscriptions.values_mut() {
            subscription.left(&peer);
        }
    }

    fn on_identified(&mut self, connection: ConnectionId, peer: PeerId, info: identify::Info) {
        debug!(target: "identify", %peer, agent = info.agent_version, "identified");
        self.shared.traffic.counts.identified(false);
        if let Some(is_dialer) = self.unidentified.remove(&connection) {
            self.shared.traffic.counts.key(is_dialer, info.public_key.key_type());
        }
        let Some(seen) = self.seen.get(&connection).cloned() else { return };
        let now = Instant::now();
        self.shared.contacts.identified(peer, &info);
        let claimed: Vec<Multiaddr> =
            info.listen_addrs.iter().filter_map(|addr| addrs::claimed_by(&peer, addr)).collect();
        self.on_routable(peer, &info.protocols, &claimed, &seen);
        let plausible: Vec<Multiaddr> =
            claimed.into_iter().filter(|addr| addrs::is_plausible(addr, &seen)).collect();
        self.on_speaks(peer, &info.protocols, &plausible);
        let mut store = self.shared.peerstore();
        for addr in plausible {
            store.add(peer, addr, Some(RECENT_TTL), now);
        }
        store.set_connected(&peer, self.swarm.is_connected(&peer), now);
    }
}
