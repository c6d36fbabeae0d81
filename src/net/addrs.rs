//! Which addresses to listen on, to announce and to remember (spec: wire 1.5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cluster_compat::types::{Multiaddr, PeerId};
use libp2p::multiaddr::Protocol;

use super::Error;

/// What to do with a configured listen address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Listen {
    /// TCP, or a WebSocket on it.
    Tcp,
    /// QUIC, which the cluster's swarm accepts and never serves, as the reference.
    Quic,
    /// Old forms of QUIC and what is built on it.
    Ignored,
}

/// Sorts configured listen addresses into usable, inert and wrong ones.
pub(super) fn listen_kind(addr: &Multiaddr) -> Result<Listen, Error> {
    let mut is_tcp = false;
    for part in addr {
        match part {
            Protocol::Udp(_) if is_quic(addr) => return Ok(Listen::Quic),
            Protocol::Udp(_) => return Ok(Listen::Ignored),
            Protocol::Tcp(_) => is_tcp = true,
            Protocol::Ip4(_) | Protocol::Ip6(_) | Protocol::Ip6zone(_) => {}
            Protocol::P2p(_) | Protocol::Ws(_) if is_tcp => {}
            _ => return Err(Error::UnsupportedListenAddress { addr: addr.clone() }),
        }
    }
    if is_tcp { Ok(Listen::Tcp) } else { Err(Error::UnsupportedListenAddress { addr: addr.clone() }) }
}

/// Whether it is QUIC and nothing above.
pub(super) fn is_quic(addr: &Multiaddr) -> bool {
    let mut above = addr.iter().skip_while(|part| !matches!(part, Protocol::Udp(_))).skip(1);
    matches!((above.next(), above.next()), (Some(Protocol::QuicV1), None | Some(Protocol::P2p(_))))
}

/// The addresses told to others: `announce` if there are any, else where we listen, without those in `no_announce`
/// (addresses, or masks as in `/ip4/10.0.0.0/ipcidr/8`); sorted by bytes, as the reference does.
pub(super) fn announced<'a>(
    listening: impl Iterator<Item = &'a Multiaddr>,
    announce: &[Multiaddr],
    no_announce: &[Multiaddr],
) -> Vec<Multiaddr> {
    let mut addrs: Vec<Multiaddr> = if announce.is_empty() {
        listening.filter(|addr| !is_link_local(addr)).cloned().collect()
    } else {
        announce.to_vec()
    };
    addrs.retain(|addr| !no_announce.iter().any(|rule| rule == addr || is_masked(addr, rule)));
    addrs.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
    addrs.dedup();
    addrs
}

/// Splits `…/p2p/<id>`.
pub(super) fn split_peer(addr: &Multiaddr) -> Option<(PeerId, Multiaddr)> {
    let mut addr = addr.clone();
    match addr.pop() {
        Some(Protocol::P2p(peer)) => Some((peer, addr)),
        _ => None,
    }
}

/// An address that `peer` claims, without the id that some implementations add; `None` if that is another's.
pub(super) fn claimed_by(peer: &PeerId, addr: &Multiaddr) -> Option<Multiaddr> {
    match split_peer(addr) {
        Some((claimed, _)) if claimed != *peer => None,
        Some((_, addr)) => Some(addr),
        None => Some(addr.clone()),
    }
}

/// Whether a name has to be resolved.
pub(super) fn is_dns(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| {
        matches!(part, Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_))
    })
}

/// Whether a name stands for whole addresses, peers included.
pub(super) fn is_dnsaddr(addr: &Multiaddr) -> bool {
    matches!(addr.iter().next(), Some(Protocol::Dnsaddr(_)))
}

/// Whether it leads through another peer: a stepping stone to a direct connection.
pub(super) fn is_relayed(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| matches!(part, Protocol::P2pCircuit))
}

/// Whether an address a peer claims is worth keeping, given where we see that peer: one seen over a private address
/// has no use for its loopback ones, one seen over the internet for anything but public ones.
pub(super) fn is_plausible(claimed: &Multiaddr, seen: &Multiaddr) -> bool {
    let Some(claimed_ip) = ip(claimed) else { return is_dns(claimed) };
    // one that came through a relay may be anywhere
    match ip(seen).map_or(Reach::World, reach) {
        Reach::Host => true,
        Reach::Site => reach(claimed_ip) != Reach::Host,
        Reach::World => reach(claimed_ip) == Reach::World,
    }
}

/// From where an address can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The same machine.
    Host,
    /// A private network.
    Site,
    /// The internet.
    World,
}

/// From where an IP address can be reached.
pub(super) fn reach(ip: IpAddr) -> Reach {
    /// Unique local addresses, fc00::/7, and link-local ones, fe80::/10.
    fn is_site6(ip: Ipv6Addr) -> bool {
        ip.segments()[0] & 0xfe00 == 0xfc00 || ip.segments()[0] & 0xffc0 == 0xfe80
    }
    /// 100.64.0.0/10 of carriers counts as private too.
    fn is_site4(ip: Ipv4Addr) -> bool {
        ip.is_private() || ip.is_link_local() || (ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64)
    }
    match ip {
        ip if ip.is_loopback() => Reach::Host,
        IpAddr::V4(ip) if is_site4(ip) => Reach::Site,
        IpAddr::V6(ip) if is_site6(ip) => Reach::Site,
        _ => Reach::World,
    }
}

