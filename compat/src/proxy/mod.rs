//! The IPFS proxy (9095): the daemon's RPC, with pins and uploads going to the cluster.
//!
//! ```text
//!  request ── log ── clean path ── table ──┬─ pin, add, put, repo   answered here, through ClusterApi,
//!                                          │                        with the headers Kubo would send
//!                                          └─ forward               everything else, streamed both ways
//! ```
//!
//! - Nothing is buffered on the way to the daemon or back but the pieces in flight; only a listing that the
//!   client wants sorted is collected.
//! - What is asked of the daemon for headers is bounded in time, and a daemon that is down never keeps an
//!   intercepted request from being served.
//! - Errors of intercepted paths have Kubo's JSON shape and the cluster's text.

mod add;
mod args;
mod error;
mod forward;
mod headers;
mod path;
mod pin;
mod put;
mod repo;
mod update;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;
use http::{HeaderMap, StatusCode};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use crate::api::ClusterApi;
use crate::config;
use crate::go::query::Query;
use crate::http::client::Client;
use crate::http::conn::{self, ConnOptions, Handler, Layer, PeerAddr, Request, boxed};
use crate::http::listen::{self, Listener};
use crate::http::log::{AccessLog, Facility};
use crate::http::mux::{self, Found, Mux, Params, Route};
use crate::http::respond::Response;

use self::forward::Forward;
use self::headers::DaemonHeaders;

/// What `Server` says on intercepted paths; tools compare the version.
const SERVER: &str = "ipfs-cluster/ipfsproxy/1.1.6";

