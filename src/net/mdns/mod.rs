//! Finding peers on the local network (spec: wire 1.8).
//!
//! ```text
//!   224.0.0.251:5353, ff02::fb ──packets──▶ run ──Cmd::Found──▶ swarm
//!             ▲                              │
//!             └──── questions, answers ◀─────┘
//! ```
//!
//! Peers of a cluster look for one service, IPFS peers for another; the library's own discovery knows the latter alone
//! and answers on its own terms, so both are done here. Where the system has no multicast, or somebody else keeps the port, this ends with a warning and the peer goes on without.

mod packet;

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use cluster_compat::types::{Multiaddr, PeerId};
use rand::Rng as _;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::packet::Packet;
pub(super) use self::packet::Service;
use super::{Cmd, Shared, addrs};

const PORT: u16 = 5353;

const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);

const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);

/// Pause between the first two questions; each pause after that is about twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(4);

/// Longest pause between two questions.
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// Shortest pause between two answers, which all who ask hear.
const ANSWER_PAUSE: Duration = Duration::from_millis(500);

/// Largest packet, as the standard has it.
const MAX_PACKET_BYTES: usize = 9000;

/// Where the kernel tells interfaces by number.
const INTERFACES_V6: &str = "/proc/net/if_inet6";

/// Finds peers, and lets others find this one.
pub(super) struct Mdns {
    service: Service,
    local_peer: PeerId,
    shared: Arc<Shared>,
    found: mpsc::Sender<Cmd>,
    /// Drawn anew at each start.
    instance: String,
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    joined_v4: HashSet<Ipv4Addr>,
    joined_v6: HashSet<u32>,
    answered_at: Option<Instant>,
}

impl Mdns {
    /// Nothing is sent yet.
    pub(super) fn new(
        service: Service,
        local_peer: PeerId,
        shared: Arc<Shared>,
        found: mpsc::Sender<Cmd>,
    ) -> Self {
        Self {
            service,
            local_peer,
            shared,
            found,
            instance: instance(),
            v4: None,
            v6: None,
            joined_v4: HashSet::new(),
            joined_v6: HashSet::new(),
            answered_at: None,
        }
    }

