//! Encodings: dag-pb nodes and the UnixFS message inside them, as Kubo writes them.

use bytes::{BufMut, Bytes};
use cluster_compat::types::{Block, Cid};

use super::buffer::Buffer;
use super::hash::CidBuilder;

/// Room in front of a chunk for the headers of a dag-pb leaf: two tags of one byte with lengths of up to
/// four bytes (chunks are below 2 MiB), and the two bytes of the type.
pub(super) const LEAF_HEAD: usize = 12;
/// Room behind a chunk: tag and value of the file size.
pub(super) const LEAF_TAIL: usize = 6;

/// UnixFS type of a raw leaf in a trickle DAG.
const TYPE_RAW: u64 = 0;
/// UnixFS type of files, and of their leaves in a balanced DAG.
const TYPE_FILE: u64 = 2;
/// UnixFS type of a symbolic link.
const TYPE_SYMLINK: u64 = 4;
/// UnixFS type of a node of a sharded directory.
const TYPE_HAMT: u64 = 5;
/// Multicodec of murmur3-x64-64, the hash of sharded directories.
const HAMT_HASH: u64 = 0x22;
/// The UnixFS message of a directory.
const DIRECTORY: &[u8] = &[0x08, 0x01];

/// A link of a dag-pb node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// Any bytes.
    pub(super) name: Vec<u8>,
    /// What it leads to.
    pub(super) cid: Cid,
    /// Cumulative size of what it leads to.
    pub(super) tsize: u64,
}

/// A finished node with what its parent needs to know.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Name and bytes.
    pub(super) block: Block,
    /// Length of the block plus the cumulative sizes of its children.
    pub(super) tsize: u64,
    /// Bytes of file content beneath it.
    pub(super) file_size: u64,
}

/// How leaves of a file are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeafKind {
    /// The chunk itself.
    Raw,
    /// A UnixFS file in a dag-pb node (balanced).
    File,
    /// UnixFS raw data in a dag-pb node (trickle).
    Data,
}

/// The leaf of one chunk. `buffer` is [`LEAF_HEAD`] free bytes and then the chunk; the chunk is not copied.
pub(super) fn leaf(kind: LeafKind, cids: CidBuilder, mut buffer: Buffer) -> Node {
    let len = buffer.len() - LEAF_HEAD;
    let (data, cid) = match kind {
        LeafKind::Raw => {
            let data = buffer.into_bytes().slice(LEAF_HEAD..);
            let cid = cids.raw(&data);
            (data, cid)
        }
        LeafKind::File | LeafKind::Data => {
            let mut tail = [0; LEAF_TAIL + 5];
            let tail_len = put(&mut tail, 0, &[(0x18, len as u64)]);
            // type, then the tag and length of the data (left out when there is none)
            let unixfs_type = if kind == LeafKind::File { TYPE_FILE } else { TYPE_RAW };
            let mut inner = [0; LEAF_HEAD];
            let fields: &[(u8, u64)] =
                if len > 0 { &[(0x08, unixfs_type), (0x12, len as u64)] } else { &[(0x08, unixfs_type)] };
            let inner_len = put(&mut inner, 0, fields);
            let mut outer = [0; LEAF_HEAD];
            let outer_len = put(&mut outer, 0, &[(0x0a, (inner_len + len + tail_len) as u64)]);
            let start = LEAF_HEAD - inner_len - outer_len;
            buffer[start..start + outer_len].copy_from_slice(&outer[..outer_len]);
            buffer[start + outer_len..LEAF_HEAD].copy_from_slice(&inner[..inner_len]);
            buffer.extend_from_slice(&tail[..tail_len]);
            let data = buffer.into_bytes().slice(start..);
            let cid = cids.dag_pb(&data);
            (data, cid)
        }
    };
    Node { tsize: data.len() as u64, file_size: len as u64, block: Block { cid, data, is_spare: false } }
}

/// Writes fields of tag and value at `at`; returns the end.
fn put(buffer: &mut [u8], mut at: usize, fields: &[(u8, u64)]) -> usize {
    for &(tag, mut value) in fields {
        buffer[at] = tag;
        at += 1;
        loop {
            let byte = (value & 0x7f) as u8;
            value >>= 7;
            buffer[at] = if value == 0 { byte } else { byte | 0x80 };
            at += 1;
            if value == 0 {
                break;
            }
        }
    }
    at
}

