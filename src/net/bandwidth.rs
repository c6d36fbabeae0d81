//! Traffic by protocol, for `health bandwidth`.
//!
//! The swarm does not tell which protocol a stream carries, so a thin layer around each stream reads along while it
//! is negotiated: whoever accepts a stream writes `/multistream/1.0.0`, any number of `na`, then the protocol, as
//! lines that start with their length. From there on a stream adds to two counters.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use cluster_compat::types::{Bandwidth, Bandwidths};
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};

use super::figures::Counts;

/// Longest negotiation that is read along; after that a stream counts for no protocol.
const MAX_NEGOTIATION_BYTES: usize = 1024;

/// Shortest time that a rate is measured over.
const MIN_SAMPLE: Duration = Duration::from_secs(1);

/// The traffic of all streams since the start. Both locks are taken for a moment: by a stream whose protocol has
/// just been agreed, and by whoever asks.
pub(super) struct Traffic {
    /// What else is counted of the same connections.
    pub(super) counts: Counts,
    by_protocol: RwLock<HashMap<String, Arc<Counters>>>,
    last: Mutex<Sample>,
}

#[derive(Debug, Default)]
struct Counters {
    bytes_in: AtomicI64,
    bytes_out: AtomicI64,
    /// Open streams of others, and ours.
    n_open: [AtomicI64; 2],
}

struct Sample {
    at: Instant,
    bandwidths: Bandwidths,
}

impl Traffic {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            counts: Counts::default(),
            by_protocol: RwLock::default(),
            last: Mutex::new(Sample { at: now, bandwidths: Bandwidths::new() }),
        }
    }

    /// Totals since the start, without rates.
    pub(super) fn totals(&self) -> Bandwidths {
        let by_protocol = self.by_protocol.read().unwrap_or_else(PoisonError::into_inner);
        by_protocol.iter().map(|(protocol, counters)| (protocol.clone(), counters.totals())).collect()
    }

    /// Open streams by protocol: those of others, and ours.
    pub(super) fn open_streams(&self) -> BTreeMap<String, [i64; 2]> {
        let by_protocol = self.by_protocol.read().unwrap_or_else(PoisonError::into_inner);
        let n_open = |counters: &Counters| [0, 1].map(|i| counters.n_open[i].load(Ordering::Relaxed));
        by_protocol.iter().map(|(protocol, counters)| (protocol.clone(), n_open(counters))).collect()
    }

    /// Totals since the start; rates since the last question that is at least [`MIN_SAMPLE`] ago.
    pub(super) fn read(&self, now: Instant) -> Bandwidths {
        let totals = self.totals();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_duration_since(last.at);
        let is_new_sample = elapsed >= MIN_SAMPLE;
        let mut bandwidths = totals;
        for (protocol, bandwidth) in &mut bandwidths {
            let old = last.bandwidths.get(protocol).copied().unwrap_or_default();
            let rate = |new: i64, old: i64| (new - old) as f64 / elapsed.as_secs_f64();
            (bandwidth.rate_in, bandwidth.rate_out) = if is_new_sample {
                (rate(bandwidth.total_in, old.total_in), rate(bandwidth.total_out, old.total_out))
            } else {
                (old.rate_in, old.rate_out)
            };
        }
        if is_new_sample {
            *last = Sample { at: now, bandwidths: bandwidths.clone() };
        }
        bandwidths
    }

    fn of(&self, protocol: &str) -> Arc<Counters> {
        let known = self.by_protocol.read().unwrap_or_else(PoisonError::into_inner).get(protocol).cloned();
        known.unwrap_or_else(|| {
            let mut by_protocol = self.by_protocol.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(by_protocol.entry(protocol.to_owned()).or_default())
        })
    }
}

impl Counters {
    fn add(&self, n_in: usize, n_out: usize) {
        self.bytes_in.fetch_add(n_in as i64, Ordering::Relaxed);
        self.bytes_out.fetch_add(n_out as i64, Ordering::Relaxed);
    }

    fn opened(&self, is_inbound: bool, change: i64) {
        self.n_open[usize::from(!is_inbound)].fetch_add(change, Ordering::Relaxed);
    }

    fn totals(&self) -> Bandwidth {
        let read = |counter: &AtomicI64| counter.load(Ordering::Relaxed);
        Bandwidth { total_in: read(&self.bytes_in), total_out: read(&self.bytes_out), ..Bandwidth::default() }
    }
}

/// The negotiation of a stream, as its acceptor writes it.
#[derive(Debug, Default)]
struct Negotiation {
    seen: Vec<u8>,
}

/// What a negotiation has come to.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Open,
    Agreed(String),
    Unclear,
}

impl Negotiation {
    fn read(&mut self, bytes: &[u8]) -> Outcome {
        let room = MAX_NEGOTIATION_BYTES - self.seen.len();
        self.seen.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let mut rest = &self.seen[..];
        while let Ok((len, behind)) = unsigned_varint::decode::usize(rest) {
            let Some(line) = behind.get(..len) else { break };
            rest = &behind[len..];
            match line.strip_suffix(b"\n") {
                Some(b"/multistream/1.0.0" | b"na") => {}
                Some(protocol) if protocol.starts_with(b"/") => {
                    return Outcome::Agreed(String::from_utf8_lossy(protocol).into_owned());
                }
                _ => return Outcome::Unclear,
            }
        }
        if self.seen.len() >= MAX_NEGOTIATION_BYTES { Outcome::Unclear } else { Outcome::Open }
    }
}

