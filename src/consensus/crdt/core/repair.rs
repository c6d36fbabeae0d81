//! What is done about a DAG that is not whole.
//!
//! A walk that could not get a node knows where it stopped: that is tried again, and when nothing is left the DAG is
//! clean. Where an operator has marked it dirty nobody knows what is missing: then all of it is walked, from the
//! heads down, and what is not processed is walked as below a head that was just announced.

use std::collections::{HashSet, VecDeque};

use cluster_compat::types::Cid;

use super::{DIRTY_KEY, Effects, Error, State, UNFINISHED, blocks};
use crate::store::{self, KvRead, Table};
use crate::wire::crdt_pb;

/// Nodes looked at in one step, between which other events have their turn.
const NODES_PER_STEP: usize = 256;

/// What is known to be wrong with the DAG.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Dirt {
    /// Nothing.
    #[default]
    None,
    /// Nodes below known tips are missing.
    Unfinished,
    /// Somebody said so.
    Marked,
}

impl Dirt {
    pub(super) fn load(view: &dyn KvRead) -> Result<Self, store::Error> {
        Ok(match view.get(Table::Meta, DIRTY_KEY)? {
            None => Self::None,
            Some(UNFINISHED) => Self::Unfinished,
            Some(_) => Self::Marked,
        })
    }

    pub(super) fn store(self, effects: &mut Effects) {
        match self {
            Self::None => effects.delete(Table::Meta, DIRTY_KEY.to_vec()),
            Self::Unfinished => effects.put(Table::Meta, DIRTY_KEY.to_vec(), UNFINISHED.to_vec()),
            Self::Marked => effects.put(Table::Meta, DIRTY_KEY.to_vec(), Vec::new()),
        }
    }
}

/// A walk of the whole DAG.
#[derive(Debug)]
pub(super) struct Repair {
    /// Nodes to look at, and the head each was reached from, with its height.
    queue: VecDeque<(Cid, Cid, u64)>,
    seen: HashSet<Cid>,
}

impl State {
    /// Tries what stalled; walks the whole DAG if it was marked.
    pub(super) fn on_repair(&mut self) {
        self.walk.resume_all();
        if self.walk.dirt == Dirt::Marked && self.repair.is_none() {
            let queue = self.heads.heights().map(|(head, height)| (head, head, height)).collect();
            self.repair = Some(Repair { queue, seen: HashSet::new() });
        }
    }

    /// Looks at the next nodes.
    pub(super) fn repair_on(&mut self, view: &dyn KvRead, effects: &mut Effects) -> Result<(), Error> {
        let Some(mut repair) = self.repair.take() else { return Ok(()) };
        for _ in 0..NODES_PER_STEP {
            let Some((cid, head, height)) = repair.queue.pop_front() else {
                let dirt = if self.walk.n_unfinished() == 0 { Dirt::None } else { Dirt::Unfinished };
                self.walk.set_dirt(dirt, effects);
                return Ok(());
            };
            match blocks::get(view, &blocks::key(&cid))? {
                Some(block) if block.is_processed => {
                    let node = crdt_pb::decode_node(block.data);
                    let node = node.map_err(|e| Error::Damaged(format!("node {cid}: {e}")))?;
                    for parent in node.links {
                        if repair.seen.insert(parent) {
                            repair.queue.push_back((parent, head, height));
                        }
                    }
                }
                _ if cid == head => return Err(Error::MissingBlock(cid.to_string())),
                _ => self.walk_below(cid, head, height, effects),
            }
        }
        self.repair = Some(repair);
        Ok(())
    }
}
