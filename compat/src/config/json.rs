//! JSON as the configuration files hold it: read with the order of keys kept and with Go's words for what is
//! wrong, and written with two or four spaces of indentation.

use crate::go::json::to_string;
/// Deepest nesting of a file; ours has five levels, the rest is somebody's mistake.
const MAX_DEPTH: usize = 256;

/// A parsed value, and the text it was parsed from.
#[derive(Debug, Clone)]
pub(crate) struct Json<'a> {
    /// The text of the value, without white space around it.
    pub(crate) raw: &'a str,
    /// What it says.
    pub(crate) kind: Kind<'a>,
}

/// What a JSON value says. Objects keep the order and the duplicates of their keys, as later ones win.
#[derive(Debug, Clone)]
pub(crate) enum Kind<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    String(String),
    Array(Vec<Json<'a>>),
    Object(Vec<(String, Json<'a>)>),
}

impl Kind<'_> {
    /// Go's word for the kind, in "cannot unmarshal {} into …".
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }
}

/// Parses a whole document; the error is the text of Go's `encoding/json`.
pub(crate) fn parse(text: &str) -> Result<Json<'_>, String> {
    let mut parser = Parser { text, at: 0 };
    let value = parser.value(0)?;
    parser.skip_space();
    match parser.peek() {
        None => Ok(value),
        Some(byte) => Err(unexpected(byte, "after top-level value")),
    }
}

