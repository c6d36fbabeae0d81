//! Answers: bodies, their framing, and the streaming framework (spec: rest-api 3.2, 6).
//!
//! A body is empty, whole, or frames as they come. Each frame of data is one chunk on the wire; frames that are
//! ready together leave in one write. The end of a stream may carry trailers, announced by a `Trailer` header.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TRAILER};
use http::{Response as HttpResponse, StatusCode};
use http_body::{Frame, SizeHint};

use super::client::Reply;
use super::upstream::Upstream;
use crate::api;
use crate::types::Document;

/// Longest list of an upload's events that is kept for an answer that is not streamed: two million files. A few bytes
/// of a form can make long paths.
pub(crate) const MAX_COLLECTED_BYTES: usize = 512 << 20;

/// What those are told whose list is longer.
pub(crate) fn too_large_to_collect(limit: usize) -> String {
    format!("the answer has more than {limit} bytes: ask for stream-channels=true")
}

/// Longest body that is sent with its length; longer ones are one chunk, as Go's server does.
const MAX_LENGTH: usize = 2048;

/// The trailer, and sometimes the header, that tells a late failure.
pub const X_STREAM_ERROR: HeaderName = HeaderName::from_static("x-stream-error");
const APPLICATION_JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer.
pub type Response = HttpResponse<Body>;

/// Why a body broke off; the connection is cut, as there is no other way to tell.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Marks an answer (as an extension) whose body may end with trailers that its head does not announce.
#[derive(Debug, Clone, Copy)]
pub struct UnannouncedTrailers;

/// Called with the bytes of a body once it was given to the connection in full.
type Finish = Box<dyn FnOnce(u64) + Send>;

/// The body of an answer.
pub struct Body {
    inner: Inner,
    /// Bytes given out so far; of a whole body, all of it.
    bytes: u64,
    finish: Option<Finish>,
}

enum Inner {
    Empty,
    Whole(Bytes),
    Frames(BoxStream<'static, Result<Frame<Bytes>, BodyError>>),
    Upstream(Box<Upstream>),
    Ended,
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::new(Inner::Empty, 0)
    }

