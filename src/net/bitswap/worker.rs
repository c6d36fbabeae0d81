//! The worker of those who fetch, and the readers of what peers send.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use cluster_compat::types::{Cid, PeerId};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::super::PeerEvent;
use super::fetch::{Effect, Wants};
use super::frames::{Allowance, Reader};
use super::peer::{self, MAX_BLOCK_BYTES, Outbox};
use super::{Asker, Fetched, Named};
use super::{Error, Event, Network, PROTOCOLS, Received, Stream, name};
use crate::task::Tasks;
use crate::wire::bitswap_pb::{Message, Part};

/// Streams of all peers that wait for their reader to be started.
const MAX_STREAMS: usize = 256;

/// Events handled before anything is sent: a burst of wants leaves in one message.
const MAX_BURST: usize = 256;

/// The CIDs that a block without a prefix may have: codec dag-pb, hash SHA2-256, in the older and the newer form.
const OLD_PREFIXES: [[u8; 4]; 2] = [[0, 0x70, 0x12, 0x20], [1, 0x70, 0x12, 0x20]];

/// The worker's end of what [`super::Bitswap`] sends.
pub(in crate::net) struct Inbox(mpsc::Receiver<Event>);

impl Inbox {
    pub(super) const fn new(events: mpsc::Receiver<Event>) -> Self {
        Self(events)
    }
}

/// Begins to accept streams, to serve and to fetch.
pub(in crate::net) fn start(network: &Network, inbox: Inbox, tasks: &Tasks) -> Result<(), Error> {
    let streams = network.accept(&PROTOCOLS, MAX_STREAMS)?;
    let worker = Worker {
        peer_events: network.peer_events(),
        network: network.clone(),
        tasks: tasks.clone(),
        inbox: inbox.0,
        wants: Wants::default(),
        waiting: HashMap::new(),
        peers: HashMap::new(),
        effects: Vec::new(),
    };
    tasks.spawn("bitswap", worker.run(tasks.token()));
    tasks.spawn("bitswap streams", accept(streams, network.clone(), tasks.clone()));
    Ok(())
}

struct Worker {
    network: Network,
    tasks: Tasks,
    inbox: mpsc::Receiver<Event>,
    peer_events: broadcast::Receiver<PeerEvent>,
    wants: Wants,
    waiting: HashMap<Cid, Vec<Asker>>,
    peers: HashMap<PeerId, Peer>,
    /// Of the events that are being handled.
    effects: Vec<Effect>,
}

/// A peer that we tell what we want.
struct Peer {
    outbox: Arc<Outbox>,
    stop: CancellationToken,
}

