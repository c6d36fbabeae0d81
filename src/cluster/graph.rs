//! Who is connected to whom (spec: core 15).

use cluster_compat::api::Result;
use cluster_compat::types::ConnectGraph;

use super::{Cluster, failed};

impl Cluster {
    /// This peer's view; links of other members stay empty until they can be asked.
    pub(super) async fn draw_graph(&self) -> Result<ConnectGraph> {
        let inner = &self.inner;
        let mut graph = ConnectGraph {
            cluster_id: inner.peer,
            id_to_peername: Default::default(),
            ipfs_links: Default::default(),
            cluster_links: Default::default(),
            cluster_trust_links: Default::default(),
            cluster_to_ipfs: Default::default(),
        };
        for peer in inner.consensus.peers().await.map_err(failed)? {
            graph.cluster_links.insert(peer.to_string(), Vec::new());
            graph.cluster_trust_links.insert(peer.to_string(), inner.consensus.is_trusted(&peer));
        }
        let own = self.own_id().await;
        graph.id_to_peername.insert(inner.peer.to_string(), own.peername);
        if let Some(daemon) = own.ipfs.id {
            graph.cluster_to_ipfs.insert(inner.peer.to_string(), daemon);
            let swarm = inner.ipfs.swarm_peers().await.unwrap_or_default();
            graph.ipfs_links.insert(daemon.to_string(), swarm);
        }
        Ok(graph)
    }
}
