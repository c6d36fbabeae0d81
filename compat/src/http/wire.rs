//! The socket as hyper sees it.
//!
//! [`Wire`] stands between a connection and hyper's HTTP/1.1 server. On the way in it holds each request head
//! back until it is complete, checks it as Go's server does and hands it over with a `TE: trailers` line
//! ([`head`](super::head)); bodies pass as they are, only their end is followed. On the way out it puts back the
//! `Trailer` line that hyper takes from answers without a chunked body. It also keeps the time limits of a
//! connection, which hyper does not have.
//!
//! hyper gives up an exchange when the input ends, but a client may close its writing side alone and wait for the
//! answer. So the end of the input is held back while an answer is under way, until nothing was written for
//! `half_closed_grace`: a client that is gone takes no bytes, and the work for it ends then or with a failed write.
//!
//! [`Exchange`] is the other side of it: what the service knows of the request it answers.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::conn::ConnOptions;
use super::head::{self, Chunks, Framing, Head, Refusal};

/// Go's server reads this much more than the configured limit.
const HEAD_SLACK: usize = 4096;
/// How much is read at once while a head is incomplete.
const HEAD_READ: usize = 8192;
/// How long a connection that closes with input unread stays half open, so that the last answer is not lost.
const LINGER: Duration = Duration::from_millis(500);
/// The name under which a `Trailer` line travels through hyper where hyper would drop it.
pub(super) const KEPT_TRAILER: &str = "x-kept-trailer";
/// The name that tells hyper of trailers which the head must not announce.
pub(super) const HIDDEN_TRAILER: &str = "X-Stream-Error";

/// What is replaced in the head of an answer on its way out.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Rewrite {
    /// A kept `Trailer` line gets its name back.
    KeptTrailer = 1,
    /// The `Trailer` line goes.
    HiddenTrailer = 2,
}

impl Rewrite {
    fn from_bits(bits: u8) -> Option<(&'static [u8], &'static [u8])> {
        match bits {
            1 => Some((b"X-Kept-Trailer: ", b"Trailer: ")),
            2 => Some((b"Trailer: X-Stream-Error\r\n", b"")),
            _ => None,
        }
    }
}

const MODE_HTTP: u8 = 0;
/// A request asked for another protocol and is not answered yet: no head is read.
const MODE_UNDECIDED: u8 = 1;
/// The protocol was changed: bytes pass as they are.
const MODE_RAW: u8 = 2;

/// What connection and service tell each other.
#[derive(Default)]
pub(super) struct Shared {
    mode: AtomicU8,
    /// Heads handed over and not answered in full.
    in_flight: AtomicUsize,
    /// The [`Rewrite`] that the head on its way out needs; 0 is none.
    rewrite: AtomicU8,
    /// Raw targets of heads handed over and not yet seen by the service, in order. Never held over an await.
    targets: Mutex<VecDeque<Option<Bytes>>>,
    reader: AtomicWaker,
}

impl Shared {
    /// The next request as the service sees it.
    pub(super) fn exchange(self: &Arc<Self>) -> Exchange {
        let raw_target = self.targets.lock().unwrap_or_else(PoisonError::into_inner).pop_front().flatten();
        Exchange { shared: Arc::clone(self), raw_target }
    }
}

/// One request and its answer; dropped when the answer is complete.
pub(super) struct Exchange {
    shared: Arc<Shared>,
    /// The target as sent, where hyper was given another.
    pub raw_target: Option<Bytes>,
}

impl Exchange {
    /// The answer about to be sent changes the protocol, or does not.
    pub(super) fn switches_protocol(&self, switches: bool) {
        let mode = if switches { MODE_RAW } else { MODE_HTTP };
        if self.shared.mode.swap(mode, Ordering::AcqRel) != mode {
            self.shared.reader.wake();
        }
    }

    /// The head of the answer about to be sent is rewritten.
    pub(super) fn rewrites(&self, rewrite: Rewrite) {
        self.shared.rewrite.store(rewrite as u8, Ordering::Release);
    }
}

/// A connection as its listener sees it.
pub(super) struct Watched {
    shared: Weak<Shared>,
    stop: CancellationToken,
}

impl Watched {
    /// A connection that `stop` ends when it is idle.
    pub(super) fn new(shared: &Arc<Shared>, stop: CancellationToken) -> Self {
        Self { shared: Arc::downgrade(shared), stop }
    }

    /// Whether the connection is still there.
    pub(super) fn is_open(&self) -> bool {
        self.shared.strong_count() > 0
    }

