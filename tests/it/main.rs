//! Rooms working together, and peers beside peers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod interop;
mod net;
