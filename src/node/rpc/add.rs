//! `add`: files to blocks through the importer, whose host is this node.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use cluster_compat::api::{Entry, EntryKind, Result as ApiResult, Upload};
use cluster_compat::types::{AddParams, AddedOutput, Cid, Layout, PeerId, Pin as ClusterPin, PinOptions};
use futures::StreamExt as _;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::super::Core;
use super::super::lease::Lease;
use super::super::repo::{Pin, PinKind};
use super::super::source::blocking;
use super::answer::{Answer, Failure};
use super::call::{Call, Files};
use super::{mfs, text};
use crate::adder::{self, Batch, Host, Shape, import_shaped};

/// Bytes of blocks that are written together: one sync for many.
const WRITE_BYTES: usize = 8 << 20;

/// Options of Kubo's that this node does not serve: adding without them would make other content than was asked for.
const UNSERVED: [&str; 9] = [
    "nocopy",
    "preserve-mode",
    "preserve-mtime",
    "mode",
    "mtime",
    "mtime-nsecs",
    "max-directory-links",
    "max-hamt-fanout",
    "fscache",
];

/// Bytes of a block that stands in its CID. (Go: boxo `verifcid`, `DefaultMaxIdentityDigestSize`, and what a CID holds here)
const MAX_INLINE: i64 = 64;
const DEFAULT_INLINE: i64 = 32;
/// Links of one node that stays below the size of a block that others take.
const MAX_FILE_LINKS: usize = 8192;

#[derive(Serialize)]
struct Event {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Hash", skip_serializing_if = "String::is_empty")]
    hash: String,
    #[serde(rename = "Bytes", skip_serializing_if = "is_zero")]
    bytes: u64,
    #[serde(rename = "Size", skip_serializing_if = "String::is_empty")]
    size: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// `add`.
pub(super) async fn add(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let asked = UNSERVED.into_iter().find(|name| call.has(name) && call.maybe(name) != Some(false));
    if let Some(name) = asked.filter(|name| !call.text(name).is_empty() || call.is(name)) {
        return Err(Failure::new(format!("{name} is not supported by this node")));
    }
    let only_hash = call.is("only-hash");
    let mut params = AddParams {
        wrap_with_directory: call.is("wrap-with-directory"),
        progress: call.is("progress"),
        layout: if call.is("trickle") { Layout::Trickle } else { Layout::Balanced },
        cid_version: call.number("cid-version").unwrap_or(0),
        no_pin: !call.is("pin") || only_hash,
        ..AddParams::default()
    };
    if call.has("pin-name") && !call.is("pin") {
        return Err(Failure::new("pin-name option requires pin to be set"));
    }
    if call.has("to-files") && (only_hash || params.wrap_with_directory) {
        let other = if only_hash { "only-hash" } else { "wrap-with-directory" };
        return Err(Failure::new(format!("{other} and to-files options are not compatible")));
    }
    let hash = call.text("hash").to_lowercase();
    if !hash.is_empty() && text::hash_code(&hash).is_none() {
        return Err(Failure::new(format!("unrecognized hash function: {hash:?}")));
    }
    if !hash.is_empty() && hash != "sha2-256" {
        // other hashes are of version 1, which means raw leaves
        match call.number("cid-version") {
            Some(0) => return Err(Failure::new("CIDv0 only supports sha2-256")),
            None => params.cid_version = 1,
            Some(_) => {}
        }
    }
    let mut shape = Shape::default();
    if call.is("inline") {
        let limit = call.number("inline-limit").unwrap_or(DEFAULT_INLINE);
        if limit > MAX_INLINE {
            return Err(Failure::new(format!(
                "inline-limit {limit} exceeds maximum allowed size of {MAX_INLINE} bytes"
            )));
        }
        shape.inline_limit = usize::try_from(limit).ok();
    }
    if let Some(links) = call.number("max-file-links") {
        let links = usize::try_from(links).ok().filter(|links| (2..=MAX_FILE_LINKS).contains(links));
        shape.max_file_links = links.ok_or_else(|| {
            Failure::new(format!(
                "max-file-links is {}, not 2 to {MAX_FILE_LINKS}",
                call.text("max-file-links")
            ))
        })?;
    }
    params.raw_leaves = call.maybe("raw-leaves").unwrap_or(params.cid_version > 0);
    for (name, value) in [("chunker", &mut params.chunker), ("hash", &mut params.hash)] {
        if !call.text(name).is_empty() {
            *value = call.text(name).to_owned();
        }
    }
    let encoder = call.encoder()?;
    let is_silent = call.is("silent");
    let wraps = params.wrap_with_directory;
    let name = call.text("pin-name").to_owned();
    let host = NodeHost { only_hash, ..NodeHost::new(core, name) };
    let to_files = call.has("to-files").then(|| call.text("to-files").to_owned());
    let target = to_files.map(|path| (Arc::clone(&host.core), host.core.source(call.is_offline()), path));
    let roots: Roots = Roots::default();
    let added = roots.clone();
    let paths = Paths::default();
    let upload = Followed { files: call.files()?, paths: paths.clone() };
    let events = import_shaped(params, shape, Box::new(upload), Arc::new(host));
    let events = events.filter_map(move |event| {
        let event = match event {
            Ok(output) => {
                if let Some(cid) = output.cid.filter(|_| !output.name.contains('/')) {
                    added.lock().unwrap_or_else(PoisonError::into_inner).push((output.name.clone(), cid));
                }
                let hash = output.cid.map(|cid| encoder.text(&cid)).unwrap_or_default();
                let (event, is_file) = event_of(output, hash, wraps, &paths);
                (!is_silent || !is_file).then_some(Ok(event))
            }
            Err(adder::Error::NoParts) => Some(Err(Failure::new("expected a file argument"))),
            Err(cause) => {
                let words = cause.to_string();
                let words = words.strip_prefix("bad CID Version: ").unwrap_or(&words);
                Some(Err(Failure::new(words)))
            }
        };
        futures::future::ready(event)
    });
    let Some((core, source, path)) = target else { return Ok(Answer::many(events)) };
    let end = futures::stream::once(async move {
        let roots = std::mem::take(&mut *roots.lock().unwrap_or_else(PoisonError::into_inner));
        mfs::put_added(&core, source, &path, roots)
            .await
            .map_err(|cause| Failure::new(format!("to-files: {cause}")))
    });
    // what was refused goes behind what was added
    let end = end.filter_map(|done| futures::future::ready(done.err().map(Err)));
    Ok(Answer::many(events.chain(end)))
}

/// Top-level entries that were added. Never held over an await.
type Roots = Arc<Mutex<Vec<(String, Cid)>>>;

/// An event, and whether it is about a file.
fn event_of(output: AddedOutput, hash: String, wraps: bool, paths: &Paths) -> (Event, bool) {
    let mut is_file = hash.is_empty();
    let name = match &hash[..] {
        "" if wraps => output.name,
        "" => paths.whole(output.name),
        hash => {
            is_file = paths.is_done(&output.name);
            if output.name.is_empty() && !wraps { hash.to_owned() } else { output.name }
        }
    };
    let size = if output.size > 0 { output.size.to_string() } else { String::new() };
    (Event { name, hash, bytes: output.bytes, size }, is_file)
}

/// Paths of the files that were read and are not told to be done; the importer's progress lacks their first component.
/// Never held over an await.
#[derive(Clone, Default)]
struct Paths(Arc<Mutex<VecDeque<String>>>);

impl Paths {
    fn push(&self, path: &[u8]) {
        let path = String::from_utf8_lossy(path).into_owned();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(path);
    }

