//! The names of an upload, as directories will list them.
//!
//! A million entries shall fit: an entry is one record in a few large segments, an offset, and a place in a table of
//! names; some 90 bytes and its name, whether it is a file or a directory. Records are never changed, so a name that is
//! given twice leaves its first record behind.

use std::hash::{BuildHasher as _, RandomState};

use cluster_compat::types::Cid;
use hashbrown::HashTable;

use super::{Error, files};

/// Bytes of the first segment; each further one is twice as large, up to [`MAX_SEGMENT_BYTES`].
const MIN_SEGMENT_BYTES: usize = 1024;
const MAX_SEGMENT_BYTES: usize = 1024 * 1024;

/// What stands before the name: parent, whether it is a leaf, length of the name.
const HEAD_BYTES: usize = 9;

/// Most entries of an upload; the bytes of their records would be hundreds of gigabytes.
const MAX_ENTRIES: usize = u32::MAX as usize - 1;

/// A directory of a [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Dir(u32);

impl Dir {
    /// What holds the top-level entries.
    pub(super) const ROOT: Self = Self(u32::MAX);
}

/// What a name stands for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Directory(Dir),
    /// A file or link: CID and cumulative size.
    Leaf(Cid, u64),
}

/// An entry of a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) parent: Dir,
    pub(super) name: &'a [u8],
    pub(super) kind: Kind,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tree {
    segments: Vec<Vec<u8>>,
    /// Where the record of each entry stands: segment and place.
    places: Vec<(u32, u32)>,
    /// Entries by parent and name.
    table: HashTable<u32>,
    hasher: RandomState,
}

impl Tree {
    /// The directory called `name` in `dir`, made if it is missing, and whether it was. Without a name it is `dir` itself.
    pub(super) fn child(&mut self, dir: Dir, name: &[u8]) -> Result<(Dir, bool), Error> {
        if name.is_empty() {
            return Ok((dir, false));
        }
        match self.find(dir, name) {
            None => Ok((Dir(self.add(dir, name, None)?), true)),
            Some(id) => match self.entry(id).kind {
                Kind::Directory(found) => Ok((found, false)),
                Kind::Leaf(..) => Err(Error::NotADirectory(files::text(name))),
            },
        }
    }

    /// Puts a file or link there; it replaces another file of that name, as in the reference.
    pub(super) fn insert(&mut self, dir: Dir, name: &[u8], cid: Cid, tsize: u64) -> Result<(), Error> {
        match self.find(dir, name) {
            None => self.add(dir, name, Some((cid, tsize))).map(|_| ()),
            Some(id) => match self.entry(id).kind {
                Kind::Directory(_) => Err(Error::EntryExists),
                Kind::Leaf(..) => {
                    self.places[id as usize] = self.record(dir, name, Some((cid, tsize)))?;
                    Ok(())
                }
            },
        }
    }

    /// The entries below `dir` at any depth, those of one directory together and by name; directories are in the order
    /// in which they were made.
    pub(super) fn below(&self, dir: Dir) -> Vec<u32> {
        let first = if dir == Dir::ROOT { 0 } else { dir.0 as usize + 1 };
        // A directory is made before what it holds.
        let mut is_below = vec![false; self.places.len() - first];
        let mut found = Vec::new();
        for id in first..self.places.len() {
            let parent = self.parent(id as u32);
            let is_here = parent == dir
                || (parent != Dir::ROOT && parent.0 as usize >= first && is_below[parent.0 as usize - first]);
            if is_here {
                is_below[id - first] = true;
                found.push(id as u32);
            }
        }
        drop(is_below);
        found
            .sort_unstable_by(|a, b| (self.parent(*a), self.name(*a)).cmp(&(self.parent(*b), self.name(*b))));
        found
    }

