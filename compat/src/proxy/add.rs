//! `add`: files to the cluster instead of the daemon (spec: ipfs-proxy 7.5; rulings: proxy Q-P9, Q-P11, Q-P16,
//! adder A5).

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONNECTION, EXPECT, HeaderMap, HeaderName, HeaderValue, TRAILER};
use http_body::Frame;
use serde::Serialize;
use tracing::warn;

use super::{Shared, error};
use crate::api::{Entry, ErrorKind, Items, Result, Upload};
use crate::go::json;
use crate::go::query::Query;
use crate::http::conn::Request;
use crate::http::multipart::{Multipart, Started};
use crate::http::respond::{self, Body, BodyError, Lines, Response, X_STREAM_ERROR};
use crate::types::{AddParams, AddedOutput, Layout};

const ONLY_HASH: &str = "only-hash is not supported when adding to cluster";
const X_CHUNKED_OUTPUT: HeaderName = HeaderName::from_static("x-chunked-output");
/// Events kept for an answer that is not streamed; a larger upload has to be streamed.
const MAX_EVENTS: usize = 1 << 20;

/// Adds the files of the body.
pub(super) async fn add(shared: &Arc<Shared>, query: &Query, request: Request) -> Response {
    let expects = request.headers().contains_key(EXPECT);
    let (head, body) = request.into_parts();
    let (upload, started) = match Multipart::new(&head.headers, body) {
        Ok(upload) => upload,
        Err(message) => return error::internal(&format!("error reading request: {message}")),
    };
    if query.get("only-hash") == "true" {
        return error::internal(ONLY_HASH);
    }
    let mut params = match AddParams::from_query(query) {
        Ok(params) => params,
        Err(message) => return error::internal(&format!("error parsing options:{message}")),
    };
    if query.get("trickle") == "true" {
        params.layout = Layout::Trickle;
    }
    params.no_pin |= query.get("pin") == "false";
    warn!(target: "ipfsproxy", "Proxy/add does not support all IPFS params. Current options: {params:?}");

    let streams = params.stream_channels;
    let place = Place::default();
    let shape = Shape { place: place.clone(), names_by_cid: !params.wrap_with_directory };
    let events = shared.api.add(params, Box::new(Followed { upload, place }));
    // the server's stop ends uploads under way
    let events = events.take_until(shared.stop.clone().cancelled_owned()).boxed();
    if streams { streamed(events, shape, started, expects).await } else { collected(events, shape).await }
}

/// Kubo's event, in its key order.
#[derive(Serialize)]
struct Event {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Hash", skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(rename = "Bytes", skip_serializing_if = "is_zero")]
    bytes: u64,
    #[serde(rename = "Size", skip_serializing_if = "Option::is_none")]
    size: Option<String>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// The path of the entry that is read at the moment. Never held over an await.
type Place = Arc<Mutex<Vec<u8>>>;

/// How events are turned into Kubo's.
struct Shape {
    place: Place,
    /// An entry without a name is called by its CID; a wrapping directory stays without.
    names_by_cid: bool,
}

impl Shape {
    fn event(&self, output: AddedOutput) -> Event {
        let hash = output.cid.map(|cid| cid.to_string());
        let name = match &hash {
            Some(hash) if output.name.is_empty() && self.names_by_cid => hash.clone(),
            Some(_) => output.name,
            None => self.progress_name(output.name),
        };
        Event { name, hash, bytes: output.bytes, size: (output.size != 0).then(|| output.size.to_string()) }
    }

    /// Progress lacks the top entry's name; Kubo's clients want the folder. A file without one stays without name.
    fn progress_name(&self, name: String) -> String {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        let path = String::from_utf8_lossy(&place);
        let is_below = !name.is_empty() && path.ends_with(&format!("/{name}"));
        if is_below { path.into_owned() } else { name }
    }
}

/// An upload that says where it is.
struct Followed<U> {
    upload: U,
    place: Place,
}

#[async_trait]
impl<U: Upload> Upload for Followed<U> {
    async fn next_entry(&mut self) -> Result<Option<Entry>> {
        let entry = self.upload.next_entry().await?;
        if let Some(entry) = &entry {
            self.place.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&entry.path);
        }
        Ok(entry)
    }

    async fn read(&mut self) -> Result<Option<Bytes>> {
        self.upload.read().await
    }
}

fn no_cache(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}

