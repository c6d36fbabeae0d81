//! Requests to another server: pooled connections by TCP or Unix socket, bodies and trailers as they come.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::Uri;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::listen::{Endpoint, Stream};
use super::respond::BodyError;

/// Longest wait for a connection.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an idle connection is kept.
const POOL_IDLE: Duration = Duration::from_secs(90);
/// Idle connections kept at most.
const MAX_IDLE: usize = 64;

/// A body on its way out.
pub type ClientBody = UnsyncBoxBody<Bytes, BodyError>;

/// No body.
pub fn no_body() -> ClientBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Another server.
#[derive(Clone, Debug)]
pub struct Client {
    inner: legacy::Client<Connector, ClientBody>,
    host: String,
}

impl Client {
    /// Connects to `endpoint` when there is something to send.
    pub fn new(endpoint: Endpoint) -> Self {
        let host = match &endpoint {
            Endpoint::Ip(ip, port) => std::net::SocketAddr::new(*ip, *port).to_string(),
            Endpoint::Name(name, port, _) => format!("{name}:{port}"),
            Endpoint::Unix(_) => "localhost".to_string(),
        };
        let inner = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .http1_title_case_headers(true)
            .http1_max_buf_size(256 << 10)
            .build(Connector { endpoint });
        Self { inner, host }
    }

    /// What `Host` says where nobody set it: `127.0.0.1:5001`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// A target of this server as a request needs it.
    pub fn uri(&self, path_and_query: &str) -> Result<Uri, http::Error> {
        Uri::builder().scheme("http").authority(self.host.as_str()).path_and_query(path_and_query).build()
    }

    /// Sends a request; the answer's body comes as it is read. Dropping the future or the body ends the request.
    pub async fn send(&self, request: http::Request<ClientBody>) -> Result<http::Response<Incoming>, Error> {
        self.inner.request(request).await.map_err(Error)
    }
}

/// A request that got no answer. `Display` is worded as Go words the usual causes.
#[derive(Debug, thiserror::Error)]
#[error("{}", describe(.0))]
pub struct Error(legacy::Error);

fn describe(error: &legacy::Error) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(this) = cause {
        if let Some(dial) = this.downcast_ref::<DialError>() {
            return dial.to_string();
        }
        if let Some(hyper) = this.downcast_ref::<hyper::Error>()
            && (hyper.is_incomplete_message() || hyper.is_closed())
        {
            return "EOF".to_string();
        }
        if let Some(io) = this.downcast_ref::<io::Error>() {
            return errno_text(io);
        }
        cause = this.source();
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(this) = cause {
        text = this.to_string();
        cause = this.source();
    }
    text
}

#[derive(Debug, thiserror::Error)]
#[error("dial {network} {address}: {cause}")]
struct DialError {
    network: &'static str,
    address: String,
    cause: String,
}

/// An error of the system in Go's words: those of `strerror`, in lower case and without its number.
fn errno_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_string(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".to_string(),
        io::ErrorKind::NotFound => "no such file or directory".to_string(),
        io::ErrorKind::TimedOut => "i/o timeout".to_string(),
        _ => {
            let text = error.to_string().to_lowercase();
            text.split(" (os error").next().unwrap_or_default().to_string()
        }
    }
}

/// Dials one endpoint, whatever the URI says.
#[derive(Clone, Debug)]
struct Connector {
    endpoint: Endpoint,
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = BodyError;
    type Future = BoxFuture<'static, Result<TokioIo<Stream>, BodyError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let endpoint = self.endpoint.clone();
        Box::pin(async move {
            let dialed = tokio::time::timeout(DIAL_TIMEOUT, Stream::connect(&endpoint)).await;
            let cause = match dialed {
                Ok(Ok(stream)) => return Ok(TokioIo::new(stream)),
                Ok(Err(e)) => format!("connect: {}", errno_text(&e)),
                Err(_) => "i/o timeout".to_string(),
            };
            let (network, address) = match &endpoint {
                Endpoint::Ip(ip, port) => ("tcp", std::net::SocketAddr::new(*ip, *port).to_string()),
                Endpoint::Name(name, port, _) => ("tcp", format!("{name}:{port}")),
                Endpoint::Unix(path) => ("unix", path.display().to_string()),
            };
            Err(DialError { network, address, cause }.into())
        })
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::StatusCode;
    use tokio::task::JoinSet;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::http::conn::{self, ConnOptions, Request, boxed};
    use crate::http::listen::{Listener, endpoint};
    use crate::http::respond;

    #[tokio::test]
    async fn a_unix_socket_is_as_good_as_tcp() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rpc");
        let unix = multiaddr::Protocol::Unix(path.to_str().unwrap().trim_start_matches('/').into());
        for address in [multiaddr::Multiaddr::from(unix), "/ip4/127.0.0.1/tcp/0".parse().unwrap()] {
            let listener = Listener::bind(&address).await.unwrap();
            let client = Client::new(endpoint(&listener.local_addr()).unwrap());
            let handler: conn::Handler = Arc::new(|request: Request, _| {
                boxed(async move { respond::document(StatusCode::OK, request.uri().path().to_string()) })
            });
            let stop = CancellationToken::new();
            let mut tasks = JoinSet::new();
            tasks.spawn(conn::serve(listener, handler, ConnOptions::default(), stop.clone()));
            let uri = client.uri("/a/b").unwrap();
            let request = http::Request::builder().uri(uri).body(no_body()).unwrap();
            let response = client.send(request).await.unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "/a/b");
            stop.cancel();
            tasks.join_all().await;
        }
    }

    #[tokio::test]
    async fn causes_are_worded_as_go_does() {
        let listener = Listener::bind(&"/ip4/127.0.0.1/tcp/0".parse().unwrap()).await.unwrap();
        let endpoint = endpoint(&listener.local_addr()).unwrap();
        drop(listener);
        let client = Client::new(endpoint);
        let request = http::Request::builder().uri(client.uri("/").unwrap()).body(no_body()).unwrap();
        let error = client.send(request).await.unwrap_err().to_string();
        assert_eq!(error, format!("dial tcp {}: connect: connection refused", client.host()));
    }
}
