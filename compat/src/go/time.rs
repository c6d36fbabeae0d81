//! Times and durations as Go prints, parses and adds them.
//!
//! The local zone is read once per process, as Go does it. Each thread remembers the span of time around its
//! last lookup in which the offset does not change, so printing a million stored times asks the zone about
//! as often as the clock was changed between them.

use std::cell::Cell;
use std::cmp::Ordering;
use std::fmt::{self, Write as _};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use super::duration::Duration;

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
    #[allow(clippy::should_implement_trait, reason = "an operator would hide that it saturates")]
    pub fn add(self, span: Duration) -> Self {
        let total = i128::from(self.secs) * 1_000_000_000 + i128::from(self.nanos) + i128::from(span.0);
        let secs = total.div_euclid(1_000_000_000);
        let secs = i64::try_from(secs).unwrap_or(if secs < 0 { i64::MIN } else { i64::MAX });
        Self { secs, nanos: total.rem_euclid(1_000_000_000) as u32, offset_secs: self.offset_secs }
    }

    /// The same instant, printed in the process's local time zone.
    pub fn local(self) -> Self {
        self.with_offset(local_offset(self.secs))
    }

    /// Reads RFC 3339 with the tolerance of Go's `time.Parse`: one-digit hours and a comma before the fraction.
    /// The error is Go's text.
    pub fn parse_rfc3339(text: &str) -> Result<Self, String> {
        Parser { whole: text, rest: text }.parse()
    }

    /// Appends the text of the time.
    pub(crate) fn write_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.text().as_str().as_bytes());
    }

    /// The text of the time without allocation: RFC 3339 with nanoseconds.
    fn text(self) -> TimeText {
        // years beyond what seconds can count are as far away as those at the end
        let local = self.secs.saturating_add(i64::from(self.offset_secs));
        let days = local.div_euclid(86_400);
        let second = local.rem_euclid(86_400) as u32;
        let (year, month, day) = civil_from_days(days);
        let mut out = TimeText { bytes: [0; 64], len: 0 };
        if (0..10_000).contains(&year) {
            out.digits(year as u32, 4);
        } else {
            // writing to the fixed buffer cannot fail: the longest year has 16 characters
            let _ = write!(out, "{year:04}");
        }
        out.push(b'-');
        out.digits(month, 2);
        out.push(b'-');
        out.digits(day, 2);
        out.push(b'T');
        out.digits(second / 3600, 2);
        out.push(b':');
        out.digits(second / 60 % 60, 2);
        out.push(b':');
        out.digits(second % 60, 2);
        if self.nanos != 0 {
            let (mut fraction, mut width) = (self.nanos, 9);
            while fraction % 10 == 0 {
                fraction /= 10;
                width -= 1;
            }
            out.push(b'.');
            out.digits(fraction, width);
        }
        // Go prints whole minutes
        let minutes = self.offset_secs / 60;
        if minutes == 0 {
            // an offset below a minute still is not UTC
            out.extend(if self.offset_secs == 0 { b"Z" } else { b"+00:00" });
        } else {
            out.push(if minutes < 0 { b'-' } else { b'+' });
            out.digits(minutes.unsigned_abs() / 60, 2);
            out.push(b':');
            out.digits(minutes.unsigned_abs() % 60, 2);
        }
        out
    }
}

/// RFC 3339 with nanoseconds, trailing zeros of the fraction left out.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text().as_str())
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text().as_str())
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse_rfc3339(&text).map_err(serde::de::Error::custom)
    }
}

/// A printed time; the longest is an impossible year with nanoseconds and an offset.
struct TimeText {
    bytes: [u8; 64],
    len: usize,
}

impl TimeText {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }

    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.push(*byte));
    }

    fn digits(&mut self, mut value: u32, width: usize) {
        let end = (self.len + width).min(self.bytes.len());
        for slot in self.bytes[self.len..end].iter_mut().rev() {
            *slot = b'0' + (value % 10) as u8;
            value /= 10;
        }
        self.len = end;
    }
}

impl fmt::Write for TimeText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.extend(text.as_bytes());
        Ok(())
    }
}

/// Year, month and day of a day number counted from 1970-01-01.
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    // eras of 400 years that begin on 1 March, so that the leap day is the last of its year
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097) as u32;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = i64::from(year_of_era) + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// The inverse of [`civil_from_days`].
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = i64::from((153 * shifted_month + 2) / 5 + day - 1);
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn days_in(month: u32, year: i64) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// A span of seconds since 1970 with one offset.
#[derive(Clone, Copy)]
struct ZoneSpan {
    from: i64,
    until: i64,
    offset_secs: i32,
}

/// The offset of the process's zone at an instant.
fn local_offset(secs: i64) -> i32 {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    thread_local! {
        static LAST: Cell<ZoneSpan> = const { Cell::new(ZoneSpan { from: 0, until: 0, offset_secs: 0 }) };
    }
    let last = LAST.get();
    if (last.from..last.until).contains(&secs) {
        return last.offset_secs;
    }
    let span = zone_span(ZONE.get_or_init(TimeZone::system), secs);
    LAST.set(span);
    span.offset_secs
}

