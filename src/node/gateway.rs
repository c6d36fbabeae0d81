//! Files over plain HTTP, read only: `/ipfs/CID/path`, whole or a range, and blocks or CARs for those who check
//! themselves (`?format=raw|car`, or the `Accept` header).

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use cluster_compat::go::query::Query;
use cluster_compat::http::conn::{Handler, PeerAddr, Request};
use cluster_compat::http::mux;
use cluster_compat::http::respond::{self, Body, BodyError, Response};
use futures::{FutureExt as _, StreamExt as _, stream};
use http::header::{
    ACCEPT, ACCEPT_RANGES, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION,
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH,
    LOCATION, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, StatusCode};
use hyper::body::Frame;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::path::{self, Path, Resolved};
use super::rpc::car;
use super::source::Source;
use super::unixfs::{self, Entry, EntryKind};
use super::{Core, Error, ipld};

/// Longest wait for what an answer begins with. (Kubo: `Gateway.RetrievalTimeout`)
const TIMEOUT: Duration = Duration::from_secs(30);
/// Names of a directory that are shown; more would be a page that nobody reads.
const MAX_LISTED: usize = 10_000;
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=29030400, immutable");
const X_IPFS_PATH: HeaderName = HeaderName::from_static("x-ipfs-path");
const X_IPFS_ROOTS: HeaderName = HeaderName::from_static("x-ipfs-roots");
/// What stays as it is in a link.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Serves files.
pub(super) fn handler(core: Arc<Core>) -> Handler {
    Arc::new(move |request: Request, _peer: PeerAddr| {
        let core = Arc::clone(&core);
        async move {
            let is_head = request.method() == Method::HEAD;
            let answer = tokio::time::timeout(TIMEOUT, answer(&core, &request)).await;
            let response = match answer {
                Ok(Ok(response)) => response,
                Ok(Err((status, words))) => words_of(status, &words),
                Err(_) => words_of(StatusCode::GATEWAY_TIMEOUT, "the content was not found in time"),
            };
            if is_head { without_body(response) } else { response }
        }
        .boxed()
    })
}

type Refusal = (StatusCode, String);

fn refuse(cause: &Error) -> Refusal {
    let words = cause.to_string();
    let status = match cause {
        _ if words.starts_with("invalid path") => StatusCode::BAD_REQUEST,
        _ if words.starts_with("no link named") => StatusCode::NOT_FOUND,
        Error::NotFound(_) => StatusCode::NOT_FOUND,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, words)
}

fn words_of(status: StatusCode, words: &str) -> Response {
    let mut response = Response::new(Body::whole(format!("{words}\n")));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn without_body(response: Response) -> Response {
    let (head, _) = response.into_parts();
    Response::from_parts(head, Body::empty())
}

/// What form of the content is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Files,
    Raw,
    Car,
}

impl Form {
    fn of(query: &Query, headers: &HeaderMap) -> Result<Self, Refusal> {
        match query.get("format") {
            "raw" => return Ok(Self::Raw),
            "car" => return Ok(Self::Car),
            "" => {}
            other => return Err((StatusCode::BAD_REQUEST, format!("unsupported format {other:?}"))),
        }
        let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(if accept.contains("application/vnd.ipld.raw") {
            Self::Raw
        } else if accept.contains("application/vnd.ipld.car") {
            Self::Car
        } else {
            Self::Files
        })
    }
}

