//! Calls against a fake daemon.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Instant;

use bytes::Bytes;
use cluster_compat::testing::kubo::{FakeKubo, PEER_ID, Part, Rule};
use cluster_compat::types::{Block, Cid, Pin, PinOptions};
use futures::StreamExt;
use tokio::sync::mpsc;

use super::*;

const ALPHA: &str = "QmV4STRyo1dygxGhZcr877TQ1M9AZuXhfm6HrXjxW1TYNP";
const BRAVO: &str = "QmZsrhtGAKaHJFJBdgxxyiPgZKjrWtdwCBLx4UjnztDF9Z";
const ALPHA_RAW: &str = "bafkreifwvggzz2nc3ekjfch2hx2c2n34hzbhg6x5zwxxctrtycqqbniqma";
const BRAVO_RAW: &str = "bafkreic5vdzd33hts6yt6t2vw35yuymtmi4l7yeo3hmqcezjoty35tgelq";

fn options(kubo: &FakeKubo) -> Options {
    Options {
        node_multiaddress: kubo.multiaddr().to_owned(),
        ipfs_request_timeout: Duration::from_secs(20),
        pin_timeout: Duration::from_secs(20),
        unpin_timeout: Duration::from_secs(20),
        repogc_timeout: Duration::from_secs(20),
        informer_trigger_interval: 0,
        unpin_disable: false,
    }
}

async fn fake() -> (FakeKubo, Client) {
    let kubo = FakeKubo::start().await.unwrap();
    let client = Client::with_options(options(&kubo)).unwrap();
    (kubo, client)
}

async fn fake_with(change: impl FnOnce(&mut Options)) -> (FakeKubo, Client) {
    let kubo = FakeKubo::start().await.unwrap();
    let mut options = options(&kubo);
    change(&mut options);
    let client = Client::with_options(options).unwrap();
    (kubo, client)
}

fn cid(text: &str) -> Cid {
    text.parse().unwrap()
}

fn pin(text: &str, max_depth: i64) -> Pin {
    Pin {
        options: PinOptions::default(),
        cid: cid(text),
        pin_type: Default::default(),
        allocations: None,
        max_depth,
        reference: None,
        timestamp: Default::default(),
    }
}

/// The lines of a request's head, of one call.
async fn head_of(kubo: &FakeKubo) -> Vec<String> {
    kubo.wait_for("", 1).await;
    kubo.requests().pop().unwrap().head.split("\r\n").map(str::to_owned).collect()
}

#[test]
fn only_exact_types_of_pins_are_known() {
    for (text, expected) in [
        ("direct", IpfsPinStatus::Direct),
        ("recursive", IpfsPinStatus::Recursive),
        ("recursiveish", IpfsPinStatus::Recursive),
        ("indirect through QmV4STRyo1dygxGhZcr877TQ1M9AZuXhfm6HrXjxW1TYNP", IpfsPinStatus::Indirect),
        ("directly", IpfsPinStatus::Bug),
        ("", IpfsPinStatus::Bug),
    ] {
        assert_eq!(IpfsPinStatus::parse(text), expected, "{text}");
    }
}

// Ticks W1 to W4: what is on the wire.

#[tokio::test]
async fn a_call_without_a_body_has_the_head_that_go_writes() {
    let (kubo, client) = fake().await;
    client.id().await.unwrap();
    let expected = [
        "POST /api/v0/id HTTP/1.1".to_owned(),
        format!("Host: {}", kubo.authority()),
        "User-Agent: Go-http-client/1.1".into(),
        "Content-Length: 0".into(),
        "Content-Type: ".into(),
        "Accept-Encoding: gzip".into(),
    ];
    assert_eq!(head_of(&kubo).await, expected);
}

#[tokio::test]
async fn over_a_unix_socket_the_host_is_ipfs_and_nothing_is_compressed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let kubo = FakeKubo::start_unix(&path).await.unwrap();
    let client = Client::with_options(options(&kubo)).unwrap();
    client.id().await.unwrap();
    let expected = [
        "POST /api/v0/id HTTP/1.1",
        "Host: ipfs",
        "User-Agent: Go-http-client/1.1",
        "Content-Length: 0",
        "Content-Type: ",
    ];
    assert_eq!(head_of(&kubo).await, expected);
    kubo.stop().await;
    std::fs::remove_file(&path).unwrap();
    let failure = client.id().await.unwrap_err().to_string();
    let cause = format!("dial unix {}: connect: no such file or directory", path.display());
    assert_eq!(failure, format!("Post \"http+unix://ipfs/api/v0/id\": {cause}"));
}

