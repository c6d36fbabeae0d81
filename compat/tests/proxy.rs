//! The IPFS proxy between a fake cluster and a fake daemon, held against recordings of ipfs-cluster 1.1.6.
//!
//! `replay` is the only place that talks to the proxy for recordings, `ask` the only one for single requests.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed test may panic")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster_compat::api;
use cluster_compat::config;
use cluster_compat::http::conn::{self, ConnOptions, Handler, Request, boxed};
use cluster_compat::http::listen::Listener;
use cluster_compat::http::respond::{self, Body};
use cluster_compat::proxy::Proxy;
use cluster_compat::testing::cluster::FakeCluster;
use cluster_compat::testing::golden::{self, Answer, Data, Recording};
use cluster_compat::testing::kubo::{FakeKubo, Part, Rule};
use cluster_compat::types::{Multiaddr, Pin, PinMode, PinOptions, parse_cid, parse_multiaddr};
use futures::StreamExt;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long one exchange may take before the test says which it was.
const LIMIT: Duration = Duration::from_secs(20);
const ALPHA: &str = "QmV4STRyo1dygxGhZcr877TQ1M9AZuXhfm6HrXjxW1TYNP";
const BRAVO: &str = "QmZsrhtGAKaHJFJBdgxxyiPgZKjrWtdwCBLx4UjnztDF9Z";
const ABSENT: &str = "QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN";
const VARY: &str = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

/// A proxy and what it stands between; it stops when dropped.
struct Server {
    addr: SocketAddr,
    cluster: FakeCluster,
    _serving: JoinSet<()>,
}

async fn serve(daemon: Multiaddr) -> Server {
    serve_with(config::Proxy { node_multiaddress: daemon, ..config::Proxy::default() }).await
}

async fn serve_with(config: config::Proxy) -> Server {
    let cluster = FakeCluster::new();
    let proxy = Proxy::new(&config, Path::new("."), Arc::new(cluster.clone())).unwrap();
    let listener = Listener::bind(&parse_multiaddr("/ip4/127.0.0.1/tcp/0").unwrap()).await.unwrap();
    let addr = socket_addr(&listener);
    let mut serving = JoinSet::new();
    serving.spawn(proxy.serve(vec![listener], CancellationToken::new()));
    Server { addr, cluster, _serving: serving }
}

fn socket_addr(listener: &Listener) -> SocketAddr {
    let port = listener.local_addr().to_string().rsplit('/').next().unwrap().parse().unwrap();
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A fake daemon that answers preflights and `version` with Kubo's headers.
async fn kubo() -> FakeKubo {
    let kubo = FakeKubo::start().await.unwrap();
    kubo.set_rules(header_rules());
    kubo
}

fn header_rules() -> Vec<Rule> {
    let preflight = format!("HTTP/1.1 204 No Content\r\nVary: {VARY}\r\nConnection: close\r\n\r\n");
    let version = "HTTP/1.1 200 OK\r\nAccess-Control-Expose-Headers: X-Stream-Output, X-Chunked-Output, X-Content-Length\r\n\
                   Content-Type: application/json\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    vec![
        Rule::new("OPTIONS ", vec![Part::Bytes(preflight.into_bytes())]),
        Rule::new("POST /api/v0/version", vec![Part::Bytes(version.as_bytes().to_vec())]),
    ]
}

async fn with_kubo() -> (Server, FakeKubo) {
    let kubo = kubo().await;
    let server = serve(parse_multiaddr(kubo.multiaddr()).unwrap()).await;
    (server, kubo)
}

/// A daemon of a test's own.
async fn daemon(handler: Handler) -> (Multiaddr, JoinSet<()>) {
    let listener = Listener::bind(&parse_multiaddr("/ip4/127.0.0.1/tcp/0").unwrap()).await.unwrap();
    let addr = listener.local_addr();
    let mut serving = JoinSet::new();
    serving.spawn(conn::serve(listener, handler, ConnOptions::default(), CancellationToken::new()));
    (addr, serving)
}