    /// A body of known length.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let length = bytes.len() as u64;
        Self::new(if bytes.is_empty() { Inner::Empty } else { Inner::Whole(bytes) }, length)
    }

    /// Frames as they come: each data frame is one chunk, a trailers frame is the end.
    pub fn frames(
        frames: impl futures::Stream<Item = Result<Frame<Bytes>, BodyError>> + Send + 'static,
    ) -> Self {
        Self::new(Inner::Frames(frames.boxed()), 0)
    }

    /// What another server answers, passed on as it arrives.
    pub fn upstream(body: Reply) -> Self {
        Self::new(Inner::Upstream(Box::new(Upstream::new(body))), 0)
    }

    /// The same, with a first piece that was read already.
    pub fn upstream_behind(first: &Bytes, body: Reply) -> Self {
        Self::new(Inner::Upstream(Box::new(Upstream::behind(first, body))), 0)
    }

    fn new(inner: Inner, bytes: u64) -> Self {
        Self { inner, bytes, finish: None }
    }

    /// Calls `finish` with the number of body bytes once all are given out; not if the body breaks off. Those that were
    /// to be called before are called first.
    #[must_use]
    pub fn on_finish(mut self, finish: impl FnOnce(u64) + Send + 'static) -> Self {
        self.finish = Some(match self.finish.take() {
            None => Box::new(finish),
            Some(earlier) => Box::new(move |n_bytes| {
                earlier(n_bytes);
                finish(n_bytes);
            }),
        });
        self
    }

    fn end(&mut self) {
        if let Some(finish) = self.finish.take() {
            finish(self.bytes);
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // short bodies, and those of HEAD, may never be asked for
        let is_complete = match &self.inner {
            Inner::Empty | Inner::Whole(_) | Inner::Ended => true,
            Inner::Upstream(body) => http_body::Body::is_end_stream(&**body),
            Inner::Frames(_) => false,
        };
        if is_complete {
            self.end();
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match &mut self.inner {
            Inner::Empty | Inner::Ended => return Poll::Ready(None),
            Inner::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.inner = Inner::Ended;
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Inner::Frames(frames) => frames.poll_next_unpin(cx),
            Inner::Upstream(body) => http_body::Body::poll_frame(Pin::new(&mut **body), cx),
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if frame.is_trailers() {
                    self.inner = Inner::Ended;
                }
            }
            Poll::Ready(None) => self.inner = Inner::Ended,
            Poll::Ready(Some(Err(_))) => self.finish = None,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Empty | Inner::Ended => true,
            Inner::Upstream(body) => http_body::Body::is_end_stream(&**body),
            Inner::Whole(_) | Inner::Frames(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Empty | Inner::Ended => SizeHint::with_exact(0),
            Inner::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Upstream(body) => http_body::Body::size_hint(&**body),
            Inner::Frames(_) => SizeHint::default(),
        }
    }
}

/// An answer without body and without content type.
pub fn empty(status: StatusCode) -> Response {
    let mut response = HttpResponse::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// An answer without body that says it is JSON, as Go's faces do on 202 and 204.
pub fn empty_json(status: StatusCode) -> Response {
    let mut response = empty(status);
    response.headers_mut().insert(CONTENT_TYPE, APPLICATION_JSON);
    response
}

/// A finished JSON document as it goes on the wire, its line feed included if it has one.
pub fn document(status: StatusCode, document: impl Into<Bytes>) -> Response {
    let document = document.into();
    let body = if document.len() > MAX_LENGTH {
        Body::frames(stream::once(async move { Ok(Frame::data(document)) }))
    } else {
        Body::whole(document)
    };
    let mut response = HttpResponse::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, APPLICATION_JSON);
    response
}

/// `value` as JSON and a line feed.
pub fn json<T: serde::Serialize>(status: StatusCode, value: &T) -> Response {
    document(status, Lines::default().line(value))
}

/// A long answer (spec: rest-api 6): 204 if there is nothing, the first error as 500 with `error_document` as its
/// body, else 200 with one chunk for each item and its line feed, and later errors in the trailer.
pub async fn stream<T>(
    mut items: api::Items<T>,
    error_document: impl FnOnce(StatusCode, &str) -> Bytes,
) -> Response
where
    T: Document + Send + 'static,
{
    let mut response = match items.next().await {
        None => empty_json(StatusCode::NO_CONTENT),
        Some(Err(error)) => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            let document = error_document(status, &error.message);
            let mut response =
                HttpResponse::new(Body::frames(stream::once(async move { Ok(Frame::data(document)) })));
            *response.status_mut() = status;
            response.headers_mut().insert(CONTENT_TYPE, APPLICATION_JSON);
            response
        }
        Some(Ok(first)) => {
            let mut lines = Lines::default();
            let first = lines.document(&first);
            let mut response = HttpResponse::new(Body::frames(Stream {
                first: Some(first),
                items,
                lines,
                errors: vec![],
                is_done: false,
            }));
            response.headers_mut().insert(CONTENT_TYPE, APPLICATION_JSON);
            response
        }
    };
    response.headers_mut().insert(TRAILER, HeaderValue::from_static("X-Stream-Error"));
    response
}

/// The frames of a long answer that has at least one item.
struct Stream<T> {
    first: Option<Bytes>,
    items: api::Items<T>,
    lines: Lines,
    errors: Vec<String>,
    is_done: bool,
}

/// Errors kept for the trailer; a source that fails more often than this has made its point.
const MAX_ERRORS: usize = 64;

