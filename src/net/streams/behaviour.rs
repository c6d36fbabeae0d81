//! The swarm's side of raw streams: one handler per connection.

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use cluster_compat::types::{Multiaddr, PeerId};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound, ProtocolsChange,
};
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, DialFailure,
    FromSwarm, ListenFailure, NetworkBehaviour, StreamProtocol, StreamUpgradeError, SubstreamProtocol,
    THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::PollSender;
use tracing::debug;

use super::super::addrs;
use super::{Answer, Link, NEGOTIATION_TIMEOUT, Peer, PeerEvent, Refusal, Request, Stream, Streams};

/// Keeps [`Streams`] up to date about connections.
pub(in crate::net) struct Behaviour {
    streams: Arc<Streams>,
}

impl Behaviour {
    pub(in crate::net) const fn new(streams: Arc<Streams>) -> Self {
        Self { streams }
    }
}

impl Streams {
    fn handler(self: &Arc<Self>, connection: ConnectionId, peer: PeerId, addr: &Multiaddr) -> Handler {
        // each wanted stream holds a place in the peer's share, so that they never fill this
        let (requests, inbox) = mpsc::channel(self.max_outbound_per_peer);
        let mut state = self.write();
        let known = state.peers.entry(peer).or_insert_with(|| Peer {
            links: Vec::new(),
            protocols: HashSet::new(),
            inbound: Arc::new(Semaphore::new(self.max_inbound_per_peer)),
            outbound: Arc::new(Semaphore::new(self.max_outbound_per_peer)),
        });
        let is_relayed = addrs::is_relayed(addr);
        known.links.push(Link { connection, is_relayed, requests: requests.clone() });
        Handler {
            peer,
            streams: Arc::clone(self),
            requests,
            inbox,
            inbound: Arc::clone(&known.inbound),
            waiting: Vec::new(),
            draining: FuturesUnordered::new(),
            protocols: HashSet::new(),
        }
    }

    fn on_closed(&self, peer: &PeerId, connection: ConnectionId) {
        let mut state = self.write();
        let Some(known) = state.peers.get_mut(peer) else { return };
        known.links.retain(|link| link.connection != connection);
        if known.links.is_empty() {
            state.peers.remove(peer);
        }
    }

