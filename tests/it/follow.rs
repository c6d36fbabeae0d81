//! Followers: our `ipfs-cluster-follow` beside clusters of ours, and of original peers where `IPFS_CLUSTER_GO` names the
//! reference's service; with a real daemon where `KUBO_BIN` names one.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use cluster_compat::testing::kubo::FakeKubo;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kubo::{self, Kubo};
use crate::lab::original;
use crate::support::{Peer, Reply, SECRET, cid, eventually, free_port, send, set_member};

/// What a follower answers to every write.
const REFUSAL: &str = "this peer is configured to be in follower mode. Write operations are disabled";

/// The folder of all clusters of a follower, and the peer of the only one.
struct Follower {
    folder: TempDir,
    daemon: String,
    child: Option<Child>,
}

impl Follower {
    fn new(daemon: String) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), daemon, child: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("one").join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ipfs-cluster-follow"));
        command.arg("--config").arg(self.folder.path()).arg("one").args(args).stdin(Stdio::null());
        command.env("CLUSTER_IPFSHTTP_NODEMULTIADDRESS", &self.daemon);
        command.env("CLUSTER_LISTENMULTIADDRESS", "/ip4/127.0.0.1/tcp/0");
        command
    }

    fn ended(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn list(&self) -> String {
        String::from_utf8(self.ended(&["list"]).stdout).unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    async fn start(&mut self, args: &[&str]) {
        let log =
            std::fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = self.command(&["run"]);
        self.child = Some(command.args(args).stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let answers =
            eventually("the follower answers", async || self.try_rest("GET", "/id").await.is_some());
        answers.await.unwrap_or_else(|missing| panic!("{missing}\n{}", self.log()));
    }

    async fn try_rest(&self, method: &str, target: &str) -> Option<Reply> {
        let socket = self.path("api-socket");
        let client = reqwest::Client::builder().unix_socket(socket).build().unwrap();
        send(&client, method, target).await.ok()
    }

    async fn rest(&self, method: &str, target: &str) -> Reply {
        self.try_rest(method, target).await.unwrap()
    }

    async fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::HUP)
            .unwrap();
        let mut status = None;
        let ended = eventually("the follower ends", async || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        if let Err(missing) = ended.await {
            child.kill().unwrap();
            panic!("{missing}\n{}", self.log());
        }
        status.unwrap().code()
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Serves one document at a URL, for as long as the test runs: on a thread of its own, as commands are waited for.
fn serve(document: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/template.json", listener.local_addr().unwrap());
    let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{document}", document.len());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(reply.as_bytes());
        }
    });
    url
}

fn id_of(peer: &Peer) -> String {
    let text = std::fs::read(peer.path("identity.json")).unwrap();
    let identity: Value = serde_json::from_slice(&text).unwrap();
    identity["id"].as_str().unwrap().to_owned()
}

fn set_trusted(peer: &Peer, trusted: &str) {
    let path = peer.path("service.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["consensus"]["crdt"]["trusted_peers"] = json!([trusted]);
    std::fs::write(&path, config.to_string()).unwrap();
}

/// What the owner of a cluster publishes: its own configuration with its address, and settings that must not count.
async fn template(owner: &Peer) -> String {
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(owner.path("service.json")).unwrap()).unwrap();
    config["cluster"]["peer_addresses"] = json!([owner.id_and_addr().await.1]);
    config["cluster"]["peername"] = "from the template".into();
    config["cluster"]["follower_mode"] = false.into();
    config["observations"]["metrics"]["enable_stats"] = true.into();
    config.to_string()
}

/// A peer that trusts one peer, or all.
async fn start_peer(
    program: Option<&OsString>,
    daemon: &FakeKubo,
    trusted: Option<&str>,
    addrs: Value,
) -> Peer {
    let set = |config: &mut Value| {
        set_member(config, SECRET);
        config["cluster"]["peer_addresses"] = addrs;
        let port = free_port();
        config["cluster"]["listen_multiaddress"] = json!([format!("/ip4/127.0.0.1/tcp/{port}")]);
        // nobody tells a newcomer of what was written before but this
        config["consensus"]["crdt"]["rebroadcast_interval"] = "1s".into();
    };
    let mut peer = match program {
        Some(program) => Peer::init_program(program.clone(), daemon, set),
        None => Peer::init(daemon, set),
    };
    let own = id_of(&peer);
    set_trusted(&peer, trusted.unwrap_or(&own));
    peer.start().await;
    peer
}

