//! The swarm's loop.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use cluster_compat::config;
use cluster_compat::types::{Multiaddr, PeerId};
use futures::{FutureExt as _, StreamExt as _};
use libp2p::core::ConnectedPoint;
use libp2p::gossipsub::{self, MessageAcceptance, PublishError, TopicHash};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Swarm, identify, ping, swarm};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::behaviour::{Behaviour, BehaviourEvent};
use super::bootstrap::{FIRST_PEERS, LOOK_EVERY, LOOKS_PER_PRIORITY_ROUND, Round};
use super::limits::{Connections, Marks};
use super::peerstore::{RECENT_TTL, UNREACHABLE};
use super::{Cmd, Error, GossipSettings, Message, NetworkArgs, Shared, Topic, Validator, addrs, transport};

/// Silence after which the library would close a connection; ours stay until the connection manager ends them.
const IDLE_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Incoming streams of one connection that still negotiate; original peers open hundreds at once.
const MAX_NEGOTIATING: usize = 1024;

/// Longest wait for the first address of each listener.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

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
    rounds: Vec<Round>,
    dials: HashMap<PeerId, Vec<oneshot::Sender<Result<(), Error>>>>,
    looks: u64,
}

/// What the worker needs of the configuration.
struct Settings {
    listen: Vec<Multiaddr>,
    announce: Vec<Multiaddr>,
    no_announce: Vec<Multiaddr>,
    marks: Marks,
    has_peer_addresses: bool,
    priority_peers: HashSet<PeerId>,
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

struct Subscription {
    topic: Arc<Topic>,
    validator: Validator,
    messages: mpsc::Sender<Message>,
    peers: HashSet<PeerId>,
}

impl Worker {
    pub(super) fn new(
        args: NetworkArgs<'_>,
        nameless: Vec<Multiaddr>,
        commands: mpsc::Receiver<Cmd>,
        shared: Arc<Shared>,
    ) -> Result<Self, Error> {
        let transport = transport::build(
            &args.keypair,
            args.secret,
            args.config.dial_peer_timeout.to_std(),
            Arc::clone(&shared.traffic),
        )?;
        let behaviour = Behaviour::new(&args.keypair, &GossipSettings::from(args.config))?;
        // the library's own executor: a panic in the handling of one connection ends that connection alone
        let config = swarm::Config::with_tokio_executor()
            .with_idle_connection_timeout(IDLE_TIMEOUT)
            .with_max_negotiating_inbound_streams(MAX_NEGOTIATING);
        Ok(Self {
            swarm: Swarm::new(transport, behaviour, args.keypair.public().to_peer_id(), config),
            commands,
            shared,
            config: Settings::from(args.config),
            nameless,
            listening: BTreeSet::new(),
            subscriptions: HashMap::new(),
            connections: Connections::default(),
            seen: HashMap::new(),
            rounds: Vec::new(),
            dials: HashMap::new(),
            looks: 0,
        })
    }

    /// Binds all listen addresses and waits until each has told where it is.
    pub(super) async fn listen(&mut self) -> Result<(), Error> {
        let configured = self.config.listen.clone();
        let mut usable = Vec::new();
        for addr in &configured {
            match addrs::listen_kind(addr)? {
                addrs::Listen::Tcp => usable.push(addr),
                addrs::Listen::Ignored => {
                    warn!(target: "cluster", "not listening on {addr}: only TCP is supported");
                }
            }
        }
        // all before the first listener: ours would be in the way of the next check
        for addr in &usable {
            check_free(addr)?;
        }
        let mut waiting = HashSet::new();
        for addr in usable {
            match self.swarm.listen_on(addr.clone()) {
                Ok(id) => {
                    waiting.insert(id);
                }
                // a host without IPv6 still runs on the other address
                Err(e) => error!(target: "cluster", "cannot listen on {addr}: {e}"),
            }
        }
        if waiting.is_empty() {
            let addrs = configured.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(Error::NoListenAddress { addrs });
        }
        let deadline = tokio::time::Instant::now() + LISTEN_TIMEOUT;
        while !waiting.is_empty() {
            let Ok(event) = tokio::time::timeout_at(deadline, self.swarm.select_next_some()).await else {
                break;
            };
            match &event {
                SwarmEvent::NewListenAddr { listener_id, .. } => {
                    waiting.remove(listener_id);
                }
                SwarmEvent::ListenerClosed { listener_id, addresses, reason: Err(e) }
                    if waiting.contains(listener_id) =>
                {
                    let addr =
                        addresses.first().or(configured.first()).cloned().unwrap_or_else(Multiaddr::empty);
                    return Err(Error::Listen { addr, reason: e.to_string() });
                }
                _ => {}
            }
            self.on_swarm_event(event);
        }
        // one listener may have many addresses; those that are known come at once
        while let Some(event) = self.swarm.select_next_some().now_or_never() {
            self.on_swarm_event(event);
        }
        Ok(())
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
            Cmd::Dial { peer, respond_to } => self.on_dial(peer, respond_to),
        }
    }

