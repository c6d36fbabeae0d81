//! The embedded node: alone, killed at any moment, and as the daemon of its own peer.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cluster_compat::testing::kubo::FakeKubo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Mutex, Notify};

use crate::support::{Peer, eventually};

/// Rounds of the test that kills, unless [`ROUNDS`] says another number.
const DEFAULT_ROUNDS: usize = 3;
/// How many rounds the test that kills runs.
const ROUNDS: &str = "NODE_KILL_ROUNDS";

/// A node alone, in a process of its own.
struct Alone {
    folder: TempDir,
    child: Option<Child>,
}

impl Alone {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), child: None }
    }

    async fn start(&mut self) -> reqwest::Client {
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log"));
        let child = Command::new(env!("CARGO_BIN_EXE_ipfs-cluster-service"))
            .arg("--config")
            .arg(self.folder.path())
            .arg("node")
            .env("CLUSTER_EMBEDDED_SWARMLISTENMULTIADDRESS", "")
            .env("CLUSTER_EMBEDDED_BOOTSTRAP", "")
            .env("CLUSTER_EMBEDDED_MDNS", "false")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn();
        self.child = Some(child.unwrap());
        let socket = self.folder.path().join("node-socket");
        let client = reqwest::Client::builder().unix_socket(socket).build().unwrap();
        let asked = client.clone();
        eventually("the node answers", async || call(&asked, "id", None).await.is_some()).await.unwrap();
        client
    }

    fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The documents of an answer; `None` where there was no answer, or a failure.
async fn call(client: &reqwest::Client, path: &str, file: Option<Vec<u8>>) -> Option<Vec<Value>> {
    let mut request = client.post(format!("http://node/api/v0/{path}"));
    if let Some(file) = file {
        request = with_file(request, &file);
    }
    let response = request.send().await.ok()?;
    if !response.status().is_success() {
        return None;
    }
    let text = response.text().await.ok()?;
    text.lines().map(|line| serde_json::from_str(line).ok()).collect()
}

/// A form with one file.
fn with_file(request: reqwest::RequestBuilder, file: &[u8]) -> reqwest::RequestBuilder {
    let head = "--limit\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\
                Content-Type: application/octet-stream\r\n\r\n";
    let body = [head.as_bytes(), file, b"\r\n--limit--\r\n"].concat();
    request.header("Content-Type", "multipart/form-data; boundary=limit").body(body)
}

