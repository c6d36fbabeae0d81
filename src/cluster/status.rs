//! Status of one CID and of all (spec: core 14).
//!
//! Other members cannot be asked yet; the rows are this peer's, merged as the cluster's answer would be.

use cluster_compat::api::{Items, Result};
use cluster_compat::go::time::Time;
use cluster_compat::types::{Cid, GlobalPinInfo, Pin, PinInfo, PinInfoShort, TrackerStatus};
use futures::StreamExt as _;
use tracing::error;

use super::{Cluster, failed};

impl Cluster {
    pub(super) async fn status_of(&self, cid: Cid, local: bool) -> Result<GlobalPinInfo> {
        if local {
            return Ok(self.inner.tracker.status(&cid).await.into_global());
        }
        match self.stored(&cid)? {
            None => Ok(self.unknown(cid)),
            Some(pin) => Ok(self.global(&pin, self.own_row(&pin).await)),
        }
    }

    pub(super) fn status_items(&self, filter: TrackerStatus, local: bool) -> Items<GlobalPinInfo> {
        let own = self.inner.tracker.status_all(filter);
        let items = own.map(|item| item.map(PinInfo::into_global).map_err(failed)).boxed();
        if local { items } else { without_first_failure(items) }
    }

    /// This peer's row of a stored pin; one allocated elsewhere is `remote` without asking anyone.
    async fn own_row(&self, pin: &Pin) -> PinInfo {
        if pin.is_remote(&self.inner.peer) {
            return PinInfo { short: self.own_short(TrackerStatus::REMOTE), ..self.row_of(pin) };
        }
        self.inner.tracker.status(&pin.cid).await
    }

    /// The cluster's answer from this peer's row: CID and name are the pin's, whatever the row says.
    pub(super) fn global(&self, pin: &Pin, row: PinInfo) -> GlobalPinInfo {
        let mut global =
            GlobalPinInfo { cid: Some(pin.cid), name: pin.options.name.clone(), ..Default::default() };
        global.add(row);
        global
    }

    /// The cluster's answer for a CID out of the pinset: `unpinned`, without asking anyone.
    pub(super) fn unknown(&self, cid: Cid) -> GlobalPinInfo {
        let row = PinInfo {
            created: Time::now(),
            allocations: Some(Vec::new()),
            short: self.own_short(TrackerStatus::UNPINNED),
            ..self.row_of(&Pin::new(cid))
        };
        PinInfo { origins: None, metadata: None, ..row }.into_global()
    }

    pub(super) fn row_of(&self, pin: &Pin) -> PinInfo {
        PinInfo {
            cid: pin.cid,
            name: pin.options.name.clone(),
            peer: self.inner.peer,
            allocations: pin.allocations.clone(),
            origins: pin.options.origins.clone(),
            created: pin.timestamp,
            metadata: pin.options.metadata.clone(),
            short: self.own_short(TrackerStatus::UNDEFINED),
        }
    }

    fn own_short(&self, status: TrackerStatus) -> PinInfoShort {
        let (ipfs_peer_id, ipfs_peer_addresses) = self.inner.daemon_seen.get();
        PinInfoShort {
            peername: self.inner.config.peername.clone(),
            ipfs_peer_id,
            ipfs_peer_addresses,
            status,
            timestamp: Time::now(),
            error: String::new(),
            attempt_count: 0,
            priority_pin: false,
        }
    }
}

/// The cluster's list where this peer is all there is of it: a member that fails before its first item has no row
/// anywhere, and that is no error of the list (spec: core 14.2).
pub(super) fn without_first_failure(items: Items<GlobalPinInfo>) -> Items<GlobalPinInfo> {
    let mut is_first = true;
    let kept = items.filter(move |item| {
        let is_kept = !std::mem::take(&mut is_first) || item.is_ok();
        if let Err(e) = item {
            error!(target: "cluster", "{e}");
        }
        std::future::ready(is_kept)
    });
    kept.boxed()
}
