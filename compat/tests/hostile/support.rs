//! The three faces over one fake cluster, and how they are asked.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cluster_compat::api::ClusterApi;
use cluster_compat::config::{self, HttpApi};
use cluster_compat::go::time::Duration as GoDuration;
use cluster_compat::http::listen::Listener;
use cluster_compat::pinsvc::PinSvc;
use cluster_compat::proxy::Proxy;
use cluster_compat::rest::Rest;
use cluster_compat::testing::cluster::FakeCluster;
use cluster_compat::testing::kubo::FakeKubo;
use cluster_compat::types::parse_multiaddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long one exchange may take before the test says which it was.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
pub(crate) const CID: &str = "QmXw2sSTXLXyJjrAv6rnWL1oZ1HA8eqvkrngCm7dpxjtFM";

/// All faces, their cluster and the daemon behind the proxy; they stop when this is dropped.
pub(crate) struct Faces {
    pub(crate) rest: SocketAddr,
    pub(crate) proxy: SocketAddr,
    pub(crate) pinsvc: SocketAddr,
    pub(crate) cluster: FakeCluster,
    pub(crate) kubo: FakeKubo,
    _serving: JoinSet<()>,
}

/// Limits of the connections under test; zero is none.
#[derive(Default, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) head: Duration,
    pub(crate) request: Duration,
    pub(crate) idle: Duration,
}

pub(crate) async fn faces() -> Faces {
    faces_with(Limits { head: LIMIT, request: Duration::ZERO, idle: LIMIT }).await
}

pub(crate) async fn faces_with(limits: Limits) -> Faces {
    let cluster = FakeCluster::new();
    let kubo = FakeKubo::start().await.unwrap();
    let api: Arc<dyn ClusterApi> = Arc::new(cluster.clone());
    let mut serving = JoinSet::new();
    let go = |limit: Duration| GoDuration::from_millis(limit.as_millis() as i64);
    let timed = |mut config: HttpApi| {
        config.read_header_timeout = go(limits.head);
        config.read_timeout = go(limits.request);
        config.idle_timeout = go(limits.idle);
        config
    };
    let (listener, rest) = listen().await;
    let face = Rest::new(&timed(HttpApi::rest()), Path::new("."), Arc::clone(&api)).unwrap();
    serving.spawn(face.serve(vec![listener], CancellationToken::new()));
    let (listener, pinsvc) = listen().await;
    let face = PinSvc::new(&timed(HttpApi::pinsvc()), Path::new("."), Arc::clone(&api)).unwrap();
    serving.spawn(face.serve(vec![listener], CancellationToken::new()));
    let (listener, proxy) = listen().await;
    let config = config::Proxy {
        node_multiaddress: parse_multiaddr(kubo.multiaddr()).unwrap(),
        read_header_timeout: go(limits.head),
        read_timeout: go(limits.request),
        idle_timeout: go(limits.idle),
        ..config::Proxy::default()
    };
    let face = Proxy::new(&config, Path::new("."), api).unwrap();
    serving.spawn(face.serve(vec![listener], CancellationToken::new()));
    Faces { rest, proxy, pinsvc, cluster, kubo, _serving: serving }
}

/// A listener on a port given by the system.
pub(crate) async fn listen() -> (Listener, SocketAddr) {
    let listener = Listener::bind(&parse_multiaddr("/ip4/127.0.0.1/tcp/0").unwrap()).await.unwrap();
    let port = listener.local_addr().to_string().rsplit('/').next().unwrap().parse().unwrap();
    (listener, SocketAddr::from(([127, 0, 0, 1], port)))
}

impl Faces {
    /// Each face by name, with a request that it answers with 200 or 404 and nothing else.
    pub(crate) fn all(&self) -> [(&'static str, SocketAddr, String); 3] {
        [
            ("rest", self.rest, format!("GET /allocations/{CID}")),
            ("proxy", self.proxy, "POST /api/v0/version".into()),
            ("pinsvc", self.pinsvc, "GET /pins?limit=1".into()),
        ]
    }

    /// Every face still answers.
    pub(crate) async fn are_well(&self, after: &str) {
        for (name, addr, line) in self.all() {
            let answer = ask(addr, &format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
            assert!(
                answer.starts_with("HTTP/1.1 200 ") || answer.starts_with("HTTP/1.1 404 "),
                "{name} after {after}: {answer}"
            );
        }
    }
}

/// Sends bytes, ends the client's side and reads to the end.
pub(crate) async fn tell(addr: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let mut reply = Vec::new();
    let exchange = async {
        // a server may refuse before it has read everything
        let _ = stream.write_all(request).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut reply).await;
    };
    tokio::time::timeout(LIMIT, exchange)
        .await
        .unwrap_or_else(|_| panic!("no end after {}", request.escape_ascii()));
    reply
}

/// The same in text.
pub(crate) async fn ask(addr: SocketAddr, request: &str) -> String {
    String::from_utf8_lossy(&tell(addr, request.as_bytes()).await).into_owned()
}
