//! `block/put` and `dag/put` with `pin=true`: the daemon stores, the cluster pins (spec: ipfs-proxy 7.6, 7.7;
//! ruling: proxy Q-P13).

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use futures::{StreamExt, stream};
use http::StatusCode;
use http::header::{HOST, HeaderMap, HeaderValue, USER_AGENT};
use http_body::Frame;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::forward::{Frames, add_accept_encoding, client_body};
use super::{Shared, error, forward, pin};
use crate::go::query::Query;
use crate::go::quote::quote_char;
use crate::http::conn::Request;
use crate::http::respond::{Body, BodyError, Coalesce, Lines, Response, X_STREAM_ERROR, header_safe};
use crate::types::{Cid, Pin, PinOptions, parse_cid};

/// Longest refusal that is sent with its length.
const MAX_WHOLE: usize = 2048;
/// Longest object in a daemon's answer.
const MAX_OBJECT: usize = 1 << 20;

/// What the daemon says of one stored thing.
trait Stored: DeserializeOwned + Serialize + Send + 'static {
    /// Its CID, as the daemon writes it.
    fn cid(&self) -> &str;
    /// Writes it anew, in its canonical base.
    fn set_cid(&mut self, cid: String);
}

#[derive(Serialize, Deserialize)]
struct Block {
    #[serde(rename = "Key", default)]
    key: String,
    #[serde(rename = "Size", default)]
    size: i64,
}

impl Stored for Block {
    fn cid(&self) -> &str {
        &self.key
    }

    fn set_cid(&mut self, cid: String) {
        self.key = cid;
    }
}

#[derive(Serialize, Deserialize)]
struct Node {
    #[serde(rename = "Cid")]
    cid: Link,
}

#[derive(Serialize, Deserialize)]
struct Link {
    #[serde(rename = "/")]
    cid: String,
}

impl Stored for Node {
    fn cid(&self) -> &str {
        &self.cid.cid
    }

    fn set_cid(&mut self, cid: String) {
        self.cid.cid = cid;
    }
}

/// The daemon gets the request as it is.
pub(super) async fn block(shared: Arc<Shared>, _query: Query, request: Request) -> Response {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_string();
    put::<Block>(shared, &target, request).await
}

/// The daemon is told not to pin.
pub(super) async fn dag(shared: Arc<Shared>, mut query: Query, request: Request) -> Response {
    query.set("pin", "false");
    let target = format!("{}?{}", request.uri().path(), query.encode());
    put::<Node>(shared, &target, request).await
}

async fn put<T: Stored>(shared: Arc<Shared>, target: &str, request: Request) -> Response {
    let (mut head, body) = request.into_parts();
    let uri = match shared.daemon.uri(target) {
        Ok(uri) => uri,
        Err(e) => return error::internal(&e.to_string()),
    };
    head.headers.remove(HOST);
    if head.headers.contains_key(USER_AGENT) {
        forward::keep_first_agent(&mut head.headers);
    } else {
        head.headers.insert(USER_AGENT, HeaderValue::from_static("Go-http-client/1.1"));
    }
    let unpacks = add_accept_encoding(&head.method, &mut head.headers);
    let mut outgoing = http::Request::new(client_body(&head.method, &mut head.headers, body));
    *outgoing.method_mut() = head.method;
    *outgoing.uri_mut() = uri;
    *outgoing.headers_mut() = head.headers;
    let answer = match shared.daemon.send(outgoing).await {
        Ok(answer) => forward::frame(answer),
        Err(e) => Err(e.to_string()),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(cause) => return error::internal(&cause),
    };
    if answer.status() != StatusCode::OK {
        let (daemon, body) = answer.into_parts();
        return refused(daemon.status, forward::frames(&daemon.headers, body, unpacks)).await;
    }
    let (head, body) = answer.into_parts();
    let reader = Reader::<T> {
        shared,
        body: forward::frames(&head.headers, body, unpacks),
        buffer: BytesMut::new(),
        lines: Lines::default(),
        trailers: HeaderMap::new(),
        kind: std::marker::PhantomData,
    };
    let frames = stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        match reader.next().await {
            Some(line) => Some((Ok(Frame::data(line)), Some(reader))),
            None if reader.trailers.is_empty() => None,
            None => Some((Ok::<_, BodyError>(Frame::trailers(std::mem::take(&mut reader.trailers))), None)),
        }
    });
    pin::streamed(frames)
}

/// The daemon's own words, with their length if they are few.
async fn refused(status: StatusCode, mut frames: Frames) -> Response {
    let mut start = Vec::new();
    let body = loop {
        match frames.next().await {
            None => break Body::whole(start),
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                start.extend_from_slice(&data);
                if start.len() > MAX_WHOLE {
                    let start = stream::once(async { Ok(Frame::data(Bytes::from(start))) });
                    break Body::frames(Coalesce::new(start.chain(frames).boxed()));
                }
            }
            Some(Err(e)) => break Body::frames(stream::once(async { Err(e) })),
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// Reads the daemon's objects, pins each, and collects what fails for the trailer.
struct Reader<T> {
    shared: Arc<Shared>,
    body: Frames,
    buffer: BytesMut,
    lines: Lines,
    trailers: HeaderMap,
    kind: std::marker::PhantomData<T>,
}

impl<T: Stored> Reader<T> {
    /// The next object as a line, pinned.
    async fn next(&mut self) -> Option<Bytes> {
        let mut object = match self.object().await {
            Ok(object) => object?,
            Err(message) => {
                self.fails(&message);
                return None;
            }
        };
        match parse_cid(object.cid()) {
            Err(message) => {
                self.fails(&message);
                return None;
            }
            Ok(cid) => {
                object.set_cid(cid.to_string());
                self.pin(cid).await;
            }
        }
        Some(self.lines.line(&object))
    }

    async fn pin(&mut self, cid: Cid) {
        let pin = Pin::with_options(cid, PinOptions::default());
        if let Err(e) = self.shared.api.pin(pin).await {
            tracing::error!(target: "ipfsproxy", %cid, "error pinning: {e}");
            self.fails(&e.message);
        }
    }

    fn fails(&mut self, message: &str) {
        self.trailers.append(X_STREAM_ERROR, header_safe(message));
    }

    /// The next JSON value of the answer, `None` at its end.
    async fn object(&mut self) -> Result<Option<T>, String> {
        loop {
            let start = self.buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.buffer.advance(start);
            if let Some(first) = self.buffer.first() {
                if *first != b'{' {
                    let c = quote_char(char::from(*first));
                    return Err(format!("invalid character {c} looking for beginning of value"));
                }
                let mut values = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<T>();
                match values.next() {
                    Some(Ok(value)) => {
                        let used = values.byte_offset();
                        self.buffer.advance(used);
                        return Ok(Some(value));
                    }
                    Some(Err(e)) if e.is_eof() => {}
                    Some(Err(e)) => return Err(e.to_string()),
                    None => {}
                }
            }
            if self.buffer.len() > MAX_OBJECT {
                return Err("the daemon's answer is too long".to_string());
            }
            match self.body.next().await {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err("unexpected EOF".to_string()),
                Some(Err(_)) => return Err("unexpected EOF".to_string()),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => {
                        // what the daemon says at the end is said on
                        for value in frame
                            .trailers_ref()
                            .into_iter()
                            .flat_map(|trailers| trailers.get_all(X_STREAM_ERROR))
                        {
                            self.trailers.append(X_STREAM_ERROR, value.clone());
                        }
                    }
                },
            }
        }
    }
}
