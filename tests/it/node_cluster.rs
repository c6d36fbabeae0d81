//! A whole cluster without another program: every member has its own node, and content moves between them by bitswap.

use cluster_compat::testing::kubo::FakeKubo;
use serde_json::{Value, json};

use crate::support::{Peer, SECRET, eventually};

const N_MEMBERS: usize = 3;

/// Members with nodes that know each other by the cluster alone: no mDNS, no bootstrap nodes.
struct Members {
    /// No member asks it.
    daemon: FakeKubo,
    peers: Vec<Peer>,
}

impl Members {
    async fn start() -> Self {
        let daemon = FakeKubo::start().await.unwrap();
        let mut members = Self { daemon, peers: Vec::new() };
        // addresses of this machine alone are not passed on: each is told of those before it
        let (mut addrs, mut nodes): (Vec<String>, Vec<String>) = Default::default();
        for at in 0..N_MEMBERS {
            let mut peer = Peer::init_member(&members.daemon, SECRET, |config| {
                config["ipfs_connector"]["embedded"] = json!({
                    "swarm_listen_multiaddress": ["/ip4/127.0.0.1/tcp/0"],
                    "bootstrap": [],
                    "mdns": false,
                });
            });
            let known = addrs.join(",");
            let args: &[&str] = if known.is_empty() { &[] } else { &["--bootstrap", &known] };
            peer.start_with(args).await;
            addrs.push(peer.id_and_addr().await.1);
            members.peers.push(peer);
            for node in &nodes {
                let (status, said) = members.ask(at, &format!("swarm/connect?arg={node}")).await;
                assert_eq!(status, 200, "{}", String::from_utf8_lossy(&said));
            }
            let (_, id) = members.ask(at, "id").await;
            let id: Value = serde_json::from_slice(&id).unwrap();
            nodes.push(id["Addresses"][0].as_str().unwrap().to_owned());
        }
        for peer in &members.peers {
            let knows_all = async || {
                let rows = peer.rest("GET", "/peers").await.documents();

                let pings = peer.rest("GET", "/monitor/metrics/ping").await.text();
                rows.len() == N_MEMBERS
                    && rows.iter().all(|row| row["error"] == "")
                    && pings.matches("ipfs_id").count() == N_MEMBERS
            };
            let known = eventually("every member is listed", knows_all).await;
            known.unwrap_or_else(|e| panic!("{e}\n{}", members.logs()));
        }
        members
    }

    /// What the node of a member says.
    async fn ask(&self, at: usize, path: &str) -> (u16, Vec<u8>) {
        let request = self.peers[at].client("node-socket").post(format!("http://node/api/v0/{path}"));
        let reply = request.send().await.unwrap();
        (reply.status().as_u16(), reply.bytes().await.unwrap().to_vec())
    }

    /// The states of a pin, of all members.
    async fn states(&self, cid: &str) -> Vec<String> {
        let status = self.peers[0].rest("GET", &format!("/pins/{cid}")).await.documents().remove(0);
        let states = status["peer_map"].as_object().unwrap().values();
        states.map(|state| state["status"].as_str().unwrap().to_owned()).collect()
    }

    fn logs(&self) -> String {
        self.peers.iter().map(Peer::log).collect::<Vec<_>>().join("\n\n")
    }
}

/// Bytes that do not repeat, of several chunks.
fn content(n_bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..n_bytes).map(next).collect()
}

async fn add(peer: &Peer, query: &str, bytes: &[u8]) -> String {
    let head = "--limit\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\
                Content-Type: application/octet-stream\r\n\r\n";
    let request = peer
        .client("rest")
        .post(format!("http://peer/add?{query}"))
        .header("Content-Type", "multipart/form-data; boundary=limit")
        .body([head.as_bytes(), bytes, b"\r\n--limit--\r\n"].concat());
    let text = request.send().await.unwrap().text().await.unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    last["cid"].as_str().unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_one_member_has_comes_to_the_others_by_bitswap_and_goes_everywhere() {
    let members = Members::start().await;
    let bytes = content(3 << 20);
    // its blocks go to the first node alone
    let cid = add(&members.peers[0], "local=true", &bytes).await;
    let is_pinned = async || members.states(&cid).await == ["pinned"; N_MEMBERS];
    eventually("every member pins it", is_pinned).await.unwrap_or_else(|e| panic!("{e}\n{}", members.logs()));
    for at in 0..N_MEMBERS {
        // nobody else is asked
        let (status, held) = members.ask(at, &format!("cat?arg={cid}&offline=true")).await;
        assert!(status == 200 && held == bytes, "member {at}: {status}");
    }
    assert_eq!(members.peers[1].rest("DELETE", &format!("/pins/{cid}")).await.status, 200);
    let is_gone = async || {
        let mut gone = true;
        for at in 0..N_MEMBERS {
            gone &= members.ask(at, &format!("pin/ls?arg={cid}")).await.0 == 500;
        }
        gone
    };
    eventually("no node pins it", is_gone).await.unwrap();
    let collected = members.peers[2].rest("POST", "/ipfs/gc").await;
    assert_eq!(collected.status, 200, "{}", collected.text());
    for at in 0..N_MEMBERS {
        let (status, _) = members.ask(at, &format!("block/stat?arg={cid}&offline=true")).await;
        assert_eq!(status, 500, "member {at} has collected it");
    }
    assert!(members.daemon.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_away_catches_up_from_the_others() {
    let mut members = Members::start().await;
    let (_, node) = members.ask(0, "id").await;
    members.peers[2].kill();
    let bytes = content(700_000);
    let cid = add(&members.peers[0], "", &bytes).await;
    let addr = members.peers[0].id_and_addr().await.1;
    members.peers[2].start_with(&["--bootstrap", &addr]).await;
    let node: Value = serde_json::from_slice(&node).unwrap();
    let (status, _) =
        members.ask(2, &format!("swarm/connect?arg={}", node["Addresses"][0].as_str().unwrap())).await;
    assert_eq!(status, 200);
    let has_it = async || {
        let (status, held) = members.ask(2, &format!("cat?arg={cid}&offline=true")).await;
        status == 200 && held == bytes
    };
    eventually("it holds what came meanwhile", has_it)
        .await
        .unwrap_or_else(|e| panic!("{e}\n{}", members.logs()));
}
