//! `dag/export` and `dag/import`: DAGs as CAR files.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use cluster_compat::api::{self, EntryKind, Upload as _};
use cluster_compat::types::{Block, Cid};
use futures::{Stream, StreamExt as _, stream};
use serde::Serialize;

use super::super::ipld::{self, Value};
use super::super::pins::{self, Progress};
use super::super::repo::{Pin, PinKind};
use super::super::source::{Source, blocking};
use super::super::{Core, Error};
use super::answer::{Answer, Failure};
use super::block::check_size;
use super::call::{Call, Files};
use super::pin::root_of;
use super::refs::async_rows;

/// Longest header or section. (Go: `go-car/v2`, `DefaultMaxAllowedSectionSize`)
const MAX_SECTION_BYTES: u64 = 8 << 20;
/// Bytes of blocks that are written together.
const BATCH_BYTES: usize = 8 << 20;
/// What a CAR of version 2 begins with.
const V2_PRAGMA: [u8; 11] = [0x0a, 0xa1, 0x67, b'v', b'e', b'r', b's', b'i', b'o', b'n', 0x02];
/// Length of the header of version 2 behind it.
const V2_HEADER: u64 = 40;

/// `dag/export`.
pub(super) async fn export(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let is_local = call.is("local-only");
    let source = core.source(call.is_offline() || is_local);
    let root = root_of(&source, &call.args[0]).await?;
    let pieces = write(source, root, is_local, true).map(|piece| piece.map_err(Failure::from));
    Ok(Answer::Bytes("application/vnd.ipld.car", None, pieces.boxed()))
}

/// A DAG as CAR version 1, depth first, each block once. `skips` leaves out what is missing; `repeats_inline` writes
/// blocks that their CIDs hold too, as Kubo's `dag/export` does and its gateway does not.
pub(in crate::node) fn write(
    source: Source,
    root: Cid,
    skips: bool,
    repeats_inline: bool,
) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
    let state = (source, vec![root], HashSet::new());
    let header = stream::iter([Ok(section(&header(&root), &[]))]);
    header.chain(stream::try_unfold(state, move |(source, mut todo, mut seen)| async move {
        while let Some(cid) = todo.pop() {
            if !seen.insert(cid) {
                continue;
            }
            let block = match source.block(cid).await {
                Ok(block) => block,
                Err(Error::NotFound(_)) if skips => continue,
                Err(cause) => return Err(cause),
            };
            let links = ipld::links(&cid, &block).map_err(Error::message)?;
            todo.extend(links.into_iter().rev().map(|link| link.cid));
            if cid.hash().code() == 0 && !repeats_inline {
                // it holds its block itself
                continue;
            }
            let piece = section(&cid.to_bytes(), &block);
            return Ok(Some((piece, (source, todo, seen))));
        }
        Ok(None)
    }))
}

fn header(root: &Cid) -> Vec<u8> {
    ipld::encode_cbor(&Value::Map(vec![
        ("roots".into(), Value::List(vec![Value::Link(*root)])),
        ("version".into(), Value::Int(1)),
    ]))
}

/// A length and that many bytes.
fn section(head: &[u8], body: &[u8]) -> Bytes {
    let mut buffer = unsigned_varint::encode::u64_buffer();
    let length = unsigned_varint::encode::u64((head.len() + body.len()) as u64, &mut buffer);
    let mut out = BytesMut::with_capacity(length.len() + head.len() + body.len());
    out.extend_from_slice(length);
    out.extend_from_slice(head);
    out.extend_from_slice(body);
    out.freeze()
}

#[derive(Serialize, Default)]
struct Imported {
    #[serde(rename = "Root", skip_serializing_if = "Option::is_none")]
    root: Option<Root>,
    #[serde(rename = "Stats", skip_serializing_if = "Option::is_none")]
    stats: Option<Stats>,
}

#[derive(Serialize)]
struct Root {
    #[serde(rename = "Cid")]
    cid: Link,
    #[serde(rename = "PinErrorMsg")]
    pin_error: String,
}

#[derive(Serialize)]
struct Link {
    #[serde(rename = "/")]
    cid: String,
}

#[derive(Serialize, Default, Clone, Copy)]
struct Stats {
    #[serde(rename = "BlockCount")]
    n_blocks: u64,
    #[serde(rename = "BlockBytesCount")]
    n_bytes: u64,
}

