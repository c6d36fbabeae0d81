//! `dag/get`, `dag/put`, `dag/resolve`, `dag/stat`.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use cluster_compat::types::{Block, Cid};
use futures::{StreamExt as _, stream};
use serde::Serialize;

use super::super::pins::{self, Progress};
use super::super::repo::{Pin, PinKind};
use super::super::source::blocking;
use super::super::{Core, Error, ipld, path};
use super::answer::{Answer, Failure};
use super::block::{check_size, next_file};
use super::call::Call;
use super::refs::async_rows;
use super::text;

/// A codec by its name.
fn codec(name: &str) -> Result<u64, Failure> {
    text::codec_code(name).ok_or_else(|| Failure::new(format!("unknown multicodec: {name:?}")))
}

/// `dag/get`.
pub(super) async fn get(core: Arc<Core>, mut call: Call) -> Result<Answer, Failure> {
    let codec = codec(call.text("output-codec"))?;
    let source = core.source(call.is_offline());
    let arg = call.take_args().await?.into_iter().next().unwrap_or_default();
    let resolved = path::resolve(&source, &path::parse(&arg)?).await?;
    let block = source.block(resolved.cid).await?;
    let value = ipld::value(&resolved.cid, &block).map_err(Failure::new)?;
    let value = path::value_at(&value, &resolved.remainder)?;
    let encoded = ipld::encode(codec, &value).map_err(Failure::new)?;
    Ok(Answer::Bytes("text/plain", None, stream::iter([Ok(Bytes::from(encoded))]).boxed()))
}

#[derive(Serialize)]
struct Link {
    #[serde(rename = "/")]
    cid: String,
}

#[derive(Serialize)]
struct Put {
    #[serde(rename = "Cid")]
    cid: Link,
}

/// `dag/put`.
pub(super) async fn put(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let (input, store) = (codec(call.text("input-codec"))?, codec(call.text("store-codec"))?);
    let hash_name = match call.text("hash") {
        "" => "sha2-256",
        name => name,
    };
    let hash = text::hash_code(hash_name)
        .ok_or_else(|| Failure::new(format!("unknown multicodec: {hash_name:?}")))?;
    let (allows_big, pins) = (call.is("allow-big-block"), call.is("pin"));
    let lease = core.repo.leases().hold(None);
    let source = core.source(true);
    let mut files = call.files()?;
    let rows = async_rows(move |rows| async move {
        let _lease = lease;
        while let Some(data) = next_file(&mut files).await? {
            let value = decode(input, &data)?;
            let block = ipld::encode(store, &value).map_err(Failure::new)?;
            check_size(allows_big, block.len())?;
            let length =
                text::natural_length(hash, &block).ok_or_else(|| Failure::new(text::no_such_hash(hash)))?;
            let digest = crate::adder::digest(hash, length, &block)
                .ok_or_else(|| Failure::new(text::no_such_hash(hash)))?;
            let cid = Cid::new_v1(store, digest);
            let (repo, block) = (source.repo().clone(), Block { cid, data: block.into(), is_spare: false });
            blocking(move || repo.put(&[block])).await?;
            if pins {
                let pin = Pin { kind: PinKind::Recursive, name: String::new() };
                pins::pin(&source, cid, pin, Arc::new(Progress::default())).await?;
            }
            core.stored(&[cid]);
            if rows.send(Ok(Put { cid: Link { cid: cid.to_string() } })).await.is_err() {
                break;
            }
        }
        Ok(())
    });
    Ok(Answer::many(rows))
}

fn decode(codec: u64, data: &[u8]) -> Result<ipld::Value, Failure> {
    // the codecs' names are all that a value needs; a CID of any hash will do
    let cid = Cid::new_v1(codec, multihash::Multihash::default());
    ipld::value(&cid, data).map_err(Failure::new)
}

#[derive(Serialize)]
struct Resolved {
    #[serde(rename = "Cid")]
    cid: Link,
    #[serde(rename = "RemPath")]
    rem_path: String,
}

