//! Who is connected, over which addresses, and what they told about themselves: `swarm/peers`, `id` of others.
//!
//! Kept by the worker of the open swarm; the cluster knows its peers by their own calls.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use cluster_compat::types::{Multiaddr, PeerId};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::{StreamProtocol, identify};
use tokio::sync::oneshot;

use super::{Cmd, Error, Network, addrs};

/// A peer and its addresses, without `/p2p`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Who.
    pub peer: PeerId,
    /// Where it can be reached, as far as known.
    pub addrs: Vec<Multiaddr>,
}

/// A connection to a peer.
#[derive(Debug, Clone)]
pub struct Connection {
    /// To whom.
    pub peer: PeerId,
    /// Its end, without `/p2p`.
    pub addr: Multiaddr,
    /// Whether we dialled.
    pub is_outbound: bool,
    /// How long an answer took last.
    pub latency: Option<Duration>,
    /// What the peer told.
    pub identity: Option<Arc<Identity>>,
}

/// What a peer told about itself.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its key, as protobuf.
    pub public_key: Vec<u8>,
    /// The program.
    pub agent: String,
    /// Sorted.
    pub protocols: Vec<String>,
    /// Where it says it listens.
    pub addrs: Vec<Multiaddr>,
}

/// The connections that stand. The lock is taken for a moment by the worker and by whoever asks.
#[derive(Default)]
pub(super) struct Contacts {
    by_id: RwLock<HashMap<ConnectionId, Connection>>,
}

impl Contacts {
    pub(super) fn opened(&self, id: ConnectionId, peer: PeerId, addr: &Multiaddr, is_outbound: bool) {
        let addr = addrs::split_peer(addr).map_or_else(|| addr.clone(), |(_, addr)| addr);
        let mut by_id = self.by_id.write().unwrap_or_else(PoisonError::into_inner);
        let identity =
            by_id.values().find(|other| other.peer == peer).and_then(|other| other.identity.clone());
        by_id.insert(id, Connection { peer, addr, is_outbound, latency: None, identity });
    }

    pub(super) fn closed(&self, id: ConnectionId) {
        self.by_id.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    pub(super) fn answered(&self, id: ConnectionId, latency: Duration) {
        if let Some(known) = self.by_id.write().unwrap_or_else(PoisonError::into_inner).get_mut(&id) {
            known.latency = Some(latency);
        }
    }

    pub(super) fn identified(&self, peer: PeerId, info: &identify::Info) {
        let mut protocols: Vec<String> = info.protocols.iter().map(StreamProtocol::to_string).collect();
        protocols.sort_unstable();
        let identity = Arc::new(Identity {
            public_key: info.public_key.encode_protobuf(),
            agent: info.agent_version.clone(),
            protocols,
            addrs: info.listen_addrs.iter().filter_map(|addr| addrs::claimed_by(&peer, addr)).collect(),
        });
        let mut by_id = self.by_id.write().unwrap_or_else(PoisonError::into_inner);
        for known in by_id.values_mut().filter(|known| known.peer == peer) {
            known.identity = Some(Arc::clone(&identity));
        }
    }

    /// Those that `is_meant` says.
    pub(super) fn find(&self, is_meant: impl Fn(&Connection) -> bool) -> Vec<ConnectionId> {
        let by_id = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        by_id.iter().filter(|(_, known)| is_meant(known)).map(|(id, _)| *id).collect()
    }
}

impl Network {
    /// All connections of the open swarm, by address.
    pub fn connections(&self) -> Vec<Connection> {
        let by_id = self.shared.contacts.by_id.read().unwrap_or_else(PoisonError::into_inner);
        let mut connections: Vec<Connection> = by_id.values().cloned().collect();
        connections.sort_by_cached_key(|known| (known.addr.to_string(), known.peer));
        connections
    }

    /// The known addresses of all peers, connected or not.
    pub fn known_peers(&self) -> Vec<Contact> {
        let now = Instant::now();
        let store = self.shared.peerstore();
        store
            .by_priority(now)
            .into_iter()
            .map(|peer| Contact { peer, addrs: store.addrs(&peer, now) })
            .collect()
    }

    /// Where the sockets are, announced or not.
    pub fn sockets(&self) -> Vec<Multiaddr> {
        let listening = self.shared.listening.read().unwrap_or_else(PoisonError::into_inner);
        listening.iter().cloned().collect()
    }

    /// Connects to a peer at one address and, should that fail, at those known already; at once if it is connected.
    pub async fn connect(&self, addr: &Multiaddr) -> Result<PeerId, Error> {
        // a peer id alone is looked for in the DHTs
        let peer = match (addr.iter().next(), addr.iter().nth(1)) {
            (Some(Protocol::P2p(peer)), None) => peer,
            _ => self.know(addr, Some(super::peerstore::RECENT_TTL), None)?,
        };
        self.dial(peer).await.map(|()| peer)
    }

    /// Connects to a peer at any of some addresses and those known already.
    pub async fn dial_at(&self, contact: &Contact) -> Result<(), Error> {
        if contact.peer != self.local_peer {
            let now = Instant::now();
            let mut store = self.shared.peerstore();
            for addr in contact.addrs.iter().take(super::dht::MAX_ADDRS_PER_PEER) {
                store.add(contact.peer, addr.clone(), Some(super::peerstore::RECENT_TTL), now);
            }
        }
        self.dial(contact.peer).await
    }

    /// Ends the connections to a peer, or the one at an address; says how many there were.
    pub async fn disconnect(&self, peer: PeerId, addr: Option<Multiaddr>) -> Result<usize, Error> {
        let (respond_to, answer) = oneshot::channel();
        self.ask(Cmd::Disconnect { peer, addr, respond_to }, answer).await
    }
}
