//! Cross-origin headers as rs/cors sends them (spec: rest-api 8).

use std::sync::Arc;
use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use http::{Method, StatusCode};

use super::conn::Handler;
use super::respond::{self, Response};

/// The `cors_*` keys of a configuration section. Empty lists mean what they mean when the key is missing.
#[derive(Debug, Clone, Default)]
pub struct CorsOptions {
    /// `*`, origins, or origins with one `*` in them; empty is all.
    pub allowed_origins: Vec<String>,
    /// Empty is GET, POST and HEAD.
    pub allowed_methods: Vec<String>,
    /// Empty is Accept, Content-Type and X-Requested-With.
    pub allowed_headers: Vec<String>,
    /// Empty is none.
    pub exposed_headers: Vec<String>,
    /// Whether scripts may send credentials.
    pub allow_credentials: bool,
    /// How long a browser may remember a preflight; below a second nothing is said.
    pub max_age: Duration,
}

/// Decides about origins.
#[derive(Debug)]
pub struct Cors {
    all_origins: bool,
    origins: Vec<String>,
    /// Before and after the `*`.
    patterns: Vec<(String, String)>,
    methods: Vec<String>,
    all_headers: bool,
    headers: Vec<String>,
    exposed: Option<HeaderValue>,
    allow_credentials: bool,
    max_age: Option<HeaderValue>,
}

/// Blanks and empty items a preflight may hold before it is refused.
const MAX_EMPTY_ITEMS: usize = 16;

impl Cors {
    /// From configuration.
    pub fn new(options: &CorsOptions) -> Self {
        let mut all_origins = options.allowed_origins.is_empty();
        let (mut origins, mut patterns) = (Vec::new(), Vec::new());
        for origin in options.allowed_origins.iter().map(|origin| origin.to_lowercase()) {
            match origin.split_once('*') {
                _ if origin == "*" => all_origins = true,
                Some((before, after)) => patterns.push((before.to_string(), after.to_string())),
                None => origins.push(origin),
            }
        }
        let methods = match &options.allowed_methods[..] {
            [] => ["GET", "POST", "HEAD"].map(String::from).to_vec(),
            methods => methods.to_vec(),
        };
        let mut headers: Vec<String> = match &options.allowed_headers[..] {
            [] => ["accept", "content-type", "x-requested-with"].map(String::from).to_vec(),
            headers => headers.iter().map(|header| header.to_lowercase()).collect(),
        };
        headers.sort();
        headers.dedup();
        let exposed: Vec<String> = options.exposed_headers.iter().map(|name| canonical_name(name)).collect();
        Self {
            all_origins,
            origins,
            patterns,
            methods,
            all_headers: headers.iter().any(|header| header == "*"),
            headers,
            exposed: if exposed.is_empty() { None } else { HeaderValue::from_str(&exposed.join(", ")).ok() },
            allow_credentials: options.allow_credentials,
            max_age: match options.max_age.as_secs() {
                0 => None,
                seconds => Some(HeaderValue::from(seconds)),
            },
        }
    }

    /// Answers preflights and adds headers to everything else.
    pub fn layer(self, handler: Handler) -> Handler {
        let cors = Arc::new(self);
        Arc::new(move |request, peer| {
            if is_preflight(request.method(), request.headers()) {
                let response = cors.preflight(request.headers());
                return Box::pin(async move { response });
            }
            let method = request.method().clone();
            let origin = request.headers().get(ORIGIN).cloned();
            let (cors, answer) = (Arc::clone(&cors), handler(request, peer));
            Box::pin(async move {
                let mut response = answer.await;
                cors.decorate(&method, origin.as_ref(), response.headers_mut());
                response
            })
        })
    }

