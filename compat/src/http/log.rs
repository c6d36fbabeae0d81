//! The access log, in the Common Log Format (spec: rest-api 1.6, ipfs-proxy 3.3).
//!
//! One line per request, written when the last byte of its answer was given to the connection; an answer that
//! breaks off leaves none.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::info;

use super::conn::{Handler, PeerAddr, RawTarget, Request};

/// Where lines go.
#[derive(Debug, Clone)]
pub struct AccessLog(Arc<Sink>);

#[derive(Debug)]
enum Sink {
    /// Appended to a file; the lock is held for one write and never over an await.
    File(Mutex<File>),
    Facility(Facility),
}

/// A log facility of the reference for access lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Facility {
    /// `restapilog`
    RestApi,
    /// `pinsvcapilog`
    PinSvc,
    /// `ipfsproxylog`
    Proxy,
}

impl AccessLog {
    /// Lines to a file, created with mode 0644 and appended to, or to the process's log.
    pub fn open(file: Option<&Path>, facility: Facility) -> io::Result<Self> {
        let sink = match file {
            None => Sink::Facility(facility),
            Some(path) => {
                let mut options = OpenOptions::new();
                options.create(true).append(true);
                #[cfg(unix)]
                std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o644);
                Sink::File(Mutex::new(options.open(path)?))
            }
        };
        Ok(Self(Arc::new(sink)))
    }

    /// Logs every request that `handler` answers.
    pub fn layer(self, handler: Handler) -> Handler {
        Arc::new(move |request, peer| {
            let log = self.clone();
            let line = start_of_line(&peer, &request);
            let answer = handler(request, peer);
            Box::pin(async move {
                let response = answer.await;
                let status = response.status().as_u16();
                response.map(|body| {
                    body.on_finish(move |bytes| {
                        let mut line = line;
                        let _ = writeln!(line, " {status} {bytes}");
                        log.0.write(&line);
                    })
                })
            })
        })
    }
}

impl Sink {
    fn write(&self, line: &str) {
        match self {
            Self::File(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(e) = file.write_all(line.as_bytes()) {
                    tracing::error!("http: cannot write the access log: {e}");
                }
            }
            Self::Facility(Facility::RestApi) => info!(target: "restapilog", "{line}"),
            Self::Facility(Facility::PinSvc) => info!(target: "pinsvcapilog", "{line}"),
            Self::Facility(Facility::Proxy) => info!(target: "ipfsproxylog", "{line}"),
        }
    }
}

/// Everything known before the answer.
fn start_of_line(host: &PeerAddr, request: &Request) -> String {
    let user = request
        .uri()
        .authority()
        .and_then(|authority| authority.as_str().rsplit_once('@'))
        .map_or("-", |(user, _)| user.split(':').next().unwrap_or_default());
    // room for the end of the line too
    let mut line = String::with_capacity(160 + request.uri().path().len());
    let _ = write!(line, "{host} - {user} [");
    with_present(|at| line.push_str(at));
    let _ = write!(line, "] \"{} ", request.method());
    let is_origin = request.uri().scheme().is_none() && request.uri().authority().is_none();
    match (request.extensions().get::<RawTarget>(), request.uri().path_and_query()) {
        (Some(RawTarget(raw)), _) => escape(&mut line, raw),
        (None, Some(target)) if is_origin => escape(&mut line, target.as_str().as_bytes()),
        (None, _) => escape(&mut line, request.uri().to_string().as_bytes()),
    }
    let _ = write!(line, " {:?}\"", request.version());
    line
}

thread_local! {
    /// The second of the last line and its text: a busy server writes many lines in one.
    static PRESENT: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// Gives the present, as the log writes it, to `read`.
fn with_present(read: impl FnOnce(&str)) {
    let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    PRESENT.with_borrow_mut(|(known, text)| {
        if *known != second {
            *known = second;
            *text = jiff::Zoned::now().strftime("%d/%b/%Y:%H:%M:%S %z").to_string();
        }
        read(text);
    });
}

/// Quotes and backslashes escaped, and what cannot be printed, as Go's access log does.
fn escape(line: &mut String, text: &[u8]) {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    if let Ok(text) = std::str::from_utf8(text)
        && text.bytes().all(is_plain)
    {
        return line.push_str(text);
    }
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => {
                    line.push('\\');
                    line.push(c);
                }
                '\n' => line.push_str("\\n"),
                '\r' => line.push_str("\\r"),
                '\t' => line.push_str("\\t"),
                c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                    let _ = write!(line, "\\x{:02x}", c as u32);
                }
                c if c.is_control() => {
                    let _ = write!(line, "\\u{:04x}", c as u32);
                }
                c => line.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(line, "\\x{byte:02x}");
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;

    use super::*;
    use crate::http::conn::{PeerAddr, RequestBody, boxed};
    use crate::http::respond::{self, Body};

    async fn logged(request: http::Request<()>, body: fn() -> Body, reads: bool) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = AccessLog::open(Some(&path), Facility::Proxy).unwrap();
        let handler = log.layer(Arc::new(move |_, _| {
            boxed(async move { respond::empty(StatusCode::OK).map(|_| body()) })
        }));
        let request = request.map(|()| RequestBody::from(Bytes::new()));
        let response = handler(request, PeerAddr::Ip([127, 0, 0, 1].into())).await;
        if reads {
            let _ = http_body_util::BodyExt::collect(response.into_body()).await;
        } else {
            drop(response);
        }
        std::fs::read_to_string(&path).unwrap()
    }

    fn request(uri: &str) -> http::Request<()> {
        http::Request::builder().uri(uri).body(()).unwrap()
    }

    #[tokio::test]
    async fn a_line_is_written_when_the_answer_is_complete() {
        let line = logged(request("/version?a=%22"), || Body::whole("12345"), false).await;
        let (start, end) = (line.split_once('[').unwrap().0, line.split_once("] ").unwrap().1);
        assert_eq!((start, end), ("127.0.0.1 - - ", "\"GET /version?a=%22 HTTP/1.1\" 200 5\n"));
        let line = logged(request("http://me:pw@host/x"), Body::empty, false).await;
        assert!(line.starts_with("127.0.0.1 - me [") && line.ends_with(" 200 0\n"), "{line}");
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_leaves_no_line() {
        let cut = || Body::frames(futures::stream::once(async { Err("cut".into()) }));
        assert_eq!(logged(request("/"), cut, true).await, "");
        assert_eq!(logged(request("/"), || Body::frames(futures::stream::pending()), false).await, "");
    }

    #[tokio::test]
    async fn the_target_is_logged_as_sent() {
        let mut request = request("/a%22b");
        request.extensions_mut().insert(RawTarget(Bytes::from_static(b"/a\"\\b\xff\x01")));
        let line = logged(request, Body::empty, false).await;
        assert!(line.contains("\"GET /a\\\"\\\\b\\xff\\x01 HTTP/1.1\""), "{line}");
    }
}
