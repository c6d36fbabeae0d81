use super::*;

#[test]
fn only_exact_types_of_pins_are_known() {
    for (text, expected) in [
        ("direct", IpfsPinStatus::Direct),
        ("recursive", IpfsPinStatus::Recursive),
        ("recursiveish", IpfsPinStatus::Recursive),
        ("indirect through QmV4STRyo1dygxGhZcr877TQ1M9AZuXhfm6HrXjxW1TYNP", IpfsPinStatus::Indirect),
        ("directly", IpfsPinStatus::Bug),
        ("", IpfsPinStatus::Bug),
    ] {
        assert_eq!(IpfsPinStatus::parse(text), expected, "{text}");
    }
}
