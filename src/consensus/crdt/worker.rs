//! The thread that owns the writes: takes waiting commands as one group, one transaction, one fsync.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cluster_compat::types::Cid;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::super::{Error, PinsetEvent};
use super::core::{self, Change, Event, State};
use super::fetch::Arrival;
use super::inbox::Inbox;
use super::replicate::{News, Replication, STORE_PAUSE};
use super::unheard::Unheard;
use crate::observe::metrics;
use crate::store::{Kv, kv};
use crate::wire::{key, pin_pb};

/// Most commands of one transaction: what waits while the one before is written.
const GROUP_COMMANDS: usize = 1024;

/// The reference's answer to an item that comes too late (consensus/crdt/consensus.go).
pub(super) const SHUTTING_DOWN: &str = "shutting down. Pin could not be batched";

/// When a batch becomes a node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batching {
    /// Items.
    pub(super) max_size: usize,
    /// Since its first item.
    pub(super) max_age: Duration,
}

/// What the worker is asked to do.
pub(super) enum Cmd {
    /// Write a key, or delete it.
    Write { key: String, value: Option<Vec<u8>>, respond_to: oneshot::Sender<Result<(), Error>> },
    /// The batch that was to be committed at this time is old enough.
    BatchAge(Instant),
    /// Commit the batch and end.
    Stop,
}

/// Hears of nodes that are stored, durably.
pub(super) type OnStored = Arc<dyn Fn(&[Cid]) + Send + Sync>;

/// What a worker is made of.
pub(super) struct WorkerArgs {
    pub(super) kv: Arc<dyn Kv>,
    pub(super) commands: mpsc::Receiver<Cmd>,
    pub(super) events: mpsc::Sender<PinsetEvent>,
    pub(super) batching: Option<Batching>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) arrivals: mpsc::Receiver<Arrival>,
    /// Try again what could not be had.
    pub(super) repair: Arc<Notify>,
    pub(super) replication: Replication,
    pub(super) unheard: Arc<Unheard>,
    /// Somebody may wait for a node.
    pub(super) on_stored: OnStored,
}

pub(super) struct Worker {
    pub(super) kv: Arc<dyn Kv>,
    pub(super) state: State,
    commands: mpsc::Receiver<Cmd>,
    inbox: Arc<Inbox>,
    arrivals: mpsc::Receiver<Arrival>,
    repair: Arc<Notify>,
    pub(super) replication: Replication,
    unheard: Arc<Unheard>,
    on_stored: OnStored,
    /// Where the store refused what others wrote: when to go on.
    paused_until: Option<Instant>,
    events: mpsc::Sender<PinsetEvent>,
    heads: watch::Sender<Vec<Cid>>,
    /// Nodes made here since the start: others are to hear of them.
    n_made: watch::Sender<usize>,
    batching: Option<Batching>,
    /// Items since the last commit for size or age.
    n_batched: usize,
    /// When the pending batch is due.
    due: watch::Sender<Option<Instant>>,
}

/// What a transaction has done, told when it is durable.
#[derive(Default)]
pub(super) struct Done {
    pub(super) changes: Vec<Change>,
    /// Nodes that are new here, made or merged.
    pub(super) stored: Vec<Cid>,
    /// Those of them that were made.
    pub(super) made: Vec<Cid>,
    /// Why batches were committed, and how many items they had.
    commits: Vec<(&'static str, usize)>,
}

impl Worker {
    pub(super) fn new(args: WorkerArgs) -> Result<Self, Error> {
        let WorkerArgs {
            kv,
            commands,
            events,
            batching,
            inbox,
            arrivals,
            repair,
            replication,
            unheard,
            on_stored,
        } = args;
        let state = kv::read(&*kv, State::load).map_err(from_core)?;
        let heads = watch::Sender::new(state.heads().list());
        replication.recent.add(&state.heads().list());
        let n_batched = state.n_pending();
        let worker = Self {
            kv,
            state,
            commands,
            inbox,
            arrivals,
            repair,
            replication,
            unheard,
            on_stored,
            paused_until: None,
            events,
            heads,
            n_made: watch::Sender::new(0),
            batching,
            n_batched,
            due: watch::Sender::new(None),
        };
        worker.set_due(false);
        worker.count(&Done::default());
        Ok(worker)
    }

