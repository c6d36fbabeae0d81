//! The pinning service API (9097): the published interface that Kubo and others pin remotely with (spec: rest-api 12).
//!
//! ```text
//!  http::face ── ROUTES ─┬─ pins   one pin: add, look, replace, remove
//!                        └─ list   many: filters, order, pages
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

use std::path::Path;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use http::StatusCode;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::error::Failure;
use self::newest::Lists;
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
    OpenApi,
}

/// Every route, in the order that decides between 404 and 405.
const ROUTES: [(&str, &str, Endpoint); 8] = [
    ("GET", "/pins", Endpoint::List),
    ("POST", "/pins", Endpoint::Add),
    ("GET", "/pins/{requestID}", Endpoint::Get),
    ("POST", "/pins/{requestID}", Endpoint::Replace),
    ("DELETE", "/pins/{requestID}", Endpoint::Remove),
    ("POST", "/token", Endpoint::Token),
    ("GET", "/health", Endpoint::Health),
    // last, so that every other path is answered as before
    ("GET", "/openapi.json", Endpoint::OpenApi),
];

impl Endpoint {
    fn answer(self, call: Call) -> BoxFuture<'static, Answer> {
        match self {
            Self::List => list::list(call).boxed(),
            Self::Add => pins::add(call).boxed(),
            Self::Get => pins::get(call).boxed(),
            Self::Replace => pins::replace(call).boxed(),
            Self::Remove => pins::remove(call).boxed(),
            Self::Token => token(call).boxed(),
            Self::Health => async { Ok(respond::empty_json(StatusCode::NO_CONTENT)) }.boxed(),
            Self::OpenApi => async { Ok(respond::document(StatusCode::OK, openapi::PINSVC.json())) }.boxed(),
        }
    }
}

/// The API, ready to serve.
#[derive(Clone)]
pub struct PinSvc(Face);

impl PinSvc {
    /// An API over `api`. `folder` is where relative files of `config` lie.
    pub fn new(config: &HttpApi, folder: &Path, api: Arc<dyn ClusterApi>) -> Result<Self, Error> {
        let shared = Arc::new(Shared { api, lists: Lists::default() });
        let answer: face::Answer<Endpoint> = Arc::new(move |endpoint, call| {
            let face::Call { params, query, request } = call;
            let answer = endpoint.answer(Call { shared: Arc::clone(&shared), params, query, request });
            async move { answer.await.unwrap_or_else(Failure::into_response) }.boxed()
        });
        let site = Site { facility: Facility::PinSvc, routes: &ROUTES, answer, document: error::document };
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