/// The offset at an instant and how far around it the same offset holds.
fn zone_span(zone: &TimeZone, secs: i64) -> ZoneSpan {
    let Ok(instant) = Timestamp::new(secs, 0) else {
        // years beyond 9999 print in UTC; no zone knows them
        return ZoneSpan { from: secs, until: secs, offset_secs: 0 };
    };
    let offset_secs = zone.to_offset(instant).seconds();
    // `preceding` looks strictly before its argument, so a change at this very second is found from the next one
    let next = Timestamp::new(secs.saturating_add(1), 0).unwrap_or(instant);
    let from = zone.preceding(next).next().map_or(Timestamp::MIN, |change| change.timestamp());
    let until = zone.following(instant).next().map_or(Timestamp::MAX, |change| change.timestamp());
    ZoneSpan { from: from.as_second(), until: until.as_second(), offset_secs }
}

/// Reads a time the way Go's layout `2006-01-02T15:04:05Z07:00` does, to fail where and how it fails.
struct Parser<'a> {
    whole: &'a str,
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn parse(mut self) -> Result<Time, String> {
        let year = self.year()?;
        self.literal("-")?;
        let month = self.number("01", true)?;
        if !(1..=12).contains(&month) {
            return Err(self.out_of_range("month"));
        }
        self.literal("-")?;
        let day = self.number("02", true)?;
        self.literal("T")?;
        let hour = self.number("15", false)?;
        if hour > 23 {
            return Err(self.out_of_range("hour"));
        }
        self.literal(":")?;
        let minute = self.number("04", true)?;
        if minute > 59 {
            return Err(self.out_of_range("minute"));
        }
        self.literal(":")?;
        let second = self.number("05", true)?;
        if second > 59 {
            return Err(self.out_of_range("second"));
        }
        let nanos = self.fraction();
        let offset_secs = self.zone()?;
        if !self.rest.is_empty() {
            return Err(format!("parsing time {}: extra text: {}", quote(self.whole), quote(self.rest)));
        }
        if day < 1 || day > days_in(month, year) {
            return Err(self.out_of_range("day"));
        }
        let secs = days_from_civil(year, month, day) * 86_400 + i64::from(hour * 3600 + minute * 60 + second);
        Ok(Time { secs: secs - i64::from(offset_secs), nanos, offset_secs })
    }

    fn digit(&self, at: usize) -> Option<u32> {
        self.rest.as_bytes().get(at).filter(|b| b.is_ascii_digit()).map(|b| u32::from(b - b'0'))
    }

    fn year(&mut self) -> Result<i64, String> {
        let bytes = self.rest.as_bytes();
        match bytes.get(..4) {
            Some(digits) if digits.iter().all(u8::is_ascii_digit) => {
                self.rest = &self.rest[4..];
                Ok(digits.iter().fold(0, |year, b| year * 10 + i64::from(b - b'0')))
            }
            _ => Err(self.cannot_parse(self.rest, "2006")),
        }
    }

    fn literal(&mut self, literal: &str) -> Result<(), String> {
        match self.rest.strip_prefix(literal) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None => Err(self.cannot_parse(self.rest, literal)),
        }
    }

    /// A number of two digits, or of one where `fixed` does not forbid it.
    fn number(&mut self, layout: &str, fixed: bool) -> Result<u32, String> {
        match (self.digit(0), self.digit(1)) {
            (Some(tens), Some(ones)) => {
                self.rest = &self.rest[2..];
                Ok(tens * 10 + ones)
            }
            (Some(ones), None) if !fixed => {
                self.rest = &self.rest[1..];
                Ok(ones)
            }
            _ => Err(self.cannot_parse(self.rest, layout)),
        }
    }

    /// Nanoseconds after a point or comma; digits beyond the ninth are ignored.
    fn fraction(&mut self) -> u32 {
        if !self.rest.starts_with(['.', ',']) || self.digit(1).is_none() {
            return 0;
        }
        let digits = self.rest.as_bytes()[1..].iter().take_while(|b| b.is_ascii_digit()).count();
        let nanos =
            (0..9).fold(0, |nanos, i| nanos * 10 + self.digit(1 + i).filter(|_| i < digits).unwrap_or(0));
        self.rest = &self.rest[1 + digits..];
        nanos
    }

    fn zone(&mut self) -> Result<i32, String> {
        const LAYOUT: &str = "Z07:00";
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let hold = self.rest;
        let pair = |at: usize| Some(self.digit(at)? * 10 + self.digit(at + 1)?);
        let bytes = hold.as_bytes();
        let (Some(hours), Some(b':'), Some(minutes)) = (pair(1), bytes.get(3), pair(4)) else {
            return Err(self.cannot_parse(hold, LAYOUT));
        };
        self.rest = &hold[6..];
        if hours > 24 {
            return Err(self.out_of_range("time zone offset hour"));
        }
        if minutes > 60 {
            return Err(self.out_of_range("time zone offset minute"));
        }
        let offset = ((hours * 60 + minutes) * 60) as i32;
        match bytes[0] {
            b'+' => Ok(offset),
            b'-' => Ok(-offset),
            _ => Err(self.cannot_parse(hold, LAYOUT)),
        }
    }

    fn cannot_parse(&self, rest: &str, layout: &str) -> String {
        format!(
            "parsing time {} as \"2006-01-02T15:04:05Z07:00\": cannot parse {} as {}",
            quote(self.whole),
            quote(rest),
            quote(layout)
        )
    }

    fn out_of_range(&self, what: &str) -> String {
        format!("parsing time {}: {what} out of range", quote(self.whole))
    }
}

