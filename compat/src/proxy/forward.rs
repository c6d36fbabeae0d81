//! Everything that is not intercepted: to the daemon and back, as it comes (spec: ipfs-proxy 8).

use std::io::Write as _;

use bytes::Bytes;
use flate2::write::GzDecoder;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName,
    HeaderValue, RANGE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use http::{Method, StatusCode, Uri, Version};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, BodyStream};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use crate::http::client::{Client, ClientBody, Reply, no_body};
use crate::http::conn::{PeerAddr, Request, RequestBody};
use crate::http::respond::{self, Body, BodyError, Response, UnannouncedTrailers};

/// Headers that belong to one connection.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A body piece by piece.
pub(super) type Frames = BoxStream<'static, Result<Frame<Bytes>, BodyError>>;

/// The reverse proxy.
pub(super) struct Forward {
    daemon: Client,
    tunnels: TaskTracker,
    stop: CancellationToken,
}

impl Forward {
    pub(super) fn new(daemon: Client, tunnels: TaskTracker, stop: CancellationToken) -> Self {
        Self { daemon, tunnels, stop }
    }

    /// Sends a request on and answers with what comes back; 502 without a body if nothing does.
    pub(super) async fn send(&self, mut request: Request, peer: &PeerAddr) -> Response {
        let on_upgrade = request.extensions_mut().remove::<OnUpgrade>();
        let is_head = request.method() == Method::HEAD;
        let (request, unpacks) = match self.outgoing(request, peer) {
            Ok(outgoing) => outgoing,
            Err(e) => return bad_gateway(&e.to_string()),
        };
        let sent = match request.headers().contains_key(UPGRADE) {
            false => self.daemon.send(request).await,
            true => self.daemon.send_upgradable(request, &self.tunnels).await,
        };
        match sent {
            Err(e) => bad_gateway(&e.to_string()),
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                self.tunnel(response, on_upgrade)
            }
            Ok(response) => match frame(response) {
                Ok(response) => incoming(response, unpacks, is_head).await,
                Err(cause) => bad_gateway(&cause),
            },
        }
    }

    /// The request as the daemon gets it, and whether it may be answered packed without the client knowing.
    fn outgoing(
        &self,
        request: Request,
        peer: &PeerAddr,
    ) -> Result<(http::Request<ClientBody>, bool), http::Error> {
        let (mut head, body) = request.into_parts();
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let uri = self.daemon.uri(target)?;
        let asks_upgrade = has_token(&head.headers, &CONNECTION, "upgrade");
        let upgrade = head.headers.get(UPGRADE).filter(|_| asks_upgrade).cloned();
        let wants_trailers = has_token(&head.headers, &TE, "trailers");
        let is_chunked = !body.is_end_stream() && body.size_hint().exact().is_none();
        let announced: Vec<HeaderValue> =
            head.headers.get_all(TRAILER).iter().filter(|_| is_chunked).cloned().collect();
        remove_hop_by_hop(&mut head.headers);
        for names in announced {
            head.headers.append(TRAILER, names);
        }
        if wants_trailers {
            head.headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        if let Some(upgrade) = upgrade {
            head.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            head.headers.insert(UPGRADE, upgrade);
        }
        if let PeerAddr::Ip(ip) = peer {
            let mut hops: Vec<String> = head
                .headers
                .get_all(X_FORWARDED_FOR)
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                .collect();
            hops.push(ip.to_string());
            head.headers.insert(X_FORWARDED_FOR, HeaderValue::from_str(&hops.join(", "))?);
        }
        name_host(&head.uri, &mut head.headers)?;
        keep_first_agent(&mut head.headers);
        let unpacks = add_accept_encoding(&head.method, &mut head.headers);
        let mut outgoing = http::Request::new(client_body(&head.method, &mut head.headers, body));
        *outgoing.method_mut() = head.method;
        *outgoing.uri_mut() = uri;
        *outgoing.headers_mut() = head.headers;
        Ok((outgoing, unpacks))
    }

    /// Joins the two connections of a switched protocol.
    fn tunnel(&self, mut response: http::Response<Reply>, client: Option<OnUpgrade>) -> Response {
        let daemon = hyper::upgrade::on(&mut response);
        let Some(client) = client else {
            return bad_gateway("the daemon switched to a protocol that was not asked for");
        };
        let stop = self.stop.clone();
        self.tunnels.spawn(async move {
            let joined = async {
                let (client, daemon) = tokio::try_join!(client, daemon).map_err(std::io::Error::other)?;
                tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(daemon)).await
            };
            tokio::select! {
                () = stop.cancelled() => {}
                // an end in the middle is as good as any other
                _ = joined => {}
            }
        });
        let (head, _) = response.into_parts();
        let mut response = respond::empty(StatusCode::SWITCHING_PROTOCOLS);
        *response.headers_mut() = head.headers;
        response
    }
}

