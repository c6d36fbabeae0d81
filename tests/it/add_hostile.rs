//! Uploads that are cut, corrupt or made to hurt, to a whole peer, through both faces: each is refused in words, nothing
//! is pinned, and the peer goes on, in little memory.

use std::time::{Duration, Instant};

use cluster_compat::testing::kubo::FakeKubo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::attacks::{self, Attack, Expect, form, named, part};
use crate::raw::{Answer, Body, exchange};
use crate::support::{Peer, eventually};
use crate::{attack_cars, raw};

/// What a peer may hold at most while it is under attack: with debug code, and a section of 32 MiB more than once.
const MAX_GROWTH_KIB: u64 = 384 << 10;

/// How long one attack may take: nothing small costs seconds.
const MAX_TIME: Duration = Duration::from_secs(40);

/// The two faces, and how each answers.
const WAYS: [(&str, &str); 4] = [
    ("rest", "/add?stream-channels=true"),
    ("rest", "/add?stream-channels=false"),
    ("proxy", "/api/v0/add?stream-channels=true"),
    ("proxy", "/api/v0/add?stream-channels=false"),
];

/// A line of `/proc/<pid>/status` in KiB.
fn memory(peer: &Peer, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", peer.pid())).unwrap();
    let value = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    value.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

fn open_files(peer: &Peer) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", peer.pid())).unwrap().count()
}

async fn started(daemon: &FakeKubo, change: impl FnOnce(&mut serde_json::Value)) -> Peer {
    let mut peer = Peer::init(daemon, change);
    peer.start().await;
    peer
}

/// Whether what came back is what was expected; otherwise why not.
fn judge(expect: Expect, answer: &Answer) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{why}: {answer:.2000?}"));
    match expect {
        Expect::Broken if answer.status == 0 || answer.status == 400 => Ok(()),
        Expect::Broken => wrong("no refusal"),
        Expect::Refused(text) => match answer.failure() {
            Some(failure) if !failure.trim().is_empty() && failure.contains(text) => Ok(()),
            Some(_) => wrong(&format!("refused without {text:?}")),
            None => wrong(&format!("not refused with {text:?}")),
        },
        Expect::Accepted(text) => {
            if answer.status != 200 || answer.failure().is_some() || !answer.is_whole {
                return wrong("refused");
            }
            if answer.body.contains(text) { Ok(()) } else { wrong(&format!("accepted without {text:?}")) }
        }
    }
}

async fn attack(peer: &Peer, daemon: &FakeKubo, attacks: &[Attack]) {
    let wanted = std::env::var("ADD_ATTACK").ok();
    let before = memory(peer, "VmRSS");
    let mut failures = Vec::new();
    let mut growth = Vec::new();
    for attack in attacks {
        let most = memory(peer, "VmHWM");
        if wanted.as_ref().is_some_and(|wanted| !attack.name.contains(wanted.as_str())) {
            continue;
        }
        for (face, path) in WAYS {
            // what is accepted is not pinned either, so that every pin is a fault
            let pin = if matches!(attack.expect, Expect::Accepted(_)) { "&no-pin=true" } else { "" };
            let target = format!("{path}{}{pin}", attack.options);
            let since = Instant::now();
            let answer = exchange(&peer.path(face), &target, &attack.kind, &attack.body).await;
            let took = since.elapsed();
            let mut fails = |why: String| failures.push(format!("{}, {face} {target}: {why}", attack.name));
            if let Err(why) = judge(attack.expect, &answer) {
                fails(why);
            }
            if took > MAX_TIME {
                fails(format!("took {took:.1?}"));
            }
            let pins = peer.rest("GET", "/allocations").await;
            if pins.status != 200 && pins.status != 204 || !pins.body.is_empty() || !daemon.pins().is_empty()
            {
                fails(format!("pinned: {} {}", pins.status, pins.text()));
                // the next are not to blame
                for cid in peer.pins().await.into_keys() {
                    peer.rest("DELETE", &format!("/pins/{cid}")).await;
                }
                eventually("the daemon unpins", async || daemon.pins().is_empty()).await.unwrap();
            }
        }
        growth.push((memory(peer, "VmHWM").saturating_sub(most), &attack.name));
    }
    growth.sort_unstable();
    growth.reverse();
    growth.truncate(5);
    let most = memory(peer, "VmHWM");
    let n_failures = failures.len();
    assert!(failures.is_empty(), "{n_failures} failures\n{}", failures.join("\n"));
    assert!(most < before + MAX_GROWTH_KIB, "from {before} to {most} KiB, most by {growth:?}");
    assert_eq!(peer.logged("panicked"), Vec::<String>::new());
    eprintln!("{} attacks in {} ways; from {before} to {most} KiB", attacks.len(), WAYS.len());
}

