//! Uploads to whole peers: known inputs through both faces, and destinations that fail in the middle.

use cluster_compat::api::EntryKind;
use cluster_compat::go::query;
use cluster_compat::testing::kubo::{FakeKubo, Part, Rule};
use serde_json::{Value, json};

use crate::attacks::{form, named, part};
use crate::raw::{Answer, Body, exchange};
use crate::recipes::{self, Data, Recipe};
use crate::support::{Peer, SECRET, eventually};

const KIND: &str = "multipart/form-data; boundary=b";

/// Inputs with more entries or bytes are left to the importer's own tests.
const MAX_ENTRIES: usize = 2500;
const MAX_BYTES: usize = 400_000;

/// A recipe as clients send it.
fn form_of(recipe: &Recipe) -> Body {
    let parts = recipe.entries.iter().map(|(entry, content)| {
        let name = named(&query::escape_raw(&entry.path));
        match &entry.kind {
            EntryKind::File => part(&name, content),
            EntryKind::Directory => part(&format!("{name}\r\nContent-Type: application/x-directory"), ""),
            EntryKind::Symlink(target) => {
                part(&format!("{name}\r\nContent-Type: application/symlink"), target)
            }
        }
    });
    Body::Whole(form(&parts.collect::<Vec<_>>()))
}

/// The documents of an answer, one a line or all in one list.
fn documents(answer: &Answer) -> Vec<Value> {
    assert!(answer.status == 200 && answer.failure().is_none(), "{answer:?}");
    let documents = serde_json::Deserializer::from_str(&answer.body).into_iter::<Value>();
    let documents: Vec<Value> = documents.map(Result::unwrap).collect();
    match &documents[..] {
        [Value::Array(list)] => list.clone(),
        _ => documents,
    }
}

/// T02: streamed by the one face and as a list by the other, in turns.
#[tokio::test(flavor = "multi_thread")]
async fn known_inputs_have_their_known_cids_through_both_faces() {
    let daemon = FakeKubo::start().await.unwrap();
    let mut peer = Peer::init(&daemon, |_| {});
    peer.start().await;
    let mut data = Data::default();
    let mut n_added = 0;
    for line in include_str!("../../fixtures/add/vectors.jsonl").lines() {
        let vector: Value = serde_json::from_str(line).unwrap();
        let id = vector["id"].as_str().unwrap();
        // making the large ones takes longer than adding them
        if id.starts_with("C1") || id.starts_with('F') && id != "F22" {
            continue;
        }
        let Some(recipe) = recipes::read(&vector, &mut data) else { continue };
        let n_bytes: usize = recipe.entries.iter().map(|(_, content)| content.len()).sum();
        if recipe.entries.len() > MAX_ENTRIES || n_bytes > MAX_BYTES {
            continue;
        }
        let body = form_of(&recipe);
        let mut params = recipe.params;
        params.no_pin = true;
        params.stream_channels = n_added % 2 == 0;
        let options = params.to_query().encode();
        let answer = exchange(&peer.path("rest"), &format!("/add?{options}"), KIND, &body).await;
        let root = documents(&answer).last().unwrap()["cid"].clone();
        assert_eq!(root, vector["cid"], "{id} through the REST API");
        params.stream_channels = !params.stream_channels;
        let trickle = if vector["params"]["layout"] == "trickle" { "&trickle=true" } else { "" };
        let options = params.to_query().encode().replace("&layout=trickle", trickle);
        let answer = exchange(&peer.path("proxy"), &format!("/api/v0/add?{options}"), KIND, &body).await;
        let last = documents(&answer).last().unwrap().clone();
        assert_eq!(last["Hash"], vector["cid"], "{id} through the proxy");
        // Kubo's clients get no size of nothing
        let size = &last["Size"];
        assert!(size.is_string() || size.is_null() && id.starts_with("A02"), "{id}: {last}");
        assert!(daemon.blocks().contains_key(vector["cid"].as_str().unwrap()), "{id} is in the daemon");
        n_added += 1;
    }
    assert!(n_added > 60, "{n_added}");
    assert!(daemon.pins().is_empty());
    eprintln!("{n_added} inputs through both faces");
    assert!(peer.stop().await.success());
}

/// Three files; the last is long enough that blocks are under way while it comes.
fn three_files() -> Body {
    Body::Whole(form(&[
        part(&named("a"), "alpha"),
        part(&named("b"), "beta"),
        part(&named("c"), (0..600_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()),
    ]))
}

/// T38: the options of the daemon's call are those of the first block.
#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_sees_the_codec_and_hash_of_the_first_block() {
    let daemon = FakeKubo::start().await.unwrap();
    let mut peer = Peer::init(&daemon, |_| {});
    peer.start().await;
    for (options, expected) in [
        ("", "cid-codec=dag-pb&mhlen=32&mhtype=sha2-256"),
        ("?cid-version=1", "cid-codec=raw&mhlen=32&mhtype=sha2-256"),
        ("?hash=blake2b-160&raw-leaves=false", "cid-codec=dag-pb&mhlen=20&mhtype=blake2b-160"),
        ("?hash=sha3-512", "cid-codec=raw&mhlen=64&mhtype=sha3-512"),
    ] {
        let n_before = daemon.saw("block/put").len();
        let body = Body::Whole(form(&[part(&named("a"), "alpha")]));
        documents(&exchange(&peer.path("rest"), &format!("/add{options}"), KIND, &body).await);
        let puts = daemon.saw("block/put");
        assert_eq!(puts.len(), n_before + 1, "one call for one add: {puts:?}");
        let line = puts.last().unwrap();
        assert_eq!(*line, format!("POST /api/v0/block/put?allow-big-block=true&{expected}&pin=false"));
    }
    assert!(peer.stop().await.success());
}

