//! The newest metrics of every peer, by name.

use std::collections::BTreeMap;

use cluster_compat::types::{Metric, PeerId};

use super::window::{Window, is_discarded};

/// Most pairs of name and peer that are kept. Names come from peers: the limit keeps one that invents them from
/// filling our memory. A cluster of 1000 peers with a dozen metrics each stays far below.
const N_WINDOWS_MAX: usize = 65_536;

/// Longest name that is kept, in bytes.
const MAX_NAME_BYTES: usize = 1024;

/// Longest value that is kept, in bytes. The longest real one, `ping`, lists the daemon's addresses.
const MAX_VALUE_BYTES: usize = 65_536;

/// Why a metric was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("metric without a peer")]
    NoPeer,
    #[error("metric name of {0} bytes is longer than {MAX_NAME_BYTES}")]
    Name(usize),
    #[error("metric value of {0} bytes is longer than {MAX_VALUE_BYTES}")]
    Value(usize),
    #[error("more than {N_WINDOWS_MAX} metrics are known; a new one is dropped")]
    Full,
}

/// All windows.
#[derive(Debug, Default)]
pub(super) struct Peers {
    by_name: BTreeMap<String, BTreeMap<PeerId, Window>>,
    n_windows: usize,
}

impl Peers {
    /// Stores a sample; `is_received` is false for one we made up for the peer.
    pub(super) fn add(&mut self, metric: Metric, is_received: bool) -> Result<(), Refusal> {
        let peer = metric.peer.ok_or(Refusal::NoPeer)?;
        if metric.name.len() > MAX_NAME_BYTES {
            return Err(Refusal::Name(metric.name.len()));
        }
        if metric.value.len() > MAX_VALUE_BYTES {
            return Err(Refusal::Value(metric.value.len()));
        }
        if let Some(window) = self.by_name.get_mut(&metric.name).and_then(|peers| peers.get_mut(&peer)) {
            window.add(metric, is_received);
            return Ok(());
        }
        // a name outlives its peers, so names count as much as windows do
        if self.n_windows.saturating_add(self.by_name.len()) >= N_WINDOWS_MAX {
            return Err(Refusal::Full);
        }
        self.n_windows += 1;
        let name = metric.name.clone();
        self.by_name.entry(name).or_default().insert(peer, Window::new(metric, is_received));
        Ok(())
    }

    /// For each peer its newest sample, unless that one is invalid or expired; sorted by peer id.
    pub(super) fn latest_valid(&self, name: &str, now: i64) -> Vec<Metric> {
        let windows = self.by_name.get(name).into_iter().flat_map(BTreeMap::values);
        windows.map(Window::latest).filter(|metric| !is_discarded(metric, now)).cloned().collect()
    }

    /// The newest sample of a peer, expired or not.
    pub(super) fn latest_of(&self, name: &str, peer: &PeerId) -> Option<&Window> {
        self.by_name.get(name)?.get(peer)
    }

    /// Every window, by name and then by peer.
    pub(super) fn windows(&self) -> impl Iterator<Item = (&str, &PeerId, &Window)> {
        self.by_name
            .iter()
            .flat_map(|(name, peers)| peers.iter().map(move |(peer, window)| (name.as_str(), peer, window)))
    }

    /// Every name ever seen.
    pub(super) fn names(&self) -> Vec<String> {
        self.by_name.keys().cloned().collect()
    }

    /// Forgets the samples of a peer; the names stay.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        for windows in self.by_name.values_mut() {
            if windows.remove(peer).is_some() {
                self.n_windows -= 1;
            }
        }
    }
}
