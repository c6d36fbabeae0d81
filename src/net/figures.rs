//! What a swarm counts for whoever watches it: connections, keys, identifications, streams.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use cluster_compat::types::{Bandwidths, Multiaddr};
use libp2p::core::ConnectedPoint;
use libp2p::identity::KeyType;
use libp2p::multiaddr::Protocol;

use super::Network;

/// Who began: others, or we.
const DIRECTIONS: [&str; 2] = ["inbound", "outbound"];

const TRANSPORTS: [&str; 3] = ["tcp", "websocket", "p2p-circuit"];

const SECURITIES: [&str; 2] = ["/noise", "/tls/1.0.0"];

const IP_VERSIONS: [&str; 3] = ["ip4", "ip6", "unknown"];

const KEY_TYPES: [&str; 4] = ["Ed25519", "RSA", "Secp256k1", "ECDSA"];

/// Counted where it happens. Arrays go by the constants above.
#[derive(Default)]
pub(super) struct Counts {
    connections: [AtomicI64; 2],
    opened: [[[[AtomicU64; 3]; 2]; 3]; 2],
    key_types: [[AtomicU64; 4]; 2],
    identified: [AtomicU64; 2],
    limits: OnceLock<Limits>,
}

/// Most connections; `None` is as many as there are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Of all.
    pub max_connections: Option<u32>,
    /// Of those that others make.
    pub max_incoming: Option<u32>,
}

impl Counts {
    /// A handshake has succeeded.
    pub(super) fn upgraded(&self, endpoint: &ConnectedPoint, security: &str) {
        let addr = endpoint.get_remote_address();
        let security = usize::from(security != SECURITIES[0]);
        let (transport, ip) = kind(addr);
        self.opened[usize::from(endpoint.is_dialer())][transport][security][ip]
            .fetch_add(1, Ordering::Relaxed);
    }

    /// A connection stands, or does no more.
    pub(super) fn connected(&self, is_dialer: bool, change: i64) {
        self.connections[usize::from(is_dialer)].fetch_add(change, Ordering::Relaxed);
    }

    /// The other side of a connection has shown its key.
    pub(super) fn key(&self, is_dialer: bool, key: KeyType) {
        let place = match key {
            KeyType::Ed25519 => 0,
            KeyType::RSA => 1,
            KeyType::Secp256k1 => 2,
            KeyType::Ecdsa => 3,
        };
        self.key_types[usize::from(is_dialer)][place].fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody said who it is, or we did.
    pub(super) fn identified(&self, is_us: bool) {
        self.identified[usize::from(is_us)].fetch_add(1, Ordering::Relaxed);
    }

    /// What the swarm was built with.
    pub(super) fn set_limits(&self, limits: Limits) {
        // set once
        let _ = self.limits.set(limits);
    }
}

/// Transport and version of IP.
fn kind(addr: &Multiaddr) -> (usize, usize) {
    let (mut transport, mut ip) = (0, 2);
    for part in addr {
        match part {
            Protocol::Ip4(_) if ip == 2 => ip = 0,
            Protocol::Ip6(_) if ip == 2 => ip = 1,
            Protocol::Ws(_) | Protocol::Wss(_) => transport = 1,
            Protocol::P2pCircuit => return (2, ip),
            _ => {}
        }
    }
    (transport, ip)
}

/// Labels of a connection, and how many there were.
pub type Opened = ([(&'static str, &'static str); 6], u64);

/// What a swarm has counted.
#[derive(Debug, Clone)]
pub struct Figures {
    /// Standing connections by direction.
    pub connections: [(&'static str, i64); 2],
    /// Connections since the start.
    pub opened: Vec<Opened>,
    /// Direction, type of key, connections since the start.
    pub key_types: Vec<(&'static str, &'static str, u64)>,
    /// Direction, identifications.
    pub identified: [(&'static str, u64); 2],
    /// Open streams by protocol: those of others, and ours.
    pub streams: BTreeMap<String, [i64; 2]>,
    /// Bytes by protocol since the start.
    pub traffic: Bandwidths,
    /// What there may be.
    pub limits: Limits,
}

impl Network {
    /// What this swarm has counted since the start.
    pub fn figures(&self) -> Figures {
        let (counts, read) = (&self.shared.traffic.counts, |n: &AtomicU64| n.load(Ordering::Relaxed));
        let mut opened = Vec::new();
        let mut key_types = Vec::new();
        for (dir, direction) in DIRECTIONS.into_iter().enumerate() {
            for (t, transport) in TRANSPORTS.into_iter().enumerate() {
                for (s, security) in SECURITIES.into_iter().enumerate() {
                    for (i, ip_version) in IP_VERSIONS.into_iter().enumerate() {
                        let labels = [
                            ("dir", direction),
                            ("early_muxer", "false"),
                            ("ip_version", ip_version),
                            ("muxer", "/yamux/1.0.0"),
                            ("security", security),
                            ("transport", transport),
                        ];
                        opened.push((labels, read(&counts.opened[dir][t][s][i])));
                    }
                }
            }
            for (key_type, n) in KEY_TYPES.into_iter().zip(&counts.key_types[dir]) {
                key_types.push((direction, key_type, read(n)));
            }
        }
        opened.retain(|(_, n)| *n > 0);
        key_types.retain(|(_, _, n)| *n > 0);
        let with = |dir: usize| DIRECTIONS[dir];
        Figures {
            connections: [0, 1].map(|dir| (with(dir), counts.connections[dir].load(Ordering::Relaxed))),
            opened,
            key_types,
            identified: [0, 1].map(|dir| (with(dir), read(&counts.identified[dir]))),
            streams: self.shared.traffic.open_streams(),
            traffic: self.shared.traffic.totals(),
            limits: counts.limits.get().copied().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_counted_by_what_carries_it() {
        let addrs = [
            ("/ip4/1.2.3.4/tcp/1", (0, 0)),
            ("/ip6/::1/tcp/1/ws", (1, 1)),
            ("/dns4/a/tcp/1/wss", (1, 2)),
            (
                "/ip4/1.2.3.4/tcp/1/p2p/12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt/p2p-circuit",
                (2, 0),
            ),
        ];
        for (addr, expected) in addrs {
            assert_eq!(kind(&addr.parse().unwrap()), expected, "{addr}");
        }
    }
}
