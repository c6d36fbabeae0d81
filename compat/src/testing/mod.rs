//! What tests of this and other packages run against instead of real peers and daemons.

pub mod cluster;
pub mod golden;
pub mod kubo;
