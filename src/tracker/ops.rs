//! The table of operations: what this peer is doing or failed to do, one entry per CID at most.
//!
//! Pure: the time is an argument, nothing waits here and nothing talks to the daemon. A method changes the table
//! and says what its caller has to do: abort a request ([`Change::aborted`]), run a job ([`Ops::take`]).
//!
//! ```text
//!   pin ───► priority │ normal ─► pin workers ─┐
//!   unpin ─► unpin ─────────────► one worker ──┼─► done: the entry goes · failed: it stays, with its error
//!   remote ► remote ────────────► some workers ┘
//! ```
//!
//! Invariants: an operation that waits is in exactly one line; one that runs or failed is in none; a finished one
//! is in no table, so what is not here is told by the pinset and the daemon alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use cluster_compat::go::time::{Duration, Time};
use cluster_compat::types::{Cid, Pin, TrackerStatus};

use super::queue::Queue;
use super::{Counts, QUEUE_FULL};

/// Most pins remembered as finished while lists are being made; beyond that a list may show one of them as it was.
const N_FINISHED_MAX: usize = 100_000;

/// Names one operation among all that ever were; later ones are larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct OpId(pub(super) u64);

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Pins on the daemon.
    Pin,
    /// Unpins, because the CID left the pinset.
    Unpin,
    /// Unpins, because the CID is for other peers.
    Remote,
}

/// How far it got. There is no "done": a finished operation is not in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waits for a worker.
    Queued,
    /// A worker has it. Remote ones are called so from the start.
    InProgress,
    /// It failed, and waits for a recover.
    Failed,
}

/// Where jobs wait for workers of one sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Pins; urgent ones first.
    Pins,
    /// Unpins.
    Unpins,
    /// Unpins of what is for others.
    Remotes,
}

/// One operation.
#[derive(Debug)]
pub(super) struct Operation {
    /// What it does.
    pub(super) kind: Kind,
    /// How far it got.
    pub(super) phase: Phase,
    /// The pin it is about; for an unpin a bare one.
    pub(super) pin: Arc<Pin>,
    /// How often a worker took it or its predecessors of the same kind.
    pub(super) n_attempts: u64,
    /// Whether it goes before others.
    pub(super) is_priority: bool,
    /// Why it failed; empty otherwise.
    pub(super) error: String,
    /// When its phase changed.
    pub(super) changed_at: Time,
}

impl Operation {
    /// What users read (spec: core 12.1).
    pub(super) fn status(&self) -> TrackerStatus {
        match (self.kind, self.phase) {
            (Kind::Pin, Phase::Queued) => TrackerStatus::PIN_QUEUED,
            (Kind::Pin, Phase::InProgress) => TrackerStatus::PINNING,
            (Kind::Pin, Phase::Failed) => TrackerStatus::PIN_ERROR,
            (Kind::Unpin, Phase::Queued) => TrackerStatus::UNPIN_QUEUED,
            (Kind::Unpin, Phase::InProgress) => TrackerStatus::UNPINNING,
            (Kind::Unpin, Phase::Failed) => TrackerStatus::UNPIN_ERROR,
            (Kind::Remote, _) => TrackerStatus::REMOTE,
        }
    }
}

impl Counts {
    /// Where operations of a kind and phase are counted, if they are.
    fn of(&mut self, kind: Kind, phase: Phase) -> Option<&mut u64> {
        match (kind, phase) {
            (Kind::Pin, Phase::Queued) => Some(&mut self.queued),
            (Kind::Pin, Phase::InProgress) => Some(&mut self.pinning),
            (Kind::Pin, Phase::Failed) => Some(&mut self.errors),
            (Kind::Unpin | Kind::Remote, _) => None,
        }
    }

    fn moved(&mut self, kind: Kind, from: Phase, to: Phase) {
        if let Some(n) = self.of(kind, from) {
            *n -= 1;
        }
        if let Some(n) = self.of(kind, to) {
            *n += 1;
        }
    }
}

/// What a new wish did to the table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The operation that was running for the same CID: its request must be aborted.
    pub(super) aborted: Option<OpId>,
    /// What became of the wish.
    pub(super) outcome: Outcome,
}

