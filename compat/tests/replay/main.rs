//! Recordings of ipfs-cluster 1.1.6, replayed against the faces over a fake cluster and a fake daemon.
//!
//! A test names its recording, says what the cluster held then, and leaves the rest to `testing::golden`. Steps that
//! tell what only a whole peer knows say so in the file (`whole`) and are left out.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed test may panic")]

mod proxy;
mod recorder;
mod rest;
mod security;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cluster_compat::api::ClusterApi;
use cluster_compat::config::{Config, Consensus, Engine, Env};
use cluster_compat::http::listen::Listener;
use cluster_compat::pinsvc::PinSvc;
use cluster_compat::proxy::Proxy;
use cluster_compat::rest::Rest;
use cluster_compat::testing::cluster::FakeCluster;
use cluster_compat::testing::golden::replay::Faces;
use cluster_compat::testing::golden::{Face, Recording, Replay};
use cluster_compat::testing::kubo::{FakeKubo, Part, Rule};
use cluster_compat::types::{Metric, Multiaddr, parse_cid, parse_multiaddr};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A recording about to be replayed, and what stands behind the faces.
struct Stage {
    path: PathBuf,
    faces: Faces,
    cluster: FakeCluster,
    kubo: FakeKubo,
    _serving: JoinSet<()>,
}

/// Serves the faces as the recording configures them.
async fn stage(name: &str) -> Stage {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(format!("{name}.json"));
    let recording = Recording::load(&path).unwrap();
    let kubo = FakeKubo::start().await.unwrap();
    kubo.set_rules(header_rules());
    let config = configuration(&recording, kubo.multiaddr());
    let cluster = FakeCluster::new();
    if config.cluster.follower_mode {
        cluster.set_follower();
    }
    for metric in metrics(&recording) {
        cluster.insert_metric(metric);
    }
    let api: Arc<dyn ClusterApi> = Arc::new(cluster.clone());
    let (mut faces, mut serving) = (Faces::new(), JoinSet::new());
    let folder = Path::new(".");
    let (listener, addr) = listen().await;
    faces.insert(Face::Rest, addr);
    let rest = Rest::new(&config.restapi, folder, Arc::clone(&api)).unwrap();
    serving.spawn(rest.serve(vec![listener], CancellationToken::new()));
    let (listener, addr) = listen().await;
    faces.insert(Face::Pinsvc, addr);
    let pinsvc = PinSvc::new(&config.pinsvcapi, folder, Arc::clone(&api)).unwrap();
    serving.spawn(pinsvc.serve(vec![listener], CancellationToken::new()));
    let (listener, addr) = listen().await;
    faces.insert(Face::Proxy, addr);
    let proxy = Proxy::new(&config.ipfsproxy, folder, api).unwrap();
    serving.spawn(proxy.serve(vec![listener], CancellationToken::new()));
    Stage { path, faces, cluster, kubo, _serving: serving }
}

impl Stage {
    async fn replay(&self) {
        Replay::load(&self.path, self.faces.clone()).unwrap().check(Some(&self.kubo)).await;
    }

    fn insert_paths(&self, paths: &[(&str, &str)]) {
        for (path, cid) in paths {
            self.cluster.insert_path(path, parse_cid(cid).unwrap());
        }
    }
}

/// Replays a recording that needs nothing in the cluster.
async fn replay(name: &str) {
    stage(name).await.replay().await;
}

async fn listen() -> (Listener, std::net::SocketAddr) {
    let any: Multiaddr = parse_multiaddr("/ip4/127.0.0.1/tcp/0").unwrap();
    let listener = Listener::bind(&any).await.unwrap();
    let port: u16 = listener.local_addr().to_string().rsplit('/').next().unwrap().parse().unwrap();
    (listener, ([127, 0, 0, 1], port).into())
}

/// The defaults, the keys of the recording over them, and the daemon.
fn configuration(recording: &Recording, daemon: &str) -> Config {
    let folder = Path::new("/");
    let defaults = Config::defaults(Consensus::Crdt, Engine::Lmdb, folder).to_json();
    let mut document: Value = serde_json::from_str(&defaults).unwrap();
    for (key, value) in &recording.configuration {
        let at = key.split('/').fold(&mut document, |at, name| &mut at[name]);
        *at = value.clone();
    }
    document["api"]["ipfsproxy"]["node_multiaddress"] = daemon.into();
    Config::parse(&document.to_string(), folder, &Env::default()).unwrap()
}

/// What the peer had measured, by the answers of the recording: one of each name.
fn metrics(recording: &Recording) -> Vec<Metric> {
    let steps = recording.steps.iter().filter(|step| step.target.starts_with("/monitor/metrics/"));
    let listed = steps.filter_map(|step| serde_json::from_str::<Vec<Metric>>(step.answer.body.text()).ok());
    let by_name: BTreeMap<String, Metric> =
        listed.flatten().map(|metric| (metric.name.clone(), metric)).collect();
    by_name.into_values().collect()
}

/// Kubo's answers to requests that ask for headers alone.
fn header_rules() -> Vec<Rule> {
    let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
    let preflight = format!("HTTP/1.1 204 No Content\r\nVary: {vary}\r\nConnection: close\r\n\r\n");
    let version = "HTTP/1.1 200 OK\r\nAccess-Control-Expose-Headers: X-Stream-Output, X-Chunked-Output, X-Content-Length\r\n\
                   Content-Type: application/json\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    vec![
        Rule::new("OPTIONS ", vec![Part::Bytes(preflight.into_bytes())]),
        Rule::new("POST /api/v0/version", vec![Part::Bytes(version.as_bytes().to_vec())]),
    ]
}
