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

/// What can go wrong before a request is read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listen address that is no TCP or Unix socket.
    #[error("cannot listen on {0}: neither a TCP nor a unix address")]
    NotListenable(multiaddr::Multiaddr),
    /// A name that leads to no address of the wanted family.
    #[error("cannot listen on {0}: the name has no such address")]
    NoAddress(multiaddr::Multiaddr),
    /// The system refused.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Where.
        address: multiaddr::Multiaddr,
        /// Why.
        source: std::io::Error,
    },
}
