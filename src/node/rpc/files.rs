//! `cat`, `get`, `ls`.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cluster_compat::go::time::Time;
use cluster_compat::types::Cid;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{Stream, StreamExt as _, stream};
use serde::Serialize;

use super::super::ipld::pb::PbLink;
use super::super::source::Source;
use super::super::unixfs::{self, Entry, EntryKind};
use super::super::{Core, Error, path, tar};
use super::answer::{Answer, Failure};
use super::call::{Call, Encoder};
use super::refs::async_rows;

/// Entries of one directory that are looked at together.
const AHEAD: usize = 16;

/// What a path leads to: a whole block.
async fn entry(source: &Source, text: &str) -> Result<Entry, Failure> {
    let resolved = path::resolve(source, &path::parse(text)?).await?;
    if !resolved.remainder.is_empty() {
        return Err(Failure::new("got unixfs node with remaining path"));
    }
    Ok(unixfs::stat(source, resolved.cid).await?)
}

/// `cat`.
pub(super) async fn cat(core: Arc<Core>, mut call: Call) -> Result<Answer, Failure> {
    let source = core.source(call.is_offline());
    let offset = call.number("offset").unwrap_or(0);
    if offset < 0 {
        return Err(Failure::new("cannot specify negative offset"));
    }
    if call.number("length").is_some_and(|length| length < 0) {
        return Err(Failure::new("cannot specify negative length"));
    }
    let mut offset = offset.unsigned_abs();
    let mut left = call.number("length").map_or(u64::MAX, i64::unsigned_abs);
    let mut files = Vec::new();
    let mut length = 0;
    for arg in call.take_args().await? {
        if left == 0 {
            break;
        }
        let entry = entry(&source, &arg).await?;
        match entry.kind {
            EntryKind::File => {}
            EntryKind::Directory => return Err(Failure::new("this dag node is a directory")),
            // what it says is its content
            EntryKind::Symlink(_) => {}
        }
        if offset > entry.size {
            offset -= entry.size;
            continue;
        }
        let start = std::mem::take(&mut offset);
        let len = (entry.size - start).min(left);
        left -= len;
        length += len;
        files.push((entry, start..start + len));
    }
    let pieces = stream::iter(files)
        .flat_map(move |(entry, range)| match entry.kind {
            EntryKind::Symlink(target) => {
                let cut = target.get(range.start as usize..range.end as usize).unwrap_or_default().to_vec();
                stream::iter([Ok(Bytes::from(cut))]).boxed()
            }
            _ => unixfs::bytes(source.clone(), entry.cid, range).boxed(),
        })
        .map(|piece| piece.map_err(Failure::from));
    // an empty file has a head too
    let pieces = pieces.chain(stream::iter([]));
    Ok(Answer::Bytes("text/plain", Some(length), pieces.boxed()))
}

/// `get`: a tar archive, or a file or archive packed.
pub(super) async fn get(core: Arc<Core>, mut call: Call) -> Result<Answer, Failure> {
    let source = core.source(call.is_offline());
    let (archives, compresses) = (call.is("archive"), call.is("compress"));
    let level = call.number("compression-level").unwrap_or(if compresses { 6 } else { 0 });
    if compresses && !(1..=9).contains(&level) {
        return Err(Failure::new("compression level must be between 1 and 9"));
    }
    let is_packed = compresses;
    let arg = call.take_args().await?.into_iter().next().unwrap_or_default();
    let entry = entry(&source, &arg).await?;
    let name = arg.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    let size = entry.total;
    let pieces = if is_packed && !archives {
        if entry.kind != EntryKind::File {
            return Err(Failure::new("file is not regular"));
        }
        unixfs::bytes(source, entry.cid, 0..entry.size).boxed()
    } else {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
        tar::pack(source, entry, name.into_bytes(), now).boxed()
    };
    let pieces = pieces.map(|piece| piece.map_err(Failure::from));
    if !is_packed {
        return Ok(Answer::Bytes("application/x-tar", Some(size), pieces.boxed()));
    }
    let level = Compression::new(u32::try_from(level).unwrap_or(6));
    Ok(Answer::Bytes("application/gzip", Some(size), gzip(pieces, level).boxed()))
}

