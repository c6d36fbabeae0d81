//! Sends the steps of a recording to the faces of a server and tells what differs.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::compare::{Difference, difference};
use super::record::{Ports, filled, named};
use super::wire::{parse, request, send, send_raw};
use super::{Answer, Data, Face, Recording, Step};
use crate::testing::kubo::{FakeKubo, Part, Rule, Seen};

/// How long one exchange, or the wait for a state, may take before the replay says which it was.
const LIMIT: Duration = Duration::from_secs(20);

/// Pause between two looks at what takes its time.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Where the faces of a server are.
pub type Faces = BTreeMap<Face, SocketAddr>;

/// A recording about to be replayed.
#[derive(Debug)]
pub struct Replay {
    path: PathBuf,
    recording: Recording,
    faces: Faces,
    ports: Ports,
    is_whole: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Steps that were compared.
    pub n_compared: usize,
    /// Steps that were not answered as expected.
    pub differences: Vec<Difference>,
}

/// Sends a request of a recording and reads its answer.
pub async fn exchange(server: SocketAddr, step: &Step) -> io::Result<Answer> {
    if let Some(raw) = &step.raw {
        let (bytes, closed) = send_raw(server, &raw.bytes()).await?;
        return Ok(Answer {
            bytes: Some(Data::from_bytes(bytes)),
            closed: Some(closed),
            ..Answer::default()
        });
    }
    let reply = send(server, &request(step)).await?;
    parse(&reply, &step.method).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("no whole answer: {}", String::from_utf8_lossy(&reply)),
        )
    })
}

impl Replay {
    /// Reads a file of `fixtures/`.
    pub fn load(path: &Path, faces: Faces) -> io::Result<Self> {
        let (recording, ports) = (Recording::load(path)?, Ports::new());
        Ok(Self { path: path.to_owned(), recording, faces, ports, is_whole: false })
    }

    /// The same against a whole peer: no step is left out.
    pub fn whole(mut self) -> Self {
        self.is_whole = true;
        self
    }

    /// The same with names in the file for these ports of the server.
    pub fn with_ports(mut self, ports: Ports) -> Self {
        self.ports = ports;
        self
    }

    /// The recording.
    pub fn recording(&self) -> &Recording {
        &self.recording
    }

    /// Replays all steps that the server can answer. With `BLESS=1`, what a ruling covers is written down instead of
    /// compared.
    pub async fn run(mut self, daemon: Option<&FakeKubo>) -> Outcome {
        let blesses = std::env::var_os("BLESS").is_some_and(|value| value == "1");
        let mut outcome = Outcome::default();
        for i in 0..self.recording.steps.len() {
            let step = self.recording.steps[i].clone();
            let Some(addr) = self.faces.get(&step.to).copied() else { continue };
            if !step.whole.is_empty() && !self.is_whole {
                continue;
            }
            let before = daemon.map_or(0, |daemon| daemon.requests().len());
            if let Some(daemon) = daemon.filter(|_| !step.daemon.is_empty()) {
                daemon.set_recorded_rules(rules(&step));
            }
            outcome.n_compared += 1;
            let (answer, found) = settle(addr, &step, &self.ports, self.is_whole).await;
            if blesses && !step.ruling.is_empty() {
                let is_same = difference(&step, &step.answer, &answer).is_none();
                self.recording.steps[i].ours = (!is_same).then(|| answer.clone());
            } else {
                outcome.differences.extend(found);
            }
            if let Some(daemon) = daemon.filter(|_| !step.daemon.is_empty()) {
                daemon.set_recorded_rules(Vec::new());
                outcome.differences.extend(asked_otherwise(&step, &daemon.requests()[before..]));
            }
        }
        if blesses && let Err(error) = self.recording.save(&self.path) {
            eprintln!("{}: {error}", self.path.display());
        }
        outcome
    }