    /// Runs until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        match (socket(Domain::IPV4), socket(Domain::IPV6)) {
            (Err(e), Err(_)) => {
                warn!(target: "cluster", "mDNS discovery is off: cannot open port {PORT}: {e}");
                return;
            }
            (v4, v6) => (self.v4, self.v6) = (v4.ok(), v6.ok()),
        }
        self.join();
        if self.joined_v4.is_empty() && self.joined_v6.is_empty() {
            warn!(target: "cluster", "no interface takes part in multicast yet: mDNS discovery finds nobody");
        }
        let (mut from_v4, mut from_v6) = (vec![0; MAX_PACKET_BYTES], vec![0; MAX_PACKET_BYTES]);
        let mut pause = FIRST_PAUSE;
        let ask = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(ask);
        self.send_answer().await;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = &mut ask => {
                    self.join();
                    self.send(&packet::question(self.service)).await;
                    ask.as_mut().reset(Instant::now() + pause);
                    pause = pause.mul_f64(rand::rng().random_range(1.5..2.5)).min(LAST_PAUSE);
                }
                received = receive(self.v4.as_ref(), &mut from_v4) => self.on_packet(received, &from_v4).await,
                received = receive(self.v6.as_ref(), &mut from_v6) => self.on_packet(received, &from_v6).await,
            }
        }
    }

    async fn on_packet(&mut self, received: io::Result<usize>, buffer: &[u8]) {
        let n_bytes = match received {
            Ok(n_bytes) => n_bytes,
            Err(e) => {
                debug!(target: "mdns", "cannot receive: {e}");
                // an interface that went away; the next attempt may find another
                return tokio::time::sleep(ANSWER_PAUSE).await;
            }
        };
        match packet::decode(self.service, &buffer[..n_bytes]) {
            Packet::Question => self.send_answer().await,
            Packet::Peers(found) => {
                for (peer, addrs) in found {
                    if peer != self.local_peer {
                        debug!(target: "mdns", %peer, ?addrs, "found a peer");
                        // a swarm that is busy hears of it next time
                        let _ = self.found.try_send(Cmd::Found { peer, addrs });
                    }
                }
            }
            Packet::Other => {}
        }
    }

    async fn send_answer(&mut self) {
        let now = Instant::now();
        if self.answered_at.is_some_and(|at| now.duration_since(at) < ANSWER_PAUSE) {
            return;
        }
        self.answered_at = Some(now);
        match packet::answer(self.service, &self.instance, &self.local_peer, &self.listening()) {
            Some(answer) => self.send(&answer).await,
            None => debug!(target: "mdns", "no address to answer with"),
        }
    }

    fn listening(&self) -> Vec<Multiaddr> {
        let listening = self.shared.listening.read().unwrap_or_else(PoisonError::into_inner);
        listening.iter().cloned().collect()
    }

    /// Takes part on every interface that we listen on.
    fn join(&mut self) {
        for ip in self.listening().iter().filter_map(addrs::ip) {
            if let (IpAddr::V4(ip), Some(socket)) = (ip, &self.v4)
                && !ip.is_loopback()
                && !self.joined_v4.contains(&ip)
                && socket.join_multicast_v4(GROUP_V4, ip).is_ok()
            {
                self.joined_v4.insert(ip);
            }
        }
        let Some(socket) = &self.v6 else { return };
        let text = std::fs::read_to_string(INTERFACES_V6).unwrap_or_default();
        for index in interfaces_v6(&text) {
            if !self.joined_v6.contains(&index) && socket.join_multicast_v6(&GROUP_V6, index).is_ok() {
                self.joined_v6.insert(index);
            }
        }
    }

    /// Sends to every interface. One that cannot is not worth a word: there is a next time.
    async fn send(&self, packet: &[u8]) {
        if let Some(socket) = &self.v4 {
            for ip in &self.joined_v4 {
                let sent = match SockRef::from(socket).set_multicast_if_v4(ip) {
                    Ok(()) => socket.send_to(packet, SocketAddr::from((GROUP_V4, PORT))).await.map(drop),
                    Err(e) => Err(e),
                };
                if let Err(e) = sent {
                    debug!(target: "mdns", %ip, "cannot send: {e}");
                }
            }
        }
        if let Some(socket) = &self.v6 {
            for index in &self.joined_v6 {
                let sent = match SockRef::from(socket).set_multicast_if_v6(*index) {
                    Ok(()) => socket.send_to(packet, SocketAddr::from((GROUP_V6, PORT))).await.map(drop),
                    Err(e) => Err(e),
                };
                if let Err(e) = sent {
                    debug!(target: "mdns", index, "cannot send: {e}");
                }
            }
        }
    }
}

/// A socket on the port that every responder of the machine shares.
fn socket(domain: Domain) -> io::Result<UdpSocket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    let ip: IpAddr = if domain == Domain::IPV4 {
        socket.set_multicast_loop_v4(true)?;
        socket.set_multicast_ttl_v4(255)?;
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        socket.set_only_v6(true)?;
        socket.set_multicast_loop_v6(true)?;
        socket.set_multicast_hops_v6(255)?;
        Ipv6Addr::UNSPECIFIED.into()
    };
    socket.bind(&SocketAddr::new(ip, PORT).into())?;
    UdpSocket::from_std(socket.into())
}

async fn receive(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> io::Result<usize> {
    match socket {
        Some(socket) => socket.recv(buffer).await,
        None => std::future::pending().await,
    }
}

/// The numbers of interfaces with an IPv6 address, but for the loopback's.
fn interfaces_v6(text: &str) -> HashSet<u32> {
    let number = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let addr = u128::from_str_radix(fields.next()?, 16).ok()?;
        let index = u32::from_str_radix(fields.next()?, 16).ok()?;
        (!Ipv6Addr::from(addr).is_loopback()).then_some(index)
    };
    text.lines().filter_map(number).collect()
}

/// A name for this peer that nobody else has: 32 to 63 letters and digits.
fn instance() -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut rng = rand::rng();
    let length = rng.random_range(32..64);
    (0..length).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_but_for_the_loopback() {
        let text = "fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n\
                    fd000000000000000000000000000002 0a 40 00 82     eth1\n\
                    00000000000000000000000000000001 01 80 10 80       lo\nnonsense\n";
        assert_eq!(interfaces_v6(text), HashSet::from([4, 10]));
    }

    #[test]
    fn instances_are_drawn_within_the_length_of_a_label() {
        for _ in 0..100 {
            let name = instance();
            assert!((32..64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        }
    }
}
