//! Retrying what failed (spec: core 12.7, 14).

use cluster_compat::api::{Error, Items, Result};
use cluster_compat::types::{Cid, GlobalPinInfo, PinInfo, PinType};
use futures::StreamExt as _;

use super::{Cluster, failed};

impl Cluster {
    pub(super) async fn recover_one(&self, cid: Cid, local: bool) -> Result<GlobalPinInfo> {
        let Some(pin) = self.stored(&cid)? else {
            return if local { Err(Error::not_found()) } else { Ok(self.unknown(cid)) };
        };
        if pin.pin_type == PinType::Meta {
            return self.recover_meta(&pin, local).await;
        }
        if !local && pin.is_remote(&self.inner.peer) {
            return self.status_of(cid, false).await;
        }
        let row = self.inner.tracker.recover(&cid).await.map_err(failed)?;
        Ok(if local { row.into_global() } else { self.global(&pin, row) })
    }

    /// Every failed CID of this peer is queued again; yields those that were.
    pub(super) fn recover_items(&self, _local: bool) -> Items<GlobalPinInfo> {
        self.inner.tracker.recover_all().map(|item| item.map(PinInfo::into_global).map_err(failed)).boxed()
    }
}
