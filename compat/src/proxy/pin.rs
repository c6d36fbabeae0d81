//! `pin/add`, `pin/rm` and `pin/ls` (spec: ipfs-proxy 7.1 to 7.3; rulings: proxy Q-P6, Q-P7, Q-P17, Q-P18).

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::StatusCode;
use http::header::{HeaderMap, HeaderValue, TRAILER};
use http_body::Frame;
use serde::Serialize;

use super::{args, error, ok, path};
use crate::api::{ClusterApi, Items};
use crate::go::json;
use crate::go::query::Query;
use crate::http::conn::Request;
use crate::http::respond::{self, Body, BodyError, Coalesce, Lines, Response, X_STREAM_ERROR};
use crate::types::{Cid, Pin, PinMode, PinOptions, PinTypes, parse_cid};

#[derive(Serialize)]
struct Pins {
    #[serde(rename = "Pins")]
    pins: Vec<String>,
}

/// `{"Pins":["…"]}`
pub(super) fn pins(cids: &[Cid]) -> Response {
    ok(json::to_vec(&Pins { pins: cids.iter().map(Cid::to_string).collect() }))
}

/// Pins each argument.
pub(super) async fn add(api: &dyn ClusterApi, query: &Query, request: Request) -> Response {
    let paths = match args::paths(query, request).await {
        Ok(paths) => paths,
        Err(refusal) => return refusal,
    };
    let is_direct = query.get("type") == "direct" || is_false(query.get("recursive"));
    let mode = if is_direct { PinMode::Direct } else { PinMode::Recursive };
    let mut cids = Vec::with_capacity(paths.len());
    for path in &paths {
        let options = PinOptions { mode, name: query.get("name").to_string(), ..PinOptions::default() };
        match api.pin_path(path, options).await {
            Ok(pin) => cids.push(pin.cid),
            Err(e) => return error::from_api(&e),
        }
    }
    pins(&cids)
}

/// Unpins each argument.
pub(super) async fn rm(api: &dyn ClusterApi, query: &Query, request: Request) -> Response {
    let paths = match args::paths(query, request).await {
        Ok(paths) => paths,
        Err(refusal) => return refusal,
    };
    let mut cids = Vec::with_capacity(paths.len());
    for path in &paths {
        match api.unpin_path(path).await {
            Ok(pin) => cids.push(pin.cid),
            Err(e) => return error::from_api(&e),
        }
    }
    pins(&cids)
}

/// False as Kubo reads options.
fn is_false(text: &str) -> bool {
    matches!(text, "false" | "FALSE" | "False" | "f" | "F" | "0")
}

/// True as Kubo reads options.
fn is_true(text: &str) -> bool {
    matches!(text, "true" | "TRUE" | "True" | "t" | "T" | "1")
}

/// Which pins are listed, and what is said of them.
#[derive(Debug, Clone)]
struct Filter {
    kind: Kind,
    name: Option<String>,
    shows_names: bool,
    streams: bool,
}

/// Whether a list is the daemon's own business: no pin of the cluster is indirect.
pub(super) fn is_of_daemon(query: &Query) -> bool {
    query.get("type") == "indirect"
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    All,
    Recursive,
    Direct,
}

impl Filter {
    fn parse(query: &Query) -> Result<Self, String> {
        let kind = match query.get("type") {
            "" | "all" => Kind::All,
            "recursive" => Kind::Recursive,
            "direct" => Kind::Direct,
            other => {
                return Err(format!(
                    "invalid type '{other}', must be one of {{direct, indirect, recursive, all}}"
                ));
            }
        };
        let name = Some(query.get("name").to_string()).filter(|name| !name.is_empty());
        Ok(Self {
            kind,
            shows_names: name.is_some() || is_true(query.get("names")),
            name,
            streams: query.get("stream") == "true" || query.get("s") == "true",
        })
    }

    fn matches(&self, pin: &Pin) -> bool {
        let mode = mode(pin);
        let is_kind = match self.kind {
            Kind::All => true,
            // a list that is not streamed calls every pin recursive
            Kind::Recursive => !self.streams || mode == PinMode::Recursive,
            Kind::Direct => mode == PinMode::Direct,
        };
        is_kind && self.name.as_ref().is_none_or(|name| pin.options.name.contains(name.as_str()))
    }

    /// The type that is shown.
    fn shown(&self, pin: &Pin) -> &'static str {
        if self.streams || self.kind == Kind::Direct {
            mode(pin).as_str()
        } else {
            PinMode::Recursive.as_str()
        }
    }

    fn line(&self, pin: &Pin) -> Line {
        let name = Some(&pin.options.name).filter(|name| self.shows_names && !name.is_empty()).cloned();
        Line { cid: pin.cid.to_string(), name, kind: self.shown(pin) }
    }
}

/// Stored pins know their mode by their depth.
fn mode(pin: &Pin) -> PinMode {
    PinMode::from_depth(pin.max_depth)
}

