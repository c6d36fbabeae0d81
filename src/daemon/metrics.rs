//! The metrics listener: what Prometheus reads, and what Go's profiler would answer (spec: metrics).

use std::sync::Arc;
use std::time::Duration;

use cluster_compat::http::conn::{self, ConnOptions, Handler};
use cluster_compat::http::listen::Listener;
use cluster_compat::http::respond::{self, Body, Response};
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::process;
use crate::cluster::VERSION;
use crate::net::Network;
use crate::observe::page::{Kind, Page};
use crate::rpc;
use crate::store::{self, Db, Table};
use crate::tracker::Tracker;

/// What Prometheus is told the text is.
const TEXT_FORMAT: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");

const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Answers to what only a Go program has.
const NO_PROFILER: &str = "this peer is no Go program and has no Go profiler: there is nothing under /debug/pprof, \
                           /debug/rpcz and /debug/tracez. Figures are under /metrics and /debug/vars; a CPU profile of \
                           the process can be taken with `perf record -g -p <pid>`\n";

/// Whom the figures are asked of.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) db: Db,
    pub(super) network: Network,
    pub(super) tracker: Tracker,
    /// Whether requests and calls are counted too.
    pub(super) is_traced: bool,
}

/// Serves until `stop`.
pub(super) async fn serve(listener: Listener, sources: Sources, stop: CancellationToken) {
    info!(target: "service", "stats collection enabled on {}", listener.local_addr());
    let handler: Handler = Arc::new(move |request, _| {
        let sources = sources.clone();
        Box::pin(async move { answer(request.method(), request.uri().path(), sources).await })
    });
    let options = ConnOptions {
        write_timeout: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(300),
        max_connections: MAX_CONNECTIONS,
        ..ConnOptions::default()
    };
    conn::serve(listener, handler, options, stop).await;
}

/// Readers at a time: one Prometheus, a few people.
const MAX_CONNECTIONS: usize = 64;

async fn answer(method: &Method, path: &str, sources: Sources) -> Response {
    if method != Method::GET && method != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "Method Not Allowed\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => match tokio::task::spawn_blocking(move || page(&sources)).await {
            Ok(Ok(page)) => text(StatusCode::OK, TEXT_FORMAT, page),
            Ok(Err(cause)) => failed(&cause),
            Err(cause) => failed(&cause),
        },
        "/debug/vars" => {
            let json = HeaderValue::from_static("application/json; charset=utf-8");
            text(StatusCode::OK, json, vars())
        }
        "/debug/rpcz" | "/debug/tracez" => text(StatusCode::NOT_IMPLEMENTED, PLAIN, NO_PROFILER),
        path if path.starts_with("/debug/pprof") => text(StatusCode::NOT_IMPLEMENTED, PLAIN, NO_PROFILER),
        _ => text(StatusCode::NOT_FOUND, PLAIN, "404 page not found\n"),
    }
}

