//! The REST API over a fake cluster. Recordings are replayed by the test `replay`.
//!
//! `check` is the only place that talks to the server for requests it must refuse.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed test may panic")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cluster_compat::api::{self, ClusterApi};
use cluster_compat::config::HttpApi;
use cluster_compat::go::query::path_escape;
use cluster_compat::http::listen::Listener;
use cluster_compat::rest::Rest;
use cluster_compat::testing::cluster::FakeCluster;
use cluster_compat::testing::golden::{self, Answer, Data, Step};
use cluster_compat::types::{Multiaddr, Pin, parse_cid, parse_multiaddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long one exchange may take before the test says which it was.
const LIMIT: Duration = Duration::from_secs(20);

const CID: &str = "QmXw2sSTXLXyJjrAv6rnWL1oZ1HA8eqvkrngCm7dpxjtFM";

/// A served fake cluster; it stops when dropped.
struct Server {
    addr: SocketAddr,
    fake: FakeCluster,
    _serving: JoinSet<()>,
}

async fn serve(config: HttpApi) -> Server {
    let fake = FakeCluster::new();
    let any: Multiaddr = parse_multiaddr("/ip4/127.0.0.1/tcp/0").unwrap();
    let listener = Listener::bind(&any).await.unwrap();
    let port = listener.local_addr().to_string().rsplit('/').next().unwrap().parse().unwrap();
    let api: Arc<dyn ClusterApi> = Arc::new(fake.clone());
    let mut serving = JoinSet::new();
    serving.spawn(
        Rest::new(&config, Path::new("."), api).unwrap().serve(vec![listener], CancellationToken::new()),
    );
    Server { addr: SocketAddr::from(([127, 0, 0, 1], port)), fake, _serving: serving }
}

fn text(data: &Data) -> &str {
    data.text()
}

async fn exchange(addr: SocketAddr, step: &Step) -> Answer {
    let what = format!("{} {}", step.method, step.target);
    match tokio::time::timeout(LIMIT, golden::exchange(addr, step)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => panic!("{what}: {error}"),
        Err(_) => panic!("{what}: no answer within {LIMIT:?}"),
    }
}

fn request(method: &str, target: &str) -> Step {
    Step::request(method, target)
}

/// The document of an error.
fn document(code: u16, message: &str) -> String {
    let error = BTreeMap::from([("message", message)]);
    let message = cluster_compat::go::json::to_string(&error);
    format!("{{\"code\":{code},{}\n", &message[1..])
}

/// Sends one request that must be refused before the cluster hears of it.
async fn check(server: &Server, step: &Step, (status, message): (u16, &str)) {
    let answer = exchange(server.addr, step).await;
    let what = format!("{} {}", step.method, step.target);
    assert_eq!((answer.status, text(&answer.body)), (status, document(status, message).as_str()), "{what}");
    assert_eq!(server.fake.calls(), Vec::<String>::new(), "{what}");
}

#[tokio::test]
async fn malformed_requests_are_refused_in_the_references_words() {
    let server = serve(HttpApi::rest()).await;
    let mut n_requests = 0;

    let encoding = "selected encoding not supported";
    let cids = [
        ("x", "cid too short"),
        ("b", "cid too short"),
        ("é", encoding),
        ("abc", encoding),
        ("Qm", encoding),
        ("xx", encoding),
        ("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3N", encoding),
        ("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nnn", encoding),
        ("h123", encoding),
        ("p123", encoding),
        ("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3N0", "input isn't valid multihash"),
        ("bafy", "invalid cid: varints malformed, could not reach the end"),
        ("bb", "invalid cid: varints malformed, could not reach the end"),
        ("bafkreif", "invalid cid: length greater than remaining number of bytes in buffer"),
        ("mAVUSIA", "invalid cid: length greater than remaining number of bytes in buffer"),
        ("zz0", "invalid base58 digit ('0')"),
        ("Zz0", "invalid base58 digit ('0')"),
        ("fxo", "encoding/hex: invalid byte: U+0078 'x'"),
        ("f0", "encoding/hex: odd length hex string"),
        ("f02551220", "invalid cid: expected 1 as the cid version number, got: 2"),
        ("f00", "invalid cid: expected 1 as the cid version number, got: 0"),
        ("k0", "invalid cid: expected 1 as the cid version number, got: 0"),
        ("\0\0", "invalid cid: expected 1 as the cid version number, got: 0"),
        ("f015500", "invalid cid: multihash too short. must be >= 2 bytes"),
        ("bab1", "illegal base32 data at input byte 2"),
        ("ma*", "illegal base64 data at input byte 1"),
        ("k*", "invalid base36 character ('*')"),
        ("🚀a", "illegal base256emoji data at input byte 0, char: 'a'"),
        ("recover", encoding),
    ];
    for (cid, error) in cids {
        let message = format!("error decoding Cid: invalid cid: {error}");
        let escaped = path_escape(cid);
        for (method, target) in [
            ("GET", format!("/pins/{escaped}")),
            ("DELETE", format!("/pins/{escaped}?local=true")),
            ("POST", format!("/pins/{escaped}/recover")),
            ("GET", format!("/allocations/{escaped}")),
            ("GET", format!("/pins?filter=nonsense&cids={CID},{escaped}")),
        ] {
            check(&server, &request(method, &target), (400, &message)).await;
            n_requests += 1;
        }
        let message = format!(
            "error parsing path: invalid path {}: invalid cid: {error}",
            cluster_compat::go::quote::quote(&format!("/ipfs/{cid}/a"))
        );
        for method in ["POST", "DELETE"] {
            check(&server, &request(method, &format!("/pins/ipfs/{escaped}/a")), (400, &message)).await;
            n_requests += 1;
        }
    }

    let options = [
        ("replication=x", "parameter replication-min invalid"),
        ("replication-min=1.5", "parameter replication-min invalid"),
        ("replication-min=99999999999999999999", "parameter replication-min invalid"),
        ("replication-max=0x1", "parameter replication-max invalid"),
        ("shard-size=-1", "parameter shard_size is invalid"),
        ("shard-size=18446744073709551616", "parameter shard_size is invalid"),
        (
            "expire-at=2999-13-01T00:00:00Z",
            "expire-at cannot be parsed: parsing time \"2999-13-01T00:00:00Z\": month out of range",
        ),
        ("expire-in=x", "expire-in cannot be parsed: time: invalid duration \"x\""),
        ("expire-in=10", "expire-in cannot be parsed: time: missing unit in duration \"10\""),
        ("expire-in=1d", "expire-in cannot be parsed: time: unknown unit \"d\" in duration \"1d\""),
        ("expire-in=999ms", "expire-in duration too short"),
        ("pin-update=x", "error decoding update option parameter: invalid cid: cid too short"),
        ("origins=x", "error decoding multiaddress: failed to parse multiaddr \"x\": must begin with /"),
        (
            "origins=/ip4/1.2.3.4/tcp/1",
            "multiaddress does not contain peer ID: protocol not found in multiaddr",
        ),
    ];
    for (query, message) in options {
        for (method, path) in [
            ("GET", format!("/pins/{CID}")),
            ("POST", format!("/pins/{CID}")),
            ("DELETE", format!("/pins/{CID}")),
            ("POST", format!("/pins/{CID}/recover")),
            ("GET", format!("/allocations/{CID}")),
            ("POST", format!("/pins/ipfs/{CID}")),
            ("DELETE", "/pins/ipns/example.org/a".to_string()),
        ] {
            check(&server, &request(method, &format!("{path}?{query}")), (400, message)).await;
            n_requests += 1;
        }
        let add = with_body(&format!("/add?{query}"), Some("multipart/form-data; boundary=x"), "--x--\r\n");
        check(&server, &add, (400, message)).await;
        n_requests += 1;
    }

    for filter in ["undefined", "all", ",", "Pinned", "bogus", "pinned%00"] {
        check(&server, &request("GET", &format!("/pins?filter={filter}")), (400, "invalid filter value"))
            .await;
        n_requests += 1;
    }
    for filter in ["foo", "foo,bar", "%20pin", "PIN", "bad-type", "foo&filter=pin"] {
        check(
            &server,
            &request("GET", &format!("/allocations?filter={filter}")),
            (400, "invalid filter value"),
        )
        .await;
        n_requests += 1;
    }

    let peers = [
        ("x", "failed to parse peer ID: invalid cid: cid too short"),
        ("1", "failed to parse peer ID: multihash too short. must be >= 2 bytes"),
        ("QmX", "failed to parse peer ID: length greater than remaining number of bytes in buffer"),
        (
            "bafyreigxhyyshaovknmxuqstphof2nyek54wqgvu5om5fkwzklsb4se63u",
            "can't convert CID of type \"dag-cbor\" to a peer ID",
        ),
    ];
    for (peer, error) in peers {
        let message = format!("error decoding Peer ID: {error}");
        check(&server, &request("DELETE", &format!("/peers/{peer}")), (400, &message)).await;
        n_requests += 1;
    }
    for body in ["", "x", "[]", "{", r#"{"peer_id":1}"#, "\"a\"", "\u{feff}{}"] {
        check(&server, &with_body("/peers", None, body), (400, "error decoding request body")).await;
        n_requests += 1;
    }
    for body in ["null", "{}", r#"{"peer_id":""}"#, r#"{"peer_id":"x"}"#, r#"{"PEER_ID":"é"} x"#] {
        check(&server, &with_body("/peers", None, body), (400, "error decoding peer_id")).await;
        n_requests += 1;
    }

    let not_multipart = "request Content-Type isn't multipart/form-data";
    for (content_type, message) in [
        (None, not_multipart),
        (Some("text/plain"), not_multipart),
        (Some("multipart/other; boundary=x"), not_multipart),
        (Some("multipart/form-data"), "no multipart boundary param in Content-Type"),
    ] {
        check(&server, &with_body("/add?shard=x", content_type, ""), (400, message)).await;
        n_requests += 1;
    }
    for (query, message) in [
        ("layout=x", "layout parameter is invalid"),
        ("format=x", "format parameter is invalid"),
        ("local=x", "parameter local invalid"),
        ("cid-version=x", "parameter cid-version invalid"),
        ("stream-channels=x", "parameter stream-channels invalid"),
        ("no-pin=yes", "parameter no-pin invalid"),
        ("shard=true&shard-size=x", "parameter shard_size is invalid"),
    ] {
        let add = with_body(&format!("/add?{query}"), Some("multipart/form-data; boundary=x"), "--x--\r\n");
        check(&server, &add, (400, message)).await;
        n_requests += 1;
    }

    for target in ["/", "/nothing", "/pins/a%2Fb", "/pins/foo/bar", "/pins/ipfs/a%0Ab", "/PINS"] {
        check(&server, &request("GET", target), (404, "not found")).await;
        n_requests += 1;
    }
    check(&server, &request("POST", "/token"), (401, "unauthorized")).await;
    assert!(n_requests > 300, "{n_requests}");

    // and it still serves
    let answer = exchange(server.addr, &request("GET", "/version")).await;
    assert_eq!((answer.status, text(&answer.body)), (200, "{\"version\":\"1.1.6\"}\n"));
}

fn with_body(target: &str, content_type: Option<&str>, body: &str) -> Step {
    let headers =
        content_type.map(|value| ("Content-Type".to_string(), value.to_string())).into_iter().collect();
    Step { headers, body: Some(Data::Text(body.into())), ..request("POST", target) }
}

/// One file named `f`.
fn upload(target: &str) -> Step {
    let body = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\
                Content-Type: application/octet-stream\r\n\r\nhello\r\n--x--\r\n";
    with_body(target, Some("multipart/form-data; boundary=x"), body)
}

/// What the fake makes of [`upload`].
const OUTPUT: &str = "{\"name\":\"f\",\"cid\":\"bafkqablimvwgy3y\",\"size\":5,\
                      \"allocations\":[\"12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt\"]}";

fn header<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    answer.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
}

