//! `repo/stat`, `repo/gc` and `block/get`.

use bytes::Bytes;
use cluster_compat::types::{Cid, IpfsRepoStat, RepoGcKey, parse_cid};
use tracing::error;

use super::block::Outgoing;
use super::json::{self, Documents, Text};
use super::request::Limit;
use super::{Client, Error};

/// Kubo's summary of errors it has already listed line by line; says nothing new.
const GC_SUMMARY: &str = "encountered errors during gc run";

json::object! {
    /// `repo/stat`.
    RepoStatReply {
        repo_size: u64 = "RepoSize",
        storage_max: u64 = "StorageMax",
    }
}

json::object! {
    /// `{"/":"<cid>"}`.
    Link {
        cid: Text<'a> = "/",
    }
}

json::object! {
    /// A line of `repo/gc`.
    GcLine {
        key: Link<'a> = "Key",
        error: Text<'a> = "Error",
        message: Text<'a> = "Message",
    }
}

impl Client {
    /// How large the repository is, and how large it may become.
    pub async fn repo_stat(&self) -> Result<IpfsRepoStat, Error> {
        let body = self.inner.daemon.call("repo/stat?size-only=true", self.request_limit()).await?;
        let reply: RepoStatReply<'_> = json::document(&body).map_err(|text| {
            error!(target: "ipfshttp", "{text}");
            Error::Reply(text)
        })?;
        Ok(IpfsRepoStat { repo_size: reply.repo_size, storage_max: reply.storage_max })
    }

    /// Collects garbage. What was collected before a failure is returned beside it.
    pub async fn repo_gc(&self) -> (Vec<RepoGcKey>, Option<Error>) {
        let mut keys = Vec::new();
        let result = self.collect(&mut keys).await;
        (keys, result.err())
    }

    async fn collect(&self, keys: &mut Vec<RepoGcKey>) -> Result<(), Error> {
        let limit = Limit::after(self.inner.options.repogc_timeout);
        let path = "repo/gc?stream-errors=true";
        let mut reply = self.inner.daemon.post(path, None, Outgoing::Empty, limit).await?;
        let _event = self.event_at_end();
        let mut documents = Documents::default();
        loop {
            let piece = match reply.piece().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(Error::Daemon { message, .. }) if is_summary(&message, keys) => break,
                Err(failure) => return Err(failure),
            };
            let mut failure = None;
            let read = documents.feed(&piece, |lines| {
                while let Some(line) = lines.next::<GcLine<'_>>()? {
                    if !line.message.0.is_empty() {
                        failure = Some(line.message.0.into_owned());
                        return Ok(());
                    }
                    let key = match &*line.key.cid.0 {
                        "" => None,
                        text => Some(parse_cid(text)?),
                    };
                    keys.push(RepoGcKey { key, error: line.error.0.into_owned() });
                }
                Ok(())
            });
            read.map_err(|text| {
                error!(target: "ipfshttp", "{text}");
                Error::Reply(text)
            })?;
            match failure {
                Some(message) if is_summary(&message, keys) => {}
                Some(message) => return Err(reply.failure(message)),
                None => {}
            }
        }
        documents.finish().map_err(Error::Reply)
    }

    /// The bytes of a block.
    pub async fn block_get(&self, cid: &Cid) -> Result<Bytes, Error> {
        self.inner.daemon.call(&format!("block/get?arg={cid}"), self.request_limit()).await
    }
}

fn is_summary(message: &str, keys: &[RepoGcKey]) -> bool {
    message == GC_SUMMARY && keys.iter().any(|key| !key.error.is_empty())
}
