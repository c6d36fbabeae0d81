//! The walk down the DAG from an announced head.
//!
//! A walk starts at a tip and goes on to each parent that is neither processed nor claimed already. Where it meets a
//! head, the tip takes its place; where it meets processed ground, or the bottom, the tip becomes a head. Nodes are
//! merged from the top, so what a tip says counts before all that is beneath it is there.
//!
//! ```text
//!   announced ─▶ ready ─▶ merged ─▶ its parents are claimed ─▶ ready …
//!                 │  ▲
//!                 ▼  │ block
//!              waiting ──unavailable──▶ stalled ──announced again, repair──▶ ready
//! ```
//!
//! Claims below a tip are stored with the node that made them, in [`Table::Unfinished`], so a restart goes on where
//! the walk was. A tip that was never fetched is not: whoever wants it known announces it again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::ControlFlow;

use cluster_compat::types::Cid;

use super::repair::Dirt;
use super::{Effects, Error, Fetch, State, set};
use crate::store::{KvRead, Table, blocks};
use crate::wire::crdt_pb;

/// Announced heads that are looked for at the same time; further ones have to be announced again.
const MAX_UNFETCHED_TIPS: usize = 1024;

/// First byte of the key of a tip in [`Table::Unfinished`]; its CID follows. The row is its height (8 bytes, big
/// endian) and whether it is a head yet.
const TIP: u8 = b't';

/// First byte of the key of a claimed node; its CID follows. The row is the CID of its tip.
const CLAIM: u8 = b'c';

#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Nodes that are to be processed, and the tip each was reached from. A tip that is not processed is its own.
    claims: HashMap<Cid, Cid>,
    /// Tips that are processed, with claims left beneath them.
    tips: HashMap<Cid, Tip>,
    /// Claims to look at next.
    ready: VecDeque<Cid>,
    /// Blocks that have come for waiting claims.
    fetched: VecDeque<(Cid, Vec<u8>)>,
    /// Claims whose block is being fetched.
    waiting: HashSet<Cid>,
    /// Claims whose block could not be had.
    stalled: HashSet<Cid>,
    /// Tips announced while there was no head at all: they become heads before anything else.
    adopted: HashSet<Cid>,
    n_unfetched_tips: usize,
    pub(super) dirt: Dirt,
}

#[derive(Debug, Clone, Copy)]
struct Tip {
    /// As its delta says; 0 there means the height of whichever node is looked at.
    height: u64,
    /// Whether it has become a head. It need not be one still.
    is_placed: bool,
    n_claims: usize,
    /// What its row says of `is_placed`, if it has a row.
    stored: Option<bool>,
}

impl Tip {
    fn height_at(&self, priority: u64) -> u64 {
        if self.height == 0 { priority } else { self.height }
    }

    fn row(&self) -> Vec<u8> {
        let mut row = self.height.to_be_bytes().to_vec();
        row.push(u8::from(self.is_placed));
        row
    }
}

fn row_key(kind: u8, cid: &Cid) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&cid.to_bytes());
    key
}

impl Walk {
    /// What the last run left unfinished is ready at once.
    pub(super) fn load(view: &dyn KvRead) -> Result<Self, Error> {
        let mut walk = Self { dirt: Dirt::load(view)?, ..Self::default() };
        let mut damaged = None;
        view.scan(Table::Unfinished, b"", None, &mut |key, row| match walk.load_row(key, row) {
            Some(()) => ControlFlow::Continue(()),
            None => {
                damaged = Some(hex::encode(key));
                ControlFlow::Break(())
            }
        })?;
        if let Some(key) = damaged {
            return Err(Error::Damaged(format!("unfinished walk {key} cannot be read")));
        }
        for tip in walk.claims.values() {
            match walk.tips.get_mut(tip) {
                Some(tip) => tip.n_claims += 1,
                None => {
                    return Err(Error::Damaged(format!("the tip {tip} of an unfinished walk is missing")));
                }
            }
        }
        walk.ready = walk.claims.keys().copied().collect();
        walk.ready.make_contiguous().sort_unstable();
        Ok(walk)
    }

    fn load_row(&mut self, key: &[u8], row: &[u8]) -> Option<()> {
        let (kind, cid) = key.split_first()?;
        let cid = Cid::try_from(cid).ok()?;
        if *kind == CLAIM {
            self.claims.insert(cid, Cid::try_from(row).ok()?);
            return Some(());
        }
        let (height, rest) = row.split_first_chunk::<8>()?;
        let (height, is_placed) = (u64::from_be_bytes(*height), rest == [1]);
        let tip = Tip { height, is_placed, n_claims: 0, stored: Some(is_placed) };
        self.tips.insert(cid, tip);
        Some(())
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty() || !self.fetched.is_empty()
    }

    pub(super) fn has_claims(&self) -> bool {
        !self.claims.is_empty()
    }

    /// Claims whose block could not be had.
    pub(super) fn n_stalled(&self) -> usize {
        self.stalled.len()
    }

    /// Claims below processed tips.
    pub(super) fn n_unfinished(&self) -> usize {
        self.claims.len() - self.n_unfetched_tips
    }

