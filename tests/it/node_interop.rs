//! The embedded node beside real Kubo daemons (`KUBO_BIN`): content both ways, peers that lie or stall, providers of a
//! DHT; skipped elsewhere.
//!
//! `NODE_DAGS` is the number of random DAGs each way, `NODE_FILE_MIB` the size of the large file. The DHTs of Kubo keep
//! no loopback addresses: `PRIVATE_IP` names an address of this machine in a private network for that test.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluster_compat::config::Embedded;
use cluster_compat::types::{Cid, Multiaddr, PeerId};
use futures::StreamExt as _;
use ipfs_cluster::net::{Blocks, Network, OpenArgs};
use ipfs_cluster::node::{Node, NodeArgs};
use ipfs_cluster::task::Tasks;
use libp2p::identity::Keypair;
use multihash_codetable::{Code, MultihashDigest as _};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use serde_json::json;

use crate::kubo::{self, Kubo, Rpc};

/// Longest wait for anything but the large file.
const LIMIT: Duration = Duration::from_secs(120);

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("too late: {what}"))
}

/// A node of ours.
struct Ours {
    node: Node,
    rpc: Rpc,
    _folder: tempfile::TempDir,
}

impl Ours {
    async fn start(ip: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let family = if ip.contains(':') { "ip6" } else { "ip4" };
        let listen = [format!("/{family}/{ip}/tcp/0"), format!("/{family}/{ip}/udp/0/quic-v1")];
        let config = Embedded {
            swarm_listen_multiaddress: listen.iter().map(|addr| addr.parse().unwrap()).collect(),
            bootstrap: Vec::new(),
            api_listen_multiaddress: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            mdns: false,
            ..Embedded::default()
        };
        let args = NodeArgs { config, folder: folder.path().to_owned(), keypair: None, is_alone: true };
        let node = Node::start(args).await.unwrap();
        let rpc = Rpc::new(&node.apis()[0]);
        Self { node, rpc, _folder: folder }
    }

    fn addr(&self, transport: &str) -> String {
        let addrs = self.node.addrs();
        let addr = addrs.iter().find(|addr| addr.to_string().contains(transport)).unwrap();
        format!("{addr}/p2p/{}", self.node.peer())
    }

    async fn stop(self) {
        within("the node's end", self.node.stop()).await;
    }
}

/// Random DAGs in `to`, and their roots: files of every layout, nodes of other codecs above them.
async fn plant(to: &Rpc, n_dags: usize, random: &mut StdRng) -> Vec<String> {
    let mut roots = Vec::new();
    while roots.len() < n_dags {
        let n_files = (n_dags - roots.len()).min(25);
        let options = [
            (
                "chunker",
                *["size-1000", "size-65536", "size-262144", "rabin-512-1024-2048"].choose(random).unwrap(),
            ),
            ("raw-leaves", ["true", "false"].choose(random).unwrap()),
            ("trickle", ["true", "false"].choose(random).unwrap()),
            (
                "hash",
                ["sha2-256", "sha2-512", "blake2b-256", "blake3", "sha1", "sha3-256"].choose(random).unwrap(),
            ),
            ("cid-version", "1"),
            ("pin", "false"),
        ];
        let lens = [0, 1, 1000, 1001, 5000, 65_536, 70_000, 300_000];
        let files = (0..n_files).map(|_| {
            let mut file = vec![0; *lens.choose(random).unwrap() + random.random_range(0..100)];
            random.fill_bytes(&mut file);
            file
        });
        let added = to.send("add", &options, files.collect()).await;
        let mut added: Vec<String> =
            added.iter().map(|line| line["Hash"].as_str().unwrap().to_owned()).collect();
        added.dedup();
        if random.random_bool(0.5) {
            let links: Vec<_> = added.iter().map(|cid| json!({ "/": cid })).collect();
            let node = json!({ "links": links, "n": random.random::<u32>() }).to_string();
            let put = to.send("dag/put", &[], vec![node.into_bytes()]).await;
            added[0] = put[0]["Cid"]["/"].as_str().unwrap().to_owned();
        }
        roots.extend(added);
    }
    roots.truncate(n_dags);
    roots
}