#[tokio::test]
async fn queries_are_those_of_the_reference() {
    let (kubo, client) = fake().await;
    kubo.set_path("/ipns/docs site/a", "/ipfs/bafkqaaa/x/y");
    let from = cid(ALPHA);
    let mut updated = pin(BRAVO, -1);
    updated.options.pin_update = Some(from);
    client.id().await.unwrap();
    client.pin(&pin(ALPHA, -1)).await.unwrap();
    client.pin(&updated).await.unwrap();
    client.pin(&pin(ALPHA_RAW, 0)).await.unwrap();
    client.pin(&pin(BRAVO_RAW, 1)).await.unwrap();
    client.unpin(&from).await.unwrap();
    assert_eq!(client.pin_ls(&["recursive", "direct"]).collect::<Vec<_>>().await.len(), 3);
    client
        .swarm_connect(
            &"/ip4/1.2.3.4/tcp/1/p2p/12D3KooWLktuTSPdVMTXRDYxZKMHY3gAcw5ThNBwDu5yis2yZ8j3".parse().unwrap(),
        )
        .await
        .unwrap();
    assert!(client.swarm_peers().await.unwrap().is_empty());
    assert_eq!(client.config_key("Datastore/StorageMax").await.unwrap(), "10GB");
    client.repo_stat().await.unwrap();
    assert!(client.repo_gc().await.1.is_none());
    assert_eq!(client.resolve("/ipns/docs site/a").await.unwrap(), cid("bafkqaaa"));
    client.block_get(&from).await.unwrap_err();
    let expected = [
        "id",
        "pin/ls?stream=true&arg=QmV4STRyo1dygxGhZcr877TQ1M9AZuXhfm6HrXjxW1TYNP&type=recursive",
        "pin/add?arg=QmV4STRyo1dygxGhZcr877TQ1M9AZuXhfm6HrXjxW1TYNP&recursive=true&progress=true",
        "pin/ls?stream=true&arg=QmZsrhtGAKaHJFJBdgxxyiPgZKjrWtdwCBLx4UjnztDF9Z&type=recursive",
        "pin/ls?stream=true&arg=QmV4STRyo1dygxGhZcr877TQ1M9AZuXhfm6HrXjxW1TYNP&type=recursive",
        "pin/update?arg=QmV4STRyo1dygxGhZcr877TQ1M9AZuXhfm6HrXjxW1TYNP\
         &arg=QmZsrhtGAKaHJFJBdgxxyiPgZKjrWtdwCBLx4UjnztDF9Z&unpin=false",
        "pin/ls?stream=true&arg=bafkreifwvggzz2nc3ekjfch2hx2c2n34hzbhg6x5zwxxctrtycqqbniqma&type=direct",
        "pin/add?arg=bafkreifwvggzz2nc3ekjfch2hx2c2n34hzbhg6x5zwxxctrtycqqbniqma&recursive=false&progress=true",
        "pin/ls?stream=true&arg=bafkreic5vdzd33hts6yt6t2vw35yuymtmi4l7yeo3hmqcezjoty35tgelq&type=recursive",
        "pin/add?arg=bafkreic5vdzd33hts6yt6t2vw35yuymtmi4l7yeo3hmqcezjoty35tgelq&max-depth=1&recursive=true&progress=true",
        "pin/rm?arg=QmV4STRyo1dygxGhZcr877TQ1M9AZuXhfm6HrXjxW1TYNP",
        "pin/ls?stream=true&type=recursive",
        "pin/ls?stream=true&type=direct",
        "swarm/connect?arg=%2Fip4%2F1.2.3.4%2Ftcp%2F1%2Fp2p%2F12D3KooWLktuTSPdVMTXRDYxZKMHY3gAcw5ThNBwDu5yis2yZ8j3",
        "swarm/peers",
        "config/show",
        "repo/stat?size-only=true",
        "repo/gc?stream-errors=true",
        "resolve?arg=%2Fipns%2Fdocs+site%2Fa",
        "block/get?arg=QmV4STRyo1dygxGhZcr877TQ1M9AZuXhfm6HrXjxW1TYNP",
    ];
    let expected: Vec<String> = expected.iter().map(|path| format!("POST /api/v0/{path}")).collect();
    assert_eq!(kubo.saw(""), expected);
}

