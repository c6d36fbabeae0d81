//! The `pin_tracker.stateless` section.

use std::path::Path;

use super::section::{Component, require, set_duration, set_number, table};
use crate::go::time::Duration;

const MAX_PIN_QUEUE_SIZE: i64 = 1_000_000;

/// The pin tracker.
#[derive(Debug, Clone, PartialEq)]
pub struct Stateless {
    /// More waiting operations than this are refused. Default 1000000, above zero.
    pub max_pin_queue_size: i64,
    /// Pins at a time. Default 10, above zero.
    pub concurrent_pins: i64,
    /// Pins older than this lose their priority. Default 24 h, above zero.
    pub priority_pin_max_age: Duration,
    /// Pins that failed this often lose their priority. Default 5, above zero.
    pub priority_pin_max_retries: i64,
}

impl Default for Stateless {
    fn default() -> Self {
        Self {
            max_pin_queue_size: MAX_PIN_QUEUE_SIZE,
            concurrent_pins: 10,
            priority_pin_max_age: Duration::from_hours(24),
            priority_pin_max_retries: 5,
        }
    }
}

table! {
    StatelessTable = "stateless.jsonConfig" {
        max_pin_queue_size: i64 = "MaxPinQueueSize" omit_empty,
        concurrent_pins: i64 = "ConcurrentPins",
        priority_pin_max_age: String = "PriorityPinMaxAge",
        priority_pin_max_retries: i64 = "PriorityPinMaxRetries",
    }
}

impl Component for Stateless {
    type Table = StatelessTable;

    fn key(&self) -> &'static str {
        "stateless"
    }

    fn env_prefix(&self) -> &'static str {
        "CLUSTER_STATELESS"
    }

    fn apply(&mut self, table: StatelessTable, _folder: &Path) -> Result<(), String> {
        set_number(table.max_pin_queue_size, &mut self.max_pin_queue_size);
        set_number(table.concurrent_pins, &mut self.concurrent_pins);
        let age = &mut self.priority_pin_max_age;
        set_duration("stateless", "priority_pin_max_age", &table.priority_pin_max_age, age)?;
        set_number(table.priority_pin_max_retries, &mut self.priority_pin_max_retries);
        Ok(())
    }

    fn validate(&self) -> Result<(), String> {
        require(self.max_pin_queue_size > 0, "statelesstracker.max_pin_queue_size too low")?;
        require(self.concurrent_pins > 0, "statelesstracker.concurrent_pins is too low")?;
        let age = self.priority_pin_max_age;
        require(age > Duration::ZERO, "statelesstracker.priority_pin_max_age is too low")?;
        require(self.priority_pin_max_retries > 0, "statelesstracker.priority_pin_max_retries is too low")
    }

    fn to_table(&self) -> StatelessTable {
        let max_pin_queue_size = self.max_pin_queue_size;
        StatelessTable {
            max_pin_queue_size: if max_pin_queue_size == MAX_PIN_QUEUE_SIZE { 0 } else { max_pin_queue_size },
            concurrent_pins: self.concurrent_pins,
            priority_pin_max_age: self.priority_pin_max_age.to_string(),
            priority_pin_max_retries: self.priority_pin_max_retries,
        }
    }
}
