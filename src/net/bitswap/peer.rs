//! What runs per peer: one task that tells it our wants, one that answers its own.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use cluster_compat::types::{Cid, PeerId};
use futures::AsyncReadExt as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::serve::{Item, Outcome, Wantlist};
use super::{Blocks, Error, Network, PROTOCOLS, Stream, frames, prefix};
use crate::task::Tasks;
use crate::wire::bitswap_pb::{Builder, Entry, Message, Want};

/// Blocks of one message, about; the rest goes into the next one.
const GOAL_BYTES: usize = 512 << 10;

/// Longest block that is sent, alone in its message if need be; an original reads messages of twice this.
pub(super) const MAX_BLOCK_BYTES: usize = 2 << 20;

/// A peer that asks whether we have a block this small gets it at once.
const MAX_REPLACED_BYTES: usize = 1024;

/// Wants looked up in one go.
const MAX_LOOK_UPS: usize = 256;

/// Silence after which the stream for answers is closed.
const ANSWER_IDLE: Duration = Duration::from_secs(30);

/// Pauses before a stream that broke is opened again.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The serving side.
#[derive(Default)]
pub(in crate::net) struct Server {
    blocks: OnceLock<Arc<dyn Blocks>>,
    /// Peers that want something or did. Taken for a moment by readers, by `stored` and by the worker.
    ledgers: Mutex<HashMap<PeerId, Arc<Ledger>>>,
}

/// What one peer wants, and whoever answers it.
struct Ledger {
    /// Taken for a moment by the peer's readers, by `stored` and by the answering task.
    wantlist: Mutex<Wantlist>,
    wake: Notify,
    stop: CancellationToken,
}

impl Ledger {
    fn wantlist(&self) -> MutexGuard<'_, Wantlist> {
        self.wantlist.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a look-up found.
enum Answer {
    Block(Vec<u8>),
    Has,
    HasNot,
}

impl Server {
    pub(super) fn serve(&self, blocks: Arc<dyn Blocks>) {
        if self.blocks.set(blocks).is_err() {
            error!(target: "bitswap", "blocks are served already");
            return;
        }
        for ledger in self.ledgers().values() {
            ledger.wantlist().look_again();
            ledger.wake.notify_one();
        }
    }

    pub(super) fn stored(&self, cids: &[Cid]) {
        for ledger in self.ledgers().values() {
            let mut wantlist = ledger.wantlist();
            let mut is_wanted = false;
            for cid in cids {
                is_wanted |= wantlist.stored(cid);
            }
            if is_wanted {
                ledger.wake.notify_one();
            }
        }
    }

    /// Takes in the wants of a peer, and begins to answer it if it is new.
    pub(super) fn wanted(
        self: &Arc<Self>,
        peer: PeerId,
        message: &Message<'_>,
        network: &Network,
        tasks: &Tasks,
    ) {
        let (ledger, is_new) = {
            let mut ledgers = self.ledgers();
            let is_new = !ledgers.contains_key(&peer);
            let ledger = ledgers.entry(peer).or_insert_with(|| {
                let stop = tasks.token().child_token();
                Arc::new(Ledger { wantlist: Mutex::default(), wake: Notify::new(), stop })
            });
            (Arc::clone(ledger), is_new)
        };
        if is_new {
            tasks.spawn(
                "bitswap answers",
                answer(Arc::clone(self), Arc::clone(&ledger), peer, network.clone()),
            );
        }
        if ledger.wantlist().apply(message) {
            ledger.wake.notify_one();
        }
        // its last connection may have ended since it wrote this, and the worker have cleaned up already
        if is_new && !network.shared.streams.is_connected(&peer) {
            self.gone(&peer);
        }
    }

    /// What a peer wants.
    pub(super) fn wantlist_of(&self, peer: &PeerId) -> Vec<Cid> {
        let ledger = self.ledgers().get(peer).cloned();
        ledger.map(|ledger| ledger.wantlist().cids()).unwrap_or_default()
    }

    /// Forgets a peer that has no connection any more.
    pub(super) fn gone(&self, peer: &PeerId) {
        if let Some(ledger) = self.ledgers().remove(peer) {
            ledger.stop.cancel();
        }
    }

