//! A day's work of an operator: add, pin, list, status, unpin, recover, over both faces.

use cluster_compat::testing::kubo::{FakeKubo, Rule};
use serde_json::Value;

use crate::support::{Peer, Reply, cid, eventually};

fn status_of(reply: &Reply) -> String {
    let document: Value = reply.documents().remove(0);
    document["peer_map"].as_object().unwrap().values().next().unwrap()["status"].as_str().unwrap().to_owned()
}

async fn until_status(peer: &Peer, target: &str, status: &str) {
    eventually(&format!("{target} says {status}"), async || {
        status_of(&peer.rest("GET", target).await) == status
    })
    .await
    .unwrap_or_else(|missing| panic!("{missing}\n{}", peer.log()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_is_accepted_pinned_listed_and_unpinned() {
    let daemon = FakeKubo::start().await.unwrap();
    let mut peer = Peer::init(&daemon, |_| {});
    peer.start().await;
    let cid = cid(1);
    let reply = peer.rest("POST", &format!("/pins/{cid}?name=one&meta-k=v")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    until_status(&peer, &format!("/pins/{cid}"), "pinned").await;
    assert_eq!(daemon.pins().get(&cid.to_string()), Some(&"recursive"));
    let stored = peer.rest("GET", &format!("/allocations/{cid}")).await.documents().remove(0);
    assert_eq!((stored["name"].as_str(), stored["metadata"]["k"].as_str()), (Some("one"), Some("v")));
    assert_eq!(peer.rest("GET", "/pins").await.documents().len(), 1);
    assert_eq!(peer.rest("DELETE", &format!("/pins/{cid}")).await.status, 200);
    eventually("the daemon unpins", async || daemon.pins().is_empty()).await.unwrap();
    assert_eq!(peer.rest("GET", &format!("/allocations/{cid}")).await.status, 404);
    assert_eq!(peer.rest("DELETE", &format!("/pins/{cid}")).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_daemon_refused_is_in_error_until_it_is_recovered() {
    let daemon = FakeKubo::start().await.unwrap();
    let mut peer = Peer::init(&daemon, |_| {});
    peer.start().await;
    let cid = cid(2);
    let refusal = r#"{"Message":"no such block","Code":0,"Type":"error"}"#;
    daemon.set_rules(vec![Rule::reply("pin/add", "500 Internal Server Error", refusal)]);
    assert_eq!(peer.rest("POST", &format!("/pins/{cid}")).await.status, 200);
    until_status(&peer, &format!("/pins/{cid}"), "pin_error").await;
    let listed = peer.rest("GET", "/pins?filter=pin_error").await;
    assert!(listed.text().contains("no such block"), "{}", listed.text());
    daemon.set_rules(Vec::new());
    assert_eq!(peer.rest("POST", &format!("/pins/{cid}/recover")).await.status, 200);
    until_status(&peer, &format!("/pins/{cid}"), "pinned").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_ends_as_blocks_in_the_daemon_and_a_pin_of_its_root() {
    let daemon = FakeKubo::start().await.unwrap();
    let mut peer = Peer::init(&daemon, |_| {});
    peer.start().await;
    let body = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"hello.txt\"\r\n\
                Content-Type: application/octet-stream\r\n\r\nhello world\n\r\n--b--\r\n";
    for (socket, target) in [("rest", "/add"), ("proxy", "/api/v0/add")] {
        let reply = peer
            .client(socket)
            .post(format!("http://peer{target}"))
            .header("Content-Type", "multipart/form-data; boundary=b")
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(reply.status().as_u16(), 200);
        let text = reply.text().await.unwrap();
        assert!(text.contains("QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o"), "{text}");
    }
    until_status(&peer, "/pins/QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o", "pinned").await;
    assert!(!daemon.blocks().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_without_its_daemon_answers_and_becomes_ready_when_the_daemon_comes() {
    let daemon = FakeKubo::start().await.unwrap();
    daemon.set_rules(vec![Rule::reply("/api/v0/", "500 Internal Server Error", "out of order")]);
    let mut peer = Peer::init(&daemon, |_| {});
    peer.start().await;
    let id = peer.rest("GET", "/id").await.documents().remove(0);
    assert!(id["ipfs"]["error"].as_str().unwrap().contains("out of order"), "{id}");
    assert!(!peer.log().contains("IPFS Cluster is READY"));
    daemon.set_rules(Vec::new());
    eventually("the peer is ready", async || peer.log().contains("** IPFS Cluster is READY **"))
        .await
        .unwrap();
    assert!(peer.stop().await.success());
}
