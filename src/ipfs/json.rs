//! JSON of the daemon's replies: one document, or documents one after the other.
//!
//! Keys are matched without regard to case and unknown ones skipped, as `encoding/json` does; strings are
//! borrowed from the buffer where they have no escapes. A syntax error is worded as Go words it: the text is
//! shown to users as the error of a pin. It comes from a second scanner, which runs only when parsing failed.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Visitor};

/// Longest document in a stream of documents: Kubo's longest lines are a few hundred bytes.
pub(super) const MAX_VALUE_BYTES: usize = 1 << 20;

/// Below this every piece is parsed again, so that what can be no JSON is noticed at once.
const EAGER_BYTES: usize = 4096;

/// A JSON string, borrowed where it can be.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }
        deserializer.deserialize_str(TextVisitor).map(Text)
    }
}

/// Declares a struct read from a JSON object. `null`, for the object or a field, leaves the default.
macro_rules! object {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty = $key:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub(super) struct $name<'a> {
            $($(#[$field_meta])* pub(super) $field: $type,)*
            _borrowed: std::marker::PhantomData<&'a ()>,
        }

        impl<'de: 'a, 'a> serde::Deserialize<'de> for $name<'a> {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct ObjectVisitor<'a>(std::marker::PhantomData<&'a ()>);
                impl<'de: 'a, 'a> serde::de::Visitor<'de> for ObjectVisitor<'a> {
                    type Value = $name<'a>;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_unit<E>(self) -> Result<Self::Value, E> {
                        Ok($name::default())
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                        let mut object = $name::default();
                        while let Some(key) = map.next_key::<$crate::ipfs::json::Text<'de>>()? {
                            $(if key.0.eq_ignore_ascii_case($key) {
                                if let Some(value) = map.next_value::<Option<$type>>()? {
                                    object.$field = value;
                                }
                                continue;
                            })*
                            map.next_value::<serde::de::IgnoredAny>()?;
                        }
                        Ok(object)
                    }
                }
                deserializer.deserialize_any(ObjectVisitor(std::marker::PhantomData))
            }
        }
    };
}
pub(super) use object;

/// Reads a whole body as one document.
pub(super) fn document<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|failure| wording(&failure, body, true))
}

/// Documents that arrive in pieces, with or without whitespace between them.
#[derive(Debug, Default)]
pub(super) struct Documents {
    /// What was received and not yet read; never longer than one document and one piece.
    buffer: Vec<u8>,
    /// Looks for the end of a long document; a piece that does not hold it costs no parsing, so a document
    /// that trickles in costs hardly more than one that comes at once.
    end: End,
}

impl Documents {
    /// Takes the next piece, then reads every document that is whole now; `each` may end the reading.
    ///
    /// The type of a document usually borrows from the buffer, so `each` gets it before the buffer moves on.
    pub(super) fn feed<R>(&mut self, piece: &[u8], each: R) -> Result<(), String>
    where
        R: FnOnce(&mut Reader<'_>) -> Result<(), String>,
    {
        self.buffer.extend_from_slice(piece);
        if self.buffer.len() > EAGER_BYTES && !self.end.is_within(&self.buffer) {
            return self.check_size();
        }
        let mut reader = Reader { bytes: &self.buffer, at: 0 };
        let result = each(&mut reader);
        let at = reader.at;
        self.buffer.drain(..at);
        self.end = End::default();
        result?;
        self.check_size()
    }

    fn check_size(&self) -> Result<(), String> {
        if self.buffer.len() > MAX_VALUE_BYTES {
            return Err(format!("a JSON value longer than {MAX_VALUE_BYTES} bytes"));
        }
        Ok(())
    }

    /// Says whether the stream may end here: `Err` holds Go's text for what is wrong.
    pub(super) fn finish(&self) -> Result<(), String> {
        if self.buffer.iter().all(|byte| byte.is_ascii_whitespace()) {
            return Ok(());
        }
        match scan(&self.buffer, false) {
            Scan::Invalid(text) => Err(text),
            Scan::Valid | Scan::Incomplete => Err("unexpected EOF".into()),
        }
    }
}

/// Where the first document of a buffer ends, as far as brackets tell.
#[derive(Debug, Default)]
struct End {
    /// Bytes looked at.
    at: usize,
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
}

impl End {
    /// Looks at what is new; the parser decides whether brackets told the truth.
    fn is_within(&mut self, buffer: &[u8]) -> bool {
        for &byte in &buffer[self.at..] {
            self.at += 1;
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.is_in_string => self.is_escaped = true,
                b'"' => self.is_in_string = !self.is_in_string,
                _ if self.is_in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                b' ' | b'\t' | b'\r' | b'\n' => continue,
                _ => {}
            }
            if self.depth == 0 && !self.is_in_string {
                return true;
            }
        }
        false
    }
}

