//! Networks of our own beside each other.

use std::sync::Arc;
use std::time::Duration;

use cluster_compat::config::Cluster;
use cluster_compat::types::{Multiaddr, PeerId};
use ipfs_cluster::net::{Error, Message, Network, NetworkArgs, Validator};
use ipfs_cluster::task::Tasks;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use tokio::sync::mpsc;

const SECRET: [u8; 32] = [7; 32];
const TOPIC: &str = "monitor.metrics";

/// Longest wait for anything below; far more than a busy machine needs.
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

fn config() -> Cluster {
    let mut config = Cluster {
        listen_multiaddress: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        dial_peer_timeout: cluster_compat::go::time::Duration::from_secs(2),
        mdns_interval: cluster_compat::go::time::Duration::from_secs(0),
        ..Cluster::default()
    };
    config.pubsub.heartbeat_interval = cluster_compat::go::time::Duration::from_secs(1);
    config
}

async fn try_start(
    config: &Cluster,
    secret: Option<[u8; 32]>,
    peerstore: Vec<Multiaddr>,
) -> Result<Peer, Error> {
    let tasks = Tasks::new();
    let keypair = Keypair::generate_ed25519();
    let network =
        Network::start(NetworkArgs { keypair, secret, config, peerstore, tasks: tasks.clone() }).await?;
    Ok(Peer { network, tasks })
}

async fn start() -> Peer {
    try_start(&config(), Some(SECRET), vec![]).await.unwrap()
}

fn full_addr(peer: &Peer) -> Multiaddr {
    peer.network.listen_addrs()[0].clone().with(Protocol::P2p(peer.network.local_peer()))
}

fn anyone() -> Validator {
    Arc::new(|_: &PeerId| true)
}

async fn subscribed_to_by(peer: &Peer, n_peers: usize) {
    let mut subscribers = peer.network.subscribers(TOPIC).unwrap();
    let all_there = subscribers.wait_for(|n| *n == n_peers);
    tokio::time::timeout(LIMIT, all_there).await.expect("peers subscribe to the topic").unwrap();
}

async fn next(messages: &mut mpsc::Receiver<Message>) -> Message {
    tokio::time::timeout(LIMIT, messages.recv()).await.expect("a message arrives").unwrap()
}