#[tokio::test]
async fn redirects_are_followed_ten_times() {
    let (kubo, client) = fake().await;
    let moved = |to: &str| {
        let reply = format!("HTTP/1.1 308 Permanent Redirect\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
        Part::Bytes(reply.into_bytes())
    };
    let elsewhere = FakeKubo::start().await.unwrap();
    let there = format!("http://{}/api/v0/id", elsewhere.authority());
    kubo.set_rules(vec![
        Rule::new("/id", vec![moved("/api/v0/other")]),
        Rule::new("/other", vec![moved(&there)]),
    ]);
    assert_eq!(client.id().await.unwrap().id.unwrap().to_string(), PEER_ID);
    assert_eq!(elsewhere.saw(""), ["POST /api/v0/id"]);
    kubo.set_rules(vec![Rule::new("", vec![moved("/api/v0/again")])]);
    let failure = client.id().await.unwrap_err().to_string();
    let url = format!("http://{}/api/v0/again", kubo.authority());
    assert_eq!(failure, format!("Post \"{url}\": stopped after 10 redirects"));
}

#[tokio::test]
async fn a_proxy_gets_requests_with_absolute_targets() {
    let (proxy, _) = fake().await;
    let body = format!("{{\"ID\":\"{PEER_ID}\"}}");
    proxy.set_rules(vec![Rule::reply("http://kubo.example:5001/api/v0/id", "200 OK", &body)]);
    let port = proxy.multiaddr().rsplit('/').next().unwrap().parse().unwrap();
    let via = Via { address: via::tcp("127.0.0.1", port), authorization: None };
    let client = Client::reached(via::tcp("kubo.example", 5001), Some(via), options(&proxy)).unwrap();
    assert_eq!(client.id().await.unwrap().id.unwrap().to_string(), PEER_ID);
    assert_eq!(head_of(&proxy).await[1], "Host: kubo.example:5001");
    let address = proxy.authority();
    proxy.stop().await;
    let failure = client.id().await.unwrap_err().to_string();
    let cause = format!("proxyconnect tcp: dial tcp {address}: connect: connection refused");
    assert_eq!(failure, format!("Post \"http://kubo.example:5001/api/v0/id\": {cause}"));
}

#[tokio::test]
async fn many_calls_at_once_get_each_their_own_answer() {
    let (kubo, client) = fake().await;
    let cids: Vec<Cid> = (0..500_u32)
        .map(|i| Cid::new_v1(0x55, multihash::Multihash::wrap(0, &i.to_be_bytes()).unwrap()))
        .collect();
    let (tx, rx) = mpsc::channel(1);
    let feed = async {
        for cid in &cids {
            let block = Block { cid: *cid, data: Bytes::from(cid.to_string()), is_spare: false };
            tx.send(vec![block]).await.unwrap();
        }
        drop(tx);
    };
    let ((), stored) = tokio::join!(feed, client.block_stream(rx));
    stored.unwrap();
    assert_eq!(kubo.blocks().len(), cids.len());
    let calls = cids.iter().map(|cid| {
        let client = client.clone();
        async move { assert_eq!(client.block_get(cid).await.unwrap(), cid.to_string()) }
    });
    futures::stream::iter(calls).buffer_unordered(64).collect::<Vec<()>>().await;
}

#[tokio::test]
async fn packed_replies_are_unpacked() {
    let (kubo, client) = fake().await;
    let body = format!("{{\"ID\":\"{PEER_ID}\"}}");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body.as_bytes()).unwrap();
    let packed = encoder.finish().unwrap();
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", packed.len());
    let parts = vec![Part::Bytes(head.into_bytes()), Part::Bytes(packed)];
    kubo.set_rules(vec![Rule::new("/id", parts)]);
    assert_eq!(client.id().await.unwrap().id.unwrap().to_string(), PEER_ID);
}

#[tokio::test]
async fn connections_are_used_again() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port());
    let (kubo, _) = fake().await;
    let client = Client::with_options(Options { node_multiaddress: address, ..options(&kubo) }).unwrap();
    let server = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let body = format!("{{\"ID\":\"{PEER_ID}\"}}");
        let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let mut buffer = [0; 4096];
        for _ in 0..50 {
            assert!(tokio::io::AsyncReadExt::read(&mut socket, &mut buffer).await.unwrap() > 0);
            tokio::io::AsyncWriteExt::write_all(&mut socket, reply.as_bytes()).await.unwrap();
        }
        // closes while idle: the next request opens another connection
        drop(socket);
        let (mut socket, _) = listener.accept().await.unwrap();
        assert!(tokio::io::AsyncReadExt::read(&mut socket, &mut buffer).await.unwrap() > 0);
        tokio::io::AsyncWriteExt::write_all(&mut socket, reply.as_bytes()).await.unwrap();
    };
    let calls = async {
        for _ in 0..51 {
            client.id().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), futures::future::join(server, calls)).await.unwrap();
}

