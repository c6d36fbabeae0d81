//! Where pins stand: the table first, then the pinset, then the daemon (spec: core 12.4, 12.5).
//!
//! A list of all is a join. The daemon's pins come first, as a stream that leaves a fingerprint each ([`Held`]);
//! then the pinset is streamed against them. While the daemon of a large pinset still counts, the first of its
//! pins are told ahead, so that a reader need not wait for the whole; they are left out later.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cluster_compat::types::{Cid, Pin, PinInfo, PinType, TrackerStatus};
use futures::StreamExt;
use futures::stream::{self, BoxStream, ReadyChunks};
use tokio::time::Instant;
use tracing::error;

use super::held::Held;
use super::ops::OpId;
use super::{Error, Me, Shared, Tracker, UNEXPECTEDLY_UNPINNED};
use crate::ipfs;
use crate::state;

/// Statuses that only the pinset can tell. A list of others is a list of operations.
const OF_THE_PINSET: TrackerStatus = TrackerStatus(
    TrackerStatus::PINNED.0
        | TrackerStatus::UNEXPECTEDLY_UNPINNED.0
        | TrackerStatus::SHARDED.0
        | TrackerStatus::REMOTE.0,
);

/// Statuses that only the daemon can tell.
const OF_THE_DAEMON: TrackerStatus =
    TrackerStatus(TrackerStatus::PINNED.0 | TrackerStatus::UNEXPECTEDLY_UNPINNED.0);

/// The daemon's pins that count. Shards are recursive ones.
const LISTED_TYPES: &[&str] = &["recursive", "direct"];

/// Items worked on in one go: as long as one poll may take, and as much as is in memory of a list.
const N_PER_PAGE: usize = 256;

/// How long the daemon may count before the first of its pins are told ahead. A list that fails sooner tells none.
const AHEAD_AFTER: Duration = Duration::from_millis(20);

/// Pins that are told ahead: enough for a reader to begin with, few enough to look up one by one.
const N_AHEAD: usize = N_PER_PAGE;

impl Tracker {
    /// Where a CID stands on this peer.
    pub async fn status(&self, cid: &Cid) -> PinInfo {
        let me = self.shared.me();
        if let Some(info) = self.shared.lock().ops.get(cid).map(|operation| me.about_operation(operation)) {
            return info;
        }
        let pin = match self.shared.pinset.get(cid) {
            Ok(Some(pin)) => pin,
            Ok(None) => return me.about_cid(*cid, TrackerStatus::UNPINNED),
            Err(e) => {
                error!(target: "pintracker", %cid, "{e}");
                return with_error(me.about_cid(*cid, TrackerStatus::CLUSTER_ERROR), e.to_string());
            }
        };
        if let Some(status) = self.shared.status_by_pin(&pin) {
            return me.about_pin(pin, status);
        }
        match self.shared.ipfs.pin_ls_cid(cid, pin.max_depth).await {
            Ok(held) => match held.to_tracker_status() {
                TrackerStatus::UNPINNED => me.about_lost(pin),
                status => me.about_pin(pin, status),
            },
            Err(e) => {
                error!(target: "pintracker", %cid, "{e}");
                with_error(me.about_pin(pin, TrackerStatus::CLUSTER_ERROR), e.to_string())
            }
        }
    }

    /// Where all CIDs stand whose status matches `filter` (0 matches all), a few at a time. After an error there is
    /// nothing more. Dropping the stream aborts what it asks.
    pub fn status_all(&self, filter: TrackerStatus) -> BoxStream<'static, Result<PinInfo, Error>> {
        let list = List::new(Arc::clone(&self.shared), filter);
        stream::unfold(list, |mut list| async move {
            let page = list.next_page().await?;
            Some((stream::iter(page), list))
        })
        .flatten()
        .boxed()
    }
}

