//! A peer as a process: initialised by the program itself, reached over Unix sockets, so that no port is guessed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use bytes::Bytes;
use cluster_compat::testing::kubo::FakeKubo;
use cluster_compat::types::Cid;
use multihash_codetable::{Code, MultihashDigest as _};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

/// How long anything may take on a busy machine before a test says what was missing.
const LIMIT: Duration = Duration::from_secs(60);

/// Pause between two looks at something that announces itself to nobody.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is under test: our service, or another that `IPFS_CLUSTER_SERVICE` names, to see what the reference does.
fn program() -> OsString {
    std::env::var_os("IPFS_CLUSTER_SERVICE")
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_ipfs-cluster-service").into())
}

/// The secret of clusters of these tests.
pub(crate) const SECRET: &str = "5f0a3c9d1e7b24680f1e2d3c4b5a69788796a5b4c3d2e1f00123456789abcdef";

/// A port nobody listens on, for a peer that is found at its old address when it comes back.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What a member of a cluster needs: a known secret, and gossip that starts soon.
pub(crate) fn set_member(config: &mut Value, secret: &str) {
    config["cluster"]["secret"] = secret.into();
    config["cluster"]["pubsub"]["heartbeat_interval"] = "500ms".into();
}

/// A peer of its own folder.
pub(crate) struct Peer {
    program: OsString,
    loglevel: Option<&'static str>,
    folder: TempDir,
    child: Option<Child>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The documents of the body, one a line.
    pub(crate) fn documents(&self) -> Vec<Value> {
        self.text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
            .collect()
    }
}

impl Peer {
    /// Runs `init`, then points the peer at a daemon and at sockets in its folder.
    pub(crate) fn init(daemon: &FakeKubo, change: impl FnOnce(&mut Value)) -> Self {
        Self::init_program(program(), daemon, change)
    }

