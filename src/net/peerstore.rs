//! Addresses of other peers: how long they count, which to try first, what to save (spec: wire 1.6).
//!
//! Pure: instants are arguments. Bounded: a peer that lies about its addresses costs a fixed amount.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use cluster_compat::types::{Multiaddr, PeerId};
use libp2p::multiaddr::Protocol;

use super::addrs::is_dns;

/// Most peers remembered; a cluster of this size has other problems first.
const MAX_PEERS: usize = 10_000;

/// Most addresses remembered for one peer.
const MAX_ADDRS_PER_PEER: usize = 64;

/// How long addresses from the peerstore file count.
pub(super) const FILE_TTL: Duration = Duration::from_secs(60 * 60);

/// How long addresses of a peer count after its last connection ended.
pub(super) const RECENT_TTL: Duration = Duration::from_secs(15 * 60);

/// Priority of a peer that could not be reached.
pub(super) const UNREACHABLE: u32 = 9999;

/// What is known about other peers.
#[derive(Debug, Default)]
pub(super) struct Peerstore {
    peers: HashMap<PeerId, Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// With the instant they stop counting; `None` is never.
    addrs: Vec<(Multiaddr, Option<Instant>)>,
    /// 0 goes first.
    priority: u32,
    is_connected: bool,
}

impl Known {
    fn is_valid(&self, until: Option<Instant>, now: Instant) -> bool {
        self.is_connected || until.is_none_or(|until| until > now)
    }
}

/// Orders instants, of which `None` is the last.
fn last(a: &Option<Instant>, b: &Option<Instant>) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => a.cmp(b),
    }
}

