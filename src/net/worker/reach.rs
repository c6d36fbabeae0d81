//! Whether others can reach us, and what follows: who we serve as, what we announce, whose relay we use
//! (spec: wire 1.3, 1.5).
//!
//! Until somebody has confirmed an address, the peer takes itself for unreachable: it asks the internet's DHT and
//! does not answer, and relays for nobody.

use std::collections::{BTreeSet, HashMap};
use std::io;

use cluster_compat::types::{Multiaddr, PeerId};
use libp2p::autonat::v1::NatStatus;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::{StreamProtocol, autonat, dcutr, kad, relay, upnp};
use tracing::{debug, error, info};

use super::Worker;
use crate::net::addrs::{self, Reach};

/// What a relay speaks.
const HOP_PROTOCOL: StreamProtocol = StreamProtocol::new("/libp2p/circuit/relay/0.2.0/hop");

/// Relays used at the same time.
const MAX_RELAYS: usize = 2;

/// Connected relays remembered.
const MAX_KNOWN_RELAYS: usize = 64;

/// Confirmed addresses; a peer has few.
const MAX_CONFIRMED: usize = 16;

/// What is known about our own reachability.
#[derive(Debug, Default)]
pub(super) struct Reachability {
    /// Addresses that others reach us at, found out or opened on a gateway.
    pub(super) confirmed: BTreeSet<Multiaddr>,
    /// Nobody reaches us: relays are needed.
    is_private: bool,
    /// Connected peers that relay, and where they are.
    relays: HashMap<PeerId, Multiaddr>,
    /// Relays that we listen at.
    reservations: HashMap<ListenerId, PeerId>,
}

impl Worker {
    pub(super) fn on_autonat(&mut self, event: autonat::v1::Event) {
        let autonat::v1::Event::StatusChanged { old, new } = event else { return };
        info!(target: "autonat", ?old, ?new, "reachability changed");
        match new {
            NatStatus::Public(_) => {
                self.reach.is_private = false;
                self.set_public(true);
            }
            NatStatus::Private => self.make_private(),
            NatStatus::Unknown => self.set_public(false),
        }
    }

    /// Nobody reaches us but through relays.
    pub(super) fn make_private(&mut self) {
        self.reach.is_private = true;
        self.reach.confirmed.retain(addrs::is_relayed);
        self.set_public(false);
        self.announce();
        self.find_relays();
    }

    pub(super) fn on_upnp(&mut self, event: upnp::Event) {
        match event {
            upnp::Event::NewExternalAddr { local_addr, external_addr } => {
                info!(target: "nat", %local_addr, %external_addr, "a port is open on the gateway");
            }
            upnp::Event::ExpiredExternalAddr { local_addr, external_addr } => {
                info!(target: "nat", %local_addr, %external_addr, "a port is closed on the gateway");
            }
            upnp::Event::GatewayNotFound => debug!(target: "nat", "no gateway to open ports on"),
            upnp::Event::NonRoutableGateway => debug!(target: "nat", "the gateway has no public address"),
        }
    }

    pub(super) fn on_relay_client(&self, event: relay::client::Event) {
        if let relay::client::Event::ReservationReqAccepted { relay_peer_id, renewal: false, .. } = event {
            info!(target: "relay", relay = %relay_peer_id, "others reach us through a relay");
        }
    }

    pub(super) fn on_hole_punched(&self, event: dcutr::Event) {
        match event.result {
            Ok(_) => debug!(target: "p2p-holepunch", peer = %event.remote_peer_id, "direct connection"),
            Err(e) => {
                debug!(target: "p2p-holepunch", peer = %event.remote_peer_id, "no direct connection: {e}")
            }
        }
    }

    /// Somebody confirmed an address of ours, or a gateway or a relay gave us one.
    pub(super) fn on_confirmed(&mut self, addr: &Multiaddr) {
        let addr = addrs::claimed_by(self.swarm.local_peer_id(), addr).unwrap_or_else(|| addr.clone());
        if self.reach.confirmed.len() < MAX_CONFIRMED && self.reach.confirmed.insert(addr) {
            self.announce();
        }
    }

    pub(super) fn on_unconfirmed(&mut self, addr: &Multiaddr) {
        let addr = addrs::claimed_by(self.swarm.local_peer_id(), addr).unwrap_or_else(|| addr.clone());
        if self.reach.confirmed.remove(&addr) {
            self.announce();
        }
    }

    /// Serves the internet, or stops to.
    pub(super) fn set_public(&mut self, is_public: bool) {
        let (mode, status) = if is_public {
            (kad::Mode::Server, relay::Status::Enable)
        } else {
            (kad::Mode::Client, relay::Status::Disable)
        };
        let behaviour = self.swarm.behaviour_mut();
        behaviour.wan.set_mode(Some(mode));
        if let Some(relay) = behaviour.relay.as_mut() {
            relay.set_status(Some(status));
        }
    }

    /// Remembers which connected peers relay, at the best of their addresses.
    pub(super) fn on_speaks(&mut self, peer: PeerId, protocols: &[StreamProtocol], plausible: &[Multiaddr]) {
        let direct = || plausible.iter().filter(|addr| !addrs::is_relayed(addr));
        let is_public = |addr: &&Multiaddr| addrs::ip(addr).map(addrs::reach) == Some(Reach::World);
        let best = direct().find(is_public).or_else(|| direct().next());
        match best.filter(|_| protocols.contains(&HOP_PROTOCOL)) {
            Some(addr) if self.reach.relays.len() < MAX_KNOWN_RELAYS => {
                self.reach.relays.insert(peer, addr.clone());
                self.find_relays();
            }
            Some(_) => {}
            None => self.on_relay_gone(&peer),
        }
    }

    pub(super) fn on_relay_gone(&mut self, peer: &PeerId) {
        self.reach.relays.remove(peer);
    }

    /// An unreachable peer listens at relays.
    pub(super) fn find_relays(&mut self) {
        if !self.reach.is_private {
            return;
        }
        let used: Vec<PeerId> = self.reach.reservations.values().copied().collect();
        let unused: Vec<(PeerId, Multiaddr)> = self
            .reach
            .relays
            .iter()
            .filter(|(peer, _)| !used.contains(peer))
            .map(|(peer, addr)| (*peer, addr.clone()))
            .take(MAX_RELAYS.saturating_sub(used.len()))
            .collect();
        for (relay, addr) in unused {
            self.reserve(relay, addr);
        }
    }

    /// Listens at a relay.
    pub(super) fn reserve(&mut self, relay: PeerId, addr: Multiaddr) {
        let addr = addr.with(Protocol::P2p(relay)).with(Protocol::P2pCircuit);
        match self.swarm.listen_on(addr.clone()) {
            Ok(id) => {
                self.reach.reservations.insert(id, relay);
            }
            Err(e) => debug!(target: "relay", %addr, "cannot listen at a relay: {e}"),
        }
    }

    /// A listener ended. After one at a relay another relay is looked for later.
    pub(super) fn on_listener_closed(
        &mut self,
        id: ListenerId,
        addrs: &[Multiaddr],
        reason: Result<(), io::Error>,
    ) {
        match self.reach.reservations.remove(&id) {
            Some(relay) => {
                debug!(target: "relay", %relay, ?reason, "no longer listening at a relay");
                // it may have refused; it is remembered again when it is identified anew
                self.reach.relays.remove(&relay);
            }
            None => error!(target: "cluster", ?addrs, ?reason, "no longer listening"),
        }
    }
}