/// One pin of a streamed list.
#[derive(Serialize)]
struct Line {
    #[serde(rename = "Cid")]
    cid: String,
    #[serde(rename = "Name", skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(rename = "Type")]
    kind: &'static str,
}

/// One pin of a list that is one document.
#[derive(Serialize)]
struct Key {
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(rename = "Name", skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

/// Lists pins: those of the arguments, or all.
pub(super) async fn ls(api: &dyn ClusterApi, query: &Query) -> Response {
    let args: Vec<&str> = query.get_all("arg").filter(|arg| !arg.is_empty()).collect();
    let filter = match Filter::parse(query) {
        Ok(filter) => filter,
        Err(message) => return error::internal(&message),
    };
    if args.is_empty() {
        let pins = api.allocations(PinTypes::ALL);
        return if filter.streams { stream_all(pins, filter) } else { list_all(pins, &filter).await };
    }
    let mut found = Vec::with_capacity(args.len());
    for arg in args {
        match find(api, arg, &filter).await {
            Ok(pin) => found.push(pin),
            Err(message) => return error::internal(&message),
        }
    }
    if !filter.streams {
        return ok(document(found.iter().map(|pin| key(&filter, pin)).collect()));
    }
    let lines: Vec<Vec<u8>> = found.iter().map(|pin| json::to_vec(&filter.line(pin))).collect();
    // a single one has no line feed, as recorded
    let end: &[u8] = if lines.len() > 1 { b"\n" } else { b"" };
    ok([lines.join(&b'\n'), end.to_vec()].concat())
}

/// The pin of one argument: a CID, or a path that leads to one.
async fn find(api: &dyn ClusterApi, arg: &str, filter: &Filter) -> Result<Pin, String> {
    let cid = match (parse_cid(arg), path::parse(arg)) {
        (Ok(cid), _) => cid,
        (Err(_), Ok(path)) => api.resolve(&path).await.map_err(|e| daemons_words(&e.message))?,
        // the reference reads nothing but CIDs here
        (Err(error), Err(_)) => return Err(error),
    };
    match api.allocation(cid).await {
        Ok(pin) if filter.matches(&pin) => Ok(pin),
        _ => Err(format!("Error: path '{arg}' is not pinned")),
    }
}

/// What the daemon said, without what the cluster says before it: clients compare it with Kubo's.
fn daemons_words(message: &str) -> String {
    let words = message.strip_prefix("IPFS error (").and_then(|rest| rest.split_once(" Message: "));
    words.map_or(message, |(_, words)| words).to_string()
}

fn key(filter: &Filter, pin: &Pin) -> (String, Key) {
    let name = filter.shows_names.then(|| pin.options.name.clone());
    (pin.cid.to_string(), Key { kind: filter.shown(pin), name })
}

/// `{"Keys":{…}}`, keys in byte order.
fn document(mut keys: Vec<(String, Key)>) -> Vec<u8> {
    keys.sort_by(|one, other| one.0.cmp(&other.0));
    keys.dedup_by(|one, other| one.0 == other.0);
    let mut text = Vec::with_capacity(32 + keys.len() * 84);
    text.extend_from_slice(b"{\"Keys\":{");
    for (i, (cid, key)) in keys.iter().enumerate() {
        if i > 0 {
            text.push(b',');
        }
        json::write_into(&mut text, cid);
        text.push(b':');
        json::write_into(&mut text, key);
    }
    text.extend_from_slice(b"}}");
    text
}

async fn list_all(mut pins: Items<Pin>, filter: &Filter) -> Response {
    let mut keys = Vec::new();
    while let Some(pin) = pins.next().await {
        match pin {
            Ok(pin) if filter.matches(&pin) => keys.push(key(filter, &pin)),
            Ok(_) => {}
            Err(e) => return error::from_api(&e),
        }
    }
    ok(document(keys))
}

fn stream_all(pins: Items<Pin>, filter: Filter) -> Response {
    let mut lines = Lines::default();
    let mut trailers = HeaderMap::new();
    let frames = pins.map(Some).chain(stream::once(async { None })).filter_map(move |pin| {
        let frame = match pin {
            Some(Ok(pin)) if filter.matches(&pin) => Some(Frame::data(lines.line(&filter.line(&pin)))),
            Some(Ok(_)) => None,
            Some(Err(e)) => {
                trailers.append(X_STREAM_ERROR, respond::header_safe(&e.message));
                None
            }
            None if trailers.is_empty() => None,
            None => Some(Frame::trailers(std::mem::take(&mut trailers))),
        };
        futures::future::ready(frame.map(Ok::<Frame<Bytes>, BodyError>))
    });
    streamed(frames)
}

/// 200 with lines that are sent as they fill a buffer, and errors in the trailer.
pub(super) fn streamed(
    frames: impl futures::Stream<Item = Result<Frame<Bytes>, BodyError>> + Send + 'static,
) -> Response {
    let mut response = Response::new(Body::frames(Coalesce::new(frames.boxed())));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(TRAILER, HeaderValue::from_static("X-Stream-Error"));
    response
}
