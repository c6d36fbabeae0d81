//! The tracker beside a fake daemon, over a pinset in memory (spec: core 21, C41 to C55).

mod daemon;

use std::time::Duration as Span;

use cluster_compat::go::time::Duration;
use futures::StreamExt;

use self::daemon::Daemon;
use super::*;
use crate::store::{Mem, Reads, Table, kv};
use crate::wire::{key, pin_pb};

/// Longest wait for something that happens at once on a quiet machine.
const LIMIT: Span = Span::from_secs(20);

fn peer(n: u8) -> PeerId {
    PeerId::from_multihash(multihash::Multihash::wrap(0x12, &[n; 32]).unwrap()).unwrap()
}

fn cid(n: u16) -> Cid {
    let digest: Vec<u8> = n.to_be_bytes().iter().copied().cycle().take(32).collect();
    Cid::new_v1(0x55, multihash::Multihash::wrap(0x12, &digest).unwrap())
}

/// A pin of everyone.
fn pin(n: u16) -> Pin {
    let mut pin = Pin { timestamp: Time::now().truncate_to_secs(), ..Pin::new(cid(n)) };
    pin.options.replication_factor_min = -1;
    pin.options.replication_factor_max = -1;
    pin.options.name = format!("pin {n}");
    pin
}

/// A pin of another peer.
fn remote_pin(n: u16) -> Pin {
    let mut pin = pin(n);
    pin.options.replication_factor_min = 1;
    pin.options.replication_factor_max = 1;
    pin.allocations = Some(vec![peer(9)]);
    pin
}

fn direct_pin(n: u16) -> Pin {
    let mut pin = pin(n);
    pin.max_depth = 0;
    pin
}

/// A pinset that tests write to.
struct TestPinset(Arc<Mem>);

impl TestPinset {
    fn reader(&self) -> Pinset {
        Pinset::new(Arc::clone(&self.0) as Arc<dyn Reads>)
    }

    fn put(&self, pin: Pin) {
        self.put_all([pin]);
    }

    fn put_all(&self, pins: impl IntoIterator<Item = Pin>) {
        kv::write(&*self.0, |t| {
            for pin in pins {
                t.put(Table::Values, key::of_cid(&pin.cid).as_bytes(), &pin_pb::encode(&pin))?;
            }
            Ok::<_, crate::store::Error>(())
        })
        .unwrap();
    }

    fn remove(&self, cid: &Cid) {
        kv::write(&*self.0, |t| t.delete(Table::Values, key::of_cid(cid).as_bytes())).unwrap();
    }
}

struct Lab {
    daemon: Daemon,
    tracker: Tracker,
    pinset: TestPinset,
    tasks: Tasks,
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

#[derive(Default)]
struct Settings {
    concurrent_pins: Option<i64>,
    max_pin_queue_size: Option<i64>,
    unpin_disable: bool,
}

async fn lab_with(settings: Settings) -> Lab {
    let tasks = Tasks::new();
    let daemon = Daemon::start(&tasks).await;
    let pinset = TestPinset(Arc::new(Mem::new()));
    let mut config = Stateless::default();
    config.concurrent_pins = settings.concurrent_pins.unwrap_or(config.concurrent_pins);
    config.max_pin_queue_size = settings.max_pin_queue_size.unwrap_or(config.max_pin_queue_size);
    let tracker = Tracker::start(TrackerArgs {
        config,
        peer: peer(1),
        peername: "one".into(),
        ipfs: daemon.client(settings.unpin_disable),
        pinset: pinset.reader(),
        ipfs_id: Arc::new(|| (Some(peer(101)), Vec::new())),
        tasks: tasks.clone(),
    });
    Lab { daemon, tracker, pinset, tasks }
}

async fn lab() -> Lab {
    lab_with(Settings::default()).await
}

/// Waits until `is_so`; `what` is missing otherwise.
async fn wait_for(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, waiting).await.is_ok(), "{what} did not happen");
}

impl Lab {
    /// Writes a pin to the pinset and tells the tracker.
    async fn add(&self, pin: Pin) {
        self.pinset.put(pin.clone());
        self.tracker.track(pin).await;
    }

    /// Takes a pin out of the pinset and tells the tracker.
    async fn remove(&self, n: u16) {
        self.pinset.remove(&cid(n));
        self.tracker.untrack(cid(n)).await;
    }

    async fn status(&self, n: u16) -> TrackerStatus {
        self.tracker.status(&cid(n)).await.short.status
    }

    async fn reaches(&self, n: u16, status: TrackerStatus) {
        wait_for(&format!("{status} of pin {n}"), async || self.status(n).await == status).await;
    }