    /// As [`Peer::init`], with any program that has the reference's command line.
    pub(crate) fn init_program(
        program: OsString,
        daemon: &FakeKubo,
        change: impl FnOnce(&mut Value),
    ) -> Self {
        let peer = Self { program, loglevel: None, folder: tempfile::tempdir().unwrap(), child: None };
        let output = peer.service(&["init"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        peer.configure(daemon, change);
        peer
    }

    /// Points the peer at a daemon and at sockets in its folder.
    pub(crate) fn configure(&self, daemon: &FakeKubo, change: impl FnOnce(&mut Value)) {
        let path = self.path("service.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config["cluster"]["listen_multiaddress"] = "/ip4/127.0.0.1/tcp/0".into();
        config["cluster"]["mdns_interval"] = "0s".into();
        config["cluster"]["monitor_ping_interval"] = "1s".into();
        config["api"]["restapi"]["http_listen_multiaddress"] = self.socket("rest").into();
        config["api"]["ipfsproxy"]["listen_multiaddress"] = self.socket("proxy").into();
        config["api"]["ipfsproxy"]["node_multiaddress"] = daemon.multiaddr().into();
        config["ipfs_connector"]["ipfshttp"]["node_multiaddress"] = daemon.multiaddr().into();
        // its port would be a fixed one
        config["api"].as_object_mut().unwrap().remove("pinsvcapi");
        change(&mut config);
        std::fs::write(&path, config.to_string()).unwrap();
    }

    /// As [`Peer::init`], for a cluster of several.
    pub(crate) fn init_member(daemon: &FakeKubo, secret: &str, change: impl FnOnce(&mut Value)) -> Self {
        Self::init(daemon, |config| {
            set_member(config, secret);
            change(config);
        })
    }

    /// From its next start on, what runs on the folder is our service.
    pub(crate) fn becomes_ours(&mut self) {
        self.becomes(program());
    }

    /// From its next start on, what runs on the folder is that program.
    pub(crate) fn becomes(&mut self, program: OsString) {
        self.program = program;
    }

    /// From its next start on, it logs what `--loglevel` would make it log.
    pub(crate) fn set_loglevel(&mut self, levels: &'static str) {
        self.loglevel = Some(levels);
    }

    /// Its id and the address others reach it by.
    pub(crate) async fn id_and_addr(&self) -> (String, String) {
        let id = self.rest("GET", "/id").await.documents().remove(0);
        let addrs = id["addresses"].as_array().unwrap().iter();
        let addr = addrs.filter_map(Value::as_str).find(|addr| addr.starts_with("/ip4/127.0.0.1/tcp/"));
        (id["id"].as_str().unwrap().to_owned(), addr.expect("it listens on loopback").to_owned())
    }

    /// Names of all pins by their CIDs.
    pub(crate) async fn pins(&self) -> BTreeMap<String, String> {
        let text = |pin: &Value, key: &str| pin[key].as_str().unwrap().to_owned();
        let pins = self.rest("GET", "/allocations").await.documents();
        pins.iter().map(|pin| (text(pin, "cid"), text(pin, "name"))).collect()
    }

    /// Lines of its log that contain a text.
    pub(crate) fn logged(&self, text: &str) -> Vec<String> {
        self.log().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn socket(&self, name: &str) -> String {
        format!("/unix{}", self.path(name).display())
    }

    /// Runs a command of the service to its end.
    pub(crate) fn service(&self, args: &[&str]) -> Output {
        Command::new(&self.program)
            .arg("--config")
            .arg(self.folder.path())
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Starts the daemon and waits until its REST API answers.
    pub(crate) async fn start(&mut self) {
        self.start_with(&[]).await;
    }

    /// As [`Peer::start`], with more arguments.
    pub(crate) async fn start_with(&mut self, args: &[&str]) {
        for name in ["rest", "proxy"] {
            // what a killed peer leaves behind
            let _ = std::fs::remove_file(self.path(name));
        }
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let child = Command::new(&self.program)
            .arg("--config")
            .arg(self.folder.path())
            .arg("daemon")
            .args(args)
            .envs(self.loglevel.map(|levels| ("IPFS_CLUSTER_LOG_LEVEL", levels)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let client = self.client("rest");
        // an original crashes when it is asked before it is ready
        let is_ours = self.program == program();
        let up = async || {
            (is_ours || self.log().contains("IPFS Cluster is READY"))
                && client.get("http://peer/id").send().await.is_ok()
        };
        eventually("the REST API answers", up)
            .await
            .unwrap_or_else(|missing| panic!("{missing}\n{}", self.log()));
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// A client that speaks to one of the peer's sockets, whatever host its URLs name.
    pub(crate) fn client(&self, socket: &str) -> reqwest::Client {
        reqwest::Client::builder().unix_socket(self.path(socket)).build().unwrap()
    }

    /// One request to the REST API.
    pub(crate) async fn rest(&self, method: &str, target: &str) -> Reply {
        send(&self.client("rest"), method, target).await.unwrap()
    }

    /// The process of a started peer.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Ends the process as kill -9 does.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks the process to stop, as an operator does, and waits for its end.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let mut status = None;
        let ended = eventually("the process ends", async || {
            status = child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        if let Err(missing) = ended {
            child.kill().unwrap();
            panic!("{missing}\n{}", self.log());
        }
        status.unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// One request over a client of [`Peer::client`].
pub(crate) async fn send(
    client: &reqwest::Client,
    method: &str,
    target: &str,
) -> Result<Reply, reqwest::Error> {
    let method: reqwest::Method = method.parse().unwrap();
    let response = client.request(method, format!("http://peer{target}")).send().await?;
    Ok(Reply { status: response.status().as_u16(), body: response.bytes().await? })
}

/// Looks until something holds; the error says what never did.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) -> Result<(), String> {
    let deadline = Instant::now() + LIMIT;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    while !holds().await {
        if Instant::now() > deadline {
            return Err(format!("never within {LIMIT:?}: {what}"));
        }
        looks.tick().await;
    }
    Ok(())
}

/// The n-th of a series of CIDs.
pub(crate) fn cid(n: usize) -> Cid {
    Cid::new_v1(0x55, Code::Sha2_256.digest(&n.to_be_bytes()))
}
