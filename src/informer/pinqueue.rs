//! How many pins wait on this peer.

use std::fmt;
use std::sync::Arc;

use cluster_compat::config;
use cluster_compat::go::time::{Duration, Time};
use cluster_compat::types::Metric;

/// Tells the number of pins that wait for a worker.
pub type QueueSize = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Tells the length of the pin queue; a short queue weighs more than a long one.
pub struct PinQueue {
    metric_ttl: Duration,
    /// Lengths within one bucket weigh the same; 0 and less: every length for itself.
    weight_bucket_size: i64,
    queue_size: QueueSize,
}

impl fmt::Debug for PinQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinQueue")
            .field("weight_bucket_size", &self.weight_bucket_size)
            .finish_non_exhaustive()
    }
}

impl PinQueue {
    /// An informer as configured.
    pub fn new(config: &config::PinQueue, queue_size: QueueSize) -> Self {
        Self { metric_ttl: config.metric_ttl, weight_bucket_size: config.weight_bucket_size, queue_size }
    }

    pub(super) fn metric_ttl(&self) -> Duration {
        self.metric_ttl
    }

    pub(super) fn metric(&self, now: Time) -> Metric {
        let queued = i64::try_from((self.queue_size)()).unwrap_or(i64::MAX);
        let weight = if self.weight_bucket_size > 0 { -queued / self.weight_bucket_size } else { -queued };
        let (name, value) = ("pinqueue".into(), queued.to_string());
        let mut metric = Metric { name, value, weight, valid: true, ..Metric::default() };
        metric.set_ttl(now, self.metric_ttl);
        metric
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_queues_weigh_less_in_whole_buckets() {
        for (queued, bucket, weight) in [(0, 0, 0), (7, 0, -7), (99, 100, 0), (100, 100, -1), (250, 100, -2)]
        {
            let queue_size: QueueSize = Arc::new(move || queued);
            let config = config::PinQueue { weight_bucket_size: bucket, ..config::PinQueue::default() };
            let metric = PinQueue::new(&config, queue_size).metric(Time::from_unix(100, 0));
            assert_eq!((metric.value, metric.weight, metric.valid), (queued.to_string(), weight, true));
            assert_eq!((metric.name.as_str(), metric.expire), ("pinqueue", 130_000_000_000));
        }
    }
}
