//! A host beside the cluster's: where an API is served over libp2p, and the other end of it in `ipfs-cluster-ctl`.
//!
//! ```text
//!   serve ──▶ listen ──▶ streams of others          open ──▶ dial, ask for a stream
//! ```
//!
//! It has the transport and the streams of the swarm and nothing else: no gossip, no routing, no memory of addresses.
//! All it holds is bounded: connections, those that shake hands, connections and streams of each peer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster_compat::types::{Multiaddr, PeerId};
use futures::StreamExt as _;
use libp2p::connection_limits::ConnectionLimits;
use libp2p::core::transport::ListenerId;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, NetworkBehaviour, SwarmEvent};
use libp2p::{Swarm, connection_limits, identify, ping, relay, swarm};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::bandwidth::Traffic;
use super::observed::Identify;
use super::plan::CLUSTER_AGENT;
use super::streams::{self, Refusal, Stream, Streams};
use super::worker::{check_free, reason};
use super::{Error, addrs, transport};
use crate::task::Tasks;

/// The protocol under which HTTP is spoken. (Go: go-libp2p-http, `DefaultP2PProtocol`)
pub const HTTP: &str = "/libp2p-http";

/// Connections in both directions; a client of an API needs one.
const MAX_CONNECTIONS: u32 = 1024;
/// Connections that have not finished their handshakes.
const MAX_PENDING: u32 = 128;
/// Connections of one peer.
const MAX_PER_PEER: u32 = 8;
/// Streams of one peer, each an HTTP connection.
const MAX_STREAMS_PER_PEER: usize = 128;
/// Dials that wait for the swarm; a program makes one at a time.
const MAX_DIALS: usize = 16;
/// Longest dial and handshake. (Go: `tcp.DefaultConnectTimeout` is 5 s, and the upgrade has as many again)
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the first address of each listener.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection without streams stays.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// What [`Host::start`] needs.
pub struct HostArgs {
    /// Who it is.
    pub keypair: Keypair,
    /// Key of the private network it is in, if any.
    pub secret: Option<[u8; 32]>,
    /// Where others reach it; nothing is a host that only dials.
    pub listen: Vec<Multiaddr>,
    /// Owner of its task.
    pub tasks: Tasks,
}

/// The host, from outside. Clones share it.
#[derive(Clone)]
pub struct Host {
    local_peer: PeerId,
    streams: Arc<Streams>,
    dials: mpsc::Sender<Dial>,
    listening: Arc<[Multiaddr]>,
}

struct Dial {
    peer: PeerId,
    addrs: Vec<Multiaddr>,
    respond_to: oneshot::Sender<Result<(), String>>,
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    identify: Identify,
    ping: ping::Behaviour,
    relay_client: relay::client::Behaviour,
    streams: streams::Behaviour,
}

impl Host {
    /// A host that accepts no streams; returns when it listens.
    pub async fn start(args: HostArgs) -> Result<Self, Error> {
        let streams = Streams::new(args.keypair.public().to_peer_id(), DIAL_TIMEOUT);
        Self::run(args, Arc::new(streams)).await
    }

    /// A host, and the streams that others open for `protocol`. At most `capacity` wait, and those of each peer up
    /// to its share.
    pub async fn serve(
        args: HostArgs,
        protocol: &'static str,
        capacity: usize,
    ) -> Result<(Self, mpsc::Receiver<(PeerId, Stream)>), Error> {
        let streams = Streams::new(args.keypair.public().to_peer_id(), DIAL_TIMEOUT);
        let streams = streams.with_inbound(MAX_STREAMS_PER_PEER);
        // before the first connection, which is told what we speak
        let accepted = streams.accept(&[protocol], capacity)?;
        Ok((Self::run(args, Arc::new(streams)).await?, accepted))
    }

    async fn run(args: HostArgs, streams: Arc<Streams>) -> Result<Self, Error> {
        let HostArgs { keypair, secret, listen, tasks } = args;
        let mut swarm = swarm(&keypair, secret, Arc::clone(&streams))?;
        let listening = listen_on(&mut swarm, &listen).await?;
        let (dials, inbox) = mpsc::channel(MAX_DIALS);
        let worker = Worker { swarm, dials: inbox, waiting: HashMap::new() };
        tasks.spawn("libp2p host of an api", worker.run(tasks.token()));
        Ok(Self { local_peer: keypair.public().to_peer_id(), streams, dials, listening: listening.into() })
    }

    /// Its peer id.
    pub const fn local_peer(&self) -> PeerId {
        self.local_peer
    }

