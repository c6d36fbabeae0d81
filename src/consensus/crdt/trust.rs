//! Whose writes count.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use cluster_compat::types::PeerId;

/// The trusted peers: everyone, or this peer and those named. Changes last until the process ends.
pub(super) struct Trust {
    me: PeerId,
    trusts_all: bool,
    /// Taken for a look-up or a change; no await inside.
    peers: RwLock<HashSet<PeerId>>,
}

impl Trust {
    pub(super) fn new(me: PeerId, trusts_all: bool, peers: impl IntoIterator<Item = PeerId>) -> Self {
        Self { me, trusts_all, peers: RwLock::new(peers.into_iter().collect()) }
    }

    pub(super) fn is_trusted(&self, peer: &PeerId) -> bool {
        self.trusts_all
            || *peer == self.me
            || self.peers.read().unwrap_or_else(PoisonError::into_inner).contains(peer)
    }

    pub(super) fn add(&self, peer: PeerId) {
        self.peers.write().unwrap_or_else(PoisonError::into_inner).insert(peer);
    }

    pub(super) fn remove(&self, peer: &PeerId) {
        self.peers.write().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }
}
