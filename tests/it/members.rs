//! Several of our peers: what each says of all of them, and what happens to one that stops answering.

use cluster_compat::testing::kubo::FakeKubo;
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::support::{Peer, SECRET, cid, eventually};

/// Two members, the second joined by the first.
struct Two {
    daemons: [FakeKubo; 2],
    peers: [Peer; 2],
    ids: [String; 2],
}

impl Two {
    async fn start(args: &[&str], change: impl Fn(usize, &mut Value)) -> Self {
        let daemons = [FakeKubo::start().await.unwrap(), FakeKubo::start().await.unwrap()];
        let mut first = Peer::init_member(&daemons[0], SECRET, |config| change(0, config));
        first.start().await;
        let (first_id, addr) = first.id_and_addr().await;
        let mut second = Peer::init_member(&daemons[1], SECRET, |config| change(1, config));
        second.start_with(&[&["--bootstrap", &addr], args].concat()).await;
        let (second_id, _) = second.id_and_addr().await;
        let two = Self { daemons, peers: [first, second], ids: [first_id, second_id] };
        for peer in &two.peers {
            let know_each_other = async || {
                let rows = peer.rest("GET", "/peers").await.documents();
                let pings = peer.rest("GET", "/monitor/metrics/ping").await.text();
                let is_listed = rows.len() == 2 && rows.iter().all(|row| row["error"] == "");
                is_listed && pings.matches("ipfs_id").count() == 2
            };
            eventually("both members are listed", know_each_other).await.unwrap();
        }
        two
    }

    /// What both say to one question; the same, times and the order of lines aside.
    async fn both(&self, method: &str, target: &str) -> Vec<Value> {
        let mut answers = Vec::new();
        for peer in &self.peers {
            let mut documents = peer.rest(method, target).await.documents();
            for document in &mut documents {
                forget_times(document);
            }
            documents.sort_by_key(Value::to_string);
            answers.push(documents);
        }
        assert_eq!(answers[0], answers[1], "{method} {target}");
        answers.remove(0)
    }
}

fn forget_times(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if ["timestamp", "created", "cluster_id"].contains(&key.as_str()) {
                    *value = Value::Null;
                }
                forget_times(value);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(forget_times),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_member_is_asked_the_answer_is_the_clusters() {
    let two = Two::start(&[], |_, _| {}).await;
    let peers = two.both("GET", "/peers").await;
    assert_eq!(peers.len(), 2);
    let unknown = two.both("GET", &format!("/pins/{}", cid(1))).await;
    for id in &two.ids {
        assert_eq!(unknown[0]["peer_map"][id]["status"], "unpinned");
    }
    let graph = two.both("GET", "/health/graph").await.remove(0);
    for (id, other) in [(&two.ids[0], &two.ids[1]), (&two.ids[1], &two.ids[0])] {
        assert_eq!(graph["cluster_links"][id], serde_json::json!([other]));
        assert_eq!(graph["cluster_trust_links"][id], true);
        assert!(graph["cluster_to_ipfs"][id].is_string());
    }
    let collected = two.both("POST", "/ipfs/gc").await.remove(0);
    assert_eq!(collected["peer_map"].as_object().unwrap().len(), 2);
    let reply = two.peers[0].rest("POST", "/peers").await;
    assert_eq!(reply.status, 400);

    // blocks go to every member's daemon, whichever of them takes the upload
    let form =
        "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nhello\r\n--x--\r\n";
    for peer in &two.peers {
        let response = peer
            .client("rest")
            .post("http://peer/add?raw-leaves=true")
            .header("Content-Type", "multipart/form-data; boundary=x")
            .body(form)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        let _ = response.bytes().await.unwrap();
    }
    assert_eq!(two.daemons[0].blocks(), two.daemons[1].blocks());
    for daemon in &two.daemons {
        assert_eq!(daemon.saw("/block/put").len(), 2);
        assert!(!daemon.blocks().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_frozen_or_gone_costs_its_own_row() {
    let mut two = Two::start(&[], |_, _| {}).await;
    let pin = format!("/pins/{}?name=n&replication=1&user-allocations={}", cid(1), two.ids[1]);
    // until the first metrics of the other are known it cannot be allocated to
    eventually("the pin is for the other member", async || {
        two.peers[0].rest("POST", &pin).await.text().contains(&format!(r#""allocations":["{}"]"#, two.ids[1]))
    })
    .await
    .unwrap();
    let frozen = Pid::from_raw(i32::try_from(two.peers[1].pid()).unwrap()).unwrap();
    rustix::process::kill_process(frozen, Signal::STOP).unwrap();
    let asked = |target: String| {
        let client = two.peers[0].client("rest");
        async move { super::support::send(&client, "GET", &target).await.unwrap().documents() }
    };
    let (peers, status) = tokio::join!(asked("/peers".into()), asked(format!("/pins/{}", cid(1))));
    rustix::process::kill_process(frozen, Signal::CONT).unwrap();
    let row = peers.iter().find(|row| row["id"] == two.ids[1].as_str());
    let is_late = |error: &Value| {
        let error = error.as_str().unwrap();
        error == "context deadline exceeded" || error.starts_with("failed to open stream: ")
    };
    assert!(row.is_none_or(|row| is_late(&row["error"])), "{peers:?}");
    let rows = &status[0]["peer_map"];
    assert_eq!(rows[&two.ids[0]]["status"], "remote");
    assert_eq!(rows[&two.ids[1]]["status"], "cluster_error");
    assert!(is_late(&rows[&two.ids[1]]["error"]), "{rows}");

    two.peers[1].kill();
    let gone = async || {
        let status = two.peers[0].rest("GET", &format!("/pins/{}", cid(1))).await.documents().remove(0);
        let error = status["peer_map"][&two.ids[1]]["error"].as_str().unwrap_or_default().to_owned();
        error.starts_with("failed to dial: failed to dial ") && error.ends_with("connect: connection refused")
    };
    eventually("the killed member is an error that says why", gone).await.unwrap();
    let unlisted = async || two.peers[0].rest("GET", "/peers").await.documents().len() == 1;
    eventually("the killed member is no member any more", unlisted).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_trusts_nobody_has_no_rows() {
    let two = Two::start(&["--no-trust"], |n, config| {
        config["consensus"]["crdt"]["trusted_peers"] =
            if n == 0 { serde_json::json!(["*"]) } else { serde_json::json!([]) };
    })
    .await;
    let pin = format!("/pins/{}", cid(1));
    assert_eq!(two.peers[0].rest("POST", &pin).await.status, 200);
    let status = two.peers[0].rest("GET", &pin).await.documents().remove(0);
    let rows: Vec<&String> = status["peer_map"].as_object().unwrap().keys().collect();
    assert_eq!(rows, [&two.ids[0]]);
    let list = two.peers[0].rest("GET", "/pins").await.documents();
    assert_eq!(list[0]["peer_map"].as_object().unwrap().len(), 1);
}
