//! The embedded IPFS node: a small daemon that speaks Kubo's RPC.
//!
//! ```text
//!   rpc ── table of endpoints ──┬─ pins    walks with progress ─┐
//!   gateway                     ├─ unixfs  cat, get, ls        ─┼─▶ source: local first, then the network
//!                               ├─ gc      marks, then sweeps   │         │              │
//!                               └─ adder   files to blocks      │       repo           fetch ─ swarm
//!                                          └────────────────────┴─────────┘
//! ```
//!
//! Nobody outside of this room can tell it from Kubo: the peer's connector and proxy speak to it over a Unix socket as
//! to any daemon. What it promises:
//! - What is answered is on disk: a block before `block/put` answers, a pin before `pin/add` does.
//! - A collection never removes what is pinned, being added, or being pinned ([`lease`]).
//! - Memory is bounded: bodies stream, walks keep a bounded frontier. Marks of a collection take 8 bytes a block.
//! - No CID and no block makes it panic; the storage limit refuses what is new in Kubo's words.

mod fetch;
mod gateway;
mod gc;
mod hamt;
mod ipld;
mod ipns;
mod lease;
mod mfs;
mod names;
mod path;
mod pins;
mod providers;
mod repo;
mod rpc;
mod source;
mod swarm;
mod tar;
#[cfg(test)]
mod testing;
mod unixfs;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cluster_compat::config::{Embedded, Env, Identity};
use cluster_compat::http::conn::{self, ConnOptions};
use cluster_compat::http::listen::Listener;
use cluster_compat::types::{Block, Cid, Multiaddr};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use multihash_codetable::{Code, MultihashDigest as _};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::fetch::Fetcher;
use self::mfs::Mfs;
use self::names::Names;
use self::repo::{Pin, PinKind, Repo};
use self::rpc::Access;
use self::source::{Source, blocking};
use self::swarm::{Swarm, SwarmArgs};
use crate::task::{GRACE, Tasks};

/// The socket of the RPC, in the configuration folder.
const SOCKET: &str = "node-socket";
/// Who the node is, in its own folder.
const IDENTITY: &str = "identity.json";
/// The empty directory of UnixFS, which every repository of Kubo's holds and pins.
const EMPTY_DIRECTORY: &[u8] = &[0x0a, 2, 8, 1];
/// Largest head of a request; paths stand in the query.
const MAX_HEADER_BYTES: usize = 1 << 20;

/// Why the node failed. The texts are Kubo's where it has one.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The node could not be started.
    #[error("{0}")]
    Start(String),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopped,
    /// The database cannot be read.
    #[error("{0}")]
    Store(Arc<crate::store::Error>),
    /// A change could not be written; nothing of it is there.
    #[error("{0}")]
    Write(String),
    /// The storage limit. (Go: `core/corerepo/gc.go`)
    #[error("maximum storage limit exceeded. Try to unpin some files")]
    Full,
    /// (Go: boxo `pinning/pinner`)
    #[error("not pinned or pinned indirectly")]
    NotPinned,
    /// A direct pin of what is pinned recursively.
    #[error("{0} already pinned recursively")]
    PinnedRecursively(Cid),
    /// An unpin that is not recursive, of a recursive pin.
    #[error("{0} is pinned recursively")]
    IsPinnedRecursively(Cid),
    /// An update from what has no recursive pin.
    #[error("'from' cid was not recursively pinned already")]
    UpdateFrom,
    /// An update to what has one.
    #[error("'to' cid was already recursively pinned")]
    UpdateTo,
    /// A block that is not here, and nobody is asked for it.
    #[error("block was not found locally (offline): ipld: could not find {0}")]
    NotFound(Cid),
    /// A second collection at the same time.
    #[error("garbage collection is already running")]
    Collecting,
    /// Anything with words of its own.
    #[error("{0}")]
    Message(String),
}

impl From<crate::store::Error> for Error {
    fn from(cause: crate::store::Error) -> Self {
        Self::Store(Arc::new(cause))
    }
}

impl Error {
    fn message(text: impl Into<String>) -> Self {
        Self::Message(text.into())
    }
}

/// What a node is started with.
pub struct NodeArgs {
    /// Its section.
    pub config: Embedded,
    /// The configuration folder: the socket lies in it, and the node's own folder beneath it.
    pub folder: PathBuf,
    /// An identity to take instead of the one in its folder.
    pub keypair: Option<Keypair>,
    /// Whether it is the whole program: then its callers may stop it.
    pub is_alone: bool,
}

/// What all calls work on.
struct Core {
    config: Embedded,
    repo: Repo,
    swarm: Swarm,
    fetcher: Fetcher,
    keypair: Keypair,
    files: Mfs,
    names: Names,
    tasks: Tasks,
    /// Fires when somebody asks the node to stop.
    asked: CancellationToken,
    is_alone: bool,
}

