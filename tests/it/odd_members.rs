//! Members that harm: clocks that are off, answers that never come, never end or make no sense, callers nobody trusts.
//! Each costs its own row, in bounded time. Beside the scripted Go peer of `tests/interop`; skipped where that cannot
//! be built.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cluster_compat::testing::kubo::FakeKubo;
use cluster_compat::types::{Id, Metric};
use ipfs_cluster::wire::call::{Response, ServiceId};
use ipfs_cluster::wire::{id, metric};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::scripted::Scripted;
use crate::support::{Peer, SECRET, cid, eventually};

/// What one silent member may cost, and what a busy machine adds.
const ANSWER_LIMIT: Duration = Duration::from_secs(15 + 5);

const HOUR: i64 = 3_600_000_000_000;

/// One of ours among scripted members.
struct Odd {
    _daemon: FakeKubo,
    ours: Peer,
    our_id: String,
}

impl Odd {
    async fn start(members: &[Scripted], change: impl FnOnce(&mut Value)) -> Self {
        let daemon = FakeKubo::start().await.unwrap();
        let addrs: Vec<_> = members.iter().map(|member| member.addr.to_string()).collect();
        let mut ours = Peer::init_member(&daemon, SECRET, |config| {
            config["cluster"]["peer_addresses"] = json!(addrs);
            change(config);
        });
        ours.start().await;
        let (our_id, _) = ours.id_and_addr().await;
        for member in members {
            member.grafted(&our_id).await;
        }
        Self { _daemon: daemon, ours, our_id }
    }

    /// Waits until a member's ping is known.
    async fn knows(&self, member: &Scripted) {
        let id = member.id.to_string();
        let known = async || self.ours.rest("GET", "/monitor/metrics/ping").await.text().contains(&id);
        eventually("the member is known", known).await.unwrap();
    }
}

/// A ping good for so many nanoseconds.
async fn ping(member: &mut Scripted, lifetime: i64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let ping = Metric {
        name: "ping".into(),
        peer: Some(member.id),
        value: r#"{"peer_name":"odd"}"#.into(),
        expire: i64::try_from(now.as_nanos()).unwrap() + lifetime,
        valid: true,
        weight: 0,
        partitionable: false,
        received_at: 0,
    };
    member.run(&format!("gossip metrics {}", hex::encode(metric::encode(&ping)))).await;
}

