//! Stopping a peer: one function, in order, with the reasons.

use tracing::{error, info, warn};

use super::build::Running;
use crate::consensus::Consensus as _;
use crate::consensus::crdt::offline;
use crate::task::GRACE;

impl Running {
    /// Stops everything. Data that was acknowledged is on disk afterwards.
    pub(super) async fn stop(self) {
        info!(target: "cluster", "shutting down Cluster");
        // nobody may ask for more
        self.apis.stop();
        self.apis.join(GRACE).await;
        // the addresses of others, while the swarm still knows them; a peer that never was ready knows nothing new
        if self.cluster.is_ready() {
            let lines = self.network.peerstore_lines();
            if let Err(cause) = cluster_compat::config::peerstore::write(&self.peerstore_file, &lines) {
                error!(target: "pstoremgr", "saving {}: {cause}", self.peerstore_file.display());
            }
        }
        // no more writes of our own: jobs, alerts, events to the tracker
        self.jobs.stop();
        self.jobs.join(GRACE).await;
        // what waits in a batch becomes a node
        if let Err(cause) = self.consensus.stop().await {
            error!(target: "cluster", "error stopping consensus: {cause}");
        }
        self.consensus_tasks.stop();
        self.consensus_tasks.join(GRACE).await;
        self.monitor_tasks.stop();
        self.monitor_tasks.join(GRACE).await;
        // requests to the daemon end with the operations that made them
        self.tracker_tasks.stop();
        self.tracker_tasks.join(GRACE).await;
        self.network_tasks.stop();
        self.network_tasks.join(GRACE).await;
        if self.leaves && self.cluster.is_ready() {
            // nobody can be removed under CRDT, and the data is wiped all the same (rulings: core Q5)
            warn!(target: "cluster", "attempting to leave the cluster. This may take some seconds");
            if let Err(cause) = offline::clean(&self.db) {
                error!(target: "cluster", "cleaning consensus: {cause}");
            }
        }
        // what is left of the traces of all that
        self.trace_tasks.stop();
        self.trace_tasks.join(GRACE).await;
        // the daemon of all of the above
        if let Some(node) = self.node {
            node.stop().await;
        }
        drop(self.db);
    }
}
