//! What the peer does by itself: becoming ready, pings, informers, recover, state sync, keeping connected.
//!
//! Each loop starts when the peer has become ready (spec: core 3) and is a task with a name. Recover and state
//! sync are one loop, so that they never overlap.

use std::sync::Arc;
use std::time::Duration;

use cluster_compat::go::time::Time;
use cluster_compat::types::{Metric, Multiaddr, PeerId};
use futures::StreamExt as _;
use libp2p::multiaddr::Protocol;
use serde::Serialize;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::allocate::PING;
use super::closest::is_closest;
use super::{Cluster, VERSION};
use crate::informer::Informer;

/// A ping counts for this many of its intervals. (Go: `cluster.go`, `pingMetricTTL`)
const PINGS_PER_TTL: i32 = 2;

/// Connections wanted at the start. (Go: `cluster.go`, `bootstrapCount`)
const FIRST_PEERS: usize = 3;

/// Pause between looks at the number of connections. (Go: `cluster.go`, `reBootstrapInterval`)
const RECONNECT_EVERY: Duration = Duration::from_secs(30);

/// How long a peer that was just met counts as a member without a ping of its own. (Go: `cluster.go`, `pstoreman`)
pub(super) const MET_PEER_LIFETIME: Duration = Duration::from_secs(30);

/// Pause of an informer that has no valid metric to go by: half of the 30 s that metrics live by default.
const INFORMER_PAUSE: Duration = Duration::from_secs(15);

/// Shortest pause of an informer: a TTL of nothing must not spin.
const MIN_INFORMER_PAUSE: Duration = Duration::from_millis(50);

