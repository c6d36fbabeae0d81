//! What a cluster peer can be asked, and how it fails.
//!
//! [`ClusterApi`] is the one seam between the HTTP faces, the command lines and the shell on one side and a
//! peer on the other. It is implemented by the peer in the process, by the REST client and by the fake
//! cluster of the tests. Long answers are streams of items; an error after the first item is an item too.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::types::{
    AddParams, AddedOutput, Alert, Bandwidths, Cid, ConnectGraph, GlobalPinInfo, GlobalRepoGc, Id,
    IpfsRepoStat, Metric, PeerId, Pin, PinOptions, PinTypes, TrackerStatus, Version,
};

/// Text of the error that stands for "no such pin"; HTTP faces answer it with 404. (Go: `state/interface.go`)
pub const PIN_NOT_FOUND: &str = "pin is not part of the pinset";

/// Who is to blame, as far as an HTTP face needs to know to choose a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The caller asked for something that cannot be: 400.
    BadRequest,
    /// The caller is not allowed: 401.
    Unauthorized,
    /// [`PIN_NOT_FOUND`]: 404.
    NotFound,
    /// The peer could not do it: 500.
    Internal,
}

/// A failed call. The message is the reference's text wherever a client can see it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Who is to blame.
    pub kind: ErrorKind,
    /// What a client reads.
    pub message: String,
}

impl Error {
    /// The caller's fault.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::BadRequest, message: message.into() }
    }

    /// A pin that is not in the pinset.
    pub fn not_found() -> Self {
        Self { kind: ErrorKind::NotFound, message: PIN_NOT_FOUND.into() }
    }

    /// Anything from the cluster's core; the text [`PIN_NOT_FOUND`] is recognised, as the reference does.
    pub fn internal(message: impl Into<String>) -> Self {
        let message = message.into();
        let kind = if message == PIN_NOT_FOUND { ErrorKind::NotFound } else { ErrorKind::Internal };
        Self { kind, message }
    }
}

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A long answer: items as they are found, errors as items.
pub type Items<T> = BoxStream<'static, Result<T>>;

/// What stands at one place of an uploaded tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A file; its content is read with [`Upload::read`].
    File,
    /// A directory, announced by a part of its own.
    Directory,
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
}

/// One entry of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path as sent, without a leading slash: `dir/sub/file`. Names may be any bytes.
    pub path: Vec<u8>,
    /// File, directory or link.
    pub kind: EntryKind,
    /// `abspath` of the part, for `nocopy`.
    pub abspath: Option<String>,
}

/// Files as they arrive. The content of an entry is read before the next entry is asked for; what is left
/// unread is skipped.
#[async_trait]
pub trait Upload: Send {
    /// The next entry, or `None` at the end of the upload.
    async fn next_entry(&mut self) -> Result<Option<Entry>>;
    /// The next piece of the current file, or `None` at its end. Pieces have any length.
    async fn read(&mut self) -> Result<Option<Bytes>>;
}

/// A cluster peer, asked from outside.
#[async_trait]
pub trait ClusterApi: Send + Sync + 'static {
    /// This peer: addresses, known peers, its daemon. Never fails because of the daemon.
    async fn id(&self) -> Result<Id>;
    /// The version clients compare with.
    async fn version(&self) -> Result<Version>;
    /// Every member of the cluster, in order of arrival; members that fail are items with `error` set.
    fn peers(&self) -> Items<Id>;
    /// Adds a peer to the consensus and returns who it is.
    async fn peer_add(&self, peer: PeerId) -> Result<Id>;
    /// Removes a peer from the consensus.
    async fn peer_rm(&self, peer: PeerId) -> Result<()>;

    /// Writes a pin to the pinset; returns it as submitted. Success means accepted, not pinned by a daemon.
    async fn pin(&self, pin: Pin) -> Result<Pin>;
    /// Removes a pin from the pinset; returns it as it was.
    async fn unpin(&self, cid: Cid) -> Result<Pin>;
    /// Resolves an IPFS path through the daemon, then pins its root. `path` starts with `/ipfs/`, `/ipns/` or `/ipld/`.
    async fn pin_path(&self, path: &str, options: PinOptions) -> Result<Pin>;
    /// Resolves an IPFS path through the daemon, then unpins its root.
    async fn unpin_path(&self, path: &str) -> Result<Pin>;
    /// The CID a path leads to, as the daemon resolves it (spec: connector 6.12).
    async fn resolve(&self, path: &str) -> Result<Cid>;

    /// The pinset, filtered by type, in the order of the store.
    fn allocations(&self, types: PinTypes) -> Items<Pin>;
    /// One stored pin, or [`Error::not_found`].
    async fn allocation(&self, cid: Cid) -> Result<Pin>;

    /// Status of one CID on every peer, or on this one (`local`). An unknown CID is no error.
    async fn status(&self, cid: Cid, local: bool) -> Result<GlobalPinInfo>;
    /// Status of all CIDs whose status matches `filter` (0 matches all).
    fn status_all(&self, filter: TrackerStatus, local: bool) -> Items<GlobalPinInfo>;
    /// Retries one CID where its operation failed.
    async fn recover(&self, cid: Cid, local: bool) -> Result<GlobalPinInfo>;
    /// Retries all failed CIDs; yields those that were queued again.
    fn recover_all(&self, local: bool) -> Items<GlobalPinInfo>;

    /// Garbage-collects the daemons' repositories.
    async fn repo_gc(&self, local: bool) -> Result<GlobalRepoGc>;
    /// Repository sizes, summed over the cluster's daemons.
    async fn repo_stat(&self) -> Result<IpfsRepoStat>;
    /// Who is connected to whom.
    async fn connect_graph(&self) -> Result<ConnectGraph>;
    /// Alerts this peer has seen, newest first.
    async fn alerts(&self) -> Result<Vec<Alert>>;
    /// Bytes by libp2p protocol.
    async fn bandwidth(&self) -> Result<Bandwidths>;
    /// Latest valid metrics of a name.
    async fn metrics(&self, name: &str) -> Result<Vec<Metric>>;
    /// Names of all metrics ever seen.
    async fn metric_names(&self) -> Result<Vec<String>>;

    /// Imports files and pins their root. Outputs come while the upload is read; dropping the stream aborts.
    fn add(&self, params: AddParams, upload: Box<dyn Upload>) -> Items<AddedOutput>;
}
