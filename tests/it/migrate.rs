//! From the original program to this one and back, as `docs/migration.md` tells it; where `IPFS_CLUSTER_GO` names the
//! reference's `ipfs-cluster-service`, skipped elsewhere.

use std::collections::BTreeMap;
use std::ffi::OsString;

use cluster_compat::testing::kubo::FakeKubo;
use serde_json::Value;

use crate::support::{Peer, SECRET, cid, eventually, free_port, set_member};

fn original() -> Option<OsString> {
    let program = std::env::var_os("IPFS_CLUSTER_GO");
    if program.is_none() {
        eprintln!("skipped: IPFS_CLUSTER_GO is not set");
    }
    program
}

/// Runs a command that must succeed; its standard output.
fn done(peer: &Peer, args: &[&str]) -> String {
    let output = peer.service(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a command that must fail says.
fn refused(peer: &Peer, args: &[&str]) -> String {
    let output = peer.service(args);
    assert_eq!(output.status.code(), Some(1), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Pins of an export by their CIDs.
fn pins(export: &str) -> BTreeMap<String, Value> {
    let pin = |line| serde_json::from_str::<Value>(line).unwrap();
    export.lines().map(pin).map(|pin| (pin["cid"].as_str().unwrap().to_owned(), pin)).collect()
}

/// Exports of the same instance with the same pins, whatever wrote the file.
fn export(peer: &Peer, name: &str) -> BTreeMap<String, Value> {
    let path = peer.path(name);
    done(peer, &["state", "export", "-f", path.to_str().unwrap()]);
    pins(&std::fs::read_to_string(path).unwrap())
}

/// The original's `state` commands can crash when they end before its own repair does; the next one is whole.
fn original_state(peer: &Peer, args: &[&str]) {
    let is_done = (0..3).any(|_| peer.service(args).status.success());
    assert!(is_done, "{args:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_go_from_the_original_to_ours_and_back_as_files() {
    let Some(go) = original() else { return };
    for datastore in ["pebble", "badger"] {
        let daemon = FakeKubo::start().await.unwrap();
        let mut peer = Peer::init_program(go.clone(), &daemon, |_| ());
        done(&peer, &["init", "-f", "--datastore", datastore]);
        let config: Value =
            serde_json::from_slice(&std::fs::read(peer.path("service.json")).unwrap()).unwrap();
        assert!(config["datastore"][datastore].is_object());
        peer.configure(&daemon, |_| ());
        let lines: String = (0..300)
            .map(|n| {
                format!(
                    "{{\"cid\":\"{}\",\"name\":\"<pin> {n}\",\"type\":\"pin\",\"max_depth\":{},\"allocations\":[],\
                     \"replication_factor_min\":-1,\"replication_factor_max\":-1,\"metadata\":{{\"n\":\"{n}\"}},\
                     \"expire_at\":\"2099-01-02T03:04:05Z\",\"timestamp\":\"2023-11-14T22:13:20Z\"}}\n",
                    cid(n),
                    [-1, 0, 3][n % 3]
                )
            })
            .collect();
        std::fs::write(peer.path("seed.json"), lines).unwrap();
        original_state(&peer, &["state", "import", "-f", peer.path("seed.json").to_str().unwrap()]);
        original_state(&peer, &["state", "export", "-f", peer.path("go.json").to_str().unwrap()]);
        let theirs = pins(&std::fs::read_to_string(peer.path("go.json")).unwrap());
        assert_eq!(theirs.len(), 300);

        // ours on that folder: says what it does not read, and starts nothing beside it
        peer.becomes_ours();
        let words = refused(&peer, &["daemon"]);
        assert!(
            words.contains(datastore) && words.contains("state export") && words.contains("--start-empty"),
            "{words}"
        );
        let words = refused(&peer, &["state", "export"]);
        assert!(words.contains("kept by the original ipfs-cluster-service"), "{words}");
        done(&peer, &["state", "import", "-f", peer.path("go.json").to_str().unwrap()]);
        assert_eq!(export(&peer, "ours.json"), theirs);
        peer.start().await;
        assert_eq!(peer.pins().await.len(), 300);
        let added = peer.rest("POST", &format!("/pins/{}?name=later", cid(1000))).await;
        assert_eq!(added.status, 200, "{}", added.text());
        assert!(peer.stop().await.success(), "{}", peer.log());
        let ours = export(&peer, "ours.json");
        assert_eq!(ours.len(), 301);

        // and back, onto the old datastore
        peer.becomes(go.clone());
        original_state(&peer, &["state", "import", "-f", peer.path("ours.json").to_str().unwrap()]);
        original_state(&peer, &["state", "export", "-f", peer.path("go.json").to_str().unwrap()]);
        assert_eq!(pins(&std::fs::read_to_string(peer.path("go.json")).unwrap()), ours);
        peer.start().await;
        assert_eq!(peer.pins().await.len(), 301);
        assert!(peer.stop().await.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_becomes_ours_on_its_folder_and_the_original_again() {
    let Some(go) = original() else { return };
    let daemons = [FakeKubo::start().await.unwrap(), FakeKubo::start().await.unwrap()];
    let member = |port: u16| {
        move |config: &mut Value| {
            set_member(config, SECRET);
            config["cluster"]["listen_multiaddress"] = format!("/ip4/127.0.0.1/tcp/{port}").into();
            config["consensus"]["crdt"]["rebroadcast_interval"] = "2s".into();
        }
    };
    let mut stays = Peer::init_program(go.clone(), &daemons[0], member(free_port()));
    stays.start().await;
    let (_, addr) = stays.id_and_addr().await;
    let mut moves = Peer::init_program(go.clone(), &daemons[1], member(free_port()));
    moves.start_with(&["--bootstrap", &addr]).await;
    let lists = async |peer: &Peer, n_pins: usize| {
        eventually("all pins are listed", async || peer.pins().await.len() == n_pins)
            .await
            .unwrap_or_else(|missing| panic!("{missing}: {n_pins}\n{}", peer.log()));
    };
    for n in 0..20 {
        let peer = if n % 2 == 0 { &stays } else { &moves };
        assert_eq!(peer.rest("POST", &format!("/pins/{}?name=n{n}", cid(n))).await.status, 200);
    }
    lists(&stays, 20).await;
    lists(&moves, 20).await;
    assert!(moves.stop().await.success());

    // its peerstore knows the other, so it starts and says where the pins come from
    moves.becomes_ours();
    moves.start().await;
    lists(&moves, 20).await;
    assert!(!moves.logged("holds the pins of an original ipfs-cluster peer, which are not read").is_empty());
    assert_eq!(moves.rest("POST", &format!("/pins/{}?name=ours", cid(100))).await.status, 200);
    lists(&stays, 21).await;
    assert!(moves.stop().await.success(), "{}", moves.log());

    // the original finds its own datastore as it left it, and gets the rest from the other
    moves.becomes(go);
    moves.start().await;
    lists(&moves, 21).await;
    assert_eq!(moves.pins().await, stays.pins().await);
    assert!(moves.stop().await.success());
    assert!(stays.stop().await.success());
}