    pub(super) fn heads(&self) -> watch::Receiver<Vec<Cid>> {
        self.heads.subscribe()
    }

    pub(super) fn n_made(&self) -> watch::Receiver<usize> {
        self.n_made.subscribe()
    }

    pub(super) fn due(&self) -> watch::Receiver<Option<Instant>> {
        self.due.subscribe()
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Works until told to stop, or until nobody is left to ask. Blocks its thread; waits on `runtime`.
    pub(super) fn run(mut self, runtime: &Handle) {
        if self.batching.is_none() && self.n_batched > 0 {
            // batching was switched off since: what it had acknowledged is written now
            if let Err(cause) = self.commit_batch("restart") {
                error!(target: "crdt", "error committing the batch of the last run: {cause}");
            }
        }
        loop {
            let (mut group, news) = runtime.block_on(self.wait());
            let is_closed = group.is_empty() && self.commands.is_closed() && self.commands.is_empty();
            let stops_at = group.iter().position(|command| matches!(command, Cmd::Stop));
            let late = stops_at.map(|at| group.split_off(at));
            if !group.is_empty() {
                self.on_group(group);
            }
            if late.is_some() || is_closed {
                self.on_stop(late.unwrap_or_default());
                return;
            }
            if (!news.is_empty() || self.has_more()) && !self.replicate(news) {
                self.paused_until = Some(Instant::now() + STORE_PAUSE);
            }
        }
    }

    fn has_more(&self) -> bool {
        self.state.has_more() && self.paused_until.is_none()
    }

    /// Waits until there is something to do: commands first, then all there is of the rest.
    async fn wait(&mut self) -> (Vec<Cmd>, News) {
        let (mut group, mut news) = (Vec::new(), News::default());
        let is_paused = self.paused_until.is_some();
        let has_more = self.has_more();
        let repair = Arc::clone(&self.repair);
        let inbox = Arc::clone(&self.inbox);
        tokio::select! {
            biased;
            _ = self.commands.recv_many(&mut group, GROUP_COMMANDS) => {}
            Some(arrival) = self.arrivals.recv(), if !is_paused => news.arrivals.push(arrival),
            () = inbox.filled(), if !is_paused => {}
            () = repair.notified(), if !is_paused => news.repair = true,
            () = tokio::time::sleep_until(self.paused_until.unwrap_or_else(Instant::now)), if is_paused => {
                self.paused_until = None;
            }
            () = std::future::ready(()), if has_more => {}
        }
        if !is_paused {
            news.announced = self.inbox.take();
            news.arrivals.extend(std::iter::from_fn(|| self.arrivals.try_recv().ok()));
        }
        (group, news)
    }

    fn on_stop(&mut self, late: Vec<Cmd>) {
        self.commands.close();
        let queued = std::iter::from_fn(|| self.commands.try_recv().ok()).collect::<Vec<_>>();
        for command in late.into_iter().chain(queued) {
            if let Cmd::Write { respond_to, .. } = command {
                let _ = respond_to.send(Err(Error::Message(SHUTTING_DOWN.into())));
            }
        }
        if self.batching.is_some()
            && let Err(cause) = self.commit_batch("shutdown")
        {
            error!(target: "crdt", "error committing batch during shutdown: {cause}");
        }
    }

    /// Writes a group in one transaction. If that fails, each alone: one item's trouble is not the others'.
    fn on_group(&mut self, group: Vec<Cmd>) {
        match self.write(&group) {
            Ok(done) => {
                self.tell(done);
                group.into_iter().for_each(|command| answer(command, Ok(())));
            }
            Err(_) if group.len() > 1 => group.into_iter().for_each(|command| self.on_group(vec![command])),
            Err(cause) => {
                error!(target: "crdt", "error writing to the pinset: {cause}");
                match (group.into_iter().next(), self.batching) {
                    // the batch is tried again, a whole age later
                    (Some(Cmd::BatchAge(_)), Some(batching)) => {
                        self.due.send_replace(Some(Instant::now() + batching.max_age));
                    }
                    (Some(command), _) => answer(command, Err(from_core(cause))),
                    (None, _) => {}
                }
            }
        }
    }

    fn write(&mut self, group: &[Cmd]) -> Result<Done, core::Error> {
        let (n_batched, due) = (self.n_batched, *self.due.borrow());
        let (state, batching, n_batched_now) = (&mut self.state, self.batching, &mut self.n_batched);
        let written = kv::write(&*self.kv, |transaction| {
            let mut done = Done::default();
            let mut handle = |event: Event<'_>, done: &mut Done| {
                let effects = state.handle(event, transaction.as_read())?;
                effects.apply(transaction)?;
                done.changes.extend(effects.changes);
                done.made.extend(effects.made);
                done.stored.extend(effects.made);
                Ok::<_, core::Error>(())
            };
            let mut common = HashSet::new();
            for command in group {
                match (command, batching) {
                    // a write that waited alone is a node of its own, as in the reference
                    (Cmd::Write { key, value: Some(value), .. }, None) if group.len() == 1 => {
                        handle(Event::Put { key, value }, &mut done)?;
                    }
                    (Cmd::Write { key, value: None, .. }, None) if group.len() == 1 => {
                        handle(Event::Delete { key }, &mut done)?;
                    }
                    (Cmd::Write { key, value, .. }, None) => {
                        // which of two writes of one key counts, replicas agree on only across nodes
                        if !common.insert(key.as_str()) {
                            handle(Event::Commit, &mut done)?;
                            common = HashSet::from([key.as_str()]);
                        }
                        handle(
                            Event::Queue { key, value: value.as_deref(), is_journalled: false },
                            &mut done,
                        )?;
                    }
                    (Cmd::Write { key, value, .. }, Some(batching)) => {
                        let value = value.as_deref();
                        handle(Event::Queue { key, value, is_journalled: true }, &mut done)?;
                        *n_batched_now += 1;
                        if *n_batched_now >= batching.max_size {
                            handle(Event::Commit, &mut done)?;
                            done.commits.push(("size", *n_batched_now));
                            *n_batched_now = 0;
                        }
                    }
                    (Cmd::BatchAge(at), _) if due == Some(*at) && *n_batched_now > 0 => {
                        handle(Event::Commit, &mut done)?;
                        done.commits.push(("max age", *n_batched_now));
                        *n_batched_now = 0;
                    }
                    (Cmd::BatchAge(_) | Cmd::Stop, _) => {}
                }
            }
            if !common.is_empty() {
                handle(Event::Commit, &mut done)?;
            }
            Ok::<_, core::Error>(done)
        });
        match written {
            Ok(done) => Ok(done),
            Err(cause) => {
                self.n_batched = n_batched;
                self.reload();
                Err(cause)
            }
        }
    }

