//! Whole peers of ours beside the scripted Go peer of `tests/interop`; skipped where that cannot be built.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_compat::testing::kubo::FakeKubo;
use cluster_compat::types::{Cid, Pin};
use ipfs_cluster::wire::{key, pin_pb};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::scripted::Scripted;
use crate::support::{Peer, SECRET, cid, eventually};

/// How soon a write of one side is to be on the other, once their meshes stand.
const PROMPT: Duration = Duration::from_secs(2);

/// A stored pin with a name, as any peer may write it.
fn pin_value(cid: Cid, name: &str) -> String {
    let mut pin = pin_pb::decode_as(cid, b"").unwrap();
    pin.pin_type = cluster_compat::types::PinType::Data;
    pin.max_depth = -1;
    (pin.options.replication_factor_min, pin.options.replication_factor_max) = (-1, -1);
    pin.options.name = name.to_owned();
    hex::encode(pin_pb::encode(&pin))
}

fn element(cid: Cid, name: &str) -> Value {
    json!({ "key": key::of_cid(&cid), "value": pin_value(cid, name) })
}

/// A pin in the set of the Go peer.
fn read_pin(value: &Value) -> Pin {
    pin_pb::decode(&hex::decode(value.as_str().unwrap()).unwrap()).unwrap()
}

/// One of ours and a Go peer that has dialled it, in each other's mesh; nothing where there is no Go.
struct Pair {
    _daemon: FakeKubo,
    ours: Peer,
    go: Scripted,
    our_id: String,
}

impl Pair {
    async fn start(flags: &[&str], change: impl FnOnce(&mut Value)) -> Option<Self> {
        let daemon = FakeKubo::start().await.unwrap();
        let go = Scripted::start(flags).await?;
        let mut ours = Peer::init_member(&daemon, SECRET, |config| {
            // ours dials, so that it finds the other again after a restart on another port
            config["cluster"]["peer_addresses"] = json!([go.addr.to_string()]);
            change(config);
        });
        ours.start().await;
        let (our_id, _) = ours.id_and_addr().await;
        go.grafted(&our_id).await;
        Some(Self { _daemon: daemon, ours, go, our_id })
    }

    /// Waits until ours lists a set of pins, names by CID.
    async fn ours_lists(&self, expected: &BTreeMap<String, String>) {
        lists(&self.ours, expected).await.unwrap_or_else(|missing| panic!("{missing}\n{}", self.state()));
    }

    /// Waits until the Go peer holds a set of pins, names by CID.
    async fn go_holds(&mut self, expected: &BTreeMap<String, String>) {
        let held = holds(&mut self.go, expected).await;
        held.unwrap_or_else(|missing| panic!("{missing}\n{}", self.state()));
    }

    fn state(&self) -> String {
        format!("ours:\n{}\nGo:\n{}", self.ours.log(), self.go.last_events())
    }
}

async fn lists(ours: &Peer, expected: &BTreeMap<String, String>) -> Result<(), String> {
    let mut found = BTreeMap::new();
    let ended = eventually("ours lists what was pinned", async || {
        found = ours.pins().await;
        found == *expected
    })
    .await;
    ended.map_err(|missing| format!("{missing}: {} of {} pins", found.len(), expected.len()))
}

async fn holds(go: &mut Scripted, expected: &BTreeMap<String, String>) -> Result<(), String> {
    let mut found = BTreeMap::new();
    let ended = eventually("the Go peer holds what was pinned", async || {
        let set = go.set().await;
        found = set.values().map(read_pin).map(|pin| (pin.cid.to_string(), pin.options.name)).collect();
        found == *expected
    })
    .await;
    ended.map_err(|missing| format!("{missing}: {} of {} pins", found.len(), expected.len()))
}

