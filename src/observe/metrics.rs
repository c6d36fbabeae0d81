//! What is counted, and how it is written for Prometheus (spec: metrics).
//!
//! ```text
//!   rooms ──add, set──▶ statics of atomics ◀──read── the page, when it is asked for
//! ```
//!
//! Counting is one relaxed atomic addition: no lock, no look-up, no label that is made at run time. All families and
//! their labels are known when this is compiled. The counters are the process's; what belongs to one peer (its pinset,
//! its swarm) is asked of that peer by [`crate::daemon`], which writes the page.
//!
//! Counters have no `_total` behind their names, because dashboards know them without.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Something that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// At zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Something that grows and shrinks.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// At zero.
    pub const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    /// So many more, or fewer.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// From now on so many.
    pub fn set(&self, n: i64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// How many there are.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bounds of sizes in bytes.
pub const BYTES: [u64; 13] = [
    1024,
    2048,
    4096,
    16384,
    65536,
    262_144,
    1_048_576,
    4_194_304,
    16_777_216,
    67_108_864,
    268_435_456,
    1_073_741_824,
    4_294_967_296,
];

/// Bounds of latencies in microseconds; those of HTTP begin at [`N_RPC_ONLY`].
pub const LATENCIES: [u64; 39] = [
    10, 50, 100, 300, 600, 800, 1000, 2000, 3000, 4000, 5000, 6000, 8000, 10_000, 13_000, 16_000, 20_000,
    25_000, 30_000, 40_000, 50_000, 65_000, 80_000, 100_000, 130_000, 160_000, 200_000, 250_000, 300_000,
    400_000, 500_000, 650_000, 800_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000, 20_000_000, 50_000_000,
];

/// The last bound of latencies, which has no place in [`LATENCIES`] beside a count of its own.
pub(super) const LAST_LATENCY: u64 = 100_000_000;

/// Bounds of latencies that calls between peers have and HTTP has not.
pub const N_RPC_ONLY: usize = 6;

/// Sizes by bound; sums and counts come with them.
#[derive(Debug)]
pub struct Sizes {
    pub(super) buckets: [AtomicU64; BYTES.len()],
    pub(super) sum: Counter,
    pub(super) n: Counter,
}

impl Sizes {
    pub(super) const fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BYTES.len()], sum: Counter::new(), n: Counter::new() }
    }

    /// One of so many bytes.
    pub fn observe(&self, n_bytes: u64) {
        if let Some(bucket) = self.buckets.get(BYTES.partition_point(|bound| *bound < n_bytes)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.add(n_bytes);
        self.n.inc();
    }
}

/// Latencies by bound.
#[derive(Debug)]
pub struct Latencies {
    pub(super) buckets: [AtomicU64; LATENCIES.len() + 1],
    pub(super) sum_nanos: Counter,
    pub(super) n: Counter,
}

impl Latencies {
    pub(super) const fn new() -> Self {
        let buckets = [const { AtomicU64::new(0) }; LATENCIES.len() + 1];
        Self { buckets, sum_nanos: Counter::new(), n: Counter::new() }
    }

    /// One that took so long.
    pub fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let place = LATENCIES.partition_point(|bound| bound * 1000 < nanos);
        if place < LATENCIES.len() || nanos <= LAST_LATENCY * 1000 {
            self.buckets[place].fetch_add(1, Ordering::Relaxed);
        }
        self.sum_nanos.add(nanos);
        self.n.inc();
    }
}

/// Pin requests sent to the daemon.
pub static PIN_ADD: Counter = Counter::new();
/// Of those, failed.
pub static PIN_ADD_ERRORS: Counter = Counter::new();
/// Recursive and direct pins the daemon is believed to hold.
pub static IPFS_PINS: Gauge = Gauge::new();
/// `block/put` requests to the daemon.
pub static BLOCKS_PUT: Counter = Counter::new();
/// Of those, failed.
pub static BLOCKS_PUT_ERRORS: Counter = Counter::new();
/// Blocks sent in them.
pub static BLOCKS_ADDED: Counter = Counter::new();
/// Their bytes.
pub static BLOCKS_ADDED_SIZE: Counter = Counter::new();
/// Last weight of the disk informer.
pub static INFORMER_DISK: Gauge = Gauge::new();