/// Quotes as the time package does: every byte that is not printable ASCII as `\xNN`.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' '..=0x7f => out.push(char::from(byte)),
            // writing to a string does not fail
            _ => drop(write!(out, "\\x{byte:02x}")),
        }
    }
    out.push('"');
    out
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_printed_as_go_does() {
        let cases = [
            ("2026-11-21T03:16:29.630103056Z", "2026-11-21T03:16:29.630103056Z"),
            ("2026-11-21T03:16:29.630100000Z", "2026-11-21T03:16:29.6301Z"),
            ("2999-01-02T3:04:05Z", "2999-01-02T03:04:05Z"),
            ("2999-01-02T03:04:05,5+02:30", "2999-01-02T03:04:05.5+02:30"),
            ("2999-01-02T03:04:05.1234567891234-00:30", "2999-01-02T03:04:05.123456789-00:30"),
            ("2999-01-02T03:04:05+00:00", "2999-01-02T03:04:05Z"),
            ("2024-02-29T23:59:59-11:00", "2024-02-29T23:59:59-11:00"),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
        ];
        for (input, expected) in cases {
            assert_eq!(
                Time::parse_rfc3339(input).map(|t| t.to_string()),
                Ok(expected.to_string()),
                "{input}"
            );
        }
        assert_eq!(Time::ZERO.to_string(), "0001-01-01T00:00:00Z");
        assert!(Time::parse_rfc3339("0001-01-01T00:00:00Z").is_ok_and(Time::is_zero));
        assert_eq!(Time::from_unix(0, 0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Time::parse_rfc3339("2001-09-09T03:46:40+02:00").map(Time::unix), Ok(1_000_000_000));
    }

    #[test]
    fn bad_times_are_refused_with_gos_words() {
        let layout = r#" as "2006-01-02T15:04:05Z07:00": cannot parse "#;
        let cannot = |text: &str, rest: &str, element: &str| {
            (text.to_string(), format!("parsing time {text:?}{layout}{rest:?} as {element:?}"))
        };
        let cases = [
            cannot("x", "x", "2006"),
            cannot("", "", "2006"),
            cannot("2999-01-02", "", "T"),
            cannot("2999-01-02t03:04:05z", "t03:04:05z", "T"),
            cannot("2999-1-02T03:04:05Z", "1-02T03:04:05Z", "01"),
            cannot("2999-01-02T03:04", "", ":"),
            cannot("2999-01-02T03:04:05", "", "Z07:00"),
            cannot("2999-01-02T03:04:05z", "z", "Z07:00"),
            cannot("2999-01-02T03:04:05*01:00", "*01:00", "Z07:00"),
            (
                "2999-13-01T00:00:00Z".into(),
                r#"parsing time "2999-13-01T00:00:00Z": month out of range"#.into(),
            ),
            (
                "2999-02-30T00:00:00Z".into(),
                r#"parsing time "2999-02-30T00:00:00Z": day out of range"#.into(),
            ),
            (
                "2999-02-03T24:00:00Z".into(),
                r#"parsing time "2999-02-03T24:00:00Z": hour out of range"#.into(),
            ),
            (
                "2999-02-03T00:00:00Zé".into(),
                r#"parsing time "2999-02-03T00:00:00Z\xc3\xa9": extra text: "\xc3\xa9""#.into(),
            ),
        ];
        for (input, expected) in cases {
            assert_eq!(Time::parse_rfc3339(&input), Err(expected), "{input}");
        }
    }

    #[test]
    fn no_instant_makes_printing_panic() {
        for secs in [i64::MIN, i64::MIN / 2, -1, 0, i64::MAX / 2, i64::MAX] {
            for offset in [i32::MIN, -86_399, 0, 1, i32::MAX] {
                assert!(!Time::from_unix(secs, 999_999_999).with_offset(offset).to_string().is_empty());
            }
            assert!(!Time::from_unix(secs, 0).local().to_string().is_empty());
        }
    }

    #[test]
    fn the_offset_changes_where_the_zone_says_so() -> Result<(), jiff::Error> {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3")?;
        // 2026-03-29T01:00:00Z
        let change = 1_774_746_000;
        let winter = zone_span(&zone, change - 1);
        let summer = zone_span(&zone, change);
        assert_eq!((winter.offset_secs, winter.until), (3600, change));
        assert_eq!((summer.offset_secs, summer.from), (7200, change));
        assert!(summer.until > change + 86_400 * 200 && summer.until < change + 86_400 * 230);
        let utc = zone_span(&TimeZone::UTC, 0);
        assert!(utc.from < -60_000_000_000 && utc.until > 200_000_000_000);
        Ok(())
    }
}