    /// Number and status of all that match, sorted.
    async fn list(&self, filter: TrackerStatus) -> Vec<(u16, TrackerStatus)> {
        let items = self.tracker.status_all(filter).collect::<Vec<_>>().await;
        numbered(items.into_iter().map(Result::unwrap))
    }

    fn stall(&self, numbers: impl IntoIterator<Item = u16>) {
        self.daemon.lock().stalled.extend(numbers.into_iter().map(|n| cid(n).to_string()));
    }

    fn fail(&self, n: u16, message: &str) {
        self.daemon.lock().failing.insert(cid(n).to_string(), message.into());
    }
}

fn numbered(items: impl IntoIterator<Item = PinInfo>) -> Vec<(u16, TrackerStatus)> {
    let number = |found: Cid| u16::from_be_bytes(found.hash().digest()[..2].try_into().unwrap());
    let mut items: Vec<_> = items.into_iter().map(|info| (number(info.cid), info.short.status)).collect();
    items.sort_by_key(|(n, _)| *n);
    items
}

#[tokio::test]
async fn a_tracked_pin_gets_pinned_and_an_untracked_one_unpinned() {
    let lab = lab().await;
    lab.add(pin(1)).await;
    lab.reaches(1, TrackerStatus::PINNED).await;
    assert!(lab.daemon.holds(&cid(1)));
    lab.remove(1).await;
    lab.reaches(1, TrackerStatus::UNPINNED).await;
    assert!(!lab.daemon.holds(&cid(1)));
}

#[tokio::test]
async fn the_status_of_a_cid_without_an_operation_comes_from_pinset_and_daemon() {
    let lab = lab().await;
    let shown = async |n: u16| {
        let info = lab.tracker.status(&cid(n)).await;
        (info.short.status, info.short.error, info.name)
    };
    let named = |n: u16| format!("pin {n}");

    assert_eq!(shown(1).await, (TrackerStatus::UNPINNED, String::new(), String::new()));
    lab.pinset.put(Pin { pin_type: PinType::Meta, reference: Some(cid(9)), ..pin(2) });
    assert_eq!(shown(2).await, (TrackerStatus::SHARDED, String::new(), named(2)));
    lab.pinset.put(remote_pin(3));
    lab.daemon.hold([cid(3)], "recursive");
    assert_eq!(shown(3).await, (TrackerStatus::REMOTE, String::new(), named(3)));
    lab.pinset.put(pin(4));
    assert_eq!(
        shown(4).await,
        (TrackerStatus::UNEXPECTEDLY_UNPINNED, UNEXPECTEDLY_UNPINNED.into(), named(4))
    );
    lab.daemon.hold([cid(4)], "indirect through bafy");
    assert_eq!(
        shown(4).await,
        (TrackerStatus::UNEXPECTEDLY_UNPINNED, UNEXPECTEDLY_UNPINNED.into(), named(4))
    );
    lab.daemon.hold([cid(4)], "recursive");
    assert_eq!(shown(4).await, (TrackerStatus::PINNED, String::new(), named(4)));
    lab.daemon.hold([cid(4)], "weird");
    assert_eq!(shown(4).await, (TrackerStatus::UNDEFINED, String::new(), named(4)));
    lab.daemon.lock().no_list = Some("no".into());
    let path = format!("pin/ls?stream=true&arg={}&type=recursive", cid(4));
    let error = format!("IPFS error ({path}). Code: 500. Message: no");
    assert_eq!(shown(4).await, (TrackerStatus::CLUSTER_ERROR, error, named(4)));

    let info = lab.tracker.status(&cid(4)).await;
    assert_eq!((info.peer, info.short.peername.as_str()), (peer(1), "one"));
    assert_eq!((info.short.ipfs_peer_id, info.short.timestamp), (Some(peer(101)), info.created));
}

#[tokio::test]
async fn an_unpin_aborts_the_pin_it_overtakes() {
    let lab = lab().await;
    lab.stall([1]);
    lab.add(pin(1)).await;
    lab.reaches(1, TrackerStatus::PINNING).await;
    wait_for("the request", async || lab.daemon.n_requests("pin/add") == 1).await;
    lab.daemon.lock().stalled.clear();
    lab.remove(1).await;
    lab.reaches(1, TrackerStatus::UNPINNED).await;
    wait_for("the abort", async || lab.daemon.lock().aborted == [cid(1).to_string()]).await;
    assert!(lab.list(TrackerStatus::ERROR).await.is_empty());
}