/// `dag/resolve`.
pub(super) async fn resolve(core: Arc<Core>, mut call: Call) -> Result<Answer, Failure> {
    let source = core.source(call.is_offline());
    let arg = call.take_args().await?.into_iter().next().unwrap_or_default();
    let resolved = path::resolve(&source, &path::parse(&arg)?).await?;
    let rem_path = resolved.remainder.iter().map(|segment| format!("/{segment}")).collect();
    Ok(Answer::one(&Resolved { cid: Link { cid: resolved.cid.to_string() }, rem_path }))
}

#[derive(Serialize, Clone, Default)]
struct DagStat {
    #[serde(rename = "Cid")]
    cid: String,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "NumBlocks")]
    num_blocks: u64,
}

#[derive(Serialize, Clone, Default)]
struct Summary {
    #[serde(rename = "UniqueBlocks", skip_serializing_if = "is_zero")]
    unique_blocks: u64,
    #[serde(rename = "TotalSize", skip_serializing_if = "is_zero")]
    total_size: u64,
    #[serde(rename = "SharedSize", skip_serializing_if = "is_zero")]
    shared_size: u64,
    #[serde(rename = "Ratio", skip_serializing_if = "is_none", serialize_with = "write_ratio")]
    ratio: f32,
    #[serde(rename = "DagStats", skip_serializing_if = "Vec::is_empty")]
    dags: Vec<DagStat>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_none(number: &f32) -> bool {
    *number == 0.0
}

/// A number without a fraction has no point.
fn write_ratio<S: serde::Serializer>(ratio: &f32, out: S) -> Result<S::Ok, S::Error> {
    if ratio.fract() == 0.0 { out.serialize_u64(*ratio as u64) } else { out.serialize_f32(*ratio) }
}

/// Blocks between two lines of progress: one line for each would cost more than the walk.
const PROGRESS_BLOCKS: u64 = 256;

/// `dag/stat`.
pub(super) async fn stat(core: Arc<Core>, mut call: Call) -> Result<Answer, Failure> {
    let source = core.source(call.is_offline());
    let (encoder, shows_progress) = (call.encoder()?, call.is("progress"));
    let args = call.take_args().await?;
    let rows = async_rows(move |rows| async move {
        let mut summary = Summary::default();
        let mut redundant = 0u64;
        let mut all: HashSet<Cid> = HashSet::new();
        for arg in &args {
            let resolved = path::resolve(&source, &path::parse(arg)?).await?;
            if !resolved.remainder.is_empty() {
                let words = "cannot return size for anything other than a DAG with a root CID";
                return Err(Failure::new(words));
            }
            let root = resolved.cid;
            summary.dags.push(DagStat { cid: encoder.text(&root), ..DagStat::default() });
            let mut seen = HashSet::new();
            let mut todo = vec![root];
            while let Some(cid) = todo.pop() {
                if !seen.insert(cid) {
                    continue;
                }
                let block = source.block(cid).await?;
                let size = block.len() as u64;
                if let Some(dag) = summary.dags.last_mut() {
                    dag.size += size;
                    dag.num_blocks += 1;
                }
                redundant += size;
                if all.insert(cid) {
                    summary.total_size += size;
                }
                let links = ipld::links(&cid, &block).map_err(Error::message)?;
                todo.extend(links.into_iter().rev().map(|link| link.cid));
                let is_due = seen.len() as u64 % PROGRESS_BLOCKS == 1;
                if shows_progress && is_due && rows.send(Ok(summary.clone())).await.is_err() {
                    return Ok(());
                }
            }
        }
        summary.unique_blocks = all.len() as u64;
        summary.shared_size = redundant - summary.total_size;
        summary.ratio =
            if summary.total_size == 0 { 0.0 } else { redundant as f32 / summary.total_size as f32 };
        let _ = rows.send(Ok(summary)).await;
        Ok(())
    });
    Ok(Answer::many(rows))
}
