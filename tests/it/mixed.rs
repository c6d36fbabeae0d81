//! The same questions to every peer of a cluster of originals and ours: who is asked makes no difference, while all
//! are well and while one is frozen, gone or without its daemon. Skipped where `IPFS_CLUSTER_GO` is not set.
//!
//! Each test prints a row for each question: `same`, or the answers that differ.

use futures::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, timeout};

use crate::lab::{Kind, LIMIT, Lab, kinds, original, until};
use crate::support::{Peer, cid, send};

/// Longer than any answer may take: who hangs is told as such.
const ANSWER_LIMIT: Duration = Duration::from_secs(25);

/// Whatever a cluster is asked of itself.
fn everything() -> Vec<(&'static str, String)> {
    let (everywhere, one, none) = (cid(1), cid(2), cid(3));
    let ask = [
        ("GET", "/peers".to_owned()),
        ("GET", format!("/pins/{everywhere}")),
        ("GET", format!("/pins/{one}")),
        ("GET", format!("/pins/{none}")),
        ("GET", "/pins".to_owned()),
        ("GET", "/pins?filter=pinned".to_owned()),
        ("GET", "/pins?filter=cluster_error,pin_error,error".to_owned()),
        ("GET", "/allocations".to_owned()),
        ("GET", "/health/graph".to_owned()),
        ("POST", format!("/pins/{everywhere}/recover")),
        ("POST", format!("/pins/{one}/recover")),
        ("POST", format!("/pins/{none}/recover")),
        ("POST", "/pins/recover".to_owned()),
        ("POST", "/ipfs/gc".to_owned()),
        ("GET", "/monitor/metrics".to_owned()),
        ("GET", "/monitor/metrics/ping".to_owned()),
        ("GET", "/monitor/metrics/freespace".to_owned()),
        ("GET", "/monitor/metrics/pinqueue".to_owned()),
    ];
    ask.into()
}

/// What the reference answers in bounded time while a member that pinged just now is silent.
fn bounded() -> Vec<(&'static str, String)> {
    let asked = everything().into_iter();
    asked
        .filter(|(_, target)| target == "/peers" || target == "/allocations" || target.starts_with("/pins/b"))
        .collect()
}

