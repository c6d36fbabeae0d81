//! Heads made here that nobody has taken in yet: a peer that leaves waits for them to be fetched.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_compat::types::Cid;
use tokio::sync::watch;
use tracing::warn;

/// Longest wait of a leaving peer. Others fetch an announced head within milliseconds, if at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// The heads made here since the start that nobody else is known to have.
pub(super) struct Unheard {
    heads: watch::Sender<BTreeSet<Cid>>,
}

impl Default for Unheard {
    fn default() -> Self {
        Self { heads: watch::Sender::new(BTreeSet::new()) }
    }
}

impl Unheard {
    /// These nodes were made or merged, and `heads` are the heads now. A head of before is among its descendants'
    /// ancestors: whoever fetches those fetches it.
    pub(super) fn on_heads(&self, made: &[Cid], heads: &[Cid]) {
        self.heads.send_if_modified(|unheard| {
            let n_before = unheard.len();
            unheard.retain(|head| heads.contains(head));
            let n_left = unheard.len();
            unheard.extend(made.iter().filter(|cid| heads.contains(cid)));
            n_left != n_before || unheard.len() != n_left
        });
    }

    /// Somebody has these: they fetched or announced them.
    pub(super) fn on_heard(&self, cids: &[Cid]) {
        if self.heads.borrow().is_empty() {
            return;
        }
        self.heads.send_if_modified(|unheard| {
            let n_before = unheard.len();
            unheard.retain(|head| !cids.contains(head));
            unheard.len() != n_before
        });
    }

    /// Waits until somebody has them all, if there is somebody who listens.
    pub(super) async fn wait(&self, mut listeners: watch::Receiver<usize>) {
        let mut heads = self.heads.subscribe();
        let heard = async {
            tokio::select! {
                _ = heads.wait_for(BTreeSet::is_empty) => {}
                _ = listeners.wait_for(|n_listeners| *n_listeners == 0) => {}
            }
        };
        if tokio::time::timeout(PATIENCE, heard).await.is_err() {
            let n_heads = self.heads.borrow().len();
            warn!(
                target: "crdt",
                "{n_heads} heads written here were fetched by nobody within {PATIENCE:?}; they are announced again \
                 at the next start"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::crdt_pb::node_cid;

    #[tokio::test]
    async fn a_leaver_waits_for_its_own_newest_heads_only() {
        let [old, new, other] = [1u8, 2, 3].map(|n| node_cid(&[n]));
        let unheard = Unheard::default();
        unheard.on_heads(&[old], &[old]);
        unheard.on_heads(&[new], &[new, other]);
        assert_eq!(*unheard.heads.borrow(), BTreeSet::from([new]));
        let (_listeners, one) = watch::channel(1);
        let wait = unheard.wait(one);
        tokio::pin!(wait);
        assert!(futures::poll!(&mut wait).is_pending());
        unheard.on_heard(&[other]);
        assert!(futures::poll!(&mut wait).is_pending());
        unheard.on_heard(&[new, old]);
        wait.await;
    }

    #[tokio::test]
    async fn nobody_waits_where_nobody_listens() {
        let unheard = Unheard::default();
        let head = node_cid(b"a");
        unheard.on_heads(&[head], &[head]);
        unheard.wait(watch::channel(0).1).await;
    }
}
