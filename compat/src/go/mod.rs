//! The habits of Go's standard library that clients of ipfs-cluster can see.

pub mod json;
pub mod query;
pub mod size;
pub mod time;