/// Parses the first value of a text, whatever follows it, as a decoder of Go's does.
pub(crate) fn parse_first(text: &str) -> Result<Json<'_>, String> {
    let mut parser = Parser { text, at: 0 };
    parser.value(0).map_err(|error| match parser.at < text.len() {
        true => error,
        false if text.trim_ascii().is_empty() => "EOF".to_owned(),
        false => "unexpected EOF".to_owned(),
    })
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// The next byte that is no white space, not yet consumed.
    fn next_token(&mut self) -> Result<u8, String> {
        self.skip_space();
        self.peek().ok_or_else(end_of_input)
    }

    fn value(&mut self, depth: usize) -> Result<Json<'a>, String> {
        if depth > MAX_DEPTH {
            return Err("exceeded max depth".to_owned());
        }
        let first = self.next_token()?;
        let start = self.at;
        let kind = match first {
            b'{' => self.object(depth)?,
            b'[' => self.array(depth)?,
            b'"' => Kind::String(self.string()?),
            b't' => self.literal("true", Kind::Bool(true))?,
            b'f' => self.literal("false", Kind::Bool(false))?,
            b'n' => self.literal("null", Kind::Null)?,
            b'-' | b'0'..=b'9' => self.number()?,
            other => return Err(unexpected(other, "looking for beginning of value")),
        };
        Ok(Json { raw: &self.text[start..self.at], kind })
    }

    fn object(&mut self, depth: usize) -> Result<Kind<'a>, String> {
        self.at += 1;
        let mut entries = Vec::new();
        if self.next_token()? == b'}' {
            self.at += 1;
            return Ok(Kind::Object(entries));
        }
        loop {
            match self.next_token()? {
                b'"' => {}
                other => return Err(unexpected(other, "looking for beginning of object key string")),
            }
            let key = self.string()?;
            match self.next_token()? {
                b':' => self.at += 1,
                other => return Err(unexpected(other, "after object key")),
            }
            entries.push((key, self.value(depth + 1)?));
            match self.next_token()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Ok(Kind::Object(entries));
                }
                other => return Err(unexpected(other, "after object key:value pair")),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Kind<'a>, String> {
        self.at += 1;
        let mut items = Vec::new();
        if self.next_token()? == b']' {
            self.at += 1;
            return Ok(Kind::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            match self.next_token()? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Ok(Kind::Array(items));
                }
                other => return Err(unexpected(other, "after array element")),
            }
        }
    }

    fn literal(&mut self, word: &str, kind: Kind<'a>) -> Result<Kind<'a>, String> {
        for expected in word.bytes() {
            // Go ends an unfinished literal or number with a space of its own.
            let byte = self.peek().unwrap_or(b' ');
            if byte != expected {
                let context = format!("in literal {word} (expecting {})", quote_byte(expected));
                return Err(unexpected(byte, &context));
            }
            self.at += 1;
        }
        Ok(kind)
    }

    fn number(&mut self) -> Result<Kind<'a>, String> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits("in numeric literal")?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(Kind::Number(&self.text[start..self.at]))
    }

    /// One digit or more.
    fn digits(&mut self, context: &str) -> Result<(), String> {
        match self.peek().unwrap_or(b' ') {
            b'0'..=b'9' => {}
            other => return Err(unexpected(other, context)),
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<String, String> {
        self.at += 1;
        let mut decoded = String::new();
        loop {
            let plain = self.at;
            while self.peek().is_some_and(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
                self.at += 1;
            }
            decoded.push_str(&self.text[plain..self.at]);
            match self.peek().ok_or_else(end_of_input)? {
                b'"' => {
                    self.at += 1;
                    return Ok(decoded);
                }
                b'\\' => decoded.push(self.escape()?),
                control => return Err(unexpected(control, "in string literal")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        self.at += 1;
        let byte = self.peek().unwrap_or(b' ');
        self.at += 1;
        Ok(match byte {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'\\' | b'/' | b'"' => char::from(byte),
            b'u' => {
                let high = self.hex4()?;
                if !(0xd800..0xdc00).contains(&high) || !self.text[self.at..].starts_with("\\u") {
                    return Ok(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                let before_low = self.at;
                self.at += 2;
                let low = self.hex4()?;
                if !(0xdc00..0xe000).contains(&low) {
                    self.at = before_low;
                    return Ok(char::REPLACEMENT_CHARACTER);
                }
                let point = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            other => {
                self.at -= 1;
                return Err(unexpected(other, "in string escape code"));
            }
        })
    }

    fn hex4(&mut self) -> Result<u32, String> {
        let mut value = 0;
        for _ in 0..4 {
            let byte = self.peek().unwrap_or(b' ');
            let digit = char::from(byte).to_digit(16);
            let context = "in \\u hexadecimal character escape";
            value = value * 16 + digit.ok_or_else(|| unexpected(byte, context))?;
            self.at += 1;
        }
        Ok(value)
    }
}

fn end_of_input() -> String {
    "unexpected end of JSON input".to_owned()
}

fn unexpected(byte: u8, context: &str) -> String {
    format!("invalid character {} {context}", quote_byte(byte))
}

/// A byte as Go's scanner shows it: a byte above 0x7f is taken for the Latin-1 character of that number.
fn quote_byte(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        0x07 => r"'\a'".to_owned(),
        0x08 => r"'\b'".to_owned(),
        0x0b => r"'\v'".to_owned(),
        0x0c => r"'\f'".to_owned(),
        0x00..0x20 | 0x7f => format!(r"'\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!(r"'\u{byte:04x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}

/// Writes indented JSON: the caller opens and closes, the writer places commas, line ends and spaces.
#[derive(Debug)]
pub(super) struct Writer {
    text: String,
    indent: &'static str,
    depth: usize,
    /// Whether the innermost open object or list holds something already.
    has_items: bool,
}

impl Writer {
    /// A writer that indents each level by `indent`.
    pub(super) fn new(indent: &'static str) -> Self {
        Self { text: String::new(), indent, depth: 0, has_items: false }
    }

    /// The text written.
    pub(super) fn finish(self) -> String {
        self.text
    }

    /// Opens an object or a list.
    pub(super) fn open(&mut self, bracket: char) {
        self.text.push(bracket);
        self.depth += 1;
        self.has_items = false;
    }

    /// Closes what was opened last; empty ones stay on one line.
    pub(super) fn close(&mut self, bracket: char) {
        self.depth = self.depth.saturating_sub(1);
        if self.has_items {
            self.line();
        }
        self.text.push(bracket);
        self.has_items = true;
    }

    /// Starts the next item of a list.
    pub(super) fn item(&mut self) {
        if self.has_items {
            self.text.push(',');
        }
        self.line();
        self.has_items = true;
    }

    /// Starts the next entry of an object.
    pub(super) fn key(&mut self, key: &str) {
        self.item();
        self.text.push_str(&to_string(key));
        self.text.push_str(": ");
    }

    /// A string.
    pub(super) fn string(&mut self, text: &str) {
        self.text.push_str(&to_string(text));
    }

    /// Anything whose text is JSON already: numbers, booleans, null.
    pub(super) fn plain(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// A value kept from a file: indented anew, its numbers and strings as they were.
    pub(super) fn kept(&mut self, json: &Json<'_>) {
        match &json.kind {
            Kind::Array(items) => {
                self.open('[');
                for item in items {
                    self.item();
                    self.kept(item);
                }
                self.close(']');
            }
            Kind::Object(entries) => {
                self.open('{');
                for (key, value) in entries {
                    self.key(key);
                    self.kept(value);
                }
                self.close('}');
            }
            Kind::String(text) => self.string(text),
            Kind::Null | Kind::Bool(_) | Kind::Number(_) => self.text.push_str(json.raw),
        }
    }

    fn line(&mut self) {
        self.text.push('\n');
        for _ in 0..self.depth {
            self.text.push_str(self.indent);
        }
    }
}
