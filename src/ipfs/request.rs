//! One call: the brake, a connection, redirects, the status, and the reply as it arrives.

use std::future::Future;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, PROXY_AUTHORIZATION,
    TRANSFER_ENCODING, USER_AGENT,
};
use http::{HeaderValue, Method, Request, Response, Uri};
use hyper::body::Incoming;
use tokio::time::Instant;
use tracing::{debug, error};

use super::asked::Asked;
use super::block::Outgoing;
use super::dial::Address;
use super::inflate::Inflate;
use super::json::{self, Text};
use super::link::{Failure, Link, Pool};
use super::throttle::{PAUSE, Throttle};
use super::via::Via;
use super::{Cause, Error};
use crate::observe::http::TRACEPARENT;

/// Redirects that are followed (Go: `net/http`, `defaultCheckRedirect`).
const MAX_REDIRECTS: usize = 10;

/// Bytes of a refusal that become part of an error.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// Longest reply that is read as a whole; the longest real ones are blocks and lists of peers.
const MAX_REPLY_BYTES: usize = 64 << 20;

/// Frames of a reply between two looks at the clock.
const FRAMES_PER_LOOK: u32 = 32;

/// Trailer in which Kubo reports a failure after the first byte of output.
const STREAM_ERROR: &str = "x-stream-error";

/// Go's own name; Kubo turns browsers and `/kubo/` clients of other versions away.
const AGENT: HeaderValue = HeaderValue::from_static("Go-http-client/1.1");

/// Until when a call may last, and what it says when that is over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) at: Option<Instant>,
    pub(super) cause: Cause,
}

impl Limit {
    pub(super) const NONE: Self = Self { at: None, cause: Cause::DeadlineExceeded };

    /// A deadline `span` from now.
    pub(super) fn after(span: std::time::Duration) -> Self {
        Self { at: Instant::now().checked_add(span), cause: Cause::DeadlineExceeded }
    }

    fn is_over(self) -> bool {
        self.at.is_some_and(|at| at <= Instant::now())
    }

    async fn hold<T>(self, work: impl Future<Output = T>) -> Result<T, Cause> {
        match self.at {
            None => Ok(work.await),
            Some(_) if self.is_over() => Err(self.cause),
            Some(at) => tokio::time::timeout_at(at, work).await.map_err(|_| self.cause),
        }
    }
}

json::object! {
    /// The document of an error.
    ErrorReply {
        message: Text<'a> = "Message",
    }
}

/// The daemon: its address, its idle connections and its brake.
#[derive(Debug)]
pub(super) struct Daemon {
    address: Address,
    via: Option<Via>,
    origin: String,
    host: HeaderValue,
    pool: Pool,
    throttle: Throttle,
}

/// Counts a request that ends in any way without a response.
struct InFlight<'a> {
    throttle: &'a Throttle,
    answered: bool,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.throttle.unanswered();
        }
    }
}

/// Header lines that not all requests have.
#[derive(Clone)]
struct Extra {
    content_type: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
}

/// Where a request goes; a redirect changes it.
struct Target {
    method: Method,
    /// `None` is the daemon itself.
    elsewhere: Option<Address>,
    uri: Uri,
}

impl Daemon {
    pub(super) fn new(address: Address, via: Option<Via>) -> Result<Self, Error> {
        let host = HeaderValue::try_from(address.authority())
            .map_err(|_| Error::Reply(format!("{} is not a host name", address.authority())))?;
        let origin = address.origin();
        Ok(Self { address, via, origin, host, pool: Pool::default(), throttle: Throttle::new(PAUSE) })
    }

    /// Whether the last request got a response.
    #[cfg(test)]
    pub(super) fn is_answering(&self) -> bool {
        self.throttle.is_open()
    }

    /// Posts without a body and reads the whole reply.
    pub(super) async fn call(self: &Arc<Self>, path: &str, limit: Limit) -> Result<Bytes, Error> {
        let mut reply = self.post(path, None, Outgoing::Empty, limit).await?;
        let Some(first) = reply.piece().await? else { return Ok(Bytes::new()) };
        let Some(second) = reply.piece().await? else { return Ok(first) };
        let mut whole = BytesMut::from(first);
        let mut next = Some(second);
        while let Some(piece) = next {
            if whole.len() + piece.len() > MAX_REPLY_BYTES {
                return Err(Error::Reply(format!("reply to {path} is longer than {MAX_REPLY_BYTES} bytes")));
            }
            whole.extend_from_slice(&piece);
            next = reply.piece().await?;
        }
        Ok(whole.freeze())
    }

