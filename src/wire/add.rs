//! Blocks on their way to other peers' daemons (spec: wire 4.4, NodeWithMeta).

use bytes::Bytes;
use cluster_compat::types::Block;

use super::Error;
use super::msgpack::{Reader, Writer};

const KEYS: [&str; 3] = ["d", "c", "s"];

/// The bytes of a block. The size of what lies below it (`s`) is left out: no receiver reads it.
pub fn encode(block: &Block) -> Vec<u8> {
    let mut out = Writer::new();
    let mut record = out.record();
    record.bytes("d", &block.data);
    record.cid("c", Some(&block.cid));
    record.end();
    out.into_bytes()
}

/// Reads a block; its data shares the memory of the message.
pub fn decode(message: &Bytes) -> Result<Block, Error> {
    let mut data = Bytes::new();
    let mut cid = None;
    Reader::new(message).record(&KEYS, |r, index| {
        match index {
            0 => {
                data = match r.raw()? {
                    None => Bytes::new(),
                    Some(std::borrow::Cow::Borrowed(slice)) => message.slice_ref(slice),
                    Some(std::borrow::Cow::Owned(bytes)) => bytes.into(),
                }
            }
            1 => cid = r.cid()?,
            _ => drop(r.uint()?),
        }
        Ok(())
    })?;
    Ok(Block { cid: cid.ok_or(Error::BlockWithoutCid)?, data, is_spare: false })
}
