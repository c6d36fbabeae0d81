//! What an operator sees of a whole peer: metrics beside the original's, traces in a collector, logs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluster_compat::testing::kubo::FakeKubo;
use serde_json::Value;

use crate::support::{Peer, SECRET, cid, eventually};

/// Families of the original that we do not have, and why.
const NOT_SERVED: &[(&str, &str)] = &[
    ("libp2p_autonat_", "how Go's library looks for its own addresses"),
    ("libp2p_autorelay_", "how Go's library looks for relays"),
    ("libp2p_eventbus_", "a part of Go's library that ours has not"),
    ("libp2p_holepunch_", "how Go's library punches holes"),
    ("libp2p_identify_addrs_", "sizes of Go's own records"),
    ("libp2p_identify_conn_push_support_total", "our library does not tell"),
    ("libp2p_identify_identify_pushes_triggered_total", "our library pushes to each connection by itself"),
    ("libp2p_identify_protocols_", "sizes of Go's own records"),
    ("libp2p_rcmgr_conn_memory", "our swarm reserves no memory"),
    ("libp2p_rcmgr_memory", "our swarm reserves no memory"),
    ("libp2p_rcmgr_peer_", "distributions of Go's resource manager"),
    ("libp2p_rcmgr_previous_", "distributions of Go's resource manager"),
    ("libp2p_relaysvc_", "how Go's library relays"),
    ("libp2p_swarm_dial_ranking_delay_seconds", "how Go's library ranks dials"),
];

/// Families by name: what they are, and the names of their labels.
type Families = BTreeMap<String, (String, BTreeSet<String>)>;

/// Reads a page, and that it is one.
fn families(page: &str) -> Families {
    let mut families = Families::new();
    let mut current = String::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            current = name.to_owned();
            let known = families.insert(current.clone(), (kind.to_owned(), BTreeSet::new()));
            assert!(known.is_none(), "{name} comes twice");
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
        let (kind, known) = families.get_mut(&current).unwrap();
        let suffixes = if kind == "histogram" { &["_bucket", "_sum", "_count"][..] } else { &[""] };
        assert!(suffixes.iter().any(|suffix| name == format!("{current}{suffix}")), "{line} in {current}");
        for label in labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty()) {
            known.insert(label.split('=').next().unwrap().to_owned());
        }
        known.remove("le");
    }
    families
}

fn recorded() -> Families {
    let lines = include_str!("../../fixtures/metrics/families.txt").lines();
    let family = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        (words.next().unwrap(), (words.next().unwrap(), words.collect()))
    };
    lines.map(family).collect()
}

fn is_served(name: &str) -> bool {
    !NOT_SERVED.iter().any(|(start, _)| name.starts_with(start))
}

/// Takes what is sent over HTTP, and says 200, or nothing at all.
struct Collector {
    port: u16,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    fn start(answers: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let bodies = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let taken = Arc::clone(&bodies);
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming().flatten() {
                if answers {
                    let taken = Arc::clone(&taken);
                    std::thread::spawn(move || take(stream, &taken));
                } else {
                    open.push(stream);
                }
            }
        });
        Self { port, bodies }
    }

    fn addr(&self) -> String {
        format!("/ip4/127.0.0.1/tcp/{}", self.port)
    }

    /// Whether any span has these bytes.
    fn has(&self, bytes: &[u8]) -> bool {
        let bodies = self.bodies.lock().unwrap();
        bodies.iter().any(|body| body.windows(bytes.len()).any(|window| window == bytes))
    }
}