impl Shared {
    /// The status of a pin that the daemon need not be asked for.
    fn status_by_pin(&self, pin: &Pin) -> Option<TrackerStatus> {
        if pin.pin_type == PinType::Meta {
            Some(TrackerStatus::SHARDED)
        } else if pin.is_remote(&self.peer) {
            Some(TrackerStatus::REMOTE)
        } else {
            None
        }
    }
}

impl Me {
    /// A pin that the daemon should hold and does not.
    fn about_lost(&self, pin: Pin) -> PinInfo {
        with_error(
            self.about_pin(pin, TrackerStatus::UNEXPECTEDLY_UNPINNED),
            UNEXPECTEDLY_UNPINNED.to_owned(),
        )
    }
}

fn with_error(mut info: PinInfo, error: String) -> PinInfo {
    info.short.error = error;
    info
}

type Page = Vec<Result<PinInfo, Error>>;

/// A list of statuses in the making.
struct List {
    shared: Arc<Shared>,
    me: Me,
    filter: TrackerStatus,
    stage: Stage,
}

enum Stage {
    /// Operations, begun after this one.
    Operations(Option<OpId>),
    /// The daemon tells its pins.
    Daemon(Box<DaemonStage>),
    /// The pinset is read. `None` where the daemon need not be known.
    Pinset(BoxStream<'static, Result<Vec<Pin>, state::Error>>, Option<Held>, Ahead),
    /// Nothing more.
    Done,
}

struct DaemonStage {
    listed: ReadyChunks<BoxStream<'static, Result<(Cid, ipfs::IpfsPinStatus), ipfs::Error>>>,
    held: Held,
    ahead: Ahead,
    /// When to tell ahead; `None` once that is done, or where it cannot be.
    ahead_at: Option<Instant>,
    /// Whether the reader has just got those, and shall have a moment to pass them on.
    is_told_now: bool,
}

/// The first pins of the daemon: not yet told, or told already.
#[derive(Default)]
struct Ahead {
    waiting: VecDeque<Cid>,
    told: HashSet<Cid>,
}

impl List {
    fn new(shared: Arc<Shared>, filter: TrackerStatus) -> Self {
        let stage = if !filter.matches(OF_THE_PINSET) {
            Stage::Operations(None)
        } else if filter.matches(OF_THE_DAEMON) {
            Stage::Daemon(Box::new(DaemonStage {
                listed: shared.ipfs.pin_ls(LISTED_TYPES).ready_chunks(N_PER_PAGE),
                held: Held::with_room(shared.n_held.load(Ordering::Relaxed)),
                ahead: Ahead::default(),
                ahead_at: filter.matches(TrackerStatus::PINNED).then(|| Instant::now() + AHEAD_AFTER),
                is_told_now: false,
            }))
        } else {
            Stage::Pinset(shared.pinset.pages(), None, Ahead::default())
        };
        // pins that finish from now on may be missing in what the daemon tells
        shared.lock().ops.list_begins();
        let me = shared.me();
        Self { shared, me, filter, stage }
    }

