//! The members, as far as this peer can ask them.

use cluster_compat::api::{Error, Items, Result};
use cluster_compat::types::{Id, PeerId};
use futures::StreamExt as _;

use super::{Cluster, failed};

/// What a member that cannot be asked says in a listing, until calls between peers exist.
const NO_CALLS: &str = "calls between peers are not supported yet";

impl Cluster {
    /// This peer first, then a row for each other member that says why it could not be asked.
    pub(super) fn peer_items(&self) -> Items<Id> {
        let cluster = self.clone();
        futures::stream::once(async move {
            let members = cluster.inner.consensus.peers().await.unwrap_or_else(|cause| {
                tracing::error!(target: "cluster", "an empty list of peers will be returned: {cause}");
                Vec::new()
            });
            let mut rows = Vec::with_capacity(members.len());
            for peer in members {
                if peer == cluster.inner.peer {
                    rows.insert(0, Ok(cluster.own_id().await));
                } else {
                    rows.push(Ok(Id { id: Some(peer), error: NO_CALLS.into(), ..Id::default() }));
                }
            }
            futures::stream::iter(rows)
        })
        .flatten()
        .boxed()
    }

    /// Adding oneself is accepted; any other peer would have to be asked who it is.
    pub(super) async fn add_member(&self, peer: PeerId) -> Result<Id> {
        self.inner.consensus.add_peer(peer).await.map_err(failed)?;
        if peer == self.inner.peer {
            return Ok(self.own_id().await);
        }
        if self.inner.network.addrs_of(&[peer]).is_empty() {
            return Err(Self::unknown_peer());
        }
        Err(Error::internal(NO_CALLS))
    }

    /// Removes a member, where the consensus can.
    pub(super) async fn remove_member(&self, peer: PeerId) -> Result<()> {
        self.inner.consensus.rm_peer(peer).await.map_err(failed)
    }
}