/// The head of an answer.
fn head(service: &str, method: &str, error: &str, error_type: i64) -> Vec<u8> {
    let service = ServiceId { service: service.into(), method: method.into() };
    Response { service, error: error.into(), error_type }.encode()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_by_an_hour_is_named_once_and_harms_nobody() {
    let Some(ahead) = Scripted::start(&[]).await else { return };
    let Some(behind) = Scripted::start(&[]).await else { return };
    let Some(right) = Scripted::start(&[]).await else { return };
    let mut members = [ahead, behind, right];
    let odd = Odd::start(&members, |_| {}).await;
    // good for twice its interval, by a clock of its own
    let interval = Duration::from_millis(250);
    let mut ticks = tokio::time::interval(interval);
    for _ in 0..16 {
        ticks.tick().await;
        for (member, offset) in members.iter_mut().zip([HOUR, -HOUR, 0]) {
            ping(member, 500_000_000 + offset).await;
        }
    }
    let [ahead, behind, right] = &members;
    odd.knows(ahead).await;
    for (member, word) in [(ahead, "ahead"), (behind, "behind")] {
        let id = member.id.to_string();
        let about = || odd.ours.logged(&format!("the clock of {id}"));
        eventually("the clock is named", async || !about().is_empty()).await.unwrap();
        let told = about();
        assert_eq!(told.len(), 1, "{told:?}");
        let line = &told[0];
        assert!(line.contains("WARN") && line.contains(word), "{line}");
        assert!(line.contains("about 1h0m") || line.contains("about 59m"), "{line}");
    }
    assert!(odd.ours.logged(&format!("the clock of {}", right.id)).is_empty());
    // who is behind is no member, as in the reference; who is ahead is one
    let pings = odd.ours.rest("GET", "/monitor/metrics/ping").await.text();
    assert!(pings.contains(&ahead.id.to_string()) && !pings.contains(&behind.id.to_string()), "{pings}");
    let reply = odd.ours.rest("POST", &format!("/pins/{}?name=n", cid(1))).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_hang_flood_or_talk_nonsense_cost_their_own_rows_in_time() {
    let kinds = ["hangs", "floods", "nonsense", "cut", "refuses"];
    let mut members = Vec::new();
    for kind in kinds {
        let Some(mut member) = Scripted::start(&[]).await else { return };
        for (service, method) in [
            ("Cluster", "IDStream"),
            ("Cluster", "Peers"),
            ("Cluster", "RepoGCLocal"),
            ("Cluster", "RecoverLocal"),
            ("Cluster", "RecoverAllLocal"),
            ("PinTracker", "Status"),
            ("PinTracker", "StatusAll"),
            ("PinTracker", "Recover"),
        ] {
            let good = hex::encode(head(service, method, "", 0));
            let refused = hex::encode(head(service, method, "client does not have permissions", 3));
            let rule = match kind {
                "hangs" => "hang".to_owned(),
                // a text of 4 GiB
                "floods" => format!("endless {good}dbffffffff 41414141"),
                "nonsense" => format!("send {good}c1c1c1"),
                // a map of five, of which nothing comes
                "cut" => format!("send {good}85"),
                _ => format!("send {refused}80"),
            };
            member.run(&format!("answer {method} {rule}")).await;
        }
        members.push(member);
    }
    let odd = Odd::start(&members, |_| {}).await;
    let pin = format!("/pins/{}", cid(1));
    assert_eq!(odd.ours.rest("POST", &format!("{pin}?name=n")).await.status, 200);
    for member in &mut members {
        ping(member, HOUR).await;
    }
    for member in &members {
        odd.knows(member).await;
    }
    let recover = format!("{pin}/recover");
    let started = Instant::now();
    let ask = async |method: &str, target: &str| {
        let answer = odd.ours.rest(method, target).await.documents();
        (answer, started.elapsed())
    };
    let (peers, one, all, recovered, recovered_all, collected, graph) = tokio::join!(
        ask("GET", "/peers"),
        ask("GET", &pin),
        ask("GET", "/pins"),
        ask("POST", &recover),
        ask("POST", "/pins/recover"),
        ask("POST", "/ipfs/gc"),
        ask("GET", "/health/graph"),
    );
    let ids: Vec<_> = members.iter().map(|member| member.id.to_string()).collect();
    let expected = [
        ("context deadline exceeded", "the peer neither answers nor pings"),
        // a garbage collection may tell much: what is allowed takes longer than a sign of life may
        ("a message of more than", "neither answers"),
        ("msgpack", "msgpack"),
        ("unexpected EOF", "unexpected EOF"),
    ];
    let mut wrong = Vec::new();
    let mut check = |what: &str, error_of: &dyn Fn(&str) -> Option<String>| {
        for (n, (id, kind)) in ids.iter().zip(kinds).enumerate() {
            let error = error_of(id);
            let is_right = match (expected.get(n), &error) {
                (None, error) => error.is_none(),
                (Some((first, second)), Some(error)) => error.contains(first) || error.contains(second),
                _ => false,
            };
            eprintln!("| {what} | {kind} | {error:?} |");
            if !is_right {
                wrong.push(format!("{what}, {kind}: {error:?}"));
            }
        }
        let own = error_of(&odd.our_id);
        if own.as_deref() != Some("") {
            wrong.push(format!("{what}, ours: {own:?}"));
        }
    };
    let text = |error: &Value| error.as_str().map(str::to_owned);
    check("GET /peers", &|id| text(&peers.0.iter().find(|row| row["id"] == id)?["error"]));
    for (what, answer) in [
        ("GET /pins/{cid}", &one.0),
        ("GET /pins", &all.0),
        ("POST /pins/{cid}/recover", &recovered.0),
        ("POST /ipfs/gc", &collected.0),
    ] {
        check(what, &|id| {
            let row = answer.first()?["peer_map"].get(id)?;
            Some(row.get("error").and_then(Value::as_str).unwrap_or_default().to_owned())
        });
    }
    let links = graph.0[0]["cluster_links"].as_object().unwrap();
    assert_eq!(links.len(), kinds.len() + 1, "{links:?}");
    for (what, took) in [
        ("GET /peers", peers.1),
        ("GET /pins/{cid}", one.1),
        ("GET /pins", all.1),
        ("POST /pins/{cid}/recover", recovered.1),
        ("POST /pins/recover", recovered_all.1),
        // one after another, and two of them never answer, as the reference has it
        ("POST /ipfs/gc", collected.1 / 2),
    ] {
        eprintln!("{what}: {took:.1?}");
        if took > ANSWER_LIMIT {
            wrong.push(format!("{what} took {took:.1?}"));
        }
    }
    eprintln!("GET /health/graph: {:.1?}", graph.1);
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), odd.ours.log());
    // and the log says whose rows failed
    for (id, kind) in ids.iter().zip(kinds).take(expected.len()) {
        let told = odd.ours.logged(id);
        assert!(told.iter().any(|line| line.contains("error in broadcast response")), "{kind}: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_is_not_trusted_is_refused_but_for_what_is_open() {
    let Some(member) = Scripted::start(&[]).await else { return };
    let mut members = [member];
    let odd = Odd::start(&members, |config| config["consensus"]["crdt"]["trusted_peers"] = json!([])).await;
    for (service, method, argument, error_type) in [
        ("PinTracker", "Status", "c0", 3),
        ("PinTracker", "StatusAll", "00", 3),
        ("Cluster", "RecoverAllLocal", "", 3),
        ("Cluster", "RepoGCLocal", "80", 3),
        ("Consensus", "LogPin", "80", 3),
        // what nobody may call
        ("Cluster", "Pin", "80", 3),
        ("Cluster", "ID", "80", 0),
        ("Cluster", "Version", "80", 0),
    ] {
        let call = ServiceId { service: service.into(), method: method.into() }.encode();
        let asked = members[0].run(&format!("ask {} {}{argument}", odd.our_id, hex::encode(call))).await;
        let reply = hex::decode(asked["reply"].as_str().unwrap()).unwrap();
        let head = Response::decode(&reply).unwrap();
        assert_eq!(head.error_type, error_type, "{service}.{method}: {head:?}");
        assert_eq!(head.error.is_empty(), error_type == 0, "{service}.{method}: {head:?}");
        if method == "ID" {
            let body = &reply[head.encode().len()..];
            let id: Id = id::decode(body).unwrap();
            assert_eq!(id.id.unwrap().to_string(), odd.our_id);
        }
    }
}