    /// Ends the connection if it answers nothing just now; whether it did.
    pub(super) fn ends_if_idle(&self) -> bool {
        let is_idle = self.shared.upgrade().is_some_and(|shared| {
            shared.in_flight.load(Ordering::Acquire) == 0 && shared.mode.load(Ordering::Acquire) == MODE_HTTP
        });
        if is_idle {
            self.stop.cancel();
        }
        is_idle
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.shared.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.shared.reader.wake();
    }
}

/// What the next bytes from the socket are.
enum Input {
    /// A head; the bytes of it that were searched for its end.
    Head { scanned: usize },
    /// A body of known length; bytes left.
    Sized(u64),
    /// A chunked body.
    Chunked(Chunks),
    /// Another protocol.
    Raw,
    /// Refused: to be written once the answers before it are out.
    Refused(Refusal),
    /// Ending: the refusal's bytes left, then closed for writing, then waiting for the other side.
    Ending { left: Bytes, closed: bool },
    /// Nothing more is read.
    Closed,
}

/// Which limit the timer stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Limit {
    Head,
    Idle,
    Body,
    Linger,
    HalfClosed,
}

/// A connection with the habits of Go's server.
pub(super) struct Wire<S> {
    io: S,
    shared: Arc<Shared>,
    options: ConnOptions,
    buffer: BytesMut,
    /// Bytes at the start of `buffer` that hyper may have.
    ready: usize,
    input: Input,
    is_first: bool,
    /// The input has ended; when that was, or when bytes were last written since.
    half_closed: Option<Instant>,
    head_since: Instant,
    timer: Option<(Limit, Pin<Box<Sleep>>)>,
    write_timer: Option<Pin<Box<Sleep>>>,
    /// Rewritten output, not yet taken by the socket.
    output: BytesMut,
    write_blocked: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(io: S, shared: Arc<Shared>, options: ConnOptions) -> Self {
        Self {
            io,
            shared,
            options,
            buffer: BytesMut::new(),
            ready: 0,
            input: Input::Head { scanned: 0 },
            is_first: true,
            half_closed: None,
            head_since: Instant::now(),
            timer: None,
            write_timer: None,
            output: BytesMut::new(),
            write_blocked: false,
        }
    }

    /// Whether `limit` has run out, set at first sight to end at `at`.
    fn poll_limit(&mut self, cx: &mut Context<'_>, limit: Limit, at: Option<Instant>) -> Poll<()> {
        let Some(at) = at else {
            self.timer = None;
            return Poll::Pending;
        };
        let sleep = match &mut self.timer {
            Some((current, sleep)) if *current == limit => sleep,
            timer => &mut timer.insert((limit, Box::pin(tokio::time::sleep_until(at)))).1,
        };
        sleep.as_mut().poll(cx)
    }