    /// Posts and returns the reply once its status is known to be 200. `path` is all that follows `/api/v0/`.
    pub(super) async fn post(
        self: &Arc<Self>,
        path: &str,
        content_type: Option<HeaderValue>,
        body: Outgoing,
        limit: Limit,
    ) -> Result<Reply, Error> {
        debug!(target: "ipfshttp", "posting /{path}");
        if !self.throttle.is_open() {
            limit.hold(self.throttle.pass()).await?.map_err(|cause| self.unreachable(path, &*cause))?;
        }
        let mut in_flight = InFlight { throttle: &self.throttle, answered: false };
        let mut asked = Asked::begin(path, body.n_sent());
        let traceparent = asked.as_ref().and_then(|asked| asked.traceparent());
        let exchange = self.exchange(path, Extra { content_type, traceparent }, body, &mut in_flight);
        let mut reply = match limit.hold(exchange).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(failure)) => {
                if let Some(asked) = &mut asked {
                    asked.failed(&failure);
                }
                error!(target: "ipfshttp", "error posting to IPFS: {failure}");
                return Err(failure);
            }
            Err(cause) => {
                if let Some(asked) = &mut asked {
                    asked.failed(cause);
                }
                return Err(self.unreachable(path, cause));
            }
        };
        drop(in_flight);
        if let Some(asked) = &mut asked {
            asked.answered(reply.status);
        }
        reply.asked = asked;
        reply.limit = limit;
        match reply.status {
            200 => Ok(reply),
            _ => Err(reply.refusal().await),
        }
    }

    fn unreachable(&self, path: &str, cause: impl ToString) -> Error {
        let url = format!("{}/api/v0/{path}", self.origin);
        let failure = Error::Unreachable { method: "Post", url, cause: cause.to_string() };
        error!(target: "ipfshttp", "error posting to IPFS: {failure}");
        failure
    }

    /// Sends a request and follows where the replies lead.
    async fn exchange(
        self: &Arc<Self>,
        path: &str,
        extra: Extra,
        mut body: Outgoing,
        in_flight: &mut InFlight<'_>,
    ) -> Result<Reply, Error> {
        let uri = format!("/api/v0/{path}");
        let uri =
            Uri::try_from(uri).map_err(|e| Error::Reply(format!("{path} is not part of a URL: {e}")))?;
        let mut target = Target { method: Method::POST, elsewhere: None, uri };
        for _ in 0..=MAX_REDIRECTS {
            let is_streamed = !matches!(body, Outgoing::Empty);
            let request = self.request(&target, extra.clone(), std::mem::take(&mut body));
            let (link, response) =
                self.send(&target, request).await.map_err(|cause| self.failed(&target, cause))?;
            in_flight.answered = true;
            self.throttle.answered();
            match self.redirect(&target, &response, is_streamed) {
                Some(next) => target = next.map_err(|cause| self.failed(&target, cause))?,
                None => {
                    let status = response.status().as_u16();
                    let encoding = response.headers().get(CONTENT_ENCODING);
                    let is_packed =
                        encoding.is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(b"gzip"));
                    let inflate = is_packed.then(|| Box::new(Inflate::new()));
                    return Ok(Reply {
                        daemon: Arc::clone(self),
                        path: path.to_owned(),
                        status,
                        link: Some(link),
                        is_own: target.elsewhere.is_none(),
                        body: response.into_body(),
                        inflate,
                        n_frames: 0,
                        late: None,
                        asked: None,
                        limit: Limit::NONE,
                    });
                }
            }
        }
        Err(self.failed(&target, format!("stopped after {MAX_REDIRECTS} redirects")))
    }

    fn failed(&self, target: &Target, cause: String) -> Error {
        let origin = target.elsewhere.as_ref().map_or_else(|| self.origin.clone(), Address::origin);
        let method = if target.method == Method::GET { "Get" } else { "Post" };
        Error::Unreachable { method, url: format!("{origin}{}", target.uri), cause }
    }

    /// The head as Go writes it: names, order, the empty content type.
    fn request(
        &self,
        target: &Target,
        Extra { content_type, traceparent }: Extra,
        body: Outgoing,
    ) -> Request<Outgoing> {
        let is_unix = matches!(target.elsewhere.as_ref().unwrap_or(&self.address), Address::Unix(_));
        let is_streamed = !matches!(body, Outgoing::Empty);
        let mut request = Request::new(body);
        *request.method_mut() = target.method.clone();
        *request.uri_mut() = target.uri.clone();
        let headers = request.headers_mut();
        headers.reserve(5);
        let host = match &target.elsewhere {
            None => self.host.clone(),
            Some(address) => HeaderValue::try_from(address.authority()).unwrap_or_else(|_| self.host.clone()),
        };
        headers.insert(HOST, host);
        headers.insert(USER_AGENT, AGENT);
        if is_streamed {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        } else if target.method == Method::POST {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        headers.insert(CONTENT_TYPE, content_type.unwrap_or_else(|| HeaderValue::from_static("")));
        if let Some(traceparent) = traceparent {
            headers.insert(TRACEPARENT, traceparent);
        }
        if !is_unix {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if let (Some(via), None) = (&self.via, &target.elsewhere) {
            if let Some(authorization) = &via.authorization {
                headers.insert(PROXY_AUTHORIZATION, authorization.clone());
            }
            if let Ok(uri) = Uri::try_from(format!("{}{}", self.origin, target.uri)) {
                *request.uri_mut() = uri;
            }
        }
        request
    }

    /// Sends on an idle connection, or on a new one when there is none or the idle ones turn out closed.
    async fn send(
        &self,
        target: &Target,
        mut request: Request<Outgoing>,
    ) -> Result<(Link, Response<Incoming>), String> {
        if target.elsewhere.is_none() {
            while let Some(mut link) = self.pool.take().await {
                match link.send(request).await {
                    Ok(response) => return Ok((link, response)),
                    Err(Failure::NotSent(unsent, _)) => request = *unsent,
                    Err(Failure::Lost(cause)) => return Err(cause),
                }
            }
        }
        let opened = match (&target.elsewhere, &self.via) {
            (Some(address), _) => return Self::on_new(Link::open(address).await?, request).await,
            (None, None) => Link::open(&self.address).await,
            (None, Some(via)) => {
                Link::open(&via.address).await.map_err(|cause| format!("proxyconnect tcp: {cause}"))
            }
        };
        let link = opened.inspect_err(|cause| self.throttle.refused(cause))?;
        Self::on_new(link, request).await
    }

    async fn on_new(
        mut link: Link,
        request: Request<Outgoing>,
    ) -> Result<(Link, Response<Incoming>), String> {
        match link.send(request).await {
            Ok(response) => Ok((link, response)),
            Err(Failure::NotSent(_, cause) | Failure::Lost(cause)) => Err(cause),
        }
    }

    /// Where a reply sends us, if it does. A body that was streamed cannot be sent again.
    fn redirect(
        &self,
        target: &Target,
        response: &Response<Incoming>,
        is_streamed: bool,
    ) -> Option<Result<Target, String>> {
        let method = match response.status().as_u16() {
            301..=303 => Method::GET,
            307 | 308 if !is_streamed => target.method.clone(),
            _ => return None,
        };
        let location = response.headers().get(LOCATION)?;
        let found =
            location.to_str().map_err(|_| "failed to parse Location header".to_owned()).and_then(|text| {
                let bad = || format!("failed to parse Location header {text:?}");
                // A relative reference: resolved against the directory of the current path.
                let text = if text.starts_with('/') || text.contains("://") {
                    text.to_owned()
                } else {
                    let path = target.uri.path();
                    format!("{}/{text}", &path[..path.rfind('/').unwrap_or_default()])
                };
                let uri = Uri::try_from(text.as_str()).map_err(|_| bad())?;
                match uri.scheme_str() {
                    None | Some("http") => {}
                    Some(scheme) => return Err(format!("unsupported protocol scheme {scheme:?}")),
                }
                let elsewhere = match uri.authority() {
                    Some(authority) => Some(Address::of_authority(authority)),
                    None => target.elsewhere.clone(),
                };
                let path = uri.path_and_query().map_or("/", |path| path.as_str());
                Ok(Target { method, elsewhere, uri: Uri::try_from(path).map_err(|_| bad())? })
            });
        Some(found)
    }
}

/// A reply whose body is read piece by piece. Dropping it aborts the request.
#[derive(Debug)]
pub(super) struct Reply {
    daemon: Arc<Daemon>,
    path: String,
    status: u16,
    link: Option<Link>,
    is_own: bool,
    body: Incoming,
    /// Present when the body is packed, until its end.
    inflate: Option<Box<Inflate>>,
    /// Frames read.
    n_frames: u32,
    /// What the trailer said.
    late: Option<String>,
    /// While requests are traced.
    asked: Option<Box<Asked>>,
    /// May be moved while the reply is read.
    pub(super) limit: Limit,
}

impl Reply {
    /// The next piece of the body, `None` at its end. A failure reported in the trailer is an error here.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        // Taken out while it works: after an error or at the end there is nothing left to unpack.
        let Some(mut inflate) = self.inflate.take() else { return self.frame().await };
        loop {
            let piece = inflate.next().map_err(Error::Reply)?;
            if !piece.is_empty() {
                self.inflate = Some(inflate);
                return Ok(Some(piece));
            }
            match self.frame().await? {
                Some(packed) => inflate.feed(packed),
                None => {
                    let rest = inflate.finish().map_err(Error::Reply)?;
                    return Ok(Some(rest).filter(|rest| !rest.is_empty()));
                }
            }
        }
    }

    /// The next piece as it was sent.
    async fn frame(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let Some(link) = self.link.as_mut() else { return Ok(None) };
            let body = &mut self.body;
            // A frame that is there already costs no timer; a daemon that never stops talking is looked at
            // now and then.
            let frame = match std::future::poll_fn(|cx| Poll::Ready(link.poll_frame(body, cx))).await {
                Poll::Ready(frame) => {
                    self.n_frames = self.n_frames.wrapping_add(1);
                    if self.n_frames.is_multiple_of(FRAMES_PER_LOOK) && self.limit.is_over() {
                        return Err(self.limit.cause.into());
                    }
                    frame
                }
                Poll::Pending => {
                    self.limit.hold(std::future::poll_fn(|cx| link.poll_frame(body, cx))).await?
                }
            };
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) if piece.is_empty() => {}
                    Ok(piece) => {
                        if let Some(asked) = &mut self.asked {
                            asked.received(piece.len());
                        }
                        return Ok(Some(piece));
                    }
                    Err(frame) => {
                        let trailer = frame.trailers_ref().and_then(|trailers| trailers.get(STREAM_ERROR));
                        self.late = trailer.map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned());
                    }
                },
                Some(Err(cause)) => {
                    self.link = None;
                    return Err(Error::Reply(cause));
                }
                None => {
                    if let Some(link) = self.link.take()
                        && self.is_own
                        && let Some(link) = link.settle().await
                    {
                        self.daemon.pool.put(link);
                    }
                    return match self.late.take() {
                        Some(message) if !message.is_empty() => Err(self.failure(message)),
                        _ => Ok(None),
                    };
                }
            }
        }
    }

    /// Reads to the end, so that the connection can serve again, and a late failure is seen.
    pub(super) async fn finish(&mut self) -> Result<(), Error> {
        let mut n_bytes = 0;
        while let Some(piece) = self.piece().await? {
            n_bytes += piece.len();
            if n_bytes > MAX_ERROR_BYTES {
                self.link = None;
            }
        }
        Ok(())
    }

    /// A failure the daemon reported after it had said 200.
    pub(super) fn failure(&self, message: String) -> Error {
        Error::Daemon { path: self.path.clone(), status: self.status, message }
    }

    /// The error behind a status other than 200.
    async fn refusal(mut self) -> Error {
        let mut body = Vec::new();
        let is_whole = loop {
            match self.piece().await {
                Ok(Some(piece)) => body.extend_from_slice(&piece),
                Ok(None) => break true,
                Err(_) => break false,
            }
            if body.len() > MAX_ERROR_BYTES {
                body.truncate(MAX_ERROR_BYTES);
                break false;
            }
        };
        let Self { path, status, .. } = self;
        if is_whole && let Ok(reply) = json::document::<ErrorReply<'_>>(&body) {
            return Error::Daemon { path, status, message: reply.message.0.into_owned() };
        }
        Error::Refused { path, status, body: String::from_utf8_lossy(&body).into_owned() }
    }
}