#[tokio::test]
async fn a_streamed_add_has_a_trailer_only_when_it_fails() {
    let server = serve(HttpApi::rest()).await;
    let answer = exchange(server.addr, &upload("/add")).await;
    assert_eq!((answer.status, text(&answer.body)), (200, format!("{}\n", OUTPUT).as_str()));
    assert_eq!((answer.framing.as_str(), answer.trailers.len()), ("chunked", 0));
    for (name, value) in [
        ("Cache-Control", "no-cache"),
        ("Connection", "close"),
        ("Content-Type", "application/json"),
        ("Trailer", "X-Stream-Error"),
        ("X-Chunked-Output", "1"),
    ] {
        assert_eq!(header(&answer, name), [value], "{name}");
    }
    server.fake.fail_late("add", api::Error::internal("boom\nline2"));
    let answer = exchange(server.addr, &upload("/add")).await;
    assert_eq!((answer.status, answer.chunks.len()), (200, 1));
    assert_eq!(answer.trailers, [("X-Stream-Error".to_string(), "boom line2".to_string())]);
}

#[tokio::test]
async fn an_add_that_fails_at_once_is_200_unless_the_client_is_to_blame() {
    let server = serve(HttpApi::rest()).await;
    server.fake.fail("add", api::Error::internal("boom"));
    let answer = exchange(server.addr, &upload("/add")).await;
    assert_eq!((answer.status, text(&answer.body), answer.trailers.len()), (200, "", 1));
    server.fake.fail("add", api::Error::bad_request("no parts"));
    let answer = exchange(server.addr, &upload("/add")).await;
    assert_eq!((answer.status, text(&answer.body)), (400, document(400, "no parts").as_str()));
    assert_eq!(header(&answer, "Trailer"), Vec::<&str>::new());
}

