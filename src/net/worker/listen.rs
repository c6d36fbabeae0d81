//! Where we listen, and what we tell others about it.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::PoisonError;
use std::time::Duration;

use cluster_compat::types::Multiaddr;
use futures::{FutureExt as _, StreamExt as _};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use tracing::{error, warn};

use super::Worker;
use crate::net::{Error, addrs};

/// Longest wait for the first address of each listener.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

impl Worker {
    /// Binds all listen addresses and waits until each has told where it is.
    pub(in crate::net) async fn listen(&mut self) -> Result<(), Error> {
        let configured = self.config.listen.clone();
        let mut usable = Vec::new();
        for addr in &configured {
            match addrs::listen_kind(addr)? {
                addrs::Listen::Tcp => usable.push(addr),
                addrs::Listen::Quic if self.config.has_quic => usable.push(addr),
                addrs::Listen::Quic | addrs::Listen::Ignored => {
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
        // the embedded node may do without: it dials, and its blocks are served over those connections
        let is_deaf = configured.is_empty() && self.has_contacts;
        if waiting.is_empty() && !is_deaf {
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

    /// Tells others, and our own `id`, where we are now.
    pub(super) fn announce(&mut self) {
        let detected = self.listening.iter().chain(&self.reach.confirmed);
        let announced = addrs::announced(detected, &self.config.announce, &self.config.no_announce);
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
        self.shared.listening.write().unwrap_or_else(PoisonError::into_inner).clone_from(&self.listening);
        *self.shared.announced.write().unwrap_or_else(PoisonError::into_inner) = announced;
    }
}

/// Whether another program listens there. libp2p shares ports between sockets of one user, so that two peers on one
/// port would each get some of the connections; binding without that finds out.
pub(in crate::net) fn check_free(addr: &Multiaddr) -> Result<(), Error> {
    let mut parts = addr.iter();
    let ip: IpAddr = match parts.next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        _ => return Ok(()),
    };
    let port = parts.next();
    let is_in_use = |ip: IpAddr| {
        let bound = match port {
            Some(Protocol::Tcp(port)) => TcpListener::bind(SocketAddr::new(ip, port)).map(drop),
            Some(Protocol::Udp(port)) => UdpSocket::bind(SocketAddr::new(ip, port)).map(drop),
            _ => Ok(()),
        };
        // what else may be wrong, listening itself will say
        bound.is_err_and(|e| e.kind() == io::ErrorKind::AddrInUse)
    };
    // this socket for `::` would take IPv4 too, which ours leaves to others
    let is_both = ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    if is_in_use(ip) && !(is_both && is_in_use(Ipv4Addr::UNSPECIFIED.into())) {
        return Err(Error::AddressInUse { addr: addr.clone() });
    }
    Ok(())
}
