//! Retrying what failed (spec: core 12.7, 14).

use cluster_compat::api::{Error, Items, Result};
use cluster_compat::types::{Cid, GlobalPinInfo, PinInfo, PinType, TrackerStatus};
use futures::StreamExt as _;

use super::status::without_first_failure;
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
        match self.inner.tracker.recover(&cid).await {
            Ok(row) if local => Ok(row.into_global()),
            Ok(row) => Ok(self.global(&pin, row)),
            Err(e) if local => Err(failed(e)),
            // a member that fails is a row of the cluster's answer
            Err(e) => {
                let mut row = self.row_of(&pin);
                row.short.status = TrackerStatus::CLUSTER_ERROR;
                row.short.error = e.to_string();
                Ok(self.global(&pin, row))
            }
        }
    }

    /// Every failed CID of this peer is queued again; yields those that were.
    pub(super) fn recover_items(&self, local: bool) -> Items<GlobalPinInfo> {
        let own = self.inner.tracker.recover_all();
        let items = own.map(|item| item.map(PinInfo::into_global).map_err(failed)).boxed();
        if local { items } else { without_first_failure(items) }
    }
}
