//! DAG-JSON: `{"/": "cid"}` is a link, `{"/": {"bytes": "base64"}}` are bytes, keys are sorted, no white space.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use cluster_compat::types::parse_cid;

use super::{MAX_DEPTH, Value, repeated, sorted};

/// Reads a document. `links` tells whether the key `/` has its meaning.
pub(in crate::node) fn decode(text: &[u8], links: bool) -> Result<Value, String> {
    let mut reader = Reader { bytes: text, at: 0, links };
    let value = reader.value(0)?;
    reader.blank();
    match reader.peek() {
        None => Ok(value),
        Some(_) => Err("unexpected content after end of json object".into()),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    links: bool,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth == MAX_DEPTH {
            return Err(format!("JSON is nested more than {MAX_DEPTH} levels deep"));
        }
        self.blank();
        match self.peek() {
            None => Err("unexpected EOF".into()),
            Some(b'{') => self.map(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => self.text().map(|text| Value::Text(text.into_bytes())),
            Some(b'n') => self.word("null", Value::Null),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(other) => Err(format!("invalid char while expecting start of value: {other:#x}")),
        }
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, String> {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(value);
        }
        Err(format!("unexpected content where {word} was expected at byte {}", self.at))
    }

    fn number(&mut self) -> Result<Value, String> {
        let start = self.at;
        while matches!(self.peek(), Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')) {
            self.at += 1;
        }
        let text = std::str::from_utf8(&self.bytes[start..self.at]).map_err(|cause| cause.to_string())?;
        let bad = || format!("strconv.ParseInt: parsing {text:?}: invalid syntax");
        if text.contains(['.', 'e', 'E']) {
            return text.parse().map(Value::Float).map_err(|_| bad());
        }
        let number: i128 = text.parse().map_err(|_| bad())?;
        if i64::try_from(number).is_err() {
            return Err(format!("strconv.ParseInt: parsing {text:?}: value out of range"));
        }
        Ok(Value::Int(number))
    }

    /// A string, whose escapes serde reads.
    fn text(&mut self) -> Result<String, String> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                None => return Err("unexpected EOF".into()),
                Some(b'\\') => self.at += 2,
                Some(b'"') => break,
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        serde_json::from_slice(&self.bytes[start..self.at]).map_err(|cause| cause.to_string())
    }

    fn list(&mut self, depth: usize) -> Result<Value, String> {
        self.at += 1;
        let mut items = Vec::new();
        self.blank();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.blank();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                None => return Err("unexpected EOF".into()),
                Some(other) => return Err(format!("expect array continue, got {:?}", char::from(other))),
            }
        }
        self.at += 1;
        Ok(Value::List(items))
    }

    fn map(&mut self, depth: usize) -> Result<Value, String> {
        self.at += 1;
        let mut entries: Vec<(Vec<u8>, Value)> = Vec::new();
        self.blank();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Map(entries));
        }
        loop {
            self.blank();
            match self.peek() {
                Some(b'"') => {}
                None => return Err("unexpected EOF".into()),
                Some(other) => return Err(format!("expect map key, got {:?}", char::from(other))),
            }
            let key = self.text()?;
            self.blank();
            match self.peek() {
                Some(b':') => self.at += 1,
                None => return Err("unexpected EOF".into()),
                Some(other) => return Err(format!("expect colon, got {:?}", char::from(other))),
            }
            entries.push((key.into_bytes(), self.value(depth + 1)?));
            self.blank();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                None => return Err("unexpected EOF".into()),
                Some(other) => return Err(format!("expect map continue, got {:?}", char::from(other))),
            }
        }
        self.at += 1;
        if let Some(key) = repeated(&entries) {
            return Err(format!("cannot repeat map key {key:?}"));
        }
        if !self.links || entries.first().is_none_or(|(key, _)| key != b"/") {
            return Ok(Value::Map(entries));
        }
        if entries.len() > 1 {
            return Err("a map with the key \"/\" has no other".into());
        }
        match &entries[0].1 {
            Value::Text(cid) => parse_cid(&String::from_utf8_lossy(cid)).map(Value::Link),
            Value::Map(inner) => match &inner[..] {
                [(key, Value::Text(text))] if key == b"bytes" => {
                    let end = text.iter().rposition(|byte| *byte != b'=').map_or(0, |at| at + 1);
                    let text = &text[..end];
                    STANDARD_NO_PAD.decode(text).map(Value::Bytes).map_err(|cause| cause.to_string())
                }
                _ => Err("the key \"/\" holds a CID or bytes".into()),
            },
            _ => Err("the key \"/\" holds a CID or bytes".into()),
        }
    }
}

