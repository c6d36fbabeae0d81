//! The newest of many, and lists that wait for their next page.
//!
//! A list of pins has an order that nobody keeps, so a page is found by looking at all of them. What is found beside the
//! page, places and CIDs alone, waits a moment for the client to come back: the next pages then need no further look at
//! all pins, but only at those they show. Nothing depends on it: a page whose list is not there is found anew.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::convert::MILLISECOND;
use super::types::Filters;
use crate::go::time::Time;
use crate::types::Cid;

/// Pins that are remembered behind a page, a hundred bytes each.
pub(super) const N_REMEMBERED: usize = 16_384;

/// Lists that may wait; the one that has waited longest goes first.
const N_LISTS: usize = 16;

/// How long a list waits for the next page.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a pin stands in a list: newer ones are greater, the CID decides between equals.
pub(super) type Place = (Time, Cid);

/// The `limit` greatest of what is pushed; it never holds more than twice as many.
pub(super) struct Newest<K, T> {
    limit: usize,
    items: Vec<(K, T)>,
    /// What is not above it is not among them.
    floor: Option<K>,
}

impl<K: Ord + Copy, T> Newest<K, T> {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, items: Vec::new(), floor: None }
    }

    /// Whether something at `key` may be among them.
    pub(super) fn wants(&self, key: K) -> bool {
        self.limit > 0 && self.floor.is_none_or(|floor| key > floor)
    }

    pub(super) fn push(&mut self, key: K, item: T) {
        if !self.wants(key) {
            return;
        }
        self.items.push((key, item));
        if self.items.len() >= self.limit.saturating_mul(2) {
            self.prune();
        }
    }

    /// All of them, the greatest first.
    pub(super) fn into_sorted(mut self) -> Vec<(K, T)> {
        self.prune();
        self.items.sort_unstable_by_key(|(key, _)| Reverse(*key));
        self.items
    }

    fn prune(&mut self) {
        if self.limit == 0 || self.items.len() <= self.limit {
            return;
        }
        let (_, least, _) = self.items.select_nth_unstable_by_key(self.limit - 1, |(key, _)| Reverse(*key));
        self.floor = Some(least.0);
        self.items.truncate(self.limit);
    }
}

/// A list whose next page is to come.
#[derive(Debug)]
pub(super) struct List {
    /// What it shows.
    pub(super) filters: Filters,
    /// The `created` of the last pin of the page before.
    pub(super) boundary: Time,
    /// The next ones, as many as are remembered.
    pub(super) next: VecDeque<Place>,
    /// Matches behind the boundary, remembered or not.
    pub(super) n_left: u64,
}

impl List {
    /// Whether `before` is its boundary, maybe as a client has it that keeps thousandths or millionths of a second.
    fn goes_on_at(&self, before: Time) -> bool {
        let cut = |unit: u32| {
            let nanos = self.boundary.subsec_nanos();
            Time::from_unix(self.boundary.unix(), nanos - nanos % unit)
        };
        before == self.boundary || before == cut(1000) || before == cut(MILLISECOND)
    }
}

/// Lists that wait for their next page.
#[derive(Default)]
pub(super) struct Lists {
    /// The longest waiting first. Each page of a list takes it and puts it back; no await happens inside.
    waiting: Mutex<VecDeque<(Instant, List)>>,
}

impl Lists {
    /// The list that goes on at `before`. It is taken: who asks for the same page again gets a new one.
    pub(super) fn take(&self, filters: &Filters, before: Time, now: Instant) -> Option<List> {
        if before.is_zero() {
            return None;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|(since, _)| now.duration_since(*since) < PATIENCE);
        let at = waiting.iter().rposition(|(_, list)| list.filters == *filters && list.goes_on_at(before))?;
        waiting.remove(at).map(|(_, list)| list)
    }

    /// Lets a list wait.
    pub(super) fn put(&self, list: List, now: Instant) {
        if list.next.is_empty() {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= N_LISTS {
            waiting.pop_front();
        }
        waiting.push_back((now, list));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go::query::Query;
    use crate::pinsvc::types::ListOptions;
    use crate::types::parse_cid;

    fn filters(query: &str) -> Filters {
        ListOptions::from_query(&Query::parse(query))
            .map(|options| options.filters)
            .unwrap_or_else(|e| panic!("{e}"))
    }

    fn list(query: &str, boundary: Time) -> List {
        let cid =
            parse_cid("QmP63DkAFEnDYNjDYBpyNDfttu1fvUw99x1brscPzpqmmq").unwrap_or_else(|e| panic!("{e}"));
        List { filters: filters(query), boundary, next: [(Time::ZERO, cid)].into(), n_left: 1 }
    }

    #[test]
    fn the_newest_of_many_are_kept_in_bounded_memory() {
        for limit in [0, 1, 7, 1000] {
            let mut newest = Newest::new(limit);
            for n in 0..500_u64 {
                newest.push(n.wrapping_mul(7919) % 500, n);
                assert!(newest.items.len() <= limit * 2);
            }
            let expected: Vec<u64> = (0..500).rev().take(limit).collect();
            let keys: Vec<u64> = newest.into_sorted().into_iter().map(|(key, _)| key).collect();
            assert_eq!(keys, expected);
        }
    }

    #[test]
    fn a_list_goes_on_where_its_page_ended_and_only_once() {
        let lists = Lists::default();
        let now = Instant::now();
        let boundary = Time::from_unix(100, 123_456_789);
        for (before, is_there) in [
            (boundary, true),
            (Time::from_unix(100, 123_456_000), true),
            (Time::from_unix(100, 123_000_000), true),
            (Time::from_unix(100, 0), false),
            (Time::from_unix(100, 123_456_790), false),
            (Time::ZERO, false),
        ] {
            lists.put(list("status=pinned", boundary), now);
            assert!(lists.take(&filters("status=failed"), before, now).is_none());
            assert_eq!(lists.take(&filters("status=pinned"), before, now).is_some(), is_there, "{before}");
            while lists.take(&filters("status=pinned"), boundary, now).is_some() {}
        }
    }

    #[test]
    fn few_lists_wait_and_not_for_ever() {
        let lists = Lists::default();
        let now = Instant::now();
        for n in 0..40 {
            lists.put(list("", Time::from_unix(n, 5_000_000)), now);
        }
        assert_eq!(lists.waiting.lock().map(|waiting| waiting.len()).unwrap_or(0), N_LISTS);
        assert!(lists.take(&filters(""), Time::from_unix(0, 5_000_000), now).is_none());
        assert!(lists.take(&filters(""), Time::from_unix(39, 5_000_000), now + PATIENCE).is_none());
    }
}
