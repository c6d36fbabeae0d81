//! Uploads by chance, held against a real Kubo (`KUBO_BIN`); without one these tests say so and pass.
//!
//! A daemon without a network takes the same bodies as the importer, by `add?only-hash=true`: every event must be the
//! same, in the same order. `ADD_CASES=10000` makes it as many instead of a few hundred, `ADD_FROM=n` begins at another
//! seed; `ADD_SEED=n` runs the one that a failure names.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster_compat::api::{Entry, EntryKind};
use cluster_compat::go::query::Query;
use cluster_compat::http::multipart::Multipart;
use cluster_compat::types::{AddParams, AddedOutput, Layout};
use futures::{StreamExt as _, stream};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::Full;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tempfile::TempDir;

use super::uploads::{self, BOUNDARY, Case};
use super::{Collector, Memory, add, entry, import, params};

/// Uploads in an ordinary run.
const N_CASES: u64 = 300;

/// Uploads that are added at a time: the daemon hashes one while the importer hashes another.
const N_AT_ONCE: usize = 3;

/// How long a daemon may take until it answers.
const LIMIT: Duration = Duration::from_secs(60);

fn program() -> Option<OsString> {
    let program = std::env::var_os("KUBO_BIN");
    if program.is_none() {
        eprintln!("skipped: KUBO_BIN names no Kubo program");
    }
    program
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
}

/// A daemon without a network, on a port of its own choice.
struct Kubo {
    child: Child,
    api: String,
    client: reqwest::Client,
    _repo: TempDir,
}