async fn replay(server: &Server, name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/proxy").join(name);
    for (i, step) in Recording::load(&path).unwrap().steps.iter().enumerate() {
        let what = format!("{name} {i}: {} {}", step.method, step.target);
        let answer = tokio::time::timeout(LIMIT, golden::exchange(server.addr, step)).await;
        let answer = answer.unwrap_or_else(|_| panic!("{what}: no answer")).unwrap();
        let expected = golden::comparable(step.ours.as_ref().unwrap_or(&step.answer), step.any_order);
        assert_eq!(golden::comparable(&answer, step.any_order), expected, "{what}");
    }
}

/// One request, written as it stands; `Connection: close` is added.
async fn ask(server: &Server, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}{length}\r\n");
    let request = [head.as_bytes(), body].concat();
    let reply = tokio::time::timeout(LIMIT, golden::send(server.addr, &request)).await;
    let reply = reply.unwrap_or_else(|_| panic!("{method} {target}: no answer")).unwrap();
    golden::parse(&reply, method).unwrap_or_else(|| panic!("{target}: {}", String::from_utf8_lossy(&reply)))
}

async fn post(server: &Server, target: &str) -> Answer {
    ask(server, "POST", target, "", b"").await
}

fn text(answer: &Answer) -> &str {
    match &answer.body {
        Data::Text(text) | Data::Base64(text) => text,
    }
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn pin(cid: &str, mode: PinMode, name: &str) -> Pin {
    let options = PinOptions { mode, name: name.into(), ..PinOptions::default() };
    Pin::with_options(parse_cid(cid).unwrap(), options)
}

#[tokio::test]
async fn pins_are_added_as_recorded() {
    let (server, _kubo) = with_kubo().await;
    let root = "QmQRiXcmgocXXUZHXdndiE9LSKM45YJnCFsyjjPmg2p8MN";
    let echo = "QmeVuM3FUyCqsZHvTea4ni2tee9ZeE9JExJ7oZsNpHXK1d";
    let charlie = "QmbSb6EFBiVTGUppGuvZhxSfTSuAcXGMZhWaMmv1CtU4qE";
    for (path, cid) in [
        (format!("/ipfs/{root}/a.txt"), ALPHA),
        (format!("/ipfs/{root}/sub/c.txt"), charlie),
        (format!("/ipfs/{echo}/"), echo),
    ] {
        server.cluster.insert_path(&path, parse_cid(cid).unwrap());
    }
    replay(&server, "pin-add.json").await;
}

#[tokio::test]
async fn pins_are_removed_as_recorded() {
    let (server, _kubo) = with_kubo().await;
    let root = "QmQRiXcmgocXXUZHXdndiE9LSKM45YJnCFsyjjPmg2p8MN";
    server.cluster.insert_pin(pin(root, PinMode::Recursive, ""));
    server.cluster.insert_path(&format!("/ipfs/{root}/a.txt"), parse_cid(ALPHA).unwrap());
    replay(&server, "pin-rm.json").await;
}

#[tokio::test]
async fn pins_are_listed_as_recorded() {
    let (server, _kubo) = with_kubo().await;
    replay(&server, "pin-ls.json").await;
}

#[tokio::test]
async fn paths_and_methods_lead_where_they_were_recorded_to() {
    let (server, _kubo) = with_kubo().await;
    replay(&server, "path-arguments-and-methods.json").await;
    replay(&server, "add-errors.json").await;
}

#[tokio::test]
async fn every_argument_counts_and_recursive_false_pins_directly() {
    let (server, _kubo) = with_kubo().await;
    let answer =
        post(&server, &format!("/api/v0/pin/add?arg={ALPHA}&arg={BRAVO}&recursive=false&name=n")).await;
    assert_eq!(text(&answer), format!("{{\"Pins\":[\"{ALPHA}\",\"{BRAVO}\"]}}"));
    let pins = server.cluster.pins();
    assert!(pins.iter().all(|pin| pin.max_depth == 0 && pin.options.name == "n"), "{pins:?}");
    let answer = post(&server, &format!("/api/v0/pin/add?arg={ABSENT}&arg=foo")).await;
    assert_eq!(answer.status, 500);
    assert_eq!(server.cluster.pins().len(), 2, "nothing is pinned where an argument cannot be read");
    let answer = post(&server, &format!("/api/v0/pin/rm?arg={ALPHA}&arg=/ipfs/{BRAVO}")).await;
    assert_eq!(text(&answer), format!("{{\"Pins\":[\"{ALPHA}\",\"{BRAVO}\"]}}"));
    assert!(server.cluster.pins().is_empty());
}

#[tokio::test]
async fn lists_are_filtered_by_type_and_name() {
    let (server, _kubo) = with_kubo().await;
    server.cluster.insert_pin(pin(ALPHA, PinMode::Recursive, "one"));
    server.cluster.insert_pin(pin(BRAVO, PinMode::Direct, ""));
    let ls = async |query: &str| text(&post(&server, &format!("/api/v0/pin/ls?{query}")).await).to_string();
    assert_eq!(ls("type=direct").await, format!("{{\"Keys\":{{\"{BRAVO}\":{{\"Type\":\"direct\"}}}}}}"));
    assert_eq!(ls("type=indirect").await, "{\"Keys\":{}}");
    assert_eq!(ls("stream=true&type=direct").await, format!("{{\"Cid\":\"{BRAVO}\",\"Type\":\"direct\"}}\n"));
    assert_eq!(
        ls("stream=true&names=true&type=recursive").await,
        format!("{{\"Cid\":\"{ALPHA}\",\"Name\":\"one\",\"Type\":\"recursive\"}}\n")
    );
    assert_eq!(
        ls("name=ne").await,
        format!("{{\"Keys\":{{\"{ALPHA}\":{{\"Type\":\"recursive\",\"Name\":\"one\"}}}}}}")
    );
    assert!(
        ls("type=nonsense")
            .await
            .contains("invalid type 'nonsense', must be one of {direct, indirect, recursive, all}")
    );
    assert!(ls(&format!("type=direct&arg={ALPHA}")).await.contains("is not pinned"));
    let both = ls(&format!("stream=true&arg={ALPHA}&arg=/ipfs/{BRAVO}")).await;
    assert_eq!(both.lines().count(), 2);
    server.cluster.fail_late("allocations", api::Error::internal("state\nfailed"));
    let answer = post(&server, "/api/v0/pin/ls?stream=true").await;
    assert_eq!(
        (answer.status, answer.trailers),
        (200, vec![("X-Stream-Error".into(), "state failed".into())])
    );
}

#[tokio::test]
async fn headers_are_the_daemons_and_asked_for_once() {
    let (server, kubo) = with_kubo().await;
    for _ in 0..3 {
        let answer = post(&server, "/api/v0/pin/ls").await;
        assert_eq!(header(&answer, "Vary"), Some(VARY));
        assert_eq!(header(&answer, "Server"), Some("ipfs-cluster/ipfsproxy/1.1.6"));
    }
    assert_eq!(kubo.saw("OPTIONS /api/v0/pin/ls").len(), 3);
    assert_eq!(kubo.saw("version").len(), 1);
    let preflight = &kubo.requests()[0].head;
    assert!(preflight.contains("\r\nAccess-Control-Request-Method: POST"), "{preflight}");
    assert!(preflight.contains("\r\nUser-Agent: Go-http-client/1.1"), "{preflight}");
}

#[tokio::test]
async fn extra_headers_are_named_in_any_case() {
    let kubo = FakeKubo::start().await.unwrap();
    let head = "HTTP/1.1 200 OK\r\nX-Custom: 1\r\nX-Custom: 2\r\nServer: kubo\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    kubo.set_rules(vec![Rule::new("/own/path", vec![Part::Bytes(head.into())])]);
    let server = serve_with(config::Proxy {
        node_multiaddress: parse_multiaddr(kubo.multiaddr()).unwrap(),
        extract_headers_path: "/own/path".into(),
        extract_headers_extra: vec!["x-CUSTOM".into(), "Server".into()],
        ..config::Proxy::default()
    })
    .await;
    let answer = post(&server, "/api/v0/pin/ls?arg=foo").await;
    let custom: Vec<&str> = answer
        .headers
        .iter()
        .filter(|(name, _)| name == "X-Custom")
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(custom, ["1", "2"], "errors carry them too");
    assert_eq!(header(&answer, "Server"), Some("ipfs-cluster/ipfsproxy/1.1.6"));
}

#[tokio::test]
async fn what_the_daemon_would_refuse_a_browser_is_refused() {
    let (server, kubo) = with_kubo().await;
    let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n\
                   Vary: Origin\r\nConnection: close\r\nContent-Length: 16\r\n\r\n403 - Forbidden\n";
    let mut rules = vec![Rule::new("POST /api/v0/version", vec![Part::Bytes(refusal.into())])];
    rules.extend(header_rules());
    kubo.set_rules(rules);
    for line in [
        "Origin: http://evil.example\r\n",
        "Referer: http://evil.example/x\r\n",
        "User-Agent: Mozilla/5.0\r\n",
    ] {
        let answer = ask(&server, "POST", &format!("/api/v0/pin/add?arg={ALPHA}"), line, b"").await;
        assert_eq!((answer.status, text(&answer)), (403, "403 - Forbidden\n"), "{line}");
        assert_eq!(header(&answer, "X-Content-Type-Options"), Some("nosniff"));
        assert_eq!(header(&answer, "Server"), None);
    }
    assert!(server.cluster.pins().is_empty());
    let answer = ask(&server, "POST", "/api/v0/pin/ls", "User-Agent: curl/8\r\n", b"").await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_daemon_that_is_down_leaves_intercepted_paths_served() {
    let kubo = kubo().await;
    let addr = parse_multiaddr(kubo.multiaddr()).unwrap();
    kubo.stop().await;
    let server = serve(addr).await;
    let answer = post(&server, "/api/v0/pin/ls").await;
    assert_eq!((answer.status, text(&answer), header(&answer, "Vary")), (200, "{\"Keys\":{}}", None));
    for (method, target) in
        [("POST", "/api/v0/version"), ("HEAD", "/api/v0/version"), ("OPTIONS", "/x"), ("GET", "/")]
    {
        let answer = ask(&server, method, target, "", b"").await;
        assert_eq!(
            (answer.status, text(&answer), header(&answer, "Server")),
            (502, "", None),
            "{method} {target}"
        );
    }
    let answer = ask(&server, "POST", "/api/v0/block/put?pin=true", "", b"x").await;
    assert!(answer.status == 500 && text(&answer).contains("connect: connection refused"), "{answer:?}");
}

const PART: &str = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"d%2Fa.txt\"\r\n\
                    Content-Type: application/octet-stream\r\n\r\nalpha\r\n";
const FORM: &str = "Content-Type: multipart/form-data; boundary=b\r\n";

#[tokio::test]
async fn files_go_to_the_cluster_and_events_come_back() {
    let (server, kubo) = with_kubo().await;
    let body = format!("{PART}{PART}--b--\r\n");
    let answer = ask(&server, "POST", "/api/v0/add", FORM, body.as_bytes()).await;
    assert_eq!((answer.status, answer.framing.as_str(), answer.chunks.len()), (200, "chunked", 2));
    assert!(text(&answer).starts_with("{\"Name\":\"d/a.txt\",\"Hash\":\"ba"), "{}", text(&answer));
    assert_eq!(header(&answer, "X-Chunked-Output"), Some("1"));
    assert_eq!(header(&answer, "Trailer"), Some("X-Stream-Error"));
    assert_eq!(header(&answer, "Cache-Control"), Some("no-cache"));
    assert!(answer.trailers.is_empty());
    assert!(kubo.saw("/add").iter().all(|line| line.starts_with("OPTIONS")));

    let answer =
        ask(&server, "POST", "/api/v0/add?stream-channels=false&pin=false", FORM, body.as_bytes()).await;
    assert!(text(&answer).starts_with("[{\"Name\":") && text(&answer).ends_with("}]\n"), "{}", text(&answer));
    assert_eq!(answer.framing, "content-length");

    let unnamed = PART.replace("; filename=\"d%2Fa.txt\"", "") + "--b--\r\n";
    let answer = ask(&server, "POST", "/api/v0/add", FORM, unnamed.as_bytes()).await;
    let event: serde_json::Value = serde_json::from_str(text(&answer)).unwrap();
    assert_eq!(event["Name"], event["Hash"], "{event}");

    server.cluster.fail_late("add", api::Error::internal("failed to put block on all destinations"));
    let answer = ask(&server, "POST", "/api/v0/add", FORM, body.as_bytes()).await;
    let trailer = ("X-Stream-Error".to_string(), "failed to put block on all destinations".to_string());
    assert_eq!((answer.status, answer.trailers), (200, vec![trailer]));
    let answer = ask(&server, "POST", "/api/v0/add?stream-channels=false", FORM, body.as_bytes()).await;
    assert_eq!(text(&answer), "{\"code\":500,\"message\":\"failed to put block on all destinations\"}\n");
}

#[tokio::test]
async fn uploads_that_cannot_be_are_refused_and_nothing_is_added() {
    let (server, _kubo) = with_kubo().await;
    let body = format!("{PART}--b--\r\n");
    let answer = ask(&server, "POST", "/api/v0/add?only-hash=true", FORM, body.as_bytes()).await;
    let expected =
        "{\"Message\":\"only-hash is not supported when adding to cluster\",\"Code\":0,\"Type\":\"error\"}";
    assert_eq!((answer.status, text(&answer)), (500, expected));
    let answer = ask(&server, "POST", "/api/v0/add?raw-leaves=maybe", FORM, body.as_bytes()).await;
    assert!(text(&answer).contains("error parsing options:parameter raw-leaves invalid"), "{answer:?}");
    let answer =
        ask(&server, "POST", "/api/v0/add", FORM, b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--\r\n")
            .await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(server.cluster.pins().is_empty());
    let answer = ask(&server, "POST", "/api/v0/add", FORM, b"garbage").await;
    assert_eq!((answer.status, answer.trailers[0].1.as_str()), (200, "multipart: NextPart: EOF"));
}

#[tokio::test]
async fn blocks_and_nodes_stored_by_the_daemon_are_pinned() {
    let (server, kubo) = with_kubo().await;
    let object = format!("{{\"Key\":\"{ALPHA}\",\"Size\":3}}\n");
    let mut rules = header_rules();
    rules.insert(
        0,
        Rule::stream("POST /api/v0/block/put", &[&object, &object[..9], &object[9..]], Some("daemon late")),
    );
    rules.insert(
        0,
        Rule::stream("POST /api/v0/dag/put", &[&format!("{{\"Cid\":{{\"/\":\"{BRAVO}\"}}}}junk")], None),
    );
    kubo.set_rules(rules);
    let answer = ask(&server, "POST", "/api/v0/block/put?pin=true&x=1", FORM, b"body").await;
    assert_eq!((answer.status, text(&answer)), (200, [&object[..], &object].concat().as_str()));
    assert_eq!(answer.trailers, [("X-Stream-Error".to_string(), "daemon late".to_string())]);
    assert_eq!(kubo.saw("POST /api/v0/block/put"), ["POST /api/v0/block/put?pin=true&x=1"]);
    let answer = ask(&server, "POST", "/api/v0/dag/put?pin=true&a=b", FORM, b"body").await;
    assert_eq!(text(&answer), format!("{{\"Cid\":{{\"/\":\"{BRAVO}\"}}}}\n"));
    assert_eq!(answer.trailers[0].1, "invalid character 'j' looking for beginning of value");
    assert_eq!(kubo.saw("POST /api/v0/dag/put"), ["POST /api/v0/dag/put?a=b&pin=false"]);
    assert_eq!(server.cluster.pins().len(), 2);
    let answer = ask(&server, "POST", "/api/v0/block/put", FORM, b"body").await;
    assert_eq!(header(&answer, "Server"), Some("kubo/0.42.0"), "without pin it passes through");
}

#[tokio::test]
async fn an_update_takes_the_old_pin_away_once_the_new_one_is_there() {
    let (server, _kubo) = with_kubo().await;
    for (query, error) in [("", "from-path"), ("?arg=x", "to-path")] {
        let answer = post(&server, &format!("/api/v0/pin/update{query}")).await;
        let expected =
            format!("{{\"Message\":\"argument \\\"{error}\\\" is required\",\"Code\":0,\"Type\":\"error\"}}");
        assert_eq!((answer.status, text(&answer)), (400, expected.as_str()));
    }
    server.cluster.insert_pin(pin(ALPHA, PinMode::Recursive, ""));
    let answer = post(&server, &format!("/api/v0/pin/update?arg={ALPHA}&arg={ALPHA}")).await;
    assert_eq!(text(&answer), format!("{{\"Pins\":[\"{ALPHA}\",\"{ALPHA}\"]}}"));
    assert_eq!(server.cluster.pins().len(), 1, "onto itself it stays");
    let answer = post(&server, &format!("/api/v0/pin/update?arg={ALPHA}&arg={BRAVO}")).await;
    assert_eq!(text(&answer), format!("{{\"Pins\":[\"{ALPHA}\",\"{BRAVO}\"]}}"));
    let left: Vec<String> = server.cluster.pins().iter().map(|pin| pin.cid.to_string()).collect();
    assert_eq!(left, [BRAVO]);
}

#[tokio::test]
async fn repository_figures_are_the_clusters() {
    let (server, kubo) = with_kubo().await;
    server.cluster.set_repo_stat(cluster_compat::types::IpfsRepoStat { repo_size: 7, storage_max: 9 });
    let mut rules = header_rules();
    let own =
        "{\"RepoSize\":1,\"StorageMax\":2,\"NumObjects\":3,\"RepoPath\":\"/r\",\"Version\":\"fs-repo@18\"}\n";
    rules.push(Rule::reply("POST /api/v0/repo/stat", "200 OK", own));
    kubo.set_rules(rules);
    let answer = post(&server, "/api/v0/repo/stat").await;
    let expected =
        "{\"RepoSize\":7,\"StorageMax\":9,\"NumObjects\":3,\"RepoPath\":\"/r\",\"Version\":\"fs-repo@18\"}";
    assert_eq!(text(&answer), expected);
    let answer = post(&server, "/api/v0/repo/gc").await;
    assert_eq!((answer.status, header(&answer, "Trailer")), (200, Some("X-Stream-Error")));
}

#[tokio::test]
async fn everything_else_passes_with_its_headers_bodies_and_trailers() {
    let handler: Handler = Arc::new(|request: Request, _| {
        boxed(async move {
            let heads: Vec<String> = request
                .headers()
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            let target = format!("{} {}", request.method(), request.uri());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-stream-error", "late".parse().unwrap());
            let frames = vec![
                Ok(Frame::data(Bytes::from(format!("{target}\n{}\n{} bytes", heads.join("\n"), body.len())))),
                Ok(Frame::trailers(trailers)),
            ];
            let mut response = http::Response::new(Body::frames(futures::stream::iter(frames)));
            response.headers_mut().insert("x-odd", "1".parse().unwrap());
            response.headers_mut().insert("trailer", "X-Stream-Error".parse().unwrap());
            response
        })
    });
    let (addr, _daemon) = daemon(handler).await;
    let server = serve(addr).await;
    let lines = "X-Forwarded-For: 9.9.9.9\r\nProxy-Authorization: x\r\nTe: trailers\r\nX-Drop: 1\r\nConnection: X-Drop\r\n";
    let answer = ask(&server, "POST", "/api/v0/x%2Fy?a=%20b;c&&d", lines, &[7; 100_000]).await;
    let seen = text(&answer);
    assert!(seen.starts_with("POST /api/v0/x%2Fy?a=%20b;c&&d\n"), "{seen}");
    assert!(
        seen.contains("\nhost: x\n") && seen.contains("\nx-forwarded-for: 9.9.9.9, 127.0.0.1\n"),
        "{seen}"
    );
    assert!(seen.contains("\naccept-encoding: gzip\n") && seen.contains("\nte: trailers\n"), "{seen}");
    assert!(
        !seen.contains("proxy-authorization") && !seen.contains("x-drop") && !seen.contains("connection"),
        "{seen}"
    );
    assert!(seen.ends_with("\n100000 bytes"), "{seen}");
    assert_eq!(header(&answer, "X-Odd"), Some("1"));
    assert_eq!(answer.trailers, [("X-Stream-Error".to_string(), "late".to_string())]);
}

#[tokio::test]
async fn trailers_nobody_announced_and_unnamed_types_pass_too() {
    let (server, kubo) = with_kubo().await;
    let odd = |head: &str, body: &str| {
        vec![Part::Bytes(format!("HTTP/1.1 {head}\r\nConnection: close\r\n{body}").into_bytes())]
    };
    kubo.set_rules(vec![
        Rule::new(
            "/late",
            odd(
                "200 OK\r\nContent-Type: a/b",
                "Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\nX-Stream-Error: sudden\r\n\r\n",
            ),
        ),
        Rule::new("/odd", odd("599 Odd", "Content-Length: 3\r\n\r\nodd")),
        Rule::new("/junk", vec![Part::Bytes(b"junk\r\n\r\n".to_vec())]),
        Rule::new("/cut", odd("200 OK", "Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n")),
    ]);
    let answer = post(&server, "/api/v0/late").await;
    assert_eq!((text(&answer), header(&answer, "Trailer")), ("one", None));
    assert_eq!(answer.trailers, [("X-Stream-Error".to_string(), "sudden".to_string())]);
    let answer = post(&server, "/api/v0/odd").await;
    assert_eq!((answer.status, answer.reason.as_str(), text(&answer)), (599, "status code 599", "odd"));
    assert_eq!(header(&answer, "Content-Type"), Some("text/plain; charset=utf-8"));
    assert_eq!(post(&server, "/api/v0/junk").await.status, 502);
    let request = b"POST /api/v0/cut HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let reply = golden::send(server.addr, request).await.unwrap();
    assert!(golden::parse(&reply, "POST").is_none(), "a cut answer stays cut");
}

#[tokio::test]
async fn pieces_pass_as_they_come_and_a_client_that_leaves_is_told_to_the_daemon() {
    let (left_tx, mut left) = mpsc::channel::<()>(1);
    let handler: Handler = Arc::new(move |_, _| {
        let left = left_tx.clone();
        boxed(async move {
            let frames = futures::stream::once(async { Ok(Frame::data(Bytes::from("first"))) })
                .chain(futures::stream::pending())
                .map(move |frame| {
                    let _ = &left;
                    frame
                });
            http::Response::new(Body::frames(frames))
        })
    });
    let (addr, _daemon) = daemon(handler).await;
    let server = serve(addr).await;
    let mut client = TcpStream::connect(server.addr).await.unwrap();
    client.write_all(b"POST /api/v0/log/tail HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"5\r\nfirst\r\n") {
        let mut piece = [0; 1024];
        let n = tokio::time::timeout(LIMIT, client.read(&mut piece)).await.expect("the first piece").unwrap();
        assert!(n > 0);
        seen.extend_from_slice(&piece[..n]);
    }
    drop(client);
    // only the handlers of connections hold the other end beside the daemon itself
    let gone = async {
        while left.sender_strong_count() > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("the daemon's answer is dropped");
    left.close();
}

#[tokio::test]
async fn a_switched_protocol_is_a_tunnel() {
    let handler: Handler = Arc::new(|mut request: Request, _| {
        boxed(async move {
            assert_eq!(request.headers()["upgrade"], "echo");
            let on_upgrade = request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>().unwrap();
            let mut response = respond::empty(http::StatusCode::SWITCHING_PROTOCOLS);
            response.headers_mut().insert("connection", "Upgrade".parse().unwrap());
            response.headers_mut().insert("upgrade", "echo".parse().unwrap());
            let mut echo = JoinSet::new();
            echo.spawn(async move {
                let mut stream = hyper_util::rt::TokioIo::new(on_upgrade.await.unwrap());
                let mut bytes = [0; 5];
                stream.read_exact(&mut bytes).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
                stream.shutdown().await.unwrap();
            });
            echo.detach_all();
            response
        })
    });
    let (addr, _daemon) = daemon(handler).await;
    let server = serve(addr).await;
    let mut client = TcpStream::connect(server.addr).await.unwrap();
    let head = "POST /api/v0/echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut reply = String::new();
    tokio::time::timeout(LIMIT, client.read_to_string(&mut reply)).await.expect("an end").unwrap();
    assert!(
        reply.starts_with("HTTP/1.1 101 Switching Protocols\r\n") && reply.ends_with("\r\n\r\nhello"),
        "{reply}"
    );
}

#[tokio::test]
async fn words_that_come_together_leave_together() {
    let (server, kubo) = with_kubo().await;
    let words = ["{", "\"", "hello", "\"", ":", "\"", "world", "\"", "}"];
    kubo.set_rules(vec![Rule::stream("/dag/get", &words, Some("late"))]);
    let answer = post(&server, "/api/v0/dag/get").await;
    assert_eq!(text(&answer), "{\"hello\":\"world\"}");
    assert_eq!(answer.chunks.len(), 1, "{:?}", answer.chunks);
    assert_eq!(answer.trailers, [("X-Stream-Error".to_string(), "late".to_string())]);
}

#[tokio::test]
async fn every_answer_has_its_line_in_the_access_log() {
    let (_, kubo) = with_kubo().await;
    let odd = "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 4\r\n";
    kubo.set_rules(vec![
        Rule::new("/named", vec![Part::Bytes(format!("{odd}Content-Type: a/b\r\n\r\nbody").into())]),
        Rule::new("/unnamed", vec![Part::Bytes(format!("{odd}\r\nbody").into())]),
        Rule::stream("/chunks", &["a", "bc"], None),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let server = serve_with(config::Proxy {
        node_multiaddress: parse_multiaddr(kubo.multiaddr()).unwrap(),
        log_file: log.to_str().unwrap().into(),
        ..config::Proxy::default()
    })
    .await;
    let expected = [
        ("/named", 404, 4),
        ("/unnamed", 404, 4),
        ("/chunks", 200, 3),
        ("//x", 301, 0),
        ("/api/v0/pin/ls", 200, 11),
    ];
    for (target, status, _) in expected {
        assert_eq!(post(&server, target).await.status, status, "{target}");
    }
    let lines: Vec<String> = std::fs::read_to_string(&log).unwrap().lines().map(String::from).collect();
    let ends: Vec<&str> = lines.iter().filter_map(|line| line.split_once("] ")).map(|(_, end)| end).collect();
    let wanted: Vec<String> = expected
        .iter()
        .map(|(target, status, bytes)| format!("\"POST {target} HTTP/1.1\" {status} {bytes}"))
        .collect();
    assert_eq!(ends, wanted);
}

#[tokio::test]
async fn a_daemon_behind_a_unix_socket_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api");
    let kubo = FakeKubo::start_unix(&path).await.unwrap();
    let server = serve(parse_multiaddr(&format!("/unix{}", path.display())).unwrap()).await;
    let answer = post(&server, "/api/v0/version").await;
    assert_eq!(answer.status, 200);
    assert_eq!(kubo.saw("version").len(), 1);
}

#[tokio::test]
async fn requests_that_are_none_reach_nobody() {
    let (server, kubo) = with_kubo().await;
    let before = kubo.requests().len();
    for (request, status) in [
        ("GARBAGE\r\n\r\n".to_string(), "400"),
        ("POST /api/v0/pin/ls HTTP/1.1\r\n\r\n".into(), "400"),
        ("POST /api/v0/pin/ls HTTP/3.0\r\nHost: x\r\n\r\n".into(), "505"),
        ("POST /api/v0/pin/ls HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n".into(), "400"),
        (
            "POST /api/v0/pin/ls HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"
                .into(),
            "400",
        ),
        ("POST /api/v0/pin/ls%zz HTTP/1.1\r\nHost: x\r\n\r\n".into(), "400"),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n".into(), "501"),
        (format!("POST / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(9000)), "431"),
    ] {
        let reply = tokio::time::timeout(LIMIT, golden::send(server.addr, request.as_bytes())).await;
        let reply = String::from_utf8(reply.expect("an end").unwrap()).unwrap();
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {reply}");
    }
    assert_eq!(kubo.requests().len(), before);
}
