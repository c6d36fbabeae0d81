//! Between the cluster's pins and statuses and the service's.

use super::types::{Filters, Pin, PinStatus, Status};
use crate::go::time::{Duration, Time};
use crate::types::{self, Cid, GlobalPinInfo, PinOptions, TrackerStatus};

/// The statuses of the cluster that a status of the service stands for, the strongest first.
const STATUSES: [(Status, TrackerStatus); 4] = [
    (Status::FAILED, TrackerStatus::ERROR),
    (Status::QUEUED, TrackerStatus::PIN_QUEUED),
    (Status::PINNING, TrackerStatus::PINNING),
    (Status::PINNED, TrackerStatus::PINNED),
];

/// The filter of the cluster for one of the service.
pub(super) fn to_tracker(filter: Status) -> TrackerStatus {
    let wanted = STATUSES.iter().filter(|(status, _)| filter.holds(*status));
    wanted.fold(TrackerStatus::UNDEFINED, |union, (_, status)| union.union(*status))
}

/// The status of a pin whose peers say `union` altogether; `None` if it is none that users of the service see. What
/// nobody says anything of has failed.
fn from_tracker(union: TrackerStatus) -> Option<Status> {
    STATUSES.iter().find(|(_, status)| union.matches(*status)).map(|(status, _)| *status)
}

/// A pin to submit: recursive, with the cluster's factors.
pub(super) fn to_cluster(pin: Pin, cid: Cid) -> types::Pin {
    let options = PinOptions {
        name: pin.name,
        origins: (!pin.origins.is_empty()).then_some(pin.origins),
        metadata: (!pin.meta.is_empty()).then_some(pin.meta),
        ..PinOptions::default()
    };
    types::Pin::with_options(cid, options)
}

/// A pin just submitted; the delegates are for the caller to fill in.
pub(super) fn submitted(pin: types::Pin) -> PinStatus {
    PinStatus {
        request_id: pin.cid,
        status: Status::QUEUED,
        created: pin.timestamp,
        pin: Pin {
            cid: Some(pin.cid),
            name: pin.options.name,
            origins: pin.options.origins.unwrap_or_default(),
            meta: pin.options.metadata.unwrap_or_default(),
        },
        delegates: Vec::new(),
    }
}

/// What the peers say of `cid`; `None` if that is nothing users of the service see.
pub(super) fn stated(cid: Cid, info: GlobalPinInfo) -> Option<PinStatus> {
    let union = info.peer_map.values().fold(TrackerStatus::UNDEFINED, |union, row| union.union(row.status));
    let status = from_tracker(union)?;
    let delegates = info.peer_map.into_values().flat_map(|row| row.ipfs_peer_addresses).collect();
    let pin = Pin {
        cid: info.cid,
        name: info.name,
        origins: info.origins.unwrap_or_default(),
        meta: info.metadata.unwrap_or_default(),
    };
    Some(PinStatus { request_id: cid, status, created: info.created, pin, delegates })
}

/// Whether a list shows a pin: it has a status that users see, and matches the filters on name, metadata and age.
pub(super) fn is_listed(info: &GlobalPinInfo, at: Time, filters: &Filters, before: Time) -> bool {
    let union = info.peer_map.values().fold(TrackerStatus::UNDEFINED, |union, row| union.union(row.status));
    from_tracker(union).is_some()
        && (filters.after.is_zero() || at >= filters.after)
        && is_before(at, before)
        && filters.match_pin(&info.name, info.metadata.as_ref())
}

/// Whether a place in the list is asked for by `before`. A whole second means that second too, as the reference reads
/// it; a time with a fraction is the `created` of a pin on the page before, and means what follows it.
fn is_before(at: Time, before: Time) -> bool {
    if before.is_zero() {
        true
    } else if before.subsec_nanos() == 0 {
        at.truncate_to_secs() <= before
    } else {
        at < before
    }
}

/// Nanoseconds in a millisecond: as much as clients' clocks keep of a time.
pub(super) const MILLISECOND: u32 = 1_000_000;

