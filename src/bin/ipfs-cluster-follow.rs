//! `ipfs-cluster-follow`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ipfs_cluster::cli::follow::main()
}
