//! Blocks by multihash. A row is one byte of flags, then the block.

use cluster_compat::types::Cid;

use super::kv::read;
use super::{Error, KvRead, Reads, Table};

/// The block's delta is merged into the set.
const PROCESSED: u8 = 1;

/// A stored block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'a> {
    /// Whether the CRDT has merged it.
    pub is_processed: bool,
    /// Its bytes.
    pub data: &'a [u8],
}

/// The key of a block.
pub fn key(cid: &Cid) -> Vec<u8> {
    cid.hash().to_bytes()
}

/// The row of a block.
pub fn row(data: &[u8], is_processed: bool) -> Vec<u8> {
    let mut row = Vec::with_capacity(1 + data.len());
    row.push(if is_processed { PROCESSED } else { 0 });
    row.extend_from_slice(data);
    row
}

/// A block by its key.
pub fn get<'v>(view: &'v dyn KvRead, key: &[u8]) -> Result<Option<Block<'v>>, Error> {
    match view.get(Table::Blocks, key)? {
        None => Ok(None),
        Some([flags, data @ ..]) => Ok(Some(Block { is_processed: flags & PROCESSED != 0, data })),
        Some([]) => {
            Err(Error::Damaged { table: Table::Blocks.name(), message: "a block without its flags".into() })
        }
    }
}

/// A copy of a block, for those who serve it.
pub fn load(kv: &(impl Reads + ?Sized), cid: &Cid) -> Result<Option<Vec<u8>>, Error> {
    read(kv, |view| Ok(get(view, &key(cid))?.map(|block| block.data.to_vec())))
}