    fn on_subscribe(&mut self, topic: Arc<Topic>, validator: Validator, messages: mpsc::Sender<Message>) {
        let hash = topic.ident.hash();
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        if let Err(e) = gossip.subscribe(&topic.ident) {
            error!(target: "pubsub", topic = %hash, "cannot subscribe: {e}");
        }
        let is_subscribed = |topics: &[&TopicHash]| topics.contains(&&hash);
        let peers: HashSet<PeerId> =
            gossip.all_peers().filter(|(_, topics)| is_subscribed(topics)).map(|(peer, _)| *peer).collect();
        topic.subscribers.send_replace(peers.len());
        self.subscriptions.insert(hash, Subscription { topic, validator, messages, peers });
    }

    fn on_publish(&mut self, topic: &Topic, data: Vec<u8>) {
        match self.swarm.behaviour_mut().gossip.publish(topic.ident.hash(), data) {
            Ok(_) | Err(PublishError::NoPeersSubscribedToTopic) => {}
            Err(e) => warn!(target: "pubsub", topic = %topic.ident, "message not published: {e}"),
        }
    }

    fn on_dial(&mut self, peer: PeerId, respond_to: oneshot::Sender<Result<(), Error>>) {
        if self.swarm.is_connected(&peer) {
            let _ = respond_to.send(Ok(()));
            return;
        }
        match self.dial(peer) {
            Ok(()) => self.dials.entry(peer).or_default().push(respond_to),
            Err(reason) => {
                let _ = respond_to.send(Err(Error::Dial { peer, reason }));
            }
        }
    }

    /// Starts a dial by peer id, or joins the one that is under way.
    fn dial(&mut self, peer: PeerId) -> Result<(), String> {
        let mut addrs = self.shared.peerstore().addrs(&peer, Instant::now());
        addrs.retain(|addr| !addrs::is_relayed(addr));
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(addrs)
            .extend_addresses_through_behaviour()
            .build();
        match self.swarm.dial(options) {
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => Ok(()),
            Err(e) => Err(reason(&e)),
        }
    }

    fn dial_nameless(&mut self) {
        for addr in &self.nameless {
            if let Err(e) = self.swarm.dial(addr.clone()) {
                warn!(target: "pstoremgr", "cannot dial {addr}: {}", reason(&e));
            }
        }
    }

    /// Starts a round that brings the number of connected peers up to `wanted`.
    fn bootstrap(&mut self, wanted: usize, respond_to: Option<oneshot::Sender<Vec<PeerId>>>) {
        let missing = wanted.saturating_sub(self.swarm.connected_peers().count());
        let mut candidates = self.shared.peerstore().by_priority(Instant::now());
        candidates.retain(|peer| !self.swarm.is_connected(peer));
        self.rounds.push(Round::new(missing, candidates, respond_to));
        self.advance_rounds();
    }

    fn advance_rounds(&mut self) {
        let mut rounds = std::mem::take(&mut self.rounds);
        rounds.retain_mut(|round| {
            while let Some(peer) = round.next() {
                if self.swarm.is_connected(&peer) {
                    round.on_ended(&peer, true);
                } else if let Err(reason) = self.dial(peer) {
                    debug!(target: "pstoremgr", %peer, "cannot dial: {reason}");
                    round.on_ended(&peer, false);
                }
            }
            !round.is_done()
        });
        self.rounds = rounds;
    }

