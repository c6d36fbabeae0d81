//! Connections to another server, and the idle ones kept for the next request.
//!
//! A connection has no task of its own: whoever has borrowed it drives it, together with the answer it waits for.
//! So a request costs no switch between tasks, what was read in one piece is passed on in one piece, and dropping a
//! request or its answer closes the connection, which is how the other server learns of it. An idle connection is
//! not driven; whether it was closed is found out when it is taken again.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;

use super::client::ClientBody;
use super::listen::Stream;
use super::respond::BodyError;

/// How long an idle connection is kept (Go: `net/http.DefaultTransport`).
const MAX_IDLE_TIME: Duration = Duration::from_secs(90);
/// Idle connections kept at most.
const MAX_IDLE: usize = 64;
/// Most that is read ahead of an answer; also the longest head of one.
const MAX_READ_AHEAD: usize = 256 << 10;

/// Idle connections to one server.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// The last one used is taken first. Never held over an await.
    idle: Mutex<Vec<Link>>,
}

impl Pool {
    /// An idle connection that is still open.
    pub(super) async fn take(&self) -> Option<Link> {
        std::future::poll_fn(|cx| {
            loop {
                let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let Some(mut link) = idle else { return Poll::Ready(None) };
                if link.idle_since.elapsed() < MAX_IDLE_TIME && link.is_idle(cx) {
                    return Poll::Ready(Some(link));
                }
            }
        })
        .await
    }

    fn put(&self, mut link: Link) {
        link.idle_since = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // the oldest stand first
        let n_old = idle.iter().take_while(|old| old.idle_since.elapsed() >= MAX_IDLE_TIME).count();
        drop(idle.drain(..n_old));
        if idle.len() < MAX_IDLE {
            idle.push(link);
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    sender: SendRequest<ClientBody>,
    connection: Connection<TokioIo<Stream>, ClientBody>,
    /// Whether the connection has ended; it must not be driven again.
    has_ended: bool,
    idle_since: Instant,
}

/// Why a request got no answer.
pub(super) enum Failure {
    /// The other server never saw it; another connection may be tried.
    NotSent(Box<http::Request<ClientBody>>, hyper::Error),
    /// It may have been seen.
    Lost(hyper::Error),
    /// The connection ended without a word.
    Ended,
}

/// Most header lines of an answer: as many as the original was seen to pass, and a few more. hyper makes room for all of
/// them for each answer.
const MAX_HEADERS: usize = 320;

/// Speaks HTTP/1.1 over a fresh connection.
pub(super) async fn handshake(
    stream: Stream,
) -> hyper::Result<(SendRequest<ClientBody>, Connection<TokioIo<Stream>, ClientBody>)> {
    Builder::new()
        .title_case_headers(true)
        .max_buf_size(MAX_READ_AHEAD)
        .max_headers(MAX_HEADERS)
        .allow_obsolete_multiline_headers_in_responses(true)
        .ignore_invalid_headers_in_responses(true)
        .handshake(TokioIo::new(stream))
        .await
}

impl Link {
    pub(super) async fn over(stream: Stream) -> hyper::Result<Self> {
        let (sender, connection) = handshake(stream).await?;
        Ok(Self { sender, connection, has_ended: false, idle_since: Instant::now() })
    }

    /// Sends a request and waits for the head of its answer. The connection goes back to `pool` when the answer was
    /// read to its end.
    pub(super) async fn send(
        mut self,
        request: http::Request<ClientBody>,
        pool: &Arc<Pool>,
    ) -> Result<http::Response<Reply>, Failure> {
        let mut response = std::pin::pin!(self.sender.try_send_request(request));
        let (connection, has_ended) = (&mut self.connection, &mut self.has_ended);
        let mut cause = None;
        let answered = std::future::poll_fn(|cx| {
            if !*has_ended && let Poll::Ready(ended) = Pin::new(&mut *connection).poll(cx) {
                *has_ended = true;
                cause = ended.err();
            }
            match response.as_mut().poll(cx) {
                Poll::Ready(answered) => Poll::Ready(Some(answered)),
                Poll::Pending if *has_ended => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        let response = match answered {
            Some(Ok(response)) => response,
            Some(Err(mut refused)) => {
                return Err(match refused.take_message() {
                    Some(request) => Failure::NotSent(Box::new(request), refused.into_error()),
                    None => Failure::Lost(cause.unwrap_or_else(|| refused.into_error())),
                });
            }
            None => return Err(cause.map_or(Failure::Ended, Failure::Lost)),
        };
        let (head, body) = response.into_parts();
        let mut reply = Reply { body, lent: Some(Box::new(Lent { link: self, pool: Arc::clone(pool) })) };
        if reply.body.is_end_stream() {
            std::future::poll_fn(|cx| {
                reply.give_back(cx);
                Poll::Ready(())
            })
            .await;
        }
        Ok(http::Response::from_parts(head, reply))
    }

    /// Lets the connection do what it can; whether it goes on.
    fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.has_ended {
            // what went wrong is told to the body too
            self.has_ended = Pin::new(&mut self.connection).poll(cx).is_ready();
        }
        !self.has_ended
    }

    /// Whether another request can be sent.
    fn is_idle(&mut self, cx: &mut Context<'_>) -> bool {
        self.drive(cx) && self.sender.is_ready()
    }
}

/// The body of an answer, and the connection it comes on.
#[derive(Debug)]
pub struct Reply {
    body: Incoming,
    /// `None` at the end, and where a task drives the connection.
    lent: Option<Box<Lent>>,
}

#[derive(Debug)]
struct Lent {
    link: Link,
    pool: Arc<Pool>,
}

impl Reply {
    /// A body whose connection somebody else drives.
    pub(super) fn driven(body: Incoming) -> Self {
        Self { body, lent: None }
    }

    /// At the end of the body: the connection serves another request, if it can.
    fn give_back(&mut self, cx: &mut Context<'_>) {
        if let Some(lent) = self.lent.take() {
            let Lent { mut link, pool } = *lent;
            if link.is_idle(cx) {
                pool.put(link);
            }
        }
    }
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let mut polled = Pin::new(&mut this.body).poll_frame(cx);
        if polled.is_pending()
            && let Some(lent) = &mut this.lent
        {
            let goes_on = lent.link.drive(cx);
            polled = Pin::new(&mut this.body).poll_frame(cx);
            if polled.is_pending() && !goes_on {
                this.lent = None;
                return Poll::Ready(Some(Err("unexpected EOF".into())));
            }
        }
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Err(error))) => {
                this.lent = None;
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(frame) => {
                if frame.is_none() || this.body.is_end_stream() {
                    this.give_back(cx);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
