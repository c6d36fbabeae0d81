//! A face: one configured section, one table of routes, served on any number of listeners (spec: rest-api 1).
//!
//! ```text
//!  listeners ─ TLS ─ conn ── log ── auth ── cors ── redirects ── routes ── Site::answer
//!                                     └─ 401          └─ 307, 301   └─ 404, 405      configured headers
//! ```
//!
//! REST API and pinning service are the same but for their routes and their error document, which a [`Site`] brings.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt, join_all};
use http::{HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::auth::{Credentials, Document, User};
use super::conn::{self, ConnOptions, Handler, Layer, PeerAddr, Request};
use super::cors::{Cors, CorsOptions};
use super::listen::Listener;
use super::log::{AccessLog, Facility};
use super::mux::{self, Found, Mux, Params, Route};
use super::respond::{self, Response};
use super::tls;
use crate::config::HttpApi;
use crate::go::query::Query;

/// A request that has found its route.
pub struct Call {
    /// What the path captured.
    pub params: Params,
    /// The query.
    pub query: Query,
    /// The request, its body unread.
    pub request: Request,
}

impl Call {
    /// Who asks, where credentials are configured.
    pub fn user(&self) -> Option<&User> {
        self.request.extensions().get()
    }
}

/// Answers a request that has found its route. Dropping the future ends the work.
pub type Answer<E> = Arc<dyn Fn(E, Call) -> BoxFuture<'static, Response> + Send + Sync>;

/// What makes a face the one it is.
pub struct Site<E: 'static> {
    /// Where access lines go if no file is configured.
    pub facility: Facility,
    /// Method, pattern and endpoint, in the order that decides between 404 and 405.
    pub routes: &'static [(&'static str, &'static str, E)],
    /// What the endpoints answer.
    pub answer: Answer<E>,
    /// The error document with its line feed; refusals are logged here too.
    pub document: Document,
}

