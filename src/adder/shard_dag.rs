//! Indexes of sharded content: DAG-CBOR nodes that link to the blocks of a shard, or to the shards of an upload
//! (spec: adder 18, "Node encoding").
//!
//! A node is a map from `"0"`, `"1"`, … to links, in the order they were pushed. What fits no node is spread over
//! leaves, each counting from `"0"` anew, under a root that links to them.
//!
//! An index is encoded as it grows: 41 to 83 bytes a link, 49 for those of SHA-256 at most.

use bytes::Bytes;
use cluster_compat::types::{Block, Cid};
use multihash_codetable::{Code, MultihashDigest};

use super::decode;

/// Most links of a node. (Go: `adder/sharding/dag.go`)
const MAX_LINKS: usize = 5984;

/// Multicodec of DAG-CBOR.
const DAG_CBOR: u64 = 0x71;

/// Major types of CBOR.
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const MAP: u8 = 5;
const TAG: u8 = 6;

/// An index on its way.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Leaves that are full.
    leaves: Vec<Block>,
    last: Entries,
}

impl Index {
    /// Appends a link.
    pub(super) fn push(&mut self, cid: &Cid) {
        if self.last.n == MAX_LINKS {
            self.leaves.push(std::mem::take(&mut self.last).into_node());
        }
        self.last.push(cid);
    }

    /// How many links it has.
    pub(super) fn len(&self) -> usize {
        self.leaves.len() * MAX_LINKS + self.last.n
    }

    /// The CID of the root, and all nodes, root first.
    pub(super) fn into_nodes(mut self) -> (Cid, Vec<Block>) {
        if self.leaves.is_empty() {
            let root = self.last.into_node();
            return (root.cid, vec![root]);
        }
        let is_full = self.last.n == MAX_LINKS;
        self.leaves.push(self.last.into_node());
        if is_full {
            // the reference ends with an empty leaf here (quirk A7)
            self.leaves.push(Entries::default().into_node());
        }
        let mut root = Entries::default();
        self.leaves.iter().for_each(|leaf| root.push(&leaf.cid));
        let root = root.into_node();
        let cid = root.cid;
        let mut nodes = vec![root];
        nodes.append(&mut self.leaves);
        (cid, nodes)
    }
}

/// The entries of one node, encoded.
#[derive(Debug, Default)]
struct Entries {
    n: usize,
    bytes: Vec<u8>,
}

impl Entries {
    fn push(&mut self, cid: &Cid) {
        let key = self.n.to_string();
        head(&mut self.bytes, TEXT, key.len());
        self.bytes.extend_from_slice(key.as_bytes());
        head(&mut self.bytes, TAG, decode::LINK_TAG as usize);
        head(&mut self.bytes, BYTES, 1 + cid.encoded_len());
        self.bytes.push(0);
        // writing to a vector cannot fail
        let _ = cid.write_bytes(&mut self.bytes);
        self.n += 1;
    }

    fn into_node(self) -> Block {
        let mut node = Vec::with_capacity(self.bytes.len() + 5);
        head(&mut node, MAP, self.n);
        node.extend_from_slice(&self.bytes);
        let cid = Cid::new_v1(DAG_CBOR, Code::Sha2_256.digest(&node));
        Block { cid, data: Bytes::from(node), is_spare: false }
    }
}

/// Writes the head of an item: its major type and an argument in the fewest bytes.
fn head(out: &mut Vec<u8>, major: u8, argument: usize) {
    let major = major << 5;
    let bytes = (argument as u64).to_be_bytes();
    match argument {
        0..24 => out.push(major | bytes[7]),
        24..0x100 => out.extend_from_slice(&[major | 24, bytes[7]]),
        0x100..0x1_0000 => out.extend_from_slice(&[major | 25, bytes[6], bytes[7]]),
        0x1_0000..0x1_0000_0000 => {
            out.push(major | 26);
            out.extend_from_slice(&bytes[4..]);
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&bytes);
        }
    }
}

/// The links of a node, by their numbers.
pub fn shard_links(node: &[u8]) -> Result<Vec<Cid>, String> {
    let mut links = decode::numbered_links(node)?;
    links.sort_by_key(|(number, _)| *number);
    Ok(links.into_iter().map(|(_, cid)| cid).collect())
}

#[cfg(test)]
mod tests {
    use cluster_compat::types::parse_cid;

    use super::*;
    use crate::adder::buffer::Buffer;
    use crate::adder::hash::CidBuilder;
    use crate::adder::unixfs::{LEAF_HEAD, LeafKind, leaf};

