//! HTTP/1.1 with the habits of Go's net/http, for every HTTP face of the peer.
//!
//! ```text
//!  listen ── tls ─ conn ── wire ── hyper ── conn ── log ── auth ── cors ── mux ── a face's handler
//!  sockets   tasks   heads,  framing  order of        layers         table   answers through `respond`,
//!                    limits           headers                                uploads through `multipart`
//! ```
//!
//! - hyper keeps framing and keep-alive. What it does otherwise than Go's server is put right in `wire` and
//!   `conn`: trailers without being asked for, time limits, refusals, the order of headers.
//! - Nothing here knows a route, a configuration file or a cluster; faces pass values in. `face` puts the layers
//!   together for the section that REST API and pinning service share.
//! - Memory per connection is bounded: a head by its limit, bodies by the pieces in flight.
//! - Whoever drops an answer's body, or loses its client, ends the work behind it.

pub mod auth;
pub mod client;
pub mod conn;
pub mod cors;
pub mod face;
pub mod listen;
pub mod log;
pub mod multipart;
pub mod mux;
pub mod openapi;
pub mod respond;
pub mod tls;

mod head;
mod link;
mod media_type;
mod upstream;
mod wire;

use std::io;

use multiaddr::{Multiaddr, Protocol};

/// What can go wrong before a request is read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listen address that is no TCP or Unix socket.
    #[error("{}", not_listenable(.0))]
    NotListenable(Multiaddr),
    /// A name that leads to no address of the wanted family.
    #[error("listen {}: the name has no such address", place(.0))]
    NoAddress(Multiaddr),
    /// The system refused.
    #[error("listen {}: bind: {}", place(address), system_words(source))]
    Bind {
        /// Where.
        address: Multiaddr,
        /// Why.
        source: io::Error,
    },
}

/// What the system says, as Go prints it: lower case, without the number.
pub fn system_words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// An address as Go's `net` package names it: `tcp4 127.0.0.1:9094`, `unix /run/api`.
fn place(address: &Multiaddr) -> String {
    let mut parts = address.iter();
    let (version, host) = match parts.next() {
        Some(Protocol::Ip4(ip)) => ("4", ip.to_string()),
        Some(Protocol::Ip6(ip)) => ("6", format!("[{ip}]")),
        Some(Protocol::Dns(name)) => ("", name.into_owned()),
        Some(Protocol::Dns4(name)) => ("4", name.into_owned()),
        Some(Protocol::Dns6(name)) => ("6", name.into_owned()),
        Some(Protocol::Unix(path)) => return format!("unix /{}", path.trim_start_matches('/')),
        _ => return address.to_string(),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) => format!("tcp{version} {host}:{port}"),
        Some(Protocol::Udp(port)) => format!("udp{version} {host}:{port}"),
        _ => address.to_string(),
    }
}

fn not_listenable(address: &Multiaddr) -> String {
    let place = place(address);
    match place.split_once(' ') {
        Some((network, socket)) if network.starts_with("udp") => {
            format!("listen {place}: address {socket}: unexpected address type")
        }
        _ => format!("cannot listen on {address}: neither a TCP nor a unix address"),
    }
}
