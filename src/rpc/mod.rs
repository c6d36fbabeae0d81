//! Calls between peers, and who may make them (spec: wire 4).
//!
//! ```text
//!   cluster ── Client ──▶ net: one stream a call ──▶ the other peer
//!   the other peer ──▶ net ──▶ Server: name → policy → argument ──▶ Handler (cluster::serve)
//! ```
//!
//! One stream carries one call: msgpack values one after another, with nothing around them. [`methods`] is the table
//! of names, policies and kinds that both directions read; [`codec`] finds the values in the stream.
//!
//! Invariants: every value has a longest length, and memory grows with the bytes that came, not with what a length
//! claims; a caller has a share of concurrent calls, and what exceeds it costs nobody else; a call whose caller has
//! reset its stream is dropped; whether a caller is trusted is asked at each call. Not here: what the methods do. A
//! peer never calls itself: who would, asks itself directly.

mod client;
mod codec;
pub mod methods;
mod server;
#[cfg(test)]
mod tests;
mod traced;

use std::time::Duration;

pub use self::client::{Client, Replies};
pub use self::methods::{Call, method_names};
pub use self::server::{Arguments, Failure, Handler, Outcome, Outcomes, Server};
use crate::{net, wire};

/// Protocol id of the streams. (Go: `version/version.go`)
pub const PROTOCOL: &str = "/ipfscluster/1.0/rpc";

/// Streams from all peers that wait to be taken in; taking one in is quick.
pub const MAX_WAITING: usize = 256;

/// Longest service id or head of an answer, error text included.
const MAX_HEAD_BYTES: usize = 256 << 10;

/// Values of `ErrType`. (Go: `go-libp2p-gorpc/errors.go`)
const TYPE_SERVER: i64 = 1;
const TYPE_AUTHORIZATION: i64 = 3;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The method itself failed there; the text is its own.
    #[error("{0}")]
    Method(String),
    /// The other peer could not make the call of what was sent.
    #[error("{0}")]
    Server(String),
    /// The other peer does not let us.
    #[error("{0}")]
    Authorization(String),
    /// The other peer could not be reached.
    #[error("failed to dial: {0}")]
    Dial(net::Error),
    /// There is no stream to the other peer.
    #[error("failed to open stream: {0}")]
    Open(net::Error),
    /// It did not answer in time.
    #[error("context deadline exceeded")]
    Deadline(Duration),
    /// It did not answer, and shows no other sign of life.
    #[error("the peer neither answers nor pings")]
    Gone,
    /// What it sent is no answer.
    #[error("{0}")]
    Broken(#[from] codec::Error),
    /// What it answered is not what the method answers.
    #[error("{0}")]
    Reply(#[from] wire::Error),
    /// A list without a sensible end.
    #[error("an answer of more than {1} {0}")]
    TooMuch(&'static str, usize),
    /// The stream ended before the answer.
    #[error("the stream ended before the answer")]
    NoAnswer,
}

impl From<net::Error> for Error {
    fn from(error: net::Error) -> Self {
        match error {
            net::Error::Dial { .. } => Self::Dial(error),
            // the reference opens streams without waiting, and waits for the answer instead
            net::Error::OpenTimeout { limit, .. } => Self::Deadline(limit),
            other => Self::Open(other),
        }
    }
}

impl Error {
    /// Whether the other peer refuses to be asked: then it has no place in the answer, and that is no failure.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Authorization(_))
    }
}