impl Cluster {
    /// Logs what the peer is, waits for the daemon, then starts the loops.
    pub(super) fn spawn_ready(&self) {
        let cluster = self.clone();
        self.inner.tasks.spawn("ready", async move {
            let stop = cluster.inner.tasks.token();
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = cluster.become_ready() => {}
            }
        });
    }

    async fn become_ready(&self) {
        let inner = &self.inner;
        self.meet(FIRST_PEERS).await;
        let mut listening = format!("IPFS Cluster v{VERSION} listening on:\n");
        for addr in self.own_addrs() {
            listening.push_str(&format!("        {addr}\n"));
        }
        info!(target: "cluster", "{listening}\n");
        let members = inner.consensus.peers().await.unwrap_or_default();
        info!(target: "cluster", "Cluster Peers (without including ourselves):");
        let others: Vec<&PeerId> = members.iter().filter(|peer| **peer != inner.peer).collect();
        if others.is_empty() {
            info!(target: "cluster", "    - No other peers");
        }
        for peer in others {
            info!(target: "cluster", "    - {peer}");
        }
        info!(target: "cluster", "Waiting for IPFS to be ready...");
        inner.ipfs.wait_ready(&inner.tasks.token()).await;
        if let Ok(daemon) = inner.ipfs.id().await
            && let Some(id) = daemon.id
        {
            info!(target: "cluster", "IPFS is ready. Peer ID: {id}");
        }
        info!(target: "cluster", "** IPFS Cluster is READY **");
        let _ = inner.ready.send_replace(true);
        self.spawn_loops();
    }

    fn spawn_loops(&self) {
        let inner = &self.inner;
        let ping_every = inner.config.monitor_ping_interval.to_std();
        let cluster = self.clone();
        inner.tasks.every("pings", ping_every, true, move || {
            let cluster = cluster.clone();
            async move { cluster.ping().await }
        });
        for informer in &inner.informers {
            self.spawn_informer(Arc::clone(informer));
        }
        self.spawn_informer_trigger();
        self.spawn_pinset_watch();
        self.spawn_connect_swarms();
        let cluster = self.clone();
        inner.tasks.every("reconnects", RECONNECT_EVERY, false, move || {
            let cluster = cluster.clone();
            async move { cluster.meet(cluster.low_water()).await }
        });
    }

    /// Once, `connect_swarms_delay` after ready: tells the daemon where the daemons of the members are (spec:
    /// connector 6.7). Failures are the daemon's to log.
    fn spawn_connect_swarms(&self) {
        let delay = self.inner.connect_swarms_delay;
        if !delay.is_zero() {
            self.connect_swarms_after(delay);
        }
    }

    pub(super) fn connect_swarms_after(&self, delay: Duration) {
        let cluster = self.clone();
        let stop = self.inner.tasks.token();
        self.inner.tasks.spawn("connect swarms", async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = cluster.connect_swarms() => {}
            }
        });
    }

    async fn connect_swarms(&self) {
        let mut members = self.peer_items();
        while let Some(member) = members.next().await {
            let addresses = member.ok().filter(|id| id.error.is_empty()).and_then(|id| id.ipfs.addresses);
            for addr in addresses.unwrap_or_default() {
                if let Err(cause) = self.inner.ipfs.swarm_connect(&addr).await {
                    debug!(target: "ipfshttp", "connecting the daemon to {addr}: {cause}");
                }
            }
        }
    }

    fn low_water(&self) -> usize {
        usize::try_from(self.inner.config.connection_manager.low_water).unwrap_or(0)
    }

    /// Connects to known peers until there are `wanted` connections; those newly met count as members at once.
    async fn meet(&self, wanted: usize) {
        match self.inner.network.bootstrap(wanted).await {
            Ok(met) => {
                for peer in met {
                    info!(target: "cluster", "reconnected to {peer}");
                    self.inner.monitor.assume_alive(peer, MET_PEER_LIFETIME);
                }
            }
            Err(cause) => warn!(target: "cluster", "connecting to known peers: {cause}"),
        }
    }

    /// Publishes that this peer lives, and what its daemon is. The last good description is repeated while the
    /// daemon does not answer.
    pub(super) async fn ping(&self) {
        let inner = &self.inner;
        if let Ok(daemon) = inner.ipfs.id().await
            && let Some(id) = daemon.id
        {
            let shown = daemon.addresses.unwrap_or_default().into_iter().filter(may_be_told).collect();
            inner.daemon_seen.set(id, shown);
        }
        let (ipfs_id, ipfs_addresses) = inner.daemon_seen.get();
        let value = PingValue {
            peer_name: &inner.config.peername,
            ipfs_id: ipfs_id.map(|id| id.to_string()).unwrap_or_default(),
            ipfs_addresses: ipfs_addresses.iter().map(Multiaddr::to_string).collect(),
        };
        let value = String::from_utf8(cluster_compat::go::json::to_vec(&value)).unwrap_or_default();
        let ttl = inner.config.monitor_ping_interval.0.saturating_mul(i64::from(PINGS_PER_TTL));
        inner.monitor.publish(Metric {
            name: PING.into(),
            peer: Some(inner.peer),
            value,
            expire: Time::now().unix_nanos().saturating_add(ttl),
            valid: true,
            weight: 0,
            partitionable: false,
            received_at: 0,
        });
        inner.first_metrics.send_modify(|n| *n += 1);
    }

    fn spawn_informer(&self, informer: Arc<Informer>) {
        let cluster = self.clone();
        let stop = self.inner.tasks.token();
        let name = match informer.as_ref() {
            Informer::Disk(_) => "informer disk",
            Informer::Tags(_) => "informer tags",
            Informer::PinQueue(_) => "informer pinqueue",
        };
        self.inner.tasks.spawn(name, async move {
            loop {
                let pause = cluster.inform(&informer).await;
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        });
    }

    /// Publishes an informer's metrics; returns the pause until they are due again: half of what the first of
    /// them to expire has left.
    async fn inform(&self, informer: &Informer) -> Duration {
        let metrics = informer.metrics().await;
        let now = Time::now().unix_nanos();
        let left = metrics.iter().filter(|metric| metric.valid).map(|metric| metric.expire - now).min();
        for metric in metrics {
            self.inner.monitor.publish(Metric { peer: Some(self.inner.peer), ..metric });
        }
        self.inner.first_metrics.send_modify(|n| *n += 1);
        match left {
            Some(left) => Duration::from_nanos(u64::try_from(left / 2).unwrap_or(0)).max(MIN_INFORMER_PAUSE),
            None => INFORMER_PAUSE,
        }
    }

    /// All informers publish at once when the daemon client has seen enough events (spec: connector 6.15).
    fn spawn_informer_trigger(&self) {
        let cluster = self.clone();
        let trigger = self.inner.ipfs.informer_trigger();
        let stop = self.inner.tasks.token();
        self.inner.tasks.spawn("informer trigger", async move {
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = trigger.notified() => {}
                }
                cluster.inform_all().await;
            }
        });
    }

    /// All informers publish at once.
    pub(super) async fn inform_all(&self) {
        for informer in &self.inner.informers {
            self.inform(informer).await;
        }
    }

    /// Recovers at once and every `pin_recover_interval`, looks for expired pins every `state_sync_interval`;
    /// both count from the end of the last run.
    fn spawn_pinset_watch(&self) {
        let cluster = self.clone();
        let stop = self.inner.tasks.token();
        let recover_every = self.inner.config.pin_recover_interval.to_std();
        let sync_every = self.inner.config.state_sync_interval.to_std();
        self.inner.tasks.spawn("pinset watch", async move {
            let mut recover_at = Instant::now();
            let mut sync_at = Instant::now() + sync_every;
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep_until(recover_at) => {
                        tokio::select! {
                            () = stop.cancelled() => return,
                            () = cluster.recover_all_now() => {}
                        }
                        recover_at = Instant::now() + recover_every;
                    }
                    () = tokio::time::sleep_until(sync_at) => {
                        tokio::select! {
                            () = stop.cancelled() => return,
                            () = cluster.unpin_expired() => {}
                        }
                        sync_at = Instant::now() + sync_every;
                    }
                }
            }
        });
    }

    pub(super) async fn recover_all_now(&self) {
        let mut items = self.recover_items(true);
        while let Some(item) = items.next().await {
            if let Err(cause) = item {
                error!(target: "cluster", "recovering pins: {cause}");
            }
        }
    }

    /// Unpins what has expired, where this peer is the closest; a follower never does (spec: core 11).
    async fn unpin_expired(&self) {
        if self.inner.config.follower_mode {
            return;
        }
        let members = match self.inner.consensus.peers().await {
            Ok(members) => members,
            Err(cause) => return warn!(target: "cluster", "state sync: {cause}"),
        };
        let others: Vec<PeerId> = members
            .into_iter()
            .filter(|peer| *peer != self.inner.peer && self.inner.consensus.is_trusted(peer))
            .collect();
        let now = Time::now();
        let mut pins = self.inner.consensus.pinset().stream();
        while let Some(item) = pins.next().await {
            let pin = match item {
                Ok(pin) => pin,
                Err(cause) => return warn!(target: "cluster", "state sync: {cause}"),
            };
            let expire_at = pin.options.expire_at;
            let has_expired = !expire_at.is_zero() && expire_at < now;
            if !has_expired || !is_closest(&pin.cid, &self.inner.peer, others.iter().copied()) {
                continue;
            }
            info!(target: "cluster", "Unpinning {}: pin expired at {expire_at}", pin.cid);
            if let Err(cause) = self.remove(pin.cid).await {
                error!(target: "cluster", "unpinning expired {}: {cause}", pin.cid);
            }
        }
    }
}

