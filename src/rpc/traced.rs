//! Calls as spans, and how many there were; nothing while tracing is off.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use cluster_compat::types::PeerId;

use super::methods::Method;
use crate::observe::metrics::RPC;
use crate::observe::trace::{self, Kind, Span, Value};

/// The span of a call to or from a peer.
pub(super) fn span(kind: Kind, method: &Method, peer: &PeerId) -> Span {
    if !trace::is_on() {
        return Span::default();
    }
    let mut span = trace::span(kind, method.full_name(), None);
    span.set("rpc.system", || Value::Text("gorpc".to_owned()));
    span.set("rpc.service", || Value::Text(method.service.to_owned()));
    span.set("rpc.method", || Value::Text(method.name.to_owned()));
    span.set("network.peer.id", || Value::Text(peer.to_string()));
    span
}

/// A call that is being answered; counted when it is dropped.
pub(super) struct Served {
    place: usize,
    began: Instant,
    received: AtomicU64,
    sent: AtomicU64,
    failure: OnceLock<String>,
    pub(super) span: Span,
}

impl Served {
    /// Begins to count, where anybody wants it.
    pub(super) fn begin(method: &Method, peer: &PeerId) -> Option<Arc<Self>> {
        trace::is_on().then(|| {
            Arc::new(Self {
                place: method.call as usize,
                began: Instant::now(),
                received: AtomicU64::new(0),
                sent: AtomicU64::new(0),
                failure: OnceLock::new(),
                span: span(Kind::Server, method, peer),
            })
        })
    }

    /// So many bytes of arguments came.
    pub(super) fn received(&self, n_bytes: usize) {
        self.received.fetch_add(n_bytes as u64, Ordering::Relaxed);
    }

    /// So many bytes of answers went.
    pub(super) fn sent(&self, n_bytes: usize) {
        self.sent.fetch_add(n_bytes as u64, Ordering::Relaxed);
    }

    /// The answer is an error.
    pub(super) fn failed(&self, why: &str) {
        // the first reason counts
        let _ = self.failure.set(why.to_owned());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(counts) = RPC.get(self.place) {
            counts.received.observe(self.received.load(Ordering::Relaxed));
            counts.sent.observe(self.sent.load(Ordering::Relaxed));
            counts.latency.observe(self.began.elapsed());
        }
        if let Some(why) = self.failure.take() {
            self.span.fail(|| why);
        }
    }
}
