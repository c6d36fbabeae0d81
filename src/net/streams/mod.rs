//! Raw streams for the protocols that speak request by request: calls between peers, bitswap.
//!
//! ```text
//!   open ──(no connection? Cmd::Dial, wait)──▶ requests of one connection ──▶ Handler ──▶ Stream
//!   accept ◀── one bounded queue per acceptor ◀── at most a share per peer waits ◀── Handler
//! ```
//!
//! [`Streams`] is what both ends share. The swarm's loop is passed for a dial only: a request goes straight to the
//! task of its connection, and payload flows between that task and whoever holds the [`Stream`].
//!
//! Invariants: no stream is lost because a reader was busy, it waits; a peer that has more than its share of streams
//! gets further ones reset and nobody else notices; a full queue holds up no other protocol; an [`Network::open`]
//! ends within its time limit whatever happens to dials and connections. Dropping a [`Stream`] that was not closed
//! resets it.

mod behaviour;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use cluster_compat::types::PeerId;
use futures::{AsyncRead, AsyncWrite};
use libp2p::swarm::{ConnectionId, StreamProtocol};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot};

pub(super) use self::behaviour::Behaviour;
use super::{Error, Network};

/// Streams that one peer may have open or waiting here: what an original opens to one peer at most.
const MAX_INBOUND_PER_PEER: usize = 512;

/// Streams that we have open to one peer; more wait for their turn. An original resets the 257th, and its other
/// protocols count too.
const MAX_OUTBOUND_PER_PEER: usize = 192;

/// Longest negotiation of a stream, beside the time a dial may take.
const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(10);

/// Events that wait for a reader before it misses the oldest; a restart of a large cluster brings a few per peer.
const MAX_EVENTS: usize = 1024;

/// What happens to peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerEvent {
    /// Its first connection stands.
    Connected(PeerId),
    /// Its last connection ended.
    Disconnected(PeerId),
    /// It told which protocols it speaks, or that they changed.
    Identified(PeerId),
}

/// A stream to or from a peer. Closing it is half-closing: the other direction stays open. Dropping it resets it, but
/// one that was half-closed cannot be reset: its connection goes on reading, so that the peer can finish.
///
/// Reading ends in the same way when the peer closed its side, when it reset the stream and when the connection was
/// lost: a protocol has to know from what it read whether that was all, or ask [`Stream::is_cut`].
#[derive(Debug)]
pub struct Stream {
    /// Taken when the stream is dropped.
    inner: Option<Open>,
    requests: mpsc::Sender<Request>,
    is_closed: bool,
    is_read: bool,
}

/// A stream and its place in the peer's share, which goes after it.
#[derive(Debug)]
pub(super) struct Open {
    stream: libp2p::Stream,
    _share: OwnedSemaphorePermit,
}

/// What the handles, the behaviour and the handlers share.
pub(super) struct Streams {
    local_peer: PeerId,
    open_timeout: Duration,
    max_inbound_per_peer: usize,
    max_outbound_per_peer: usize,
    /// Taken for a moment by all of them, never over an await.
    state: RwLock<State>,
    events: broadcast::Sender<PeerEvent>,
}

#[derive(Default)]
struct State {
    acceptors: HashMap<&'static str, mpsc::Sender<(PeerId, Stream)>>,
    /// The protocols of `acceptors`, ready for each connection to list.
    accepted: Arc<[&'static str]>,
    peers: HashMap<PeerId, Peer>,
}

/// A peer with a connection.
struct Peer {
    links: Vec<Link>,
    protocols: HashSet<StreamProtocol>,
    inbound: Arc<Semaphore>,
    outbound: Arc<Semaphore>,
}

/// The way to the handler of one connection.
#[derive(Clone)]
pub(super) struct Link {
    connection: ConnectionId,
    is_relayed: bool,
    requests: mpsc::Sender<Request>,
}

/// What the handler of a connection is asked for.
#[derive(Debug)]
pub(super) enum Request {
    /// A stream that someone waits for.
    Open { protocols: Vec<&'static str>, answer: Answer },
    /// Reading to the end what nobody wants any more.
    Drain(Open),
    /// An answer, if it still can.
    Answer { respond_to: oneshot::Sender<()> },
}

/// Where a negotiated stream, or the reason why there is none, goes.
#[derive(Debug)]
pub(super) struct Answer {
    respond_to: oneshot::Sender<Result<(Stream, &'static str), Refusal>>,
    share: OwnedSemaphorePermit,
}

/// Why a connected peer does not give us a stream.
#[derive(Debug)]
pub(super) enum Refusal {
    Unsupported,
    /// It said nothing for so long.
    Silent(Duration),
    Failed(String),
}

impl Streams {
    pub(super) fn new(local_peer: PeerId, dial_timeout: Duration) -> Self {
        let (events, _) = broadcast::channel(MAX_EVENTS);
        Self {
            local_peer,
            open_timeout: dial_timeout + NEGOTIATION_TIMEOUT,
            max_inbound_per_peer: MAX_INBOUND_PER_PEER,
            max_outbound_per_peer: MAX_OUTBOUND_PER_PEER,
            state: RwLock::default(),
            events,
        }
    }