    /// After a failed transaction the store, which it did not touch, is the truth.
    pub(super) fn reload(&mut self) {
        match kv::read(&*self.kv, State::load) {
            Ok(state) => self.state = state,
            Err(cause) => error!(target: "crdt", "error reading the state again: {cause}"),
        }
    }

    fn commit_batch(&mut self, why: &'static str) -> Result<(), Error> {
        let n_items = self.n_batched;
        let state = &mut self.state;
        let (changes, made) = kv::write(&*self.kv, |transaction| {
            let effects = state.handle(Event::Commit, transaction.as_read())?;
            effects.apply(transaction)?;
            Ok::<_, core::Error>((effects.changes, effects.made))
        })
        .map_err(from_core)?;
        self.n_batched = 0;
        let made: Vec<Cid> = made.into_iter().collect();
        self.tell(Done { changes, stored: made.clone(), made, commits: vec![(why, n_items)] });
        Ok(())
    }

    /// Tells what is now durable: the heads, then the changes in order.
    pub(super) fn tell(&mut self, done: Done) {
        for (why, n_items) in &done.commits {
            info!(target: "crdt", "batch commit ({why}): {n_items} items");
        }
        self.set_due(!done.commits.is_empty());
        self.count(&done);
        if !done.stored.is_empty() {
            let heads = self.state.heads().list();
            self.replication.recent.add(&heads);
            self.unheard.on_heads(&done.made, &heads);
            self.heads.send_if_modified(|told| {
                let is_new = *told != heads;
                *told = heads;
                is_new
            });
            (self.on_stored)(&done.stored);
        }
        if !done.made.is_empty() {
            self.n_made.send_modify(|n_made| *n_made += done.made.len());
        }
        for change in done.changes {
            if let Some(event) = to_event(change)
                && self.events.blocking_send(event).is_err()
            {
                return;
            }
        }
    }