/// `dag/import`.
pub(super) async fn import(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let (pins_roots, is_local) = (call.maybe("pin-roots"), call.is("local-only"));
    if is_local && pins_roots == Some(true) {
        return Err(Failure::new(
            "--local-only implies --pin-roots=false and cannot be combined with --pin-roots=true; please drop one of \
             them",
        ));
    }
    let pins_roots = pins_roots.unwrap_or(true) && !is_local;
    let (shows_stats, allows_big) = (call.is("stats"), call.is("allow-big-block"));
    let lease = core.repo.leases().hold(None);
    let source = core.source(true);
    let mut reader = Reader { files: call.files()?, rest: Bytes::new() };
    let rows = async_rows(move |rows| async move {
        let _lease = lease;
        let mut roots: Vec<Cid> = Vec::new();
        let mut stats = Stats::default();
        while reader.next_file().await? {
            let found = one(&mut reader, &source, allows_big, &mut stats).await?;
            for root in found {
                if !roots.contains(&root) {
                    roots.push(root);
                }
            }
        }
        if pins_roots {
            for cid in roots {
                let pin = Pin { kind: PinKind::Recursive, name: String::new() };
                let done = pins::pin(&source, cid, pin, Arc::new(Progress::default())).await;
                let pin_error = done.err().map(|cause| cause.to_string()).unwrap_or_default();
                let pin_error = pin_error.strip_prefix("pin: ").unwrap_or(&pin_error).to_owned();
                if pin_error.is_empty() {
                    core.provide(&[cid]);
                }
                let root = Root { cid: Link { cid: cid.to_string() }, pin_error };
                if rows.send(Ok(Imported { root: Some(root), stats: None })).await.is_err() {
                    return Ok(());
                }
            }
        }
        if shows_stats {
            let _ = rows.send(Ok(Imported { root: None, stats: Some(stats) })).await;
        }
        Ok(())
    });
    Ok(Answer::many(rows))
}

/// Imports one CAR; gives its roots.
async fn one(
    reader: &mut Reader,
    source: &Source,
    allows_big: bool,
    stats: &mut Stats,
) -> Result<Vec<Cid>, Failure> {
    let roots = reader.header().await?;
    let mut previous: Option<Cid> = None;
    let mut batch: Vec<Block> = Vec::new();
    let mut n_bytes = 0;
    loop {
        let next = reader.block().await.map_err(|cause| match previous {
            Some(cid) => Failure::new(format!("import failed after block \"{cid}\": {cause}")),
            None => Failure::new(format!("import failed: {cause}")),
        })?;
        let is_end = next.is_none();
        if let Some(block) = next {
            if let Err(words) = check(&block) {
                let place = previous.map_or_else(String::new, |cid| format!(" after block \"{cid}\""));
                return Err(Failure::new(format!("import failed{place}: {words}")));
            }
            check_size(allows_big, block.data.len())
                .and_then(|()| ipld::links(&block.cid, &block.data).map(drop).map_err(Failure::new))
                .map_err(|cause| {
                    Failure::new(format!("import failed at block \"{}\": {cause}", block.cid))
                })?;
            stats.n_blocks += 1;
            stats.n_bytes += block.data.len() as u64;
            n_bytes += block.data.len();
            previous = Some(block.cid);
            batch.push(block);
        }
        if is_end || n_bytes >= BATCH_BYTES {
            let (repo, blocks) = (source.repo().clone(), std::mem::take(&mut batch));
            n_bytes = 0;
            blocking(move || repo.put(&blocks)).await?;
        }
        if is_end {
            return Ok(roots);
        }
    }
}

/// Whether a block is what its CID says.
fn check(block: &Block) -> Result<(), String> {
    let (cid, hash) = (block.cid, block.cid.hash());
    match crate::adder::digest(hash.code(), hash.size(), &block.data) {
        Some(digest) if digest == *hash => Ok(()),
        Some(digest) => {
            let found = Cid::new(cid.version(), cid.codec(), digest).unwrap_or(cid);
            Err(format!("mismatch in content integrity, expected: {cid}, got: {found}"))
        }
        None => Err(super::text::no_such_hash(hash.code())),
    }
}