    /// With another share of streams for each peer.
    pub(super) const fn with_inbound(mut self, max_inbound_per_peer: usize) -> Self {
        self.max_inbound_per_peer = max_inbound_per_peer;
        self
    }

    /// Tells those who asked what happens to peers.
    pub(super) fn tell(&self, event: PeerEvent) {
        // no reader is no error
        let _ = self.events.send(event);
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The best connection to a peer, and our share of streams to it.
    pub(super) fn link(&self, peer: &PeerId) -> Option<(Link, Arc<Semaphore>)> {
        let state = self.read();
        let peer = state.peers.get(peer)?;
        let standing = || peer.links.iter().filter(|link| !link.requests.is_closed());
        let link = standing().find(|link| !link.is_relayed).or_else(|| standing().next())?;
        Some((link.clone(), Arc::clone(&peer.outbound)))
    }

    /// Whether a peer has a connection.
    pub(super) fn is_connected(&self, peer: &PeerId) -> bool {
        self.read().peers.contains_key(peer)
    }

    pub(super) fn accept(
        &self,
        protocols: &[&'static str],
        capacity: usize,
    ) -> Result<mpsc::Receiver<(PeerId, Stream)>, Error> {
        let mut state = self.write();
        let is_taken =
            |protocol: &&&'static str| state.acceptors.get(**protocol).is_some_and(|tx| !tx.is_closed());
        if let Some(protocol) = protocols.iter().find(is_taken) {
            return Err(Error::AlreadyAccepted { protocol });
        }
        let (streams, acceptor) = mpsc::channel(capacity.max(1));
        for protocol in protocols {
            state.acceptors.insert(protocol, streams.clone());
        }
        let mut accepted: Vec<&'static str> = state.acceptors.keys().copied().collect();
        accepted.sort_unstable();
        state.accepted = accepted.into();
        Ok(acceptor)
    }

    /// A registry without our own restraint, for peers that misbehave.
    #[cfg(test)]
    pub(super) fn unbounded(local_peer: PeerId) -> Self {
        Self { max_outbound_per_peer: 1 << 20, ..Self::new(local_peer, NEGOTIATION_TIMEOUT) }
    }

    /// A stream by a connection that stands.
    #[cfg(test)]
    pub(super) async fn open_raw(&self, peer: &PeerId, protocol: &'static str) -> Option<Stream> {
        let (stream, _) = self.request(self.link(peer)?, &[protocol]).await?.ok()?;
        Some(stream)
    }

    /// Asks the handler of a connection for a stream. `None` when the connection ended meanwhile.
    pub(super) async fn request(
        &self,
        (link, shares): (Link, Arc<Semaphore>),
        protocols: &[&'static str],
    ) -> Option<Result<(Stream, &'static str), Refusal>> {
        let share = shares.acquire_owned().await.ok()?;
        let (respond_to, opened) = oneshot::channel();
        let answer = Answer { respond_to, share };
        link.requests.send(Request::Open { protocols: protocols.to_vec(), answer }).await.ok()?;
        opened.await.ok()
    }
}

impl Network {
    /// Opens a stream for one of `protocols`, in order of preference, and says which one the peer took; dials it by its
    /// known addresses if need be. Takes no longer than a dial and the negotiation may.
    pub async fn open(
        &self,
        peer: PeerId,
        protocols: &[&'static str],
    ) -> Result<(Stream, &'static str), Error> {
        self.open_by(peer, protocols, true).await
    }

    /// The same by the connections there are, without a dial.
    pub(super) async fn open_connected(
        &self,
        peer: PeerId,
        protocols: &[&'static str],
    ) -> Result<(Stream, &'static str), Error> {
        self.open_by(peer, protocols, false).await
    }

    async fn open_by(
        &self,
        peer: PeerId,
        protocols: &[&'static str],
        may_dial: bool,
    ) -> Result<(Stream, &'static str), Error> {
        let streams = &self.shared.streams;
        if peer == streams.local_peer {
            return Err(Error::OpenToSelf);
        }
        let failed =
            |reason: String| Error::Open { peer, reason: format!("{}: {reason}", protocols.join(", ")) };
        let silent = |limit| Error::OpenTimeout { peer, protocols: protocols.join(", "), limit };
        let open = async {
            // a connection may end just now, and another be there at once
            for _ in 0..2 {
                let link = match streams.link(&peer) {
                    Some(link) => link,
                    None if !may_dial => return Err(failed("not connected".into())),
                    None => {
                        self.dial(peer).await?;
                        let Some(link) = streams.link(&peer) else { continue };
                        link
                    }
                };
                match streams.request(link, protocols).await {
                    Some(Ok(opened)) => return Ok(opened),
                    Some(Err(Refusal::Unsupported)) => {
                        return Err(Error::Unsupported { peer, protocols: protocols.join(", ") });
                    }
                    Some(Err(Refusal::Silent(limit))) => return Err(silent(limit)),
                    Some(Err(Refusal::Failed(reason))) => return Err(failed(reason)),
                    None => {}
                }
            }
            Err(failed("the connection was closed".into()))
        };
        match tokio::time::timeout(streams.open_timeout, open).await {
            Ok(opened) => opened,
            Err(_) => Err(silent(streams.open_timeout)),
        }
    }

    /// Streams that others open for `protocols`, from now on. Connections that stand already learn of them late, so
    /// call it before the first. One acceptor per protocol; at most `capacity` streams wait in its queue, and those
    /// of each peer up to its share beside it.
    pub fn accept(
        &self,
        protocols: &[&'static str],
        capacity: usize,
    ) -> Result<mpsc::Receiver<(PeerId, Stream)>, Error> {
        self.shared.streams.accept(protocols, capacity)
    }

    /// Whether a connected peer has told us that it speaks a protocol.
    pub fn speaks(&self, peer: &PeerId, protocol: &str) -> bool {
        let state = self.shared.streams.read();
        state
            .peers
            .get(peer)
            .is_some_and(|peer| peer.protocols.iter().any(|known| known.as_ref() == protocol))
    }

    /// Raw streams that are open or being opened, by who opened them: others, and this peer.
    pub fn n_streams(&self) -> (usize, usize) {
        let streams = &self.shared.streams;
        let taken = |max: usize, share: &Semaphore| max - share.available_permits();
        let add = |(inbound, outbound): (usize, usize), peer: &Peer| {
            let of_others = taken(streams.max_inbound_per_peer, &peer.inbound);
            (inbound + of_others, outbound + taken(streams.max_outbound_per_peer, &peer.outbound))
        };
        streams.read().peers.values().fold((0, 0), add)
    }

    /// What happens to peers, from now on. A reader that is more than [`MAX_EVENTS`] behind misses the oldest.
    pub fn peer_events(&self) -> broadcast::Receiver<PeerEvent> {
        self.shared.streams.events.subscribe()
    }
}

impl Stream {
    fn new(stream: libp2p::Stream, share: OwnedSemaphorePermit, requests: mpsc::Sender<Request>) -> Self {
        let inner = Some(Open { stream, _share: share });
        Self { inner, requests, is_closed: false, is_read: false }
    }

    /// Whether the connection under the stream is gone, so that an end of reading may have come too early. Certain
    /// when asked after reading has ended.
    pub async fn is_cut(&mut self) -> bool {
        let (respond_to, answer) = oneshot::channel();
        self.requests.send(Request::Answer { respond_to }).await.is_err() || answer.await.is_err()
    }

    fn inner(&mut self) -> io::Result<Pin<&mut libp2p::Stream>> {
        match &mut self.inner {
            Some(open) => Ok(Pin::new(&mut open.stream)),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // without a word from us the peer would wait for ever once our window is full
        if let Some(open) = self.inner.take()
            && self.is_closed
            && !self.is_read
        {
            // fails when the connection is gone
            let _ = self.requests.try_send(Request::Drain(open));
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = ready!(self.inner()?.poll_read(cx, buf));
        self.is_read |= read.is_err() || (read.as_ref().is_ok_and(|n| *n == 0) && !buf.is_empty());
        Poll::Ready(read)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.inner()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner()?.poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner()?.poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = ready!(self.inner()?.poll_close(cx));
        self.is_closed |= closed.is_ok();
        Poll::Ready(closed)
    }
}