/// An inner node of a file, over children of `(cid, cumulative size, file size)`.
pub(super) fn file_node(cids: CidBuilder, children: &[(Cid, u64, u64)]) -> Node {
    let file_size = children.iter().map(|child| child.2).sum();
    let mut message = Vec::with_capacity(16 + children.len() * 4);
    put_field(&mut message, 0x08, TYPE_FILE);
    put_field(&mut message, 0x18, file_size);
    for child in children {
        put_field(&mut message, 0x20, child.2);
    }
    let links = children.iter().map(|&(cid, tsize, _)| (&[][..], cid, tsize));
    let mut node = dag_pb(cids, links, &message);
    node.file_size = file_size;
    node
}

/// A symbolic link.
pub(super) fn symlink(cids: CidBuilder, target: &[u8]) -> Node {
    let mut message = Vec::with_capacity(target.len() + 8);
    put_field(&mut message, 0x08, TYPE_SYMLINK);
    put_bytes(&mut message, 0x12, target);
    dag_pb(cids, std::iter::empty(), &message)
}

/// A directory in one node. Links are sorted by name.
pub(super) fn directory(cids: CidBuilder, links: &[Link]) -> Node {
    dag_pb(cids, links.iter().map(|link| (&link.name[..], link.cid, link.tsize)), DIRECTORY)
}

/// A node of a sharded directory. `bitfield` is big-endian without leading zeros; links are sorted by index.
pub(super) fn hamt_node(cids: CidBuilder, fanout: u64, bitfield: &[u8], links: &[Link]) -> Node {
    let mut message = Vec::with_capacity(bitfield.len() + 16);
    put_field(&mut message, 0x08, TYPE_HAMT);
    put_bytes(&mut message, 0x12, bitfield);
    put_field(&mut message, 0x28, HAMT_HASH);
    put_field(&mut message, 0x30, fanout);
    dag_pb(cids, links.iter().map(|link| (&link.name[..], link.cid, link.tsize)), &message)
}

/// A dag-pb node: links in the order given, then the data.
fn dag_pb<'a>(
    cids: CidBuilder,
    links: impl Iterator<Item = (&'a [u8], Cid, u64)> + Clone,
    message: &[u8],
) -> Node {
    // Hash, name and size of a link with their tags take less than 24 bytes besides the CID and the name.
    let estimate: usize = links.clone().map(|(name, cid, _)| name.len() + cid.encoded_len() + 24).sum();
    let mut out = Vec::with_capacity(estimate + message.len() + 8);
    let mut link_bytes = Vec::with_capacity(128);
    let mut tsize = 0u64;
    for (name, cid, link_size) in links {
        link_bytes.clear();
        put_field(&mut link_bytes, 0x0a, cid.encoded_len() as u64);
        link_bytes.extend_from_slice(&cid.to_bytes());
        put_bytes(&mut link_bytes, 0x12, name);
        put_field(&mut link_bytes, 0x18, link_size);
        put_bytes(&mut out, 0x12, &link_bytes);
        tsize = tsize.saturating_add(link_size);
    }
    put_bytes(&mut out, 0x0a, message);
    let data = Bytes::from(out);
    let cid = cids.dag_pb(&data);
    Node {
        tsize: tsize.saturating_add(data.len() as u64),
        file_size: 0,
        block: Block { cid, data, is_spare: false },
    }
}

/// Appends a tag and a number.
fn put_field(out: &mut Vec<u8>, tag: u8, mut value: u64) {
    out.put_u8(tag);
    while value >= 0x80 {
        out.put_u8((value as u8) | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Appends a tag, a length and bytes.
fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    put_field(out, tag, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(chunk: &[u8]) -> Buffer {
        let mut buffer = Buffer::default();
        buffer.resize(LEAF_HEAD, 0);
        buffer.extend_from_slice(chunk);
        buffer
    }

    fn v0() -> CidBuilder {
        CidBuilder::new(0, "sha2-256").unwrap()
    }

    #[test]
    fn an_empty_file_is_six_bytes() {
        let node = leaf(LeafKind::File, v0(), buffer(b""));
        assert_eq!(&node.block.data[..], &[0x0a, 4, 8, 2, 0x18, 0]);
        assert_eq!(node.block.cid.to_string(), "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH");
    }

    #[test]
    fn leaves_of_any_length_keep_their_chunk_in_place() {
        for len in [1usize, 127, 128, 16383, 16384, 262_144, 2_096_896] {
            let chunk = vec![7; len];
            let node = leaf(LeafKind::Data, v0(), buffer(&chunk));
            let at = node.block.data.len() - len - put(&mut [0; 11], 0, &[(0x18, len as u64)]);
            assert_eq!(&node.block.data[at..at + len], &chunk[..]);
            assert_eq!(node.file_size, len as u64);
        }
    }

    #[test]
    fn an_empty_directory_has_its_well_known_cid() {
        assert_eq!(
            directory(v0(), &[]).block.cid.to_string(),
            "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"
        );
    }
}
