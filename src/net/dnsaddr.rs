//! What `/dnsaddr/<name>` stands for: peers, with their ids (spec: wire 1.6).
//!
//! The swarm resolves such an address itself when it dials a peer by id. One that names no peer is resolved here, by
//! the same library: a transport that notes what it should dial takes the place of TCP.

use std::convert::Infallible;
use std::future::Ready;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use cluster_compat::types::{Multiaddr, PeerId};
use libp2p::core::transport::{DialOpts, ListenerId, PortUse, TransportError, TransportEvent};
use libp2p::core::{Endpoint, Transport};
use libp2p::dns;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{Cmd, Error, Network, addrs};

/// Longest resolution of one address. (Go: `pstoremgr`, `DNSTimeout`)
const TIMEOUT: Duration = Duration::from_secs(5);

/// Pause before what could not be resolved is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(30);

/// Addresses that one name may stand for.
const MAX_ADDRS: usize = 64;

/// Resolves `names` and tells the swarm of the peers, again and again until each has named one.
pub(super) async fn import(mut names: Vec<Multiaddr>, found: mpsc::Sender<Cmd>, stop: CancellationToken) {
    loop {
        let mut unresolved = Vec::new();
        for name in names {
            let resolved = tokio::select! {
                () = stop.cancelled() => return,
                resolved = resolve(&name) => resolved,
            };
            let peers: Vec<_> = resolved.iter().filter_map(addrs::split_peer).collect();
            if peers.is_empty() {
                error!(target: "pstoremgr", "could not resolve {name}: no address of a peer");
                unresolved.push(name);
                continue;
            }
            info!(target: "pstoremgr", "{name} stands for {} addresses", peers.len());
            for (peer, addr) in peers {
                if found.send(Cmd::Found { peer, addrs: vec![addr] }).await.is_err() {
                    return;
                }
            }
        }
        if unresolved.is_empty() {
            return;
        }
        names = unresolved;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY_EVERY) => {}
        }
    }
}

impl Network {
    /// As [`Network::add_addr`], for an address given by a user: what a `/dnsaddr` without a peer stands for is added,
    /// and its last peer named.
    pub async fn import_addr(&self, addr: &Multiaddr) -> Result<PeerId, Error> {
        if !addrs::is_dnsaddr(addr) || addrs::split_peer(addr).is_some() {
            return self.add_addr(addr);
        }
        let mut last = None;
        for resolved in resolve(addr).await {
            last = self.add_addr(&resolved).ok().or(last);
        }
        last.ok_or_else(|| Error::Unresolved { addr: addr.clone() })
    }
}

/// The addresses that a name stands for, as far as they come in time.
pub async fn resolve(name: &Multiaddr) -> Vec<Multiaddr> {
    let noted = Noted::default();
    let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    if let Ok(mut resolver) = dns::tokio::Transport::system(noted.clone())
        && let Ok(dial) = resolver.dial(name.clone(), options)
    {
        // it ends with an error, since nothing is dialled, or late
        let _ = tokio::time::timeout(TIMEOUT, dial).await;
    }
    std::mem::take(&mut *noted.addrs.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A transport that dials nothing. The lock is taken for a moment by each dial.
#[derive(Debug, Clone, Default)]
struct Noted {
    addrs: Arc<Mutex<Vec<Multiaddr>>>,
}

impl Transport for Noted {
    type Output = Infallible;
    type Error = std::io::Error;
    type ListenerUpgrade = Ready<Result<Infallible, Self::Error>>;
    type Dial = Ready<Result<Infallible, Self::Error>>;

    fn listen_on(&mut self, _: ListenerId, addr: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        Err(TransportError::MultiaddrNotSupported(addr))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(&mut self, addr: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<Self::Error>> {
        let mut addrs = self.addrs.lock().unwrap_or_else(PoisonError::into_inner);
        if addrs.len() < MAX_ADDRS {
            addrs.push(addr.clone());
        }
        Err(TransportError::MultiaddrNotSupported(addr))
    }

    fn poll(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_needs_no_resolving_is_noted_as_it_is() {
        let addr: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        assert_eq!(resolve(&addr).await, [addr]);
    }

    #[tokio::test]
    async fn a_name_of_this_machine_becomes_its_address() {
        let resolved = resolve(&"/dns4/localhost/tcp/1".parse().unwrap()).await;
        assert_eq!(resolved, ["/ip4/127.0.0.1/tcp/1".parse::<Multiaddr>().unwrap()]);
    }
}