/// A pin's place in lists, newest first. The pinset keeps whole seconds, and clients find the next page by the
/// `created` of the last one's oldest pin: so lists show a fraction that is the pin's own, the same at all peers and
/// for ever, and never less than a millisecond, so that it is one also to clients that keep no more.
pub(super) fn place(created: Time, cid: &Cid) -> Time {
    let span = u64::from(1_000_000_000 - MILLISECOND);
    let nanos = u64::from(MILLISECOND) + hash(cid) % span;
    created.truncate_to_secs().add(Duration(nanos as i64))
}

/// FNV-1a over the bytes of a CID, with its bits mixed; part of what clients keep as a place, so it must not change.
fn hash(cid: &Cid) -> u64 {
    let mut bytes = [0; 96];
    // a CID has at most 1 + 10 + 10 + 1 + 64 bytes
    let len = cid.write_bytes(&mut bytes[..]).unwrap_or(0);
    let hash = bytes[..len].iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ hash >> 29
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::parse_cid;

    const CIDS: [&str; 2] = [
        "QmP63DkAFEnDYNjDYBpyNDfttu1fvUw99x1brscPzpqmmq",
        "bafkreiardpf2hbld7fyvfdcq2gqfdgg4jffzwwaur5ht3uubb57ueqra4m",
    ];

    #[test]
    fn the_worst_that_a_peer_says_counts() {
        let cases = [
            (0, Some(Status::FAILED)),
            (TrackerStatus::PINNED.0 | TrackerStatus::UNPIN_ERROR.0, Some(Status::FAILED)),
            (TrackerStatus::PINNED.0 | TrackerStatus::PIN_QUEUED.0, Some(Status::QUEUED)),
            (TrackerStatus::PINNED.0 | TrackerStatus::PINNING.0, Some(Status::PINNING)),
            (TrackerStatus::PINNED.0 | TrackerStatus::REMOTE.0, Some(Status::PINNED)),
            (TrackerStatus::REMOTE.0 | TrackerStatus::UNEXPECTEDLY_UNPINNED.0, None),
            (TrackerStatus::UNPINNED.0, None),
            (TrackerStatus::UNPIN_QUEUED.0, None),
        ];
        for (union, expected) in cases {
            assert_eq!(from_tracker(TrackerStatus(union)), expected, "{union}");
        }
        assert_eq!(to_tracker(Status::ANY).0, 14 | 16 | 32 | 512);
        assert_eq!(to_tracker(Status::FAILED), TrackerStatus::ERROR);
    }

    #[test]
    fn places_are_in_their_second_and_stay_as_they_are() -> Result<(), String> {
        let created = Time::from_unix(1_700_000_000, 0);
        let places = CIDS.map(|cid| parse_cid(cid).map(|cid| place(created, &cid).to_string()));
        assert_eq!(places[0].as_deref(), Ok("2023-11-14T22:13:20.642751889Z"));
        assert_eq!(places[1].as_deref(), Ok("2023-11-14T22:13:20.871129654Z"));
        let cid = parse_cid(CIDS[0])?;
        assert_eq!(place(created.add(Duration(5)), &cid), place(created, &cid));
        // pins without a time have places too: the zero time would be no place to go on at
        assert_eq!(place(Time::ZERO, &cid).to_string(), "0001-01-01T00:00:00.642751889Z");
        Ok(())
    }

    #[test]
    fn a_whole_second_is_asked_for_as_a_whole_and_a_place_up_to_it() {
        let at = Time::from_unix(100, 500_000_000);
        let cases = [
            (Time::ZERO, true),
            (Time::from_unix(99, 0), false),
            (Time::from_unix(100, 0), true),
            (Time::from_unix(100, 1), false),
            (at, false),
            (Time::from_unix(100, 500_000_001), true),
            (Time::from_unix(101, 0), true),
        ];
        for (before, expected) in cases {
            assert_eq!(is_before(at, before), expected, "{before}");
        }
    }
}
