//! Three original peers become ours one after the other, on their folders as they are, while pins and unpins go on;
//! where `IPFS_CLUSTER_GO` names the reference's `ipfs-cluster-service`, skipped elsewhere.
//!
//! ```text
//! IPFS_CLUSTER_GO=/path/to/ipfs-cluster-service cargo test --test it replace -- --nocapture
//! ```
//!
//! This is what an operator does by hand: take the peer out of the load, wait until the others have what it wrote,
//! stop it, start ours in its place, wait until that has caught up, go on with the next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cluster_compat::testing::kubo::FakeKubo;
use serde_json::{Value, json};
use tokio::sync::{Mutex, RwLock};
use tokio::time::{Instant, sleep};

use crate::support::{Peer, SECRET, cid, free_port, send, set_member};

const N_PEERS: usize = 3;

/// Clients that pin and unpin at the same time, each one request after the other.
const N_CLIENTS: usize = 3;

/// Pause of a client between two requests: about 25 requests a second in all, which originals keep up with.
const PAUSE: Duration = Duration::from_millis(100);

/// Pins that each peer acknowledges before the next is replaced.
const N_BETWEEN: usize = 60;

/// How often originals announce their heads again; nothing else tells a newcomer of them.
const REBROADCAST_EVERY: Duration = Duration::from_secs(5);

/// When something that has to come is given up.
const LIMIT: Duration = Duration::from_secs(180);

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What was acknowledged.
#[derive(Default)]
struct Book {
    /// Names by CID of pins that stay.
    kept: BTreeMap<String, String>,
    /// Names by CID of pins that will be unpinned, the oldest first.
    passing: VecDeque<(String, String)>,
    unpinned: BTreeSet<String>,
    /// Acknowledged requests by the peer that was asked.
    n_by_peer: [usize; N_PEERS],
    /// What was not acknowledged, and why: it may have happened or not.
    refused: BTreeMap<String, String>,
}

/// The clients' side.
struct Load {
    clients: Vec<reqwest::Client>,
    /// Whether a peer is asked; held shared while it is, so that taking it waits for the last answer.
    is_asked: [RwLock<bool>; N_PEERS],
    book: Mutex<Book>,
    next: AtomicUsize,
    is_over: AtomicBool,
}

