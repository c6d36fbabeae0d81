//! The packets: one question, one answer. Only their TXT records say anything.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cluster_compat::types::{Multiaddr, PeerId};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use libp2p::multiaddr::Protocol;

use crate::net::addrs;

/// Who is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Service {
    /// Peers of a cluster.
    Cluster,
    /// IPFS peers.
    Node,
}

impl Service {
    const fn name(self) -> &'static str {
        match self {
            Self::Cluster => "_ipfs-cluster-discovery._udp.local.",
            Self::Node => "_p2p._udp.local.",
        }
    }
}

/// Before each address.
const PREFIX: &str = "dnsaddr=";

/// The port that a service must have; nobody reads it.
const UNUSED_PORT: u16 = 4001;

/// How long an answer counts, in seconds.
const TTL: u32 = 120;

/// Longest string of a TXT record.
const MAX_TEXT_BYTES: usize = 255;

/// Addresses told, and taken from one packet. They keep an answer below the size of one frame.
const MAX_ADDRS: usize = 12;

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet {
    /// Somebody looks for peers.
    Question,
    /// Peers, with their addresses.
    Peers(BTreeMap<PeerId, Vec<Multiaddr>>),
    /// Of other services, or nothing readable.
    Other,
}

/// Asks for peers.
pub(super) fn question(service: Service) -> Vec<u8> {
    let Some(service) = name(service.name()) else { return Vec::new() };
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(service, RecordType::PTR));
    message.to_vec().unwrap_or_default()
}

/// Says where a peer is. `None` without an address that is of use on the local network.
pub(super) fn answer(
    service: Service,
    instance: &str,
    peer: &PeerId,
    listening: &[Multiaddr],
) -> Option<Vec<u8>> {
    let fit: Vec<&Multiaddr> = listening.iter().filter(|addr| is_suitable(addr)).collect();
    let texts: Vec<String> = fit
        .iter()
        .map(|addr| format!("{PREFIX}{addr}/p2p/{peer}"))
        .filter(|text| text.len() <= MAX_TEXT_BYTES)
        .take(MAX_ADDRS)
        .collect();
    if texts.is_empty() {
        return None;
    }
    let full = name(&format!("{instance}.{}", service.name()))?;
    let service = name(service.name())?;
    let host = name(&format!("{instance}.local."))?;
    let mut message = Message::new(0, MessageType::Response, OpCode::Query);
    message.metadata.authoritative = true;
    message.add_answer(Record::from_rdata(service, TTL, RData::PTR(PTR(full.clone()))));
    let srv = SRV::new(0, 0, UNUSED_PORT, host.clone());
    message.add_additional(Record::from_rdata(full.clone(), TTL, RData::SRV(srv)));
    let txt = TXT::from_bytes(texts.iter().map(String::as_bytes).collect());
    message.add_additional(Record::from_rdata(full, TTL, RData::TXT(txt)));
    // others insist on an address of the host, and do not read it
    let ips: Vec<IpAddr> = fit.iter().filter_map(|addr| addrs::ip(addr)).collect();
    if let Some(IpAddr::V4(ip)) = ips.iter().find(|ip| ip.is_ipv4()) {
        message.add_additional(Record::from_rdata(host.clone(), TTL, RData::A(A(*ip))));
    }
    if let Some(IpAddr::V6(ip)) = ips.iter().find(|ip| ip.is_ipv6()) {
        message.add_additional(Record::from_rdata(host, TTL, RData::AAAA(AAAA(*ip))));
    }
    message.to_vec().ok()
}

/// Reads a packet, which may hold anything.
pub(super) fn decode(service: Service, bytes: &[u8]) -> Packet {
    let (Ok(message), Some(service)) = (Message::from_vec(bytes), name(service.name())) else {
        return Packet::Other;
    };
    if message.metadata.message_type == MessageType::Query {
        let is_ours = |query: &Query| query.name() == &service && query.query_type() == RecordType::PTR;
        // probes of others ask with an authority section
        let is_asked = message.authorities.is_empty() && message.queries.iter().any(is_ours);
        return if is_asked { Packet::Question } else { Packet::Other };
    }
    let mut peers: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
    let texts = message
        .answers
        .iter()
        .chain(&message.additionals)
        .filter(|record| service.zone_of(&record.name))
        .filter_map(|record| match &record.data {
            RData::TXT(txt) => Some(txt.txt_data.iter()),
            _ => None,
        })
        .flatten();
    for text in texts.take(MAX_ADDRS) {
        let addr = std::str::from_utf8(text).ok().and_then(|text| text.strip_prefix(PREFIX)?.parse().ok());
        if let Some((peer, addr)) = addr.as_ref().and_then(addrs::split_peer)
            && is_suitable(&addr)
        {
            peers.entry(peer).or_default().push(addr);
        }
    }
    if peers.is_empty() { Packet::Other } else { Packet::Peers(peers) }
}