async fn pin(peer: &Peer, cid: &str, name: &str) {
    let reply = peer.rest("POST", &format!("/pins/{cid}?name={name}")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

async fn lists(follower: &Follower, line: &str) {
    let listed = eventually(line, async || follower.list().contains(line));
    listed.await.unwrap_or_else(|missing| panic!("{missing}\n{}\n{}", follower.list(), follower.log()));
}

/// The whole life of a follower. `pins` are what its daemon can pin, `holds` asks the daemon.
async fn follows(
    program: Option<OsString>,
    daemon: String,
    pins: [String; 3],
    holds: impl AsyncFn(&str) -> bool,
) {
    let (daemon_a, daemon_b) = (FakeKubo::start().await.unwrap(), FakeKubo::start().await.unwrap());
    let owner = start_peer(program.as_ref(), &daemon_a, None, json!([])).await;
    pin(&owner, &pins[0], "before").await;
    let url = serve(&template(&owner).await);

    let mut follower = Follower::new(daemon);
    let untouched = follower.ended(&["list"]);
    assert_eq!(untouched.status.code(), Some(1));
    follower.start(&["--init", &url]).await;
    lists(&follower, &format!("{:<20} {} before\n", "pinned", pins[0])).await;
    assert!(holds(&pins[0]).await, "what is pinned is in the daemon");
    let info = String::from_utf8(follower.ended(&["info"]).stdout).unwrap();
    assert!(
        info.contains(&format!(
            "Config source URL: Available ({url})\nCluster Peer online: true\nIPFS peer online: true"
        )),
        "{info}"
    );

    // who is not trusted has no say, however it writes
    let addr = owner.id_and_addr().await.1;
    let stranger = start_peer(program.as_ref(), &daemon_b, Some("*"), json!([addr])).await;
    let ids = [id_of(&owner), id_of(&stranger)];
    let knows_all = async || {
        let pings = follower.rest("GET", "/monitor/metrics/ping").await.text();
        ids.iter().all(|id| pings.contains(id.as_str()))
    };
    eventually("the follower knows both peers", knows_all).await.unwrap();
    pin(&stranger, &pins[1], "stranger").await;
    pin(&owner, &pins[2], "owner").await;
    lists(&follower, &format!("{:<20} {} owner\n", "pinned", pins[2])).await;
    assert!(!follower.list().contains(&pins[1]), "{}", follower.list());

    // writes are refused, the trusted peer's collection of garbage too
    for (method, target) in [("POST", format!("/pins/{}", pins[1])), ("DELETE", format!("/pins/{}", pins[0]))]
    {
        let reply = follower.rest(method, &target).await;
        assert!(reply.status == 500 && reply.text().contains(REFUSAL), "{}", reply.text());
    }
    let id = follower.rest("GET", "/id").await.documents().remove(0);
    assert_eq!(id["peername"], "from the template");
    let follower_id = id["id"].as_str().unwrap();
    let collected = owner.rest("POST", "/ipfs/gc").await.documents().remove(0);
    // who refuses is left out of the answer
    let rows = collected["peer_map"].as_object().unwrap();
    assert!(rows.contains_key(&ids[0]) && !rows.contains_key(follower_id), "{collected}");

    // an orderly end, and the pins are there without the peer
    assert_eq!(follower.stop().await, Some(0), "{}", follower.log());
    assert!(!follower.path("api-socket").exists() && follower.path("peerstore").exists());
    let offline = follower.list();
    for (cid, name) in [(&pins[0], "before"), (&pins[2], "owner")] {
        assert!(offline.contains(&format!("{:<20} {cid} {name}\n", "offline")), "{offline}");
    }

    // a killed one comes back, and is alone in its folder
    follower.start(&[]).await;
    let second = follower.ended(&["run"]);
    assert!(second.status.code() == Some(1), "{second:?}");
    let words = String::from_utf8(second.stderr).unwrap();
    assert!(words.contains("someone else has the lock\ncreating datastore\n"), "{words}");
    let cleanup = Command::new(env!("CARGO_BIN_EXE_ipfs-cluster-service"))
        .arg("--config")
        .arg(follower.path(""))
        .args(["state", "cleanup", "-f"])
        .output()
        .unwrap();
    let words = String::from_utf8(cleanup.stderr).unwrap();
    assert!(words.contains("error obtaining execution lock: lock "), "{words}");
    follower.kill();
    assert!(follower.path("api-socket").exists());
    follower.start(&[]).await;
    lists(&follower, &pins[2]).await;
}

/// With daemons that are none.
async fn follows_on_a_fake(program: Option<OsString>) {
    let daemon = FakeKubo::start().await.unwrap();
    let pins = [1, 2, 3].map(|n| cid(n).to_string());
    follows(program, daemon.multiaddr().to_owned(), pins, async |cid| daemon.pins().contains_key(cid)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_takes_what_its_trusted_peer_pins_and_has_no_say() {
    follows_on_a_fake(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_takes_what_a_trusted_original_pins_and_has_no_say() {
    let Some(go) = original() else { return };
    follows_on_a_fake(Some(go)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_keeps_the_pins_of_an_original_cluster() {
    let (Some(go), Some(program)) = (original(), kubo::program()) else { return };
    let kubo = Kubo::start(&program, "127.0.0.1", |_| {}).await;
    let mut pins = Vec::new();
    for text in ["one", "two", "three"] {
        let added = kubo.rpc.send("add", &[("pin", "false")], vec![text.into()]).await;
        pins.push(added[0]["Hash"].as_str().unwrap().to_owned());
    }
    let api = kubo.rpc.addr();
    let holds =
        async |cid: &str| kubo.rpc.ask("pin/ls", &[("arg", cid), ("type", "recursive")]).await.is_ok();
    follows(Some(go), api, pins.try_into().unwrap(), holds).await;
}
