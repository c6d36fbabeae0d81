//! Requests to the daemon as spans, and how many there were; nothing while tracing is off.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::HeaderValue;

use crate::observe::metrics;
use crate::observe::trace::{self, Kind, Span, Value};

/// What a request without an answer counts as, as in the reference.
const NO_ANSWER: u16 = 500;

/// A request, until its answer has been read; counted when it is dropped.
#[derive(Debug)]
pub(super) struct Asked {
    began: Instant,
    /// Bytes of the body, where it is no empty one.
    sent: Option<Arc<AtomicU64>>,
    received: u64,
    status: u16,
    span: Span,
}

impl Asked {
    /// Begins to count, where anybody wants it. `path` is all that follows `/api/v0/`.
    pub(super) fn begin(path: &str, sent: Option<Arc<AtomicU64>>) -> Option<Box<Self>> {
        trace::is_on().then(|| {
            let (endpoint, query) = path.split_once('?').unwrap_or((path, ""));
            let mut span = trace::span(Kind::Client, format!("POST /api/v0/{endpoint}"), None);
            span.set("http.request.method", || Value::Text("POST".to_owned()));
            span.set("url.path", || Value::Text(format!("/api/v0/{endpoint}")));
            span.set("url.query", || Value::Text(query.to_owned()));
            Box::new(Self { began: Instant::now(), sent, received: 0, status: NO_ANSWER, span })
        })
    }

    /// What tells the daemon which story the request is part of.
    pub(super) fn traceparent(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.span.context()?.to_traceparent()).ok()
    }

    /// The head of the answer is there.
    pub(super) fn answered(&mut self, status: u16) {
        self.status = status;
        self.span.set("http.response.status_code", || Value::Number(status.into()));
    }

    /// A piece of the answer is there.
    pub(super) fn received(&mut self, n_bytes: usize) {
        self.received += n_bytes as u64;
    }

    /// It came to nothing, or to an error.
    pub(super) fn failed(&mut self, why: impl std::fmt::Display) {
        self.span.fail(|| why.to_string());
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let sent = self.sent.as_ref().map_or(0, |sent| sent.load(Ordering::Relaxed));
        metrics::daemon_request(self.status, sent, self.received, self.began.elapsed());
        if self.status >= 400 {
            let status = self.status;
            self.span.fail(|| format!("status {status}"));
        }
    }
}
