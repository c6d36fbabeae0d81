//! One exchange: connect, send, and read one document or many.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::stream::{self, StreamExt};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, TRANSFER_ENCODING, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::transport::Endpoint;
use super::upload::{Failure, boundary, frames};
use super::{Error, Items, RestClient, Result};
use crate::api::{self, Upload};
use crate::http::system_words as words;

/// Largest single document of an answer; the status of one CID on thousands of peers is far below.
const MAX_DOCUMENT_BYTES: usize = 256 * 1024 * 1024;

/// What a program of ours calls itself.
const AGENT: HeaderValue = HeaderValue::from_static("ipfs-cluster-rs");

/// Trailer of a late error. (Go: `api/common`)
const STREAM_ERROR: &str = "X-Stream-Error";

type Body = UnsyncBoxBody<Bytes, api::Error>;

/// What a request carries.
pub(super) enum Payload {
    None,
    Document(Vec<u8>),
    Files(Box<dyn Upload>),
}

/// An answer whose head has arrived.
struct Answer {
    status: StatusCode,
    body: Incoming,
    what: What,
    deadline: Option<Instant>,
    /// Drives the connection; ends with the answer.
    _connection: JoinSet<()>,
}

/// How an exchange is called in messages.
struct What {
    /// `Get "<url>"`
    name: String,
    failure: Failure,
}

impl What {
    /// A failure without an answer; that of the upload comes first, as it causes the others.
    fn failed(&self, cause: &str) -> Error {
        let cause = self.failure.get().unwrap_or_else(|| cause.to_owned());
        Error { code: 0, message: format!("{}: {cause}", self.name) }
    }
}

/// An error document.
#[derive(Deserialize)]
struct Refusal {
    code: u16,
    message: String,
}

impl RestClient {
    /// One document; `None` if the answer has none (202, 204).
    pub(super) async fn optional<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        payload: Payload,
    ) -> Result<Option<T>> {
        let answer = self.open(method, target, payload).await?;
        let status = answer.status;
        let body = answer.collect().await?;
        refused(status, &body)?;
        if status == StatusCode::ACCEPTED || status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        decode(&body, status).map(Some)
    }

    /// One document.
    pub(super) async fn document<T: DeserializeOwned>(&self, method: Method, target: &str) -> Result<T> {
        match self.optional(method, target, Payload::None).await? {
            Some(value) => Ok(value),
            None => Err(Error { code: 204, message: "the answer holds no document".into() }),
        }
    }

    /// Documents as they come.
    pub(super) fn stream<T: DeserializeOwned + Send + 'static>(
        &self,
        method: Method,
        target: String,
        payload: Payload,
    ) -> Items<T> {
        let client = self.clone();
        let opened = async move {
            let answer = client.open(method, &target, payload).await?;
            let status = answer.status;
            if status != StatusCode::OK && status != StatusCode::NO_CONTENT {
                if status.as_u16() >= 400 {
                    refused(status, &answer.collect().await?)?;
                }
                let message = "expected streaming response with code 200/204".into();
                return Err(Error { code: status.as_u16(), message });
            }
            Ok(Documents { answer, buffer: BytesMut::new(), searched: 0, trailers: None, is_at_end: false })
        };
        stream::once(opened)
            .flat_map(|opened| match opened {
                Err(error) => stream::once(async { Err(error) }).boxed(),
                Ok(documents) => stream::unfold(Some(documents), |documents| async move {
                    let mut documents = documents?;
                    match documents.next().await {
                        Ok(Some(item)) => Some((Ok(item), Some(documents))),
                        Ok(None) => None,
                        Err(error) => Some((Err(error), None)),
                    }
                })
                .boxed(),
            })
            .boxed()
    }

    /// Sends a request to the first endpoint that answers.
    async fn open(&self, method: Method, target: &str, payload: Payload) -> Result<Answer> {
        let deadline =
            self.timeout.filter(|limit| *limit > Duration::ZERO).map(|limit| Instant::now() + limit);
        let mut payload = Some(payload);
        let mut last = Error { code: 0, message: "no endpoint to ask".into() };
        for endpoint in &self.endpoints {
            let failure = Failure::default();
            let what = What { name: format!("{} \"{}\"", title(&method), endpoint.url(target)), failure };
            let stream = match limited(deadline, endpoint.connect()).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(cause)) => {
                    last = what.failed(&cause);
                    continue;
                }
                Err(late) => return Err(what.failed(late)),
            };
            // Files can be read once; a document can be sent again.
            let body = match payload.take() {
                Some(Payload::Document(bytes)) => {
                    payload = Some(Payload::Document(bytes.clone()));
                    Payload::Document(bytes)
                }
                Some(Payload::None) => {
                    payload = Some(Payload::None);
                    Payload::None
                }
                Some(files) => files,
                None => break,
            };
            let request = self.request(endpoint, &method, target, body, &what.failure);
            let request = request.map_err(|error| what.failed(&error.to_string()))?;
            let mut connection = JoinSet::new();
            let exchange = async {
                let (mut sender, driver) = hyper::client::conn::http1::Builder::new()
                    .title_case_headers(true)
                    .handshake::<_, Body>(TokioIo::new(stream))
                    .await?;
                connection.spawn(async move {
                    // Its errors come out of the request or of the body.
                    let _ = driver.await;
                });
                sender.send_request(request).await
            };
            match limited(deadline, exchange).await {
                Ok(Ok(response)) => {
                    let (head, body) = response.into_parts();
                    return Ok(Answer { status: head.status, body, what, deadline, _connection: connection });
                }
                Ok(Err(error)) => last = what.failed(&cause(&error)),
                Err(late) => return Err(what.failed(late)),
            }
        }
        Err(last)
    }

    fn request(
        &self,
        endpoint: &Endpoint,
        method: &Method,
        target: &str,
        payload: Payload,
        failure: &Failure,
    ) -> std::result::Result<Request<Body>, http::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, endpoint.authority())
            .header(USER_AGENT, AGENT);
        if let Some(value) = &self.authorization {
            request = request.header(AUTHORIZATION, value);
        }
        match payload {
            Payload::None => request.body(Empty::new().map_err(|never| match never {}).boxed_unsync()),
            Payload::Document(bytes) => {
                request.body(Full::from(bytes).map_err(|never| match never {}).boxed_unsync())
            }
            Payload::Files(upload) => {
                let boundary = boundary();
                request
                    .header(CONTENT_TYPE, format!("multipart/form-data; boundary={boundary}"))
                    .header(TRANSFER_ENCODING, "chunked")
                    .body(StreamBody::new(frames(upload, boundary, failure.clone())).boxed_unsync())
            }
        }
    }
}

