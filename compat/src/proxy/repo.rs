//! `repo/stat` and `repo/gc` over all of the cluster's daemons (spec: ipfs-proxy 7.8, 7.9; rulings: proxy Q-P14,
//! Q-P20).

use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, USER_AGENT};
use http_body::Frame;
use http_body_util::{BodyExt, Limited};
use serde::{Deserialize, Serialize};
use tracing::error;

use super::{Shared, error as reply, ok, pin};
use crate::api::ClusterApi;
use crate::go::json;
use crate::go::query::Query;
use crate::http::client::no_body;
use crate::http::respond::{Lines, Response, X_STREAM_ERROR, header_safe};
use crate::types::Cid;

/// Longest answer of a daemon about its repository.
const MAX_STAT: usize = 1 << 20;

/// Longest wait for the daemon's own figures; counting the objects of a large repository takes its time.
const OWN_STAT_TIMEOUT: Duration = Duration::from_secs(60);

/// Kubo's figures: the sizes are the cluster's, the rest is this peer's daemon's.
#[derive(Serialize)]
struct Stat {
    #[serde(rename = "RepoSize")]
    repo_size: u64,
    #[serde(rename = "StorageMax")]
    storage_max: u64,
    #[serde(flatten)]
    own: OwnStat,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct OwnStat {
    #[serde(rename = "NumObjects")]
    num_objects: u64,
    #[serde(rename = "RepoPath")]
    repo_path: String,
    #[serde(rename = "Version")]
    version: String,
}

/// The sizes of all repositories together.
pub(super) async fn stat(shared: &Arc<Shared>, query: &Query, raw_query: Option<&str>) -> Response {
    let is_human = query.get("encoding") == "text";
    let raw_query = raw_query.filter(|_| !is_human);
    // Kubo counts no objects and names no path then; the cluster's own question does not tell them either
    let wants_sizes_only = query.get("size-only") == "true";
    let own = async { if wants_sizes_only { OwnStat::default() } else { own_stat(shared, raw_query).await } };
    let (sum, own) = tokio::join!(shared.api.repo_stat(), own);
    match sum {
        Ok(sum) => ok(json::to_vec(&Stat { repo_size: sum.repo_size, storage_max: sum.storage_max, own })),
        Err(e) => reply::from_api(&e),
    }
}

/// What only this peer's daemon knows; nothing, if it does not say.
async fn own_stat(shared: &Shared, raw_query: Option<&str>) -> OwnStat {
    let asked = async {
        let target =
            format!("/api/v0/repo/stat{}", raw_query.map_or_else(String::new, |query| format!("?{query}")));
        let request = http::Request::post(shared.daemon.uri(&target).map_err(|e| e.to_string())?)
            .header(CONTENT_LENGTH, "0")
            .header(USER_AGENT, "Go-http-client/1.1")
            .body(no_body())
            .map_err(|e| e.to_string())?;
        let answer = shared.daemon.send(request).await.map_err(|e| e.to_string())?;
        let body = Limited::new(answer.into_body(), MAX_STAT).collect().await.map_err(|e| e.to_string())?;
        serde_json::from_slice(&body.to_bytes()).map_err(|e| e.to_string())
    };
    let late = || Err(format!("no answer in {OWN_STAT_TIMEOUT:?}"));
    let told = tokio::time::timeout(OWN_STAT_TIMEOUT, asked).await.unwrap_or_else(|_| late());
    told.unwrap_or_else(|e: String| {
        error!(target: "ipfsproxy", "cannot ask the daemon for repo/stat: {e}");
        OwnStat::default()
    })
}

/// One removed block, or why one was not.
#[derive(Serialize)]
struct Removed {
    #[serde(rename = "Key")]
    key: Option<Link>,
    #[serde(rename = "Error", skip_serializing_if = "String::is_empty")]
    error: String,
}

#[derive(Serialize)]
struct Link {
    #[serde(rename = "/")]
    cid: String,
}

/// Collects the garbage of all daemons; the answer comes when the last has finished.
pub(super) async fn gc(api: &dyn ClusterApi, query: &Query) -> Response {
    let shows_errors = query.get("stream-errors") == "true";
    let result = match api.repo_gc(false).await {
        Ok(result) => result,
        Err(e) => return announced(reply::from_api(&e)),
    };
    let mut lines = Lines::default();
    let mut frames = Vec::new();
    let mut errors = String::new();
    for key in result.peer_map.into_values().flat_map(|peer| peer.keys.unwrap_or_default()) {
        let failed = !key.error.is_empty();
        let cid = key.key.filter(|_| !failed).map(|cid: Cid| Link { cid: cid.to_string() });
        if failed && !shows_errors {
            errors.push_str(&key.error);
            errors.push_str("; ");
        }
        let error = if shows_errors { key.error } else { String::new() };
        frames.push(Ok(Frame::data(lines.line(&Removed { key: cid, error }))));
    }
    if !errors.is_empty() {
        let mut trailers = HeaderMap::new();
        trailers.insert(X_STREAM_ERROR, header_safe(&errors));
        frames.push(Ok(Frame::trailers(trailers)));
    }
    pin::streamed(stream::iter(frames))
}

fn announced(mut response: Response) -> Response {
    response.headers_mut().insert(http::header::TRAILER, HeaderValue::from_static("X-Stream-Error"));
    response
}
