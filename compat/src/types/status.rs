//! Statuses of a pin on a peer.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One status or a union of them: bit flags whose values travel between peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TrackerStatus(
    /// The bits (spec: core 1.3).
    pub u64,
);

impl TrackerStatus {
    /// Unknown; as a filter, everything.
    pub const UNDEFINED: Self = Self(0);
    /// The peer or its daemon could not be asked.
    pub const CLUSTER_ERROR: Self = Self(2);
    /// Pinning failed.
    pub const PIN_ERROR: Self = Self(4);
    /// Unpinning failed.
    pub const UNPIN_ERROR: Self = Self(8);
    /// Any of the three errors.
    pub const ERROR: Self = Self(14);
    /// The daemon holds it.
    pub const PINNED: Self = Self(16);
    /// The daemon is fetching it.
    pub const PINNING: Self = Self(32);
    /// The daemon is unpinning it.
    pub const UNPINNING: Self = Self(64);
    /// Not in the pinset.
    pub const UNPINNED: Self = Self(128);
    /// Allocated to other peers.
    pub const REMOTE: Self = Self(256);
    /// Waiting for a pin worker.
    pub const PIN_QUEUED: Self = Self(512);
    /// Waiting for the unpin worker.
    pub const UNPIN_QUEUED: Self = Self(1024);
    /// Either queue.
    pub const QUEUED: Self = Self(1536);
    /// Held as shards.
    pub const SHARDED: Self = Self(2048);
    /// The daemon should hold it and does not.
    pub const UNEXPECTEDLY_UNPINNED: Self = Self(4096);
}

/// Every status with a name, in order of its bits; composites come after their parts.
const NAMES: [(TrackerStatus, &str); 15] = [
    (TrackerStatus::UNDEFINED, "undefined"),
    (TrackerStatus::CLUSTER_ERROR, "cluster_error"),
    (TrackerStatus::PIN_ERROR, "pin_error"),
    (TrackerStatus::UNPIN_ERROR, "unpin_error"),
    (TrackerStatus::ERROR, "error"),
    (TrackerStatus::PINNED, "pinned"),
    (TrackerStatus::PINNING, "pinning"),
    (TrackerStatus::UNPINNING, "unpinning"),
    (TrackerStatus::UNPINNED, "unpinned"),
    (TrackerStatus::REMOTE, "remote"),
    (TrackerStatus::PIN_QUEUED, "pin_queued"),
    (TrackerStatus::UNPIN_QUEUED, "unpin_queued"),
    (TrackerStatus::QUEUED, "queued"),
    (TrackerStatus::SHARDED, "sharded"),
    (TrackerStatus::UNEXPECTEDLY_UNPINNED, "unexpectedly_unpinned"),
];

impl TrackerStatus {
    /// Whether an item with this status is wanted by a filter: the filter is empty, the status is undefined,
    /// or they share a bit.
    pub const fn matches(self, filter: Self) -> bool {
        filter.0 == 0 || self.0 == 0 || self.0 & filter.0 != 0
    }

    /// The union of both.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Its name, where it has one of its own.
    pub fn name(self) -> Option<&'static str> {
        NAMES.iter().find(|(status, _)| *status == self).map(|(_, name)| *name)
    }

    /// Every status with a name, [`TrackerStatus::UNDEFINED`] and composites included.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|(status, _)| *status)
    }

    /// Reads a comma list of names: spaces are removed, unknown names ignored. An empty union is
    /// [`TrackerStatus::UNDEFINED`], which callers refuse if the text was not empty.
    pub fn parse_filter(text: &str) -> Self {
        let text = text.replace(' ', "");
        text.split(',')
            .filter_map(|token| NAMES.iter().find(|(_, name)| *name == token))
            .fold(Self::UNDEFINED, |union, (status, _)| union.union(*status))
    }
}

/// The name; for a union without one, the names of all that share a bit, in order of their bits.
impl fmt::Display for TrackerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.name() {
            return f.pad(name);
        }
        let mut separator = "";
        for (_, name) in NAMES.iter().filter(|(status, _)| status.0 & self.0 != 0) {
            write!(f, "{separator}{name}")?;
            separator = ",";
        }
        Ok(())
    }
}

impl Serialize for TrackerStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.name() {
            Some(name) => serializer.serialize_str(name),
            None => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for TrackerStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::parse_filter(&std::borrow::Cow::<str>::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_as_the_reference_reads_them() {
        let cases = [
            ("", 0),
            ("undefined", 0),
            ("all", 0),
            (",", 0),
            ("bogus,pinned", 16),
            (" pin ned , error", 30),
            ("Pinned", 0),
            ("queued", 1536),
            ("pin_queued,unpin_queued", 1536),
            ("unexpectedly_unpinned", 4096),
        ];
        for (input, expected) in cases {
            assert_eq!(TrackerStatus::parse_filter(input), TrackerStatus(expected), "{input}");
        }
    }

    #[test]
    fn a_union_without_a_name_lists_what_it_touches() {
        let cases = [
            (0, "undefined"),
            (16, "pinned"),
            (14, "error"),
            (1536, "queued"),
            (20, "pin_error,error,pinned"),
        ];
        for (bits, expected) in cases {
            assert_eq!(TrackerStatus(bits).to_string(), expected);
        }
        assert_eq!(TrackerStatus(1 << 40).to_string(), "");
    }

    #[test]
    fn an_undefined_status_matches_every_filter() {
        assert!(TrackerStatus::UNDEFINED.matches(TrackerStatus::PINNED));
        assert!(TrackerStatus::PINNED.matches(TrackerStatus::UNDEFINED));
        assert!(TrackerStatus::PIN_ERROR.matches(TrackerStatus::ERROR));
        assert!(!TrackerStatus::UNEXPECTEDLY_UNPINNED.matches(TrackerStatus::ERROR));
    }
}