async fn answer(core: &Core, request: &Request) -> Result<Response, Refusal> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = words_of(StatusCode::METHOD_NOT_ALLOWED, "this gateway is read only");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    let decoded = mux::decoded_path(request.uri());
    let Ok(text) = std::str::from_utf8(&decoded) else {
        return Err((StatusCode::BAD_REQUEST, "the path is not UTF-8".into()));
    };
    if !text.starts_with("/ipfs/") && !text.starts_with("/ipns/") {
        return Err((StatusCode::NOT_FOUND, "404 page not found".into()));
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let form = Form::of(&query, request.headers())?;
    let parsed = path::parse(text).map_err(|cause| refuse(&cause))?;
    let source = core.source(false);
    let resolved = path::resolve(&source, &parsed).await.map_err(|cause| refuse(&cause))?;
    let etag = match form {
        Form::Files => format!("\"{}\"", resolved.cid),
        Form::Raw => format!("\"{}.raw\"", resolved.cid),
        Form::Car => format!("W/\"{}.car\"", resolved.cid),
    };
    let known =
        request.headers().get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut response = if known.split(',').any(|known| known.trim() == etag || known.trim() == "*") {
        respond::empty(StatusCode::NOT_MODIFIED)
    } else {
        match form {
            Form::Raw => raw(&source, &resolved).await?,
            Form::Car => car_of(source, &resolved),
            Form::Files => files(&source, &resolved, text, request).await?,
        }
    };
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    if !headers.contains_key(LOCATION) {
        headers.entry(CACHE_CONTROL).or_insert(IMMUTABLE);
        if let Ok(etag) = HeaderValue::from_str(&etag) {
            headers.entry(ETAG).or_insert(etag);
        }
    }
    if let Ok(path) = HeaderValue::from_str(&utf8_percent_encode(text, PLAIN).to_string()) {
        headers.insert(X_IPFS_PATH, path);
    }
    let mut roots = vec![resolved.cid.to_string()];
    if let Path::Immutable { root, .. } = parsed
        && root != resolved.cid
    {
        roots.insert(0, root.to_string());
    }
    if let Ok(roots) = HeaderValue::from_str(&roots.join(",")) {
        headers.insert(X_IPFS_ROOTS, roots);
    }
    Ok(response)
}

async fn raw(source: &Source, resolved: &Resolved) -> Result<Response, Refusal> {
    let block = source.block(resolved.cid).await.map_err(|cause| refuse(&cause))?;
    let mut response = Response::new(Body::whole(block));
    attach(&mut response, "application/vnd.ipld.raw", &format!("{}.bin", resolved.cid));
    Ok(response)
}

fn car_of(source: Source, resolved: &Resolved) -> Response {
    let pieces = car::write(source, resolved.cid, false, false);
    let frames =
        pieces.map(|piece| piece.map(Frame::data).map_err(|cause| BodyError::from(cause.to_string())));
    let mut response = Response::new(Body::frames(frames));
    attach(
        &mut response,
        "application/vnd.ipld.car; version=1; order=dfs; dups=n",
        &format!("{}.car", resolved.cid),
    );
    response
}

fn attach(response: &mut Response, kind: &'static str, name: &str) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(CONTENT_DISPOSITION, value);
    }
}

async fn files(
    source: &Source,
    resolved: &Resolved,
    text: &str,
    request: &Request,
) -> Result<Response, Refusal> {
    if !resolved.remainder.is_empty() {
        return Err((
            StatusCode::NOT_FOUND,
            "the path leads into a block: ask for it with ?format=raw".into(),
        ));
    }
    if !matches!(resolved.cid.codec(), ipld::RAW | ipld::DAG_PB) {
        return raw(source, resolved).await;
    }
    let entry = unixfs::stat(source, resolved.cid).await.map_err(|cause| refuse(&cause))?;
    match &entry.kind {
        EntryKind::File => file(source, &entry, text, request.headers()),
        EntryKind::Symlink(target) => Ok(Response::new(Body::whole(target.clone()))),
        EntryKind::Directory if !text.ends_with('/') => {
            let mut response = respond::empty(StatusCode::MOVED_PERMANENTLY);
            let place = format!("{}/", utf8_percent_encode(text, PLAIN));
            let place = request.uri().query().map_or(place.clone(), |query| format!("{place}?{query}"));
            if let Ok(place) = HeaderValue::from_str(&place) {
                response.headers_mut().insert(LOCATION, place);
            }
            Ok(response)
        }
        EntryKind::Directory => directory(source, &entry, text, request.headers()).await,
    }
}

/// Bytes of a file, or the range that is asked for.
fn file(source: &Source, entry: &Entry, text: &str, headers: &HeaderMap) -> Result<Response, Refusal> {
    let size = entry.size;
    let range = match headers.get(RANGE).and_then(|value| value.to_str().ok()) {
        Some(asked) => range_of(asked, size).map_err(|()| {
            (StatusCode::RANGE_NOT_SATISFIABLE, format!("invalid range: the file has {size} bytes"))
        })?,
        None => None,
    };
    let (status, range) = match range {
        Some(range) => (StatusCode::PARTIAL_CONTENT, range),
        None => (StatusCode::OK, 0..size),
    };
    let pieces = unixfs::bytes(source.clone(), entry.cid, range.clone());
    let frames =
        pieces.map(|piece| piece.map(Frame::data).map_err(|cause| BodyError::from(cause.to_string())));
    let mut response = Response::new(Body::frames(frames));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, (range.end - range.start).into());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind_of(text)));
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(value) =
            HeaderValue::from_str(&format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1)))
    {
        headers.insert(CONTENT_RANGE, value);
    }
    Ok(response)
}

