//! Mutable files: a directory tree whose root the repository keeps, `files/*` of the RPC.
//!
//! The tree is made of blocks as any other; a change writes the directories from the place it is at up to the root,
//! then the root. Invariants: changes come one after another; what a change answered is on disk; a collection keeps
//! what the tree reaches. Texts are boxo's (`mfs`).

use std::sync::Arc;

use bytes::Bytes;
use cluster_compat::types::{Block, Cid};
use multihash_codetable::{Code, MultihashDigest as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ipld::pb::{Kind, Node, PbLink, UnixFs};
use super::ipld::{DAG_PB, RAW};
use super::lease::Lease;
use super::rpc::hash_name;
use super::source::{Source, blocking};
use super::{EMPTY_DIRECTORY, Error, gc, hamt};
use crate::adder::{self, DirectoryEntry};

const MISSING: &str = "file does not exist";
const EXISTS: &str = "file already exists";
const HAS_ENTRY: &str = "directory already has entry by that name";

/// Which CIDs new nodes get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) version: i64,
    pub(super) hash: String,
}

impl Form {
    /// That of a node.
    pub(super) fn of(cid: &Cid) -> Self {
        let version = if cid.version() == cid::Version::V0 { 0 } else { 1 };
        Self { version, hash: hash_name(cid.hash().code()) }
    }
}

/// Something in the tree, or on its way there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) cid: Cid,
    /// Bytes of the DAG.
    pub(super) tsize: u64,
}

/// A directory that is being changed.
struct Directory {
    cid: Cid,
    entries: Vec<DirectoryEntry>,
    mode: Option<u32>,
    mtime: Option<(i64, u32)>,
}

/// The tree. Clones share it.
#[derive(Clone)]
pub(super) struct Mfs {
    turn: Arc<Semaphore>,
}

/// A change: nobody else changes the tree meanwhile, and nothing that it puts is collected.
pub(super) struct Edit {
    source: Source,
    _turn: OwnedSemaphorePermit,
    _lease: Lease,
}

impl Mfs {
    pub(super) fn new() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)) }
    }

    /// Begins a change, after those before it. `kept` is a DAG that goes into the tree.
    pub(super) async fn edit(&self, source: Source, kept: Option<Cid>) -> Result<Edit, Error> {
        let turn = Arc::clone(&self.turn).acquire_owned().await.map_err(|_| Error::Stopped)?;
        let lease = source.repo().leases().hold(kept);
        if let Some(kept) = kept {
            let repo = source.repo().clone();
            blocking(move || gc::spare(&repo, kept)).await?;
        }
        Ok(Edit { source, _turn: turn, _lease: lease })
    }
}

/// The names of a path.
pub(super) fn names(path: &str) -> Vec<&str> {
    path.split('/').filter(|name| !name.is_empty()).collect()
}

/// The root; of a tree that was never changed the empty directory.
pub(super) async fn root(source: &Source) -> Result<Cid, Error> {
    let repo = source.repo().clone();
    let root = blocking(move || repo.files()).await?;
    Ok(root.unwrap_or_else(empty_directory))
}

/// The empty directory as CIDv0; every repository has its block.
fn empty_directory() -> Cid {
    let hash = Code::Sha2_256.digest(EMPTY_DIRECTORY);
    Cid::new_v0(hash).unwrap_or_else(|_| Cid::new_v1(DAG_PB, hash))
}

/// What stands at a path.
pub(super) async fn lookup(source: &Source, path: &str) -> Result<Cid, Error> {
    let names = names(path);
    let mut cid = root(source).await?;
    for (at, name) in names.iter().enumerate() {
        if !is_directory(source, cid).await? {
            return Err(Error::message(format!("cannot access {}: Not a directory", names[..=at].join("/"))));
        }
        cid = child(source, cid, name).await?.ok_or_else(|| Error::message(MISSING))?;
    }
    Ok(cid)
}

