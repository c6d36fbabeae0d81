//! `node`: runs the embedded IPFS node alone.

use cluster_compat::config::{Config, Consensus, Engine};

use super::{Context, released};
use crate::cli::exit::{Failure, failed, print};
use crate::daemon::run_node;
use crate::node::{Node, NodeArgs};

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let lock = context.lock()?;
    let result = async {
        let config = config(context).await?;
        let args = NodeArgs {
            config: config.embedded.value,
            folder: context.folder.clone(),
            keypair: None,
            is_alone: true,
        };
        run_node(args, announce).await.map_err(|cause| Failure { line: cause.to_string(), code: 1 })
    };
    let result = result.await;
    released(lock, result)
}

/// That of the folder, or the defaults with the variables over them.
async fn config(context: &Context) -> Result<Config, Failure> {
    let failed = failed("loading configurations");
    if context.service_json().exists() {
        return Config::load(&context.service_json(), &context.env).await.map_err(failed);
    }
    let mut config = Config::defaults(Consensus::Crdt, Engine::Lmdb, &context.folder);
    config.embedded.present = true;
    config.apply_env(&context.env, true).map_err(failed)?;
    Ok(config)
}

/// Says where the node is, one line each.
fn announce(node: &Node) {
    print(&format!("IPFS node {}\n", node.peer()));
    for addr in node.addrs() {
        print(&format!("Swarm: {addr}/p2p/{}\n", node.peer()));
    }
    print(&format!("RPC: {}\n", node.socket()));
    for addr in node.apis() {
        print(&format!("RPC: {addr}\n"));
    }
    for addr in node.gateways() {
        print(&format!("Gateway: {addr}\n"));
    }
    print("Daemon is ready\n");
}
