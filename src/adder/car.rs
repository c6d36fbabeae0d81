//! CAR files: finished blocks that only need checking (spec: adder 15). Version 1, and the one inside a file of
//! version 2.
//!
//! A section is in memory as a whole, none is larger than 32 MiB; those being checked hold 16 MiB beside it at most.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::{Buf, Bytes, BytesMut};
use cluster_compat::api::{Entry, EntryKind, Upload};
use cluster_compat::types::{AddedOutput, Block, Cid};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::sink::Sink;
use super::{Error, decode, files, hash};

/// Longest header or section. (Go: `go-car/util`)
const MAX_SECTION_BYTES: u64 = 32 * 1024 * 1024;

/// Most roots of a file; each is pinned.
const MAX_ROOTS: usize = 16384;

/// The first bytes of version 2 after their length, in place of a header of version 1.
const PRAGMA: &[u8] = b"\xa1gversion\x02";

/// Bytes of the pragma and of the header behind it.
const V2_HEADER_END: u64 = 51;

/// Sections of these sizes are checked on a blocking thread: below, handing over costs more than it frees; above,
/// too many bytes would wait.
const CHECK_ELSEWHERE: std::ops::Range<usize> = 128 * 1024..4 * 1024 * 1024;

/// Sections that are being checked while the next is read.
const MAX_CHECKING: usize = 4;

/// Shortest digest that names data: fewer bytes name what anybody chooses, and daemons refuse them. (Go: boxo
/// `verifcid`)
const MIN_DIGEST_BYTES: u8 = 20;

/// What a section may be made of: dag-pb, raw, dag-cbor.
const DAG_PB: u64 = 0x70;
const RAW: u64 = 0x55;
const DAG_CBOR: u64 = 0x71;

/// Imports the first part of an upload; the others are not looked at. Gives the roots.
pub(super) async fn read(
    upload: &mut dyn Upload,
    sink: &mut Sink,
    outputs: &mpsc::Sender<AddedOutput>,
) -> Result<Vec<Cid>, Error> {
    let Some(entry) = upload.next_entry().await? else { return Err(Error::NoParts) };
    let name = name(&entry)?;
    let mut sections = Sections { upload, rest: Bytes::new(), left: None };
    let roots = sections.roots().await?;
    if sink.wants_roots_apart() && roots.len() > 1 {
        return Err(Error::NotSupported(format!("sharding a CAR file of {} roots", roots.len())));
    }
    let sizes = roots.iter().map(|root| (*root, 0)).collect();
    let mut blocks = Blocks { sink, sizes, n_bytes: 0, n: 0 };
    let mut checking = VecDeque::with_capacity(MAX_CHECKING);
    while let Some(section) = sections.next().await? {
        if checking.len() == MAX_CHECKING {
            blocks.put_oldest(&mut checking).await?;
        }
        checking.push_back(Checking::start(section));
    }
    while !checking.is_empty() {
        blocks.put_oldest(&mut checking).await?;
    }
    let Blocks { sizes, n_bytes, n, .. } = blocks;
    if n == 0 {
        return Err(Error::NoBlocks);
    }
    for root in &roots {
        sink.name_root(*root);
        let output = AddedOutput {
            name: name.clone(),
            cid: Some(*root),
            bytes: n_bytes,
            size: sizes.get(root).copied().unwrap_or_default(),
            allocations: sink.allocations(),
        };
        // A reader that left drops the import.
        let _ = outputs.send(output).await;
    }
    Ok(roots)
}

/// The blocks of a file, on their way to the sink.
struct Blocks<'a> {
    sink: &'a mut Sink,
    /// The size of the file each root is; 0 for other roots, and those whose block has not come.
    sizes: HashMap<Cid, u64>,
    n_bytes: u64,
    n: u64,
}

impl Blocks<'_> {
    async fn put_oldest(&mut self, checking: &mut VecDeque<Checking>) -> Result<(), Error> {
        let Some(oldest) = checking.pop_front() else { return Ok(()) };
        let block = oldest.finish().await?;
        if let Some(size) = self.sizes.get_mut(&block.cid) {
            *size = decode::file_size(&block);
        }
        self.n_bytes += block.data.len() as u64;
        self.n += 1;
        self.sink.put(block).await
    }
}