/// A cluster with two pins: one everywhere, one for the last peer alone.
async fn start(mut lab: Lab, kinds: &[Kind]) -> Lab {
    lab.join_all(kinds).await;
    let (cid, name) = lab.pin(0, 1).await;
    let mut expected = std::collections::BTreeMap::from([(cid, name)]);
    let (cid, last) = (crate::support::cid(2), lab.ids.last().unwrap());
    let target = format!("/pins/{cid}?name=n2&replication=1&user-allocations={last}");
    let is_known = until(LIMIT, async || {
        let mut is_known = true;
        for (_, peer) in &lab.peers {
            for name in ["freespace", "pinqueue", "tag:group"] {
                let metrics = peer.rest("GET", &format!("/monitor/metrics/{name}")).await.text();
                is_known &= lab.ids.iter().all(|id| metrics.contains(id));
            }
        }
        is_known
    });
    is_known.await.expect("each peer knows all metrics of all");
    let reply = lab.peers[0].1.rest("POST", &target).await.text();
    assert!(reply.contains(&format!(r#""allocations":["{last}"]"#)), "{reply}");
    expected.insert(cid.to_string(), "n2".to_owned());
    lab.all_list(&expected).await;
    let settled = until(LIMIT, async || {
        let mut is_settled = true;
        for (_, peer) in &lab.peers {
            let status = peer.rest("GET", "/pins").await.text();
            is_settled &= status.matches(r#""status":"pinned""#).count() == kinds.len() + 1;
            is_settled &= status.matches(r#""status":"remote""#).count() == kinds.len() - 1;
            is_settled &= peer.rest("GET", "/peers").await.documents().len() == kinds.len();
        }
        is_settled
    });
    settled.await.expect("every peer sees every pin pinned");
    lab
}

/// Peers that are asked, and what they said differently.
struct Survey<'a> {
    lab: &'a Lab,
    asked: Vec<usize>,
    n_different: usize,
}

impl<'a> Survey<'a> {
    fn of(lab: &'a Lab, asked: impl IntoIterator<Item = usize>) -> Self {
        Self { lab, asked: asked.into_iter().collect(), n_different: 0 }
    }

    /// Asks each question of all at the same time.
    async fn ask(&mut self, situation: &str, questions: &[(&'static str, String)]) {
        let (lab, asked) = (self.lab, &self.asked);
        let rows = questions.iter().map(|(method, target)| async move {
            let started = Instant::now();
            let answers = asked.iter().map(|at| answer(&lab.peers[*at].1, method, target));
            (method, target, join_all(answers).await, started.elapsed())
        });
        // what changes something is asked alone
        let mut rows: Vec<_> = match questions.iter().any(|(method, _)| *method == "POST") {
            false => join_all(rows).await,
            true => {
                let mut answers = Vec::new();
                for row in rows {
                    answers.push(row.await);
                }
                answers
            }
        };
        for (method, target, answers, took) in &mut rows {
            let is_same = answers.windows(2).all(|pair| pair[0] == pair[1]);
            let verdict = if is_same { "same" } else { "DIFFERENT" };
            eprintln!("| {situation} | {method} {target} | {verdict} | {took:.1?} |");
            if !is_same {
                self.n_different += 1;
                for (at, answer) in self.asked.iter().zip(answers) {
                    eprintln!("    {at} {:?}: {answer}", self.lab.peers[*at].0);
                }
            }
        }
    }

    /// Asks until all say the same, for what spreads with the next metric.
    async fn settles(&mut self, situation: &str, questions: &[(&'static str, String)]) {
        for (method, target) in questions {
            let _ = until(Duration::from_secs(20), async || {
                let answers = self.asked.iter().map(|at| answer(&self.lab.peers[*at].1, method, target));
                join_all(answers).await.windows(2).all(|pair| pair[0] == pair[1])
            })
            .await;
        }
        self.ask(situation, questions).await;
    }

    fn end(self) {
        assert_eq!(self.n_different, 0, "questions whose answers differ; see above");
    }
}

/// The code and the documents of an answer, without what differs from moment to moment.
async fn answer(peer: &Peer, method: &str, target: &str) -> Value {
    let client = peer.client("rest");
    let reply = match timeout(ANSWER_LIMIT, send(&client, method, target)).await {
        Err(_) => return json!("no answer"),
        Ok(Err(cause)) => return json!(format!("cut off: {cause}")),
        Ok(Ok(reply)) => reply,
    };
    let mut documents: Value = reply.documents().into();
    normalise(&mut documents);
    json!([reply.status, documents])
}

/// Times, and the order of what has none.
fn normalise(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let is_of_the_moment =
                    ["timestamp", "created", "cluster_id", "expire", "received_at", "triggered_at"];
                if is_of_the_moment.contains(&key.as_str()) {
                    *value = Value::Null;
                }
                // the words depend on when and how often each peer has dialled, and whether the connection was still
                // there when it asked; among originals too
                let is_unreachable = |error: &str| {
                    error.starts_with("failed to dial: ")
                        || error == "context deadline exceeded"
                        || error.contains("stream reset")
                        || error.contains("connection closed")
                };
                if key == "error" && value.as_str().is_some_and(is_unreachable) {
                    *value = "unreachable".into();
                }
                normalise(value);
            }
        }
        Value::Array(list) => {
            list.iter_mut().for_each(normalise);
            list.sort_by_key(Value::to_string);
        }
        _ => {}
    }
}

fn signal(peer: &Peer, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(peer.pid()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Stops a process, and waits until it has: it may answer until then.
async fn freeze(peer: &Peer) {
    signal(peer, Signal::STOP);
    let threads = format!("/proc/{}/task", peer.pid());
    let are_stopped = until(LIMIT, async || {
        std::fs::read_dir(&threads).unwrap().all(|thread| {
            let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
        })
    });
    are_stopped.await.expect("every thread stops");
}

async fn all_are_well(letters: &str) {
    let Some(go) = original() else { return };
    let kinds = kinds(letters);
    let lab = start(Lab::new(go), &kinds).await;
    let mut survey = Survey::of(&lab, 0..kinds.len());
    survey.ask(&format!("{letters}: all well"), &everything()).await;
    survey.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_three_and_five_peers_give_the_same_answers() {
    for letters in ["og", "gog", "ogogo"] {
        all_are_well(letters).await;
    }
}

/// The last one freezes, comes back and is killed; the others are asked.
async fn the_last_one_freezes_and_dies(letters: &str) {
    let Some(go) = original() else { return };
    let kinds = kinds(letters);
    let mut lab = start(Lab::new(go), &kinds).await;
    let last = kinds.len() - 1;
    let mut n_different = 0;

    freeze(&lab.peers[last].1).await;
    let mut survey = Survey::of(&lab, 0..last);
    // all at once: its ping is good for two seconds
    let questions: Vec<_> = bounded().into_iter().filter(|(method, _)| *method == "GET").collect();
    survey.ask(&format!("{letters}: last frozen"), &questions).await;
    survey.settles(&format!("{letters}: last frozen, ping over"), &everything()).await;
    n_different += survey.n_different;

    signal(&lab.peers[last].1, Signal::CONT);
    lab.connected().await;
    let mut survey = Survey::of(&lab, 0..kinds.len());
    survey.settles(&format!("{letters}: last back"), &everything()).await;
    n_different += survey.n_different;

    lab.peers[last].1.kill();
    let mut survey = Survey::of(&lab, 0..last);
    survey.ask(&format!("{letters}: last killed"), &questions).await;
    survey.settles(&format!("{letters}: last killed, ping over"), &everything()).await;
    let gone = &lab.ids[last];
    // an original tells of nothing after its first alert of a ping (core Q3)
    for (kind, peer) in &lab.peers[..last] {
        let names: &[&str] = if *kind == Kind::Ours { &["ping", "freespace", "pinqueue"] } else { &["ping"] };
        let mut alerts = Vec::new();
        let alerted = until(Duration::from_secs(40), async || {
            alerts = peer.rest("GET", "/health/alerts").await.documents();
            let alerts = alerts[0].as_array().unwrap();
            let tells =
                |name| alerts.iter().any(|alert| alert["name"] == name && alert["peer"] == gone.as_str());
            names.iter().all(|name| tells(*name))
        });
        assert!(alerted.await.is_some(), "{kind:?} does not tell of {names:?}: {alerts:?}");
    }
    n_different += survey.n_different;
    assert_eq!(n_different, 0, "questions whose answers differ; see above");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_original_that_freezes_and_dies_is_the_same_to_all() {
    the_last_one_freezes_and_dies("ogg").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_ours_that_freezes_and_dies_is_the_same_to_all() {
    the_last_one_freezes_and_dies("goo").await;
}

/// The daemon of the last one ends.
async fn the_last_daemon_ends(letters: &str) {
    let Some(go) = original() else { return };
    let kinds = kinds(letters);
    let mut lab = Lab::new(go);
    // a ping of an original waits a second for a daemon that is down
    lab.ping_every = Duration::from_secs(4);
    let mut lab = start(lab, &kinds).await;
    lab.daemons.pop().unwrap().stop().await;
    let mut survey = Survey::of(&lab, 0..kinds.len());
    survey.settles(&format!("{letters}: last daemon down"), &everything()).await;
    survey.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_without_its_daemon_is_the_same_to_all() {
    for letters in ["ogg", "goo"] {
        the_last_daemon_ends(letters).await;
    }
}
