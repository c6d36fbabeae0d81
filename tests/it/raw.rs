//! Requests to a peer's sockets byte by byte, and answers with their trailers.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// How long one exchange may take before a test says which it was.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// What came back until the connection ended.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// 0 if nothing came.
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
    /// `X-Stream-Error` behind a body of chunks.
    pub(crate) late: Option<String>,
    /// Whether a body of chunks has its end.
    pub(crate) is_whole: bool,
}

impl Answer {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let Some(end) = find(bytes, b"\r\n\r\n") else {
            return Self { head: String::from_utf8_lossy(bytes).into_owned(), ..Self::default() };
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or_default();
        let mut rest = &bytes[end + 4..];
        if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            let body = String::from_utf8_lossy(rest).into_owned();
            return Self { status, head, body, late: None, is_whole: true };
        }
        let mut body = Vec::new();
        let mut answer = Self { status, head, ..Self::default() };
        while let Some(line) = find(rest, b"\r\n") {
            let size = std::str::from_utf8(&rest[..line]).ok();
            let Some(size) = size.and_then(|size| usize::from_str_radix(size, 16).ok()) else { break };
            rest = &rest[line + 2..];
            if size == 0 {
                let trailers = String::from_utf8_lossy(rest);
                let late = trailers.lines().find_map(|line| line.strip_prefix("X-Stream-Error: "));
                answer.late = late.map(str::to_owned);
                answer.is_whole = true;
                break;
            }
            body.extend_from_slice(&rest[..size.min(rest.len())]);
            rest = rest.get(size + 2..).unwrap_or_default();
        }
        answer.body = String::from_utf8_lossy(&body).into_owned();
        answer
    }

    /// What it says went wrong; `None` if it says nothing of the kind.
    pub(crate) fn failure(&self) -> Option<&str> {
        match (self.status, &self.late) {
            (400.., _) => Some(&self.body),
            (_, late) => late.as_deref(),
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// A body of known length, or one that is made while it is sent.
pub(crate) enum Body {
    /// With its length in the head.
    Whole(Vec<u8>),
    /// In chunks of so many bytes.
    Chunks(Vec<u8>, usize),
    /// In chunks: first a start, then a piece so often, then an end.
    Repeated { start: Vec<u8>, piece: fn(usize) -> Vec<u8>, times: usize, end: Vec<u8> },
    /// Bytes after the head, which has these lines to say how long it is.
    Framed { lines: &'static str, bytes: Vec<u8> },
}

/// Sends a request while it reads the answer, to the end of the connection.
pub(crate) async fn exchange(socket: &Path, target: &str, kind: &str, body: &Body) -> Answer {
    let stream = UnixStream::connect(socket).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let lines = match body {
        Body::Whole(bytes) => format!("Content-Length: {}\r\n", bytes.len()),
        Body::Chunks(..) | Body::Repeated { .. } => "Transfer-Encoding: chunked\r\n".into(),
        Body::Framed { lines, .. } => (*lines).into(),
    };
    let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
    let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{kind}{lines}\r\n");
    let send = async {
        write.write_all(head.as_bytes()).await?;
        match body {
            Body::Whole(bytes) | Body::Framed { bytes, .. } => write.write_all(bytes).await?,
            Body::Chunks(bytes, size) => {
                for piece in bytes.chunks(*size) {
                    write.write_all(&chunk(piece)).await?;
                }
                write.write_all(b"0\r\n\r\n").await?;
            }
            Body::Repeated { start, piece, times, end } => {
                write.write_all(&chunk(start)).await?;
                for n in 0..*times {
                    write.write_all(&chunk(&piece(n))).await?;
                }
                write.write_all(&chunk(end)).await?;
                write.write_all(b"0\r\n\r\n").await?;
            }
        }
        if let Body::Framed { .. } = body {
            // what is missing does not come
            write.shutdown().await?;
        }
        std::io::Result::Ok(())
    };
    let receive = async {
        let mut bytes = Vec::new();
        let _ = read.read_to_end(&mut bytes).await;
        bytes
    };
    // a server may answer before it has read everything
    let both = async {
        let (_, bytes) = tokio::join!(send, receive);
        bytes
    };
    let bytes = tokio::time::timeout(LIMIT, both).await.unwrap_or_else(|_| panic!("no end of {target}"));
    Answer::parse(&bytes)
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    if bytes.is_empty() {
        return Vec::new();
    }
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}
