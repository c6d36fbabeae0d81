//! Blocks that the reference sends besides a DAG, and in which order (spec: adder 13, "Extra blocks").
//!
//! It imports into a tree of its own and sends what that tree writes meanwhile: an empty directory for the tree
//! and for each directory made in it, a directory around a file that stands alone, and roots once more. They are
//! garbage to the daemon, whose collector lists them; a cluster of both kinds of peers shall not differ there.
//! The sink leaves out what was one of the last two blocks, as the reference does.
//!
//! Sent once here, where the reference sends it several times: directories of which one has two subdirectories,
//! which it takes in random order, and sharded ones.

use cluster_compat::types::Block;

use super::Error;
use super::hash::{self, CidBuilder};
use super::sink::Sink;
use super::unixfs::{Link, directory};

/// How often the reference writes all directories.
const N_PASSES: usize = 3;

/// The extra blocks of one import.
pub(super) struct Extras {
    cids: CidBuilder,
    empty: Block,
    is_unused: bool,
}

impl Extras {
    /// For an import whose blocks are named by `cids`.
    pub(super) fn new(cids: CidBuilder) -> Self {
        Self { cids, empty: spare(directory(cids, &[]).block), is_unused: true }
    }

    /// Whether no entry has come yet.
    pub(super) fn is_unused(&self) -> bool {
        self.is_unused
    }

    /// Before an entry goes into the tree: the first one makes it.
    pub(super) async fn entry(&mut self, sink: &mut Sink) -> Result<(), Error> {
        if std::mem::take(&mut self.is_unused) {
            sink.put(self.empty.clone()).await?;
        }
        Ok(())
    }

    /// After a directory began at a depth counted from 1. One that is a root is the tree itself.
    pub(super) async fn directory(
        &mut self,
        is_new: bool,
        depth: usize,
        is_wrapped: bool,
        sink: &mut Sink,
    ) -> Result<(), Error> {
        if depth > 1 || is_wrapped {
            self.entry(sink).await?;
            if is_new {
                sink.put(self.empty.clone()).await?;
            }
        }
        Ok(())
    }

    /// After a file or link without a directory: one around it, which calls it by its CID, and its root again.
    pub(super) async fn lone(&mut self, root: Block, tsize: u64, sink: &mut Sink) -> Result<(), Error> {
        let link = Link { name: root.cid.to_string().into_bytes(), cid: root.cid, tsize };
        let around = spare(directory(self.cids, &[link]).block);
        if hash::is_named(&around.cid, &around.data) {
            sink.put(around).await?;
        }
        sink.put(spare(root)).await
    }
}

/// After the directories of a chain, innermost first, were sent: sends them again.
pub(super) async fn chain(directories: &[Block], sink: &mut Sink) -> Result<(), Error> {
    for _ in 1..N_PASSES {
        for block in directories {
            sink.put(spare(block.clone())).await?;
        }
    }
    Ok(())
}

fn spare(block: Block) -> Block {
    Block { is_spare: true, ..block }
}
