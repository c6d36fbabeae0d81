//! The worker's part in what others write: announced heads, fetched nodes, repair.
//!
//! Each round is one transaction: the heads that were announced, the nodes that have come, and what the walk can do
//! with both. A node that came ahead is merged in the same round as the one that names it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cluster_compat::types::{Cid, PeerId};
use tracing::{debug, error, info, warn};

use super::core::{self, Event, Fetch};
use super::fetch::{Arrival, FETCH_TIMEOUT, Fetcher, Known, Want};
use super::inbox::Announced;
use super::worker::{Done, Worker};
use crate::store::{Db, blocks, kv};
use crate::wire::crdt_pb;

/// Longest round, so that local writes need not wait longer than that.
const MAX_ROUND: Duration = Duration::from_millis(100);

/// Most nodes merged in a round.
const MAX_ROUND_NODES: usize = 2048;

/// Heads whose holders are remembered; the walks of older ones ask everyone.
const MAX_HOLDERS: usize = 4096;

/// Heads of late that are told to those we fetch from.
const MAX_RECENT: usize = 128;

/// How long nothing more is told of a peer that announced what nobody serves.
const TELL_EVERY: Duration = Duration::from_secs(600);

/// Peers of which that is remembered.
const MAX_TOLD: usize = 1024;

/// A synchronisation that took so long is worth a line in the log.
const LONG_SYNC: Duration = Duration::from_secs(1);

/// Pause after the store refused a round.
pub(super) const STORE_PAUSE: Duration = Duration::from_secs(5);

/// What the worker keeps for the walks of others' heads.
pub(super) struct Replication {
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) recent: Arc<Recent>,
    /// Who may have what lies beneath an announced head.
    holders: HashMap<Cid, Vec<PeerId>>,
    holders_order: VecDeque<Cid>,
    /// When a peer's heads were last said to be served by nobody.
    told: HashMap<Option<PeerId>, Instant>,
    /// Nodes merged since the walks were last idle, and since when.
    sync: Option<(usize, Instant)>,
}

impl Replication {
    pub(super) fn new(fetcher: Arc<Fetcher>, recent: Arc<Recent>) -> Self {
        let (holders, holders_order) = (HashMap::new(), VecDeque::new());
        Self { fetcher, recent, holders, holders_order, told: HashMap::new(), sync: None }
    }

    fn forget_holders(&mut self) {
        self.holders = HashMap::new();
        self.holders_order = VecDeque::new();
    }

    fn remember(&mut self, announced: Announced) {
        if self.holders.insert(announced.head, announced.holders).is_none() {
            self.holders_order.push_back(announced.head);
            if self.holders_order.len() > MAX_HOLDERS
                && let Some(oldest) = self.holders_order.pop_front()
            {
                self.holders.remove(&oldest);
            }
        }
    }

    /// Whether a failure of what a peer announced is news.
    fn is_news(&mut self, announced_by: Option<PeerId>) -> bool {
        let now = Instant::now();
        self.told.retain(|_, at| now.duration_since(*at) < TELL_EVERY);
        if self.told.len() >= MAX_TOLD || self.told.contains_key(&announced_by) {
            return false;
        }
        self.told.insert(announced_by, now);
        true
    }

    fn tell_unavailable(&mut self, given_up: &Fetch) {
        let Fetch { cid, tip } = given_up;
        let peer = self.holders.get(tip).and_then(|holders| holders.first()).copied();
        let announced_by = peer.map_or_else(|| "another peer".to_owned(), |peer| peer.to_string());
        if !self.is_news(peer) {
            debug!(target: "crdt", %cid, announced_by, "served by nobody");
        } else if cid == tip {
            error!(
                target: "crdt",
                "error processing new head: nobody served {cid}, announced by {announced_by}, within \
                 {FETCH_TIMEOUT:?}; it is taken up when it is announced again"
            );
        } else {
            error!(
                target: "crdt",
                "error processing new head: nobody served {cid}, which lies beneath {tip}, announced by \
                 {announced_by}, within {FETCH_TIMEOUT:?}; it is looked for again later"
            );
        }
    }

    fn want(&self, fetch: Fetch) {
        let likely = self.holders.get(&fetch.tip).cloned().unwrap_or_default();
        self.fetcher.want(Want { cid: fetch.cid, likely });
    }
}

/// Heads of now and of late: what is above them is all that is worth sending to us.
pub(super) struct Recent {
    db: Db,
    /// Taken by the worker after a commit and by fetches; no await inside.
    heads: Mutex<VecDeque<Cid>>,
}

impl Recent {
    pub(super) fn new(db: Db) -> Self {
        Self { db, heads: Mutex::default() }
    }

