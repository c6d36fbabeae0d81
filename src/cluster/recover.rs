//! Retrying what failed (spec: core 12.7, 14).

use cluster_compat::api::{Error, Items, Result};
use cluster_compat::types::{Cid, GlobalPinInfo, PinInfo, PinType};
use futures::StreamExt as _;

use super::{Cluster, failed};
use crate::rpc::Call;

impl Cluster {
    pub(super) async fn recover_one(&self, cid: Cid, local: bool) -> Result<GlobalPinInfo> {
        if local {
            return self.recover_here(&cid).await.map(PinInfo::into_global);
        }
        match self.stored(&cid)? {
            None => self.unknown(cid).await,
            Some(pin) => self.gathered(&pin, Call::Recover, self.recover_here(&cid)).await,
        }
    }

    /// Recovers a stored pin on this peer; of a sharded add every part.
    pub(super) async fn recover_here(&self, cid: &Cid) -> Result<PinInfo> {
        let pin = self.stored(cid)?.ok_or_else(Error::not_found)?;
        if pin.pin_type == PinType::Meta {
            return self.recover_meta(&pin).await;
        }
        self.inner.tracker.recover(cid).await.map_err(failed)
    }

    /// Every failed CID is queued again, on this peer or on every member; yields those that were.
    pub(super) fn recover_items(&self, local: bool) -> Items<GlobalPinInfo> {
        let own = self.inner.tracker.recover_all();
        if local {
            return own.map(|item| item.map(PinInfo::into_global).map_err(failed)).boxed();
        }
        self.gathered_lists(own, Call::RecoverAllLocal, Vec::new())
    }
}
