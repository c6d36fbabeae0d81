//! The REST API (port 9094): routes, parameters and documents of the reference (spec: rest-api).
//!
//! ```text
//!  http::face ── ROUTES ── a handler ── ClusterApi
//!                    └──── error: the one place that chooses a status
//! ```
//!
//! - A handler reads all its parameters before it calls the cluster; a refused request has executed nothing.
//! - Long answers are streams from the cluster to the socket; nothing is collected but a buffered add.
//! - Nothing here remembers anything between two requests.

mod add;
mod allocations;
mod error;
mod health;
mod peers;
mod pins;
mod status;

use std::path::Path;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use http::StatusCode;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::error::Failure;
use crate::api::ClusterApi;
use crate::config::HttpApi;
use crate::go::query::Query;
use crate::http::auth::User;
use crate::http::conn::{Layer, Request};
pub use crate::http::face::Error;
use crate::http::face::{self, Face, Site};
use crate::http::listen::Listener;
use crate::http::log::Facility;
use crate::http::mux::Params;
use crate::http::openapi;
use crate::http::respond::{self, Response};

/// What a handler gives.
type Answer = Result<Response, Failure>;

/// A request that has found its route.
struct Call {
    api: Arc<dyn ClusterApi>,
    params: Params,
    query: Query,
    request: Request,
}

impl Call {
    /// Whether this peer alone is asked; only the exact word counts.
    fn is_local(&self) -> bool {
        self.query.get("local") == "true"
    }
}

/// The handlers, by what they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Id,
    Version,
    Peers,
    PeerAdd,
    PeerRemove,
    Add,
    Allocations,
    Allocation,
    StatusAll,
    Recover,
    RecoverAll,
    Status,
    Pin,
    PinPath,
    Unpin,
    UnpinPath,
    RepoGc,
    Graph,
    Alerts,
    Bandwidth,
    Metrics,
    MetricNames,
    Token,
    Health,
    OpenApi,
}

/// Every route, in the order that decides between 404 and 405.
const ROUTES: [(&str, &str, Endpoint); 25] = [
    ("GET", "/id", Endpoint::Id),
    ("GET", "/version", Endpoint::Version),
    ("GET", "/peers", Endpoint::Peers),
    ("POST", "/peers", Endpoint::PeerAdd),
    ("DELETE", "/peers/{peer}", Endpoint::PeerRemove),
    ("POST", "/add", Endpoint::Add),
    ("GET", "/allocations", Endpoint::Allocations),
    ("GET", "/allocations/{hash}", Endpoint::Allocation),
    ("GET", "/pins", Endpoint::StatusAll),
    ("POST", "/pins/{hash}/recover", Endpoint::Recover),
    ("POST", "/pins/recover", Endpoint::RecoverAll),
    ("GET", "/pins/{hash}", Endpoint::Status),
    ("POST", "/pins/{hash}", Endpoint::Pin),
    ("POST", "/pins/{keyType:ipfs|ipns|ipld}/{path:.*}", Endpoint::PinPath),
    ("DELETE", "/pins/{hash}", Endpoint::Unpin),
    ("DELETE", "/pins/{keyType:ipfs|ipns|ipld}/{path:.*}", Endpoint::UnpinPath),
    ("POST", "/ipfs/gc", Endpoint::RepoGc),
    ("GET", "/health/graph", Endpoint::Graph),
    ("GET", "/health/alerts", Endpoint::Alerts),
    ("GET", "/health/bandwidth", Endpoint::Bandwidth),
    ("GET", "/monitor/metrics/{name}", Endpoint::Metrics),
    ("GET", "/monitor/metrics", Endpoint::MetricNames),
    ("POST", "/token", Endpoint::Token),
    ("GET", "/health", Endpoint::Health),
    // last, so that every other path is answered as before
    ("GET", "/openapi.json", Endpoint::OpenApi),
];

impl Endpoint {
    fn answer(self, call: Call) -> BoxFuture<'static, Answer> {
        match self {
            Self::Id => peers::id(call).boxed(),
            Self::Version => peers::version(call).boxed(),
            Self::Peers => peers::list(call).boxed(),
            Self::PeerAdd => peers::add(call).boxed(),
            Self::PeerRemove => peers::remove(call).boxed(),
            Self::Add => add::add(call).boxed(),
            Self::Allocations => allocations::allocations(call).boxed(),
            Self::Allocation => allocations::allocation(call).boxed(),
            Self::StatusAll => status::status_all(call).boxed(),
            Self::Recover => status::recover(call).boxed(),
            Self::RecoverAll => status::recover_all(call).boxed(),
            Self::Status => status::status(call).boxed(),
            Self::Pin => pins::pin(call).boxed(),
            Self::PinPath => pins::pin_path(call).boxed(),
            Self::Unpin => pins::unpin(call).boxed(),
            Self::UnpinPath => pins::unpin_path(call).boxed(),
            Self::RepoGc => health::repo_gc(call).boxed(),
            Self::Graph => health::graph(call).boxed(),
            Self::Alerts => health::alerts(call).boxed(),
            Self::Bandwidth => health::bandwidth(call).boxed(),
            Self::Metrics => health::metrics(call).boxed(),
            Self::MetricNames => health::metric_names(call).boxed(),
            Self::Token => token(call).boxed(),
            Self::Health => health::alive(call).boxed(),
            Self::OpenApi => async { Ok(respond::document(StatusCode::OK, openapi::REST.json())) }.boxed(),
        }
    }
}

/// The API, ready to serve.
#[derive(Clone)]
pub struct Rest(Face);

impl Rest {
    /// An API over `api`. `folder` is where relative files of `config` lie.
    pub fn new(config: &HttpApi, folder: &Path, api: Arc<dyn ClusterApi>) -> Result<Self, Error> {
        let answer: face::Answer<Endpoint> = Arc::new(move |endpoint, call| {
            let face::Call { params, query, request } = call;
            let answer = endpoint.answer(Call { api: Arc::clone(&api), params, query, request });
            async move { answer.await.unwrap_or_else(Failure::into_response) }.boxed()
        });
        let site = Site { facility: Facility::RestApi, routes: &ROUTES, answer, document: error::document };
        Ok(Self(Face::new(config, folder, site)?))
    }

    /// Method and pattern of every route.
    pub fn routes() -> impl Iterator<Item = (&'static str, &'static str)> {
        ROUTES.iter().map(|(method, pattern, _)| (*method, *pattern))
    }

    /// The same API behind `layer`.
    #[must_use]
    pub fn layered(self, layer: Layer) -> Self {
        Self(self.0.layered(layer))
    }

    /// The face, to be served in more ways than on listeners.
    pub fn face(&self) -> &Face {
        &self.0
    }

    /// Serves all `listeners` until `stop`, then ends what is still under way.
    pub async fn serve(self, listeners: Vec<Listener>, stop: CancellationToken) {
        self.0.serve(listeners, stop).await;
    }
}

/// `POST /token`: a token of the user who asks; without credentials there are no users.
async fn token(call: Call) -> Answer {
    match call.request.extensions().get::<User>() {
        Some(user) => Ok(respond::json(StatusCode::OK, &Token { token: user.token() })),
        None => Err(Failure::no_credentials()),
    }
}

#[derive(Serialize)]
struct Token {
    token: String,
}