impl Peerstore {
    /// Remembers an address (without `/p2p`); it never counts for less than it did. `None` is for ever. Where there is
    /// no room, what would be forgotten first makes some.
    pub(super) fn add(&mut self, peer: PeerId, addr: Multiaddr, ttl: Option<Duration>, now: Instant) {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&peer) && !self.make_room() {
            return;
        }
        let until = ttl.map(|ttl| now + ttl);
        let known = self.peers.entry(peer).or_default();
        if let Some((_, old)) = known.addrs.iter_mut().find(|(known, _)| *known == addr) {
            *old = old.zip(until).map(|(old, until)| old.max(until));
        } else if known.addrs.len() < MAX_ADDRS_PER_PEER {
            known.addrs.push((addr, until));
        } else {
            let passing = known.addrs.iter_mut().filter(|(_, until)| until.is_some());
            if let Some(first) = passing.min_by_key(|(_, until)| *until) {
                *first = (addr, until);
            }
        }
    }

    /// Forgets the peer that would be forgotten first. Tells whether there is one.
    fn make_room(&mut self) -> bool {
        let until = |known: &Known| known.addrs.iter().map(|(_, until)| *until).max_by(last);
        let passing = self.peers.iter().filter(|(_, known)| !known.is_connected);
        let passing = passing.filter_map(|(peer, known)| Some((until(known)??, *peer)));
        let Some((_, peer)) = passing.min_by_key(|(until, _)| *until) else { return false };
        self.peers.remove(&peer).is_some()
    }

    /// Ranks a peer for the first connections: 0 goes first.
    pub(super) fn set_priority(&mut self, peer: PeerId, priority: u32) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.priority = priority;
        }
    }

    /// The addresses of a connected peer count, whatever their time; after the end they count for [`RECENT_TTL`].
    pub(super) fn set_connected(&mut self, peer: &PeerId, is_connected: bool, now: Instant) {
        let Some(known) = self.peers.get_mut(peer) else { return };
        if known.is_connected && !is_connected {
            for until in known.addrs.iter_mut().filter_map(|(_, until)| until.as_mut()) {
                *until = (*until).max(now + RECENT_TTL);
            }
        }
        known.is_connected = is_connected;
    }

    /// Drops what no longer counts.
    pub(super) fn expire(&mut self, now: Instant) {
        self.peers.retain(|_, known| {
            if !known.is_connected {
                known.addrs.retain(|(_, until)| until.is_none_or(|until| until > now));
            }
            known.is_connected || !known.addrs.is_empty()
        });
    }

    /// Every address of a peer.
    pub(super) fn addrs(&self, peer: &PeerId, now: Instant) -> Vec<Multiaddr> {
        let Some(known) = self.peers.get(peer) else { return Vec::new() };
        let valid = known.addrs.iter().filter(|(_, until)| known.is_valid(*until, now));
        valid.map(|(addr, _)| addr.clone()).collect()
    }

    /// Peers with addresses, by priority, then by id.
    pub(super) fn by_priority(&self, now: Instant) -> Vec<PeerId> {
        let has_addrs = |known: &Known| known.addrs.iter().any(|(_, until)| known.is_valid(*until, now));
        let mut peers: Vec<(u32, PeerId)> = self
            .peers
            .iter()
            .filter(|(_, known)| has_addrs(known))
            .map(|(peer, known)| (known.priority, *peer))
            .collect();
        peers.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.to_bytes().cmp(&b.1.to_bytes())));
        peers.into_iter().map(|(_, peer)| peer).collect()
    }

    /// Addresses with `/p2p` of those of `peers` that have any: by priority; only the named ones of a peer that has
    /// names, else sorted as text.
    pub(super) fn full_addrs(&self, peers: &[PeerId], now: Instant) -> Vec<Multiaddr> {
        let mut ranked: Vec<(u32, PeerId)> = peers
            .iter()
            .filter_map(|peer| self.peers.get(peer).map(|known| (known.priority, *peer)))
            .collect();
        ranked.sort_by_key(|(priority, _)| *priority);
        let mut full = Vec::new();
        for (_, peer) in ranked {
            let mut addrs = self.addrs(&peer, now);
            if addrs.iter().any(is_dns) {
                addrs.retain(is_dns);
            } else {
                addrs.sort_by_cached_key(ToString::to_string);
            }
            full.extend(addrs.into_iter().map(|addr| addr.with(Protocol::P2p(peer))));
        }
        full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_count_until_their_time_or_while_connected() {
        let (peer, now) = (PeerId::random(), Instant::now());
        let mut store = Peerstore::default();
        store.add(peer, addr("/ip4/10.0.0.1/tcp/1"), Some(FILE_TTL), now);
        store.add(peer, addr("/ip4/10.0.0.2/tcp/1"), None, now);
        let later = now + FILE_TTL;
        assert_eq!(store.addrs(&peer, now).len(), 2);
        assert_eq!(store.addrs(&peer, later).len(), 1);
        store.set_connected(&peer, true, now);
        assert_eq!(store.addrs(&peer, later).len(), 2);
        store.set_connected(&peer, false, later);
        assert_eq!(store.addrs(&peer, later).len(), 2);
        store.expire(later + RECENT_TTL);
        assert_eq!(store.addrs(&peer, now).len(), 1);
    }

    #[test]
    fn a_permanent_address_stays_permanent() {
        let (peer, now) = (PeerId::random(), Instant::now());
        let mut store = Peerstore::default();
        store.add(peer, addr("/ip4/10.0.0.1/tcp/1"), None, now);
        store.add(peer, addr("/ip4/10.0.0.1/tcp/1"), Some(FILE_TTL), now);
        assert_eq!(store.addrs(&peer, now + 2 * FILE_TTL).len(), 1);
    }

    #[test]
    fn saved_lines_go_by_priority_and_prefer_names() {
        let (first, second, now) = (PeerId::random(), PeerId::random(), Instant::now());
        let mut store = Peerstore::default();
        store.add(second, addr("/ip4/10.0.0.2/tcp/1"), None, now);
        store.add(second, addr("/ip4/10.0.0.1/tcp/1"), None, now);
        store.set_priority(second, 1);
        store.add(first, addr("/ip4/10.0.0.3/tcp/1"), None, now);
        store.add(first, addr("/dns4/example.com/tcp/1"), None, now);
        let lines: Vec<String> = store
            .full_addrs(&[second, PeerId::random(), first], now)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            lines,
            [
                format!("/dns4/example.com/tcp/1/p2p/{first}"),
                format!("/ip4/10.0.0.1/tcp/1/p2p/{second}"),
                format!("/ip4/10.0.0.2/tcp/1/p2p/{second}"),
            ]
        );
        assert_eq!(store.by_priority(now), [first, second]);
    }

    #[test]
    fn many_peers_cannot_push_out_those_that_count() {
        let (wanted, connected, now) = (PeerId::random(), PeerId::random(), Instant::now());
        let mut store = Peerstore::default();
        store.add(wanted, addr("/ip4/10.0.0.1/tcp/1"), None, now);
        store.add(connected, addr("/ip4/10.0.0.2/tcp/1"), Some(RECENT_TTL), now);
        store.set_connected(&connected, true, now);
        let first = PeerId::random();
        store.add(first, addr("/ip4/10.0.0.3/tcp/1"), Some(RECENT_TTL), now);
        for _ in 0..MAX_PEERS + 10 {
            store.add(PeerId::random(), addr("/ip4/10.0.0.3/tcp/1"), Some(2 * RECENT_TTL), now);
        }
        assert_eq!(store.by_priority(now).len(), MAX_PEERS);
        assert_eq!([wanted, connected, first].map(|peer| store.addrs(&peer, now).len()), [1, 1, 0]);
    }

    #[test]
    fn a_peer_cannot_fill_the_store() {
        let (peer, now) = (PeerId::random(), Instant::now());
        let mut store = Peerstore::default();
        for port in 0..1000 {
            store.add(peer, addr(&format!("/ip4/10.0.0.1/tcp/{port}")), None, now);
        }
        assert_eq!(store.addrs(&peer, now).len(), MAX_ADDRS_PER_PEER);
        // passing addresses give way to new ones
        let (other, new) = (PeerId::random(), addr("/ip4/10.0.0.2/tcp/1"));
        for port in 0..1000 {
            store.add(other, addr(&format!("/ip4/10.0.0.1/tcp/{port}")), Some(RECENT_TTL), now);
        }
        store.add(other, new.clone(), Some(RECENT_TTL), now + RECENT_TTL / 2);
        assert_eq!(store.addrs(&other, now).len(), MAX_ADDRS_PER_PEER);
        assert!(store.addrs(&other, now).contains(&new));
    }
}