/// Destinations of an add that failed while another succeeded: the add is a success, that peer lacks blocks.
pub static ADD_FAILED_DESTINATIONS: Counter = Counter::new();
/// Messages of topics that were taken in.
pub static GOSSIP_RECEIVED: Counter = Counter::new();
/// Messages whose signer does not count here.
pub static GOSSIP_REFUSED: Counter = Counter::new();
/// Messages that were lost because their reader was too slow.
pub static GOSSIP_LOST: Counter = Counter::new();
/// Messages sent to topics.
pub static GOSSIP_PUBLISHED: Counter = Counter::new();
/// Nodes of the DAG made here.
pub static CRDT_NODES_MADE: Counter = Counter::new();
/// Nodes of others that were merged.
pub static CRDT_NODES_MERGED: Counter = Counter::new();
/// Heads of the DAG.
pub static CRDT_HEADS: Gauge = Gauge::new();
/// Height of the highest.
pub static CRDT_MAX_HEIGHT: Gauge = Gauge::new();
/// Items of the pending batch.
pub static CRDT_BATCH_ITEMS: Gauge = Gauge::new();
/// Nodes that are known and not merged yet.
pub static CRDT_UNFINISHED: Gauge = Gauge::new();
/// Of those, the ones that could not be had and wait for a repair.
pub static CRDT_STALLED: Gauge = Gauge::new();
/// Spans that found the queue full.
pub static TRACE_SPANS_DROPPED: Counter = Counter::new();
/// Spans that the collector took.
pub static TRACE_SPANS_SENT: Counter = Counter::new();

/// Calls between peers, by method: as many as there will ever be.
pub static RPC: [RpcCounts; 32] = [const { RpcCounts::new() }; 32];

/// Calls of one method that were answered.
#[derive(Debug)]
pub struct RpcCounts {
    /// Bytes of arguments.
    pub received: Sizes,
    /// Bytes of replies.
    pub sent: Sizes,
    /// From the name of the method to the end of the answer.
    pub latency: Latencies,
}

impl RpcCounts {
    const fn new() -> Self {
        Self { received: Sizes::new(), sent: Sizes::new(), latency: Latencies::new() }
    }
}

/// Methods that are told apart; the last stands for all others.
pub(super) const METHODS: [&str; 8] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "other"];

/// Statuses that are told apart; the last stands for all others.
pub(super) const STATUSES: [(u16, &str); 26] = [
    (200, "200"),
    (201, "201"),
    (202, "202"),
    (204, "204"),
    (206, "206"),
    (301, "301"),
    (302, "302"),
    (304, "304"),
    (307, "307"),
    (308, "308"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (406, "406"),
    (409, "409"),
    (413, "413"),
    (429, "429"),
    (431, "431"),
    (500, "500"),
    (501, "501"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
    (0, "other"),
];

/// Requests that our HTTP faces answered.
pub static HTTP_SERVER: HttpServer = HttpServer {
    by_method: [const { Counter::new() }; METHODS.len()],
    by_status: [const { Counter::new() }; STATUSES.len()],
    request_bytes: Sizes::new(),
    response_bytes: Sizes::new(),
    latency: Latencies::new(),
};

/// See [`HTTP_SERVER`].
#[derive(Debug)]
pub struct HttpServer {
    pub(super) by_method: [Counter; METHODS.len()],
    pub(super) by_status: [Counter; STATUSES.len()],
    pub(super) request_bytes: Sizes,
    pub(super) response_bytes: Sizes,
    pub(super) latency: Latencies,
}

impl HttpServer {
    /// A request has come.
    pub fn begin(&self, method: &str) {
        self.by_method[place(METHODS.iter().position(|known| *known == method), METHODS.len())].inc();
    }

    /// Its answer is out, or broke off.
    pub fn end(&self, status: u16, request_bytes: u64, response_bytes: u64, took: Duration) {
        self.by_status[place_of(status)].inc();
        self.request_bytes.observe(request_bytes);
        self.response_bytes.observe(response_bytes);
        self.latency.observe(took);
    }
}

/// Requests to the daemon, by status; all are POSTs but those that a redirect turned into GETs.
pub static HTTP_CLIENT: [HttpClient; STATUSES.len()] = [const { HttpClient::new() }; STATUSES.len()];

/// See [`HTTP_CLIENT`].
#[derive(Debug)]
pub struct HttpClient {
    pub(super) received: Sizes,
    pub(super) sent: Sizes,
    pub(super) latency: Latencies,
}

impl HttpClient {
    const fn new() -> Self {
        Self { received: Sizes::new(), sent: Sizes::new(), latency: Latencies::new() }
    }
}

/// A request to the daemon is over. One without an answer counts as 500, as in the reference.
pub fn daemon_request(status: u16, sent: u64, received: u64, took: Duration) {
    let counts = &HTTP_CLIENT[place_of(status)];
    counts.sent.observe(sent);
    counts.received.observe(received);
    counts.latency.observe(took);
}

fn place_of(status: u16) -> usize {
    place(STATUSES.iter().position(|(known, _)| *known == status), STATUSES.len())
}

/// The place that was found, or the last.
fn place(found: Option<usize>, n_places: usize) -> usize {
    found.unwrap_or(n_places - 1)
}
