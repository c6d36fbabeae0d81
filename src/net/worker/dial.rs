//! Whom to connect to, and how that went.

use std::net::{IpAddr, SocketAddr};
use std::sync::PoisonError;
use std::time::Instant;

use cluster_compat::types::{Multiaddr, PeerId};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::DialError;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::Worker;
use crate::net::bootstrap::{LOOKS_PER_PRIORITY_ROUND, Round};
use crate::net::peerstore::{RECENT_TTL, UNREACHABLE};
use crate::net::{Error, addrs};

/// Attempts under way beyond which a peer that is merely found has to wait until it is found again.
const MAX_DISCOVERED_DIALS: usize = 64;

/// An attempt to connect to a peer, step by step.
#[derive(Debug, Default)]
pub(super) struct Dial {
    next: Step,
    /// Addresses that were known when it began.
    n_known: usize,
    /// Why the step before failed.
    reason: String,
    waiting: Vec<oneshot::Sender<Result<(), Error>>>,
}

#[derive(Debug, Clone, Copy, Default)]
enum Step {
    /// By the addresses that are known.
    #[default]
    Direct,
    /// Through a relay, from where a direct connection may come about.
    Relayed,
    /// Ask the routing tables, if somebody waits.
    Search,
    /// By what they found.
    Found,
    Over,
}

impl Worker {
    pub(super) fn on_dial(&mut self, peer: PeerId, respond_to: oneshot::Sender<Result<(), Error>>) {
        if self.swarm.is_connected(&peer) {
            let _ = respond_to.send(Ok(()));
        } else if peer == *self.swarm.local_peer_id() {
            let _ = respond_to.send(Err(Error::Dial { peer, reason: "it is this peer".to_owned() }));
        } else {
            self.connect(peer, Some(respond_to));
        }
    }

    pub(super) fn on_disconnect(
        &mut self,
        peer: PeerId,
        addr: Option<&Multiaddr>,
        respond_to: oneshot::Sender<usize>,
    ) {
        let meant = self
            .shared
            .contacts
            .find(|known| known.peer == peer && addr.is_none_or(|addr| known.addr == *addr));
        for id in &meant {
            self.swarm.close_connection(*id);
        }
        let _ = respond_to.send(meant.len());
    }

    /// Connects to a peer that was found, unless there is enough to do already.
    pub(super) fn on_discovered(&mut self, peer: PeerId, addrs: Vec<Multiaddr>) {
        {
            let now = Instant::now();
            let mut store = self.shared.peerstore();
            for addr in addrs {
                store.add(peer, addr, Some(RECENT_TTL), now);
            }
        }
        let has_room =
            self.connections.len() < self.config.marks.high && self.dials.len() < MAX_DISCOVERED_DIALS;
        if has_room && peer != *self.swarm.local_peer_id() && !self.swarm.is_connected(&peer) {
            self.connect(peer, None);
        }
    }

    /// Starts to connect to a peer, or joins the attempt that is under way. Tells whether one is under way then.
    pub(super) fn connect(
        &mut self,
        peer: PeerId,
        respond_to: Option<oneshot::Sender<Result<(), Error>>>,
    ) -> bool {
        let is_new = !self.dials.contains_key(&peer);
        self.dials.entry(peer).or_default().waiting.extend(respond_to);
        if is_new {
            self.go_on(peer, "no addresses are known".to_owned());
        }
        self.dials.contains_key(&peer)
    }

    /// Takes the next step towards a peer, after one that failed.
    pub(super) fn go_on(&mut self, peer: PeerId, mut reason: String) {
        while let Some(dial) = self.dials.get_mut(&peer) {
            let known = self.shared.peerstore().addrs(&peer, Instant::now());
            let (relayed, direct): (Vec<_>, Vec<_>) = known.iter().cloned().partition(addrs::is_relayed);
            let attempt = match dial.next {
                Step::Direct => {
                    (dial.next, dial.n_known) = (Step::Relayed, known.len());
                    self.dial_at(peer, direct)
                }
                Step::Relayed => {
                    dial.next = Step::Search;
                    if relayed.is_empty() { Err(reason.clone()) } else { self.dial_at(peer, relayed) }
                }
                Step::Search => {
                    (dial.next, dial.reason) = (Step::Found, reason.clone());
                    let is_awaited = !dial.waiting.is_empty();
                    if is_awaited && self.look_up(peer) { Ok(()) } else { Err(reason.clone()) }
                }
                Step::Found => {
                    dial.next = Step::Over;
                    reason = std::mem::take(&mut dial.reason);
                    let is_new = known.len() > dial.n_known;
                    if is_new { self.dial_at(peer, known) } else { Err(reason.clone()) }
                }
                Step::Over => return self.end_dial(&peer, Err(reason)),
            };
            match attempt {
                Ok(()) => return,
                Err(failure) => reason = failure,
            }
        }
    }

