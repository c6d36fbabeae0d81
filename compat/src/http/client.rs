//! Requests to another server: pooled connections by TCP or Unix socket, bodies and trailers as they come.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http::uri::{Authority, Scheme};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use tokio_util::task::TaskTracker;

pub use super::link::Reply;
use super::link::{self, Failure, Link, Pool};
use super::listen::{Endpoint, Stream};
use super::respond::BodyError;

/// Longest wait for a connection.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// A body on its way out.
pub type ClientBody = UnsyncBoxBody<Bytes, BodyError>;

/// No body.
pub fn no_body() -> ClientBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Another server.
#[derive(Clone, Debug)]
pub struct Client(Arc<Server>);

#[derive(Debug)]
struct Server {
    endpoint: Endpoint,
    host: String,
    /// The host as it stands in a target; `None` where it cannot.
    authority: Option<Authority>,
    pool: Arc<Pool>,
}

impl Client {
    /// Connects to `endpoint` when there is something to send.
    pub fn new(endpoint: Endpoint) -> Self {
        let socket = match &endpoint {
            Endpoint::Tls(inner, _) => inner,
            endpoint => endpoint,
        };
        let host = match socket {
            Endpoint::Ip(ip, port) => std::net::SocketAddr::new(*ip, *port).to_string(),
            Endpoint::Name(name, port, _) => format!("{name}:{port}"),
            Endpoint::Unix(_) | Endpoint::Tls(..) => "localhost".to_string(),
        };
        let authority = host.parse().ok();
        Self(Arc::new(Server { endpoint, host, authority, pool: Arc::default() }))
    }

    /// What `Host` says where nobody set it: `127.0.0.1:5001`.
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// A target of this server as a request needs it.
    pub fn uri(&self, path_and_query: &str) -> Result<Uri, http::Error> {
        let Some(authority) = &self.0.authority else {
            return Uri::builder().authority(self.host()).path_and_query(path_and_query).build();
        };
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(authority.clone());
        parts.path_and_query = Some(path_and_query.parse()?);
        Ok(Uri::from_parts(parts)?)
    }

    /// Sends a request; the answer's body comes as it is read. Dropping the future or the body ends the request.
    pub async fn send(&self, request: http::Request<ClientBody>) -> Result<http::Response<Reply>, Error> {
        let mut request = to_origin(request);
        while let Some(link) = self.0.pool.take().await {
            match link.send(request, &self.0.pool).await {
                Ok(response) => return Ok(response),
                Err(Failure::NotSent(unsent, _)) => request = *unsent,
                Err(Failure::Lost(cause)) => return Err(Error::Broken(cause)),
                Err(Failure::Ended) => return Err(Error::Ended),
            }
        }
        let link = Link::over(self.dial().await?).await.map_err(Error::Broken)?;
        link.send(request, &self.0.pool).await.map_err(|failure| match failure {
            Failure::NotSent(_, cause) | Failure::Lost(cause) => Error::Broken(cause),
            Failure::Ended => Error::Ended,
        })
    }

    /// Sends a request that may change the protocol, on a connection of its own, which a task of `tasks` drives: the
    /// answer may be given to [`hyper::upgrade::on`].
    pub async fn send_upgradable(
        &self,
        request: http::Request<ClientBody>,
        tasks: &TaskTracker,
    ) -> Result<http::Response<Reply>, Error> {
        let (mut sender, connection) = link::handshake(self.dial().await?).await.map_err(Error::Broken)?;
        tasks.spawn(async move {
            // what went wrong is told to whoever waits for the answer
            let _ = connection.with_upgrades().await;
        });
        let response = sender.send_request(to_origin(request)).await.map_err(Error::Broken)?;
        Ok(response.map(Reply::driven))
    }

