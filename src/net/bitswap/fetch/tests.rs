//! Whom wants are sent to, and what becomes of them.

use multihash_codetable::{Code, MultihashDigest as _};

use super::*;

fn cid(n: usize) -> Cid {
    Cid::new_v1(0x70, Code::Sha2_256.digest(&n.to_be_bytes()))
}

fn peers<const N: usize>() -> [PeerId; N] {
    let mut peers = [(); N].map(|()| PeerId::random());
    peers.sort_unstable();
    peers
}

/// The core, a clock, and whom it asked for what since the last look: `B` for the block, `H` for having it, `-`
/// for a CANCEL, `.` for an answer.
struct Play {
    wants: Wants,
    now: Instant,
    out: Vec<Effect>,
}

impl Play {
    fn new() -> Self {
        Self { wants: Wants::default(), now: Instant::now(), out: Vec::new() }
    }

    fn with(peers: &[PeerId]) -> Self {
        let mut play = Self::new();
        for peer in peers {
            play.wants.peer_up(*peer, play.now, &mut play.out);
        }
        play
    }

    fn wants(&mut self, cid: Cid, likely: &[PeerId]) -> &mut Self {
        self.wants.wanted(cid, likely, self.now, &mut self.out);
        self
    }

    fn told(&mut self, peer: PeerId, cid: Cid, has: bool) -> &mut Self {
        self.wants.told(peer, &cid, has, self.now, &mut self.out);
        self
    }

    fn received(&mut self, peer: PeerId, cid: Cid) -> bool {
        self.wants.received(peer, &cid, self.now, &mut self.out)
    }

    fn after(&mut self, pause: Duration) -> &mut Self {
        let until = self.now + pause;
        while let Some(at) = self.wants.next_look()
            && at <= until
        {
            self.now = at;
            self.wants.look(at, &mut self.out);
        }
        self.now = until;
        self
    }

    fn said(&mut self) -> Vec<(PeerId, char)> {
        let said = self.out.drain(..).filter_map(|effect| match effect {
            Effect::Ask { peer, want: Want::Block, .. } => Some((peer, 'B')),
            Effect::Ask { peer, want: Want::Have, .. } => Some((peer, 'H')),
            Effect::Cancel { peer, .. } => Some((peer, '-')),
            Effect::Forget { peer, .. } => Some((peer, '.')),
            Effect::Missing { .. } => None,
        });
        said.collect()
    }
}

#[test]
fn the_likely_peer_has_a_head_start_and_the_giver_is_likely() {
    let [a, b, c] = peers();
    let mut play = Play::with(&[a, b, c]);
    assert_eq!(play.wants(cid(1), &[b]).said(), [(b, 'B')]);
    assert_eq!(play.after(HEAD_START / 2).said(), []);
    assert_eq!(play.after(HEAD_START / 2).said(), [(a, 'H'), (c, 'H')]);
    assert!(play.received(b, cid(1)) && !play.received(b, cid(1)));
    assert_eq!(play.said(), [(a, '-'), (b, '.'), (c, '-')]);
    assert_eq!(play.wants(cid(2), &[]).said(), [(b, 'B')]);
    // it has not: everybody at once
    assert_eq!(play.told(b, cid(2), false).said(), [(a, 'H'), (c, 'H')]);
    assert_eq!(play.wants.next_look(), Some(play.now + HEAD_START));
    play.wants.given_up(&cid(2), play.now, &mut play.out);
    assert_eq!(play.said(), [(a, '-'), (b, '-'), (c, '-')]);
    assert_eq!(play.wants.next_look(), None);
    assert!(play.wants.peers.values().all(|peer| peer.asks.is_empty() && peer.idle.is_empty()));
}

#[test]
fn of_those_that_have_it_one_after_the_other_is_asked() {
    let [a, b, c] = peers();
    let mut play = Play::with(&[a, b, c]);
    assert_eq!(play.wants(cid(1), &[]).said(), [(a, 'H'), (b, 'H'), (c, 'H')]);
    assert_eq!(play.told(b, cid(1), true).said(), [(b, 'B')]);
    assert_eq!(play.told(c, cid(1), true).said(), []);
    // silent for a second, and there is another
    assert_eq!(play.after(PATIENCE).said(), []);
    assert_eq!(play.after(PATIENCE).said(), [(c, 'B')]);
    assert_eq!(play.told(c, cid(1), false).said(), []);
    assert_eq!(play.told(a, cid(1), true).said(), [(a, 'B')]);
    // the late answer counts
    assert!(play.received(b, cid(1)));
    assert_eq!(play.said(), [(a, '-'), (b, '.'), (c, '-')]);
}

