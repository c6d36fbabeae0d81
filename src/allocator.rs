//! Which peers get a CID.
//!
//! [`allocate`] is the one entry: it decides how many peers are missing between the wished-for bounds, and the
//! `balanced` order decides which. It sees metrics and lists of peers, nothing else: no clock (expired metrics are
//! left out by whoever asks), no network, no memory between calls. Where the reference leaves an order open ours is
//! by peer id, so the same question has the same answer on every peer.
//!
//! ```text
//!   metrics by name ──► groups: current · preferred · candidates ──► partition trees ──► peers, round robin
//! ```

use std::collections::{BTreeMap, BTreeSet};

use cluster_compat::types::{Cid, Metric, PeerId};
use tracing::{debug, error};

/// Why no peers could be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Neither bound was set.
    #[error("bad replication factors: {min}/{max}")]
    BadFactors {
        /// Fewest copies.
        min: i64,
        /// Most copies.
        max: i64,
    },
    /// Fewer peers can take the CID than are needed.
    #[error(
        "not enough peers to allocate CID. Needed at least: {needed}. Wanted at most: {wanted}. Available \
         candidates: {available}. See logs for more info."
    )]
    NotEnough {
        /// Peers missing to reach the lower bound.
        needed: i64,
        /// Peers missing to reach the upper bound.
        wanted: i64,
        /// Peers that could take it.
        available: usize,
    },
}

/// A question to [`allocate`].
pub struct AllocateArgs<'a> {
    /// The content, for the log.
    pub cid: &'a Cid,
    /// Fewest copies; -1 with `max` -1 is everywhere.
    pub min: i64,
    /// Most copies.
    pub max: i64,
    /// Peers that hold it now; empty where the pin is new or was everywhere.
    pub current: &'a [PeerId],
    /// Peers that must not get it.
    pub blacklist: &'a [PeerId],
    /// Peers the user would like to have it (`user_allocations`).
    pub preferred: &'a [PeerId],
    /// For every name of `allocate_by`, in its order: the latest valid metric of each peer.
    pub metrics: &'a [(String, Vec<Metric>)],
    /// Whether a peer may hold pins at all (`pin_only_on_trusted_peers`, `pin_only_on_untrusted_peers`).
    pub is_eligible: &'a dyn Fn(&PeerId) -> bool,
}

/// The peers a CID shall be on. An empty list is everywhere.
pub fn allocate(args: &AllocateArgs<'_>) -> Result<Vec<PeerId>, Error> {
    let (min, max) = (args.min, args.max);
    if min.saturating_add(max) == 0 {
        return Err(Error::BadFactors { min, max });
    }
    if min < 0 && max < 0 {
        return Ok(Vec::new());
    }
    let groups = Groups::of(args);
    let n_current = i64::try_from(groups.current.len()).unwrap_or(i64::MAX);
    let needed = min - n_current;
    let wanted = max - n_current;
    debug!(target: "cluster", cid = %args.cid, n_current, needed, wanted, "allocating");

    if wanted < 0 {
        let n_kept = usize::try_from(max).unwrap_or(0);
        return Ok(groups.current.into_iter().take(n_kept).collect());
    }
    if needed <= 0 {
        return Ok(args.current.to_vec());
    }
    let available: Vec<PeerId> = groups.preferred.iter().chain(&groups.candidates).copied().collect();
    if i64::try_from(available.len()).unwrap_or(i64::MAX) < needed {
        return Err(not_enough(args.cid, needed, wanted, &available));
    }
    let mut ordered = order(args.metrics, &groups.preferred);
    ordered.extend(order(args.metrics, &groups.candidates));
    if i64::try_from(ordered.len()).unwrap_or(i64::MAX) < needed {
        return Err(not_enough(args.cid, needed, wanted, &ordered));
    }
    let n_new = usize::try_from(wanted).unwrap_or(0).min(ordered.len());
    Ok(groups.current.into_iter().chain(ordered.into_iter().take(n_new)).collect())
}

