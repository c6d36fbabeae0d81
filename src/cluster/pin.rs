//! Pin, unpin and update (spec: core 5).

use cluster_compat::api::{Error, Result};
use cluster_compat::go::time::Time;
use cluster_compat::types::{Cid, Pin, PinMode, PinOptions, PinType};
use tracing::info;

use super::{Cluster, failed};

impl Cluster {
    /// The one entry to the pinset: checks, fills in, allocates, writes. Returns the pin as submitted.
    pub(super) async fn submit(&self, pin: Pin, blacklist: &[cluster_compat::types::PeerId]) -> Result<Pin> {
        self.refuse_follower()?;
        if let Some(from) = pin.options.pin_update
            && from != pin.cid
        {
            return self.update(from, pin.cid, &pin.options).await;
        }
        self.submit_anew(pin, blacklist).await
    }

    /// As [`Cluster::submit`], whatever pin it was once copied from.
    pub(super) async fn submit_anew(
        &self,
        mut pin: Pin,
        blacklist: &[cluster_compat::types::PeerId],
    ) -> Result<Pin> {
        self.refuse_follower()?;
        let existing = self.stored(&pin.cid)?;
        self.normalise(&mut pin);
        check_factors(&pin.options)?;
        check_expiry(&pin.options)?;
        if let Some(existing) = &existing {
            check_repin(existing, &pin)?;
        }
        pin.timestamp = Time::now();
        if pin.pin_type != PinType::Meta && pin.allocations.as_ref().is_none_or(Vec::is_empty) {
            let chosen = self.allocate(&pin.cid, existing.as_ref(), &pin.options, blacklist)?;
            pin.allocations = Some(chosen);
        }
        match pin.allocations.as_deref() {
            None | Some([]) => info!(target: "cluster", "pinning {} everywhere:", pin.cid),
            Some(peers) => {
                let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
                info!(target: "cluster", "pinning {} on [{}]:", pin.cid, peers.join(" "));
            }
        }
        self.inner.consensus.log_pin(pin.clone()).await.map_err(failed)?;
        Ok(pin)
    }

    /// Copies the pin of `from` to `to` (spec: core 5.3): only name and expiry are taken from `options`.
    async fn update(&self, from: Cid, to: Cid, options: &PinOptions) -> Result<Pin> {
        let mut pin = self.stored(&from)?.ok_or_else(Error::not_found)?;
        if pin.pin_type != PinType::Data {
            return Err(Error::internal("this pin type cannot be updated"));
        }
        pin.cid = to;
        pin.options.pin_update = Some(from);
        pin.timestamp = Time::now();
        if !options.name.is_empty() {
            pin.options.name.clone_from(&options.name);
        }
        if !options.expire_at.is_zero() && options.expire_at > pin.timestamp {
            pin.options.expire_at = options.expire_at;
        }
        self.inner.consensus.log_pin(pin.clone()).await.map_err(failed)?;
        Ok(pin)
    }

    /// Removes a pin; returns it as it was (spec: core 5.5).
    pub(super) async fn remove(&self, cid: Cid) -> Result<Pin> {
        self.refuse_follower()?;
        info!(target: "cluster", "unpinning {cid}");
        let pin = self.stored(&cid)?.ok_or_else(Error::not_found)?;
        match pin.pin_type {
            PinType::Data => self.inner.consensus.log_unpin(pin.clone()).await.map_err(failed)?,
            PinType::Shard => {
                return Err(Error::internal("cannot unpin a shard directly. Unpin content root CID instead"));
            }
            PinType::ClusterDag => {
                return Err(Error::internal(
                    "cannot unpin a Cluster DAG directly. Unpin content root CID instead",
                ));
            }
            PinType::Meta => self.remove_meta(&pin).await?,
            PinType::Bad => return Err(Error::internal("unrecognized pin type")),
        }
        Ok(pin)
    }

    /// The pin as it stands in the pinset.
    pub(super) fn stored(&self, cid: &Cid) -> Result<Option<Pin>> {
        self.inner.consensus.pinset().get(cid).map_err(failed)
    }

    /// Fills in this peer's factors; everywhere drops allocations.
    pub(super) fn normalise(&self, pin: &mut Pin) {
        let config = &self.inner.config;
        let options = &mut pin.options;
        if options.replication_factor_min == 0 {
            options.replication_factor_min = config.replication_factor_min;
        }
        if options.replication_factor_max == 0 {
            options.replication_factor_max = config.replication_factor_max;
        }
        if options.replication_factor_min == -1 && options.replication_factor_max == -1 {
            pin.allocations = Some(Vec::new());
        }
    }
}

/// Which pairs of factors can be (Go: `cluster_config.go`, `isReplicationFactorValid`).
pub(super) fn check_factors(options: &PinOptions) -> Result<()> {
    let (min, max) = (options.replication_factor_min, options.replication_factor_max);
    let message = if min == 0 || max == 0 {
        "cluster.replication_factor_min and max must be set"
    } else if min > max {
        "cluster.replication_factor_min is larger than max"
    } else if min < -1 {
        "cluster.replication_factor_min is wrong"
    } else if max < -1 {
        "cluster.replication_factor_max is wrong"
    } else if (min == -1) != (max == -1) {
        "cluster.replication_factor_min and max must be -1 when one of them is"
    } else {
        return Ok(());
    };
    Err(Error::internal(message))
}

pub(super) fn check_expiry(options: &PinOptions) -> Result<()> {
    if !options.expire_at.is_zero() && options.expire_at < Time::now() {
        return Err(Error::internal("pin.ExpireAt set before current time"));
    }
    Ok(())
}

/// What an existing pin forbids (spec: core 5.2, points 6 to 8).
fn check_repin(existing: &Pin, pin: &Pin) -> Result<()> {
    if existing.pin_type != pin.pin_type {
        return Err(Error::internal(format!(
            "cannot repin CID with different tracking method, clear state with pin rm to proceed. New: {}. Was: {}",
            pin.pin_type.as_str(),
            existing.pin_type.as_str()
        )));
    }
    if existing.options.mode == PinMode::Recursive
        && pin.options.mode == PinMode::Direct
        && pin.max_depth == 0
    {
        return Err(Error::internal(
            "cannot repin a CID which is already pinned in recursive mode (new pin is pinned as direct). Unpin it first.",
        ));
    }
    let message = match pin.pin_type {
        PinType::Data if pin.reference.is_some() => "data pins should not reference other pins",
        PinType::Shard if pin.max_depth != 1 => "must pin shards go depth 1",
        PinType::ClusterDag if pin.max_depth != 0 => "must pin roots directly",
        PinType::ClusterDag if pin.reference.is_none() => "clusterDAG pins should reference a Meta pin",
        PinType::Meta if pin.allocations.as_ref().is_some_and(|peers| !peers.is_empty()) => {
            "meta pin should not specify allocations"
        }
        PinType::Meta if pin.reference.is_none() => "metaPins should reference a ClusterDAG",
        PinType::Bad => "unrecognized pin type",
        _ => return Ok(()),
    };
    Err(Error::internal(message))
}