/// Why a face cannot be served as configured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate or its key.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The access log cannot be opened.
    #[error("cannot open the access log {path}: {source}")]
    Log {
        /// The configured file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Marks an answer (as an extension) whose own headers replace configured ones of the same name.
#[derive(Debug, Clone, Copy)]
pub struct ReplacesConfigured;

/// A face, ready to serve.
#[derive(Clone)]
pub struct Face {
    handler: Handler,
    options: ConnOptions,
    tls: Option<tls::Server>,
    facility: Facility,
    is_authenticated: bool,
}

impl Face {
    /// `site` as `config` wants it served. `folder` is where relative files lie.
    pub fn new<E: Copy + Send + Sync>(config: &HttpApi, folder: &Path, site: Site<E>) -> Result<Self, Error> {
        let tls = config.tls_paths(folder).map(|(certificate, key)| tls::Server::load(&certificate, &key));
        let log_path = config.http_log_path(folder);
        let log = AccessLog::open(log_path.as_deref(), site.facility)
            .map_err(|source| Error::Log { path: log_path.unwrap_or_default(), source })?;
        let options = ConnOptions {
            read_header_timeout: config.read_header_timeout.to_std(),
            read_timeout: config.read_timeout.to_std(),
            write_timeout: config.write_timeout.to_std(),
            idle_timeout: config.idle_timeout.to_std(),
            max_header_bytes: usize::try_from(config.max_header_bytes).unwrap_or(4096),
            ..ConnOptions::default()
        };
        Ok(Self {
            options,
            tls: tls.transpose()?,
            facility: site.facility,
            is_authenticated: config.basic_auth_credentials.is_some(),
            handler: log.layer(handler(config, site)),
        })
    }

    /// The same face behind `layer`.
    #[must_use]
    pub fn layered(mut self, layer: Layer) -> Self {
        self.handler = layer(self.handler);
        self
    }

    /// Answers requests, logged; for servers of one's own.
    pub fn handler(&self) -> Handler {
        Arc::clone(&self.handler)
    }

    /// Serves all `listeners` until `stop`, then ends what is still under way.
    pub async fn serve(self, listeners: Vec<Listener>, stop: CancellationToken) {
        let serving = listeners.into_iter().map(|listener| {
            let authenticated = if self.is_authenticated { " - authenticated" } else { "" };
            self.tell(&format!("(HTTP{authenticated}): {}", listener.local_addr()));
            conn::serve_with_tls(listener, self.tls.clone(), self.handler(), self.options, stop.clone())
        });
        join_all(serving).await;
    }

    /// Serves one connection that came another way, until it ends or `stop`.
    pub async fn serve_stream<S>(&self, stream: S, peer: PeerAddr, stop: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        conn::serve_stream(stream, peer, self.handler(), self.options, stop).await;
    }

    /// Says in the log of the face where it is served.
    pub fn tell(&self, how: &str) {
        match self.facility {
            Facility::RestApi => info!(target: "restapi", "RESTAPI {how}"),
            Facility::PinSvc => info!(target: "pinsvcapi", "PINSVCAPI {how}"),
            Facility::Proxy => info!(target: "ipfsproxy", "IPFS Proxy {how}"),
        }
    }
}

/// Everything between the log and the answers of `site`.
fn handler<E: Copy + Send + Sync>(config: &HttpApi, site: Site<E>) -> Handler {
    let routes = site.routes.iter().map(|&(method, pattern, target)| Route { method, pattern, target });
    let custom: Arc<[_]> = custom_headers(config).into();
    let router = Arc::new(Router {
        mux: Mux::new(routes),
        answer: site.answer,
        document: site.document,
        custom: Arc::clone(&custom),
    });
    let cors = Cors::new(&CorsOptions {
        allowed_origins: config.cors_allowed_origins.clone(),
        allowed_methods: config.cors_allowed_methods.clone(),
        allowed_headers: config.cors_allowed_headers.clone(),
        exposed_headers: config.cors_exposed_headers.clone(),
        allow_credentials: config.cors_allow_credentials,
        max_age: config.cors_max_age.to_std(),
    });
    let open = cors.layer(Arc::new(move |request, _| router.answer(request)));
    match &config.basic_auth_credentials {
        None => open,
        Some(credentials) => Credentials::new(credentials.clone()).layer(open, custom, site.document),
    }
}

/// Configured headers; names and values that HTTP cannot carry are left out, as Go's server does.
fn custom_headers(config: &HttpApi) -> Vec<(HeaderName, HeaderValue)> {
    let pairs =
        config.headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
    pairs.filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?))).collect()
}

struct Router<E> {
    mux: Mux<E>,
    answer: Answer<E>,
    document: Document,
    custom: Arc<[(HeaderName, HeaderValue)]>,
}

impl<E: Copy> Router<E> {
    fn answer(&self, request: Request) -> BoxFuture<'static, Response> {
        let redirect = mux::slash_redirect(request.method(), request.uri())
            .or_else(|| mux::clean_redirect(request.uri()));
        if let Some(redirect) = redirect {
            return async { redirect }.boxed();
        }
        let (endpoint, params) = match self.mux.find(request.method(), &mux::decoded_path(request.uri())) {
            Found::Route(endpoint, params) => (*endpoint, params),
            Found::NotFound => {
                let status = StatusCode::NOT_FOUND;
                let mut response = respond::document(status, (self.document)(status, "not found"));
                respond::add_custom(&mut response, &self.custom);
                return async { response }.boxed();
            }
            Found::MethodNotAllowed => return async { mux::method_not_allowed() }.boxed(),
        };
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let answer = (self.answer)(endpoint, Call { params, query, request });
        let custom = Arc::clone(&self.custom);
        async move {
            let mut response = answer.await;
            if response.extensions().get::<ReplacesConfigured>().is_some() {
                let own = response.headers().clone();
                respond::add_custom(&mut response, &custom);
                let headers = response.headers_mut();
                own.into_iter().for_each(|(name, value)| {
                    if let Some(name) = name {
                        headers.insert(name, value);
                    }
                });
            } else {
                respond::add_custom(&mut response, &custom);
            }
            response
        }
        .boxed()
    }
}
