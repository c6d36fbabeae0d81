//! Which peers get a CID: the metrics of live peers, handed to the allocator (spec: core 6).

use cluster_compat::api::Result;
use cluster_compat::types::{Cid, PeerId, Pin, PinOptions};

use super::{Cluster, failed};
use crate::allocator::{AllocateArgs, allocate};

/// The metric whose holders are members. (Go: `pubsubmon`, `ping`)
pub(super) const PING: &str = "ping";

impl Cluster {
    /// The peers for a pin with valid factors; empty means everywhere.
    pub(super) fn allocate(
        &self,
        cid: &Cid,
        existing: Option<&Pin>,
        options: &PinOptions,
        blacklist: &[PeerId],
    ) -> Result<Vec<PeerId>> {
        let inner = &self.inner;
        let metrics: Vec<_> =
            inner.allocate_by.iter().map(|name| (name.clone(), inner.monitor.latest_valid(name))).collect();
        allocate(&AllocateArgs {
            cid,
            min: options.replication_factor_min,
            max: options.replication_factor_max,
            current: existing.and_then(|pin| pin.allocations.as_deref()).unwrap_or_default(),
            blacklist,
            preferred: options.user_allocations.as_deref().unwrap_or_default(),
            metrics: &metrics,
            is_eligible: &|peer| self.may_hold(peer),
        })
        .map_err(failed)
    }

    /// Where the blocks of an add go: the allocation of a pin with these options, or every live peer.
    pub(super) async fn allocate_blocks(&self, options: &PinOptions) -> Result<Vec<PeerId>> {
        self.refuse_follower()?;
        let mut pin = Pin::with_options(Cid::default(), options.clone());
        self.normalise(&mut pin);
        super::pin::check_factors(&pin.options)?;
        super::pin::check_expiry(&pin.options)?;
        self.own_metrics_at_hand().await;
        if pin.options.replication_factor_min < 0 {
            let mut live: Vec<PeerId> =
                self.inner.monitor.latest_valid(PING).into_iter().filter_map(|metric| metric.peer).collect();
            if live.is_empty() {
                live.push(self.inner.peer);
            }
            return Ok(live);
        }
        self.allocate(&pin.cid, None, &pin.options, &[])
    }

    /// Whether the trust rules of the configuration let a peer be allocated to.
    fn may_hold(&self, peer: &PeerId) -> bool {
        let config = &self.inner.config;
        let is_trusted = || self.inner.consensus.is_trusted(peer);
        !(config.pin_only_on_trusted_peers && !is_trusted()
            || config.pin_only_on_untrusted_peers && is_trusted())
    }

    /// Waits, up to [`OWN_METRICS_TIMEOUT`], until this peer's first metrics are known. (rulings: "add before …")
    async fn own_metrics_at_hand(&self) {
        let inner = &self.inner;
        let at_hand = || {
            std::iter::once(PING)
                .chain(inner.allocate_by.iter().map(String::as_str))
                .all(|name| inner.monitor.latest_of(name, &inner.peer).is_some())
        };
        if at_hand() {
            return;
        }
        let wait = async {
            let mut changes = inner.first_metrics.subscribe();
            while !at_hand() {
                if changes.changed().await.is_err() {
                    break;
                }
            }
        };
        // where they never come (a full disk has no freespace), the allocator says what is missing
        let _ = tokio::time::timeout(OWN_METRICS_TIMEOUT, wait).await;
    }
}

/// How long an add waits for this peer's own first metrics. (rulings: "add before the peer has its own first metrics")
const OWN_METRICS_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);
