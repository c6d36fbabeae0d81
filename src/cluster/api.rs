//! `ClusterApi` of the peer in this process.

use async_trait::async_trait;
use cluster_compat::api::{ClusterApi, Error, Items, Result, Upload};
use cluster_compat::types::{
    AddParams, AddedOutput, Alert, Bandwidths, Cid, ConnectGraph, GlobalPinInfo, GlobalRepoGc, Id,
    IpfsRepoStat, Metric, PeerId, Pin, PinOptions, PinTypes, TrackerStatus, Version,
};
use futures::{StreamExt as _, future};

use super::{Cluster, VERSION, failed};

#[async_trait]
impl ClusterApi for Cluster {
    async fn id(&self) -> Result<Id> {
        Ok(self.own_id().await)
    }

    async fn version(&self) -> Result<Version> {
        Ok(Version { version: VERSION.into() })
    }

    fn peers(&self) -> Items<Id> {
        self.peer_items()
    }

    async fn peer_add(&self, peer: PeerId) -> Result<Id> {
        self.add_member(peer).await
    }

    async fn peer_rm(&self, peer: PeerId) -> Result<()> {
        self.remove_member(peer).await
    }

    async fn pin(&self, pin: Pin) -> Result<Pin> {
        self.submit(pin, &[]).await
    }

    async fn unpin(&self, cid: Cid) -> Result<Pin> {
        self.remove(cid).await
    }

    async fn pin_path(&self, path: &str, options: PinOptions) -> Result<Pin> {
        self.submit_path(path, options).await
    }

    async fn unpin_path(&self, path: &str) -> Result<Pin> {
        self.remove_path(path).await
    }

    async fn resolve(&self, path: &str) -> Result<Cid> {
        self.resolved(path).await
    }

    fn allocations(&self, types: PinTypes) -> Items<Pin> {
        let pins = self.inner.consensus.pinset().stream().map(|item| item.map_err(failed));
        if types == PinTypes::ALL {
            return pins.boxed();
        }
        let is_wanted =
            move |item: &Result<Pin>| item.as_ref().map_or(true, |pin| types.matches(pin.pin_type));
        pins.filter(move |item| future::ready(is_wanted(item))).boxed()
    }

    async fn allocation(&self, cid: Cid) -> Result<Pin> {
        self.stored(&cid)?.ok_or_else(Error::not_found)
    }

    async fn status(&self, cid: Cid, local: bool) -> Result<GlobalPinInfo> {
        self.status_of(cid, local).await
    }

    fn status_all(&self, filter: TrackerStatus, local: bool) -> Items<GlobalPinInfo> {
        self.status_items(filter, local)
    }

    async fn recover(&self, cid: Cid, local: bool) -> Result<GlobalPinInfo> {
        self.recover_one(cid, local).await
    }

    fn recover_all(&self, local: bool) -> Items<GlobalPinInfo> {
        self.recover_items(local)
    }

    async fn repo_gc(&self, local: bool) -> Result<GlobalRepoGc> {
        self.collect_garbage(local).await
    }

    async fn repo_stat(&self) -> Result<IpfsRepoStat> {
        self.summed_stat().await
    }

    async fn connect_graph(&self) -> Result<ConnectGraph> {
        self.draw_graph().await
    }

    async fn alerts(&self) -> Result<Vec<Alert>> {
        Ok(self.remembered_alerts())
    }

    async fn bandwidth(&self) -> Result<Bandwidths> {
        Ok(self.inner.network.bandwidth())
    }

    async fn metrics(&self, name: &str) -> Result<Vec<Metric>> {
        Ok(self.inner.monitor.latest_valid(name))
    }

    async fn metric_names(&self) -> Result<Vec<String>> {
        Ok(self.inner.monitor.names())
    }

    fn add(&self, params: AddParams, upload: Box<dyn Upload>) -> Items<AddedOutput> {
        self.import(params, upload)
    }
}