    fn whole(&self, name: String) -> String {
        let paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let below = |path: &str| path.split_once('/').map_or("", |(_, below)| below).to_owned();
        paths.iter().find(|path| below(path) == name).cloned().unwrap_or(name)
    }

    /// Forgets a file and those before it; whether it was one.
    fn is_done(&self, name: &str) -> bool {
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match paths.iter().position(|path| path == name) {
            Some(at) => {
                paths.drain(..=at);
                true
            }
            None => false,
        }
    }
}

/// An upload that says which files it has given.
struct Followed {
    files: Files,
    paths: Paths,
}

#[async_trait]
impl Upload for Followed {
    async fn next_entry(&mut self) -> ApiResult<Option<Entry>> {
        let entry = self.files.next_entry().await?;
        if let Some(entry) = &entry
            && entry.kind == EntryKind::File
        {
            self.paths.push(&entry.path);
        }
        Ok(entry)
    }

    async fn read(&mut self) -> ApiResult<Option<Bytes>> {
        self.files.read().await
    }
}

/// This node as the importer's host: blocks go to its repository.
pub(super) struct NodeHost {
    core: Arc<Core>,
    peer: PeerId,
    name: String,
    only_hash: bool,
    /// Spares what is added until it is pinned.
    _lease: Lease,
}

impl NodeHost {
    /// A host whose pins get a name.
    pub(super) fn new(core: Arc<Core>, name: String) -> Self {
        let (peer, lease) = (core.keypair.public().to_peer_id(), core.repo.leases().hold(None));
        Self { peer, name, only_hash: false, _lease: lease, core }
    }
}

#[async_trait]
impl Host for NodeHost {
    fn local_peer(&self) -> PeerId {
        self.peer
    }

    async fn allocate(&self, _options: &PinOptions) -> Result<Vec<PeerId>, adder::Error> {
        Ok(vec![self.peer])
    }

    async fn put_blocks(
        &self,
        _destinations: &[PeerId],
        mut blocks: mpsc::Receiver<Batch>,
    ) -> Result<(), adder::Error> {
        while let Some(mut batch) = blocks.recv().await {
            let mut n_bytes: usize = batch.iter().map(|block| block.data.len()).sum();
            while n_bytes < WRITE_BYTES
                && let Ok(more) = blocks.try_recv()
            {
                n_bytes += more.iter().map(|block| block.data.len()).sum::<usize>();
                batch.extend(more);
            }
            if self.only_hash {
                continue;
            }
            let repo = self.core.repo.clone();
            let cids: Vec<Cid> = batch.iter().map(|block| block.cid).collect();
            blocking(move || repo.put(&batch)).await.map_err(failed)?;
            self.core.stored(&cids);
        }
        Ok(())
    }

    async fn pin(&self, pin: ClusterPin) -> Result<ClusterPin, adder::Error> {
        let (repo, cid) = (self.core.repo.clone(), pin.cid);
        let stored = Pin { kind: PinKind::Recursive, name: self.name.clone() };
        blocking(move || repo.set_pin(cid, stored)).await.map_err(failed)?;
        self.core.provide(&[cid]);
        Ok(pin)
    }

    async fn is_pinned(&self, cid: &Cid) -> Result<bool, adder::Error> {
        let (repo, cid) = (self.core.repo.clone(), *cid);
        Ok(blocking(move || repo.pin_of(&cid)).await.map_err(failed)?.is_some())
    }

    /// Only imports that are spread over shards pin before they end; this node makes none.
    fn take_back(&self, _cids: Vec<Cid>) -> oneshot::Receiver<()> {
        let (done, end) = oneshot::channel();
        let _ = done.send(());
        end
    }
}

fn failed(cause: super::super::Error) -> adder::Error {
    adder::Error::Api(cluster_compat::api::Error::internal(cause.to_string()))
}