/// Content that no other number has, of a size that varies: below and above one chunk.
fn content(n: usize) -> Vec<u8> {
    let size = [40, 5_000, 70_000, 600_000][n % 4];
    let seed = n.to_be_bytes();
    (0..size).map(|at| seed[at % 8] ^ (at / 8) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_loses_nothing_it_has_answered() {
    let rounds = std::env::var(ROUNDS).ok().and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_ROUNDS);
    let mut node = Alone::new();
    let acknowledged: Arc<Mutex<Vec<String>>> = Arc::default();
    let next = Arc::new(AtomicUsize::new(0));
    for round in 0..rounds {
        let client = node.start().await;
        let before = acknowledged.lock().await.len();
        // another moment in each round
        let wanted = before + 1 + round * 7 % 23;
        let news = Arc::new(Notify::new());
        let mut work = tokio::task::JoinSet::new();
        for writer in 0..4 {
            let (client, acknowledged) = (client.clone(), Arc::clone(&acknowledged));
            let (next, news) = (Arc::clone(&next), Arc::clone(&news));
            work.spawn(async move {
                loop {
                    let file = Some(content(next.fetch_add(1, Ordering::Relaxed)));
                    let path = if writer % 2 == 0 { "add?raw-leaves=true" } else { "block/put?pin=true" };
                    let Some(rows) = call(&client, path, file).await else { return };
                    let last = rows.last().expect("an answer has a row");
                    let cid = last["Hash"].as_str().or(last["Key"].as_str()).expect("a row has a CID");
                    acknowledged.lock().await.push(cid.to_owned());
                    news.notify_one();
                }
            });
        }
        let collector = client.clone();
        work.spawn(async move { while call(&collector, "repo/gc", None).await.is_some() {} });
        while acknowledged.lock().await.len() < wanted {
            news.notified().await;
        }
        node.kill();
        while work.join_next().await.is_some() {}

        let client = node.start().await;
        let rows = call(&client, "repo/verify", None).await.expect("every block is what it is named");
        assert_eq!(rows.last().unwrap()["Msg"], "verify complete, all blocks validated.");
        let rows = call(&client, "pin/verify?verbose=true", None).await.unwrap();
        assert!(rows.iter().all(|row| row["Ok"] == json!(true)), "round {round}: {rows:?}");
        let pins = call(&client, "pin/ls?type=recursive&stream=true", None).await.unwrap();
        let pins: std::collections::HashSet<&str> =
            pins.iter().map(|pin| pin["Cid"].as_str().unwrap()).collect();
        for cid in acknowledged.lock().await.iter() {
            assert!(pins.contains(cid.as_str()), "round {round}: {cid} was answered and is not pinned");
        }
        node.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mutable_files_and_the_keys_outlive_a_kill_and_a_collection() {
    let mut node = Alone::new();
    let client = node.start().await;
    let ask = async |client: &reqwest::Client, path: &str| {
        call(client, path, None).await.unwrap_or_else(|| panic!("{path} failed"))
    };
    let write = async |path: &str, bytes: &[u8]| {
        let path = format!("files/write?arg={path}&create=true&parents=true");
        call(&client, &path, Some(bytes.to_vec())).await.unwrap();
    };
    write("/a/b/file", b"first content").await;
    write("/a/b/file&offset=6", b"CONTENT!").await;
    write("/a/large", &content(7)).await;
    let added = call(&client, "add?to-files=/added", Some(b"hello world\n".to_vec())).await.unwrap();
    assert_eq!(added[0]["Hash"], "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o");
    call(&client, "pin/rm?arg=QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o", None).await.unwrap();
    ask(&client, "files/cp?arg=/a/b&arg=/copy").await;
    ask(&client, "files/mv?arg=/a/b/file&arg=/a/moved").await;
    // what no path leads to goes
    write("/gone", b"nobody wants this").await;
    let gone = ask(&client, "files/stat?arg=/gone").await.remove(0);
    ask(&client, "files/rm?arg=/gone").await;
    let key = ask(&client, "key/gen?arg=k").await.remove(0);
    let root = ask(&client, "files/stat?arg=/").await;
    ask(&client, "repo/gc").await;
    node.kill();
    let client = node.start().await;
    assert_eq!(ask(&client, "files/stat?arg=/").await, root);
    let read = async |path: &str| {
        let reply = client.post(format!("http://node/api/v0/files/read?arg={path}")).send().await.unwrap();
        reply.bytes().await.unwrap().to_vec()
    };
    assert_eq!(read("/copy/file").await, b"first CONTENT!");
    assert_eq!(read("/a/moved").await, b"first CONTENT!");
    assert_eq!(read("/added").await, b"hello world\n");
    assert_eq!(read("/a/large").await, content(7));
    let names = ask(&client, "files/ls?arg=/").await.remove(0);
    let names: Vec<&str> =
        names["Entries"].as_array().unwrap().iter().map(|entry| entry["Name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "added", "copy"]);
    let lost = format!("block/stat?arg={}&offline=true", gone["Hash"].as_str().unwrap());
    assert!(call(&client, &lost, None).await.is_none(), "it was collected");
    assert_eq!(ask(&client, "key/list").await[0]["Keys"][1], key);
    node.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_the_mutable_files_is_spread_and_gathered_again() {
    let mut node = Alone::new();
    let client = node.start().await;
    let ask = async |path: &str| call(&client, path, None).await.unwrap_or_else(|| panic!("{path} failed"));
    // 4,000 names of 100 bytes: far above what one node holds
    let name = |n: usize| format!("{n:0>100}");
    let form: String = (0..4000)
        .map(|n| {
            format!(
                "--limit\r\nContent-Disposition: form-data; name=\"file\"; filename=\"dir%2F{}\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\nx\r\n",
                name(n)
            )
        })
        .collect();
    let request = client
        .post("http://node/api/v0/add?to-files=/dir&pin=false&quieter=true")
        .header("Content-Type", "multipart/form-data; boundary=limit")
        .body(form + "--limit--\r\n");
    let reply = request.send().await.unwrap().text().await.unwrap();
    let root = reply.lines().last().map(|line| serde_json::from_str::<Value>(line).unwrap()).unwrap();
    assert_eq!(ask("files/stat?arg=/dir").await[0]["Hash"], root["Hash"]);
    // one more and gone again: the same directory
    ask(&format!("files/cp?arg=/dir/{}&arg=/dir/more", name(7))).await;
    assert_ne!(ask("files/stat?arg=/dir").await[0]["Hash"], root["Hash"]);
    assert_eq!(ask("files/ls?arg=/dir").await[0]["Entries"].as_array().unwrap().len(), 4001);
    ask("files/rm?arg=/dir/more").await;
    assert_eq!(ask("files/stat?arg=/dir").await[0]["Hash"], root["Hash"]);
    node.kill();
}

/// A peer that is its own daemon.
async fn embedded() -> Peer {
    // nobody asks it: the node is the daemon
    let daemon = FakeKubo::start().await.unwrap();
    let mut peer = Peer::init(&daemon, |config| {
        config["ipfs_connector"]["embedded"] =
            json!({ "swarm_listen_multiaddress": [], "bootstrap": [], "mdns": false });
    });
    peer.start().await;
    assert!(daemon.requests().is_empty());
    peer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_its_own_node_adds_pins_and_gives_back() {
    let mut peer = embedded().await;
    let (rest, proxy) = (peer.client("rest"), peer.client("proxy"));
    let request = with_file(rest.post("http://peer/add"), b"hello world\n");
    let added = request.send().await.unwrap().text().await.unwrap();
    let cid = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";
    assert!(added.contains(cid), "{added}");
    let pinned = async || {
        let status = peer.rest("GET", &format!("/pins/{cid}")).await.text();
        status.contains("\"status\":\"pinned\"")
    };
    eventually("the file is pinned", pinned).await.unwrap();
    let ask = async |path: &str| {
        let reply = proxy.post(format!("http://peer/api/v0/{path}")).send().await.unwrap();
        reply.text().await.unwrap()
    };
    assert_eq!(ask(&format!("cat?arg={cid}")).await, "hello world\n");
    assert_eq!(ask(&format!("cat?arg={cid}&offset=6&length=3")).await, "wor");
    assert!(ask("repo/stat").await.contains("\"StorageMax\":10000000000"));
    let unpinned = peer.rest("DELETE", &format!("/pins/{cid}")).await;
    assert_eq!(unpinned.status, 200);
    let gone = async || ask(&format!("pin/ls?arg={cid}")).await.contains("not pinned");
    eventually("the node unpins it", gone).await.unwrap();
    assert!(ask("repo/gc").await.contains("bafkrei"), "what is not pinned is collected");
    assert!(peer.stop().await.success());
    assert!(!peer.path("node-socket").exists(), "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn daemon_init_makes_a_configuration_only_where_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_ipfs-cluster-service"))
            .arg("--config")
            .arg(folder.path())
            .args(args)
            .env("CLUSTER_LISTENMULTIADDRESS", "/ip4/127.0.0.1/tcp/0")
            .env(
                "CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS",
                format!("/unix{}", folder.path().join("rest").display()),
            )
            .env("CLUSTER_IPFSPROXY_LISTENMULTIADDRESS", "/ip4/127.0.0.1/tcp/0")
            .env("CLUSTER_PINSVCAPI_HTTPLISTENMULTIADDRESS", "/ip4/127.0.0.1/tcp/0")
            .env("CLUSTER_EMBEDDED_SWARMLISTENMULTIADDRESS", "")
            .env("CLUSTER_EMBEDDED_BOOTSTRAP", "")
            .env("CLUSTER_EMBEDDED_MDNS", "false")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut files = Vec::new();
    for _ in 0..2 {
        let mut child = run(&["daemon", "--init", "--embedded"]);
        let client = reqwest::Client::builder().unix_socket(folder.path().join("rest")).build().unwrap();
        let up =
            eventually("the peer answers", async || client.get("http://peer/id").send().await.is_ok()).await;
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let status = child.wait().unwrap();
        up.unwrap();
        assert!(status.success());
        files.push(std::fs::read_to_string(folder.path().join("service.json")).unwrap());
    }
    assert_eq!(files[0], files[1]);
    let config: Value = serde_json::from_str(&files[0]).unwrap();
    assert!(
        config["ipfs_connector"]["embedded"].is_object() && config["ipfs_connector"]["ipfshttp"].is_null()
    );
}
