//! A tree as a tar archive: POSIX headers, with a PAX record in front where a header cannot hold a value.

use bytes::Bytes;
use futures::stream::{BoxStream, Stream};
use futures::{StreamExt as _, stream};

use super::Error;
use super::source::Source;
use super::unixfs::{self, Entry, EntryKind};

/// Archives are made of blocks of this size.
const BLOCK: usize = 512;
/// Largest number in twelve octal digits less one.
const MAX_OCTAL: u64 = 0o77_777_777_777;
/// Deepest tree that is packed.
const MAX_DEPTH: usize = 1024;

/// Packs what stands at `entry` under `name`. `now` is the time of files that say none.
pub(super) fn pack(
    source: Source,
    entry: Entry,
    name: Vec<u8>,
    now: i64,
) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
    let todo = vec![(entry.cid, name)];
    let body: Option<BoxStream<'static, Result<Bytes, Error>>> = None;
    let state = State { source, todo, body, padding: 0, is_done: false, now };
    stream::try_unfold(state, |mut state| async move {
        let piece = state.next().await?;
        Ok(piece.map(|piece| (piece, state)))
    })
}

struct State {
    source: Source,
    /// What is still to be packed, the next one last.
    todo: Vec<(cluster_compat::types::Cid, Vec<u8>)>,
    /// The file being packed.
    body: Option<BoxStream<'static, Result<Bytes, Error>>>,
    /// Zeros behind it.
    padding: usize,
    is_done: bool,
    now: i64,
}

impl State {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(body) = &mut self.body {
            if let Some(piece) = body.next().await {
                return piece.map(Some);
            }
            self.body = None;
            if self.padding > 0 {
                return Ok(Some(Bytes::from(vec![0; std::mem::take(&mut self.padding)])));
            }
        }
        let Some((cid, name)) = self.todo.pop() else {
            if self.is_done {
                return Ok(None);
            }
            self.is_done = true;
            return Ok(Some(Bytes::from(vec![0; 2 * BLOCK])));
        };
        let entry = unixfs::stat(&self.source, cid).await?;
        match &entry.kind {
            EntryKind::Directory => {
                if name.split(|byte| *byte == b'/').count() > MAX_DEPTH {
                    return Err(Error::message("the tree is nested too deep"));
                }
                let links = unixfs::list(&self.source, cid).await?.unwrap_or_default();
                for link in links.into_iter().rev() {
                    let is_plain = !link.name.is_empty()
                        && !link.name.contains(&b'/')
                        && link.name != b".."
                        && link.name != b".";
                    if !is_plain {
                        return Err(Error::message(format!(
                            "the entry {:?} of {cid} cannot be packed",
                            String::from_utf8_lossy(&link.name)
                        )));
                    }
                    self.todo.push((link.cid, [&name[..], b"/", &link.name].concat()));
                }
            }
            EntryKind::File => {
                self.padding = (BLOCK - (entry.size % BLOCK as u64) as usize) % BLOCK;
                self.body = Some(unixfs::bytes(self.source.clone(), cid, 0..entry.size).boxed());
            }
            EntryKind::Symlink(_) => {}
        }
        Ok(Some(Bytes::from(header(&entry, &name, self.now))))
    }
}

/// The header of an entry, with the record in front of it that it may need.
fn header(entry: &Entry, name: &[u8], now: i64) -> Vec<u8> {
    let (kind, mode, size, target) = match &entry.kind {
        EntryKind::Directory => (b'5', 0o777, 0, &[][..]),
        EntryKind::File => (b'0', 0o644, entry.size, &[][..]),
        EntryKind::Symlink(target) => (b'2', 0o777, 0, &target[..]),
    };
    let mut records = Vec::new();
    let mut record = |key: &str, value: &[u8]| {
        // a record begins with its own length
        let rest = key.len() + value.len() + 3;
        let mut len = rest + rest.to_string().len();
        if rest + len.to_string().len() != len {
            len = rest + len.to_string().len();
        }
        records.extend_from_slice(format!("{len} {key}=").as_bytes());
        records.extend_from_slice(value);
        records.push(b'\n');
    };
    if name.len() > 100 || !name.is_ascii() {
        record("path", name);
    }
    if target.len() > 100 || !target.is_ascii() {
        record("linkpath", target);
    }
    if size > MAX_OCTAL {
        record("size", size.to_string().as_bytes());
    }
    let mtime = entry.mtime.map_or(now, |(seconds, _)| seconds).max(0);
    let mut out = Vec::new();
    if !records.is_empty() {
        out.extend(ustar(b"PaxHeaders.0", b'x', 0o644, records.len() as u64, &[], mtime));
        out.extend_from_slice(&records);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    let mode = entry.mode.map_or(mode, |mode| mode & 0o7777);
    out.extend(ustar(name, kind, mode, size.min(MAX_OCTAL), target, mtime));
    out
}

fn ustar(name: &[u8], kind: u8, mode: u32, size: u64, target: &[u8], mtime: i64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, width: usize, bytes: &[u8]| {
        let len = bytes.len().min(width);
        header[at..at + len].copy_from_slice(&bytes[..len]);
    };
    put(0, 100, name);
    put(100, 8, format!("{mode:07o}").as_bytes());
    put(108, 8, b"0000000");
    put(116, 8, b"0000000");
    put(124, 12, format!("{size:011o}").as_bytes());
    put(136, 12, format!("{:011o}", mtime.min(MAX_OCTAL as i64)).as_bytes());
    put(148, 8, b"        ");
    put(156, 1, &[kind]);
    put(157, 100, target);
    put(257, 8, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}
