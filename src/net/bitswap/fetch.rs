//! Whom to ask for the blocks we want (spec: wire 6.2, 6.3).
//!
//! Pure: the time is an argument, what is to be said comes out as [`Effect`]s in the order they shall happen.
//!
//! A want asks one peer first: a likely one, else the last that gave us a block. It becomes wide, asking everybody,
//! when that peer has not got the block or lets us wait. Of those that say they have it one after the other is asked
//! for it. The question is repeated as long as the block is wanted: a peer may have lost it, or have the block by now.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use cluster_compat::types::{Cid, PeerId};

use crate::wire::bitswap_pb::Want;

/// Questions that one peer has not answered with a block; originals remember as many.
pub(super) const MAX_ASKS_PER_PEER: usize = 1024;

/// How long the first peer has the question for itself; a few round trips across an ocean.
const HEAD_START: Duration = Duration::from_millis(400);

/// Silence after which a peer that was asked for a block counts as one without it.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// The same when another peer says that it has the block; also the pause between two looks at a want.
const PATIENCE: Duration = Duration::from_secs(1);

/// Pause between two rounds of the same question, which costs each peer one line.
const REPEAT_EVERY: Duration = Duration::from_secs(15);

/// Likely peers of one want; more are as good as any others.
const MAX_LIKELY: usize = 16;

/// Wants that are remembered after they ended, 16 bytes each; far more than a peer can be behind.
const MAX_ENDED: usize = 1 << 16;

/// What has to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// Tell a peer what we want.
    Ask { peer: PeerId, cid: Cid, want: Want, priority: i32 },
    /// Tell a peer that we want it no longer.
    Cancel { peer: PeerId, cid: Cid },
    /// The peer has answered: it need not be told, and it is not to be asked when the list is sent anew.
    Forget { peer: PeerId, cid: Cid },
    /// No peer is left that may have it.
    Missing { cid: Cid },
}

/// The wants of this peer.
#[derive(Debug, Default)]
pub(super) struct Wants {
    wants: HashMap<Cid, Wanted>,
    peers: HashMap<PeerId, Peer>,
    timers: BTreeSet<(Instant, Cid)>,
    n_wants: u64,
    /// The peer that sent the last block.
    giver: Option<PeerId>,
    ended: Ended,
}

