//! Sharded directories: a trie of 256-way nodes over the hash of each name (spec: adder 11).

use super::Error;
use super::hash::CidBuilder;
use super::unixfs::{Link, Node, hamt_node};

/// Children of a node.
const FANOUT: usize = 256;
/// Bytes of a hash, and so levels of a trie.
const LEVELS: usize = 8;

/// The hash of a name; compared as a number it gives the order of the trie.
pub(super) fn hash(name: &[u8]) -> u64 {
    murmur3_x64_128_first(name)
}

/// A sharded directory that is built from entries in the order of their hashes: a node is complete when an entry
/// beside it comes, so only the nodes on the way to the last entry are held.
#[derive(Debug)]
pub(super) struct Trie {
    cids: CidBuilder,
    /// The open nodes, the root first.
    open: Vec<Shard>,
}

/// A node that takes entries.
#[derive(Debug, Default)]
struct Shard {
    /// Which slots are used: a big-endian number of [`FANOUT`] bits.
    bits: [u8; FANOUT / 8],
    links: Vec<Link>,
}

impl Shard {
    /// Puts an entry, or with an empty name a node, into a slot.
    fn put(&mut self, slot: u8, link: Link) {
        self.bits[FANOUT / 8 - 1 - usize::from(slot) / 8] |= 1 << (slot % 8);
        let mut name = format!("{slot:02X}").into_bytes();
        name.extend_from_slice(&link.name);
        self.links.push(Link { name, ..link });
    }

    fn into_node(self, cids: CidBuilder) -> Node {
        let zeros = self.bits.iter().take_while(|&&byte| byte == 0).count();
        hamt_node(cids, FANOUT as u64, &self.bits[zeros..], &self.links)
    }
}

impl Trie {
    /// Without entries.
    pub(super) fn new(cids: CidBuilder) -> Self {
        Self { cids, open: vec![Shard::default()] }
    }

    /// Takes the entry of a hash; `next` is the hash of the one after it. Nodes that are complete with it go to `out`.
    pub(super) fn push(
        &mut self,
        hash: u64,
        next: Option<u64>,
        link: Link,
        mut out: impl FnMut(Node),
    ) -> Result<(), Error> {
        // The open nodes are those that this entry shares with the one before; the next one may need deeper ones.
        let n_shared = next.map_or(0, |next| ((hash ^ next).leading_zeros() / 8) as usize);
        if n_shared == LEVELS {
            return Err(Error::HamtTooDeep);
        }
        while self.open.len() <= n_shared {
            self.open.push(Shard::default());
        }
        let slots = hash.to_be_bytes();
        let level = self.open.len() - 1;
        self.open[level].put(slots[level], link);
        while self.open.len() > n_shared + 1 {
            let Some(shard) = self.open.pop() else { break };
            let node = shard.into_node(self.cids);
            let link = Link { name: Vec::new(), cid: node.block.cid, tsize: node.tsize };
            out(node);
            let level = self.open.len() - 1;
            self.open[level].put(slots[level], link);
        }
        Ok(())
    }

    /// The root; the entry pushed last had no next one.
    pub(super) fn finish(mut self) -> Node {
        self.open.pop().unwrap_or_default().into_node(self.cids)
    }
}

/// The nodes of a sharded directory, children before parents, the root last.
pub(super) fn build(links: Vec<Link>, cids: CidBuilder) -> Result<Vec<Node>, Error> {
    let mut hashed: Vec<(u64, Link)> = links.into_iter().map(|link| (hash(&link.name), link)).collect();
    hashed.sort_by_key(|entry| entry.0);
    let next: Vec<u64> = hashed.iter().skip(1).map(|entry| entry.0).collect();
    let (mut trie, mut nodes) = (Trie::new(cids), Vec::new());
    for (i, (hash, link)) in hashed.into_iter().enumerate() {
        trie.push(hash, next.get(i).copied(), link, |node| nodes.push(node))?;
    }
    nodes.push(trie.finish());
    Ok(nodes)
}