    /// The next items, maybe none of them; `None` after the last.
    async fn next_page(&mut self) -> Option<Page> {
        match &mut self.stage {
            Stage::Operations(after) => {
                let (page, next) =
                    self.shared.lock().ops.page(*after, N_PER_PAGE, self.filter, |operation| {
                        Ok(self.me.about_operation(operation))
                    });
                self.stage = next.map_or(Stage::Done, |id| Stage::Operations(Some(id)));
                Some(page)
            }
            Stage::Daemon(stage) => match stage.listen().await {
                Heard::Some => Some(Vec::new()),
                Heard::TellAhead => {
                    stage.ahead_at = None;
                    let (mut pins, mut told) = (Vec::new(), HashSet::new());
                    for cid in stage.ahead.waiting.drain(..) {
                        // one that cannot be read fails where it stands in the pinset
                        if let Ok(Some(pin)) = self.shared.pinset.get(&cid)
                            && told.insert(cid)
                        {
                            pins.push(pin);
                        }
                    }
                    let page = self.shared.join(&self.me, self.filter, Some(&stage.held), pins);
                    stage.ahead.told = told;
                    stage.is_told_now = true;
                    Some(page)
                }
                Heard::Failure(e) => {
                    error!(target: "pintracker", "could not get pinset from IPFS: {e}");
                    self.stage = Stage::Done;
                    Some(vec![Err(Error::Listing(e))])
                }
                Heard::End => {
                    let pins = self.shared.pinset.pages();
                    let (held, ahead) = (std::mem::take(&mut stage.held), std::mem::take(&mut stage.ahead));
                    self.shared.n_held.store(held.len(), Ordering::Relaxed);
                    self.stage = Stage::Pinset(pins, Some(held), ahead);
                    Some(Vec::new())
                }
            },
            Stage::Pinset(pages, held, ahead) => match pages.next().await? {
                Ok(mut pins) => {
                    if !ahead.told.is_empty() {
                        pins.retain(|pin| !ahead.told.remove(&pin.cid));
                    }
                    Some(self.shared.join(&self.me, self.filter, held.as_ref(), pins))
                }
                Err(e) => {
                    error!(target: "pintracker", "{e}");
                    self.stage = Stage::Done;
                    Some(vec![Err(Error::State(e))])
                }
            },
            Stage::Done => None,
        }
    }
}

impl Drop for List {
    fn drop(&mut self) {
        self.shared.lock().ops.list_ends();
    }
}

enum Heard {
    Some,
    TellAhead,
    Failure(ipfs::Error),
    End,
}

impl DaemonStage {
    /// Takes in what the daemon says next.
    async fn listen(&mut self) -> Heard {
        // a server sends what it has when there is nothing more for now; with a busy daemon that would be never
        if std::mem::take(&mut self.is_told_now) {
            tokio::task::yield_now().await;
        }
        let ahead_at = self.ahead_at.filter(|_| !self.ahead.waiting.is_empty());
        // a daemon that never pauses leaves a timer no chance: look at the clock as well
        if ahead_at.is_some_and(|ahead_at| Instant::now() >= ahead_at) {
            return Heard::TellAhead;
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(ahead_at.unwrap_or_else(Instant::now)), if ahead_at.is_some() => {
                Heard::TellAhead
            }
            listed = self.listed.next() => {
                let Some(listed) = listed else { return Heard::End };
                for item in listed {
                    match item {
                        Ok((cid, status)) => self.on_listed(cid, status.to_tracker_status()),
                        Err(e) => return Heard::Failure(e),
                    }
                }
                Heard::Some
            }
        }
    }

    fn on_listed(&mut self, cid: Cid, status: TrackerStatus) {
        self.held.insert(&cid, status);
        if self.ahead_at.is_some() && self.ahead.waiting.len() < N_AHEAD {
            self.ahead.waiting.push_back(cid);
        }
    }
}

impl Shared {
    /// The items of some pins that match `filter`, in their order.
    fn join(&self, me: &Me, filter: TrackerStatus, held: Option<&Held>, pins: Vec<Pin>) -> Page {
        let state = self.lock();
        let no_operations = state.ops.is_empty();
        let mut items = Vec::with_capacity(pins.len());
        for pin in pins {
            if !no_operations && let Some(operation) = state.ops.get(&pin.cid) {
                // an operation that does not match is not shown as what it is not
                if operation.status().matches(filter) {
                    items.push(Ok(me.about_operation(operation)));
                }
                continue;
            }
            let status = self.status_by_pin(&pin).unwrap_or_else(|| {
                let listed = held.and_then(|held| held.get(&pin.cid));
                listed.unwrap_or_else(|| {
                    if state.ops.has_finished(&pin.cid) {
                        TrackerStatus::PINNED
                    } else {
                        TrackerStatus::UNEXPECTEDLY_UNPINNED
                    }
                })
            });
            if !status.matches(filter) {
                continue;
            }
            items.push(Ok(match status {
                TrackerStatus::UNEXPECTEDLY_UNPINNED => me.about_lost(pin),
                status => me.about_pin(pin, status),
            }));
        }
        items
    }
}
