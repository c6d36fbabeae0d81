//! Walks: everything beneath a root, got where it is missing, with progress.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cluster_compat::types::Cid;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;

use super::repo::{Pin, PinKind};
use super::source::{Source, blocking};
use super::{Error, ipld};

/// Blocks looked at together.
const CHUNK: usize = 64;
/// Blocks of one walk asked for at a time; the fetcher bounds the bytes of all walks together.
const MAX_WANTS: usize = 512;

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

/// A step of a walk that is over.
enum Done {
    /// What is here of the CIDs that were looked for.
    Looked(Vec<(Cid, Here)>),
    Fetched(Cid, Bytes),
}

/// Gets everything beneath `root`. Depth first, so that what waits stays small; what is missing is asked for while the
/// rest is looked for, so that one slow block holds up none but those beneath it.
pub(super) async fn walk(source: &Source, root: Cid, progress: &Progress) -> Result<(), Error> {
    let mut seen = HashSet::from([root]);
    let mut todo = vec![root];
    let mut steps: FuturesUnordered<BoxFuture<'_, Result<Done, Error>>> = FuturesUnordered::new();
    let mut is_looking = false;
    loop {
        // one look at a time: a later one finds more to do together
        if !is_looking && !todo.is_empty() && steps.len() + CHUNK <= MAX_WANTS {
            let chunk = todo.split_off(todo.len().saturating_sub(CHUNK));
            steps.push(Box::pin(async { look(source, chunk).await.map(Done::Looked) }));
            is_looking = true;
        }
        let Some(done) = steps.next().await else { return Ok(()) };
        let mut below = Vec::new();
        let mut take = |cid: &Cid, block: &Bytes| {
            progress.add(block.len() as u64);
            let links = ipld::links(cid, block).map_err(Error::message)?;
            below.extend(links.into_iter().map(|link| link.cid).filter(|cid| seen.insert(*cid)));
            Ok::<_, Error>(())
        };
        match done? {
            Done::Fetched(cid, block) => take(&cid, &block)?,
            Done::Looked(found) => {
                is_looking = false;
                for (cid, here) in found {
                    match here {
                        Here::Leaf(size) => progress.add(size),
                        Here::Block(block) => take(&cid, &block)?,
                        Here::Missing => steps.push(Box::pin(async move {
                            source.fetch(cid).await.map(|block| Done::Fetched(cid, block))
                        })),
                    }
                }
            }
        }
        below.reverse();
        todo.extend(below);
    }
}

async fn look(source: &Source, cids: Vec<Cid>) -> Result<Vec<(Cid, Here)>, Error> {
    let repo = source.repo().clone();
    blocking(move || {
        repo.leases().mark(&cids);
        let (leaves, nodes): (Vec<Cid>, Vec<Cid>) = cids.iter().partition(|cid| cid.codec() == ipld::RAW);
        let mut blocks = repo.get_all(&nodes)?.into_iter();
        let mut sizes = leaves.iter().map(|cid| repo.size(cid));
        let here = cids.iter().map(|cid| {
            if cid.codec() == ipld::RAW {
                let size = sizes.next().transpose()?.flatten();
                Ok((*cid, size.map_or(Here::Missing, Here::Leaf)))
            } else {
                Ok((*cid, blocks.next().flatten().map_or(Here::Missing, Here::Block)))
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
