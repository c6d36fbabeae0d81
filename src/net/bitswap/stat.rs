//! What was exchanged since the start: `bitswap/stat`.

use std::sync::atomic::{AtomicU64, Ordering};

use cluster_compat::types::{Cid, PeerId};
use tokio::sync::oneshot;

use super::{Error, Event, Network};

/// Counted by readers, by the worker and by those who answer.
#[derive(Default)]
pub(super) struct Counters {
    messages_received: AtomicU64,
    blocks_received: AtomicU64,
    data_received: AtomicU64,
    dup_blocks_received: AtomicU64,
    dup_data_received: AtomicU64,
    blocks_sent: AtomicU64,
    data_sent: AtomicU64,
}

/// What was exchanged since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stat {
    /// What we want now.
    pub wantlist: Vec<Cid>,
    /// Who can be asked.
    pub peers: Vec<PeerId>,
    /// Messages that came in.
    pub messages_received: u64,
    /// Blocks in them.
    pub blocks_received: u64,
    /// Their bytes.
    pub data_received: u64,
    /// Blocks that nobody waited for any more.
    pub dup_blocks_received: u64,
    /// Their bytes.
    pub dup_data_received: u64,
    /// Blocks that went out.
    pub blocks_sent: u64,
    /// Their bytes.
    pub data_sent: u64,
}

fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn received(&self, n_blocks: usize, n_bytes: usize) {
        add(&self.messages_received, 1);
        add(&self.blocks_received, n_blocks);
        add(&self.data_received, n_bytes);
    }

    pub(super) fn received_in_vain(&self, n_bytes: usize) {
        add(&self.dup_blocks_received, 1);
        add(&self.dup_data_received, n_bytes);
    }

    pub(super) fn sent(&self, n_blocks: usize, n_bytes: usize) {
        add(&self.blocks_sent, n_blocks);
        add(&self.data_sent, n_bytes);
    }
}

impl Network {
    /// What a peer wants of us.
    pub fn wantlist_of(&self, peer: &PeerId) -> Vec<Cid> {
        self.shared.bitswap.server.wantlist_of(peer)
    }

    /// What bitswap has exchanged since the start, and wants now.
    pub async fn bitswap_stat(&self) -> Result<Stat, Error> {
        let bitswap = &self.shared.bitswap;
        let (respond_to, answer) = oneshot::channel();
        bitswap.events.send(Event::Stat { respond_to }).await.map_err(|_| Error::Stopped)?;
        let (wantlist, peers) = answer.await.map_err(|_| Error::Stopped)?;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &bitswap.counters;
        Ok(Stat {
            wantlist,
            peers,
            messages_received: read(&counters.messages_received),
            blocks_received: read(&counters.blocks_received),
            data_received: read(&counters.data_received),
            dup_blocks_received: read(&counters.dup_blocks_received),
            dup_data_received: read(&counters.dup_data_received),
            blocks_sent: read(&counters.blocks_sent),
            data_sent: read(&counters.data_sent),
        })
    }
}
