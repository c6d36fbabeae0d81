//! Real Kubo daemons for tests of the embedded node: offline from the public network, and gone when dropped.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use cluster_compat::types::{Multiaddr, PeerId};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// Longest start of a daemon on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A daemon of Kubo.
pub(crate) struct Kubo {
    _child: Child,
    _folder: tempfile::TempDir,
    pub(crate) rpc: Rpc,
    pub(crate) peer: PeerId,
    pub(crate) addrs: Vec<Multiaddr>,
}

/// A daemon's RPC.
pub(crate) struct Rpc {
    client: reqwest::Client,
    api: String,
}

/// The program that `KUBO_BIN` names; without one a line says that the test was skipped.
pub(crate) fn program() -> Option<PathBuf> {
    let program = std::env::var_os("KUBO_BIN").map(PathBuf::from);
    if program.is_none() {
        println!("skipped: KUBO_BIN does not name a Kubo");
    }
    program
}

impl Kubo {
    /// A daemon that listens on `ip`, on TCP and QUIC, after `change` has had its configuration.
    pub(crate) async fn start(program: &Path, ip: &str, change: impl FnOnce(&mut Value)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let init = Command::new(program).arg("init").env("IPFS_PATH", folder.path()).output().await.unwrap();
        assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
        let path = folder.path().join("config");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config["Bootstrap"] = json!([]);
        config["AutoConf"] = json!({ "Enabled": false });
        config["AutoTLS"] = json!({ "Enabled": false });
        config["AutoNAT"] = json!({ "ServiceMode": "disabled" });
        config["DNS"] = json!({ "Resolvers": {} });
        config["Discovery"]["MDNS"]["Enabled"] = json!(false);
        config["Routing"] = json!({ "Type": "none" });
        config["Ipns"]["DelegatedPublishers"] = json!([]);
        config["Provide"] = json!({ "Enabled": false });
        config["Swarm"]["DisableNatPortMap"] = json!(true);
        config["Swarm"]["RelayClient"] = json!({ "Enabled": false });
        config["Addresses"]["API"] = json!("/ip4/127.0.0.1/tcp/0");
        config["Addresses"]["Gateway"] = json!([]);
        let family = if ip.contains(':') { "ip6" } else { "ip4" };
        config["Addresses"]["Swarm"] =
            json!([format!("/{family}/{ip}/tcp/0"), format!("/{family}/{ip}/udp/0/quic-v1")]);
        change(&mut config);
        std::fs::write(&path, config.to_string()).unwrap();
        let mut child = Command::new(program)
            .arg("daemon")
            .env("IPFS_PATH", folder.path())
            .env("IPFS_TELEMETRY", "off")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = async {
            loop {
                let line = lines.next_line().await.unwrap().expect("the daemon runs");
                if line.contains("Daemon is ready") {
                    break;
                }
            }
        };
        tokio::time::timeout(START_LIMIT, ready).await.expect("a daemon that is ready");
        let api = std::fs::read_to_string(folder.path().join("api")).unwrap();
        let rpc = Rpc::new(&api.trim().parse().unwrap());
        let mut kubo =
            Self { _child: child, _folder: folder, rpc, peer: PeerId::random(), addrs: Vec::new() };
        let id: Value = kubo.rpc.call("id", &[]).await;
        kubo.peer = id["ID"].as_str().unwrap().parse().unwrap();
        let addrs = id["Addresses"].as_array().unwrap();
        kubo.addrs = addrs.iter().map(|addr| addr.as_str().unwrap().parse().unwrap()).collect();
        kubo
    }

    /// Its address on one transport.
    pub(crate) fn addr(&self, transport: &str) -> Multiaddr {
        self.addrs.iter().find(|addr| addr.to_string().contains(transport)).cloned().unwrap()
    }
}

impl Rpc {
    /// The RPC at a TCP address.
    pub(crate) fn new(addr: &Multiaddr) -> Self {
        let port = addr.to_string().rsplit('/').next().unwrap().to_owned();
        Self { client: reqwest::Client::new(), api: format!("http://127.0.0.1:{port}/api/v0") }
    }

    /// Its multiaddress.
    pub(crate) fn addr(&self) -> String {
        let port = self.api.split([':', '/']).nth(4).unwrap_or_default();
        format!("/ip4/127.0.0.1/tcp/{port}")
    }

    /// One call; its whole answer.
    pub(crate) async fn ask(&self, endpoint: &str, args: &[(&str, &str)]) -> Result<Vec<u8>, String> {
        let request = self.client.post(self.url(endpoint, args));
        Self::body(request.send().await.unwrap()).await
    }

    /// A call whose answer is one document.
    pub(crate) async fn call(&self, endpoint: &str, args: &[(&str, &str)]) -> Value {
        let body = self.ask(endpoint, args).await.unwrap_or_else(|e| panic!("{endpoint}: {e}"));
        serde_json::from_slice(&body).unwrap_or(Value::Null)
    }

    /// Sends files in one form; the documents of the answer.
    pub(crate) async fn send(
        &self,
        endpoint: &str,
        args: &[(&str, &str)],
        files: Vec<Vec<u8>>,
    ) -> Vec<Value> {
        let boundary = "a-boundary-that-no-file-of-ours-holds";
        let mut body = Vec::new();
        for file in files {
            let head = format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\nContent-Type: application/octet-stream\r\n\r\n"
            );
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(&file);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        let request = self.client.post(self.url(endpoint, args));
        let request = request.header("content-type", format!("multipart/form-data; boundary={boundary}"));
        let body = Self::body(request.body(body).send().await.unwrap()).await.unwrap();
        serde_json::Deserializer::from_slice(&body).into_iter().map(Result::unwrap).collect()
    }

    fn url(&self, endpoint: &str, args: &[(&str, &str)]) -> String {
        let args: Vec<String> = args
            .iter()
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
            .collect();
        format!("{}/{endpoint}?{}", self.api, args.join("&"))
    }

    async fn body(response: reqwest::Response) -> Result<Vec<u8>, String> {
        let is_ok = response.status().is_success();
        let body = response.bytes().await.map_err(|e| e.to_string())?.to_vec();
        if is_ok { Ok(body) } else { Err(String::from_utf8_lossy(&body).into_owned()) }
    }
}