/// The files of a form, read as CARs.
struct Reader {
    files: Files,
    rest: Bytes,
}

impl Reader {
    async fn next_file(&mut self) -> Result<bool, Failure> {
        let entry = self.files.next_entry().await.map_err(failed)?;
        self.rest.clear();
        match entry {
            None => Ok(false),
            Some(entry) if entry.kind == EntryKind::File => Ok(true),
            Some(_) => Err(Failure::new("expected a file handle")),
        }
    }

    /// Reads until there are `len` bytes, or the end.
    async fn fill(&mut self, len: usize) -> Result<bool, Failure> {
        while self.rest.len() < len {
            let Some(piece) = self.files.read().await.map_err(failed)? else { return Ok(false) };
            self.rest = if self.rest.is_empty() {
                piece
            } else {
                let mut joined = BytesMut::with_capacity(self.rest.len() + piece.len().max(len));
                joined.extend_from_slice(&self.rest);
                joined.extend_from_slice(&piece);
                joined.freeze()
            };
        }
        Ok(true)
    }

    /// The length of the next section; `None` at the end.
    async fn length(&mut self) -> Result<Option<usize>, Failure> {
        for n in 1..=10 {
            if !self.fill(n).await? {
                return if self.rest.is_empty() { Ok(None) } else { Err(Failure::new("unexpected EOF")) };
            }
            if self.rest[n - 1] < 0x80 {
                let (length, _) = unsigned_varint::decode::u64(&self.rest[..n])
                    .map_err(|cause| Failure::new(cause.to_string()))?;
                if length > MAX_SECTION_BYTES {
                    return Err(Failure::new(
                        "invalid section data, length of read beyond allowable maximum",
                    ));
                }
                self.rest.advance(n);
                return Ok(Some(length as usize));
            }
        }
        Err(Failure::new("varints larger than uint63 not supported"))
    }

    async fn take(&mut self, len: usize) -> Result<Bytes, Failure> {
        if !self.fill(len).await? {
            return Err(Failure::new("unexpected EOF"));
        }
        Ok(self.rest.split_to(len))
    }

    /// The roots that the header names. Of version 2 only the part of version 1 is read.
    async fn header(&mut self) -> Result<Vec<Cid>, Failure> {
        if self.fill(V2_PRAGMA.len()).await? && self.rest.starts_with(&V2_PRAGMA) {
            self.take(V2_PRAGMA.len()).await?;
            let header = self.take(V2_HEADER as usize).await?;
            let offset = header.get(16..24).and_then(|bytes| bytes.first_chunk::<8>());
            let offset = offset.map_or(0, |bytes| u64::from_le_bytes(*bytes));
            let read = V2_PRAGMA.len() as u64 + V2_HEADER;
            let mut skipped = offset.saturating_sub(read);
            while skipped > 0 {
                if !self.fill(1).await? {
                    return Err(Failure::new("unexpected EOF"));
                }
                let len = skipped.min(self.rest.len() as u64);
                self.rest.advance(len as usize);
                skipped -= len;
            }
        }
        let length = self.length().await?.ok_or_else(|| Failure::new("EOF"))?;
        let header = self.take(length).await?;
        let value = ipld::decode_cbor(&header, true)
            .map_err(|cause| Failure::new(format!("invalid header: {cause}")))?;
        match value.step("version") {
            Some(Value::Int(1)) => {}
            _ => return Err(Failure::new("invalid car version")),
        }
        let mut roots = Vec::new();
        if let Some(list) = value.step("roots") {
            list.links(&mut roots);
        }
        Ok(roots)
    }

    /// The next block; `None` at the end.
    async fn block(&mut self) -> Result<Option<Block>, Failure> {
        let Some(length) = self.length().await? else { return Ok(None) };
        if length == 0 {
            // zeros at the end are padding
            return Ok(None);
        }
        let section = self.take(length).await?;
        let mut rest = &section[..];
        let cid =
            Cid::read_bytes(&mut rest).map_err(|cause| Failure::new(format!("invalid cid: {cause}")))?;
        let data = section.slice(section.len() - rest.len()..);
        Ok(Some(Block { cid, data, is_spare: false }))
    }
}

fn failed(cause: api::Error) -> Failure {
    Failure::new(cause.message)
}
