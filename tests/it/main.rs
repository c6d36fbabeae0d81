//! Rooms working together, peers beside peers, and whole peers as an operator runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod add;
mod add_hostile;
mod add_pins;
mod attack_cars;
mod attacks;
mod bitswap;
mod crowd;
mod daily;
mod faces;
mod follow;
mod frames;
mod interop;
mod interop_go;
mod interop_net;
mod kubo;
mod lab;
mod members;
mod migrate;
mod mixed;
mod net;
mod node;
mod node_cluster;
mod node_interop;
mod observe;
mod odd_members;
mod offline;
mod open_swarm;
mod oracle;
mod packaging;
mod raw;
#[path = "../../src/adder/tests/recipes.rs"]
mod recipes;
mod recordings;
mod replace;
mod restart;
mod scripted;
mod sharded;
mod soak;
mod support;
