//! [`ClusterApi`](crate::api::ClusterApi) over HTTP: what `ipfs-cluster-ctl` and the shell talk through.
//!
//! ```text
//! methods (ClusterApi) ──► calls (paths, queries, types) ──► request (one exchange, failover) ──► transport
//!                                         upload ──► multipart body
//! ```
//!
//! - A request is one connection: nothing is kept open between calls, and nothing outlives the answer.
//! - Endpoints are tried in order, one attempt each; the next is tried only when no HTTP answer was obtained.
//!   Any answer, even 5xx, is final.
//! - A failure without an answer has [`Error::code`] 0 and Go's shape `Get "<url>": <cause>`.
//! - Long answers are read as they come; their late errors come from the trailer `X-Stream-Error`.

mod calls;
mod methods;
mod path;
mod request;
#[cfg(test)]
mod tests;
mod transport;
mod upload;
mod wait;

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::HeaderValue;

pub use self::methods::status_filter;
pub use self::path::parse_path;
pub use self::transport::Dialer;
pub use self::wait::{Wait, WaitError};
use crate::api::{self, ErrorKind};
use crate::http::tls;
use crate::types::Multiaddr;

use self::transport::{Endpoint, Means};

/// A failed call, as `ipfs-cluster-ctl` prints it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The HTTP status; 0 if there was no answer.
    pub code: u16,
    /// What the peer said, or why it could not be asked.
    pub message: String,
}

impl From<Error> for api::Error {
    fn from(error: Error) -> Self {
        let kind = match error.code {
            400 => ErrorKind::BadRequest,
            401 => ErrorKind::Unauthorized,
            404 => ErrorKind::NotFound,
            _ => ErrorKind::Internal,
        };
        Self { kind, message: error.message }
    }
}

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// A long answer: items as they arrive, an error as the last item.
pub type Items<T> = futures::stream::BoxStream<'static, Result<T>>;

/// Where a cluster is and how it is asked.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Endpoints in the order of preference. Names are looked up by [`RestClient::new`].
    pub hosts: Vec<Multiaddr>,
    /// User name for basic authentication; empty is none.
    pub username: String,
    /// Its password.
    pub password: String,
    /// HTTP over TLS; `None` is without.
    pub tls: Option<tls::Client>,
    /// How addresses are reached that name a peer; `None` takes them for those of its HTTP.
    pub dialer: Option<Dialer>,
    /// Longest exchange, its stream included; `None` is no limit.
    pub timeout: Option<Duration>,
}

/// A cluster peer, asked over HTTP.
#[derive(Debug, Clone)]
pub struct RestClient {
    endpoints: Vec<Endpoint>,
    authorization: Option<HeaderValue>,
    timeout: Option<Duration>,
}

impl RestClient {
    /// Looks up names; asks nobody yet.
    pub async fn new(options: Options) -> std::result::Result<Self, String> {
        let means = Means { tls: options.tls, dialer: options.dialer };
        let mut endpoints = Vec::new();
        for host in &options.hosts {
            endpoints.extend(Endpoint::resolve(host, &means).await?);
        }
        let authorization = match options.username.as_str() {
            "" => None,
            name => {
                let text = BASE64_STANDARD.encode(format!("{name}:{}", options.password));
                let value = HeaderValue::from_maybe_shared(Bytes::from(format!("Basic {text}")))
                    .map_err(|_| "the credentials cannot be sent in a header".to_owned())?;
                Some(value)
            }
        };
        Ok(Self { endpoints, authorization, timeout: options.timeout })
    }
}
