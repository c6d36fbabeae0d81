//! `url.Values`: how a query string is read and written.

/// A parsed query string. Pairs keep their order; the first value of a key counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads a raw query string (without `?`). Pairs with a raw `;` or a bad `%` escape are dropped; bytes that
    /// are not UTF-8 become U+FFFD.
    pub fn parse(raw: &str) -> Self {
        let pairs = raw
            .split('&')
            .filter(|pair| !pair.is_empty() && !pair.contains(';'))
            .filter_map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((unescape(key)?, unescape(value)?))
            })
            .collect();
        Self { pairs }
    }

    /// The first value of a key; `""` when absent.
    pub fn get(&self, key: &str) -> &str {
        self.pairs.iter().find(|(k, _)| k == key).map_or("", |(_, value)| value)
    }

    /// All values of a key, in order.
    pub fn get_all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// Whether a key is present, with any value.
    pub fn contains(&self, key: &str) -> bool {
        self.pairs.iter().any(|(k, _)| k == key)
    }

    /// Every pair, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Replaces all values of a key by one.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        let key = key.into();
        self.remove(&key);
        self.pairs.push((key, value.into()));
    }

    /// Adds a value to a key.
    pub fn add(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.pairs.push((key.into(), value.into()));
    }

    /// Removes all values of a key.
    pub fn remove(&mut self, key: &str) {
        self.pairs.retain(|(k, _)| k != key);
    }

    /// The query string with keys sorted, values of one key in their order.
    pub fn encode(&self) -> String {
        let mut pairs: Vec<_> = self.pairs.iter().collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        let mut out = String::new();
        for (key, value) in pairs {
            if !out.is_empty() {
                out.push('&');
            }
            out.push_str(&escape(key));
            out.push('=');
            out.push_str(&escape(value));
        }
        out
    }
}

/// `url.QueryEscape`: space becomes `+`, everything but letters, digits and `-_.~` becomes `%XX`.
pub fn escape(text: &str) -> String {
    escape_bytes(text.as_bytes(), true)
}

/// [`escape`] of bytes that need not be UTF-8: names of files.
pub fn escape_raw(bytes: &[u8]) -> String {
    escape_bytes(bytes, true)
}

/// `url.PathEscape`: as for one segment of a path.
pub fn path_escape(text: &str) -> String {
    escape_bytes(text.as_bytes(), false)
}

fn escape_bytes(bytes: &[u8], query: bool) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(bytes.len() + 8);
    for &byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b'$' | b'&' | b'+' | b'=' | b':' | b'@' if !query => out.push(char::from(byte)),
            b' ' if query => out.push('+'),
            _ => {
                out.push('%');
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
    out
}

/// `url.QueryUnescape`; `None` for a bad `%` escape. Bytes that are not UTF-8 become U+FFFD.
pub fn unescape(text: &str) -> Option<String> {
    Some(match String::from_utf8(unescape_bytes(text.as_bytes())?) {
        Ok(text) => text,
        Err(error) => lossy(error.as_bytes()),
    })
}

/// `url.QueryUnescape` on bytes; `None` for a bad `%` escape.
pub fn unescape_bytes(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'%' => {
                let high = char::from(*bytes.get(i + 1)?).to_digit(16)?;
                let low = char::from(*bytes.get(i + 2)?).to_digit(16)?;
                out.push((high * 16 + low) as u8);
                i += 3;
            }
            b'+' => {
                out.push(b' ');
                i += 1;
            }
            byte => {
                out.push(byte);
                i += 1;
            }
        }
    }
    Some(out)
}

/// Text of bytes, each invalid byte becoming one U+FFFD, as Go's JSON does it.
pub fn lossy(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_pairs_are_dropped_and_the_first_value_counts() {
        let query = Query::parse("a=1&a=2&b;c=3&d=%zz&e=%41+%2b&f&=g&&h=%ff%fe&i=%4");
        assert_eq!(query.get("a"), "1");
        assert_eq!(query.get_all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(query.get("e"), "A +");
        assert!(query.contains("f") && query.get("f").is_empty());
        assert_eq!(query.get(""), "g");
        assert_eq!(query.get("h"), "\u{fffd}\u{fffd}");
        assert!(
            !query.contains("d") && !query.contains("b;c") && !query.contains("c") && !query.contains("i")
        );
    }

    #[test]
    fn keys_are_written_sorted_and_escaped() {
        let mut query = Query::default();
        query.set("name", "a b&é~");
        query.set("meta-x/y", "");
        query.set("a", "1");
        query.set("a", "2,3");
        assert_eq!(query.encode(), "a=2%2C3&meta-x%2Fy=&name=a+b%26%C3%A9~");
        assert_eq!(Query::parse(&query.encode()).get("name"), "a b&é~");
    }
}
