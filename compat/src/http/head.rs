//! A request head as Go's net/http reads it, before hyper sees it.
//!
//! [`read`] decides three things about a complete head: whether it is refused and with which bytes, how the
//! body that follows is framed, and what hyper is given instead. hyper gets the same head with a `TE: trailers`
//! line more (so that it sends trailers) and with those bytes of the target escaped that its URI type refuses
//! and Go's accepts.

use bytes::{Bytes, BytesMut};

/// The line given to hyper with each HTTP/1.1 head; the first `te` value of a request is ours.
const TE_LINE: &[u8] = b"TE: trailers\r\n";

/// Most header lines of a request; with [`TE_LINE`] they are what hyper has places for at no cost. The limit on bytes is
/// usually met before.
const MAX_LINES: usize = 99;

/// How the body after a head is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// This many bytes.
    Length(u64),
    /// Chunked coding.
    Chunked,
}

/// A head that may go on to hyper.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// What hyper is given.
    pub bytes: BytesMut,
    /// How its body ends.
    pub framing: Framing,
    /// Whether it asks to change protocols.
    pub upgrade: bool,
    /// The request target, where hyper is given another one.
    pub raw_target: Option<Bytes>,
}

/// Why a head is refused: the words after the status code, which are also the body, unless that is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    status: &'static str,
    body: Option<&'static str>,
}

/// A head that is no HTTP.
pub(super) const BAD_REQUEST: Refusal = Refusal { status: "400 Bad Request", body: None };
/// A head above the limit.
pub(super) const TOO_LARGE: Refusal = Refusal { status: "431 Request Header Fields Too Large", body: None };
const NO_HOST: Refusal = Refusal { status: "400 Bad Request: missing required Host header", body: None };
const BAD_NAME: Refusal = Refusal { status: "400 Bad Request: invalid header name", body: None };
const BAD_VALUE: Refusal = Refusal { status: "400 Bad Request: invalid header value", body: None };
const BAD_VERSION: Refusal =
    Refusal { status: "505 HTTP Version Not Supported: unsupported protocol version", body: None };
const BAD_ENCODING: Refusal =
    Refusal { status: "501 Not Implemented", body: Some("Unsupported transfer encoding") };

impl Refusal {
    /// The bytes on the wire, after which the connection closes.
    pub(super) fn to_bytes(self) -> Bytes {
        let body = self.body.unwrap_or(self.status);
        let status = self.status;
        Bytes::from(format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n{body}"
        ))
    }
}

/// Where the head at the start of `input` ends, if it does; `scanned` bytes are known to hold no end.
pub(super) fn end_of_head(input: &[u8], scanned: usize) -> Option<usize> {
    let mut at = scanned.saturating_sub(3);
    while let Some(found) = input[at..].iter().position(|byte| *byte == b'\n') {
        let lf = at + found;
        match &input[lf + 1..] {
            [b'\n', ..] => return Some(lf + 2),
            [b'\r', b'\n', ..] => return Some(lf + 3),
            _ => at = lf + 1,
        }
        // an empty first line is a head of its own, and no request
        if lf == 0 || (lf == 1 && input[0] == b'\r') {
            return Some(lf + 1);
        }
    }
    None
}

/// Reads a complete head, its final empty line included.
pub(super) fn read(head: &[u8]) -> Result<Head, Refusal> {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let request_line = lines.next().unwrap_or_default();
    let (method, rest) = split_at_space(request_line)?;
    let (target, version) = split_at_space(rest)?;
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Err(BAD_REQUEST);
    }
    let minor = match version {
        b"HTTP/1.1" => 1,
        b"HTTP/1.0" => 0,
        [b'H', b'T', b'T', b'P', b'/', major @ b'0'..=b'9', b'.', b'0'..=b'9'] if *major != b'1' => {
            return Err(BAD_VERSION);
        }
        _ => return Err(BAD_REQUEST),
    };
    check_target(method, target)?;

    let mut hosts = 0;
    let mut length: Option<u64> = None;
    let mut encodings = 0;
    let mut upgrade = method == b"CONNECT";
    for (n, line) in lines.take_while(|line| !line.is_empty()).enumerate() {
        if n == MAX_LINES {
            return Err(TOO_LARGE);
        }
        let colon = line.iter().position(|byte| *byte == b':').ok_or(BAD_REQUEST)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err(if name.first().is_none_or(u8::is_ascii_whitespace) {
                BAD_REQUEST
            } else {
                BAD_NAME
            });
        }
        if value.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
            return Err(BAD_VALUE);
        }
        if name.eq_ignore_ascii_case(b"host") {
            hosts += 1;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let this = parse_length(value)?;
            if length.is_some_and(|length| length != this) {
                return Err(BAD_REQUEST);
            }
            length = Some(this);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            encodings += 1;
            if encodings > 1 || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(BAD_ENCODING);
            }
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            upgrade = true;
        }
    }
    if hosts > 1 {
        return Err(BAD_REQUEST);
    }
    if minor == 1 && hosts == 0 {
        return Err(NO_HOST);
    }
    if minor == 0 && encodings > 0 {
        return Err(BAD_REQUEST);
    }

    let framing = if encodings > 0 { Framing::Chunked } else { Framing::Length(length.unwrap_or(0)) };
    let escaped = escape_target(target);
    let raw_target = escaped.as_ref().map(|_| Bytes::copy_from_slice(target));
    let mut bytes = BytesMut::with_capacity(head.len() + TE_LINE.len() + 64);
    bytes.extend_from_slice(method);
    bytes.extend_from_slice(b" ");
    bytes.extend_from_slice(escaped.as_deref().unwrap_or(target));
    bytes.extend_from_slice(b" ");
    bytes.extend_from_slice(version);
    bytes.extend_from_slice(b"\r\n");
    if minor == 1 {
        bytes.extend_from_slice(TE_LINE);
    }
    let first_line = head.iter().position(|byte| *byte == b'\n').map_or(head.len(), |lf| lf + 1);
    bytes.extend_from_slice(&head[first_line..]);
    Ok(Head { bytes, framing, upgrade, raw_target })
}

