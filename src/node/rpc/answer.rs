//! Answers as `go-ipfs-cmds` frames them: chunks, a head that says what they are, failures in the trailer.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use cluster_compat::go::json;
use cluster_compat::http::respond::{self, Body, BodyError, Response, X_STREAM_ERROR};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, stream};
use http::StatusCode;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_EXPOSE_HEADERS, ALLOW, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, SERVER, TRAILER, VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::body::Frame;
use serde::Serialize;
use tokio::time::Instant;

use super::super::Error;

const EXPOSED: HeaderValue = HeaderValue::from_static("X-Stream-Output, X-Chunked-Output, X-Content-Length");
const X_CHUNKED_OUTPUT: HeaderName = HeaderName::from_static("x-chunked-output");
const X_STREAM_OUTPUT: HeaderName = HeaderName::from_static("x-stream-output");
const X_CONTENT_LENGTH: HeaderName = HeaderName::from_static("x-content-length");
/// Largest chunk of a stream of bytes. (Go: `http/responseemitter.go` copies by 4096; larger ones cost less)
const MAX_CHUNK: usize = 64 << 10;

/// Documents, each with its line feed, or the failure that ends them.
pub(in crate::node) type Lines = BoxStream<'static, Result<Bytes, Failure>>;

/// What an endpoint answers.
pub(in crate::node) enum Answer {
    /// One document.
    One(Bytes),
    /// Text of some type, in one piece.
    Text(&'static str, String),
    /// Documents as they come.
    Many(Lines),
    /// Bytes as they come: their type, their number if it is known.
    Bytes(&'static str, Option<u64>, Lines),
    Failure(Failure),
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::node) struct Failure {
    message: String,
    kind: FailureKind,
}

/// How a failure is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FailureKind {
    /// A document and 500.
    Server,
    /// A document and 400. (Go: `cmds.ErrClient`)
    Client,
    /// Plain text and 400: the request itself was wrong.
    Request,
}

impl Failure {
    /// In Kubo's words.
    pub(in crate::node) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: FailureKind::Server }
    }

    /// Of a request that makes no sense.
    pub(in crate::node) fn request(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: FailureKind::Request }
    }

    /// Of options that contradict each other.
    pub(in crate::node) fn client(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: FailureKind::Client }
    }

    /// The call's own limit.
    pub(in crate::node) fn deadline() -> Self {
        Self::new("context deadline exceeded")
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for Failure {
    fn from(cause: Error) -> Self {
        Self::new(cause.to_string())
    }
}

/// A document with its line feed.
pub(in crate::node) fn line<T: Serialize + ?Sized>(value: &T) -> Bytes {
    let mut text = json::to_vec(value);
    text.push(b'\n');
    text.into()
}

impl Answer {
    /// One document.
    pub(in crate::node) fn one<T: Serialize + ?Sized>(value: &T) -> Self {
        Self::One(line(value))
    }

    /// Documents as they come.
    pub(in crate::node) fn many<T: Serialize>(
        items: impl Stream<Item = Result<T, Failure>> + Send + 'static,
    ) -> Self {
        Self::Many(items.map(|item| item.map(|item| line(&item))).boxed())
    }

    /// Frames it. A failure before the first byte is the answer, a later one is in the trailer.
    pub(super) async fn into_response(self, deadline: Option<Instant>) -> Response {
        match self {
            Self::Failure(failure) => failed(&failure),
            Self::One(document) => chunks("application/json", stream::iter([Ok(Frame::data(document))])),
            Self::Text(kind, text) => chunks(kind, stream::iter([Ok(Frame::data(Bytes::from(text)))])),
            Self::Many(lines) => match begun(lines, deadline).await {
                Ok(lines) => {
                    let mut response = chunks("application/json", frames(lines));
                    response.headers_mut().insert(X_CHUNKED_OUTPUT, HeaderValue::from_static("1"));
                    response
                }
                Err(failure) => failed(&failure),
            },
            Self::Bytes(kind, length, pieces) => match begun(pieces, deadline).await {
                Ok(pieces) => {
                    let pieces = pieces.flat_map(|piece| stream::iter(split(piece))).boxed();
                    let mut response = chunks(kind, frames(pieces));
                    response.headers_mut().insert(X_STREAM_OUTPUT, HeaderValue::from_static("1"));
                    if let Some(length) = length {
                        response.headers_mut().insert(X_CONTENT_LENGTH, length.into());
                    }
                    response
                }
                Err(failure) => failed(&failure),
            },
        }
    }
}

fn split(piece: Result<Bytes, Failure>) -> Vec<Result<Bytes, Failure>> {
    match piece {
        Ok(mut bytes) if bytes.len() > MAX_CHUNK => {
            let mut pieces = Vec::new();
            while bytes.len() > MAX_CHUNK {
                pieces.push(Ok(bytes.split_to(MAX_CHUNK)));
            }
            pieces.push(Ok(bytes));
            pieces
        }
        piece => vec![piece],
    }
}

/// Waits for the first piece, within the limit.
async fn begun(lines: Lines, deadline: Option<Instant>) -> Result<Lines, Failure> {
    let mut lines = match deadline {
        Some(deadline) => {
            Limited { lines, limit: Box::pin(tokio::time::sleep_until(deadline)), is_over: false }.boxed()
        }
        None => lines,
    };
    match lines.next().await {
        Some(Err(failure)) => Err(failure),
        Some(Ok(first)) => Ok(stream::iter([Ok(first)]).chain(lines).boxed()),
        None => Ok(stream::empty().boxed()),
    }
}

/// Pieces until a limit, then a failure.
struct Limited {
    lines: Lines,
    limit: Pin<Box<tokio::time::Sleep>>,
    is_over: bool,
}

impl Stream for Limited {
    type Item = Result<Bytes, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        match self.lines.poll_next_unpin(cx) {
            Poll::Pending if self.limit.as_mut().poll(cx).is_ready() => {
                self.is_over = true;
                Poll::Ready(Some(Err(Failure::deadline())))
            }
            polled => polled,
        }
    }
}

