//! Where blocks come from: this repository, then the network.

use std::sync::Arc;

use bytes::Bytes;
use cluster_compat::types::Cid;

use super::Error;
use super::names::Names;
use super::repo::Repo;

/// Where a block is looked for that is not in the repository.
#[async_trait::async_trait]
pub(super) trait Remote: Send + Sync {
    /// Gets a block, checked and stored. Waits without limit.
    async fn block(&self, cid: Cid) -> Result<Bytes, Error>;
}

/// Gives blocks for one piece of work.
#[derive(Clone)]
pub(super) struct Source {
    repo: Repo,
    remote: Option<Arc<dyn Remote>>,
    /// Who follows names, and whether the network is left alone.
    names: Option<(Names, bool)>,
}

impl Source {
    /// Blocks of the repository, and those `remote` gets.
    pub(super) fn new(repo: Repo, remote: Option<Arc<dyn Remote>>, names: Option<(Names, bool)>) -> Self {
        Self { repo, remote, names }
    }

    /// The path that a name leads to.
    pub(super) async fn follow(&self, name: &str) -> Result<String, Error> {
        match &self.names {
            Some((names, is_offline)) => names.resolve(name, *is_offline).await,
            None => Err(Error::message("could not resolve name")),
        }
    }

    /// The repository.
    pub(super) fn repo(&self) -> &Repo {
        &self.repo
    }

    /// A block.
    pub(super) async fn block(&self, cid: Cid) -> Result<Bytes, Error> {
        let repo = self.repo.clone();
        match blocking(move || repo.get(&cid)).await? {
            Some(block) => Ok(block),
            None => self.fetch(cid).await,
        }
    }

    /// A block that is not here.
    pub(super) async fn fetch(&self, cid: Cid) -> Result<Bytes, Error> {
        match &self.remote {
            Some(remote) => remote.block(cid).await,
            None => Err(Error::NotFound(cid)),
        }
    }

    /// The size of a block, which is got if it is not here.
    pub(super) async fn size(&self, cid: Cid) -> Result<u64, Error> {
        let repo = self.repo.clone();
        match blocking(move || repo.size(&cid)).await? {
            Some(size) => Ok(size),
            None => Ok(self.fetch(cid).await?.len() as u64),
        }
    }
}

/// Runs work that blocks.
pub(super) async fn blocking<R: Send + 'static>(
    job: impl FnOnce() -> Result<R, Error> + Send + 'static,
) -> Result<R, Error> {
    tokio::task::spawn_blocking(job).await.map_err(|_| Error::Stopped)?
}
