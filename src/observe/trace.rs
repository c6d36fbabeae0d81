//! Traces: who asked whom, and how long it took, told to a collector over OTLP (spec: config 10.9).
//!
//! ```text
//!   HTTP in ─┐                     ┌─ calls of other peers
//!   RPC in ──┴─▶ a span, current ──┼─ requests to the daemon ─▶ traceparent
//!                     │ dropped    └─ …
//!                     ▼
//!            bounded queue ──▶ one task: batches over HTTP; what does not fit is counted and gone
//! ```
//!
//! While tracing is off nothing here does anything: [`span`] answers with a span that is none. A collector that is slow
//! or away costs spans and never time.

use std::borrow::Cow;
use std::future::Future;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cluster_compat::types::Multiaddr;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::metrics::{TRACE_SPANS_DROPPED, TRACE_SPANS_SENT};
use super::otlp::{self, Service};
use crate::task::Tasks;

/// Finished spans that wait for the collector; filled while it is slow or away.
const MAX_WAITING: usize = 4096;

/// Spans of one request to the collector.
const MAX_BATCH: usize = 512;

/// How long spans are gathered.
const GATHER: Duration = Duration::from_secs(1);

/// How long the collector may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// The same at the end.
const LAST_SEND_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause between two complaints about the collector.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// The port of OTLP over HTTP.
const OTLP_PORT: u16 = 4318;

/// Where collectors take spans.
const TRACES_PATH: &str = "/v1/traces";

static TRACER: OnceLock<Tracer> = OnceLock::new();

tokio::task_local! {
    static CURRENT: Context;
}

struct Tracer {
    queue: mpsc::Sender<Finished>,
    /// Of 2^64.
    sampled_below: u64,
}

/// What names a span to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// All spans of one story have it.
    pub trace_id: u128,
    /// This one's.
    pub span_id: u64,
    /// Whether the story is told to the collector.
    pub is_sampled: bool,
}

impl Context {
    /// Reads a W3C `traceparent`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_known = version == "00" && parts.next().is_none();
        let is_later = version.len() == 2 && version != "ff" && u8::from_str_radix(version, 16).is_ok();
        let is_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !(is_known || is_later && version != "00")
            || (trace.len(), span.len(), flags.len()) != (32, 16, 2)
            || ![trace, span, flags].into_iter().all(is_hex)
        {
            return None;
        }
        let context = Self {
            trace_id: u128::from_str_radix(trace, 16).ok()?,
            span_id: u64::from_str_radix(span, 16).ok()?,
            is_sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1,
        };
        (context.trace_id != 0 && context.span_id != 0).then_some(context)
    }

    /// The W3C `traceparent`.
    pub fn to_traceparent(self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.is_sampled))
    }
}

/// Which end of a request a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It was asked.
    Server,
    /// It asked.
    Client,
}

/// What a span says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Words.
    Text(String),
    /// A figure.
    Number(u64),
}

/// A span that is over.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) context: Context,
    pub(super) parent: Option<u64>,
    pub(super) kind: Kind,
    pub(super) name: Cow<'static, str>,
    pub(super) began_unix_nanos: u64,
    pub(super) took_nanos: u64,
    pub(super) attributes: Vec<(&'static str, Value)>,
    pub(super) failure: Option<String>,
}

/// Whether anybody wants spans; what is counted with them is counted only then.
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// A piece of work, from its beginning until it is dropped.
#[derive(Debug, Default)]
#[must_use = "it is over when it is dropped"]
pub struct Span(Option<Box<Open>>);

#[derive(Debug)]
struct Open {
    began: Instant,
    /// What becomes of it; of a story that is not told, the names alone.
    finished: Finished,
}

/// Begins a span: part of the story of `remote`, else of the current one, else of a new one.
pub fn span(kind: Kind, name: impl Into<Cow<'static, str>>, remote: Option<Context>) -> Span {
    let Some(tracer) = TRACER.get() else { return Span(None) };
    let parent = remote.or_else(current);
    let context = match parent {
        Some(parent) => Context { span_id: nonzero(), ..parent },
        None => Context {
            trace_id: u128::from(nonzero()) << 64 | u128::from(nonzero()),
            span_id: nonzero(),
            is_sampled: tracer.sampled_below == u64::MAX || rand::random::<u64>() < tracer.sampled_below,
        },
    };
    let name = if context.is_sampled { name.into() } else { Cow::Borrowed("") };
    let began_unix_nanos =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let finished = Finished {
        context,
        parent: parent.map(|parent| parent.span_id),
        kind,
        name,
        began_unix_nanos,
        took_nanos: 0,
        attributes: Vec::new(),
        failure: None,
    };
    Span(Some(Box::new(Open { began: Instant::now(), finished })))
}

fn nonzero() -> u64 {
    rand::random::<u64>().max(1)
}

/// The span that runs, if any.
pub fn current() -> Option<Context> {
    CURRENT.try_with(|context| *context).ok()
}

impl Span {
    /// Its names; `None` while tracing is off.
    pub fn context(&self) -> Option<Context> {
        self.0.as_ref().map(|open| open.finished.context)
    }

