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
mod stat;
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
use self::stat::Counters;
pub use self::stat::Stat;
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

/// The multihash of `data` by a function's code and the length of the digest; `None` if it cannot be computed.
pub type Digest = fn(code: u64, len: u8, data: &[u8]) -> Option<Multihash<64>>;

/// A block and where it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Its bytes, which give its CID.
    pub block: Bytes,
    /// Who sent it; nobody where the CID itself holds it.
    pub from: Option<PeerId>,
}

/// How the swarm's two users differ.
pub(super) struct Rules {
    /// How blocks of others are named.
    pub(super) digest: Digest,
    /// A peer that sends what nobody asked for loses its connection.
    pub(super) drops_liars: bool,
    /// Served from the start.
    pub(super) blocks: Option<Arc<dyn Blocks>>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { digest: listed, drops_liars: false, blocks: None }
    }
}

/// The functions of the library's table.
fn listed(code: u64, len: u8, data: &[u8]) -> Option<Multihash<64>> {
    let hash = Code::try_from(code).ok()?.digest(data);
    Multihash::wrap(code, hash.digest().get(..usize::from(len))?).ok()
}

/// Bitswap, as [`Network`] sees it.
pub(super) struct Bitswap {
    digest: Digest,
    drops_liars: bool,
    counters: Counters,
    events: mpsc::Sender<Event>,
    given_up: Arc<GivenUp>,
    server: Arc<Server>,
}

/// What the worker learns.
enum Event {
    Fetch {
        cid: Cid,
        likely: Vec<PeerId>,
        asker: Asker,
    },
    /// What we want, and who can be asked.
    Stat {
        respond_to: oneshot::Sender<(Vec<Cid>, Vec<PeerId>)>,
    },
    Received(Received),
    /// It does not speak bitswap, whatever it told.
    Mute(PeerId),
}

/// Who waits for a block.
struct Asker {
    respond_to: oneshot::Sender<Fetched>,
    /// Told when no peer is left that may have it.
    missing: Option<Arc<Notify>>,
}

/// A message's news for those who fetch.
struct Received {
    peer: PeerId,
    blocks: Vec<Named>,
    /// Blocks whose name could not be computed, which nobody asks for.
    n_unnamed: usize,
    presences: Vec<(Cid, bool)>,
    /// Its place among the bytes of the peer that are not digested yet.
    _budget: frames::Budget,
}

/// A block under the CID that its bytes give; one without a prefix under either of two.
struct Named {
    cid: Cid,
    other: Option<Cid>,
    data: Bytes,
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
    block: oneshot::Receiver<Fetched>,
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
    pub(super) fn new(rules: Rules) -> (Self, worker::Inbox) {
        let (events, inbox) = mpsc::channel(MAX_EVENTS);
        let server = Arc::<Server>::default();
        if let Some(blocks) = rules.blocks {
            server.serve(blocks);
        }
        let bitswap = Self {
            digest: rules.digest,
            drops_liars: rules.drops_liars,
            counters: Counters::default(),
            events,
            given_up: Arc::default(),
            server,
        };
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
        self.fetch_block_from(cid, likely, None).await.map(|fetched| fetched.block)
    }

    /// The same, and who sent it. `missing` is notified when all connected peers say that they have not got it, and
    /// when there are none.
    pub async fn fetch_block_from(
        &self,
        cid: Cid,
        likely: &[PeerId],
        missing: Option<Arc<Notify>>,
    ) -> Result<Fetched, Error> {
        if cid.hash().code() == IDENTITY {
            return Ok(Fetched { block: Bytes::copy_from_slice(cid.hash().digest()), from: None });
        }
        let bitswap = &self.shared.bitswap;
        if !is_verifiable(bitswap.digest, cid.hash().code(), cid.hash().size()) {
            return Err(Error::Unverifiable { cid, code: cid.hash().code() });
        }
        let (respond_to, block) = oneshot::channel();
        let event = Event::Fetch { cid, likely: likely.to_vec(), asker: Asker { respond_to, missing } };
        bitswap.events.send(event).await.map_err(|_| Error::Stopped)?;
        let mut waiting = Waiting { given_up: &bitswap.given_up, cid, block, is_done: false };
        let block = (&mut waiting.block).await;
        waiting.is_done = true;
        block.map_err(|_| Error::Stopped)
    }
}

/// Whether we can recompute such a digest.
fn is_verifiable(digest: Digest, code: u64, size: u8) -> bool {
    usize::from(size) >= MIN_DIGEST_BYTES && code != IDENTITY && digest(code, size, &[]).is_some()
}

/// The CID that a block's own bytes give it, by the prefix it came with: version, codec, hash, length of the digest.
fn name(digest: Digest, prefix: &[u8], data: &[u8]) -> Option<Cid> {
    let (version, rest) = unsigned_varint::decode::u64(prefix).ok()?;
    let (codec, rest) = unsigned_varint::decode::u64(rest).ok()?;
    let (code, rest) = unsigned_varint::decode::u64(rest).ok()?;
    let (size, rest) = unsigned_varint::decode::u8(rest).ok()?;
    if !rest.is_empty() || usize::from(size) < MIN_DIGEST_BYTES || code == IDENTITY {
        return None;
    }
    Cid::new(version.try_into().ok()?, codec, digest(code, size, data)?).ok()
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
