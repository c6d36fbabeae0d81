//! `block/*`.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cluster_compat::api::{self, EntryKind, Upload};
use cluster_compat::types::{Block, Cid};
use futures::{StreamExt as _, stream};
use serde::Serialize;

use super::super::lease::Lease;
use super::super::pins::{self, Progress};
use super::super::repo::{Pin, PinKind};
use super::super::source::{Source, blocking};
use super::super::{Core, Error};
use super::answer::{Answer, Failure};
use super::call::{Call, Encoder, Files};
use super::pin::root_of;
use super::text;

/// Largest block that others can get. (Go: `cmdutils.SoftBlockLimit`)
const SOFT_LIMIT: usize = 2 << 20;
/// Largest block at all: what is larger has to be cut by whoever makes it.
const HARD_LIMIT: usize = 64 << 20;

#[derive(Serialize)]
struct Stat {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "Size")]
    size: u64,
}

/// `block/get`.
pub(super) async fn get(core: Arc<Core>, mut call: Call) -> Result<Answer, Failure> {
    let source = core.source(call.is_offline());
    let arg = call.take_args().await?.into_iter().next().unwrap_or_default();
    let cid = root_of(&source, &arg).await?;
    let block = source.block(cid).await?;
    let length = None;
    Ok(Answer::Bytes("application/vnd.ipld.raw", length, stream::iter([Ok(block)]).boxed()))
}

/// `block/stat`.
pub(super) async fn stat(core: Arc<Core>, mut call: Call) -> Result<Answer, Failure> {
    let source = core.source(call.is_offline());
    let encoder = call.encoder()?;
    let arg = call.take_args().await?.into_iter().next().unwrap_or_default();
    let cid = root_of(&source, &arg).await?;
    let size = source.size(cid).await?;
    Ok(Answer::one(&Stat { key: encoder.text(&cid), size }))
}

/// How blocks of a call are named.
struct Naming {
    /// Version 0 where the old `format=v0` asks for it.
    is_v0: bool,
    codec: u64,
    hash: u64,
    length: Option<u8>,
}

impl Naming {
    fn of(call: &Call) -> Result<Self, Failure> {
        let hash_name = match call.text("mhtype") {
            "" => "sha2-256",
            name => name,
        };
        let hash = text::hash_code(hash_name)
            .ok_or_else(|| Failure::new(format!("unrecognized multihash function: {hash_name}")))?;
        let length = call.number("mhlen").filter(|length| *length >= 0);
        let length = length.map(|length| u8::try_from(length).unwrap_or(u8::MAX));
        let (format, codec) = (call.text("format"), call.text("cid-codec"));
        if !format.is_empty() && !codec.is_empty() && codec != "raw" {
            return Err(Failure::new(
                "unable to use \"format\" (deprecated) and a custom \"cid-codec\" at the same time",
            ));
        }
        let name = match format {
            "" => codec,
            "v0" => {
                if hash != text::SHA2_256 || length.is_some_and(|length| length != 32) {
                    return Err(Failure::new("only sha2-255-32 is allowed with CIDv0"));
                }
                return Ok(Self { is_v0: true, codec: super::super::ipld::DAG_PB, hash, length: None });
            }
            "protobuf" => "dag-pb",
            "cbor" => "dag-cbor",
            other => other,
        };
        let codec =
            text::codec_code(name).ok_or_else(|| Failure::new(format!("unknown multicodec: {name:?}")))?;
        Ok(Self { is_v0: false, codec, hash, length })
    }

    fn name(&self, data: &[u8]) -> Result<Cid, Failure> {
        let whole = crate::adder::digest(self.hash, u8::MAX, data);
        let natural = text::natural_length(self.hash, data)
            .ok_or_else(|| Failure::new(text::no_such_hash(self.hash)))?;
        let length = self.length.unwrap_or(natural);
        if length > natural {
            return Err(Failure::new("invalid cid: requested length was too large for digest"));
        }
        if length < text::MIN_DIGEST && self.hash != 0 {
            return Err(Failure::new(format!(
                "digest too small: {} digest got {length} bytes, minimum {}",
                text::hash_name(self.hash),
                text::MIN_DIGEST
            )));
        }
        let hash = whole
            .filter(|_| self.hash == 0)
            .or_else(|| crate::adder::digest(self.hash, length, data))
            .ok_or_else(|| Failure::new(text::no_such_hash(self.hash)))?;
        if self.is_v0 {
            return Cid::new_v0(hash).map_err(|cause| Failure::new(cause.to_string()));
        }
        Ok(Cid::new_v1(self.codec, hash))
    }
}

