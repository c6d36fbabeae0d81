//! Telling the others about our heads.
//!
//! A reference peer drops announcements when its buffer of 32 is full, so writes are announced coalesced: the newest
//! heads, at most twenty times a second. The last ones are told again after a second and at growing pauses, until the
//! regular rebroadcast takes over, in case they were the ones that got lost. Whoever begins to listen is told at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cluster_compat::types::Cid;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::inbox::Inbox;
use super::unheard::Unheard;
use crate::net::Message;
use crate::wire::crdt_pb;

/// Shortest pause between announcements: the reference's peers keep up with twenty a second.
const MIN_PAUSE: Duration = Duration::from_millis(50);

/// When the newest heads are told a second time.
const FIRST_REPEAT: Duration = Duration::from_secs(1);

/// How much longer each further pause is.
const REPEAT_GROWTH: u32 = 4;

/// Most announced heads that are remembered between rebroadcasts; past that more is announced than need be.
const MAX_SEEN: usize = 10_000;

/// Hands a payload to the CRDT topic; never waits.
pub(super) type Publish = Arc<dyn Fn(Vec<u8>) + Send + Sync>;

/// The announcer of one peer.
pub(super) struct Announcer {
    pub(super) publish: Publish,
    /// The heads, as last committed.
    pub(super) heads: watch::Receiver<Vec<Cid>>,
    /// Nodes made here: what is new to the others.
    pub(super) n_made: watch::Receiver<usize>,
    /// What trusted peers say on the topic.
    pub(super) gossip: mpsc::Receiver<Message>,
    /// Where what they say goes.
    pub(super) inbox: Arc<Inbox>,
    pub(super) unheard: Arc<Unheard>,
    /// Told when somebody new listens: that peer may have what others did not.
    pub(super) repair: Arc<Notify>,
    /// How many others listen to the topic.
    pub(super) listeners: watch::Receiver<usize>,
    pub(super) rebroadcast_interval: Duration,
}

impl Announcer {
    /// Announces until stopped; what was written last is still told then.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut plan = Plan::new(self.rebroadcast_interval, Instant::now(), rand::random());
        let mut n_listeners = 0;
        self.n_made.mark_unchanged();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = self.n_made.changed() => match changed {
                    Ok(()) => plan.announce_soon(Instant::now()),
                    Err(_) => break,
                },
                () = tokio::time::sleep_until(plan.next()) => {
                    let heads = self.heads.borrow().clone();
                    self.announce(&plan.on_time(Instant::now(), heads, rand::random()));
                }
                Some(message) = self.gossip.recv() => self.on_gossip(&message, &mut plan),
                Ok(()) = self.listeners.changed() => {
                    let n_before = std::mem::replace(&mut n_listeners, *self.listeners.borrow_and_update());
                    // gossip sent before a peer listened is lost to it
                    if n_listeners > n_before {
                        plan.announce_soon(Instant::now());
                        self.repair.notify_one();
                    }
                }
            }
        }
        if plan.changed_at.is_some() || self.n_made.has_changed().unwrap_or(true) {
            self.announce(&self.heads.borrow());
        }
    }

    fn on_gossip(&self, message: &Message, plan: &mut Plan) {
        match crdt_pb::decode_heads(&message.data) {
            Ok(announced) => {
                plan.on_announced(&announced, &self.heads.borrow());
                self.unheard.on_heard(&announced);
                let n_dropped = self.inbox.put(&announced, &[message.source, message.from]);
                if n_dropped > 0 {
                    warn!(
                        target: "crdt",
                        "{} announced {n_dropped} heads more than can wait; they are left out until they are \
                         announced again",
                        message.source
                    );
                }
            }
            Err(cause) => {
                debug!(target: "crdt", source = %message.source, "unreadable announcement: {cause}")
            }
        }
    }

    fn announce(&self, heads: &[Cid]) {
        if !heads.is_empty() {
            (self.publish)(crdt_pb::encode_heads(heads));
        }
    }
}

/// When things are due. Pure: time and chance are arguments.
struct Plan {
    rebroadcast_interval: Duration,
    /// Announce the heads, which have changed.
    changed_at: Option<Instant>,
    /// Tell the heads again, and how long to wait after that.
    repeat: Option<(Instant, Duration)>,
    rebroadcast_at: Instant,
    /// When the heads were last announced for having changed.
    last_at: Option<Instant>,
    /// Heads announced by anyone since the last rebroadcast, this peer included.
    seen: HashSet<Cid>,
}

impl Plan {
    fn new(rebroadcast_interval: Duration, now: Instant, chance: f64) -> Self {
        let rebroadcast_at = now + scattered(rebroadcast_interval, chance);
        let seen = HashSet::new();
        Self { rebroadcast_interval, changed_at: None, repeat: None, rebroadcast_at, last_at: None, seen }
    }

    fn next(&self) -> Instant {
        let repeat_at = self.repeat.map(|(at, _)| at);
        [self.changed_at, repeat_at].into_iter().flatten().fold(self.rebroadcast_at, Instant::min)
    }

    fn announce_soon(&mut self, now: Instant) {
        self.changed_at.get_or_insert(self.last_at.map_or(now, |at| now.max(at + MIN_PAUSE)));
    }