/// A section that is being checked.
enum Checking {
    Done(Result<Block, Error>),
    Elsewhere(JoinHandle<Result<Block, Error>>),
}

impl Checking {
    fn start(section: Bytes) -> Self {
        if CHECK_ELSEWHERE.contains(&section.len()) {
            Self::Elsewhere(tokio::task::spawn_blocking(move || check(section)))
        } else {
            Self::Done(check(section))
        }
    }

    async fn finish(self) -> Result<Block, Error> {
        match self {
            Self::Done(block) => block,
            Self::Elsewhere(task) => task.await.map_err(|_| Error::Interrupted)?,
        }
    }
}

/// The name of a part that is a file at the top; a link counts as an empty one.
fn name(entry: &Entry) -> Result<String, Error> {
    let path = files::clean(&entry.path)?;
    match (&path[..], &entry.kind) {
        ([_, _, ..], _) | (_, EntryKind::Directory) => {
            Err(Error::car("expected CAR file is not of type file"))
        }
        (_, EntryKind::Symlink(_)) => Err(Error::car("EOF")),
        (path, EntryKind::File) => Ok(files::text(&files::join(path.iter().map(Vec::as_slice)))),
    }
}

/// The block of a section: a CID and its bytes, which must belong together and be readable.
fn check(section: Bytes) -> Result<Block, Error> {
    let mut rest = &section[..];
    let cid = Cid::read_bytes(&mut rest).map_err(|error| Error::car(format!("invalid cid: {error}")))?;
    let data = section.slice(section.len() - rest.len()..);
    let n_bytes = cid.hash().size();
    if cid.hash().code() != hash::IDENTITY && n_bytes < MIN_DIGEST_BYTES {
        let text = format!("the digest of {cid} has {n_bytes} bytes, fewer than {MIN_DIGEST_BYTES}");
        return Err(Error::car(format!("invalid cid: {text}")));
    }
    let digest = hash::digest(cid.hash().code(), cid.hash().size(), &data)
        .ok_or_else(|| Error::NotSupported(format!("the hash function of block {cid}")))?;
    if digest != *cid.hash() {
        let found = Cid::new(cid.version(), cid.codec(), digest).unwrap_or(cid);
        let text = format!("mismatch in content integrity, name: {cid}, data: {found}");
        return Err(Error::car(text));
    }
    match cid.codec() {
        RAW => {}
        DAG_PB => decode::check_dag_pb(&data).map_err(Error::car)?,
        DAG_CBOR => decode::check_dag_cbor(&data).map_err(Error::car)?,
        code => {
            let text = format!("no decoder registered for multicodec code {code} ({code:#x})");
            return Err(Error::car(format!("could not choose a decoder: {text}")));
        }
    }
    Ok(Block { cid, data, is_spare: false })
}

/// A file read as sections of a length and that many bytes.
struct Sections<'a> {
    upload: &'a mut dyn Upload,
    rest: Bytes,
    /// Bytes that are still to come, where that is known.
    left: Option<u64>,
}