/// Packs a stream piece by piece.
fn gzip(
    pieces: impl Stream<Item = Result<Bytes, Failure>> + Send + Unpin + 'static,
    level: Compression,
) -> impl Stream<Item = Result<Bytes, Failure>> + Send + 'static {
    let state = (pieces, Some(GzEncoder::new(Vec::new(), level)));
    stream::try_unfold(state, |(mut pieces, mut encoder)| async move {
        let failed = |cause: std::io::Error| Failure::new(cause.to_string());
        while let Some(open) = &mut encoder {
            match pieces.next().await {
                Some(piece) => {
                    open.write_all(&piece?).map_err(failed)?;
                    let packed = std::mem::take(open.get_mut());
                    if !packed.is_empty() {
                        return Ok(Some((Bytes::from(packed), (pieces, encoder))));
                    }
                }
                None => {
                    let packed = match encoder.take() {
                        Some(encoder) => encoder.finish().map_err(failed)?,
                        None => Vec::new(),
                    };
                    return Ok(Some((Bytes::from(packed), (pieces, None))));
                }
            }
        }
        Ok(None)
    })
}

#[derive(Serialize)]
struct Listing {
    #[serde(rename = "Objects")]
    objects: Vec<Object>,
}

#[derive(Serialize)]
struct Object {
    #[serde(rename = "Hash")]
    hash: String,
    #[serde(rename = "Links")]
    links: Vec<LsLink>,
}

#[derive(Serialize)]
struct LsLink {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Hash")]
    hash: String,
    #[serde(rename = "Size")]
    size: u64,
    /// 0 not known, 1 directory, 2 file, 4 link. (unixfs types)
    #[serde(rename = "Type")]
    kind: i32,
    #[serde(rename = "Target")]
    target: String,
    #[serde(rename = "Mode")]
    mode: u32,
    #[serde(rename = "ModTime")]
    mod_time: Time,
}

/// `ls`.
pub(super) async fn ls(core: Arc<Core>, mut call: Call) -> Result<Answer, Failure> {
    let source = core.source(call.is_offline());
    let resolves = call.is("resolve-type") || call.is("size");
    let (encoder, streams) = (call.encoder()?, call.is("stream"));
    let args = call.take_args().await?;
    if streams {
        let rows = async_rows(move |rows| async move {
            for arg in &args {
                for link in links_of(&source, arg).await? {
                    let link = look(&source, link, resolves, encoder).await?;
                    let listing = Listing { objects: vec![Object { hash: arg.clone(), links: vec![link] }] };
                    if rows.send(Ok(listing)).await.is_err() {
                        return Ok(());
                    }
                }
            }
            Ok(())
        });
        return Ok(Answer::many(rows));
    }
    let mut objects = Vec::with_capacity(args.len());
    for arg in args {
        let links = links_of(&source, &arg).await?;
        let looks = links.into_iter().map(|link| look(&source, link, resolves, encoder));
        let mut looks = stream::iter(looks).buffered(AHEAD);
        let mut links = Vec::new();
        while let Some(link) = looks.next().await {
            links.push(link?);
        }
        drop(looks);
        links.sort_by(|one, other| one.name.cmp(&other.name));
        objects.push(Object { hash: arg, links });
    }
    Ok(Answer::one(&Listing { objects }))
}

/// The entries of a directory; those of a file are its parts, without names.
async fn links_of(source: &Source, text: &str) -> Result<Vec<PbLink>, Failure> {
    let resolved = path::resolve(source, &path::parse(text)?).await?;
    match unixfs::list(source, resolved.cid).await? {
        Some(links) => Ok(links),
        None => Ok(parts(source, resolved.cid).await?),
    }
}

async fn parts(source: &Source, cid: Cid) -> Result<Vec<PbLink>, Error> {
    use super::super::ipld::{DAG_PB, pb::Node};
    if cid.codec() != DAG_PB {
        source.size(cid).await?;
        return Ok(Vec::new());
    }
    let block = source.block(cid).await?;
    Ok(Node::decode(&block).map_err(Error::message)?.links)
}

async fn look(source: &Source, link: PbLink, resolves: bool, encoder: Encoder) -> Result<LsLink, Failure> {
    let mut row = LsLink {
        name: String::from_utf8_lossy(&link.name).into_owned(),
        hash: encoder.text(&link.cid),
        size: 0,
        kind: 0,
        target: String::new(),
        mode: 0,
        mod_time: Time::ZERO,
    };
    if !resolves {
        return Ok(row);
    }
    let entry = unixfs::stat(source, link.cid).await?;
    row.mode = entry.mode.unwrap_or(0) & 0o777;
    if let Some((seconds, nanos)) = entry.mtime {
        row.mod_time = Time::from_unix(seconds, nanos);
    }
    match entry.kind {
        EntryKind::File => (row.kind, row.size) = (2, entry.size),
        EntryKind::Directory => row.kind = 1,
        EntryKind::Symlink(target) => {
            (row.kind, row.size) = (4, entry.size);
            row.target = String::from_utf8_lossy(&target).into_owned();
        }
    }
    Ok(row)
}
