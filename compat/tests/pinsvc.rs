//! The pinning service over a fake cluster, held against recordings of ipfs-cluster 1.1.6.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed test may panic")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cluster_compat::api::{self, ClusterApi};
use cluster_compat::config::HttpApi;
use cluster_compat::go::time::Time;
use cluster_compat::http::listen::Listener;
use cluster_compat::pinsvc::PinSvc;
use cluster_compat::testing::cluster::{FakeCluster, PEER};
use cluster_compat::testing::golden::{self, Answer, Data, Step};
use cluster_compat::types::{
    Cid, GlobalPinInfo, Metric, Multiaddr, Pin, PinOptions, parse_cid, parse_multiaddr, parse_peer_id,
};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long one exchange may take before the test says which it was.
const LIMIT: Duration = Duration::from_secs(20);

const CID: &str = "QmP63DkAFEnDYNjDYBpyNDfttu1fvUw99x1brscPzpqmmq";
const OTHER: &str = "QmP63DkAFEnDYNjDYBpyNDfttu1fvUw99x1brscPzpqmmb";

/// A served fake cluster; it stops when dropped.
struct Server {
    addr: SocketAddr,
    fake: FakeCluster,
    _serving: JoinSet<()>,
}

async fn serve() -> Server {
    serve_as(HttpApi::pinsvc()).await
}