    fn on_look(&mut self) {
        let now = Instant::now();
        self.looks += 1;
        self.shared.peerstore().expire(now);
        let excess = {
            let protected = self.shared.protected.lock().unwrap_or_else(PoisonError::into_inner);
            self.connections.excess(self.config.marks, &protected, now)
        };
        for id in excess {
            self.swarm.close_connection(id);
        }
        // a round that is still under way does the same work
        if self.rounds.is_empty() && self.connections.len() < self.config.marks.low {
            self.bootstrap(self.config.marks.low, None);
        }
        if self.config.has_peer_addresses && self.looks.is_multiple_of(LOOKS_PER_PRIORITY_ROUND) {
            let is_reached = self.config.priority_peers.iter().any(|peer| self.swarm.is_connected(peer));
            if !is_reached {
                self.rounds.push(Round::new(1, self.config.priority_peers.iter().copied(), None));
                self.advance_rounds();
            }
        }
        if self.connections.len() == 0 {
            self.dial_nameless();
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
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, cause, .. } => {
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
                self.listening.insert(address);
                self.announce();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.listening.remove(&address);
                self.announce();
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                error!(target: "cluster", ?addresses, ?reason, "no longer listening");
            }
            SwarmEvent::ListenerError { error, .. } => warn!(target: "cluster", "listener: {error}"),
            _ => {}
        }
    }

    /// Tells others, and our own `id`, where we are now.
    fn announce(&mut self) {
        let announced =
            addrs::announced(self.listening.iter(), &self.config.announce, &self.config.no_announce);
        let gone: Vec<Multiaddr> =
            self.swarm.external_addresses().filter(|addr| !announced.contains(addr)).cloned().collect();
        for addr in &gone {
            self.swarm.remove_external_address(addr);
        }
        for addr in &announced {
            if !self.swarm.external_addresses().any(|known| known == addr) {
                self.swarm.add_external_address(addr.clone());
            }
        }
        *self.shared.announced.write().unwrap_or_else(PoisonError::into_inner) = announced;
    }

    fn on_connected(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let now = Instant::now();
        let addr = endpoint.get_remote_address();
        debug!(target: "swarm2", %peer, %addr, "connected");
        self.connections.opened(connection, peer, now);
        self.seen.insert(connection, addr.clone());
        {
            let mut store = self.shared.peerstore();
            if endpoint.is_dialer() {
                let addr = addrs::split_peer(addr).map_or_else(|| addr.clone(), |(_, addr)| addr);
                store.add(peer, addr, Some(RECENT_TTL), now);
            }
            store.set_connected(&peer, true, now);
        }
        self.shared.connected.write().unwrap_or_else(PoisonError::into_inner).insert(peer);
        for respond_to in self.dials.remove(&peer).unwrap_or_default() {
            let _ = respond_to.send(Ok(()));
        }
        self.end_dial(&peer, true);
    }

    fn on_closed(&mut self, peer: PeerId, connection: ConnectionId, was_last: bool) {
        self.connections.closed(connection);
        self.seen.remove(&connection);
        if !was_last {
            return;
        }
        self.shared.peerstore().set_connected(&peer, false, Instant::now());
        self.shared.connected.write().unwrap_or_else(PoisonError::into_inner).remove(&peer);
        for subscription in self.subscriptions.values_mut() {
            subscription.left(&peer);
        }
    }

    fn on_dial_failed(&mut self, peer: Option<PeerId>, error: &DialError) {
        let Some(peer) = peer else {
            debug!(target: "pstoremgr", "cannot connect: {}", reason(error));
            return;
        };
        debug!(target: "pstoremgr", %peer, "cannot connect: {}", reason(error));
        let is_connected = self.swarm.is_connected(&peer);
        if !is_connected {
            self.shared.peerstore().set_priority(peer, UNREACHABLE);
        }
        for respond_to in self.dials.remove(&peer).unwrap_or_default() {
            let _ = respond_to.send(if is_connected {
                Ok(())
            } else {
                Err(Error::Dial { peer, reason: reason(error) })
            });
        }
        self.end_dial(&peer, is_connected);
    }

    fn end_dial(&mut self, peer: &PeerId, is_connected: bool) {
        let mut was_ours = false;
        for round in &mut self.rounds {
            was_ours |= round.on_ended(peer, is_connected);
        }
        if was_ours {
            self.advance_rounds();
        }
    }

    fn on_identified(&mut self, connection: ConnectionId, peer: PeerId, info: identify::Info) {
        debug!(target: "identify", %peer, agent = info.agent_version, "identified");
        let Some(seen) = self.seen.get(&connection) else { return };
        let now = Instant::now();
        let mut store = self.shared.peerstore();
        for addr in info.listen_addrs {
            // some implementations add their own id
            let addr = match addrs::split_peer(&addr) {
                Some((claimed, _)) if claimed != peer => continue,
                Some((_, addr)) => addr,
                None => addr,
            };
            if addrs::is_plausible(&addr, seen) {
                store.add(peer, addr, Some(RECENT_TTL), now);
            }
        }
        store.set_connected(&peer, self.swarm.is_connected(&peer), now);
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let acceptance = self.deliver(message);
                self.swarm.behaviour_mut().gossip.report_message_validation_result(
                    &message_id,
                    &propagation_source,
                    acceptance,
                );
            }
            gossipsub::Event::Subscribed { peer_id, topic } => {
                if let Some(subscription) = self.subscriptions.get_mut(&topic) {
                    subscription.joined(peer_id);
                }
            }
            gossipsub::Event::Unsubscribed { peer_id, topic } => {
                if let Some(subscription) = self.subscriptions.get_mut(&topic) {
                    subscription.left(&peer_id);
                }
            }
            gossipsub::Event::SlowPeer { peer_id, failed_messages } => {
                debug!(target: "pubsub", peer = %peer_id, ?failed_messages, "peer is too slow for its messages");
            }
            _ => {}
        }
    }

    fn deliver(&self, message: gossipsub::Message) -> MessageAcceptance {
        let (Some(source), Some(subscription)) = (message.source, self.subscriptions.get(&message.topic))
        else {
            return MessageAcceptance::Ignore;
        };
        if !(subscription.validator)(&source) {
            return MessageAcceptance::Reject;
        }
        match subscription.messages.try_send(Message { source, data: message.data }) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                warn!(target: "pubsub", topic = %message.topic, "subscriber too slow: message lost");
            }
        }
        MessageAcceptance::Accept
    }
}

