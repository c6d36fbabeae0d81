//! Samples, alerts and membership, with the time as an argument wherever it counts.

use std::time::Duration as Span;

use super::*;

const NOW: Time = Time::from_unix(1_700_000_000, 0);

fn later(secs: i64) -> Time {
    NOW.add(Duration::from_secs(secs))
}

/// Peer ids in ascending order of their bytes.
fn peer(n: u8) -> PeerId {
    PeerId::from_multihash(multihash::Multihash::wrap(0x12, &[n; 32]).unwrap()).unwrap()
}

fn metric(name: &str, n: u8, expires: Time) -> Metric {
    Metric {
        name: name.into(),
        peer: Some(peer(n)),
        value: "1".into(),
        expire: expires.unix_nanos(),
        valid: true,
        weight: 1,
        partitionable: false,
        received_at: 0,
    }
}

fn shared(capacity: usize, members: Option<Members>) -> (Shared, mpsc::Receiver<Alert>) {
    let (alerts, alerted) = mpsc::channel(capacity);
    (Shared { peer: peer(0), network: None, alerts, members, known: Mutex::default() }, alerted)
}

/// The alerts of one check, as name and number of the peer.
fn check(shared: &Shared, alerted: &mut mpsc::Receiver<Alert>, at: Time) -> Vec<(String, u8)> {
    shared.check(at);
    std::iter::from_fn(|| alerted.try_recv().ok())
        .map(|alert| {
            assert_eq!(alert.triggered_at, at);
            let number = (0..=255).find(|n| alert.metric.peer == Some(peer(*n))).unwrap();
            (alert.metric.name, number)
        })
        .collect()
}

fn alerts(expected: &[(&str, u8)]) -> Vec<(String, u8)> {
    expected.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
}

#[test]
fn a_metric_that_stops_alerts_once_and_again_when_it_stops_again() {
    let (shared, mut alerted) = shared(256, None);
    shared.store(metric("ping", 1, later(30)), true, NOW);
    shared.store(metric("freespace", 1, later(30)), true, NOW);
    shared.store(metric("ping", 2, later(300)), true, NOW);
    assert_eq!(check(&shared, &mut alerted, later(30)), alerts(&[]));
    assert_eq!(check(&shared, &mut alerted, later(31)), alerts(&[("freespace", 1), ("ping", 1)]));
    assert_eq!(check(&shared, &mut alerted, later(46)), alerts(&[]));
    shared.store(metric("ping", 1, later(60)), true, later(50));
    assert_eq!(check(&shared, &mut alerted, later(61)), alerts(&[("ping", 1)]));
}

#[test]
fn a_lasting_failure_alerts_every_300_checks() {
    let (shared, mut alerted) = shared(256, None);
    shared.store(metric("ping", 1, NOW), true, NOW);
    let rounds = (1..=601).filter(|i| !check(&shared, &mut alerted, later(*i)).is_empty());
    assert_eq!(rounds.collect::<Vec<_>>(), [1, 301, 601]);
}

#[test]
fn under_raft_only_members_alert_and_every_stored_sample_counts() {
    let (shared, mut alerted) = shared(256, Some(Arc::new(|| vec![peer(1)])));
    for _ in 0..30 {
        shared.store(metric("ping", 1, NOW), true, NOW);
    }
    shared.store(metric("ping", 2, NOW), true, NOW);
    let rounds = (1..=25).filter(|i| check(&shared, &mut alerted, later(*i)) == alerts(&[("ping", 1)]));
    assert_eq!(rounds.collect::<Vec<_>>(), [1, 13, 25]);
}

#[test]
fn an_alert_without_room_comes_with_the_next_check() {
    let (shared, mut alerted) = shared(1, None);
    shared.store(metric("ping", 1, NOW), true, NOW);
    shared.store(metric("ping", 2, NOW), true, NOW);
    assert_eq!(check(&shared, &mut alerted, later(1)), alerts(&[("ping", 1)]));
    assert_eq!(check(&shared, &mut alerted, later(2)), alerts(&[("ping", 2)]));
    assert_eq!(check(&shared, &mut alerted, later(3)), alerts(&[]));
}

