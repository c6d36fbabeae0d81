//! The walk down the DAG from an announced head.
//!
//! A walk starts at a tip and goes on to each parent that is neither processed nor claimed by another branch. Where
//! it meets a head, the tip takes its place; where it meets processed ground, or the bottom, the tip becomes a head.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};

use cluster_compat::types::Cid;

use super::{DIRTY_KEY, Effects, Error, State, set};
use crate::store::{KvRead, Table, blocks};
use crate::wire::crdt_pb;

#[derive(Debug, Default)]
pub(super) struct Walk {
    ready: VecDeque<Job>,
    /// Jobs whose block is being fetched.
    waiting: HashMap<Cid, Job>,
    /// Parents that a walk will process.
    claimed: HashSet<Cid>,
}

#[derive(Debug)]
struct Job {
    cid: Cid,
    /// The announced head above it, and its height once known.
    tip: Cid,
    tip_height: Option<u64>,
    /// Become a head before anything else: the set was empty when this tip was announced.
    adopts: bool,
    /// The block, where it has just been fetched.
    data: Option<Vec<u8>>,
}

impl Job {
    fn is_tip(&self) -> bool {
        self.cid == self.tip
    }
}

impl Walk {
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn on_block(&mut self, cid: Cid, data: Vec<u8>) {
        if let Some(mut job) = self.waiting.remove(&cid) {
            job.data = Some(data);
            self.ready.push_front(job);
        }
    }
}

impl State {
    /// Tips that are not processed are walked. While there is no head at all, they become heads at once, so that
    /// what is written here meanwhile builds on the cluster's DAG.
    pub(super) fn on_announced(
        &mut self,
        tips: &[Cid],
        view: &dyn KvRead,
        effects: &mut Effects,
    ) -> Result<(), Error> {
        let adopts = self.heads.is_empty();
        for tip in tips {
            let block = blocks::get(view, &blocks::key(tip))?;
            if block.is_some_and(|block| block.is_processed) {
                continue;
            }
            let mut job = Job { cid: *tip, tip: *tip, tip_height: None, adopts, data: None };
            if adopts
                && let Some(block) = block
                && let Ok(node) = crdt_pb::decode_node(block.data)
            {
                self.heads.add(*tip, node.delta.priority, effects);
                job.adopts = false;
            }
            self.walk.ready.push_back(job);
        }
        Ok(())
    }

    /// A tip that cannot be had is forgotten until it is announced again; below a tip, the DAG is dirty.
    pub(super) fn on_unavailable(&mut self, cid: Cid, effects: &mut Effects) {
        if let Some(job) = self.walk.waiting.remove(&cid) {
            self.give_up(&job, effects);
        }
    }

    fn give_up(&mut self, job: &Job, effects: &mut Effects) {
        self.walk.claimed.remove(&job.cid);
        if !job.is_tip() {
            effects.put(Table::Meta, DIRTY_KEY.to_vec(), Vec::new());
        }
    }

    /// Merges the next node whose block is there; asks for the blocks that are not.
    pub(super) fn walk_on(&mut self, view: &dyn KvRead, effects: &mut Effects) -> Result<(), Error> {
        while let Some(mut job) = self.walk.ready.pop_front() {
            let fetched = job.data.take();
            let stored = blocks::get(view, &blocks::key(&job.cid))?;
            if job.is_tip() && stored.is_some_and(|block| block.is_processed) {
                continue;
            }
            let Some(data) = fetched.as_deref().or(stored.map(|block| block.data)) else {
                if let Entry::Vacant(place) = self.walk.waiting.entry(job.cid) {
                    effects.fetch.push(job.cid);
                    place.insert(job);
                }
                continue;
            };
            match self.process(&job, data, view, effects) {
                Ok(()) => return Ok(()),
                Err(Error::Node(cause)) => {
                    effects.skipped.push((job.cid, Error::Node(cause)));
                    self.give_up(&job, effects);
                }
                Err(cause) => return Err(cause),
            }
        }
        Ok(())
    }

    fn process(
        &mut self,
        job: &Job,
        data: &[u8],
        view: &dyn KvRead,
        effects: &mut Effects,
    ) -> Result<(), Error> {
        let node = crdt_pb::decode_node(data).map_err(|e| Error::Node(e.to_string()))?;
        let tip_height = job.tip_height.unwrap_or(node.delta.priority);
        if job.adopts {
            self.heads.add(job.tip, tip_height, effects);
        }
        let multihash = blocks::key(&job.cid);
        set::merge(&node.delta, &multihash, view, effects)?;
        effects.put(Table::Blocks, multihash, blocks::row(data, true));
        self.walk.claimed.remove(&job.cid);

        if node.links.is_empty() {
            self.heads.add(job.tip, tip_height, effects);
        }
        let mut is_head = false;
        for parent in node.links {
            let stored = blocks::get(view, &blocks::key(&parent))?;
            let is_processed = stored.is_some_and(|block| block.is_processed);
            if self.heads.contains(&parent) {
                self.heads.replace(&parent, job.tip, tip_height, effects);
                is_head = true;
                if is_processed {
                    continue;
                }
            }
            if is_processed || !self.walk.claimed.insert(parent) {
                if !is_head {
                    self.heads.add(job.tip, tip_height, effects);
                }
                is_head = true;
                continue;
            }
            let tip_height = (tip_height != 0).then_some(tip_height);
            self.walk.ready.push_back(Job {
                cid: parent,
                tip: job.tip,
                tip_height,
                adopts: false,
                data: None,
            });
        }
        Ok(())
    }
}
