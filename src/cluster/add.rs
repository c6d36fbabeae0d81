//! Adding content: the importer's host is this peer (spec: adder 16).

use std::sync::Arc;

use async_trait::async_trait;
use cluster_compat::api::{Items, Upload};
use cluster_compat::types::{AddParams, AddedOutput, Cid, PeerId, Pin, PinOptions, PinType};
use futures::StreamExt as _;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::Cluster;
use crate::adder::{Batch, Error, Host, import};

impl Cluster {
    /// Imports an upload; blocks go to the allocated peers, the root is pinned at the end.
    pub(super) fn import(&self, params: AddParams, upload: Box<dyn Upload>) -> Items<AddedOutput> {
        import(params, upload, Arc::new(self.clone())).map(|item| item.map_err(Into::into)).boxed()
    }
}

#[async_trait]
impl Host for Cluster {
    fn local_peer(&self) -> PeerId {
        self.inner.peer
    }

    async fn allocate(&self, options: &PinOptions) -> Result<Vec<PeerId>, Error> {
        Ok(self.allocate_blocks(options).await?)
    }

    async fn put_blocks(&self, destinations: &[PeerId], blocks: mpsc::Receiver<Batch>) -> Result<(), Error> {
        self.stream_blocks(destinations.to_vec(), blocks).await
    }

    async fn pin(&self, pin: Pin) -> Result<Pin, Error> {
        if pin.pin_type != PinType::Meta {
            return Ok(self.submit(pin, &[]).await?);
        }
        let before = self.stored(&pin.cid)?;
        let pin = self.submit(pin, &[]).await?;
        if let Some(before) = before
            && let Err(cause) = self.replace_meta(&before, &pin).await
        {
            warn!(target: "adder", "the old shards of {} stay pinned: {}", pin.cid, cause.message);
        }
        Ok(pin)
    }

    async fn is_pinned(&self, cid: &Cid) -> Result<bool, Error> {
        Ok(self.stored(cid)?.is_some())
    }

    fn take_back(&self, cids: Vec<Cid>) -> oneshot::Receiver<()> {
        let (done, end) = oneshot::channel();
        let cluster = self.clone();
        self.inner.tasks.spawn("taking back the pins of a failed add", async move {
            for cid in cids {
                info!(target: "adder", "unpinning {cid}: its add has failed");
                let pin = cluster.stored(&cid).ok().flatten().unwrap_or_else(|| Pin::new(cid));
                if let Err(cause) = cluster.inner.consensus.log_unpin(pin).await {
                    warn!(target: "adder", "{cid} of a failed add stays pinned: {cause}");
                }
            }
            // an import that was dropped does not wait
            let _ = done.send(());
        });
        end
    }
}
