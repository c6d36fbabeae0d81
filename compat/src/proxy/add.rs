//! `add`: files to the cluster instead of the daemon (spec: ipfs-proxy 7.5; rulings: proxy Q-P9, Q-P11, Q-P16,
//! adder A5).

use std::collections::VecDeque;
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
use crate::api::{Entry, EntryKind, ErrorKind, Items, Result, Upload};
use crate::go::json;
use crate::go::query::Query;
use crate::http::conn::Request;
use crate::http::multipart::{Multipart, Started};
use crate::http::respond::{self, Body, BodyError, Lines, MAX_COLLECTED_BYTES, Response, X_STREAM_ERROR};
use crate::types::{AddParams, AddedOutput, Layout};

const ONLY_HASH: &str = "only-hash is not supported when adding to cluster";
const X_CHUNKED_OUTPUT: HeaderName = HeaderName::from_static("x-chunked-output");
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
    if params.options.name.is_empty() {
        params.options.name = query.get("pin-name").to_string();
    }
    warn!(target: "ipfsproxy", "Proxy/add does not support all IPFS params. Current options: {params:?}");

    let streams = params.stream_channels;
    let files = Files::default();
    let shape = Shape { files: files.clone(), wraps: params.wrap_with_directory };
    let upload: Box<dyn Upload> =
        if params.progress { Box::new(Followed { upload, files }) } else { Box::new(upload) };
    let events = shared.api.add(params, upload);
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

/// The paths of the files that are read and not yet told to be done, in their order. As many as the adder is ahead of
/// its reader. Never held over an await.
type Files = Arc<Mutex<VecDeque<String>>>;

/// How events are turned into Kubo's.
struct Shape {
    files: Files,
    /// A wrapping directory stays without a name; any other entry without one is called by its CID.
    wraps: bool,
}

impl Shape {
    fn event(&self, output: AddedOutput) -> Event {
        let hash = output.cid.map(|cid| cid.to_string());
        if hash.is_some() {
            self.is_done(&output.name);
        }
        let name = match &hash {
            Some(hash) if output.name.is_empty() && !self.wraps => hash.clone(),
            Some(_) => output.name,
            None => self.progress_name(output.name),
        };
        Event { name, hash, bytes: output.bytes, size: (output.size != 0).then(|| output.size.to_string()) }
    }

    /// The adder's progress lacks the top entry's name, which Kubo's clients look for.
    fn progress_name(&self, name: String) -> String {
        if self.wraps {
            return name;
        }
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let below = |path: &str| path.split_once('/').map_or("", |(_, below)| below).to_string();
        files.iter().find(|path| below(path) == name).cloned().unwrap_or(name)
    }

    /// Forgets a file, and those before it.
    fn is_done(&self, name: &str) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = files.iter().position(|path| path == name) {
            files.drain(..=at);
        }
    }
}

/// An upload that says which files it has given.
struct Followed<U> {
    upload: U,
    files: Files,
}

#[async_trait]
impl<U: Upload> Upload for Followed<U> {
    async fn next_entry(&mut self) -> Result<Option<Entry>> {
        let entry = self.upload.next_entry().await?;
        if let Some(entry) = &entry
            && entry.kind == EntryKind::File
        {
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            self.files.lock().unwrap_or_else(PoisonError::into_inner).push_back(path);
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
            Ok(output) => {
                list.push(if list.is_empty() { b'[' } else { b',' });
                json::write_into(&mut list, &shape.event(output));
                if list.len() > MAX_COLLECTED_BYTES {
                    let message = respond::too_large_to_collect(MAX_COLLECTED_BYTES);
                    failure = Some((ErrorKind::BadRequest, message));
                    break;
                }
            }
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
            list.extend_from_slice(b"]\n");
            respond::document(StatusCode::OK, list)
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

    fn shape(files: &[&str], wraps: bool) -> Shape {
        Shape { files: Arc::new(Mutex::new(files.iter().map(ToString::to_string).collect())), wraps }
    }

    fn json(shape: &Shape, output: AddedOutput) -> String {
        String::from_utf8(json::to_vec(&shape.event(output))).unwrap()
    }

    const CID: &str = "QmV4STRyo1dygxGhZcr877TQ1M9AZuXhfm6HrXjxW1TYNP";

    #[test]
    fn progress_carries_the_whole_path_however_far_the_upload_is() {
        let shape = shape(&["dir/sub/a", "other/sub/a", "a.txt", ""], false);
        let progress =
            |name: &str| json(&shape, AddedOutput { name: name.into(), bytes: 5, ..AddedOutput::default() });
        let done = |name: &str| {
            let cid = Some(parse_cid(CID).unwrap());
            json(&shape, AddedOutput { name: name.into(), cid, ..AddedOutput::default() })
        };
        for _ in 0..2 {
            assert_eq!(progress("sub/a"), r#"{"Name":"dir/sub/a","Bytes":5}"#);
        }
        done("dir/sub/a");
        assert_eq!(progress("sub/a"), r#"{"Name":"other/sub/a","Bytes":5}"#);
        done("other/sub/a");
        assert_eq!(progress(""), r#"{"Name":"a.txt","Bytes":5}"#);
        done("a.txt");
        assert_eq!(progress(""), r#"{"Name":"","Bytes":5}"#, "a file without a name");
        assert_eq!(progress("elsewhere"), r#"{"Name":"elsewhere","Bytes":5}"#);
    }

    #[test]
    fn progress_below_a_wrapping_directory_is_whole_already() {
        let shape = shape(&["d/a", "a"], true);
        for name in ["a", "d/a"] {
            let output = AddedOutput { name: name.into(), bytes: 5, ..AddedOutput::default() };
            assert_eq!(json(&shape, output), format!(r#"{{"Name":"{name}","Bytes":5}}"#));
        }
    }

    #[test]
    fn an_entry_without_a_name_is_called_by_its_cid() {
        let output =
            || AddedOutput { cid: Some(parse_cid(CID).unwrap()), size: 14, ..AddedOutput::default() };
        assert_eq!(
            json(&shape(&[], false), output()),
            format!(r#"{{"Name":"{CID}","Hash":"{CID}","Size":"14"}}"#)
        );
        assert_eq!(json(&shape(&[], true), output()), format!(r#"{{"Name":"","Hash":"{CID}","Size":"14"}}"#));
    }
}