async fn pin(ours: &Peer, n: usize) -> (String, String) {
    let (cid, name) = (cid(n).to_string(), format!("ours {n}"));
    let reply = ours.rest("POST", &format!("/pins/{cid}?name=ours%20{n}")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    (cid, name)
}

async fn put(go: &mut Scripted, n: usize) -> (String, String) {
    let (cid, name) = (cid(n), format!("go {n}"));
    go.run(&format!("put {} {}", key::of_cid(&cid), pin_value(cid, &name))).await;
    (cid.to_string(), name)
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_and_unpins_of_each_side_are_promptly_on_the_other() {
    let Some(mut pair) = Pair::start(&[], |_| {}).await else { return };
    let mut expected = BTreeMap::new();
    for n in 0..4 {
        let started = Instant::now();
        expected.extend([pin(&pair.ours, n).await]);
        pair.go_holds(&expected).await;
        assert!(started.elapsed() < PROMPT, "pin {n} of ours took {:?}", started.elapsed());
        let started = Instant::now();
        expected.extend([put(&mut pair.go, 100 + n).await]);
        pair.ours_lists(&expected).await;
        assert!(started.elapsed() < PROMPT, "pin {n} of Go took {:?}", started.elapsed());
    }
    // each removes what the other has written
    let started = Instant::now();
    let reply = pair.ours.rest("DELETE", &format!("/pins/{}", cid(100))).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    expected.remove(&cid(100).to_string());
    pair.go_holds(&expected).await;
    pair.go.run(&format!("delete {}", key::of_cid(&cid(0)))).await;
    expected.remove(&cid(0).to_string());
    pair.ours_lists(&expected).await;
    assert!(started.elapsed() < PROMPT * 2, "unpins took {:?}", started.elapsed());

    // what ours writes next stands over the other's head, and becomes the only one
    expected.extend([pin(&pair.ours, 5).await]);
    pair.go_holds(&expected).await;
    assert_eq!(pair.go.heads().await.len(), 1, "{}", pair.state());
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_either_side_are_one_node_on_the_other() {
    let change = |config: &mut Value| {
        config["consensus"]["crdt"]["batching"] =
            json!({ "max_batch_size": 50, "max_batch_age": "300ms", "max_queue_size": 5000 });
    };
    let Some(mut pair) = Pair::start(&[], change).await else { return };
    let mut expected = BTreeMap::new();
    for n in 0..120 {
        expected.extend([pin(&pair.ours, n).await]);
    }
    pair.go_holds(&expected).await;
    let height = pair.go.run("heads").await["height"].as_u64().unwrap();
    assert!(height < 60, "120 pins in batches made {height} nodes");

    pair.go.run("batch").await;
    for n in 1000..1300 {
        expected.extend([put(&mut pair.go, n).await]);
    }
    for n in 0..50 {
        pair.go.run(&format!("delete {}", key::of_cid(&cid(n)))).await;
        expected.remove(&cid(n).to_string());
    }
    let started = Instant::now();
    pair.go.run("commit").await;
    pair.ours_lists(&expected).await;
    assert!(started.elapsed() < PROMPT, "the batch took {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_contents_of_a_node_do_no_harm() {
    let Some(mut pair) = Pair::start(&[], |_| {}).await else { return };
    let (good, empty, unreadable, beside) = (cid(1), cid(2), cid(3), cid(4));
    let node = json!({
        "priority": 1,
        "elements": [
            { "key": "/NOTACID", "value": "0102" },
            { "key": "no slash/../and//dots", "value": "" },
            { "key": key::of_cid(&unreadable), "value": "ff00ff" },
            { "key": key::of_cid(&empty), "value": "" },
            { "key": "/".repeat(40) + &"LONG".repeat(400), "value": "00" },
            element(good, "good"),
        ],
        "tombstones": [{ "key": "/NEVER", "id": "/SEEN" }, { "key": key::of_cid(&good), "id": "/CIQA" }],
    });
    let made = pair.go.run(&format!("node {node}")).await;
    let first = made["cid"].as_str().unwrap().to_owned();
    pair.go.run(&format!("announce {first}")).await;
    // an empty value is a pin without a name, as in the reference
    let mut expected =
        BTreeMap::from([(good.to_string(), "good".to_owned()), (empty.to_string(), String::new())]);
    pair.ours_lists(&expected).await;

    // a block that is no node, heights that make no sense, a parent twice: each is told alone
    let junk = pair.go.run("block ffffffff").await["cid"].as_str().unwrap().to_owned();
    pair.go.run(&format!("announce {junk}")).await;
    let node = json!({ "parents": [first, first], "priority": 0, "elements": [element(beside, "height 0")] });
    let odd = pair.go.run(&format!("node {node}")).await["cid"].as_str().unwrap().to_owned();
    pair.go.run(&format!("announce {odd} {junk} {first} {odd}")).await;
    expected.insert(beside.to_string(), "height 0".to_owned());
    pair.ours_lists(&expected).await;

    // gossip that is no message of the topic
    for bytes in ["", "ff", "0a00", "0a020a00", "0a03666f6f", &"00".repeat(2000)] {
        pair.go.run(&format!("gossip heads {bytes}")).await;
        pair.go.run(&format!("gossip metrics {bytes}")).await;
    }
    expected.extend([put(&mut pair.go, 50).await]);
    expected.extend([pin(&pair.ours, 51).await]);
    pair.ours_lists(&expected).await;
    let log = pair.ours.log();
    assert!(!log.contains("panicked"), "{log}");
    assert!(!pair.ours.logged(&junk).is_empty(), "nothing told of the block that is no node:\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_nobody_serves_holds_up_no_other() {
    let Some(mut pair) = Pair::start(&[], |_| {}).await else { return };
    let mut withheld = Vec::new();
    for n in 0..3 {
        let node = json!({ "priority": 1, "elements": [element(cid(n), "never")], "withhold": true });
        let made = pair.go.run(&format!("node {node}")).await;
        withheld.push(made);
    }
    // the set is empty: even the first head is not waited for
    let cids: Vec<_> = withheld.iter().map(|made| made["cid"].as_str().unwrap()).collect();
    pair.go.run(&format!("announce {}", cids.join(" "))).await;
    let started = Instant::now();
    let mut expected = BTreeMap::from([put(&mut pair.go, 10).await]);
    pair.ours_lists(&expected).await;
    expected.extend([pin(&pair.ours, 11).await]);
    pair.go_holds(&expected).await;
    assert!(started.elapsed() < PROMPT, "other heads took {:?}", started.elapsed());

    // a node of ours does not name it; served at last and announced again, it counts
    pair.go.run(&format!("block {}", withheld[0]["block"].as_str().unwrap())).await;
    pair.go.run(&format!("announce {}", cids[0])).await;
    expected.insert(cid(0).to_string(), "never".to_owned());
    pair.ours_lists(&expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_not_trusted_has_no_effect_and_one_line() {
    let Some(trusted) = Scripted::start(&[]).await else { return };
    let trusted_id = trusted.id.to_string();
    let change = |config: &mut Value| config["consensus"]["crdt"]["trusted_peers"] = json!([trusted_id]);
    let Some(mut pair) = Pair::start(&[], change).await else { return };
    let mut trusted = trusted;
    trusted.run(&format!("connect {}", pair.ours.id_and_addr().await.1)).await;
    trusted.grafted(&pair.our_id).await;

    for n in 0..5 {
        put(&mut pair.go, n).await;
    }
    // what the other wrote counts, though it went out later; the Go peer trusts ours
    let mut expected = BTreeMap::from([put(&mut trusted, 10).await]);
    pair.ours_lists(&expected).await;
    expected.extend([pin(&pair.ours, 11).await]);
    let theirs = (0..5).map(|n| (cid(n).to_string(), format!("go {n}")));
    pair.go_holds(&expected.clone().into_iter().chain(theirs).collect()).await;
    pair.ours_lists(&expected).await;
    let told = pair.ours.logged(&pair.go.id.to_string());
    let told: Vec<_> = told.iter().filter(|line| line.contains("trust")).collect();
    assert_eq!(told.len(), 1, "lines about the untrusted writer:\n{}", pair.ours.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_peer_of_either_kind_syncs_from_the_other() {
    let daemon = FakeKubo::start().await.unwrap();
    let Some(mut go) = Scripted::start(&["--rebroadcast", "1s"]).await else { return };
    let mut expected = BTreeMap::new();
    for n in 0..300 {
        expected.extend([put(&mut go, n).await]);
    }
    let mut ours = Peer::init_member(&daemon, SECRET, |config| {
        config["cluster"]["peer_addresses"] = json!([go.addr.to_string()]);
    });
    ours.start().await;
    lists(&ours, &expected).await.unwrap_or_else(|missing| panic!("{missing}\n{}", ours.log()));
    drop(go);

    // the first writer is gone: ours has it all, also for those who come later
    let addr = ours.id_and_addr().await.1;
    let mut fresh = Scripted::start(&["--bootstrap", &addr]).await.unwrap();
    let held = holds(&mut fresh, &expected).await;
    held.unwrap_or_else(|missing| panic!("{missing}\n{}\n{}", ours.log(), fresh.last_events()));
    let other_daemon = FakeKubo::start().await.unwrap();
    let mut third = Peer::init_member(&other_daemon, SECRET, |config| {
        config["cluster"]["peer_addresses"] = json!([addr]);
    });
    third.start().await;
    lists(&third, &expected).await.unwrap_or_else(|missing| panic!("{missing}\n{}", third.log()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_ours_that_was_killed_comes_back_to_what_it_missed() {
    let Some(mut pair) = Pair::start(&["--rebroadcast", "1s"], |_| {}).await else { return };
    let mut expected = BTreeMap::new();
    for n in 0..20 {
        expected.extend([pin(&pair.ours, n).await]);
    }
    pair.ours.kill();
    for n in 100..120 {
        expected.extend([put(&mut pair.go, n).await]);
    }
    pair.ours.start().await;
    pair.ours_lists(&expected).await;
    expected.extend([pin(&pair.ours, 30).await]);
    pair.go_holds(&expected).await;

    // and a Go peer that lost everything gets it back from ours
    let addr = pair.ours.id_and_addr().await.1;
    let dead = std::mem::replace(&mut pair.go, Scripted::start(&["--bootstrap", &addr]).await.unwrap());
    dead.kill();
    pair.go_holds(&expected).await;
    expected.extend([put(&mut pair.go, 130).await]);
    pair.ours_lists(&expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_another_secret_gets_nowhere() {
    let Some(mut pair) = Pair::start(&[], |_| {}).await else { return };
    let addr = pair.ours.id_and_addr().await.1;
    let stranger =
        Scripted::start_on("/ip4/127.0.0.1/tcp/0", &"11".repeat(32), &["--bootstrap", &addr]).await;
    let mut stranger = stranger.expect("it started before");
    let refused = stranger.event("it is refused", |event| event["event"] == "unreachable").await;
    assert!(refused["error"].as_str().unwrap().contains("failed to negotiate"), "{refused}");
    put(&mut stranger, 1).await;
    assert_ne!(stranger.try_run(&format!("connect {addr}")).await["error"], "");

    let mut expected = BTreeMap::from([put(&mut pair.go, 2).await]);
    expected.extend([pin(&pair.ours, 3).await]);
    pair.ours_lists(&expected).await;
    pair.go_holds(&expected).await;
    let told = pair.ours.logged("secret");
    assert_eq!(told.len(), 1, "lines about the other secret:\n{}", pair.ours.log());
}