fn take(mut stream: TcpStream, taken: &Mutex<Vec<Vec<u8>>>) {
    let mut read = Vec::new();
    let mut piece = [0; 4096];
    loop {
        while let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(read[..end].to_vec()).unwrap().to_ascii_lowercase();
            assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
            assert!(head.contains("content-type: application/x-protobuf"), "{head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let whole = end + 4 + length.parse::<usize>().unwrap();
            if read.len() < whole {
                break;
            }
            taken.lock().unwrap().push(read[end + 4..whole].to_vec());
            read.drain(..whole);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
        match stream.read(&mut piece) {
            Ok(n) if n > 0 => read.extend_from_slice(&piece[..n]),
            _ => return,
        }
    }
}

fn observe(config: &mut Value, socket: &str, collector: Option<&Collector>) {
    config["observations"]["metrics"]["prometheus_endpoint"] = socket.into();
    if let Some(collector) = collector {
        config["observations"]["tracing"]["enable_tracing"] = true.into();
        config["observations"]["tracing"]["sampling_prob"] = 1.0.into();
        config["observations"]["tracing"]["jaeger_agent_endpoint"] = collector.addr().into();
    }
}

/// What the metrics listener answers.
async fn page(peer: &Peer, path: &str) -> (u16, String, String) {
    let response = peer.client("metrics").get(format!("http://peer{path}")).send().await.unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    (response.status().as_u16(), kind, response.text().await.unwrap())
}

/// The value of a sample without labels.
fn value(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_traces_of_a_peer_are_those_of_the_original() {
    let collector = Collector::start(true);
    let daemons = [FakeKubo::start().await.unwrap(), FakeKubo::start().await.unwrap()];
    let socket = tempfile::tempdir().unwrap();
    let mut first = Peer::init_member(&daemons[0], SECRET, |config| {
        let folder = socket.path().join("metrics");
        observe(config, &format!("/unix{}", folder.display()), Some(&collector));
    });
    std::os::unix::fs::symlink(socket.path().join("metrics"), first.path("metrics")).unwrap();
    first.start_with(&["--stats"]).await;
    let (_, addr) = first.id_and_addr().await;
    let mut second = Peer::init_member(&daemons[1], SECRET, |_| ());
    second.start_with(&["--bootstrap", &addr]).await;

    // a request that is part of somebody's story, down to the daemon
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let client = first.client("rest");
    let pinned = client
        .post(format!("http://peer/pins/{}", cid(1)))
        .header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"))
        .send();
    assert_eq!(pinned.await.unwrap().status().as_u16(), 200);
    daemons[0].wait_for("pin/add", 1).await;
    let calls = async || {
        second.rest("GET", "/pins").await;
        let (_, _, text) = page(&first, "/metrics").await;
        text.contains("completed_rpcs{gorpc_server_method=\"PinTracker.StatusAll\"}")
            && text.contains("libp2p_swarm_key_types_total{")
    };
    eventually("the other peer's calls are counted", calls).await.unwrap();

    let pinned = async || value(&page(&first, "/metrics").await.2, "ipfscluster_pins_ipfs_pins") == Some(1.0);
    eventually("the pin is counted", pinned).await.unwrap();
    // now the daemon has to be asked for it
    let asked = client
        .get(format!("http://peer/pins/{}", cid(1)))
        .header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"))
        .send();
    assert_eq!(asked.await.unwrap().status().as_u16(), 200);
    let (status, kind, text) = page(&first, "/metrics").await;
    assert_eq!(
        (status, kind.as_str()),
        (200, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores")
    );
    let (ours, theirs) = (families(&text), recorded());
    for (name, family) in &theirs {
        match is_served(name) {
            true => assert_eq!(ours.get(name), Some(family), "{name}"),
            false => assert!(!ours.contains_key(name), "{name} is served and said not to be"),
        }
    }
    let counts = ["ipfscluster_pins", "ipfscluster_pins_pin_add", "ipfscluster_pins_pin_add_errors"];
    assert_eq!(counts.map(|name| value(&text, name)), [Some(1.0), Some(1.0), Some(0.0)]);
    assert!(value(&text, "ipfscluster_datastore_size_bytes") > Some(0.0));
    let lines = [
        "libp2p_rcmgr_connections{dir=\"inbound\",scope=\"system\"} 1",
        "libp2p_swarm_connections_opened_total{dir=\"inbound\",early_muxer=\"false\",ip_version=\"ip4\",muxer=\"/yamux/1.0.0\",security=\"/noise\",transport=\"tcp\"} 1",
        "libp2p_swarm_key_types_total{dir=\"inbound\",key_type=\"Ed25519\"} 1",
        "ipfscluster_build_info{version=\"",
        "ipfscluster_opencensus_io_http_server_request_count_by_method{http_method=\"POST\"} 1",
    ];
    for line in lines {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    // Go's profiler is not here, and says so
    assert_eq!(page(&first, "/debug/pprof/heap").await.0, 501);
    assert_eq!(page(&first, "/nothing").await.0, 404);
    let (_, _, vars) = page(&first, "/debug/vars").await;
    assert!(serde_json::from_str::<Value>(&vars).unwrap()["cmdline"].is_array());

    let told = async || {
        [
            &b"POST /pins"[..],
            b"GET /pins",
            b"POST /api/v0/pin/ls",
            b"PinTracker.Status",
            b"PinTracker.StatusAll",
        ]
        .iter()
        .chain([&hex::decode(trace).unwrap()[..]].iter())
        .all(|bytes| collector.has(bytes))
    };
    eventually("the collector has all spans", told).await.unwrap();
    let heads: String = daemons[0].requests().iter().map(|seen| format!("{seen:?}")).collect();
    assert!(heads.contains(&format!("00-{trace}-")), "the daemon is told the story: {heads}");
    assert!(collector.has(b"cluster-daemon-"));
    assert!(first.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_costs_spans_and_no_time() {
    let collector = Collector::start(false);
    let daemon = FakeKubo::start().await.unwrap();
    let mut peer = Peer::init(&daemon, |config| observe(config, "/ip4/127.0.0.1/tcp/0", Some(&collector)));
    peer.start().await;
    let began = Instant::now();
    let client = peer.client("rest");
    for _ in 0..200 {
        assert_eq!(client.get("http://peer/version").send().await.unwrap().status().as_u16(), 200);
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let began = Instant::now();
    assert!(peer.stop().await.success());
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tracing_nothing_of_it_is_counted() {
    let daemon = FakeKubo::start().await.unwrap();
    let socket = tempfile::tempdir().unwrap();
    let mut peer = Peer::init(&daemon, |config| {
        observe(config, &format!("/unix{}", socket.path().join("metrics").display()), None);
        config["observations"]["metrics"]["enable_stats"] = true.into();
    });
    std::os::unix::fs::symlink(socket.path().join("metrics"), peer.path("metrics")).unwrap();
    peer.start().await;
    peer.rest("GET", "/pins").await;
    let (_, _, text) = page(&peer, "/metrics").await;
    for (name, family) in recorded() {
        let is_of_tracing = name.contains("opencensus") || name.contains("gorpc");
        let needs_a_connection = name.starts_with("libp2p_swarm") || name.starts_with("libp2p_identify");
        if is_of_tracing {
            assert!(!text.contains(&name), "{name}");
        } else if is_served(&name) && !needs_a_connection {
            assert_eq!(families(&text).get(&name), Some(&family), "{name}");
        }
    }
}

/// Runs a command that logs one line, `state successfully exported`; what came out, and what is in the file.
fn logged(vars: &[(&str, &str)], args: &[&str]) -> (String, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str], vars: &[(&str, &str)]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ipfs-cluster-service"));
        let output =
            command.arg("-c").arg(folder.path()).args(args).envs(vars.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    run(&["init"], &[]);
    let file = folder.path().join("log").to_str().unwrap().to_owned();
    let vars: Vec<_> = vars
        .iter()
        .map(|(key, value)| (*key, if *value == "FILE" { file.as_str() } else { value }))
        .collect();
    let (out, err) = run(&[args, &["state", "export"]].concat(), &vars);
    (out, err, std::fs::read_to_string(&file).unwrap_or_default())
}

#[test]
fn logs_go_where_and_how_the_environment_says() {
    let words = "state successfully exported";
    let (out, err, _) = logged(&[], &[]);
    let columns: Vec<&str> = err.trim_end().split('\t').collect();
    assert_eq!(
        (out.as_str(), columns.len(), &columns[1..3], columns[4]),
        ("", 6, &["INFO", "service"][..], words)
    );
    for key in ["GOLOG_LOG_FMT", "IPFS_LOGGING_FMT"] {
        let (_, err, _) = logged(&[(key, "json"), ("GOLOG_LOG_LABELS", "dc=sjc")], &[]);
        let line: Value = serde_json::from_str(&err).unwrap();
        let values = ["level", "logger", "msg", "dc"].map(|key| line[key].as_str().unwrap());
        assert_eq!(values, ["info", "service", words, "sjc"]);
        assert!(line["ts"].is_string() && line["caller"].is_string() && line["n_pins"] == 0, "{line}");
    }
    assert!(logged(&[("GOLOG_LOG_FMT", "color")], &[]).1.contains("\x1b[34mINFO"));
    let (out, err, file) = logged(&[("GOLOG_FILE", "FILE")], &[]);
    assert!(out.is_empty() && err.is_empty() && file.contains(words));
    let (out, err, file) = logged(&[("GOLOG_FILE", "FILE"), ("GOLOG_OUTPUT", "stdout+stderr+file")], &[]);
    assert!([out, err, file].iter().all(|text| text.contains(words)));
    // levels: flags and variables, of all or of one facility
    for levels in ["warn", "service:error", "info,service:fatal", "service:critical"] {
        assert_eq!(logged(&[], &["--loglevel", levels]).1, "", "{levels}");
        assert_eq!(logged(&[("IPFS_CLUSTER_LOG_LEVEL", levels)], &[]).1, "", "{levels}");
    }
    for levels in ["debug", "error,service:INFO", "crdt:error"] {
        assert!(logged(&[], &["--loglevel", levels]).1.contains(words), "{levels}");
    }
    // the environment moves what the program has no level for
    for key in ["GOLOG_LOG_LEVEL", "IPFS_LOGGING"] {
        assert!(logged(&[(key, "error,service=debug")], &[]).1.contains(words));
    }
}
