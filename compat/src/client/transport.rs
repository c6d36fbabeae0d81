//! Where an endpoint is and how it is reached, with Go's words when it is not.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use multiaddr::{Multiaddr, Protocol};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::http::listen::{Duplex, Given, Stream};
use crate::http::{system_words as words, tls};
use crate::types::multiaddr_peer;

/// Longest look-up of a name. (Go: `api/rest/client`, `ResolveTimeout`)
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for a TCP connection. (Go: `api/rest/client/transports.go`)
const TCP_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for a Unix socket. (Go: `api/rest/client/transports.go`)
const UNIX_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest TLS handshake. (Go: `api/rest/client/transports.go`)
const TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens a stream to an address that names a peer, for HTTP over libp2p; the error is the text after the URL.
#[derive(Clone)]
pub struct Dialer(Arc<Dial>);

type Dial = dyn Fn(Multiaddr) -> BoxFuture<'static, Result<Box<dyn Duplex>, String>> + Send + Sync;

impl Dialer {
    /// Dials with `dial`.
    pub fn new(
        dial: impl Fn(Multiaddr) -> BoxFuture<'static, Result<Box<dyn Duplex>, String>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(dial))
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}

/// How endpoints are reached that are more than a socket.
#[derive(Debug, Clone, Default)]
pub(super) struct Means {
    /// HTTP over TLS.
    pub(super) tls: Option<tls::Client>,
    /// HTTP over libp2p.
    pub(super) dialer: Option<Dialer>,
}

/// One place to ask.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    scheme: &'static str,
    /// Host and port as they stand in a URL.
    authority: String,
    target: Target,
}

#[derive(Debug, Clone)]
enum Target {
    Tcp(IpAddr, u16),
    Unix(PathBuf),
    /// TLS with the server of that name.
    Tls(Tcp, String, tls::Client),
    Given(Multiaddr, Dialer),
}

/// The end of a TCP connection.
#[derive(Debug, Clone)]
enum Tcp {
    Ip(IpAddr, u16),
    Name(String, u16, Option<bool>),
}

impl Endpoint {
    /// The endpoints a multiaddress stands for: several if it is a name with several addresses.
    pub(super) async fn resolve(address: &Multiaddr, means: &Means) -> Result<Vec<Self>, String> {
        if let (Some(peer), Some(dialer)) = (multiaddr_peer(address), &means.dialer) {
            return Ok(vec![Self {
                scheme: "libp2p",
                authority: peer.to_base58(),
                target: Target::Given(address.clone(), dialer.clone()),
            }]);
        }
        let mut parts = address.iter();
        let host = parts.next();
        if let Some(Protocol::Unix(path)) = &host {
            let path = PathBuf::from(format!("/{}", path.trim_start_matches('/')));
            return Ok(vec![Self {
                scheme: "http+unix",
                authority: "restapi".into(),
                target: Target::Unix(path),
            }]);
        }
        let port = match parts.next() {
            Some(Protocol::Tcp(port)) => Some(port),
            None => None,
            Some(_) => return Err(format!("{address} is not an address HTTP can be spoken to")),
        };
        let (name, wants_v6) = match host {
            Some(Protocol::Ip4(ip)) => return Ok(vec![Self::tcp(ip.into(), port, means)]),
            Some(Protocol::Ip6(ip)) => return Ok(vec![Self::tcp(ip.into(), port, means)]),
            Some(Protocol::Dns(name)) => (name, None),
            Some(Protocol::Dns4(name)) => (name, Some(false)),
            Some(Protocol::Dns6(name)) => (name, Some(true)),
            _ => return Err(format!("{address} is not an address HTTP can be spoken to")),
        };
        if let Some(tls) = &means.tls {
            let authority = port.map_or_else(|| name.to_string(), |port| format!("{name}:{port}"));
            let tcp = Tcp::Name(name.to_string(), port.unwrap_or(443), wants_v6);
            let target = Target::Tls(tcp, name.into_owned(), tls.clone());
            return Ok(vec![Self { scheme: "https", authority, target }]);
        }
        let found = timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((&*name, port.unwrap_or(80))))
            .await
            .map_err(|_| format!("lookup {name}: i/o timeout"))?
            .map_err(|_| format!("lookup {name}: no such host"))?;
        let found: Vec<Self> = found
            .filter(|found| wants_v6.is_none_or(|wants_v6| found.is_ipv6() == wants_v6))
            .map(|found| Self::tcp(found.ip(), port, &Means::default()))
            .collect();
        if found.is_empty() { Err(format!("resolving {address} returned 0 results")) } else { Ok(found) }
    }

    fn tcp(ip: IpAddr, port: Option<u16>, means: &Means) -> Self {
        let host = match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let authority = port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
        match &means.tls {
            Some(tls) => {
                let target = Target::Tls(Tcp::Ip(ip, port.unwrap_or(443)), host, tls.clone());
                Self { scheme: "https", authority, target }
            }
            None => Self { scheme: "http", authority, target: Target::Tcp(ip, port.unwrap_or(80)) },
        }
    }

    /// The `Host` of requests.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// The URL of a path and query here, for messages.
    pub(super) fn url(&self, target: &str) -> String {
        format!("{}://{}{target}", self.scheme, self.authority)
    }

    /// Opens a connection; the error is Go's text.
    pub(super) async fn connect(&self) -> Result<Stream, String> {
        match &self.target {
            Target::Tcp(ip, port) => Tcp::Ip(*ip, *port).connect().await,
            Target::Tls(tcp, host, tls) => {
                let stream = tcp.connect().await?;
                match timeout(TLS_TIMEOUT, tls.connect(host, stream)).await {
                    Err(_) => Err("net/http: TLS handshake timeout".into()),
                    Ok(Err(error)) => Err(tls::words(&error)),
                    Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
                }
            }
            Target::Given(address, Dialer(dial)) => {
                dial(address.clone()).await.map(|stream| Stream::Given(Given(stream)))
            }
            Target::Unix(path) => {
                let failed = |cause: String| format!("dial unix {}: {cause}", path.display());
                match timeout(UNIX_TIMEOUT, UnixStream::connect(path)).await {
                    Err(_) => Err(failed("i/o timeout".into())),
                    Ok(Err(error)) => Err(failed(format!("connect: {}", words(&error)))),
                    Ok(Ok(stream)) => Ok(Stream::Unix(stream)),
                }
            }
        }
    }
}

