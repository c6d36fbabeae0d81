//! Nodes of directories, once the content of all their files is known.

use std::collections::VecDeque;
use std::ops::Range;

use cluster_compat::types::{Block, Cid};

use super::hash::CidBuilder;
use super::tree::{Dir, Kind, Tree};
use super::unixfs::{Link, Node, directory};
use super::{Error, hamt};

/// Bytes of names and CIDs above which a directory is sharded. (Go: `boxo/ipld/unixfs/io`)
const HAMT_ABOVE: usize = 262_144;

/// An entry of a directory that stands alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Its name, any bytes without a slash.
    pub name: Vec<u8>,
    /// What stands there.
    pub cid: Cid,
    /// Bytes of the DAG beneath it.
    pub tsize: u64,
}

/// The nodes of one directory, children before parents, its root last, each with the bytes of the DAG it is the root of.
/// It is sharded where Kubo's importer would shard it. `version` and `hash` are those of the CIDs (spec: adder 3).
///
/// # Errors
/// A CID version or hash that is not known, or entries whose names cannot be told apart by their hashes.
pub fn directory_of(
    mut entries: Vec<DirectoryEntry>,
    version: i64,
    hash: &str,
) -> Result<Vec<(Block, u64)>, Error> {
    let cids = CidBuilder::new(version, hash)?;
    let size: usize = entries.iter().map(|entry| entry.name.len() + entry.cid.encoded_len()).sum();
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    let links: Vec<Link> =
        entries.into_iter().map(|DirectoryEntry { name, cid, tsize }| Link { name, cid, tsize }).collect();
    let nodes = if size > HAMT_ABOVE { hamt::build(links, cids)? } else { vec![directory(cids, &links)] };
    Ok(nodes.into_iter().map(|node| (node.block, node.tsize)).collect())
}

/// Nodes of a directory and all beneath it, children before parents. A walk rather than a function, so that the caller
/// may wait for room between nodes; it holds four bytes for each entry, sixteen more while the directory is sharded,
/// and the nodes that are not complete.
pub(super) struct Nodes<'a> {
    tree: &'a Tree,
    /// All entries, those of a directory together.
    entries: Vec<u32>,
    cids: CidBuilder,
    /// Length of a CID of a directory, for the size rule.
    cid_len: usize,
    open: Vec<Open>,
    /// Path of the innermost open directory; those of the others are beginnings of it.
    path: Vec<u8>,
    /// What is complete and was not given out.
    complete: VecDeque<Step>,
}

/// A directory whose entries are being visited.
struct Open {
    /// Length of its path.
    path_len: usize,
    /// Its own entry in the directory above, and the hash of its name where that one is sharded.
    id: Option<(u32, u64)>,
    todo: Todo,
}

/// What is still to visit, and what was.
enum Todo {
    /// Entries in the order of their names.
    Basic { rest: Range<usize>, links: Vec<Link> },
    /// Entries in the order of their hashes, the last one first.
    Sharded { rest: Vec<(u64, u32)>, trie: hamt::Trie },
}

/// What [`Nodes::next`] found.
pub(super) enum Step {
    /// A part of a sharded directory.
    Node(Node),
    /// A directory is complete.
    Directory {
        /// Its path, for the event.
        path: Vec<u8>,
        /// Its root.
        root: Node,
        /// Whether it has other nodes, which came before.
        is_sharded: bool,
    },
}

impl<'a> Nodes<'a> {
    /// The nodes of the directory `dir`, which stands at `path`.
    pub(super) fn new(tree: &'a Tree, dir: Dir, path: Vec<u8>, cids: CidBuilder) -> Self {
        let cid_len = cids.with_inline(None).dag_pb(b"").encoded_len();
        let entries = tree.below(dir);
        let (open, complete) = (Vec::new(), VecDeque::new());
        let mut nodes = Self { tree, entries, cids, cid_len, open, path, complete };
        nodes.enter(dir, None);
        nodes
    }

