//! What the cluster answers instead of the daemon.

use cluster_compat::api;
use cluster_compat::config;
use cluster_compat::testing::kubo::{FakeKubo, Part, Rule};
use cluster_compat::types::{PinMode, parse_multiaddr};

use crate::harness::*;

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
async fn arguments_from_standard_input_come_as_lines_of_a_file() {
    let (server, _kubo) = with_kubo().await;
    let form = |lines: &str| {
        format!(
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"stdin\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n{lines}\r\n--b--\r\n"
        )
    };
    let body = form(&format!("{BRAVO}\r\n/ipfs/{ABSENT}\n"));
    let target = format!("/api/v0/pin/add?arg={ALPHA}");
    let answer = ask(&server, "POST", &target, FORM, body.as_bytes()).await;
    assert_eq!(text(&answer), format!("{{\"Pins\":[\"{ALPHA}\",\"{BRAVO}\",\"{ABSENT}\"]}}"));
    let body = form(&format!("{BRAVO}\nfoo"));
    let answer = ask(&server, "POST", "/api/v0/pin/rm", FORM, body.as_bytes()).await;
    assert!(answer.status == 500 && text(&answer).contains("invalid path \\\"foo\\\""), "{answer:?}");
    assert_eq!(server.cluster.pins().len(), 3);
    let answer = ask(&server, "POST", "/api/v0/pin/rm", FORM, form(BRAVO).as_bytes()).await;
    assert_eq!(text(&answer), format!("{{\"Pins\":[\"{BRAVO}\"]}}"));
    let answer = ask(&server, "POST", &target, FORM, b"--b\r\nContent-Disp").await;
    assert!(answer.status == 500 && text(&answer).contains("error reading request"), "{answer:?}");
}

#[tokio::test]
async fn lists_are_filtered_by_type_and_name() {
    let (server, _kubo) = with_kubo().await;
    server.cluster.insert_pin(pin(ALPHA, PinMode::Recursive, "one"));
    server.cluster.insert_pin(pin(BRAVO, PinMode::Direct, ""));
    let ls = async |query: &str| text(&post(&server, &format!("/api/v0/pin/ls?{query}")).await).to_string();
    assert_eq!(ls("type=direct").await, format!("{{\"Keys\":{{\"{BRAVO}\":{{\"Type\":\"direct\"}}}}}}"));
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
async fn a_path_that_leads_nowhere_is_told_in_the_daemons_words_and_indirect_pins_are_the_daemons() {
    let (server, kubo) = with_kubo().await;
    let answer = post(&server, &format!("/api/v0/pin/ls?arg=/ipfs/{ALPHA}/nothere")).await;
    assert_eq!(
        (answer.status, text(&answer)),
        (500, "{\"Message\":\"could not resolve name\",\"Code\":0,\"Type\":\"error\"}")
    );
    let mut rules = header_rules();
    let line = format!("{{\"Cid\":\"{BRAVO}\",\"Type\":\"indirect through {ALPHA}\"}}\n");
    rules.push(Rule::stream("POST /api/v0/pin/ls", &[&line], None));
    kubo.set_rules(rules);
    let target = format!("/api/v0/pin/ls?type=indirect&stream=true&arg={BRAVO}");
    let answer = post(&server, &target).await;
    assert_eq!((text(&answer), header(&answer, "Server")), (line.as_str(), Some("kubo/0.42.0")));
    assert_eq!(kubo.saw("POST /api/v0/pin/ls"), [format!("POST {target}")]);
    assert!(server.cluster.calls().iter().all(|call| call == "resolve"), "{:?}", server.cluster.calls());
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

    let answer = ask(&server, "POST", "/api/v0/add?pin-name=mine&progress=true", FORM, body.as_bytes()).await;
    assert!(text(&answer).lines().all(|line| line.starts_with("{\"Name\":\"d")), "{}", text(&answer));
    assert!(server.cluster.pins().iter().any(|pin| pin.options.name == "mine"));

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
    let answer = post(&server, "/api/v0/repo/stat?size-only=true").await;
    let expected = "{\"RepoSize\":7,\"StorageMax\":9,\"NumObjects\":0,\"RepoPath\":\"\",\"Version\":\"\"}";
    assert_eq!(text(&answer), expected);
    assert_eq!(kubo.saw("POST /api/v0/repo/stat").len(), 1, "sizes alone are the cluster's");
    let answer = post(&server, "/api/v0/repo/gc").await;
    assert_eq!((answer.status, header(&answer, "Trailer")), (200, Some("X-Stream-Error")));
}
