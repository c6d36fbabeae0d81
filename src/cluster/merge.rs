//! Rows of many members, gathered into one answer for each CID (spec: core 14.2).
//!
//! An answer leaves as soon as every member that is still telling has told of its CID: members list their pins in one
//! order as a rule, so few answers are unfinished at a time. A member that fails has an error in every answer that
//! leaves without a row of its own.

use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll};

use cluster_compat::types::{Cid, GlobalPinInfo, PeerId, PinInfo, PinInfoShort};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tracing::error;

/// Why a member tells no more.
#[derive(Debug)]
pub(super) enum Ended {
    /// It does not let us ask: it has no rows, and that is no failure.
    Refused,
    /// It failed.
    Failed(String),
}

/// What a member tells.
pub(super) type Told = BoxStream<'static, Result<PinInfo, Ended>>;

/// Unfinished answers above which only members are listened to that owe a row to the oldest.
const MAX_UNFINISHED: usize = 65_536;

/// Rows taken from one member before the others have their turn.
const ROWS_PER_TURN: usize = 64;

/// Rows after which a member is telling for ever, unless we have as many ourselves: original peers queue a million.
const MAX_ROWS: usize = if cfg!(test) { 1024 } else { 1 << 24 };

/// Members whose rows can be told apart while they come; with more, answers leave when all have told everything.
const MAX_EARLY: usize = 128;

/// Gathers the rows of `members`. What the rows of `own` say of a pin counts more than what others say. `row_of`
/// describes a member that failed.
pub(super) fn merged(
    own: PeerId,
    members: Vec<(PeerId, Told)>,
    row_of: impl Fn(&PeerId, String) -> PinInfoShort + Send + 'static,
) -> BoxStream<'static, GlobalPinInfo> {
    if members.len() == 1 {
        // alone there is nobody to wait for; one that fails has nobody to be an error beside
        let told =
            members.into_iter().map(|(_, told)| told).next().unwrap_or_else(|| stream::empty().boxed());
        let rows = told.scan((), |(), row| std::future::ready(row.ok()));
        return rows.map(PinInfo::into_global).boxed();
    }
    let is_early = members.len() <= MAX_EARLY;
    let merge = Merge {
        own,
        active: if is_early { members.iter().enumerate().fold(0, |bits, (at, _)| bits | 1 << at) } else { 0 },
        n_active: members.len(),
        n_own_rows: 0,
        is_early,
        members: members
            .into_iter()
            .map(|(peer, told)| Member { peer, told: Some(told), n_rows: 0 })
            .collect(),
        failed: Vec::new(),
        unfinished: HashMap::new(),
        oldest: VecDeque::new(),
        finished: VecDeque::new(),
        row_of,
    };
    stream::unfold(merge, |mut merge| async move { Some((merge.next().await?, merge)) }).boxed()
}

struct Member {
    peer: PeerId,
    /// `None` when there is nothing more.
    told: Option<Told>,
    n_rows: usize,
}

struct Merge<F> {
    own: PeerId,
    members: Vec<Member>,
    /// One bit for each member that still tells.
    active: u128,
    n_active: usize,
    n_own_rows: usize,
    is_early: bool,
    failed: Vec<(usize, PeerId, String)>,
    unfinished: HashMap<Cid, Answer>,
    /// CIDs by the age of their answers; some have left meanwhile.
    oldest: VecDeque<Cid>,
    finished: VecDeque<GlobalPinInfo>,
    row_of: F,
}

#[derive(Default)]
struct Answer {
    info: GlobalPinInfo,
    /// One bit for each member that has told.
    told: u128,
    has_own: bool,
}

impl<F: Fn(&PeerId, String) -> PinInfoShort> Merge<F> {
    async fn next(&mut self) -> Option<GlobalPinInfo> {
        loop {
            if let Some(info) = self.finished.pop_front() {
                return Some(info);
            }
            if self.n_active == 0 {
                return None;
            }
            std::future::poll_fn(|cx| self.listen(cx)).await;
        }
    }

