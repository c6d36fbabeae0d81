//! Multiaddresses: text with the reference's errors, JSON.
//!
//! A Unix path is kept without its first slash (`/unix/run/x` holds `run/x`), so that an address prints as it
//! was written; the file is `/` + value.

use std::fmt;
use std::net::IpAddr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use multiaddr::Multiaddr;
use multiaddr::Protocol;

use super::PeerId;
use super::base;
use super::cid::{parse_cid, read_multihash};
use super::memo::{Memo, memo, with_text};
use super::peer::{parse_base58_hash, peer_text, unusable_hash};
use crate::go::query::{escape, unescape};
use crate::go::quote::quote;

/// Codec of CIDs that stand for a key.
const LIBP2P_KEY: u64 = 0x72;

/// Parses a multiaddress; the error is go-multiaddr's text.
pub fn parse_multiaddr(text: &str) -> Result<Multiaddr, String> {
    let text = text.trim_end_matches('/');
    let failed = |error: String| format!("failed to parse multiaddr {}: {error}", quote(text));
    let Some(rest) = text.strip_prefix('/') else {
        // what is left of slashes alone is the empty text
        return Err(failed(if text.is_empty() {
            "empty multiaddr".into()
        } else {
            "must begin with /".into()
        }));
    };
    let mut addr = Multiaddr::empty();
    let mut parts = rest.split('/');
    while let Some(name) = parts.next() {
        if let Some(protocol) = parse_flag(name) {
            addr.push(protocol);
            continue;
        }
        if !takes_value(name) {
            return Err(failed(format!("unknown protocol {name}")));
        }
        let Some(first) = parts.next() else {
            return Err(failed("unexpected end of multiaddr".into()));
        };
        if name == "unix" {
            // a path protocol takes all that is left
            let path = parts.by_ref().fold(first.to_string(), |path, part| path + "/" + part);
            if path.is_empty() {
                return Err(format!(
                    "failed to validate multiaddr {}: invalid value \"/\" for protocol unix: byte slice too short: 1",
                    quote(text)
                ));
            }
            addr.push(Protocol::Unix(path.into()));
            break;
        }
        let name = if name == "ipfs" { "p2p" } else { name };
        let protocol = parse_value(name, first).map_err(|error| {
            failed(format!("invalid value {} for protocol {name}: {error}", quote(first)))
        })?;
        addr.push(protocol);
    }
    Ok(addr)
}

/// The peer id of the first `/p2p/` part.
pub fn multiaddr_peer(addr: &Multiaddr) -> Option<PeerId> {
    addr.iter().find_map(|protocol| match protocol {
        Protocol::P2p(peer) => Some(peer),
        _ => None,
    })
}

/// Protocols without a value.
fn parse_flag(name: &str) -> Option<Protocol<'static>> {
    Some(match name {
        "p2p-circuit" => Protocol::P2pCircuit,
        "utp" => Protocol::Utp,
        "udt" => Protocol::Udt,
        "quic" => Protocol::Quic,
        "quic-v1" => Protocol::QuicV1,
        "webtransport" => Protocol::WebTransport,
        "http" => Protocol::Http,
        "https" => Protocol::Https,
        "p2p-webrtc-direct" => Protocol::P2pWebRtcDirect,
        "tls" => Protocol::Tls,
        "noise" => Protocol::Noise,
        "ws" => Protocol::Ws("/".into()),
        "wss" => Protocol::Wss("/".into()),
        "webrtc-direct" => Protocol::WebRTCDirect,
        "webrtc" => Protocol::WebRTC,
        _ => return None,
    })
}

fn takes_value(name: &str) -> bool {
    const NAMES: [&str; 22] = [
        "ip4",
        "tcp",
        "dns",
        "dns4",
        "dns6",
        "dnsaddr",
        "udp",
        "dccp",
        "ip6",
        "ipcidr",
        "ip6zone",
        "sctp",
        "onion",
        "onion3",
        "garlic64",
        "garlic32",
        "certhash",
        "http-path",
        "p2p",
        "ipfs",
        "unix",
        "sni",
    ];
    NAMES.contains(&name) || name == "memory"
}