    /// Replays and panics with all differences.
    ///
    /// # Panics
    /// If a step differs, or none was compared.
    pub async fn check(self, daemon: Option<&FakeKubo>) {
        let name = self.path.display().to_string();
        let outcome = self.run(daemon).await;
        let texts: Vec<String> = outcome.differences.iter().map(ToString::to_string).collect();
        let (n, n_compared) = (texts.len(), outcome.n_compared);
        assert!(n_compared > 0, "{name}: no step was compared");
        assert!(n == 0, "{name}: {n} differences in {n_compared} steps\n{}", texts.join("\n"));
    }
}

/// Asks once, or of a whole peer until the answer is the expected one where the step waits.
async fn settle(
    addr: SocketAddr,
    step: &Step,
    ports: &Ports,
    is_whole: bool,
) -> (Answer, Option<Difference>) {
    let deadline = Instant::now() + LIMIT;
    let request = filled(step, ports);
    loop {
        let answer = match tokio::time::timeout(LIMIT, exchange(addr, &request)).await {
            Ok(Ok(answer)) => named(answer, ports, false),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => none("refused"),
            Ok(Err(_)) => none("closed"),
            Err(_) => none(&format!("none within {LIMIT:?}")),
        };
        let found = difference(step, step.expected(), &answer);
        if found.is_none() || !step.until || !is_whole || Instant::now() > deadline {
            return (answer, found);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn none(reason: &str) -> Answer {
    Answer { no_reply: Some(reason.to_owned()), ..Answer::default() }
}

/// What the daemon said in a step.
fn rules(step: &Step) -> Vec<Rule> {
    step.daemon
        .iter()
        .map(|asked| {
            let method_and_path = asked.request.split('?').next().unwrap_or_default();
            let rule = Rule::new(method_and_path, vec![Part::Bytes(asked.reply())]);
            // it is asked for headers as often as we like
            if is_for_headers(&asked.request, step) { rule } else { rule.times(1) }
        })
        .collect()
}

/// How what we asked the daemon differs from what the original asked it. Requests for headers to copy are our own
/// business.
fn asked_otherwise(step: &Step, seen: &[Seen]) -> Option<Difference> {
    if !step.ruling.is_empty() {
        return None;
    }
    let mut expected = Vec::new();
    for asked in step.daemon.iter().filter(|asked| !is_for_headers(&asked.request, step)) {
        expected.push(asked.request.clone());
        let mut sent: Vec<String> = asked.sent.iter().map(|line| canonical(line)).collect();
        sent.sort();
        expected.extend(sent);
        expected.extend(asked.body_sent.as_ref().map(body_line));
    }
    let mut actual = Vec::new();
    for seen in seen.iter().filter(|seen| !is_for_headers(&seen.line, step)) {
        actual.push(seen.line.clone());
        let skipped = ["host", "content-length"];
        let lines = seen.head.lines().skip(1);
        let mut sent: Vec<String> = lines
            .map(canonical)
            .filter(|line| !skipped.contains(&line.split(':').next().unwrap_or_default()))
            .collect();
        sent.sort();
        actual.extend(sent);
        if !seen.body.is_empty() {
            actual.push(body_line(&Data::from_bytes(seen.body.clone())));
        }
    }
    let title = format!("{}: what the daemon was asked", step.title());
    (expected != actual).then_some(Difference { no: step.no, title, expected, actual })
}

/// Whether a request to the daemon is one for headers to copy, in a step that asks for something else.
fn is_for_headers(line: &str, step: &Step) -> bool {
    let own = format!("{} {}", step.method, step.target);
    (line.starts_with("OPTIONS ") || line == "POST /api/v0/version") && !own.starts_with(line)
}

/// A header line with its name in lower case.
fn canonical(line: &str) -> String {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    format!("{}: {}", name.to_ascii_lowercase(), value.trim())
}

fn body_line(data: &Data) -> String {
    format!("body: {:?}", data.digest())
}