/// Why the proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The daemon's address is neither TCP nor a Unix socket.
    #[error("cannot reach the daemon at {0}: neither a TCP nor a unix address")]
    Node(crate::types::Multiaddr),
    /// `node_https` is set, and nothing tells whom to trust.
    #[error("ipfsproxy.node_https: {0}")]
    Https(crate::http::tls::Error),
    /// A name in `extract_headers_extra` that is no header name.
    #[error("ipfsproxy.extract_headers_extra: {0:?} is no header name")]
    HeaderName(String),
    /// The access log cannot be opened.
    #[error("cannot open the access log {path}: {source}")]
    Log {
        /// The configured file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The proxy, ready to serve.
#[derive(Clone)]
pub struct Proxy {
    shared: Arc<Shared>,
    options: ConnOptions,
    log: AccessLog,
    layer: Option<Layer>,
}

struct Shared {
    api: Arc<dyn ClusterApi>,
    mux: Mux<Intercepted>,
    daemon: Client,
    forward: Forward,
    headers: DaemonHeaders,
    node: String,
    /// Work that outlives its request: tunnels of switched protocols, unpins that wait for their update.
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The endpoints that are not left to the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intercepted {
    PinAdd,
    PinRm,
    PinLs,
    PinUpdate,
    Add,
    RepoStat,
    RepoGc,
    BlockPut,
    DagPut,
}

/// Each of them answers POST, GET and PUT.
const METHODS: [&str; 3] = ["POST", "GET", "PUT"];
const PATHS: [(&str, Intercepted); 12] = [
    ("/api/v0/pin/add/{arg}", Intercepted::PinAdd),
    ("/api/v0/pin/add", Intercepted::PinAdd),
    ("/api/v0/pin/rm/{arg}", Intercepted::PinRm),
    ("/api/v0/pin/rm", Intercepted::PinRm),
    ("/api/v0/pin/ls/{arg}", Intercepted::PinLs),
    ("/api/v0/pin/ls", Intercepted::PinLs),
    ("/api/v0/pin/update", Intercepted::PinUpdate),
    ("/api/v0/add", Intercepted::Add),
    ("/api/v0/repo/stat", Intercepted::RepoStat),
    ("/api/v0/repo/gc", Intercepted::RepoGc),
    ("/api/v0/block/put", Intercepted::BlockPut),
    ("/api/v0/dag/put", Intercepted::DagPut),
];

impl Proxy {
    /// A proxy before the daemon of `config`, answering with `api`. `folder` is where a relative `log_file` lies.
    pub fn new(config: &config::Proxy, folder: &Path, api: Arc<dyn ClusterApi>) -> Result<Self, Error> {
        let node = config.node_multiaddress.clone();
        let mut endpoint = listen::endpoint(&node).map_err(|_| Error::Node(node.clone()))?;
        if config.node_https {
            endpoint = endpoint.over(crate::http::tls::Client::checking().map_err(Error::Https)?);
        }
        let daemon = Client::new(endpoint);
        let log_path = config.log_path(folder);
        let log = AccessLog::open(log_path.as_deref(), Facility::Proxy)
            .map_err(|source| Error::Log { path: log_path.unwrap_or_default(), source })?;
        let routes = PATHS.into_iter().flat_map(|(pattern, target)| {
            METHODS.into_iter().map(move |method| Route { method, pattern, target })
        });
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let shared = Shared {
            api,
            mux: Mux::new(routes),
            forward: Forward::new(daemon.clone(), tasks.clone(), stop.clone()),
            headers: DaemonHeaders::new(
                daemon.clone(),
                &config.extract_headers_path,
                &config.extract_headers_extra,
                config.extract_headers_ttl.to_std(),
            )?,
            daemon,
            node: node.to_string(),
            tasks,
            stop,
        };
        let options = ConnOptions {
            read_header_timeout: config.read_header_timeout.to_std(),
            read_timeout: config.read_timeout.to_std(),
            write_timeout: config.write_timeout.to_std(),
            idle_timeout: config.idle_timeout.to_std(),
            max_header_bytes: usize::try_from(config.max_header_bytes).unwrap_or(4096),
            large_bodies: true,
            ..ConnOptions::default()
        };
        Ok(Self { shared: Arc::new(shared), options, log, layer: None })
    }

    /// The same proxy behind `layer`.
    #[must_use]
    pub fn layered(mut self, layer: Layer) -> Self {
        self.layer = Some(layer);
        self
    }

    /// Answers requests, logged; for servers of one's own.
    pub fn handler(&self) -> Handler {
        let shared = Arc::clone(&self.shared);
        let handler: Handler = Arc::new(move |request, peer| Arc::clone(&shared).answer(request, peer));
        let logged = self.log.clone().layer(handler);
        match self.layer {
            Some(layer) => layer(logged),
            None => logged,
        }
    }

    /// Serves all `listeners` until `stop`, then ends what is still under way.
    pub async fn serve(self, listeners: Vec<Listener>, stop: CancellationToken) {
        let mut servers = JoinSet::new();
        for listener in listeners {
            info!(target: "ipfsproxy", "IPFS Proxy: {} -> {}", listener.local_addr(), self.shared.node);
            servers.spawn(conn::serve(listener, self.handler(), self.options, stop.clone()));
        }
        stop.cancelled().await;
        self.shared.stop.cancel();
        while servers.join_next().await.is_some() {}
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Shared {
    fn answer(self: Arc<Self>, request: Request, peer: PeerAddr) -> BoxFuture<'static, Response> {
        if let Some(redirect) = mux::clean_redirect(request.uri()) {
            return boxed(async { redirect });
        }
        let found = {
            let path = mux::decoded_path(request.uri());
            match self.mux.find(request.method(), &path) {
                Found::Route(target, params) => Some((*target, params, path.into_owned())),
                Found::NotFound | Found::MethodNotAllowed => None,
            }
        };
        // most requests end here: their future is not as large as those of the intercepted paths
        match found {
            None => boxed(async move { self.forward.send(request, &peer).await }),
            Some((target, params, path)) => boxed(self.intercept(target, params, path, request, peer)),
        }
    }

    async fn intercept(
        self: Arc<Self>,
        target: Intercepted,
        params: Params,
        path: Vec<u8>,
        request: Request,
        peer: PeerAddr,
    ) -> Response {
        let mut query = Query::parse(request.uri().query().unwrap_or_default());
        if !params.get("arg").is_empty() {
            error!(target: "ipfsproxy", path = %request.uri().path(), "an undocumented form of the API was used: the argument belongs into the query");
            query.set("arg", params.get("arg"));
        }
        let is_put = matches!(target, Intercepted::BlockPut | Intercepted::DagPut);
        if is_put && query.get("pin") != "true" || target == Intercepted::PinLs && pin::is_of_daemon(&query) {
            return self.forward.send(request, &peer).await;
        }
        let headers = match self.headers.of(request.method(), &path, request.headers()).await {
            Ok(headers) => headers,
            Err(refusal) => return *refusal,
        };
        let response = match target {
            Intercepted::PinAdd => pin::add(&*self.api, &query, request).await,
            Intercepted::PinRm => pin::rm(&*self.api, &query, request).await,
            Intercepted::PinLs => pin::ls(&*self.api, &query).await,
            Intercepted::PinUpdate => update::update(&self, &query).await,
            Intercepted::Add => add::add(&self, &query, request).await,
            Intercepted::RepoStat => repo::stat(&self, &query, request.uri().query()).await,
            Intercepted::RepoGc => repo::gc(&*self.api, &query).await,
            Intercepted::BlockPut => put::block(self, query, request).await,
            Intercepted::DagPut => put::dag(self, query, request).await,
        };
        with_headers(headers, response)
    }
}

/// The daemon's headers, then our own, then those of the answer.
fn with_headers(mut headers: HeaderMap, mut response: Response) -> Response {
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    headers.insert(http::header::SERVER, http::HeaderValue::from_static(SERVER));
    let own = std::mem::take(response.headers_mut());
    for (name, value) in own {
        if let Some(name) = name {
            headers.insert(name, value);
        }
    }
    *response.headers_mut() = headers;
    response
}

/// 200 with a finished document.
fn ok(document: Vec<u8>) -> Response {
    crate::http::respond::document(StatusCode::OK, document)
}
