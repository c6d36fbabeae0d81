//! Kubo's RPC: one table of endpoints, and what they share.
//!
//! ```text
//!  request ─ method ─ origin ─ token ─ table ─ arguments and options ─ endpoint ─▶ Answer ─ head, chunks, trailer
//!             405       403     403     404         400                             500 if nothing was said yet
//! ```
//!
//! The order of checks and their texts are those of `go-ipfs-cmds`.

mod add;
mod answer;
mod bitswap;
mod block;
mod call;
pub(super) mod car;
mod dag;
mod files;
mod mfs;
mod misc;
mod name;
mod patch;
mod pin;
mod refs;
mod repo;
mod routing;
mod swarm;
mod table;
mod text;

use std::sync::Arc;

use cluster_compat::http::conn::{Handler, PeerAddr, Request};
use cluster_compat::http::mux;
use cluster_compat::http::respond::Response;
use futures::FutureExt as _;
use http::header::{
    ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION,
    HeaderMap, HeaderValue, ORIGIN, REFERER, USER_AGENT,
};
use http::{Method, StatusCode};

pub(super) use self::text::hash_name;

use self::answer::{Answer, Failure, plain};
use self::call::Call;
use super::Core;

/// The version of Kubo whose answers these are; tools compare it.
pub(super) const KUBO_VERSION: &str = "0.42.0";

/// Who may call.
#[derive(Debug, Clone)]
pub(super) struct Access {
    /// What callers must show; empty: nothing.
    pub(super) token: String,
    /// Origins of web pages that may call.
    pub(super) origins: Vec<String>,
}

impl Access {
    /// The origin of a request from a web page that may call.
    fn allowed_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        let text = origin.to_str().ok()?;
        self.origins.iter().any(|known| known == text || known == "*").then(|| origin.clone())
    }
}

/// Answers the RPC.
pub(super) fn handler(core: Arc<Core>, access: Access) -> Handler {
    let access = Arc::new(access);
    Arc::new(move |request: Request, _peer: PeerAddr| {
        let (core, access) = (Arc::clone(&core), Arc::clone(&access));
        async move { answer(core, &access, request).await }.boxed()
    })
}

async fn answer(core: Arc<Core>, access: &Access, request: Request) -> Response {
    if !request.uri().path().starts_with("/api/v0/version")
        && let Some(refusal) = other_version(request.headers())
    {
        return refusal;
    }
    let origin = access.allowed_origin(request.headers());
    let is_post = request.method() == Method::POST;
    let mut response = match refuse(access, request.method(), request.headers()) {
        Some(refusal) => refusal,
        None => call(core, request).await,
    };
    if is_post && let Some(origin) = origin {
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    response
}

/// Answers a request that may be asked.
async fn call(core: Arc<Core>, request: Request) -> Response {
    if let Some(redirect) = clean(&request) {
        return redirect;
    }
    let path = String::from_utf8_lossy(&mux::decoded_path(request.uri())).into_owned();
    let Some((endpoint, arg)) = path.strip_prefix("/api/v0/").and_then(table::find) else {
        return plain(StatusCode::NOT_FOUND, "404 page not found");
    };
    let mut call = match Call::parse(endpoint, arg, request) {
        Ok(call) => call,
        Err(refusal) => return plain(StatusCode::BAD_REQUEST, &refusal),
    };
    let Ok(timeout) = call.timeout() else { return answer::empty() };
    let deadline = timeout.map(|timeout| tokio::time::Instant::now() + timeout);
    call.deadline = deadline;
    let run = (endpoint.run)(core, call);
    let answer = match deadline {
        None => run.await,
        Some(deadline) => match tokio::time::timeout_at(deadline, run).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::deadline()),
        },
    };
    answer.unwrap_or_else(Answer::Failure).into_response(deadline).await
}

/// What is refused before the path is looked at.
fn refuse(access: &Access, method: &Method, headers: &HeaderMap) -> Option<Response> {
    if *method == Method::OPTIONS {
        let mut response = cluster_compat::http::respond::empty(StatusCode::NO_CONTENT);
        let asked = headers.get(ACCESS_CONTROL_REQUEST_METHOD);
        answer::options(&mut response, asked.is_some());
        if asked.is_some_and(|method| method == "POST")
            && let Some(origin) = access.allowed_origin(headers)
        {
            response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            let methods = HeaderValue::from_static("POST");
            response.headers_mut().insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        }
        return Some(response);
    }
    if *method != Method::POST {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "405 - Method Not Allowed");
        response.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static("OPTIONS, POST"));
        return Some(response);
    }
    if !access.token.is_empty() && !shows(headers, &access.token) {
        let words = "Kubo RPC Access Denied: Please provide a valid authorization token as defined in the \
                     API.Authorizations configuration.";
        return Some(plain(StatusCode::FORBIDDEN, words));
    }
    let text = |name| headers.get(&name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let is_known = |origin: &str| access.origins.iter().any(|known| known == origin || known == "*");
    let (origin, referer) = (text(ORIGIN), text(REFERER));
    let is_allowed = match (&origin, &referer) {
        (None, None) => {
            let agent = text(USER_AGENT).unwrap_or_default();
            agent.contains("Electron") || !agent.starts_with("Mozilla")
        }
        (origin, referer) => {
            origin.as_ref().is_none_or(|origin| origin.is_empty() || is_known(origin))
                && referer.as_ref().is_none_or(|referer| referer.is_empty() || is_known(&origin_of(referer)))
        }
    };
    (!is_allowed).then(|| plain(StatusCode::FORBIDDEN, "403 - Forbidden"))
}

/// Whether a request shows the token, as bearer or as password of basic authentication.
fn shows(headers: &HeaderMap, token: &str) -> bool {
    use base64::Engine as _;
    use sha2::Digest as _;
    // digests are compared: how far they agree tells nothing about the token
    let hide = |text: &[u8]| sha2::Sha256::digest(text);
    let shown = headers.get(AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
    let basic = base64::engine::general_purpose::STANDARD.encode(format!(":{token}"));
    let basic_token = base64::engine::general_purpose::STANDARD.encode(token);
    [format!("Bearer {token}"), format!("Basic {basic}"), format!("Basic {basic_token}")]
        .iter()
        .any(|expected| hide(expected.as_bytes()) == hide(shown))
}

/// Scheme and host of a URL.
fn origin_of(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return String::new() };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    format!("{scheme}://{host}")
}

/// The refusal of a client that says it is another version of Kubo.
fn other_version(headers: &HeaderMap) -> Option<Response> {
    let agent = String::from_utf8_lossy(headers.get(USER_AGENT)?.as_bytes()).into_owned();
    let is_kubo = agent.contains("/kubo/") || agent.contains("/go-ipfs/");
    let ours = format!("/kubo/{KUBO_VERSION}/");
    (is_kubo && !agent.starts_with(&ours)).then(|| {
        let words = format!("api version mismatch ({ours} != {agent})");
        let mut refusal = plain(StatusCode::BAD_REQUEST, &words);
        refusal.headers_mut().remove(http::header::VARY);
        refusal
    })
}

/// The redirect of a path with repeated slashes or dots.
fn clean(request: &Request) -> Option<Response> {
    let path = request.uri().path();
    if !path.contains("//") && !path.contains("/.") {
        return None;
    }
    let redirect = mux::clean_redirect(request.uri())?;
    let location = redirect.headers().get(http::header::LOCATION)?.clone();
    let mut response = cluster_compat::http::respond::empty(StatusCode::TEMPORARY_REDIRECT);
    response.headers_mut().insert(http::header::LOCATION, location);
    Some(response)
}
