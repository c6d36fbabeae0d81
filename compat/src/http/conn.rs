//! Connections: one task each, hyper's HTTP/1.1 inside, Go's habits around it.
//!
//! [`serve`] accepts and runs until its token stops it. A handler gets a [`Request`] and the [`PeerAddr`] of its
//! sender, and gives a [`Response`]; a panic in it closes that connection and nothing else.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{CONNECTION, EXPECT, HeaderMap, HeaderName, HeaderValue, TE, TRAILER};
use http::{Method, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::listen::Listener;
use super::respond::UnannouncedTrailers;
use super::respond::{self, Body, Response};
use super::tls;
use super::wire::{Exchange, HIDDEN_TRAILER, KEPT_TRAILER, Rewrite, Shared, Watched, Wire};

/// See [`limit_connections`].
static MAX_CONNECTIONS: AtomicUsize = AtomicUsize::new(16_384);
/// How much of a request body is read and forgotten when its handler did not want it (Go: 256 KiB).
const MAX_DRAIN: usize = 256 << 10;
/// How long a body that nobody wants may take to arrive.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// hyper's buffer per direction; larger pieces mean fewer system calls on large bodies.
const BUFFER: usize = 128 << 10;
/// Pause between two looks for an idle connection while there are too many.
const LOOK_FOR_IDLE: Duration = Duration::from_millis(20);
/// Connections that are remembered before those that have ended are forgotten.
const MIN_WATCHED: usize = 64;
/// How long requests may take to finish after the stop.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// A request as a handler gets it.
pub type Request = http::Request<RequestBody>;

/// Answers requests. Dropping the future, or the body it gave, ends the work.
pub type Handler = Arc<dyn Fn(Request, PeerAddr) -> BoxFuture<'static, Response> + Send + Sync>;

/// The target as the client sent it, where `Request::uri` holds an escaped form (an extension of requests).
#[derive(Debug, Clone)]
pub struct RawTarget(pub Bytes);

/// What stands before a handler: it sees each request, and how its answer ends.
pub type Layer = fn(Handler) -> Handler;

/// Who sent a request. `Display` is the access log's first field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerAddr {
    /// By TCP.
    Ip(IpAddr),
    /// Through a Unix socket.
    Unix,
    /// Through a libp2p stream; the peer id.
    Libp2p(String),
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Unix => f.write_str("@"),
            Self::Libp2p(peer) => f.write_str(peer),
        }
    }
}

/// Limits of a connection. A duration of zero is no limit.
#[derive(Debug, Clone, Copy)]
pub struct ConnOptions {
    /// Longest time from the first byte of a head, or from the accept, to its end; 0 falls back to `read_timeout`.
    pub read_header_timeout: Duration,
    /// Longest time for a whole request.
    pub read_timeout: Duration,
    /// Longest time from a head to the end of its answer.
    pub write_timeout: Duration,
    /// Longest silence between requests; 0 falls back to `read_timeout`.
    pub idle_timeout: Duration,
    /// Largest head; 4096 bytes more are let through, as Go does.
    pub max_header_bytes: usize,
    /// How long an answer of which nothing is written goes on after its client has ended its side.
    pub half_closed_grace: Duration,
    /// Whether answers are mostly large pieces (the proxy) or mostly many small ones.
    pub large_bodies: bool,
    /// Connections open at a time on one listener. One more takes the place of the one that is open longest and has no
    /// request; while all have one, it waits in the system's queue.
    pub max_connections: usize,
    /// Our end and the other one, for the words of an error; set for each connection.
    pub ends: Option<(SocketAddr, SocketAddr)>,
}

impl ConnOptions {
    /// That a time limit on reading has passed, as Go words it.
    pub(super) fn late(&self) -> String {
        match self.ends {
            Some((ours, theirs)) => {
                let version = if ours.is_ipv4() { 4 } else { 6 };
                format!("read tcp{version} {ours}->{theirs}: i/o timeout")
            }
            None => "i/o timeout".to_owned(),
        }
    }
}

