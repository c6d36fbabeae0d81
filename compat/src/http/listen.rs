//! Listening sockets: `/ip4/…/tcp/…`, `/ip6/…/tcp/…`, `/dns…/…/tcp/…` and `/unix/…`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use multiaddr::{Multiaddr, Protocol};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::client::TlsStream;

use super::Error;
use super::conn::PeerAddr;
use super::tls;

/// Connections the system may queue before they are accepted (Go takes the system's limit).
const BACKLOG: i32 = 4096;
/// Silence after which a client is asked whether it is still there (as Go does).
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Longest TLS handshake as a client. (Go: `http.DefaultTransport`)
const TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// A bound socket. Connections queue in the system until [`serve`](super::conn::serve) takes them.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: Multiaddr,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// A connection of any kind.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over one of the others, as its client.
    Tls(Box<TlsStream<Stream>>),
    /// One that somebody else has opened.
    Given(Given),
}

/// What can be read and written: a stream of bytes, wherever it leads.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// A stream that somebody else has opened.
pub struct Given(pub Box<dyn Duplex>);

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Given")
    }
}

/// Where an address leads: TCP with the wanted family, or a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// An address and a port.
    Ip(IpAddr, u16),
    /// A name, a port, and the family asked for (`Some(true)` is IPv6).
    Name(String, u16, Option<bool>),
    /// A path.
    Unix(PathBuf),
    /// One of the others, behind TLS.
    Tls(Box<Endpoint>, tls::Client),
}

impl Endpoint {
    /// The same behind TLS.
    pub fn over(self, tls: tls::Client) -> Self {
        Self::Tls(Box::new(self), tls)
    }

    /// What its certificate is for.
    fn host(&self) -> String {
        match self {
            Self::Ip(ip, _) => ip.to_string(),
            Self::Name(name, ..) => name.clone(),
            Self::Unix(_) => "localhost".to_owned(),
            Self::Tls(inner, _) => inner.host(),
        }
    }
}

/// What a multiaddress says to dial or to listen on; protocols above TCP (`/http`, `/p2p/…`) are left out.
pub fn endpoint(address: &Multiaddr) -> Result<Endpoint, Error> {
    let refused = || Error::NotListenable(address.clone());
    let mut parts = address.iter();
    let host = parts.next().ok_or_else(refused)?;
    if let Protocol::Unix(path) = &host {
        return Ok(Endpoint::Unix(PathBuf::from(format!("/{}", path.trim_start_matches('/')))));
    }
    let Some(Protocol::Tcp(port)) = parts.next() else { return Err(refused()) };
    match host {
        Protocol::Ip4(ip) => Ok(Endpoint::Ip(IpAddr::V4(ip), port)),
        Protocol::Ip6(ip) => Ok(Endpoint::Ip(IpAddr::V6(ip), port)),
        Protocol::Dns(name) => Ok(Endpoint::Name(name.into_owned(), port, None)),
        Protocol::Dns4(name) => Ok(Endpoint::Name(name.into_owned(), port, Some(false))),
        Protocol::Dns6(name) => Ok(Endpoint::Name(name.into_owned(), port, Some(true))),
        _ => Err(refused()),
    }
}

impl Listener {
    /// Binds the socket. A stale Unix socket file is not removed; an own one is, when the listener goes.
    pub async fn bind(address: &Multiaddr) -> Result<Self, Error> {
        let failed = |source| Error::Bind { address: address.clone(), source };
        let (socket, address) = match endpoint(address)? {
            Endpoint::Unix(path) => {
                let listener = UnixListener::bind(&path).map_err(failed)?;
                (Socket::Unix(listener, path), address.clone())
            }
            Endpoint::Ip(ip, port) => Self::bind_tcp(SocketAddr::new(ip, port)).map_err(failed)?,
            // no address says so
            Endpoint::Tls(..) => return Err(Error::NotListenable(address.clone())),
            Endpoint::Name(name, port, wants_v6) => {
                let found = tokio::net::lookup_host((name.as_str(), port)).await.map_err(failed)?;
                let found =
                    found.filter(|found| wants_v6.is_none_or(|wants_v6| found.is_ipv6() == wants_v6)).min();
                Self::bind_tcp(found.ok_or_else(|| Error::NoAddress(address.clone()))?).map_err(failed)?
            }
        };
        Ok(Self { socket, address })
    }

