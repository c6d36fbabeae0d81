//! How full the daemon's repository is.

use cluster_compat::config::{self, DiskMetric};
use cluster_compat::go::time::{Duration, Time};
use cluster_compat::types::{IpfsRepoStat, Metric};
use tracing::{error, warn};

use crate::ipfs;
use crate::observe::metrics;

/// Tells the free or the used bytes of the daemon's repository.
#[derive(Debug)]
pub struct Disk {
    metric_ttl: Duration,
    kind: DiskMetric,
    ipfs: ipfs::Client,
}

impl Disk {
    /// An informer as configured.
    pub fn new(config: &config::Disk, ipfs: ipfs::Client) -> Self {
        Self { metric_ttl: config.metric_ttl, kind: config.metric_type, ipfs }
    }

    pub(super) fn metric_ttl(&self) -> Duration {
        self.metric_ttl
    }

    pub(super) async fn metric(&self) -> Metric {
        let mut metric = match self.ipfs.repo_stat().await {
            Ok(stat) => measured(self.kind, stat),
            Err(failure) => {
                error!(target: "diskinfo", "{failure}");
                Metric { name: self.kind.name().into(), ..Metric::default() }
            }
        };
        if metric.valid {
            metrics::INFORMER_DISK.set(metric.weight);
        }
        metric.set_ttl(Time::now(), self.metric_ttl);
        metric
    }
}

/// A full repository has no valid metric; a small one weighs more than a large one.
fn measured(kind: DiskMetric, stat: IpfsRepoStat) -> Metric {
    let (value, weight, valid) = match kind {
        DiskMetric::Freespace => {
            let free = stat.storage_max.saturating_sub(stat.repo_size);
            if free == 0 {
                warn!(target: "diskinfo", "reported freespace is 0");
            }
            (free, free as i64, free > 0)
        }
        // The sign is turned in 64 bits, whatever is lost at the top.
        DiskMetric::Reposize => (stat.repo_size, (stat.repo_size as i64).wrapping_neg(), true),
    };
    Metric { name: kind.name().into(), value: value.to_string(), weight, valid, ..Metric::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_told_as_the_reference_tells_it() {
        let stat = |repo_size, storage_max| IpfsRepoStat { repo_size, storage_max };
        let tell = |kind, stat| {
            let metric = measured(kind, stat);
            (metric.name, metric.value, metric.weight, metric.valid, metric.partitionable)
        };
        for (kind, stat, name, value, weight, valid) in [
            (DiskMetric::Freespace, stat(10, 100), "freespace", "90", 90, true),
            (DiskMetric::Freespace, stat(100, 100), "freespace", "0", 0, false),
            (DiskMetric::Freespace, stat(200, 100), "freespace", "0", 0, false),
            (DiskMetric::Freespace, stat(0, u64::MAX), "freespace", "18446744073709551615", -1, true),
            (DiskMetric::Reposize, stat(10, 100), "reposize", "10", -10, true),
            (DiskMetric::Reposize, stat(0, 0), "reposize", "0", 0, true),
        ] {
            assert_eq!(tell(kind, stat), (name.into(), value.into(), weight, valid, false), "{stat:?}");
        }
    }
}
