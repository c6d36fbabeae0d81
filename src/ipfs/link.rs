//! Connections to the daemon, and the idle ones kept for the next request.
//!
//! A connection has no task of its own: whoever has borrowed it drives it, together with the reply it waits
//! for. So dropping a request drops its connection, which is how a request is aborted, and a request costs no
//! switch between tasks. An idle connection is not driven; whether the daemon closed it is found out when it is
//! taken again.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::block::Outgoing;
use super::dial::{Address, Stream, cause};

/// Connections kept idle: enough for every pin worker to find its own again.
const MAX_IDLE: usize = 32;

/// How long a connection is kept idle (Go: `net/http.DefaultTransport`).
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// Most header lines of a reply.
const MAX_REPLY_HEADERS: usize = 128;

/// Bytes read ahead from a reply; also the longest head that is accepted.
const MAX_READ_AHEAD_BYTES: usize = 256 * 1024;

/// Idle connections to the daemon.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// The last one used is taken first. Taken by requests that begin and end, never over an await.
    idle: Mutex<Vec<Link>>,
}

impl Pool {
    /// An idle connection that is still open.
    pub(super) async fn take(&self) -> Option<Link> {
        loop {
            let mut link = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if link.idle_since.elapsed() < IDLE_TIMEOUT && link.is_alive().await {
                return Some(link);
            }
        }
    }

    /// Keeps a connection whose reply was read to its end.
    pub(super) fn put(&self, mut link: Link) {
        link.idle_since = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|link| link.idle_since.elapsed() < IDLE_TIMEOUT);
        if idle.len() < MAX_IDLE {
            idle.push(link);
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    sender: SendRequest<Outgoing>,
    connection: Connection<TokioIo<Stream>, Outgoing>,
    /// Whether the connection has ended; it must not be driven again.
    ended: bool,
    heard: Arc<AtomicBool>,
    ends: String,
    idle_since: Instant,
}

/// Why a request got no response.
#[derive(Debug)]
pub(super) enum Failure {
    /// The daemon never saw it; another connection may be tried.
    NotSent(Box<Request<Outgoing>>, String),
    /// It may have been seen.
    Lost(String),
}

impl Link {
    pub(super) async fn open(address: &Address) -> Result<Self, String> {
        let stream = address.dial().await?;
        let (heard, ends) = (stream.heard(), stream.ends());
        let (sender, connection) = Builder::new()
            .title_case_headers(true)
            .max_headers(MAX_REPLY_HEADERS)
            .max_buf_size(MAX_READ_AHEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|failure| failure.to_string())?;
        let idle_since = Instant::now();
        Ok(Self { sender, connection, ended: false, heard, ends, idle_since })
    }

    /// Sends a request and waits for the head of the response.
    pub(super) async fn send(&mut self, request: Request<Outgoing>) -> Result<Response<Incoming>, Failure> {
        self.heard.store(false, Ordering::Relaxed);
        let mut response = std::pin::pin!(self.sender.try_send_request(request));
        let (connection, ended) = (&mut self.connection, &mut self.ended);
        let mut failure = None;
        let result = std::future::poll_fn(|cx| {
            if let Poll::Ready(result) = response.as_mut().poll(cx) {
                return Poll::Ready(Some(result));
            }
            if !*ended && let Poll::Ready(result) = Pin::new(&mut *connection).poll(cx) {
                *ended = true;
                failure = result.err();
            }
            match response.as_mut().poll(cx) {
                Poll::Ready(result) => Poll::Ready(Some(result)),
                Poll::Pending if *ended => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        match result {
            Some(Ok(response)) => Ok(response),
            Some(Err(mut refused)) => {
                let request = refused.take_message();
                let text = self.wording(refused.error());
                Err(match request {
                    Some(request) => Failure::NotSent(Box::new(request), text),
                    None => Failure::Lost(text),
                })
            }
            None => {
                Err(Failure::Lost(failure.map_or_else(|| "EOF".into(), |failure| self.wording(&failure))))
            }
        }
    }

    /// The next frame of a reply's body.
    pub(super) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<bytes::Bytes>, String>>> {
        let mut frame = Pin::new(&mut *body).poll_frame(cx);
        if frame.is_pending() && !self.ended {
            if let Poll::Ready(result) = Pin::new(&mut self.connection).poll(cx) {
                self.ended = true;
                if let Err(failure) = result {
                    // The body learns of it too, but its error has lost the cause.
                    let failure = self.wording(&failure);
                    return match Pin::new(body).poll_frame(cx) {
                        Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(frame))),
                        _ => Poll::Ready(Some(Err(failure))),
                    };
                }
            }
            frame = Pin::new(body).poll_frame(cx);
        }
        match frame {
            Poll::Ready(Some(Err(failure))) => Poll::Ready(Some(Err(self.body_wording(&failure)))),
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(frame))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending if self.ended => Poll::Ready(Some(Err("unexpected EOF".into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// After the end of a reply: whether another request can follow on this connection.
    pub(super) async fn settle(mut self) -> Option<Self> {
        self.is_alive().await.then_some(self)
    }

    /// Lets the connection notice what happened, without waiting.
    async fn is_alive(&mut self) -> bool {
        if self.ended {
            return false;
        }
        let (connection, ended) = (&mut self.connection, &mut self.ended);
        std::future::poll_fn(|cx| {
            *ended = Pin::new(&mut *connection).poll(cx).is_ready();
            Poll::Ready(())
        })
        .await;
        !self.ended && self.sender.is_ready()
    }

    /// Go's words for a connection that broke before the head of a response was whole.
    fn wording(&self, failure: &hyper::Error) -> String {
        if let Some(error) = io_cause(failure) {
            let (operation, ends) = match error.kind() {
                io::ErrorKind::BrokenPipe => ("write", &self.ends),
                _ => ("read", &self.ends),
            };
            return format!("{operation} {ends}: {operation}: {}", cause(error));
        }
        if failure.is_incomplete_message() || failure.is_canceled() || failure.is_closed() {
            return if self.heard.load(Ordering::Relaxed) { "unexpected EOF".into() } else { "EOF".into() };
        }
        if failure.is_parse() {
            return format!(
                "net/http: HTTP/1.x transport connection broken: malformed HTTP response: {failure}"
            );
        }
        with_sources(failure)
    }

    /// Go's words for a connection that broke within a body.
    fn body_wording(&self, failure: &hyper::Error) -> String {
        match io_cause(failure) {
            Some(error) if error.kind() == io::ErrorKind::UnexpectedEof => "unexpected EOF".into(),
            Some(error) if error.raw_os_error().is_some() => {
                format!("read {}: read: {}", self.ends, cause(error))
            }
            _ if failure.is_incomplete_message() || failure.is_closed() || failure.is_canceled() => {
                "unexpected EOF".into()
            }
            _ => with_sources(failure),
        }
    }
}

fn io_cause(failure: &hyper::Error) -> Option<&io::Error> {
    let mut source = std::error::Error::source(failure);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error);
        }
        source = error.source();
    }
    None
}

fn with_sources(failure: &hyper::Error) -> String {
    let mut text = failure.to_string();
    let mut source = std::error::Error::source(failure);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
