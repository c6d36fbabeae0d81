//! Our swarm beside the scripted Go peer of `tests/interop`, over every transport both have; skipped where that
//! cannot be built.

use std::sync::Arc;
use std::time::Duration;

use cluster_compat::config::Cluster;
use cluster_compat::types::{Cid, PeerId};
use ipfs_cluster::net::{Blocks, Message, Network, NetworkArgs, PeerEvent};
use ipfs_cluster::task::Tasks;
use ipfs_cluster::wire::crdt_pb::node_cid;
use libp2p::identity::Keypair;
use tokio::sync::mpsc;

use crate::scripted::Scripted;
use crate::support::SECRET;

const TOPIC: &str = "monitor.metrics";

/// Longest wait for anything below; far more than a busy machine needs.
const LIMIT: Duration = Duration::from_secs(30);

struct Ours {
    network: Network,
    messages: mpsc::Receiver<Message>,
    tasks: Tasks,
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn start(listen: &str, has_secret: bool) -> Ours {
    let tasks = Tasks::new();
    let mut config = Cluster { listen_multiaddress: vec![listen.parse().unwrap()], ..Cluster::default() };
    config.pubsub.heartbeat_interval = cluster_compat::go::time::Duration::from_millis(500);
    config.mdns_interval = cluster_compat::go::time::Duration::from_secs(0);
    let secret: [u8; 32] = hex::decode(SECRET).unwrap().try_into().unwrap();
    let network = Network::start(NetworkArgs {
        keypair: Keypair::generate_ed25519(),
        secret: has_secret.then_some(secret),
        config: &config,
        peerstore: vec![],
        tasks: tasks.clone(),
    })
    .await
    .unwrap();
    let messages = network.subscribe(TOPIC, Arc::new(|_: &PeerId| true)).unwrap();
    Ours { network, messages, tasks }
}

/// They connect over the given transport and security, learn of each other, and gossip both ways.
async fn meet(transport: &str, security: &str, has_secret: bool, we_dial: bool) -> Option<()> {
    let what = format!("{transport:?} {security} secret {has_secret} we dial {we_dial}");
    let listen = format!("/ip4/127.0.0.1/tcp/0{transport}");
    let secret = if has_secret { SECRET } else { "" };
    let mut ours = start(&listen, has_secret).await;
    let our_id = ours.network.local_peer().to_string();
    let mut events = ours.network.peer_events();
    let mut go = Scripted::start_on(&listen, secret, &["--security", security]).await?;
    if we_dial {
        let peer = ours.network.add_addr(&go.addr).unwrap();
        ours.network.dial(peer).await.unwrap_or_else(|cause| panic!("{what}: {cause}"));
    } else {
        go.run(&format!("connect {}/p2p/{our_id}", ours.network.listen_addrs()[0])).await;
    }
    let connected = go.event(&what, |event| event["event"] == "connected" && event["peer"] == our_id).await;
    assert!(connected["security"].as_str().unwrap().contains(security), "{what}: {connected}");
    let identified = async { while events.recv().await.unwrap() != PeerEvent::Identified(go.id) {} };
    tokio::time::timeout(LIMIT, identified).await.unwrap_or_else(|_| panic!("{what}: identify"));
    assert!(ours.network.speaks(&go.id, "/ipfs/bitswap/1.2.0"), "{what}");
    let identify = |event: &serde_json::Value| event["event"] == "identify" && event["peer"] == our_id;
    let told = go.event(&what, identify).await;
    assert!(told["agent"].as_str().unwrap().starts_with("ipfs-cluster-rs/"), "{told}");

    // both are in each other's mesh after a heartbeat
    let grafted = |event: &serde_json::Value| event["event"] == "graft" && event["topic"] == TOPIC;
    go.event(&format!("{what}: graft"), grafted).await;
    ours.network.publish(TOPIC, b"from ours".to_vec());
    let message = go.event(&format!("{what}: a message"), |event| event["event"] == "metric").await;
    assert_eq!(
        (message["from"].as_str(), message["data"].as_str()),
        (Some(&*our_id), Some("66726f6d206f757273"))
    );
    go.run("gossip metrics 676f").await;
    let heard = tokio::time::timeout(LIMIT, ours.messages.recv()).await;
    let heard = heard.unwrap_or_else(|_| panic!("{what}: no message arrives")).unwrap();
    assert_eq!((heard.source, heard.from, &heard.data[..]), (go.id, go.id, &b"go"[..]), "{what}");
    Some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_transport_and_security_connects_and_gossips_both_ways() {
    for transport in ["", "/ws"] {
        for security in ["noise", "tls"] {
            for has_secret in [true, false] {
                for we_dial in [true, false] {
                    if meet(transport, security, has_secret, we_dial).await.is_none() {
                        return;
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_another_secret_or_of_none_is_refused_both_ways() {
    for (has_secret, secret) in [(true, "11".repeat(32)), (true, String::new()), (false, SECRET.to_owned())] {
        let ours = start("/ip4/127.0.0.1/tcp/0", has_secret).await;
        let Some(mut go) = Scripted::start_on("/ip4/127.0.0.1/tcp/0", &secret, &[]).await else { return };
        let peer = ours.network.add_addr(&go.addr).unwrap();
        let refused = tokio::time::timeout(LIMIT, ours.network.dial(peer)).await.expect("a dial that ends");
        assert!(refused.is_err(), "we reached a peer of the secret {secret:?}");
        let addr = format!("{}/p2p/{}", ours.network.listen_addrs()[0], ours.network.local_peer());
        assert_ne!(go.try_run(&format!("connect {addr}")).await["error"], "");
        assert!(ours.network.connected_peers().is_empty());
    }
}

struct Served(Vec<Vec<u8>>);

impl Blocks for Served {
    fn block(&self, cid: &Cid) -> Option<Vec<u8>> {
        self.0.iter().find(|block| node_cid(block) == *cid).cloned()
    }
}

/// The bytes of a block that makes no sense to anybody.
fn block(n: usize, length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + n) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_of_every_size_go_both_ways_and_late_ones_too() {
    let ours = start("/ip4/127.0.0.1/tcp/0", true).await;
    let Some(mut go) = Scripted::start(&[]).await else { return };
    // around the size up to which a wanted block is sent unasked, and large ones
    let blocks: Vec<_> = [0, 1, 100, 1023, 1024, 1025, 70_000, 1 << 20, 2 << 20]
        .into_iter()
        .enumerate()
        .map(|(n, length)| block(n, length))
        .collect();
    ours.network.serve_blocks(Arc::new(Served(blocks.clone())));
    let peer = ours.network.add_addr(&go.addr).unwrap();
    ours.network.dial(peer).await.unwrap();
    for block in &blocks {
        let fetched = go.run(&format!("fetch {}", node_cid(block))).await;
        assert_eq!(fetched["block"].as_str().unwrap().len(), 2 * block.len());
        assert_eq!(fetched["block"], hex::encode(block));
    }

    for (n, length) in [(100, 1), (101, 5), (102, 1025), (103, 2 << 20)] {
        let (block, cid) = (block(n, length), node_cid(&block(n, length)));
        go.run(&format!("block {}", hex::encode(&block))).await;
        let fetched = tokio::time::timeout(LIMIT, ours.network.fetch_block(cid, &[go.id])).await;
        let fetched =
            fetched.unwrap_or_else(|_| panic!("no block of {length} bytes comes\n{}", go.last_events()));
        assert_eq!(fetched.unwrap(), block, "block of {length} bytes");
    }

    // one that is not there when it is asked for
    let (late, cid) = (block(200, 300), node_cid(&block(200, 300)));
    let fetch = ours.network.fetch_block(cid, &[]);
    let serve = async {
        // what is asked for later is answered later: it knows by now what we wait for
        ours.network.fetch_block(node_cid(&block(100, 1)), &[go.id]).await.unwrap();
        go.run(&format!("block {}", hex::encode(&late))).await;
    };
    let (fetched, ()) = tokio::join!(tokio::time::timeout(LIMIT, fetch), serve);
    assert_eq!(fetched.expect("the block comes late").unwrap(), late);
}
