//! Durations as Go parses and prints them.

use std::fmt;

/// A span in nanoseconds, signed: Go's `time.Duration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(
    /// Nanoseconds.
    pub i64,
);

/// The units Go knows, with their length in nanoseconds. Both code points that look like µ are accepted.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The largest magnitude while parsing: that of `i64::MIN`.
const MAX_MAGNITUDE: u64 = 1 << 63;

impl Duration {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// Whole seconds.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs * 1_000_000_000)
    }

    /// Whole milliseconds.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis * 1_000_000)
    }

    /// Whole minutes.
    pub const fn from_mins(mins: i64) -> Self {
        Self::from_secs(mins * 60)
    }

    /// Whole hours.
    pub const fn from_hours(hours: i64) -> Self {
        Self::from_mins(hours * 60)
    }

    /// As a standard duration; negative spans are zero.
    pub fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }

    /// Parses `1h30m`, `1.5s`, `-2ms`, `0`: an optional sign, then numbers each with a unit.
    /// The error is the text of Go's `time.ParseDuration`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let invalid = || format!("time: invalid duration {}", quote(text));
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self(0));
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: u64 = 0;
        while !rest.is_empty() {
            if !rest.starts_with(|c: char| c == '.' || c.is_ascii_digit()) {
                return Err(invalid());
            }
            let (whole, n_digits, after) = leading_int(rest).ok_or_else(invalid)?;
            rest = after;
            let mut fraction = (0, 1.0);
            let mut n_decimals = 0;
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
                n_decimals = end;
                fraction = leading_fraction(&after[..end]);
                rest = &after[end..];
            }
            if n_digits == 0 && n_decimals == 0 {
                return Err(invalid());
            }
            let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
            let unit = &rest[..end];
            if unit.is_empty() {
                return Err(format!("time: missing unit in duration {}", quote(text)));
            }
            let Some((_, nanos)) = UNITS.iter().find(|(name, _)| *name == unit) else {
                return Err(format!("time: unknown unit {} in duration {}", quote(unit), quote(text)));
            };
            rest = &rest[end..];
            let mut part = whole.checked_mul(*nanos).filter(|n| *n <= MAX_MAGNITUDE).ok_or_else(invalid)?;
            if fraction.0 > 0 {
                part += (fraction.0 as f64 * (*nanos as f64 / fraction.1)) as u64;
            }
            total = total.checked_add(part).filter(|n| *n <= MAX_MAGNITUDE).ok_or_else(invalid)?;
        }
        if negative {
            return Ok(Self(0i64.wrapping_sub_unsigned(total)));
        }
        i64::try_from(total).map(Self).map_err(|_| invalid())
    }
}

impl fmt::Display for Duration {
    /// Go's canonical form: `1h0m0s`, `1m30s`, `1.5s`, `500ms`, `0s`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if nanos == 0 {
            return out.write_str("0s");
        }
        if self.0 < 0 {
            out.write_str("-")?;
        }
        let small = match nanos {
            0..1_000 => Some((1, "ns")),
            1_000..1_000_000 => Some((1_000, "\u{b5}s")),
            1_000_000..1_000_000_000 => Some((1_000_000, "ms")),
            _ => None,
        };
        if let Some((unit, name)) = small {
            return write_decimal(out, nanos, unit, name);
        }
        let mins = nanos / 60_000_000_000;
        if mins >= 60 {
            write!(out, "{}h", mins / 60)?;
        }
        if mins > 0 {
            write!(out, "{}m", mins % 60)?;
        }
        write_decimal(out, nanos % 60_000_000_000, 1_000_000_000, "s")
    }
}

/// Writes `nanos / unit` with as many decimals as it has, then the unit's name.
fn write_decimal(out: &mut fmt::Formatter<'_>, nanos: u64, unit: u64, name: &str) -> fmt::Result {
    write!(out, "{}", nanos / unit)?;
    if !nanos.is_multiple_of(unit) {
        let width = unit.ilog10() as usize;
        let decimals = format!("{:0width$}", nanos % unit);
        write!(out, ".{}", decimals.trim_end_matches('0'))?;
    }
    out.write_str(name)
}

/// The integer `text` starts with, how many digits it has, and what follows; `None` beyond Go's range.
fn leading_int(text: &str) -> Option<(u64, usize, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let mut value: u64 = 0;
    for digit in text[..end].bytes() {
        value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        if value > MAX_MAGNITUDE {
            return None;
        }
    }
    Some((value, end, &text[end..]))
}

/// Decimals as a numerator and its power of ten; digits beyond the range are dropped, as Go does.
fn leading_fraction(digits: &str) -> (u64, f64) {
    let mut value: u64 = 0;
    let mut scale = 1.0;
    for digit in digits.bytes() {
        if value > (i64::MAX as u64) / 10 {
            break;
        }
        let next = value * 10 + u64::from(digit - b'0');
        if next > MAX_MAGNITUDE {
            break;
        }
        value = next;
        scale *= 10.0;
    }
    (value, scale)
}

/// Go's quoting of the text in a duration's error: bytes outside printable ASCII as `\xNN`.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            ' '..='~' => quoted.push(c),
            _ => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    quoted.push_str(&format!("\\x{byte:02x}"));
                }
            }
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_go_prints_them() {
        for (nanos, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (500_000_000, "500ms"),
            (1_500_000_000, "1.5s"),
            (3_300_000_000, "3.3s"),
            (90_000_000_000, "1m30s"),
            (300_000_000_000, "5m0s"),
            (245_001_000_000, "4m5.001s"),
            (18_367_001_000_000, "5h6m7.001s"),
            (86_400_000_000_000, "24h0m0s"),
            (480_000_000_001, "8m0.000000001s"),
            (-1_000_000_000, "-1s"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(Duration(nanos).to_string(), expected);
        }
    }

    #[test]
    fn durations_parse_as_go_parses_them() {
        for (text, nanos) in [
            ("0", 0),
            ("+0", 0),
            ("5s", 5_000_000_000),
            ("-5s", -5_000_000_000),
            ("1h2m3s4ms5us6ns", 3_723_004_005_006),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("0h2m0s", 120_000_000_000),
            ("1µs", 1_000),
            ("1μs", 1_000),
            ("39h9m14.425s", 140_954_425_000_000),
            ("0.3333333333333333333h", 1_200_000_000_000),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("0.100000000000000000000h", 360_000_000_000),
        ] {
            assert_eq!(Duration::parse(text), Ok(Duration(nanos)), "{text}");
        }
    }

    #[test]
    fn bad_durations_are_refused_in_gos_words() {
        for (text, error) in [
            ("", r#"time: invalid duration """#),
            ("x", r#"time: invalid duration "x""#),
            ("-", r#"time: invalid duration "-""#),
            ("5", r#"time: missing unit in duration "5""#),
            ("1d", r#"time: unknown unit "d" in duration "1d""#),
            ("3000000h", r#"time: invalid duration "3000000h""#),
            ("9223372036854775808ns", r#"time: invalid duration "9223372036854775808ns""#),
            ("1é", r#"time: unknown unit "\xc3\xa9" in duration "1\xc3\xa9""#),
            ("1s 2s", r#"time: unknown unit "s " in duration "1s 2s""#),
            (".s", r#"time: invalid duration ".s""#),
        ] {
            assert_eq!(Duration::parse(text), Err(error.to_owned()), "{text}");
        }
    }
}