/// `GET` as Go's errors call it.
fn title(method: &Method) -> String {
    let name = method.as_str();
    name.chars().take(1).chain(name.chars().skip(1).map(|c| c.to_ascii_lowercase())).collect()
}

/// Waits until a deadline.
async fn limited<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = T>,
) -> std::result::Result<T, &'static str> {
    match deadline {
        None => Ok(work.await),
        Some(deadline) => tokio::time::timeout_at(deadline, work)
            .await
            .map_err(|_| "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"),
    }
}

/// Why an exchange failed, in the words of Go where they are plain.
fn cause(error: &hyper::Error) -> String {
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return "EOF".into();
    }
    let mut source = std::error::Error::source(error);
    while let Some(found) = source {
        if let Some(error) = found.downcast_ref::<std::io::Error>() {
            return words(error);
        }
        source = found.source();
    }
    error.to_string()
}

/// The error an answer is, if it is one.
fn refused(status: StatusCode, body: &[u8]) -> Result<()> {
    if !(400..600).contains(&status.as_u16()) {
        return Ok(());
    }
    Err(match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => Error { code: refusal.code, message: refusal.message },
        Err(_) => Error { code: status.as_u16(), message: String::from_utf8_lossy(body).into_owned() },
    })
}

fn decode<T: DeserializeOwned>(document: &[u8], status: StatusCode) -> Result<T> {
    serde_json::from_slice(document).map_err(|error| Error {
        code: status.as_u16(),
        message: format!("the answer cannot be read: {error}"),
    })
}

impl Answer {
    /// The next frame of the body.
    async fn frame(&mut self) -> Result<Option<http_body::Frame<Bytes>>> {
        let late = "context deadline exceeded (Client.Timeout or context cancellation while reading body)";
        match limited(self.deadline, self.body.frame()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(frame))) => Ok(Some(frame)),
            Ok(Some(Err(error))) => match self.what.failure.get() {
                Some(_) => Err(self.what.failed("")),
                None => Err(Error { code: self.status.as_u16(), message: broken(&error) }),
            },
            Err(_) => Err(Error { code: self.status.as_u16(), message: late.into() }),
        }
    }

    /// The whole body.
    async fn collect(mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(frame) = self.frame().await? {
            if let Ok(data) = frame.into_data() {
                if body.len() + data.len() > MAX_DOCUMENT_BYTES {
                    return Err(too_long(self.status));
                }
                body.extend_from_slice(&data);
            }
        }
        Ok(body)
    }
}

/// A body that ended early.
fn broken(error: &hyper::Error) -> String {
    match cause(error).as_str() {
        "EOF" => "unexpected EOF".into(),
        other => other.into(),
    }
}

fn too_long(status: StatusCode) -> Error {
    Error {
        code: status.as_u16(),
        message: format!("a document of the answer has more than {MAX_DOCUMENT_BYTES} bytes"),
    }
}

/// A body of one document a line.
struct Documents {
    answer: Answer,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line feed.
    searched: usize,
    trailers: Option<HeaderMap>,
    is_at_end: bool,
}

impl Documents {
    async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(self.searched + at);
                self.buffer.advance(1);
                self.searched = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return decode(&line, self.answer.status).map(Some);
            }
            self.searched = self.buffer.len();
            if self.is_at_end {
                let rest = self.buffer.split();
                self.searched = 0;
                if rest.trim_ascii().is_empty() {
                    return self.late_error().map(|()| None);
                }
                return decode(&rest, self.answer.status).map(Some);
            }
            if self.buffer.len() > MAX_DOCUMENT_BYTES {
                return Err(too_long(self.answer.status));
            }
            match self.answer.frame().await? {
                None => self.is_at_end = true,
                Some(frame) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
    }

    /// The error a trailer tells.
    fn late_error(&mut self) -> Result<()> {
        if self.answer.what.failure.get().is_some() {
            return Err(self.answer.what.failed(""));
        }
        let trailers = self.trailers.take().unwrap_or_default();
        let texts: Vec<String> = trailers
            .get_all(STREAM_ERROR)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .filter(|text| !text.is_empty())
            .collect();
        if texts.is_empty() { Ok(()) } else { Err(Error { code: 500, message: texts.join("; ") }) }
    }
}