#[test]
fn a_silent_peer_comes_last_until_it_answers() {
    let [a, b] = peers();
    let mut play = Play::with(&[a, b]);
    play.wants(cid(1), &[a]).after(Duration::from_secs(6)).said();
    assert!(play.received(b, cid(1)));
    play.said();
    assert_eq!(play.wants(cid(2), &[a]).said(), [(b, 'B')]);
    play.told(a, cid(2), true);
    assert_eq!(play.said(), [], "it was not asked");
    assert!(play.received(a, cid(2)));
    play.said();
    assert_eq!(play.wants(cid(3), &[a]).said(), [(a, 'B')]);
}

#[test]
fn the_question_is_repeated_and_newcomers_are_asked() {
    let [a, b, c] = peers();
    let mut play = Play::new();
    assert_eq!(play.wants(cid(1), &[c]).after(HEAD_START).said(), []);
    play.wants.peer_up(a, play.now, &mut play.out);
    assert_eq!(play.said(), [(a, 'B')]);
    play.told(a, cid(1), false);
    play.wants.peer_up(b, play.now, &mut play.out);
    play.wants.peer_up(c, play.now, &mut play.out);
    play.wants.peer_up(c, play.now, &mut play.out);
    assert_eq!(play.said(), [(b, 'H'), (c, 'B')]);
    play.told(b, cid(1), false).told(c, cid(1), false);
    assert_eq!(play.after(Duration::from_secs(10)).said(), []);
    assert_eq!(play.after(Duration::from_secs(6)).said(), [(a, 'B'), (b, 'H'), (c, 'B')]);
    play.wants.peer_down(&a, play.now, &mut play.out);
    assert_eq!(play.said(), []);
    assert_eq!(play.after(REPEAT_EVERY).said(), [(b, 'H'), (c, 'B')]);
    // one that leaves while it is asked alone
    let mut play = Play::with(&[a, b]);
    assert_eq!(play.wants(cid(1), &[a]).said(), [(a, 'B')]);
    play.wants.peer_down(&a, play.now, &mut play.out);
    assert_eq!(play.said(), [(b, 'H')]);
}

#[test]
fn a_peer_is_asked_for_no_more_than_it_remembers() {
    let [a] = peers();
    let mut play = Play::with(&[a]);
    for n in 0..MAX_ASKS_PER_PEER + 3 {
        play.wants(cid(n), &[a]);
    }
    assert_eq!(play.said().len(), MAX_ASKS_PER_PEER);
    // an answer makes room for the next in the line
    assert!(play.received(a, cid(5)));
    assert_eq!(play.said(), [(a, '.'), (a, 'B')]);
    // so does a block it has not got: that question is taken back
    assert_eq!(play.told(a, cid(6), false).said(), [(a, '-'), (a, 'B')]);
    play.told(a, cid(7), false);
    assert_eq!(play.said(), [(a, '-'), (a, 'B')]);
    assert_eq!(play.told(a, cid(8), false).said(), []);
    assert_eq!(play.wants(cid(9999), &[a]).said(), [(a, '-'), (a, 'B')]);
    assert_eq!(play.wants.peers[&a].asks.len(), MAX_ASKS_PER_PEER);
    assert!(play.wants.peers[&a].backlog.is_empty());
    // all of them are answered in the end
    for _ in 0..4 {
        play.after(REPEAT_EVERY);
    }
    for n in (0..MAX_ASKS_PER_PEER + 3).chain([9999]).filter(|n| *n != 5) {
        assert!(play.received(a, cid(n)), "{n}");
    }
    let peer = &play.wants.peers[&a];
    assert!(peer.asks.is_empty() && peer.idle.is_empty() && peer.backlog.is_empty());
    assert!(play.wants.timers.is_empty());
}

#[test]
fn that_nobody_has_a_block_is_said_once_per_round() {
    let [a, b] = peers();
    let missed = |play: &mut Play| {
        play.out.drain(..).filter(|effect| matches!(effect, Effect::Missing { .. })).count()
    };
    let mut alone = Play::new();
    alone.wants(cid(1), &[]);
    assert_eq!(missed(&mut alone), 1);
    let mut play = Play::with(&[a, b]);
    play.wants(cid(1), &[]).told(a, cid(1), false);
    assert_eq!(missed(&mut play), 0);
    play.told(b, cid(1), false).told(a, cid(1), false);
    assert_eq!(missed(&mut play), 1);
    assert!(play.wants.was_wanted(&cid(1)) && !play.wants.was_wanted(&cid(2)));
    play.after(REPEAT_EVERY + PATIENCE).told(a, cid(1), false).told(b, cid(1), true);
    assert_eq!(missed(&mut play), 0);
    play.told(b, cid(1), false);
    assert_eq!(missed(&mut play), 1);
    play.wants.given_up(&cid(1), play.now, &mut play.out);
    assert!(play.wants.was_wanted(&cid(1)));
}
