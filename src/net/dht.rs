//! The two routing tables: one for the internet, one for private networks (spec: wire 1.9).
//!
//! They find the addresses of a peer that has none before a dial to it fails. For the cluster nothing else: records and
//! providers that others send are dropped, content is never looked up. For the embedded node see `content`.
//!
//! Pure but for the constructor: who may enter a table, and with which addresses, is decided here. The library would
//! enter everyone and has no filter for its answers, so what an answer must not hold never gets into a table.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use cluster_compat::types::{Multiaddr, PeerId};
use libp2p::StreamProtocol;
use libp2p::kad::{self, BucketInserts, Mode, StoreInserts};

use super::addrs::{self, Reach};
use super::content::Records;

/// The identifier of the table for the internet.
const WAN_PROTOCOL: StreamProtocol = StreamProtocol::new("/ipfs/kad/1.0.0");

/// The identifier of the table for private networks.
const LAN_PROTOCOL: StreamProtocol = StreamProtocol::new("/ipfs/lan/kad/1.0.0");

/// Peers asked at the same time in one search. (Go: `alpha`)
const PARALLELISM: NonZeroUsize = NonZeroUsize::new(10).unwrap();

/// Pause between two refreshes of a table.
const REFRESH_EVERY: Duration = Duration::from_secs(10 * 60);

/// Largest message: twenty peers with many addresses each.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Peers in the internet's table whose addresses begin alike, so that one network cannot fill it.
const MAX_PEERS_PER_PREFIX: usize = 3;

/// Addresses of one peer in a table or in a record.
pub(super) const MAX_ADDRS_PER_PEER: usize = 16;

/// A routing table, its protocol and its records.
pub(super) type Dht = kad::Behaviour<Records>;

/// Which table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    /// The internet.
    Wan,
    /// Private networks.
    Lan,
}

impl Scope {
    /// Its identifier.
    pub(super) const fn protocol(self) -> StreamProtocol {
        match self {
            Self::Wan => WAN_PROTOCOL,
            Self::Lan => LAN_PROTOCOL,
        }
    }
}

/// An empty table. The internet's asks only, until the peer is known to be reachable.
pub(super) fn behaviour(local_peer: PeerId, scope: Scope, records: Records, query_timeout: Duration) -> Dht {
    let mut config = kad::Config::new(scope.protocol());
    config
        .set_kbucket_inserts(BucketInserts::Manual)
        .set_record_filtering(StoreInserts::FilterBoth)
        .set_parallelism(PARALLELISM)
        .set_query_timeout(query_timeout)
        .set_max_packet_size(MAX_MESSAGE_BYTES)
        .set_periodic_bootstrap_interval(Some(REFRESH_EVERY))
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None);
    let mut dht = kad::Behaviour::with_config(local_peer, records, config);
    dht.set_mode(Some(match scope {
        Scope::Wan => Mode::Client,
        Scope::Lan => Mode::Server,
    }));
    dht
}

/// With which of the addresses it claims a peer that we see at `seen` enters a table; none keeps it out.
pub(super) fn routable(
    scope: Scope,
    claimed: &[Multiaddr],
    seen: &Multiaddr,
    ours: &[Multiaddr],
) -> Vec<Multiaddr> {
    let Some(seen_ip) = addrs::ip(seen).filter(|_| !addrs::is_relayed(seen)) else { return Vec::new() };
    let may_enter = match scope {
        Scope::Wan => true,
        Scope::Lan => {
            addrs::reach(seen_ip) != Reach::World || ours.iter().any(|addr| addrs::ip(addr) == Some(seen_ip))
        }
    };
    if !may_enter {
        return Vec::new();
    }
    claimed
        .iter()
        .filter(|addr| !addrs::is_relayed(addr))
        .filter(|addr| is_fit(scope, addr))
        .cloned()
        .collect()
}

