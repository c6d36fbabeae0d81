//! One peer's CRDT on a real database.

use std::path::Path;
use std::process::{Command, Stdio};

use cluster_compat::go::time::Duration as GoDuration;
use tempfile::TempDir;

use super::*;
use crate::consensus::suite::{self, Subject, cid, next_event, pin};
use crate::store::Table;
use crate::task::GRACE;
use crate::wire::crdt_pb;

const MAP: u64 = 1 << 30;

pub(super) struct Peer {
    pub(super) crdt: Arc<Crdt>,
    pub(super) events: mpsc::Receiver<PinsetEvent>,
    pub(super) tasks: Tasks,
    pub(super) db: Db,
}

impl Peer {
    fn start(folder: &Path, config: config::Crdt) -> Self {
        Self::start_in(folder, config, None)
    }

    pub(super) fn start_in(folder: &Path, config: config::Crdt, network: Option<Network>) -> Self {
        let peer = network.as_ref().map_or_else(PeerId::random, Network::local_peer);
        let db = Db::open(folder, MAP).unwrap();
        let (events_tx, events) = mpsc::channel(100_000);
        let tasks = Tasks::new();
        let crdt = Crdt::start(CrdtArgs {
            config,
            peer,
            db: db.clone(),
            network,
            members: Arc::new(Vec::new),
            events: events_tx,
            tasks: tasks.clone(),
            trusted: Vec::new(),
        })
        .unwrap();
        Self { crdt, events, tasks, db }
    }

    /// Stops as the daemon does; the database closes.
    pub(super) async fn stop(self) {
        self.crdt.stop().await.unwrap();
        self.tasks.stop();
        self.tasks.join(GRACE).await;
    }

    pub(super) async fn pins(&self) -> usize {
        self.crdt.pinset().page(None, usize::MAX >> 16).unwrap().0.len()
    }
}

fn batching(size: i64, age: GoDuration) -> config::Crdt {
    let mut config = config::Crdt::default();
    config.batching.max_batch_size = size;
    config.batching.max_batch_age = age;
    config
}

