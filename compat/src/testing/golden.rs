//! Replay of recorded exchanges against a server, and the comparison of answers.
//!
//! ```text
//!  fixtures/AREA/NAME.json ─ Recording ─ replay ─┬─ wire ── a face of the server
//!                                                ├─ FakeKubo: what the daemon said, and what it was asked
//!                                                └─ compare ─ Difference
//! ```
//!
//! A recording is a list of requests, each with the answer of ipfs-cluster 1.1.6 and, where a ruling departs from it,
//! ours. Requests go out byte by byte, on a connection each; answers are compared with their framing, chunks and
//! trailers. Steps keep the number they have in the scenario they come from, which `compat/DEVIATIONS.md` names.
//! `BLESS=1` writes our answer into the steps that a ruling covers, and nowhere else.

pub mod compare;
pub mod record;
pub mod replay;
pub mod wire;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

pub use self::compare::{Difference, comparable, difference};
pub use self::replay::{Faces, Outcome, Replay, exchange};
pub use self::wire::{parse, send};

/// A file of `fixtures/`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Recording {
    /// What was recorded, and which scenario or command gave it.
    #[serde(default)]
    pub recorded: String,
    /// What it is about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// Keys of `service.json` that are not at their defaults, as paths: `api/restapi/headers`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configuration: BTreeMap<String, Value>,
    /// What was asked and answered, in order.
    pub steps: Vec<Step>,
}

impl Recording {
    /// Reads a file.
    pub fn load(path: &Path) -> io::Result<Self> {
        let mut recording: Self = serde_json::from_slice(&std::fs::read(path)?)?;
        for step in &mut recording.steps {
            step.answer.fill_body();
            step.ours.iter_mut().for_each(Answer::fill_body);
        }
        Ok(recording)
    }

    /// Its text: one step a line.
    pub fn to_text(&self) -> String {
        let bare = Self { steps: Vec::new(), ..self.clone() };
        let head = serde_json::to_string(&bare).unwrap_or_default();
        let head = head.strip_suffix("]}").unwrap_or(&head);
        let steps: Vec<String> = self
            .steps
            .iter()
            .map(|step| serde_json::to_string(&step.compact()).unwrap_or_default())
            .collect();
        format!("{head}\n{}\n]}}\n", steps.join(",\n"))
    }

    /// Writes the file.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        std::fs::write(path, self.to_text())
    }
}

/// Which of a peer's servers is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Face {
    /// The REST API, 9094.
    #[default]
    Rest,
    /// The IPFS proxy, 9095.
    Proxy,
    /// The pinning service, 9097.
    Pinsvc,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// One request and its answer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Step {
    /// Its number in the scenario it comes from.
    #[serde(default)]
    pub no: usize,
    /// Where it goes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub to: Face,
    /// Why a fake cluster cannot answer it: such steps need a whole peer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub whole: String,
    /// Its method.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// Path and query.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Header lines besides those every client sends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The `Host` line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// What is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Data>,
    /// What is sent in chunks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunked_body: Option<Vec<Data>>,
    /// Bytes that go out as they stand, in place of all above; the answer is [`Answer::bytes`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<Data>,
    /// The answer is waited for: what a peer does takes its time.
    #[serde(default, skip_serializing_if = "is_default")]
    pub until: bool,
    /// Whether the order of lines is free.
    #[serde(default, skip_serializing_if = "is_default")]
    pub any_order: bool,
    /// Whether the order in the innermost lists of a JSON answer is free.
    #[serde(default, skip_serializing_if = "is_default")]
    pub any_list_order: bool,
    /// Whether it is free where chunks begin.
    #[serde(default, skip_serializing_if = "is_default")]
    pub any_chunks: bool,
    /// Header lines that are not compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub any_header: Vec<String>,
    /// Names in JSON whose values are not compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mask: Vec<String>,
    /// Whether the body is not compared.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mask_body: bool,
    /// The ruling by which we answer otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ruling: String,
    /// What the original answered.
    #[serde(default)]
    pub answer: Answer,
    /// What a ruling makes of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ours: Option<Answer>,
    /// What the daemon was asked meanwhile, and what it said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub daemon: Vec<Asked>,
}

impl Step {
    /// A request without a body.
    pub fn request(method: &str, target: &str) -> Self {
        Self { method: method.into(), target: target.into(), ..Self::default() }
    }

    /// The answer that is expected of us.
    pub fn expected(&self) -> &Answer {
        self.ours.as_ref().unwrap_or(&self.answer)
    }

    /// `7: POST /pins/…`, for messages.
    pub fn title(&self) -> String {
        match &self.raw {
            Some(raw) => {
                format!("{}: raw {:?}", self.no, String::from_utf8_lossy(&raw.bytes()).lines().next())
            }
            None => format!("{}: {} {}", self.no, self.method, self.target),
        }
    }

    fn compact(&self) -> Self {
        let mut step = self.clone();
        step.answer.drop_body();
        step.ours.iter_mut().for_each(Answer::drop_body);
        step
    }
}

/// Bytes in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Data {
    /// That are text.
    Text(String),
    /// That are not.
    Base64(String),
    /// That are too many for a file.
    Digest {
        /// How many.
        bytes: usize,
        /// Their SHA-256 in hex.
        sha256: String,
    },
    /// That follow from a seed: SHA-256 of `seed:0`, `seed:1`, …
    Random {
        /// What is hashed before the number.
        seed: String,
        /// How many.
        size: usize,
    },
}

