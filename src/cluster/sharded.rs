//! Sharded adds: what a meta pin stands for (spec: core 5.6, 14).
//!
//! A meta pin names its cluster DAG, and that its shards. Removing the one removes the others, but for shards that
//! another sharded add has too: equal beginnings make equal shards.

use std::collections::HashSet;
use std::time::Duration;

use cluster_compat::api::{Error, PIN_NOT_FOUND, Result};
use cluster_compat::types::{Cid, Pin, PinInfo, PinType};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tracing::{info, warn};

use super::{Cluster, failed};
use crate::adder::shard_links;

/// Cluster DAGs that are asked of the daemon at the same time.
const MAX_READING: usize = 8;

/// How long an unpin looks into the cluster DAGs of others; what is not known by then is not spared.
const OTHERS_TIMEOUT: Duration = Duration::from_secs(30);

impl Cluster {
    /// Unpins a sharded add: its shards, its cluster DAG, then the meta pin itself.
    pub(super) async fn remove_meta(&self, meta: &Pin) -> Result<()> {
        self.remove_parts(meta, None).await?;
        self.inner.consensus.log_unpin(meta.clone()).await.map_err(failed)
    }

    /// After the root of `old` was added again in other shards: unpins those it had.
    pub(super) async fn replace_meta(&self, old: &Pin, new: &Pin) -> Result<()> {
        if old.pin_type != PinType::Meta || old.reference == new.reference {
            return Ok(());
        }
        info!(target: "cluster", "{} was added again in other shards, unpinning the old ones", old.cid);
        self.remove_parts(old, new.reference).await
    }

    async fn remove_parts(&self, meta: &Pin, replaced_by: Option<Cid>) -> Result<()> {
        let parts = self.sharded_parts(meta).await?;
        let spared = self.shards_of_others(meta, replaced_by).await?;
        for cid in parts {
            let part = match self.stored(&cid)? {
                // what else the DAG names is nobody's part
                Some(pin) if !matches!(pin.pin_type, PinType::Shard | PinType::ClusterDag) => {
                    warn!(target: "cluster", "{cid} in the cluster DAG of {} is no shard and stays", meta.cid);
                    continue;
                }
                Some(_) if spared.contains(&cid) => {
                    info!(target: "cluster", "{cid} stays: it is a shard of another pin too");
                    continue;
                }
                Some(pin) => pin,
                None => Pin::new(cid),
            };
            self.inner.consensus.log_unpin(part).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Recovers every part of a sharded add; the last result stands for all.
    pub(super) async fn recover_meta(&self, meta: &Pin) -> Result<PinInfo> {
        for cid in self.sharded_parts(meta).await? {
            self.inner.tracker.recover(&cid).await.map_err(failed)?;
        }
        self.inner.tracker.recover(&meta.cid).await.map_err(failed)
    }

    /// The shards of a meta pin, then its cluster DAG.
    async fn sharded_parts(&self, meta: &Pin) -> Result<Vec<Cid>> {
        let index = meta.reference.ok_or_else(|| Error::internal("metaPin.Reference is unset"))?;
        if self.stored(&index)?.is_none() {
            return Err(Error::internal(format!(
                "could not get clusterDAG pin from state. Malformed pin?: {PIN_NOT_FOUND}"
            )));
        }
        let mut parts = self.shards_in(&index).await?;
        parts.push(index);
        Ok(parts)
    }

    /// The shards a cluster DAG links to, read from the daemon; through its leaves, if it has any.
    async fn shards_in(&self, index: &Cid) -> Result<Vec<Cid>> {
        let links = self.index_links(index).await?;
        let mut has_shards = links.len() < 2;
        for link in &links {
            has_shards = has_shards || self.stored(link)?.is_some();
        }
        if has_shards {
            return Ok(links);
        }
        // Either its shards are gone, or these are leaves, which nothing pins.
        let leaves = stream::iter(links.clone()).map(|leaf| async move { self.index_links(&leaf).await });
        let shards = leaves.buffered(MAX_READING).try_concat();
        match tokio::time::timeout(OTHERS_TIMEOUT, shards).await {
            Ok(Ok(shards)) => Ok(shards),
            Ok(Err(_)) | Err(_) => Ok(links),
        }
    }

    async fn index_links(&self, index: &Cid) -> Result<Vec<Cid>> {
        let block = self.inner.ipfs.block_get(index).await;
        let block =
            block.map_err(|cause| failed(format!("error reading clusterDAG block from ipfs: {cause}")))?;
        shard_links(&block).map_err(|cause| failed(format!("error parsing clusterDAG block: {cause}")))
    }

    /// Shards of all sharded adds but `meta`, and those of the cluster DAG that takes the place of its own.
    async fn shards_of_others(&self, meta: &Pin, replaced_by: Option<Cid>) -> Result<HashSet<Cid>> {
        let mut indexes: HashSet<Cid> = replaced_by.into_iter().collect();
        let mut pins = self.inner.consensus.pinset().stream();
        while let Some(pin) = pins.next().await {
            let pin = pin.map_err(failed)?;
            if pin.pin_type == PinType::Meta && pin.cid != meta.cid {
                indexes.extend(pin.reference);
            }
        }
        let mut shards = HashSet::new();
        let read = async {
            let mut reads = stream::iter(indexes)
                .map(|index| async move { (index, self.shards_in(&index).await) })
                .buffer_unordered(MAX_READING);
            while let Some((index, links)) = reads.next().await {
                match links {
                    Ok(links) => shards.extend(links),
                    Err(cause) => warn!(target: "cluster", "cluster DAG {index}: {}", cause.message),
                }
            }
        };
        if tokio::time::timeout(OTHERS_TIMEOUT, read).await.is_err() {
            warn!(target: "cluster", "not all cluster DAGs could be read before unpinning {}", meta.cid);
        }
        Ok(shards)
    }
}
