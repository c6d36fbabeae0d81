//! What the HTTP faces answer: counted and traced, where tracing is on.

use std::sync::Arc;
use std::time::Instant;

use cluster_compat::http::conn::{Handler, Request};
use http::header::CONTENT_LENGTH;

use super::metrics::HTTP_SERVER;
use super::trace::{self, Context, Kind, Span, Value};

/// The header that carries a [`Context`].
pub const TRACEPARENT: &str = "traceparent";

/// Counts every request that `handler` answers, and makes it a span that what it asks is part of.
pub fn layer(handler: Handler) -> Handler {
    Arc::new(move |request, peer| {
        HTTP_SERVER.begin(request.method().as_str());
        let header = |name: &str| request.headers().get(name)?.to_str().ok();
        let mut under_way = UnderWay {
            began: Instant::now(),
            request_bytes: header(CONTENT_LENGTH.as_str()).and_then(|n| n.parse().ok()).unwrap_or(0),
            status: 0,
            response_bytes: 0,
            span: trace::span(Kind::Server, name(&request), header(TRACEPARENT).and_then(Context::parse)),
        };
        under_way.span.set("http.request.method", || Value::Text(request.method().to_string()));
        under_way.span.set("url.path", || Value::Text(request.uri().path().to_owned()));
        under_way.span.set("client.address", || Value::Text(peer.to_string()));
        let answer = handler(request, peer);
        Box::pin(async move {
            let response = under_way.span.scope(answer).await;
            under_way.status = response.status().as_u16();
            response.map(|body| {
                body.on_finish(move |n_bytes| {
                    under_way.response_bytes = n_bytes;
                    drop(under_way);
                })
            })
        })
    })
}

/// A span is named by what few requests have in common: the method and the beginning of the path.
fn name(request: &Request) -> String {
    let path = request.uri().path();
    let n_parts = if path.starts_with("/api/v0/") { 4 } else { 1 };
    let end = path.match_indices('/').nth(n_parts).map_or(path.len(), |(at, _)| at);
    format!("{} {}", request.method(), &path[..end])
}

/// A request until the end of its answer, however that comes.
struct UnderWay {
    began: Instant,
    request_bytes: u64,
    status: u16,
    response_bytes: u64,
    span: Span,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Self { status, request_bytes, response_bytes, .. } = *self;
        HTTP_SERVER.end(status, request_bytes, response_bytes, self.began.elapsed());
        self.span.set("http.response.status_code", || Value::Number(status.into()));
        self.span.set("http.response.body.size", || Value::Number(response_bytes));
        if status >= 500 || status == 0 {
            self.span.fail(|| if status == 0 { "no answer".to_owned() } else { format!("status {status}") });
        }
    }
}
