//! From a socket to streams (spec: wire 1.1, 1.2).
//!
//! ```text
//!   TCP ─────────────┐
//!   WebSocket on TCP ┼─▶ secret (XSalsa20, if there is one) ─▶ noise or TLS ─▶ yamux ─▶ counted streams
//!   relayed stream ──┘                                                                      ▲
//!   QUIC (open swarm only) ─────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Written by hand because the library's builder has no place for the secret, least of all on relayed connections,
//! which original peers encrypt with it too.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, Either};
use futures::{AsyncRead, AsyncWrite, FutureExt as _};
use libp2p::core::ConnectedPoint;
use libp2p::core::Endpoint;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::identity::Keypair;
use libp2p::pnet::{PnetConfig, PnetError, PreSharedKey};
use libp2p::{PeerId, Transport, dns, noise, quic, relay, tcp, tls, websocket, yamux};

use multistream_select::{Negotiated, NegotiationError, Version, dialer_select_proto, listener_select_proto};

use super::Error;
use super::bandwidth::{Counted, Traffic};
use super::strangers::Strangers;

/// Longest handshake of an incoming connection; one with another secret hangs until then. As long as an original
/// peer waits.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Streams of one connection. yamux ends the whole connection when the other side opens more, and 4097 would not
/// fit its window of 1 GiB at 256 KiB each.
const MAX_STREAMS: usize = 4096;

/// The same on QUIC, where the other side waits when there are so many; each takes memory once it is used.
const MAX_QUIC_STREAMS: u32 = 1024;

/// Largest WebSocket message, read before anybody has proved anything. Original peers send as one message what they
/// write at once, 64 KiB at most.
const MAX_WS_MESSAGE_BYTES: usize = 1 << 20;

const NOISE: &str = "/noise";

/// In the order a dialer prefers them; a listener takes either.
const SECURITY: &[&str] = &[NOISE, "/tls/1.0.0"];

const YAMUX: &str = "/yamux/1.0.0";

/// What the transport is built from.
pub(super) struct Args<'a> {
    pub(super) keypair: &'a Keypair,
    pub(super) secret: Option<[u8; 32]>,
    /// For the connection and, once that stands, for its handshake.
    pub(super) dial_timeout: Duration,
    /// QUIC beside the others; it knows no secret.
    pub(super) has_quic: bool,
    pub(super) traffic: Arc<Traffic>,
    pub(super) relayed: relay::client::Transport,
}

/// A connection with a known peer.
type Connected = Boxed<(PeerId, StreamMuxerBox)>;

/// Builds the transport. With a secret nothing but its holders gets as far as saying who they are.
pub(super) fn build(args: Args<'_>) -> Result<Connected, Error> {
    let Args { keypair, secret, dial_timeout, has_quic, traffic, relayed } = args;
    let invalid = |reason: String| Error::Keypair { reason };
    let mut muxer = yamux::Config::default();
    muxer.set_max_num_streams(MAX_STREAMS);
    let handshake = Handshake {
        secret: secret.map(|bytes| PnetConfig::new(PreSharedKey::new(bytes))),
        noise: noise::Config::new(keypair).map_err(|e| invalid(e.to_string()))?,
        tls: tls::Config::new(keypair).map_err(|e| invalid(e.to_string()))?,
        muxer,
        dial_timeout,
        traffic,
        strangers: Arc::default(),
    };
    // the order matters: the last one takes any address that names a host, whatever follows the name
    let relayed = relayed.map(|socket, _| erased(socket));
    let sockets = relayed.or_transport(web_sockets()?).map(|socket, _| either(socket));
    if !has_quic {
        let sockets = sockets.or_transport(named(plain()?)?).map(|socket, _| either(socket));
        return Ok(handshake.over(sockets.boxed()));
    }
    // what a name stands for may be either
    let traffic = Arc::clone(&handshake.traffic);
    let on_udp = quic::tokio::Transport::new(quic_config(keypair, dial_timeout))
        .map(move |(peer, muxer), _| (peer, StreamMuxerBox::new(Counted::new(muxer, Arc::clone(&traffic)))));
    let any =
        named(on_udp.or_transport(handshake.clone().over(plain()?)).map(|connected, _| match connected {
            Either::Left(connected) | Either::Right(connected) => connected,
        }))?;
    let all = handshake.over(sockets.boxed()).or_transport(any);
    Ok(all
        .map(|connected, _| match connected {
            Either::Left(connected) | Either::Right(connected) => connected,
        })
        .boxed())
}

