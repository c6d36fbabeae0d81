//! `ipfs-cluster-service`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ipfs_cluster::cli::service::main()
}