fn failed(cause: &dyn std::fmt::Display) -> Response {
    error!(target: "service", "metrics: {cause}");
    text(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{cause}\n"))
}

fn text(status: StatusCode, kind: HeaderValue, body: impl Into<String>) -> Response {
    let mut response = respond::empty(status).map(|_| Body::whole(body.into()));
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// What a Go program answers there, as far as we have it: the command line, and figures of the process.
fn vars() -> String {
    let process = process::read();
    let command: Vec<String> = std::env::args().collect();
    let n_tasks =
        tokio::runtime::Handle::try_current().map_or(0, |handle| handle.metrics().num_alive_tasks());
    let vars = serde_json::json!({
        "cmdline": command,
        "version": env!("CARGO_PKG_VERSION"),
        "compatible_with": VERSION,
        "tasks": n_tasks,
        "cpu_seconds": process.cpu_seconds,
        "resident_memory_bytes": process.resident_bytes,
        "virtual_memory_bytes": process.virtual_bytes,
        "open_fds": process.n_open_files,
    });
    format!("{vars:#}\n")
}

/// The whole page. Blocks for a look into the database.
fn page(sources: &Sources) -> Result<String, store::Error> {
    let mut page = Page::default();
    let name = "ipfscluster_build_info";
    page.family(name, Kind::Gauge, "The version of this program, and of the one it takes the place of");
    page.sample(&[("version", env!("CARGO_PKG_VERSION")), ("compatible_with", VERSION)], 1);
    let operations = sources.tracker.counts();
    let mut gauge = |name: &str, help: &str, value: u64| page.single(name, Kind::Gauge, help, value);
    gauge("ipfscluster_pins", "Total number of cluster pins", sources.db.len(Table::Values)?);
    gauge("ipfscluster_pins_pin_queued", "Current number of pins queued for pinning", operations.queued);
    gauge("ipfscluster_pins_pinning", "Current number of pins currently pinning", operations.pinning);
    gauge("ipfscluster_pins_pin_error", "Current number of pins in pin_error state", operations.errors);
    gauge("ipfscluster_datastore_size_bytes", "Bytes of the database on disk", sources.db.size_bytes()?);
    gauge(
        "ipfscluster_crdt_stored_nodes",
        "Nodes of the DAG in the database",
        sources.db.len(Table::Blocks)?,
    );
    gauge(
        "ipfscluster_peers_connected",
        "Peers with a connection",
        sources.network.connected_peers().len() as u64,
    );
    let n_tasks =
        tokio::runtime::Handle::try_current().map_or(0, |handle| handle.metrics().num_alive_tasks());
    gauge("ipfscluster_tasks", "Tasks of the runtime", n_tasks as u64);
    page.counted();
    if sources.is_traced {
        page.traced(&rpc::method_names());
    }
    swarm(&mut page, &sources.network);
    of_process(&mut page);
    Ok(page.into_text())
}

/// What Go's library says of its swarm, as far as ours knows it.
fn swarm(page: &mut Page, network: &Network) {
    let figures = network.figures();
    page.family("libp2p_rcmgr_connections", Kind::Gauge, "Number of Connections");
    for (dir, n) in figures.connections {
        page.sample(&[("dir", dir), ("scope", "system")], n);
    }
    page.family("libp2p_rcmgr_streams", Kind::Gauge, "Number of Streams");
    for (i, (dir, _)) in figures.connections.into_iter().enumerate() {
        let all: i64 = figures.streams.values().map(|n| n[i]).sum();
        page.sample(&[("dir", dir), ("protocol", ""), ("scope", "system")], all);
        for (protocol, n) in figures.streams.iter().filter(|(protocol, _)| !protocol.is_empty()) {
            page.sample(&[("dir", dir), ("protocol", protocol), ("scope", "protocol")], n[i]);
        }
    }
    let n_connections: i64 = figures.connections.iter().map(|(_, n)| n).sum();
    page.family(
        "libp2p_rcmgr_fds",
        Kind::Gauge,
        "Number of file descriptors reserved as reported to the Resource Manager",
    );
    page.sample(&[("scope", "system")], n_connections);
    page.family("libp2p_rcmgr_limit", Kind::Gauge, "Resource manager limits");
    let limits = figures.limits;
    let unlimited = |limit: Option<u32>| limit.map_or(i64::MAX, i64::from);
    for (resource, limit) in [
        ("conns", limits.max_connections),
        ("conns_inbound", limits.max_incoming),
        ("conns_outbound", None),
        ("fd", limits.max_connections),
        ("streams", None),
        ("streams_inbound", None),
        ("streams_outbound", None),
    ] {
        page.sample(&[("resource", resource), ("scope", "system")], unlimited(limit));
    }
    if !figures.opened.is_empty() {
        page.family("libp2p_swarm_connections_opened_total", Kind::Counter, "Connections Opened");
        figures.opened.iter().for_each(|(labels, n)| page.sample(labels, n));
    }
    if !figures.key_types.is_empty() {
        page.family("libp2p_swarm_key_types_total", Kind::Counter, "key type");
        for (dir, key_type, n) in figures.key_types {
            page.sample(&[("dir", dir), ("key_type", key_type)], n);
        }
    }
    if figures.identified.iter().any(|(_, n)| *n > 0) {
        page.family("libp2p_identify_identify_total", Kind::Counter, "Identify");
        for (dir, n) in figures.identified {
            page.sample(&[("dir", dir)], n);
        }
    }
    let name = "ipfscluster_traffic_bytes";
    page.family(name, Kind::Counter, "Bytes exchanged with other peers, by protocol");
    for (protocol, traffic) in &figures.traffic {
        page.sample(&[("dir", "inbound"), ("protocol", protocol)], traffic.total_in);
        page.sample(&[("dir", "outbound"), ("protocol", protocol)], traffic.total_out);
    }
}

fn of_process(page: &mut Page) {
    use Kind::{Counter, Gauge};
    let process = process::read();
    let help = "Total user and system CPU time spent in seconds.";
    page.single("process_cpu_seconds_total", Counter, help, process.cpu_seconds);
    page.single("process_max_fds", Gauge, "Maximum number of open file descriptors.", process.max_files);
    let help = "Number of bytes received by the process over the network.";
    page.single("process_network_receive_bytes_total", Counter, help, process.received_bytes);
    let help = "Number of bytes sent by the process over the network.";
    page.single("process_network_transmit_bytes_total", Counter, help, process.sent_bytes);
    page.single("process_open_fds", Gauge, "Number of open file descriptors.", process.n_open_files);
    page.single(
        "process_resident_memory_bytes",
        Gauge,
        "Resident memory size in bytes.",
        process.resident_bytes,
    );
    let help = "Start time of the process since unix epoch in seconds.";
    page.single("process_start_time_seconds", Gauge, help, process.began_unix_seconds);
    page.single(
        "process_virtual_memory_bytes",
        Gauge,
        "Virtual memory size in bytes.",
        process.virtual_bytes,
    );
    let help = "Maximum amount of virtual memory available in bytes.";
    page.single("process_virtual_memory_max_bytes", Gauge, help, process.max_virtual_bytes);
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_process_is_described_as_the_system_sees_it() {
        let process = process::read();
        assert!(
            process.resident_bytes > 1 << 20 && process.virtual_bytes > process.resident_bytes,
            "{process:?}"
        );
        assert!(process.n_open_files > 2 && process.max_files >= process.n_open_files, "{process:?}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - process.began_unix_seconds;
        assert!((-2.0..3600.0 * 24.0).contains(&age), "{process:?}");
        let mut page = Page::default();
        of_process(&mut page);
        assert_eq!(page.into_text().matches("# TYPE process_").count(), 9);
    }
}
