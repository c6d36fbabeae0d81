//! Clusters of original peers and ours, where `IPFS_CLUSTER_GO` names the reference's `ipfs-cluster-service`; skipped
//! elsewhere. Each test prints what it measured.
//!
//! ```text
//! IPFS_CLUSTER_GO=/path/to/ipfs-cluster-service cargo test --test it lab -- --test-threads=1 --nocapture
//! ```
//!
//! `LAB_KINDS` takes other letters for the peers (`o` ours, `g` Go) of the tests that have some of each, so that `g`
//! alone shows what the reference does among its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use cluster_compat::testing::kubo::FakeKubo;
use futures::StreamExt as _;
use futures::stream;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::{Peer, SECRET, cid, free_port, send, set_member};

/// How soon a write is to be everywhere.
const PROMPT: Duration = Duration::from_secs(2);

/// Of gossip, in every peer: small, so that a cluster is soon ready.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Connections that pin at the same time in a burst.
const N_WRITERS: usize = 16;

/// When a peer that has not got what it should have is given up.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(25);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    Go,
}

pub(crate) fn original() -> Option<OsString> {
    let program = std::env::var_os("IPFS_CLUSTER_GO");
    if program.is_none() {
        eprintln!("skipped: IPFS_CLUSTER_GO is not set");
    }
    program
}

pub(crate) fn kinds(letters: &str) -> Vec<Kind> {
    let letters = std::env::var("LAB_KINDS").unwrap_or_else(|_| letters.to_owned());
    letters.chars().map(|letter| if letter == 'g' { Kind::Go } else { Kind::Ours }).collect()
}

pub(crate) struct Lab {
    go: OsString,
    /// How often originals announce their heads again, if not every minute; nothing else tells a newcomer of them.
    pub(crate) rebroadcast_every: Option<Duration>,
    /// How often each peer pings; a ping is good for two of these.
    pub(crate) ping_every: Duration,
    pub(crate) daemons: Vec<FakeKubo>,
    pub(crate) peers: Vec<(Kind, Peer)>,
    pub(crate) ids: Vec<String>,
}

impl Lab {
    pub(crate) fn new(go: OsString) -> Self {
        Self {
            go,
            rebroadcast_every: None,
            ping_every: HEARTBEAT,
            daemons: Vec::new(),
            peers: Vec::new(),
            ids: Vec::new(),
        }
    }

    /// Starts peers one after the other; each dials all before it, for the DHT finds nobody on loopback.
    pub(crate) async fn start(go: OsString, kinds: &[Kind]) -> Self {
        let mut lab = Self::new(go);
        lab.join_all(kinds).await;
        lab
    }

    /// Starts peers one after the other, until all know all.
    pub(crate) async fn join_all(&mut self, kinds: &[Kind]) {
        for kind in kinds {
            self.join(*kind).await;
        }
        self.connected().await;
    }

    pub(crate) async fn join(&mut self, kind: Kind) {
        let mut earlier = Vec::new();
        for (_, peer) in &self.peers {
            earlier.push(peer.id_and_addr().await.1);
        }
        let daemon = FakeKubo::start().await.unwrap();
        let set = |config: &mut Value| {
            set_member(config, SECRET);
            config["cluster"]["pubsub"]["heartbeat_interval"] = format!("{}s", HEARTBEAT.as_secs()).into();
            config["cluster"]["monitor_ping_interval"] = format!("{}s", self.ping_every.as_secs()).into();
            config["cluster"]["peer_addresses"] = json!(earlier);
            if let (Kind::Go, Some(every)) = (kind, self.rebroadcast_every) {
                config["consensus"]["crdt"]["rebroadcast_interval"] = format!("{}s", every.as_secs()).into();
            }
            config["monitor"]["pubsubmon"]["check_interval"] = "1s".into();
            for (_, informer) in config["informer"].as_object_mut().unwrap() {
                informer["metric_ttl"] = "8s".into();
            }
            // a peer that comes back is found at its old address
            let port = free_port();
            config["cluster"]["listen_multiaddress"] = json!([format!("/ip4/127.0.0.1/tcp/{port}")]);
        };
        let mut peer = match kind {
            Kind::Ours => Peer::init(&daemon, set),
            Kind::Go => Peer::init_program(self.go.clone(), &daemon, set),
        };
        peer.start().await;
        self.ids.push(peer.id_and_addr().await.0);
        self.daemons.push(daemon);
        self.peers.push((kind, peer));
    }