/// The one range that is asked for; `None` where the whole is answered instead, as RFC 9110 allows.
fn range_of(text: &str, size: u64) -> Result<Option<Range<u64>>, ()> {
    let Some(spec) = text.strip_prefix("bytes=") else { return Ok(None) };
    if spec.contains(',') {
        return Ok(None);
    }
    let Some((from, to)) = spec.trim().split_once('-') else { return Ok(None) };
    let range = match (from.parse::<u64>(), to.parse::<u64>()) {
        (Ok(from), Ok(to)) if from <= to => from..to.saturating_add(1).min(size),
        (Ok(from), Err(_)) if to.is_empty() => from..size,
        (Err(_), Ok(last)) if from.is_empty() && last > 0 => size.saturating_sub(last)..size,
        _ => return Ok(None),
    };
    if range.start >= size { Err(()) } else { Ok(Some(range)) }
}

/// The type of a file by its name; what is not known is bytes.
fn kind_of(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or_default();
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
    match extension.as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "txt" | "md" | "log" => "text/plain; charset=utf-8",
        "xml" => "text/xml; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "mp3" => "audio/mpeg",
        "ogg" => "audio/ogg",
        "pdf" => "application/pdf",
        "wasm" => "application/wasm",
        "zip" => "application/zip",
        "gz" => "application/gzip",
        "car" => "application/vnd.ipld.car",
        _ => "application/octet-stream",
    }
}

/// The `index.html` of a directory, or its names.
async fn directory(
    source: &Source,
    entry: &Entry,
    text: &str,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let links = unixfs::list(source, entry.cid).await.map_err(|cause| refuse(&cause))?.unwrap_or_default();
    if let Some(index) = links.iter().find(|link| link.name == b"index.html") {
        let index = unixfs::stat(source, index.cid).await.map_err(|cause| refuse(&cause))?;
        return file(source, &index, "index.html", headers);
    }
    let escape = |text: &str| {
        text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;")
    };
    let mut page = format!("<!DOCTYPE html>\n<title>{0}</title>\n<h1>{0}</h1>\n<ul>\n", escape(text));
    let hidden = links.len().saturating_sub(MAX_LISTED);
    for link in links.iter().take(MAX_LISTED) {
        let name = String::from_utf8_lossy(&link.name);
        let place = utf8_percent_encode(&name, PLAIN);
        page.push_str(&format!(
            "<li><a href=\"{text}{place}\">{}</a> {}</li>\n",
            escape(&name),
            link.tsize,
            text = utf8_percent_encode(text, PLAIN)
        ));
    }
    page.push_str("</ul>\n");
    if hidden > 0 {
        page.push_str(&format!("<p>and {hidden} more</p>\n"));
    }
    let mut response = Response::new(Body::frames(stream::iter([Ok(Frame::data(page.into()))])));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    // the page is ours and may change
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=604800"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_has_it() {
        assert_eq!(range_of("bytes=0-0", 10), Ok(Some(0..1)));
        assert_eq!(range_of("bytes=5-", 10), Ok(Some(5..10)));
        assert_eq!(range_of("bytes=-3", 10), Ok(Some(7..10)));
        assert_eq!(range_of("bytes=-30", 10), Ok(Some(0..10)));
        assert_eq!(range_of("bytes=8-99", 10), Ok(Some(8..10)));
        assert_eq!(range_of("bytes=10-", 10), Err(()));
        assert_eq!(range_of("bytes=0-", 0), Err(()));
        for whole in ["bytes=3-1", "bytes=a-b", "lines=1-2", "bytes=0-1,3-4", "bytes=-"] {
            assert_eq!(range_of(whole, 10), Ok(None), "{whole}");
        }
    }
}