/// What became of a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It waits in this lane.
    Queued(Lane),
    /// The same is under way already; its pin was replaced.
    Absorbed,
    /// The line is full: the operation stands as failed.
    Refused,
}

/// Work for a worker.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// Which operation.
    pub(super) id: OpId,
    /// What it does.
    pub(super) kind: Kind,
    /// The pin it is about.
    pub(super) pin: Arc<Pin>,
}

/// Limits of the table, from the configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Operations that may wait, in each line.
    pub(super) n_queued_max: usize,
    /// Age up to which a pin is urgent.
    pub(super) priority_max_age: Duration,
    /// Attempts up to which a pin is urgent.
    pub(super) n_priority_retries_max: u64,
}

/// The table.
#[derive(Debug)]
pub(super) struct Ops {
    /// By age, which makes lists of it resumable.
    by_id: BTreeMap<OpId, Operation>,
    by_cid: HashMap<Cid, OpId>,
    next_id: u64,
    priority: Queue,
    normal: Queue,
    unpins: Queue,
    remotes: Queue,
    limits: Limits,
    /// Lists under way, and the pins that finished since the first of them began: their daemon may have told its
    /// pins before.
    n_lists: usize,
    finished: HashSet<Cid>,
    /// Pins of the table by phase, so that nobody has to go through it.
    counts: Counts,
}

impl Ops {
    /// An empty table.
    pub(super) fn new(limits: Limits) -> Self {
        let queue = || Queue::new(limits.n_queued_max);
        Self {
            by_id: BTreeMap::new(),
            by_cid: HashMap::new(),
            next_id: 0,
            priority: queue(),
            normal: queue(),
            unpins: queue(),
            remotes: queue(),
            limits,
            n_lists: 0,
            finished: HashSet::new(),
            counts: Counts::default(),
        }
    }

    /// Pins of the table by phase.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Wishes that the daemon pins, unpins, or unpins because others pin.
    pub(super) fn wish(&mut self, kind: Kind, pin: Arc<Pin>, now: Time) -> Change {
        let cid = pin.cid;
        let existing = self.by_cid.get(&cid).and_then(|id| Some((*id, self.by_id.get_mut(id)?)));
        let mut n_attempts = 0;
        let mut aborted = None;
        if let Some((id, operation)) = existing {
            if operation.kind == kind && operation.phase != Phase::Failed {
                operation.pin = pin;
                return Change { aborted: None, outcome: Outcome::Absorbed };
            }
            if operation.kind == kind {
                n_attempts = operation.n_attempts;
            }
            aborted = (operation.phase == Phase::InProgress).then_some(id);
            self.remove(id);
        }

        let id = OpId(self.next_id);
        self.next_id += 1;
        let is_priority = kind == Kind::Pin
            && now < pin.timestamp.add(self.limits.priority_max_age)
            && n_attempts <= self.limits.n_priority_retries_max;
        let (lane, queue) = match kind {
            Kind::Pin if is_priority => (Lane::Pins, &mut self.priority),
            Kind::Pin => (Lane::Pins, &mut self.normal),
            Kind::Unpin => (Lane::Unpins, &mut self.unpins),
            Kind::Remote => (Lane::Remotes, &mut self.remotes),
        };
        let (outcome, phase, error) = match queue.push(id) {
            Ok(()) if kind == Kind::Remote => (Outcome::Queued(lane), Phase::InProgress, String::new()),
            Ok(()) => (Outcome::Queued(lane), Phase::Queued, String::new()),
            Err(_) => (Outcome::Refused, Phase::Failed, QUEUE_FULL.to_owned()),
        };
        if let Some(n) = self.counts.of(kind, phase) {
            *n += 1;
        }
        self.by_cid.insert(cid, id);
        self.by_id
            .insert(id, Operation { kind, phase, pin, n_attempts, is_priority, error, changed_at: now });
        Change { aborted, outcome }
    }