#[tokio::test]
async fn as_many_pins_run_as_configured_and_one_unpin() {
    let lab = lab_with(Settings { concurrent_pins: Some(4), ..Settings::default() }).await;
    lab.stall(1..=20);
    lab.daemon.hold((11..=20).map(cid), "recursive");
    for n in 1..=10 {
        lab.add(pin(n)).await;
        lab.tracker.untrack(cid(n + 10)).await;
    }
    let running = |command: &str| lab.daemon.lock().n_running.get(command).map_or(0, |(now, _)| *now);
    wait_for("four pins", async || running("pin/add") == 4).await;
    wait_for("an unpin", async || running("pin/rm") == 1).await;
    assert_eq!(lab.tracker.pin_queue_size(), 6);
    lab.daemon.release();
    for n in 1..=10 {
        lab.reaches(n, TrackerStatus::PINNED).await;
        lab.reaches(n + 10, TrackerStatus::UNPINNED).await;
    }
    let state = lab.daemon.lock();
    assert_eq!((state.n_running["pin/add"].1, state.n_running["pin/rm"].1), (4, 1));
}

#[tokio::test]
async fn a_full_queue_shows_as_an_error_of_the_pin() {
    let lab =
        lab_with(Settings { concurrent_pins: Some(1), max_pin_queue_size: Some(1), ..Settings::default() })
            .await;
    lab.stall([1]);
    lab.add(pin(1)).await;
    lab.reaches(1, TrackerStatus::PINNING).await;
    lab.add(pin(2)).await;
    lab.add(pin(3)).await;
    assert_eq!(lab.status(2).await, TrackerStatus::PIN_QUEUED);
    let refused = lab.tracker.status(&cid(3)).await.short;
    assert_eq!((refused.status, refused.error.as_str()), (TrackerStatus::PIN_ERROR, QUEUE_FULL));
    assert!(matches!(lab.tracker.recover(&cid(3)).await, Err(Error::QueueFull)));
    let all = lab.tracker.recover_all().collect::<Vec<_>>().await;
    let error = all.last().unwrap().as_ref().unwrap_err().to_string();
    assert_eq!((all.len(), error), (1, format!("RecoverAll error: {QUEUE_FULL}")));
    lab.daemon.release();
}

#[tokio::test]
async fn a_pin_for_others_is_unpinned_here_and_stays_remote() {
    let lab = lab().await;
    lab.daemon.hold([cid(1)], "recursive");
    lab.add(remote_pin(1)).await;
    assert_eq!(lab.status(1).await, TrackerStatus::REMOTE);
    wait_for("the unpin", async || !lab.daemon.holds(&cid(1))).await;
    assert_eq!(lab.list(TrackerStatus::UNDEFINED).await, [(1, TrackerStatus::REMOTE)]);
}

#[tokio::test]
async fn a_remote_that_cannot_be_unpinned_says_why() {
    let lab = lab_with(Settings { unpin_disable: true, ..Settings::default() }).await;
    lab.add(remote_pin(1)).await;
    let error = async || lab.tracker.status(&cid(1)).await.short.error;
    wait_for("the error", async || !error().await.is_empty()).await;
    assert_eq!(error().await, "ipfs unpinning is disallowed by configuration on this peer");
    assert_eq!(lab.status(1).await, TrackerStatus::REMOTE);
    assert!(lab.tracker.recover_all().collect::<Vec<_>>().await.is_empty());
}

#[tokio::test]
async fn recover_tries_again_what_failed_and_counts() {
    let lab = lab().await;
    lab.fail(1, "merkledag: not found");
    lab.add(pin(1)).await;
    lab.reaches(1, TrackerStatus::PIN_ERROR).await;
    for attempt in 1..=7 {
        let failed = lab.tracker.status(&cid(1)).await.short;
        assert_eq!((failed.attempt_count, failed.priority_pin), (attempt, attempt <= 6));
        let queued = lab.tracker.recover(&cid(1)).await.unwrap().short;
        assert_eq!((queued.status, queued.attempt_count), (TrackerStatus::PIN_QUEUED, attempt));
        lab.reaches(1, TrackerStatus::PIN_ERROR).await;
    }
    lab.daemon.lock().failing.clear();
    lab.tracker.recover(&cid(1)).await.unwrap();
    lab.reaches(1, TrackerStatus::PINNED).await;
    let same = lab.tracker.recover(&cid(1)).await.unwrap().short;
    assert_eq!((same.status, same.attempt_count), (TrackerStatus::PINNED, 0));
}