/// T07, T08 and T09: the only destination takes the head of the call and is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_lone_destination_that_fails_fails_the_add_at_its_end() {
    let daemon = FakeKubo::start().await.unwrap();
    let mut peer = Peer::init(&daemon, |_| {});
    peer.start().await;
    let rest = peer.path("rest");
    let list =
        documents(&exchange(&rest, "/add?stream-channels=false&no-pin=true", KIND, &three_files()).await);
    assert_eq!(list.iter().map(|event| &event["name"]).collect::<Vec<_>>(), ["a", "b", "c"]);
    let gone =
        Rule::new("block/put", vec![Part::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec())]);
    daemon.set_rules(vec![gone]);
    let failure = "failed to put block on all destinations";
    let answer = exchange(&rest, "/add", KIND, &three_files()).await;
    assert_eq!((answer.status, answer.late.as_deref()), (200, Some(failure)));
    assert!(answer.body.lines().count() == 3, "objects already sent stay sent: {}", answer.body);
    for header in
        ["Trailer: X-Stream-Error", "X-Chunked-Output: 1", "Cache-Control: no-cache", "Connection: close"]
    {
        let is_there = answer.head.lines().any(|line| line.eq_ignore_ascii_case(header));
        assert!(is_there, "{header} is not in {}", answer.head);
    }
    let answer = exchange(&rest, "/add?stream-channels=false", KIND, &three_files()).await;
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((answer.status, body), (500, json!({"code": 500, "message": failure})));
    assert!(peer.rest("GET", "/allocations").await.body.is_empty());
    assert!(peer.stop().await.success());
}

/// T10: the pin lists all three, and the third is pinned when its daemon is well again.
#[tokio::test(flavor = "multi_thread")]
async fn one_destination_of_three_that_fails_is_made_up_for_later() {
    let mut peers: Vec<(FakeKubo, Peer)> = Vec::new();
    for _ in 0..3 {
        let mut addrs = Vec::new();
        for (_, peer) in &peers {
            addrs.push(peer.id_and_addr().await.1);
        }
        let daemon = FakeKubo::start().await.unwrap();
        let mut peer =
            Peer::init_member(&daemon, SECRET, |config| config["cluster"]["peer_addresses"] = json!(addrs));
        peer.start().await;
        peers.push((daemon, peer));
    }
    for metric in ["ping", "freespace"] {
        for (_, peer) in &peers {
            eventually("all know all", async || {
                let text = peer.rest("GET", &format!("/monitor/metrics/{metric}")).await.text();
                text.matches("\"peer\"").count() == 3
            })
            .await
            .unwrap();
        }
    }
    let refusal = r#"{"Message":"disk is full","Code":0,"Type":"error"}"#;
    let broken = || Rule::reply("block/put", "500 Internal Server Error", refusal);
    peers[2].0.set_rules(vec![broken(), Rule::reply("pin/add", "500 Internal Server Error", refusal)]);
    let options = "/add?replication-min=3&replication-max=3&wrap-with-directory=true";
    // a metric that has just run out is no candidate for a moment
    let mut answer = None;
    eventually("all three are allocated", async || {
        let add = exchange(&peers[0].1.path("rest"), options, KIND, &three_files()).await;
        let is_allocated = add.late.is_none();
        answer = Some(add);
        is_allocated
    })
    .await
    .unwrap();
    let events = documents(&answer.unwrap());
    let root = events.last().unwrap()["cid"].as_str().unwrap().to_owned();
    let target = format!("/allocations/{root}");
    for (_, peer) in &peers {
        eventually("the pin is with every peer", async || peer.rest("GET", &target).await.status == 200)
            .await
            .unwrap();
        let pin = peer.rest("GET", &target).await.documents().remove(0);
        assert_eq!(pin["allocations"].as_array().unwrap().len(), 3, "{pin}");
    }
    eventually("two are pinned", async || {
        peers[..2].iter().all(|(daemon, _)| daemon.pins().contains_key(&root))
    })
    .await
    .unwrap();
    assert!(!peers[2].0.pins().contains_key(&root));
    peers[2].0.set_rules(Vec::new());
    let status = format!("/pins/{root}");
    eventually("the third is in error, recovered and pinned", async || {
        peers[0].1.rest("POST", &format!("{status}/recover")).await;
        peers[2].0.pins().contains_key(&root)
    })
    .await
    .unwrap_or_else(|missing| panic!("{missing}\n{}", peers[2].1.log()));
    for (_, mut peer) in peers {
        assert!(peer.stop().await.success());
    }
}