    /// The next job of a lane; its operation is in progress from now on.
    pub(super) fn take(&mut self, lane: Lane, now: Time) -> Option<Job> {
        let id = match lane {
            Lane::Pins => self.priority.pop().or_else(|| self.normal.pop()),
            Lane::Unpins => self.unpins.pop(),
            Lane::Remotes => self.remotes.pop(),
        }?;
        let operation = self.by_id.get_mut(&id)?;
        if operation.kind != Kind::Remote {
            self.counts.moved(operation.kind, operation.phase, Phase::InProgress);
            operation.phase = Phase::InProgress;
            operation.n_attempts += 1;
            operation.changed_at = now;
        }
        Some(Job { id, kind: operation.kind, pin: Arc::clone(&operation.pin) })
    }

    /// Whether any job waits in a lane.
    pub(super) fn has_jobs(&self, lane: Lane) -> bool {
        let n_waiting = match lane {
            Lane::Pins => self.priority.len() + self.normal.len(),
            Lane::Unpins => self.unpins.len(),
            Lane::Remotes => self.remotes.len(),
        };
        n_waiting > 0
    }

    /// A worker is done with a job. One that was replaced meanwhile is forgotten.
    pub(super) fn finish(&mut self, id: OpId, failure: Option<String>, now: Time) {
        let Some(operation) = self.by_id.get_mut(&id) else { return };
        if let Some(error) = failure {
            self.counts.moved(operation.kind, operation.phase, Phase::Failed);
            operation.phase = Phase::Failed;
            operation.error = error;
            operation.changed_at = now;
            return;
        }
        if operation.kind == Kind::Pin && self.n_lists > 0 && self.finished.len() < N_FINISHED_MAX {
            self.finished.insert(operation.pin.cid);
        }
        self.remove(id);
    }

    /// The operation of a CID.
    pub(super) fn get(&self, cid: &Cid) -> Option<&Operation> {
        self.by_id.get(self.by_cid.get(cid)?)
    }

    /// Up to `limit` operations that match `filter`, oldest first, begun after `after`; and where to go on, unless
    /// there are no more. At most `16 * limit` are looked at, so that no call takes long.
    pub(super) fn page<T>(
        &self,
        after: Option<OpId>,
        limit: usize,
        filter: TrackerStatus,
        mut map: impl FnMut(&Operation) -> T,
    ) -> (Vec<T>, Option<OpId>) {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut items = Vec::new();
        for (n_seen, (id, operation)) in self.by_id.range((start, Bound::Unbounded)).enumerate() {
            if operation.status().matches(filter) {
                items.push(map(operation));
            }
            if items.len() >= limit || n_seen + 1 >= limit * 16 {
                return (items, Some(*id));
            }
        }
        (items, None)
    }

    /// Pins that wait, in both lines.
    pub(super) fn n_queued_pins(&self) -> usize {
        self.priority.len() + self.normal.len()
    }

    /// Whether nothing is under way or failed.
    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// A list begins: pins that finish from now on are remembered.
    pub(super) fn list_begins(&mut self) {
        self.n_lists += 1;
    }

    /// A list ends.
    pub(super) fn list_ends(&mut self) {
        self.n_lists -= 1;
        if self.n_lists == 0 {
            self.finished = HashSet::new();
        }
    }

    /// Whether a pin finished since the oldest list under way began.
    pub(super) fn has_finished(&self, cid: &Cid) -> bool {
        self.finished.contains(cid)
    }