impl Subscription {
    fn joined(&mut self, peer: PeerId) {
        if self.peers.insert(peer) {
            self.topic.subscribers.send_replace(self.peers.len());
        }
    }

    fn left(&mut self, peer: &PeerId) {
        if self.peers.remove(peer) {
            self.topic.subscribers.send_replace(self.peers.len());
        }
    }
}

/// Whether another program listens there. libp2p shares ports between sockets of one user, so that two peers on one
/// port would each get some of the connections; binding without that finds out.
fn check_free(addr: &Multiaddr) -> Result<(), Error> {
    let mut parts = addr.iter();
    let ip: IpAddr = match parts.next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        _ => return Ok(()),
    };
    let Some(Protocol::Tcp(port)) = parts.next() else { return Ok(()) };
    let is_in_use = |ip: IpAddr| {
        // what else may be wrong, listening itself will say
        TcpListener::bind(SocketAddr::new(ip, port)).is_err_and(|e| e.kind() == io::ErrorKind::AddrInUse)
    };
    // this socket for `::` would take IPv4 too, which ours leaves to others
    let is_both = ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    if is_in_use(ip) && !(is_both && is_in_use(Ipv4Addr::UNSPECIFIED.into())) {
        return Err(Error::AddressInUse { addr: addr.clone() });
    }
    Ok(())
}

/// The causes of a failed dial, without the library's layers around them.
fn reason(error: &DialError) -> String {
    match error {
        DialError::NoAddresses => "no addresses".to_owned(),
        DialError::Transport(failures) => {
            let each = failures.iter().map(|(addr, e)| format!("{addr}: {}", innermost(e)));
            each.collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