impl Default for Data {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl Data {
    /// Most bytes of an answer that are kept in a file.
    const MAX_KEPT: usize = 8192;

    /// The bytes; none of a digest.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Base64(text) => STANDARD.decode(text).unwrap_or_default(),
            Self::Digest { .. } => Vec::new(),
            Self::Random { seed, size } => {
                let blocks = (0_u64..).flat_map(|n| Sha256::digest(format!("{seed}:{n}")));
                blocks.take(*size).collect()
            }
        }
    }

    /// Text where it is, base64 where it is not.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Base64(STANDARD.encode(error.as_bytes())),
        }
    }

    /// The text, or the base64 of what is none; nothing of what is not kept.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Base64(text) => text,
            Self::Digest { .. } | Self::Random { .. } => "",
        }
    }

    /// The same as a digest.
    pub fn digest(&self) -> Self {
        if let Self::Digest { .. } = self {
            return self.clone();
        }
        let bytes = self.bytes();
        Self::Digest { bytes: bytes.len(), sha256: hex::encode(Sha256::digest(&bytes)) }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same, as a digest where it is long.
    pub fn kept(self) -> Self {
        if self.bytes().len() > Self::MAX_KEPT { self.digest() } else { self }
    }
}

fn http_1_1() -> String {
    "HTTP/1.1".into()
}

fn is_http_1_1(version: &String) -> bool {
    version == "HTTP/1.1"
}

/// A whole answer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Answer {
    /// `HTTP/1.1`.
    #[serde(default = "http_1_1", skip_serializing_if = "is_http_1_1")]
    pub version: String,
    /// Its code.
    #[serde(default, skip_serializing_if = "is_default")]
    pub status: u16,
    /// The words after it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Header lines in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// `none`, `content-length`, `chunked` or `until-close`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub framing: String,
    /// Chunks as they were cut.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chunks: Vec<Data>,
    /// All of the body; in files left out where chunks are there.
    #[serde(default, skip_serializing_if = "Data::is_empty")]
    pub body: Data,
    /// Header lines after the body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trailers: Vec<(String, String)>,
    /// All that came back to a raw request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Data>,
    /// Whether the server closed the connection after a raw request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<bool>,
    /// Why there is no answer: the connection was `refused` or `closed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_reply: Option<String>,
}

impl Answer {
    fn fill_body(&mut self) {
        if !self.chunks.is_empty() && self.body.is_empty() {
            self.body = Data::from_bytes(self.chunks.iter().flat_map(Data::bytes).collect());
        }
    }

    /// Leaves out what a file does without.
    fn drop_body(&mut self) {
        self.body = std::mem::take(&mut self.body).kept();
        if let Data::Digest { .. } = self.body {
            self.chunks.clear();
        }
        if !self.chunks.is_empty() {
            self.body = Data::default();
        }
        self.headers.retain(|(name, _)| !compare::is_uncompared(name));
    }
}

/// A request to the daemon, and its answer, as [`super::kubo::Rule::recorded`] reads it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Asked {
    /// `POST /api/v0/…`
    pub request: String,
    /// Its header lines, `Host` and length left out.
    #[serde(default)]
    pub sent: Vec<String>,
    /// Its body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_sent: Option<Data>,
    /// `200 OK`
    pub status: String,
    /// Header lines of the answer.
    pub headers: Vec<String>,
    /// The answer's chunks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chunks: Vec<Data>,
    /// The answer's body where it has a length.
    #[serde(default, skip_serializing_if = "Data::is_empty")]
    pub body: Data,
    /// Header lines after the body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trailers: Vec<String>,
}

impl Asked {
    /// The bytes of the answer.
    pub fn reply(&self) -> Vec<u8> {
        let mut reply =
            format!("HTTP/1.1 {}\r\n{}\r\n\r\n", self.status, self.headers.join("\r\n")).into_bytes();
        let is_chunked =
            self.headers.iter().any(|line| line.eq_ignore_ascii_case("transfer-encoding: chunked"));
        if !is_chunked {
            reply.extend(self.body.bytes());
            return reply;
        }
        for chunk in &self.chunks {
            let chunk = chunk.bytes();
            reply.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            reply.extend(chunk);
            reply.extend(b"\r\n");
        }
        let trailers: String = self.trailers.iter().map(|line| format!("{line}\r\n")).collect();
        reply.extend(format!("0\r\n{trailers}\r\n").into_bytes());
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_survives_its_own_text() {
        let text = "{\"recorded\":\"x\",\"steps\":[\n\
                    {\"no\":3,\"method\":\"GET\",\"target\":\"/id\",\"answer\":{\"status\":200,\"chunks\":[{\"text\":\"a\"}]}},\n\
                    {\"no\":4,\"to\":\"proxy\",\"raw\":{\"random\":{\"seed\":\"s\",\"size\":40}},\"answer\":{\"closed\":true}}\n\
                    ]}\n";
        let recording: Recording = serde_json::from_str(text).unwrap();
        assert_eq!(recording.to_text(), text);
        let random = recording.steps[1].raw.as_ref().unwrap().bytes();
        assert_eq!((random.len(), &random[..32]), (40, &Sha256::digest("s:0")[..]));
    }

    #[test]
    fn long_bodies_become_digests() {
        let kept = Data::Text("a".repeat(Data::MAX_KEPT + 1)).kept();
        assert!(matches!(kept, Data::Digest { bytes: 8193, .. }), "{kept:?}");
        assert_eq!(Data::Text("a".into()).kept(), Data::Text("a".into()));
    }
}