fn quic_config(keypair: &Keypair, dial_timeout: Duration) -> quic::Config {
    let mut config = quic::Config::new(keypair);
    config.handshake_timeout = dial_timeout;
    config.max_concurrent_stream_limit = MAX_QUIC_STREAMS;
    config
}

/// A socket of any kind.
type Socket = Box<dyn Duplex>;

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

fn erased(socket: impl Duplex + 'static) -> Socket {
    Box::new(socket)
}

fn either(socket: Either<Socket, Socket>) -> Socket {
    match socket {
        Either::Left(socket) | Either::Right(socket) => socket,
    }
}

/// Finds what a name stands for, then goes on with `inner`.
fn named<T: Transport + Send + Unpin + 'static>(inner: T) -> Result<dns::tokio::Transport<T>, Error>
where
    T::Error: Send,
    T::Dial: Send,
{
    dns::tokio::Transport::system(inner).map_err(|source| Error::Dns { source })
}

fn sockets() -> tcp::tokio::Transport {
    tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
}

/// Names are resolved below the WebSocket: its request and the certificate of a secure one need them.
fn web_sockets() -> Result<Boxed<Socket>, Error> {
    let mut over = websocket::Config::new(named(sockets())?);
    over.set_max_data_size(MAX_WS_MESSAGE_BYTES);
    Ok(over.map(|socket, _| erased(socket)).boxed())
}

/// TCP, and a WebSocket that `/dnsaddr` may stand for.
fn plain() -> Result<Boxed<Socket>, Error> {
    let tcp = sockets().map(|socket, _| erased(socket));
    Ok(web_sockets()?.or_transport(tcp).map(|socket, _| either(socket)).boxed())
}

/// What turns a socket into a connection with a known peer. Cloned for each.
#[derive(Clone)]
struct Handshake {
    secret: Option<PnetConfig>,
    noise: noise::Config,
    tls: tls::Config,
    muxer: yamux::Config,
    dial_timeout: Duration,
    traffic: Arc<Traffic>,
    strangers: Arc<Strangers>,
}

