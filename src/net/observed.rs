//! A bound for the addresses that others claim to see us at.
//!
//! identify hands each of them to every protocol, and one of those keeps them all: a peer that claims another address
//! each time would fill the memory. Only so many different ones are let through.

use std::collections::HashSet;
use std::task::{Context, Poll};

use cluster_compat::types::{Multiaddr, PeerId};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::identify;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm,
};

/// Different addresses let through; a peer has few, and those of a move to another network fit too.
const MAX_OBSERVED: usize = 64;

/// identify with that bound.
pub(super) struct Identify {
    inner: identify::Behaviour,
    observed: HashSet<Multiaddr>,
}

impl Identify {
    /// Around the library's.
    pub(super) fn new(config: identify::Config) -> Self {
        Self { inner: identify::Behaviour::new(config), observed: HashSet::new() }
    }

    fn lets_through(&mut self, addr: &Multiaddr) -> bool {
        self.observed.contains(addr)
            || self.observed.len() < MAX_OBSERVED && self.observed.insert(addr.clone())
    }
}

impl NetworkBehaviour for Identify {
    type ConnectionHandler = <identify::Behaviour as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = identify::Event;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local_addr: &Multiaddr,
        remote_addr: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(id, local_addr, remote_addr)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local_addr: &Multiaddr,
        remote_addr: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(id, peer, local_addr, remote_addr)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addrs: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(id, peer, addrs, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(id, peer, addr, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        self.inner.on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            match self.inner.poll(cx) {
                Poll::Ready(ToSwarm::NewExternalAddrCandidate(addr)) if !self.lets_through(&addr) => {}
                polled => return polled,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;

    use super::*;

    #[test]
    fn made_up_addresses_are_let_through_up_to_the_bound() {
        let config = identify::Config::new(String::new(), Keypair::generate_ed25519().public());
        let mut identify = Identify::new(config);
        let addr = |port: usize| format!("/ip4/203.0.113.1/tcp/{port}").parse::<Multiaddr>().unwrap();
        let n_through = (0..1000).filter(|port| identify.lets_through(&addr(*port))).count();
        assert_eq!(n_through, MAX_OBSERVED);
        assert!(identify.lets_through(&addr(0)));
    }
}
