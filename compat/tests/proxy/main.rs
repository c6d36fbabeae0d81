//! The IPFS proxy between a fake cluster and a fake daemon, held against recordings of ipfs-cluster 1.1.6.
//!
//! `harness::replay` is the only place that talks to the proxy for recordings, `harness::ask` the only one for single
//! requests.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed test may panic")]

mod daemon;
mod harness;
mod intercepted;
mod passing;