/// Why a socket did not become a connection.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the handshake of the private network failed: {0}")]
    Secret(PnetError),
    /// What comes in is no negotiation, or nothing comes in.
    #[error("{0}")]
    Stranger(&'static str),
    #[error("no security protocol in common")]
    NoSecurity,
    #[error("the {protocol} handshake failed: {reason}")]
    Security { protocol: &'static str, reason: String },
    #[error("no stream multiplexer in common")]
    NoMuxer,
    #[error("the handshake took too long")]
    TooSlow,
}

/// The other side of a connection that we hold a secret for speaks something else.
const OTHER_SECRET: &str = "it probably has another cluster secret, or none";

/// The other side of an open connection speaks something else.
const UNKNOWN_SECRET: &str = "it probably has a cluster secret, and we have none";

impl Handshake {
    /// Connections over `sockets`.
    fn over(self, sockets: Boxed<Socket>) -> Connected {
        let sockets = TransportTimeout::with_outgoing_timeout(sockets, self.dial_timeout);
        let sockets = TransportTimeout::with_ingoing_timeout(sockets, ACCEPT_TIMEOUT);
        sockets.and_then(move |socket, endpoint| self.clone().run(socket, endpoint)).boxed()
    }

    async fn run(
        self,
        socket: Socket,
        endpoint: ConnectedPoint,
    ) -> Result<(PeerId, StreamMuxerBox), Refusal> {
        let limit = if endpoint.is_dialer() { self.dial_timeout } else { ACCEPT_TIMEOUT };
        let deadline = tokio::time::Instant::now() + limit;
        let (strangers, is_private) = (Arc::clone(&self.strangers), self.secret.is_some());
        let result = self.run_until(deadline, socket, endpoint.clone()).await;
        if matches!(result, Err(Refusal::Stranger(_))) {
            strangers.met(&endpoint, is_private);
        }
        result
    }

    async fn run_until(
        self,
        deadline: tokio::time::Instant,
        socket: Socket,
        endpoint: ConnectedPoint,
    ) -> Result<(PeerId, StreamMuxerBox), Refusal> {
        let stranger = Refusal::Stranger(if self.secret.is_some() { OTHER_SECRET } else { UNKNOWN_SECRET });
        let socket = match self.secret {
            // a remote that says nothing at all is a port scan, not a peer with another secret
            Some(secret) => within(deadline, secret.handshake(socket).boxed())
                .await?
                .map(erased)
                .map_err(Refusal::Secret)?,
            None => socket,
        };
        let role = role(&endpoint);
        let (protocol, socket) = match within(deadline, agree(role, socket, SECURITY)).await {
            Ok(Ok(agreed)) => agreed,
            Ok(Err(NegotiationError::Failed)) => return Err(Refusal::NoSecurity),
            Ok(Err(NegotiationError::ProtocolError(_))) | Err(_) => return Err(stranger),
        };
        let security = protocol;
        let secured = if protocol == NOISE {
            secure(role, self.noise, socket, protocol)
        } else {
            secure(role, self.tls, socket, protocol)
        };
        let (peer, socket) = within(deadline, secured).await??;
        let (protocol, socket) =
            within(deadline, agree(role, socket, &[YAMUX])).await?.map_err(|_| Refusal::NoMuxer)?;
        let muxer = match role {
            Endpoint::Dialer => self.muxer.upgrade_outbound(socket, protocol).await,
            Endpoint::Listener => self.muxer.upgrade_inbound(socket, protocol).await,
        };
        let muxer = muxer.map_err(|_| Refusal::NoMuxer)?;
        self.traffic.counts.upgraded(&endpoint, security);
        Ok((peer, StreamMuxerBox::new(Counted::new(muxer, self.traffic))))
    }
}

/// Who speaks first. Hole punching lets a dialer take the listener's part.
const fn role(endpoint: &ConnectedPoint) -> Endpoint {
    match endpoint {
        ConnectedPoint::Dialer { role_override, .. } => *role_override,
        ConnectedPoint::Listener { .. } => Endpoint::Listener,
    }
}

/// Agrees on one of `protocols`; a dialer proposes them in their order and does not wait for the answer to the last.
fn agree(
    role: Endpoint,
    socket: Socket,
    protocols: &[&'static str],
) -> BoxFuture<'static, Result<(&'static str, Negotiated<Socket>), NegotiationError>> {
    let protocols = protocols.to_vec();
    match role {
        Endpoint::Dialer => dialer_select_proto(socket, protocols, Version::V1Lazy).boxed(),
        Endpoint::Listener => listener_select_proto(socket, protocols).boxed(),
    }
}

fn secure<U, C, E>(
    role: Endpoint,
    upgrade: U,
    socket: Negotiated<Socket>,
    protocol: &'static str,
) -> BoxFuture<'static, Result<(PeerId, Socket), Refusal>>
where
    U: InboundConnectionUpgrade<Negotiated<Socket>, Output = (PeerId, C), Error = E, Info = &'static str>
        + OutboundConnectionUpgrade<Negotiated<Socket>, Output = (PeerId, C), Error = E>,
    <U as InboundConnectionUpgrade<Negotiated<Socket>>>::Future: Send + 'static,
    <U as OutboundConnectionUpgrade<Negotiated<Socket>>>::Future: Send + 'static,
    C: Duplex + 'static,
    E: std::error::Error + 'static,
{
    let done = move |secured: Result<(PeerId, C), E>| match secured {
        Ok((peer, socket)) => Ok((peer, erased(socket))),
        Err(e) => Err(Refusal::Security { protocol, reason: e.to_string() }),
    };
    match role {
        Endpoint::Dialer => upgrade.upgrade_outbound(socket, protocol).map(done).boxed(),
        Endpoint::Listener => upgrade.upgrade_inbound(socket, protocol).map(done).boxed(),
    }
}

async fn within<T>(deadline: tokio::time::Instant, work: impl Future<Output = T>) -> Result<T, Refusal> {
    tokio::time::timeout_at(deadline, work).await.map_err(|_| Refusal::TooSlow)
}
