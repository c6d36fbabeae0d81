//! Sharded adds through a whole peer: what is pinned, and what is left when it is unpinned.

use std::collections::BTreeMap;

use cluster_compat::testing::kubo::FakeKubo;
use serde_json::Value;

use crate::support::{Peer, eventually};

/// Adds a file of `len` bytes; gives the events.
async fn add(peer: &Peer, query: &str, name: &str, len: usize) -> Vec<Value> {
    let content = (0..len / 4).map(|n| format!("{:03x}\n", n % 4096)).collect::<String>();
    let body = format!(
        "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n{content}\r\n--b--\r\n"
    );
    let reply = peer
        .client("rest")
        .post(format!("http://peer/add?shard=true&chunker=size-1000&{query}"))
        .header("Content-Type", "multipart/form-data; boundary=b")
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(reply.status().as_u16(), 200);
    let text = reply.text().await.unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// CID of the event of this name.
fn cid(events: &[Value], name: &str) -> String {
    let event = events.iter().find(|event| event["name"] == name);
    event.unwrap_or_else(|| panic!("no {name} in {events:?}"))["cid"].as_str().unwrap().to_owned()
}

/// The pinset: type of each CID.
async fn types(peer: &Peer) -> BTreeMap<String, String> {
    let reply = peer.rest("GET", "/allocations?filter=all").await;
    let text = |pin: &Value, key: &str| pin[key].as_str().unwrap().to_owned();
    reply.documents().iter().map(|pin| (text(pin, "cid"), text(pin, "type"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn unpinning_a_sharded_root_removes_its_shards_its_cluster_dag_and_its_meta_pin() {
    let daemon = FakeKubo::start().await.unwrap();
    let mut peer = Peer::init(&daemon, |_| {});
    peer.start().await;
    let events = add(&peer, "shard-size=6000&name=sh", "big", 12_000).await;
    let root = cid(&events, "big");
    let (first, dag) = (cid(&events, "shard-0"), cid(&events, "sh-clusterDAG"));
    let pins = types(&peer).await;
    assert_eq!(pins[&root], "meta-pin");
    assert_eq!(pins[&dag], "clusterdag-pin");
    assert_eq!(pins[&first], "shard-pin");
    eventually("all parts are pinned", async || daemon.pins().len() == pins.len() - 1).await.unwrap();
    assert_eq!((daemon.pins().get(&dag), daemon.pins().get(&first)), (Some(&"direct"), Some(&"recursive")));
    let status = peer.rest("GET", &format!("/pins/{root}")).await;
    assert!(status.text().contains(r#""status":"sharded""#), "{}", status.text());
    for part in [&first, &dag] {
        assert_eq!(peer.rest("DELETE", &format!("/pins/{part}")).await.status, 500);
    }
    assert_eq!(peer.rest("DELETE", &format!("/pins/{root}")).await.status, 200);
    assert!(types(&peer).await.is_empty());
    eventually("the daemon unpins", async || daemon.pins().is_empty()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_of_two_roots_stay_until_both_are_unpinned() {
    let daemon = FakeKubo::start().await.unwrap();
    let mut peer = Peer::init(&daemon, |_| {});
    peer.start().await;
    // they begin alike
    let long = add(&peer, "shard-size=4000&name=long", "f", 12_000).await;
    let short = add(&peer, "shard-size=4000&name=short", "f", 8_000).await;
    let shared = cid(&long, "shard-0");
    assert_eq!(shared, cid(&short, "shard-0"));
    assert_eq!(peer.rest("DELETE", &format!("/pins/{}", cid(&long, "f"))).await.status, 200);
    let left = types(&peer).await;
    assert_eq!(left[&shared], "shard-pin");
    let expected: Vec<String> = short.iter().map(|event| event["cid"].as_str().unwrap().into()).collect();
    assert!(expected.iter().all(|cid| left.contains_key(cid)), "{left:?}");
    assert_eq!(left.len(), expected.len());
    assert_eq!(peer.rest("DELETE", &format!("/pins/{}", cid(&short, "f"))).await.status, 200);
    assert!(types(&peer).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_added_again_in_other_shards_loses_the_old_ones() {
    let daemon = FakeKubo::start().await.unwrap();
    let mut peer = Peer::init(&daemon, |_| {});
    peer.start().await;
    add(&peer, "shard-size=4000&name=x", "f", 12_000).await;
    let again = add(&peer, "shard-size=7000&name=x", "f", 12_000).await;
    let left = types(&peer).await;
    let mut expected: Vec<String> = again.iter().map(|event| event["cid"].as_str().unwrap().into()).collect();
    expected.sort();
    assert_eq!(left.keys().cloned().collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_a_sharded_upload_leaves_nothing_pinned() {
    let daemon = FakeKubo::start().await.unwrap();
    let mut peer = Peer::init(&daemon, |_| {});
    peer.start().await;
    let (parts, body) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
    let body = futures::stream::unfold(body, |mut body| async { Some((body.recv().await?, body)) });
    let head = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n";
    let request = peer
        .client("rest")
        .post("http://peer/add?shard=true&shard-size=4000&chunker=size-1000")
        .header("Content-Type", "multipart/form-data; boundary=b")
        .body(reqwest::Body::wrap_stream(body));
    let feed = async {
        parts.send(Ok(head.as_bytes().to_vec())).await.unwrap();
        for n in 0..12u8 {
            parts.send(Ok(vec![n; 1000])).await.unwrap();
        }
    };
    let (reply, ()) = tokio::join!(request.send(), feed);
    let reply = reply.unwrap();
    assert_eq!(reply.status().as_u16(), 200);
    assert!(!types(&peer).await.is_empty(), "a shard is pinned");
    drop(reply);
    eventually("nothing is pinned", async || types(&peer).await.is_empty() && daemon.pins().is_empty())
        .await
        .unwrap();
    drop(parts);
}
