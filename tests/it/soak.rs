//! Three of our peers under pins and unpins for a long time, one of them restarting every minute, killed and stopped
//! by turns: the other two must not grow. Runs for `SOAK_MINUTES`, skipped without; prints what it measured.
//!
//! ```text
//! SOAK_MINUTES=20 IPFS_CLUSTER_SERVICE=target/release/ipfs-cluster-service cargo test --test it soak -- --nocapture
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cluster_compat::testing::kubo::FakeKubo;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use crate::support::{Peer, SECRET, cid, eventually, free_port, send, set_member};

/// The one that restarts is the last.
const N_PEERS: usize = 3;

/// Clients that pin and unpin at the same time.
const N_CLIENTS: usize = 4;

/// Pause of a client between two requests.
const PAUSE: Duration = Duration::from_millis(200);

/// Pins at any time; what is older is unpinned.
const N_PINS: usize = 300;

/// Pause between two restarts.
const RESTART_EVERY: Duration = Duration::from_secs(60);

/// Pause between two samples of a peer, that of its own log line too.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);

/// What a peer uses.
#[derive(Debug, Clone, Copy)]
struct Sample {
    anon_kib: usize,
    rss_kib: usize,
    threads: usize,
    files: usize,
    tasks: usize,
    inbound: usize,
    outbound: usize,
}

/// The last number that follows a text.
fn number_after(text: &str, name: &str) -> Option<usize> {
    let (_, rest) = text.rsplit_once(name)?;
    let rest = rest.trim_start();
    rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
}

fn sample(peer: &Peer) -> Option<Sample> {
    let proc = format!("/proc/{}", peer.pid());
    let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
    let vitals = peer.logged("vitals: ").pop()?;
    let of_status = |name| number_after(&status, name).unwrap();
    let of_vitals = |name| number_after(&vitals, name).unwrap();
    Some(Sample {
        anon_kib: of_status("RssAnon:"),
        rss_kib: of_status("VmRSS:"),
        threads: of_status("Threads:"),
        files: std::fs::read_dir(format!("{proc}/fd")).unwrap().count(),
        tasks: of_vitals("tasks="),
        inbound: of_vitals("inbound="),
        outbound: of_vitals("outbound="),
    })
}

/// Pins and unpins at the peers that stay, and at the third while it is up, until told to end.
struct Load {
    clients: Vec<reqwest::Client>,
    pins: Mutex<VecDeque<String>>,
    next: AtomicUsize,
    n_lost: AtomicUsize,
    is_over: AtomicBool,
}

impl Load {
    async fn run(&self) {
        let client = async || {
            while !self.is_over.load(Ordering::Relaxed) {
                self.request().await;
                sleep(PAUSE).await;
            }
        };
        futures::future::join_all((0..N_CLIENTS).map(|_| client())).await;
    }

    async fn request(&self) {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let at = n % N_PEERS;
        let oldest = {
            let mut pins = self.pins.lock().await;
            if pins.len() > N_PINS { pins.pop_front() } else { None }
        };
        let (method, target, cid) = match &oldest {
            Some(cid) => ("DELETE", format!("/pins/{cid}"), cid.clone()),
            None => {
                let cid = cid(n).to_string();
                let factors = if n.is_multiple_of(2) { "" } else { "&replication=2" };
                ("POST", format!("/pins/{cid}?name=n{n}{factors}"), cid)
            }
        };
        match send(&self.clients[at], method, &target).await {
            Ok(reply) if reply.status == 200 && oldest.is_none() => self.pins.lock().await.push_back(cid),
            Ok(reply) if reply.status == 200 => {}
            // the third is away, or has not heard of it yet
            reply if at + 1 == N_PEERS => {
                drop(reply);
                self.n_lost.fetch_add(1, Ordering::Relaxed);
                if oldest.is_some() {
                    self.pins.lock().await.push_back(cid);
                }
            }
            Ok(reply) => {
                eprintln!("peer {at}: {method} {target}: {} {}", reply.status, reply.text());
                self.n_lost.fetch_add(1, Ordering::Relaxed);
            }
            Err(failure) => panic!("peer {at}: {method} {target}: {failure:?}"),
        }
        // what operators' tools ask all the time
        if n.is_multiple_of(25) {
            for target in ["/pins", "/peers", "/health/graph", "/id"] {
                let _ = send(&self.clients[n / 25 % 2], "GET", target).await;
            }
        }
    }
}