/// Every DAG got by `to` is the one that `from` has.
async fn compare(from: &Rpc, to: &Rpc, roots: &[String]) {
    let mut done = futures::stream::iter(roots)
        .map(|root| async move {
            let args = [("arg", root.as_str()), ("progress", "false")];
            within(root, to.ask("pin/add", &[("arg", root)])).await.unwrap_or_else(|e| panic!("{root}: {e}"));
            let got = to.ask("dag/export", &args).await.unwrap_or_else(|e| panic!("{root}: {e}"));
            assert!(got == from.ask("dag/export", &args).await.unwrap(), "{root} is another DAG");
        })
        .buffer_unordered(8);
    while done.next().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_dags_are_the_same_on_both_sides() {
    let Some(program) = kubo::program() else { return };
    let n_dags = number("NODE_DAGS", 100);
    let seed = number("NODE_SEED", 8);
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed as u64);
    let (kubo, ours) = (Kubo::start(&program, "127.0.0.1", |_| {}).await, Ours::start("127.0.0.1").await);
    ours.rpc.call("swarm/connect", &[("arg", &kubo.addr("/quic-v1").to_string())]).await;
    let (began, roots) = (Instant::now(), plant(&kubo.rpc, n_dags, &mut random).await);
    println!("planted in Kubo: {:?}", began.elapsed());
    let began = Instant::now();
    compare(&kubo.rpc, &ours.rpc, &roots).await;
    println!("{n_dags} DAGs to ours: {:?}", began.elapsed());
    let roots = plant(&ours.rpc, n_dags, &mut random).await;
    let began = Instant::now();
    compare(&ours.rpc, &kubo.rpc, &roots).await;
    println!("{n_dags} DAGs to Kubo: {:?}", began.elapsed());
    assert_eq!(ours.rpc.call("bitswap/stat", &[]).await["Wantlist"], json!([]));
    ours.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_goes_both_ways() {
    let Some(program) = kubo::program() else { return };
    let n_bytes = number("NODE_FILE_MIB", 64) << 20;
    let kubo = Kubo::start(&program, "127.0.0.1", |_| {}).await;
    let other = Kubo::start(&program, "127.0.0.1", |_| {}).await;
    for transport in ["/tcp/", "/quic-v1"] {
        let ours = Ours::start("127.0.0.1").await;
        ours.rpc.call("swarm/connect", &[("arg", &kubo.addr(transport).to_string())]).await;
        other.rpc.call("swarm/connect", &[("arg", &kubo.addr(transport).to_string())]).await;
        for (name, from, to) in [
            ("Kubo to ours", &kubo.rpc, &ours.rpc),
            ("ours to Kubo", &ours.rpc, &kubo.rpc),
            ("Kubo to Kubo", &kubo.rpc, &other.rpc),
        ] {
            let mut file = vec![0; n_bytes];
            rand::rng().fill_bytes(&mut file);
            let added = from.send("add", &[("cid-version", "1")], vec![file.clone()]).await;
            let root = added.last().unwrap()["Hash"].as_str().unwrap().to_owned();
            let began = Instant::now();
            to.ask("pin/add", &[("arg", &root)]).await.unwrap();
            let took = began.elapsed();
            println!(
                "{name} over {transport}: {took:?}, {:.1} MiB/s",
                (n_bytes >> 20) as f64 / took.as_secs_f64()
            );
            let read = to.ask("cat", &[("arg", &root)]).await.unwrap();
            assert!(read == file, "{name}: another file");
            for rpc in [from, to] {
                let _ = rpc.ask("pin/rm", &[("arg", &root)]).await;
                rpc.ask("repo/gc", &[]).await.unwrap();
            }
        }
        ours.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_nobody_has_is_given_up_cleanly() {
    let Some(program) = kubo::program() else { return };
    let (kubo, ours) = (Kubo::start(&program, "127.0.0.1", |_| {}).await, Ours::start("127.0.0.1").await);
    ours.rpc.call("swarm/connect", &[("arg", &kubo.addr("/tcp/").to_string())]).await;
    let nobody = Cid::new_v1(0x55, Code::Sha2_256.digest(b"nobody has this")).to_string();
    for (from, other) in [(&ours.rpc, &kubo.rpc), (&kubo.rpc, &ours.rpc)] {
        let failed = from.ask("block/get", &[("arg", &nobody), ("timeout", "2s")]).await.unwrap_err();
        assert!(failed.contains("context deadline exceeded"), "{failed}");
        let is_forgotten = async {
            while from.call("bitswap/wantlist", &[]).await["Keys"] != json!([]) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let id = from.call("id", &[]).await["ID"].as_str().unwrap().to_owned();
            while !matches!(&other.call("bitswap/wantlist", &[("peer", &id)]).await["Keys"],
                keys if keys.is_null() || *keys == json!([]))
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        within("empty wantlists", is_forgotten).await;
    }
    ours.stop().await;
}

/// Blocks of a peer that misbehaves.
#[derive(Default)]
struct Bad {
    blocks: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    lies: AtomicBool,
    stalls: AtomicBool,
    n_asked: AtomicUsize,
}

impl Blocks for Bad {
    fn block(&self, cid: &Cid) -> Option<Vec<u8>> {
        self.n_asked.fetch_add(1, Ordering::Relaxed);
        while self.stalls.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        if self.lies.load(Ordering::Relaxed) {
            return Some(b"not what was asked for".to_vec());
        }
        self.blocks.lock().unwrap().get(&cid.hash().to_bytes()).cloned()
    }

    fn size(&self, cid: &Cid) -> Option<usize> {
        if self.lies.load(Ordering::Relaxed) || self.stalls.load(Ordering::Relaxed) {
            return Some(5000);
        }
        self.block(cid).map(|block| block.len())
    }
}

async fn bad_peer(tasks: &Tasks) -> (Network, Arc<Bad>) {
    let bad = Arc::new(Bad::default());
    let network = Network::start_open(OpenArgs {
        keypair: Keypair::generate_ed25519(),
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        bootstrap: Vec::new(),
        mdns: false,
        blocks: Arc::clone(&bad) as Arc<dyn Blocks>,
        digest: ipfs_cluster::adder::digest,
        tasks: tasks.clone(),
    });
    (network.await.unwrap(), bad)
}

fn full_addr(network: &Network) -> Multiaddr {
    network.listen_addrs()[0].clone().with_p2p(network.local_peer()).unwrap()
}

async fn is_connected(rpc: &Rpc, peer: &PeerId) -> bool {
    let peers = rpc.call("swarm/peers", &[]).await;
    let peers = peers["Peers"].as_array().cloned().unwrap_or_default();
    peers.iter().any(|known| known["Peer"] == peer.to_base58())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_lies_is_dropped_and_one_that_stalls_is_passed_over() {
    let ours = Ours::start("127.0.0.1").await;
    let tasks = Tasks::new();
    let (liar, lies) = bad_peer(&tasks).await;
    let (slow, stalls) = bad_peer(&tasks).await;
    let (good, _) = bad_peer(&tasks).await;
    lies.lies.store(true, Ordering::Relaxed);
    let block = b"asked for".to_vec();
    let cid = Cid::new_v1(0x55, Code::Sha2_256.digest(&block));
    // the liar is the only one that says it has it
    ours.rpc.call("swarm/connect", &[("arg", &full_addr(&liar).to_string())]).await;
    assert!(is_connected(&ours.rpc, &liar.local_peer()).await);
    let cid_text = cid.to_string();
    let failed = ours.rpc.ask("block/get", &[("arg", &cid_text), ("timeout", "3s")]).await.unwrap_err();
    assert!(failed.contains("context deadline exceeded"), "{failed}");
    let dropped = async {
        while is_connected(&ours.rpc, &liar.local_peer()).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within("the liar's end", dropped).await;
    let stored = ours.rpc.ask("block/stat", &[("arg", &cid_text), ("offline", "true")]).await;
    assert!(stored.is_err(), "{stored:?}");

    // one that says nothing does not keep us from another
    stalls.stalls.store(true, Ordering::Relaxed);
    ours.rpc.call("swarm/connect", &[("arg", &full_addr(&slow).to_string())]).await;
    let args = [("arg", cid_text.as_str()), ("timeout", "60s")];
    let asked = ours.rpc.ask("block/get", &args);
    let others = async {
        while stalls.n_asked.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // a third one appears that has it
        let (network, has) = bad_peer(&tasks).await;
        has.blocks.lock().unwrap().insert(cid.hash().to_bytes(), block.clone());
        ours.rpc.call("swarm/connect", &[("arg", &full_addr(&network).to_string())]).await;
        network
    };
    let (got, _network) = within("the block", async { tokio::join!(asked, others) }).await;
    assert_eq!(got.unwrap(), block);
    stalls.stalls.store(false, Ordering::Relaxed);
    drop(good);
    tasks.stop();
    ours.stop().await;
}

/// Four daemons of Kubo that are a DHT, and a node of ours that knows one of them; skipped where they cannot be.
async fn dht() -> Option<(Vec<Kubo>, Ours, String)> {
    let program = kubo::program()?;
    let Ok(ip) = std::env::var("PRIVATE_IP") else {
        println!("skipped: PRIVATE_IP does not name an address in a private network");
        return None;
    };
    let with_dht = |config: &mut serde_json::Value| {
        config["Routing"] = json!({ "Type": "dhtserver" });
        config["Provide"] = json!({ "Enabled": true, "DHT": { "SweepEnabled": false } });
    };
    let mut kubos = Vec::new();
    for _ in 0..4 {
        kubos.push(Kubo::start(&program, &ip, with_dht).await);
    }
    let ours = Ours::start(&ip).await;
    // a hub that everybody knows
    for other in &kubos[1..] {
        other.rpc.call("swarm/connect", &[("arg", &kubos[0].addr("/tcp/").to_string())]).await;
    }
    ours.rpc.call("swarm/connect", &[("arg", &kubos[0].addr("/tcp/").to_string())]).await;
    Some((kubos, ours, ip))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_lead_the_same_way_on_both_sides() {
    let Some((kubos, ours, _)) = dht().await else { return };
    let value = "/ipfs/QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";
    for (from, to) in [(&ours.rpc, &kubos[2].rpc), (&kubos[3].rpc, &ours.rpc)] {
        let made = from.call("key/gen", &[("arg", "a name")]).await;
        let args = [("arg", value), ("key", "a name")];
        let said = within("publish", from.ask("name/publish", &args)).await.unwrap();
        let said: serde_json::Value = serde_json::from_slice(&said).unwrap();
        assert_eq!((&said["Name"], &said["Value"]), (&made["Id"], &json!(value)));
        let name = format!("/ipns/{}", said["Name"].as_str().unwrap());
        let args = [("arg", name.as_str()), ("nocache", "true")];
        let path = within("resolve", to.ask("name/resolve", &args)).await.unwrap();
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&path).unwrap(), json!({ "Path": value }));
        let path = within("resolve", to.ask("resolve", &[("arg", &name)])).await.unwrap();
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&path).unwrap(), json!({ "Path": value }));
    }
    ours.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn providers_are_found_in_the_dht_of_others_both_ways() {
    let Some((kubos, ours, ip)) = dht().await else { return };

    // theirs: from one that we are not connected to
    let put = kubos[3].rpc.send("block/put", &[], vec![b"somewhere in the DHT".to_vec()]).await;
    let cid = put[0]["Key"].as_str().unwrap();
    within("provide", kubos[3].rpc.ask("routing/provide", &[("arg", cid)])).await.unwrap();
    let found = within("providers", ours.rpc.ask("routing/findprovs", &[("arg", cid)])).await.unwrap();
    let found = String::from_utf8(found).unwrap();
    assert!(found.contains(&kubos[3].peer.to_base58()) && found.contains(r#""Type":4"#), "{found}");
    ours.rpc.call("swarm/disconnect", &[("arg", &format!("/p2p/{}", kubos[3].peer))]).await;
    let got = within("their block", ours.rpc.ask("block/get", &[("arg", cid)])).await.unwrap();
    assert_eq!(got, b"somewhere in the DHT");

    // ours: found by one that is not connected to us
    let put = ours.rpc.send("block/put", &[], vec![b"at our place".to_vec()]).await;
    let cid = put[0]["Key"].as_str().unwrap();
    within("provide", ours.rpc.ask("routing/provide", &[("arg", cid)])).await.unwrap();
    let us = format!("/p2p/{}", ours.node.peer());
    kubos[2].rpc.call("swarm/disconnect", &[("arg", &us)]).await;
    let got = within("our block", kubos[2].rpc.ask("block/get", &[("arg", cid)])).await.unwrap();
    assert_eq!(got, b"at our place");
    assert!(ours.addr("/tcp/").contains(&ip));
    ours.stop().await;
}
