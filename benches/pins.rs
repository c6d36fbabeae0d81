//! What a pin costs: to acknowledge, to list, to encode. `cargo bench --bench pins`.
//!
//! The last lines give processor time per pin, which wall-clock figures hide behind the disk.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark stops where something fails")]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cluster_compat::config;
use cluster_compat::go::json;
use cluster_compat::types::{Document, PeerId, Pin};
use divan::Bencher;
use divan::counter::ItemsCount;
use futures::StreamExt;
use ipfs_cluster::consensus::Consensus;
use ipfs_cluster::consensus::crdt::offline::{self, Overrides};
use ipfs_cluster::consensus::crdt::{Crdt, CrdtArgs, SetReads};
use ipfs_cluster::state::{self, Pinset};
use ipfs_cluster::store::Db;
use ipfs_cluster::task::{GRACE, Tasks};
use ipfs_cluster::wire::{crdt_pb, pin, pin_pb};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

const MAP_SIZE_BYTES: u64 = 1 << 34;

/// Pins that are listed.
const N_LISTED: u64 = 100_000;

/// Pins one round of writers writes.
const N_WRITTEN: u64 = 4096;

fn main() {
    divan::main();
    if std::env::args().any(|argument| argument == "--bench") && std::env::args().count() <= 2 {
        processor_time();
    }
}

fn sample(n: u64) -> Pin {
    let mut pin = Pin::new(crdt_pb::node_cid(&n.to_be_bytes()));
    pin.options.name = format!("pin number {n}");
    pin.options.replication_factor_min = -1;
    pin.options.replication_factor_max = -1;
    pin
}

fn samples(range: std::ops::Range<u64>) -> impl Iterator<Item = Result<Pin, state::Error>> {
    range.map(|n| Ok(sample(n)))
}

struct Peer {
    runtime: Runtime,
    crdt: Arc<Crdt>,
    tasks: Tasks,
}

impl Peer {
    fn start(folder: &Path) -> Self {
        let runtime = Runtime::new().unwrap();
        let tasks = Tasks::new();
        let crdt = {
            let _inside = runtime.enter();
            let (events, mut heard) = mpsc::channel(1024);
            tasks.spawn("listener", async move { while heard.recv().await.is_some() {} });
            Crdt::start(CrdtArgs {
                config: config::Crdt::default(),
                peer: PeerId::random(),
                db: Db::open(folder, MAP_SIZE_BYTES).unwrap(),
                network: None,
                members: Arc::new(Vec::new),
                events,
                tasks: tasks.clone(),
                trusted: Vec::new(),
            })
            .unwrap()
        };
        Self { runtime, crdt, tasks }
    }

    /// `n_writers` tasks write the pins of a range between them.
    fn write(&self, range: std::ops::Range<u64>, n_writers: u64) {
        let writers = (0..n_writers).map(|writer| {
            let crdt = Arc::clone(&self.crdt);
            let mine = range.clone().skip(writer as usize).step_by(n_writers as usize);
            async move {
                for n in mine {
                    crdt.log_pin(sample(n)).await.unwrap();
                }
            }
        });
        self.runtime.block_on(futures::future::join_all(writers));
    }

    fn stop(self) {
        self.runtime.block_on(async {
            self.crdt.stop().await.unwrap();
            self.tasks.stop();
            self.tasks.join(GRACE).await;
        });
    }
}

#[divan::bench(args = [1, 64], sample_count = 5, sample_size = 1)]
fn pins_acknowledged(bencher: Bencher, n_writers: u64) {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(folder.path());
    let mut start = 0;
    let n_written = if n_writers == 1 { N_WRITTEN / 8 } else { N_WRITTEN };
    bencher.counter(ItemsCount::new(n_written)).bench_local(|| {
        peer.write(start..start + n_written, n_writers);
        start += n_written;
    });
    peer.stop();
}