// Ticks F1 to F3: failures and their texts.

#[tokio::test]
async fn statuses_become_the_errors_of_the_reference() {
    let (kubo, client) = fake().await;
    for (status, body, expected) in [
        (
            "500 Internal Server Error",
            "{\"Message\":\"broken\",\"Code\":0,\"Type\":\"error\"}\n",
            "IPFS error (id). Code: 500. Message: broken",
        ),
        ("500 X", "{\"message\":\"lower\"}", "IPFS error (id). Code: 500. Message: lower"),
        ("500 X", "null", "IPFS error (id). Code: 500. Message: "),
        ("500 X", "{}", "IPFS error (id). Code: 500. Message: "),
        (
            "403 Forbidden",
            "403 - Forbidden\n",
            "IPFS request failed (is it running?) (id). Code 403: 403 - Forbidden\n",
        ),
        ("404 X", "[1]", "IPFS request failed (is it running?) (id). Code 404: [1]"),
        ("500 X", "\"text\"", "IPFS request failed (is it running?) (id). Code 500: \"text\""),
        ("200 OK", "{}", "failed to parse peer ID: invalid cid: cid too short"),
        (
            "200 OK",
            "{\"ID\":\"notapeer\"}",
            "failed to parse peer ID: invalid cid: selected encoding not supported",
        ),
        ("200 OK", "", "unexpected end of JSON input"),
        ("200 OK", "not json", "invalid character 'o' in literal null (expecting 'u')"),
    ] {
        kubo.set_rules(vec![Rule::reply("/id", status, body)]);
        assert_eq!(client.id().await.unwrap_err().to_string(), expected, "{status} {body}");
    }
    kubo.set_rules(vec![Rule::new("/id", vec![])]);
    let url = format!("http://{}/api/v0/id", kubo.authority());
    assert_eq!(client.id().await.unwrap_err().to_string(), format!("Post \"{url}\": EOF"));
    kubo.set_rules(vec![Rule::new("/id", vec![Part::Bytes(b"HTTP/1.1 200 OK\r\nX".to_vec())])]);
    assert_eq!(client.id().await.unwrap_err().to_string(), format!("Post \"{url}\": unexpected EOF"));
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"ID\"".to_vec();
    kubo.set_rules(vec![Rule::new("/id", vec![Part::Bytes(cut)])]);
    assert_eq!(client.id().await.unwrap_err().to_string(), "unexpected EOF");
    kubo.set_rules(vec![Rule::new("/id", vec![Part::Bytes(b"no HTTP at all\r\n\r\n".to_vec())])]);
    assert!(client.id().await.unwrap_err().to_string().contains("malformed HTTP response"));
}

#[tokio::test]
async fn an_error_text_has_an_end() {
    let (kubo, client) = fake().await;
    let body = "x".repeat(1 << 20);
    kubo.set_rules(vec![Rule::reply("/id", "500 X", &body)]);
    assert!(client.id().await.unwrap_err().to_string().len() < 100_000);
}