fn parse_value(name: &str, value: &str) -> Result<Protocol<'static>, String> {
    let text = || value.to_string().into();
    Ok(match name {
        "ip4" => match value.parse::<IpAddr>().ok().map(|ip| ip.to_canonical()) {
            Some(IpAddr::V4(ip)) => Protocol::Ip4(ip),
            _ => return Err(format!("failed to parse ip4 addr: {value}")),
        },
        "ip6" => match value.parse() {
            Ok(IpAddr::V6(ip)) => Protocol::Ip6(ip),
            Ok(IpAddr::V4(ip)) => Protocol::Ip6(ip.to_ipv6_mapped()),
            Err(_) => return Err(format!("failed to parse ip6 addr: {value}")),
        },
        "tcp" => Protocol::Tcp(parse_port(value)?),
        "udp" => Protocol::Udp(parse_port(value)?),
        "dccp" => Protocol::Dccp(parse_port(value)?),
        "sctp" => Protocol::Sctp(parse_port(value)?),
        "dns" | "dns4" | "dns6" | "dnsaddr" | "sni" if value.is_empty() => {
            return Err("empty dns addr".into());
        }
        "dns" => Protocol::Dns(text()),
        "dns4" => Protocol::Dns4(text()),
        "dns6" => Protocol::Dns6(text()),
        "dnsaddr" => Protocol::Dnsaddr(text()),
        "sni" => Protocol::Sni(text()),
        "ip6zone" if value.is_empty() => return Err("empty ip6zone".into()),
        "ip6zone" => Protocol::Ip6zone(text()),
        "ipcidr" => Protocol::Ipcidr(parse_uint(value, u64::from(u8::MAX))? as u8),
        "memory" => Protocol::Memory(parse_uint(value, u64::MAX)?),
        "p2p" => Protocol::P2p(parse_p2p(value)?),
        "certhash" => {
            let bytes = base::decode(value.as_bytes())?;
            Protocol::Certhash(read_multihash(&bytes)?.0)
        }
        "http-path" => match unescape(value) {
            Some(path) if !path.is_empty() => Protocol::HttpPath(path.into()),
            Some(_) => return Err("empty http path is not allowed".into()),
            None => return Err(format!("invalid URL escape in {}", quote(value))),
        },
        // the rest is left to the library, in its own words
        _ => {
            Protocol::from_str_parts([name, value].into_iter()).map_err(|error| error.to_string())?.acquire()
        }
    })
}

fn parse_port(value: &str) -> Result<u16, String> {
    match parse_uint(value, u64::from(u16::MAX)) {
        Ok(port) => Ok(port as u16),
        Err(error) => Err(format!("failed to parse port addr: {error}")),
    }
}

/// `strconv.ParseUint` in base 10.
fn parse_uint(value: &str, max: u64) -> Result<u64, String> {
    let failed = |why: &str| format!("strconv.ParseUint: parsing {}: {why}", quote(value));
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(failed("invalid syntax"));
    }
    value.parse().ok().filter(|n| *n <= max).ok_or_else(|| failed("value out of range"))
}

fn parse_p2p(value: &str) -> Result<PeerId, String> {
    let failed = |error: String| format!("failed to parse p2p addr: {value} {error}");
    let hash = if value.starts_with("Qm") || value.starts_with('1') {
        parse_base58_hash(value).map_err(failed)?
    } else {
        let cid = parse_cid(value).map_err(failed)?;
        if cid.codec() != LIBP2P_KEY {
            return Err(failed(format!("has the invalid codec {}", cid.codec())));
        }
        *cid.hash()
    };
    if hash.code() == 0x12 && hash.size() != 32 {
        return Err(format!("invalid digest length {} for sha256 addr: expected 32", hash.size()));
    }
    PeerId::from_multihash(hash).map_err(|hash| unusable_hash(&hash))
}

/// The text of an address as go-multiaddr prints it; the library's own differs in `/http-path`.
pub fn multiaddr_text(addr: &Multiaddr) -> String {
    AddrText(addr).to_string()
}

/// The text of an address, as go-multiaddr prints it.
struct AddrText<'a>(&'a Multiaddr);

impl fmt::Display for AddrText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|protocol| match protocol {
            Protocol::P2p(peer) => write!(f, "/p2p/{}", &*peer_text(&peer)),
            Protocol::HttpPath(path) => write!(f, "/http-path/{}", escape(&path)),
            protocol => write!(f, "{protocol}"),
        })
    }
}

thread_local! {
    static TEXTS: Memo<Multiaddr> = const { memo() };
}