/// Go: `allocate.go`, `allocationError`.
fn not_enough(cid: &Cid, needed: i64, wanted: i64, available: &[PeerId]) -> Error {
    error!(target: "cluster", "Not enough candidates to allocate {cid}:");
    error!(target: "cluster", "  Needed: {needed}");
    error!(target: "cluster", "  Wanted: {wanted}");
    error!(target: "cluster", "  Available candidates: {}:", available.len());
    for peer in available {
        error!(target: "cluster", "    - {peer}");
    }
    Error::NotEnough { needed, wanted, available: available.len() }
}

/// Peers that have every metric, by what they are to this CID. A peer without one of them does not exist here.
struct Groups {
    current: BTreeSet<PeerId>,
    preferred: BTreeSet<PeerId>,
    candidates: BTreeSet<PeerId>,
}

impl Groups {
    fn of(args: &AllocateArgs<'_>) -> Self {
        let mut n_metrics: BTreeMap<PeerId, usize> = BTreeMap::new();
        for metric in args.metrics.iter().flat_map(|(_, metrics)| metrics) {
            if let Some(peer) = metric.peer {
                *n_metrics.entry(peer).or_default() += 1;
            }
        }
        let mut groups =
            Self { current: BTreeSet::new(), preferred: BTreeSet::new(), candidates: BTreeSet::new() };
        for (peer, n) in n_metrics {
            if n != args.metrics.len() || args.blacklist.contains(&peer) || !(args.is_eligible)(&peer) {
                continue;
            }
            if args.current.contains(&peer) {
                groups.current.insert(peer);
            } else if args.preferred.contains(&peer) {
                groups.preferred.insert(peer);
            } else {
                groups.candidates.insert(peer);
            }
        }
        groups
    }
}

/// The `balanced` order of `peers`: consecutive ones come from different partitions while there are any.
fn order(metrics: &[(String, Vec<Metric>)], peers: &BTreeSet<PeerId>) -> Vec<PeerId> {
    let Some(mut root) = Level::build(metrics, peers) else { return Vec::new() };
    std::iter::from_fn(|| root.draw()).collect()
}

/// The partitions of some peers by one metric, and where the next draw looks first.
struct Level {
    partitions: Vec<Partition>,
    next: usize,
}

struct Partition {
    value: String,
    weight: i64,
    /// Weight of the partitions below, itself included where there are none.
    aggregate: i64,
    inside: Inside,
}

enum Inside {
    /// The peers left, last first.
    Peers(Vec<PeerId>),
    Level(Level),
}

impl Level {
    /// `None` without a metric to partition by.
    fn build(metrics: &[(String, Vec<Metric>)], peers: &BTreeSet<PeerId>) -> Option<Self> {
        let ((_, samples), deeper) = metrics.split_first()?;
        let mut groups: Vec<(String, i64, BTreeSet<PeerId>)> = Vec::new();
        let mut by_value: BTreeMap<&str, usize> = BTreeMap::new();
        for metric in samples {
            let Some(peer) = metric.peer.filter(|peer| peers.contains(peer)) else { continue };
            // without the flag, peers with equal values stay apart: three with 100 must not outweigh one with 200
            let known = metric.partitionable.then(|| by_value.get(metric.value.as_str()).copied()).flatten();
            if let Some(group) = known.and_then(|i| groups.get_mut(i)) {
                group.1 = group.1.saturating_add(metric.weight);
                group.2.insert(peer);
                continue;
            }
            if metric.partitionable {
                by_value.insert(&metric.value, groups.len());
            }
            groups.push((metric.value.clone(), metric.weight, BTreeSet::from([peer])));
        }
        let mut partitions: Vec<(PeerId, Partition)> = groups
            .into_iter()
            .filter_map(|(value, weight, peers)| {
                let first = *peers.first()?;
                let (aggregate, inside) = match Self::build(deeper, &peers) {
                    Some(level) => {
                        let below =
                            level.partitions.iter().fold(0_i64, |sum, p| sum.saturating_add(p.aggregate));
                        (weight.saturating_add(below), Inside::Level(level))
                    }
                    None => (weight, Inside::Peers(peers.into_iter().rev().collect())),
                };
                Some((first, Partition { value, weight, aggregate, inside }))
            })
            .collect();
        partitions.sort_by(|(first_a, a), (first_b, b)| {
            (b.weight.cmp(&a.weight))
                .then(b.aggregate.cmp(&a.aggregate))
                .then_with(|| a.value.as_bytes().cmp(b.value.as_bytes()))
                .then(first_a.cmp(first_b))
        });
        Some(Self { partitions: partitions.into_iter().map(|(_, partition)| partition).collect(), next: 0 })
    }