    /// Where it listens, with its peer id.
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        let peer = Protocol::P2p(self.local_peer);
        self.listening.iter().map(|addr| addr.clone().with(peer.clone())).collect()
    }

    /// A stream to a peer, which is dialled at `addrs` if there is no connection.
    pub async fn open(
        &self,
        peer: PeerId,
        addrs: &[Multiaddr],
        protocol: &'static str,
    ) -> Result<Stream, Error> {
        if self.streams.link(&peer).is_none() {
            let (respond_to, answer) = oneshot::channel();
            let dial = Dial { peer, addrs: addrs.to_vec(), respond_to };
            self.dials.send(dial).await.map_err(|_| Error::Stopped)?;
            let dialled = answer.await.map_err(|_| Error::Stopped)?;
            dialled.map_err(|reason| Error::Dial { peer, reason })?;
        }
        let failed = |reason: String| Error::Open { peer, reason: format!("{protocol}: {reason}") };
        let link = self.streams.link(&peer).ok_or_else(|| failed("the connection was closed".into()))?;
        match self.streams.request(link, &[protocol]).await {
            Some(Ok((stream, _))) => Ok(stream),
            Some(Err(Refusal::Unsupported)) => {
                Err(Error::Unsupported { peer, protocols: protocol.to_owned() })
            }
            Some(Err(Refusal::Silent(limit))) => {
                Err(Error::OpenTimeout { peer, protocols: protocol.to_owned(), limit })
            }
            Some(Err(Refusal::Failed(reason))) => Err(failed(reason)),
            None => Err(failed("the connection was closed".into())),
        }
    }
}

fn swarm(
    keypair: &Keypair,
    secret: Option<[u8; 32]>,
    streams: Arc<Streams>,
) -> Result<Swarm<Behaviour>, Error> {
    let local_peer = keypair.public().to_peer_id();
    let (relayed, relay_client) = relay::client::new(local_peer);
    let traffic = Arc::new(Traffic::new(Instant::now()));
    let (dial_timeout, has_quic) = (DIAL_TIMEOUT, false);
    let transport =
        transport::build(transport::Args { keypair, secret, dial_timeout, has_quic, traffic, relayed })?;
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING))
        .with_max_established_per_peer(Some(MAX_PER_PEER))
        .with_max_established(Some(MAX_CONNECTIONS));
    let identify =
        identify::Config::new(String::new(), keypair.public()).with_agent_version(CLUSTER_AGENT.to_owned());
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        identify: Identify::new(identify),
        ping: ping::Behaviour::default(),
        relay_client,
        streams: streams::Behaviour::new(streams),
    };
    // the library's own executor: a panic in the handling of one connection ends that connection alone
    let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE_TIMEOUT);
    Ok(Swarm::new(transport, behaviour, local_peer, config))
}

/// Binds what can be bound, and waits until each listener has told where it is.
async fn listen_on(swarm: &mut Swarm<Behaviour>, configured: &[Multiaddr]) -> Result<Vec<Multiaddr>, Error> {
    let mut waiting: HashMap<ListenerId, Multiaddr> = HashMap::new();
    for addr in configured {
        match addrs::listen_kind(addr)? {
            addrs::Listen::Tcp => {
                check_free(addr)?;
                let id = swarm
                    .listen_on(addr.clone())
                    .map_err(|e| Error::Listen { addr: addr.clone(), reason: e.to_string() })?;
                waiting.insert(id, addr.clone());
            }
            addrs::Listen::Quic | addrs::Listen::Ignored => {
                warn!(target: "cluster", "not listening on {addr}: only TCP is supported");
            }
        }
    }
    if waiting.is_empty() && !configured.is_empty() {
        let addrs = configured.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(Error::NoListenAddress { addrs });
    }
    let mut listening = Vec::new();
    let deadline = tokio::time::Instant::now() + LISTEN_TIMEOUT;
    while !waiting.is_empty() {
        let Ok(event) = tokio::time::timeout_at(deadline, swarm.select_next_some()).await else { break };
        match event {
            SwarmEvent::NewListenAddr { listener_id, address } => {
                waiting.remove(&listener_id);
                listening.push(address);
            }
            SwarmEvent::ListenerClosed { listener_id, reason: Err(e), .. } => {
                if let Some(addr) = waiting.remove(&listener_id) {
                    return Err(Error::Listen { addr, reason: e.to_string() });
                }
            }
            _ => {}
        }
    }
    Ok(listening)
}

/// Runs the swarm of a host.
struct Worker {
    swarm: Swarm<Behaviour>,
    dials: mpsc::Receiver<Dial>,
    /// Who waits for a dial.
    waiting: HashMap<ConnectionId, oneshot::Sender<Result<(), String>>>,
}

