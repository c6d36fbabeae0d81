//! The `monitor.pubsubmon` section.

use std::path::Path;

use super::section::{Component, require, table};
use crate::go::time::Duration;

/// The monitor of metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Pubsubmon {
    /// Period of looking for expired metrics. Default 15 s, above zero, required in the file.
    pub check_interval: Duration,
}

impl Default for Pubsubmon {
    fn default() -> Self {
        Self { check_interval: Duration::from_secs(15) }
    }
}

table! {
    PubsubmonTable = "pubsubmon.jsonConfig" {
        check_interval: String = "CheckInterval",
    }
}

impl Component for Pubsubmon {
    type Table = PubsubmonTable;

    fn key(&self) -> &'static str {
        "pubsubmon"
    }

    fn env_prefix(&self) -> &'static str {
        "CLUSTER_PUBSUBMON"
    }

    fn apply(&mut self, table: PubsubmonTable, _folder: &Path) -> Result<(), String> {
        // What does not parse is zero, which validation refuses.
        self.check_interval = Duration::parse(&table.check_interval).unwrap_or_default();
        Ok(())
    }

    fn validate(&self) -> Result<(), String> {
        require(self.check_interval > Duration::ZERO, "pubsubmon.check_interval too low")
    }

    fn to_table(&self) -> PubsubmonTable {
        PubsubmonTable { check_interval: self.check_interval.to_string() }
    }
}