    /// Whether no directory here or below has two of them.
    pub(super) fn is_chain(&self) -> bool {
        let mut directories = self
            .entries
            .iter()
            .map(|id| self.tree.entry(*id))
            .filter(|entry| matches!(entry.kind, Kind::Directory(_)))
            .map(|entry| entry.parent);
        let mut last = None;
        directories.all(|parent| last.replace(parent) != Some(parent))
    }

    fn enter(&mut self, dir: Dir, id: Option<(u32, u64)>) {
        let start = self.entries.partition_point(|id| self.tree.parent(*id) < dir);
        let len = self.entries[start..].partition_point(|id| self.tree.parent(*id) == dir);
        let entries = &self.entries[start..start + len];
        let size: usize = entries.iter().map(|id| self.size(*id)).sum();
        let todo = if size > HAMT_ABOVE {
            let mut rest: Vec<_> = entries.iter().map(|id| (hamt::hash(self.tree.name(*id)), *id)).collect();
            rest.sort_unstable();
            rest.reverse();
            Todo::Sharded { rest, trie: hamt::Trie::new(self.cids) }
        } else {
            Todo::Basic { rest: start..start + len, links: Vec::with_capacity(len) }
        };
        self.open.push(Open { path_len: self.path.len(), id, todo });
    }

    /// What an entry counts for the size rule.
    fn size(&self, id: u32) -> usize {
        let entry = self.tree.entry(id);
        entry.name.len()
            + match entry.kind {
                Kind::Directory(_) => self.cid_len,
                Kind::Leaf(cid, _) => cid.encoded_len(),
            }
    }

    /// The next complete node; that of the directory itself comes last.
    pub(super) fn next(&mut self) -> Result<Option<Step>, Error> {
        loop {
            if let Some(step) = self.complete.pop_front() {
                return Ok(Some(step));
            }
            let Some(open) = self.open.last_mut() else { return Ok(None) };
            let next = match &mut open.todo {
                Todo::Basic { rest, .. } => rest.next().map(|at| (self.entries[at], 0)),
                Todo::Sharded { rest, .. } => rest.pop().map(|(hash, id)| (id, hash)),
            };
            let Some((id, hash)) = next else {
                self.leave()?;
                continue;
            };
            match self.tree.entry(id).kind {
                Kind::Leaf(cid, tsize) => self.link(id, hash, cid, tsize)?,
                Kind::Directory(dir) => {
                    if !self.path.is_empty() {
                        self.path.push(b'/');
                    }
                    self.path.extend_from_slice(self.tree.name(id));
                    self.enter(dir, Some((id, hash)));
                }
            }
        }
    }

    /// Adds a finished entry to the innermost directory.
    fn link(&mut self, id: u32, hash: u64, cid: Cid, tsize: u64) -> Result<(), Error> {
        let link = Link { name: self.tree.name(id).to_vec(), cid, tsize };
        match self.open.last_mut().map(|open| &mut open.todo) {
            Some(Todo::Basic { links, .. }) => links.push(link),
            Some(Todo::Sharded { rest, trie }) => {
                let next = rest.last().map(|(hash, _)| *hash);
                trie.push(hash, next, link, |node| self.complete.push_back(Step::Node(node)))?;
            }
            None => {}
        }
        Ok(())
    }

    /// Ends the innermost directory.
    fn leave(&mut self) -> Result<(), Error> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let (root, is_sharded) = match open.todo {
            Todo::Basic { links, .. } => (directory(self.cids, &links), false),
            Todo::Sharded { trie, .. } => (trie.finish(), true),
        };
        let (cid, tsize) = (root.block.cid, root.tsize);
        let path = self.path[..open.path_len].to_vec();
        self.path.truncate(self.open.last().map_or(0, |above| above.path_len));
        self.complete.push_back(Step::Directory { path, root, is_sharded });
        match open.id {
            Some((id, hash)) => self.link(id, hash, cid, tsize),
            None => Ok(()),
        }
    }
}
