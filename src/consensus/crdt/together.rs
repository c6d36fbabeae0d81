//! Several peers' CRDTs over swarms of their own.

use std::time::Instant as StdInstant;

use cluster_compat::go::time::Duration as GoDuration;
use cluster_compat::types::Multiaddr;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use tempfile::TempDir;

use super::tests::Peer;
use super::*;
use crate::consensus::suite::{cid, pin};
use crate::net::NetworkArgs;
use crate::store::kv;
use crate::task::GRACE;

/// Longest wait for anything below; far more than a busy machine needs.
const LIMIT: Duration = Duration::from_secs(60);

/// A peer with a swarm and a folder, which outlive its CRDT.
struct Member {
    network: Network,
    network_tasks: Tasks,
    folder: TempDir,
    peer: Peer,
}

fn trusting(trusted: &[PeerId]) -> config::Crdt {
    let (trust_all, trusted_peers) = (trusted.is_empty(), trusted.to_vec());
    config::Crdt { trust_all, trusted_peers, ..config::Crdt::default() }
}

async fn network(keypair: Keypair, known: &[&Member]) -> (Network, Tasks) {
    let mut config = config::Cluster {
        listen_multiaddress: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        peer_addresses: known.iter().map(|member| member.addr()).collect(),
        ..config::Cluster::default()
    };
    config.pubsub.heartbeat_interval = GoDuration::from_secs(1);
    let tasks = Tasks::new();
    let args = NetworkArgs {
        keypair,
        secret: Some([7; 32]),
        config: &config,
        peerstore: vec![],
        tasks: tasks.clone(),
    };
    (Network::start(args).await.unwrap(), tasks)
}

impl Member {
    /// Starts a peer that dials the `known` ones.
    async fn start(config: config::Crdt, known: &[&Self]) -> Self {
        let (network, network_tasks) = network(Keypair::generate_ed25519(), known).await;
        let folder = TempDir::new().unwrap();
        let peer = Peer::start_in(folder.path(), config, Some(network.clone()));
        Self { network, network_tasks, folder, peer }
    }

    fn addr(&self) -> Multiaddr {
        self.network.listen_addrs()[0].clone().with(Protocol::P2p(self.network.local_peer()))
    }

    async fn pin(&self, n: u64) {
        self.peer.crdt.log_pin(pin(n, "")).await.unwrap();
    }

    async fn unpin(&self, n: u64) {
        self.peer.crdt.log_unpin(pin(n, "")).await.unwrap();
    }

    /// Waits until the heads are these.
    async fn comes_to(&self, heads: &[Cid]) {
        let mut watch = self.peer.crdt.heads.clone();
        let reached = tokio::time::timeout(LIMIT, watch.wait_for(|found| found == heads)).await;
        assert!(reached.is_ok(), "heads are {:?}, not {heads:?}", self.peer.crdt.heads());
    }

    async fn stop(self) -> TempDir {
        self.peer.stop().await;
        self.network_tasks.stop();
        self.network_tasks.join(GRACE).await;
        self.folder
    }
}

/// Waits until all have the same heads, and checks that the sets are the same then.
async fn agree(members: &[&Member]) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    let [first, others @ ..] = members else { return };
    let mut watches: Vec<_> = members.iter().map(|member| member.peer.crdt.heads.clone()).collect();
    loop {
        let heads = first.peer.crdt.heads();
        if others.iter().all(|other| other.peer.crdt.heads() == heads) {
            break;
        }
        let changes = watches.iter_mut().map(|watch| Box::pin(watch.changed()));
        let changed = tokio::time::timeout_at(deadline, futures::future::select_all(changes)).await;
        if changed.is_err() {
            let heads: Vec<_> = members.iter().map(|member| member.peer.crdt.heads()).collect();
            panic!("they never agreed: {heads:?}");
        }
    }
    for other in others {
        assert_eq!(rows(&first.peer), rows(&other.peer));
    }
}

