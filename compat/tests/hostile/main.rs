//! Bad input for the three HTTP faces: what is no HTTP, what hides a second request, senders and readers that dawdle,
//! connections cut at every stage, and crowds. Other clients go on, memory is bounded, nothing half-done stays.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed test may panic")]

mod bytes;
mod crowd;
mod cut;
mod slow;
mod smuggling;
mod support;