#[test]
fn an_expired_or_invalid_arrival_does_not_stop_an_alert_and_is_never_the_latest() {
    let (shared, mut alerted) = shared(256, None);
    shared.store(metric("ping", 1, NOW), true, NOW);
    assert_eq!(check(&shared, &mut alerted, later(1)), alerts(&[("ping", 1)]));
    shared.store(metric("ping", 1, later(1)), true, later(2));
    assert_eq!(check(&shared, &mut alerted, later(3)), alerts(&[]));
    shared.store(Metric { valid: false, ..metric("late", 1, later(90)) }, true, later(2));
    let known = shared.lock();
    assert!(known.peers.latest_valid("ping", later(3).unix_nanos()).is_empty());
    assert!(known.peers.latest_valid("late", later(3).unix_nanos()).is_empty());
    assert_eq!(known.peers.names(), ["late", "ping"]);
}

#[test]
fn the_latest_are_sorted_by_peer_and_stamped_with_our_time() {
    let (shared, _alerted) = shared(256, None);
    for n in [3, 1, 2] {
        shared.store(metric("freespace", n, later(30)), true, later(i64::from(n)));
    }
    let latest = shared.lock().peers.latest_valid("freespace", later(30).unix_nanos());
    let seen: Vec<_> = latest.iter().map(|metric| (metric.peer, metric.received_at)).collect();
    assert_eq!(seen, [1, 2, 3].map(|n| (Some(peer(n)), later(i64::from(n)).unix_nanos())));
    assert!(shared.lock().peers.latest_valid("freespace", later(31).unix_nanos()).is_empty());
}

fn monitor() -> (Monitor, mpsc::Receiver<Alert>, Tasks) {
    let (alerts, alerted) = mpsc::channel(ALERTS_CAPACITY);
    let tasks = Tasks::new();
    let config = Pubsubmon::default();
    let args =
        MonitorArgs { config, peer: peer(1), network: None, alerts, members: None, tasks: tasks.clone() };
    (Monitor::start(args).unwrap(), alerted, tasks)
}

#[tokio::test]
async fn what_is_published_is_known_at_once_and_what_is_invalid_is_not() {
    let (monitor, _alerted, tasks) = monitor();
    let expires = Time::now().add(Duration::from_secs(30));
    monitor.publish(Metric { valid: false, ..metric("freespace", 1, expires) });
    assert!(monitor.names().is_empty());
    monitor.publish(metric("freespace", 1, expires));
    assert_eq!(monitor.latest_valid("freespace").len(), 1);
    assert_eq!(monitor.latest_of("freespace", &peer(1)).unwrap().expire, expires.unix_nanos());
    monitor.forget_peer(&peer(1));
    assert!(monitor.latest_of("freespace", &peer(1)).is_none());
    assert_eq!(monitor.names(), ["freespace"]);
    tasks.stop();
}

#[tokio::test]
async fn a_peer_we_just_met_counts_and_never_alerts_until_it_spoke() {
    let (monitor, mut alerted, tasks) = monitor();
    monitor.assume_alive(peer(2), Span::from_secs(30));
    assert_eq!(monitor.latest_valid(PING).len(), 1);
    let gone = Time::now().add(Duration::from_secs(60));
    assert!(check(&monitor.shared, &mut alerted, gone).is_empty());
    monitor.shared.store(metric(PING, 2, Time::now()), true, Time::now());
    assert_eq!(check(&monitor.shared, &mut alerted, gone), alerts(&[("ping", 2)]));
    tasks.stop();
}

#[test]
fn a_metric_is_believed_from_its_own_peer_alone() {
    let (shared, _alerted) = shared(256, None);
    let expires = Time::now().add(Duration::from_secs(30));
    let data = crate::wire::metric::encode(&metric("ping", 1, expires));
    publish::on_message(&shared, &net::Message { source: peer(2), from: peer(2), data: data.clone() });
    assert!(shared.lock().peers.names().is_empty());
    publish::on_message(&shared, &net::Message { source: peer(1), from: peer(1), data: b"garbage".to_vec() });
    publish::on_message(&shared, &net::Message { source: peer(1), from: peer(1), data });
    assert_eq!(shared.lock().peers.latest_valid("ping", Time::now().unix_nanos()).len(), 1);
}

#[test]
fn metrics_of_invented_names_are_bounded() {
    let mut peers = Peers::default();
    let mut n_stored = 0;
    for i in 0..100_000 {
        n_stored += usize::from(peers.add(metric(&format!("m{i}"), 1, NOW), true).is_ok());
    }
    assert_eq!(n_stored, 32_768, "a name counts as much as its one window");
    assert!(peers.add(metric("m1", 1, NOW), true).is_ok(), "what is known goes on");
    assert!(peers.add(metric(&"n".repeat(2000), 1, NOW), true).is_err());
    assert!(peers.add(Metric { value: "v".repeat(70_000), ..metric("m1", 1, NOW) }, true).is_err());
}