    /// What is to be announced now.
    fn on_time(&mut self, now: Instant, heads: Vec<Cid>, chance: f64) -> Vec<Cid> {
        let mut due = Vec::new();
        if self.changed_at.is_some_and(|at| at <= now) {
            self.changed_at = None;
            self.repeat = Some((now + FIRST_REPEAT, FIRST_REPEAT * REPEAT_GROWTH));
            self.last_at = Some(now);
            due = heads;
        } else if let Some((at, pause)) = self.repeat
            && at <= now
        {
            self.repeat = (pause < self.rebroadcast_interval).then_some((now + pause, pause * REPEAT_GROWTH));
            due = heads;
        } else if self.rebroadcast_at <= now {
            self.rebroadcast_at = now + scattered(self.rebroadcast_interval, chance);
            due = heads.into_iter().filter(|head| !self.seen.contains(head)).collect();
            self.seen.clear();
        }
        self.see(&due);
        due
    }

    /// Heads that others announce need not be told again.
    fn on_announced(&mut self, announced: &[Cid], heads: &[Cid]) {
        if heads.iter().all(|head| announced.contains(head)) {
            self.repeat = None;
        }
        self.see(announced);
    }

    fn see(&mut self, heads: &[Cid]) {
        if self.seen.len() + heads.len() <= MAX_SEEN {
            self.seen.extend(heads);
        }
    }
}

/// The interval, 30 % shorter to 30 % longer by chance (0 to 1).
fn scattered(interval: Duration, chance: f64) -> Duration {
    interval.mul_f64(0.7 + 0.6 * chance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::crdt_pb::node_cid;

    const REBROADCAST: Duration = Duration::from_secs(10);

    fn head(n: u64) -> Cid {
        node_cid(&n.to_be_bytes())
    }

    /// A plan and its clock.
    struct Lab {
        plan: Plan,
        started: Instant,
        heads: Vec<Cid>,
    }

    fn lab(heads: Vec<Cid>) -> Lab {
        let started = Instant::now();
        Lab { plan: Plan::new(REBROADCAST, started, 0.5), started, heads }
    }

    impl Lab {
        /// Lets time pass until something is announced: when, and what.
        fn next(&mut self) -> (Duration, Vec<Cid>) {
            loop {
                let now = self.plan.next();
                let due = self.plan.on_time(now, self.heads.clone(), 0.5);
                if !due.is_empty() {
                    return (now - self.started, due);
                }
            }
        }
    }

    #[test]
    fn many_writes_are_coalesced_and_the_last_heads_told_again() {
        let mut lab = lab(vec![]);
        let mut announced = Vec::new();
        for ms in 0..1000 {
            let now = lab.started + Duration::from_millis(ms);
            lab.heads = vec![head(ms)];
            lab.plan.announce_soon(now);
            while lab.plan.next() <= now {
                announced.push(lab.plan.on_time(now, lab.heads.clone(), 0.5));
            }
        }
        assert_eq!(announced.len(), 20);
        let (last, heads) = lab.next();
        assert_eq!((last, heads), (Duration::from_secs(1), vec![head(999)]));
        let repeats: Vec<_> = (0..3).map(|_| lab.next().0.as_secs()).collect();
        assert_eq!(repeats, [2, 6, 20], "after 1 s, after 4 s, then the second rebroadcast");
    }

    #[test]
    fn an_unchanged_head_is_announced_at_every_second_tick() {
        let mut lab = lab(vec![head(1)]);
        let ticks: Vec<_> = (0..3).map(|_| lab.next().0.as_secs()).collect();
        assert_eq!(ticks, [10, 30, 50]);
    }

    #[test]
    fn heads_that_others_announce_are_not_told_again() {
        let mut lab = lab(vec![head(1)]);
        lab.plan.announce_soon(lab.started);
        assert_eq!(lab.next().0, Duration::ZERO);
        lab.plan.on_announced(&[head(1), head(2)], &[head(1)]);
        assert_eq!(lab.next().0.as_secs(), 20);
    }

    #[test]
    fn intervals_are_scattered_by_a_third() {
        for (chance, ms) in [(0.0, 7000), (0.5, 10_000), (1.0, 13_000)] {
            assert_eq!(scattered(REBROADCAST, chance).as_millis(), ms);
        }
    }

    #[tokio::test]
    async fn the_first_listener_and_a_stop_bring_the_heads_out() {
        let (heads, heads_rx) = watch::channel(vec![head(1)]);
        let (n_made, n_made_rx) = watch::channel(0);
        let (_gossip, gossip_rx) = mpsc::channel(8);
        let (listeners, listeners_rx) = watch::channel(0);
        let (sink, mut sent) = mpsc::channel(8);
        let announcer = Announcer {
            publish: Arc::new(move |data| sink.try_send(crdt_pb::decode_heads(&data).unwrap()).unwrap()),
            heads: heads_rx,
            n_made: n_made_rx,
            gossip: gossip_rx,
            inbox: Arc::default(),
            unheard: Arc::default(),
            repair: Arc::default(),
            listeners: listeners_rx,
            rebroadcast_interval: Duration::from_secs(3600),
        };
        let tasks = crate::task::Tasks::new();
        tasks.spawn("announcer", announcer.run(tasks.token()));
        listeners.send_replace(1);
        assert_eq!(sent.recv().await.unwrap(), [head(1)]);
        heads.send_replace(vec![head(2)]);
        n_made.send_replace(1);
        tasks.stop();
        assert_eq!(sent.recv().await.unwrap(), [head(2)]);
    }
}