    /// Takes in what is at hand; ready when there was something.
    fn listen(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let owing = if self.unfinished.len() > MAX_UNFINISHED { self.owing() } else { u128::MAX };
        let mut progress = Poll::Pending;
        for at in 0..self.members.len() {
            if owing >> (at % MAX_EARLY) & 1 == 0 {
                continue;
            }
            for _ in 0..ROWS_PER_TURN {
                let Some(told) = &mut self.members[at].told else { break };
                match told.poll_next_unpin(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Some(Ok(row))) => self.on_row(at, row),
                    Poll::Ready(Some(Err(ended))) => self.on_end(at, Some(ended)),
                    Poll::Ready(None) => self.on_end(at, None),
                }
                progress = Poll::Ready(());
            }
        }
        progress
    }

    /// The members that have yet to tell of the oldest unfinished CID.
    fn owing(&mut self) -> u128 {
        while let Some(cid) = self.oldest.front() {
            if let Some(answer) = self.unfinished.get(cid) {
                let owing = self.active & !answer.told;
                return if self.is_early { owing } else { u128::MAX };
            }
            self.oldest.pop_front();
        }
        u128::MAX
    }

    fn on_row(&mut self, at: usize, row: PinInfo) {
        self.members[at].n_rows += 1;
        if self.members[at].peer == self.own {
            self.n_own_rows += 1;
        }
        let max = MAX_ROWS.max(self.n_own_rows.saturating_mul(2));
        if self.members[at].n_rows > max {
            let error = format!("a list of more than {max} rows");
            error!(target: "cluster", "{}: error in broadcast response from {}: {error}", self.own, self.members[at].peer);
            return self.on_end(at, Some(Ended::Failed(error)));
        }
        let cid = row.cid;
        let answer = self.unfinished.entry(cid).or_insert_with(|| {
            self.oldest.push_back(cid);
            Answer::default()
        });
        if self.is_early {
            answer.told |= 1 << at;
        }
        if answer.has_own {
            answer.info.add_view(&row.peer, row.short);
        } else {
            answer.has_own = row.peer == self.own;
            answer.info.add(row);
        }
        if self.is_early && answer.told & self.active == self.active {
            self.finish(&cid);
        }
    }

    fn on_end(&mut self, at: usize, ended: Option<Ended>) {
        self.members[at].told = None;
        self.n_active -= 1;
        if self.is_early {
            self.active &= !(1 << at);
        }
        if let Some(Ended::Failed(error)) = ended {
            self.failed.push((at, self.members[at].peer, error));
        }
        if !self.is_early && self.n_active > 0 {
            return;
        }
        let whole = self.unfinished.iter().filter(|(_, answer)| answer.told & self.active == self.active);
        let whole: Vec<Cid> = whole.map(|(cid, _)| *cid).collect();
        for cid in whole {
            self.finish(&cid);
        }
    }

    fn finish(&mut self, cid: &Cid) {
        let Some(Answer { mut info, told, .. }) = self.unfinished.remove(cid) else { return };
        if self.oldest.front() == Some(cid) {
            self.oldest.pop_front();
        }
        for (at, peer, error) in &self.failed {
            let has_told = if self.is_early {
                told >> at & 1 == 1
            } else {
                info.peer_map.contains_key(&peer.to_string())
            };
            if !has_told {
                info.add_view(peer, (self.row_of)(peer, error.clone()));
            }
        }
        self.finished.push_back(info);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cluster_compat::go::time::Time;
    use cluster_compat::types::{TrackerStatus, parse_cid, parse_peer_id};
    use futures::channel::mpsc;
    use futures::{FutureExt as _, Stream};

    use super::*;

    const CIDS: [&str; 3] = [
        "QmP63DkAFEnDYNjDYBpyNDfttu1fvUw99x1brscPzpqmmq",
        "bafkreiardpf2hbld7fyvfdcq2gqfdgg4jffzwwaur5ht3uubb57ueqra4m",
        "bafkqab3uoj2xg5dfmq",
    ];

    fn peer(n: usize) -> PeerId {
        parse_peer_id(
            [
                "12D3KooWGHTKzeT4KaLGLrbKKyT8zKrBPXAUBRzCAN6ZMDMo4M6M",
                "12D3KooWKuJ8LPTyHbyX4nt4C7uWmUobzFsiceTVoFw7HpmoNakM",
                "12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt",
            ][n],
        )
        .unwrap()
    }

    fn short(status: TrackerStatus, error: String) -> PinInfoShort {
        PinInfoShort {
            peername: String::new(),
            ipfs_peer_id: None,
            ipfs_peer_addresses: vec![],
            status,
            timestamp: Time::ZERO,
            error,
            attempt_count: 0,
            priority_pin: false,
        }
    }

    fn row(who: usize, cid: usize, name: &str) -> Result<PinInfo, Ended> {
        Ok(PinInfo {
            cid: parse_cid(CIDS[cid]).unwrap(),
            name: name.into(),
            peer: peer(who),
            allocations: None,
            origins: None,
            created: Time::ZERO,
            metadata: None,
            short: short(TrackerStatus::PINNED, String::new()),
        })
    }

    fn merge(members: Vec<Told>) -> impl Stream<Item = GlobalPinInfo> {
        let members = members.into_iter().enumerate().map(|(n, told)| (peer(n), told)).collect();
        merged(peer(0), members, |_, error| short(TrackerStatus::CLUSTER_ERROR, error))
    }

    /// Each answer as `name:` and a letter for each peer: `.` no row, `p` pinned, `e` an error.
    fn shown(info: &GlobalPinInfo) -> String {
        let rows = (0..3).map(|n| match info.peer_map.get(&peer(n).to_string()) {
            None => '.',
            Some(short) if short.status == TrackerStatus::PINNED => 'p',
            Some(_) => 'e',
        });
        format!("{}:{}", info.name, rows.collect::<String>())
    }

    async fn all(members: Vec<Told>) -> Vec<String> {
        let mut answers: Vec<String> = merge(members).map(|info| shown(&info)).collect().await;
        answers.sort();
        answers
    }

    fn told(rows: Vec<Result<PinInfo, Ended>>) -> Told {
        stream::iter(rows).boxed()
    }

    #[tokio::test]
    async fn rows_are_joined_by_cid_and_ours_says_what_the_pin_is() {
        let answers = all(vec![
            told(vec![row(0, 0, "ours"), row(0, 1, "one")]),
            told(vec![row(1, 1, "one"), row(1, 0, "theirs")]),
            told(vec![row(2, 2, "two")]),
        ]);
        assert_eq!(answers.await, ["one:pp.", "ours:pp.", "two:..p"]);
    }

    #[tokio::test]
    async fn a_member_that_fails_is_an_error_in_each_answer_and_one_that_refuses_has_no_row() {
        let answers = all(vec![
            told(vec![row(0, 0, "zero"), row(0, 1, "one")]),
            told(vec![Err(Ended::Failed("gone".into()))]),
            told(vec![Err(Ended::Refused)]),
        ]);
        assert_eq!(answers.await, ["one:pe.", "zero:pe."]);
        assert!(all(vec![told(vec![Err(Ended::Failed("gone".into()))]), told(vec![])]).await.is_empty());
    }

    #[tokio::test]
    async fn a_member_that_tells_for_ever_is_an_error() {
        let endless = stream::repeat_with(|| row(1, 1, "one")).boxed();
        let answers = all(vec![told(vec![row(0, 0, "zero")]), endless]).await;
        assert_eq!(answers[answers.len() - 1], "zero:pe.");
        assert!(answers.len() <= MAX_ROWS + 1);
    }

    #[tokio::test]
    async fn an_answer_leaves_when_all_who_tell_have_told() {
        let (mut slow, rows) = mpsc::channel(8);
        let mut answers =
            Box::pin(merge(vec![told(vec![row(0, 0, "zero"), row(0, 1, "one")]), rows.boxed()]));
        assert!(answers.next().now_or_never().is_none());
        slow.try_send(row(1, 0, "zero")).unwrap();
        let first = tokio::time::timeout(Duration::from_secs(20), answers.next()).await.unwrap().unwrap();
        assert_eq!(shown(&first), "zero:pp.");
        assert!(answers.next().now_or_never().is_none());
        slow.try_send(Err(Ended::Failed("broken".into()))).unwrap();
        let rest: Vec<String> = answers.map(|info| shown(&info)).collect().await;
        assert_eq!(rest, ["one:pe."]);
    }
}
