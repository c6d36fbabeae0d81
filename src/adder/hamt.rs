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

/// The nodes of a sharded directory, children before parents, the root last.
pub(super) fn build(links: Vec<Link>, cids: CidBuilder) -> Result<Vec<Node>, Error> {
    let mut hashed: Vec<(u64, Link)> = links.into_iter().map(|link| (hash(&link.name), link)).collect();
    hashed.sort_by_key(|entry| entry.0);
    let mut nodes = Vec::new();
    build_level(&hashed, 0, cids, &mut nodes)?;
    Ok(nodes)
}

/// Builds the node over entries that share the first `level` bytes of their hash; recursion ends at [`LEVELS`].
fn build_level(
    entries: &[(u64, Link)],
    level: usize,
    cids: CidBuilder,
    out: &mut Vec<Node>,
) -> Result<(), Error> {
    if level == LEVELS {
        return Err(Error::HamtTooDeep);
    }
    let index = |hash: u64| hash.to_be_bytes()[level];
    let mut bits = [0u8; FANOUT / 8];
    let mut links = Vec::new();
    for slot in entries.chunk_by(|a, b| index(a.0) == index(b.0)) {
        let at = index(slot[0].0);
        bits[FANOUT / 8 - 1 - usize::from(at) / 8] |= 1 << (at % 8);
        let mut name = format!("{at:02X}").into_bytes();
        if let [(_, link)] = slot {
            name.extend_from_slice(&link.name);
            links.push(Link { name, cid: link.cid, tsize: link.tsize });
        } else {
            build_level(slot, level + 1, cids, out)?;
            if let Some(node) = out.last() {
                links.push(Link { name, cid: node.block.cid, tsize: node.tsize });
            }
        }
    }
    let zeros = bits.iter().take_while(|&&byte| byte == 0).count();
    out.push(hamt_node(cids, FANOUT as u64, &bits[zeros..], &links));
    Ok(())
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
        let link = |name: &[u8]| Link {
            name: name.to_vec(),
            cid: CidBuilder::new(0, "sha2-256").unwrap().dag_pb(b""),
            tsize: 0,
        };
        let cids = CidBuilder::new(0, "sha2-256").unwrap();
        assert_eq!(build(vec![link(b"a"), link(b"a")], cids).unwrap_err(), Error::HamtTooDeep);
    }
}
