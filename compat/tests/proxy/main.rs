//! The IPFS proxy between a fake cluster and a fake daemon. Recordings are replayed by the test `replay`.
//!
//! `harness::ask` is the only place that talks to the proxy for single requests.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed test may panic")]

mod daemon;
mod harness;
mod intercepted;
mod passing;
