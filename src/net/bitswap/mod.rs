//! Bitswap: blocks for peers and from peers (spec: wire 6).
//!
//! ```text
//!   fetch_block ──▶ Worker ── fetch::Wants (pure): whom to ask ──▶ Outbox of a peer ──▶ one long-lived stream
//!                     ▲                                                                   to it
//!                     └── blocks, HAVE, DONT_HAVE ──┐
//!   streams of peers ──▶ one reader each ───────────┤
//!                                                   └── wantlists ──▶ serve::Wantlist (pure) of the peer
//!   blocks_stored ────────────────────────────────────────────────────▶     │ what to look up
//!                       Blocks, on a blocking thread ◀── one answering task ┘──▶ answers on a stream of their own
//! ```
//!
//! Invariants: what a peer may make us remember is bounded (wants, bytes read and not yet digested, one message of
//! answers at a time); a block counts only under the CID that its own bytes give; nothing waits for a tick: a want
//! and an answer leave at once, and what comes while a message is being written goes into the next one; serving
//! never dials. Not here: where blocks are stored, and what is in them.

mod fetch;
mod frames;
mod peer;
mod serve;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cid::multihash::Multihash;
use cluster_compat::types::{Cid, PeerId};
use multihash_codetable::{Code, MultihashDigest as _};
use tokio::sync::{Notify, mpsc, oneshot};

use self::peer::Server;
pub(super) use self::worker::start;
use super::{Error, Network, Stream};

/// What we speak, in order of preference. Only the first knows HAVE.
const PROTOCOLS: [&str; 4] =
    ["/ipfs/bitswap/1.2.0", "/ipfs/bitswap/1.1.0", "/ipfs/bitswap/1.0.0", "/ipfs/bitswap"];

/// Requests and messages that wait for the worker; filled by bursts of fetches.
const MAX_EVENTS: usize = 1024;

/// Shortest digest that names a block, as in the original.
const MIN_DIGEST_BYTES: usize = 20;

/// Hash code of CIDs that hold their block themselves.
const IDENTITY: u64 = 0;

/// Where the blocks for others come from. Called on a blocking thread.
pub trait Blocks: Send + Sync {
    /// A block, if we have it.
    fn block(&self, cid: &Cid) -> Option<Vec<u8>>;

    /// Its size, if we have it.
    fn size(&self, cid: &Cid) -> Option<usize> {
        self.block(cid).map(|block| block.len())
    }
}

/// Bitswap, as [`Network`] sees it.
pub(super) struct Bitswap {
    events: mpsc::Sender<Event>,
    given_up: Arc<GivenUp>,
    server: Arc<Server>,
}

/// What the worker learns.
enum Event {
    Fetch {
        cid: Cid,
        likely: Vec<PeerId>,
        respond_to: oneshot::Sender<Bytes>,
    },
    Received(Received),
    /// It does not speak bitswap, whatever it told.
    Mute(PeerId),
}

/// A message's news for those who fetch.
struct Received {
    peer: PeerId,
    /// Under the CIDs that their bytes give.
    blocks: Vec<(Cid, Bytes)>,
    presences: Vec<(Cid, bool)>,
    /// Its place among the bytes of the peer that are not digested yet.
    _budget: frames::Budget,
}

/// CIDs whose future was dropped. The lock is taken for a moment by whoever drops and by the worker.
#[derive(Default)]
struct GivenUp {
    cids: Mutex<Vec<Cid>>,
    wake: Notify,
}

impl GivenUp {
    fn take(&self) -> Vec<Cid> {
        std::mem::take(&mut self.cids.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Tells the worker when nobody waits any more.
struct Waiting<'a> {
    given_up: &'a GivenUp,
    cid: Cid,
    block: oneshot::Receiver<Bytes>,
    is_done: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        // first of all: the worker tells by it who waits
        self.block.close();
        self.given_up.cids.lock().unwrap_or_else(PoisonError::into_inner).push(self.cid);
        self.given_up.wake.notify_one();
    }
}

impl Bitswap {
    pub(super) fn new() -> (Self, worker::Inbox) {
        let (events, inbox) = mpsc::channel(MAX_EVENTS);
        let bitswap = Self { events, given_up: Arc::default(), server: Arc::default() };
        (bitswap, worker::Inbox::new(inbox))
    }
}

impl Network {
    /// From now on blocks are served from there. Once: later calls change nothing.
    pub fn serve_blocks(&self, blocks: Arc<dyn Blocks>) {
        self.shared.bitswap.server.serve(blocks);
    }

    /// Tells that blocks were stored: whoever waits for one gets it. Never waits.
    pub fn blocks_stored(&self, cids: &[Cid]) {
        self.shared.bitswap.server.stored(cids);
    }

    /// Asks connected peers for a block, `likely` ones first, and those that connect later, until one sends it. Has no
    /// time limit of its own: drop the future to give up.
    pub async fn fetch_block(&self, cid: Cid, likely: &[PeerId]) -> Result<Bytes, Error> {
        if cid.hash().code() == IDENTITY {
            return Ok(Bytes::copy_from_slice(cid.hash().digest()));
        }
        if !is_verifiable(cid.hash().code(), usize::from(cid.hash().size())) {
            return Err(Error::Unverifiable { cid, code: cid.hash().code() });
        }
        let bitswap = &self.shared.bitswap;
        let (respond_to, block) = oneshot::channel();
        let event = Event::Fetch { cid, likely: likely.to_vec(), respond_to };
        bitswap.events.send(event).await.map_err(|_| Error::Stopped)?;
        let mut waiting = Waiting { given_up: &bitswap.given_up, cid, block, is_done: false };
        let block = (&mut waiting.block).await;
        waiting.is_done = true;
        block.map_err(|_| Error::Stopped)
    }
}

/// Whether we can recompute such a digest.
fn is_verifiable(code: u64, size: usize) -> bool {
    size >= MIN_DIGEST_BYTES
        && code != IDENTITY
        && Code::try_from(code).is_ok_and(|code| size <= usize::from(code.digest(&[]).size()))
}

/// The CID that a block's own bytes give it, by the prefix it came with: version, codec, hash, length of the digest.
fn name(prefix: &[u8], data: &[u8]) -> Option<Cid> {
    let (version, rest) = unsigned_varint::decode::u64(prefix).ok()?;
    let (codec, rest) = unsigned_varint::decode::u64(rest).ok()?;
    let (code, rest) = unsigned_varint::decode::u64(rest).ok()?;
    let (size, rest) = unsigned_varint::decode::usize(rest).ok()?;
    if !rest.is_empty() || !is_verifiable(code, size) {
        return None;
    }
    let digest = Code::try_from(code).ok()?.digest(data);
    let hash = Multihash::wrap(code, digest.digest().get(..size)?).ok()?;
    Cid::new(version.try_into().ok()?, codec, hash).ok()
}

/// What a CID is besides its digest.
fn prefix(cid: &Cid) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(8);
    for number in [u64::from(cid.version()), cid.codec(), cid.hash().code(), u64::from(cid.hash().size())] {
        let mut buffer = unsigned_varint::encode::u64_buffer();
        prefix.extend_from_slice(unsigned_varint::encode::u64(number, &mut buffer));
    }
    prefix
}
