//! `ipfs-cluster-ctl`.

fn main() {}