    async fn dial(&self) -> Result<Stream, Error> {
        let endpoint = &self.0.endpoint;
        let cause = match tokio::time::timeout(DIAL_TIMEOUT, Stream::connect(endpoint)).await {
            Ok(Ok(stream)) => return Ok(stream),
            // a certificate, which no address makes better or worse
            Ok(Err(e)) if e.kind() == io::ErrorKind::Other => return Err(Error::Tls(e.to_string())),
            Ok(Err(e)) => format!("connect: {}", errno_text(&e)),
            Err(_) => "i/o timeout".to_string(),
        };
        let socket = match endpoint {
            Endpoint::Tls(inner, _) => inner,
            endpoint => endpoint,
        };
        let (network, address) = match socket {
            Endpoint::Unix(path) => ("unix", path.display().to_string()),
            Endpoint::Ip(..) | Endpoint::Name(..) | Endpoint::Tls(..) => ("tcp", self.host().to_string()),
        };
        Err(Error::Dial { network, address, cause })
    }
}

/// The target as the first line of a request holds it, and the header that names the server.
fn to_origin(mut request: http::Request<ClientBody>) -> http::Request<ClientBody> {
    if !request.headers().contains_key(http::header::HOST)
        && let Some(authority) = request.uri().authority()
        && let Ok(host) = http::HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(http::header::HOST, host);
    }
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = request.uri().path_and_query().cloned();
    if let Ok(origin) = Uri::from_parts(parts) {
        *request.uri_mut() = origin;
    }
    request
}

/// A request that got no answer. `Display` is worded as Go words the usual causes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server does not prove who it is.
    #[error("{0}")]
    Tls(String),
    /// No connection.
    #[error("dial {network} {address}: {cause}")]
    Dial {
        /// `tcp` or `unix`.
        network: &'static str,
        /// Where.
        address: String,
        /// Why.
        cause: String,
    },
    /// The connection broke before an answer.
    #[error("{}", describe(.0))]
    Broken(hyper::Error),
    /// The connection ended before an answer.
    #[error("EOF")]
    Ended,
}

fn describe(error: &hyper::Error) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut text = String::new();
    while let Some(this) = cause {
        if let Some(hyper) = this.downcast_ref::<hyper::Error>()
            && (hyper.is_incomplete_message() || hyper.is_closed())
        {
            return "EOF".to_string();
        }
        if let Some(io) = this.downcast_ref::<io::Error>() {
            return errno_text(io);
        }
        text = this.to_string();
        cause = this.source();
    }
    text
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::StatusCode;
    use tokio::task::JoinSet;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::http::conn::{self, ConnOptions, Request, boxed};
    use crate::http::listen::{Listener, endpoint};
    use crate::http::{respond, tls};

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

    #[tokio::test]
    async fn a_server_behind_tls_is_reached_where_its_certificate_is_trusted() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/tls");
        let listener = Listener::bind(&"/ip4/127.0.0.1/tcp/0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr();
        let server = tls::Server::load(&folder.join("rsa.crt"), &folder.join("rsa.key")).unwrap();
        let handler: conn::Handler =
            Arc::new(|_: Request, _| boxed(async { respond::empty(StatusCode::ACCEPTED) }));
        let mut serving = JoinSet::new();
        serving.spawn(conn::serve_with_tls(
            listener,
            Some(server),
            handler,
            ConnOptions::default(),
            CancellationToken::new(),
        ));
        let ask = async |tls: tls::Client| {
            let client = Client::new(endpoint(&address).unwrap().over(tls));
            let request = http::Request::get(client.uri("/").unwrap()).body(no_body()).unwrap();
            client.send(request).await
        };
        let pem = std::fs::read(folder.join("rsa.crt")).unwrap();
        assert_eq!(ask(tls::Client::trusting_pem(&pem)).await.unwrap().status(), StatusCode::ACCEPTED);
        let refusal = ask(tls::Client::trusting_pem(&std::fs::read(folder.join("other.crt")).unwrap())).await;
        let refusal = refusal.map(|_| ()).unwrap_err().to_string();
        assert!(refusal.contains("x509: certificate signed by unknown authority"), "{refusal}");
    }
}