    fn bind_tcp(address: SocketAddr) -> io::Result<(Socket, Multiaddr)> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )?;
        if address.is_ipv6() {
            // `/ip6/::` is IPv6 alone, so that `/ip4/0.0.0.0` on the same port stays free
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(socket.into())?;
        let address = tcp_multiaddr(listener.local_addr()?);
        Ok((Socket::Tcp(listener), address))
    }

    /// Where it listens, with the port the system chose.
    pub fn local_addr(&self) -> Multiaddr {
        self.address.clone()
    }

    /// The next connection and who made it.
    pub async fn accept(&self) -> io::Result<(Stream, PeerAddr)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // answers are written whole; waiting for more would only add to their time
                let _ = stream.set_nodelay(true);
                // clients that vanished are noticed, or their long polls would stay for ever
                let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE);
                let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive);
                Ok((Stream::Tcp(stream), PeerAddr::Ip(peer.ip())))
            }
            Socket::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), PeerAddr::Unix))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socket::Unix(_, path) = &self.socket {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn tcp_multiaddr(address: SocketAddr) -> Multiaddr {
    let host = match address.ip() {
        IpAddr::V4(ip) => Protocol::Ip4(ip),
        IpAddr::V6(ip) => Protocol::Ip6(ip),
    };
    Multiaddr::empty().with(host).with(Protocol::Tcp(address.port()))
}

impl Stream {
    /// Connects to `endpoint`.
    pub async fn connect(endpoint: &Endpoint) -> io::Result<Self> {
        let stream = match endpoint {
            Endpoint::Tls(inner, tls) => {
                let stream = Box::pin(Self::connect(inner)).await?;
                let shaken = tokio::time::timeout(TLS_TIMEOUT, tls.connect(&inner.host(), stream)).await;
                let shaken = shaken.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
                let stream = shaken.map_err(|error| io::Error::other(tls::words(&error)))?;
                return Ok(Self::Tls(Box::new(stream)));
            }
            Endpoint::Unix(path) => return UnixStream::connect(path).await.map(Self::Unix),
            Endpoint::Ip(ip, port) => TcpStream::connect((*ip, *port)).await?,
            Endpoint::Name(name, port, None) => TcpStream::connect((name.as_str(), *port)).await?,
            Endpoint::Name(name, port, Some(wants_v6)) => {
                let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), *port))
                    .await?
                    .filter(|found| found.is_ipv6() == *wants_v6)
                    .collect();
                TcpStream::connect(&found[..]).await?
            }
        };
        let _ = stream.set_nodelay(true);
        Ok(Self::Tcp(stream))
    }

    /// Our end and the other one, of TCP.
    pub fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        match self {
            Self::Tcp(stream) => Some((stream.local_addr().ok()?, stream.peer_addr().ok()?)),
            _ => None,
        }
    }

    /// The address a program on the same machine dials to reach `ip`: unspecified ones become loopback.
    pub fn reachable(ip: IpAddr) -> IpAddr {
        match ip {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        }
    }
}

/// The same call on whatever the connection is.
macro_rules! each {
    ($connection:expr, $stream:ident => $call:expr) => {
        match $connection {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
            Stream::Tls($stream) => $call,
            Stream::Given(Given($stream)) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_of_the_systems_choice_is_in_the_address() {
        let listener = Listener::bind(&"/ip4/127.0.0.1/tcp/0".parse().unwrap()).await.unwrap();
        let text = listener.local_addr().to_string();
        assert!(text.starts_with("/ip4/127.0.0.1/tcp/") && !text.ends_with("/0"), "{text}");
        let again = Listener::bind(&listener.local_addr()).await.unwrap_err();
        let socket = text.replace("/ip4/127.0.0.1/tcp/", "127.0.0.1:");
        assert_eq!(again.to_string(), format!("listen tcp4 {socket}: bind: address already in use"));
    }

    #[tokio::test]
    async fn a_unix_socket_file_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api");
        let address = Multiaddr::from(Protocol::Unix(path.to_str().unwrap().into()));
        let listener = Listener::bind(&address).await.unwrap();
        assert!(path.exists());
        assert!(Listener::bind(&address).await.is_err(), "a stale file is not removed");
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn only_tcp_and_unix_can_be_listened_on() {
        for text in ["/ip4/1.2.3.4/udp/1", "/ip4/1.2.3.4", "/dns4/x"] {
            assert!(endpoint(&text.parse().unwrap()).is_err(), "{text}");
        }
        let udp = endpoint(&"/ip4/1.2.3.4/udp/1".parse().unwrap()).unwrap_err().to_string();
        assert_eq!(udp, "listen udp4 1.2.3.4:1: address 1.2.3.4:1: unexpected address type");
        let name = endpoint(&"/dns4/localhost/tcp/5".parse().unwrap()).unwrap();
        assert_eq!(name, Endpoint::Name("localhost".into(), 5, Some(false)));
    }
}