    /// Waits until all have a ping of all, then for two heartbeats: before that an original publishes to nobody.
    pub(crate) async fn connected(&self) {
        for (i, (kind, peer)) in self.peers.iter().enumerate() {
            let what = format!("peer {i} ({kind:?}) has a ping of all");
            let known = until(LIMIT, async || {
                let pings = peer.rest("GET", "/monitor/metrics/ping").await.text();
                self.ids.iter().all(|id| pings.contains(id))
            });
            known.await.unwrap_or_else(|| panic!("{what}\n{}", peer.log()));
        }
        sleep(HEARTBEAT * 2).await;
    }

    /// How long it takes until every peer lists just these pins, by peer.
    pub(crate) async fn all_list(&self, expected: &BTreeMap<String, String>) -> Vec<Duration> {
        let started = Instant::now();
        let each = self.peers.iter().enumerate().map(|(i, (kind, peer))| async move {
            let listed = until(LIMIT, async || peer.pins().await == *expected).await;
            listed.map(|()| started.elapsed()).unwrap_or_else(|| {
                panic!("peer {i} ({kind:?}) never listed the {} pins\n{}", expected.len(), tail(&peer.log()))
            })
        });
        futures::future::join_all(each).await
    }

    /// One pin by one peer.
    pub(crate) async fn pin(&self, at: usize, n: usize) -> (String, String) {
        let (cid, name) = (cid(n).to_string(), format!("n{n}"));
        let reply = self.peers[at].1.rest("POST", &format!("/pins/{cid}?name={name}")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        (cid, name)
    }

    /// Pins by several connections at a time, all to one peer.
    async fn burst(&self, at: usize, from: usize, n_pins: usize) -> BTreeMap<String, String> {
        let client = self.peers[at].1.client("rest");
        let pins = stream::iter(from..from + n_pins).map(|n| {
            let client = client.clone();
            async move {
                let (cid, name) = (cid(n).to_string(), format!("n{n}"));
                let reply = send(&client, "POST", &format!("/pins/{cid}?name={name}")).await.unwrap();
                assert_eq!(reply.status, 200, "{}", reply.text());
                (cid, name)
            }
        });
        pins.buffer_unordered(N_WRITERS).collect().await
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

pub(crate) async fn until(limit: Duration, mut holds: impl AsyncFnMut() -> bool) -> Option<()> {
    let deadline = Instant::now() + limit;
    while !holds().await {
        if Instant::now() > deadline {
            return None;
        }
        sleep(LOOK_EVERY).await;
    }
    Some(())
}

fn check(what: &str, took: &[Duration], limit: Duration) {
    eprintln!("{what}: {took:.2?}");
    assert!(took.iter().all(|took| *took < limit), "{what} took longer than {limit:?}: {took:.2?}");
}

/// Each peer pins, then each unpins what the one after it has pinned.
async fn pins_and_unpins(letters: &str) {
    let Some(go) = original() else { return };
    let kinds = kinds(letters);
    let lab = Lab::start(go, &kinds).await;
    let mut expected = BTreeMap::new();
    for (at, kind) in kinds.iter().enumerate() {
        expected.extend([lab.pin(at, at).await]);
        check(&format!("{letters}: pin by {at} ({kind:?})"), &lab.all_list(&expected).await, PROMPT);
    }
    for (at, kind) in kinds.iter().enumerate() {
        let cid = cid((at + 1) % kinds.len()).to_string();
        let reply = lab.peers[at].1.rest("DELETE", &format!("/pins/{cid}")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        expected.remove(&cid);
        check(&format!("{letters}: unpin by {at} ({kind:?})"), &lab.all_list(&expected).await, PROMPT);
    }
    // the daemons follow
    expected.extend([lab.pin(0, 100).await]);
    let held =
        until(PROMPT * 2, async || lab.daemons.iter().all(|d| d.pins().contains_key(&cid(100).to_string())));
    held.await.expect("every daemon pins");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_peers_in_either_order_of_joining() {
    for letters in ["og", "go"] {
        pins_and_unpins(letters).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_peers_in_every_order_of_joining() {
    for letters in ["oog", "ogo", "goo", "ggo", "gog", "ogg"] {
        pins_and_unpins(letters).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_peers_of_both_kinds() {
    for letters in ["gogog", "ogogo"] {
        pins_and_unpins(letters).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_ours_is_soon_on_originals() {
    let Some(go) = original() else { return };
    let lab = Lab::start(go, &kinds("ogg")).await;
    let mut expected = lab.burst(0, 0, 200).await;
    check("burst of 200", &lab.all_list(&expected).await, Duration::from_secs(5));
    // and once more, over a DAG that is there
    expected.extend(lab.burst(0, 1000, 200).await);
    check("second burst of 200", &lab.all_list(&expected).await, Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_among_ours_is_everywhere_at_once() {
    let Some(go) = original() else { return };
    let lab = Lab::start(go, &kinds("ooo")).await;
    let mut expected = BTreeMap::new();
    for at in 0..3 {
        expected.extend(lab.burst(at, at * 1000, 200).await);
        check(&format!("burst of 200 by {at}"), &lab.all_list(&expected).await, Duration::from_secs(1));
    }
    let (first, second) = futures::join!(lab.burst(0, 5000, 200), lab.burst(1, 6000, 200));
    expected.extend(first);
    expected.extend(second);
    check("bursts of 200 by two at once", &lab.all_list(&expected).await, PROMPT);
}

/// An original drops announcements, those of its own kind too: what it writes is bounded by its own rebroadcast.
#[tokio::test(flavor = "multi_thread")]
async fn bursts_of_both_kinds_at_once_come_together() {
    let Some(go) = original() else { return };
    let lab = Lab::start(go, &kinds("og")).await;
    let (ours, theirs) = futures::join!(lab.burst(0, 0, 100), lab.burst(1, 1000, 100));
    let expected = ours.into_iter().chain(theirs).collect();
    check("bursts of 100 by both kinds", &lab.all_list(&expected).await, LIMIT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_peer_of_either_kind_syncs_5000_nodes_from_the_other_alone() {
    let Some(go) = original() else { return };
    for letters in ["og", "go", "oo"] {
        let kinds = kinds(letters);
        let mut lab = Lab::new(go.clone());
        lab.rebroadcast_every = Some(Duration::from_secs(2));
        lab.join(kinds[0]).await;
        let expected = lab.burst(0, 0, 5000).await;
        let started = Instant::now();
        lab.join(kinds[1]).await;
        lab.all_list(&expected).await;
        check(&format!("{letters}: 5000 nodes since the start of the second"), &[started.elapsed()], LIMIT);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_either_kind_that_was_killed_comes_back() {
    let Some(go) = original() else { return };
    for letters in ["og", "go"] {
        let kinds = kinds(letters);
        let mut lab = Lab::new(go.clone());
        lab.rebroadcast_every = Some(Duration::from_secs(2));
        for kind in &kinds {
            lab.join(*kind).await;
        }
        lab.connected().await;
        let mut expected = lab.burst(0, 0, 20).await;
        expected.extend(lab.burst(1, 100, 20).await);
        lab.all_list(&expected).await;
        lab.peers[1].1.kill();
        expected.extend(lab.burst(0, 200, 20).await);
        let started = Instant::now();
        lab.peers[1].1.start().await;
        lab.all_list(&expected).await;
        check(&format!("{letters}: {:?} is back", kinds[1]), &[started.elapsed()], LIMIT);
        lab.connected().await;
        expected.extend([lab.pin(1, 300).await]);
        check(&format!("{letters}: its next pin"), &lab.all_list(&expected).await, PROMPT);
    }
}