/// Whether an address can be reached on the local network: an IP address, or a name that multicast resolves, and
/// neither a relay nor what only browsers use.
fn is_suitable(addr: &Multiaddr) -> bool {
    let is_local = match addr.iter().next() {
        Some(Protocol::Ip4(_) | Protocol::Ip6(_)) => true,
        Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) | Protocol::Dnsaddr(name)) => {
            name.to_ascii_lowercase().ends_with(".local")
        }
        _ => false,
    };
    let is_unfit = |part: Protocol<'_>| {
        matches!(
            part,
            Protocol::P2pCircuit
                | Protocol::WebTransport
                | Protocol::WebRTCDirect
                | Protocol::Ws(_)
                | Protocol::Wss(_)
        )
    };
    is_local && !addr.iter().any(is_unfit)
}

fn name(text: &str) -> Option<Name> {
    Name::from_ascii(text).ok()
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    fn addrs(list: &[&str]) -> Vec<Multiaddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn an_answer_tells_the_addresses_of_the_local_network() {
        let peer = PeerId::random();
        let relayed = format!("/ip4/10.0.0.1/tcp/1/p2p/{peer}/p2p-circuit");
        let listening = addrs(&[
            "/ip4/10.0.0.7/tcp/9096",
            "/ip4/10.0.0.7/tcp/9097/ws",
            "/ip6/fd00::2/tcp/9096",
            "/dns4/example.com/tcp/9096",
            "/dns4/box.local/tcp/9096",
            &relayed,
        ]);
        let packet = answer(Service::Node, "abc", &peer, &listening).unwrap();
        let told = addrs(&["/ip4/10.0.0.7/tcp/9096", "/ip6/fd00::2/tcp/9096", "/dns4/box.local/tcp/9096"]);
        assert_eq!(decode(Service::Node, &packet), Packet::Peers([(peer, told)].into()));
        assert!(answer(Service::Node, "abc", &peer, &listening[3..4]).is_none());
    }

    #[test]
    fn many_addresses_still_fit_one_frame() {
        let listening: Vec<Multiaddr> = (0..100)
            .map(|i| format!("/ip6/2001:db8:1234:5678:9abc:def0:1234:{i}/tcp/9096").parse().unwrap())
            .collect();
        assert!(
            answer(Service::Cluster, &"a".repeat(63), &PeerId::random(), &listening).unwrap().len()
                < 1500 + 200
        );
    }

    #[test]
    fn a_question_is_recognised_and_those_for_others_are_not() {
        assert_eq!(decode(Service::Cluster, &question(Service::Cluster)), Packet::Question);
        assert_eq!(decode(Service::Node, &question(Service::Cluster)), Packet::Other);
        let other = Query::query(name("_p2p._udp.local.").unwrap(), RecordType::PTR);
        let mut message = Message::new(0, MessageType::Query, OpCode::Query);
        message.add_query(other);
        assert_eq!(decode(Service::Cluster, &message.to_vec().unwrap()), Packet::Other);
    }

    #[test]
    fn addresses_of_other_services_and_odd_ones_are_passed_over() {
        let mut message = Message::new(0, MessageType::Response, OpCode::Query);
        let text = format!("dnsaddr=/ip4/10.0.0.1/tcp/1/p2p/{}", PeerId::random());
        let strange = ["", "dnsaddr=", "dnsaddr=/ip4/10.0.0.1/tcp/1", "dnsaddr=/nonsense", "\u{fffd}"];
        let txt = |texts: Vec<&[u8]>| RData::TXT(TXT::from_bytes(texts));
        message.add_answer(Record::from_rdata(
            name("x._p2p._udp.local.").unwrap(),
            1,
            txt(vec![text.as_bytes()]),
        ));
        let ours = name(&format!("x.{}", Service::Cluster.name())).unwrap();
        message.add_answer(Record::from_rdata(
            ours,
            1,
            txt(strange.iter().map(|text| text.as_bytes()).collect()),
        ));
        assert_eq!(decode(Service::Cluster, &message.to_vec().unwrap()), Packet::Other);
    }

    #[test]
    fn no_packet_does_harm() {
        let mut rng = StdRng::seed_from_u64(1);
        let packet = answer(
            Service::Node,
            "abc",
            &PeerId::random(),
            &addrs(&["/ip4/10.0.0.7/tcp/9096", "/ip6/fd00::2/tcp/1"]),
        )
        .unwrap();
        for _ in 0..20_000 {
            let mut bytes = packet.clone();
            for _ in 0..rng.random_range(1..6) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
            bytes.truncate(rng.random_range(0..=bytes.len()));
            decode(Service::Cluster, &bytes);
        }
    }
}