impl Kubo {
    async fn start(program: OsString) -> Self {
        let repo = tempfile::tempdir().unwrap();
        let run = |args: &[&str]| {
            let mut command = Command::new(&program);
            command.env("IPFS_PATH", repo.path()).args(args);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        assert!(run(&["init", "--empty-repo", "--profile=test"]).status().unwrap().success());
        let child = run(&["daemon", "--offline"]).spawn().unwrap();
        let mut kubo = Self { child, api: String::new(), client: reqwest::Client::new(), _repo: repo };
        let started = Instant::now();
        // `/ip4/127.0.0.1/tcp/<port>`
        while kubo.api.is_empty() || kubo.client.post(format!("{}/api/v0/id", kubo.api)).send().await.is_err()
        {
            assert!(started.elapsed() < LIMIT, "the daemon does not answer");
            if let Ok(addr) = fs::read_to_string(kubo._repo.path().join("api")) {
                kubo.api = format!("http://127.0.0.1:{}", addr.trim().rsplit('/').next().unwrap());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        kubo
    }

    /// A line for each event of an add, as [`ours`] gives them.
    async fn add(&self, case: &Case) -> Vec<String> {
        let mut url = format!("{}/api/v0/add?only-hash=true&pin=false&progress=false", self.api);
        for (name, value) in &case.query {
            url.push_str(&format!("&{name}={value}"));
        }
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        let request = self.client.post(url).header("Content-Type", kind).body(case.body.clone());
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        if !status.is_success() {
            return vec![format!("{status} {text}")];
        }
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        events
            .map(|event| {
                let (name, cid, size) = (text(&event, "Name"), text(&event, "Hash"), text(&event, "Size"));
                format!("{name:?} {cid} {size}")
            })
            .collect()
    }
}

impl Drop for Kubo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The importer's events as Kubo shows them.
async fn ours(case: &Case) -> Vec<String> {
    let mut raw = String::new();
    for (name, value) in &case.query {
        raw.push_str(&format!("&{name}={value}"));
    }
    let query = Query::parse(&raw);
    let mut params = AddParams::from_query(&query).unwrap();
    if query.get("trickle") == "true" {
        params.layout = Layout::Trickle;
    }
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, format!("multipart/form-data; boundary={BOUNDARY}").parse().unwrap());
    let body = Full::<Bytes>::from(case.body.clone());
    let (upload, _) = Multipart::new(&headers, body).unwrap();
    let host = Arc::new(Collector::new());
    let wraps = params.wrap_with_directory;
    let events = import(params, Box::new(upload), host.clone());
    let show = |event: AddedOutput| {
        let cid = event.cid.unwrap();
        let name = if event.name.is_empty() && !wraps { cid.to_string() } else { event.name };
        format!("{name:?} {cid} {}", event.size)
    };
    let lines: Vec<String> = events
        .map(|event| match event {
            Ok(event) => show(event),
            Err(error) => format!("! {error}"),
        })
        .collect()
        .await;
    let pins: Vec<_> = host.kept().pins.iter().map(|pin| pin.cid).collect();
    pins.into_iter().for_each(|root| host.assert_complete(root));
    lines
}

/// The first event that differs, and how it came.
fn difference(seed: u64, case: &Case, ours: &[String], kubo: &[String]) -> Option<String> {
    if ours == kubo {
        return None;
    }
    let (mut ours, mut kubo) = (ours.to_vec(), kubo.to_vec());
    if case.has_wide {
        ours.sort();
        kubo.sort();
        if ours == kubo {
            return None;
        }
    }
    let at = ours.iter().zip(&kubo).take_while(|(a, b)| a == b).count();
    let missing = "nothing".to_owned();
    let (a, b) = (ours.get(at).unwrap_or(&missing), kubo.get(at).unwrap_or(&missing));
    Some(format!(
        "ADD_SEED={seed} {:?}\n  event {at} of {} is {a}\n  Kubo has {b}\n  {}",
        case.query,
        ours.len(),
        case.parts.join("\n  ")
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_by_chance_have_the_events_of_kubo() {
    let Some(program) = program() else { return };
    let kubo = Kubo::start(program).await;
    let from = setting("ADD_SEED").or(setting("ADD_FROM")).unwrap_or(1);
    let n_cases = if setting("ADD_SEED").is_some() { 1 } else { setting("ADD_CASES").unwrap_or(N_CASES) };
    let (mut n_events, mut n_bytes, started) = (0, 0, Instant::now());
    let mut differences = Vec::new();
    let kubo = &kubo;
    let mut compared = stream::iter(from..from + n_cases)
        .map(|seed| async move {
            let case = uploads::case(seed);
            let (ours, kubo) = tokio::join!(ours(&case), kubo.add(&case));
            (difference(seed, &case, &ours, &kubo), ours.len(), case.body.len())
        })
        .buffer_unordered(N_AT_ONCE);
    while let Some((difference, n, bytes)) = compared.next().await {
        n_events += n;
        n_bytes += bytes;
        differences.extend(difference);
        assert!(differences.len() < 10, "{}", differences.join("\n\n"));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
    eprintln!(
        "{n_cases} uploads from seed {from} on, {n_events} events, {} MiB, in {:.1?}",
        n_bytes >> 20,
        started.elapsed()
    );
}

/// Vectors D10.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_originals_tests_compare_with_kubo_is_equal() {
    let Some(program) = program() else { return };
    let kubo = Kubo::start(program).await;
    for case in uploads::fixed() {
        let (ours, kubo) = tokio::join!(ours(&case), kubo.add(&case));
        assert_eq!(difference(0, &case, &ours, &kubo), None);
    }
}

/// Fills a folder: files of lengths around the borders, links, empty and wide directories.
fn plant(folder: &Path, depth: usize, random: &mut StdRng) {
    let lens = [0usize, 1, 255, 256, 999, 1000, 1001, 65_536, 262_143, 262_144, 262_145, 800_000];
    for n in 0..random.random_range(0..6) {
        let stem = ["a", "été", "a b", "%2F", "<&>", ".hidden", "Z", "\"", "日本"].choose(random).unwrap();
        let path = folder.join(format!("{stem}{n}"));
        match random.random_range(0..10) {
            0 => symlink(format!("../target-{n}"), path).unwrap(),
            1..=3 if depth < 4 => {
                fs::create_dir(&path).unwrap();
                plant(&path, depth + 1, random);
            }
            _ => {
                let mut content = vec![0; *lens.choose(random).unwrap()];
                random.fill(&mut content[..]);
                fs::write(path, content).unwrap();
            }
        }
    }
}

/// The entries of a folder as a client sends them: parents first, in name order.
fn gather(root: &Path, below: &Path, hidden: bool, out: &mut Vec<(Entry, Bytes)>) {
    let path = below.as_os_str().as_bytes();
    let full = root.join(below);
    let kind = fs::symlink_metadata(&full).unwrap().file_type();
    if kind.is_symlink() {
        let target = fs::read_link(&full).unwrap().as_os_str().as_bytes().to_vec();
        out.push((entry(path, EntryKind::Symlink(target)), Bytes::new()));
    } else if kind.is_dir() {
        out.push((entry(path, EntryKind::Directory), Bytes::new()));
        let names: BTreeMap<_, _> =
            fs::read_dir(&full).unwrap().map(|item| (item.unwrap().file_name(), ())).collect();
        for name in names.keys().filter(|name| hidden || !name.as_bytes().starts_with(b".")) {
            gather(root, &below.join(name), hidden, out);
        }
    } else {
        out.push((entry(path, EntryKind::File), fs::read(&full).unwrap().into()));
    }
}

#[tokio::test]
async fn folders_on_disk_have_the_roots_of_kubos_command() {
    let Some(kubo) = program() else { return };
    let repo = tempfile::tempdir().unwrap();
    let run = |arguments: &[String]| {
        let output = Command::new(&kubo).env("IPFS_PATH", repo.path()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    run(&["init".into()]);
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("top");
        fs::create_dir(&top).unwrap();
        plant(&top, 0, &mut random);
        let params = AddParams {
            cid_version: random.random_range(0..2),
            raw_leaves: random.random_bool(0.5),
            wrap_with_directory: random.random_bool(0.3),
            ..params()
        };
        let hidden = random.random_bool(0.5);
        let mut arguments = ["add", "--only-hash", "-r", "-Q"].map(String::from).to_vec();
        arguments.push(format!("--hidden={hidden}"));
        arguments.push(format!("--cid-version={}", params.cid_version));
        arguments.push(format!("--raw-leaves={}", params.raw_leaves));
        arguments.push(format!("--wrap-with-directory={}", params.wrap_with_directory));
        arguments.push(top.to_string_lossy().into_owned());
        let mut entries = Vec::new();
        gather(folder.path(), Path::new("top"), hidden, &mut entries);
        let host = Arc::new(Collector::new());
        let (events, error) = add(params, Memory::new(entries), &host).await;
        assert_eq!(error, None, "seed {seed}");
        let root = events.last().unwrap().cid.unwrap();
        assert_eq!(root.to_string(), run(&arguments).trim(), "seed {seed}, {arguments:?}");
        host.assert_complete(root);
    }
}