    /// The next peer; `None` when there are no more.
    fn draw(&mut self) -> Option<PeerId> {
        let n_partitions = self.partitions.len();
        for _ in 0..n_partitions {
            let partition = self.partitions.get_mut(self.next)?;
            self.next = (self.next + 1) % n_partitions;
            let peer = match &mut partition.inside {
                Inside::Peers(peers) => peers.pop(),
                Inside::Level(level) => level.draw(),
            };
            if peer.is_some() {
                return peer;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Peer ids in ascending order of their bytes: `peer(1) < peer(2)`.
    fn peer(n: u8) -> PeerId {
        let multihash = multihash::Multihash::<64>::wrap(0x12, &[n; 32]).unwrap();
        PeerId::from_multihash(multihash).unwrap()
    }

    fn metric(name: &str, n: u8, value: &str, weight: i64, partitionable: bool) -> Metric {
        Metric {
            name: name.into(),
            peer: Some(peer(n)),
            value: value.into(),
            expire: i64::MAX,
            valid: true,
            weight,
            partitionable,
            received_at: 0,
        }
    }

    fn freespace(free: &[(u8, i64)]) -> (String, Vec<Metric>) {
        let metrics = free.iter().map(|(n, w)| metric("freespace", *n, &w.to_string(), *w, false)).collect();
        ("freespace".into(), metrics)
    }

    fn groups(tags: &[(u8, &str)]) -> (String, Vec<Metric>) {
        ("tag:group".into(), tags.iter().map(|(n, tag)| metric("tag:group", *n, tag, 0, true)).collect())
    }

    #[derive(Default)]
    struct Ask {
        min: i64,
        max: i64,
        current: Vec<u8>,
        blacklist: Vec<u8>,
        preferred: Vec<u8>,
        metrics: Vec<(String, Vec<Metric>)>,
        ineligible: Vec<u8>,
    }

    fn peers(list: &[u8]) -> Vec<PeerId> {
        list.iter().map(|n| peer(*n)).collect()
    }

    fn answer(ask: &Ask) -> Result<Vec<u8>, String> {
        let cid = Cid::default();
        let (current, blacklist, preferred) =
            (peers(&ask.current), peers(&ask.blacklist), peers(&ask.preferred));
        let ineligible = peers(&ask.ineligible);
        let answer = allocate(&AllocateArgs {
            cid: &cid,
            min: ask.min,
            max: ask.max,
            current: &current,
            blacklist: &blacklist,
            preferred: &preferred,
            metrics: &ask.metrics,
            is_eligible: &|peer| !ineligible.contains(peer),
        });
        let number = |chosen: PeerId| (0..=255).find(|n| peer(*n) == chosen).unwrap();
        answer.map(|chosen| chosen.into_iter().map(number).collect()).map_err(|e| e.to_string())
    }

    #[track_caller]
    fn check(ask: &Ask, expected: &[u8]) {
        assert_eq!(answer(ask).as_deref(), Ok(expected));
    }

    fn equal_peers(n: u8) -> Vec<(String, Vec<Metric>)> {
        vec![freespace(&(1..=n).map(|n| (n, 100)).collect::<Vec<_>>())]
    }

    #[test]
    fn peers_are_drawn_in_turn_from_nested_partitions() {
        let regions =
            [(1, "a-us"), (2, "a-us"), (3, "b-eu"), (4, "b-eu"), (5, "b-eu"), (6, "c-au"), (7, "c-au")];
        let zones = [(1, "us1"), (2, "us2"), (3, "eu1"), (4, "eu1"), (5, "eu2"), (6, "au1"), (7, "au1")];
        let free = [(1, 100), (2, 500), (3, 200), (4, 400), (5, 10), (6, 50), (7, 600)];
        let pinqueue = |n| if n == 7 { ("1", -1) } else { ("0", 0) };
        let metrics = vec![
            ("region".into(), regions.map(|(n, v)| metric("region", n, v, 0, true)).to_vec()),
            ("az".into(), zones.map(|(n, v)| metric("az", n, v, 0, true)).to_vec()),
            (
                "pinqueue".into(),
                (1..=7).map(|n| metric("pinqueue", n, pinqueue(n).0, pinqueue(n).1, true)).collect(),
            ),
            freespace(&free),
        ];
        check(&Ask { min: 7, max: 7, metrics, ..Ask::default() }, &[6, 4, 2, 7, 5, 1, 3]);
    }

    #[test]
    fn allocation_reaches_for_max_and_is_content_with_min() {
        check(&Ask { min: 1, max: 3, metrics: equal_peers(5), ..Ask::default() }, &[1, 2, 3]);
        check(&Ask { min: 1, max: 5, metrics: equal_peers(3), ..Ask::default() }, &[1, 2, 3]);
    }

    #[test]
    fn too_few_peers_are_an_error_that_names_the_numbers() {
        let error = answer(&Ask { min: 4, max: 4, metrics: equal_peers(3), ..Ask::default() });
        let text = "not enough peers to allocate CID. Needed at least: 4. Wanted at most: 4. Available candidates: \
                    3. See logs for more info.";
        assert_eq!(error, Err(text.into()));
        let error = answer(&Ask { metrics: equal_peers(3), ..Ask::default() });
        assert_eq!(error, Err("bad replication factors: 0/0".into()));
    }

    #[test]
    fn lowering_max_trims_the_current_peers() {
        let ask =
            Ask { min: 1, max: 2, current: vec![5, 4, 3, 2, 1], metrics: equal_peers(5), ..Ask::default() };
        check(&ask, &[1, 2]);
    }

    #[test]
    fn healthy_peers_at_min_keep_the_list_as_it_is_with_its_dead_peers() {
        let ask = Ask { min: 2, max: 3, current: vec![9, 2, 1], metrics: equal_peers(5), ..Ask::default() };
        check(&ask, &[9, 2, 1]);
        check(&Ask { preferred: vec![4, 5], ..ask }, &[9, 2, 1]);
    }

    #[test]
    fn below_min_dead_and_blacklisted_peers_are_replaced() {
        let ask = Ask {
            min: 3,
            max: 3,
            current: vec![9, 2, 1],
            blacklist: vec![9],
            metrics: equal_peers(5),
            ..Ask::default()
        };
        check(&ask, &[1, 2, 3]);
        check(&Ask { blacklist: vec![1, 3], ..ask }, &[2, 4, 5]);
    }

    #[test]
    fn preferred_peers_come_first_and_are_topped_up() {
        let ask = Ask { min: 1, max: 3, preferred: vec![5, 4], metrics: equal_peers(5), ..Ask::default() };
        check(&ask, &[4, 5, 1]);
        check(&Ask { max: 1, ..ask }, &[4]);
    }

    #[test]
    fn a_peer_that_lacks_a_metric_does_not_exist() {
        let metrics =
            vec![groups(&[(1, "default"), (2, "default"), (3, "default")]), freespace(&[(1, 10), (3, 20)])];
        check(
            &Ask { min: 1, max: 3, preferred: vec![2], metrics: metrics.clone(), ..Ask::default() },
            &[3, 1],
        );
        let error =
            answer(&Ask { min: 2, max: 2, current: vec![2], ineligible: vec![3], metrics, ..Ask::default() });
        assert!(error.is_err_and(|text| {
            text.contains("Needed at least: 2. Wanted at most: 2. Available candidates: 1.")
        }));
    }

    #[test]
    fn each_group_gives_one_peer_before_any_gives_two() {
        let metrics = vec![
            groups(&[(1, "a"), (2, "a"), (3, "b"), (4, "b")]),
            freespace(&[(1, 400), (2, 300), (3, 10), (4, 20)]),
        ];
        check(&Ask { min: 2, max: 2, metrics, ..Ask::default() }, &[1, 4]);
    }

    #[test]
    fn equal_free_space_does_not_add_up() {
        let metrics = vec![freespace(&[(1, 100), (2, 100), (3, 100), (4, 200)])];
        check(&Ask { min: 1, max: 1, metrics, ..Ask::default() }, &[4]);
    }

    #[test]
    fn everywhere_is_an_empty_list() {
        check(&Ask { min: -1, max: -1, current: vec![1], metrics: equal_peers(3), ..Ask::default() }, &[]);
    }
}
