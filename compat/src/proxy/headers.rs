//! The headers Kubo would send: asked of the daemon for each intercepted request (spec: ipfs-proxy 5).
//!
//! Three questions at most, side by side: a preflight for the CORS headers, now and then a POST for those that
//! never change, and, where the client looks like a browser, a POST with its own head, because a request that the
//! daemon would refuse is refused here too. Each is bounded by [`ASK_TIMEOUT`]; no answer means no headers.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CONTENT_LENGTH, HeaderMap,
    HeaderName, HeaderValue, ORIGIN, REFERER, USER_AGENT, VARY,
};
use http::{Method, Request, Response as HttpResponse, StatusCode};
use http_body_util::{BodyExt, Limited};
use tracing::error;

use super::Error;
use super::forward::remove_hop_by_hop;
use crate::http::client::{Client, no_body};
use crate::http::mux;
use crate::http::respond::{Body, Response};

/// Longest wait for the daemon's headers; the request is served without them after that.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after an extraction that failed.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// Most that is read of a body nobody wants, so that its connection can be used again.
const MAX_BODY: usize = 64 << 10;

/// What is asked with a browser's head: every daemon has it, and it harms none.
const REFUSAL_PATH: &str = "/api/v0/version";

const GO_CLIENT: HeaderValue = HeaderValue::from_static("Go-http-client/1.1");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");

/// Asks the daemon for headers and remembers what does not change.
pub(super) struct DaemonHeaders {
    daemon: Client,
    path: String,
    names: Vec<HeaderName>,
    /// Zero: extracted once.
    ttl: Duration,
    /// Longest wait for an answer.
    patience: Duration,
    /// Never held over an await.
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    headers: HeaderMap,
    extracted_at: Option<Instant>,
    failed_at: Option<Instant>,
}

impl DaemonHeaders {
    pub(super) fn new(daemon: Client, path: &str, extra: &[String], ttl: Duration) -> Result<Self, Error> {
        let mut names = vec![ACCESS_CONTROL_EXPOSE_HEADERS];
        for name in extra {
            names.push(name.parse().map_err(|_| Error::HeaderName(name.clone()))?);
        }
        let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
        Ok(Self { daemon, path, names, ttl, patience: ASK_TIMEOUT, memory: Mutex::default() })
    }

    /// The headers of an intercepted answer, or the daemon's refusal.
    pub(super) async fn of(
        &self,
        method: &Method,
        path: &[u8],
        client: &HeaderMap,
    ) -> Result<HeaderMap, Box<Response>> {
        // one after the other, in the reference's order: what the daemon sees does not hang on chance
        let mut headers = self.cors(method, path, client).await;
        let (extracted, refusal) = tokio::join!(self.extracted(), self.refusal(client));
        if let Some(refusal) = refusal {
            return Err(Box::new(refusal));
        }
        for name in &self.names {
            if extracted.contains_key(name) {
                headers.remove(name);
                for value in extracted.get_all(name) {
                    headers.append(name.clone(), value.clone());
                }
            }
        }
        Ok(headers)
    }

    /// What the daemon would allow this origin.
    async fn cors(&self, method: &Method, path: &[u8], client: &HeaderMap) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let Some(target) = reencode(path) else {
            error!(target: "ipfsproxy", path = %mux::lossy(path), "error creating OPTIONS request: the path is no URL");
            return headers;
        };
        let request = self.request(Method::OPTIONS, &target);
        let Some(mut request) = request else { return headers };
        if let Ok(method) = HeaderValue::from_str(method.as_str()) {
            request.headers_mut().insert(ACCESS_CONTROL_REQUEST_METHOD, method);
        }
        for origin in client.get_all(ORIGIN) {
            request.headers_mut().append(ORIGIN, origin.clone());
        }
        let Some(answer) = self.ask(request).await else { return headers };
        for name in [ACCESS_CONTROL_ALLOW_ORIGIN, VARY, ACCESS_CONTROL_ALLOW_CREDENTIALS] {
            for value in answer.headers().get_all(&name) {
                headers.append(name.clone(), value.clone());
            }
        }
        headers
    }

    /// The remembered headers, asked again when they are old.
    async fn extracted(&self) -> HeaderMap {
        let remembered = {
            let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            let is_fresh =
                memory.extracted_at.is_some_and(|at| self.ttl.is_zero() || at.elapsed() < self.ttl);
            let waits = memory.failed_at.is_some_and(|at| at.elapsed() < RETRY_AFTER);
            if is_fresh || waits {
                return memory.headers.clone();
            }
            memory.headers.clone()
        };
        let answer = match self.post(&self.path) {
            Some(request) => self.ask(request).await,
            None => None,
        };
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(answer) = answer else {
            memory.failed_at = Some(Instant::now());
            return remembered;
        };
        memory.headers = HeaderMap::new();
        for name in &self.names {
            for value in answer.headers().get_all(name) {
                memory.headers.append(name.clone(), value.clone());
            }
        }
        memory.extracted_at = Some(Instant::now());
        memory.failed_at = None;
        memory.headers.clone()
    }

    /// The daemon's 403, if it would refuse a request with this head. Only browsers' heads can be refused.
    async fn refusal(&self, client: &HeaderMap) -> Option<Response> {
        let is_browser = client.get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla"));
        if !is_browser && !client.contains_key(ORIGIN) && !client.contains_key(REFERER) {
            return None;
        }
        let mut request = self.post(REFUSAL_PATH)?;
        request.headers_mut().remove(USER_AGENT);
        for name in [ORIGIN, REFERER, USER_AGENT, AUTHORIZATION] {
            for value in client.get_all(&name) {
                request.headers_mut().append(name.clone(), value.clone());
            }
        }
        let answer = self.ask(request).await?;
        if answer.status() != StatusCode::FORBIDDEN {
            return None;
        }
        let (mut head, body) = answer.into_parts();
        remove_hop_by_hop(&mut head.headers);
        head.headers.remove(CONTENT_LENGTH);
        Some(Response::from_parts(head, Body::whole(body)))
    }

    fn post(&self, path: &str) -> Option<Request<crate::http::client::ClientBody>> {
        let mut request = self.request(Method::POST, path)?;
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        Some(request)
    }

    fn request(&self, method: Method, target: &str) -> Option<Request<crate::http::client::ClientBody>> {
        let uri = self.daemon.uri(target).ok()?;
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(USER_AGENT, GO_CLIENT)
            .header(ACCEPT_ENCODING, GZIP)
            .body(no_body());
        request.ok()
    }

    /// Sends a question; `None` if there was no answer in time.
    async fn ask(&self, request: Request<crate::http::client::ClientBody>) -> Option<HttpResponse<Bytes>> {
        let what = format!("{} {}", request.method(), request.uri().path());
        let asked = async {
            let (head, body) = self.daemon.send(request).await.map_err(|e| e.to_string())?.into_parts();
            // read to its end, so that the connection can be used again; a long or broken one is given up
            let body = match Limited::new(body, MAX_BODY).collect().await {
                Ok(body) => body.to_bytes(),
                Err(_) => Bytes::new(),
            };
            Ok::<_, String>(HttpResponse::from_parts(head, body))
        };
        match tokio::time::timeout(self.patience, asked).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(e)) => {
                error!(target: "ipfsproxy", "error making {what} request to the daemon: {e}");
                None
            }
            Err(_) => {
                error!(target: "ipfsproxy", "error making {what} request to the daemon: no answer in {:?}", self.patience);
                None
            }
        }
    }
}