#[tokio::test]
async fn recover_all_tries_again_what_failed_what_was_lost_and_failed_unpins() {
    let lab = lab().await;
    lab.fail(1, "no");
    lab.fail(2, "no");
    lab.daemon.hold([cid(2)], "recursive");
    lab.add(pin(1)).await;
    lab.add(pin(3)).await;
    lab.tracker.untrack(cid(2)).await;
    lab.reaches(1, TrackerStatus::PIN_ERROR).await;
    lab.reaches(2, TrackerStatus::UNPIN_ERROR).await;
    lab.reaches(3, TrackerStatus::PINNED).await;
    lab.pinset.put(pin(4));
    assert_eq!(lab.list(TrackerStatus::UNPIN_ERROR).await, [(2, TrackerStatus::UNPIN_ERROR)]);

    let retried = lab.tracker.recover_all().map(Result::unwrap).collect::<Vec<_>>().await;
    let expected =
        [(1, TrackerStatus::PIN_QUEUED), (2, TrackerStatus::UNPIN_QUEUED), (4, TrackerStatus::PIN_QUEUED)];
    assert_eq!(numbered(retried), expected);
    lab.reaches(4, TrackerStatus::PINNED).await;
}

#[tokio::test]
async fn a_failed_unpin_of_what_was_pinned_again_is_left_alone() {
    let lab = lab().await;
    lab.fail(1, "no");
    lab.daemon.hold([cid(1)], "recursive");
    lab.tracker.untrack(cid(1)).await;
    lab.reaches(1, TrackerStatus::UNPIN_ERROR).await;
    lab.pinset.put(pin(1));
    let retried = lab.tracker.recover_all().map(Result::unwrap).collect::<Vec<_>>().await;
    assert_eq!(numbered(retried), [(1, TrackerStatus::UNPIN_ERROR)]);
    assert_eq!(lab.daemon.n_requests("pin/rm"), 1);
}

#[tokio::test]
async fn lists_show_each_pin_once_as_it_is_and_only_what_matches() {
    let lab = lab_with(Settings { concurrent_pins: Some(1), ..Settings::default() }).await;
    lab.stall([4]);
    lab.fail(3, "no");
    lab.fail(6, "no");
    lab.add(pin(1)).await;
    lab.add(pin(3)).await;
    lab.reaches(3, TrackerStatus::PIN_ERROR).await;
    lab.add(pin(4)).await;
    lab.reaches(4, TrackerStatus::PINNING).await;
    lab.add(pin(5)).await;
    lab.daemon.hold([cid(6), cid(7)], "recursive");
    lab.tracker.untrack(cid(6)).await;
    lab.reaches(6, TrackerStatus::UNPIN_ERROR).await;
    lab.pinset.put(pin(2));
    lab.pinset.put(direct_pin(8));
    lab.daemon.hold([cid(8)], "direct");
    lab.pinset.put(remote_pin(9));
    lab.pinset.put(Pin { pin_type: PinType::Meta, reference: Some(cid(1)), ..pin(10) });

    let all = [
        (1, TrackerStatus::PINNED),
        (2, TrackerStatus::UNEXPECTEDLY_UNPINNED),
        (3, TrackerStatus::PIN_ERROR),
        (4, TrackerStatus::PINNING),
        (5, TrackerStatus::PIN_QUEUED),
        (8, TrackerStatus::PINNED),
        (9, TrackerStatus::REMOTE),
        (10, TrackerStatus::SHARDED),
    ];
    assert_eq!(lab.list(TrackerStatus::UNDEFINED).await, all);
    let every_filter = [
        TrackerStatus::PINNED,
        TrackerStatus::UNEXPECTEDLY_UNPINNED,
        TrackerStatus::PIN_ERROR,
        TrackerStatus::PINNING,
        TrackerStatus::QUEUED,
        TrackerStatus::REMOTE,
        TrackerStatus::SHARDED,
        TrackerStatus(TrackerStatus::PINNED.0 | TrackerStatus::PINNING.0),
        TrackerStatus(TrackerStatus::SHARDED.0 | TrackerStatus::PIN_ERROR.0),
    ];
    for filter in every_filter {
        let expected: Vec<_> = all.into_iter().filter(|(_, status)| status.matches(filter)).collect();
        assert_eq!(lab.list(filter).await, expected, "{filter}");
    }
    // a failed unpin has no pin any more: only lists of operations show it
    let errors = [(3, TrackerStatus::PIN_ERROR), (6, TrackerStatus::UNPIN_ERROR)];
    assert_eq!(lab.list(TrackerStatus::ERROR).await, errors);
    assert_eq!(lab.list(TrackerStatus::UNPINNED).await, []);
    lab.daemon.release();
}

