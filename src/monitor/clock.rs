//! Whose clock is off, as far as pings tell: they run out by the clock of their sender (spec: wire 3.3).
//!
//! A peer pings every interval, and each ping is good for two. The interval shows in how their expiries follow each
//! other, which no offset changes; what is left between expiry and arrival beyond two intervals is the offset.

use std::collections::VecDeque;

use cluster_compat::go::time::Duration;

/// Pings that must agree. A peer that joins sends some out of turn; a lost one stretches the interval.
const N_PINGS: usize = 4;

/// How much longer than the shortest an interval may be, for one to be a measure.
const MAX_STRETCH: i64 = 3;

/// An offset below this harms nothing, whatever the interval.
const MIN_OFFSET: i64 = 10_000_000_000;

/// How soon the same is told again.
const TELL_EVERY: i64 = 3_600_000_000_000;

/// What to tell of a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is ahead of ours by so much, or behind when negative.
    Off(Duration),
    /// It was off, and is no more.
    Right,
}

/// The clock of one peer: arrival and expiry of its last pings, in Unix nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Clock {
    pings: VecDeque<(i64, i64)>,
    told_at: Option<i64>,
}

impl Clock {
    /// A ping that arrived at `now`; the verdict, when it is news.
    pub(super) fn on_ping(&mut self, now: i64, expire: i64) -> Option<Verdict> {
        if self.pings.len() == N_PINGS {
            self.pings.pop_front();
        }
        self.pings.push_back((now, expire));
        let offset = self.offset()?;
        if offset == 0 {
            return self.told_at.take().map(|_| Verdict::Right);
        }
        if self.told_at.is_some_and(|told| now.saturating_sub(told) < TELL_EVERY) {
            return None;
        }
        self.told_at = Some(now);
        Some(Verdict::Off(Duration(offset)))
    }

    /// Zero for a clock that is right enough; `None` as long as that is not clear.
    fn offset(&self) -> Option<i64> {
        let ((first_now, first_expire), (last_now, last_expire)) = (self.pings.front()?, self.pings.back()?);
        let (arrived, sent) =
            (last_now.saturating_sub(*first_now), last_expire.saturating_sub(*first_expire));
        // pings that had waited somewhere come all at once, and old
        if self.pings.len() < N_PINGS || sent <= 0 || arrived.saturating_mul(2) < sent {
            return None;
        }
        let pairs = self.pings.iter().zip(self.pings.iter().skip(1));
        let intervals = pairs.map(|(a, b)| b.1.saturating_sub(a.1));
        let (shortest, longest) = (intervals.clone().min()?, intervals.max()?);
        if shortest.saturating_mul(MAX_STRETCH) < longest {
            return None;
        }
        let lifetime = longest.saturating_mul(2);
        let offsets =
            self.pings.iter().map(|(now, expire)| expire.saturating_sub(*now).saturating_sub(lifetime));
        // a lost ping doubles the lifetime
        let tolerance = lifetime.max(MIN_OFFSET);
        let smallest = offsets.clone().min_by_key(|offset| offset.saturating_abs())?;
        let is_one_sided = offsets.clone().all(|offset| (offset < 0) == (smallest < 0));
        match smallest.saturating_abs() > tolerance {
            true if is_one_sided => Some(smallest),
            true => None,
            false => Some(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const HOUR: i64 = 3600;

    /// Verdicts in seconds over pings, each given as its arrival and the sender's time.
    fn verdicts(clock: &mut Clock, pings: impl IntoIterator<Item = (i64, i64)>) -> Vec<(i64, i64)> {
        let heard =
            pings.into_iter().map(|(now, sent)| (now, clock.on_ping(now * SECOND, (sent + 30) * SECOND)));
        heard
            .filter_map(|(now, verdict)| match verdict? {
                Verdict::Off(offset) => Some((now, offset.0 / SECOND)),
                Verdict::Right => Some((now, 0)),
            })
            .collect()
    }

    fn every_15(until: i64, offset: i64) -> impl Iterator<Item = (i64, i64)> {
        (0..until).step_by(15).map(move |now| (now, now + offset))
    }

    #[test]
    fn a_clock_that_is_off_is_told_once_an_hour_with_its_offset() {
        for offset in [HOUR, -HOUR, 100, -100] {
            let told = verdicts(&mut Clock::default(), every_15(2 * HOUR, offset));
            assert_eq!(told, [(45, offset), (45 + HOUR, offset)]);
        }
    }

    #[test]
    fn a_clock_that_is_set_right_is_told_once() {
        let mut clock = Clock::default();
        assert_eq!(verdicts(&mut clock, every_15(60, -HOUR)), [(45, -HOUR)]);
        let right = (100..400).step_by(15).map(|now| (now, now));
        let told = verdicts(&mut clock, right);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].1, 0);
    }

    #[test]
    fn lost_late_and_additional_pings_and_small_offsets_are_no_fault_of_a_clock() {
        for offset in [0, 20, -20] {
            assert_eq!(verdicts(&mut Clock::default(), every_15(HOUR, offset)), []);
        }
        // a few at once while it joins
        let joining =
            [(0, 0), (0, 0), (1, 1), (1, 1)].into_iter().chain((16..100).step_by(15).map(|now| (now, now)));
        assert_eq!(verdicts(&mut Clock::default(), joining), []);
        // three of four lost
        assert_eq!(verdicts(&mut Clock::default(), every_15(HOUR, 0).filter(|(now, _)| now % 60 == 0)), []);
        // held up for an hour, then all at once
        let late = (0..HOUR)
            .step_by(15)
            .map(|sent| (HOUR, sent))
            .chain((HOUR..2 * HOUR).step_by(15).map(|now| (now, now)));
        assert_eq!(verdicts(&mut Clock::default(), late), []);
        // expiries that make no sense
        for expire in [i64::MIN, i64::MAX, 0] {
            let mut clock = Clock::default();
            for now in 0..10 {
                let _ = clock.on_ping(now, expire);
                let _ = clock.on_ping(now, i64::MAX - expire.max(0));
            }
        }
    }
}