impl Core {
    /// Blocks for a piece of work, with or without the network.
    fn source(&self, is_offline: bool) -> Source {
        let session = (!is_offline).then(|| Arc::new(self.fetcher.session()) as Arc<dyn source::Remote>);
        Source::new(self.repo.clone(), session, Some((self.names.clone(), is_offline)))
    }

    /// Where other nodes reach this one.
    fn addrs(&self) -> Vec<Multiaddr> {
        self.swarm.addrs()
    }

    /// What it speaks.
    fn protocols(&self) -> Vec<String> {
        self.swarm.protocols()
    }

    /// Tells others that we have a DAG.
    fn provide(&self, cids: &[Cid]) {
        self.swarm.provide(cids);
    }

    /// Tells those who wait for blocks.
    fn stored(&self, cids: &[Cid]) {
        self.swarm.stored(cids);
    }

    fn ask_to_stop(&self) -> Result<(), Error> {
        if !self.is_alone {
            return Err(Error::message("this node stops with the cluster peer it belongs to"));
        }
        self.asked.cancel();
        Ok(())
    }
}

/// A node at work.
pub struct Node {
    core: Arc<Core>,
    socket: Multiaddr,
    apis: Vec<Multiaddr>,
    gateways: Vec<Multiaddr>,
    serving: Tasks,
}

impl Node {
    /// Starts a node: opens its repository, serves its RPC.
    pub async fn start(args: NodeArgs) -> Result<Self, Error> {
        let NodeArgs { config, folder, keypair, is_alone } = args;
        let place = config.path(&folder);
        cluster_compat::config::make_folder(&place).map_err(Error::Start)?;
        let keypair = match keypair {
            Some(keypair) => keypair,
            None => identity(&place)?,
        };
        let max_bytes = config.storage_max_bytes;
        let repo = blocking(move || open(&place, max_bytes)).await?;
        let tasks = Tasks::new();
        let swarm = Swarm::start(SwarmArgs {
            keypair: keypair.clone(),
            listen: config.swarm_listen_multiaddress.clone(),
            bootstrap: config.bootstrap.clone(),
            mdns: config.mdns,
            blocks: Arc::new(repo.clone()),
            announced: pinned(repo.clone()),
            tasks: tasks.clone(),
        });
        let swarm = swarm.await.map_err(|cause| Error::Start(cause.to_string()))?;
        let to_repo = repo.clone();
        let fetcher = Fetcher::start(swarm.clone(), Arc::new(move |blocks| to_repo.put(blocks)), &tasks);
        let names = Names::new(&config.path(&folder), keypair.clone(), repo.clone(), swarm.clone());
        tasks.spawn("names", names.clone().republish(tasks.token()));
        let core = Arc::new(Core {
            config,
            repo,
            swarm,
            fetcher,
            keypair,
            files: Mfs::new(),
            names: names.clone(),
            tasks: tasks.clone(),
            asked: CancellationToken::new(),
            is_alone,
        });
        let serving = Tasks::new();
        let (socket, listener) = bind_socket(&folder).await?;
        let options =
            ConnOptions { max_header_bytes: MAX_HEADER_BYTES, large_bodies: true, ..ConnOptions::default() };
        let trusted = Access { token: String::new(), origins: Vec::new() };
        let handler = rpc::handler(Arc::clone(&core), trusted);
        serving.spawn("node rpc", conn::serve(listener, handler, options, serving.token()));
        let mut apis = Vec::new();
        for addr in &core.config.api_listen_multiaddress {
            let listener = Listener::bind(addr).await.map_err(|cause| Error::Start(cause.to_string()))?;
            let addr = listener.local_addr();
            info!(target: "node", "IPFS RPC: {addr}");
            let access = Access { token: core.config.api_token.clone(), origins: origins(&addr) };
            let handler = rpc::handler(Arc::clone(&core), access);
            serving.spawn("node rpc", conn::serve(listener, handler, options, serving.token()));
            apis.push(addr);
        }
        let mut gateways = Vec::new();
        for addr in &core.config.gateway_listen_multiaddress {
            let listener = Listener::bind(addr).await.map_err(|cause| Error::Start(cause.to_string()))?;
            let addr = listener.local_addr();
            info!(target: "node", "IPFS gateway: {addr}");
            let handler = gateway::handler(Arc::clone(&core));
            serving.spawn("node gateway", conn::serve(listener, handler, options, serving.token()));
            gateways.push(addr);
        }
        Ok(Self { core, socket, apis, gateways, serving })
    }

