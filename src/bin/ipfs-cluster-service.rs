//! `ipfs-cluster-service`.

fn main() {}
