//! A body from another server, passed on: small pieces that are there together leave together.
//!
//! Kubo writes some answers a few bytes at a time. Passing each on as a chunk of its own would cost a write for
//! every word; waiting for more would delay long polls. So after a small piece the task steps aside once or twice,
//! which lets the connection hand over what it has read already, and no more.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};

use super::client::Reply;
use super::respond::BodyError;

/// Pieces from this size on are passed as they are.
const LARGE: usize = 2048;
/// Most that is joined (the buffer of Go's proxy).
const MAX_JOINED: usize = 32 << 10;
/// How often the task steps aside for more.
const MAX_PAUSES: u8 = 2;

type Piece = Option<Result<Frame<Bytes>, BodyError>>;

/// The body of another server's answer.
pub(super) struct Upstream {
    body: Reply,
    joined: BytesMut,
    pause: Option<BoxFuture<'static, ()>>,
    n_pauses: u8,
    /// What came behind the joined pieces.
    next: Option<Piece>,
}

impl Upstream {
    pub(super) fn new(body: Reply) -> Self {
        Self { body, joined: BytesMut::new(), pause: None, n_pauses: 0, next: None }
    }

    /// `first` was read already.
    pub(super) fn behind(first: &Bytes, body: Reply) -> Self {
        Self { joined: BytesMut::from(&first[..]), ..Self::new(body) }
    }

    fn take(&mut self) -> Poll<Piece> {
        self.n_pauses = 0;
        Poll::Ready(Some(Ok(Frame::data(self.joined.split().freeze()))))
    }
}

impl Body for Upstream {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Piece> {
        let this = &mut *self;
        loop {
            if let Some(next) = this.next.take() {
                return Poll::Ready(next);
            }
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(cx));
                this.pause = None;
            }
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if this.joined.is_empty() && data.len() >= LARGE => {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Ok(data) => {
                        this.joined.extend_from_slice(&data);
                        this.n_pauses = 0;
                        if this.joined.len() >= MAX_JOINED {
                            return this.take();
                        }
                    }
                    Err(trailers) => this.next = Some(Some(Ok(trailers))),
                },
                Poll::Ready(end) => this.next = Some(end),
                Poll::Pending if this.joined.is_empty() => return Poll::Pending,
                Poll::Pending if this.n_pauses < MAX_PAUSES => {
                    this.n_pauses += 1;
                    this.pause = Some(Box::pin(tokio::task::yield_now()));
                }
                Poll::Pending => return this.take(),
            }
            if this.next.is_some() && !this.joined.is_empty() {
                return this.take();
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_end = match &self.next {
            None => self.body.is_end_stream(),
            Some(next) => next.is_none(),
        };
        is_end && self.joined.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let held = self.joined.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + held);
        }
        hint.set_lower(hint.lower() + held);
        hint
    }
}