/// The first half of MurmurHash3 x64-128 with seed 0.
fn murmur3_x64_128_first(data: &[u8]) -> u64 {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let (mut h1, mut h2) = (0u64, 0u64);
    let mix1 = |k: u64| k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let mix2 = |k: u64| k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    let (blocks, tail) = data.as_chunks::<16>();
    for block in blocks {
        let number = u128::from_le_bytes(*block);
        h1 ^= mix1(number as u64);
        h1 = h1.rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 ^= mix2((number >> 64) as u64);
        h2 = h2.rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    let mut last = [0u8; 16];
    last[..tail.len()].copy_from_slice(tail);
    let number = u128::from_le_bytes(last);
    h2 ^= mix2((number >> 64) as u64);
    h1 ^= mix1(number as u64);
    let finish = |mut h: u64| {
        h ^= h >> 33;
        h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
        h ^= h >> 33;
        h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        h ^ (h >> 33)
    };
    h1 ^= data.len() as u64;
    h2 ^= data.len() as u64;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    finish(h1).wrapping_add(finish(h2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur3_has_its_published_values() {
        assert_eq!(murmur3_x64_128_first(b""), 0);
        assert_eq!(murmur3_x64_128_first(b"hello"), 0xcbd8_a7b3_41bd_9b02);
        assert_eq!(
            murmur3_x64_128_first(b"The quick brown fox jumps over the lazy dog"),
            0xe34b_bc7b_bc07_1b6c
        );
    }

    #[test]
    fn names_with_one_hash_are_an_error_not_a_loop() {
        let cids = CidBuilder::new(0, "sha2-256").unwrap();
        let link = Link { name: b"a".to_vec(), cid: cids.dag_pb(b""), tsize: 0 };
        assert_eq!(Trie::new(cids).push(7, Some(7), link, |_| ()), Err(Error::HamtTooDeep));
    }

    /// The nodes by their definition: entries that share a slot share a node.
    fn by_recursion(entries: &[(u64, Link)], level: usize, cids: CidBuilder, out: &mut Vec<Node>) -> Node {
        let mut shard = Shard::default();
        let slot = |hash: u64| hash.to_be_bytes()[level];
        for same in entries.chunk_by(|a, b| slot(a.0) == slot(b.0)) {
            let link = match same {
                [(_, link)] => link.clone(),
                _ => {
                    let node = by_recursion(same, level + 1, cids, out);
                    let link = Link { name: Vec::new(), cid: node.block.cid, tsize: node.tsize };
                    out.push(node);
                    link
                }
            };
            shard.put(slot(same[0].0), link);
        }
        shard.into_node(cids)
    }

    #[test]
    fn the_trie_equals_its_recursive_definition() {
        let cids = CidBuilder::new(0, "sha2-256").unwrap();
        let deep: &[u64] = &[0, 1, 255, 256, 65_535, 1 << 40, (1 << 40) + 1, u64::MAX - 1, u64::MAX];
        let wide: Vec<u64> = (0..5000_u32).map(|i| hash(&i.to_be_bytes())).collect();
        for hashes in [deep, &wide, &wide[..1], &wide[..300]] {
            let mut entries: Vec<_> = hashes
                .iter()
                .map(|hash| {
                    let name = hash.to_string().into_bytes();
                    (*hash, Link { cid: cids.dag_pb(&name), name, tsize: *hash % 1000 })
                })
                .collect();
            entries.sort_by_key(|entry| entry.0);
            let mut expected = Vec::new();
            let root = by_recursion(&entries, 0, cids, &mut expected);
            let (mut trie, mut found) = (Trie::new(cids), Vec::new());
            for (i, (hash, link)) in entries.iter().enumerate() {
                let next = entries.get(i + 1).map(|entry| entry.0);
                trie.push(*hash, next, link.clone(), |node| found.push(node)).unwrap();
            }
            assert_eq!(trie.finish().block.cid, root.block.cid);
            let cids = |nodes: &[Node]| nodes.iter().map(|node| node.block.cid).collect::<Vec<_>>();
            assert_eq!(cids(&found), cids(&expected));
        }
    }
}