    /// Where the peer of this process reaches it.
    pub fn socket(&self) -> &Multiaddr {
        &self.socket
    }

    /// Where its RPC listens over TCP, with the ports that the system chose.
    pub fn apis(&self) -> &[Multiaddr] {
        &self.apis
    }

    /// Where other nodes reach it.
    pub fn addrs(&self) -> Vec<Multiaddr> {
        self.core.addrs()
    }

    /// Where it serves files over HTTP.
    pub fn gateways(&self) -> &[Multiaddr] {
        &self.gateways
    }

    /// Its peer id.
    pub fn peer(&self) -> cluster_compat::types::PeerId {
        self.core.keypair.public().to_peer_id()
    }

    /// Blocks and bytes that it stores.
    pub fn stat(&self) -> (u64, u64) {
        let stat = self.core.repo.stat();
        (stat.n_objects, stat.n_bytes)
    }

    /// Resolves when a caller of the RPC has asked it to stop.
    pub async fn asked_to_stop(&self) {
        self.core.asked.cancelled().await;
    }

    /// Resolves with the name of a task that panicked.
    pub async fn panicked(&self) -> String {
        tokio::select! {
            name = self.core.tasks.panicked() => name,
            name = self.serving.panicked() => name,
        }
    }

    /// Stops it: no more calls, then the rest; the repository closes with the last task.
    pub async fn stop(self) {
        self.serving.stop();
        self.serving.join(GRACE).await;
        self.core.tasks.stop();
        self.core.tasks.join(GRACE).await;
    }
}

/// Opens the repository; a new one holds the empty directory, pinned, as Kubo's do.
fn open(folder: &Path, max_bytes: u64) -> Result<Repo, Error> {
    let repo = Repo::open(folder, max_bytes)?;
    let is_new = repo.stat().n_objects == 0 && repo.pins_after(None)?.is_empty();
    if is_new {
        let cid = Cid::new_v0(Code::Sha2_256.digest(EMPTY_DIRECTORY))
            .map_err(|cause| Error::Start(cause.to_string()))?;
        let block = Block { cid, data: Bytes::from_static(EMPTY_DIRECTORY), is_spare: false };
        repo.put(&[block])?;
        repo.set_pin(cid, Pin { kind: PinKind::Recursive, name: String::new() })?;
    }
    Ok(repo)
}

/// The roots of all pins, in pages: what the DHTs are told.
fn pinned(repo: Repo) -> providers::Announced {
    Arc::new(move |after| {
        let page = repo.pins_after(after).unwrap_or_else(|cause| {
            warn!(target: "provider", "cannot read the pins: {cause}");
            Vec::new()
        });
        page.into_iter().map(|(root, _)| root).collect()
    })
}

/// The identity in the node's folder, made when there is none.
fn identity(folder: &Path) -> Result<Keypair, Error> {
    let path = folder.join(IDENTITY);
    let failed = |cause: cluster_compat::config::Error| Error::Start(cause.to_string());
    if !path.exists() {
        Identity::generate().and_then(|identity| identity.save(&path)).map_err(failed)?;
    }
    // no variables: those of the peer are not the node's
    let (identity, _) = Identity::load(&path, &path, &Env::default()).map_err(failed)?;
    Ok(identity.keypair)
}

/// The address of the RPC's socket in a configuration folder; `None` where the folder's name is no UTF-8.
pub fn socket_address(folder: &Path) -> Option<Multiaddr> {
    let path = folder.join(SOCKET);
    // a multiaddress begins its path with a slash of its own
    path.to_str().map(|text| Multiaddr::from(Protocol::Unix(text.trim_start_matches('/').into())))
}

/// Binds the socket. Nobody else runs in this folder, so one that is left belongs to nobody.
async fn bind_socket(folder: &Path) -> Result<(Multiaddr, Listener), Error> {
    let path = folder.join(SOCKET);
    let addr =
        socket_address(folder).ok_or_else(|| Error::Start(format!("{} is not UTF-8", path.display())))?;
    match std::fs::remove_file(&path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::Start(format!("removing {}: {cause}", path.display())));
        }
        _ => {}
    }
    let listener = Listener::bind(&addr).await.map_err(|cause| Error::Start(cause.to_string()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .map_err(|cause| Error::Start(format!("{}: {cause}", path.display())))?;
    Ok((addr, listener))
}

/// Web pages that may call the RPC at an address: its own. (Go: `core/corehttp/commands.go`)
fn origins(addr: &Multiaddr) -> Vec<String> {
    let port = addr.iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let port = port.unwrap_or_default();
    ["localhost", "127.0.0.1", "[::1]"]
        .into_iter()
        .flat_map(|host| [format!("http://{host}:{port}"), format!("https://{host}:{port}")])
        .collect()
}