/// Writes a value. `links` tells whether bytes and links can be written.
pub(in crate::node) fn encode(value: &Value, links: bool) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, value, links);
    out
}

/// A float as Go writes it: without a fraction it has no point.
fn put_float(out: &mut Vec<u8>, number: f64) {
    let text = serde_json::to_string(&number).unwrap_or_default();
    out.extend_from_slice(text.strip_suffix(".0").unwrap_or(&text).as_bytes());
}

/// A string as the codec's writer does it. (Go: refmt `emitString`)
fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => out.extend([b'\\', character as u8]),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                '\0'..'\x20' | '\u{2028}' | '\u{2029}' => {
                    out.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes());
                }
                other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        chunk.invalid().iter().for_each(|_| out.extend_from_slice(b"\\ufffd"));
    }
    out.push(b'"');
}

fn put(out: &mut Vec<u8>, value: &Value, links: bool) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(is) => out.extend_from_slice(if *is { b"true" } else { b"false" }),
        Value::Int(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::Float(number) => put_float(out, *number),
        Value::Text(text) => put_text(out, text),
        Value::Bytes(bytes) => {
            out.extend_from_slice(b"{\"/\":{\"bytes\":\"");
            out.extend_from_slice(STANDARD_NO_PAD.encode(bytes).as_bytes());
            out.extend_from_slice(b"\"}}");
        }
        Value::List(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                put(out, item, links);
            }
            out.push(b']');
        }
        Value::Map(entries) => {
            out.push(b'{');
            let ordered: Vec<&(Vec<u8>, Value)> =
                if links { sorted(entries, false) } else { entries.iter().collect() };
            for (at, (key, value)) in ordered.into_iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                put_text(out, key);
                out.push(b':');
                put(out, value, links);
            }
            out.push(b'}');
        }
        Value::Link(cid) => {
            out.extend_from_slice(b"{\"/\":\"");
            out.extend_from_slice(cid.to_string().as_bytes());
            out.extend_from_slice(b"\"}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_the_codec_of_go_does() {
        let text = Value::Text("\"\\\n\r\t\u{8}\u{c}\u{7f}/<\u{2028}\u{e9}".into());
        let written = String::from_utf8(encode(&text, true)).unwrap();
        assert_eq!(written, r#""\"\\\n\r\t\u0008\u000c"#.to_owned() + "\u{7f}/<\\u2028\u{e9}\"");
        assert_eq!(decode(written.as_bytes(), true).unwrap(), text);
    }

    #[test]
    fn links_and_bytes_are_what_the_key_of_one_slash_says() {
        let value = decode(br#"{"a":{"/":{"bytes":"AQI="}},"b":[{"/":"bafkqaaa"}]}"#, true).unwrap();
        assert_eq!(encode(&value, true), br#"{"a":{"/":{"bytes":"AQI"}},"b":[{"/":"bafkqaaa"}]}"#);
        for bad in [
            r#"{"/":1}"#,
            r#"{"/":"x"}"#,
            r#"{"/":"bafkqaaa","a":1}"#,
            r#"{"a":1,"a":2}"#,
            r#"["#,
            r#"{"a"1}"#,
        ] {
            decode(bad.as_bytes(), true).unwrap_err();
        }
    }
}
