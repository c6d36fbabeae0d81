//! New homes for the pins of a peer that is lost (spec: core 10).

use cluster_compat::types::{PeerId, Pin};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::Cluster;
use super::closest::is_closest;

/// Lost peers that wait until the pins of the one before have been looked at; each is lost once in an hour at most.
pub(super) const MAX_LOST: usize = 256;

impl Cluster {
    /// Looks at the pins of lost peers, one peer after another: alerts go on meanwhile.
    pub(super) fn spawn_repin(&self, mut lost: mpsc::Receiver<PeerId>) {
        let (cluster, stop) = (self.clone(), self.inner.tasks.token());
        self.inner.tasks.spawn("repin", async move {
            let all = async {
                while let Some(peer) = lost.recv().await {
                    cluster.repin_from(&peer).await;
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = all => {}
            }
        });
    }

    /// Allocates the pins of a lost peer anew, those that this peer is the closest to.
    async fn repin_from(&self, lost: &PeerId) {
        let members = match self.inner.consensus.peers().await {
            Ok(members) => members,
            Err(cause) => return warn!(target: "cluster", "repinning: {cause}"),
        };
        let own = self.inner.peer;
        let is_other = |peer: &PeerId| *peer != own && peer != lost && self.inner.consensus.is_trusted(peer);
        let others: Vec<PeerId> = members.into_iter().filter(is_other).collect();
        let mut pins = self.inner.consensus.pinset().stream();
        while let Some(item) = pins.next().await {
            let pin = match item {
                Ok(pin) => pin,
                Err(cause) => return warn!(target: "cluster", "repinning: {cause}"),
            };
            let is_allocated = pin.allocations.iter().flatten().any(|peer| peer == lost);
            if is_allocated && is_closest(&pin.cid, &own, others.iter().copied()) {
                self.repin(pin, lost).await;
            }
        }
    }

    /// Where enough others hold it the pin stays where it is; where too few could, it stays too.
    async fn repin(&self, pin: Pin, lost: &PeerId) {
        let cid = pin.cid;
        match self.submit_anew(Pin { allocations: None, ..pin }, &[*lost]).await {
            Ok(_) => info!(target: "cluster", "repinned {cid} out of {lost}"),
            Err(cause) => debug!(target: "cluster", "{cid} is not repinned out of {lost}: {cause}"),
        }
    }
}
