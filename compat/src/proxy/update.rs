//! `pin/update` (spec: ipfs-proxy 7.4; rulings: proxy Q-P8, the order of update and unpin).

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;
use tracing::{error, warn};

use super::{Shared, error as reply, path, pin};
use crate::api::ClusterApi;
use crate::go::query::Query;
use crate::types::{Cid, PinOptions, TrackerStatus};

/// How long the answer waits for the daemons; the old pin goes later if they need longer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause between looks at a pin under way: at first, and at most.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LOOK_EVERY_MAX: Duration = Duration::from_secs(5);
/// After this long a pin that does not come is left beside the old one.
const GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Pins `to` as an update of `from`; then unpins `from`, unless told otherwise or both are the same.
pub(super) async fn update(shared: &Arc<Shared>, query: &Query) -> super::Response {
    let mut args = query.get_all("arg");
    let Some(from) = args.next() else {
        return reply::with_status(StatusCode::BAD_REQUEST, "argument \"from-path\" is required");
    };
    let Some(to) = args.next() else {
        return reply::with_status(StatusCode::BAD_REQUEST, "argument \"to-path\" is required");
    };
    let from = match path::parse(from) {
        Ok(path) => path,
        Err(e) => return reply::internal(&format!("error parsing \"from-path\" argument: {e}")),
    };
    let to = match path::parse(to) {
        Ok(path) => path,
        Err(e) => return reply::internal(&format!("error parsing \"to-path\" argument: {e}")),
    };
    let keeps = query.get("unpin") == "false";
    match perform(shared, &from, &to, keeps).await {
        Ok((from, to)) => pin::pins(&[from, to]),
        Err(e) => reply::from_api(&e),
    }
}

async fn perform(shared: &Arc<Shared>, from: &str, to: &str, keeps: bool) -> crate::api::Result<(Cid, Cid)> {
    let api = &shared.api;
    let from = api.resolve(from).await?;
    let options = PinOptions { pin_update: Some(from), ..PinOptions::default() };
    let pin = api.pin_path(to, options).await?;
    let to = pin.cid;
    if keeps || from == to {
        return Ok((from, to));
    }
    match wait(&**api, to, PATIENCE).await {
        Some(true) => {
            api.unpin(from).await?;
        }
        Some(false) => warn!(target: "ipfsproxy", %from, %to, "the updated pin failed: the old one stays"),
        None => {
            let shared_later = Arc::clone(shared);
            shared.tasks.spawn(async move {
                let stop = shared_later.stop.clone();
                tokio::select! {
                    () = stop.cancelled() => warn!(target: "ipfsproxy", %from, %to, "stopped before the updated pin was there: the old one stays"),
                    () = unpin_later(&*shared_later.api, from, to) => {}
                }
            });
        }
    }
    Ok((from, to))
}

async fn unpin_later(api: &dyn ClusterApi, from: Cid, to: Cid) {
    if wait(api, to, GIVE_UP_AFTER).await != Some(true) {
        warn!(target: "ipfsproxy", %from, %to, "the updated pin did not succeed: the old one stays");
        return;
    }
    if let Err(e) = api.unpin(from).await {
        error!(target: "ipfsproxy", %from, "cannot unpin after an update: {e}");
    }
}

/// Whether the daemons got a pin (`Some(true)`), failed to (`Some(false)`), or are still at it.
async fn wait(api: &dyn ClusterApi, cid: Cid, patience: Duration) -> Option<bool> {
    let until = Instant::now() + patience;
    let mut pause = LOOK_EVERY;
    loop {
        if let Ok(info) = api.status(cid, false).await {
            let statuses: Vec<TrackerStatus> = info.peer_map.values().map(|peer| peer.status).collect();
            let is = |wanted: TrackerStatus| move |status: &TrackerStatus| *status == wanted;
            if statuses.iter().any(is(TrackerStatus::PIN_ERROR)) {
                return Some(false);
            }
            let is_there =
                |status: &TrackerStatus| *status == TrackerStatus::PINNED || *status == TrackerStatus::REMOTE;
            if statuses.iter().any(is(TrackerStatus::PINNED)) && statuses.iter().all(is_there) {
                return Some(true);
            }
        }
        if Instant::now() + pause > until {
            return None;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK_EVERY_MAX);
    }
}
