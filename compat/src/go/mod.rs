//! The habits of Go's standard library that clients of ipfs-cluster can see.
//!
//! Everything here is pure: text in, text out. Error texts are Go's, because they reach users.

pub mod duration;
pub mod json;
pub mod query;
pub mod quote;
pub mod size;
pub mod time;
