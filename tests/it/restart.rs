//! What was acknowledged is still there: after kill -9, after a stop, with batching and without.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cluster_compat::testing::kubo::FakeKubo;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::support::{Peer, cid, eventually, send};

/// Pins sent over all rounds of a test.
const N_PINS: usize = 10_000;

/// Connections that pin at the same time.
const N_WRITERS: usize = 16;

/// Times the peer is killed while pins stream in.
const N_KILLS: usize = 4;

/// Streams pins into a peer that is killed again and again; returns the CIDs it acknowledged.
async fn stream_and_kill(peer: &mut Peer) -> BTreeSet<String> {
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let next = Arc::new(AtomicUsize::new(0));
    for round in 1..=N_KILLS + 1 {
        let until = N_PINS * round / (N_KILLS + 1);
        peer.start().await;
        let writers: Vec<_> = (0..N_WRITERS)
            .map(|_| {
                let (client, acknowledged, next) = (peer.client("rest"), acknowledged.clone(), next.clone());
                #[allow(clippy::disallowed_methods, reason = "a test waits for its own tasks below")]
                tokio::spawn(async move {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= N_PINS {
                            return;
                        }
                        let cid = cid(n);
                        match send(&client, "POST", &format!("/pins/{cid}?name=n{n}")).await {
                            Ok(reply) => {
                                assert_eq!(reply.status, 200, "{}", reply.text());
                                acknowledged.lock().await.insert(cid.to_string());
                            }
                            // the peer is gone: this pin was never acknowledged
                            Err(_) => return,
                        }
                    }
                })
            })
            .collect();
        if round <= N_KILLS {
            eventually("pins stream in", async || next.load(Ordering::Relaxed) >= until).await.unwrap();
            peer.kill();
        }
        for writer in writers {
            writer.await.unwrap();
        }
    }
    let acknowledged = acknowledged.lock().await;
    assert!(acknowledged.len() > N_PINS / 2, "only {} pins were acknowledged", acknowledged.len());
    acknowledged.clone()
}

async fn listed(peer: &Peer) -> BTreeSet<String> {
    let reply = peer.rest("GET", "/allocations").await;
    assert!(matches!(reply.status, 200 | 204), "{}", reply.text());
    reply.documents().iter().map(|pin| pin["cid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pin_acknowledged_before_a_kill_is_listed_and_gets_pinned() {
    let daemon = FakeKubo::start().await.unwrap();
    let mut peer = Peer::init(&daemon, |_| {});
    let acknowledged = stream_and_kill(&mut peer).await;
    peer.kill();
    peer.start().await;
    let missing: Vec<_> = acknowledged.difference(&listed(&peer).await).cloned().collect();
    assert!(
        missing.is_empty(),
        "{} of {} acknowledged pins are lost: {missing:?}",
        missing.len(),
        acknowledged.len()
    );
    eventually("every acknowledged pin is pinned", async || {
        let pins = daemon.pins();
        acknowledged.iter().all(|cid| pins.contains_key(cid))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_batching_too_nothing_acknowledged_is_lost_by_a_kill() {
    let daemon = FakeKubo::start().await.unwrap();
    let mut peer = Peer::init(&daemon, |config| {
        config["consensus"]["crdt"]["batching"]["max_batch_size"] = 300.into();
        config["consensus"]["crdt"]["batching"]["max_batch_age"] = "1s".into();
    });
    let acknowledged = stream_and_kill(&mut peer).await;
    peer.kill();
    peer.start().await;
    eventually("every acknowledged pin is listed", async || listed(&peer).await.is_superset(&acknowledged))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_takes_seconds_commits_the_batch_and_leaves_a_folder_that_opens_again() {
    let daemon = FakeKubo::start().await.unwrap();
    let mut peer = Peer::init(&daemon, |config| {
        config["consensus"]["crdt"]["batching"]["max_batch_size"] = 1000.into();
        config["consensus"]["crdt"]["batching"]["max_batch_age"] = "1h".into();
    });
    peer.start().await;
    for n in 0..10 {
        assert_eq!(peer.rest("POST", &format!("/pins/{}", cid(n))).await.status, 200);
    }
    assert!(listed(&peer).await.is_empty(), "reads do not see a batch that is not committed");
    let began = std::time::Instant::now();
    assert!(peer.stop().await.success());
    assert!(began.elapsed().as_secs() < 10, "stopping took {:?}", began.elapsed());
    assert!(!peer.path("cluster.lock").exists(), "the lock file is left behind");
    let export = peer.service(&["state", "export"]);
    let lines = String::from_utf8_lossy(&export.stdout).lines().count();
    assert_eq!(lines, 10, "{}", String::from_utf8_lossy(&export.stderr));
    peer.start().await;
    assert_eq!(listed(&peer).await.len(), 10);
    let id: Value = peer.rest("GET", "/id").await.documents().remove(0);
    assert_eq!(id["version"], "1.1.6");
}
