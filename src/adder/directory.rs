//! Directories: the tree of an upload's names, and its nodes once the content is known.

use std::collections::BTreeMap;

use cluster_compat::types::Cid;

use super::hash::CidBuilder;
use super::unixfs::{Link, Node, directory};
use super::{Error, files, hamt};

/// Bytes of names and CIDs above which a directory is sharded. (Go: `boxo/ipld/unixfs/io`)
const HAMT_ABOVE: usize = 262_144;

/// A directory by name.
#[derive(Debug, Default)]
pub(super) struct Tree {
    entries: BTreeMap<Vec<u8>, Entry>,
}

/// One entry of a directory.
#[derive(Debug)]
enum Entry {
    Directory(Tree),
    /// A file or link: CID and cumulative size.
    Leaf(Cid, u64),
}

impl Tree {
    /// The directory at `path`, made if it is missing. Empty names stand for the directory itself.
    pub(super) fn directory<'a>(&mut self, path: impl Iterator<Item = &'a [u8]>) -> Result<&mut Tree, Error> {
        Ok(self.descend(path)?.0)
    }

    /// Makes the directory at `path`; says whether it was missing.
    pub(super) fn make<'a>(&mut self, path: impl Iterator<Item = &'a [u8]>) -> Result<bool, Error> {
        Ok(self.descend(path)?.1)
    }

    fn descend<'a>(&mut self, path: impl Iterator<Item = &'a [u8]>) -> Result<(&mut Tree, bool), Error> {
        let mut tree = self;
        let mut is_new = false;
        for name in path.filter(|name| !name.is_empty()) {
            is_new = !tree.entries.contains_key(name);
            let entry =
                tree.entries.entry(name.to_vec()).or_insert_with(|| Entry::Directory(Tree::default()));
            tree = match entry {
                Entry::Directory(tree) => tree,
                Entry::Leaf(..) => return Err(Error::NotADirectory(files::text(name))),
            };
        }
        Ok((tree, is_new))
    }

    /// Whether no directory here or below has two of them.
    pub(super) fn is_chain(&self) -> bool {
        let mut tree = self;
        loop {
            let mut below = tree.entries.values().filter_map(|entry| match entry {
                Entry::Directory(tree) => Some(tree),
                Entry::Leaf(..) => None,
            });
            match (below.next(), below.next()) {
                (None, _) => return true,
                (Some(_), Some(_)) => return false,
                (Some(only), None) => tree = only,
            }
        }
    }

    /// Puts a file or link here; it replaces another file of that name, as in the reference.
    pub(super) fn insert(&mut self, name: Vec<u8>, cid: Cid, tsize: u64) -> Result<(), Error> {
        match self.entries.insert(name, Entry::Leaf(cid, tsize)) {
            Some(Entry::Directory(_)) => Err(Error::EntryExists),
            Some(Entry::Leaf(..)) | None => Ok(()),
        }
    }
}

/// Nodes of a tree, children before parents. A walk rather than a function, so that the caller may wait for
/// room between directories.
pub(super) struct Nodes<'a> {
    cids: CidBuilder,
    /// Length of a CID of a directory, for the size rule.
    cid_len: usize,
    open: Vec<Open<'a>>,
}

/// A directory whose children are being visited.
struct Open<'a> {
    path: Vec<u8>,
    name: &'a [u8],
    /// What is still to visit, last one first.
    todo: Vec<(&'a [u8], &'a Entry)>,
    links: Vec<Link>,
    is_sharded: bool,
}

/// A complete directory.
pub(super) struct Complete {
    /// Its path, for the event.
    pub(super) path: Vec<u8>,
    /// Its nodes, the root last.
    pub(super) nodes: Vec<Node>,
}

impl<'a> Nodes<'a> {
    /// The nodes of `tree`, which stands at `path`.
    pub(super) fn new(tree: &'a Tree, path: Vec<u8>, cids: CidBuilder) -> Self {
        let cid_len = cids.dag_pb(b"").encoded_len();
        let mut nodes = Self { cids, cid_len, open: Vec::new() };
        nodes.enter(tree, path, b"");
        nodes
    }

    fn enter(&mut self, tree: &'a Tree, path: Vec<u8>, name: &'a [u8]) {
        let size: usize = tree
            .entries
            .iter()
            .map(|(name, entry)| {
                name.len()
                    + match entry {
                        Entry::Directory(_) => self.cid_len,
                        Entry::Leaf(cid, _) => cid.encoded_len(),
                    }
            })
            .sum();
        let is_sharded = size > HAMT_ABOVE;
        let mut todo: Vec<_> = tree.entries.iter().map(|(name, entry)| (&name[..], entry)).collect();
        if is_sharded {
            // A sharded directory is listed in the order of its trie.
            todo.sort_by_key(|(name, _)| hamt::hash(name));
        }
        todo.reverse();
        let links = Vec::with_capacity(todo.len());
        self.open.push(Open { path, name, todo, links, is_sharded });
    }

    /// The next complete directory; the tree's own comes last.
    pub(super) fn next(&mut self) -> Result<Option<Complete>, Error> {
        loop {
            let Some(open) = self.open.last_mut() else { return Ok(None) };
            match open.todo.pop() {
                Some((name, &Entry::Leaf(cid, tsize))) => {
                    open.links.push(Link { name: name.to_vec(), cid, tsize });
                }
                Some((name, Entry::Directory(tree))) => {
                    let path = files::join([&open.path[..], name].into_iter());
                    self.enter(tree, path, name);
                }
                None => {
                    let Some(open) = self.open.pop() else { return Ok(None) };
                    let nodes = if open.is_sharded {
                        hamt::build(open.links, self.cids)?
                    } else {
                        vec![directory(self.cids, &open.links)]
                    };
                    if let (Some(parent), Some(root)) = (self.open.last_mut(), nodes.last()) {
                        let link = Link { name: open.name.to_vec(), cid: root.block.cid, tsize: root.tsize };
                        parent.links.push(link);
                    }
                    return Ok(Some(Complete { path: open.path, nodes }));
                }
            }
        }
    }
}