/// The middle of what a sequence of samples says.
fn median(samples: &[Sample], read: fn(&Sample) -> usize) -> usize {
    let mut values: Vec<usize> = samples.iter().map(read).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// Compares the time after the warm-up with the end.
fn check(at: usize, samples: &[Sample]) -> Vec<String> {
    let n = samples.len();
    // a fifth is warm-up; then the first and the last quarter of what is left
    let measured = &samples[n / 5..];
    let quarter = measured.len() / 4;
    let (early, late) = (&measured[..quarter], &measured[measured.len() - quarter..]);
    type Read = fn(&Sample) -> usize;
    let rows: [(&str, Read, usize); 7] = [
        ("anonymous memory (KiB)", |sample| sample.anon_kib, 8 << 10),
        ("resident memory (KiB)", |sample| sample.rss_kib, 32 << 10),
        ("threads", |sample| sample.threads, 4),
        ("open files", |sample| sample.files, 8),
        ("tasks", |sample| sample.tasks, 10),
        ("inbound streams", |sample| sample.inbound, 16),
        ("outbound streams", |sample| sample.outbound, 16),
    ];
    let mut grown = Vec::new();
    for (what, read, slack) in rows {
        let (before, after) = (median(early, read), median(late, read));
        eprintln!("peer {at}: {what}: {before} after the warm-up, {after} at the end");
        if after > before + before / 10 + slack {
            grown.push(format!("peer {at}: {what} grew from {before} to {after}"));
        }
    }
    grown
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_do_not_grow_while_one_restarts_again_and_again() {
    let Some(minutes) = std::env::var("SOAK_MINUTES").ok().and_then(|text| text.parse::<u64>().ok()) else {
        eprintln!("skipped: SOAK_MINUTES is not set");
        return;
    };
    let (mut daemons, mut peers, mut addrs) = (Vec::new(), Vec::<Peer>::new(), Vec::new());
    for _ in 0..N_PEERS {
        let daemon = FakeKubo::start().await.unwrap();
        let port = free_port();
        let mut peer = Peer::init(&daemon, |config| {
            set_member(config, SECRET);
            config["cluster"]["peer_addresses"] = json!(addrs);
            config["cluster"]["listen_multiaddress"] = json!([format!("/ip4/127.0.0.1/tcp/{port}")]);
        });
        peer.set_loglevel("info,service:debug");
        peer.start().await;
        addrs.push(peer.id_and_addr().await.1);
        daemons.push(daemon);
        peers.push(peer);
    }
    let load = Load {
        clients: peers.iter().map(|peer| peer.client("rest")).collect(),
        pins: Mutex::default(),
        next: AtomicUsize::new(0),
        n_lost: AtomicUsize::new(0),
        is_over: AtomicBool::new(false),
    };
    let started = Instant::now();
    let end = started + Duration::from_secs(60 * minutes);
    let mut restarting = peers.pop().unwrap();
    let mut n_restarts = 0;
    let restarts = async {
        loop {
            let next = Instant::now() + RESTART_EVERY;
            if next >= end {
                break;
            }
            sleep_until(next).await;
            if n_restarts % 2 == 0 {
                restarting.kill();
            } else {
                restarting.stop().await;
            }
            restarting.start().await;
            n_restarts += 1;
        }
        sleep_until(end).await;
        load.is_over.store(true, Ordering::Relaxed);
    };
    let mut samples = vec![Vec::new(); peers.len()];
    let sampling = async {
        while !load.is_over.load(Ordering::Relaxed) {
            sleep(SAMPLE_EVERY).await;
            for (at, (peer, samples)) in peers.iter().zip(&mut samples).enumerate() {
                let Some(sample) = sample(peer) else { continue };
                if samples.len() % 6 == 0 {
                    eprintln!("peer {at} after {:.0?}: {sample:?}", started.elapsed());
                }
                samples.push(sample);
            }
        }
    };
    tokio::join!(load.run(), restarts, sampling);
    let (n_requests, n_lost) = (load.next.load(Ordering::Relaxed), load.n_lost.load(Ordering::Relaxed));
    eprintln!("{n_requests} requests, {n_lost} not acknowledged, {n_restarts} restarts");
    peers.push(restarting);
    // and they agree
    eventually("all peers have the same pins", async || {
        let first = peers[0].pins().await;
        peers[1].pins().await == first && peers[2].pins().await == first
    })
    .await
    .unwrap();
    let grown: Vec<String> = samples.iter().enumerate().flat_map(|(at, all)| check(at, all)).collect();
    assert!(grown.is_empty(), "{grown:#?}");
    for peer in &mut peers {
        assert!(peer.stop().await.success(), "{}", peer.log());
    }
}
