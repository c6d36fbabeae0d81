//! A proxy, what it stands between, and how it is asked.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cluster_compat::config;
use cluster_compat::http::conn::{self, ConnOptions, Handler};
use cluster_compat::http::listen::Listener;
use cluster_compat::proxy::Proxy;
use cluster_compat::testing::cluster::FakeCluster;
use cluster_compat::testing::golden::{self, Answer};
use cluster_compat::testing::kubo::{FakeKubo, Part, Rule};
use cluster_compat::types::{Multiaddr, Pin, PinMode, PinOptions, parse_cid, parse_multiaddr};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long one exchange may take before the test says which it was.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
pub(crate) const ALPHA: &str = "QmV4STRyo1dygxGhZcr877TQ1M9AZuXhfm6HrXjxW1TYNP";
pub(crate) const BRAVO: &str = "QmZsrhtGAKaHJFJBdgxxyiPgZKjrWtdwCBLx4UjnztDF9Z";
pub(crate) const ABSENT: &str = "QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN";
pub(crate) const VARY: &str = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

/// A proxy and what it stands between; it stops when dropped.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) cluster: FakeCluster,
    _serving: JoinSet<()>,
}

pub(crate) async fn serve(daemon: Multiaddr) -> Server {
    serve_with(config::Proxy { node_multiaddress: daemon, ..config::Proxy::default() }).await
}

pub(crate) async fn serve_with(config: config::Proxy) -> Server {
    let cluster = FakeCluster::new();
    let proxy = Proxy::new(&config, Path::new("."), Arc::new(cluster.clone())).unwrap();
    let listener = Listener::bind(&parse_multiaddr("/ip4/127.0.0.1/tcp/0").unwrap()).await.unwrap();
    let addr = socket_addr(&listener);
    let mut serving = JoinSet::new();
    serving.spawn(proxy.serve(vec![listener], CancellationToken::new()));
    Server { addr, cluster, _serving: serving }
}

pub(crate) fn socket_addr(listener: &Listener) -> SocketAddr {
    let port = listener.local_addr().to_string().rsplit('/').next().unwrap().parse().unwrap();
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A fake daemon that answers preflights and `version` with Kubo's headers.
pub(crate) async fn kubo() -> FakeKubo {
    let kubo = FakeKubo::start().await.unwrap();
    kubo.set_rules(header_rules());
    kubo
}

pub(crate) fn header_rules() -> Vec<Rule> {
    let preflight = format!("HTTP/1.1 204 No Content\r\nVary: {VARY}\r\nConnection: close\r\n\r\n");
    let version = "HTTP/1.1 200 OK\r\nAccess-Control-Expose-Headers: X-Stream-Output, X-Chunked-Output, X-Content-Length\r\n\
                   Content-Type: application/json\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    vec![
        Rule::new("OPTIONS ", vec![Part::Bytes(preflight.into_bytes())]),
        Rule::new("POST /api/v0/version", vec![Part::Bytes(version.as_bytes().to_vec())]),
    ]
}

pub(crate) async fn with_kubo() -> (Server, FakeKubo) {
    let kubo = kubo().await;
    let server = serve(parse_multiaddr(kubo.multiaddr()).unwrap()).await;
    (server, kubo)
}

/// A daemon of a test's own.
pub(crate) async fn daemon(handler: Handler) -> (Multiaddr, JoinSet<()>) {
    let listener = Listener::bind(&parse_multiaddr("/ip4/127.0.0.1/tcp/0").unwrap()).await.unwrap();
    let addr = listener.local_addr();
    let mut serving = JoinSet::new();
    serving.spawn(conn::serve(listener, handler, ConnOptions::default(), CancellationToken::new()));
    (addr, serving)
}

/// One request, written as it stands; `Connection: close` is added.
pub(crate) async fn ask(server: &Server, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}{length}\r\n");
    let request = [head.as_bytes(), body].concat();
    let reply = tokio::time::timeout(LIMIT, golden::send(server.addr, &request)).await;
    let reply = reply.unwrap_or_else(|_| panic!("{method} {target}: no answer")).unwrap();
    golden::parse(&reply, method).unwrap_or_else(|| panic!("{target}: {}", String::from_utf8_lossy(&reply)))
}

pub(crate) async fn post(server: &Server, target: &str) -> Answer {
    ask(server, "POST", target, "", b"").await
}

pub(crate) fn text(answer: &Answer) -> &str {
    answer.body.text()
}

pub(crate) fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

pub(crate) fn pin(cid: &str, mode: PinMode, name: &str) -> Pin {
    let options = PinOptions { mode, name: name.into(), ..PinOptions::default() };
    Pin::with_options(parse_cid(cid).unwrap(), options)
}
