//! Files: their bytes, their directories, and both as an archive.

use std::ops::Range;

use bytes::Bytes;
use cluster_compat::types::Cid;
use futures::stream::{BoxStream, Stream};
use futures::{StreamExt as _, stream};

use super::ipld::pb::{Kind, Node, PbLink, UnixFs};
use super::ipld::{DAG_PB, RAW};
use super::source::Source;
use super::{Error, hamt};

/// Blocks of one node of a file that are got ahead.
const AHEAD: usize = 8;
/// Deepest DAG of a file that is followed.
const MAX_DEPTH: usize = 128;

/// What stands at a CID.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) cid: Cid,
    pub(super) kind: EntryKind,
    pub(super) size: u64,
    /// Of a directory the size of its DAG, of others that of their content.
    pub(super) total: u64,
    pub(super) mode: Option<u32>,
    pub(super) mtime: Option<(i64, u32)>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    Directory,
    Symlink(Vec<u8>),
}

/// Looks at a CID. Other formats than files are Kubo's error.
pub(super) async fn stat(source: &Source, cid: Cid) -> Result<Entry, Error> {
    if cid.codec() == RAW {
        let size = source.size(cid).await?;
        return Ok(Entry { cid, kind: EntryKind::File, size, total: size, mode: None, mtime: None });
    }
    let (node, unixfs) = node(source, cid).await?;
    let kind = match unixfs.kind {
        Kind::File | Kind::Raw => EntryKind::File,
        Kind::Directory | Kind::Hamt => EntryKind::Directory,
        Kind::Symlink => EntryKind::Symlink(unixfs.data.clone()),
        Kind::Metadata => return Err(Error::message("unrecognized object in IPFS")),
    };
    let size = unixfs.size();
    let total = match kind {
        EntryKind::Directory => {
            node.links.iter().fold(node.encode().len() as u64, |total, link| total.saturating_add(link.tsize))
        }
        _ => size,
    };
    Ok(Entry { cid, kind, size, total, mode: unixfs.mode, mtime: unixfs.mtime })
}

async fn node(source: &Source, cid: Cid) -> Result<(Node, UnixFs), Error> {
    if cid.codec() != DAG_PB {
        return Err(Error::message("unrecognized node type"));
    }
    let block = source.block(cid).await?;
    let node = Node::decode(&block).map_err(Error::message)?;
    let data =
        node.data.as_deref().ok_or_else(|| Error::message("proto: required field \"Type\" not set"))?;
    let unixfs = UnixFs::decode(data).map_err(Error::message)?;
    Ok((node, unixfs))
}

/// The entries of a directory in the order of their nodes; `None` if it is none.
pub(super) async fn list(source: &Source, cid: Cid) -> Result<Option<Vec<PbLink>>, Error> {
    if cid.codec() == RAW {
        return Ok(None);
    }
    let (node, unixfs) = node(source, cid).await?;
    match unixfs.kind {
        Kind::Directory => Ok(Some(node.links)),
        Kind::Hamt => {
            let mut links = Vec::new();
            hamt::entries(source, node, unixfs.fanout, 0, &mut links).await?;
            Ok(Some(links))
        }
        _ => Ok(None),
    }
}

/// A part of a file on its way.
struct Part {
    cid: Cid,
    /// Where it begins in the file.
    start: u64,
    block: Bytes,
}

/// Bytes of a file, as blocks come. Reads nothing outside of `range`.
pub(super) fn bytes(
    source: Source,
    cid: Cid,
    range: Range<u64>,
) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
    let first = parts(source.clone(), vec![(cid, 0)]);
    let state = (vec![first], source, range);
    stream::try_unfold(state, |(mut levels, source, range)| async move {
        loop {
            let Some(level) = levels.last_mut() else { return Ok(None) };
            let Some(part) = level.next().await else {
                levels.pop();
                continue;
            };
            let part = part?;
            if part.start >= range.end {
                return Ok(None);
            }
            let (data, children) = open(&part)?;
            if !children.is_empty() {
                if levels.len() == MAX_DEPTH {
                    return Err(Error::message(format!("{} is nested too deep", part.cid)));
                }
                let wanted: Vec<(Cid, u64)> = children
                    .into_iter()
                    .filter(|(_, start, size)| start + size > range.start && *start < range.end)
                    .map(|(cid, start, _)| (cid, start))
                    .collect();
                levels.push(parts(source.clone(), wanted));
            }
            let piece = cut(&data, part.start, &range);
            if !piece.is_empty() {
                return Ok(Some((piece, (levels, source, range))));
            }
        }
    })
}

fn parts(source: Source, wanted: Vec<(Cid, u64)>) -> BoxStream<'static, Result<Part, Error>> {
    let get = move |(cid, start)| {
        let source = source.clone();
        async move { Ok(Part { cid, start, block: source.block(cid).await? }) }
    };
    stream::iter(wanted).map(get).buffered(AHEAD).boxed()
}

/// Bytes of a node itself, and its children with their place in the file and their sizes.
#[allow(clippy::type_complexity, reason = "used once")]
fn open(part: &Part) -> Result<(Bytes, Vec<(Cid, u64, u64)>), Error> {
    if part.cid.codec() == RAW {
        return Ok((part.block.clone(), Vec::new()));
    }
    let node = Node::decode(&part.block).map_err(Error::message)?;
    let data = node.data.as_deref().unwrap_or_default();
    let unixfs = UnixFs::decode(data).map_err(Error::message)?;
    if !matches!(unixfs.kind, Kind::File | Kind::Raw) {
        return Err(Error::message("this dag node is a directory"));
    }
    if unixfs.block_sizes.len() < node.links.len() {
        return Err(Error::message(format!("{} does not say how large its parts are", part.cid)));
    }
    let mut start = part.start.saturating_add(unixfs.data.len() as u64);
    let mut children = Vec::with_capacity(node.links.len());
    for (link, size) in node.links.iter().zip(&unixfs.block_sizes) {
        children.push((link.cid, start, *size));
        start = start
            .checked_add(*size)
            .ok_or_else(|| Error::message(format!("{} has more bytes than there are", part.cid)))?;
    }
    Ok((Bytes::from(unixfs.data), children))
}

/// What of `data`, which begins at `start`, lies in `range`.
fn cut(data: &Bytes, start: u64, range: &Range<u64>) -> Bytes {
    let len = data.len() as u64;
    let from = range.start.saturating_sub(start).min(len);
    let to = range.end.saturating_sub(start).min(len);
    data.slice(from as usize..to.max(from) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_to_the_range() {
        let data = Bytes::from_static(b"0123456789");
        assert_eq!(cut(&data, 100, &(0..u64::MAX)), data);
        assert_eq!(cut(&data, 100, &(105..107)), "56");
        assert_eq!(cut(&data, 100, &(0..100)), "");
        assert_eq!(cut(&data, 100, &(110..200)), "");
        assert_eq!(cut(&data, 0, &(9..u64::MAX)), "9");
    }
}
