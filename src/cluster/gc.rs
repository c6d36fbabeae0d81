//! Garbage collection and sizes of the daemons (spec: core 15).

use cluster_compat::api::Result;
use cluster_compat::types::{GlobalRepoGc, IpfsRepoStat, PeerId, RepoGc, TrackerStatus};
use futures::{StreamExt as _, stream};
use tracing::{debug, error};

use super::members::{MAX_ASKED, NOTHING};
use super::{Cluster, failed};
use crate::rpc::{self, Call};
use crate::wire;

impl Cluster {
    /// Collects on the daemons of all members, one after another. A member that fails is a row of the answer.
    pub(super) async fn collect_garbage(&self, local: bool) -> Result<GlobalRepoGc> {
        let own = self.inner.peer;
        if local {
            return Ok(GlobalRepoGc { peer_map: [(own.to_string(), self.collect_here().await?)].into() });
        }
        let mut all = GlobalRepoGc::default();
        for peer in self.inner.consensus.peers().await.map_err(failed)? {
            let collected = if peer == own {
                self.collect_here().await.map_err(|cause| cause.message)
            } else {
                match self.collect_there(peer).await {
                    Err(cause) if cause.is_refusal() => {
                        debug!(target: "cluster", %peer, "{cause}");
                        continue;
                    }
                    collected => collected.map_err(|cause| cause.to_string()),
                }
            };
            let row = collected.unwrap_or_else(|error| {
                error!(target: "cluster", "{own}: error in broadcast response from {peer}: {error}");
                let peername = if peer == own {
                    self.inner.config.peername.clone()
                } else {
                    self.last_known(&peer, TrackerStatus::UNDEFINED, String::new()).peername
                };
                RepoGc { peer, peername, keys: Some(Vec::new()), error }
            });
            all.peer_map.insert(peer.to_string(), row);
        }
        Ok(all)
    }

    /// Collects on this peer's daemon.
    pub(super) async fn collect_here(&self) -> Result<RepoGc> {
        let (keys, failure) = self.inner.ipfs.repo_gc().await;
        match failure {
            Some(cause) => Err(failed(cause)),
            None => Ok(RepoGc {
                peer: self.inner.peer,
                peername: self.inner.config.peername.clone(),
                keys: Some(keys),
                error: String::new(),
            }),
        }
    }

    async fn collect_there(&self, peer: PeerId) -> Result<RepoGc, rpc::Error> {
        // as long as it takes: a collection may need hours, but not of a peer that is gone
        let reply = tokio::select! {
            reply = self.ask(peer, Call::RepoGcLocal, NOTHING, None) => reply?,
            () = self.is_gone(&peer) => return Err(rpc::Error::Gone),
        };
        Ok(wire::gc::decode(&reply, peer)?)
    }

    /// The sizes of all members' repositories together; those that cannot be had count nothing, but one must.
    pub(super) async fn summed_stat(&self) -> Result<IpfsRepoStat> {
        let members = self.inner.consensus.peers().await.map_err(failed)?;
        let asked = members.into_iter().map(|peer| async move { (peer, self.stat_of(peer).await) });
        let answers: Vec<_> = stream::iter(asked).buffer_unordered(MAX_ASKED).collect().await;
        let mut sum = None::<IpfsRepoStat>;
        let mut last_failure = None;
        for (peer, answer) in answers {
            match answer {
                Ok(stat) => {
                    let sum = sum.get_or_insert_default();
                    // "no limit" is the largest number there is
                    sum.repo_size = sum.repo_size.wrapping_add(stat.repo_size);
                    sum.storage_max = sum.storage_max.wrapping_add(stat.storage_max);
                }
                Err(failure) => {
                    error!(target: "ipfsproxy", "{peer} repo/stat errored: {failure}");
                    last_failure = Some(failure);
                }
            }
        }
        match (sum, last_failure) {
            (None, Some(failure)) => Err(failed(failure)),
            (sum, _) => Ok(sum.unwrap_or_default()),
        }
    }

    async fn stat_of(&self, peer: PeerId) -> Result<IpfsRepoStat, String> {
        if peer == self.inner.peer {
            return self.inner.ipfs.repo_stat().await.map_err(|cause| cause.to_string());
        }
        let asked = async {
            let reply = tokio::select! {
                reply = self.ask(peer, Call::RepoStat, NOTHING, None) => reply?,
                () = self.is_gone(&peer) => return Err(rpc::Error::Gone),
            };
            Ok(wire::gc::decode_stat(&reply)?)
        };
        asked.await.map_err(|cause: rpc::Error| cause.to_string())
    }
}