impl Worker {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(dial) = self.dials.recv() => self.on_dial(dial),
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
            }
        }
    }

    fn on_dial(&mut self, Dial { peer, addrs, respond_to }: Dial) {
        let opts = DialOpts::peer_id(peer).addresses(addrs).build();
        let connection = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => {
                self.waiting.insert(connection, respond_to);
            }
            Err(e) => {
                let _ = respond_to.send(Err(reason(&e)));
            }
        }
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { connection_id, .. } => self.answer(connection_id, Ok(())),
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.answer(connection_id, Err(reason(&error)));
            }
            SwarmEvent::ListenerClosed { reason, addresses, .. } => {
                warn!(target: "cluster", ?addresses, ?reason, "a listener of an api has ended");
            }
            SwarmEvent::IncomingConnectionError { error, .. } => {
                debug!(target: "cluster", "a connection to an api has failed: {error}");
            }
            _ => {}
        }
    }

    fn answer(&mut self, connection: ConnectionId, result: Result<(), String>) {
        if let Some(respond_to) = self.waiting.remove(&connection) {
            // whoever asked may have given up
            let _ = respond_to.send(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::testing::within;
    use super::*;

    fn args(secret: Option<[u8; 32]>, listen: &[&str], tasks: &Tasks) -> HostArgs {
        let listen = listen.iter().map(|addr| addr.parse().unwrap()).collect();
        HostArgs { keypair: Keypair::generate_ed25519(), secret, listen, tasks: tasks.clone() }
    }

    const ANY: &[&str] = &["/ip4/127.0.0.1/tcp/0"];

    #[tokio::test]
    async fn a_stream_goes_from_host_to_host_and_half_closes() {
        let tasks = Tasks::new();
        let (server, mut streams) = Host::serve(args(None, ANY, &tasks), HTTP, 1).await.unwrap();
        let client = Host::start(args(None, &[], &tasks)).await.unwrap();
        for _ in 0..2 {
            let opened = client.open(server.local_peer(), &server.listening, HTTP);
            let mut ours = within("a stream", opened).await.unwrap();
            ours.write_all(b"hello").await.unwrap();
            ours.close().await.unwrap();
            let (peer, mut theirs) = within("their stream", streams.recv()).await.unwrap();
            assert_eq!(peer, client.local_peer());
            let mut text = String::new();
            within("the text", theirs.read_to_string(&mut text)).await.unwrap();
            theirs.write_all(b"world").await.unwrap();
            theirs.close().await.unwrap();
            let mut answer = String::new();
            within("the answer", ours.read_to_string(&mut answer)).await.unwrap();
            assert_eq!((text.as_str(), answer.as_str()), ("hello", "world"));
        }
        tasks.stop();
    }

    #[tokio::test]
    async fn a_peer_has_its_share_of_streams_and_no_more() {
        let tasks = Tasks::new();
        let (server, mut streams) = Host::serve(args(None, ANY, &tasks), HTTP, 1).await.unwrap();
        let client = Host::start(args(None, &[], &tasks)).await.unwrap();
        let mut held = Vec::new();
        for n in 0..=MAX_STREAMS_PER_PEER {
            let opened = client.open(server.local_peer(), &server.listening, HTTP);
            let mut ours = within("a stream", opened).await.unwrap();
            // negotiation is over with the first bytes
            let written = ours.write_all(b"x").await.and(ours.flush().await);
            if n < MAX_STREAMS_PER_PEER {
                written.unwrap();
                let (_, mut theirs) = within("their stream", streams.recv()).await.unwrap();
                let mut byte = [0];
                within("a byte", theirs.read_exact(&mut byte)).await.unwrap();
                held.push((ours, theirs));
            } else {
                let mut byte = [0];
                let read = within("the reset", ours.read(&mut byte)).await;
                assert!(matches!(read, Err(_) | Ok(0)), "{read:?}");
            }
        }
        tasks.stop();
    }

    #[tokio::test]
    async fn who_cannot_be_reached_is_named_with_the_reason() {
        let tasks = Tasks::new();
        let server = Host::start(args(None, ANY, &tasks)).await.unwrap();
        let client = Host::start(args(None, &[], &tasks)).await.unwrap();
        let addrs = server.listening.to_vec();
        let opened = within("a refusal", client.open(server.local_peer(), &addrs, HTTP)).await;
        assert!(matches!(opened, Err(Error::Unsupported { .. })), "{:?}", opened.err());
        let other = Keypair::generate_ed25519().public().to_peer_id();
        let wrong = within("a refusal", client.open(other, &addrs, HTTP)).await.unwrap_err().to_string();
        assert!(wrong.starts_with(&format!("failed to dial {other}: ")), "{wrong}");
        let private = Host::start(args(Some([7; 32]), &[], &tasks)).await.unwrap();
        let secret = within("a refusal", private.open(server.local_peer(), &addrs, HTTP)).await;
        assert!(matches!(secret, Err(Error::Dial { .. })), "{:?}", secret.err());
        let taken = addrs[0].to_string();
        let again = Host::start(args(None, &[&taken], &tasks)).await.err().unwrap();
        assert!(matches!(again, Error::AddressInUse { .. }), "{again}");
        tasks.stop();
    }
}
