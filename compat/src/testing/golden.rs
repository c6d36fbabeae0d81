//! Replay of recorded exchanges against a server, and the comparison of answers.
//!
//! A recording is a list of requests, each with the answer of ipfs-cluster 1.1.6. Requests go out byte by byte, on
//! a connection each; answers are compared with their framing, chunks and trailers. Times and a few counters
//! are masked, header lines may come in any order.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Header lines that are not compared: the length is held against the body instead.
const UNCOMPARED: [&str; 2] = ["date", "content-length"];

/// Names whose number differs from run to run.
const COUNTERS: [&str; 4] = ["expire", "received_at", "weight", "created"];

/// A file of `fixtures/`.
#[derive(Debug, Deserialize)]
pub struct Recording {
    /// What was asked and answered, in order.
    pub steps: Vec<Step>,
}

impl Recording {
    /// Reads a file.
    pub fn load(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }
}

/// One request and its answer.
#[derive(Debug, Deserialize)]
pub struct Step {
    /// Its method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Header lines besides those every client sends.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The `Host` line.
    pub host: Option<String>,
    /// What is sent.
    pub body: Option<Data>,
    /// Whether the order of lines is free.
    #[serde(default)]
    pub any_order: bool,
    /// What the original answered.
    pub answer: Answer,
    /// What a ruling makes of it.
    pub ours: Option<Answer>,
}

/// Bytes in a file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Data {
    /// That are text.
    Text(String),
    /// That are not.
    Base64(String),
}

impl Data {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Base64(text) => STANDARD.decode(text).unwrap_or_default(),
        }
    }

    fn from_bytes(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Base64(STANDARD.encode(error.as_bytes())),
        }
    }
}

/// A whole answer.
#[derive(Debug, Clone, Deserialize)]
pub struct Answer {
    /// `HTTP/1.1`.
    pub version: String,
    /// Its code.
    pub status: u16,
    /// The words after it.
    pub reason: String,
    /// Header lines in order.
    pub headers: Vec<(String, String)>,
    /// `none`, `content-length`, `chunked` or `until-close`.
    pub framing: String,
    /// Chunks as they were cut.
    pub chunks: Vec<Data>,
    /// All of the body.
    pub body: Data,
    /// Header lines after the body.
    pub trailers: Vec<(String, String)>,
}

/// Sends a request of a recording and reads its answer.
pub async fn exchange(server: SocketAddr, step: &Step) -> io::Result<Answer> {
    let body = step.body.as_ref().map(Data::bytes).unwrap_or_default();
    let host = step.host.as_deref().unwrap_or("127.0.0.1");
    let mut head = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", step.method, step.target);
    let has = |name: &str| step.headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
    for (name, value) in &step.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let says_length = !body.is_empty() || ["POST", "PUT", "PATCH"].contains(&step.method.as_str());
    if says_length && !has("content-length") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    if !has("connection") {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("\r\n");
    // recordings hold each byte of a head as one character
    let head: Vec<u8> = head.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect();
    let reply = send(server, &[head, body].concat()).await?;
    parse(&reply, &step.method).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("no whole answer: {}", String::from_utf8_lossy(&reply)),
        )
    })
}

/// Sends bytes on a connection of their own and reads until the server closes it.
pub async fn send(server: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    // a server may refuse before it has read everything
    let _ = stream.write_all(request).await;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await?;
    Ok(reply)
}

/// Takes an answer apart.
pub fn parse(reply: &[u8], method: &str) -> Option<Answer> {
    let mut reader = Reader { rest: reply };
    let (version, status, reason, headers) = loop {
        let line = reader.line()?;
        let (version, rest) = line.split_once(' ')?;
        let (status, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        let head = (version.to_string(), status.parse::<u16>().ok()?, reason.to_string(), reader.headers()?);
        if head.1 >= 200 {
            break head;
        }
    };
    let find =
        |name: &str| headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let (mut chunks, mut trailers) = (Vec::new(), Vec::new());
    let (framing, body) = if method == "HEAD" || matches!(status, 204 | 304) {
        ("none", Vec::new())
    } else if find("transfer-encoding").is_some() {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(&reader.line()?, 16).ok()?;
            if size == 0 {
                trailers = reader.headers()?;
                break;
            }
            let chunk = reader.exactly(size)?;
            body.extend_from_slice(chunk);
            chunks.push(Data::from_bytes(chunk.to_vec()));
            reader.exactly(2)?;
        }
        ("chunked", body)
    } else if let Some(length) = find("content-length") {
        ("content-length", reader.exactly(length.parse().ok()?)?.to_vec())
    } else {
        ("until-close", reader.rest.to_vec())
    };
    let (framing, body) = (framing.to_string(), Data::from_bytes(body));
    Some(Answer { version, status, reason, headers, framing, chunks, body, trailers })
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn line(&mut self) -> Option<String> {
        let end = self.rest.windows(2).position(|pair| pair == b"\r\n")?;
        let line = self.rest[..end].iter().copied().map(char::from).collect();
        self.rest = &self.rest[end + 2..];
        Some(line)
    }

    fn exactly(&mut self, n: usize) -> Option<&'a [u8]> {
        let (data, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(data)
    }

    fn headers(&mut self) -> Option<Vec<(String, String)>> {
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Some(headers);
            }
            let (name, value) = line.split_once(':')?;
            headers.push((name.to_string(), value.trim().to_string()));
        }
    }
}