    /// Adds a word to it.
    pub fn set(&mut self, key: &'static str, value: impl FnOnce() -> Value) {
        if let Some(open) = &mut self.0
            && open.finished.context.is_sampled
        {
            open.finished.attributes.push((key, value()));
        }
    }

    /// It failed.
    pub fn fail(&mut self, why: impl FnOnce() -> String) {
        if let Some(open) = &mut self.0
            && open.finished.context.is_sampled
        {
            open.finished.failure = Some(why());
        }
    }

    /// Runs `work` as part of it.
    pub async fn scope<T>(&self, work: impl Future<Output = T>) -> T {
        match self.context() {
            Some(context) => CURRENT.scope(context, work).await,
            None => work.await,
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let (Some(mut open), Some(tracer)) = (self.0.take(), TRACER.get()) else { return };
        if open.finished.context.is_sampled {
            open.finished.took_nanos = open.began.elapsed().as_nanos() as u64;
            if tracer.queue.try_send(open.finished).is_err() {
                TRACE_SPANS_DROPPED.inc();
            }
        }
    }
}

/// What [`start`] needs.
pub struct TraceArgs<'a> {
    /// Where a Jaeger agent was; its host is where the collector is, unless the environment knows better.
    pub jaeger_agent_endpoint: &'a Multiaddr,
    /// Share of stories that are told.
    pub sampling_prob: f64,
    /// Who tells them.
    pub service: String,
    /// Reads an environment variable, for the `OTEL_*` ones.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Runs the sender.
    pub tasks: &'a Tasks,
}

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing that OTLP over HTTP can be sent to.
    #[error("{key}: {value} is no address of an OTLP collector: {cause}")]
    Endpoint {
        /// The key or variable.
        key: &'static str,
        /// What it says.
        value: String,
        /// Why not.
        cause: String,
    },
    /// Tracing is set up once in a process.
    #[error("tracing is already set up")]
    AlreadySet,
}

/// Begins to trace, until the process ends; the sender stops with `tasks`, and sends what it has before.
pub fn start(args: &TraceArgs<'_>) -> Result<(), Error> {
    let (key, url) = collector(args)?;
    let parsed: reqwest::Url = url.parse().map_err(|cause: <reqwest::Url as std::str::FromStr>::Err| {
        Error::Endpoint { key, value: url.clone(), cause: cause.to_string() }
    })?;
    if let Some(protocol) =
        (args.env)("OTEL_EXPORTER_OTLP_PROTOCOL").filter(|protocol| protocol != "http/protobuf")
    {
        warn!(target: "service", "OTEL_EXPORTER_OTLP_PROTOCOL={protocol} is not spoken: traces go as http/protobuf");
    }
    let client = reqwest::Client::builder()
        .default_headers(headers(args.env))
        .build()
        .map_err(|cause| Error::Endpoint { key, value: url.clone(), cause: cause.to_string() })?;
    let (queue, waiting) = mpsc::channel(MAX_WAITING);
    let probability = args.sampling_prob.clamp(0.0, 1.0);
    let sampled_below = if probability >= 1.0 { u64::MAX } else { (probability * u64::MAX as f64) as u64 };
    TRACER.set(Tracer { queue, sampled_below }).map_err(|_| Error::AlreadySet)?;
    info!(target: "service", "tracing enabled: OTLP to {url}");
    let service = Service { name: args.service.clone(), version: env!("CARGO_PKG_VERSION") };
    let sender = Sender { client, url: parsed, service, complained: None };
    args.tasks.spawn("traces", sender.run(waiting, args.tasks.token()));
    Ok(())
}

/// Where spans go, and which key or variable says so.
fn collector(args: &TraceArgs<'_>) -> Result<(&'static str, String), Error> {
    let set = |name: &str| (args.env)(name).filter(|value| !value.is_empty());
    if let Some(url) = set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
        return Ok(("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url));
    }
    if let Some(url) = set("OTEL_EXPORTER_OTLP_ENDPOINT") {
        return Ok(("OTEL_EXPORTER_OTLP_ENDPOINT", format!("{}{TRACES_PATH}", url.trim_end_matches('/'))));
    }
    let key = "tracing.jaeger_agent_endpoint";
    let addr = args.jaeger_agent_endpoint;
    let parts: Vec<String> = addr.to_string().split('/').skip(1).map(str::to_owned).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let refused = || Error::Endpoint {
        key,
        value: addr.to_string(),
        cause: "neither /ip4, /ip6 or /dns with /udp nor with /tcp".into(),
    };
    let (host, rest) = match &parts[..] {
        // an agent on all interfaces is one on this machine
        ["ip4", "0.0.0.0", rest @ ..] => ("127.0.0.1".to_owned(), rest),
        ["ip6", "::", rest @ ..] => ("[::1]".to_owned(), rest),
        ["ip6", host, rest @ ..] => (format!("[{host}]"), rest),
        ["ip4" | "dns" | "dns4" | "dns6", host, rest @ ..] => ((*host).to_owned(), rest),
        _ => return Err(refused()),
    };
    match rest {
        // the agent's own protocol is no more: Jaeger takes OTLP beside it
        ["udp", _] => Ok((key, format!("http://{host}:{OTLP_PORT}{TRACES_PATH}"))),
        ["tcp", port] => Ok((key, format!("http://{host}:{port}{TRACES_PATH}"))),
        _ => Err(refused()),
    }
}

/// `k=v,k2=v2` of `OTEL_EXPORTER_OTLP_HEADERS`.
fn headers(env: &dyn Fn(&str) -> Option<String>) -> http::HeaderMap {
    let text = env("OTEL_EXPORTER_OTLP_HEADERS").unwrap_or_default();
    let mut headers = http::HeaderMap::new();
    for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
        let parsed = pair.split_once('=').and_then(|(name, value)| {
            let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8().ok()?;
            Some((http::HeaderName::try_from(name.trim()).ok()?, http::HeaderValue::try_from(&*value).ok()?))
        });
        match parsed {
            Some((name, value)) => drop(headers.insert(name, value)),
            None => {
                warn!(target: "service", "OTEL_EXPORTER_OTLP_HEADERS has an item that is no header: ignored")
            }
        }
    }
    headers
}

