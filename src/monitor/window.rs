//! What is known of one metric of one peer.
//!
//! The reference keeps the last 25 samples. Only the newest is ever looked at; the number of the others matters to
//! one rule alone (how fast alerts come back under raft, spec: core 8.3), so the number is what we keep.

use cluster_compat::types::Metric;

/// Samples the reference keeps of one metric of one peer.
pub(super) const N_SAMPLES_MAX: u32 = 25;

/// The newest sample, and how many came before.
#[derive(Debug, Clone)]
pub(super) struct Window {
    latest: Metric,
    n_samples: u32,
    /// Whether the peer itself ever sent one: no alert is raised over a sample that we made up for it.
    is_received: bool,
}

impl Window {
    pub(super) fn new(metric: Metric, is_received: bool) -> Self {
        Self { latest: metric, n_samples: 1, is_received }
    }

    pub(super) fn add(&mut self, metric: Metric, is_received: bool) {
        self.latest = metric;
        self.n_samples = (self.n_samples + 1).min(N_SAMPLES_MAX);
        self.is_received |= is_received;
    }

    pub(super) fn latest(&self) -> &Metric {
        &self.latest
    }

    pub(super) fn n_samples(&self) -> u32 {
        self.n_samples
    }

    pub(super) fn is_received(&self) -> bool {
        self.is_received
    }
}

/// Whether a sample has run out at `now` (Unix nanoseconds), by the clock of its sender.
pub(super) fn is_expired(metric: &Metric, now: i64) -> bool {
    now > metric.expire
}

/// Whether a sample says nothing about the present.
pub(super) fn is_discarded(metric: &Metric, now: i64) -> bool {
    !metric.valid || is_expired(metric, now)
}