    fn on_identified(&self, peer: PeerId, protocols: &HashSet<StreamProtocol>) {
        {
            let mut state = self.write();
            let Some(known) = state.peers.get_mut(&peer) else { return };
            known.protocols.clone_from(protocols);
        }
        self.tell(PeerEvent::Identified(peer));
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.streams.handler(connection, peer, remote))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.streams.handler(connection, peer, addr))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                self.streams.on_closed(&peer_id, connection_id);
            }
            // another behaviour may have denied a connection that has its handler
            FromSwarm::DialFailure(DialFailure { peer_id: Some(peer), connection_id, .. })
            | FromSwarm::ListenFailure(ListenFailure { peer_id: Some(peer), connection_id, .. }) => {
                self.streams.on_closed(&peer, connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// The streams of one connection that are not with their reader yet.
pub(in crate::net) struct Handler {
    peer: PeerId,
    streams: Arc<Streams>,
    /// The other end of `inbox`, for the streams.
    requests: mpsc::Sender<Request>,
    inbox: mpsc::Receiver<Request>,
    inbound: Arc<Semaphore>,
    /// Per acceptor whose queue is full; all together no more than the peer's share.
    waiting: Vec<Waiting>,
    /// Streams that nobody reads any more; each keeps its place in the peer's share.
    draining: FuturesUnordered<BoxFuture<'static, ()>>,
    /// What identify told on this connection.
    protocols: HashSet<StreamProtocol>,
}

struct Waiting {
    acceptor: PollSender<(PeerId, Stream)>,
    streams: VecDeque<Stream>,
}

impl Handler {
    fn on_inbound(&mut self, inner: libp2p::Stream, protocol: &'static str) {
        let Ok(share) = Arc::clone(&self.inbound).try_acquire_owned() else {
            debug!(target: "swarm2", peer = %self.peer, protocol, "too many streams of one peer: reset");
            return;
        };
        let stream = Stream::new(inner, share, self.requests.clone());
        let Some(acceptor) = self.streams.read().acceptors.get(protocol).cloned() else { return };
        let same = |known: &&mut Waiting| {
            known.acceptor.get_ref().is_some_and(|known| known.same_channel(&acceptor))
        };
        if let Some(waiting) = self.waiting.iter_mut().find(same) {
            waiting.streams.push_back(stream);
            return;
        }
        match acceptor.try_send((self.peer, stream)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full((_, stream))) => {
                let streams = VecDeque::from([stream]);
                self.waiting.push(Waiting { acceptor: PollSender::new(acceptor), streams });
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                debug!(target: "swarm2", peer = %self.peer, protocol, "nobody accepts streams any more: reset");
            }
        }
    }
}

impl Waiting {
    /// Hands over what fits; ready when nothing is left.
    fn poll(&mut self, peer: PeerId, cx: &mut Context<'_>) -> Poll<()> {
        while !self.streams.is_empty() {
            if ready!(self.acceptor.poll_reserve(cx)).is_err() {
                break;
            }
            if let Some(stream) = self.streams.pop_front()
                && self.acceptor.send_item((peer, stream)).is_err()
            {
                break;
            }
        }
        Poll::Ready(())
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Accepted;
    type OutboundProtocol = Proposed;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Answer;

    fn listen_protocol(&self) -> SubstreamProtocol<Accepted> {
        SubstreamProtocol::new(Accepted(Arc::clone(&self.streams.read().accepted)), ())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Proposed, Answer, Infallible>> {
        self.waiting.retain_mut(|waiting| waiting.poll(self.peer, cx).is_pending());
        while let Poll::Ready(Some(request)) = self.inbox.poll_recv(cx) {
            match request {
                // whoever asked may have given up
                Request::Open { answer, .. } if answer.respond_to.is_closed() => {}
                Request::Open { protocols, answer } => {
                    let protocol =
                        SubstreamProtocol::new(Proposed(protocols), answer).with_timeout(NEGOTIATION_TIMEOUT);
                    return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
                }
                Request::Drain(mut open) => self.draining.push(Box::pin(async move {
                    // its errors are ends too
                    let _ = futures::io::copy(&mut open.stream, &mut futures::io::sink()).await;
                })),
                Request::Answer { respond_to } => {
                    let _ = respond_to.send(());
                }
            }
        }
        while let Poll::Ready(Some(())) = self.draining.poll_next_unpin(cx) {}
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Accepted, Proposed, (), Answer>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol),
                ..
            }) => self.on_inbound(stream, protocol),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (inner, protocol),
                info: Answer { respond_to, share },
            }) => {
                let stream = Stream::new(inner, share, self.requests.clone());
                let _ = respond_to.send(Ok((stream, protocol)));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let _ = info.respond_to.send(Err(match error {
                    StreamUpgradeError::NegotiationFailed => Refusal::Unsupported,
                    StreamUpgradeError::Timeout => Refusal::Silent(NEGOTIATION_TIMEOUT),
                    StreamUpgradeError::Io(e) => Refusal::Failed(e.to_string()),
                    StreamUpgradeError::Apply(never) => match never {},
                }));
            }
            ConnectionEvent::RemoteProtocolsChange(change) => {
                match change {
                    ProtocolsChange::Added(added) => self.protocols.extend(added.cloned()),
                    ProtocolsChange::Removed(removed) => {
                        for protocol in removed {
                            self.protocols.remove(protocol);
                        }
                    }
                }
                self.streams.on_identified(self.peer, &self.protocols);
            }
            _ => {}
        }
    }
}

/// The protocols that have an acceptor.
pub(in crate::net) struct Accepted(Arc<[&'static str]>);

impl UpgradeInfo for Accepted {
    type Info = &'static str;
    type InfoIter = Vec<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.to_vec()
    }
}

impl InboundUpgrade<libp2p::Stream> for Accepted {
    type Output = (libp2p::Stream, &'static str);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: libp2p::Stream, protocol: &'static str) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

/// The protocols of a request, in order of preference.
pub(in crate::net) struct Proposed(Vec<&'static str>);

impl UpgradeInfo for Proposed {
    type Info = &'static str;
    type InfoIter = Vec<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone()
    }
}

impl OutboundUpgrade<libp2p::Stream> for Proposed {
    type Output = (libp2p::Stream, &'static str);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: libp2p::Stream, protocol: &'static str) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}