fn rows(peer: &Peer) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    kv::read(&peer.db, |view| {
        view.scan(store::Table::Values, b"", None, &mut |key, row| {
            rows.push((key.to_vec(), super::core::Row::parse(row).unwrap().value.to_vec()));
            std::ops::ControlFlow::Continue(())
        })
    })
    .unwrap();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_and_unpins_of_each_reach_all() {
    let first = Member::start(config::Crdt::default(), &[]).await;
    let second = Member::start(config::Crdt::default(), &[&first]).await;
    let third = Member::start(config::Crdt::default(), &[&first, &second]).await;
    let members = [&first, &second, &third];
    first.pin(1).await;
    agree(&members).await;
    second.pin(2).await;
    third.pin(3).await;
    agree(&members).await;
    assert_eq!(third.peer.pins().await, 3);
    third.unpin(1).await;
    agree(&members).await;
    assert_eq!(first.peer.pins().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_all_write_at_once_all_come_to_hold() {
    let first = Member::start(config::Crdt::default(), &[]).await;
    let second = Member::start(config::Crdt::default(), &[&first]).await;
    let third = Member::start(config::Crdt::default(), &[&first, &second]).await;
    let members = [&first, &second, &third];
    let writes = (0..150).map(|n| members[n as usize % 3].pin(n));
    futures::future::join_all(writes).await;
    let written = StdInstant::now();
    agree(&members).await;
    eprintln!("150 pins on three peers: agreed {:?} after the last", written.elapsed());
    assert_eq!(second.peer.pins().await, 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_peer_gets_a_long_history_in_streams() {
    let first = Member::start(config::Crdt::default(), &[]).await;
    // one after another: a chain of nodes
    for n in 0..600 {
        first.pin(n).await;
    }
    first.unpin(7).await;
    let started = StdInstant::now();
    let mut second = Member::start(config::Crdt::default(), &[&first]).await;
    second.comes_to(&first.peer.crdt.heads()).await;
    // the fresh peer takes the announced head for its own at once: the rest follows
    let mut n_events = 0;
    while n_events < 599 {
        let event = tokio::time::timeout(LIMIT, second.peer.events.recv()).await;
        n_events += usize::from(matches!(event.expect("all pins arrive"), Some(PinsetEvent::Pinned(_))));
    }
    eprintln!("a chain of 601 nodes took {:?}", started.elapsed());
    agree(&[&first, &second]).await;
    assert_eq!(second.peer.pins().await, 599);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_was_away_catches_up_and_brings_what_it_wrote_alone() {
    let first = Member::start(config::Crdt::default(), &[]).await;
    let second = Member::start(config::Crdt::default(), &[&first]).await;
    first.pin(1).await;
    agree(&[&first, &second]).await;
    let folder = second.stop().await;
    first.pin(2).await;
    let alone = Peer::start_in(folder.path(), config::Crdt::default(), None);
    alone.crdt.log_pin(pin(3, "")).await.unwrap();
    alone.stop().await;
    let (network, network_tasks) = network(Keypair::generate_ed25519(), &[&first]).await;
    let peer = Peer::start_in(folder.path(), config::Crdt::default(), Some(network.clone()));
    let second = Member { network, network_tasks, folder, peer };
    agree(&[&first, &second]).await;
    assert_eq!(first.peer.pins().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_writes_of_an_untrusted_peer_do_not_count() {
    let first = Member::start(config::Crdt::default(), &[]).await;
    let stranger = Member::start(config::Crdt::default(), &[&first]).await;
    let careful = Member::start(trusting(&[first.network.local_peer()]), &[&first, &stranger]).await;
    first.pin(1).await;
    agree(&[&first, &stranger, &careful]).await;
    let heads = first.peer.crdt.heads();
    stranger.pin(2).await;
    // the first trusts all, and has the pin; the careful one has not
    agree(&[&first, &stranger]).await;
    assert_eq!(careful.peer.crdt.heads(), heads);
    first.pin(3).await;
    // what a trusted peer builds upon counts
    agree(&[&first, &stranger, &careful]).await;
    assert!(careful.peer.crdt.pinset().get(&cid(2)).unwrap().is_some());
}