    /// For whoever watches.
    fn count(&self, done: &Done) {
        let of = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        metrics::CRDT_NODES_MADE.add(done.made.len() as u64);
        metrics::CRDT_NODES_MERGED.add(done.stored.len().saturating_sub(done.made.len()) as u64);
        metrics::CRDT_BATCH_ITEMS.set(of(self.state.n_pending()));
        metrics::CRDT_UNFINISHED.set(of(self.state.n_unfinished()));
        metrics::CRDT_STALLED.set(of(self.state.n_stalled()));
        metrics::CRDT_HEADS.set(of(self.state.heads().heights().count()));
        metrics::CRDT_MAX_HEIGHT.set(i64::try_from(self.state.heads().max_height()).unwrap_or(i64::MAX));
    }

    /// The age of a batch counts from its first item.
    fn set_due(&self, is_new_batch: bool) {
        let Some(batching) = self.batching else { return };
        self.due.send_if_modified(|due| {
            let before = *due;
            if self.n_batched == 0 {
                *due = None;
            } else if is_new_batch || before.is_none() {
                *due = Some(Instant::now() + batching.max_age);
            }
            *due != before
        });
    }
}

fn answer(command: Cmd, answer: Result<(), Error>) {
    if let Cmd::Write { respond_to, .. } = command {
        // an asker who left is no error
        let _ = respond_to.send(answer);
    }
}

fn from_core(cause: core::Error) -> Error {
    match cause {
        core::Error::Store(cause) => Error::Store(cause),
        cause => Error::Message(cause.to_string()),
    }
}

/// What the tracker hears of a change; keys that are no CID and values that are no pin are logged and left out.
fn to_event(change: Change) -> Option<PinsetEvent> {
    let key = match &change {
        Change::Put { key, .. } | Change::Deleted { key } => key,
    };
    let Some(cid) = key::to_cid(key.as_bytes()) else {
        warn!(target: "crdt", "bad key (ignoring). key: {key} error: not the base32 of a CID");
        return None;
    };
    match change {
        Change::Put { value, .. } => match pin_pb::decode_as(cid, &value) {
            Ok(pin) => {
                info!(target: "crdt", "new pin added: {cid}");
                Some(PinsetEvent::Pinned(Box::new(pin)))
            }
            Err(cause) => {
                error!(target: "crdt", "error deserializing pin ({cid}): {cause}");
                None
            }
        },
        Change::Deleted { .. } => {
            info!(target: "crdt", "pin removed: {cid}");
            Some(PinsetEvent::Unpinned(cid))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::suite::{cid, pin};

    #[test]
    fn the_tracker_hears_of_the_cid_in_the_key() {
        let change = Change::Put { key: key::of_cid(&cid(1)), value: pin_pb::encode(&pin(2, "odd")) };
        assert!(matches!(to_event(change), Some(PinsetEvent::Pinned(pin)) if pin.cid == cid(1)));
    }

    #[test]
    fn rows_that_are_no_pins_are_no_events() {
        for (key, value) in [("/NOTACID".to_owned(), vec![]), (key::of_cid(&cid(1)), vec![0xff])] {
            assert!(to_event(Change::Put { key, value }).is_none());
        }
    }
}
