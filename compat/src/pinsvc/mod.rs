//! The pinning service API (9097): the published interface that Kubo and others pin remotely with (spec: rest-api 12).
//!
//! ```text
//!  http::conn ── log ── cors ── redirects ── ROUTES ─┬─ pins   one pin: add, look, replace, remove
//!                                                    └─ list   many: filters, order, pages
//! ```
//!
//! - A request to pin is named by its CID: there is one for each CID, whoever asked for it.
//! - A handler reads all its parameters before it calls the cluster; a refused request has executed nothing.
//! - Answers are whole documents; one longer than a page is written while it is made.
//! - What is remembered between requests only spares work: see [`newest`].

mod convert;
mod error;
mod list;
mod newest;
mod pins;
mod types;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt, join_all};
use http::{HeaderName, HeaderValue, StatusCode};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::error::Failure;
use self::newest::Lists;
use crate::api::ClusterApi;
use crate::config::HttpApi;
use crate::go::query::Query;
use crate::http::conn::{self, ConnOptions, Handler, Request};
use crate::http::cors::{Cors, CorsOptions};
use crate::http::listen::Listener;
use crate::http::log::{AccessLog, Facility};
use crate::http::mux::{self, Found, Mux, Params, Route};
use crate::http::respond::{self, Response};

/// What a handler gives.
type Answer = Result<Response, Failure>;

/// What all requests share.
struct Shared {
    api: Arc<dyn ClusterApi>,
    lists: Lists,
}

/// A request that has found its route.
struct Call {
    shared: Arc<Shared>,
    params: Params,
    query: Query,
    request: Request,
}

/// The handlers, by what they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    List,
    Add,
    Get,
    Replace,
    Remove,
    Token,
    Health,
}

/// Every route, in the order that decides between 404 and 405.
const ROUTES: [(&str, &str, Endpoint); 7] = [
    ("GET", "/pins", Endpoint::List),
    ("POST", "/pins", Endpoint::Add),
    ("GET", "/pins/{requestID}", Endpoint::Get),
    ("POST", "/pins/{requestID}", Endpoint::Replace),
    ("DELETE", "/pins/{requestID}", Endpoint::Remove),
    ("POST", "/token", Endpoint::Token),
    ("GET", "/health", Endpoint::Health),
];

impl Endpoint {
    fn answer(self, call: Call) -> BoxFuture<'static, Answer> {
        match self {
            Self::List => list::list(call).boxed(),
            Self::Add => pins::add(call).boxed(),
            Self::Get => pins::get(call).boxed(),
            Self::Replace => pins::replace(call).boxed(),
            Self::Remove => pins::remove(call).boxed(),
            // tokens are for users, and there are none without credentials
            Self::Token => async { Err(Failure::no_credentials()) }.boxed(),
            Self::Health => async { Ok(respond::empty_json(StatusCode::NO_CONTENT)) }.boxed(),
        }
    }
}

