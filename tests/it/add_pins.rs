//! What becomes of an upload's options: in its pin, in its allocations, in refusals.

use cluster_compat::testing::kubo::FakeKubo;
use serde_json::{Value, json};

use crate::attacks::{form, named, part};
use crate::raw::{Answer, Body, exchange};
use crate::support::{Peer, eventually};

const KIND: &str = "multipart/form-data; boundary=b";

async fn started(change: impl FnOnce(&mut Value)) -> (FakeKubo, Peer) {
    let daemon = FakeKubo::start().await.unwrap();
    let mut peer = Peer::init(&daemon, change);
    peer.start().await;
    (daemon, peer)
}

async fn send(peer: &Peer, face: &str, target: &str, head: &str, content: &[u8]) -> Answer {
    let body = Body::Whole(form(&[part(head, content)]));
    exchange(&peer.path(face), target, KIND, &body).await
}

/// Adds one file; the last event.
async fn add(peer: &Peer, options: &str, content: &str) -> Value {
    let answer = send(peer, "rest", &format!("/add?{options}"), &named("a"), content.as_bytes()).await;
    assert!(answer.status == 200 && answer.failure().is_none(), "{options}: {answer:?}");
    serde_json::from_str(answer.body.lines().last().unwrap()).unwrap()
}

async fn pin_of(peer: &Peer, event: &Value) -> Option<Value> {
    let reply = peer.rest("GET", &format!("/allocations/{}", event["cid"].as_str().unwrap())).await;
    (reply.status == 200).then(|| reply.documents().remove(0))
}

/// T33, T34, T35 and T36.
#[tokio::test(flavor = "multi_thread")]
async fn the_options_of_an_upload_are_those_of_its_pin() {
    let (daemon, mut peer) = started(|_| {}).await;
    let event =
        add(&peer, "name=first&meta-k=v&expire-in=1h&replication-min=1&replication-max=1", "one").await;
    let pin = pin_of(&peer, &event).await.unwrap();
    let kept = |key: &str| pin[key].clone();
    assert_eq!((kept("name"), kept("metadata")), (json!("first"), json!({"k": "v"})));
    assert_ne!(kept("expire_at"), json!("0001-01-01T00:00:00Z"));
    assert_eq!(
        (kept("type"), kept("max_depth"), kept("mode")),
        (json!("pin"), json!(-1), json!("recursive"))
    );
    let (id, _) = peer.id_and_addr().await;
    assert_eq!((kept("allocations"), event["allocations"].clone()), (json!([id]), json!([id])));
    // everywhere: the event lists all peers, the pin none
    let event = add(&peer, "replication-min=-1&replication-max=-1", "two").await;
    assert_eq!(event["allocations"], json!([id]));
    let pin = pin_of(&peer, &event).await.unwrap();
    assert_eq!(pin["allocations"], json!([]));
    // again: a new time, of whole seconds
    let again =
        pin_of(&peer, &add(&peer, "replication-min=-1&replication-max=-1", "two").await).await.unwrap();
    assert!(again["timestamp"].as_str().unwrap() >= pin["timestamp"].as_str().unwrap(), "{again}");
    // blocks, and no pin
    let event = add(&peer, "no-pin=true", "three").await;
    assert!(daemon.blocks().contains_key(event["cid"].as_str().unwrap()));
    assert_eq!(pin_of(&peer, &event).await, None);
    assert!(peer.stop().await.success());
}

/// T21, T24 and T25.
#[tokio::test(flavor = "multi_thread")]
async fn attributes_of_files_change_no_cid() {
    let (daemon, mut peer) = started(|_| {}).await;
    let plain = add(&peer, "no-pin=true", "alpha").await;
    let attributes = "Content-Disposition: form-data; name=\"file?mode=0644&mtime=1604320482&mtime-nsecs=55555\"; filename=\"a\"";
    let answer = send(&peer, "rest", "/add?no-pin=true", attributes, b"alpha").await;
    assert!(answer.body.contains(plain["cid"].as_str().unwrap()), "{answer:?}");
    let refused = send(&peer, "rest", "/add?nocopy=true", &named("a"), b"alpha").await;
    assert!(
        refused.failure().unwrap().contains("missing file path or URL, can't create filestore reference")
    );
    let with_path = format!("{}\r\nAbspath-Encoded: %2Fa", named("a"));
    let taken = send(&peer, "rest", "/add?nocopy=true&no-pin=true", &with_path, b"alpha").await;
    assert!(taken.body.contains(plain["cid"].as_str().unwrap()), "{taken:?}");
    let unpinned = send(&peer, "proxy", "/api/v0/add?pin=false&trickle=true", &named("a"), b"alpha").await;
    assert!(unpinned.status == 200 && unpinned.failure().is_none(), "{unpinned:?}");
    let event: Value = serde_json::from_str(unpinned.body.lines().last().unwrap()).unwrap();
    assert_ne!(event["Hash"], plain["cid"], "a trickle");
    assert!(peer.rest("GET", "/allocations").await.body.is_empty() && daemon.pins().is_empty());
    assert!(peer.stop().await.success());
}

/// T31.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_cannot_be_allocated_is_refused() {
    let (daemon, mut peer) = started(|_| {}).await;
    let target = "/add?replication-min=2&replication-max=3";
    let answer = send(&peer, "rest", target, &named("a"), b"alpha").await;
    let failure = answer.failure().unwrap();
    assert!(failure.contains("not enough peers") && failure.contains('2'), "{failure}");
    assert!(peer.rest("GET", "/allocations").await.body.is_empty() && daemon.blocks().is_empty());
    assert!(peer.stop().await.success());
}

/// T32.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_refuses_uploads() {
    let (daemon, mut peer) = started(|config| config["cluster"]["follower_mode"] = true.into()).await;
    for (face, target) in [("rest", "/add"), ("rest", "/add?stream-channels=false"), ("proxy", "/api/v0/add")]
    {
        let answer = send(&peer, face, target, &named("a"), b"alpha").await;
        assert!(answer.failure().is_some_and(|text| text.contains("follower mode")), "{answer:?}");
    }
    assert!(daemon.blocks().is_empty());
    assert!(peer.stop().await.success());
}

/// T28: the first half of a CAR's blocks without a pin, then the rest with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_car_in_two_halves_is_pinned_with_the_second() {
    let (daemon, mut peer) = started(|_| {}).await;
    let (root, first, second) = crate::attack_cars::two_halves();
    let answer = send(&peer, "rest", "/add?format=car&no-pin=true", &named("x.car"), &first).await;
    assert!(answer.failure().is_none() && answer.body.contains(&root), "{answer:?}");
    assert_eq!(pin_of(&peer, &json!({"cid": root})).await, None);
    let answer = send(&peer, "rest", "/add?format=car", &named("x.car"), &second).await;
    assert!(answer.failure().is_none() && answer.body.contains(&root), "{answer:?}");
    eventually("the daemon pins", async || daemon.pins().contains_key(&root)).await.unwrap();
    assert!(peer.stop().await.success());
}
