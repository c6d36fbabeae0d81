//! The heads of the DAG: nodes that no known node has as a parent, with their heights.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use cluster_compat::types::Cid;

use super::{Effects, Error};
use crate::store::{KvRead, Table};
use crate::wire::crdt_pb;

/// The heads, as stored. Changes go to the store with the effects that caused them.
#[derive(Debug, Clone, Default)]
pub struct Heads {
    heights: BTreeMap<Vec<u8>, (Cid, u64)>,
}

impl Heads {
    /// Reads the stored heads.
    pub(super) fn load(view: &dyn KvRead) -> Result<Self, Error> {
        let mut heads = Self::default();
        let mut damaged = None;
        view.scan(Table::Heads, b"", None, &mut |multihash, height| match (
            crdt_pb::cid_of_multihash(multihash),
            height.try_into().map(u64::from_be_bytes),
        ) {
            (Some(cid), Ok(height)) => {
                heads.heights.insert(cid.to_bytes(), (cid, height));
                ControlFlow::Continue(())
            }
            _ => {
                damaged = Some(hex::encode(multihash));
                ControlFlow::Break(())
            }
        })?;
        match damaged {
            Some(head) => Err(Error::Damaged(format!("head {head} cannot be read"))),
            None => Ok(heads),
        }
    }

    /// The heads, sorted by the bytes of their CIDs.
    pub fn list(&self) -> Vec<Cid> {
        self.heights.values().map(|(cid, _)| *cid).collect()
    }

    /// Heads and their heights, sorted by the bytes of their CIDs.
    pub fn heights(&self) -> impl Iterator<Item = (Cid, u64)> {
        self.heights.values().copied()
    }

    /// Height of the highest head, 0 when there is none.
    pub fn max_height(&self) -> u64 {
        self.heights.values().map(|(_, height)| *height).max().unwrap_or(0)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.heights.is_empty()
    }

    pub(super) fn contains(&self, cid: &Cid) -> bool {
        self.heights.contains_key(&cid.to_bytes())
    }

    pub(super) fn add(&mut self, cid: Cid, height: u64, effects: &mut Effects) {
        self.heights.insert(cid.to_bytes(), (cid, height));
        effects.put(Table::Heads, cid.hash().to_bytes(), height.to_be_bytes().to_vec());
    }

    pub(super) fn remove(&mut self, cid: &Cid, effects: &mut Effects) {
        if self.heights.remove(&cid.to_bytes()).is_some() {
            effects.delete(Table::Heads, cid.hash().to_bytes());
        }
    }
}
