//! Times and durations as Go prints, parses and adds them.

use std::cmp::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds from 0001-01-01T00:00:00Z to 1970-01-01T00:00:00Z.
const ZERO_SECS: i64 = -62_135_596_800;

/// An instant with the offset it is printed in: Go's `time.Time` as JSON shows it. The default is Go's
/// zero time, 0001-01-01T00:00:00Z. Times compare as instants, whatever their offset.
#[derive(Debug, Clone, Copy)]
pub struct Time {
    secs: i64,
    nanos: u32,
    offset_secs: i32,
}

impl Time {
    /// Go's zero time: "not set".
    pub const ZERO: Self = Self { secs: ZERO_SECS, nanos: 0, offset_secs: 0 };

    /// The present, printed in the process's local time zone.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_unix(since.as_secs() as i64, since.subsec_nanos()).local()
    }

    /// Seconds and nanoseconds since 1970, printed in UTC. `nanos` is below 1,000,000,000.
    pub const fn from_unix(secs: i64, nanos: u32) -> Self {
        Self { secs, nanos, offset_secs: 0 }
    }

    /// Nanoseconds since 1970, printed in UTC.
    pub const fn from_unix_nanos(nanos: i64) -> Self {
        Self::from_unix(nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000) as u32)
    }

    /// Seconds since 1970, rounded down.
    pub const fn unix(self) -> i64 {
        self.secs
    }

    /// Nanoseconds since 1970, saturating.
    pub fn unix_nanos(self) -> i64 {
        self.secs.saturating_mul(1_000_000_000).saturating_add(i64::from(self.nanos))
    }

    /// Nanoseconds within the second.
    pub const fn subsec_nanos(self) -> u32 {
        self.nanos
    }

    /// Whether this is [`Time::ZERO`].
    pub const fn is_zero(self) -> bool {
        self.secs == ZERO_SECS && self.nanos == 0
    }

    /// The same instant, printed with another offset (seconds east of UTC).
    pub const fn with_offset(self, offset_secs: i32) -> Self {
        Self { offset_secs, ..self }
    }

    /// The offset it is printed with, in seconds east of UTC.
    pub const fn offset_secs(self) -> i32 {
        self.offset_secs
    }

    /// The same instant without its fraction of a second.
    pub const fn truncate_to_secs(self) -> Self {
        Self { nanos: 0, ..self }
    }

    /// The instant `span` later (earlier if negative), printed with the same offset; saturates.
    pub fn add(self, span: Duration) -> Self {
        let total = i128::from(self.secs) * 1_000_000_000 + i128::from(self.nanos) + i128::from(span.0);
        let secs = total.div_euclid(1_000_000_000);
        let secs = i64::try_from(secs).unwrap_or(if secs < 0 { i64::MIN } else { i64::MAX });
        Self { secs, nanos: total.rem_euclid(1_000_000_000) as u32, offset_secs: self.offset_secs }
    }

    /// The same instant, printed in the process's local time zone.
    pub fn local(self) -> Self {
        let offset = jiff::Timestamp::new(self.secs, 0)
            .map(|instant| jiff::tz::TimeZone::system().to_offset(instant).seconds())
            .unwrap_or(0);
        self.with_offset(offset)
    }
}

impl Default for Time {
    fn default() -> Self {
        Self::ZERO
    }
}

impl PartialEq for Time {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Time {}

impl PartialOrd for Time {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Time {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.secs, self.nanos).cmp(&(other.secs, other.nanos))
    }
}

/// A span in nanoseconds, signed: Go's `time.Duration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(
    /// Nanoseconds.
    pub i64,
);

impl Duration {
    /// Whole seconds.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs * 1_000_000_000)
    }

    /// As a standard duration; negative spans are zero.
    pub fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }
}