#[tokio::test]
async fn an_upload_that_expects_a_continue_gets_the_status_at_once() {
    let server = serve(HttpApi::rest()).await;
    let mut step = upload("/add");
    step.headers.push(("Expect".into(), "100-continue".into()));
    let answer = exchange(server.addr, &step).await;
    assert_eq!((answer.status, text(&answer.body)), (200, format!("{OUTPUT}\n").as_str()));
    server.fake.fail("add", api::Error::bad_request("no parts"));
    let answer = exchange(server.addr, &step).await;
    assert_eq!((answer.status, text(&answer.body), answer.trailers.len()), (200, "", 1));
}

#[tokio::test]
async fn clients_that_end_their_side_after_a_request_get_its_answer() {
    let server = serve(HttpApi::rest()).await;
    let file = upload("/add").body.unwrap();
    let headers = "Host: x\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: ";
    let (pin, status) = (format!("POST /pins/{CID}"), format!("GET /pins/{CID}"));
    let uploaded = ("POST /add", text(&file), "0\r\n\r\n");
    for (start, body, end) in [(&*pin, "", "\n"), (&*status, "", "}}}\n"), uploaded] {
        let mut client = TcpStream::connect(server.addr).await.unwrap();
        let request = format!("{start} HTTP/1.1\r\n{headers}{}\r\n\r\n{body}", body.len());
        client.write_all(request.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(LIMIT, client.read_to_string(&mut answer)).await.expect(start).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(end), "{start}: {answer}");
    }
}