async fn serve_as(config: HttpApi) -> Server {
    let fake = FakeCluster::new();
    let any: Multiaddr = parse_multiaddr("/ip4/127.0.0.1/tcp/0").unwrap();
    let listener = Listener::bind(&any).await.unwrap();
    let port = listener.local_addr().to_string().rsplit('/').next().unwrap().parse().unwrap();
    let api: Arc<dyn ClusterApi> = Arc::new(fake.clone());
    let mut serving = JoinSet::new();
    let service = PinSvc::new(&config, Path::new("."), api).unwrap();
    serving.spawn(service.serve(vec![listener], CancellationToken::new()));
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

/// The steps of a recording; those to the other API, which only say what the cluster knew, apart.
fn fixture(name: &str) -> (Vec<(Step, bool)>, Vec<GlobalPinInfo>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/pinsvc").join(name);
    let recording: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (mut steps, mut infos) = (Vec::new(), Vec::new());
    for value in recording["steps"].as_array().unwrap() {
        let step: Step = serde_json::from_value(value.clone()).unwrap();
        if value["to"] == "rest" {
            infos.push(serde_json::from_str(text(&step.answer.body)).unwrap());
        } else {
            steps.push((step, value["unordered"] == true));
        }
    }
    (steps, infos)
}

/// An answer whose results may come in any order.
fn settled(mut answer: Answer) -> Answer {
    let body: Option<Value> = serde_json::from_str(text(&answer.body)).ok();
    if let Some(results) = body.as_ref().and_then(|body| body["results"].as_array()) {
        let mut results = results.clone();
        results.sort_by_key(|result| result["requestid"].to_string());
        let results: Vec<String> = results.iter().map(Value::to_string).collect();
        answer.body = Data::Text(format!("{} {}", body.as_ref().unwrap()["count"], results.join("\n")));
        answer.chunks.clear();
    }
    answer
}

/// Sends the steps of a recording that `wanted` lets through and compares every answer.
async fn replay(server: &Server, name: &str, wanted: impl Fn(&Step) -> bool) {
    let mut differences = Vec::new();
    let mut n_steps = 0;
    for (step, is_unordered) in fixture(name).0.into_iter().filter(|(step, _)| wanted(step)) {
        n_steps += 1;
        let mut actual = exchange(server.addr, &step).await;
        let mut expected = step.ours.as_ref().unwrap_or(&step.answer).clone();
        if is_unordered {
            (expected, actual) = (settled(expected), settled(actual));
        }
        let (expected, actual) = (golden::comparable(&expected, false), golden::comparable(&actual, false));
        if expected != actual {
            let (method, target) = (&step.method, &step.target);
            let (expected, actual) = (expected.join("\n    "), actual.join("\n    "));
            differences
                .push(format!("{method} {target}\n  expected:\n    {expected}\n  actual:\n    {actual}"));
        }
    }
    assert!(n_steps > 0, "{name}: no step was wanted");
    let n = differences.len();
    assert!(n == 0, "{name}: {n} of {n_steps} differ\n{}", differences.join("\n"));
}

#[tokio::test]
async fn the_life_of_a_pin_is_as_recorded() {
    // what the other API pinned is not in the fake
    let is_ours = |step: &Step| !step.target.contains("QmSXeay8qJE8RCK7uHgBLaH37uNBxfV2TTET5c3LHyopv7");
    replay(&serve().await, "add-get-delete.json", |step| {
        is_ours(step) && !text(&step.answer.body).contains("by REST")
    })
    .await;
}

#[tokio::test]
async fn bodies_are_refused_and_taken_as_recorded() {
    replay(&serve().await, "bodies-refused.json", |_| true).await;
}

#[tokio::test]
async fn bad_parameters_routes_and_methods_are_as_recorded() {
    replay(&serve().await, "errors.json", |_| true).await;
}

#[tokio::test]
async fn every_filter_of_a_list_is_as_recorded() {
    replay(&serve().await, "list-filters.json", |_| true).await;
}

#[tokio::test]
async fn replaced_pins_are_as_recorded() {
    replay(&serve().await, "replace.json", |_| true).await;
}

#[tokio::test]
async fn lists_by_age_are_as_recorded() {
    let server = serve().await;
    let pins = [
        ("QmUB9Nr7RpqNYQpyh4W9r3RQNttiPQ6BQ9iQLkw9LztJFz", "early", 11),
        ("QmapoNeQhJxjMDWstx27etyxMNLU4MtkDk8BMfyHRao8P8", "middle", 12),
        ("QmSXeay8qJE8RCK7uHgBLaH37uNBxfV2TTET5c3LHyopv7", "late", 13),
    ];
    for (cid, name, second) in pins {
        let created = Time::parse_rfc3339(&format!("2026-11-21T15:08:{second}Z")).unwrap();
        server.fake.insert_pin(pin(parse_cid(cid).unwrap(), name, created));
    }
    let is_list = |step: &Step| step.target.starts_with("/pins?");
    replay(&server, "before-and-after.json", |step| {
        is_list(step) && !text(&step.answer.body).contains("early again")
    })
    .await;
}

#[tokio::test]
async fn failed_and_pending_pins_are_as_recorded() {
    for name in ["failed.json", "statuses.json"] {
        let server = serve().await;
        let (steps, infos) = fixture(name);
        let info = infos.into_iter().next().unwrap();
        let id = format!("\"requestid\":\"{}\"", info.cid.unwrap());
        server.fake.insert_info(info);
        // what follows a removal is another story
        let n_before = steps.iter().take_while(|(step, _)| step.method != "DELETE").count();
        let targets: BTreeSet<String> =
            steps[..n_before].iter().map(|(step, _)| step.target.clone()).collect();
        replay(&server, name, |step| {
            let body = text(&step.answer.body);
            let is_then = body.contains(&id) || step.target.contains("status=queued");
            step.method == "GET" && targets.contains(&step.target) && is_then
        })
        .await;
    }
}

fn pin(cid: Cid, name: &str, created: Time) -> Pin {
    let options = PinOptions { name: name.into(), ..PinOptions::default() };
    Pin { timestamp: created, ..Pin::with_options(cid, options) }
}

fn request(method: &str, target: &str, body: Option<&str>) -> Step {
    let body = body.map(|body| Data::Text(body.into()));
    Step { body, ..Step::request(method, target) }
}

/// What a client reads.
async fn ask(server: &Server, method: &str, target: &str, body: Option<&str>) -> (u16, String) {
    let answer = exchange(server.addr, &request(method, target, body)).await;
    (answer.status, text(&answer.body).to_owned())
}

fn refusal(reason: &str) -> String {
    format!("{{\"error\":{{\"reason\":{}}}}}\n", serde_json::to_string(reason).unwrap())
}

#[tokio::test]
async fn a_body_without_a_cid_is_refused_and_nothing_is_pinned() {
    let server = serve().await;
    for target in ["/pins".to_owned(), format!("/pins/{CID}")] {
        for body in ["null", "{}", r#"{"cid":null}"#, r#"{"name":"n"}"#] {
            let expected = (400, refusal("error decoding request body: cid is missing"));
            assert_eq!(ask(&server, "POST", &target, Some(body)).await, expected, "{target} {body}");
        }
    }
    let long = format!("{{\"name\":\"{}\"}}", "n".repeat(1 << 20));
    let answer = exchange(server.addr, &request("POST", "/pins", Some(&long))).await;
    assert_eq!(answer.status, 400);
    assert!(text(&answer.body).starts_with("{\"error\":{\"reason\":\"error decoding request body: "));
    assert_eq!(server.fake.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_bad_request_id_is_refused_and_nothing_is_pinned() {
    let server = serve().await;
    let expected = (400, refusal("error decoding requestID: invalid cid: cid too short"));
    let body = format!("{{\"cid\":\"{CID}\"}}");
    for (method, body) in [("POST", Some(body.as_str())), ("GET", None), ("DELETE", None)] {
        assert_eq!(ask(&server, method, "/pins/x", body).await, expected, "{method}");
    }
    assert_eq!(server.fake.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_pin_replaced_by_itself_is_updated_in_place() {
    let server = serve().await;
    let body = format!(r#"{{"cid":"{CID}","name":"new","meta":{{"a":"b"}}}}"#);
    let target = format!("/pins/{CID}");
    assert_eq!(
        ask(&server, "POST", &target, Some(&body)).await,
        (404, refusal("pin is not part of the pinset"))
    );
    server.fake.insert_pin(pin(parse_cid(CID).unwrap(), "old", Time::from_unix(1, 0)));
    let (status, answer) = ask(&server, "POST", &target, Some(&body)).await;
    assert_eq!(status, 202, "{answer}");
    let pins = server.fake.pins();
    assert_eq!((pins.len(), pins[0].options.name.as_str()), (1, "new"));
    assert_eq!(pins[0].options.pin_update, None);
    assert!(!server.fake.calls().contains(&"unpin".to_owned()));
}

#[tokio::test]
async fn failures_keep_their_status() {
    let server = serve().await;
    let cid = parse_cid(CID).unwrap();
    let body = format!("{{\"cid\":\"{CID}\"}}");
    for (error, status) in [
        (api::Error::internal("a <b>"), 500),
        (api::Error::not_found(), 404),
        (api::Error::bad_request("c"), 400),
    ] {
        server.fake.insert_pin(pin(parse_cid(OTHER).unwrap(), "", Time::from_unix(1, 0)));
        let reason = error.message.replace('<', "\\u003c").replace('>', "\\u003e");
        let expected = (status, format!("{{\"error\":{{\"reason\":\"{reason}\"}}}}\n"));
        for (call, method, target, body) in [
            ("status_all", "GET", "/pins".to_owned(), None),
            ("status_all", "GET", "/pins?limit=100000".to_owned(), None),
            ("status", "GET", format!("/pins?cid={CID}"), None),
            ("status", "GET", format!("/pins/{CID}"), None),
            ("unpin", "DELETE", format!("/pins/{CID}"), None),
            ("pin", "POST", "/pins".to_owned(), Some(body.as_str())),
            ("pin", "POST", format!("/pins/{OTHER}"), Some(body.as_str())),
        ] {
            server.fake.fail(call, error.clone());
            assert_eq!(ask(&server, method, &target, body).await, expected, "{method} {target}");
        }
        let several = format!("/pins?cid={CID},{OTHER}&limit=2");
        let (_, answer) = ask(&server, "GET", &several, None).await;
        assert!(answer.contains(&format!("{reason}; {reason}")), "{answer}");
        let (code, answer) = ask(&server, "GET", &format!("/pins?cid={CID}&limit=0"), None).await;
        assert_eq!((code, answer.as_str()), (200, "{\"count\":1,\"results\":[]}\n"));
    }
    server.fake.insert_pin(pin(cid, "", Time::from_unix(1, 0)));
    server.fake.fail_late("status_all", api::Error::internal("late"));
}

#[tokio::test]
async fn delegates_are_the_daemons_that_shall_hold_a_pin() {
    let server = serve().await;
    let addr = "/ip4/1.2.3.4/tcp/4001/p2p/12D3KooWLktuTSPdVMTXRDYxZKMHY3gAcw5ThNBwDu5yis2yZ8j3";
    for (peer, value) in [
        (PEER, format!("{{\"peer_name\":\"a\",\"ipfs_addresses\":[\"{addr}\",\"?\"]}}")),
        ("12D3KooWKuJ8LPTyHbyX4nt4C7uWmUobzFsiceTVoFw7HpmoNakM", "not json".into()),
    ] {
        let peer = Some(parse_peer_id(peer).unwrap());
        server.fake.insert_metric(Metric {
            name: "ping".into(),
            peer,
            value,
            valid: true,
            ..Metric::default()
        });
    }
    let body = format!("{{\"cid\":\"{CID}\"}}");
    let (status, answer) = ask(&server, "POST", "/pins", Some(&body)).await;
    assert_eq!(status, 202);
    assert!(answer.contains(&format!("\"delegates\":[\"{addr}\"]")), "{answer}");
}

fn cid_of(n: u32) -> Cid {
    let hash = multihash::Multihash::wrap(0, &n.to_be_bytes()).unwrap();
    Cid::new_v1(0x55, hash)
}

/// A page as `(count, [(requestid, created)])`.
async fn page(server: &Server, query: &str) -> (u64, Vec<(String, String)>) {
    let (status, body) = ask(server, "GET", &format!("/pins?{query}"), None).await;
    assert_eq!(status, 200, "{query}: {body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    let of = |result: &Value, key: &str| result[key].as_str().unwrap().to_owned();
    let results = body["results"].as_array().unwrap();
    let results = results.iter().map(|result| (of(result, "requestid"), of(result, "created"))).collect();
    (body["count"].as_u64().unwrap(), results)
}

/// Pages through all pins as clients do, giving the `created` of the oldest pin as `cut` leaves it.
async fn page_through(server: &Server, query: &str, cut: impl Fn(&str) -> String) -> Vec<String> {
    let (mut seen, mut before) = (Vec::new(), String::new());
    loop {
        let (count, results) = page(server, &format!("{query}&before={before}")).await;
        seen.extend(results.iter().map(|(id, _)| id.clone()));
        let created: Vec<&String> = results.iter().map(|(_, created)| created).collect();
        assert!(
            created.windows(2).all(|pair| {
                Time::parse_rfc3339(pair[0]).unwrap() >= Time::parse_rfc3339(pair[1]).unwrap()
            })
        );
        if count == results.len() as u64 {
            return seen;
        }
        before = cut(&results.last().unwrap().1);
    }
}

/// A time with so many digits behind the second.
fn cut_to(n_digits: usize) -> impl Fn(&str) -> String {
    move |created| {
        let (second, rest) = created.split_once('.').unwrap();
        let digits: String = rest.chars().take_while(char::is_ascii_digit).take(n_digits).collect();
        format!("{second}.{digits}Z")
    }
}

#[tokio::test]
async fn pages_show_each_pin_once_even_of_one_second() {
    let server = serve().await;
    for n in 0..1200 {
        // most were imported within a second, and some by a program that wrote no times
        let created = match n % 50 {
            0 => Time::from_unix(1_700_000_000 + i64::from(n), 0),
            1..=5 => Time::ZERO,
            _ => Time::from_unix(1_700_000_000, 0),
        };
        server.fake.insert_pin(pin(cid_of(n), "", created));
    }
    let all: BTreeSet<String> = (0..1200).map(|n| cid_of(n).to_string()).collect();
    for (query, n_digits) in
        [("limit=7", 9), ("limit=100", 9), ("limit=100", 6), ("limit=10", 3), ("limit=999", 3)]
    {
        let n_before = server.fake.calls().iter().filter(|call| *call == "status_all").count();
        let seen = page_through(&server, query, cut_to(n_digits)).await;
        assert_eq!(seen.len(), 1200, "{query}, {n_digits} digits");
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), all, "{query}");
        let n_looks = server.fake.calls().iter().filter(|call| *call == "status_all").count() - n_before;
        // one at first, and then where fewer are left than asking about each is worth
        assert!(n_looks <= 9, "{query}: {n_looks} looks at all pins");
    }
}

#[tokio::test]
async fn pages_are_the_same_when_nothing_is_remembered() {
    let server = serve().await;
    for n in 0..300 {
        server.fake.insert_pin(pin(cid_of(n), "", Time::from_unix(1_700_000_000, 0)));
    }
    let (mut seen, mut before) = (Vec::new(), String::new());
    loop {
        // another filter that lets all through is another list
        let query = format!("limit=20&match=partial&before={before}&meta={{\"n{}\":\"\"}}", seen.len());
        let (count, results) = page(&server, &query).await;
        assert_eq!(count, 300 - seen.len() as u64);
        seen.extend(results.iter().map(|(id, _)| id.clone()));
        if count == results.len() as u64 {
            break;
        }
        before = results.last().unwrap().1.clone();
    }
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 300);
    assert_eq!(seen.len(), 300);
}

#[tokio::test]
async fn what_left_the_list_since_its_first_page_is_not_shown_on_the_next() {
    let server = serve().await;
    for n in 0..30 {
        server.fake.insert_pin(pin(cid_of(n), "", Time::from_unix(1_700_000_000 + i64::from(n), 0)));
    }
    let (count, results) = page(&server, "limit=2").await;
    assert_eq!((count, results.len()), (30, 2));
    for n in [27, 25, 3] {
        let target = format!("/pins/{}", cid_of(n));
        assert_eq!(ask(&server, "DELETE", &target, None).await.0, 202);
    }
    let n_looks = || server.fake.calls().iter().filter(|call| *call == "status_all").count();
    let next = |last: &(String, String)| format!("limit=2&before={}", last.1);
    let (count, results) = page(&server, &next(&results[1])).await;
    // the page is full; that one behind it has gone is found when it is looked at
    assert_eq!((count, results.len(), n_looks()), (26, 2, 1));
    assert_eq!(results[0].0, cid_of(26).to_string());
    assert_eq!(results[1].0, cid_of(24).to_string());
    let again = next(&results[1]);
    let (count, results) = page(&server, &again).await;
    assert_eq!((count, results[0].0.clone(), n_looks()), (24, cid_of(23).to_string(), 1));
    // the same page again is a list of its own
    let (count, results) = page(&server, &again).await;
    assert_eq!((count, results[0].0.clone(), n_looks()), (23, cid_of(23).to_string(), 2));
}

#[tokio::test]
async fn a_list_longer_than_a_page_is_whole_or_cut_off() {
    let server = serve().await;
    for n in 0..3000 {
        server.fake.insert_pin(pin(cid_of(n), "n", Time::from_unix(1_700_000_000 + i64::from(n), 0)));
    }
    let (count, results) = page(&server, "limit=18446744073709551615").await;
    assert_eq!((count, results.len()), (3000, 3000));
    let (count, results) = page(&server, "limit=1500").await;
    assert_eq!((count, results.len()), (3000, 1500));
    let newest: BTreeSet<String> = (1500..3000).map(|n| cid_of(n).to_string()).collect();
    assert_eq!(results.into_iter().map(|(id, _)| id).collect::<BTreeSet<_>>(), newest);
    let (count, results) = page(&server, "limit=5000&name=x").await;
    assert_eq!((count, results.len()), (0, 0));
}

#[tokio::test]
async fn users_get_tokens_and_others_the_error_document() {
    let mut config = HttpApi::pinsvc();
    config.basic_auth_credentials = Some([("user".into(), "secret".into())].into());
    let server = serve_as(config).await;
    let with = |method: &str, target: &str, credentials: &str| {
        let headers = vec![("Authorization".to_owned(), credentials.to_owned())];
        Step { headers, ..request(method, target, None) }
    };
    assert_eq!(ask(&server, "GET", "/pins", None).await, (401, refusal("unauthorized: no auth provided")));
    let answer = exchange(server.addr, &with("GET", "/pins", "Bearer x")).await;
    assert_eq!((answer.status, text(&answer.body)), (401, refusal("unauthorized: invalid token").as_str()));
    // user:secret
    let answer = exchange(server.addr, &with("POST", "/token", "Basic dXNlcjpzZWNyZXQ=")).await;
    let token: Value = serde_json::from_str(text(&answer.body)).unwrap();
    let bearer = format!("Bearer {}", token["token"].as_str().unwrap());
    let answer = exchange(server.addr, &with("GET", "/pins", &bearer)).await;
    assert_eq!((answer.status, text(&answer.body)), (200, "{\"count\":0,\"results\":[]}\n"));
}
