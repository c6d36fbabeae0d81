//! Uploads: the files of a multipart body, as Go's `mime/multipart` and boxo's `files` read them (spec: adder 5).
//!
//! [`Multipart`] yields entries in the order of their parts. It holds the head of one part, or one piece of a
//! body, never more; names and targets may be any bytes. What the parts form is the importer's business.
//!
//! A part that is none (no disposition that can be read, or a body that ends in the first head) is a
//! [`BadRequest`](crate::api::ErrorKind::BadRequest), all else that goes wrong an internal error with Go's text.

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap};
use http_body::Body;
use http_body_util::BodyExt;
use memchr::memmem::Finder;
use tokio::sync::oneshot;

use super::media_type;
use super::mux::clean_bytes;
use crate::api::{Entry, EntryKind, Error, Result, Upload};

/// Longest line between parts (Go: the size of its buffer).
const MAX_LINE: usize = 4096;
/// Longest head of a part: a path of 4096 bytes, escaped, a few times over.
const MAX_PART_HEAD: usize = 256 << 10;
/// Longest target of a symbolic link; systems stop at 4096.
const MAX_TARGET: usize = 64 << 10;

/// The request says that it is no multipart form. (Go: net/http `ErrNotMultipart`)
pub const NOT_MULTIPART: &str = "request Content-Type isn't multipart/form-data";
/// It is one but does not say what separates its parts. (Go: net/http `ErrMissingBoundary`)
pub const NO_BOUNDARY: &str = "no multipart boundary param in Content-Type";
/// What is read at the end of a body that does not end with its last boundary.
const CUT: &str = "multipart: NextPart: EOF";

/// The files of a multipart body.
pub struct Multipart<B> {
    body: B,
    /// Bytes read and not yet used.
    buffer: Bytes,
    is_ended: bool,
    /// `--boundary`.
    dash_boundary: Vec<u8>,
    /// Line end and `--boundary`: what ends a part.
    delimiter: Finder<'static>,
    /// `\r\n`, or `\n` if the first boundary line ends so.
    line_end: &'static [u8],
    n_parts: u64,
    place: Place,
    started: Option<oneshot::Sender<()>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before a boundary line.
    Between,
    /// In a part; whether nothing of its body was read yet.
    Part { is_fresh: bool },
    /// Behind the last boundary.
    End,
}

/// Completes when the first entry of an upload was found, so that an answer can wait for it.
pub type Started = oneshot::Receiver<()>;

