//! What one peer wants of us (spec: wire 6.1, 6.3).
//!
//! Pure: no block, no socket. A want is queued until it is looked up, in hand while that happens, and idle when the
//! block was not there: then it waits for the block, for a CANCEL, or for the limit.

use std::collections::{BTreeMap, HashMap};

use cluster_compat::types::Cid;

use crate::wire::bitswap_pb::{Entry, MAX_CID_BYTES, Message, Part, Want};

/// Wants of one peer that are remembered; an original keeps as many.
pub(super) const MAX_WANTS: usize = 1024;

/// Hash code of CIDs that hold their block themselves.
const IDENTITY: u64 = 0;

/// A want to be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) cid: Cid,
    pub(super) want: Want,
    pub(super) wants_dont_have: bool,
}

/// What came of a look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The block goes out.
    Sent,
    /// The peer is told that we have it.
    Told,
    /// We do not have it.
    Missing,
}

/// The wants of one peer.
#[derive(Debug, Default)]
pub(super) struct Wantlist {
    wants: HashMap<Cid, Wanted>,
    queue: BTreeMap<u64, Cid>,
    /// Oldest first: they make room for new ones.
    idle: BTreeMap<u64, Cid>,
    next: u64,
}

#[derive(Debug, Clone, Copy)]
struct Wanted {
    want: Want,
    wants_dont_have: bool,
    place: Place,
    /// Key of its place in `queue` or `idle`; where it goes back to when it is in hand.
    number: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Queued,
    /// Someone looks for the block; `again` when the answer may be different already.
    InHand {
        again: bool,
    },
    Idle,
}

impl Wantlist {
    /// Takes in the wantlist of a message. Whether there is something to look up.
    pub(super) fn apply(&mut self, message: &Message<'_>) -> bool {
        if message.is_full {
            self.wants.clear();
            self.queue.clear();
            self.idle.clear();
        }
        for part in message.parts() {
            let Part::Entry(entry) = part else { continue };
            // neither is ever answered, by originals too
            if entry.cid.len() > MAX_CID_BYTES {
                continue;
            }
            let Ok(cid) = Cid::try_from(entry.cid) else { continue };
            if cid.hash().code() == IDENTITY {
                continue;
            }
            if entry.is_cancelled {
                self.remove(&cid);
            } else {
                self.want(cid, &entry);
            }
        }
        !self.queue.is_empty()
    }

    fn want(&mut self, cid: Cid, entry: &Entry<'_>) {
        let number = self.next;
        self.next += 1;
        if let Some(wanted) = self.wants.get_mut(&cid) {
            // a block that is wanted is not wanted less because someone else asks whether it is there
            if entry.want == Want::Block {
                wanted.want = Want::Block;
            }
            wanted.wants_dont_have = entry.wants_dont_have;
            self.again(&cid);
            return;
        }
        if self.wants.len() >= MAX_WANTS {
            let Some((_, oldest)) = self.idle.pop_first() else { return };
            self.wants.remove(&oldest);
        }
        let wanted =
            Wanted { want: entry.want, wants_dont_have: entry.wants_dont_have, place: Place::Queued, number };
        self.wants.insert(cid, wanted);
        self.queue.insert(number, cid);
    }

    fn again(&mut self, cid: &Cid) {
        let Some(wanted) = self.wants.get_mut(cid) else { return };
        match &mut wanted.place {
            Place::Queued => {}
            Place::InHand { again } => *again = true,
            Place::Idle => {
                self.idle.remove(&wanted.number);
                wanted.number = self.next;
                wanted.place = Place::Queued;
                self.queue.insert(self.next, *cid);
                self.next += 1;
            }
        }
    }

    fn remove(&mut self, cid: &Cid) {
        if let Some(wanted) = self.wants.remove(cid) {
            self.queue.remove(&wanted.number);
            self.idle.remove(&wanted.number);
        }
    }

    /// All that is wanted.
    pub(super) fn cids(&self) -> Vec<Cid> {
        self.wants.keys().copied().collect()
    }