impl Worker {
    async fn run(mut self, stop: CancellationToken) {
        let given_up = Arc::clone(&self.network.shared.bitswap.given_up);
        loop {
            let next_look = self.wants.next_look();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                event = self.peer_events.recv() => self.on_peer_event(event),
                () = given_up.wake.notified() => self.on_given_up(given_up.take()),
                () = until(next_look) => self.wants.look(Instant::now(), &mut self.effects),
                Some(event) = self.inbox.recv() => self.on_event(event),
            }
            for _ in 1..MAX_BURST {
                let Ok(event) = self.inbox.try_recv() else { break };
                self.on_event(event);
            }
            self.perform();
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            // given up before we came to it
            Event::Fetch { asker, .. } if asker.respond_to.is_closed() => {}
            Event::Fetch { cid, likely, asker } => {
                self.waiting.entry(cid).or_default().push(asker);
                self.wants.wanted(cid, &likely, Instant::now(), &mut self.effects);
            }
            Event::Stat { respond_to } => {
                let mut peers: Vec<PeerId> = self.peers.keys().copied().collect();
                peers.sort_unstable();
                let _ = respond_to.send((self.waiting.keys().copied().collect(), peers));
            }
            Event::Received(received) => self.on_received(received),
            Event::Mute(peer) => self.forget(peer),
        }
    }

    fn on_received(&mut self, received: Received) {
        let now = Instant::now();
        let peer = received.peer;
        // whoever sends answers speaks bitswap, whether it said so or not
        self.greet(peer);
        let mut n_unasked = received.n_unnamed;
        for Named { cid, other, data } in received.blocks {
            let mut is_wanted = false;
            for cid in [Some(cid), other].into_iter().flatten() {
                if self.wants.received(peer, &cid, now, &mut self.effects) {
                    is_wanted = true;
                    for asker in self.waiting.remove(&cid).unwrap_or_default() {
                        let _ = asker.respond_to.send(Fetched { block: data.clone(), from: Some(peer) });
                    }
                }
            }
            if !is_wanted {
                self.network.shared.bitswap.counters.received_in_vain(data.len());
                let was_wanted = |cid: &Cid| self.wants.was_wanted(cid);
                n_unasked += usize::from(!was_wanted(&cid) && !other.as_ref().is_some_and(was_wanted));
            }
        }
        if n_unasked > 0 && self.network.shared.bitswap.drops_liars {
            warn!(target: "bitswap", %peer, n_unasked, "dropping a peer that sends blocks nobody asked for");
            self.network.shun(peer);
            return;
        }
        for (cid, has) in received.presences {
            self.wants.told(peer, &cid, has, now, &mut self.effects);
        }
    }

    fn on_given_up(&mut self, cids: Vec<Cid>) {
        for cid in cids {
            let Some(waiting) = self.waiting.get_mut(&cid) else { continue };
            waiting.retain(|asker| !asker.respond_to.is_closed());
            if waiting.is_empty() {
                self.waiting.remove(&cid);
                self.wants.given_up(&cid, Instant::now(), &mut self.effects);
            }
        }
    }

    fn on_peer_event(&mut self, event: Result<PeerEvent, broadcast::error::RecvError>) {
        match event {
            Ok(PeerEvent::Connected(_)) | Err(broadcast::error::RecvError::Closed) => {}
            Ok(PeerEvent::Identified(peer)) => self.on_identified(peer),
            // it may be back already
            Ok(PeerEvent::Disconnected(peer)) if self.network.shared.streams.is_connected(&peer) => {}
            Ok(PeerEvent::Disconnected(peer)) => {
                self.network.shared.bitswap.server.gone(&peer);
                self.forget(peer);
            }
            Err(broadcast::error::RecvError::Lagged(n_missed)) => {
                debug!(target: "bitswap", n_missed, "looking at all connections again");
                let connected = self.network.connected_peers();
                let known: Vec<PeerId> = self.peers.keys().copied().collect();
                for peer in known.into_iter().filter(|peer| !connected.contains(peer)) {
                    self.network.shared.bitswap.server.gone(&peer);
                    self.forget(peer);
                }
                for peer in connected {
                    self.on_identified(peer);
                }
            }
        }
    }

    fn on_identified(&mut self, peer: PeerId) {
        if PROTOCOLS.iter().any(|protocol| self.network.speaks(&peer, protocol)) {
            self.greet(peer);
        } else {
            self.forget(peer);
        }
    }

    /// A peer can be asked.
    fn greet(&mut self, peer: PeerId) {
        // its news may be older than its end
        if self.peers.contains_key(&peer) || !self.network.shared.streams.is_connected(&peer) {
            return;
        }
        let stop = self.tasks.token().child_token();
        let outbox = Arc::new(Outbox::default());
        let told = peer::tell(self.network.clone(), peer, Arc::clone(&outbox));
        let (until, events) = (stop.clone(), self.network.shared.bitswap.events.clone());
        self.tasks.spawn("bitswap wants", async move {
            tokio::select! {
                () = until.cancelled() => {}
                () = told => {
                    let _ = events.send(Event::Mute(peer)).await;
                }
            }
        });
        self.peers.insert(peer, Peer { outbox, stop });
        self.wants.peer_up(peer, Instant::now(), &mut self.effects);
    }

    /// A peer cannot be asked any more.
    fn forget(&mut self, peer: PeerId) {
        if let Some(gone) = self.peers.remove(&peer) {
            gone.stop.cancel();
            self.wants.peer_down(&peer, Instant::now(), &mut self.effects);
        }
    }

    fn perform(&mut self) {
        let mut told: Vec<PeerId> = Vec::new();
        for effect in self.effects.drain(..) {
            let peer = match effect {
                Effect::Ask { peer, .. } | Effect::Cancel { peer, .. } | Effect::Forget { peer, .. } => peer,
                Effect::Missing { cid } => {
                    for missing in
                        self.waiting.get(&cid).into_iter().flatten().flat_map(|asker| &asker.missing)
                    {
                        missing.notify_one();
                    }
                    continue;
                }
            };
            let Some(known) = self.peers.get(&peer) else { continue };
            match effect {
                Effect::Ask { cid, want, priority, .. } => known.outbox.ask(cid, want, priority),
                Effect::Cancel { cid, .. } => known.outbox.cancel(&cid),
                Effect::Forget { cid, .. } => known.outbox.forget(&cid),
                Effect::Missing { .. } => {}
            }
            if !told.contains(&peer) {
                told.push(peer);
            }
        }
        for peer in told {
            if let Some(known) = self.peers.get(&peer) {
                known.outbox.send();
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Starts a reader for each stream.
async fn accept(mut streams: mpsc::Receiver<(PeerId, Stream)>, network: Network, tasks: Tasks) {
    let stop = tasks.token();
    let mut allowances: HashMap<PeerId, Allowance> = HashMap::new();
    loop {
        let (peer, stream) = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            stream = streams.recv() => match stream {
                Some(stream) => stream,
                None => return,
            },
        };
        if !allowances.contains_key(&peer) {
            allowances.retain(|_, allowance| !allowance.is_unused());
        }
        let allowance = allowances.entry(peer).or_insert_with(Allowance::new).clone();
        let (network, of_reader, stop) = (network.clone(), tasks.clone(), stop.clone());
        tasks.spawn("bitswap reader", async move {
            let mut reader = Reader::new(stream, allowance);
            tokio::select! {
                () = stop.cancelled() => {}
                end = read(peer, &mut reader, &network, &of_reader) => {
                    if let Err(e) = end {
                        debug!(target: "bitswap", %peer, "stream refused: {e}");
                    }
                }
            }
        });
    }
}

/// Reads the messages of a stream to its end.
async fn read(
    peer: PeerId,
    reader: &mut Reader<Stream>,
    network: &Network,
    tasks: &Tasks,
) -> std::io::Result<()> {
    let bitswap = &network.shared.bitswap;
    while let Some((bytes, budget)) = reader.next().await? {
        let bytes = Bytes::from(bytes);
        let message = Message::decode(&bytes).map_err(std::io::Error::other)?;
        let (mut blocks, mut n_unnamed, mut n_data_bytes) = (Vec::new(), 0, 0);
        let (mut presences, mut has_wants) = (Vec::new(), message.is_full);
        for part in message.parts() {
            match part {
                Part::Entry(_) => has_wants = true,
                Part::Block { prefix, data } => {
                    n_data_bytes += data.len();
                    match name(bitswap.digest, prefix, data) {
                        Some(cid) if data.len() <= MAX_BLOCK_BYTES => {
                            blocks.push(Named { cid, other: None, data: owned(&bytes, data) });
                        }
                        _ => n_unnamed += 1,
                    }
                }
                Part::OldBlock(data) => {
                    n_data_bytes += data.len();
                    let mut names = OLD_PREFIXES.iter().map(|prefix| name(bitswap.digest, prefix, data));
                    match (names.next().flatten(), names.next().flatten()) {
                        (Some(cid), other) if data.len() <= MAX_BLOCK_BYTES => {
                            blocks.push(Named { cid, other, data: owned(&bytes, data) });
                        }
                        _ => n_unnamed += 1,
                    }
                }
                Part::Presence { cid, has } => {
                    presences.extend(Cid::try_from(cid).ok().map(|cid| (cid, has)));
                }
            }
        }
        if has_wants {
            bitswap.server.wanted(peer, &message, network, tasks);
        }
        bitswap.counters.received(blocks.len() + n_unnamed, n_data_bytes);
        if blocks.is_empty() && presences.is_empty() && n_unnamed == 0 {
            continue;
        }
        let received = Received { peer, blocks, n_unnamed, presences, _budget: budget };
        if bitswap.events.send(Event::Received(received)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// A block of a message: by itself, unless it is nearly all of it.
fn owned(message: &Bytes, block: &[u8]) -> Bytes {
    if block.len() + 256 > message.len() { message.slice_ref(block) } else { Bytes::copy_from_slice(block) }
}
