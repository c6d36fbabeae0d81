//! Announced heads on their way to the worker.
//!
//! Whoever hears of heads never waits, and nothing is dropped: what the worker has not taken yet is one set, in the
//! order of arrival, however often each head was announced.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cluster_compat::types::{Cid, PeerId};
use tokio::sync::Notify;

/// Heads that wait for the worker. Past that new ones have to be announced again; a worker takes all at once, so
/// this is reached only where thousands of peers write at the same time or somebody makes heads up.
const MAX_WAITING: usize = 16 * 1024;

/// Peers remembered for one head.
const MAX_HOLDERS: usize = 4;

/// A head somebody told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announced {
    pub(super) head: Cid,
    /// Peers that may have it: who announced it, who passed that on.
    pub(super) holders: Vec<PeerId>,
}

/// The heads that wait.
#[derive(Default)]
pub(super) struct Inbox {
    /// Taken for a moment by the reader of the gossip and by the worker; no await inside.
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Default)]
struct Waiting {
    order: VecDeque<Cid>,
    holders: HashMap<Cid, Vec<PeerId>>,
}

impl Inbox {
    /// Adds heads. Says how many there was no room for.
    pub(super) fn put(&self, heads: &[Cid], holders: &[PeerId]) -> usize {
        let mut waiting = self.lock();
        let mut n_dropped = 0;
        for head in heads {
            if !waiting.holders.contains_key(head) {
                if waiting.order.len() >= MAX_WAITING {
                    n_dropped += 1;
                    continue;
                }
                waiting.order.push_back(*head);
            }
            let known = waiting.holders.entry(*head).or_default();
            for peer in holders {
                if known.len() < MAX_HOLDERS && !known.contains(peer) {
                    known.push(*peer);
                }
            }
        }
        drop(waiting);
        self.wake.notify_one();
        n_dropped
    }

    /// Takes all that waits.
    pub(super) fn take(&self) -> Vec<Announced> {
        let mut waiting = self.lock();
        let mut holders = std::mem::take(&mut waiting.holders);
        let order = std::mem::take(&mut waiting.order);
        order
            .into_iter()
            .map(|head| Announced { head, holders: holders.remove(&head).unwrap_or_default() })
            .collect()
    }

    /// Resolves when something was put since the last time.
    pub(super) async fn filled(&self) {
        self.wake.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::crdt_pb::node_cid;

    #[test]
    fn heads_announced_often_are_taken_once_in_their_order() {
        let inbox = Inbox::default();
        let heads: Vec<Cid> = (0..3u8).map(|n| node_cid(&[n])).collect();
        let peers: Vec<PeerId> = (0..2).map(|_| PeerId::random()).collect();
        inbox.put(&heads[..2], &peers[..1]);
        inbox.put(&heads[1..], &peers);
        let taken = inbox.take();
        assert_eq!(taken.iter().map(|announced| announced.head).collect::<Vec<_>>(), heads);
        assert_eq!((&taken[0].holders[..], &taken[1].holders[..]), (&peers[..1], &peers[..]));
        assert!(inbox.take().is_empty());
    }

    #[tokio::test]
    async fn what_was_put_before_anyone_waited_is_told() {
        let inbox = Inbox::default();
        inbox.put(&[node_cid(b"a")], &[]);
        inbox.filled().await;
        assert_eq!(inbox.take().len(), 1);
    }

    #[test]
    fn made_up_heads_do_not_fill_the_memory() {
        let inbox = Inbox::default();
        let heads: Vec<Cid> = (0..=MAX_WAITING).map(|n| node_cid(&n.to_be_bytes())).collect();
        assert_eq!((inbox.put(&heads, &[]), inbox.take().len()), (1, MAX_WAITING));
    }
}
