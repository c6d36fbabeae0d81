//! Peers that cannot be reached, in one process: what needs a switch that no configuration has.

use std::time::{Duration, Instant};

use cluster_compat::config::Cluster;
use cluster_compat::types::{Multiaddr, PeerId};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;

use super::*;
use crate::net::bitswap::{Bitswap, Rules};
use crate::net::streams::Streams;
use crate::net::{MAX_COMMANDS, Network, NetworkArgs};
use crate::task::Tasks;

/// Longest wait for anything below.
const LIMIT: Duration = Duration::from_secs(30);

struct Peer {
    network: Network,
    tasks: Tasks,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// A peer with a secret whose worker was changed before it runs.
async fn start(change: impl FnOnce(&mut Worker)) -> Peer {
    let config = Cluster {
        listen_multiaddress: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        mdns_interval: cluster_compat::go::time::Duration::from_secs(0),
        ..Cluster::default()
    };
    let (keypair, tasks) = (Keypair::generate_ed25519(), Tasks::new());
    let local_peer = keypair.public().to_peer_id();
    let (commands, inbox) = mpsc::channel(MAX_COMMANDS);
    let (bitswap, _) = Bitswap::new(Rules::default());
    let shared = Arc::new(Shared::new(Instant::now(), Streams::new(local_peer, LIMIT), bitswap));
    let args = NetworkArgs {
        keypair,
        secret: Some([7; 32]),
        config: &config,
        peerstore: vec![],
        tasks: tasks.clone(),
    };
    let mut worker = Worker::new(Plan::of_cluster(args), vec![], inbox, Arc::clone(&shared)).unwrap();
    worker.listen().await.unwrap();
    change(&mut worker);
    tasks.spawn("network", worker.run(tasks.token()));
    Peer { network: Network { local_peer, commands, shared }, tasks }
}

fn full_addr(peer: &Peer) -> Multiaddr {
    peer.network.listen_addrs()[0].clone().with(Protocol::P2p(peer.network.local_peer()))
}

fn keep_direct_addresses(worker: &mut Worker) {
    worker.config.no_announce = worker.listening.iter().cloned().collect();
    worker.announce();
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn is_through(relay: PeerId) -> impl Fn(&Multiaddr) -> bool {
    move |addr| addrs::is_relayed(addr) && addr.iter().any(|part| part == Protocol::P2p(relay))
}

#[tokio::test]
async fn an_unreachable_peer_is_reached_through_a_relay_and_then_directly() {
    let relay = start(|worker| worker.set_public(true)).await;
    let relay_peer = relay.network.local_peer();
    let hidden = start(|worker| {
        keep_direct_addresses(worker);
        worker.make_private();
    })
    .await;
    hidden.network.add_addr(&full_addr(&relay)).unwrap();
    hidden.network.dial(relay_peer).await.unwrap();
    // it finds the relay among its connected peers, listens there and announces that
    eventually("the peer announces an address at the relay", || {
        hidden.network.listen_addrs().iter().any(is_through(relay_peer))
    })
    .await;

    let caller = start(keep_direct_addresses).await;
    let (hidden_peer, caller_peer) = (hidden.network.local_peer(), caller.network.local_peer());
    let at_relay = full_addr(&relay).with(Protocol::P2pCircuit).with(Protocol::P2p(hidden_peer));
    assert_eq!(caller.network.add_addr(&at_relay).unwrap(), hidden_peer);
    caller.network.dial(hidden_peer).await.unwrap();
    // whoever dialled the direct connection knows an address of the other that nobody announces
    let knows_direct = |peer: &Peer, other: &PeerId| {
        let known = peer.network.shared.peerstore().addrs(other, Instant::now());
        known.iter().any(|addr| !addrs::is_relayed(addr))
    };
    eventually("a direct connection comes about", || {
        knows_direct(&caller, &hidden_peer) || knows_direct(&hidden, &caller_peer)
    })
    .await;
    drop(relay);
    eventually("the relay is gone", || !caller.network.connected_peers().contains(&relay_peer)).await;
    assert_eq!(caller.network.connected_peers(), [hidden_peer]);
}

#[tokio::test]
async fn a_peer_that_is_not_reachable_relays_for_nobody() {
    let no_relay = start(|_| {}).await;
    let hidden = start(Worker::make_private).await;
    hidden.network.add_addr(&full_addr(&no_relay)).unwrap();
    hidden.network.dial(no_relay.network.local_peer()).await.unwrap();
    let caller = start(|_| {}).await;
    let at_relay =
        full_addr(&no_relay).with(Protocol::P2pCircuit).with(Protocol::P2p(hidden.network.local_peer()));
    caller.network.add_addr(&at_relay).unwrap();
    let error = caller.network.dial(hidden.network.local_peer()).await.unwrap_err().to_string();
    assert!(error.starts_with("failed to dial"), "{error}");
    assert!(!hidden.network.listen_addrs().iter().any(addrs::is_relayed));
}
