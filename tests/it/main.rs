//! Rooms working together, peers beside peers, and whole peers as an operator runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod daily;
mod interop;
mod net;
mod restart;
mod support;
