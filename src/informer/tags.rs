//! Labels from the configuration, by which copies are spread.

use std::collections::BTreeMap;

use cluster_compat::config;
use cluster_compat::go::time::{Duration, Time};
use cluster_compat::types::Metric;
use tracing::debug;

/// Tells one metric `tag:<name>` per tag; equal values form one partition.
#[derive(Debug)]
pub struct Tags {
    metric_ttl: Duration,
    tags: BTreeMap<String, String>,
}

impl Tags {
    /// An informer as configured.
    pub fn new(config: &config::Tags) -> Self {
        Self { metric_ttl: config.metric_ttl, tags: config.tags.clone() }
    }

    pub(super) fn metric_ttl(&self) -> Duration {
        self.metric_ttl
    }

    /// Without tags there is one invalid metric.
    pub(super) fn metrics(&self, now: Time) -> Vec<Metric> {
        let metric = |name: &str, value: &str, valid: bool| {
            let (name, value) = (format!("tag:{name}"), value.to_owned());
            let mut metric = Metric { name, value, valid, partitionable: true, ..Metric::default() };
            metric.set_ttl(now, self.metric_ttl);
            metric
        };
        if self.tags.is_empty() {
            debug!(target: "tags", "no tags defined in tags informer");
            return vec![metric("none", "", false)];
        }
        self.tags.iter().map(|(name, value)| metric(name, value, true)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tag_is_a_metric_and_none_is_an_invalid_one() {
        let now = Time::from_unix(100, 0);
        let metric_ttl = Duration::from_secs(30);
        let tags = BTreeMap::from([("group".into(), "a".into()), ("region".into(), "b".into())]);
        let metrics = Tags { metric_ttl, tags }.metrics(now);
        let told: Vec<_> = metrics.iter().map(|m| (m.name.as_str(), m.value.as_str(), m.valid)).collect();
        assert_eq!(told, [("tag:group", "a", true), ("tag:region", "b", true)]);
        assert!(metrics.iter().all(|m| m.partitionable && m.weight == 0 && m.expire == 130_000_000_000));
        let metrics = Tags { metric_ttl, tags: BTreeMap::new() }.metrics(now);
        assert_eq!((metrics[0].name.as_str(), metrics[0].valid, metrics.len()), ("tag:none", false, 1));
    }
}
