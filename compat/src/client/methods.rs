//! [`ClusterApi`] over HTTP.

use async_trait::async_trait;
use futures::StreamExt;

use super::{RestClient, parse_path};
use crate::api::{self, ClusterApi, Error, Items, Result, Upload};
use crate::types::{
    AddParams, AddedOutput, Alert, Bandwidths, Cid, ConnectGraph, GlobalPinInfo, GlobalRepoGc, Id,
    IpfsRepoStat, Metric, PeerId, Pin, PinOptions, PinTypes, TrackerStatus, Version,
};

/// Items with the errors of the seam.
fn items<T: Send + 'static>(items: super::Items<T>) -> Items<T> {
    items.map(|item| item.map_err(api::Error::from)).boxed()
}

/// What the REST API has no route for.
fn no_route<T>(what: &str) -> Result<T> {
    Err(Error::internal(format!("{what} is not offered by the REST API")))
}

#[async_trait]
impl ClusterApi for RestClient {
    async fn id(&self) -> Result<Id> {
        Ok(RestClient::id(self).await?)
    }

    async fn version(&self) -> Result<Version> {
        Ok(RestClient::version(self).await?)
    }

    fn peers(&self) -> Items<Id> {
        items(RestClient::peers(self))
    }

    async fn peer_add(&self, peer: PeerId) -> Result<Id> {
        Ok(RestClient::peer_add(self, peer).await?)
    }

    async fn peer_rm(&self, peer: PeerId) -> Result<()> {
        Ok(RestClient::peer_rm(self, peer).await?)
    }

    async fn pin(&self, pin: Pin) -> Result<Pin> {
        Ok(RestClient::pin(self, pin.cid, &pin.options).await?)
    }

    async fn unpin(&self, cid: Cid) -> Result<Pin> {
        Ok(RestClient::unpin(self, cid).await?)
    }

    async fn pin_path(&self, path: &str, options: PinOptions) -> Result<Pin> {
        let path = parse_path(path).map_err(Error::bad_request)?;
        Ok(RestClient::pin_path(self, &path, &options).await?)
    }

    async fn unpin_path(&self, path: &str) -> Result<Pin> {
        let path = parse_path(path).map_err(Error::bad_request)?;
        Ok(RestClient::unpin_path(self, &path).await?)
    }

    async fn resolve(&self, _: &str) -> Result<Cid> {
        no_route("resolving a path")
    }

    fn allocations(&self, types: PinTypes) -> Items<Pin> {
        items(RestClient::allocations(self, &types.to_string()))
    }

    async fn allocation(&self, cid: Cid) -> Result<Pin> {
        Ok(RestClient::allocation(self, cid).await?)
    }

    async fn status(&self, cid: Cid, local: bool) -> Result<GlobalPinInfo> {
        Ok(RestClient::status(self, cid, local).await?)
    }

    fn status_all(&self, filter: TrackerStatus, local: bool) -> Items<GlobalPinInfo> {
        items(RestClient::status_all(self, &status_filter(filter), local))
    }

    async fn recover(&self, cid: Cid, local: bool) -> Result<GlobalPinInfo> {
        Ok(RestClient::recover(self, cid, local).await?)
    }

    fn recover_all(&self, local: bool) -> Items<GlobalPinInfo> {
        items(RestClient::recover_all(self, local))
    }

    async fn repo_gc(&self, local: bool) -> Result<GlobalRepoGc> {
        Ok(RestClient::repo_gc(self, local).await?)
    }

    async fn repo_stat(&self) -> Result<IpfsRepoStat> {
        no_route("the size of repositories")
    }

    async fn connect_graph(&self) -> Result<ConnectGraph> {
        Ok(RestClient::connect_graph(self).await?)
    }

    async fn alerts(&self) -> Result<Vec<Alert>> {
        Ok(RestClient::alerts(self).await?.unwrap_or_default())
    }

    async fn bandwidth(&self) -> Result<Bandwidths> {
        Ok(RestClient::bandwidth(self).await?.unwrap_or_default())
    }

    async fn metrics(&self, name: &str) -> Result<Vec<Metric>> {
        Ok(RestClient::metrics(self, name).await?.unwrap_or_default())
    }

    async fn metric_names(&self) -> Result<Vec<String>> {
        Ok(RestClient::metric_names(self).await?.unwrap_or_default())
    }

    fn add(&self, params: AddParams, upload: Box<dyn Upload>) -> Items<AddedOutput> {
        let mut query = params.to_query();
        query.set("stream-channels", "true");
        items(RestClient::add(self, &query, upload))
    }
}

/// The statuses of a filter, each named exactly: a name of a group would widen the answer (ruling cli 14).
pub fn status_filter(filter: TrackerStatus) -> String {
    let names: Vec<&str> = TrackerStatus::all()
        .filter(|one| one.0.is_power_of_two() && filter.0 & one.0 != 0)
        .filter_map(TrackerStatus::name)
        .collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_name_each_status_alone() {
        for (text, expected) in [
            ("", ""),
            ("pinned", "pinned"),
            ("pin_error,pinned", "pin_error,pinned"),
            ("queued", "pin_queued,unpin_queued"),
        ] {
            assert_eq!(status_filter(TrackerStatus::parse_filter(text)), expected);
        }
    }
}
