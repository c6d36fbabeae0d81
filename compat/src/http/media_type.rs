//! `type/subtype; key=value` as Go's `mime.ParseMediaType` reads it, parameter values as bytes.

use std::collections::BTreeMap;

/// A content type or a content disposition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MediaType {
    /// The part before the parameters, in lower case.
    pub essence: String,
    params: BTreeMap<String, Vec<u8>>,
}

impl MediaType {
    /// A parameter by its lower-case name.
    pub(super) fn param(&self, name: &str) -> Option<&[u8]> {
        self.params.get(name).map(Vec::as_slice)
    }
}

const INVALID_PARAMETER: &str = "mime: invalid media parameter";

/// Parses; the error is Go's text.
pub(super) fn parse(text: &[u8]) -> Result<MediaType, &'static str> {
    let semicolon = text.iter().position(|byte| *byte == b';').unwrap_or(text.len());
    let essence = text[..semicolon].trim_ascii().to_ascii_lowercase();
    check_essence(&essence)?;
    let mut params = BTreeMap::new();
    let mut rest = &text[semicolon..];
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            break;
        }
        let Some((key, value, after)) = parameter(rest) else {
            // a final semicolon is forgiven
            if rest.trim_ascii() == b";" {
                break;
            }
            return Err(INVALID_PARAMETER);
        };
        let (key, value) = match key.strip_suffix('*') {
            Some(key) => match extended(&value) {
                Some(value) => (key.to_string(), value),
                None => (String::new(), value),
            },
            None => (key, value),
        };
        if !key.is_empty() && params.insert(key, value).is_some() {
            return Err("mime: duplicate parameter name");
        }
        rest = after;
    }
    // tokens are ASCII
    Ok(MediaType { essence: essence.into_iter().map(char::from).collect(), params })
}

fn check_essence(text: &[u8]) -> Result<(), &'static str> {
    let (kind, rest) = token(text);
    if kind.is_empty() {
        return Err("mime: no media type");
    }
    if rest.is_empty() {
        return Ok(());
    }
    let Some(rest) = rest.strip_prefix(b"/") else { return Err("mime: expected slash after first token") };
    match token(rest) {
        ([], _) => Err("mime: expected token after slash"),
        (_, []) => Ok(()),
        _ => Err("mime: unexpected content after media subtype"),
    }
}

/// One `; key=value`, and what follows it.
fn parameter(text: &[u8]) -> Option<(String, Vec<u8>, &[u8])> {
    let rest = text.strip_prefix(b";")?.trim_ascii_start();
    let (key, rest) = token(rest);
    if key.is_empty() {
        return None;
    }
    let rest = rest.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let (value, rest) = value(rest)?;
    Some((String::from_utf8_lossy(key).to_ascii_lowercase(), value, rest))
}

fn value(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(mut rest) = text.strip_prefix(b"\"") else {
        let (value, rest) = token(text);
        return if value.is_empty() { None } else { Some((value.to_vec(), rest)) };
    };
    let mut value = Vec::new();
    loop {
        let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | b'\r' | b'\n'));
        let (start, after) = rest.split_at(plain.unwrap_or(rest.len()));
        value.extend_from_slice(start);
        rest = after;
        match rest {
            [b'"', after @ ..] => return Some((value, after)),
            // only what has to be escaped; a backslash before a letter is one of a Windows path
            [b'\\', escaped, after @ ..] if is_special(*escaped) => {
                value.push(*escaped);
                rest = after;
            }
            [b'\r' | b'\n', ..] | [] => return None,
            [byte, after @ ..] => {
                value.push(*byte);
                rest = after;
            }
        }
    }
}

/// `charset'language'percent-encoded` of RFC 2231, in UTF-8 or ASCII.
fn extended(value: &[u8]) -> Option<Vec<u8>> {
    let mut pieces = value.splitn(3, |byte| *byte == b'\'');
    let (charset, _, text) = (pieces.next()?, pieces.next()?, pieces.next()?);
    let is_known = charset.eq_ignore_ascii_case(b"utf-8") || charset.eq_ignore_ascii_case(b"us-ascii");
    is_known.then(|| percent_encoding::percent_decode(text).collect())
}

fn token(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !is_token(*byte)).unwrap_or(text.len());
    text.split_at(end)
}

fn is_token(byte: u8) -> bool {
    byte > b' ' && byte < 0x7f && !is_special(byte)
}

fn is_special(byte: u8) -> bool {
    b"()<>@,;:\\\"/[]?=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_parameters_are_read_as_go_does() {
        let parsed = parse(b"Form-Data; name=\"file\"; FileName=\"a\\\"b\\c\";").unwrap();
        assert_eq!(parsed.essence, "form-data");
        assert_eq!(parsed.param("filename"), Some(&b"a\"b\\c"[..]));
        assert_eq!(parse(b"a/b; x*=UTF-8''na%C3%AFve").unwrap().param("x"), Some("naïve".as_bytes()));
        assert_eq!(parse(b"a/b; x=\"\xff\"").unwrap().param("x"), Some(&b"\xff"[..]));
        assert_eq!(parse(b";;").unwrap_err(), "mime: no media type");
        assert_eq!(parse(b"a/").unwrap_err(), "mime: expected token after slash");
        assert_eq!(parse(b"a/b c").unwrap_err(), "mime: unexpected content after media subtype");
        assert_eq!(parse(b"a/b; boundary=").unwrap_err(), INVALID_PARAMETER);
        assert_eq!(parse(b"a/b; x=1; x=2").unwrap_err(), "mime: duplicate parameter name");
    }
}