/// Wants that are over, by the hash of their CIDs: their blocks may still come.
#[derive(Debug, Default)]
struct Ended {
    hasher: RandomState,
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Ended {
    fn add(&mut self, cid: &Cid) {
        let hash = self.hasher.hash_one(cid);
        if !self.known.insert(hash) {
            return;
        }
        self.order.push_back(hash);
        if self.order.len() > MAX_ENDED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

#[derive(Debug)]
struct Wanted {
    likely: Vec<PeerId>,
    /// Older wants have lower ones.
    number: u64,
    asks: HashMap<PeerId, Ask>,
    is_wide: bool,
    /// That nobody has it was said.
    is_missing: bool,
    look_at: Instant,
    repeat_at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Ask {
    want: Want,
    state: AskState,
    at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AskState {
    /// No answer yet.
    Open,
    /// No answer in time; it may still come.
    Late,
    /// It has the block.
    Has,
    /// It has not; the number is its place in [`Peer::idle`].
    HasNot(u64),
}

#[derive(Debug, Default)]
struct Peer {
    asks: HashSet<Cid>,
    /// Questions it has answered in the negative, oldest first: they make room for others.
    idle: BTreeMap<u64, Cid>,
    /// What it is asked when there is room.
    backlog: BTreeMap<u64, Cid>,
    n_idle: u64,
    /// It let the last question pass: others come first.
    is_silent: bool,
}

impl Wants {
    /// When [`Wants::look`] is due.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// A block is wanted.
    pub(super) fn wanted(&mut self, cid: Cid, likely: &[PeerId], now: Instant, out: &mut Vec<Effect>) {
        if let Some(wanted) = self.wants.get_mut(&cid) {
            for peer in likely {
                if wanted.likely.len() < MAX_LIKELY && !wanted.likely.contains(peer) {
                    wanted.likely.push(*peer);
                }
            }
            return;
        }
        let wanted = Wanted {
            likely: likely.iter().take(MAX_LIKELY).copied().collect(),
            number: self.n_wants,
            asks: HashMap::new(),
            is_wide: false,
            is_missing: false,
            look_at: now + HEAD_START,
            repeat_at: now + REPEAT_EVERY,
        };
        self.n_wants += 1;
        self.timers.insert((wanted.look_at, cid));
        self.wants.insert(cid, wanted);
        self.begin(&cid, now, out);
    }

    /// A block is not wanted any more.
    pub(super) fn given_up(&mut self, cid: &Cid, now: Instant, out: &mut Vec<Effect>) {
        self.end(cid, None, now, out);
    }

    /// A block came. Whether it was wanted.
    pub(super) fn received(&mut self, peer: PeerId, cid: &Cid, now: Instant, out: &mut Vec<Effect>) -> bool {
        if !self.wants.contains_key(cid) {
            return false;
        }
        self.giver = Some(peer);
        if let Some(known) = self.peers.get_mut(&peer) {
            known.is_silent = false;
        }
        self.end(cid, Some(peer), now, out);
        true
    }

    /// A peer tells whether it has a block.
    pub(super) fn told(&mut self, peer: PeerId, cid: &Cid, has: bool, now: Instant, out: &mut Vec<Effect>) {
        let Some(wanted) = self.wants.get_mut(cid) else { return };
        let Some(ask) = wanted.asks.get_mut(&peer) else { return };
        let Some(known) = self.peers.get_mut(&peer) else { return };
        known.is_silent = false;
        if let AskState::HasNot(number) = ask.state {
            known.idle.remove(&number);
        }
        if has {
            ask.state = AskState::Has;
        } else {
            ask.state = AskState::HasNot(known.n_idle);
            known.idle.insert(known.n_idle, *cid);
            known.n_idle += 1;
        }
        self.go_on(cid, now, out);
        if !has {
            self.advance(peer, now, out);
            self.check_missing(cid, out);
        }
    }

    /// Whether a block that comes now was asked for at some time.
    pub(super) fn was_wanted(&self, cid: &Cid) -> bool {
        self.wants.contains_key(cid) || self.ended.known.contains(&self.ended.hasher.hash_one(cid))
    }

    /// Says so when all peers have denied it, once per round of questions.
    fn check_missing(&mut self, cid: &Cid, out: &mut Vec<Effect>) {
        let Some(wanted) = self.wants.get_mut(cid) else { return };
        let is_denied = |ask: &Ask| matches!(ask.state, AskState::HasNot(_));
        let is_missing = wanted.asks.len() >= self.peers.len() && wanted.asks.values().all(is_denied);
        if is_missing && !wanted.is_missing {
            wanted.is_missing = true;
            out.push(Effect::Missing { cid: *cid });
        }
    }

    /// A peer can be asked from now on.
    pub(super) fn peer_up(&mut self, peer: PeerId, now: Instant, out: &mut Vec<Effect>) {
        if self.peers.contains_key(&peer) {
            return;
        }
        self.peers.insert(peer, Peer::default());
        let mut waiting: Vec<(u64, Cid)> = self
            .wants
            .iter()
            .filter(|(_, wanted)| wanted.is_wide || wanted.asks.is_empty())
            .map(|(cid, wanted)| (wanted.number, *cid))
            .collect();
        waiting.sort_unstable_by_key(|(number, _)| *number);
        for (_, cid) in waiting {
            self.ask(peer, &cid, now, out);
        }
    }

    /// A peer is gone, and with it what it was asked.
    pub(super) fn peer_down(&mut self, peer: &PeerId, now: Instant, out: &mut Vec<Effect>) {
        let Some(gone) = self.peers.remove(peer) else { return };
        if self.giver == Some(*peer) {
            self.giver = None;
        }
        for cid in gone.asks {
            if let Some(wanted) = self.wants.get_mut(&cid) {
                wanted.asks.remove(peer);
                self.go_on(&cid, now, out);
            }
        }
    }

    /// Goes on with the wants whose time has come.
    pub(super) fn look(&mut self, now: Instant, out: &mut Vec<Effect>) {
        while let Some((at, cid)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            let Some(wanted) = self.wants.get_mut(&cid) else { continue };
            wanted.look_at = now + PATIENCE;
            self.timers.insert((wanted.look_at, cid));
            for (peer, ask) in &mut wanted.asks {
                let is_unanswered = match ask.state {
                    AskState::Open => true,
                    // it said so, was asked for the block, and sent none
                    AskState::Has => ask.want == Want::Block,
                    AskState::Late | AskState::HasNot(_) => false,
                };
                if is_unanswered && now >= ask.at + ASK_TIMEOUT {
                    ask.state = AskState::Late;
                    if let Some(known) = self.peers.get_mut(peer) {
                        known.is_silent = true;
                    }
                }
            }
            if !wanted.is_wide {
                self.widen(&cid, now, out);
            } else if now >= wanted.repeat_at {
                wanted.repeat_at = now + REPEAT_EVERY;
                wanted.is_missing = false;
                self.repeat(&cid, now, out);
            } else {
                self.go_on(&cid, now, out);
            }
        }
    }

    /// Asks the first peer, or everybody if none stands out.
    fn begin(&mut self, cid: &Cid, now: Instant, out: &mut Vec<Effect>) {
        let Some(wanted) = self.wants.get(cid) else { return };
        let answers = |peer: &&PeerId| self.peers.get(*peer).is_some_and(|known| !known.is_silent);
        match wanted.likely.iter().chain(&self.giver).find(answers).copied() {
            Some(peer) => self.ask_for(peer, cid, Want::Block, now, out),
            None => self.widen(cid, now, out),
        }
    }

    /// Asks everybody who was not asked yet.
    fn widen(&mut self, cid: &Cid, now: Instant, out: &mut Vec<Effect>) {
        let Some(wanted) = self.wants.get_mut(cid) else { return };
        // without anybody to ask, the first that comes will be
        wanted.is_wide = !self.peers.is_empty();
        let mut others: Vec<PeerId> =
            self.peers.keys().filter(|peer| !wanted.asks.contains_key(*peer)).copied().collect();
        others.sort_unstable();
        for peer in others {
            self.ask(peer, cid, now, out);
        }
        self.check_missing(cid, out);
    }

    /// Asks everybody, whatever they said.
    fn repeat(&mut self, cid: &Cid, now: Instant, out: &mut Vec<Effect>) {
        let mut peers: Vec<PeerId> = self.peers.keys().copied().collect();
        peers.sort_unstable();
        for peer in peers {
            let want = self.wants.get(cid).and_then(|wanted| wanted.asks.get(&peer)).map(|ask| ask.want);
            match want {
                Some(want) => self.ask_for(peer, cid, want, now, out),
                None => self.ask(peer, cid, now, out),
            }
        }
    }

    /// Asks a peer for as much as its likelihood is worth.
    fn ask(&mut self, peer: PeerId, cid: &Cid, now: Instant, out: &mut Vec<Effect>) {
        let Some(wanted) = self.wants.get(cid) else { return };
        let is_first = wanted.asks.is_empty() && !wanted.is_wide;
        let want = if is_first || wanted.likely.contains(&peer) { Want::Block } else { Want::Have };
        self.ask_for(peer, cid, want, now, out);
    }

    fn ask_for(&mut self, peer: PeerId, cid: &Cid, want: Want, now: Instant, out: &mut Vec<Effect>) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let Some(number) = self.wants.get(cid).map(|wanted| wanted.number) else { return };
        if !known.asks.contains(cid) && known.asks.len() >= MAX_ASKS_PER_PEER {
            let Some((_, other)) = known.idle.pop_first() else {
                known.backlog.insert(number, *cid);
                return;
            };
            // the repetition brings it back
            known.asks.remove(&other);
            if let Some(wanted) = self.wants.get_mut(&other) {
                wanted.asks.remove(&peer);
            }
            out.push(Effect::Cancel { peer, cid: other });
        }
        known.asks.insert(*cid);
        let Some(wanted) = self.wants.get_mut(cid) else { return };
        let ask = Ask { want, state: AskState::Open, at: now };
        if let Some(Ask { state: AskState::HasNot(place), .. }) = wanted.asks.insert(peer, ask) {
            known.idle.remove(&place);
        }
        // an original's numbers: counted down from the highest
        let priority = i32::MAX - i32::try_from(number % (1 << 30)).unwrap_or(0);
        out.push(Effect::Ask { peer, cid: *cid, want, priority });
    }

    /// After an answer, or when there is none: asks the next peer that has the block, or everybody.
    fn go_on(&mut self, cid: &Cid, now: Instant, out: &mut Vec<Effect>) {
        let Some(wanted) = self.wants.get(cid) else { return };
        let has = |ask: &Ask| ask.want == Want::Have && ask.state == AskState::Has;
        let next = wanted.asks.iter().filter(|(_, ask)| has(ask)).min_by_key(|(peer, ask)| (ask.at, **peer));
        let patience = if next.is_some() { PATIENCE } else { ASK_TIMEOUT };
        let is_running = |ask: &Ask| {
            let may_answer = matches!(ask.state, AskState::Open | AskState::Has);
            ask.want == Want::Block && may_answer && now < ask.at + patience
        };
        if wanted.asks.values().any(is_running) {
            return;
        }
        if let Some((peer, _)) = next {
            self.ask_for(*peer, cid, Want::Block, now, out);
        } else if !wanted.is_wide {
            self.widen(cid, now, out);
        }
    }

    /// Asks a peer what it could not be asked before.
    fn advance(&mut self, peer: PeerId, now: Instant, out: &mut Vec<Effect>) {
        while let Some(known) = self.peers.get_mut(&peer)
            && (known.asks.len() < MAX_ASKS_PER_PEER || !known.idle.is_empty())
            && let Some((_, cid)) = known.backlog.pop_first()
        {
            self.ask(peer, &cid, now, out);
        }
    }

    fn end(&mut self, cid: &Cid, giver: Option<PeerId>, now: Instant, out: &mut Vec<Effect>) {
        let Some(wanted) = self.wants.remove(cid) else { return };
        self.ended.add(cid);
        self.timers.remove(&(wanted.look_at, *cid));
        let mut asked: Vec<(PeerId, Ask)> = wanted.asks.into_iter().collect();
        asked.sort_unstable_by_key(|(peer, _)| *peer);
        for (peer, ask) in &asked {
            let Some(known) = self.peers.get_mut(peer) else { continue };
            known.asks.remove(cid);
            if let AskState::HasNot(place) = ask.state {
                known.idle.remove(&place);
            }
            out.push(if giver == Some(*peer) {
                Effect::Forget { peer: *peer, cid: *cid }
            } else {
                Effect::Cancel { peer: *peer, cid: *cid }
            });
        }
        for known in self.peers.values_mut() {
            known.backlog.remove(&wanted.number);
        }
        for (peer, _) in asked {
            self.advance(peer, now, out);
        }
    }
}

#[cfg(test)]
mod tests;