/// Whether an address is of use to those who ask a table.
pub(super) fn is_fit(scope: Scope, addr: &Multiaddr) -> bool {
    match (scope, addrs::ip(addr).map(addrs::reach)) {
        (_, None) => false,
        (Scope::Wan, Some(reach)) => reach == Reach::World,
        (Scope::Lan, Some(reach)) => reach != Reach::Host,
    }
}

/// Whether the internet's table, which holds `existing` peers, has room for one at `addrs`.
pub(super) fn is_diverse<'a>(existing: impl Iterator<Item = &'a Multiaddr>, addrs: &[Multiaddr]) -> bool {
    let wanted: Vec<Prefix> = addrs.iter().filter_map(prefix).collect();
    let mut counts = vec![0; wanted.len()];
    for known in existing.filter_map(prefix) {
        for (count, wanted) in counts.iter_mut().zip(&wanted) {
            *count += usize::from(known == *wanted);
        }
    }
    counts.iter().all(|count| *count < MAX_PEERS_PER_PREFIX)
}

#[derive(Debug, PartialEq, Eq)]
enum Prefix {
    V4([u8; 2]),
    V6([u16; 2]),
}

/// A network: 16 bits of IPv4, 32 of IPv6.
fn prefix(addr: &Multiaddr) -> Option<Prefix> {
    addrs::ip(addr).map(|ip| match ip {
        IpAddr::V4(ip) => Prefix::V4([ip.octets()[0], ip.octets()[1]]),
        IpAddr::V6(ip) => Prefix::V6([ip.segments()[0], ip.segments()[1]]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(list: &[&str]) -> Vec<Multiaddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_table_takes_peers_of_its_network_with_fitting_addresses() {
        let relayed = format!("/ip4/203.0.113.1/tcp/1/p2p/{}/p2p-circuit", PeerId::random());
        let claimed = addrs(&[
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/10.0.0.7/tcp/1",
            "/ip4/203.0.113.9/tcp/1",
            "/dns4/example.com/tcp/1",
            &relayed,
        ]);
        let enters = |scope, seen: &str, ours: &[&str]| {
            routable(scope, &claimed, &seen.parse().unwrap(), &addrs(ours))
        };
        assert_eq!(enters(Scope::Wan, "/ip4/203.0.113.9/tcp/5", &[]), claimed[2..3]);
        assert_eq!(enters(Scope::Lan, "/ip4/10.0.0.7/tcp/5", &[]), claimed[1..3]);
        assert_eq!(enters(Scope::Lan, "/ip4/127.0.0.1/tcp/5", &[]), claimed[1..3]);
        assert_eq!(enters(Scope::Lan, "/ip4/203.0.113.9/tcp/5", &[]), []);
        // behind the same gateway
        assert_eq!(
            enters(Scope::Lan, "/ip4/203.0.113.9/tcp/5", &["/ip4/203.0.113.9/tcp/9096"]),
            claimed[1..3]
        );
        assert_eq!(enters(Scope::Wan, &relayed, &[]), []);
    }

    #[test]
    fn one_network_cannot_fill_the_table_of_the_internet() {
        let mut known: Vec<Multiaddr> = Vec::new();
        for i in 1..10 {
            let new = addrs(&[&format!("/ip4/203.0.{i}.1/tcp/1")]);
            if is_diverse(known.iter(), &new) {
                known.extend(new);
            }
        }
        assert_eq!(known.len(), MAX_PEERS_PER_PREFIX);
        assert!(is_diverse(known.iter(), &addrs(&["/ip4/198.51.100.1/tcp/1"])));
        assert!(is_diverse(known.iter(), &addrs(&["/ip6/2001:db8::1/tcp/1"])));
    }

    #[test]
    fn only_the_private_table_answers_from_the_start() {
        let mode = |scope| {
            let records = Records::new(PeerId::random(), None);
            behaviour(PeerId::random(), scope, records, Duration::from_secs(1)).mode()
        };
        assert_eq!((mode(Scope::Lan), mode(Scope::Wan)), (Mode::Server, Mode::Client));
    }
}
