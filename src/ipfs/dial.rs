//! Where the daemon is, how it is reached, and how Go words it when it is not.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use cluster_compat::types::parse_multiaddr;
use libp2p::multiaddr::Protocol;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Longest wait for a TCP connection (Go: `net/http.DefaultTransport`).
const TCP_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest wait for a connection to a Unix socket (Go: `ipfshttp.go`, `NewConnector`).
const UNIX_TIMEOUT: Duration = Duration::from_secs(1);

/// What a daemon's multiaddress says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// Host name or IP address (without brackets), and port.
    Tcp { host: String, port: u16, family: Family },
    /// Path of the socket.
    Unix(PathBuf),
}

/// Which addresses of a DNS name are tried first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Any,
    V4,
    V6,
}

impl Address {
    /// Reads `/ip4/…/tcp/…`, `/ip6/…`, `/dns…/…` and `/unix/<path>`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("/unix/") {
            let path = path.trim_end_matches('/');
            if path.is_empty() {
                return Err(format!("{text} names no socket"));
            }
            return Ok(Self::Unix(Path::new("/").join(path)));
        }
        let address = parse_multiaddr(text)?;
        let mut protocols = address.iter();
        let (host, family) = match protocols.next() {
            Some(Protocol::Ip4(ip)) => (ip.to_string(), Family::V4),
            Some(Protocol::Ip6(ip)) => (ip.to_string(), Family::V6),
            Some(Protocol::Dns(name)) => (name.into_owned(), Family::Any),
            Some(Protocol::Dns4(name)) => (name.into_owned(), Family::V4),
            Some(Protocol::Dns6(name)) => (name.into_owned(), Family::V6),
            _ => return Err(format!("{text} is not an address that can be dialled")),
        };
        match protocols.next() {
            Some(Protocol::Tcp(port)) => Ok(Self::Tcp { host, port, family }),
            _ => Err(format!("{text} has no TCP port")),
        }
    }

    /// Reads the authority of a URL: `host`, `host:port` or `[ip6]:port`.
    pub(super) fn of_authority(authority: &http::uri::Authority) -> Self {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Self::Tcp { host, port: authority.port_u16().unwrap_or(80), family: Family::Any }
    }

    /// The `Host` header.
    pub(super) fn authority(&self) -> String {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port, .. } => format!("{host}:{port}"),
            Self::Unix(_) => "ipfs".into(),
        }
    }

    /// What stands before the path in a URL, as Go prints it in errors.
    pub(super) fn origin(&self) -> String {
        match self {
            Self::Tcp { .. } => format!("http://{}", self.authority()),
            Self::Unix(_) => "http+unix://ipfs".into(),
        }
    }

    /// Opens a connection; the error is Go's text.
    pub(super) async fn dial(&self) -> Result<Stream, String> {
        match self {
            Self::Tcp { host, port, family } => dial_tcp(host, *port, *family).await,
            Self::Unix(path) => {
                let failure = |cause: &str| format!("dial unix {}: {cause}", path.display());
                match tokio::time::timeout(UNIX_TIMEOUT, UnixStream::connect(path)).await {
                    Err(_) => Err(failure("i/o timeout")),
                    Ok(Err(error)) => Err(failure(&format!("connect: {}", cause(&error)))),
                    Ok(Ok(socket)) => Ok(Stream::new(Socket::Unix(socket), None)),
                }
            }
        }
    }
}

async fn dial_tcp(host: &str, port: u16, family: Family) -> Result<Stream, String> {
    let mut addresses: Vec<SocketAddr> = match host.parse() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => match tokio::time::timeout(TCP_TIMEOUT, tokio::net::lookup_host((host, port))).await {
            Err(_) => return Err(format!("dial tcp: lookup {host}: i/o timeout")),
            Ok(Err(_)) => return Err(format!("dial tcp: lookup {host}: no such host")),
            Ok(Ok(addresses)) => addresses.collect(),
        },
    };
    addresses.sort_by_key(|address| match family {
        Family::Any => false,
        Family::V4 => !address.is_ipv4(),
        Family::V6 => !address.is_ipv6(),
    });
    // Go reports the first address that failed.
    let mut first = None;
    for address in addresses {
        let failure = match tokio::time::timeout(TCP_TIMEOUT, TcpStream::connect(address)).await {
            Err(_) => format!("dial tcp {address}: i/o timeout"),
            Ok(Err(error)) => format!("dial tcp {address}: connect: {}", cause(&error)),
            Ok(Ok(socket)) => {
                // A request is one small write; waiting for more only delays it.
                let _ = socket.set_nodelay(true);
                let ends = socket.local_addr().ok().zip(socket.peer_addr().ok());
                let ends = ends.map(|(local, peer)| format!("tcp {local}->{peer}"));
                return Ok(Stream::new(Socket::Tcp(socket), ends));
            }
        };
        first.get_or_insert(failure);
    }
    Err(first.unwrap_or_else(|| format!("dial tcp: lookup {host}: no such host")))
}

/// The cause of a failed system call in Go's words.
pub(super) fn cause(error: &io::Error) -> String {
    let known = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::ConnectionReset => "connection reset by peer",
        io::ErrorKind::BrokenPipe => "broken pipe",
        io::ErrorKind::NotFound => "no such file or directory",
        io::ErrorKind::PermissionDenied => "permission denied",
        io::ErrorKind::HostUnreachable => "no route to host",
        io::ErrorKind::NetworkUnreachable => "network is unreachable",
        io::ErrorKind::TimedOut => "connection timed out",
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address",
        _ => "",
    };
    if !known.is_empty() {
        return known.into();
    }
    let mut text = error.to_string();
    if let Some(at) = text.find(" (os error") {
        text.truncate(at);
    }
    text.to_lowercase()
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection to the daemon that knows whether the daemon ever said something on it.
#[derive(Debug)]
pub(super) struct Stream {
    socket: Socket,
    heard: Arc<AtomicBool>,
    ends: Option<String>,
}

impl Stream {
    fn new(socket: Socket, ends: Option<String>) -> Self {
        Self { socket, heard: Arc::new(AtomicBool::new(false)), ends }
    }

    /// Set when bytes arrive; whoever waits for a reply resets it first.
    pub(super) fn heard(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.heard)
    }

    /// Both ends as Go names them in errors: `tcp 127.0.0.1:1->127.0.0.1:2`, or `unix @->ipfs`.
    pub(super) fn ends(&self) -> String {
        self.ends.clone().unwrap_or_else(|| "unix @->ipfs".into())
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Socket::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
        };
        if buf.filled().len() > before {
            self.heard.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Socket::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Socket::Unix(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Socket::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Socket::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_hosts_and_sockets() {
        for (text, authority, origin) in [
            ("/ip4/127.0.0.1/tcp/5001", "127.0.0.1:5001", "http://127.0.0.1:5001"),
            ("/ip6/::1/tcp/5001", "[::1]:5001", "http://[::1]:5001"),
            ("/dns4/kubo/tcp/80", "kubo:80", "http://kubo:80"),
            ("/unix/run/kubo/api.sock", "ipfs", "http+unix://ipfs"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!((address.authority().as_str(), address.origin().as_str()), (authority, origin));
        }
        assert_eq!(Address::parse("/unix/run/api.sock").unwrap(), Address::Unix("/run/api.sock".into()));
        for text in ["/unix/", "/ip4/1.2.3.4", "/ip4/1.2.3.4/udp/1", "/p2p-circuit"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
