//! Whose writes count.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError, RwLock};

use cluster_compat::types::PeerId;
use tracing::warn;

/// The trusted peers: everyone, or this peer and those named. Changes last until the process ends.
pub(super) struct Trust {
    me: PeerId,
    trusts_all: bool,
    /// Taken for a look-up or a change; no await inside.
    peers: RwLock<HashSet<PeerId>>,
    /// Peers whose updates were refused and that were told of; taken for a look-up, no await inside.
    told: Mutex<HashSet<PeerId>>,
}

/// Untrusted peers that are told of; more are refused in silence.
const MAX_TOLD: usize = 1024;

impl Trust {
    pub(super) fn new(me: PeerId, trusts_all: bool, peers: impl IntoIterator<Item = PeerId>) -> Self {
        Self { me, trusts_all, peers: RwLock::new(peers.into_iter().collect()), told: Mutex::default() }
    }

    pub(super) fn is_trusted(&self, peer: &PeerId) -> bool {
        self.trusts_all
            || *peer == self.me
            || self.peers.read().unwrap_or_else(PoisonError::into_inner).contains(peer)
    }

    /// [`Trust::is_trusted`], for the sender of an update; says once of each peer that it is not.
    pub(super) fn accepts_update_of(&self, peer: &PeerId) -> bool {
        if self.is_trusted(peer) {
            return true;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < MAX_TOLD && told.insert(*peer) {
            warn!(
                target: "crdt",
                "ignoring the pinset updates of {peer}: it is not among the trusted_peers of this peer"
            );
        }
        false
    }

    pub(super) fn add(&self, peer: PeerId) {
        self.peers.write().unwrap_or_else(PoisonError::into_inner).insert(peer);
    }

    pub(super) fn remove(&self, peer: &PeerId) {
        self.peers.write().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }
}
