//! The HTTP proxy between a peer and a daemon on another host, from the environment as Go's net/http reads it.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use tracing::warn;

use super::dial::Address;
#[cfg(test)]
use super::dial::Family;

/// A proxy that takes requests with absolute targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Via {
    pub(super) address: Address,
    /// `Proxy-Authorization`, when the proxy's URL has a user.
    pub(super) authorization: Option<HeaderValue>,
}

impl Via {
    /// The proxy for a daemon, if there is one: `HTTP_PROXY` unless `NO_PROXY` names the daemon. Daemons on this
    /// machine are always asked directly. (Go: `golang.org/x/net/http/httpproxy`)
    pub(super) fn of(daemon: &Address, env: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let Address::Tcp { host, port, .. } = daemon else { return None };
        let either =
            |upper: &str, lower: &str| env(upper).filter(|text| !text.is_empty()).or_else(|| env(lower));
        let proxy = either("HTTP_PROXY", "http_proxy").filter(|text| !text.is_empty())?;
        if is_excluded(host, *port, &either("NO_PROXY", "no_proxy").unwrap_or_default()) {
            return None;
        }
        let via = Self::parse(&proxy);
        if via.is_none() {
            warn!(target: "ipfshttp", "HTTP_PROXY is not the URL of an HTTP proxy; the IPFS daemon is asked directly");
        }
        via
    }

    fn parse(text: &str) -> Option<Self> {
        let rest = match text.split_once("://") {
            None => text,
            Some(("http", rest)) => rest,
            Some(_) => return None,
        };
        let authority = rest.split(['/', '?', '#']).next()?;
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        let place: http::uri::Authority = place.parse().ok()?;
        let authorization = user.and_then(|user| {
            let user = percent_encoding::percent_decode_str(user).collect::<Vec<u8>>();
            let user = if user.contains(&b':') { user } else { [user.as_slice(), b":"].concat() };
            HeaderValue::try_from(format!("Basic {}", STANDARD.encode(user))).ok()
        });
        Some(Self { address: Address::of_authority(&place), authorization })
    }
}

/// Whether a host is asked directly: on this machine, or named by the list.
fn is_excluded(host: &str, port: u16, list: &str) -> bool {
    let host = host.trim_end_matches('.').to_lowercase();
    let ip: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
        return true;
    }
    list.split(',').map(|entry| entry.trim().to_lowercase()).filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let Some((network, bits)) = entry.split_once('/') {
            return ip.is_some_and(|ip| is_in_network(ip, network, bits));
        }
        let (name, its_port) = match entry.rsplit_once(':') {
            Some((name, digits)) if !name.contains(':') || name.ends_with(']') => (name, digits.parse().ok()),
            _ => (entry.as_str(), None),
        };
        if its_port.is_some_and(|its_port: u16| its_port != port) {
            return false;
        }
        let name = name.trim_start_matches('[').trim_end_matches(']');
        if let Ok(named) = name.parse::<IpAddr>() {
            return ip == Some(named);
        }
        // `example.org` is the host and what is below it, `.example.org` and `*.example.org` only what is below
        let name = name.strip_prefix('*').unwrap_or(name);
        match name.strip_prefix('.') {
            Some(_) => host.ends_with(name),
            None => host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')),
        }
    })
}

fn is_in_network(ip: IpAddr, network: &str, bits: &str) -> bool {
    let Ok(bits) = bits.parse::<u32>() else { return false };
    match (ip, network.parse()) {
        (IpAddr::V4(ip), Ok(IpAddr::V4(network))) if bits <= 32 => {
            let shift = 32 - bits;
            shift == 32 || u32::from(ip) >> shift == u32::from(network) >> shift
        }
        (IpAddr::V6(ip), Ok(IpAddr::V6(network))) if bits <= 128 => {
            let shift = 128 - bits;
            shift == 128 || u128::from(ip) >> shift == u128::from(network) >> shift
        }
        _ => false,
    }
}

/// The environment of this process.
pub(super) fn process(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A daemon's address for tests of this room.
#[cfg(test)]
pub(super) fn tcp(host: &str, port: u16) -> Address {
    Address::Tcp { host: host.into(), port, family: Family::Any }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_excluded_as_go_excludes_them() {
        for (host, list, expected) in [
            ("localhost", "", true),
            ("127.0.0.1", "", true),
            ("::1", "", true),
            ("kubo", "", false),
            ("kubo", "*", true),
            ("kubo", "other, KUBO", true),
            ("kubo", "kubo:5001", true),
            ("kubo", "kubo:80", false),
            ("a.example.org", "example.org", true),
            ("a.example.org", ".example.org", true),
            ("example.org", ".example.org", false),
            ("badexample.org", "example.org", false),
            ("10.1.2.3", "10.0.0.0/8", true),
            ("11.1.2.3", "10.0.0.0/8", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("fd00::1", "[fd00::1]:5001", true),
            ("fd00::1", "fd00::/16", true),
            ("10.1.2.3", "0.0.0.0/0", true),
        ] {
            assert_eq!(is_excluded(host, 5001, list), expected, "{host} in {list:?}");
        }
    }

    #[test]
    fn the_proxy_of_a_daemon_comes_from_the_environment() {
        let env = |name: &str| match name {
            "HTTP_PROXY" => Some("http://us%40er:pass@proxy:3128/".to_owned()),
            "no_proxy" => Some("inside".to_owned()),
            _ => None,
        };
        let via = Via::of(&tcp("kubo", 5001), env).unwrap();
        assert_eq!(via.address, tcp("proxy", 3128));
        assert_eq!(via.authorization.unwrap(), format!("Basic {}", STANDARD.encode("us@er:pass")));
        assert_eq!(Via::of(&tcp("inside", 5001), env), None);
        assert_eq!(Via::of(&tcp("127.0.0.1", 5001), env), None);
        assert_eq!(Via::of(&Address::Unix("/x".into()), env), None);
        assert_eq!(Via::of(&tcp("kubo", 5001), |_| None), None);
        assert_eq!(Via::parse("proxy:8080").unwrap().address, tcp("proxy", 8080));
        assert_eq!(Via::parse("socks5://proxy:1080"), None);
    }
}
