//! The Go peer of `tests/interop`, driven by lines: built when first asked for, without a network.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cluster_compat::types::{Multiaddr, PeerId};
use serde_json::Value;

use crate::support::{SECRET, eventually};

/// The program, or why there is none.
fn program() -> Result<&'static Path, &'static str> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PROGRAM.get_or_init(find_program).as_deref().map_err(String::as_str)
}

fn find_program() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("INTEROP_PEER") {
        return Ok(path.into());
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop-peer");
    let built = Command::new("go")
        .args(["build", "-buildvcs=false", "-o"])
        .arg(&path)
        .arg(".")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop"))
        // what is not in the module cache fails at once, and no file of the module is touched
        .envs([("GOPROXY", "off"), ("GOFLAGS", "-mod=readonly"), ("GOTOOLCHAIN", "local"), ("GOWORK", "off")])
        .stdin(Stdio::null())
        .output()
        .map_err(|cause| format!("go cannot be run: {cause}"))?;
    if built.status.success() {
        return Ok(path);
    }
    let said = String::from_utf8_lossy(&built.stderr);
    Err(format!("go build fails: {}", said.lines().last().unwrap_or_default()))
}

/// A Go peer; gone when dropped.
pub(crate) struct Scripted {
    child: Child,
    input: ChildStdin,
    events: Arc<Mutex<Vec<Value>>>,
    pub(crate) id: PeerId,
    pub(crate) addr: Multiaddr,
    topic: String,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Scripted {
    /// Starts one with further flags; says why not, and gives `None`, where it cannot be built here.
    pub(crate) async fn start(flags: &[&str]) -> Option<Self> {
        Self::start_on("/ip4/127.0.0.1/tcp/0", SECRET, flags).await
    }

    /// As [`Scripted::start`], with another address or secret.
    pub(crate) async fn start_on(listen: &str, secret: &str, flags: &[&str]) -> Option<Self> {
        let program = program().map_err(|why| eprintln!("skipped: {why}")).ok()?;
        let mut child = Command::new(program)
            .args(["--secret", secret, "--listen", listen, "--heartbeat", "500ms"])
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&events);
        // ends with the child's output
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
                sink.lock().unwrap_or_else(PoisonError::into_inner).push(event);
            }
        });
        let no_id = PeerId::random();
        let mut peer =
            Self { child, input, events, id: no_id, addr: Multiaddr::empty(), topic: String::new() };
        let started = peer.event("it starts", |event| event["event"] == "started").await;
        peer.id = started["id"].as_str().unwrap().parse().unwrap();
        peer.addr = started["addresses"][0].as_str().unwrap().parse().unwrap();
        peer.topic = started["crdt_topic"].as_str().unwrap().to_owned();
        Some(peer)
    }

    /// How much it has told so far.
    pub(crate) fn n_events(&self) -> usize {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn find(&self, from: usize, is_it: impl Fn(&Value) -> bool) -> Option<Value> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.get(from..)?.iter().find(|event| is_it(event)).cloned()
    }

    /// The first event of a kind, told already or to come.
    pub(crate) async fn event(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        self.event_after(0, what, is_it).await
    }

    /// The first event of a kind after the first `n_events`.
    pub(crate) async fn event_after(
        &self,
        n_events: usize,
        what: &str,
        is_it: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut found = None;
        let ended = eventually(what, async || {
            found = self.find(n_events, &is_it);
            found.is_some()
        })
        .await;
        ended.unwrap_or_else(|missing| panic!("{missing}\n{}", self.last_events()));
        found.unwrap()
    }

    /// For messages of tests that fail.
    pub(crate) fn last_events(&self) -> String {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let last = events.iter().skip(events.len().saturating_sub(40));
        last.map(|event| format!("{event}\n")).collect()
    }

    /// Waits until its mesh of the CRDT topic holds a peer: what either publishes now reaches the other.
    pub(crate) async fn grafted(&self, peer: &str) {
        self.event(&format!("its mesh holds {peer}"), |event| {
            event["event"] == "graft" && event["topic"] == self.topic.as_str() && event["peer"] == peer
        })
        .await;
    }

    /// Runs a line that may fail.
    pub(crate) async fn try_run(&mut self, line: &str) -> Value {
        let n_events = self.n_events();
        writeln!(self.input, "{line}").unwrap();
        self.event_after(n_events, line, |event| event["event"] == "done").await
    }

    /// Runs a line and gives its answer.
    pub(crate) async fn run(&mut self, line: &str) -> Value {
        let answer = self.try_run(line).await;
        assert_eq!(answer["error"], "", "{line}");
        answer
    }

    /// Its set: values by key.
    pub(crate) async fn set(&mut self) -> serde_json::Map<String, Value> {
        self.run("set").await["set"].as_object().unwrap().clone()
    }

    /// Its heads as texts, sorted.
    pub(crate) async fn heads(&mut self) -> Vec<String> {
        let answer = self.run("heads").await;
        let heads = answer["heads"].as_array().unwrap().iter();
        let mut heads: Vec<_> = heads.map(|head| head.as_str().unwrap().to_owned()).collect();
        heads.sort();
        heads
    }

    /// Ends it at once.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
    }
}