struct Sender {
    client: reqwest::Client,
    url: reqwest::Url,
    service: Service,
    complained: Option<Instant>,
}

impl Sender {
    async fn run(mut self, mut waiting: mpsc::Receiver<Finished>, stop: tokio_util::sync::CancellationToken) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                n = waiting.recv_many(&mut batch, MAX_BATCH) => if n == 0 { break },
            }
            // more of the same story come now
            let _ = tokio::time::timeout(GATHER, async {
                while batch.len() < MAX_BATCH && !stop.is_cancelled() {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        span = waiting.recv() => match span {
                            Some(span) => batch.push(span),
                            None => return,
                        },
                    }
                }
            })
            .await;
            if stop.is_cancelled() {
                break;
            }
            self.send(&mut batch, SEND_TIMEOUT).await;
        }
        while let Ok(span) = waiting.try_recv() {
            batch.push(span);
        }
        if !batch.is_empty() {
            self.send(&mut batch, LAST_SEND_TIMEOUT).await;
        }
    }

    /// Sends a batch and empties it, whatever the collector says: it may have taken it.
    async fn send(&mut self, batch: &mut Vec<Finished>, limit: Duration) {
        let n_spans = batch.len() as u64;
        let body = otlp::encode(&self.service, batch);
        batch.clear();
        let request =
            self.client.post(self.url.clone()).header("content-type", "application/x-protobuf").body(body);
        let sent = request.timeout(limit).send().await.and_then(reqwest::Response::error_for_status);
        match sent {
            Ok(_) => {
                TRACE_SPANS_SENT.add(n_spans);
                debug!(target: "service", n_spans, "traces sent");
            }
            Err(cause) => {
                TRACE_SPANS_DROPPED.add(n_spans);
                if self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
                    self.complained = Some(Instant::now());
                    warn!(target: "service", "{n_spans} spans are lost: {cause}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_and_written_as_w3c_says() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = Context::parse(text).unwrap();
        assert!(context.is_sampled);
        assert_eq!(context.to_traceparent(), text);
        assert!(Context::parse(&format!("cc{}-what-the-future-holds", &text[2..])).is_some());
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(Context::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_collector_is_where_the_environment_says_else_beside_the_agent() {
        let tasks = Tasks::new();
        let url = |addr: &str, vars: &[(&str, &str)]| {
            let env =
                |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            let addr: Multiaddr = addr.parse().unwrap();
            let service = String::new();
            let args = TraceArgs {
                jaeger_agent_endpoint: &addr,
                sampling_prob: 1.0,
                service,
                env: &env,
                tasks: &tasks,
            };
            collector(&args).map(|(_, url)| url).map_err(|refused| refused.to_string())
        };
        let agent = "/ip4/0.0.0.0/udp/6831";
        assert_eq!(url(agent, &[]).unwrap(), "http://127.0.0.1:4318/v1/traces");
        assert_eq!(url("/dns4/jaeger/udp/6831", &[]).unwrap(), "http://jaeger:4318/v1/traces");
        assert_eq!(url("/ip6/::/tcp/4000", &[]).unwrap(), "http://[::1]:4000/v1/traces");
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c:1/base/");
        assert_eq!(url(agent, &[base]).unwrap(), "https://c:1/base/v1/traces");
        let exact = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:2/x");
        assert_eq!(url(agent, &[base, exact]).unwrap(), "http://c:2/x");
        assert!(url("/unix/x", &[]).unwrap_err().starts_with("tracing.jaeger_agent_endpoint: /unix/"));
    }

    #[tokio::test]
    async fn while_tracing_is_off_a_span_is_none() {
        let mut span = span(Kind::Server, "x", None);
        span.set("a", || unreachable!("nobody asks"));
        assert_eq!((span.context(), span.scope(async { current() }).await), (None, None));
    }
}
