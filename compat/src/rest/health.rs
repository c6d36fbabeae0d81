//! How the cluster is: connections, alerts, metrics, traffic; and the daemons' garbage.

use http::StatusCode;

use super::{Answer, Call};
use crate::http::respond;

/// `GET /health`
pub(super) async fn alive(_: Call) -> Answer {
    Ok(respond::empty_json(StatusCode::NO_CONTENT))
}

/// `GET /health/graph`
pub(super) async fn graph(call: Call) -> Answer {
    Ok(respond::json(StatusCode::OK, &call.api.connect_graph().await?))
}

/// `GET /health/alerts`
pub(super) async fn alerts(call: Call) -> Answer {
    Ok(respond::json(StatusCode::OK, &call.api.alerts().await?))
}

/// `GET /health/bandwidth`
pub(super) async fn bandwidth(call: Call) -> Answer {
    Ok(respond::json(StatusCode::OK, &call.api.bandwidth().await?))
}

/// `GET /monitor/metrics`
pub(super) async fn metric_names(call: Call) -> Answer {
    Ok(respond::json(StatusCode::OK, &call.api.metric_names().await?))
}

/// `GET /monitor/metrics/{name}`
pub(super) async fn metrics(call: Call) -> Answer {
    Ok(respond::json(StatusCode::OK, &call.api.metrics(call.params.get("name")).await?))
}

/// `POST /ipfs/gc`
pub(super) async fn repo_gc(call: Call) -> Answer {
    Ok(respond::json(StatusCode::OK, &call.api.repo_gc(call.is_local()).await?))
}
