//! The embedded node's swarm beside real Kubo daemons (`KUBO_BIN`): connections, blocks, providers; skipped elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_compat::types::{Cid, Multiaddr};
use futures::StreamExt as _;
use ipfs_cluster::net::{Blocks, Network, OpenArgs};
use ipfs_cluster::task::Tasks;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use multihash_codetable::{Code, MultihashDigest as _};

use crate::kubo::{self, Kubo};

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(60);

/// Blocks in memory, found by their hashes.
#[derive(Default)]
pub(crate) struct Shelf(Mutex<HashMap<Vec<u8>, Vec<u8>>>);

impl Shelf {
    fn put(&self, cid: &Cid, data: &[u8]) {
        self.0.lock().unwrap().insert(cid.hash().to_bytes(), data.to_vec());
    }
}

impl Blocks for Shelf {
    fn block(&self, cid: &Cid) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(&cid.hash().to_bytes()).cloned()
    }

    fn size(&self, cid: &Cid) -> Option<usize> {
        self.0.lock().unwrap().get(&cid.hash().to_bytes()).map(Vec::len)
    }
}

/// A swarm of ours.
pub(crate) struct Ours {
    pub(crate) network: Network,
    pub(crate) shelf: Arc<Shelf>,
    tasks: Tasks,
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Ours {
    async fn start(ip: &str) -> Self {
        let (tasks, shelf) = (Tasks::new(), Arc::new(Shelf::default()));
        let family = if ip.contains(':') { "ip6" } else { "ip4" };
        let listen = [format!("/{family}/{ip}/tcp/0"), format!("/{family}/{ip}/udp/0/quic-v1")];
        let network = Network::start_open(OpenArgs {
            keypair: Keypair::generate_ed25519(),
            listen: listen.iter().map(|addr| addr.parse().unwrap()).collect(),
            bootstrap: Vec::new(),
            mdns: false,
            blocks: Arc::clone(&shelf) as Arc<dyn Blocks>,
            digest: ipfs_cluster::adder::digest,
            tasks: tasks.clone(),
        });
        Self { network: network.await.unwrap(), shelf, tasks }
    }

    fn addr(&self, transport: &str) -> Multiaddr {
        let addrs = self.network.listen_addrs();
        let addr = addrs.iter().find(|addr| addr.to_string().contains(transport)).unwrap();
        addr.clone().with(Protocol::P2p(self.network.local_peer()))
    }

    async fn fetch(&self, cid: Cid) -> Vec<u8> {
        within(&cid.to_string(), self.network.fetch_block(cid, &[])).await.unwrap().to_vec()
    }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("too late: {what}"))
}

fn raw(data: &[u8]) -> Cid {
    Cid::new_v1(0x55, Code::Sha2_256.digest(data))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_go_both_ways_over_tcp_and_quic_whoever_dials() {
    let Some(program) = kubo::program() else { return };
    let kubo = Kubo::start(&program, "127.0.0.1", |_| {}).await;
    for transport in ["/tcp/", "/quic-v1"] {
        for we_dial in [true, false] {
            let ours = Ours::start("127.0.0.1").await;
            if we_dial {
                let peer = within("a connection", ours.network.connect(&kubo.addr(transport))).await.unwrap();
                assert_eq!(peer, kubo.peer);
            } else {
                kubo.rpc.call("swarm/connect", &[("arg", &ours.addr(transport).to_string())]).await;
            }
            let theirs = format!("of Kubo over {transport}, {we_dial}");
            let put = kubo.rpc.send("block/put", &[], vec![theirs.clone().into_bytes()]).await;
            let cid: Cid = put[0]["Key"].as_str().unwrap().parse().unwrap();
            assert_eq!(ours.fetch(cid).await, theirs.as_bytes());

            let data = format!("of ours over {transport}, {we_dial}").into_bytes();
            let cid = raw(&data);
            ours.shelf.put(&cid, &data);
            let got = within("our block", kubo.rpc.ask("block/get", &[("arg", &cid.to_string())])).await;
            assert_eq!(got.unwrap(), data);

            let connections = ours.network.connections();
            assert_eq!(connections.len(), 1);
            assert_eq!((connections[0].peer, connections[0].is_outbound), (kubo.peer, we_dial));
            let identity = connections[0].identity.as_ref().unwrap();
            assert!(identity.agent.starts_with("kubo/"), "{}", identity.agent);
            assert!(identity.protocols.iter().any(|known| known == "/ipfs/bitswap/1.2.0"));
            let seen = kubo.rpc.call("id", &[("arg", &ours.network.local_peer().to_string())]).await;
            assert_eq!(
                seen["AgentVersion"],
                concat!("ipfs-cluster-rs/", env!("CARGO_PKG_VERSION"), " (node)")
            );
            let args = [("arg", &*ours.network.local_peer().to_string()), ("count", "2")];
            let pinged = within("a ping", kubo.rpc.ask("ping", &args)).await.unwrap();
            let pinged = String::from_utf8(pinged).unwrap();
            assert!(pinged.contains(r#""Success":true,"Time":"#), "{pinged}");
            let stat = ours.network.bitswap_stat().await.unwrap();
            assert_eq!((stat.blocks_received, stat.blocks_sent), (1, 1), "{stat:?}");
            assert_eq!(within("the end", ours.network.disconnect(kubo.peer, None)).await.unwrap(), 1);
        }
    }
}

/// `NODE_BLOCKS` small blocks, asked for by thousands at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_blocks_come_over_one_connection() {
    let Some(program) = kubo::program() else { return };
    let n_blocks: usize = std::env::var("NODE_BLOCKS").ok().and_then(|n| n.parse().ok()).unwrap_or(2000);
    let kubo = Kubo::start(&program, "127.0.0.1", |_| {}).await;
    let block = |n: usize| format!("small block {n:0200}").into_bytes();
    let cids: Vec<Cid> = (0..n_blocks).map(|n| raw(&block(n))).collect();
    for from in (0..n_blocks).step_by(500) {
        let blocks = (from..n_blocks.min(from + 500)).map(block).collect();
        kubo.rpc.send("block/put", &[("allow-big-block", "false")], blocks).await;
    }
    let source = Ours::start("127.0.0.1").await;
    for (n, cid) in cids.iter().enumerate() {
        source.shelf.put(cid, &block(n));
    }
    for (name, addr) in [
        ("Kubo over TCP", kubo.addr("/tcp/")),
        ("Kubo over QUIC", kubo.addr("/quic-v1")),
        ("ours over TCP", source.addr("/tcp/")),
        ("ours over QUIC", source.addr("/quic-v1")),
    ] {
        let ours = Ours::start("127.0.0.1").await;
        within("a connection", ours.network.connect(&addr)).await.unwrap();
        let began = std::time::Instant::now();
        let mut fetches = futures::stream::iter(&cids)
            .map(|cid| ours.network.fetch_block(*cid, &[]))
            .buffer_unordered(1024);
        let mut n_fetched = 0;
        while let Some(fetched) = within("a block", fetches.next()).await {
            fetched.unwrap();
            n_fetched += 1;
        }
        assert_eq!(n_fetched, n_blocks);
        println!("{name}: {:.0} blocks/s", n_blocks as f64 / began.elapsed().as_secs_f64());
    }
}
