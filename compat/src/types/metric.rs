//! Metrics that peers publish about themselves.

use super::PeerId;

/// One sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// `ping`, `freespace`, `tag:group`, …
    pub name: String,
    /// Whom it is about; `None` prints `""`.
    pub peer: Option<PeerId>,
    /// The value as text.
    pub value: String,
    /// When it stops counting: Unix nanoseconds by the sender's clock.
    pub expire: i64,
    /// Whether the sender could measure it.
    pub valid: bool,
    /// What the allocator sorts by.
    pub weight: i64,
    /// Whether equal values form one partition.
    pub partitionable: bool,
    /// When this peer stored it: Unix nanoseconds.
    pub received_at: i64,
}