impl Sections<'_> {
    /// The roots the header names, each once.
    async fn roots(&mut self) -> Result<Vec<Cid>, Error> {
        let mut header = self.header().await?;
        if header == PRAGMA {
            self.enter_v2().await?;
            header = self.header().await?;
        }
        let header =
            decode::car_header(&header).map_err(|error| Error::car(format!("invalid header: {error}")))?;
        if header.version != 1 {
            return Err(Error::car(format!("invalid car version: {}", header.version)));
        }
        if header.roots.is_empty() {
            return Err(Error::car("empty car, no roots"));
        }
        let mut roots = Vec::new();
        let mut seen = HashSet::new();
        for root in header.roots {
            if seen.insert(root) {
                roots.push(root);
            }
        }
        if roots.len() > MAX_ROOTS {
            return Err(Error::car(format!("a CAR file of {} roots, more than {MAX_ROOTS}", roots.len())));
        }
        Ok(roots)
    }

    async fn header(&mut self) -> Result<Bytes, Error> {
        let Some(len) = self.length().await? else { return Err(Error::car("EOF")) };
        if len > MAX_SECTION_BYTES {
            return Err(Error::car("unexpected EOF"));
        }
        self.take(len as usize).await
    }

    /// After the pragma of version 2: goes to the file of version 1 inside, and ends with it. The index, which
    /// stands behind it or before it, is not read.
    async fn enter_v2(&mut self) -> Result<(), Error> {
        let mut header = self.take(V2_HEADER_END as usize - PRAGMA.len() - 1).await?;
        // what readers may expect of the index, which is no matter here
        header.advance(16);
        let (offset, size, index) = (header.get_u64_le(), header.get_u64_le(), header.get_u64_le());
        let bad = |text: String| Err(Error::car(format!("invalid header of CAR version 2: {text}")));
        if offset < V2_HEADER_END {
            return bad(format!("data offset {offset} is inside the header of {V2_HEADER_END} bytes"));
        }
        if size == 0 {
            return bad("data size is 0".into());
        }
        let Some(end) = offset.checked_add(size) else {
            return bad(format!("data offset {offset} and data size {size} are more than 64 bits hold"));
        };
        if index != 0 && (index < V2_HEADER_END || (offset..end).contains(&index)) {
            return bad(format!("index offset {index} is inside the header or the data"));
        }
        self.skip(offset - V2_HEADER_END).await?;
        let n = (self.rest.len() as u64).min(size);
        self.rest.truncate(n as usize);
        self.left = Some(size - n);
        Ok(())
    }

    /// The next section; one without bytes ends the file.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        match self.length().await? {
            None | Some(0) => Ok(None),
            Some(len) if len > MAX_SECTION_BYTES => {
                Err(Error::car(format!("a section has {len} bytes, more than {MAX_SECTION_BYTES}")))
            }
            Some(len) => self.take(len as usize).await.map(Some),
        }
    }

    /// A varint; `None` at the end of the file.
    async fn length(&mut self) -> Result<Option<u64>, Error> {
        let mut value = 0u64;
        for n in 0..10 {
            if self.rest.is_empty() && !self.fill().await? {
                // a file of known length ends there and not before
                let is_end = n == 0 && self.left.is_none_or(|left| left == 0);
                return if is_end { Ok(None) } else { Err(Error::car("unexpected EOF")) };
            }
            let byte = self.rest.get_u8();
            if n == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * n);
            if byte < 0x80 {
                return Ok(Some(value));
            }
        }
        Err(Error::car("binary: varint overflows a 64-bit integer"))
    }

    /// So many bytes.
    async fn take(&mut self, len: usize) -> Result<Bytes, Error> {
        if self.rest.len() >= len {
            return Ok(self.rest.split_to(len));
        }
        let mut taken = BytesMut::with_capacity(len.min(CHECK_ELSEWHERE.end));
        while taken.len() < len {
            if self.rest.is_empty() && !self.fill().await? {
                return Err(Error::car("unexpected EOF"));
            }
            let n = self.rest.len().min(len - taken.len());
            taken.extend_from_slice(&self.rest[..n]);
            self.rest.advance(n);
        }
        Ok(taken.freeze())
    }

    /// Passes over so many bytes.
    async fn skip(&mut self, mut len: u64) -> Result<(), Error> {
        while len > 0 {
            if self.rest.is_empty() && !self.fill().await? {
                return Err(Error::car("unexpected EOF"));
            }
            let n = (self.rest.len() as u64).min(len);
            self.rest.advance(n as usize);
            len -= n;
        }
        Ok(())
    }

    /// The next piece that is not empty; `false` at the end of the file.
    async fn fill(&mut self) -> Result<bool, Error> {
        while self.rest.is_empty() {
            if self.left == Some(0) {
                return Ok(false);
            }
            match self.upload.read().await? {
                Some(piece) => self.rest = piece,
                None => return Ok(false),
            }
            if let Some(left) = &mut self.left {
                let n = (self.rest.len() as u64).min(*left);
                self.rest.truncate(n as usize);
                *left -= n;
            }
        }
        Ok(true)
    }
}
