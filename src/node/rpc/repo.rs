//! `repo/*`.

use std::sync::Arc;

use cluster_compat::types::{Block, Cid};
use futures::stream;
use serde::Serialize;
use tokio::sync::mpsc;

use super::super::{Core, Error, gc};
use super::answer::{Answer, Failure};
use super::call::Call;
use super::misc::REPO_VERSION;

/// Rows on their way to a reader.
const MAX_QUEUED: usize = 256;

#[derive(Serialize)]
struct Stat {
    #[serde(rename = "RepoSize")]
    repo_size: u64,
    #[serde(rename = "StorageMax")]
    storage_max: u64,
    #[serde(rename = "NumObjects")]
    num_objects: u64,
    #[serde(rename = "RepoPath")]
    repo_path: String,
    #[serde(rename = "Version")]
    version: String,
}

/// `repo/stat`: counted as blocks come and go, so it costs nothing.
pub(super) async fn stat(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let stat = core.repo.stat();
    let is_short = call.is("size-only");
    Ok(Answer::one(&Stat {
        repo_size: stat.n_bytes,
        storage_max: core.repo.max_bytes(),
        num_objects: if is_short { 0 } else { stat.n_objects },
        repo_path: if is_short { String::new() } else { core.repo.folder().display().to_string() },
        version: if is_short { String::new() } else { format!("fs-repo@{REPO_VERSION}") },
    }))
}

#[derive(Serialize)]
struct Link {
    #[serde(rename = "/")]
    cid: String,
}

#[derive(Serialize)]
struct Collected {
    #[serde(rename = "Key")]
    key: Option<Link>,
    #[serde(rename = "Error", skip_serializing_if = "String::is_empty")]
    error: String,
}

/// `repo/gc`: goes on when its caller leaves.
pub(super) async fn gc(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let (streams_errors, is_silent) = (call.is("stream-errors"), call.is("silent"));
    let (rows, received) = mpsc::channel(MAX_QUEUED);
    let repo = core.repo.clone();
    core.tasks.spawn("node collection", async move {
        let work = tokio::task::spawn_blocking(move || {
            let told = gc::collect(&repo, |cid| {
                if streams_errors || !is_silent {
                    let row = Collected { key: Some(Link { cid: cid.to_string() }), error: String::new() };
                    let _ = rows.blocking_send(Ok(row));
                }
            });
            if let Err(cause) = told {
                let cause = cause.to_string();
                if streams_errors {
                    let _ = rows.blocking_send(Ok(Collected { key: None, error: cause }));
                    let words = "encountered errors during gc run";
                    let _ = rows.blocking_send(Err(Failure::new(words)));
                } else {
                    let _ = rows.blocking_send(Err(Failure::new(cause)));
                }
            }
        });
        let _ = work.await;
    });
    Ok(Answer::many(stream::unfold(received, |mut received| async move {
        received.recv().await.map(|row| (row, received))
    })))
}

#[derive(Serialize)]
struct Version {
    #[serde(rename = "Version")]
    version: &'static str,
}

/// `repo/version`.
pub(super) async fn version(_core: Arc<Core>, _call: Call) -> Result<Answer, Failure> {
    Ok(Answer::one(&Version { version: REPO_VERSION }))
}

#[derive(Serialize)]
struct Verified {
    #[serde(rename = "Msg")]
    msg: String,
    #[serde(rename = "Progress")]
    progress: u64,
}

/// `repo/verify`: hashes every block again.
pub(super) async fn verify(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let heals = call.is("heal");
    let drops = heals || call.is("drop");
    let repo = core.repo.clone();
    let source = core.source(call.is_offline());
    let runtime = tokio::runtime::Handle::current();
    let (rows, received) = mpsc::channel(MAX_QUEUED);
    let work = tokio::task::spawn_blocking(move || {
        let (mut n, mut n_bad) = (0, 0u64);
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = match repo.blocks_after(after.as_deref()) {
                Ok(page) => page,
                Err(cause) => {
                    let _ = rows.blocking_send(Err(Failure::from(cause)));
                    return;
                }
            };
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (key, size) in page {
                n += 1;
                let Some(cid) = gc::raw_cid(&key) else { continue };
                let mut msg = String::new();
                if let Err(why) = check(&repo, &cid, size) {
                    n_bad += 1;
                    msg = format!("block {cid} was corrupt ({why})");
                    if drops {
                        match repo.remove(&[cid]) {
                            Ok(()) => msg.push_str(", removed"),
                            Err(cause) => msg.push_str(&format!(", failed to remove ({cause})")),
                        }
                    }
                    if heals {
                        match runtime.block_on(source.block(cid)) {
                            Ok(_) => msg.push_str(", healed"),
                            Err(cause) => msg.push_str(&format!(", failed to heal ({cause})")),
                        }
                    }
                }
                if rows.blocking_send(Ok(Verified { msg, progress: n })).is_err() {
                    return;
                }
            }
        }
        if n_bad > 0 {
            let words = format!("verify complete, some blocks were corrupt ({n_bad} of {n})");
            let _ = rows.blocking_send(Err(Failure::new(words)));
        } else {
            let msg = "verify complete, all blocks validated.".to_owned();
            let _ = rows.blocking_send(Ok(Verified { msg, progress: n }));
        }
    });
    drop(work);
    Ok(Answer::many(stream::unfold(received, |mut received| async move {
        received.recv().await.map(|row| (row, received))
    })))
}

/// Whether a block is what it is named, and what the index says of it.
fn check(repo: &super::super::repo::Repo, cid: &Cid, size: u64) -> Result<(), String> {
    let block = repo.get(cid).map_err(|cause| cause.to_string())?.ok_or("its bytes are missing")?;
    if block.len() as u64 != size {
        return Err(format!("it has {} bytes instead of {size}", block.len()));
    }
    check_hash(&Block { cid: *cid, data: block, is_spare: false })
}

/// Whether a block's bytes give its CID.
fn check_hash(block: &Block) -> Result<(), String> {
    let hash = block.cid.hash();
    match crate::adder::digest(hash.code(), hash.size(), &block.data) {
        Some(digest) if digest == *hash => Ok(()),
        Some(_) => Err("block in storage has different hash than requested".into()),
        None => Err(Error::message(format!("the hash function {:#x} is not known", hash.code())).to_string()),
    }
}
