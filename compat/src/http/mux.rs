//! Routes in an ordered table, matched as gorilla/mux 1.8.1 matches them (spec: rest-api 2).
//!
//! ```text
//!  /pins/{hash}/recover              one segment
//!  /pins/{type:ipfs|ipns}/{path:.*}  one of several words; the rest, empty or with slashes
//! ```

use std::borrow::Cow;

use http::{Method, StatusCode, Uri};
use percent_encoding::percent_decode;

use super::respond::{self, Body, Response};

/// One line of a table.
#[derive(Debug, Clone, Copy)]
pub struct Route<T> {
    /// `GET`, `POST`, …
    pub method: &'static str,
    /// Segments between slashes; `{name}`, `{name:a|b}` and `{name:.*}` are captured.
    pub pattern: &'static str,
    /// What is found there.
    pub target: T,
}

/// A table of routes; the first that matches wins.
#[derive(Debug)]
pub struct Mux<T> {
    routes: Vec<Compiled<T>>,
}

#[derive(Debug)]
struct Compiled<T> {
    method: &'static str,
    /// What every path begins with that can match: most are told apart by this alone.
    prefix: &'static str,
    segments: Vec<Segment>,
    target: T,
}

#[derive(Debug)]
enum Segment {
    Literal(&'static str),
    Any(&'static str),
    OneOf(&'static str, Vec<&'static str>),
    Rest(&'static str),
}

/// What a path captured, by name; bytes that are no UTF-8 are replaced one by one, as Go prints them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params(Vec<(&'static str, String)>);

impl Params {
    /// The captured text, or the empty string if the route has no such name.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value.as_str())
    }
}

/// Where a request leads.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a, T> {
    /// A route and what it captured.
    Route(&'a T, Params),
    /// 404.
    NotFound,
    /// 405, with an empty body.
    MethodNotAllowed,
}

impl<T> Mux<T> {
    /// Compiles a table.
    pub fn new(routes: impl IntoIterator<Item = Route<T>>) -> Self {
        let compile = |route: Route<T>| Compiled {
            method: route.method,
            prefix: route.pattern.split('{').next().unwrap_or_default(),
            segments: route.pattern.split('/').skip(1).map(Segment::parse).collect(),
            target: route.target,
        };
        Self { routes: routes.into_iter().map(compile).collect() }
    }

    /// Finds the route of a decoded path. "Method not allowed" is forgotten as soon as a later route has the
    /// method, whatever its path: a property of the reference's router that clients can see.
    pub fn find(&self, method: &Method, path: &[u8]) -> Found<'_, T> {
        let mut is_known_path = false;
        for route in &self.routes {
            let is_method = route.method == method.as_str();
            match (route.captures(path), is_method) {
                (Some(params), true) => return Found::Route(&route.target, params),
                (Some(_), false) => is_known_path = true,
                (None, true) => is_known_path = false,
                (None, false) => {}
            }
        }
        if is_known_path { Found::MethodNotAllowed } else { Found::NotFound }
    }
}

impl Segment {
    fn parse(text: &'static str) -> Self {
        let Some(inner) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) else {
            return Self::Literal(text);
        };
        match inner.split_once(':') {
            None => Self::Any(inner),
            Some((name, ".*")) => Self::Rest(name),
            Some((name, words)) => Self::OneOf(name, words.split('|').collect()),
        }
    }
}

