//! Pins given by an IPFS path.

use cluster_compat::api::Result;
use cluster_compat::types::{Cid, Pin, PinOptions};
use tracing::error;

use super::{Cluster, failed};

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
}