/// An answer as lines, masked, and sorted where the order is free; two equal lists are equal answers.
pub fn comparable(answer: &Answer, any_order: bool) -> Vec<String> {
    let text = |data: &Data| match data {
        Data::Text(text) => mask(text),
        Data::Base64(text) => text.clone(),
    };
    let mut lines = vec![
        format!("status: {} {} {}", answer.version, answer.status, answer.reason),
        format!("framing: {}", answer.framing),
    ];
    for (kind, list) in [("header", &answer.headers), ("trailer", &answer.trailers)] {
        let kept = list.iter().filter(|(name, _)| !UNCOMPARED.contains(&name.to_ascii_lowercase().as_str()));
        let mut kept: Vec<_> = kept.map(|(name, value)| format!("{kind}: {name}: {}", mask(value))).collect();
        kept.sort();
        lines.extend(kept);
    }
    let mut rows: Vec<_> = answer.chunks.iter().map(|chunk| format!("chunk: {}", text(chunk))).collect();
    let body = text(&answer.body);
    let mut body: Vec<_> = body.split('\n').map(|row| format!("body: {row}")).collect();
    if any_order {
        rows.sort();
        body.sort();
    }
    lines.extend(rows);
    lines.extend(body);
    lines
}

/// Hides times, but not their offsets nor Go's zero time, and the numbers behind [`COUNTERS`].
fn mask(text: &str) -> String {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00";
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let rest = &bytes[at..];
        let is_time = rest.len() > SHAPE.len()
            && !text[at..].starts_with("0001-01-01T")
            && SHAPE.iter().zip(rest).all(|(shape, byte)| match shape {
                b'0' => byte.is_ascii_digit(),
                other => byte == other,
            });
        if is_time {
            out.push_str("<time>");
            at += SHAPE.len();
            if bytes.get(at) == Some(&b'.') {
                at += 1 + bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            }
            continue;
        }
        let counter =
            COUNTERS.iter().map(|name| format!("\"{name}\":")).find(|key| text[at..].starts_with(key));
        if let Some(key) = counter {
            out.push_str(&key);
            at += key.len();
            let n_digits =
                bytes[at..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'-').count();
            if n_digits > 0 {
                out.push_str("<int>");
                at += n_digits;
            }
            continue;
        }
        let Some(c) = text[at..].chars().next() else { break };
        out.push(c);
        at += c.len_utf8();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_counters_are_masked() {
        let text = r#"{"created":"2026-11-21T15:22:18.179Z","at":"0001-01-01T00:00:00Z","expire":12,"x":1}"#;
        let expected = r#"{"created":"<time>Z","at":"0001-01-01T00:00:00Z","expire":<int>,"x":1}"#;
        assert_eq!(mask(text), expected);
    }

    #[test]
    fn an_answer_is_taken_apart_to_its_trailers() {
        let reply =
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n\
                      3\r\nabc\r\n1\r\nd\r\n0\r\nX-Stream-Error: \r\nX-Stream-Error: e\r\n\r\n";
        let answer = parse(reply, "GET").unwrap();
        assert_eq!((answer.status, answer.framing.as_str(), answer.chunks.len()), (200, "chunked", 2));
        assert_eq!(answer.body, Data::Text("abcd".into()));
        assert_eq!(answer.trailers.len(), 2);
        assert!(parse(&reply[..reply.len() - 3], "GET").is_none());
    }
}