impl Tcp {
    async fn connect(&self) -> Result<Stream, String> {
        let (addresses, name) = match self {
            Self::Ip(ip, port) => (vec![SocketAddr::new(*ip, *port)], None),
            Self::Name(name, port, wants_v6) => {
                let failed = |cause: &str| format!("dial tcp: lookup {name}: {cause}");
                let found = timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((name.as_str(), *port)))
                    .await
                    .map_err(|_| failed("i/o timeout"))?
                    .map_err(|_| failed("no such host"))?;
                let found: Vec<SocketAddr> = found
                    .filter(|found| wants_v6.is_none_or(|wants_v6| found.is_ipv6() == wants_v6))
                    .collect();
                (found, Some(name))
            }
        };
        let mut last = match name {
            Some(name) => format!("dial tcp: lookup {name}: no such host"),
            None => String::new(),
        };
        for address in addresses {
            let failed = |cause: String| format!("dial tcp {address}: {cause}");
            match timeout(TCP_TIMEOUT, TcpStream::connect(address)).await {
                Err(_) => last = failed("i/o timeout".into()),
                Ok(Err(error)) => last = failed(format!("connect: {}", words(&error))),
                Ok(Ok(stream)) => {
                    // requests are written whole; waiting for more would only add to their time
                    let _ = stream.set_nodelay(true);
                    return Ok(Stream::Tcp(stream));
                }
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::parse_multiaddr;

    async fn url(address: &str, https: bool) -> String {
        let tls = https.then(|| tls::Client::checking().unwrap());
        let dialer = Dialer::new(|_| Box::pin(async { Err("nobody".into()) }));
        let means = Means { tls, dialer: Some(dialer) };
        let found = Endpoint::resolve(&parse_multiaddr(address).unwrap(), &means).await.unwrap();
        found[0].url("/id")
    }

    #[tokio::test]
    async fn urls_are_those_of_the_reference() {
        assert_eq!(url("/ip4/127.0.0.1/tcp/9094", false).await, "http://127.0.0.1:9094/id");
        assert_eq!(url("/ip4/127.0.0.1", false).await, "http://127.0.0.1/id");
        assert_eq!(url("/ip6/::1/tcp/9094/http", false).await, "http://[::1]:9094/id");
        assert_eq!(url("/dns4/localhost/tcp/9094", false).await, "http://127.0.0.1:9094/id");
        assert_eq!(url("/dns4/example.org/tcp/443", true).await, "https://example.org:443/id");
        assert_eq!(url("/ip4/127.0.0.1/tcp/9094", true).await, "https://127.0.0.1:9094/id");
        assert_eq!(url("/unix/tmp/api.sock", false).await, "http+unix://restapi/id");
        let peer = "12D3KooWPAmxfHiW2QAwYnRdJAEKLbXm6Re1mDcfdKsdZYCXj12r";
        let over_libp2p = format!("/ip4/127.0.0.1/tcp/9096/p2p/{peer}");
        assert_eq!(url(&over_libp2p, true).await, format!("libp2p://{peer}/id"));
    }

    #[tokio::test]
    async fn a_closed_port_is_refused_in_gos_words() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = parse_multiaddr(&format!("/ip4/127.0.0.1/tcp/{port}")).unwrap();
        let endpoint = Endpoint::resolve(&address, &Means::default()).await.unwrap().remove(0);
        let text = endpoint.connect().await.unwrap_err();
        assert_eq!(text, format!("dial tcp 127.0.0.1:{port}: connect: connection refused"));
    }
}