fn split_at_space(text: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let space = text.iter().position(|byte| *byte == b' ').ok_or(BAD_REQUEST)?;
    Ok((&text[..space], &text[space + 1..]))
}

/// The characters of methods and header names.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Digits alone, and few enough: 2^63 - 1 is the most Go takes.
fn parse_length(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(BAD_REQUEST);
    }
    let text = std::str::from_utf8(value).map_err(|_| BAD_REQUEST)?;
    let length = text.parse::<u64>().map_err(|_| BAD_REQUEST)?;
    if length > i64::MAX as u64 { Err(BAD_REQUEST) } else { Ok(length) }
}

/// What Go's URL parser accepts as a request target: `*`, a path, an absolute URL; whole escapes in the path.
fn check_target(method: &[u8], target: &[u8]) -> Result<(), Refusal> {
    if target.is_empty() || target.iter().any(|byte| *byte < b' ' || *byte == 0x7f) {
        return Err(BAD_REQUEST);
    }
    if target == b"*" || method == b"CONNECT" {
        return Ok(());
    }
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let is_absolute = path.split(|byte| *byte == b':').next().is_some_and(|scheme| {
        scheme.first().is_some_and(u8::is_ascii_alphabetic)
            && scheme.len() < path.len()
            && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
    }) && path.windows(3).any(|window| window == b"://");
    if path.first() != Some(&b'/') && !is_absolute {
        return Err(BAD_REQUEST);
    }
    let mut rest = path;
    while let Some(percent) = rest.iter().position(|byte| *byte == b'%') {
        match &rest[percent + 1..] {
            [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest = &rest[percent + 3..]
            }
            _ => return Err(BAD_REQUEST),
        }
    }
    Ok(())
}

