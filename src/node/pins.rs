//! Walks: everything beneath a root, got where it is missing, with progress.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cluster_compat::types::Cid;
use futures::StreamExt as _;

use super::repo::{Pin, PinKind};
use super::source::{Source, blocking};
use super::{Error, ipld};

/// Blocks looked at together.
const CHUNK: usize = 64;
/// Blocks asked for at a time.
const MAX_WANTS: usize = 32;

/// How far a walk is.
#[derive(Default)]
pub(super) struct Progress {
    n_nodes: AtomicU64,
    n_bytes: AtomicU64,
}

impl Progress {
    /// Nodes and bytes so far.
    pub(super) fn get(&self) -> (u64, u64) {
        (self.n_nodes.load(Ordering::Relaxed), self.n_bytes.load(Ordering::Relaxed))
    }

    fn add(&self, n_bytes: u64) {
        self.n_nodes.fetch_add(1, Ordering::Relaxed);
        self.n_bytes.fetch_add(n_bytes, Ordering::Relaxed);
    }
}

/// What is at hand of a block: leaves need not be read.
enum Here {
    Leaf(u64),
    Block(Bytes),
    Missing,
}

/// Gets everything beneath `root`. Depth first, so that what waits stays small.
pub(super) async fn walk(source: &Source, root: Cid, progress: &Progress) -> Result<(), Error> {
    let mut seen = HashSet::new();
    let mut todo = vec![root];
    while !todo.is_empty() {
        let mut chunk = todo.split_off(todo.len().saturating_sub(CHUNK));
        chunk.retain(|cid| seen.insert(*cid));
        let here = look(source, chunk.clone()).await?;
        let work = chunk.into_iter().zip(here).map(|(cid, here)| async move {
            match here {
                Here::Leaf(size) => Ok((cid, size, None)),
                Here::Block(block) => Ok((cid, block.len() as u64, Some(block))),
                Here::Missing => {
                    let block = source.fetch(cid).await?;
                    Ok::<_, Error>((cid, block.len() as u64, Some(block)))
                }
            }
        });
        let mut work = futures::stream::iter(work).buffered(MAX_WANTS);
        let mut below = Vec::new();
        while let Some(done) = work.next().await {
            let (cid, size, block) = done?;
            progress.add(size);
            if let Some(block) = block {
                let links = ipld::links(&cid, &block).map_err(Error::message)?;
                below.extend(links.into_iter().map(|link| link.cid).filter(|cid| !seen.contains(cid)));
            }
        }
        below.reverse();
        todo.extend(below);
    }
    Ok(())
}

async fn look(source: &Source, cids: Vec<Cid>) -> Result<Vec<Here>, Error> {
    let repo = source.repo().clone();
    blocking(move || {
        repo.leases().mark(&cids);
        let (leaves, nodes): (Vec<Cid>, Vec<Cid>) = cids.iter().partition(|cid| cid.codec() == ipld::RAW);
        let mut blocks = repo.get_all(&nodes)?.into_iter();
        let mut sizes = leaves.iter().map(|cid| repo.size(cid));
        let here = cids.iter().map(|cid| {
            if cid.codec() == ipld::RAW {
                Ok(sizes.next().transpose()?.flatten().map_or(Here::Missing, Here::Leaf))
            } else {
                Ok(blocks.next().flatten().map_or(Here::Missing, Here::Block))
            }
        });
        here.collect()
    })
    .await
}

/// Pins a CID: gets what is missing, then writes the pin. Texts are boxo's.
pub(super) async fn pin(source: &Source, cid: Cid, pin: Pin, progress: Arc<Progress>) -> Result<(), Error> {
    let _lease = source.repo().leases().hold(Some(cid));
    let result = async {
        match pin.kind {
            PinKind::Recursive => walk(source, cid, &progress).await?,
            PinKind::Direct => drop(source.block(cid).await?),
        }
        let repo = source.repo().clone();
        blocking(move || repo.set_pin(cid, pin)).await
    };
    result.await.map_err(|cause| Error::message(format!("pin: {cause}")))
}

/// Pins `to` like `from`, which may go.
pub(super) async fn update(source: &Source, from: Cid, to: Cid, unpins: bool) -> Result<(), Error> {
    let repo = source.repo().clone();
    let (is_from, is_to) = blocking(move || Ok((repo.pin_of(&from)?, repo.pin_of(&to)?))).await?;
    let is_recursive = |pin: Option<Pin>| pin.is_some_and(|pin| pin.kind == PinKind::Recursive);
    if !is_recursive(is_from) {
        return Err(Error::UpdateFrom);
    }
    if from == to {
        return Ok(());
    }
    if is_recursive(is_to) {
        return Err(Error::UpdateTo);
    }
    let _lease = source.repo().leases().hold(Some(to));
    walk(source, to, &Progress::default()).await?;
    let repo = source.repo().clone();
    blocking(move || repo.update_pin(from, to, unpins)).await
}

/// Every recursive pin above one of `wanted`: pairs of the wanted CID and the root of a pin.
pub(super) fn above(repo: &super::repo::Repo, wanted: &HashSet<Cid>) -> Result<Vec<(Cid, Cid)>, Error> {
    let mut found: Vec<(Cid, Cid)> = Vec::new();
    let mut left: HashSet<Cid> = wanted.clone();
    let mut seen = HashSet::new();
    let mut after = None;
    while !left.is_empty() {
        let page = repo.pins_after(after.as_ref())?;
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        for (root, pin) in page {
            if pin.kind == PinKind::Recursive && !left.is_empty() {
                below(repo, root, &mut seen, &mut |cid| {
                    if left.remove(&cid) {
                        found.push((cid, root));
                    }
                })?;
            }
        }
    }
    Ok(found)
}

/// Visits everything beneath `root` that is here and not in `seen`; `root` itself is not visited.
pub(super) fn below(
    repo: &super::repo::Repo,
    root: Cid,
    seen: &mut HashSet<Cid>,
    visit: &mut dyn FnMut(Cid),
) -> Result<(), Error> {
    let mut todo = vec![root];
    while !todo.is_empty() {
        let chunk = todo.split_off(todo.len().saturating_sub(CHUNK));
        let nodes: Vec<Cid> = chunk.into_iter().filter(|cid| cid.codec() != ipld::RAW).collect();
        for (cid, block) in nodes.iter().zip(repo.get_all(&nodes)?) {
            let Some(block) = block else { return Err(Error::NotFound(*cid)) };
            for link in ipld::links(cid, &block).map_err(Error::message)? {
                if seen.insert(link.cid) {
                    visit(link.cid);
                    todo.push(link.cid);
                }
            }
        }
    }
    Ok(())
}