/// A decoded path as a request target again, or `None` where it is none: the reference does not escape it.
fn reencode(path: &[u8]) -> Option<String> {
    let mut target = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => match after {
                [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => target.push('%'),
                _ => return None,
            },
            0..=b' ' | 0x7f => return None,
            byte if byte.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:@/?".contains(byte) => {
                target.push(char::from(*byte));
            }
            byte => target.push_str(&format!("%{byte:02X}")),
        }
    }
    Some(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::listen;
    use crate::testing::kubo::{FakeKubo, Part, Rule};
    use crate::types::parse_multiaddr;

    const TTL: Duration = Duration::from_secs(300);

    async fn kubo(rules: Vec<Rule>) -> (FakeKubo, DaemonHeaders) {
        let kubo = FakeKubo::start().await.unwrap();
        kubo.set_rules(rules);
        let daemon = Client::new(listen::endpoint(&parse_multiaddr(kubo.multiaddr()).unwrap()).unwrap());
        (kubo, DaemonHeaders::new(daemon, "/own", &[], TTL).unwrap())
    }

    fn exposes() -> Rule {
        let reply = "HTTP/1.1 200 OK\r\nAccess-Control-Expose-Headers: X\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        Rule::new("POST /own", vec![Part::Bytes(reply.into())])
    }

    async fn exposed(headers: &DaemonHeaders) -> Option<String> {
        let found = headers.of(&Method::POST, b"/api/v0/pin/ls", &HeaderMap::new()).await.unwrap();
        found.get(ACCESS_CONTROL_EXPOSE_HEADERS).map(|value| value.to_str().unwrap().to_string())
    }

    #[tokio::test]
    async fn an_extraction_that_failed_is_made_again_after_its_pause() {
        let (kubo, headers) = kubo(vec![Rule::new("POST /own", vec![]).times(1), exposes()]).await;
        for _ in 0..2 {
            assert_eq!(exposed(&headers).await, None);
        }
        assert_eq!(kubo.saw("/own").len(), 1, "not at once");
        let pause_ago = Instant::now().checked_sub(RETRY_AFTER).unwrap();
        headers.memory.lock().unwrap().failed_at = Some(pause_ago);
        for _ in 0..2 {
            assert_eq!(exposed(&headers).await.as_deref(), Some("X"));
        }
        assert_eq!(kubo.saw("/own").len(), 2, "what is known is not asked for");
        let ttl_ago = Instant::now().checked_sub(TTL);
        headers.memory.lock().unwrap().extracted_at = ttl_ago;
        kubo.set_rules(vec![Rule::new("POST /own", vec![])]);
        assert_eq!(exposed(&headers).await.as_deref(), Some("X"), "the old ones stay");
        assert_eq!(kubo.saw("/own").len(), 3);
    }

    #[tokio::test]
    async fn a_daemon_that_does_not_answer_is_waited_for_five_seconds_at_most() {
        let (kubo, mut headers) = kubo(vec![Rule::new("/", vec![Part::Hang])]).await;
        assert_eq!(headers.patience, Duration::from_secs(5));
        headers.patience = Duration::from_millis(300);
        assert_eq!(exposed(&headers).await, None);
        assert_eq!(kubo.saw("").len(), 2, "both questions were asked");
    }
}