    fn decorate(&self, method: &Method, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        headers.append(VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = origin.filter(|origin| !origin.is_empty()) else { return };
        if !self.allows_origin(origin) || !self.allows_method(method.as_str()) {
            return;
        }
        self.allow_origin(origin, headers);
        if let Some(exposed) = &self.exposed {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
        if self.allow_credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    fn preflight(&self, request: &HeaderMap) -> Response {
        let mut response = respond::empty(StatusCode::NO_CONTENT);
        let headers = response.headers_mut();
        headers.insert(
            VARY,
            HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
        );
        let Some(origin) = request.get(ORIGIN).filter(|origin| !origin.is_empty()) else { return response };
        let Some(method) = request.get(ACCESS_CONTROL_REQUEST_METHOD) else { return response };
        let asked: Vec<&HeaderValue> = request.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter().collect();
        let is_allowed = self.allows_origin(origin)
            && method.to_str().is_ok_and(|method| self.allows_method(method))
            && (self.all_headers || self.allows_headers(&asked));
        if !is_allowed {
            return response;
        }
        self.allow_origin(origin, headers);
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, method.clone());
        if asked.first().is_some_and(|first| !first.is_empty()) {
            for value in asked {
                headers.append(ACCESS_CONTROL_ALLOW_HEADERS, value.clone());
            }
        }
        if self.allow_credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(max_age) = &self.max_age {
            headers.insert(ACCESS_CONTROL_MAX_AGE, max_age.clone());
        }
        response
    }

    fn allow_origin(&self, origin: &HeaderValue, headers: &mut HeaderMap) {
        let value = if self.all_origins { HeaderValue::from_static("*") } else { origin.clone() };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, value);
    }

    fn allows_origin(&self, origin: &HeaderValue) -> bool {
        if self.all_origins {
            return true;
        }
        let origin = String::from_utf8_lossy(origin.as_bytes()).to_lowercase();
        self.origins.contains(&origin)
            || self.patterns.iter().any(|(before, after)| {
                origin.len() >= before.len() + after.len()
                    && origin.starts_with(before.as_str())
                    && origin.ends_with(after.as_str())
            })
    }

    fn allows_method(&self, method: &str) -> bool {
        method == "OPTIONS" || self.methods.iter().any(|allowed| allowed == method)
    }

    /// Browsers send the names in lower case, sorted and unique; anything else is refused, as rs/cors does.
    fn allows_headers(&self, asked: &[&HeaderValue]) -> bool {
        let mut next = 0;
        let mut n_empty = 0;
        for value in asked {
            for item in value.as_bytes().split(|byte| *byte == b',') {
                let Some(item) = trim_one_blank(item) else { return false };
                if item.is_empty() {
                    n_empty += 1;
                    if n_empty > MAX_EMPTY_ITEMS {
                        return false;
                    }
                    continue;
                }
                match self.headers[next..].iter().position(|allowed| allowed.as_bytes() == item) {
                    Some(found) => next += found + 1,
                    None => return false,
                }
            }
        }
        true
    }
}

fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.get(ACCESS_CONTROL_REQUEST_METHOD).is_some_and(|method| !method.is_empty())
}

/// At most one space or tab at each side; more is refused.
fn trim_one_blank(item: &[u8]) -> Option<&[u8]> {
    let is_blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let item = match item {
        [first, rest @ ..] if is_blank(first) => rest,
        item => item,
    };
    let item = match item {
        [rest @ .., last] if is_blank(last) => rest,
        item => item,
    };
    let has_more = item.first().is_some_and(is_blank) || item.last().is_some_and(is_blank);
    if has_more { None } else { Some(item) }
}

/// A header name as Go spells it: `x-stream-output` becomes `X-Stream-Output`.
pub fn canonical_name(name: &str) -> String {
    let mut starts = true;
    name.chars()
        .map(|c| {
            let c = if starts { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
            starts = c == '-';
            c
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generated() -> Cors {
        Cors::new(&CorsOptions {
            allowed_origins: vec!["*".into()],
            allowed_methods: vec!["GET".into()],
            exposed_headers: vec!["Content-Type".into(), "x-stream-output".into()],
            allow_credentials: true,
            ..CorsOptions::default()
        })
    }

    fn asked(origin: &str, method: &str, headers: Option<&str>) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert(ORIGIN, origin.parse().unwrap());
        map.insert(ACCESS_CONTROL_REQUEST_METHOD, method.parse().unwrap());
        if let Some(headers) = headers {
            map.insert(ACCESS_CONTROL_REQUEST_HEADERS, headers.parse().unwrap());
        }
        map
    }

    fn is_granted(cors: &Cors, asked: &HeaderMap) -> bool {
        cors.preflight(asked).headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN)
    }

    #[test]
    fn a_preflight_is_granted_for_allowed_methods_and_sorted_lower_case_headers() {
        let cors = generated();
        assert!(is_granted(&cors, &asked("http://x.y", "GET", Some("accept,content-type"))));
        assert!(is_granted(&cors, &asked("http://x.y", "GET", None)));
        assert!(!is_granted(&cors, &asked("http://x.y", "POST", None)));
        assert!(!is_granted(&cors, &asked("http://x.y", "get", None)));
        assert!(!is_granted(&cors, &asked("http://x.y", "GET", Some("Content-Type"))));
        assert!(!is_granted(&cors, &asked("http://x.y", "GET", Some("content-type,accept"))));
        assert!(!is_granted(&cors, &asked("http://x.y", "GET", Some("accept,  content-type"))));
    }

    #[test]
    fn actual_requests_get_headers_only_where_the_method_is_allowed() {
        let cors = generated();
        let origin = HeaderValue::from_static("http://x.y");
        let mut headers = HeaderMap::new();
        cors.decorate(&Method::GET, Some(&origin), &mut headers);
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(headers[ACCESS_CONTROL_EXPOSE_HEADERS], "Content-Type, X-Stream-Output");
        let mut headers = HeaderMap::new();
        cors.decorate(&Method::POST, Some(&origin), &mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers[VARY], "Origin");
    }

    #[test]
    fn origins_match_without_case_and_with_one_wildcard() {
        let cors = Cors::new(&CorsOptions {
            allowed_origins: vec!["http://A.b".into(), "https://*.c.d".into()],
            ..CorsOptions::default()
        });
        let allows = |origin: &'static str| cors.allows_origin(&HeaderValue::from_static(origin));
        assert!(allows("http://a.B") && allows("https://x.c.d") && allows("https://.c.d"));
        assert!(!allows("http://a.b.c") && !allows("https://c.d"));
    }
}