#[tokio::test]
async fn a_direct_pin_by_cid_is_direct() {
    let server = serve(HttpApi::rest()).await;
    let answer = exchange(server.addr, &request("POST", &format!("/pins/{CID}?mode=direct"))).await;
    assert!(text(&answer.body).contains("\"mode\":\"direct\""), "{}", text(&answer.body));
    assert!(text(&answer.body).contains("\"max_depth\":0"), "{}", text(&answer.body));
}

#[tokio::test]
async fn a_buffered_add_is_one_list_or_one_error() {
    let server = serve(HttpApi::rest()).await;
    let answer = exchange(server.addr, &upload("/add?stream-channels=false")).await;
    assert_eq!((answer.status, text(&answer.body)), (200, format!("[{}]\n", OUTPUT).as_str()));
    assert_eq!(header(&answer, "Cache-Control"), ["no-cache"]);
    assert_eq!(header(&answer, "Trailer"), Vec::<&str>::new());
    server.fake.fail_late("add", api::Error::internal("boom"));
    let answer = exchange(server.addr, &upload("/add?stream-channels=false")).await;
    assert_eq!((answer.status, text(&answer.body)), (500, document(500, "boom").as_str()));
    assert_eq!(header(&answer, "Connection"), ["close"]);
}

#[tokio::test]
async fn streams_that_fail_tell_it_in_the_status_or_in_the_trailer() {
    let server = serve(HttpApi::rest()).await;
    server.fake.insert_pin(Pin::new(parse_cid(CID).unwrap()));
    for (method, name, target) in
        [("GET", "peers", "/peers"), ("GET", "allocations", "/allocations"), ("GET", "status_all", "/pins")]
    {
        server.fake.fail_late(name, api::Error::internal("mid\nerr <x>"));
        let answer = exchange(server.addr, &request(method, target)).await;
        let trailers: Vec<_> = answer.trailers.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(
            (answer.status, answer.chunks.len(), trailers),
            (200, 1, vec!["", "mid err <x>"]),
            "{target}"
        );
        server.fake.fail(name, api::Error::internal("first err"));
        let answer = exchange(server.addr, &request(method, target)).await;
        assert_eq!(
            (answer.status, text(&answer.body)),
            (500, document(500, "first err").as_str()),
            "{target}"
        );
        assert_eq!(
            (header(&answer, "Trailer"), answer.trailers.len()),
            (vec!["X-Stream-Error"], 0),
            "{target}"
        );
    }
}