    pub(super) fn add(&self, heads: &[Cid]) {
        let mut recent = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|head| !heads.contains(head));
        recent.extend(heads);
        let excess = recent.len().saturating_sub(MAX_RECENT);
        recent.drain(..excess);
    }
}

impl Known for Recent {
    fn have(&self) -> Vec<Cid> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().copied().collect()
    }

    fn is_processed(&self, cid: &Cid) -> bool {
        let read = kv::read(&self.db, |view| {
            blocks::get(view, &blocks::key(cid)).map(|b| b.is_some_and(|b| b.is_processed))
        });
        read.unwrap_or(false)
    }
}

/// What happened elsewhere since the last round.
#[derive(Default)]
pub(super) struct News {
    pub(super) announced: Vec<Announced>,
    pub(super) arrivals: Vec<Arrival>,
    pub(super) repair: bool,
}

impl News {
    pub(super) fn is_empty(&self) -> bool {
        self.announced.is_empty() && self.arrivals.is_empty() && !self.repair
    }
}

impl Worker {
    /// One round. False where the store refused it.
    pub(super) fn replicate(&mut self, news: News) -> bool {
        let tips: Vec<Cid> = news.announced.iter().map(|announced| node_id(&announced.head)).collect();
        for announced in news.announced {
            let head = node_id(&announced.head);
            self.replication.remember(Announced { head, ..announced });
        }
        match self.merge(&tips, news.arrivals, news.repair) {
            Ok(done) => {
                self.tell_sync(&done);
                self.tell(done);
                true
            }
            Err(cause) => {
                error!(target: "crdt", "error merging the updates of other peers: {cause}");
                self.reload();
                false
            }
        }
    }

    fn merge(&mut self, tips: &[Cid], arrivals: Vec<Arrival>, repair: bool) -> Result<Done, core::Error> {
        let started = Instant::now();
        let (state, replication) = (&mut self.state, &mut self.replication);
        kv::write(&*self.kv, |transaction| {
            let mut done = Done::default();
            let mut events: VecDeque<Event<'_>> = arrivals
                .into_iter()
                .map(|arrival| match arrival {
                    Arrival::Block { cid, data } => Event::Block { cid, data },
                    Arrival::Unavailable(cid) => Event::Unavailable(cid),
                })
                .collect();
            if !tips.is_empty() {
                events.push_back(Event::Announced(tips));
            }
            if repair {
                events.push_back(Event::Repair);
            }
            loop {
                let Some(event) = events.pop_front().or_else(|| state.has_more().then_some(Event::Continue))
                else {
                    return Ok(done);
                };
                let was_fetched = !matches!(event, Event::Unavailable(_));
                let is_rest = matches!(event, Event::Continue);
                let effects = state.handle(event, transaction.as_read())?;
                effects.apply(transaction)?;
                done.changes.extend(effects.changes);
                done.stored.extend(effects.merged);
                for (cid, cause) in effects.skipped {
                    warn!(target: "crdt", "error processing new head: {cid}: {cause}");
                }
                for given_up in effects.given_up.iter().filter(|_| !was_fetched) {
                    replication.tell_unavailable(given_up);
                }
                for fetch in effects.fetch {
                    match replication.fetcher.take_ahead(&fetch.cid) {
                        Some(data) => events.push_front(Event::Block { cid: fetch.cid, data }),
                        None => replication.want(fetch),
                    }
                }
                let is_long = started.elapsed() > MAX_ROUND || done.stored.len() >= MAX_ROUND_NODES;
                if is_rest && is_long && events.is_empty() {
                    return Ok(done);
                }
            }
        })
    }

    /// Says what a longer synchronisation has brought, once, when it is through.
    fn tell_sync(&mut self, done: &Done) {
        let (n_merged, since) = self.replication.sync.unwrap_or_else(|| (0, Instant::now()));
        let n_merged = n_merged + done.stored.len();
        let is_through = self.state.n_unfinished() == self.state.n_stalled() && !self.state.has_more();
        if !is_through && n_merged > 0 {
            self.replication.sync = Some((n_merged, since));
            return;
        }
        self.replication.sync = None;
        if !self.state.is_walking() {
            // nothing is left to fetch beneath any of them
            self.replication.forget_holders();
        }
        let took = since.elapsed();
        if took >= LONG_SYNC {
            let height = self.state.heads().max_height();
            info!(target: "crdt", "merged {n_merged} nodes of other peers in {took:.1?}. Current max-height: {height}");
        }
    }
}

/// The CID under which the DAG knows a node; others may announce its multihash in another dress.
fn node_id(cid: &Cid) -> Cid {
    crdt_pb::cid_of_multihash(&cid.hash().to_bytes()).unwrap_or(*cid)
}