/// A target with a host of its own says which host is meant; an empty one is the daemon's.
fn name_host(target: &Uri, headers: &mut HeaderMap) -> Result<(), http::Error> {
    if let Some(authority) = target.authority() {
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        headers.insert(HOST, HeaderValue::from_str(host)?);
    } else if headers.get(HOST).is_some_and(HeaderValue::is_empty) {
        headers.remove(HOST);
    }
    Ok(())
}

/// Go's client sends the first `User-Agent`, and none that is empty.
pub(super) fn keep_first_agent(headers: &mut HeaderMap) {
    if let Some(first) = headers.remove(USER_AGENT).filter(|agent| !agent.is_empty()) {
        headers.insert(USER_AGENT, first);
    }
}

/// Asks for packed answers as Go's client does on its own account; whether it did.
pub(super) fn add_accept_encoding(method: &Method, headers: &mut HeaderMap) -> bool {
    let says = |name: HeaderName| headers.get(name).is_some_and(|value| !value.is_empty());
    let asks = !says(ACCEPT_ENCODING) && !says(RANGE) && method != Method::HEAD;
    if asks {
        headers.append(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    }
    asks
}

/// A client's body on its way to the daemon, with the length header it needs.
pub(super) fn client_body(method: &Method, headers: &mut HeaderMap, body: RequestBody) -> ClientBody {
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRANSFER_ENCODING);
    if body.is_end_stream() {
        if matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        return no_body();
    }
    match body.size_hint().exact() {
        Some(length) => headers.insert(CONTENT_LENGTH, HeaderValue::from(length)),
        // said aloud: hyper takes it that a GET has no body
        None => headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked")),
    };
    body.map_err(BodyError::from).boxed_unsync()
}

/// An answer whose length everybody reads alike: two programs that disagree about it would take one's body for the
/// other's next answer.
pub(super) fn frame(mut response: http::Response<Reply>) -> Result<http::Response<Reply>, String> {
    let has_body = !matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let is_11 = response.version() == Version::HTTP_11;
    let headers = response.headers_mut();
    let codings: Vec<&HeaderValue> = headers.get_all(TRANSFER_ENCODING).iter().collect();
    match codings[..] {
        [] => {}
        [coding] if !is_11 || coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            headers.remove(CONTENT_LENGTH);
        }
        _ => return Err(format!("unsupported transfer encoding: {codings:?}")),
    }
    let Some(length) = headers.get(CONTENT_LENGTH).cloned() else { return Ok(response) };
    let is_number = !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
    if !is_number || headers.get_all(CONTENT_LENGTH).iter().any(|other| *other != length) {
        return Err(format!("bad Content-Length {length:?}"));
    }
    if has_body {
        headers.insert(CONTENT_LENGTH, length);
    } else {
        headers.remove(CONTENT_LENGTH);
    }
    Ok(response)
}