/// The size check of what is made here.
pub(super) fn check_size(call_allows: bool, size: usize) -> Result<(), Failure> {
    if !call_allows && size > SOFT_LIMIT {
        return Err(Failure::new(
            "produced block is over 2MiB: big blocks can't be exchanged with other peers. consider using UnixFS for \
             automatic chunking of bigger files, or pass --allow-big-block to override",
        ));
    }
    Ok(())
}

/// `block/put`: each block is answered when it is on disk.
pub(super) async fn put(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let naming = Naming::of(&call)?;
    let put = Put {
        naming,
        encoder: call.encoder()?,
        allows_big: call.is("allow-big-block"),
        pins: call.is("pin"),
        lease: core.repo.leases().hold(None),
        source: core.source(true),
        core: Arc::clone(&core),
        files: call.files()?,
    };
    Ok(Answer::many(stream::try_unfold(put, |mut put| async move {
        Ok(put.next().await?.map(|stat| (stat, put)))
    })))
}

struct Put {
    core: Arc<Core>,
    source: Source,
    naming: Naming,
    encoder: Encoder,
    allows_big: bool,
    pins: bool,
    lease: Lease,
    files: Files,
}

impl Put {
    async fn next(&mut self) -> Result<Option<Stat>, Failure> {
        let Some(data) = next_file(&mut self.files).await? else { return Ok(None) };
        let cid = self.naming.name(&data)?;
        check_size(self.allows_big, data.len())?;
        let size = data.len() as u64;
        let (repo, block) = (self.source.repo().clone(), Block { cid, data, is_spare: false });
        blocking(move || repo.put(&[block])).await?;
        if self.pins {
            let pin = Pin { kind: PinKind::Recursive, name: String::new() };
            pins::pin(&self.source, cid, pin, Arc::new(Progress::default())).await?;
        }
        self.core.stored(&[cid]);
        let _ = &self.lease;
        Ok(Some(Stat { key: self.encoder.text(&cid), size }))
    }
}

/// The next file of a form, whole.
pub(super) async fn next_file(files: &mut Files) -> Result<Option<Bytes>, Failure> {
    let failed = |cause: api::Error| Failure::new(cause.message);
    let Some(entry) = files.next_entry().await.map_err(failed)? else { return Ok(None) };
    if entry.kind != EntryKind::File {
        return Err(Failure::new("expected a file"));
    }
    let mut data = BytesMut::new();
    while let Some(piece) = files.read().await.map_err(failed)? {
        if data.len() + piece.len() > HARD_LIMIT {
            return Err(Failure::new(format!("block has more than {HARD_LIMIT} bytes")));
        }
        data.extend_from_slice(&piece);
    }
    Ok(Some(data.freeze()))
}

#[derive(Serialize)]
struct Removed {
    #[serde(rename = "Hash")]
    hash: String,
    #[serde(rename = "Error", skip_serializing_if = "String::is_empty")]
    error: String,
}

/// `block/rm`.
pub(super) async fn rm(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let source = core.source(call.is_offline());
    let (encoder, force, quiet) = (call.encoder()?, call.is("force"), call.is("quiet"));
    let args = call.args;
    let rows = stream::iter(args).then(move |arg| {
        let source = source.clone();
        async move {
            let cid = root_of(&source, &arg).await?;
            let error = remove(source, cid, force).await.err().map(|cause| cause.to_string());
            let row = Removed { hash: encoder.text(&cid), error: error.unwrap_or_default() };
            Ok::<_, Failure>((!quiet || !row.error.is_empty()).then_some(row))
        }
    });
    Ok(Answer::many(rows.filter_map(|row| futures::future::ready(row.transpose()))))
}

/// Removes a block that no pin holds.
async fn remove(source: Source, cid: Cid, force: bool) -> Result<(), Error> {
    let repo = source.repo().clone();
    blocking(move || {
        if let Some(pin) = repo.pin_of(&cid)? {
            let kind = match pin.kind {
                PinKind::Recursive => "recursive",
                PinKind::Direct => "direct",
            };
            return Err(Error::message(format!("pinned: {kind}")));
        }
        let above = pins::above(&repo, &[cid].into())?;
        if let Some((_, root)) = above.first() {
            return Err(Error::message(format!("pinned via {root}")));
        }
        if repo.size(&cid)?.is_none() && !force {
            return Err(Error::message(format!("ipld: could not find {cid}")));
        }
        repo.remove(&[cid])
    })
    .await
}