impl Default for ConnOptions {
    fn default() -> Self {
        Self {
            read_header_timeout: Duration::from_secs(5),
            read_timeout: Duration::ZERO,
            write_timeout: Duration::ZERO,
            idle_timeout: Duration::from_secs(120),
            max_header_bytes: 4096,
            half_closed_grace: Duration::from_secs(5),
            large_bodies: false,
            max_connections: MAX_CONNECTIONS.load(Ordering::Relaxed),
            ends: None,
        }
    }
}

/// Sets the default of [`ConnOptions::max_connections`]: fewer than the process may have files.
pub fn limit_connections(n_connections: usize) {
    MAX_CONNECTIONS.store(n_connections.max(1), Ordering::Relaxed);
}

/// Serves connections of `listener` until `stop`; then requests under way get a short time to finish.
pub async fn serve(listener: Listener, handler: Handler, options: ConnOptions, stop: CancellationToken) {
    serve_with_tls(listener, None, handler, options, stop).await;
}

/// The same; with `tls`, every connection begins with a handshake.
pub async fn serve_with_tls(
    listener: Listener,
    tls: Option<tls::Server>,
    handler: Handler,
    options: ConnOptions,
    stop: CancellationToken,
) {
    let mut watched = VecDeque::<Watched>::new();
    let mut connections = JoinSet::new();
    loop {
        // the next one takes the place of an idle one, or waits
        while connections.len() >= options.max_connections.max(1) {
            if let Some(at) = watched.iter().position(Watched::ends_if_idle) {
                watched.remove(at);
            }
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next() => note_end(ended),
                () = tokio::time::sleep(LOOK_FOR_IDLE) => {}
            }
        }
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                note_end(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (shared, stop) = (Arc::new(Shared::default()), stop.child_token());
                if watched.len() > connections.len().saturating_mul(2).max(MIN_WATCHED) {
                    watched.retain(Watched::is_open);
                }
                watched.push_back(Watched::new(&shared, stop.clone()));
                let (tls, handler) = (tls.clone(), Arc::clone(&handler));
                let options = ConnOptions { ends: stream.ends(), ..options };
                connections.spawn(async move {
                    match tls {
                        None => serve_shared(stream, peer, handler, options, stop, shared).await,
                        // apart, so that connections without TLS need not be as large
                        Some(tls) => {
                            Box::pin(async move {
                                let secured = tokio::select! {
                                    () = stop.cancelled() => None,
                                    secured = tls.accept(stream, &options) => secured,
                                };
                                if let Some(stream) = secured {
                                    serve_shared(stream, peer, handler, options, stop, shared).await;
                                }
                            })
                            .await
                        }
                    }
                });
            }
            Err(e) => {
                // usually too many open files; others close some meanwhile
                error!(address = %listener.local_addr(), "http: Accept error: {e}; retrying");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(STOP_GRACE, async {
        while let Some(ended) = connections.join_next().await {
            note_end(ended);
        }
    })
    .await;
    connections.shutdown().await;
}

fn note_end(ended: Result<(), tokio::task::JoinError>) {
    if let Err(e) = ended
        && e.is_panic()
    {
        error!("http: panic serving a request: {e}");
    }
}

/// Serves one connection, whatever it runs on, until it ends or `stop`.
pub async fn serve_stream<S>(
    stream: S,
    peer: PeerAddr,
    handler: Handler,
    options: ConnOptions,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    serve_shared(stream, peer, handler, options, stop, Arc::default()).await;
}

async fn serve_shared<S>(
    stream: S,
    peer: PeerAddr,
    handler: Handler,
    options: ConnOptions,
    stop: CancellationToken,
    shared: Arc<Shared>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let wire = Wire::new(stream, Arc::clone(&shared), options);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let exchange = shared.exchange();
        answer(request, exchange, peer.clone(), Arc::clone(&handler))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .title_case_headers(true)
        .max_buf_size(BUFFER)
        .writev(options.large_bodies)
        .serve_connection(TokioIo::new(wire), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        debug!("http: connection ended: {e}");
    }
}

/// One request: what Go's server does before a handler and after it.
async fn answer(
    mut request: http::Request<Incoming>,
    exchange: Exchange,
    peer: PeerAddr,
    handler: Handler,
) -> Result<http::Response<Sending>, std::convert::Infallible> {
    let is_head = request.method() == Method::HEAD;
    let version = request.version();
    if version == Version::HTTP_11 {
        take_first_te(request.headers_mut());
    }
    if let Some(raw) = &exchange.raw_target {
        request.extensions_mut().insert(RawTarget(raw.clone()));
    }
    let leftover = Leftover::default();
    let expects = request.headers().get(EXPECT).is_some_and(|value| !value.is_empty());
    let expects_continue = request
        .headers()
        .get(EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let request =
        request.map(|body| RequestBody { inner: Inner::Incoming(body), leftover: Some(leftover.clone()) });

    let mut response = if expects && !expects_continue {
        let mut response = respond::empty(StatusCode::EXPECTATION_FAILED);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    } else if request.method() == Method::OPTIONS && request.uri() == "*" {
        respond::empty(StatusCode::OK)
    } else {
        handler(request, peer).await
    };

    // a body that was never asked for may come or not: the connection cannot go on
    let goes_on = if expects_continue { !leftover.has_body() } else { leftover.drain().await };
    if leftover.is_broken() || !goes_on {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    name_status(&mut response);
    exchange.switches_protocol(response.status() == StatusCode::SWITCHING_PROTOCOLS);
    if let Some(rewrite) = order_headers(&mut response, is_head, version) {
        exchange.rewrites(rewrite);
    }
    Ok(response.map(|body| Sending { body, _exchange: exchange }))
}

/// The words behind a status where Go has others than hyper.
fn name_status(response: &mut Response) {
    let status = response.status();
    let words = match status.as_u16() {
        203 => "Non-Authoritative Information".to_string(),
        413 => "Request Entity Too Large".to_string(),
        416 => "Requested Range Not Satisfiable".to_string(),
        code if status.canonical_reason().is_none() => format!("status code {code}"),
        _ => return,
    };
    if let Ok(words) = ReasonPhrase::try_from(words.into_bytes()) {
        response.extensions_mut().insert(words);
    }
}

/// Takes the line away that `wire` added for hyper.
fn take_first_te(headers: &mut HeaderMap) {
    let mut values = headers.get_all(TE).iter();
    let is_alone = values.next().is_some() && values.next().is_none();
    let own: Vec<HeaderValue> = match is_alone {
        true => Vec::new(),
        false => headers.get_all(TE).iter().skip(1).cloned().collect(),
    };
    headers.remove(TE);
    for value in own {
        headers.append(TE, value);
    }
}

/// Sorts headers by name as Go writes them, and sees to it that hyper neither drops a `Trailer` line nor trailers
/// that no line announces; what is to be rewritten behind hyper for that.
fn order_headers(response: &mut Response, is_head: bool, version: Version) -> Option<Rewrite> {
    let status = response.status();
    let has_chunked_body = !is_head
        && version != Version::HTTP_10
        && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let announces = response.headers().contains_key(TRAILER);
    let rewrite = if announces && !has_chunked_body {
        Some(Rewrite::KeptTrailer)
    } else if !announces && has_chunked_body && response.extensions().get::<UnannouncedTrailers>().is_some() {
        response.headers_mut().insert(TRAILER, HeaderValue::from_static(HIDDEN_TRAILER));
        Some(Rewrite::HiddenTrailer)
    } else {
        None
    };
    let is_sorted = response.headers().keys().is_sorted_by(|one, next| one.as_str() <= next.as_str());
    if is_sorted && rewrite != Some(Rewrite::KeptTrailer) {
        return rewrite;
    }
    let headers = std::mem::take(response.headers_mut());
    let mut lines: Vec<(HeaderName, HeaderValue)> = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        // only the first line of a name brings it
        let name = match (name, lines.last()) {
            (Some(name), _) => name,
            (None, Some((last, _))) => last.clone(),
            (None, None) => continue,
        };
        lines.push((name, value));
    }
    lines.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
    let mut sorted = HeaderMap::with_capacity(lines.len());
    for (name, value) in lines {
        let is_kept = rewrite == Some(Rewrite::KeptTrailer) && name == TRAILER;
        sorted.append(if is_kept { HeaderName::from_static(KEPT_TRAILER) } else { name }, value);
    }
    *response.headers_mut() = sorted;
    rewrite
}

/// A request body on its way from a handler that dropped it to whoever reads it to its end.
#[derive(Clone, Default)]
struct Leftover(Arc<LeftoverState>);

#[derive(Default)]
struct LeftoverState {
    /// Never held over an await.
    body: Mutex<Option<Incoming>>,
    /// The body broke off or came too late: what follows on the connection is anybody's guess.
    is_broken: AtomicBool,
}

impl Leftover {
    fn put(&self, body: Incoming) {
        *self.0.body.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
    }

    fn has_body(&self) -> bool {
        self.0.body.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn is_broken(&self) -> bool {
        self.0.is_broken.load(Ordering::Acquire)
    }

    /// Reads what the handler left, within reason; whether the connection can go on.
    async fn drain(&self) -> bool {
        let Some(mut body) = self.0.body.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return true;
        };
        if body.size_hint().lower() > MAX_DRAIN as u64 {
            return false;
        }
        let all = async {
            let mut read = 0;
            while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                let Ok(frame) = frame else { return false };
                read += frame.data_ref().map_or(0, Bytes::len);
                if read > MAX_DRAIN {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(DRAIN_TIMEOUT, all).await.unwrap_or(false)
    }
}

/// The body of a request, read as it arrives. Dropped early, its rest is skipped so that the connection goes on.
pub struct RequestBody {
    inner: Inner,
    leftover: Option<Leftover>,
}

enum Inner {
    Incoming(Incoming),
    Whole(Option<Bytes>),
    Gone,
}

impl From<Bytes> for RequestBody {
    fn from(bytes: Bytes) -> Self {
        let inner = Inner::Whole(if bytes.is_empty() { None } else { Some(bytes) });
        Self { inner, leftover: None }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        match &mut this.inner {
            Inner::Incoming(body) => {
                let polled = Pin::new(body).poll_frame(cx);
                if let (Poll::Ready(Some(Err(_))), Some(leftover)) = (&polled, &this.leftover) {
                    leftover.0.is_broken.store(true, Ordering::Release);
                }
                polled
            }
            Inner::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Inner::Gone => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Incoming(body) => body.is_end_stream(),
            Inner::Whole(bytes) => bytes.is_none(),
            Inner::Gone => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Incoming(body) => body.size_hint(),
            Inner::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Inner::Gone => SizeHint::with_exact(0),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Inner::Incoming(body) = std::mem::replace(&mut self.inner, Inner::Gone)
            && let Some(leftover) = &self.leftover
            && !body.is_end_stream()
        {
            leftover.put(body);
        }
    }
}

/// An answer's body; the exchange ends with it.
struct Sending {
    body: Body,
    _exchange: Exchange,
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = respond::BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, respond::BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Why a request's body could not be read, without hyper's words around it.
pub fn body_error(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = Some(error);
    while let Some(found) = cause {
        if let Some(found) = found.downcast_ref::<std::io::Error>() {
            return found.to_string();
        }
        cause = found.source();
    }
    error.to_string()
}

/// Runs `future` to completion as a handler's answer.
pub fn boxed(future: impl Future<Output = Response> + Send + 'static) -> BoxFuture<'static, Response> {
    Box::pin(future)
}

#[cfg(test)]
mod tests;
