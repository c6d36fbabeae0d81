//! A bounded line of operations, oldest first.

use std::collections::BTreeSet;

use super::ops::OpId;

/// The line is at its limit (`max_pin_queue_size`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// Operations that wait. One that is cancelled leaves the line at once, so it takes no place from others.
#[derive(Debug)]
pub(super) struct Queue {
    /// Numbers of operations rise, so the first is the oldest.
    waiting: BTreeSet<OpId>,
    limit: usize,
}

impl Queue {
    /// An empty line for at most `limit` operations.
    pub(super) fn new(limit: usize) -> Self {
        Self { waiting: BTreeSet::new(), limit }
    }

    /// Puts an operation at the end.
    pub(super) fn push(&mut self, id: OpId) -> Result<(), Full> {
        if self.waiting.len() >= self.limit {
            return Err(Full);
        }
        self.waiting.insert(id);
        Ok(())
    }

    /// Takes the oldest.
    pub(super) fn pop(&mut self) -> Option<OpId> {
        self.waiting.pop_first()
    }

    /// Takes one out of the middle.
    pub(super) fn remove(&mut self, id: OpId) {
        self.waiting.remove(&id);
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}