/// Whether an error says that there is nothing at a path.
pub(super) fn is_missing(cause: &Error) -> bool {
    matches!(cause, Error::Message(text) if text == MISSING)
}

/// Whether a node is a directory.
pub(super) async fn is_directory(source: &Source, cid: Cid) -> Result<bool, Error> {
    if cid.codec() == RAW {
        return Ok(false);
    }
    let (_, unixfs) = read(source, cid).await?;
    Ok(matches!(unixfs.kind, Kind::Directory | Kind::Hamt))
}

/// The entry of a directory.
pub(super) async fn child(source: &Source, cid: Cid, name: &str) -> Result<Option<Cid>, Error> {
    let (node, unixfs) = read(source, cid).await?;
    match unixfs.kind {
        Kind::Hamt => hamt::find(source, &node, &unixfs, name).await,
        _ => Ok(node.link(name).map(|link| link.cid)),
    }
}

async fn read(source: &Source, cid: Cid) -> Result<(Node, UnixFs), Error> {
    if cid.codec() != DAG_PB {
        return Err(Error::message("unrecognized node type in cache node"));
    }
    let block = source.block(cid).await?;
    let node = Node::decode(&block).map_err(Error::message)?;
    let unixfs = UnixFs::decode(node.data.as_deref().unwrap_or_default()).map_err(Error::message)?;
    Ok((node, unixfs))
}

/// A node with the bytes of its DAG.
pub(super) async fn item(source: &Source, cid: Cid) -> Result<Item, Error> {
    if cid.codec() == RAW {
        return Ok(Item { cid, tsize: source.size(cid).await? });
    }
    let block = source.block(cid).await?;
    let node = Node::decode(&block).map_err(Error::message)?;
    let tsize = node.links.iter().fold(block.len() as u64, |sum, link| sum.saturating_add(link.tsize));
    Ok(Item { cid, tsize })
}

impl Directory {
    async fn read(source: &Source, cid: Cid) -> Result<Self, Error> {
        let (node, unixfs) = read(source, cid).await?;
        let (mode, mtime) = (unixfs.mode, unixfs.mtime);
        let entries = match unixfs.kind {
            Kind::Hamt => {
                let mut entries = Vec::new();
                hamt::entries(source, node, unixfs.fanout, 0, &mut entries).await?;
                entries
            }
            _ => node.links,
        };
        let entry = |link: PbLink| DirectoryEntry { name: link.name, cid: link.cid, tsize: link.tsize };
        Ok(Self { cid, entries: entries.into_iter().map(entry).collect(), mode, mtime })
    }

    fn set(&mut self, name: &str, item: Option<Item>) {
        self.entries.retain(|entry| entry.name != name.as_bytes());
        if let Some(item) = item {
            self.entries.push(DirectoryEntry { name: name.into(), cid: item.cid, tsize: item.tsize });
        }
    }

    /// Its nodes, the root last.
    fn write(self, form: &Form, out: &mut Vec<Block>) -> Result<Item, Error> {
        let mut nodes = adder::directory_of(self.entries, form.version, &form.hash)
            .map_err(|cause| Error::message(cause.to_string()))?;
        let Some((root, tsize)) = nodes.pop() else { return Err(Error::message("a directory has a root")) };
        out.extend(nodes.into_iter().map(|(block, _)| block));
        if self.mode.is_none() && self.mtime.is_none() {
            out.push(root.clone());
            return Ok(Item { cid: root.cid, tsize });
        }
        let block = with_meta(&root, self.mode, self.mtime)?;
        let tsize = tsize - root.data.len() as u64 + block.data.len() as u64;
        let cid = block.cid;
        out.push(block);
        Ok(Item { cid, tsize })
    }
}

/// A node with another mode or time.
fn with_meta(block: &Block, mode: Option<u32>, mtime: Option<(i64, u32)>) -> Result<Block, Error> {
    let mut node = Node::decode(&block.data).map_err(Error::message)?;
    let data = node.data.as_deref().unwrap_or_default();
    node.data = Some(UnixFs::with_meta(data, mode, mtime).map_err(Error::message)?);
    dag_pb(&block.cid, &node)
}

