//! What passes through to the daemon and back.

use std::sync::Arc;

use bytes::Bytes;
use cluster_compat::config;
use cluster_compat::http::conn::{Handler, Request, boxed};
use cluster_compat::http::respond::{self, Body};
use cluster_compat::testing::golden;
use cluster_compat::testing::kubo::{FakeKubo, Part, Rule};
use cluster_compat::types::parse_multiaddr;
use futures::StreamExt;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::harness::*;

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

fn packed(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn packed_answers_nobody_asked_for_are_unpacked_with_their_trailers() {
    let (server, kubo) = with_kubo().await;
    let packed = packed("hello");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Encoding: gzip\r\nConnection: close\r\n";
    let known = [format!("{head}Content-Length: {}\r\n\r\n", packed.len()).as_bytes(), &packed].concat();
    let start = format!("{head}Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", packed.len());
    let chunked = [start.as_bytes(), &packed, b"\r\n0\r\nX-Sum: 7\r\n\r\n"].concat();
    let empty = format!("{head}Content-Length: 0\r\n\r\n").into_bytes();
    for (name, reply) in [("/known", known), ("/chunked", chunked), ("/empty", empty)] {
        let rule = Rule::new(name, vec![Part::Bytes(reply)]);
        kubo.set_rules(vec![rule]);
        let answer = post(&server, name).await;
        let is_empty = name == "/empty";
        assert_eq!(text(&answer), if is_empty { "" } else { "hello" }, "{name}");
        assert_eq!(header(&answer, "Content-Encoding"), is_empty.then_some("gzip"), "{name}");
        let n_trailers = usize::from(name == "/chunked");
        assert_eq!(answer.trailers.len(), n_trailers, "{name}");
    }
}

#[tokio::test]
async fn answers_of_doubtful_length_are_made_plain_or_refused() {
    let (server, kubo) = with_kubo().await;
    for (lines, body, status, length) in [
        ("Content-Length: 9\r\nTransfer-Encoding: chunked", "2\r\nok\r\n0\r\n\r\n", 200, None),
        ("Content-Length: 2\r\nContent-Length: 2", "ok", 200, Some("2")),
        ("Content-Length: 2\r\nContent-Length: 3", "okk", 502, Some("0")),
        ("Content-Length: -2", "ok", 502, Some("0")),
        ("Transfer-Encoding: gzip", "ok", 502, Some("0")),
        ("Transfer-Encoding: gzip, chunked", "0\r\n\r\n", 502, Some("0")),
    ] {
        let reply =
            format!("HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nConnection: close\r\n{lines}\r\n\r\n{body}");
        kubo.set_rules(vec![Rule::new("/x", vec![Part::Bytes(reply.into_bytes())])]);
        let answer = post(&server, "/x").await;
        assert_eq!((answer.status, header(&answer, "Content-Length")), (status, length), "{lines}");
        assert_eq!(text(&answer), if status == 200 { "ok" } else { "" }, "{lines}");
        let answer = ask(&server, "HEAD", "/x", "", b"").await;
        assert_eq!(answer.status, status, "HEAD {lines}");
        let answer = ask(&server, "POST", "/api/v0/block/put?pin=true&/x", "", b"").await;
        assert_eq!(answer.status == 500, status == 502, "block/put {lines}");
    }
    let reply = "HTTP/1.1 304 Not Modified\r\nContent-Length: 55\r\nConnection: close\r\n\r\n";
    kubo.set_rules(vec![Rule::new("/x", vec![Part::Bytes(reply.into())])]);
    let answer = ask(&server, "HEAD", "/x", "", b"").await;
    assert_eq!((answer.status, header(&answer, "Content-Length")), (304, None));
}

#[tokio::test]
async fn heads_reach_the_daemon_as_gos_client_writes_them() {
    let (server, kubo) = with_kubo().await;
    kubo.set_rules(vec![Rule::reply("/x", "200 OK", "")]);
    let host = kubo.authority();
    for (request, line, is_there) in [
        ("POST http://u@other:1/x HTTP/1.1\r\nHost: h\r\n", "Host: other:1", true),
        ("POST /x HTTP/1.1\r\nHost:\r\n", &format!("Host: {host}"), true),
        ("POST /x HTTP/1.1\r\nHost: h\r\nUser-Agent:\r\n", "User-Agent", false),
        ("POST /x HTTP/1.1\r\nHost: h\r\nUser-Agent: a\r\nUser-Agent: b\r\n", "User-Agent: b", false),
        ("POST /x HTTP/1.1\r\nHost: h\r\nAccept-Encoding:\r\n", "Accept-Encoding: gzip", true),
        ("POST /x HTTP/1.1\r\nHost: h\r\nRange: bytes=0-1\r\n", "Accept-Encoding", false),
    ] {
        let before = kubo.requests().len();
        let whole = format!("{request}Connection: close\r\n\r\n");
        let reply = golden::send(server.addr, whole.as_bytes());
        let reply = tokio::time::timeout(LIMIT, reply).await.expect("an end").unwrap();
        assert!(reply.starts_with(b"HTTP/1.1 200 "), "{request}");
        let seen = &kubo.requests()[before].head;
        assert_eq!(seen.contains(&format!("\r\n{line}")), is_there, "{request}: {seen}");
    }
    let body = "GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n";
    golden::send(server.addr, body.as_bytes()).await.unwrap();
    assert_eq!(kubo.requests().last().unwrap().body, b"one", "a GET may have a body");
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