/// The first IP address in it; of a relayed address that is the relay's.
pub(super) fn ip(addr: &Multiaddr) -> Option<IpAddr> {
    addr.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    })
}

/// Whether only this machine reaches it.
pub(super) fn is_loopback(addr: &Multiaddr) -> bool {
    ip(addr).is_some_and(|ip| ip.is_loopback())
}

fn is_link_local(addr: &Multiaddr) -> bool {
    matches!(ip(addr), Some(IpAddr::V6(ip)) if ip.segments()[0] & 0xffc0 == 0xfe80)
}

/// Whether `rule` is a mask and covers `addr`.
fn is_masked(addr: &Multiaddr, rule: &Multiaddr) -> bool {
    let mut parts = rule.iter();
    let (network, bits) = match (parts.next(), parts.next(), parts.next()) {
        (Some(Protocol::Ip4(ip)), Some(Protocol::Ipcidr(bits)), None) => (IpAddr::V4(ip), bits),
        (Some(Protocol::Ip6(ip)), Some(Protocol::Ipcidr(bits)), None) => (IpAddr::V6(ip), bits),
        _ => return false,
    };
    match (ip(addr), network) {
        (Some(IpAddr::V4(ip)), IpAddr::V4(network)) => {
            let shift = 32 - u32::from(bits.min(32));
            u32::from(ip).checked_shr(shift) == u32::from(network).checked_shr(shift)
        }
        (Some(IpAddr::V6(ip)), IpAddr::V6(network)) => {
            let shift = 128 - u32::from(bits.min(128));
            u128::from(ip).checked_shr(shift) == u128::from(network).checked_shr(shift)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(list: &[&str]) -> Vec<Multiaddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn listen_addresses_are_tcp_or_inert_or_refused() {
        assert_eq!(listen_kind(&addrs(&["/ip4/0.0.0.0/tcp/9096"])[0]).unwrap(), Listen::Tcp);
        assert_eq!(listen_kind(&addrs(&["/ip4/0.0.0.0/udp/9096/quic"])[0]).unwrap(), Listen::Ignored);
        assert_eq!(listen_kind(&addrs(&["/ip4/0.0.0.0/udp/9096/quic-v1"])[0]).unwrap(), Listen::Quic);
        let above = "/ip4/0.0.0.0/udp/9096/quic-v1/webtransport";
        assert_eq!(listen_kind(&addrs(&[above])[0]).unwrap(), Listen::Ignored);
        assert_eq!(listen_kind(&addrs(&["/ip6/::/tcp/9096/ws"])[0]).unwrap(), Listen::Tcp);
        for text in ["/ip4/0.0.0.0/tcp/9096/wss", "/ip4/1.2.3.4", "/ip4/1.2.3.4/ws", "/dns4/a.b/tcp/1"] {
            assert!(listen_kind(&addrs(&[text])[0]).is_err(), "{text}");
        }
    }

    #[test]
    fn announced_addresses_are_sorted_and_filtered() {
        let listening = addrs(&[
            "/ip6/fe80::1/tcp/1",
            "/ip6/::1/tcp/1",
            "/ip4/192.0.2.2/tcp/1",
            "/ip4/10.1.2.3/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
        ]);
        let rules = addrs(&["/ip4/10.0.0.0/ipcidr/8", "/ip6/::1/tcp/1"]);
        assert_eq!(
            announced(listening.iter(), &[], &rules),
            addrs(&["/ip4/127.0.0.1/tcp/1", "/ip4/192.0.2.2/tcp/1"])
        );
        let announce = addrs(&["/dns4/example.com/tcp/9096", "/ip4/10.9.9.9/tcp/9096"]);
        assert_eq!(announced(listening.iter(), &announce, &rules), announce[..1]);
        assert!(
            announced(listening.iter(), &[], &addrs(&["/ip4/0.0.0.0/ipcidr/0", "/ip6/::/ipcidr/0"]))
                .is_empty()
        );
    }

    #[test]
    fn claimed_addresses_depend_on_where_a_peer_is_seen() {
        let seen = addrs(&["/ip4/127.0.0.1/tcp/5", "/ip4/10.0.0.7/tcp/5", "/ip4/203.0.113.9/tcp/5"]);
        let kept = |text: &str| {
            let claimed = addrs(&[text]);
            seen.iter().map(|seen| is_plausible(&claimed[0], seen)).collect::<Vec<_>>()
        };
        assert_eq!(kept("/ip4/127.0.0.1/tcp/9096"), [true, false, false]);
        assert_eq!(kept("/ip4/10.0.0.7/tcp/9096"), [true, true, false]);
        assert_eq!(kept("/ip4/203.0.113.9/tcp/9096"), [true, true, true]);
        assert_eq!(kept("/dns4/example.com/tcp/9096"), [true, true, true]);
    }
}
