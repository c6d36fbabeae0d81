//! The embedded IPFS node of a peer: started first, so that the rest finds its daemon; stopped last.

use cluster_compat::config::Config;
use tracing::{info, warn};

use super::{Error, RunArgs};
use crate::node::{Node, NodeArgs};

/// Starts the node where one is asked for, and points connector and proxy at its socket.
pub(super) async fn start(args: &mut RunArgs) -> Result<Option<Node>, Error> {
    let RunArgs { config, folder, embedded, .. } = args;
    if !config.embedded.present && !*embedded {
        return Ok(None);
    }
    let node_args = NodeArgs {
        config: config.embedded.value.clone(),
        folder: folder.clone(),
        keypair: None,
        is_alone: false,
    };
    let node = Node::start(node_args).await.map_err(Error::step("starting the embedded IPFS node"))?;
    warn_of_other_daemons(config);
    config.ipfshttp.node_multiaddress = node.socket().clone();
    config.ipfsproxy.node_multiaddress = node.socket().clone();
    info!(target: "service", "Embedded IPFS node: {}", node.peer());
    Ok(Some(node))
}

/// Says which configured addresses do not count, unless they are what everybody has.
fn warn_of_other_daemons(config: &Config) {
    let unused = cluster_compat::config::IpfsHttp::default().node_multiaddress;
    for (section, addr) in [
        ("ipfs_connector.ipfshttp", &config.ipfshttp.node_multiaddress),
        ("api.ipfsproxy", &config.ipfsproxy.node_multiaddress),
    ] {
        if *addr != unused {
            warn!(
                target: "service",
                "{section}.node_multiaddress ({addr}) is not used: the embedded IPFS node is the daemon"
            );
        }
    }
}
