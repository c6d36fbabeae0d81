//! What any [`Consensus`] must pass, seen from one peer.

use std::future::Future;
use std::pin::Pin as Pinned;
use std::sync::Arc;
use std::time::Duration;

use cluster_compat::types::{Cid, Pin};
use futures::StreamExt;
use tokio::sync::mpsc;

use super::{Consensus, PinsetEvent};
use crate::wire::crdt_pb::node_cid;

/// Longest wait for an event that must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A peer under test; `guard` keeps what it needs alive.
pub(crate) struct Subject {
    pub(crate) consensus: Arc<dyn Consensus>,
    pub(crate) events: mpsc::Receiver<PinsetEvent>,
    pub(crate) guard: Box<dyn std::any::Any>,
}

type Check = fn(Subject) -> Pinned<Box<dyn Future<Output = ()>>>;

/// Runs every check on a new peer each.
pub(crate) async fn run(make: impl Fn() -> Subject) {
    let checks: [Check; 6] = [
        |subject| Box::pin(a_pin_is_listed_when_acknowledged(subject)),
        |subject| Box::pin(a_later_pin_replaces_an_earlier_one(subject)),
        |subject| Box::pin(an_unpinned_cid_is_gone(subject)),
        |subject| Box::pin(unpinning_what_is_not_there_is_no_error(subject)),
        |subject| Box::pin(events_follow_the_order_of_writes(subject)),
        |subject| Box::pin(after_stopping_nothing_is_accepted(subject)),
    ];
    for check in checks {
        check(make()).await;
    }
}

/// A CID of its own for each number.
pub(crate) fn cid(n: u64) -> Cid {
    node_cid(&n.to_be_bytes())
}

/// A pin with a name.
pub(crate) fn pin(n: u64, name: &str) -> Pin {
    let mut pin = Pin::new(cid(n));
    pin.options.name = name.to_owned();
    pin
}

/// The next event, or a failure that says what was missing.
pub(crate) async fn next_event(events: &mut mpsc::Receiver<PinsetEvent>, missing: &str) -> PinsetEvent {
    let event = tokio::time::timeout(PATIENCE, events.recv()).await;
    event
        .unwrap_or_else(|_| panic!("no event within {PATIENCE:?}: {missing}"))
        .expect("the consensus still runs")
}

async fn a_pin_is_listed_when_acknowledged(subject: Subject) {
    subject.consensus.log_pin(pin(1, "one")).await.unwrap();
    let pinset = subject.consensus.pinset();
    assert_eq!(pinset.get(&cid(1)).unwrap().unwrap().options.name, "one");
    let listed: Vec<_> = pinset.stream().map(|pin| pin.unwrap().cid).collect().await;
    assert_eq!(listed, [cid(1)]);
}

async fn a_later_pin_replaces_an_earlier_one(subject: Subject) {
    for name in ["z", "a", "m"] {
        subject.consensus.log_pin(pin(1, name)).await.unwrap();
        assert_eq!(subject.consensus.pinset().get(&cid(1)).unwrap().unwrap().options.name, name);
    }
}

async fn an_unpinned_cid_is_gone(subject: Subject) {
    subject.consensus.log_pin(pin(1, "one")).await.unwrap();
    subject.consensus.log_pin(pin(1, "again")).await.unwrap();
    subject.consensus.log_unpin(pin(1, "")).await.unwrap();
    assert!(!subject.consensus.pinset().contains(&cid(1)).unwrap());
    subject.consensus.log_pin(pin(1, "back")).await.unwrap();
    assert!(subject.consensus.pinset().contains(&cid(1)).unwrap());
}

async fn unpinning_what_is_not_there_is_no_error(subject: Subject) {
    subject.consensus.log_unpin(pin(1, "")).await.unwrap();
}

async fn events_follow_the_order_of_writes(mut subject: Subject) {
    for n in 0..50 {
        subject.consensus.log_pin(pin(n, "")).await.unwrap();
    }
    subject.consensus.log_unpin(pin(7, "")).await.unwrap();
    for n in 0..50 {
        match next_event(&mut subject.events, "a pin").await {
            PinsetEvent::Pinned(pin) => assert_eq!(pin.cid, cid(n)),
            PinsetEvent::Unpinned(cid) => panic!("{cid} was unpinned too early"),
        }
    }
    assert!(
        matches!(next_event(&mut subject.events, "the unpin").await, PinsetEvent::Unpinned(c) if c == cid(7))
    );
}

async fn after_stopping_nothing_is_accepted(subject: Subject) {
    subject.consensus.log_pin(pin(1, "one")).await.unwrap();
    subject.consensus.stop().await.unwrap();
    assert!(subject.consensus.log_pin(pin(2, "two")).await.is_err());
    subject.consensus.stop().await.unwrap();
    drop(subject.guard);
}