    /// A block nobody waits for is dropped.
    pub(super) fn on_block(&mut self, cid: Cid, data: Vec<u8>) {
        if self.waiting.remove(&cid) {
            self.fetched.push_back((cid, data));
        }
    }

    fn is_claimed(&self, cid: &Cid) -> bool {
        self.claims.contains_key(cid)
    }

    /// All that stalled is looked for again.
    pub(super) fn resume_all(&mut self) {
        let mut stalled: Vec<Cid> = self.stalled.drain().collect();
        stalled.sort_unstable();
        self.ready.extend(stalled);
    }

    fn resume_below(&mut self, tip: &Cid) {
        let claims = &self.claims;
        let mut stalled: Vec<Cid> = self.stalled.extract_if(|cid| claims.get(cid) == Some(tip)).collect();
        stalled.sort_unstable();
        self.ready.extend(stalled);
    }

    /// A node below a processed tip is to be processed.
    fn claim(&mut self, cid: Cid, tip: &Cid, effects: &mut Effects) {
        effects.put(Table::Unfinished, row_key(CLAIM, &cid), tip.to_bytes());
        if let Some(state) = self.tips.get_mut(tip) {
            state.n_claims += 1;
        }
        self.claims.insert(cid, *tip);
    }

    /// What was to be done for a tip is from now on done for a descendant of it.
    fn absorb(&mut self, old: &Cid, new: &Cid, effects: &mut Effects) {
        let Some(tip) = self.tips.remove(old) else { return };
        if tip.stored.is_some() {
            effects.delete(Table::Unfinished, row_key(TIP, old));
        }
        for (cid, tip) in self.claims.iter_mut().filter(|(_, tip)| *tip == old) {
            effects.put(Table::Unfinished, row_key(CLAIM, cid), new.to_bytes());
            *tip = *new;
        }
        if let Some(state) = self.tips.get_mut(new) {
            state.n_claims += tip.n_claims;
        }
    }

    /// Takes a node off the list; it is processed, or forgotten.
    fn release(&mut self, cid: &Cid, effects: &mut Effects) {
        let Some(tip) = self.claims.remove(cid) else { return };
        if tip == *cid {
            self.n_unfetched_tips -= 1;
            return;
        }
        effects.delete(Table::Unfinished, row_key(CLAIM, cid));
        if let Some(state) = self.tips.get_mut(&tip) {
            state.n_claims -= 1;
        }
    }

    /// Writes down a tip, or that it is finished.
    fn settle(&mut self, tip: &Cid, effects: &mut Effects) {
        let Some(state) = self.tips.get_mut(tip) else { return };
        if state.n_claims > 0 {
            if state.stored != Some(state.is_placed) {
                state.stored = Some(state.is_placed);
                effects.put(Table::Unfinished, row_key(TIP, tip), state.row());
            }
            return;
        }
        if state.stored.is_some() {
            effects.delete(Table::Unfinished, row_key(TIP, tip));
        }
        self.tips.remove(tip);
    }

    pub(super) fn set_dirt(&mut self, dirt: Dirt, effects: &mut Effects) {
        if self.dirt != dirt {
            self.dirt = dirt;
            dirt.store(effects);
        }
    }

    fn forget_unfetched(&mut self, cid: &Cid) {
        if self.claims.get(cid) == Some(cid) {
            self.claims.remove(cid);
            self.adopted.remove(cid);
            self.n_unfetched_tips -= 1;
        }
    }
}

impl State {
    /// Tips that are not processed are walked, unfinished ones resumed. While there is no head at all, tips become
    /// heads at once, so that what is written here meanwhile builds on the cluster's DAG.
    pub(super) fn on_announced(&mut self, tips: &[Cid], view: &dyn KvRead) -> Result<(), Error> {
        for tip in tips {
            let walk = &mut self.walk;
            if walk.tips.contains_key(tip) {
                walk.resume_below(tip);
            } else if walk.is_claimed(tip) {
                if walk.stalled.remove(tip) {
                    walk.ready.push_back(*tip);
                }
            } else if walk.n_unfetched_tips < MAX_UNFETCHED_TIPS && !is_processed(tip, view)? {
                if self.heads.is_empty() {
                    walk.adopted.insert(*tip);
                }
                walk.claims.insert(*tip, *tip);
                walk.n_unfetched_tips += 1;
                walk.ready.push_back(*tip);
            }
        }
        Ok(())
    }

    /// A tip that cannot be had is forgotten until it is announced again; below a tip the walk stalls, and the DAG
    /// is dirty.
    pub(super) fn on_unavailable(&mut self, cid: Cid, effects: &mut Effects) {
        if self.walk.waiting.remove(&cid) {
            self.give_up(cid, effects);
        }
    }

    fn give_up(&mut self, cid: Cid, effects: &mut Effects) {
        let Some(tip) = self.walk.claims.get(&cid).copied() else { return };
        effects.given_up.push(Fetch { cid, tip });
        match tip {
            tip if tip == cid => self.walk.forget_unfetched(&cid),
            _ => {
                self.walk.stalled.insert(cid);
                if self.walk.dirt == Dirt::None {
                    self.walk.set_dirt(Dirt::Unfinished, effects);
                }
            }
        }
    }

