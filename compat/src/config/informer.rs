//! The `informer.disk`, `informer.tags` and `informer.pinqueue` sections.

use std::collections::BTreeMap;
use std::path::Path;

use super::section::{Component, require, set_duration, table};
use super::value::Map;
use crate::go::time::Duration;

/// How long metrics of informers live, and half of how often they are sent.
const METRIC_TTL: Duration = Duration::from_secs(30);

/// Tells how full the daemon's disk is.
#[derive(Debug, Clone, PartialEq)]
pub struct Disk {
    /// Life of a metric. Default 30 s, above zero, required in the file.
    pub metric_ttl: Duration,
    /// What is told. Default `freespace`, required in the file.
    pub metric_type: DiskMetric,
}

/// What the disk informer tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskMetric {
    /// Bytes that are free in the daemon's repository.
    Freespace,
    /// Bytes the daemon's repository uses.
    Reposize,
}

impl DiskMetric {
    /// The metric's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Freespace => "freespace",
            Self::Reposize => "reposize",
        }
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self { metric_ttl: METRIC_TTL, metric_type: DiskMetric::Freespace }
    }
}

/// Tells this peer's tags.
#[derive(Debug, Clone, PartialEq)]
pub struct Tags {
    /// Life of a metric. Default 30 s, above zero.
    pub metric_ttl: Duration,
    /// One metric `tag:<name>` each. Default `group`: `default`; missing none.
    pub tags: BTreeMap<String, String>,
}

impl Default for Tags {
    fn default() -> Self {
        let tags = BTreeMap::from([("group".to_owned(), "default".to_owned())]);
        Self { metric_ttl: METRIC_TTL, tags }
    }
}

/// Tells how many pins wait here.
#[derive(Debug, Clone, PartialEq)]
pub struct PinQueue {
    /// Life of a metric. Default 30 s, above zero, required in the file.
    pub metric_ttl: Duration,
    /// The queue's length is divided by this for the weight; 0: not divided. Default 100000.
    pub weight_bucket_size: i64,
}

impl Default for PinQueue {
    fn default() -> Self {
        Self { metric_ttl: METRIC_TTL, weight_bucket_size: 100_000 }
    }
}

table! {
    DiskTable = "disk.jsonConfig" {
        metric_ttl: String = "MetricTTL",
        metric_type: String = "MetricType",
    }
}

table! {
    TagsTable = "tags.jsonConfig" {
        metric_ttl: String = "MetricTTL",
        tags: Map<String> = "Tags",
    }
}

table! {
    PinQueueTable = "pinqueue.jsonConfig" {
        metric_ttl: String = "MetricTTL",
        weight_bucket_size: i64 = "WeightBucketSize",
    }
}

impl Component for Disk {
    type Table = DiskTable;

    fn key(&self) -> &'static str {
        "disk"
    }

    fn env_prefix(&self) -> &'static str {
        "CLUSTER_DISK"
    }

    fn apply(&mut self, table: DiskTable, _folder: &Path) -> Result<(), String> {
        // What does not parse is zero, which validation refuses.
        self.metric_ttl = Duration::parse(&table.metric_ttl).unwrap_or_default();
        self.metric_type = match table.metric_type.as_str() {
            "freespace" => DiskMetric::Freespace,
            "reposize" => DiskMetric::Reposize,
            _ => return Err("disk.metric_type is invalid".to_owned()),
        };
        Ok(())
    }

    fn validate(&self) -> Result<(), String> {
        require(self.metric_ttl > Duration::ZERO, "disk.metric_ttl is invalid")
    }

    fn to_table(&self) -> DiskTable {
        DiskTable { metric_ttl: self.metric_ttl.to_string(), metric_type: self.metric_type.name().to_owned() }
    }
}

impl Component for Tags {
    type Table = TagsTable;

    fn key(&self) -> &'static str {
        "tags"
    }

    fn env_prefix(&self) -> &'static str {
        "CLUSTER_TAGS"
    }

    fn apply(&mut self, table: TagsTable, _folder: &Path) -> Result<(), String> {
        set_duration("tags", "metric_ttl", &table.metric_ttl, &mut self.metric_ttl)?;
        self.tags = table.tags.unwrap_or_default();
        Ok(())
    }

    fn validate(&self) -> Result<(), String> {
        require(self.metric_ttl > Duration::ZERO, "tags.metric_ttl is invalid")
    }

    fn to_table(&self) -> TagsTable {
        TagsTable { metric_ttl: self.metric_ttl.to_string(), tags: Some(self.tags.clone()) }
    }
}

impl Component for PinQueue {
    type Table = PinQueueTable;

    fn key(&self) -> &'static str {
        "pinqueue"
    }

    fn env_prefix(&self) -> &'static str {
        "CLUSTER_PINQUEUE"
    }

    fn apply(&mut self, table: PinQueueTable, _folder: &Path) -> Result<(), String> {
        self.metric_ttl = Duration::parse(&table.metric_ttl).unwrap_or_default();
        self.weight_bucket_size = table.weight_bucket_size;
        Ok(())
    }

    fn validate(&self) -> Result<(), String> {
        require(self.metric_ttl > Duration::ZERO, "pinqueue.metric_ttl is invalid")?;
        require(self.weight_bucket_size >= 0, "pinqueue.WeightBucketSize is invalid")
    }

    fn to_table(&self) -> PinQueueTable {
        PinQueueTable { metric_ttl: self.metric_ttl.to_string(), weight_bucket_size: self.weight_bucket_size }
    }
}
