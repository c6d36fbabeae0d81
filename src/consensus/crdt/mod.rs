//! The CRDT: pins in an add-wins set over a Merkle DAG, shared by gossip.
pub mod core;
