//! DAG-JSON: `{"/": "cid"}` is a link, `{"/": {"bytes": "base64"}}` are bytes, keys are sorted, no white space.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use cluster_compat::go::json::write_str;
use cluster_compat::types::parse_cid;

use super::{MAX_DEPTH, Value, sorted};

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
            Some(b'"') => self.text().map(Value::Text),
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
        let mut entries: Vec<(String, Value)> = Vec::new();
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
            entries.push((key, self.value(depth + 1)?));
            self.blank();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                None => return Err("unexpected EOF".into()),
                Some(other) => return Err(format!("expect map continue, got {:?}", char::from(other))),
            }
        }
        self.at += 1;
        let mut keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("cannot repeat map key {:?}", pair[0]));
        }
        if !self.links || entries.first().is_none_or(|(key, _)| key != "/") {
            return Ok(Value::Map(entries));
        }
        if entries.len() > 1 {
            return Err("a map with the key \"/\" has no other".into());
        }
        match &entries[0].1 {
            Value::Text(cid) => parse_cid(cid).map(Value::Link),
            Value::Map(inner) => match &inner[..] {
                [(key, Value::Text(text))] if key == "bytes" => {
                    let text = text.trim_end_matches('=');
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

/// A string as the codec's writer does it: only what JSON demands is escaped.
fn put_text(out: &mut Vec<u8>, text: &str) {
    match serde_json::to_vec(text) {
        Ok(bytes) => out.extend_from_slice(&bytes),
        Err(_) => write_str(out, text),
    }
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
            let ordered: Vec<&(String, Value)> =
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