#[tokio::test]
async fn lists_of_operations_ask_the_daemon_nothing() {
    let lab = lab().await;
    lab.pinset.put(pin(1));
    lab.pinset.put(remote_pin(2));
    for filter in
        [TrackerStatus::ERROR, TrackerStatus::QUEUED, TrackerStatus::REMOTE, TrackerStatus::UNPINNING]
    {
        lab.list(filter).await;
    }
    assert_eq!(lab.daemon.n_requests(""), 0);
}

#[tokio::test]
async fn without_the_daemons_list_nothing_is_listed_and_nothing_recovered() {
    let lab = lab().await;
    lab.pinset.put(pin(1));
    lab.daemon.lock().no_list = Some("no".into());
    let listed = lab.tracker.status_all(TrackerStatus::UNDEFINED).collect::<Vec<_>>().await;
    let error = listed[0].as_ref().unwrap_err().to_string();
    let path = "pin/ls?stream=true&type=recursive";
    let expected = format!("could not get pinset from IPFS: IPFS error ({path}). Code: 500. Message: no");
    assert_eq!((listed.len(), error), (1, expected));
    assert!(lab.tracker.recover_all().collect::<Vec<_>>().await.is_empty());
}

#[tokio::test]
async fn the_first_pins_come_while_the_daemon_still_lists_and_none_comes_twice() {
    let lab = lab().await;
    lab.daemon.hold((0..500).map(cid), "recursive");
    lab.pinset.put_all((0..600).map(pin));
    lab.daemon.lock().list_stalls_after = Some(300);
    let mut list = lab.tracker.status_all(TrackerStatus::UNDEFINED);
    let first = tokio::time::timeout(LIMIT, list.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(first.short.status, TrackerStatus::PINNED);
    lab.daemon.release();
    let rest = list.map(Result::unwrap).collect::<Vec<_>>().await;
    let all = numbered(rest.into_iter().chain([first]));
    let status = |n| if n < 500 { TrackerStatus::PINNED } else { TrackerStatus::UNEXPECTEDLY_UNPINNED };
    assert_eq!(all, (0..600).map(|n| (n, status(n))).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_pin_that_finishes_while_the_daemon_lists_is_not_called_lost() {
    let lab = lab().await;
    lab.daemon.lock().list_stalls_after = Some(0);
    let list = lab.tracker.status_all(TrackerStatus::UNDEFINED);
    let tracker = lab.tracker.clone();
    let (all, ()) = tokio::join!(list.collect::<Vec<_>>(), async {
        wait_for("the list", async || lab.daemon.n_requests("pin/ls?stream=true&type") == 1).await;
        lab.add(pin(1)).await;
        wait_for("the pin", async || tracker.status(&cid(1)).await.short.status == TrackerStatus::PINNED)
            .await;
        lab.daemon.release();
    });
    assert_eq!(numbered(all.into_iter().map(Result::unwrap)), [(1, TrackerStatus::PINNED)]);
}

#[tokio::test]
async fn a_reader_that_leaves_ends_the_daemons_list() {
    let lab = lab().await;
    lab.daemon.hold((0..300).map(cid), "recursive");
    lab.daemon.lock().list_stalls_after = Some(300);
    lab.pinset.put(pin(1));
    let mut list = lab.tracker.status_all(TrackerStatus::UNDEFINED);
    list.next().await.unwrap().unwrap();
    drop(list);
    wait_for("the abort", async || lab.daemon.lock().aborted == ["recursive"]).await;
}

#[tokio::test]
async fn stopping_aborts_what_runs() {
    let lab = lab().await;
    lab.stall([1]);
    lab.add(pin(1)).await;
    wait_for("the request", async || lab.daemon.n_requests("pin/add") == 1).await;
    lab.tasks.stop();
    tokio::time::timeout(LIMIT, lab.tasks.join(LIMIT)).await.unwrap();
}

#[tokio::test]
async fn old_pins_have_no_priority() {
    let lab = lab_with(Settings { concurrent_pins: Some(1), ..Settings::default() }).await;
    lab.stall([1]);
    lab.add(pin(1)).await;
    lab.reaches(1, TrackerStatus::PINNING).await;
    let old = Time::now().add(Duration::from_secs(-90_000));
    lab.add(Pin { timestamp: old, ..pin(2) }).await;
    let info = lab.tracker.status(&cid(2)).await.short;
    assert_eq!((info.status, info.priority_pin), (TrackerStatus::PIN_QUEUED, false));
    lab.daemon.release();
}
