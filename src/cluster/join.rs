//! Joining a cluster by one of its peers (spec: core 18).

use cluster_compat::api::Result;
use cluster_compat::types::Multiaddr;
use tracing::{error, info};

use super::jobs::MET_PEER_LIFETIME;
use super::{Cluster, failed};
use crate::rpc::Call;
use crate::wire::msgpack::Writer;

impl Cluster {
    /// Joins by each of the addresses, one after another, in the background. Failures are logged and no more.
    pub fn join_in_background(&self, addrs: Vec<Multiaddr>) {
        if addrs.is_empty() {
            return;
        }
        let (cluster, stop) = (self.clone(), self.inner.tasks.token());
        self.inner.tasks.spawn("join", async move {
            let all = async {
                for addr in addrs {
                    info!(target: "service", "Bootstrapping to {addr}");
                    if let Err(cause) = cluster.join(&addr).await {
                        error!(target: "service", "bootstrap to {addr} failed: {cause}");
                    }
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = all => {}
            }
        });
    }

    async fn join(&self, addr: &Multiaddr) -> Result<()> {
        let inner = &self.inner;
        let peer = inner.network.import_addr(addr).await.map_err(failed)?;
        if peer == inner.peer {
            return Ok(());
        }
        // it asks back who we are, by the address it sees us come from
        let own = Writer::one(|out| out.peer(&inner.peer));
        let added = tokio::select! {
            added = self.ask(peer, Call::PeerAdd, &own, None) => added,
            () = tokio::time::sleep(JOIN_LIMIT) => Err(crate::rpc::Error::Deadline(JOIN_LIMIT)),
        };
        added.map_err(|cause| {
            error!(target: "cluster", "{cause}");
            failed(cause)
        })?;
        inner.monitor.assume_alive(peer, MET_PEER_LIFETIME);
        self.inform_all().await;
        self.ping().await;
        self.connect_swarms_after(inner.config.monitor_ping_interval.to_std());
        info!(target: "cluster", "{}: joined {peer}'s cluster", inner.peer);
        let (cluster, stop) = (self.clone(), inner.tasks.token());
        inner.tasks.spawn("recover after join", async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = cluster.recover_all_now() => {}
            }
        });
        Ok(())
    }
}

/// How long the peer that we join by may take to ask us back; it may have to wait for its daemon meanwhile.
const JOIN_LIMIT: std::time::Duration = std::time::Duration::from_secs(60);