    /// Files `"0\n"`, `"1\n"`, …
    fn files(version: i64, n: usize) -> Vec<Cid> {
        let cids = CidBuilder::new(version, "sha2-256").unwrap();
        let kind = if version == 0 { LeafKind::File } else { LeafKind::Raw };
        (0..n)
            .map(|i| {
                let mut chunk = Buffer::default();
                chunk.resize(LEAF_HEAD, 0);
                chunk.extend_from_slice(format!("{i}\n").as_bytes());
                leaf(kind, cids, chunk).block.cid
            })
            .collect()
    }

    fn nodes(links: &[Cid]) -> Vec<Block> {
        let mut index = Index::default();
        links.iter().for_each(|cid| index.push(cid));
        assert_eq!(index.len(), links.len());
        let (root, nodes) = index.into_nodes();
        assert_eq!(root, nodes[0].cid);
        nodes
    }

    fn sizes(nodes: &[Block]) -> Vec<(String, usize)> {
        nodes.iter().map(|node| (node.cid.to_string(), node.data.len())).collect()
    }

    /// Vectors E01, E02, F23 and F24.
    #[test]
    fn small_indexes_are_one_node() {
        let hex = "a16130d82a58230012209273fd63ec94bed5abb219b2d9cb010cabe4af7b0177292d4335eff50464060a";
        let node = hex::decode(hex).unwrap();
        let [link] = shard_links(&node).unwrap()[..] else { panic!("one link") };
        let [found] = &nodes(&[link])[..] else { panic!("one node") };
        assert_eq!(found.data, node);
        assert_eq!(found.cid, parse_cid("zdpuAoiNm1ntWx6jpgcReTiCWFHJSTpvTw4bAAn9p6yDnznqh").unwrap());
        let empty = ("bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua".to_string(), 1);
        assert_eq!(sizes(&nodes(&[])), [empty]);
        let v0 = ("bafyreihwmpgohukcnpi4bboa2m4hhtj5wk2jk7lik3pxpxdabpdfac2hge".to_string(), 495);
        assert_eq!(sizes(&nodes(&files(0, 12))), [v0]);
        let raw = ("bafyreiaavkli7icdkad4e5m5ylojgz4374e6zrrjrstlz4ziiqpymjapbe".to_string(), 130);
        assert_eq!(sizes(&nodes(&files(1, 3))), [raw]);
    }

    /// Vectors F25 and F26, and quirk A7.
    #[test]
    fn large_indexes_have_leaves_under_a_root() {
        let links = files(0, 2 * MAX_LINKS);
        let full = ("bafyreifpo3q5bcy5vg3pf7dgoqvbjyyebvxpa2qsyndg2vsl3owg2ee4am".to_string(), 262_189);
        assert_eq!(sizes(&nodes(&links[..MAX_LINKS])), std::slice::from_ref(&full));
        let root = ("bafyreihmj2q34f2nmooasa5obkdpxzyhfbuzxfgbk4ydpxfhm4wgnrhkbi".to_string(), 87);
        let leaf = ("bafyreig5w7eqj7wfgsk7s2zj7wrgx7eyi7l7lm7thkheu5yfvva2gk7fii".to_string(), 42);
        let found = nodes(&links[..=MAX_LINKS]);
        assert_eq!(sizes(&found), [root, full, leaf]);
        assert_eq!(shard_links(&found[0].data).unwrap(), [found[1].cid, found[2].cid]);
        assert_eq!(shard_links(&found[1].data).unwrap(), links[..MAX_LINKS]);
        let found = nodes(&links);
        assert_eq!(found.len(), 4);
        assert_eq!(found[3].data[..], [0xa0]);
    }

    #[test]
    fn links_come_in_numeric_order_and_broken_indexes_are_errors() {
        let cid = parse_cid("bafybeichkobqq3enzvdvmf33zehps5gxgvij3nwzhhmpsgsiq7qfdf7uxi").unwrap();
        let other = files(1, 1)[0];
        let mut node = vec![0xa2];
        for (key, cid) in [("10", cid), ("2", other)] {
            node.push(0x60 | key.len() as u8);
            node.extend(key.as_bytes());
            node.extend([0xd8, 42, 0x58, 37, 0]);
            node.extend(cid.to_bytes());
        }
        assert_eq!(shard_links(&node).unwrap(), [other, cid]);
        for end in 0..node.len() {
            assert!(shard_links(&node[..end]).is_err(), "cut at {end}");
        }
        node.push(0);
        assert!(shard_links(&node).unwrap_err().contains("after the map"));
        assert!(shard_links(&[0xbb, 255, 255, 255, 255, 255, 255, 255, 255]).is_err());
        assert!(shard_links(&[0xa1, 0x61, b'x', 0xd8, 42, 0x40]).unwrap_err().contains("\"x\""));
    }
}