    /// Merges the next node whose block is there; asks for the blocks that are not.
    pub(super) fn walk_on(&mut self, view: &dyn KvRead, effects: &mut Effects) -> Result<(), Error> {
        while let Some((cid, data)) = self.walk.fetched.pop_front() {
            if self.try_process(cid, &data, view, effects)? {
                return Ok(());
            }
        }
        while let Some(cid) = self.walk.ready.pop_front() {
            let Some(tip) = self.walk.claims.get(&cid) else { continue };
            match blocks::get(view, &blocks::key(&cid))? {
                None => {
                    effects.fetch.push(Fetch { cid, tip: *tip });
                    self.walk.waiting.insert(cid);
                }
                Some(block) => {
                    if self.try_process(cid, block.data, view, effects)? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether the node was merged; one that cannot be read is left out.
    fn try_process(
        &mut self,
        cid: Cid,
        data: &[u8],
        view: &dyn KvRead,
        effects: &mut Effects,
    ) -> Result<bool, Error> {
        match self.process(cid, data, view, effects) {
            Ok(()) => Ok(true),
            Err(Error::Node(cause)) => {
                effects.skipped.push((cid, Error::Node(cause)));
                self.give_up(cid, effects);
                Ok(false)
            }
            Err(cause) => Err(cause),
        }
    }

    fn process(
        &mut self,
        cid: Cid,
        data: &[u8],
        view: &dyn KvRead,
        effects: &mut Effects,
    ) -> Result<(), Error> {
        let Some(tip) = self.walk.claims.get(&cid).copied() else { return Ok(()) };
        let node = crdt_pb::decode_node(data).map_err(|e| Error::Node(e.to_string()))?;
        let multihash = blocks::key(&cid);
        set::merge(&node.delta, &multihash, view, effects)?;
        effects.put(Table::Blocks, multihash, blocks::row(data, true));
        effects.merged = Some(cid);
        self.walk.release(&cid, effects);
        if tip == cid {
            let height = node.delta.priority;
            self.walk.tips.insert(tip, Tip { height, is_placed: false, n_claims: 0, stored: None });
        }
        let height = self.walk.tips.get(&tip).map_or(0, |tip| tip.height_at(node.delta.priority));
        if self.walk.adopted.remove(&cid) || node.links.is_empty() {
            self.place(&tip, height, effects);
        }
        for parent in node.links {
            self.reach(parent, &tip, height, view, effects)?;
        }
        self.walk.settle(&tip, effects);
        if self.walk.dirt == Dirt::Unfinished && self.walk.n_unfinished() == 0 {
            self.walk.set_dirt(Dirt::None, effects);
        }
        Ok(())
    }

    /// A walk has come to a parent of a node it merged.
    fn reach(
        &mut self,
        parent: Cid,
        tip: &Cid,
        height: u64,
        view: &dyn KvRead,
        effects: &mut Effects,
    ) -> Result<(), Error> {
        if self.heads.contains(&parent) {
            self.heads.remove(&parent, effects);
            self.place(tip, height, effects);
        }
        if is_processed(&parent, view)? {
            self.walk.absorb(&parent, tip, effects);
            self.place(tip, height, effects);
            return Ok(());
        }
        match self.walk.claims.get(&parent) {
            Some(claimed_by) if *claimed_by == parent => {
                // announced as a tip, and not fetched yet: it is none after all
                self.walk.n_unfetched_tips -= 1;
                self.walk.adopted.remove(&parent);
                self.walk.claim(parent, tip, effects);
            }
            Some(_) => self.place(tip, height, effects),
            None => {
                self.walk.claim(parent, tip, effects);
                self.walk.ready.push_back(parent);
            }
        }
        Ok(())
    }

    /// Makes a tip a head, unless it was one and has been built upon since.
    fn place(&mut self, tip: &Cid, height: u64, effects: &mut Effects) {
        let Some(state) = self.walk.tips.get_mut(tip) else { return };
        if !state.is_placed || self.heads.contains(tip) {
            state.is_placed = true;
            self.heads.add(*tip, height, effects);
        }
    }

    /// A node that is not there was found below a head: it is walked as if that head had just been announced.
    pub(super) fn walk_below(&mut self, missing: Cid, head: Cid, height: u64, effects: &mut Effects) {
        if self.walk.is_claimed(&missing) {
            return;
        }
        self.walk.tips.entry(head).or_insert(Tip { height, is_placed: true, n_claims: 0, stored: None });
        self.walk.claim(missing, &head, effects);
        self.walk.settle(&head, effects);
        self.walk.ready.push_back(missing);
    }
}

pub(super) fn is_processed(cid: &Cid, view: &dyn KvRead) -> Result<bool, Error> {
    Ok(blocks::get(view, &blocks::key(cid))?.is_some_and(|block| block.is_processed))
}
