//! Who is connected to whom (spec: core 15).

use cluster_compat::api::Result;
use cluster_compat::types::{ConnectGraph, Id, PeerId};
use futures::{StreamExt as _, stream};
use tracing::{debug, warn};

use super::members::{ANSWER_LIMIT, MAX_ASKED, NOTHING};
use super::{Cluster, failed};
use crate::rpc::{self, Call};
use crate::wire;
use crate::wire::msgpack::Reader;

/// Longest that a member may look for its own members, each of which has [`ANSWER_LIMIT`].
const PEERS_LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

/// What one member may say of its members.
const MAX_LINKS_BYTES: usize = 64 << 20;

/// Members that one member is believed to have.
const MAX_LINKS: usize = 10_000;

impl Cluster {
    /// Every member's own list of members, and the swarm peers of the daemons of those that list themselves.
    pub(super) async fn draw_graph(&self) -> Result<ConnectGraph> {
        let inner = &self.inner;
        let mut graph = ConnectGraph {
            cluster_id: inner.peer,
            id_to_peername: Default::default(),
            ipfs_links: Default::default(),
            cluster_links: Default::default(),
            cluster_trust_links: Default::default(),
            cluster_to_ipfs: Default::default(),
        };
        let members = inner.consensus.peers().await.map_err(failed)?;
        let asked = members.into_iter().map(|peer| async move {
            let links = self.links_of(peer).await;
            let own = links.as_ref().ok().and_then(|ids| ids.iter().find(|id| id.id == Some(peer)));
            let daemon = own.filter(|own| own.ipfs.error.is_empty()).and_then(|own| own.ipfs.id);
            let swarm = match daemon {
                Some(_) => self.swarm_of(peer).await,
                None => Vec::new(),
            };
            (peer, links, daemon, swarm)
        });
        let answers: Vec<_> = stream::iter(asked).buffered(MAX_ASKED).collect().await;
        for (peer, links, daemon, swarm) in answers {
            let name = peer.to_string();
            graph.cluster_trust_links.insert(name.clone(), inner.consensus.is_trusted(&peer));
            let reached = graph.cluster_links.entry(name.clone()).or_default();
            let ids = match links {
                Ok(ids) => ids,
                Err(cause) => {
                    debug!(target: "cluster", "RPC error reaching cluster peer {peer}: {cause}");
                    continue;
                }
            };
            let mut peername = String::new();
            let mut lists_itself = false;
            for id in ids {
                if id.id == Some(peer) {
                    (lists_itself, peername) = (true, id.peername);
                } else {
                    reached.extend(id.id);
                }
            }
            graph.id_to_peername.insert(name.clone(), peername);
            if !lists_itself {
                warn!(target: "cluster", "cluster peer {peer} not its own peer.  No ipfs info ");
            }
            if let Some(daemon) = daemon {
                graph.cluster_to_ipfs.insert(name, daemon);
                graph.ipfs_links.insert(daemon.to_string(), swarm);
            }
        }
        Ok(graph)
    }

    /// The members a member reaches, itself included.
    async fn links_of(&self, peer: PeerId) -> Result<Vec<Id>, String> {
        let ids: Vec<Id> = if peer == self.inner.peer {
            self.peer_items().filter_map(|id| std::future::ready(id.ok())).collect().await
        } else {
            let replies = self.inner.rpc.stream(peer, Call::Peers, stream::empty().boxed());
            let asked = async {
                let mut replies = replies.take(MAX_LINKS);
                let (mut ids, mut n_bytes) = (Vec::new(), 0);
                while let Some(reply) = replies.next().await {
                    let reply = reply?;
                    n_bytes += reply.len();
                    if n_bytes > MAX_LINKS_BYTES {
                        return Err(rpc::Error::TooMuch("bytes", MAX_LINKS_BYTES));
                    }
                    ids.push(wire::id::decode(&reply)?);
                }
                Ok::<_, rpc::Error>(ids)
            };
            let late = rpc::Error::Deadline(PEERS_LIMIT);
            let asked = tokio::time::timeout(PEERS_LIMIT, asked).await.unwrap_or(Err(late));
            asked.map_err(|cause| cause.to_string())?
        };
        Ok(ids.into_iter().filter(|id| id.error.is_empty()).collect())
    }

    /// The peers of a member's daemon; none where they cannot be had.
    async fn swarm_of(&self, peer: PeerId) -> Vec<PeerId> {
        if peer == self.inner.peer {
            return self.inner.ipfs.swarm_peers().await.unwrap_or_default();
        }
        let reply = self.ask(peer, Call::SwarmPeers, NOTHING, Some(ANSWER_LIMIT)).await;
        let peers = reply.ok().and_then(|reply| Reader::new(&reply).peers().ok());
        peers.flatten().unwrap_or_default()
    }
}