/// Why the API cannot be served as configured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key that is set and that this build does not serve.
    #[error("{section}.{key} is not supported yet")]
    Unsupported {
        /// The section, as in the file.
        section: &'static str,
        /// The key.
        key: &'static str,
    },
    /// The access log cannot be opened.
    #[error("cannot open the access log {path}: {source}")]
    Log {
        /// The configured file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The API, ready to serve.
#[derive(Clone)]
pub struct PinSvc {
    handler: Handler,
    options: ConnOptions,
}

impl PinSvc {
    /// An API over `api`. `folder` is where a relative `http_log_file` lies.
    pub fn new(config: &HttpApi, folder: &Path, api: Arc<dyn ClusterApi>) -> Result<Self, Error> {
        let unsupported = |key| Err(Error::Unsupported { section: config.key, key });
        if config.basic_auth_credentials.is_some() {
            return unsupported("basic_auth_credentials");
        }
        if config.tls_paths(folder).is_some() {
            return unsupported("ssl_cert_file");
        }
        if !config.libp2p_listen_multiaddress.is_empty() {
            return unsupported("libp2p_listen_multiaddress");
        }
        let log_path = config.http_log_path(folder);
        let log = AccessLog::open(log_path.as_deref(), Facility::PinSvc)
            .map_err(|source| Error::Log { path: log_path.unwrap_or_default(), source })?;
        let options = ConnOptions {
            read_header_timeout: config.read_header_timeout.to_std(),
            read_timeout: config.read_timeout.to_std(),
            write_timeout: config.write_timeout.to_std(),
            idle_timeout: config.idle_timeout.to_std(),
            max_header_bytes: usize::try_from(config.max_header_bytes).unwrap_or(4096),
            ..ConnOptions::default()
        };
        Ok(Self { handler: log.layer(handler(config, api)), options })
    }

    /// Answers requests, logged; for servers of one's own.
    pub fn handler(&self) -> Handler {
        Arc::clone(&self.handler)
    }

    /// Serves all `listeners` until `stop`, then ends what is still under way.
    pub async fn serve(self, listeners: Vec<Listener>, stop: CancellationToken) {
        let serving = listeners.into_iter().map(|listener| {
            info!(target: "pinsvcapi", "PINSVCAPI (HTTP): {}", listener.local_addr());
            conn::serve(listener, self.handler(), self.options, stop.clone())
        });
        join_all(serving).await;
    }
}

/// Everything between the log and the cluster: cross-origin headers, redirects, routes.
fn handler(config: &HttpApi, api: Arc<dyn ClusterApi>) -> Handler {
    let routes = ROUTES.map(|(method, pattern, target)| Route { method, pattern, target });
    let shared = Arc::new(Shared { api, lists: Lists::default() });
    let router = Arc::new(Router { shared, mux: Mux::new(routes), custom: custom_headers(config) });
    let cors = Cors::new(&CorsOptions {
        allowed_origins: config.cors_allowed_origins.clone(),
        allowed_methods: config.cors_allowed_methods.clone(),
        allowed_headers: config.cors_allowed_headers.clone(),
        exposed_headers: config.cors_exposed_headers.clone(),
        allow_credentials: config.cors_allow_credentials,
        max_age: config.cors_max_age.to_std(),
    });
    cors.layer(Arc::new(move |request, _| router.answer(request)))
}

/// Configured headers; names and values that HTTP cannot carry are left out, as Go's server does.
fn custom_headers(config: &HttpApi) -> Vec<(HeaderName, HeaderValue)> {
    let pairs =
        config.headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
    pairs.filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?))).collect()
}

struct Router {
    shared: Arc<Shared>,
    mux: Mux<Endpoint>,
    custom: Vec<(HeaderName, HeaderValue)>,
}

impl Router {
    fn answer(self: &Arc<Self>, request: Request) -> BoxFuture<'static, Response> {
        let redirect = mux::slash_redirect(request.method(), request.uri())
            .or_else(|| mux::clean_redirect(request.uri()));
        if let Some(redirect) = redirect {
            return async { redirect }.boxed();
        }
        let path = mux::decoded_path(request.uri());
        let (endpoint, params) = match self.mux.find(request.method(), &path) {
            Found::Route(endpoint, params) => (*endpoint, params),
            Found::NotFound => {
                let mut response = Failure::no_route().into_response();
                respond::add_custom(&mut response, &self.custom);
                return async { response }.boxed();
            }
            Found::MethodNotAllowed => return async { mux::method_not_allowed() }.boxed(),
        };
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let call = Call { shared: Arc::clone(&self.shared), params, query, request };
        let router = Arc::clone(self);
        async move {
            let mut response = endpoint.answer(call).await.unwrap_or_else(Failure::into_response);
            respond::add_custom(&mut response, &router.custom);
            response
        }
        .boxed()
    }
}