    fn ledgers(&self) -> MutexGuard<'_, HashMap<PeerId, Arc<Ledger>>> {
        self.ledgers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(server: Arc<Server>, ledger: Arc<Ledger>, peer: PeerId, network: Network) {
    let stop = ledger.stop.clone();
    let answers = async {
        let mut stream = None;
        loop {
            let items = ledger.wantlist().take(MAX_LOOK_UPS);
            if items.is_empty() {
                if tokio::time::timeout(ANSWER_IDLE, ledger.wake.notified()).await.is_err() {
                    // closed when it is dropped: what was written is with the peer
                    close(stream.take()).await;
                    ledger.wake.notified().await;
                }
                continue;
            }
            let answers = look_up(&server, &ledger, items).await;
            if answers.is_empty() {
                continue;
            }
            match send(&network, peer, &mut stream, &answers).await {
                Ok(()) => {
                    let blocks = answers.iter().filter_map(|(_, answer)| match answer {
                        Answer::Block(block) => Some(block.len()),
                        Answer::Has | Answer::HasNot => None,
                    });
                    let (n_blocks, n_bytes) = blocks.fold((0, 0), |(n, bytes), len| (n + 1, bytes + len));
                    network.shared.bitswap.counters.sent(n_blocks, n_bytes);
                }
                Err(e) => {
                    debug!(target: "bitswap", %peer, "cannot answer: {e}");
                    stream = None;
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = answers => {}
    }
}

async fn close(stream: Option<(Stream, &'static str)>) {
    if let Some((mut stream, _)) = stream {
        let _ = tokio::time::timeout(ANSWER_IDLE, futures::AsyncWriteExt::close(&mut stream)).await;
    }
}

/// Looks up as much as goes into one message; the rest stays in the wantlist.
async fn look_up(server: &Server, ledger: &Ledger, items: Vec<Item>) -> Vec<(Cid, Answer)> {
    let found = match server.blocks.get().cloned() {
        None => items.iter().map(|item| (*item, Answer::HasNot)).collect(),
        Some(blocks) => {
            let looked_up = items.clone();
            let found = tokio::task::spawn_blocking(move || read(&*blocks, &looked_up)).await;
            found.unwrap_or_else(|e| {
                error!(target: "bitswap", "cannot look up blocks: {e}");
                items.iter().map(|item| (*item, Answer::HasNot)).collect()
            })
        }
    };
    let mut answers = Vec::new();
    let mut wantlist = ledger.wantlist();
    wantlist.put_back(&items[found.len()..]);
    for (item, answer) in found {
        let outcome = match answer {
            Answer::Block(_) => Outcome::Sent,
            Answer::Has => Outcome::Told,
            Answer::HasNot => Outcome::Missing,
        };
        wantlist.done(&item.cid, outcome);
        if outcome != Outcome::Missing || item.wants_dont_have {
            answers.push((item.cid, answer));
        }
    }
    answers
}

/// Reads from the front of `items` until a message is full.
fn read(blocks: &dyn Blocks, items: &[Item]) -> Vec<(Item, Answer)> {
    let mut answers = Vec::new();
    let mut n_bytes = 0;
    for item in items {
        if n_bytes >= GOAL_BYTES {
            break;
        }
        let wants_block = match item.want {
            Want::Block => true,
            Want::Have => match blocks.size(&item.cid) {
                None => {
                    answers.push((*item, Answer::HasNot));
                    continue;
                }
                Some(size) => size <= MAX_REPLACED_BYTES,
            },
        };
        let answer = if wants_block {
            match blocks.block(&item.cid) {
                None => Answer::HasNot,
                Some(block) if block.len() > MAX_BLOCK_BYTES => {
                    warn!(target: "bitswap", cid = %item.cid, n_bytes = block.len(), "block too large to be sent");
                    Answer::HasNot
                }
                Some(block) if n_bytes > 0 && n_bytes + block.len() > MAX_BLOCK_BYTES => break,
                Some(block) => {
                    n_bytes += block.len();
                    Answer::Block(block)
                }
            }
        } else {
            Answer::Has
        };
        answers.push((*item, answer));
    }
    answers
}

/// Sends answers on the stream that is open, or on a new one if there is none or it broke.
async fn send(
    network: &Network,
    peer: PeerId,
    stream: &mut Option<(Stream, &'static str)>,
    answers: &[(Cid, Answer)],
) -> Result<(), Error> {
    let broken = |e: std::io::Error| Error::Open { peer, reason: e.to_string() };
    if let Some((open, protocol)) = stream
        && frames::write(open, &encode(protocol, answers)).await.is_ok()
    {
        return Ok(());
    }
    let (open, protocol) = stream.insert(network.open_connected(peer, &PROTOCOLS).await?);
    frames::write(open, &encode(protocol, answers)).await.map_err(broken)
}

fn encode(protocol: &str, answers: &[(Cid, Answer)]) -> Vec<u8> {
    let mut builder = Builder::default();
    for (cid, answer) in answers {
        match answer {
            Answer::Block(block) if is_oldest(protocol) => builder.old_block(block),
            Answer::Block(block) => builder.block(&prefix(cid), block),
            Answer::Has | Answer::HasNot if protocol != PROTOCOLS[0] => {}
            Answer::Has => builder.presence(&cid.to_bytes(), true),
            Answer::HasNot => builder.presence(&cid.to_bytes(), false),
        }
    }
    builder.build()
}

/// Protocols whose blocks have no prefix.
fn is_oldest(protocol: &str) -> bool {
    protocol == PROTOCOLS[2] || protocol == PROTOCOLS[3]
}

/// What a peer is to be told about our wants.
#[derive(Default)]
pub(super) struct Outbox {
    /// Taken for a moment by the worker and by the peer's task.
    lines: Mutex<Lines>,
    wake: Notify,
}

#[derive(Default)]
struct Lines {
    /// What was not told yet; `None` is a CANCEL.
    news: HashMap<Cid, Option<(Want, i32)>>,
    /// All that the peer should know.
    all: HashMap<Cid, (Want, i32)>,
    /// What it was told and may remember: only that is cancelled.
    told: HashSet<Cid>,
}

impl Outbox {
    pub(super) fn ask(&self, cid: Cid, want: Want, priority: i32) {
        let mut lines = self.lines();
        lines.news.insert(cid, Some((want, priority)));
        lines.all.insert(cid, (want, priority));
    }

    pub(super) fn cancel(&self, cid: &Cid) {
        let mut lines = self.lines();
        lines.all.remove(cid);
        if lines.told.contains(cid) {
            lines.news.insert(*cid, None);
        } else {
            lines.news.remove(cid);
        }
    }

    pub(super) fn forget(&self, cid: &Cid) {
        let mut lines = self.lines();
        lines.all.remove(cid);
        lines.news.remove(cid);
        lines.told.remove(cid);
    }

    /// Sends what was said since the last time.
    pub(super) fn send(&self) {
        self.wake.notify_one();
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next message; `None` when there is nothing to say.
    fn message(&self, protocol: &str, is_new_stream: bool) -> Option<Vec<u8>> {
        let mut lines: Vec<(Cid, Option<(Want, i32)>)> = {
            let mut lines = self.lines();
            let Lines { news, all, told } = &mut *lines;
            let news = std::mem::take(news);
            if is_new_stream {
                *told = all.keys().copied().collect();
                all.iter().map(|(cid, line)| (*cid, Some(*line))).collect()
            } else {
                for (cid, line) in &news {
                    match line {
                        Some(_) => told.insert(*cid),
                        None => told.remove(cid),
                    };
                }
                news.into_iter().collect()
            }
        };
        if lines.is_empty() {
            return None;
        }
        lines.sort_unstable_by_key(|(cid, line)| (line.map(|(_, priority)| -priority), *cid));
        let mut builder = Builder::default();
        if is_new_stream {
            builder.full();
        }
        for (cid, line) in lines {
            let (want, priority) = line.unwrap_or_default();
            let is_new = protocol == PROTOCOLS[0];
            builder.entry(&Entry {
                cid: &cid.to_bytes(),
                priority,
                is_cancelled: line.is_none(),
                want: if is_new { want } else { Want::Block },
                wants_dont_have: is_new && line.is_some(),
            });
        }
        Some(builder.build())
    }

    fn has_news(&self) -> bool {
        !self.lines().news.is_empty()
    }

    /// Whatever the peer knew it may have forgotten.
    fn say_all(&self) {
        let mut lines = self.lines();
        let Lines { news, all, .. } = &mut *lines;
        for (cid, line) in all.iter() {
            news.entry(*cid).or_insert(Some(*line));
        }
    }
}

/// Tells a peer our wants until it is gone. Returns at once when it does not speak bitswap.
pub(super) async fn tell(network: Network, peer: PeerId, outbox: Arc<Outbox>) {
    let mut pause = FIRST_PAUSE;
    // nothing was said yet: the list need not replace anything
    let mut is_first = true;
    loop {
        while !outbox.has_news() {
            outbox.wake.notified().await;
        }
        let (mut stream, protocol) = match network.open_connected(peer, &PROTOCOLS).await {
            Ok(open) => open,
            Err(Error::Unsupported { .. }) => return,
            Err(e) => {
                debug!(target: "bitswap", %peer, "cannot tell what we want: {e}");
                tokio::time::sleep(pause).await;
                pause = LONGEST_PAUSE.min(pause * 2);
                continue;
            }
        };
        let opened_at = tokio::time::Instant::now();
        let mut is_new_stream = !std::mem::take(&mut is_first);
        let end = loop {
            if let Some(message) = outbox.message(protocol, is_new_stream) {
                if let Err(e) = frames::write(&mut stream, &message).await {
                    break e.to_string();
                }
                is_new_stream = false;
                continue;
            }
            // it never says anything here; an end of reading is the end of the stream
            let mut nothing = [0];
            tokio::select! {
                () = outbox.wake.notified() => {}
                read = stream.read(&mut nothing) => match read {
                    Ok(0) => break "closed".into(),
                    Ok(_) => {}
                    Err(e) => break e.to_string(),
                },
            }
        };
        debug!(target: "bitswap", %peer, "the stream for our wants broke: {end}");
        outbox.say_all();
        if opened_at.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        tokio::time::sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}