#[tokio::test]
async fn errors_of_the_cluster_keep_their_status() {
    let server = serve(HttpApi::rest()).await;
    for (name, method, target) in [
        ("id", "GET", "/id"),
        ("version", "GET", "/version"),
        ("peer_rm", "DELETE", "/peers/12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt"),
        ("pin", "POST", "/pins/QmXw2sSTXLXyJjrAv6rnWL1oZ1HA8eqvkrngCm7dpxjtFM"),
        ("unpin", "DELETE", "/pins/QmXw2sSTXLXyJjrAv6rnWL1oZ1HA8eqvkrngCm7dpxjtFM"),
        ("status", "GET", "/pins/QmXw2sSTXLXyJjrAv6rnWL1oZ1HA8eqvkrngCm7dpxjtFM"),
        ("recover", "POST", "/pins/QmXw2sSTXLXyJjrAv6rnWL1oZ1HA8eqvkrngCm7dpxjtFM/recover"),
        ("pin_path", "POST", "/pins/ipns/a"),
        ("unpin_path", "DELETE", "/pins/ipns/a"),
        ("repo_gc", "POST", "/ipfs/gc"),
        ("connect_graph", "GET", "/health/graph"),
        ("alerts", "GET", "/health/alerts"),
        ("bandwidth", "GET", "/health/bandwidth"),
        ("metrics", "GET", "/monitor/metrics/ping"),
        ("metric_names", "GET", "/monitor/metrics"),
    ] {
        for (error, status) in [
            (api::Error::internal("a <b>"), 500),
            (api::Error::not_found(), 404),
            (api::Error::bad_request("c"), 400),
        ] {
            server.fake.fail(name, error.clone());
            let answer = exchange(server.addr, &request(method, target)).await;
            let expected = document(status, &error.message);
            assert_eq!((answer.status, text(&answer.body)), (status, expected.as_str()), "{target}");
        }
    }
}