    fn dial_at(&mut self, peer: PeerId, addrs: Vec<Multiaddr>) -> Result<(), String> {
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

    /// The routing tables have found what they can.
    pub(super) fn on_found(&mut self, peer: PeerId) {
        if self.swarm.is_connected(&peer) {
            self.end_dial(&peer, Ok(()));
        } else {
            self.go_on(peer, String::new());
        }
    }

    pub(super) fn dial_nameless(&mut self) {
        for addr in &self.nameless {
            if let Err(e) = self.swarm.dial(addr.clone()) {
                warn!(target: "pstoremgr", "cannot dial {addr}: {}", reason(&e));
            }
        }
    }

    /// Starts a round that brings the number of connected peers up to `wanted`.
    pub(super) fn bootstrap(&mut self, wanted: usize, respond_to: Option<oneshot::Sender<Vec<PeerId>>>) {
        let missing = wanted.saturating_sub(self.swarm.connected_peers().count());
        let mut candidates = self.shared.peerstore().by_priority(Instant::now());
        candidates.retain(|peer| !self.swarm.is_connected(peer));
        self.rounds.push(Round::new(missing, candidates, respond_to));
        self.advance_rounds();
    }

    pub(super) fn advance_rounds(&mut self) {
        let mut rounds = std::mem::take(&mut self.rounds);
        rounds.retain_mut(|round| {
            while let Some(peer) = round.next() {
                if self.swarm.is_connected(&peer) {
                    round.on_ended(&peer, true);
                } else if !self.connect(peer, None) {
                    round.on_ended(&peer, false);
                }
            }
            !round.is_done()
        });
        self.rounds = rounds;
    }

    pub(super) fn on_look(&mut self) {
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
        self.find_relays();
        if self.connections.len() == 0 {
            self.dial_nameless();
        }
    }

    pub(super) fn on_dial_failed(&mut self, peer: Option<PeerId>, error: &DialError) {
        let Some(peer) = peer else {
            debug!(target: "pstoremgr", "cannot connect: {}", reason(error));
            return;
        };
        debug!(target: "pstoremgr", %peer, "cannot connect: {}", reason(error));
        let is_connected = self.swarm.is_connected(&peer);
        if is_connected {
            self.end_dial(&peer, Ok(()));
        } else if !self.is_searched(&peer) {
            // while the routing tables are asked they dial too
            self.go_on(peer, reason(error));
        }
    }

    /// Answers those who wait, and goes on with the rounds.
    pub(super) fn end_dial(&mut self, peer: &PeerId, result: Result<(), String>) {
        if let Some(dial) = self.dials.remove(peer) {
            if result.is_err() {
                self.shared.peerstore().set_priority(*peer, UNREACHABLE);
            }
            for respond_to in dial.waiting {
                let result = result.clone().map_err(|reason| Error::Dial { peer: *peer, reason });
                let _ = respond_to.send(result);
            }
        }
        let mut was_ours = false;
        for round in &mut self.rounds {
            was_ours |= round.on_ended(peer, result.is_ok());
        }
        if was_ours {
            self.advance_rounds();
        }
    }
}

/// The causes of a failed dial, without the library's layers around them; clients read them, so they are worded as
/// go-libp2p's where that is known.
pub(in crate::net) fn reason(error: &DialError) -> String {
    match error {
        DialError::NoAddresses => "no addresses".to_owned(),
        DialError::Transport(failures) => {
            let each =
                failures.iter().map(|(addr, e)| format!("\n  * [{}] {}", nameless(addr), cause(addr, e)));
            let mut each: Vec<String> = each.collect();
            // with and without the peer's id it is the same address
            each.dedup();
            format!("all dials failed{}", each.concat())
        }
        other => other.to_string(),
    }
}

fn nameless(addr: &Multiaddr) -> Multiaddr {
    addrs::split_peer(addr).map_or_else(|| addr.clone(), |(_, addr)| addr)
}

fn cause(addr: &Multiaddr, error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    let refused = error.to_string().starts_with("Connection refused");
    match (refused, socket(addr)) {
        (true, Some(socket)) => {
            let version = if socket.is_ipv4() { 4 } else { 6 };
            format!("dial tcp{version} {socket}: connect: connection refused")
        }
        _ => error.to_string(),
    }
}

fn socket(addr: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = addr.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}