impl<T> Compiled<T> {
    fn captures(&self, path: &[u8]) -> Option<Params> {
        if !path.starts_with(self.prefix.as_bytes()) {
            return None;
        }
        let mut rest = path.strip_prefix(b"/")?;
        let mut params = Params::default();
        for (i, segment) in self.segments.iter().enumerate() {
            if let Segment::Rest(name) = segment {
                // `.` of the reference's pattern does not match a line feed
                if rest.contains(&b'\n') {
                    return None;
                }
                params.0.push((*name, lossy(rest)));
                return Some(params);
            }
            let is_last = i + 1 == self.segments.len();
            let (this, next) = match rest.iter().position(|byte| *byte == b'/') {
                Some(slash) if !is_last => (&rest[..slash], &rest[slash + 1..]),
                None if is_last => (rest, &[][..]),
                _ => return None,
            };
            match segment {
                Segment::Literal(text) if this == text.as_bytes() => {}
                Segment::Any(name) if !this.is_empty() => params.0.push((*name, lossy(this))),
                Segment::OneOf(name, words) if words.iter().any(|word| word.as_bytes() == this) => {
                    params.0.push((*name, lossy(this)));
                }
                _ => return None,
            }
            rest = next;
        }
        Some(params)
    }
}

/// UTF-8 with U+FFFD for each byte that is none.
pub fn lossy(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
    }
    text
}

/// The percent-decoded path of a request.
pub fn decoded_path(uri: &Uri) -> Cow<'_, [u8]> {
    percent_decode(uri.path().as_bytes()).into()
}

/// 405 as the reference sends it: no body, no `Allow`.
pub fn method_not_allowed() -> Response {
    respond::empty(StatusCode::METHOD_NOT_ALLOWED)
}

