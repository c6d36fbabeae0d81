//! `ipfs-cluster-ctl`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ipfs_cluster::cli::ctl::main()
}
