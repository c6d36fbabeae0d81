//! Garbage collection of the daemons (spec: core 15).

use cluster_compat::api::Result;
use cluster_compat::types::{GlobalRepoGc, RepoGc};

use super::{Cluster, failed};

impl Cluster {
    /// Collects on this peer's daemon; in the cluster's answer a failure is this peer's row, not the call's.
    pub(super) async fn collect_garbage(&self, local: bool) -> Result<GlobalRepoGc> {
        let (keys, failure) = self.inner.ipfs.repo_gc().await;
        let (keys, error) = match failure {
            None => (keys, String::new()),
            Some(cause) if local => return Err(failed(cause)),
            Some(cause) => (Vec::new(), cause.to_string()),
        };
        let row = RepoGc {
            peer: self.inner.peer,
            peername: self.inner.config.peername.clone(),
            keys: Some(keys),
            error,
        };
        Ok(GlobalRepoGc { peer_map: [(self.inner.peer.to_string(), row)].into() })
    }
}