/// The 307 of a path that ends in a slash (spec: rest-api 2.2). `/` itself is left to the router.
pub fn slash_redirect(method: &Method, uri: &Uri) -> Option<Response> {
    let path = decoded_path(uri);
    let shorter = path.strip_suffix(b"/")?;
    if shorter.is_empty() {
        return None;
    }
    let (origin, mut location) = (origin(uri), escape_path(shorter));
    if origin.is_empty() && (!location.starts_with("//") || location.starts_with("///")) {
        location = clean(&location);
    }
    let location = format!("{origin}{location}{}", query(uri));
    let body = match *method {
        Method::GET => {
            Body::whole(format!("<a href=\"{}\">Temporary Redirect</a>.\n\n", escape_html(&location)))
        }
        _ => Body::empty(),
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    if matches!(*method, Method::GET | Method::HEAD) {
        let html = http::HeaderValue::from_static("text/html; charset=utf-8");
        response.headers_mut().insert(http::header::CONTENT_TYPE, html);
    }
    insert_location(&mut response, &location);
    Some(response)
}

/// The 301 of a path with repeated slashes or dot segments (spec: rest-api 2.3).
pub fn clean_redirect(uri: &Uri) -> Option<Response> {
    let path = decoded_path(uri);
    if is_clean(&path) {
        return None;
    }
    let mut response = respond::empty(StatusCode::MOVED_PERMANENTLY);
    let location = format!("{}{}{}", origin(uri), escape_path(&clean_bytes(&path)), query(uri));
    insert_location(&mut response, &location);
    Some(response)
}

fn insert_location(response: &mut Response, location: &str) {
    if let Ok(value) = http::HeaderValue::from_str(location) {
        response.headers_mut().insert(http::header::LOCATION, value);
    }
}

/// `http://host` of an absolute target.
fn origin(uri: &Uri) -> String {
    match (uri.scheme_str(), uri.authority()) {
        (Some(scheme), Some(authority)) => format!("{scheme}://{authority}"),
        _ => String::new(),
    }
}

fn query(uri: &Uri) -> String {
    uri.query().map_or_else(String::new, |query| format!("?{query}"))
}

fn is_clean(path: &[u8]) -> bool {
    // nearly all paths are; only the others are built anew
    let suspicious = path.windows(2).any(|pair| pair == b"//" || pair == b"/.");
    path.first() == Some(&b'/') && (!suspicious || clean_bytes(path) == path)
}

/// Go's `path.Clean` of a rooted path, a final slash kept.
pub(super) fn clean_bytes(path: &[u8]) -> Vec<u8> {
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in path.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut cleaned = Vec::with_capacity(path.len() + 1);
    for segment in &segments {
        cleaned.push(b'/');
        cleaned.extend_from_slice(segment);
    }
    if cleaned.is_empty() || path.ends_with(b"/") {
        cleaned.push(b'/');
    }
    cleaned
}

fn clean(path: &str) -> String {
    String::from_utf8_lossy(&clean_bytes(path.as_bytes())).into_owned()
}

/// A decoded path as Go's `net/url` writes it.
pub fn escape_path(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(byte) {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(response: Option<Response>) -> Option<String> {
        response.map(|response| response.headers()[http::header::LOCATION].to_str().unwrap().to_string())
    }

    fn table() -> Mux<u8> {
        let route = |method, pattern, target| Route { method, pattern, target };
        Mux::new([
            route("GET", "/id", 1),
            route("POST", "/pins/{hash}/recover", 2),
            route("GET", "/pins/{hash}", 3),
            route("POST", "/pins/{keyType:ipfs|ipns|ipld}/{path:.*}", 4),
            route("DELETE", "/pins/{hash}", 5),
            route("GET", "/health", 6),
        ])
    }

    #[test]
    fn the_first_route_that_matches_wins() {
        let mux = table();
        let found = |method, path: &str| match mux.find(&method, path.as_bytes()) {
            Found::Route(target, params) => (*target, params.get("hash").to_string() + params.get("path")),
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(found(Method::POST, "/pins/ipfs/recover"), (2, "ipfs".into()));
        assert_eq!(found(Method::GET, "/pins/ipfs"), (3, "ipfs".into()));
        assert_eq!(found(Method::POST, "/pins/ipns/a/b"), (4, "a/b".into()));
        assert_eq!(found(Method::POST, "/pins/ipns/"), (4, String::new()));
    }

    #[test]
    fn a_known_path_is_forgotten_when_a_later_route_has_the_method() {
        let mux = table();
        assert_eq!(mux.find(&Method::DELETE, b"/id"), Found::NotFound);
        assert_eq!(mux.find(&Method::DELETE, b"/health"), Found::MethodNotAllowed);
        assert_eq!(mux.find(&Method::HEAD, b"/id"), Found::MethodNotAllowed);
        assert_eq!(mux.find(&Method::GET, b"/pins/a/b"), Found::NotFound);
        assert_eq!(mux.find(&Method::POST, b"/pins/ipfs/a\nb"), Found::NotFound);
    }

    #[test]
    fn a_final_slash_redirects_as_the_reference_does() {
        let to = |target: &str| location(slash_redirect(&Method::GET, &target.parse().unwrap()));
        assert_eq!(to("/id/?a=b%20c").as_deref(), Some("/id?a=b%20c"));
        assert_eq!(to("///id///").as_deref(), Some("/id/"));
        assert_eq!(to("//evil.com/").as_deref(), Some("//evil.com"));
        assert_eq!(to("/pins/a%2F").as_deref(), Some("/pins/a"));
        assert_eq!(to("/pins/%2F%2F").as_deref(), Some("/pins/"));
        assert_eq!(to("/%C3%A9/").as_deref(), Some("/%C3%A9"));
        assert_eq!(to("http://foo/id/").as_deref(), Some("http://foo/id"));
        assert_eq!(to("/"), None);
        assert_eq!(to("/id"), None);
    }

    #[test]
    fn an_unclean_path_moves_for_good() {
        let to = |target: &str| location(clean_redirect(&target.parse().unwrap()));
        assert_eq!(to("/pins//a?x=1").as_deref(), Some("/pins/a?x=1"));
        assert_eq!(to("/a/../id").as_deref(), Some("/id"));
        assert_eq!(to("/id/.").as_deref(), Some("/id"));
        assert_eq!(to("/api/v0/pin/add/%2Fipfs%2FQm").as_deref(), Some("/api/v0/pin/add/ipfs/Qm"));
        assert_eq!(to("/.well-known/x"), None);
        assert_eq!(to("/id/"), None);
    }
}