impl<T: Document> futures::Stream for Stream<T> {
    type Item = Result<Frame<Bytes>, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        while !this.is_done {
            match this.items.poll_next_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(item))) => {
                    return Poll::Ready(Some(Ok(Frame::data(this.lines.document(&item)))));
                }
                Poll::Ready(Some(Err(error))) => {
                    if this.errors.len() < MAX_ERRORS {
                        this.errors.push(error.message);
                    }
                }
                Poll::Ready(None) => {
                    this.is_done = true;
                    let mut trailers = HeaderMap::new();
                    trailers.append(X_STREAM_ERROR, HeaderValue::from_static(""));
                    for error in this.errors.drain(..) {
                        trailers.append(X_STREAM_ERROR, header_safe(&error));
                    }
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
            }
        }
        Poll::Ready(None)
    }
}

/// Encodes lines into shared memory, so that a million small items are not a million allocations.
#[derive(Default)]
pub struct Lines {
    buffer: BytesMut,
    scratch: Vec<u8>,
}

/// Size of the blocks that lines share.
const LINES_BLOCK: usize = 32 << 10;

impl Lines {
    /// `item` as JSON and a line feed.
    pub fn line<T: serde::Serialize>(&mut self, item: &T) -> Bytes {
        self.share(|scratch| crate::go::json::write_into(scratch, item))
    }

    /// A row of a listing and a line feed.
    pub fn document<T: Document>(&mut self, item: &T) -> Bytes {
        self.share(|scratch| item.write_json(scratch))
    }

    fn share(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
        self.scratch.clear();
        write(&mut self.scratch);
        self.scratch.push(b'\n');
        if self.buffer.capacity() < self.scratch.len() {
            self.buffer = BytesMut::with_capacity(LINES_BLOCK.max(self.scratch.len()));
        }
        self.buffer.put_slice(&self.scratch);
        self.buffer.split().freeze()
    }
}

/// Joins small frames into chunks of the size of Go's buffer, for answers that are not flushed item by item.
pub struct Coalesce<S> {
    frames: Option<S>,
    buffer: BytesMut,
    last: Option<Frame<Bytes>>,
}

impl<S> Coalesce<S> {
    /// Joins the frames of `frames`.
    pub fn new(frames: S) -> Self {
        Self { frames: Some(frames), buffer: BytesMut::new(), last: None }
    }
}

impl<S> futures::Stream for Coalesce<S>
where
    S: futures::Stream<Item = Result<Frame<Bytes>, BodyError>> + Unpin,
{
    type Item = Result<Frame<Bytes>, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if this.buffer.len() >= MAX_LENGTH {
                return Poll::Ready(Some(Ok(Frame::data(this.buffer.split_to(MAX_LENGTH).freeze()))));
            }
            let Some(frames) = &mut this.frames else {
                if this.buffer.is_empty() {
                    return Poll::Ready(this.last.take().map(Ok));
                }
                return Poll::Ready(Some(Ok(Frame::data(this.buffer.split().freeze()))));
            };
            match frames.poll_next_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => this.frames = None,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => this.buffer.extend_from_slice(&data),
                    Err(trailers) => {
                        this.last = Some(trailers);
                        this.frames = None;
                    }
                },
            }
        }
    }
}

/// A message as a header value: line ends become spaces, blanks around it go.
pub fn header_safe(message: &str) -> HeaderValue {
    let bytes: Vec<u8> = message
        .bytes()
        .map(|byte| if byte == b'\r' || byte == b'\n' { b' ' } else { byte })
        .filter(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f))
        .collect();
    HeaderValue::from_bytes(bytes.trim_ascii()).unwrap_or(HeaderValue::from_static(""))
}

/// Adds configured headers before those the answer has, as Go's faces do (spec: rest-api 3.3).
pub fn add_custom(response: &mut Response, custom: &[(HeaderName, HeaderValue)]) {
    if custom.is_empty() {
        return;
    }
    let own = std::mem::take(response.headers_mut());
    let headers = response.headers_mut();
    for (name, value) in custom {
        headers.append(name.clone(), value.clone());
    }
    let mut current = None;
    for (name, value) in own {
        current = name.or(current);
        if let Some(name) = &current {
            headers.append(name.clone(), value);
        }
    }
}
