//! Directories that are spread over many nodes, read.

use cluster_compat::types::Cid;
use futures::future::BoxFuture;

use super::Error;
use super::ipld::pb::{Node, PbLink, UnixFs};
use super::source::Source;

/// Deepest tree that is followed; 64 bits of hash at 3 bits a level would be 21.
const MAX_DEPTH: usize = 64;

/// Hexadecimal digits in front of each name.
fn prefix_len(fanout: u64) -> usize {
    format!("{:X}", fanout.saturating_sub(1)).len()
}

/// Bits of the hash that one level uses.
fn bits(fanout: u64) -> Option<u32> {
    (fanout.is_power_of_two() && (8..=1 << 16).contains(&fanout)).then(|| fanout.trailing_zeros())
}

/// The entry of a name.
pub(super) async fn find(
    source: &Source,
    node: &Node,
    unixfs: &UnixFs,
    name: &str,
) -> Result<Option<Cid>, Error> {
    let hash = crate::adder::hamt_hash(name.as_bytes());
    let mut node = node.clone();
    let mut fanout = unixfs.fanout;
    let mut used = 0;
    for _ in 0..MAX_DEPTH {
        let bits = bits(fanout).ok_or_else(|| Error::message("hamt size should be a power of two"))?;
        if used + bits > 64 {
            return Ok(None);
        }
        let index = hash << used >> (64 - bits);
        used += bits;
        let prefix = format!("{index:0width$X}", width = prefix_len(fanout)).into_bytes();
        let Some(link) = node.links.iter().find(|link| link.name.starts_with(&prefix)) else {
            return Ok(None);
        };
        match &link.name[prefix.len()..] {
            [] => {
                let block = source.block(link.cid).await?;
                let next = Node::decode(&block).map_err(Error::message)?;
                let data = next.data.as_deref().unwrap_or_default();
                fanout = UnixFs::decode(data).map_err(Error::message)?.fanout;
                node = next;
            }
            rest if rest == name.as_bytes() => return Ok(Some(link.cid)),
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// All entries of a spread directory, each given to `entry`; names without their prefix.
pub(super) fn entries<'a>(
    source: &'a Source,
    node: Node,
    fanout: u64,
    depth: usize,
    out: &'a mut Vec<PbLink>,
) -> BoxFuture<'a, Result<(), Error>> {
    Box::pin(async move {
        if depth == MAX_DEPTH {
            return Err(Error::message("sharded directory too deep"));
        }
        let width = prefix_len(fanout);
        for mut link in node.links {
            if link.name.len() < width {
                return Err(Error::message("invalid link name in a sharded directory"));
            }
            if link.name.len() > width {
                link.name.drain(..width);
                out.push(link);
                continue;
            }
            let block = source.block(link.cid).await?;
            let next = Node::decode(&block).map_err(Error::message)?;
            let data = next.data.as_deref().unwrap_or_default();
            let fanout = UnixFs::decode(data).map_err(Error::message)?.fanout;
            entries(source, next, fanout, depth + 1, out).await?;
        }
        Ok(())
    })
}
