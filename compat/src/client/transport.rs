//! Where an endpoint is and how it is reached, with Go's words when it is not.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use multiaddr::{Multiaddr, Protocol};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::http::listen::Stream;

/// Longest look-up of a name. (Go: `api/rest/client`, `ResolveTimeout`)
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for a TCP connection. (Go: `api/rest/client/transports.go`)
const TCP_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for a Unix socket. (Go: `api/rest/client/transports.go`)
const UNIX_TIMEOUT: Duration = Duration::from_secs(1);

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
    /// TLS is not built in.
    Tls,
}

impl Endpoint {
    /// The endpoints a multiaddress stands for: several if it is a name with several addresses.
    pub(super) async fn resolve(address: &Multiaddr, https: bool) -> Result<Vec<Self>, String> {
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
            Some(Protocol::Ip4(ip)) => return Ok(vec![Self::tcp(ip.into(), port, https)]),
            Some(Protocol::Ip6(ip)) => return Ok(vec![Self::tcp(ip.into(), port, https)]),
            Some(Protocol::Dns(name)) => (name, None),
            Some(Protocol::Dns4(name)) => (name, Some(false)),
            Some(Protocol::Dns6(name)) => (name, Some(true)),
            _ => return Err(format!("{address} is not an address HTTP can be spoken to")),
        };
        if https {
            let authority = port.map_or_else(|| name.to_string(), |port| format!("{name}:{port}"));
            return Ok(vec![Self { scheme: "https", authority, target: Target::Tls }]);
        }
        let found = timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((&*name, port.unwrap_or(80))))
            .await
            .map_err(|_| format!("lookup {name}: i/o timeout"))?
            .map_err(|_| format!("lookup {name}: no such host"))?;
        let found: Vec<Self> = found
            .filter(|found| wants_v6.is_none_or(|wants_v6| found.is_ipv6() == wants_v6))
            .map(|found| Self::tcp(found.ip(), port, false))
            .collect();
        if found.is_empty() { Err(format!("resolving {address} returned 0 results")) } else { Ok(found) }
    }

    fn tcp(ip: IpAddr, port: Option<u16>, https: bool) -> Self {
        let host = match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        Self {
            scheme: if https { "https" } else { "http" },
            authority: port.map_or(host.clone(), |port| format!("{host}:{port}")),
            target: if https { Target::Tls } else { Target::Tcp(ip, port.unwrap_or(80)) },
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
            Target::Tcp(ip, port) => {
                let address = SocketAddr::new(*ip, *port);
                let failed = |cause: String| format!("dial tcp {address}: {cause}");
                match timeout(TCP_TIMEOUT, TcpStream::connect(address)).await {
                    Err(_) => Err(failed("i/o timeout".into())),
                    Ok(Err(error)) => Err(failed(format!("connect: {}", words(&error)))),
                    Ok(Ok(stream)) => {
                        // requests are written whole; waiting for more would only add to their time
                        let _ = stream.set_nodelay(true);
                        Ok(Stream::Tcp(stream))
                    }
                }
            }
            Target::Unix(path) => {
                let failed = |cause: String| format!("dial unix {}: {cause}", path.display());
                match timeout(UNIX_TIMEOUT, UnixStream::connect(path)).await {
                    Err(_) => Err(failed("i/o timeout".into())),
                    Ok(Err(error)) => Err(failed(format!("connect: {}", words(&error)))),
                    Ok(Ok(stream)) => Ok(Stream::Unix(stream)),
                }
            }
            Target::Tls => Err("https is not supported yet".into()),
        }
    }
}

/// What the system says, as Go prints it: lower case, without the number.
pub(super) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::parse_multiaddr;

    async fn url(address: &str, https: bool) -> String {
        let found = Endpoint::resolve(&parse_multiaddr(address).unwrap(), https).await.unwrap();
        found[0].url("/id")
    }

    #[tokio::test]
    async fn urls_are_those_of_the_reference() {
        assert_eq!(url("/ip4/127.0.0.1/tcp/9094", false).await, "http://127.0.0.1:9094/id");
        assert_eq!(url("/ip4/127.0.0.1", false).await, "http://127.0.0.1/id");
        assert_eq!(url("/ip6/::1/tcp/9094/http", false).await, "http://[::1]:9094/id");
        assert_eq!(url("/dns4/localhost/tcp/9094", false).await, "http://127.0.0.1:9094/id");
        assert_eq!(url("/dns4/example.org/tcp/443", true).await, "https://example.org:443/id");
        assert_eq!(url("/unix/tmp/api.sock", false).await, "http+unix://restapi/id");
    }

    #[tokio::test]
    async fn a_closed_port_is_refused_in_gos_words() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = parse_multiaddr(&format!("/ip4/127.0.0.1/tcp/{port}")).unwrap();
        let endpoint = Endpoint::resolve(&address, false).await.unwrap().remove(0);
        let text = endpoint.connect().await.unwrap_err();
        assert_eq!(text, format!("dial tcp 127.0.0.1:{port}: connect: connection refused"));
    }
}