/// The target with those bytes escaped that `http::Uri` refuses or cuts off (`#`), or `None` if there are none.
fn escape_target(target: &[u8]) -> Option<Vec<u8>> {
    let is_plain =
        |byte: u8| matches!(byte, b'!' | b'$'..=b';' | b'=' | b'?'..=b'[' | b']' | b'_' | b'a'..=b'z' | b'~');
    if target.iter().all(|byte| is_plain(*byte)) {
        return None;
    }
    let mut escaped = Vec::with_capacity(target.len() + 16);
    for byte in target {
        if is_plain(*byte) {
            escaped.push(*byte);
        } else {
            escaped.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    Some(escaped)
}

/// Follows a chunked body, so that its end is known; the decoding itself is hyper's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunks {
    /// In a size line; the digits so far.
    Size(u64),
    /// Behind the size, before the line feed.
    Extension(u64),
    /// In the data; bytes left, the line end after them included.
    Data(u64),
    /// In the trailer section; whether the line so far is empty.
    Trailer(bool),
    /// Behind the last line.
    Done,
}

impl Chunks {
    /// Before the first size line.
    pub(super) const START: Self = Self::Size(0);

    /// Reads on in `bytes` until they or the body end; how many belong to the body.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            match self {
                Self::Done => break,
                Self::Data(left) => {
                    let step = (bytes.len() - at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= step as u64;
                    at += step;
                    if *left == 0 {
                        *self = Self::Size(0);
                    }
                    continue;
                }
                Self::Size(size) => match (byte as char).to_digit(16) {
                    Some(digit) => *size = size.saturating_mul(16).saturating_add(u64::from(digit)),
                    None if byte == b'\n' => *self = Self::after_size(*size),
                    None => *self = Self::Extension(*size),
                },
                Self::Extension(size) => {
                    if byte == b'\n' {
                        *self = Self::after_size(*size);
                    }
                }
                Self::Trailer(is_empty) => match byte {
                    b'\n' if *is_empty => *self = Self::Done,
                    b'\n' => *self = Self::Trailer(true),
                    b'\r' => {}
                    _ => *self = Self::Trailer(false),
                },
            }
            at += 1;
        }
        at
    }

    fn after_size(size: u64) -> Self {
        // data is followed by CR LF; hyper refuses anything else and the connection ends there
        if size == 0 { Self::Trailer(true) } else { Self::Data(size.saturating_add(2)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(head: &str) -> String {
        let error = read(head.as_bytes()).expect_err(head);
        String::from_utf8(error.to_bytes().to_vec()).unwrap().lines().next().unwrap().to_string()
    }

    #[test]
    fn a_head_gets_the_te_line_and_keeps_its_own() {
        let head = read(b"GET /id?a HTTP/1.1\r\nHost: x\r\nTE: gzip\r\n\r\n").unwrap();
        assert_eq!(&head.bytes[..], b"GET /id?a HTTP/1.1\r\nTE: trailers\r\nHost: x\r\nTE: gzip\r\n\r\n");
        assert_eq!((head.framing, head.upgrade, head.raw_target), (Framing::Length(0), false, None));
    }

    #[test]
    fn what_hyper_refuses_in_a_target_is_escaped() {
        let head = read(b"GET /pins/a<b>#c?x=\"y\" HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert!(head.bytes.starts_with(b"GET /pins/a%3Cb%3E%23c?x=%22y%22 HTTP/1.1\r\n"));
        assert_eq!(head.raw_target.as_deref(), Some(&b"/pins/a<b>#c?x=\"y\""[..]));
    }

    #[test]
    fn bad_heads_are_refused_as_go_does() {
        let bad = "HTTP/1.1 400 Bad Request";
        assert_eq!(refused("\r\n"), bad);
        assert_eq!(refused("GET  /id HTTP/1.1\r\nHost: x\r\n\r\n"), bad);
        assert_eq!(refused("G@T /id HTTP/1.1\r\nHost: x\r\n\r\n"), bad);
        assert_eq!(refused("GET id HTTP/1.1\r\nHost: x\r\n\r\n"), bad);
        assert_eq!(refused("GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n"), bad);
        assert_eq!(refused("GET /id HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"), bad);
        assert_eq!(refused("GET /id HTTP/1.1\r\nHost: x\r\nnocolon\r\n\r\n"), bad);
        assert_eq!(refused("POST /id HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"), bad);
        assert_eq!(
            refused("POST /id HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
            bad
        );
        assert_eq!(
            refused("GET /id HTTP/1.1\r\n\r\n"),
            "HTTP/1.1 400 Bad Request: missing required Host header"
        );
        assert_eq!(
            refused("GET /id HTTP/1.1\r\nHost: x\r\na b: c\r\n\r\n"),
            "HTTP/1.1 400 Bad Request: invalid header name"
        );
        assert_eq!(
            refused("GET /id HTTP/2.0\r\nHost: x\r\n\r\n"),
            "HTTP/1.1 505 HTTP Version Not Supported: unsupported protocol version"
        );
        assert_eq!(
            refused("POST /id HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n"),
            "HTTP/1.1 501 Not Implemented"
        );
    }

    #[test]
    fn heads_of_too_many_lines_are_refused() {
        let head = |n: usize| format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(n - 1));
        assert!(read(head(MAX_LINES).as_bytes()).is_ok());
        assert_eq!(refused(&head(MAX_LINES + 1)), "HTTP/1.1 431 Request Header Fields Too Large");
    }

    #[test]
    fn the_end_of_a_head_is_found_wherever_the_reads_end() {
        let input = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nrest";
        for scanned in 0..input.len() - 4 {
            assert_eq!(end_of_head(input, scanned.min(26)), Some(27));
        }
        assert_eq!(end_of_head(&input[..26], 0), None);
        assert_eq!(end_of_head(b"GET / HTTP/1.1\nHost: x\n\nrest", 0), Some(24));
        assert_eq!(end_of_head(b"\r\nGET", 0), Some(2));
    }

    #[test]
    fn a_chunked_body_ends_where_it_ends_byte_by_byte() {
        let body = b"5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\nX-A: b\r\n\r\n";
        let mut input = body.to_vec();
        input.extend_from_slice(b"GET / HTTP/1.1");
        let mut chunks = Chunks::START;
        assert_eq!(chunks.advance(&input), body.len());
        assert_eq!(chunks, Chunks::Done);
        let mut chunks = Chunks::START;
        let taken: usize = input.iter().map(|byte| chunks.advance(&[*byte])).sum();
        assert_eq!(taken, body.len());
    }
}
