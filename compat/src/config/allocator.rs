//! The `allocator.balanced` section.

use std::path::Path;

use super::section::{Component, require, table};

/// The allocator.
#[derive(Debug, Clone, PartialEq)]
pub struct Balanced {
    /// Names of metrics, the first divides first. Default `tag:group`, `freespace`; never empty.
    pub allocate_by: Vec<String>,
}

impl Default for Balanced {
    fn default() -> Self {
        Self { allocate_by: vec!["tag:group".to_owned(), "freespace".to_owned()] }
    }
}

impl Balanced {
    /// What applies where the file has no such section: files older than the allocator by tags.
    pub(super) fn when_absent() -> Self {
        Self { allocate_by: vec!["freespace".to_owned()] }
    }
}

table! {
    BalancedTable = "balanced.jsonConfig" {
        allocate_by: Vec<String> = "AllocateBy",
    }
}

impl Component for Balanced {
    type Table = BalancedTable;

    fn key(&self) -> &'static str {
        "balanced"
    }

    fn env_prefix(&self) -> &'static str {
        "CLUSTER_BALANCED"
    }

    fn apply(&mut self, table: BalancedTable, _folder: &Path) -> Result<(), String> {
        if !table.allocate_by.is_empty() {
            self.allocate_by = table.allocate_by;
        }
        Ok(())
    }

    fn validate(&self) -> Result<(), String> {
        require(!self.allocate_by.is_empty(), "metricalloc.allocate_by is invalid")
    }

    fn to_table(&self) -> BalancedTable {
        BalancedTable { allocate_by: self.allocate_by.clone() }
    }
}