impl Load {
    fn new(peers: &[Peer]) -> Self {
        Self {
            clients: peers.iter().map(|peer| peer.client("rest")).collect(),
            is_asked: std::array::from_fn(|_| RwLock::new(true)),
            book: Mutex::default(),
            next: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    async fn run(&self) {
        let client = async || {
            while !self.is_over.load(Ordering::Relaxed) {
                self.request().await;
                sleep(PAUSE).await;
            }
        };
        futures::future::join_all((0..N_CLIENTS).map(|_| client())).await;
    }

    /// A pin, everywhere or on two peers by turns; every fourth time the unpin of an older one, at whichever peer.
    async fn request(&self) {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        if n % 4 == 3 {
            let oldest = self.book.lock().await.passing.pop_front();
            let Some((cid, name)) = oldest else { return };
            if self.ask(n / 4, "DELETE", &cid, "").await {
                self.book.lock().await.unpinned.insert(cid);
            } else {
                // a peer that has not heard of it yet refuses
                self.book.lock().await.passing.push_back((cid, name));
            }
            return;
        }
        let (cid, name) = (cid(n).to_string(), format!("n{n}"));
        let factors = if n.is_multiple_of(2) { "" } else { "&replication-min=2&replication-max=2" };
        if self.ask(n, "POST", &cid, &format!("?name={name}{factors}")).await {
            let mut book = self.book.lock().await;
            if n % 4 == 2 || n % 8 == 1 {
                book.passing.push_back((cid, name));
            } else {
                book.kept.insert(cid, name);
            }
        }
    }

    /// Whether a peer, the n-th if that is up, acknowledges a request.
    async fn ask(&self, n: usize, method: &str, cid: &str, query: &str) -> bool {
        for at in (n..n + N_PEERS).map(|n| n % N_PEERS) {
            // while it is being replaced the writer holds this, or has set it
            let Ok(is_asked) = self.is_asked[at].try_read() else { continue };
            if !*is_asked {
                continue;
            }
            let reply = send(&self.clients[at], method, &format!("/pins/{cid}{query}")).await;
            let mut book = self.book.lock().await;
            let why = match reply {
                Ok(reply) if reply.status == 200 => {
                    book.n_by_peer[at] += 1;
                    return true;
                }
                Ok(reply) => format!("peer {at}: {} {}", reply.status, reply.text()),
                Err(failure) => format!("peer {at}: {failure:?}"),
            };
            let is_early = method == "DELETE" && why.contains("404");
            if !is_early {
                eprintln!("not acknowledged: {method} {cid}{query}: {why}");
                book.refused.insert(cid.to_owned(), why);
            }
            return false;
        }
        false
    }
}

/// Three originals, each of which knows those before it.
async fn start_originals(go: &OsString) -> (Vec<FakeKubo>, Vec<Peer>) {
    let (mut daemons, mut peers, mut addrs) = (Vec::new(), Vec::<Peer>::new(), Vec::new());
    for _ in 0..N_PEERS {
        let daemon = FakeKubo::start().await.unwrap();
        let port = free_port();
        let mut peer = Peer::init_program(go.clone(), &daemon, |config| {
            set_member(config, SECRET);
            config["cluster"]["peer_addresses"] = json!(addrs);
            config["cluster"]["listen_multiaddress"] = json!([format!("/ip4/127.0.0.1/tcp/{port}")]);
            config["consensus"]["crdt"]["rebroadcast_interval"] =
                format!("{}s", REBROADCAST_EVERY.as_secs()).into();
        });
        peer.start().await;
        addrs.push(peer.id_and_addr().await.1);
        daemons.push(daemon);
        peers.push(peer);
    }
    (daemons, peers)
}

/// Waits until something holds, or says what did not, with the end of a peer's log.
async fn wait(what: &str, peer: &Peer, mut holds: impl AsyncFnMut() -> Result<(), String>) -> Duration {
    let started = Instant::now();
    loop {
        match holds().await {
            Ok(()) => return started.elapsed(),
            Err(missing) if started.elapsed() > LIMIT => {
                let log = peer.log();
                let lines: Vec<_> = log.lines().collect();
                let end = lines[lines.len().saturating_sub(60)..].join("\n");
                panic!("never within {LIMIT:?}: {what}: {missing}\n{end}");
            }
            Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}

/// Whether a peer's set has all of what stays, and none of what was unpinned.
async fn has_all(
    peer: &Peer,
    kept: &BTreeMap<String, String>,
    unpinned: &BTreeSet<String>,
) -> Result<(), String> {
    let listed = peer.pins().await;
    let n_missing = kept.iter().filter(|(cid, name)| listed.get(*cid) != Some(*name)).count();
    let n_stale = unpinned.iter().filter(|cid| listed.contains_key(*cid)).count();
    let counts = format!("{n_missing} of {} pins missing, {n_stale} unpinned ones there", kept.len());
    if n_missing + n_stale == 0 { Ok(()) } else { Err(counts) }
}

/// Waits until a peer knows that each of the others is there, and has room: before that it allocates to nobody.
async fn hears_all(peer: &Peer, ids: &[String]) {
    for metric in ["ping", "freespace"] {
        wait(&format!("it has a {metric} of each"), peer, async || {
            let metrics = peer.rest("GET", &format!("/monitor/metrics/{metric}")).await.text();
            let n_missing = ids.iter().filter(|id| !metrics.contains(*id)).count();
            if n_missing == 0 { Ok(()) } else { Err(format!("{n_missing} missing")) }
        })
        .await;
    }
}

/// Takes a peer out of the load, and puts ours in its place.
async fn replace(load: &Load, peers: &mut [Peer], ids: &[String], at: usize) {
    // waits for the answers to what it was asked
    *load.is_asked[at].write().await = false;
    let (kept, unpinned) = {
        let book = load.book.lock().await;
        (book.kept.clone(), book.unpinned.clone())
    };
    for (other, peer) in peers.iter().enumerate().filter(|(other, _)| *other != at) {
        let what = format!("{other} has what {at} acknowledged");
        let took = wait(&what, peer, async || has_all(peer, &kept, &unpinned).await).await;
        eprintln!("{what}: after {took:.2?}");
    }
    let started = Instant::now();
    let peer = &mut peers[at];
    let status = peer.stop().await;
    eprintln!("original {at} stopped after {:.2?}: {status}", started.elapsed());

    let (kept, unpinned) = {
        let book = load.book.lock().await;
        (book.kept.clone(), book.unpinned.clone())
    };
    let started = Instant::now();
    peer.becomes_ours();
    peer.start().await;
    eprintln!("ours in place of {at} answers after {:.2?}", started.elapsed());
    wait("ours has caught up", peer, async || has_all(peer, &kept, &unpinned).await).await;
    eprintln!("ours in place of {at} has {} pins after {:.2?}", kept.len(), started.elapsed());
    for peer in peers.iter() {
        hears_all(peer, ids).await;
    }
    eprintln!("all hear all after {:.2?}", started.elapsed());
    *load.is_asked[at].write().await = true;
}

/// Lets the load go on until a peer has acknowledged some more.
async fn use_peer(load: &Load, peer: &Peer, at: usize) {
    let before = load.book.lock().await.n_by_peer[at];
    wait(&format!("{at} acknowledges {N_BETWEEN} requests"), peer, async || {
        let n = load.book.lock().await.n_by_peer[at] - before;
        if n >= N_BETWEEN { Ok(()) } else { Err(format!("{n} of them")) }
    })
    .await;
}

/// Whole pins by CID.
async fn whole_set(peer: &Peer) -> BTreeMap<String, Value> {
    let pins = peer.rest("GET", "/allocations").await.documents();
    pins.into_iter().map(|pin| (pin["cid"].as_str().unwrap().to_owned(), pin)).collect()
}

/// The sets are equal to each other and to what was acknowledged, the daemons hold what they are to hold, and every
/// peer says so.
async fn check_all(book: &Book, daemons: &[FakeKubo], peers: &[Peer], ids: &[String]) {
    let mut expected = book.kept.clone();
    expected.extend(book.passing.iter().cloned());
    for (at, peer) in peers.iter().enumerate() {
        let what = format!("the set of {at}");
        let took = wait(&what, peer, async || {
            let listed = peer.pins().await;
            let is_open = |cid: &String| book.refused.contains_key(cid);
            let missing = expected.iter().filter(|(cid, name)| {
                let is_unsure = is_open(cid) && !listed.contains_key(*cid);
                listed.get(*cid) != Some(*name) && !is_unsure
            });
            let more = listed.keys().filter(|cid| !expected.contains_key(*cid) && !is_open(cid));
            let (n_missing, n_more) = (missing.count(), more.count());
            let counts = format!("{n_missing} of {} missing, {n_more} too many", expected.len());
            if n_missing + n_more == 0 { Ok(()) } else { Err(counts) }
        });
        eprintln!("the set of {at} is what was acknowledged after {:.2?}", took.await);
    }
    let first = whole_set(&peers[0]).await;
    for peer in &peers[1..] {
        let set = whole_set(peer).await;
        let differ = first.iter().find(|(cid, pin)| set.get(*cid) != Some(*pin));
        assert_eq!((set.len(), differ.map(|(cid, pin)| (pin, set.get(cid)))), (first.len(), None));
    }
    let mut n_on_two = 0;
    for (at, (daemon, id)) in daemons.iter().zip(ids).enumerate() {
        let is_for = |pin: &Value| {
            let allocations = pin["allocations"].as_array().map(Vec::as_slice).unwrap_or_default();
            allocations.is_empty() || allocations.iter().any(|peer| peer == id.as_str())
        };
        let due: Vec<&String> = first.iter().filter(|(_, pin)| is_for(pin)).map(|(cid, _)| cid).collect();
        n_on_two += first.len() - due.len();
        let what = format!("the daemon of {at}");
        let took = wait(&what, &peers[at], async || {
            let held = daemon.pins();
            let n_missing = due.iter().filter(|cid| !held.contains_key(**cid)).count();
            // what was unpinned while ours was not there yet must go too
            let n_stale = held.keys().filter(|cid| !first.contains_key(*cid)).count();
            let counts = format!("{n_missing} of {} missing, {n_stale} unpinned ones there", due.len());
            if n_missing + n_stale == 0 { Ok(()) } else { Err(counts) }
        });
        eprintln!("the daemon of {at} holds its {} after {:.2?}", due.len(), took.await);
    }
    assert!(n_on_two > 0, "no pin was on two peers only");
    for (at, peer) in peers.iter().enumerate() {
        wait(&format!("the states that {at} tells"), peer, async || {
            let rows = peer.rest("GET", "/pins").await.documents();
            let is_well = |row: &Value| ["pinned", "remote"].iter().any(|state| row["status"] == *state);
            let bad = rows.iter().find_map(|row| {
                let states = row["peer_map"].as_object().unwrap();
                (states.len() != N_PEERS || !states.values().all(is_well)).then(|| row.to_string())
            });
            match bad {
                None if rows.len() == first.len() => Ok(()),
                bad => Err(format!("{} of {} rows, {bad:?}", rows.len(), first.len())),
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn originals_are_replaced_one_by_one_under_load_and_nothing_acknowledged_is_lost() {
    let Some(go) = std::env::var_os("IPFS_CLUSTER_GO") else {
        eprintln!("skipped: IPFS_CLUSTER_GO is not set");
        return;
    };
    let (daemons, mut peers) = start_originals(&go).await;
    let mut ids = Vec::new();
    for peer in &peers {
        ids.push(peer.id_and_addr().await.0);
    }
    for peer in &peers {
        hears_all(peer, &ids).await;
    }
    let load = Load::new(&peers);
    let replaced = async {
        for (at, peer) in peers.iter().enumerate() {
            use_peer(&load, peer, at).await;
        }
        for at in 0..N_PEERS {
            replace(&load, &mut peers, &ids, at).await;
            use_peer(&load, &peers[at], at).await;
        }
        load.is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(load.run(), replaced);
    let book = load.book.into_inner();
    eprintln!(
        "acknowledged: {} pins that stay, {} that would have gone, {} unpins; by peer {:?}; {} refused",
        book.kept.len(),
        book.passing.len(),
        book.unpinned.len(),
        book.n_by_peer,
        book.refused.len()
    );
    check_all(&book, &daemons, &peers, &ids).await;
    for peer in &mut peers {
        assert!(peer.stop().await.success(), "{}", peer.log());
    }
    // on a starved machine metrics expire, and then nobody allocates; nothing else may be refused
    let odd = book.refused.values().find(|why| !why.contains("not enough peers to allocate CID"));
    assert_eq!(odd, None);
}