#[tokio::test]
async fn gossip_goes_both_ways_between_holders_of_the_secret() {
    let (a, b) = (start().await, start().await);
    let mut to_a = a.network.subscribe(TOPIC, anyone()).unwrap();
    let mut to_b = b.network.subscribe(TOPIC, anyone()).unwrap();
    assert!(matches!(a.network.subscribe(TOPIC, anyone()), Err(Error::AlreadySubscribed { .. })));
    a.network.publish(TOPIC, b"nobody hears this".to_vec());

    assert_eq!(a.network.add_addr(&full_addr(&b)).unwrap(), b.network.local_peer());
    a.network.dial(b.network.local_peer()).await.unwrap();
    assert_eq!(a.network.connected_peers(), [b.network.local_peer()]);
    subscribed_to_by(&a, 1).await;
    subscribed_to_by(&b, 1).await;

    a.network.publish(TOPIC, b"from a".to_vec());
    let heard = next(&mut to_b).await;
    assert_eq!((heard.source, &heard.data[..]), (a.network.local_peer(), &b"from a"[..]));
    b.network.publish(TOPIC, b"from b".to_vec());
    assert_eq!(next(&mut to_a).await.data, b"from b");

    // the other side learns our address by identify, and both would save it
    assert_eq!(a.network.addrs_of(&[b.network.local_peer(), a.network.local_peer()]), [full_addr(&b)]);
    assert_eq!(a.network.peerstore_lines(), [full_addr(&b).to_string()]);
    tokio::time::timeout(LIMIT, async {
        while !b.network.addrs_of(&[a.network.local_peer()]).contains(&full_addr(&a)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("b learns where a listens");

    let bandwidth = a.network.bandwidth();
    for protocol in ["/meshsub/1.3.0", "/ipfs/id/1.0.0"] {
        assert!(bandwidth[protocol].total_in > 0 && bandwidth[protocol].total_out > 0, "{bandwidth:?}");
    }

    drop(a);
    subscribed_to_by(&b, 0).await;
    assert!(b.network.connected_peers().is_empty());
}

#[tokio::test]
async fn a_message_is_relayed_and_one_of_an_untrusted_signer_is_not_delivered() {
    // a and c are connected through b alone; c does not trust a
    let (a, b, c) = (start().await, start().await, start().await);
    let _to_a = a.network.subscribe(TOPIC, anyone()).unwrap();
    let mut to_b = b.network.subscribe(TOPIC, anyone()).unwrap();
    let untrusted = a.network.local_peer();
    let mut to_c = c.network.subscribe(TOPIC, Arc::new(move |signer: &PeerId| *signer != untrusted)).unwrap();
    for peer in [&a, &c] {
        peer.network.add_addr(&full_addr(&b)).unwrap();
        peer.network.dial(b.network.local_peer()).await.unwrap();
        subscribed_to_by(peer, 1).await;
    }
    subscribed_to_by(&b, 2).await;

    a.network.publish(TOPIC, b"from the untrusted one".to_vec());
    assert_eq!(next(&mut to_b).await.source, untrusted);
    b.network.publish(TOPIC, b"from b".to_vec());
    assert_eq!(next(&mut to_c).await.data, b"from b");
    c.network.publish(TOPIC, b"from c".to_vec());
    assert_eq!(next(&mut to_b).await.data, b"from c");
    assert!(to_c.try_recv().is_err());
}

#[tokio::test]
async fn another_secret_and_no_secret_are_refused() {
    let ours = start().await;
    for secret in [Some([8; 32]), None] {
        let stranger = try_start(&config(), secret, vec![]).await.unwrap();
        stranger.network.add_addr(&full_addr(&ours)).unwrap();
        let error = tokio::time::timeout(LIMIT, stranger.network.dial(ours.network.local_peer()))
            .await
            .expect("the dial ends")
            .unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("failed to dial {}: ", ours.network.local_peer())),
            "{error}"
        );
        assert!(error.to_string().contains("secret"), "{error}");
        assert!(ours.network.connected_peers().is_empty());
    }
}

#[tokio::test]
async fn known_peers_are_dialled_at_the_start() {
    let (a, b) = (start().await, start().await);
    let gone = full_addr(&start().await);
    let configured = Cluster { peer_addresses: vec![full_addr(&a)], ..config() };
    let c = try_start(&configured, Some(SECRET), vec![gone, full_addr(&b)]).await.unwrap();
    let mut expected = vec![a.network.local_peer(), b.network.local_peer()];
    expected.sort();
    tokio::time::timeout(LIMIT, async {
        while c.network.connected_peers() != expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("both living peers are connected");
    assert!(c.network.peerstore_lines()[0].ends_with(&a.network.local_peer().to_string()));
    assert_eq!(c.network.bootstrap(2).await.unwrap(), []);
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let first = start().await;
    let taken = first.network.listen_addrs()[0].clone();
    let config = Cluster { listen_multiaddress: vec![taken.clone()], ..config() };
    let error = try_start(&config, Some(SECRET), vec![]).await.err().unwrap();
    assert_eq!(error.to_string(), format!("listen address {taken} is already in use"));
}

#[tokio::test]
async fn inert_addresses_are_skipped_and_unusable_ones_refused() {
    let listen = |list: &[&str]| Cluster {
        listen_multiaddress: list.iter().map(|text| text.parse().unwrap()).collect(),
        ..config()
    };
    let quic = "/ip4/127.0.0.1/udp/0/quic";
    let peer = try_start(&listen(&["/ip4/127.0.0.1/tcp/0", quic]), Some(SECRET), vec![]).await.unwrap();
    assert_eq!(peer.network.listen_addrs().len(), 1);
    assert!(matches!(
        try_start(&listen(&[quic]), None, vec![]).await.err(),
        Some(Error::NoListenAddress { .. })
    ));
    let wss = try_start(&listen(&["/ip4/127.0.0.1/tcp/0/wss"]), None, vec![]).await.err();
    assert!(matches!(wss, Some(Error::UnsupportedListenAddress { .. })));
}

#[tokio::test]
async fn web_sockets_carry_the_swarm_with_and_without_a_secret() {
    let listen = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws"];
    let config = Cluster {
        listen_multiaddress: listen.iter().map(|text| text.parse().unwrap()).collect(),
        ..config()
    };
    for secret in [Some(SECRET), None] {
        let listener = try_start(&config, secret, vec![]).await.unwrap();
        let ws = listener.network.listen_addrs().into_iter().find(|addr| addr.to_string().ends_with("/ws"));
        let named = ws.unwrap().to_string().replace("/ip4/127.0.0.1/", "/dns4/localhost/");
        let full: Multiaddr = format!("{named}/p2p/{}", listener.network.local_peer()).parse().unwrap();
        let dialer = try_start(&config, secret, vec![]).await.unwrap();
        let peer = dialer.network.add_addr(&full).unwrap();
        dialer.network.dial(peer).await.unwrap();
        assert_eq!(dialer.network.connected_peers(), [peer]);
    }
}

#[tokio::test]
async fn announced_addresses_replace_the_detected_ones() {
    let announced: Multiaddr = "/dns4/cluster.example/tcp/9096".parse().unwrap();
    let config = Cluster { announce_multiaddress: vec![announced.clone()], ..config() };
    let peer = try_start(&config, Some(SECRET), vec![]).await.unwrap();
    assert_eq!(peer.network.listen_addrs(), [announced]);
}

#[tokio::test]
async fn a_peer_without_known_addresses_is_found_through_a_third() {
    // loopback addresses never get into a routing table
    let listen = ["/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"].map(|text| text.parse().unwrap());
    let config = Cluster { listen_multiaddress: listen.to_vec(), ..config() };
    let start = async || try_start(&config, Some(SECRET), vec![]).await.unwrap();
    let (hub, leaf, other) = (start().await, start().await, start().await);
    let is_private = |addr: &Multiaddr| {
        addr.iter().any(|part| match part {
            Protocol::Ip4(ip) => ip.is_private(),
            Protocol::Ip6(ip) => ip.is_unique_local(),
            _ => false,
        })
    };
    let Some(addr) = hub.network.listen_addrs().into_iter().find(is_private) else {
        eprintln!("skipped: no network interface with a private address");
        return;
    };
    let hub_addr = addr.with(Protocol::P2p(hub.network.local_peer()));
    for peer in [&leaf, &other] {
        peer.network.add_addr(&hub_addr).unwrap();
        peer.network.dial(hub.network.local_peer()).await.unwrap();
    }
    tokio::time::timeout(LIMIT, async {
        while leaf.network.dial(other.network.local_peer()).await.is_err() {
            // until the hub has identified both
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the hub tells one where the other is");
    let error = leaf.network.dial(PeerId::random()).await.unwrap_err().to_string();
    assert!(error.contains("no addresses"), "{error}");
    let error = leaf.network.dial(leaf.network.local_peer()).await.unwrap_err().to_string();
    assert!(error.ends_with("it is this peer"), "{error}");
}
