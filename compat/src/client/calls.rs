//! Every call of the REST API: its path, its query, its types.

use http::Method;
use serde_json::json;

use super::request::Payload;
use super::{Items, RestClient, Result};
use crate::api::Upload;
use crate::go::query::{Query, escape, path_escape};
use crate::types::{
    AddedOutput, Alert, Bandwidths, Cid, ConnectGraph, GlobalPinInfo, GlobalRepoGc, Id, Metric, PeerId, Pin,
    PinOptions, Version,
};

impl RestClient {
    /// `GET /id`
    pub async fn id(&self) -> Result<Id> {
        self.document(Method::GET, "/id").await
    }

    /// `GET /version`
    pub async fn version(&self) -> Result<Version> {
        self.document(Method::GET, "/version").await
    }

    /// `GET /peers`
    pub fn peers(&self) -> Items<Id> {
        self.stream(Method::GET, "/peers".into(), Payload::None)
    }

    /// `POST /peers`
    pub async fn peer_add(&self, peer: PeerId) -> Result<Id> {
        let document = json!({ "peer_id": peer.to_string() }).to_string();
        let id = self.optional(Method::POST, "/peers", Payload::Document(document.into_bytes())).await?;
        Ok(id.unwrap_or_default())
    }

    /// `DELETE /peers/{id}`
    pub async fn peer_rm(&self, peer: PeerId) -> Result<()> {
        let target = format!("/peers/{peer}");
        self.optional::<serde_json::Value>(Method::DELETE, &target, Payload::None).await.map(|_| ())
    }

    /// `POST /pins/{cid}`
    pub async fn pin(&self, cid: Cid, options: &PinOptions) -> Result<Pin> {
        self.document(Method::POST, &format!("/pins/{cid}?{}", options.to_query().encode())).await
    }

    /// `DELETE /pins/{cid}`
    pub async fn unpin(&self, cid: Cid) -> Result<Pin> {
        self.document(Method::DELETE, &format!("/pins/{cid}")).await
    }

    /// `POST /pins/ipfs/…`; the path comes from [`parse_path`](super::parse_path).
    pub async fn pin_path(&self, path: &str, options: &PinOptions) -> Result<Pin> {
        let target = format!("/pins{}?{}", escape_path(path), options.to_query().encode());
        self.document(Method::POST, &target).await
    }

    /// `DELETE /pins/ipfs/…`
    pub async fn unpin_path(&self, path: &str) -> Result<Pin> {
        self.document(Method::DELETE, &format!("/pins{}", escape_path(path))).await
    }

    /// `GET /allocations`; the filter is a comma-separated list of pin types.
    pub fn allocations(&self, filter: &str) -> Items<Pin> {
        self.stream(Method::GET, format!("/allocations?filter={}", escape(filter)), Payload::None)
    }

    /// `GET /allocations/{cid}`
    pub async fn allocation(&self, cid: Cid) -> Result<Pin> {
        self.document(Method::GET, &format!("/allocations/{cid}")).await
    }

    /// `GET /pins/{cid}`
    pub async fn status(&self, cid: Cid, local: bool) -> Result<GlobalPinInfo> {
        self.document(Method::GET, &format!("/pins/{cid}?local={local}")).await
    }

    /// `GET /pins`; the filter is a comma-separated list of statuses, empty for all.
    pub fn status_all(&self, filter: &str, local: bool) -> Items<GlobalPinInfo> {
        let target = format!("/pins?local={local}&filter={}&cids=", escape(filter));
        self.stream(Method::GET, target, Payload::None)
    }

    /// `GET /pins?cids=…`
    pub fn status_cids(&self, cids: &[Cid], local: bool) -> Items<GlobalPinInfo> {
        let cids: Vec<String> = cids.iter().map(Cid::to_string).collect();
        let target = format!("/pins?local={local}&filter=&cids={}", cids.join(","));
        self.stream(Method::GET, target, Payload::None)
    }

    /// `POST /pins/{cid}/recover`
    pub async fn recover(&self, cid: Cid, local: bool) -> Result<GlobalPinInfo> {
        self.document(Method::POST, &format!("/pins/{cid}/recover?local={local}")).await
    }

    /// `POST /pins/recover`
    pub fn recover_all(&self, local: bool) -> Items<GlobalPinInfo> {
        self.stream(Method::POST, format!("/pins/recover?local={local}"), Payload::None)
    }

    /// `POST /ipfs/gc`
    pub async fn repo_gc(&self, local: bool) -> Result<GlobalRepoGc> {
        self.document(Method::POST, &format!("/ipfs/gc?local={local}")).await
    }

    /// `GET /health/graph`
    pub async fn connect_graph(&self) -> Result<ConnectGraph> {
        self.document(Method::GET, "/health/graph").await
    }

    /// `GET /health/alerts`
    pub async fn alerts(&self) -> Result<Option<Vec<Alert>>> {
        self.document(Method::GET, "/health/alerts").await
    }

    /// `GET /health/bandwidth`
    pub async fn bandwidth(&self) -> Result<Option<Bandwidths>> {
        self.document(Method::GET, "/health/bandwidth").await
    }

    /// `GET /monitor/metrics/{name}`
    pub async fn metrics(&self, name: &str) -> Result<Option<Vec<Metric>>> {
        self.document(Method::GET, &format!("/monitor/metrics/{}", path_escape(name))).await
    }

    /// `GET /monitor/metrics`
    pub async fn metric_names(&self) -> Result<Option<Vec<String>>> {
        self.document(Method::GET, "/monitor/metrics").await
    }

    /// `POST /add`; the query is that of [`AddParams::to_query`](crate::types::AddParams::to_query).
    pub fn add(&self, query: &Query, upload: Box<dyn Upload>) -> Items<AddedOutput> {
        self.stream(Method::POST, format!("/add?{}", query.encode()), Payload::Files(upload))
    }
}

/// A path as it stands in a URL.
fn escape_path(path: &str) -> String {
    path.split('/').map(path_escape).collect::<Vec<_>>().join("/")
}