/// A node as a block whose CID is of the form of `like`.
fn dag_pb(like: &Cid, node: &Node) -> Result<Block, Error> {
    let data = Bytes::from(node.encode());
    let (code, len) = (like.hash().code(), like.hash().size());
    let hash = adder::digest(code, len, &data)
        .ok_or_else(|| Error::message(format!("unrecognized hash function: {:?}", hash_name(code))))?;
    let cid = match like.version() {
        cid::Version::V0 => Cid::new_v0(hash).map_err(|cause| Error::message(cause.to_string()))?,
        cid::Version::V1 => Cid::new_v1(DAG_PB, hash),
    };
    Ok(Block { cid, data, is_spare: false })
}

impl Edit {
    /// Where its blocks come from.
    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// Puts something at a path, in place of what is there, or takes away what is there. The directories above exist.
    pub(super) async fn set(&self, path: &str, item: Option<Item>) -> Result<(), Error> {
        self.put(path, item, Vec::new()).await
    }

    /// The same, with blocks beneath it that were made for it.
    async fn put(&self, path: &str, item: Option<Item>, mut blocks: Vec<Block>) -> Result<(), Error> {
        let names = names(path);
        let Some((name, above)) = names.split_last() else {
            let Some(item) = item else { return Err(Error::message("cannot delete root")) };
            return self.write(blocks, item.cid).await;
        };
        let mut cid = root(&self.source).await?;
        let mut open = vec![Directory::read(&self.source, cid).await?];
        for name in above {
            cid = child(&self.source, cid, name).await?.ok_or_else(|| Error::message(MISSING))?;
            open.push(Directory::read(&self.source, cid).await?);
        }
        let mut name = *name;
        let mut item = item;
        while let Some(mut directory) = open.pop() {
            directory.set(name, item);
            let form = Form::of(&directory.cid);
            item = Some(directory.write(&form, &mut blocks)?);
            name = if open.is_empty() { "" } else { above[open.len() - 1] };
        }
        match item {
            Some(root) => self.write(blocks, root.cid).await,
            None => Ok(()),
        }
    }

    async fn write(&self, blocks: Vec<Block>, root: Cid) -> Result<(), Error> {
        let repo = self.source.repo().clone();
        blocking(move || {
            repo.put(&blocks)?;
            repo.set_files(root)
        })
        .await
    }

