//! Humanised byte sizes, as go-humanize prints them.

/// Decimal: `82 B`, `1.5 kB`, `83 MB`.
pub fn bytes(size: u64) -> String {
    humanise(size, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// Binary: `82 B`, `1.5 KiB`, `79 MiB`.
pub fn ibytes(size: u64) -> String {
    humanise(size, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

fn humanise(size: u64, base: f64, units: &[&str; 7]) -> String {
    if size < 10 {
        return format!("{size} B");
    }
    let exponent = ((size as f64).ln() / base.ln()).floor();
    let value = (size as f64 / base.powf(exponent) * 10.0 + 0.5).floor() / 10.0;
    let unit = units[(exponent as usize).min(6)];
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_printed_as_go_humanize_prints_them() {
        let cases = [
            (0, "0 B"),
            (9, "9 B"),
            (10, "10 B"),
            (999, "999 B"),
            (1500, "1.5 kB"),
            (12_345, "12 kB"),
            (82_854_982, "83 MB"),
            (9_999_979_781, "10 GB"),
            (u64::MAX, "18 EB"),
        ];
        for (input, expected) in cases {
            assert_eq!(bytes(input), expected);
        }
        assert_eq!(ibytes(82_854_982), "79 MiB");
    }
}