/// Gives the text of an address to `read`: quick for one that was printed lately.
pub(super) fn with_addr_text<R>(addr: &Multiaddr, read: impl FnOnce(&str) -> R) -> R {
    with_text(&TEXTS, addr.as_ref(), addr, || multiaddr_text(addr), read)
}

/// An address in a document.
struct AddrJson<'a>(&'a Multiaddr);

impl Serialize for AddrJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        with_addr_text(self.0, |text| serializer.serialize_str(text))
    }
}

/// Addresses in a document; `None` is `null`.
pub(crate) struct AddrsJson<'a>(pub(crate) Option<&'a [Multiaddr]>);

impl Serialize for AddrsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(addrs) => serializer.collect_seq(addrs.iter().map(AddrJson)),
            None => serializer.serialize_none(),
        }
    }
}

/// Reads a list of addresses or `null`.
pub(super) fn deserialize_addrs<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<Multiaddr>>, D::Error> {
    let texts = Option::<Vec<String>>::deserialize(deserializer)?;
    texts
        .map(|texts| texts.iter().map(|text| parse_multiaddr(text).map_err(D::Error::custom)).collect())
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt";

    #[test]
    fn addresses_print_as_they_were_written() {
        let cases = [
            ("/ip4/127.0.0.1/tcp/9096", "/ip4/127.0.0.1/tcp/9096"),
            ("/ip4/::ffff:1.2.3.4/udp/1/quic-v1/", "/ip4/1.2.3.4/udp/1/quic-v1"),
            ("/ip6/::1/tcp/0/ws", "/ip6/::1/tcp/0/ws"),
            ("/ip6/1.2.3.4/tcp/1", "/ip6/::ffff:1.2.3.4/tcp/1"),
            ("/dns4/a.b/tcp/443/tls/sni/x/http", "/dns4/a.b/tcp/443/tls/sni/x/http"),
            ("/unix/run/a b/sock", "/unix/run/a b/sock"),
            ("/memory/12", "/memory/12"),
            ("/dns/x/tcp/1/http-path/a%2Fb", "/dns/x/tcp/1/http-path/a%2Fb"),
        ];
        for (input, expected) in cases {
            assert_eq!(
                parse_multiaddr(input).map(|addr| AddrText(&addr).to_string()),
                Ok(expected.to_string())
            );
            assert_eq!(parse_multiaddr(input).map(|addr| addr.to_string()), Ok(expected.to_string()));
        }
        for name in ["p2p", "ipfs"] {
            let text = format!("/ip4/1.2.3.4/tcp/1/{name}/{PEER}/p2p-circuit");
            let expected = format!("/ip4/1.2.3.4/tcp/1/p2p/{PEER}/p2p-circuit");
            assert_eq!(parse_multiaddr(&text).map(|addr| AddrText(&addr).to_string()), Ok(expected));
        }
    }

    #[test]
    fn bad_addresses_are_refused_with_gos_words() {
        let cases = [
            ("x", r#"failed to parse multiaddr "x": must begin with /"#),
            ("", r#"failed to parse multiaddr "": empty multiaddr"#),
            ("//", r#"failed to parse multiaddr "": empty multiaddr"#),
            ("/x/1", r#"failed to parse multiaddr "/x/1": unknown protocol x"#),
            ("/ip4", r#"failed to parse multiaddr "/ip4": unexpected end of multiaddr"#),
            (
                "/ip4/1.2.3/tcp/1",
                r#"failed to parse multiaddr "/ip4/1.2.3/tcp/1": invalid value "1.2.3" for protocol ip4: failed to parse ip4 addr: 1.2.3"#,
            ),
            (
                "/ip4/1.2.3.4/tcp/70000",
                r#"failed to parse multiaddr "/ip4/1.2.3.4/tcp/70000": invalid value "70000" for protocol tcp: failed to parse port addr: strconv.ParseUint: parsing "70000": value out of range"#,
            ),
            (
                "/ip4/127.0.0.1/tcp/1/p2p/x",
                r#"failed to parse multiaddr "/ip4/127.0.0.1/tcp/1/p2p/x": invalid value "x" for protocol p2p: failed to parse p2p addr: x invalid cid: cid too short"#,
            ),
        ];
        for (input, expected) in cases {
            assert_eq!(parse_multiaddr(input), Err(expected.to_string()), "{input}");
        }
    }
}
