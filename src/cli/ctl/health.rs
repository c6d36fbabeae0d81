//! Monitoring: the connectivity graph, metrics, alerts, bandwidth; and garbage collection.

use super::graph::dot;
use super::output::{Failure, Output};
use super::{Request, write_file};

/// `health graph`
pub(super) async fn graph(request: &Request<'_>, output: &mut Output<'_>) -> Result<(), Failure> {
    let graph = request.client.connect_graph().await?;
    let text = dot(&graph, request.flags.bool("all-ipfs-peers"));
    match request.flags.string("file") {
        "" => output.raw(&text),
        path => write_file(path, text.as_bytes()),
    }
}

/// `health metrics`
pub(super) async fn metrics(request: &Request<'_>, output: &mut Output<'_>) -> Result<(), Failure> {
    match request.arg(0).as_str() {
        "" => output.list(request.client.metric_names().await?.as_deref()),
        name => output.list(request.client.metrics(name).await?.as_deref()),
    }
}

/// `health alerts`
pub(super) async fn alerts(request: &Request<'_>, output: &mut Output<'_>) -> Result<(), Failure> {
    output.list(request.client.alerts().await?.as_deref())
}

/// `health bandwidth`
pub(super) async fn bandwidth(request: &Request<'_>, output: &mut Output<'_>) -> Result<(), Failure> {
    output.show(&request.client.bandwidth().await?)
}

/// `ipfs gc`
pub(super) async fn gc(request: &Request<'_>, output: &mut Output<'_>) -> Result<(), Failure> {
    output.show(&request.client.repo_gc(request.local()).await?)
}
