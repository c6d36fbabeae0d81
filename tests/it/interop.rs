//! Beside an original peer, where `IPFS_CLUSTER_GO` names its `ipfs-cluster-service`; skipped elsewhere.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cluster_compat::config::Cluster;
use cluster_compat::testing::kubo::FakeKubo;
use cluster_compat::types::{Metric, Multiaddr, PeerId};
use ipfs_cluster::net::{Network, NetworkArgs};
use ipfs_cluster::task::Tasks;
use ipfs_cluster::wire;
use libp2p::identity::Keypair;
use tempfile::TempDir;

use crate::support::free_port;

const SECRET: [u8; 32] = [42; 32];
const TOPIC: &str = "monitor.metrics";
const LIMIT: Duration = Duration::from_secs(40);

/// An original peer; gone when dropped.
struct Original {
    child: Child,
    rest: u16,
    swarm: u16,
    peer: PeerId,
    _folder: TempDir,
}

impl Drop for Original {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Original {
    fn start(binary: &str, kubo: &FakeKubo, peer_address: Option<&Multiaddr>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (rest, swarm, proxy) = (free_port(), free_port(), free_port());
        let command = |arguments: &[&str]| {
            let mut command = Command::new(binary);
            command
                .args(arguments)
                .env("IPFS_CLUSTER_PATH", folder.path())
                .env("CLUSTER_SECRET", hex::encode(SECRET));
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        assert!(command(&["init"]).status().unwrap().success());
        let path = folder.path().join("service.json");
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config["cluster"]["listen_multiaddress"] = vec![format!("/ip4/127.0.0.1/tcp/{swarm}")].into();
        config["cluster"]["monitor_ping_interval"] = "2s".into();
        config["cluster"]["mdns_interval"] = "0s".into();
        config["cluster"]["peer_addresses"] =
            peer_address.iter().map(ToString::to_string).collect::<Vec<_>>().into();
        config["ipfs_connector"]["ipfshttp"]["node_multiaddress"] = kubo.multiaddr().into();
        config["api"]["restapi"]["http_listen_multiaddress"] = format!("/ip4/127.0.0.1/tcp/{rest}").into();
        config["api"]["ipfsproxy"]["listen_multiaddress"] = format!("/ip4/127.0.0.1/tcp/{proxy}").into();
        config["api"].as_object_mut().unwrap().remove("pinsvcapi");
        std::fs::write(&path, config.to_string()).unwrap();
        let identity = std::fs::read(folder.path().join("identity.json")).unwrap();
        let identity: serde_json::Value = serde_json::from_slice(&identity).unwrap();
        let child = command(&["daemon"]).spawn().unwrap();
        Self { child, rest, swarm, peer: identity["id"].as_str().unwrap().parse().unwrap(), _folder: folder }
    }

    fn addr(&self) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{}/p2p/{}", self.swarm, self.peer).parse().unwrap()
    }

    async fn get(&self, path: &str) -> Option<serde_json::Value> {
        let answer = reqwest::get(format!("http://127.0.0.1:{}{path}", self.rest)).await.ok()?;
        serde_json::from_slice(&answer.bytes().await.ok()?).ok()
    }

    async fn get_until(&self, path: &str, text: &str) -> String {
        let mut last = String::new();
        for _ in 0..LIMIT.as_secs() * 5 {
            last = self.get(path).await.map(|answer| answer.to_string()).unwrap_or(last);
            if last.contains(text) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("{path} never contained {text}: {last}");
    }
}

fn ping(peer: PeerId) -> Vec<u8> {
    let expire = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(60);
    wire::metric::encode(&Metric {
        name: "ping".into(),
        peer: Some(peer),
        value: r#"{"peer_name":"ours"}"#.into(),
        expire: i64::try_from(expire.as_nanos()).unwrap(),
        valid: true,
        weight: 0,
        partitionable: false,
        received_at: 0,
    })
}

async fn check_gossip(dials_us: bool) {
    let Ok(binary) = std::env::var("IPFS_CLUSTER_GO") else {
        eprintln!("skipped: IPFS_CLUSTER_GO is not set");
        return;
    };
    let tasks = Tasks::new();
    let config =
        Cluster { listen_multiaddress: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()], ..Cluster::default() };
    let network = Network::start(NetworkArgs {
        keypair: Keypair::generate_ed25519(),
        secret: Some(SECRET),
        config: &config,
        peerstore: vec![],
        tasks: tasks.clone(),
    })
    .await
    .unwrap();
    let ours = network.local_peer();
    let mut messages = network.subscribe(TOPIC, std::sync::Arc::new(|_: &PeerId| true)).unwrap();
    let our_addr: Multiaddr = format!("{}/p2p/{ours}", network.listen_addrs()[0]).parse().unwrap();

    // it says nothing to its cluster before it has a daemon
    let kubo = FakeKubo::start().await.unwrap();
    let original = Original::start(&binary, &kubo, dials_us.then_some(&our_addr));
    original.get_until("/id", &original.peer.to_string()).await;
    if !dials_us {
        network.add_addr(&original.addr()).unwrap();
        network.dial(original.peer).await.unwrap();
    }
    let mut subscribers = network.subscribers(TOPIC).unwrap();
    tokio::time::timeout(LIMIT, subscribers.wait_for(|n| *n == 1)).await.expect("it subscribes").unwrap();

    // its metrics reach us
    let message = tokio::time::timeout(LIMIT, messages.recv()).await.expect("a metric arrives").unwrap();
    let metric = wire::metric::decode(&message.data).unwrap();
    assert_eq!((message.source, metric.peer), (original.peer, Some(original.peer)));

    // ours reach it, which makes us a member; it knows our address from identify
    network.publish(TOPIC, ping(ours));
    original.get_until("/monitor/metrics/ping", &ours.to_string()).await;
    original.get_until("/id", &our_addr.to_string()).await;
    assert_eq!(network.addrs_of(&[original.peer]), [original.addr()]);
    tasks.stop();
}

#[tokio::test]
async fn metrics_travel_both_ways_when_we_dial() {
    check_gossip(false).await;
}

#[tokio::test]
async fn metrics_travel_both_ways_when_we_are_dialled() {
    check_gossip(true).await;
}