/// A multiplexer whose streams count.
pub(super) struct Counted<M> {
    inner: M,
    traffic: Arc<Traffic>,
}

impl<M> Counted<M> {
    pub(super) const fn new(inner: M, traffic: Arc<Traffic>) -> Self {
        Self { inner, traffic }
    }

    fn stream<S>(&self, inner: S, is_inbound: bool) -> CountedStream<S> {
        let state = State::Negotiating { is_inbound, negotiation: Negotiation::default(), n_in: 0, n_out: 0 };
        CountedStream { inner, traffic: Arc::clone(&self.traffic), state }
    }
}

impl<M> StreamMuxer for Counted<M>
where
    M: StreamMuxer<Substream: Unpin> + Unpin,
{
    type Substream = CountedStream<M::Substream>;
    type Error = M::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        let polled = Pin::new(&mut self.inner).poll_inbound(cx);
        polled.map_ok(|stream| self.stream(stream, true))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        let polled = Pin::new(&mut self.inner).poll_outbound(cx);
        polled.map_ok(|stream| self.stream(stream, false))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

/// A stream that counts.
pub(super) struct CountedStream<S> {
    inner: S,
    traffic: Arc<Traffic>,
    state: State,
}

enum State {
    Negotiating { is_inbound: bool, negotiation: Negotiation, n_in: usize, n_out: usize },
    Agreed { counters: Arc<Counters>, is_inbound: bool },
}

impl<S> CountedStream<S> {
    /// `bytes` went in or out.
    fn count(&mut self, bytes: &[u8], is_in: bool) {
        let (new_in, new_out) = if is_in { (bytes.len(), 0) } else { (0, bytes.len()) };
        match &mut self.state {
            State::Agreed { counters, .. } => counters.add(new_in, new_out),
            State::Negotiating { is_inbound, negotiation, n_in, n_out } => {
                *n_in += new_in;
                *n_out += new_out;
                // the acceptor's side: what we write on their streams, what we read on ours
                if *is_inbound == is_in {
                    return;
                }
                let protocol = match negotiation.read(bytes) {
                    Outcome::Open => return,
                    Outcome::Agreed(protocol) => protocol,
                    Outcome::Unclear => String::new(),
                };
                let counters = self.traffic.of(&protocol);
                counters.add(*n_in, *n_out);
                let is_inbound = *is_inbound;
                counters.opened(is_inbound, 1);
                self.state = State::Agreed { counters, is_inbound };
            }
        }
    }
}

impl<S> Drop for CountedStream<S> {
    fn drop(&mut self) {
        if let State::Agreed { counters, is_inbound } = &self.state {
            counters.opened(*is_inbound, -1);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CountedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if let Poll::Ready(Ok(n)) = polled {
            self.count(&buf[..n], true);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(n)) = polled {
            self.count(&buf[..n], false);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Vec<u8> {
        let mut bytes = vec![text.len() as u8 + 1];
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(b'\n');
        bytes
    }

    #[test]
    fn the_protocol_is_the_first_line_that_is_no_refusal() {
        let bytes =
            [line("/multistream/1.0.0"), line("na"), line("/ipfs/id/1.0.0"), b"payload".to_vec()].concat();
        let mut at_once = Negotiation::default();
        assert_eq!(at_once.read(&bytes), Outcome::Agreed("/ipfs/id/1.0.0".into()));
        let mut by_byte = Negotiation::default();
        let outcomes: Vec<Outcome> = bytes.iter().map(|byte| by_byte.read(&[*byte])).collect();
        let agreed_at = bytes.len() - "payload".len() - 1;
        assert!(outcomes[..agreed_at].iter().all(|outcome| *outcome == Outcome::Open));
        assert_eq!(outcomes[agreed_at], Outcome::Agreed("/ipfs/id/1.0.0".into()));
    }

    #[test]
    fn what_is_no_negotiation_counts_for_no_protocol() {
        assert_eq!(Negotiation::default().read(&line("hello")), Outcome::Unclear);
        assert_eq!(Negotiation::default().read(&[0]), Outcome::Unclear);
        assert_eq!(Negotiation::default().read(&[0xff; 4096]), Outcome::Unclear);
    }

    #[test]
    fn rates_are_measured_between_questions() {
        let start = Instant::now();
        let traffic = Traffic::new(start);
        assert!(traffic.read(start).is_empty());
        traffic.of("/a").add(100, 10);
        let first = traffic.read(start + Duration::from_secs(10));
        assert_eq!((first["/a"].total_in, first["/a"].total_out), (100, 10));
        assert_eq!((first["/a"].rate_in, first["/a"].rate_out), (10.0, 1.0));
        traffic.of("/a").add(50, 0);
        let too_soon = traffic.read(start + Duration::from_millis(10_500));
        assert_eq!((too_soon["/a"].total_in, too_soon["/a"].rate_in), (150, 10.0));
        assert_eq!(traffic.read(start + Duration::from_secs(15))["/a"].rate_in, 10.0);
        assert_eq!(traffic.read(start + Duration::from_secs(20))["/a"].rate_in, 0.0);
    }
}