fn subject(config: config::Crdt) -> Subject {
    let folder = TempDir::new().unwrap();
    let Peer { crdt, events, tasks, .. } = Peer::start(folder.path(), config);
    Subject { consensus: crdt, events, guard: Box::new((folder, tasks)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_suite() {
    suite::run(|| subject(config::Crdt::default())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_suite_in_batches_of_one() {
    suite::run(|| subject(batching(1, GoDuration::from_secs(60)))).await;
}

#[test]
fn the_topic_is_that_of_the_reference() {
    for (name, known) in [
        ("ipfs-cluster", "fzhnp2UwTBkgNabrJi1VanzwgN"),
        ("test", "fzhnJ2vw7NBkaLbPXVHuw1r59o"),
        ("my-cluster", "fzhnksgSU2eXwHBS2XoLWNxDjU"),
    ] {
        assert_eq!(topic(name), known);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_and_heads_are_there_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let peer = Peer::start(folder.path(), config::Crdt::default());
    for n in 0..20 {
        peer.crdt.log_pin(pin(n, "kept")).await.unwrap();
    }
    let heads = peer.crdt.heads();
    peer.stop().await;
    let peer = Peer::start(folder.path(), config::Crdt::default());
    assert_eq!(peer.pins().await, 20);
    assert_eq!(peer.crdt.heads(), heads);
    let block = store::blocks::load(&peer.db, &heads[0]).unwrap().unwrap();
    assert_eq!(crdt_pb::decode_node(&block).unwrap().delta.priority, 20);
    peer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_pins_are_all_there_in_common_nodes() {
    let folder = TempDir::new().unwrap();
    let mut peer = Peer::start(folder.path(), config::Crdt::default());
    let writes = (0..500).map(|n| peer.crdt.log_pin(pin(n, "")));
    for written in futures::future::join_all(writes).await {
        written.unwrap();
    }
    assert!(peer.db.len(Table::Blocks).unwrap() < 100);
    assert_eq!(peer.pins().await, 500);
    for _ in 0..500 {
        next_event(&mut peer.events, "one per pin").await;
    }
    peer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_wait_together_end_as_they_would_one_after_another() {
    let folder = TempDir::new().unwrap();
    let peer = Peer::start(folder.path(), config::Crdt::default());
    let names = ["first", "second", "third"];
    for round in 0..20 {
        let pins = names.iter().map(|name| peer.crdt.log_pin(pin(round, name)));
        let unpins = (0..2).map(|_| peer.crdt.log_unpin(pin(round + 100, "")));
        let (pinned, unpinned) =
            tokio::join!(futures::future::join_all(pins), futures::future::join_all(unpins));
        assert!(pinned.iter().chain(&unpinned).all(Result::is_ok));
        let kept = peer.crdt.pinset().get(&cid(round)).unwrap().unwrap();
        assert_eq!(kept.options.name, "third");
        let (pin, unpin) =
            tokio::join!(peer.crdt.log_pin(pin(round, "")), peer.crdt.log_unpin(pin(round, "")));
        assert!(pin.is_ok() && unpin.is_ok());
        assert!(peer.crdt.pinset().get(&cid(round)).unwrap().is_none());
    }
    // a delete that found nothing made no node: three writes and a pin, an unpin, at most a node each
    assert!(peer.db.len(Table::Blocks).unwrap() <= 20 * 5);
    peer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_one_after_another_are_nodes_of_their_own() {
    let folder = TempDir::new().unwrap();
    let peer = Peer::start(folder.path(), config::Crdt::default());
    for n in 0..20 {
        peer.crdt.log_pin(pin(n, "")).await.unwrap();
    }
    assert_eq!(peer.db.len(Table::Blocks).unwrap(), 20);
    peer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_becomes_one_node_at_its_size() {
    let folder = TempDir::new().unwrap();
    let mut peer = Peer::start(folder.path(), batching(3, GoDuration::from_secs(3600)));
    peer.crdt.log_pin(pin(1, "")).await.unwrap();
    peer.crdt.log_pin(pin(2, "")).await.unwrap();
    assert_eq!(peer.pins().await, 0, "reads do not see a pending batch");
    peer.crdt.log_pin(pin(3, "")).await.unwrap();
    assert_eq!(peer.pins().await, 3);
    assert_eq!(peer.db.len(Table::Blocks).unwrap(), 1);
    next_event(&mut peer.events, "the first pin of the batch").await;
    peer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_becomes_one_node_at_its_age() {
    let folder = TempDir::new().unwrap();
    let mut peer = Peer::start(folder.path(), batching(1000, GoDuration(50_000_000)));
    for round in 0..3 {
        peer.crdt.log_pin(pin(round, "")).await.unwrap();
        next_event(&mut peer.events, "the batch of one pin, once it is old enough").await;
    }
    assert_eq!(peer.db.len(Table::Journal).unwrap(), 0);
    peer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_commits_the_pending_batch() {
    let folder = TempDir::new().unwrap();
    let config = batching(1000, GoDuration::from_secs(3600));
    let peer = Peer::start(folder.path(), config.clone());
    peer.crdt.log_pin(pin(1, "")).await.unwrap();
    peer.stop().await;
    let peer = Peer::start(folder.path(), config);
    assert_eq!(peer.pins().await, 1);
    peer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_batch_queue_refuses_with_the_reference_s_words() {
    let folder = TempDir::new().unwrap();
    let mut config = batching(1_000_000, GoDuration::from_secs(3600));
    config.batching.max_queue_size = 1;
    let peer = Peer::start(folder.path(), config);
    let writes = (0..2000).map(|n| peer.crdt.log_pin(pin(n, "")));
    let refused: Vec<_> =
        futures::future::join_all(writes).await.into_iter().filter_map(|written| written.err()).collect();
    assert!(!refused.is_empty(), "a queue of one takes 2000 at once");
    assert_eq!(refused[0].to_string(), QUEUE_FULL);
    peer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_peer_refuses_with_the_reference_s_words() {
    let folder = TempDir::new().unwrap();
    let peer = Peer::start(folder.path(), config::Crdt::default());
    peer.crdt.stop().await.unwrap();
    assert_eq!(peer.crdt.log_pin(pin(1, "")).await.unwrap_err().to_string(), SHUTTING_DOWN);
    assert_eq!(peer.crdt.rm_peer(PeerId::random()).await.unwrap_err().to_string(), NO_REMOVAL);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_the_tasks_alone_flushes_too() {
    let folder = TempDir::new().unwrap();
    let peer = Peer::start(folder.path(), batching(10, GoDuration::from_secs(3600)));
    peer.crdt.log_pin(pin(1, "")).await.unwrap();
    peer.tasks.stop();
    peer.tasks.join(GRACE).await;
    assert_eq!(peer.pins().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn trust_follows_the_configuration_and_what_was_added() {
    let (friend, stranger) = (PeerId::random(), PeerId::random());
    let folder = TempDir::new().unwrap();
    let config = config::Crdt { trust_all: false, trusted_peers: vec![friend], ..config::Crdt::default() };
    let peer = Peer::start(folder.path(), config);
    assert!(peer.crdt.is_trusted(&friend) && peer.crdt.is_trusted(&peer.crdt.peer));
    assert!(!peer.crdt.is_trusted(&stranger));
    peer.crdt.trust(stranger);
    assert!(peer.crdt.is_trusted(&stranger));
    peer.crdt.distrust(&stranger);
    assert!(!peer.crdt.is_trusted(&stranger));
    assert_eq!(peer.crdt.peers().await.unwrap(), [peer.crdt.peer]);
    peer.stop().await;
}

/// The child of the test below: writes until it is killed, and says what was acknowledged.
#[test]
fn child_that_writes_until_killed() {
    let Ok(folder) = std::env::var("CRDT_CHILD_FOLDER") else { return };
    let size = std::env::var("CRDT_CHILD_BATCH").unwrap().parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let peer = Peer::start(Path::new(&folder), batching(size, GoDuration::from_secs(3600)));
        let writers = (0..8u64).map(|writer| {
            let crdt = Arc::clone(&peer.crdt);
            async move {
                for n in (writer * 1_000_000)..(writer + 1) * 1_000_000 {
                    crdt.log_pin(pin(n, "acknowledged")).await.unwrap();
                    println!("acknowledged {n}");
                }
            }
        });
        futures::future::join_all(writers).await;
    });
}

async fn nothing_acknowledged_is_lost_by_a_kill(batch_size: i64) {
    use std::io::{BufRead, BufReader};
    let folder = TempDir::new().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "consensus::crdt::tests::child_that_writes_until_killed", "--nocapture"])
        .env("CRDT_CHILD_FOLDER", folder.path())
        .env("CRDT_CHILD_BATCH", batch_size.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut acknowledged = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let Ok(line) = line else { break };
        acknowledged.extend(line.strip_prefix("acknowledged ").and_then(|n| n.parse::<u64>().ok()));
        if acknowledged.len() == 300 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(acknowledged.len() >= 300, "the child ended early");
    // a batch that is still pending shows once it is committed, which stopping does
    let peer = Peer::start(folder.path(), batching(batch_size, GoDuration::from_secs(3600)));
    peer.stop().await;
    let peer = Peer::start(folder.path(), config::Crdt::default());
    for n in acknowledged {
        assert!(peer.crdt.pinset().contains(&cid(n)).unwrap(), "pin {n} was acknowledged and is lost");
    }
    peer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_has_lost_no_acknowledged_pin() {
    nothing_acknowledged_is_lost_by_a_kill(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_has_lost_no_batched_pin() {
    nothing_acknowledged_is_lost_by_a_kill(70).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_left_over_is_committed_when_batching_is_off() {
    let folder = TempDir::new().unwrap();
    let db = Db::open(folder.path(), MAP).unwrap();
    let (key, value) = (key::of_cid(&cid(1)), pin_pb::encode(&pin(1, "left")));
    let row = [&[1][..], &(key.len() as u32).to_be_bytes(), key.as_bytes(), &value].concat();
    store::kv::write(&db, |t| t.put(Table::Journal, &0u64.to_be_bytes(), &row)).unwrap();
    drop(db);
    let mut peer = Peer::start(folder.path(), config::Crdt::default());
    next_event(&mut peer.events, "the pin of the last run").await;
    assert_eq!(peer.pins().await, 1);
    peer.stop().await;
}