/// The daemon's answer as the client gets it.
async fn incoming(response: http::Response<Reply>, unpacks: bool, is_head: bool) -> Response {
    let is_chunked = response.headers().contains_key(TRANSFER_ENCODING);
    let is_11 = response.version() == Version::HTTP_11;
    let (mut head, body) = response.into_parts();
    if has_token(&head.headers, &CONNECTION, "close") {
        head.headers.remove(CONNECTION);
    }
    let announced: Vec<HeaderValue> = head.headers.get_all(TRAILER).iter().cloned().collect();
    remove_hop_by_hop(&mut head.headers);
    for value in announced {
        head.headers.append(TRAILER, value);
    }
    let body = if unpacks && is_packed(&head.headers) && !is_head && !body.is_end_stream() {
        head.headers.remove(CONTENT_ENCODING);
        head.headers.remove(CONTENT_LENGTH);
        Body::frames(unpack(body))
    } else if needs_type(&head.headers)
        && !is_head
        && body.size_hint().exact().is_some_and(|length| length > 0)
    {
        match with_type(body, &mut head.headers).await {
            Ok(body) => body,
            Err(e) => return bad_gateway(&e.to_string()),
        }
    } else {
        Body::upstream(body)
    };
    let mut response = http::Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    if is_chunked && is_11 {
        response.extensions_mut().insert(UnannouncedTrailers);
    }
    response
}

/// Go's server names the type of a body of known length where nobody did.
fn needs_type(headers: &HeaderMap) -> bool {
    !headers.contains_key(CONTENT_TYPE) && !headers.contains_key(CONTENT_ENCODING)
}

/// Names the type by the first piece of the body.
async fn with_type(mut body: Reply, headers: &mut HeaderMap) -> Result<Body, BodyError> {
    let Some(first) = body.frame().await.transpose()? else { return Ok(Body::empty()) };
    let first = first.into_data().unwrap_or_default();
    let is_binary =
        first.iter().take(512).any(|byte| matches!(byte, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f));
    let kind = if is_binary { "application/octet-stream" } else { "text/plain; charset=utf-8" };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(Body::upstream_behind(&first, body))
}

/// Undoes the packing that only we asked for.
fn unpack(body: Reply) -> Frames {
    let packed =
        Packed { body: Some(BodyStream::new(body)), decoder: GzDecoder::new(Vec::new()), last: None };
    let frames = futures::stream::try_unfold(packed, |mut packed| async move {
        // the head goes out first: what cannot be unpacked cuts the body, not the answer
        tokio::task::yield_now().await;
        Ok(packed.next().await?.map(|frame| (frame, packed)))
    });
    frames.boxed()
}

/// A packed body on its way out.
struct Packed {
    body: Option<BodyStream<Reply>>,
    decoder: GzDecoder<Vec<u8>>,
    /// Trailers, which follow what was still in the decoder.
    last: Option<Frame<Bytes>>,
}

impl Packed {
    async fn next(&mut self) -> Result<Option<Frame<Bytes>>, BodyError> {
        while let Some(body) = &mut self.body {
            match body.next().await.transpose()?.map(Frame::into_data) {
                Some(Ok(data)) => {
                    self.decoder.write_all(&data)?;
                    self.decoder.flush()?;
                }
                Some(Err(trailers)) => {
                    self.last = Some(trailers);
                    self.finish()?;
                }
                None => self.finish()?,
            }
            let unpacked = std::mem::take(self.decoder.get_mut());
            if !unpacked.is_empty() {
                return Ok(Some(Frame::data(Bytes::from(unpacked))));
            }
        }
        Ok(self.last.take())
    }

    fn finish(&mut self) -> Result<(), BodyError> {
        self.body = None;
        Ok(self.decoder.try_finish()?)
    }
}

/// A body piece by piece, unpacked if it came packed though its reader asked for none of that.
pub(super) fn frames(headers: &HeaderMap, body: Reply, unpacks: bool) -> Frames {
    if unpacks && is_packed(headers) && !body.is_end_stream() {
        return unpack(body);
    }
    StreamExt::boxed(BodyStream::new(body))
}

fn is_packed(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_ENCODING).is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"gzip"))
}

fn bad_gateway(cause: &str) -> Response {
    error!(target: "ipfsproxy", "http: proxy error: {cause}");
    respond::empty(StatusCode::BAD_GATEWAY)
}

/// Removes what is meant for one connection: the known names, and those that `Connection` lists (Go's client has
/// already taken that header away where it says `close`).
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in listed.iter().filter(|name| **name != HOST).chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}