/// The whole documents at the start of a buffer.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// The next document, or `None` when more bytes are needed.
    pub(super) fn next<T: Deserialize<'a>>(&mut self) -> Result<Option<T>, String> {
        let rest = &self.bytes[self.at..];
        let mut documents = serde_json::Deserializer::from_slice(rest).into_iter::<T>();
        match documents.next() {
            None => {
                self.at = self.bytes.len();
                Ok(None)
            }
            Some(Ok(document)) => {
                self.at += documents.byte_offset();
                Ok(Some(document))
            }
            Some(Err(failure)) if failure.is_eof() => Ok(None),
            Some(Err(failure)) => Err(wording(&failure, rest, false)),
        }
    }
}

/// Go's words where the text is no JSON, serde's where it is JSON of another shape.
fn wording(failure: &serde_json::Error, text: &[u8], alone: bool) -> String {
    match scan(text, alone) {
        Scan::Invalid(text) => text,
        Scan::Incomplete if alone => "unexpected end of JSON input".into(),
        Scan::Incomplete => "unexpected EOF".into(),
        Scan::Valid => format!("json: {failure}"),
    }
}

enum Scan {
    Valid,
    Incomplete,
    Invalid(String),
}

/// Finds what `encoding/json` would complain about in the first document of `text`, or in all of it when it
/// has to stand `alone`.
fn scan(text: &[u8], alone: bool) -> Scan {
    let mut scanner = Scanner { text, at: 0 };
    match scanner.document(alone) {
        Ok(()) => Scan::Valid,
        Err(None) => Scan::Incomplete,
        Err(Some(text)) => Scan::Invalid(text),
    }
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

/// Nothing: the text ended. Something: the complaint.
type Complaint = Option<String>;

impl Scanner<'_> {
    fn document(&mut self, alone: bool) -> Result<(), Complaint> {
        // Brackets still open; a bracket is closed by the loop, so depth costs no stack.
        let mut open: Vec<u8> = Vec::new();
        'value: loop {
            match self.peek()? {
                b'{' => {
                    self.at += 1;
                    if self.peek()? == b'}' {
                        self.at += 1;
                    } else {
                        open.push(b'{');
                        self.key("looking for beginning of object key string")?;
                        continue 'value;
                    }
                }
                b'[' => {
                    self.at += 1;
                    if self.peek()? == b']' {
                        self.at += 1;
                    } else {
                        open.push(b'[');
                        continue 'value;
                    }
                }
                b'"' => self.string()?,
                b'-' | b'0'..=b'9' => self.number()?,
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                _ => return Err(Some(self.invalid("looking for beginning of value"))),
            }
            loop {
                match open.last() {
                    None if !alone => return Ok(()),
                    None => {
                        return match self.peek() {
                            Err(None) => Ok(()),
                            _ => Err(Some(self.invalid("after top-level value"))),
                        };
                    }
                    Some(b'{') => match self.peek()? {
                        b',' => {
                            self.at += 1;
                            self.key("looking for beginning of object key string")?;
                            continue 'value;
                        }
                        b'}' => self.at += 1,
                        _ => return Err(Some(self.invalid("after object key:value pair"))),
                    },
                    Some(_) => match self.peek()? {
                        b',' => {
                            self.at += 1;
                            continue 'value;
                        }
                        b']' => self.at += 1,
                        _ => return Err(Some(self.invalid("after array element"))),
                    },
                }
                open.pop();
            }
        }
    }

    /// The next byte that is no whitespace, not consumed.
    fn peek(&mut self) -> Result<u8, Complaint> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.text.get(self.at) {
            self.at += 1;
        }
        self.text.get(self.at).copied().ok_or(None)
    }

    fn key(&mut self, situation: &str) -> Result<(), Complaint> {
        if self.peek()? != b'"' {
            return Err(Some(self.invalid(situation)));
        }
        self.string()?;
        if self.peek()? != b':' {
            return Err(Some(self.invalid("after object key")));
        }
        self.at += 1;
        Ok(())
    }

    fn byte(&self) -> Result<u8, Complaint> {
        self.text.get(self.at).copied().ok_or(None)
    }

    fn string(&mut self) -> Result<(), Complaint> {
        self.at += 1;
        loop {
            match self.byte()? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => {
                    self.at += 1;
                    match self.byte()? {
                        b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                        b'u' => {
                            for _ in 0..4 {
                                self.at += 1;
                                if !self.byte()?.is_ascii_hexdigit() {
                                    return Err(Some(self.invalid("in \\u hexadecimal character escape")));
                                }
                            }
                        }
                        _ => return Err(Some(self.invalid("in string escape code"))),
                    }
                }
                0..0x20 => return Err(Some(self.invalid("in string literal"))),
                _ => {}
            }
            self.at += 1;
        }
    }

    fn number(&mut self) -> Result<(), Complaint> {
        if self.byte()? == b'-' {
            self.at += 1;
        }
        match self.byte()? {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits(),
            _ => return Err(Some(self.invalid("in numeric literal"))),
        }
        if let Some(b'.') = self.text.get(self.at) {
            self.at += 1;
            if !self.byte()?.is_ascii_digit() {
                return Err(Some(self.invalid("after decimal point in numeric literal")));
            }
            self.digits();
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            if let b'+' | b'-' = self.byte()? {
                self.at += 1;
            }
            if !self.byte()?.is_ascii_digit() {
                return Err(Some(self.invalid("in exponent of numeric literal")));
            }
            self.digits();
        }
        Ok(())
    }

    fn digits(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), Complaint> {
        for expected in word.bytes() {
            if self.byte()? != expected {
                let situation = format!("in literal {word} (expecting '{}')", char::from(expected));
                return Err(Some(self.invalid(&situation)));
            }
            self.at += 1;
        }
        Ok(())
    }

    /// The complaint about the byte at hand. A byte above 127 is named as Go names it: as a character.
    fn invalid(&self, situation: &str) -> String {
        let byte = self.text.get(self.at).copied().unwrap_or_default();
        let quoted = match byte {
            b'\'' => "\\'".to_owned(),
            b'"' => "\"".to_owned(),
            b'\n' => "\\n".to_owned(),
            b'\r' => "\\r".to_owned(),
            b'\t' => "\\t".to_owned(),
            0..0x20 | 0x7f..0xa0 => format!("\\x{byte:02x}"),
            byte => char::from(byte).to_string(),
        };
        format!("invalid character '{quoted}' {situation}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    object! {
        /// A line of a listing.
        Line {
            cid: Text<'a> = "Cid",
            progress: i64 = "Progress",
        }
    }

    #[test]
    fn syntax_errors_read_as_go_words_them() {
        for (text, expected) in [
            ("", "unexpected end of JSON input"),
            ("{\"a\":", "unexpected end of JSON input"),
            ("not json", "invalid character 'o' in literal null (expecting 'u')"),
            ("junk", "invalid character 'j' looking for beginning of value"),
            ("{\"a\n", "invalid character '\\n' in string literal"),
            ("{a", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\"1", "invalid character '1' after object key"),
            ("{\"a\":1 \"", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("{\"a\":\"\\q", "invalid character 'q' in string escape code"),
            ("{\"a\":\"\\u00g", "invalid character 'g' in \\u hexadecimal character escape"),
            ("{\"a\":-x", "invalid character 'x' in numeric literal"),
            ("{\"a\":1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("{\"a\":1ex", "invalid character 'x' in exponent of numeric literal"),
            ("tru'", "invalid character '\\'' in literal true (expecting 'e')"),
        ] {
            let failure = document::<Line<'_>>(text.as_bytes()).unwrap_err();
            assert_eq!(failure, expected, "{text:?}");
        }
    }

    #[test]
    fn documents_are_read_whole_wherever_the_pieces_are_cut() {
        let text =
            b"{\"cid\":\"a\",\"Extra\":{\"x\":[1,2]}}\n{\"CID\":\"b\\n\",\"progress\":7}{\"Cid\":null} null";
        for cut in 0..text.len() {
            let mut documents = Documents::default();
            let mut seen = Vec::new();
            for piece in [&text[..cut], &text[cut..]] {
                documents
                    .feed(piece, |reader| {
                        while let Some(line) = reader.next::<Line<'_>>()? {
                            seen.push((line.cid.0.into_owned(), line.progress));
                        }
                        Ok(())
                    })
                    .unwrap();
            }
            documents.finish().unwrap();
            documents.feed(b" ", |reader| reader.next::<Line<'_>>().map(|_| ())).unwrap();
            seen.truncate(3);
            assert_eq!(seen, [("a".into(), 0), ("b\n".into(), 7), (String::new(), 0)], "cut at {cut}");
        }
    }

    #[test]
    fn an_endless_document_is_refused() {
        let mut documents = Documents::default();
        let piece = vec![b'x'; 1 << 16];
        documents.feed(b"{\"cid\":\"", |_| Ok(())).unwrap();
        let failure =
            (0..32).find_map(|_| documents.feed(&piece, |r| r.next::<Line<'_>>().map(|_| ())).err());
        assert_eq!(failure.as_deref(), Some("a JSON value longer than 1048576 bytes"));
    }

    #[test]
    fn a_long_document_that_trickles_in_is_not_parsed_at_every_byte() {
        let text = format!("{{\"Extra\":\"{}\\\"}}\",\"Cid\":\"a\"}}", "}{".repeat(100_000));
        let mut documents = Documents::default();
        let (mut n_parsed, mut seen) = (0, None);
        for byte in text.as_bytes().chunks(1) {
            let read = |reader: &mut Reader<'_>| {
                n_parsed += 1;
                seen = reader.next::<Line<'_>>()?.map(|line| line.cid.0.into_owned());
                Ok(())
            };
            documents.feed(byte, read).unwrap();
        }
        assert_eq!(seen.as_deref(), Some("a"));
        assert!(n_parsed <= EAGER_BYTES + 1, "{n_parsed}");
    }

    #[test]
    fn a_document_cut_short_is_an_unexpected_end() {
        let mut documents = Documents::default();
        documents
            .feed(b"{\"Cid\":\"a\"}\n{\"Ci", |r| {
                while r.next::<Line<'_>>()?.is_some() {}
                Ok(())
            })
            .unwrap();
        assert_eq!(documents.finish().unwrap_err(), "unexpected EOF");
    }
}
