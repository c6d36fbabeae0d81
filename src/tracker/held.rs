//! What the daemon holds, as small as it gets: one 8-byte fingerprint a pin.
//!
//! A list of all statuses needs the whole of the daemon's pins at hand. The fingerprints are SipHash under a key
//! that is new for every list: nobody can craft a CID that collides, and among a million pins the chance that a
//! given lost one hides behind another is 1 in 10¹³, until the next list.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use cluster_compat::types::{Cid, TrackerStatus};

/// CIDs by fingerprint.
#[derive(Debug, Default)]
pub(super) struct Held {
    key: RandomState,
    pinned: HashSet<u64, BuildHasherDefault<Identity>>,
    /// Those the daemon called neither recursive nor direct: none, unless it speaks in new words.
    other: HashMap<u64, TrackerStatus>,
}

impl Held {
    /// Room for `n_pins`, as far as that is known: a set that grows is copied again and again.
    pub(super) fn with_room(n_pins: usize) -> Self {
        Self {
            pinned: HashSet::with_capacity_and_hasher(n_pins, BuildHasherDefault::default()),
            ..Self::default()
        }
    }

    /// How many pins the daemon holds.
    pub(super) fn len(&self) -> usize {
        self.pinned.len() + self.other.len()
    }

    /// The daemon holds `cid`, as it says by `status`.
    pub(super) fn insert(&mut self, cid: &Cid, status: TrackerStatus) {
        let fingerprint = self.fingerprint(cid);
        if status == TrackerStatus::PINNED {
            self.pinned.insert(fingerprint);
        } else {
            self.other.insert(fingerprint, status);
        }
    }

    /// What the daemon said of `cid`; `None` when it was not listed.
    pub(super) fn get(&self, cid: &Cid) -> Option<TrackerStatus> {
        let fingerprint = self.fingerprint(cid);
        if self.pinned.contains(&fingerprint) {
            return Some(TrackerStatus::PINNED);
        }
        self.other.get(&fingerprint).copied()
    }

    /// Version, codec and hash count: the daemon keeps CIDv0 and CIDv1 of one block as two pins.
    fn fingerprint(&self, cid: &Cid) -> u64 {
        let mut hasher = self.key.build_hasher();
        hasher.write_u64(u64::from(cid.version()) ^ (cid.codec() << 1));
        hasher.write_u64(cid.hash().code());
        hasher.write(cid.hash().digest());
        hasher.finish()
    }
}

/// Fingerprints are hashes already.
#[derive(Debug, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cid_is_held_as_it_was_listed_and_in_no_other_version() {
        let v0 = Cid::try_from("QmV4STRyo1dygxGhZcr877TQ1M9AZuXhfm6HrXjxW1TYNP").unwrap();
        let v1 = Cid::new_v1(v0.codec(), *v0.hash());
        let raw = Cid::new_v1(0x55, *v0.hash());
        let mut held = Held::default();
        held.insert(&v0, TrackerStatus::PINNED);
        held.insert(&raw, TrackerStatus::UNDEFINED);
        assert_eq!(held.get(&v0), Some(TrackerStatus::PINNED));
        assert_eq!(held.get(&v1), None);
        assert_eq!(held.get(&raw), Some(TrackerStatus::UNDEFINED));
    }
}