#[tokio::test]
async fn a_daemon_that_is_down_is_reported_as_go_does_and_lifted_by_any_response() {
    let (kubo, client) = fake().await;
    let authority = kubo.authority();
    let address = kubo.multiaddr().to_owned();
    kubo.stop().await;
    let expected =
        format!("Post \"http://{authority}/api/v0/id\": dial tcp {authority}: connect: connection refused");
    let start = Instant::now();
    for _ in 0..12 {
        let failure = client.id().await.unwrap_err().to_string();
        assert_eq!(failure, expected);
    }
    // from here on one request a second
    client.id().await.unwrap_err();
    assert!(start.elapsed() >= Duration::from_secs(1));
    let port = address.rsplit('/').next().unwrap().to_owned();
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).unwrap();
    let server = std::thread::spawn(move || {
        for _ in 0..3 {
            let (mut socket, _) = listener.accept().unwrap();
            let _ = socket.read(&mut [0; 4096]).unwrap();
            socket.write_all(b"HTTP/1.1 500 X\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    });
    for _ in 0..3 {
        let failure = client.id().await.unwrap_err().to_string();
        assert_eq!(failure, "IPFS request failed (is it running?) (id). Code 500: ");
    }
    assert!(client.inner.daemon.is_answering());
    server.join().unwrap();
}

#[tokio::test]
async fn each_call_has_its_limit() {
    let (kubo, client) = fake_with(|options| {
        options.ipfs_request_timeout = Duration::from_millis(700);
        options.unpin_timeout = Duration::from_millis(700);
        options.repogc_timeout = Duration::from_millis(700);
    })
    .await;
    let origin = format!("http://{}/api/v0", kubo.authority());
    kubo.set_rules(vec![Rule::new("", vec![Part::Hang])]);
    let expected = format!("Post \"{origin}/repo/stat?size-only=true\": context deadline exceeded");
    assert_eq!(client.repo_stat().await.unwrap_err().to_string(), expected);
    let expected = format!("Post \"{origin}/pin/rm?arg={ALPHA}\": context deadline exceeded");
    assert_eq!(client.unpin(&cid(ALPHA)).await.unwrap_err().to_string(), expected);
    let head = Part::Bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec());
    let key = format!("{{\"Key\":{{\"/\":\"{ALPHA}\"}}}}\n");
    let key = Part::Bytes(format!("{:x}\r\n{key}\r\n", key.len()).into_bytes());
    kubo.set_rules(vec![Rule::new("repo/gc", vec![head.clone(), key, Part::Hang])]);
    let (keys, failure) = client.repo_gc().await;
    assert_eq!(keys.len(), 1);
    assert_eq!(failure.unwrap().to_string(), "context deadline exceeded");
    kubo.set_rules(vec![Rule::new("pin/ls", vec![head, Part::Hang])]);
    let listed: Vec<_> = client.pin_ls(&["recursive"]).collect().await;
    let failure = listed[0].as_ref().unwrap_err().to_string();
    assert_eq!(failure, "aborting pin/ls operation: context deadline exceeded");
}

#[tokio::test]
async fn a_limit_of_zero_fails_every_call_and_sends_nothing() {
    let (kubo, client) = fake_with(|options| options.ipfs_request_timeout = Duration::ZERO).await;
    let url = format!("http://{}/api/v0/id", kubo.authority());
    let failure = client.id().await.unwrap_err().to_string();
    assert_eq!(failure, format!("Post \"{url}\": context deadline exceeded"));
    assert!(kubo.saw("").is_empty());
}

#[tokio::test]
async fn dropping_a_call_aborts_its_request() {
    let (kubo, client) = fake().await;
    // the pause ends only if the daemon notices that the caller left
    kubo.set_rules(vec![Rule::new("pin/add", vec![Part::Hang])]);
    let pinning = pin(ALPHA, -1);
    tokio::select! {
        result = client.pin(&pinning) => panic!("pinned: {result:?}"),
        _ = kubo.wait_for("pin/add", 1) => {}
    }
    kubo.set_rules(Vec::new());
    client.pin(&pinning).await.unwrap();
    assert_eq!(kubo.saw("pin/add").len(), 2);
}

// Ticks I1 and I2: who the daemon is.

#[tokio::test]
async fn the_daemon_is_asked_until_it_answers() {
    let (kubo, client) = fake().await;
    kubo.set_rules(vec![Rule::reply("/id", "500 X", "{}").times(1)]);
    assert!(client.wait_ready(&CancellationToken::new()).await);
    assert_eq!(kubo.saw("/id").len(), 2);
    kubo.set_rules(vec![Rule::reply("/id", "500 X", "{}")]);
    let stop = CancellationToken::new();
    let (ready, ()) = tokio::join!(client.wait_ready(&stop), async {
        kubo.wait_for("/id", 3).await;
        stop.cancel();
    });
    assert!(!ready);
}

#[tokio::test]
async fn addresses_that_cannot_be_read_are_left_out() {
    let (kubo, client) = fake().await;
    let addresses = "[\"/ip4/127.0.0.1/tcp/4001\",\"garbage\",\"/ip4/1.2.3.4/udp/4001/quic-v1\"]";
    let body = format!("{{\"ID\":\"{PEER_ID}\",\"Addresses\":{addresses}}}");
    kubo.set_rules(vec![Rule::reply("/id", "200 OK", &body)]);
    assert_eq!(client.id().await.unwrap().addresses.unwrap().len(), 2);
    let body =
        "{\"id\":\"QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N\",\"addresses\":null,\"Extra\":{\"a\":1}}";
    kubo.set_rules(vec![Rule::reply("/id", "200 OK", body)]);
    let id = client.id().await.unwrap();
    assert_eq!(id.id.unwrap().to_string(), "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N");
    assert_eq!(id.addresses, Some(Vec::new()));
    let body = "{\"Peers\":[{\"Peer\":\"bad\"}]}";
    kubo.set_rules(vec![Rule::reply("swarm/peers", "200 OK", body)]);
    client.swarm_peers().await.unwrap_err();
}

mod pins;