    /// Puts something where nothing is. (Go: `PutNode`)
    pub(super) async fn create(&self, path: &str, item: Item) -> Result<(), Error> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name.is_empty() {
            return Err(Error::message("cannot create file with empty name"));
        }
        let directory = self.directory(&format!("{above}/")).await?;
        if child(&self.source, directory, name).await?.is_some() {
            return Err(Error::message(HAS_ENTRY));
        }
        self.set(path, Some(item)).await
    }

    /// A directory that has to be there.
    async fn directory(&self, path: &str) -> Result<Cid, Error> {
        let cid = lookup(&self.source, path).await?;
        if !is_directory(&self.source, cid).await? {
            return Err(Error::message(format!("{path} is not a directory")));
        }
        Ok(cid)
    }

    /// Makes a directory. `form` of none is that of the root. (Go: `Mkdir`)
    pub(super) async fn mkdir(&self, path: &str, parents: bool, form: Option<Form>) -> Result<(), Error> {
        let names = names(path);
        let mut cid = root(&self.source).await?;
        let form = form.unwrap_or_else(|| Form::of(&cid));
        if names.is_empty() {
            let exists = Error::message("cannot create directory '/': Already exists");
            return if parents { Ok(()) } else { Err(exists) };
        }
        let mut n_there = 0;
        for (at, name) in names.iter().enumerate() {
            if !is_directory(&self.source, cid).await? {
                return Err(Error::message(format!("{} was not a directory", names[..at - 1].join("/"))));
            }
            match child(&self.source, cid, name).await? {
                Some(next) => cid = next,
                None if !parents && at + 1 < names.len() => return Err(Error::message(MISSING)),
                None => break,
            }
            n_there = at + 1;
        }
        if n_there == names.len() {
            let is_fine = parents && is_directory(&self.source, cid).await?;
            return if is_fine { Ok(()) } else { Err(Error::message(EXISTS)) };
        }
        // the new ones, the innermost first
        let mut blocks = Vec::new();
        let empty = || Directory { cid, entries: Vec::new(), mode: None, mtime: None };
        let mut item = empty().write(&form, &mut blocks)?;
        for name in names[n_there + 1..].iter().rev() {
            let mut directory = empty();
            directory.set(name, Some(item));
            item = directory.write(&form, &mut blocks)?;
        }
        self.put(&names[..=n_there].join("/"), Some(item), blocks).await
    }

    /// Moves something. (Go: `Mv`)
    pub(super) async fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let (from_dir, from_name) = from.rsplit_once('/').unwrap_or(("", from));
        let (mut to_dir, mut to_name) = to.rsplit_once('/').unwrap_or(("", to));
        if to_name.is_empty() {
            to_name = from_name;
        }
        let target = self.directory(&format!("{to_dir}/")).await?;
        let source = self.directory(&format!("{from_dir}/")).await?;
        let moved = child(&self.source, source, from_name).await?.ok_or_else(|| Error::message(MISSING))?;
        if names(to).starts_with(&names(from)) && names(to).len() > names(from).len() {
            return Err(Error::message(format!("cannot move {from} into itself")));
        }
        if let Some(there) = child(&self.source, target, to_name).await?
            && is_directory(&self.source, there).await?
        {
            to_dir = to;
            to_name = from_name;
            if child(&self.source, there, to_name).await?.is_some() {
                return Err(Error::message(HAS_ENTRY));
            }
        }
        let item = item(&self.source, moved).await?;
        let to = format!("{}/{to_name}", to_dir.trim_end_matches('/'));
        if names(&to) == names(from) {
            return Ok(());
        }
        self.set(&to, Some(item)).await?;
        self.set(from, None).await
    }

    /// Changes mode or time of what stands at a path.
    pub(super) async fn annotate(
        &self,
        path: &str,
        change: impl FnOnce(&mut Option<u32>, &mut Option<(i64, u32)>),
    ) -> Result<(), Error> {
        let cid = lookup(&self.source, path).await?;
        let block = self.source.block(cid).await?;
        let (mut mode, mut mtime) = (None, None);
        let block = if cid.codec() == RAW {
            change(&mut mode, &mut mtime);
            // a raw block has no place for them; the node around it is of the first form, as in Kubo
            let like = empty_directory();
            let node = Node { links: Vec::new(), data: Some(UnixFs::file(&block)) };
            with_meta(&dag_pb(&like, &node)?, mode, mtime)?
        } else {
            let (_, unixfs) = read(&self.source, cid).await?;
            (mode, mtime) = (unixfs.mode, unixfs.mtime);
            change(&mut mode, &mut mtime);
            with_meta(&Block { cid, data: block, is_spare: false }, mode, mtime)?
        };
        let node = Node::decode(&block.data).map_err(Error::message)?;
        let below = node.links.iter().fold(0u64, |sum, link| sum.saturating_add(link.tsize));
        let item = Item { cid: block.cid, tsize: below.saturating_add(block.data.len() as u64) };
        self.put(path, Some(item), vec![block]).await
    }

    /// Gives a directory CIDs of another form.
    pub(super) async fn reform(&self, path: &str, form: &Form) -> Result<(), Error> {
        let cid = lookup(&self.source, path).await?;
        if !is_directory(&self.source, cid).await? {
            return Err(Error::message("can only update directories"));
        }
        let mut blocks = Vec::new();
        let item = Directory::read(&self.source, cid).await?.write(form, &mut blocks)?;
        self.put(path, Some(item), blocks).await
    }
}