/// One line for each event as it comes; what fails later is in the trailer.
async fn streamed(mut events: Items<AddedOutput>, shape: Shape, started: Started, expects: bool) -> Response {
    let mut first = None;
    // a client that waits for "100 Continue" is answered at once; others can still be told that there is no file
    if !expects {
        tokio::select! {
            biased;
            event = events.next() => first = Some(event),
            _ = started => {}
        }
    }
    if let Some(Some(Err(e))) = &first
        && e.kind == ErrorKind::BadRequest
    {
        return error::with_status(StatusCode::BAD_REQUEST, &e.message);
    }
    let first = match first {
        // the end has come already
        Some(None) => return stream_response(stream::empty()),
        Some(Some(first)) => Some(first),
        None => None,
    };
    let mut lines = Lines::default();
    let frames = stream::iter(first).chain(events).scan(false, move |failed, event| {
        let frame = match event {
            _ if *failed => None,
            Ok(output) => Some(Frame::data(lines.line(&shape.event(output)))),
            Err(e) => {
                *failed = true;
                let mut trailers = HeaderMap::new();
                trailers.insert(X_STREAM_ERROR, respond::header_safe(&e.message));
                Some(Frame::trailers(trailers))
            }
        };
        futures::future::ready(frame.map(Ok))
    });
    stream_response(frames)
}

fn stream_response(
    frames: impl futures::Stream<Item = std::result::Result<Frame<Bytes>, BodyError>> + Send + 'static,
) -> Response {
    let mut response = Response::new(Body::frames(frames));
    no_cache(response.headers_mut());
    response.headers_mut().insert(X_CHUNKED_OUTPUT, HeaderValue::from_static("1"));
    response.headers_mut().insert(TRAILER, HeaderValue::from_static("X-Stream-Error"));
    response
}

/// The events as one list, or the error that came before its end, in the shape of the cluster's own API.
async fn collected(mut events: Items<AddedOutput>, shape: Shape) -> Response {
    let mut list = Vec::new();
    let mut failure = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(_) if list.len() >= MAX_EVENTS => {
                failure = Some((
                    ErrorKind::BadRequest,
                    "too many entries for an answer that is not streamed".into(),
                ));
                break;
            }
            Ok(output) => list.push(shape.event(output)),
            Err(e) => {
                failure = Some((e.kind, e.message));
                break;
            }
        }
    }
    let mut response = match failure {
        Some((kind, message)) => {
            let status = match kind {
                ErrorKind::BadRequest => StatusCode::BAD_REQUEST,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            respond::json(status, &Failure { code: status.as_u16(), message: &message })
        }
        None if list.is_empty() => respond::document(StatusCode::OK, "null\n"),
        None => {
            let mut text = json::to_vec(&list);
            text.push(b'\n');
            respond::document(StatusCode::OK, text)
        }
    };
    no_cache(response.headers_mut());
    response
}

#[derive(Serialize)]
struct Failure<'a> {
    code: u16,
    message: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::parse_cid;

    fn shape(place: &str, names_by_cid: bool) -> Shape {
        Shape { place: Arc::new(Mutex::new(place.as_bytes().to_vec())), names_by_cid }
    }

    fn json(shape: &Shape, output: AddedOutput) -> String {
        String::from_utf8(json::to_vec(&shape.event(output))).unwrap()
    }

    #[test]
    fn progress_carries_the_folder() {
        let progress = |place: &str, name: &str| {
            json(&shape(place, true), AddedOutput { name: name.into(), bytes: 5, ..AddedOutput::default() })
        };
        assert_eq!(progress("dir/sub/a", "sub/a"), r#"{"Name":"dir/sub/a","Bytes":5}"#);
        assert_eq!(progress("a.txt", ""), r#"{"Name":"","Bytes":5}"#);
        assert_eq!(progress("elsewhere", "a"), r#"{"Name":"a","Bytes":5}"#);
    }

    #[test]
    fn an_entry_without_a_name_is_called_by_its_cid() {
        let cid = "QmV4STRyo1dygxGhZcr877TQ1M9AZuXhfm6HrXjxW1TYNP";
        let output =
            || AddedOutput { cid: Some(parse_cid(cid).unwrap()), size: 14, ..AddedOutput::default() };
        assert_eq!(
            json(&shape("", true), output()),
            format!(r#"{{"Name":"{cid}","Hash":"{cid}","Size":"14"}}"#)
        );
        assert_eq!(json(&shape("", false), output()), format!(r#"{{"Name":"","Hash":"{cid}","Size":"14"}}"#));
    }
}