    /// An entry by its number.
    pub(super) fn entry(&self, id: u32) -> Entry<'_> {
        let (name, rest) = self.name_and_rest(id);
        let kind = match rest.split_first_chunk::<8>() {
            None => Kind::Directory(Dir(id)),
            // what `record` wrote can be read
            Some((tsize, cid)) => {
                Kind::Leaf(Cid::read_bytes(cid).unwrap_or_default(), u64::from_le_bytes(*tsize))
            }
        };
        Entry { parent: self.parent(id), name, kind }
    }

    /// The name of an entry.
    pub(super) fn name(&self, id: u32) -> &[u8] {
        self.name_and_rest(id).0
    }

    /// The directory that holds an entry.
    pub(super) fn parent(&self, id: u32) -> Dir {
        let bytes = self.bytes(id);
        Dir(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn find(&self, dir: Dir, name: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one((dir, name));
        self.table.find(hash, |id| self.parent(*id) == dir && self.name(*id) == name).copied()
    }

    fn add(&mut self, dir: Dir, name: &[u8], leaf: Option<(Cid, u64)>) -> Result<u32, Error> {
        if self.places.len() == MAX_ENTRIES {
            return Err(Error::TooManyEntries);
        }
        let place = self.record(dir, name, leaf)?;
        let id = self.places.len() as u32;
        self.places.push(place);
        let hash = self.hasher.hash_one((dir, name));
        // the table asks for hashes of others while it grows
        let mut table = std::mem::take(&mut self.table);
        table.insert_unique(hash, id, |id| self.hasher.hash_one((self.parent(*id), self.name(*id))));
        self.table = table;
        Ok(id)
    }

    /// Writes a record; returns its place.
    fn record(&mut self, dir: Dir, name: &[u8], leaf: Option<(Cid, u64)>) -> Result<(u32, u32), Error> {
        let name_len = u32::try_from(name.len()).map_err(|_| Error::TooManyEntries)?;
        let mut cid = [0; 96];
        // a CID has at most 1 + 10 + 10 + 1 + 64 bytes
        let cid_len = leaf.map_or(0, |(leaf, _)| leaf.write_bytes(&mut cid[..]).unwrap_or(0));
        let len = HEAD_BYTES + name.len() + if leaf.is_some() { 8 + cid_len } else { 0 };
        let has_room = self.segments.last().is_some_and(|last| last.capacity() - last.len() >= len);
        if !has_room {
            let size = MIN_SEGMENT_BYTES << self.segments.len().min(20);
            self.segments.push(Vec::with_capacity(size.min(MAX_SEGMENT_BYTES).max(len)));
        }
        let segment = self.segments.len() - 1;
        let bytes = &mut self.segments[segment];
        let place = (segment as u32, bytes.len() as u32);
        bytes.extend_from_slice(&dir.0.to_le_bytes());
        // 0 is a directory; else the length of what follows the name
        bytes.push(if leaf.is_some() { (8 + cid_len) as u8 } else { 0 });
        bytes.extend_from_slice(&name_len.to_le_bytes());
        bytes.extend_from_slice(name);
        if let Some((_, tsize)) = leaf {
            bytes.extend_from_slice(&tsize.to_le_bytes());
            bytes.extend_from_slice(&cid[..cid_len]);
        }
        Ok(place)
    }

    fn bytes(&self, id: u32) -> &[u8] {
        let (segment, place) = self.places[id as usize];
        &self.segments[segment as usize][place as usize..]
    }

    /// The name, and what a leaf has behind it.
    fn name_and_rest(&self, id: u32) -> (&[u8], &[u8]) {
        let bytes = self.bytes(id);
        let name_len = u32::from_le_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]) as usize;
        let rest_len = usize::from(bytes[4]);
        bytes[HEAD_BYTES..HEAD_BYTES + name_len + rest_len].split_at(name_len)
    }

    /// Bytes of memory in use.
    #[cfg(test)]
    pub(super) fn n_bytes(&self) -> usize {
        self.segments.iter().map(Vec::capacity).sum::<usize>()
            + self.places.capacity() * size_of::<(u32, u32)>()
            + self.table.allocation_size()
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash::CidBuilder;
    use super::*;

    fn leaf(data: &str) -> Cid {
        CidBuilder::new(1, "sha2-256").unwrap().raw(data.as_bytes())
    }

    fn make(tree: &mut Tree, path: &str) -> Result<(Dir, bool), Error> {
        path.split('/').try_fold((Dir::ROOT, false), |(dir, _), name| tree.child(dir, name.as_bytes()))
    }

    #[test]
    fn entries_stand_by_directory_and_name() {
        let mut tree = Tree::default();
        let (b, is_new) = make(&mut tree, "b").unwrap();
        assert!(is_new);
        tree.insert(b, b"y", leaf("1"), 1).unwrap();
        let (deep, is_new) = make(&mut tree, "b/c/d").unwrap();
        assert!(is_new && !make(&mut tree, "b/c").unwrap().1);
        tree.insert(deep, b"f", leaf("2"), 2).unwrap();
        let (a, _) = make(&mut tree, "a").unwrap();
        tree.insert(a, b"z", leaf("3"), 3).unwrap();
        tree.insert(b, b"x", leaf("4"), 4).unwrap();
        // the later one counts
        tree.insert(b, b"y", leaf("5"), 5).unwrap();
        let names = |dir| {
            let of = |id| String::from_utf8(tree.name(id).to_vec()).unwrap();
            tree.below(dir).into_iter().map(of).collect::<String>()
        };
        assert_eq!(names(b), "cxydf");
        assert_eq!(names(a), "z");
        assert_eq!(names(Dir::ROOT), "cxydfzab", "the top level comes last");
        let y = tree.below(b)[2];
        assert!(matches!(tree.entry(y).kind, Kind::Leaf(cid, 5) if cid == leaf("5")));
    }

    #[test]
    fn a_name_is_a_file_or_a_directory() {
        let mut tree = Tree::default();
        let (dir, _) = make(&mut tree, "d").unwrap();
        tree.insert(Dir::ROOT, b"f", leaf(""), 0).unwrap();
        assert_eq!(tree.insert(Dir::ROOT, b"d", leaf(""), 0), Err(Error::EntryExists));
        assert_eq!(make(&mut tree, "f/x"), Err(Error::NotADirectory("f".into())));
        assert_eq!(make(&mut tree, "/d//"), Ok((dir, false)));
        assert_eq!(make(&mut tree, ""), Ok((Dir::ROOT, false)));
    }

    #[test]
    fn names_of_any_length_fit() {
        let mut tree = Tree::default();
        let names: Vec<Vec<u8>> = [1, 1000, 70_000, 3_000_000, 5].map(|n| vec![b'n'; n]).to_vec();
        for name in &names {
            tree.insert(Dir::ROOT, name, leaf("x"), 1).unwrap();
        }
        let found: Vec<_> = tree.below(Dir::ROOT).into_iter().map(|id| tree.name(id).len()).collect();
        assert_eq!(found, [1, 5, 1000, 70_000, 3_000_000]);
    }

    /// What the documentation of the module promises, with names of 12 bytes.
    #[test]
    fn an_entry_takes_little_memory() {
        const N: usize = 100_000;
        let mut tree = Tree::default();
        let cid = leaf("x");
        let (dir, _) = make(&mut tree, "d").unwrap();
        for i in 0..N {
            tree.insert(dir, format!("file{i:08}").as_bytes(), cid, 7).unwrap();
        }
        assert!(tree.n_bytes() <= N * (90 + 12), "{} bytes an entry", tree.n_bytes() / N);
        let mut tree = Tree::default();
        for i in 0..N {
            make(&mut tree, &format!("{i:012}")).unwrap();
        }
        assert!(tree.n_bytes() <= N * (90 + 12), "{} bytes a directory", tree.n_bytes() / N);
    }
}