impl<B> Multipart<B>
where
    B: Body<Data = Bytes> + Unpin + Send,
{
    /// Reads `body` as the headers of its request say; the error is [`NOT_MULTIPART`] or [`NO_BOUNDARY`].
    pub fn new(headers: &HeaderMap, body: B) -> std::result::Result<(Self, Started), &'static str> {
        let content_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
        let parsed = media_type::parse(content_type).map_err(|_| NOT_MULTIPART)?;
        if !matches!(&parsed.essence[..], "multipart/form-data" | "multipart/mixed") {
            return Err(NOT_MULTIPART);
        }
        let boundary = parsed.param("boundary").ok_or(NO_BOUNDARY)?;
        let dash_boundary = [b"--", boundary].concat();
        let (started, when_started) = oneshot::channel();
        let multipart = Self {
            body,
            buffer: Bytes::new(),
            is_ended: false,
            delimiter: Finder::new(&[b"\r\n", &dash_boundary[..]].concat()).into_owned(),
            dash_boundary,
            line_end: b"\r\n",
            n_parts: 0,
            place: Place::Between,
            started: Some(started),
        };
        Ok((multipart, when_started))
    }

    /// Reads one more piece of the body; whether there was one.
    async fn fill(&mut self) -> Result<bool> {
        while !self.is_ended {
            let Some(frame) = self.body.frame().await else {
                self.is_ended = true;
                break;
            };
            // the sender went away; Go's server says the same
            let frame = frame.map_err(|_| Error::internal("unexpected EOF"))?;
            let Ok(data) = frame.into_data() else { continue };
            if data.is_empty() {
                continue;
            }
            self.buffer = if self.buffer.is_empty() {
                data
            } else {
                // in place where there is room, so that a head in single bytes is not copied for each of them
                let mut joined = std::mem::take(&mut self.buffer)
                    .try_into_mut()
                    .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
                joined.extend_from_slice(&data);
                joined.freeze()
            };
            return Ok(true);
        }
        Ok(false)
    }

    /// A line with its end, or what is left at the end of the body. `limit` bounds it.
    async fn line(&mut self, limit: usize) -> Result<Bytes> {
        let mut searched = 0;
        loop {
            let found = memchr::memchr(b'\n', &self.buffer[searched..]).map(|at| searched + at);
            if let Some(at) = found.filter(|at| *at <= limit) {
                return Ok(self.buffer.split_to(at + 1));
            }
            searched = self.buffer.len();
            // the same however the body is cut
            if searched > limit {
                return Err(Error::internal("multipart: NextPart: bufio: buffer full"));
            }
            if !self.fill().await? {
                return Ok(std::mem::take(&mut self.buffer));
            }
        }
    }

    /// Goes behind the next boundary line; `false` is the end of the form.
    async fn next_part(&mut self) -> Result<bool> {
        if let Place::Part { .. } = self.place {
            while self.read_part().await?.is_some() {}
        }
        if self.place == Place::End {
            return Ok(false);
        }
        let mut expects_part = false;
        loop {
            let line = self.line(MAX_LINE).await?;
            if !line.ends_with(b"\n") {
                if self.is_final(&line) {
                    self.place = Place::End;
                    return Ok(false);
                }
                return Err(Error::internal(CUT));
            }
            if self.is_boundary(&line) {
                self.n_parts += 1;
                self.place = Place::Part { is_fresh: true };
                return Ok(true);
            }
            if self.is_final(&line) {
                self.place = Place::End;
                return Ok(false);
            }
            if expects_part {
                let line = quoted(&line);
                return Err(Error::internal(format!("multipart: expecting a new Part; got line {line}")));
            }
            // before the first boundary anything may stand
            if self.n_parts == 0 {
                continue;
            }
            if line == self.line_end {
                expects_part = true;
                continue;
            }
            return Err(Error::internal(format!("multipart: unexpected line in Next(): {}", quoted(&line))));
        }
    }

    fn is_boundary(&mut self, line: &[u8]) -> bool {
        let Some(rest) = line.strip_prefix(&self.dash_boundary[..]) else { return false };
        let rest = trim_blanks(rest);
        if self.n_parts == 0 && rest == b"\n" {
            // some senders end lines with a line feed alone
            self.line_end = b"\n";
            self.delimiter = Finder::new(&[b"\n", &self.dash_boundary[..]].concat()).into_owned();
        }
        rest == self.line_end
    }

    fn is_final(&self, line: &[u8]) -> bool {
        line.strip_prefix(&self.dash_boundary[..])
            .and_then(|rest| rest.strip_prefix(b"--"))
            .map(trim_blanks)
            .is_some_and(|rest| rest.is_empty() || rest == self.line_end)
    }

    /// The headers of the part that begins here.
    async fn part_head(&mut self) -> Result<PartHead> {
        let mut head = PartHead::default();
        let mut length = 0;
        loop {
            let line = self.line(MAX_PART_HEAD).await?;
            length += line.len();
            if length > MAX_PART_HEAD {
                return Err(Error::internal("multipart: message too large"));
            }
            if !line.ends_with(b"\n") {
                return Err(match self.n_parts {
                    1 => Error::bad_request("multipart: the body ends in the head of its first part"),
                    _ => Error::internal(CUT),
                });
            }
            let line = line.trim_ascii_end();
            if line.is_empty() {
                return Ok(head);
            }
            let Some(colon) = memchr::memchr(b':', line) else {
                let line = quoted(line);
                return Err(Error::internal(format!("malformed MIME header: missing colon: {line}")));
            };
            head.add(&line[..colon], line[colon + 1..].trim_ascii());
        }
    }

    /// The next piece of the current part, or `None` behind it.
    async fn read_part(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Place::Part { is_fresh } = self.place else { return Ok(None) };
            // an empty body may have no line end of its own
            if is_fresh {
                let n = self.dash_boundary.len();
                while self.buffer.len() < n + 2 && self.dash_boundary.starts_with(head_of(&self.buffer, n)) {
                    if !self.fill().await? {
                        break;
                    }
                }
                self.place = Place::Part { is_fresh: false };
                if self.buffer.starts_with(&self.dash_boundary) && self.ends_here(n) == Some(true) {
                    self.place = Place::Between;
                    return Ok(None);
                }
            }
            match self.split() {
                Split::Data(n) => return Ok(Some(self.buffer.split_to(n))),
                Split::End => {
                    self.place = Place::Between;
                    return Ok(None);
                }
                Split::More => {
                    if !self.fill().await? && self.buffer.is_empty() {
                        self.place = Place::Between;
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// What the start of the buffer is, within a part.
    fn split(&self) -> Split {
        let delimiter = self.delimiter.needle();
        let mut from = 0;
        while let Some(found) = self.delimiter.find(&self.buffer[from..]) {
            let at = from + found;
            match self.ends_here(at + delimiter.len()) {
                Some(true) if at == 0 => return Split::End,
                None if at == 0 => return Split::More,
                Some(true) | None => return Split::Data(at),
                Some(false) => from = at + 1,
            }
        }
        if self.is_ended {
            return if self.buffer.is_empty() { Split::More } else { Split::Data(self.buffer.len()) };
        }
        // the end of the buffer may be the start of a delimiter
        let tail = self.buffer.len().saturating_sub(delimiter.len() - 1).max(from);
        let keep = (tail..self.buffer.len()).find(|at| delimiter.starts_with(&self.buffer[*at..]));
        match keep.unwrap_or(self.buffer.len()) {
            0 => Split::More,
            n => Split::Data(n),
        }
    }

    /// Whether a boundary ends at `at` of the buffer; `None` if that is not known yet.
    fn ends_here(&self, at: usize) -> Option<bool> {
        match &self.buffer[at..] {
            [] => self.is_ended.then_some(true),
            [b' ' | b'\t' | b'\r' | b'\n', ..] | [b'-', b'-', ..] => Some(true),
            [b'-'] => self.is_ended.then_some(false),
            _ => Some(false),
        }
    }
}

enum Split {
    /// So many bytes are data.
    Data(usize),
    /// The part ends.
    End,
    /// Too few bytes to tell.
    More,
}

fn head_of(bytes: &[u8], n: usize) -> &[u8] {
    &bytes[..bytes.len().min(n)]
}

fn trim_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &text[blanks..]
}

fn quoted(line: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(line))
}

/// The headers of a part that matter.
#[derive(Default)]
struct PartHead {
    disposition: Option<Vec<u8>>,
    content_type: Option<Vec<u8>>,
    abspath: Option<Vec<u8>>,
    abspath_encoded: Option<Vec<u8>>,
}

impl PartHead {
    fn add(&mut self, name: &[u8], value: &[u8]) {
        let slot = match &name.to_ascii_lowercase()[..] {
            b"content-disposition" => &mut self.disposition,
            b"content-type" => &mut self.content_type,
            b"abspath" => &mut self.abspath,
            b"abspath-encoded" => &mut self.abspath_encoded,
            _ => return,
        };
        slot.get_or_insert_with(|| value.to_vec());
    }

    /// Path, kind and `abspath`; the target of a link is filled in by the caller.
    fn entry(&self) -> Result<Entry> {
        let kind = match self.essence()?.as_deref() {
            Some("multipart/form-data" | "application/x-directory") => EntryKind::Directory,
            Some("application/symlink") => EntryKind::Symlink(Vec::new()),
            _ => EntryKind::File,
        };
        let disposition =
            media_type::parse(self.disposition.as_deref().unwrap_or_default()).map_err(|error| {
                Error::bad_request(format!(
                    "multipart: a part has no Content-Disposition that can be read: {error}"
                ))
            })?;
        let name = disposition.param("filename").unwrap_or_default();
        let name = unescape(name).unwrap_or_else(|_| name.to_vec());
        let mut path = clean_bytes(&[b"/", &name[..]].concat());
        if path.ends_with(b"/") {
            path.pop();
        }
        let path = path.get(1..).unwrap_or_default().to_vec();
        Ok(Entry { path, kind, abspath: self.abspath()? })
    }

    fn essence(&self) -> Result<Option<String>> {
        match self.content_type.as_deref() {
            // what nearly every part says needs no reading
            None | Some([] | b"application/octet-stream") => Ok(None),
            Some(text) => media_type::parse(text).map(|parsed| Some(parsed.essence)).map_err(Error::internal),
        }
    }

    fn abspath(&self) -> Result<Option<String>> {
        let path = match (&self.abspath_encoded, &self.abspath) {
            (Some(encoded), _) if !encoded.is_empty() => unescape(encoded).map_err(Error::internal)?,
            (_, Some(plain)) if !plain.is_empty() => plain.clone(),
            _ => return Ok(None),
        };
        Ok(Some(String::from_utf8_lossy(&path).into_owned()))
    }
}

/// Undoes query escaping; the error is Go's text.
fn unescape(text: &[u8]) -> std::result::Result<Vec<u8>, String> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => plain.push(b' '),
            b'%' => {
                let digits = head_of(after, 2);
                let value =
                    std::str::from_utf8(digits).ok().filter(|hex| hex.len() == 2 && !hex.starts_with('+'));
                let Some(value) = value.and_then(|hex| u8::from_str_radix(hex, 16).ok()) else {
                    let bad = [b"%", digits].concat();
                    return Err(format!("invalid URL escape {}", quoted(&bad)));
                };
                plain.push(value);
                rest.advance(2);
            }
            byte => plain.push(*byte),
        }
    }
    Ok(plain)
}

#[async_trait]
impl<B> Upload for Multipart<B>
where
    B: Body<Data = Bytes> + Unpin + Send,
{
    async fn next_entry(&mut self) -> Result<Option<Entry>> {
        if !self.next_part().await? {
            return Ok(None);
        }
        let head = self.part_head().await?;
        let mut entry = head.entry()?;
        if let EntryKind::Symlink(target) = &mut entry.kind {
            while let Some(piece) = self.read_part().await? {
                target.extend_from_slice(&piece);
                if target.len() > MAX_TARGET {
                    let path = String::from_utf8_lossy(&entry.path).into_owned();
                    return Err(Error::bad_request(format!("the target of link {path} is too long")));
                }
            }
        }
        if let Some(started) = self.started.take() {
            // nobody may wait for it
            let _ = started.send(());
        }
        Ok(Some(entry))
    }

    async fn read(&mut self) -> Result<Option<Bytes>> {
        self.read_part().await
    }
}

#[cfg(test)]
mod tests;
