//! Blocks from and for boxo's bitswap, where `GOPROBE` names the probe of the conformance suite; skipped elsewhere.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluster_compat::config::Cluster;
use cluster_compat::types::{Cid, Multiaddr, PeerId};
use ipfs_cluster::net::{Blocks, Network, NetworkArgs};
use ipfs_cluster::task::Tasks;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use multihash_codetable::{Code, MultihashDigest as _};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Notify;

const SECRET: [u8; 32] = [42; 32];
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Shelf {
    blocks: Mutex<HashMap<Cid, Vec<u8>>>,
    /// Somebody asked for what is not here.
    missed: Notify,
}

impl Blocks for Shelf {
    fn block(&self, cid: &Cid) -> Option<Vec<u8>> {
        let found = self.blocks.lock().unwrap().get(cid).cloned();
        if found.is_none() {
            self.missed.notify_one();
        }
        found
    }
}

impl Shelf {
    fn put(&self, data: &[u8]) -> Cid {
        let cid = cid_of(data);
        self.blocks.lock().unwrap().insert(cid, data.to_vec());
        cid
    }
}

fn cid_of(data: &[u8]) -> Cid {
    Cid::new_v1(0x70, Code::Sha2_256.digest(data))
}

/// The probe as a peer; gone when dropped.
struct Probe {
    _child: Child,
    stdin: ChildStdin,
    events: Lines<BufReader<ChildStdout>>,
}

impl Probe {
    fn start(binary: &str) -> Self {
        let mut child = Command::new(binary)
            .args(["peer", "--secret", &hex::encode(SECRET), "--listen", "/ip4/127.0.0.1/tcp/0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let events = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { _child: child, stdin, events }
    }

    async fn event(&mut self, name: &str) -> Value {
        let found = async {
            loop {
                let line = self.events.next_line().await.unwrap().expect("the probe runs");
                let event: Value = serde_json::from_str(&line).unwrap();
                assert!(event["event"] != "done" || event["error"] == "", "{event}");
                if event["event"] == name {
                    return event;
                }
            }
        };
        tokio::time::timeout(LIMIT, found).await.unwrap_or_else(|_| panic!("no {name}"))
    }

    async fn say(&mut self, line: &str) {
        self.stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        self.stdin.flush().await.unwrap();
    }

    async fn fetches(&mut self, cid: &Cid) -> Vec<u8> {
        self.say(&format!("fetch {cid}")).await;
        let event = self.event("block").await;
        assert_eq!(event["cid"], cid.to_string());
        hex::decode(event["block"].as_str().unwrap()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_go_both_ways_beside_the_original_bitswap() {
    let Ok(binary) = std::env::var("GOPROBE") else {
        println!("skipped: GOPROBE is not set");
        return;
    };
    let n_blocks: u32 = std::env::var("BITSWAP_CHAIN").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let mut probe = Probe::start(&binary);
    let started = probe.event("started").await;
    let addr: Multiaddr = started["addresses"][0].as_str().unwrap().parse().unwrap();
    let theirs = match addr.iter().last() {
        Some(Protocol::P2p(peer)) => peer,
        _ => started["id"].as_str().unwrap().parse::<PeerId>().unwrap(),
    };
    let tasks = Tasks::new();
    let config = Cluster {
        listen_multiaddress: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        mdns_interval: cluster_compat::go::time::Duration::from_secs(0),
        ..Cluster::default()
    };
    let keypair = Keypair::generate_ed25519();
    let args = NetworkArgs {
        keypair,
        secret: Some(SECRET),
        config: &config,
        peerstore: vec![],
        tasks: tasks.clone(),
    };
    let network = Network::start(args).await.unwrap();
    let shelf = Arc::new(Shelf::default());
    network.serve_blocks(Arc::clone(&shelf) as Arc<dyn Blocks>);
    network.add_addr(&addr.clone().with_p2p(theirs).unwrap_or(addr)).unwrap();
    network.dial(theirs).await.unwrap();

    // from it
    let blocks: Vec<Vec<u8>> = (0..n_blocks).map(|i| format!("theirs {i:0400}").into_bytes()).collect();
    for block in &blocks {
        probe.say(&format!("block {}", hex::encode(block))).await;
        probe.event("done").await;
    }
    let began = Instant::now();
    for block in &blocks {
        let fetched = tokio::time::timeout(LIMIT, network.fetch_block(cid_of(block), &[theirs])).await;
        assert_eq!(&fetched.expect("a block").unwrap()[..], block);
    }
    println!("{n_blocks} from the probe one after another: {:?}", began.elapsed());
    let began = Instant::now();
    let all = blocks.iter().map(|block| network.fetch_block(cid_of(block), &[]));
    let all = tokio::time::timeout(LIMIT, futures::future::join_all(all)).await.unwrap();
    assert!(all.into_iter().zip(&blocks).all(|(fetched, block)| fetched.unwrap() == block[..]));
    println!("{n_blocks} from the probe at once: {:?}", began.elapsed());
    // one that it gets while we wait
    let (late, likely) = (b"stored late", [theirs]);
    let (fetched, ()) = tokio::join!(network.fetch_block(cid_of(late), &likely), async {
        // what is asked for later is answered later: it knows by now what we wait for
        network.fetch_block(cid_of(&blocks[0]), &likely).await.unwrap();
        probe.say(&format!("block {}", hex::encode(late))).await;
    });
    assert_eq!(fetched.unwrap(), &late[..]);
    probe.event("done").await;

    // and from us
    let blocks: Vec<Vec<u8>> = (0..n_blocks)
        .map(|i| format!("ours {i:0400}").into_bytes())
        .chain([vec![7; 1025], vec![8; 400 << 10], vec![9; 1 << 20]])
        .collect();
    let cids: Vec<Cid> = blocks.iter().map(|block| shelf.put(block)).collect();
    let began = Instant::now();
    for (cid, block) in cids.iter().zip(&blocks) {
        assert_eq!(&probe.fetches(cid).await, block);
        probe.event("done").await;
    }
    println!("{} to the probe one after another: {:?}", blocks.len(), began.elapsed());
    let late = b"we store it late";
    let cid = cid_of(late);
    let (fetched, ()) = tokio::join!(probe.fetches(&cid), async {
        shelf.missed.notified().await;
        shelf.put(late);
        network.blocks_stored(&[cid]);
    });
    assert_eq!(fetched, late);
    tasks.stop();
    tasks.join(LIMIT).await;
}