    /// Takes an operation out of the table and of its line.
    fn remove(&mut self, id: OpId) {
        let Some(operation) = self.by_id.remove(&id) else { return };
        self.by_cid.remove(&operation.pin.cid);
        if let Some(n) = self.counts.of(operation.kind, operation.phase) {
            *n -= 1;
        }
        match operation.kind {
            Kind::Pin if operation.is_priority => self.priority.remove(id),
            Kind::Pin => self.normal.remove(id),
            Kind::Unpin => self.unpins.remove(id),
            Kind::Remote => self.remotes.remove(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_unix(1_700_000_000, 0);

    fn ops(n_queued_max: usize) -> Ops {
        Ops::new(Limits {
            n_queued_max,
            priority_max_age: Duration::from_secs(86_400),
            n_priority_retries_max: 5,
        })
    }

    fn cid(n: u8) -> Cid {
        Cid::new_v1(0x55, multihash::Multihash::wrap(0x12, &[n; 32]).unwrap())
    }

    fn pin(n: u8) -> Arc<Pin> {
        Arc::new(Pin { timestamp: NOW, ..Pin::new(cid(n)) })
    }

    fn later(secs: i64) -> Time {
        NOW.add(Duration::from_secs(secs))
    }

    fn status(ops: &Ops, n: u8) -> TrackerStatus {
        ops.get(&cid(n)).map_or(TrackerStatus::UNDEFINED, Operation::status)
    }

    fn queued(lane: Lane) -> Change {
        Change { aborted: None, outcome: Outcome::Queued(lane) }
    }

    #[test]
    fn operations_are_counted_by_phase() {
        let mut ops = ops(2);
        let counts = |queued, pinning, errors| Counts { queued, pinning, errors };
        for n in 0..3 {
            ops.wish(Kind::Pin, pin(n), NOW);
        }
        assert_eq!(ops.counts(), counts(2, 0, 1), "the third finds the line full");
        let job = ops.take(Lane::Pins, NOW).unwrap();
        ops.wish(Kind::Unpin, pin(9), NOW);
        assert_eq!(ops.counts(), counts(1, 1, 1));
        ops.finish(job.id, Some("no".into()), NOW);
        assert_eq!(ops.counts(), counts(1, 0, 2));
        for n in 0..3 {
            ops.wish(Kind::Unpin, pin(n), NOW);
        }
        assert_eq!(ops.counts(), counts(0, 0, 0));
    }

    #[test]
    fn a_pin_waits_runs_and_leaves() {
        let mut ops = ops(10);
        assert_eq!(ops.wish(Kind::Pin, pin(1), NOW), queued(Lane::Pins));
        assert_eq!((status(&ops, 1), ops.n_queued_pins()), (TrackerStatus::PIN_QUEUED, 1));
        let job = ops.take(Lane::Pins, later(1)).unwrap();
        let operation = ops.get(&cid(1)).unwrap();
        assert_eq!((operation.status(), operation.n_attempts), (TrackerStatus::PINNING, 1));
        assert_eq!(operation.changed_at, later(1));
        assert_eq!(ops.n_queued_pins(), 0);
        ops.finish(job.id, None, later(2));
        assert!(ops.is_empty() && ops.take(Lane::Pins, NOW).is_none());
    }

    #[test]
    fn the_same_pin_twice_is_one_operation_with_the_latest_options() {
        let mut ops = ops(10);
        ops.wish(Kind::Pin, pin(1), NOW);
        let mut renamed = Pin { timestamp: NOW, ..Pin::new(cid(1)) };
        renamed.options.name = "second".into();
        let change = ops.wish(Kind::Pin, Arc::new(renamed), NOW);
        assert_eq!(change, Change { aborted: None, outcome: Outcome::Absorbed });
        assert_eq!(ops.n_queued_pins(), 1);
        assert_eq!(ops.take(Lane::Pins, NOW).unwrap().pin.options.name, "second");
        assert_eq!(ops.wish(Kind::Pin, pin(1), NOW).outcome, Outcome::Absorbed);
        assert!(ops.take(Lane::Pins, NOW).is_none());
    }

    #[test]
    fn an_unpin_aborts_a_running_pin_and_replaces_a_waiting_one() {
        let mut ops = ops(10);
        ops.wish(Kind::Pin, pin(1), NOW);
        let running = ops.take(Lane::Pins, NOW).unwrap();
        let change = ops.wish(Kind::Unpin, pin(1), NOW);
        assert_eq!(change, Change { aborted: Some(running.id), outcome: Outcome::Queued(Lane::Unpins) });
        ops.finish(running.id, Some("context canceled".into()), NOW);
        assert_eq!(status(&ops, 1), TrackerStatus::UNPIN_QUEUED);

        ops.wish(Kind::Pin, pin(2), NOW);
        assert_eq!(ops.wish(Kind::Unpin, pin(2), NOW), queued(Lane::Unpins));
        assert_eq!(ops.n_queued_pins(), 0);
    }

    #[test]
    fn attempts_carry_over_and_end_the_priority_after_six() {
        let mut ops = ops(10);
        for attempt in 1..=8 {
            ops.wish(Kind::Pin, pin(1), NOW);
            assert_eq!(ops.get(&cid(1)).unwrap().is_priority, attempt <= 6, "attempt {attempt}");
            let job = ops.take(Lane::Pins, NOW).unwrap();
            ops.finish(job.id, Some("no".into()), NOW);
            let operation = ops.get(&cid(1)).unwrap();
            assert_eq!((operation.n_attempts, operation.status()), (attempt, TrackerStatus::PIN_ERROR));
            assert_eq!(operation.error, "no");
        }
        ops.wish(Kind::Unpin, pin(1), NOW);
        assert_eq!(ops.get(&cid(1)).unwrap().n_attempts, 0);
    }

    #[test]
    fn new_pins_overtake_old_ones() {
        let mut ops = ops(10);
        let old = Pin { timestamp: later(-86_400), ..Pin::new(cid(1)) };
        ops.wish(Kind::Pin, Arc::new(old), NOW);
        ops.wish(Kind::Pin, pin(2), NOW);
        ops.wish(Kind::Pin, pin(3), NOW);
        let order: Vec<Cid> =
            std::iter::from_fn(|| ops.take(Lane::Pins, NOW)).map(|job| job.pin.cid).collect();
        assert_eq!(order, [cid(2), cid(3), cid(1)]);
    }

    #[test]
    fn a_full_queue_fails_the_operation_and_a_cancelled_one_gives_its_place_back() {
        let mut ops = ops(1);
        ops.wish(Kind::Pin, pin(1), NOW);
        ops.take(Lane::Pins, NOW).unwrap();
        ops.wish(Kind::Pin, pin(2), NOW);
        assert_eq!(ops.wish(Kind::Pin, pin(3), NOW).outcome, Outcome::Refused);
        let refused = ops.get(&cid(3)).unwrap();
        assert_eq!(
            (refused.status(), refused.n_attempts, refused.is_priority),
            (TrackerStatus::PIN_ERROR, 0, true)
        );
        assert_eq!(refused.error, "pin/unpin operation queue is full. Try increasing max_pin_queue_size");
        ops.wish(Kind::Unpin, pin(2), NOW);
        assert_eq!(ops.wish(Kind::Pin, pin(3), NOW), queued(Lane::Pins));
    }

    #[test]
    fn a_failed_remote_stays_remote_with_its_error() {
        let mut ops = ops(10);
        assert_eq!(ops.wish(Kind::Remote, pin(1), NOW), queued(Lane::Remotes));
        assert_eq!(status(&ops, 1), TrackerStatus::REMOTE);
        assert_eq!(ops.wish(Kind::Remote, pin(1), NOW).outcome, Outcome::Absorbed);
        let job = ops.take(Lane::Remotes, NOW).unwrap();
        ops.finish(job.id, Some("disallowed".into()), NOW);
        let operation = ops.get(&cid(1)).unwrap();
        assert_eq!((operation.status(), operation.error.as_str()), (TrackerStatus::REMOTE, "disallowed"));
        assert_eq!(operation.n_attempts, 0);
    }

    #[test]
    fn pages_go_through_all_operations_once() {
        let mut ops = ops(200);
        for n in 0..100 {
            ops.wish(if n % 10 == 0 { Kind::Unpin } else { Kind::Pin }, pin(n), NOW);
        }
        let (mut after, mut found) = (None, Vec::new());
        loop {
            let (page, next) = ops.page(after, 3, TrackerStatus::UNPIN_QUEUED, |operation| operation.pin.cid);
            assert!(page.len() <= 3);
            found.extend(page);
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, (0..100).step_by(10).map(cid).collect::<Vec<_>>());
    }

    #[test]
    fn pins_that_finish_during_a_list_are_remembered_until_it_ends() {
        let mut ops = ops(10);
        ops.list_begins();
        ops.wish(Kind::Pin, pin(1), NOW);
        let job = ops.take(Lane::Pins, NOW).unwrap();
        ops.finish(job.id, None, NOW);
        assert!(ops.has_finished(&cid(1)));
        ops.list_ends();
        assert!(!ops.has_finished(&cid(1)));
    }
}