/// A pinset on disk.
fn listed(folder: &Path) -> Pinset {
    let db = Db::open(folder, MAP_SIZE_BYTES).unwrap();
    offline::import(&db, samples(0..N_LISTED), &Overrides::default(), &std::env::temp_dir()).unwrap();
    Pinset::new(Arc::new(SetReads(db)))
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn pins_listed(bencher: Bencher) {
    let folder = tempfile::tempdir().unwrap();
    let pinset = listed(folder.path());
    let runtime = Runtime::new().unwrap();
    bencher.counter(ItemsCount::new(N_LISTED)).bench_local(|| {
        let n_pins = runtime
            .block_on(pinset.stream().fold(0, |n, pin| std::future::ready(n + u64::from(pin.is_ok()))));
        assert_eq!(n_pins, N_LISTED);
    });
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn pins_exported(bencher: Bencher) {
    let folder = tempfile::tempdir().unwrap();
    let pinset = listed(folder.path());
    bencher
        .counter(ItemsCount::new(N_LISTED))
        .bench_local(|| state::export(&pinset, std::io::sink()).unwrap());
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn pins_imported(bencher: Bencher) {
    let folder = tempfile::tempdir().unwrap();
    let mut lines = Vec::new();
    state::export(&listed(folder.path()), &mut lines).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(folder.path(), MAP_SIZE_BYTES).unwrap();
    bencher.counter(ItemsCount::new(N_LISTED)).bench_local(|| {
        offline::import(&db, state::import(&lines[..]), &Overrides::default(), &std::env::temp_dir()).unwrap()
    });
}

#[divan::bench]
fn point_read(bencher: Bencher) {
    let folder = tempfile::tempdir().unwrap();
    let pinset = listed(folder.path());
    let cid = sample(17).cid;
    bencher.bench_local(|| pinset.get(&cid).unwrap().unwrap());
}

#[divan::bench]
fn json_of_a_pin(bencher: Bencher) {
    let pin = sample(1);
    bencher.bench_local(|| json::to_vec(&pin));
}

/// A row of `GET /allocations`, which writes itself.
#[divan::bench]
fn row_of_a_pin(bencher: Bencher) {
    let pin = sample(1);
    let mut row = Vec::new();
    bencher.bench_local(move || {
        row.clear();
        pin.write_json(&mut row);
        row.len()
    });
}

#[divan::bench]
fn protobuf_of_a_pin(bencher: Bencher) {
    let pin = sample(1);
    bencher.bench_local(|| pin_pb::encode(&pin));
}

#[divan::bench]
fn pin_of_protobuf(bencher: Bencher) {
    let value = pin_pb::encode(&sample(1));
    bencher.bench_local(|| pin_pb::decode(&value).unwrap());
}

#[divan::bench]
fn msgpack_of_a_pin(bencher: Bencher) {
    let pin = sample(1);
    bencher.bench_local(|| pin::encode(&pin));
}

#[divan::bench]
fn pin_of_msgpack(bencher: Bencher) {
    let data = pin::encode(&sample(1));
    bencher.bench_local(|| pin::decode(&data).unwrap());
}

/// User and system time of this process so far, in seconds (Linux: ticks of 10 ms).
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 =
        fields.get(11..13).unwrap_or_default().iter().filter_map(|t| t.parse::<f64>().ok()).sum();
    ticks / 100.0
}

fn processor_time() {
    for (n_writers, n_pins) in [(1, 10_000), (64, 50_000)] {
        let folder = tempfile::tempdir().unwrap();
        let peer = Peer::start(folder.path());
        let (before, started) = (processor_seconds(), Instant::now());
        peer.write(0..n_pins, n_writers);
        let (spent, wall) = (processor_seconds() - before, started.elapsed());
        peer.stop();
        let (micros, rate) = (spent * 1e6 / n_pins as f64, n_pins as f64 / wall.as_secs_f64());
        println!("{n_writers} writers: {micros:.1} µs of processor time per pin, {rate:.0} pins/s");
    }
    let folder = tempfile::tempdir().unwrap();
    let pinset = listed(folder.path());
    let runtime = Runtime::new().unwrap();
    let before = processor_seconds();
    for _ in 0..10 {
        runtime.block_on(pinset.stream().for_each(|_| std::future::ready(())));
    }
    let micros = (processor_seconds() - before) * 1e6 / (10 * N_LISTED) as f64;
    println!("listing: {micros:.2} µs of processor time per pin");
}
