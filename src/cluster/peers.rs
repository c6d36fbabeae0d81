//! The members: listing, adding, removing (spec: core 15, 18).

use cluster_compat::api::{Error, Items, Result};
use cluster_compat::types::{Id, PeerId};
use futures::StreamExt as _;
use futures::stream;
use tokio::time::Instant;
use tracing::{debug, error, info};

use super::members::{ANSWER_LIMIT, MAX_ASKED, NOTHING};
use super::{Cluster, failed};
use crate::rpc::{self, Call};
use crate::wire;

impl Cluster {
    /// Every member as it describes itself, in the order of their answers. One that does not answer has a row with
    /// the reason; one that refuses to be asked has none.
    pub(super) fn peer_items(&self) -> Items<Id> {
        let cluster = self.clone();
        let answers = async move {
            let members = cluster.inner.consensus.peers().await.unwrap_or_else(|cause| {
                error!(target: "cluster", "an empty list of peers will be returned: {cause}");
                Vec::new()
            });
            let until = Instant::now() + ANSWER_LIMIT;
            let asked = members.into_iter().map(move |peer| {
                let cluster = cluster.clone();
                async move { cluster.description_of(peer, until).await.map(Ok) }
            });
            stream::iter(asked).buffer_unordered(MAX_ASKED).filter_map(std::future::ready)
        };
        stream::once(answers).flatten().boxed()
    }

    async fn description_of(&self, peer: PeerId, until: Instant) -> Option<Id> {
        if peer == self.inner.peer {
            return Some(self.own_id().await);
        }
        let mut replies = self.inner.rpc.stream(peer, Call::IdStream, stream::empty().boxed());
        let asked = async {
            let reply = replies.next().await.unwrap_or(Err(rpc::Error::NoAnswer))?;
            let id = wire::id::decode(&reply)?;
            // lets the stream end as it should
            let _ = replies.next().await;
            Ok(id)
        };
        let answer = tokio::time::timeout_at(until, asked).await;
        match answer.unwrap_or(Err(rpc::Error::Deadline(ANSWER_LIMIT))) {
            Ok(id) => Some(Id { id: Some(peer), ..id }),
            Err(cause) if cause.is_refusal() => {
                debug!(target: "cluster", %peer, "{cause}");
                None
            }
            Err(cause) => Some(Id { id: Some(peer), error: cause.to_string(), ..Id::default() }),
        }
    }

    /// Takes a peer for a member and asks it who it is.
    pub(super) async fn add_member(&self, peer: PeerId) -> Result<Id> {
        self.inner.consensus.add_peer(peer).await.map_err(failed)?;
        info!(target: "cluster", "Peer added {peer}");
        if peer == self.inner.peer {
            return Ok(self.own_id().await);
        }
        let asked = async {
            let reply = self.ask(peer, Call::Id, NOTHING, Some(ANSWER_LIMIT)).await?;
            Ok::<_, rpc::Error>(wire::id::decode(&reply)?)
        };
        let mut id = asked.await.map_err(|cause| {
            error!(target: "cluster", "{cause}");
            let is_unknown =
                matches!(cause, rpc::Error::Dial(_)) && self.inner.network.addrs_of(&[peer]).is_empty();
            if is_unknown { Self::unknown_peer() } else { failed(cause) }
        })?;
        id.id = Some(peer);
        // it may not know of this peer yet
        let members = id.cluster_peers.get_or_insert_default();
        if !members.contains(&self.inner.peer) {
            members.push(self.inner.peer);
        }
        Ok(id)
    }

    /// The error of a peer that nobody knows how to reach.
    fn unknown_peer() -> Error {
        Error::internal("routing: not found")
    }

    /// Removes a member, where the consensus can.
    pub(super) async fn remove_member(&self, peer: PeerId) -> Result<()> {
        self.inner.consensus.rm_peer(peer).await.map_err(failed)
    }
}