/// An ordinary upload still goes through all.
async fn is_well(peer: &Peer, daemon: &FakeKubo) {
    for (face, path) in WAYS {
        let body = Body::Whole(form(&[part(&named("fine"), face)]));
        let answer = exchange(&peer.path(face), path, "multipart/form-data; boundary=b", &body).await;
        assert!(answer.status == 200 && answer.failure().is_none(), "{answer:?}");
    }
    eventually("the daemon pins", async || daemon.pins().len() == 2).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_forms_are_refused_in_words_and_harm_nobody() {
    let daemon = FakeKubo::start().await.unwrap();
    let mut peer = started(&daemon, |_| {}).await;
    attack(&peer, &daemon, &attacks::all()).await;
    is_well(&peer, &daemon).await;
    assert!(peer.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_cars_are_refused_in_words_and_harm_nobody() {
    let daemon = FakeKubo::start().await.unwrap();
    let mut peer = started(&daemon, |_| {}).await;
    attack(&peer, &daemon, &attack_cars::all()).await;
    is_well(&peer, &daemon).await;
    assert!(peer.stop().await.success());
}

#[test]
fn there_are_more_than_a_hundred_kinds_of_hostile_bodies() {
    let mut names: Vec<_> =
        attacks::all().into_iter().chain(attack_cars::all()).map(|attack| attack.name).collect();
    let n = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), n, "two have one name");
    assert!(n > 200, "{n}");
}

/// The start of an upload of several files, some of them large, none of it compressible.
fn long_form() -> Vec<u8> {
    let mut state = 1u64;
    let mut noise = |n: usize| -> Vec<u8> {
        let word = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 32) as u32
        });
        word.take(n / 4).flat_map(u32::to_le_bytes).collect()
    };
    let files = [("a", 10_000), ("d%2Fb", 700_000), ("d%2Fc", 100), ("e", 1_500_000)];
    form(&files.map(|(name, n)| part(&named(name), noise(n))))
}

/// T45: a client that goes away, at twenty places of its upload, while it is answered and while it is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_leaves_nothing() {
    const N_PLACES: usize = 20;
    let daemon = FakeKubo::start().await.unwrap();
    let mut peer = started(&daemon, |_| {}).await;
    let form = long_form();
    let leave = async |face: &str, path: &str, at: usize| {
        let mut stream = UnixStream::connect(peer.path(face)).await.unwrap();
        let head = format!(
            "POST {path}&progress=true&wrap-with-directory=true HTTP/1.1\r\nHost: x\r\n\
             Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {}\r\n\r\n",
            form.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&form[..at]).await.unwrap();
        if at > 0 && at.is_multiple_of(2) && path.ends_with("true") {
            // in the middle of the answer
            let _ = tokio::time::timeout(raw::LIMIT, stream.read(&mut [0; 64])).await.unwrap();
        }
    };
    // connections to the daemon are kept, so that the first round says how many there are
    for (face, path) in WAYS {
        leave(face, path, form.len() / 2).await;
    }
    let base = open_files(&peer) + 4;
    for n in 0..N_PLACES {
        // never the whole form: its end is missing
        let at = (form.len() - 20) * n / (N_PLACES - 1);
        for (face, path) in WAYS {
            leave(face, path, at).await;
        }
    }
    let mut n_open = 0;
    let closed = eventually("what the clients had open is closed", async || {
        n_open = open_files(&peer);
        n_open <= base
    });
    closed.await.unwrap_or_else(|missing| panic!("{missing}: {n_open} of {base}"));
    let pins = peer.rest("GET", "/allocations").await;
    assert!(pins.body.is_empty() && daemon.pins().is_empty(), "{}", pins.text());
    // what a task left behind would hold
    let puts = daemon.saw("block/put").len();
    assert_eq!(peer.logged("panicked"), Vec::<String>::new());
    is_well(&peer, &daemon).await;
    eprintln!(
        "{} clients left, {puts} block/put ended, {n_open} files open, {base} at first",
        N_PLACES * WAYS.len()
    );
    assert!(peer.stop().await.success());
}

/// A client that stops sending has the time the operator gives a request; one that is only slow has all of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_sending_is_left_after_its_time() {
    let daemon = FakeKubo::start().await.unwrap();
    let mut peer = started(&daemon, |config| {
        config["api"]["restapi"]["read_timeout"] = "3s".into();
        config["api"]["ipfsproxy"]["read_timeout"] = "3s".into();
        config["ipfs_connector"]["ipfshttp"]["ipfs_request_timeout"] = "1s".into();
    })
    .await;
    let form = long_form();
    let send = async |face: &str, path: &str, pause: Option<Duration>| {
        let stream = UnixStream::connect(peer.path(face)).await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {}\r\n\r\n",
            form.len()
        );
        write.write_all(head.as_bytes()).await.unwrap();
        write.write_all(&form[..form.len() / 2]).await.unwrap();
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
            write.write_all(&form[form.len() / 2..]).await.unwrap();
        }
        let mut bytes = Vec::new();
        let ended = tokio::time::timeout(raw::LIMIT, read.read_to_end(&mut bytes)).await;
        let _ = ended.unwrap_or_else(|_| panic!("{face} {path} waits for ever"));
        Answer::parse(&bytes)
    };
    for (face, path) in WAYS {
        let answer = send(face, path, None).await;
        assert!(answer.failure().is_some() || !answer.is_whole, "{face} {path}: {answer:?}");
    }
    let pins = peer.rest("GET", "/allocations").await;
    assert!(pins.body.is_empty() && daemon.pins().is_empty(), "{}", pins.text());
    // longer than the daemon may be silent
    for (face, path) in WAYS {
        let answer = send(face, path, Some(Duration::from_millis(1800))).await;
        assert!(answer.status == 200 && answer.failure().is_none(), "{face} {path}: {answer:?}");
    }
    assert!(peer.stop().await.success());
}