    /// A block was stored. Whether that gives something to look up.
    pub(super) fn stored(&mut self, cid: &Cid) -> bool {
        self.again(cid);
        !self.queue.is_empty()
    }

    /// Whatever was not there may be there now.
    pub(super) fn look_again(&mut self) {
        for (_, cid) in std::mem::take(&mut self.idle) {
            self.again(&cid);
        }
    }

    /// The next wants to look up, in their order.
    pub(super) fn take(&mut self, n_wants: usize) -> Vec<Item> {
        let mut items = Vec::new();
        while items.len() < n_wants
            && let Some((_, cid)) = self.queue.pop_first()
        {
            if let Some(wanted) = self.wants.get_mut(&cid) {
                wanted.place = Place::InHand { again: false };
                items.push(Item { cid, want: wanted.want, wants_dont_have: wanted.wants_dont_have });
            }
        }
        items
    }

    /// Wants that were taken and not looked up: they are next.
    pub(super) fn put_back(&mut self, items: &[Item]) {
        for item in items {
            if let Some(wanted) = self.wants.get_mut(&item.cid)
                && matches!(wanted.place, Place::InHand { .. })
            {
                wanted.place = Place::Queued;
                self.queue.insert(wanted.number, item.cid);
            }
        }
    }

    /// A want that was taken was looked up.
    pub(super) fn done(&mut self, cid: &Cid, outcome: Outcome) {
        let Some(wanted) = self.wants.get_mut(cid) else { return };
        // cancelled and wanted again meanwhile: that is another want
        let Place::InHand { again } = wanted.place else { return };
        match outcome {
            Outcome::Sent => self.remove(cid),
            Outcome::Told if !again => self.remove(cid),
            Outcome::Missing if !again => {
                wanted.place = Place::Idle;
                self.idle.insert(wanted.number, *cid);
            }
            Outcome::Told | Outcome::Missing => {
                wanted.place = Place::Queued;
                self.queue.insert(wanted.number, *cid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use multihash_codetable::{Code, MultihashDigest as _};

    use super::*;
    use crate::wire::bitswap_pb::Builder;

    fn cid(n: u32) -> Cid {
        Cid::new_v1(0x70, Code::Sha2_256.digest(&n.to_be_bytes()))
    }

    fn entry(cid: &[u8], want: Want) -> Entry<'_> {
        Entry { cid, priority: 1, is_cancelled: false, want, wants_dont_have: true }
    }

    /// Applies wants and cancels.
    fn apply(wantlist: &mut Wantlist, is_full: bool, wants: &[(Cid, Want)], cancels: &[Cid]) -> bool {
        let mut builder = Builder::default();
        if is_full {
            builder.full();
        }
        for (cid, want) in wants {
            builder.entry(&entry(&cid.to_bytes(), *want));
        }
        for cid in cancels {
            builder.entry(&Entry { is_cancelled: true, ..entry(&cid.to_bytes(), Want::Block) });
        }
        let frame = builder.build();
        let start = frame.iter().position(|byte| *byte < 0x80).unwrap() + 1;
        wantlist.apply(&Message::decode(&frame[start..]).unwrap())
    }

    fn taken(wantlist: &mut Wantlist) -> Vec<(Cid, Want)> {
        wantlist.take(usize::MAX).into_iter().map(|item| (item.cid, item.want)).collect()
    }

    #[test]
    fn wants_are_looked_up_in_order_and_again_when_the_block_comes() {
        let mut wantlist = Wantlist::default();
        let [a, b, c] = [cid(1), cid(2), cid(3)];
        assert!(apply(&mut wantlist, false, &[(a, Want::Block), (b, Want::Have), (c, Want::Block)], &[]));
        assert_eq!(wantlist.take(1)[0].cid, a);
        let rest = wantlist.take(2);
        wantlist.put_back(&rest);
        assert_eq!(taken(&mut wantlist), [(b, Want::Have), (c, Want::Block)]);
        wantlist.done(&a, Outcome::Sent);
        wantlist.done(&b, Outcome::Missing);
        // stored while we looked: the look-up may have come too early
        assert!(!wantlist.stored(&c));
        wantlist.done(&c, Outcome::Missing);
        assert_eq!(taken(&mut wantlist), [(c, Want::Block)]);
        wantlist.done(&c, Outcome::Sent);
        assert!(!wantlist.stored(&a) && !wantlist.stored(&c));
        assert!(wantlist.stored(&b));
        assert_eq!(taken(&mut wantlist), [(b, Want::Have)]);
        wantlist.done(&b, Outcome::Told);
        assert!(wantlist.wants.is_empty() && wantlist.idle.is_empty() && wantlist.queue.is_empty());
    }

    #[test]
    fn cancels_full_lists_and_upgrades_change_what_is_wanted() {
        let mut wantlist = Wantlist::default();
        let [a, b] = [cid(1), cid(2)];
        apply(&mut wantlist, false, &[(a, Want::Have), (b, Want::Have)], &[]);
        assert!(apply(&mut wantlist, false, &[], &[a]));
        assert_eq!(taken(&mut wantlist), [(b, Want::Have)]);
        // the block is wanted while the peer is told that we have it
        apply(&mut wantlist, false, &[(b, Want::Block)], &[]);
        wantlist.done(&b, Outcome::Told);
        assert_eq!(taken(&mut wantlist), [(b, Want::Block)]);
        wantlist.done(&b, Outcome::Missing);
        // not downgraded
        apply(&mut wantlist, false, &[(b, Want::Have)], &[]);
        assert_eq!(taken(&mut wantlist), [(b, Want::Block)]);
        wantlist.done(&b, Outcome::Missing);
        apply(&mut wantlist, true, &[(a, Want::Block)], &[]);
        assert!(wantlist.stored(&a) && wantlist.queue.len() == 1);
        wantlist.stored(&b);
        assert_eq!(taken(&mut wantlist), [(a, Want::Block)]);
        // cancelled in hand: the answer finds nobody
        apply(&mut wantlist, false, &[], &[a]);
        wantlist.done(&a, Outcome::Missing);
        assert!(wantlist.wants.is_empty() && wantlist.idle.is_empty());
    }

    #[test]
    fn a_flood_of_wants_is_cut_and_idle_ones_make_room() {
        let mut wantlist = Wantlist::default();
        let flood: Vec<(Cid, Want)> = (0..5000).map(|n| (cid(n), Want::Block)).collect();
        apply(&mut wantlist, false, &flood, &[]);
        assert_eq!(wantlist.wants.len(), MAX_WANTS);
        for (cid, _) in taken(&mut wantlist) {
            wantlist.done(&cid, Outcome::Missing);
        }
        assert_eq!(wantlist.idle.len(), MAX_WANTS);
        apply(&mut wantlist, false, &[(cid(9999), Want::Block)], &[]);
        assert_eq!(wantlist.wants.len(), MAX_WANTS);
        assert_eq!(taken(&mut wantlist), [(cid(9999), Want::Block)]);
        assert!(!wantlist.wants.contains_key(&cid(0)));
        // wanted and cancelled over and over
        for _ in 0..3000 {
            apply(&mut wantlist, false, &[(cid(7777), Want::Block)], &[cid(7777)]);
        }
        assert!(wantlist.queue.is_empty() && wantlist.wants.len() <= MAX_WANTS);
        wantlist.look_again();
        assert_eq!(wantlist.queue.len() + 1, wantlist.wants.len());
    }

    #[test]
    fn identity_and_oversize_cids_are_passed_over() {
        let mut wantlist = Wantlist::default();
        let identity = hex::decode("01550004abababab").unwrap();
        let long = [&[1, 0x55, 0, 0x80, 2][..], &[7; 256]].concat();
        let mut builder = Builder::default();
        for cid in [&identity[..], &long[..], b"garbage"] {
            builder.entry(&entry(cid, Want::Block));
        }
        let frame = builder.build();
        let start = frame.iter().position(|byte| *byte < 0x80).unwrap() + 1;
        assert!(!wantlist.apply(&Message::decode(&frame[start..]).unwrap()));
        assert!(wantlist.wants.is_empty());
    }
}
