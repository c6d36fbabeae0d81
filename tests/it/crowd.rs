//! Many calls of one peer at once, and what another notices of them.

use std::time::Duration;

use cluster_compat::config::Cluster;
use cluster_compat::testing::kubo::{FakeKubo, Part, Rule};
use cluster_compat::types::{Multiaddr, PeerId};
use ipfs_cluster::net::{Network, NetworkArgs};
use ipfs_cluster::rpc::{Call, Client};
use ipfs_cluster::task::Tasks;
use libp2p::identity::Keypair;
use tokio::time::Instant;

use crate::support::Peer;

const SECRET: [u8; 32] = [42; 32];

/// Calls of the one peer.
const N_CALLS: usize = 500;

/// How long the daemon takes for each of them.
const SLOW: Duration = Duration::from_millis(300);

/// How long the other's quick calls may take: it shares a busy processor, but waits in no line of the first.
const QUICK: Duration = Duration::from_secs(1);

/// No argument.
const NOTHING: &[u8] = b"\x80";

/// A caller with a swarm of its own, connected to a peer.
async fn caller(addr: &Multiaddr, peer: PeerId, tasks: &Tasks) -> Client {
    let config =
        Cluster { listen_multiaddress: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()], ..Cluster::default() };
    let args = NetworkArgs {
        keypair: Keypair::generate_ed25519(),
        secret: Some(SECRET),
        config: &config,
        peerstore: vec![],
        tasks: tasks.clone(),
    };
    let network = Network::start(args).await.unwrap();
    network.add_addr(addr).unwrap();
    network.dial(peer).await.unwrap();
    Client::new(network)
}

async fn timed(client: &Client, peer: PeerId, call: Call) -> Duration {
    let started = Instant::now();
    client.call(peer, call, NOTHING.to_vec(), Some(Duration::from_secs(60))).await.unwrap();
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_calls_of_one_peer_do_not_hold_up_those_of_another() {
    let daemon = FakeKubo::start().await.unwrap();
    let mut peer = Peer::init_member(&daemon, &hex::encode(SECRET), |_| {});
    peer.start().await;
    let (id, addr) = peer.id_and_addr().await;
    let (id, addr): (PeerId, Multiaddr) = (id.parse().unwrap(), addr.parse().unwrap());
    let tasks = Tasks::new();
    let (crowd, other) = (caller(&addr, id, &tasks).await, caller(&addr, id, &tasks).await);
    let body = r#"{"RepoSize":1,"StorageMax":2}"#;
    let reply = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    daemon.set_rules(vec![Rule::new("repo/stat", vec![Part::Pause(SLOW), Part::Bytes(reply.into_bytes())])]);

    let started = Instant::now();
    let calls = async {
        let calls = (0..N_CALLS).map(|_| timed(&crowd, id, Call::RepoStat));
        futures::future::join_all(calls).await;
        started.elapsed()
    };
    tokio::pin!(calls);
    let (mut quick, mut slow) = (Vec::new(), Vec::new());
    let took = loop {
        let both = async {
            let (first, second) =
                tokio::join!(timed(&other, id, Call::Version), timed(&other, id, Call::RepoStat));
            quick.push(first);
            slow.push(second);
        };
        tokio::select! {
            biased;
            took = &mut calls => break took,
            () = both => {}
        }
    };
    let (quickest, slowest) = (quick.iter().max(), slow.iter().max());
    eprintln!(
        "{N_CALLS} calls took {took:.2?}; {} of another took at most {quickest:.2?}, slow ones {slowest:.2?}",
        quick.len()
    );
    assert!(quick.len() > 2, "the calls were too few to disturb: {took:?}");
    assert!(quick.iter().all(|took| *took < QUICK), "{quick:?}");
    assert!(slow.iter().all(|took| *took < SLOW + QUICK), "{slow:?}");
    tasks.stop();
}
