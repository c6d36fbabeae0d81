//! Pins given by an IPFS path, and the parts of a sharded pin.

use cluster_compat::api::{Error, Result};
use cluster_compat::types::{Cid, Pin, PinInfo, PinOptions};
use tracing::error;

use super::{Cluster, failed};
use crate::adder::shard_links;

impl Cluster {
    /// The CID a path leads to, as this peer's daemon resolves it.
    pub(super) async fn resolved(&self, path: &str) -> Result<Cid> {
        self.inner.ipfs.resolve(path).await.map_err(|cause| {
            error!(target: "cluster", "could not resolve {path}: {cause}");
            failed(cause)
        })
    }

    pub(super) async fn submit_path(&self, path: &str, options: PinOptions) -> Result<Pin> {
        let cid = self.resolved(path).await?;
        self.submit(Pin::with_options(cid, options), &[]).await
    }

    pub(super) async fn remove_path(&self, path: &str) -> Result<Pin> {
        let cid = self.resolved(path).await?;
        self.remove(cid).await
    }

    /// Unpins a sharded add: its shards, its cluster DAG, then the meta pin itself (spec: core 5.6).
    pub(super) async fn remove_meta(&self, meta: &Pin) -> Result<()> {
        for cid in self.sharded_parts(meta).await? {
            let part = self.stored(&cid)?.unwrap_or_else(|| Pin::new(cid));
            self.inner.consensus.log_unpin(part).await.map_err(failed)?;
        }
        self.inner.consensus.log_unpin(meta.clone()).await.map_err(failed)
    }

    /// Recovers every part of a sharded add; the last result stands for all.
    pub(super) async fn recover_meta(&self, meta: &Pin) -> Result<PinInfo> {
        for cid in self.sharded_parts(meta).await? {
            self.inner.tracker.recover(&cid).await.map_err(failed)?;
        }
        self.inner.tracker.recover(&meta.cid).await.map_err(failed)
    }

    /// The shards of a meta pin, then its cluster DAG: read from the daemon's block of the cluster DAG.
    async fn sharded_parts(&self, meta: &Pin) -> Result<Vec<Cid>> {
        let index = meta.reference.ok_or_else(|| Error::internal("metaPin.Reference is unset"))?;
        if self.stored(&index)?.is_none() {
            return Err(Error::internal(format!(
                "could not get clusterDAG pin from state. Malformed pin?: {}",
                cluster_compat::api::PIN_NOT_FOUND
            )));
        }
        let block = self
            .inner
            .ipfs
            .block_get(&index)
            .await
            .map_err(|cause| failed(format!("error reading clusterDAG block from ipfs: {cause}")))?;
        let mut parts = shard_links(&block)
            .map_err(|cause| failed(format!("error parsing clusterDAG block: {cause}")))?;
        parts.push(index);
        Ok(parts)
    }
}
