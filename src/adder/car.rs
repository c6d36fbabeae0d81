//! CAR files: finished blocks that only need checking (spec: adder 15).

use bytes::{Buf, Bytes, BytesMut};
use cluster_compat::api::{Entry, EntryKind, Upload};
use cluster_compat::types::{AddedOutput, Block, Cid};
use tokio::sync::mpsc;

use super::sink::Sink;
use super::{Error, decode, files, hash};

/// Longest header or section. (Go: `go-car/util`)
const MAX_SECTION_BYTES: u64 = 32 * 1024 * 1024;

/// What a section may be made of: dag-pb, raw, dag-cbor.
const DAG_PB: u64 = 0x70;
const RAW: u64 = 0x55;
const DAG_CBOR: u64 = 0x71;

/// Imports the first part of an upload; the others are not looked at. Gives the root.
pub(super) async fn read(
    upload: &mut dyn Upload,
    sink: &mut Sink,
    outputs: &mpsc::Sender<AddedOutput>,
) -> Result<Vec<Cid>, Error> {
    let Some(entry) = upload.next_entry().await? else { return Err(Error::NoParts) };
    let name = name(&entry)?;
    let mut sections = Sections { upload, rest: Bytes::new() };
    let root = sections.root().await?;
    let mut output = AddedOutput { name, cid: Some(root), ..AddedOutput::default() };
    let mut n_blocks = 0;
    while let Some(section) = sections.next().await? {
        let block = check(section)?;
        if block.cid == root {
            output.size = decode::file_size(&block);
        }
        output.bytes += block.data.len() as u64;
        n_blocks += 1;
        sink.put(block).await?;
    }
    if n_blocks == 0 {
        return Err(Error::NoBlocks);
    }
    output.allocations = sink.allocations();
    // A reader that left drops the import.
    let _ = outputs.send(output).await;
    sink.name_root(root);
    Ok(vec![root])
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
}

impl Sections<'_> {
    /// The root a header names.
    async fn root(&mut self) -> Result<Cid, Error> {
        let Some(len) = self.length().await? else { return Err(Error::car("EOF")) };
        if len > MAX_SECTION_BYTES {
            return Err(Error::car("unexpected EOF"));
        }
        let header = self.take(len as usize).await?;
        let header =
            decode::car_header(&header).map_err(|error| Error::car(format!("invalid header: {error}")))?;
        if header.version != 1 {
            return Err(Error::car(format!("invalid car version: {}", header.version)));
        }
        match header.roots[..] {
            [] => Err(Error::car("empty car, no roots")),
            [root] => Ok(root),
            _ => Err(Error::car("only CAR files with a single root are supported")),
        }
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
                return if n == 0 { Ok(None) } else { Err(Error::car("unexpected EOF")) };
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
        let mut taken = BytesMut::new();
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

    /// The next piece that is not empty; `false` at the end of the file.
    async fn fill(&mut self) -> Result<bool, Error> {
        while self.rest.is_empty() {
            match self.upload.read().await? {
                Some(piece) => self.rest = piece,
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}