/// The value of a `ping` metric. (Go: `api/types.go`, `PingValue`)
#[derive(Serialize)]
struct PingValue<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    peer_name: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    ipfs_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ipfs_addresses: Vec<String>,
}

/// Whether other peers are told an address of the daemon: DNS names and global unicast in Go's sense (private
/// ranges included; loopback, link-local, multicast, unspecified and broadcast not).
fn may_be_told(addr: &Multiaddr) -> bool {
    match addr.iter().next() {
        Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_)) => true,
        Some(Protocol::Ip4(ip)) => {
            !(ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast())
        }
        Some(Protocol::Ip6(ip)) => {
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_unicast_link_local() || ip.is_multicast())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_told_dns_names_and_global_unicast_addresses_only() {
        let told = [
            ("/ip4/10.1.2.3/tcp/4001", true),
            ("/ip4/192.168.0.1/tcp/4001", true),
            ("/ip4/8.8.8.8/udp/4001/quic-v1", true),
            ("/dns4/example.org/tcp/4001", true),
            ("/dnsaddr/example.org", true),
            ("/ip6/2001:db8::1/tcp/4001", true),
            ("/ip6/fd00::1/tcp/4001", true),
            ("/ip4/127.0.0.1/tcp/4001", false),
            ("/ip4/0.0.0.0/tcp/4001", false),
            ("/ip4/169.254.1.1/tcp/4001", false),
            ("/ip4/224.0.0.1/tcp/4001", false),
            ("/ip4/255.255.255.255/tcp/4001", false),
            ("/ip6/::1/tcp/4001", false),
            ("/ip6/fe80::1/tcp/4001", false),
            ("/ip6/ff02::1/tcp/4001", false),
            ("/unix/api", false),
        ];
        for (addr, expected) in told {
            assert_eq!(may_be_told(&addr.parse().unwrap()), expected, "{addr}");
        }
    }
}