/// Chunks, and the trailer of a failure.
fn frames(lines: Lines) -> impl Stream<Item = Result<Frame<Bytes>, BodyError>> + Send + 'static {
    lines.scan(false, |has_failed, line| {
        let frame = match line {
            _ if *has_failed => None,
            Ok(line) => Some(Frame::data(line)),
            Err(failure) => {
                *has_failed = true;
                let mut trailers = HeaderMap::new();
                trailers.insert(X_STREAM_ERROR, respond::header_safe(&failure.message));
                Some(Frame::trailers(trailers))
            }
        };
        futures::future::ready(frame.map(Ok))
    })
}

fn chunks(
    kind: &'static str,
    frames: impl Stream<Item = Result<Frame<Bytes>, BodyError>> + Send + 'static,
) -> Response {
    let mut response = Response::new(Body::frames(frames));
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, EXPOSED);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(SERVER, server());
    headers.insert(TRAILER, HeaderValue::from_static("X-Stream-Error"));
    headers.insert(VARY, HeaderValue::from_static("Origin"));
    response
}

fn server() -> HeaderValue {
    HeaderValue::from_static("kubo/0.42.0")
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "Message")]
    message: &'a str,
    #[serde(rename = "Code")]
    code: u8,
    #[serde(rename = "Type")]
    kind: &'static str,
}

fn failed(failure: &Failure) -> Response {
    let (status, code) = match failure.kind {
        FailureKind::Request => return plain(StatusCode::BAD_REQUEST, &failure.message),
        FailureKind::Client => (StatusCode::BAD_REQUEST, 1),
        FailureKind::Server => (StatusCode::INTERNAL_SERVER_ERROR, 0),
    };
    let document = line(&Document { message: &failure.message, code, kind: "error" });
    let mut response = chunks("application/json", stream::iter([Ok(Frame::data(document))]));
    *response.status_mut() = status;
    response
}

/// What Go's `http.Error` sends.
pub(in crate::node) fn plain(status: StatusCode, words: &str) -> Response {
    let mut response = Response::new(Body::whole(format!("{words}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(VARY, HeaderValue::from_static("Origin"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The head of an answer to OPTIONS.
pub(super) fn options(response: &mut Response, is_preflight: bool) {
    let headers = response.headers_mut();
    if is_preflight {
        let names = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        headers.insert(VARY, HeaderValue::from_static(names));
    } else {
        headers.insert(ALLOW, HeaderValue::from_static("OPTIONS, POST"));
        headers.insert(VARY, HeaderValue::from_static("Origin"));
    }
}

/// What Kubo says to a limit it cannot read: nothing.
pub(super) fn empty() -> Response {
    let mut response = respond::empty(StatusCode::OK);
    response.headers_mut().insert(SERVER, server());
    response.headers_mut().insert(VARY, HeaderValue::from_static("Origin"));
    response
}
