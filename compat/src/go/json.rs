//! `encoding/json`, byte for byte.
//!
//! Compact documents with Go's HTML escapes (`\u003c`, `\u003e`, `\u0026`, `\u2028`, `\u2029`) and Go's
//! floats. No document ends in a line feed here; HTTP faces add it.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// The document of a value.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write_into(&mut out, value);
    out
}

/// The document of a value as text.
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> String {
    String::from_utf8(to_vec(value)).unwrap_or_default()
}

/// Appends the document of a value; for long listings that reuse one buffer.
pub fn write_into<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    written(value.serialize(&mut Serializer::with_formatter(out, Compact)));
}

/// Appends a string; what needs no escape, and nearly nothing does, is copied as it is.
pub fn write_str(out: &mut Vec<u8>, text: &str) {
    let is_plain = |byte: u8| byte >= b' ' && !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2);
    // without a way out in the middle, so that several bytes are looked at in one step
    if text.bytes().fold(true, |all, byte| all & is_plain(byte)) {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        write_into(out, text);
    }
}

/// The document of a value over several lines, as Go's `MarshalIndent` without prefix prints it.
pub fn to_vec_indent<T: Serialize + ?Sized>(value: &T, indent: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let formatter = Indented(PrettyFormatter::with_indent(indent.as_bytes()));
    written(value.serialize(&mut Serializer::with_formatter(&mut out, formatter)));
    out
}

#[allow(clippy::expect_used, reason = "memory does not fail, and only map keys that are no strings would")]
fn written(result: serde_json::Result<()>) {
    result.expect("a value whose map keys are strings can be written to memory");
}

/// Whether a byte may be there that Go escapes, or that begins what it escapes. Nearly all strings have none, so
/// eight bytes are asked at a time.
fn may_need_escapes(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let last = match bytes.last_chunk::<8>() {
        // some bytes are asked twice; none is harmed
        Some(last) => u64::from_le_bytes(*last),
        None => rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    words.iter().any(|word| has_special(u64::from_le_bytes(*word))) || has_special(last)
}

/// Whether one of eight bytes is `<`, `>`, `&` (or `$`, which shares its bits) or the first of U+2028.
const fn has_special(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    const fn has(word: u64, byte: u8) -> u64 {
        let differs = word ^ (ONES * byte as u64);
        differs.wrapping_sub(ONES) & !differs & HIGH
    }
    // `<` and `>` differ in this bit alone
    let merged = word | (ONES * 2);
    has(merged, b'>') | has(merged, b'&') | has(word, 0xe2) != 0
}

/// Writes a piece of a string, escaping what Go escapes for HTML and JavaScript.
fn write_fragment<W: ?Sized + Write>(writer: &mut W, fragment: &str) -> io::Result<()> {
    let bytes = fragment.as_bytes();
    if !may_need_escapes(bytes) {
        return writer.write_all(bytes);
    }
    let mut start = 0;
    let mut i = 0;
    while i < bytes.len() {
        let (escape, width): (&[u8], usize) = match bytes[i] {
            b'<' => (b"\\u003c", 1),
            b'>' => (b"\\u003e", 1),
            b'&' => (b"\\u0026", 1),
            0xe2 if bytes[i..].starts_with("\u{2028}".as_bytes()) => (b"\\u2028", 3),
            0xe2 if bytes[i..].starts_with("\u{2029}".as_bytes()) => (b"\\u2029", 3),
            _ => {
                i += 1;
                continue;
            }
        };
        writer.write_all(&bytes[start..i])?;
        writer.write_all(escape)?;
        i += width;
        start = i;
    }
    writer.write_all(&bytes[start..])
}

/// Go's floats: shortest digits, an exponent only below 1e-6 and from 1e21 on.
fn write_float<W: ?Sized + Write>(writer: &mut W, value: f64) -> io::Result<()> {
    let size = value.abs();
    if value != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{value:e}");
        return match text.split_once("e-") {
            Some(_) => writer.write_all(text.as_bytes()),
            None => writer.write_all(text.replace('e', "e+").as_bytes()),
        };
    }
    write!(writer, "{value}")
}

struct Compact;

impl Formatter for Compact {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        write_fragment(writer, fragment)
    }

    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        write_float(writer, value)
    }
}

struct Indented<'a>(PrettyFormatter<'a>);

impl Formatter for Indented<'_> {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        write_fragment(writer, fragment)
    }

    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        write_float(writer, value)
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        let cases = [
            ("<a>&\"\\/", r#""\u003ca\u003e\u0026\"\\/""#),
            ("\u{8}\u{c}\n\r\t\u{1}\u{1f}\u{7f}", "\"\\b\\f\\n\\r\\t\\u0001\\u001f\u{7f}\""),
            ("12345678<", r#""12345678\u003c""#),
            ("1234567>9", r#""1234567\u003e9""#),
            ("$1234567&", r#""$1234567\u0026""#),
            ("é\u{2028}\u{2029}\u{2027}", "\"é\\u2028\\u2029\u{2027}\""),
            ("", "\"\""),
        ];
        for (input, expected) in cases {
            assert_eq!(to_string(input), expected);
        }
    }

    #[test]
    fn floats_are_printed_as_go_prints_them() {
        let cases = [
            (0.0, "0"),
            (1.0, "1"),
            (0.5, "0.5"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (1.5e-9, "1.5e-9"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.25e22, "1.25e+22"),
            (-3.25, "-3.25"),
        ];
        for (input, expected) in cases {
            assert_eq!(to_string(&input), expected);
        }
    }

    #[test]
    fn indented_documents_keep_empty_lists_on_one_line() {
        let value = serde_json::json!({"a": [], "b": {"c": "<"}, "d": [1]});
        let expected = "{\n    \"a\": [],\n    \"b\": {\n        \"c\": \"\\u003c\"\n    },\n    \"d\": [\n        1\n    ]\n}";
        assert_eq!(String::from_utf8(to_vec_indent(&value, "    ")).unwrap_or_default(), expected);
    }
}