    /// Reads more into the buffer; `Ok(0)` is the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let before = self.buffer.len();
        let mut chunk = [std::mem::MaybeUninit::uninit(); HEAD_READ];
        let mut read = ReadBuf::uninit(&mut chunk);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
        self.buffer.extend_from_slice(read.filled());
        Poll::Ready(Ok(self.buffer.len() - before))
    }

    /// One step at a head: `Ready(true)` goes on, `Ready(false)` is the end of the input.
    fn poll_head(&mut self, cx: &mut Context<'_>, scanned: usize) -> Poll<io::Result<bool>> {
        match self.shared.mode.load(Ordering::Acquire) {
            MODE_RAW => {
                self.input = Input::Raw;
                self.timer = None;
                return Poll::Ready(Ok(true));
            }
            MODE_UNDECIDED => return self.poll_undecided(cx),
            _ => {}
        }
        if let Some(end) = head::end_of_head(&self.buffer, scanned) {
            if end > self.max_head() {
                self.input = Input::Refused(head::TOO_LARGE);
                return Poll::Ready(Ok(true));
            }
            match head::read(&self.buffer[..end]) {
                Ok(head) => self.hand_over(head, end),
                Err(refusal) => self.input = Input::Refused(refusal),
            }
            return Poll::Ready(Ok(true));
        }
        if self.buffer.len() > self.max_head() {
            self.input = Input::Refused(head::TOO_LARGE);
            return Poll::Ready(Ok(true));
        }
        self.input = Input::Head { scanned: self.buffer.len() };
        if self.half_closed.is_some() {
            return self.poll_half_closed(cx);
        }
        match self.poll_fill(cx) {
            Poll::Ready(Ok(0)) => self.poll_half_closed(cx),
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(true)),
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => self.poll_head_limits(cx),
        }
    }

    /// The end of the input, held back while an answer is under way and its bytes are taken.
    fn poll_half_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let grace = self.options.half_closed_grace;
        while self.shared.in_flight.load(Ordering::Acquire) > 0 {
            let since = *self.half_closed.get_or_insert_with(Instant::now);
            // the timer may be older than what was written last
            ready!(self.poll_limit(cx, Limit::HalfClosed, Some(since + grace)));
            self.timer = None;
            if since.elapsed() >= grace {
                break;
            }
        }
        Poll::Ready(Ok(false))
    }

    fn max_head(&self) -> usize {
        self.options.max_header_bytes + HEAD_SLACK
    }

    /// Limits on the time before and within a head; they rest while an answer is under way.
    fn poll_head_limits(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.shared.in_flight.load(Ordering::Acquire) > 0 {
            self.timer = None;
            return Poll::Pending;
        }
        let now = Instant::now();
        if self.buffer.is_empty() && !self.is_first {
            let limit = first_set(&[self.options.idle_timeout, self.options.read_timeout]);
            ready!(self.poll_limit(cx, Limit::Idle, limit.map(|limit| now + limit)));
            return Poll::Ready(Ok(false));
        }
        if !matches!(self.timer, Some((Limit::Head, _))) && !self.is_first {
            self.head_since = now;
        }
        let limit = first_set(&[self.options.read_header_timeout, self.options.read_timeout]);
        let since = self.head_since;
        ready!(self.poll_limit(cx, Limit::Head, limit.map(|limit| since + limit)));
        if self.buffer.is_empty() || self.buffer.contains(&b'\n') {
            return Poll::Ready(Ok(false));
        }
        self.input = Input::Refused(head::BAD_REQUEST);
        Poll::Ready(Ok(true))
    }

    /// Before the answer to a request for another protocol: only the end of the input is of interest.
    fn poll_undecided(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.buffer.len() >= self.max_head() {
            return Poll::Pending;
        }
        while self.half_closed.is_none() {
            if ready!(self.poll_fill(cx))? == 0 {
                break;
            }
        }
        self.poll_half_closed(cx)
    }

    /// Replaces the head at the start of the buffer by what hyper is given.
    fn hand_over(&mut self, head: Head, end: usize) {
        self.ready = head.bytes.len();
        let rest = self.buffer.split_off(end);
        self.buffer = head.bytes;
        self.buffer.unsplit(rest);
        self.input = match head.framing {
            Framing::Length(0) => Input::Head { scanned: 0 },
            Framing::Length(length) => Input::Sized(length),
            Framing::Chunked => Input::Chunked(Chunks::START),
        };
        if self.is_first || !matches!(self.timer, Some((Limit::Head, _))) {
            // the whole request counts from its head
            self.head_since = if self.is_first { self.head_since } else { Instant::now() };
        }
        self.is_first = false;
        self.timer = None;
        self.write_timer =
            first_set(&[self.options.write_timeout]).map(|limit| Box::pin(tokio::time::sleep(limit)));
        self.shared.targets.lock().unwrap_or_else(PoisonError::into_inner).push_back(head.raw_target);
        self.shared.in_flight.fetch_add(1, Ordering::AcqRel);
        if head.upgrade {
            self.shared.mode.store(MODE_UNDECIDED, Ordering::Release);
        }
    }

    /// Body bytes straight into hyper's buffer.
    fn poll_body(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, out);
        match polled {
            Poll::Pending => {
                let at = first_set(&[self.options.read_timeout]).map(|limit| self.head_since + limit);
                ready!(self.poll_limit(cx, Limit::Body, at));
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, self.options.late())));
            }
            Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
            Poll::Ready(Ok(())) => {}
        }
        let read = &out.filled()[before..];
        let taken = match &mut self.input {
            Input::Sized(left) => {
                let taken = read.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                taken
            }
            Input::Chunked(chunks) => chunks.advance(read),
            _ => read.len(),
        };
        // what is behind the body belongs to the next head
        self.buffer.extend_from_slice(&read[taken..]);
        out.set_filled(before + taken);
        self.end_of_body();
        Poll::Ready(Ok(()))
    }

    /// Buffered bytes that belong to the body become ready.
    fn take_buffered_body(&mut self) {
        match &mut self.input {
            Input::Sized(left) => {
                self.ready = self.buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= self.ready as u64;
            }
            Input::Chunked(chunks) => self.ready = chunks.advance(&self.buffer),
            _ => {}
        }
        self.end_of_body();
    }

    fn end_of_body(&mut self) {
        if matches!(self.input, Input::Sized(0) | Input::Chunked(Chunks::Done)) {
            self.input = Input::Head { scanned: 0 };
            self.timer = None;
        }
    }

    /// Writes the refusal, closes for writing, waits a moment for the other side to close.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Input::Ending { left, closed } = &mut self.input else { return Poll::Ready(Ok(())) };
        while !left.is_empty() {
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, left))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            left.advance(n);
        }
        if !*closed {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            *closed = true;
        }
        let mut sink = [0_u8; 4096];
        loop {
            let mut read = ReadBuf::new(&mut sink);
            match Pin::new(&mut self.io).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {}
                Poll::Ready(_) => break,
                Poll::Pending => {
                    let at = Instant::now() + LINGER;
                    ready!(self.poll_limit(cx, Limit::Linger, Some(at)));
                    break;
                }
            }
        }
        self.input = Input::Closed;
        Poll::Ready(Ok(()))
    }

    fn poll_write_limit(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.shared.mode.load(Ordering::Acquire) == MODE_RAW {
            return Ok(());
        }
        match &mut self.write_timer {
            Some(timer) => match timer.as_mut().poll(cx) {
                Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::TimedOut, "i/o timeout")),
                Poll::Pending => Ok(()),
            },
            None => Ok(()),
        }
    }

    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, &self.output))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(n);
            self.took();
        }
        Poll::Ready(Ok(()))
    }

    /// The socket took bytes: a client that has ended its side is still there.
    fn took(&mut self) {
        if let Some(since) = &mut self.half_closed {
            *since = Instant::now();
        }
    }

    /// Notes whether the socket took all it was given; the reader may wait for that to refuse a request.
    fn wrote(&mut self, polled: Poll<io::Result<usize>>, given: usize) -> Poll<io::Result<usize>> {
        let was_blocked = self.write_blocked;
        self.write_blocked = !matches!(polled, Poll::Ready(Ok(n)) if n >= given);
        if matches!(polled, Poll::Ready(Ok(1..))) {
            self.took();
        }
        if was_blocked && !self.write_blocked {
            self.shared.reader.wake();
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.shared.reader.register(cx.waker());
        loop {
            if this.ready > 0 {
                let n = this.ready.min(out.remaining());
                out.put_slice(&this.buffer[..n]);
                this.buffer.advance(n);
                this.ready -= n;
                return Poll::Ready(Ok(()));
            }
            match &this.input {
                Input::Head { scanned } => {
                    let scanned = *scanned;
                    if !ready!(this.poll_head(cx, scanned))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                Input::Sized(_) | Input::Chunked(_) if !this.buffer.is_empty() => this.take_buffered_body(),
                Input::Raw if !this.buffer.is_empty() => this.ready = this.buffer.len(),
                Input::Sized(_) | Input::Chunked(_) | Input::Raw => return this.poll_body(cx, out),
                Input::Refused(refusal) => {
                    if this.shared.in_flight.load(Ordering::Acquire) > 0 || this.write_blocked {
                        return Poll::Pending;
                    }
                    this.input = Input::Ending { left: refusal.to_bytes(), closed: false };
                }
                Input::Ending { .. } => ready!(this.poll_end(cx))?,
                Input::Closed => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.poll_write_limit(cx)?;
        ready!(this.poll_output(cx))?;
        if let Some((from, to)) = Rewrite::from_bits(this.shared.rewrite.load(Ordering::Acquire)) {
            if let Some(at) = find(bytes, from) {
                this.shared.rewrite.store(0, Ordering::Release);
                this.output.extend_from_slice(&bytes[..at]);
                this.output.extend_from_slice(to);
                this.output.extend_from_slice(&bytes[at + from.len()..]);
                return match this.poll_output(cx) {
                    Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
                    _ => Poll::Ready(Ok(bytes.len())),
                };
            }
            // what stands before it must not be cut within it
            this.output.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        let polled = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.wrote(polled, bytes.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.shared.rewrite.load(Ordering::Acquire) != 0 || !self.output.is_empty() {
            let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| &**slice);
            return self.poll_write(cx, first);
        }
        let this = self.get_mut();
        this.poll_write_limit(cx)?;
        let given = slices.iter().map(|slice| slice.len()).sum();
        let polled = Pin::new(&mut this.io).poll_write_vectored(cx, slices);
        this.wrote(polled, given)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_output(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_output(cx))?;
        match this.input {
            // a request not read to its end: closing now would take the answer away from its sender
            Input::Sized(_) | Input::Chunked(_) => {
                this.timer = None;
                this.input = Input::Ending { left: Bytes::new(), closed: false };
                this.poll_end(cx)
            }
            Input::Ending { .. } => this.poll_end(cx),
            _ => Pin::new(&mut this.io).poll_shutdown(cx),
        }
    }
}

/// The first limit that is set; zero is none.
fn first_set(limits: &[Duration]) -> Option<Duration> {
    limits.iter().copied().find(|limit| !limit.is_zero())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
