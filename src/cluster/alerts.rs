//! Alerts: metrics that stopped (spec: core 10).

use std::sync::PoisonError;

use cluster_compat::types::{Alert, PeerId};
use tokio::sync::mpsc;
use tracing::{debug, error, warn};

use super::Cluster;
use super::allocate::PING;
use super::repin::MAX_LOST;

/// Alerts kept in memory; the next one empties the list. (Go: `cluster.go`, `maxAlerts`)
const MAX_ALERTS: usize = 1000;

impl Cluster {
    /// Remembers alerts as they come, and has the pins of lost peers allocated anew; a follower ignores them.
    pub(super) fn spawn_alerts(&self, mut alerts: mpsc::Receiver<Alert>) {
        let (lost, lost_peers) = mpsc::channel(MAX_LOST);
        self.spawn_repin(lost_peers);
        let cluster = self.clone();
        let stop = self.inner.tasks.token();
        self.inner.tasks.spawn("alerts", async move {
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    alert = alerts.recv() => match alert {
                        Some(alert) => cluster.on_alert(alert, &lost),
                        None => return,
                    },
                }
            }
        });
    }

    fn on_alert(&self, alert: Alert, lost: &mpsc::Sender<PeerId>) {
        if self.inner.config.follower_mode {
            return;
        }
        let peer = alert.metric.peer.map(|peer| peer.to_string()).unwrap_or_default();
        warn!(target: "cluster", "metric alert for {}: Peer: {peer}.", alert.metric.name);
        if alert.metric.name == PING
            && let Some(peer) = alert.metric.peer
        {
            if self.inner.config.disable_repinning {
                debug!(target: "cluster", "repinning is disabled. Will not re-allocate pins on alerts");
            } else if lost.try_send(peer).is_err() {
                error!(target: "cluster", "the pins of {peer} are not repinned: {MAX_LOST} lost peers are waiting");
            }
        }
        let mut alerts = self.inner.alerts.lock().unwrap_or_else(PoisonError::into_inner);
        if alerts.len() > MAX_ALERTS {
            alerts.clear();
        }
        alerts.push(alert);
    }

    /// Newest first.
    pub(super) fn remembered_alerts(&self) -> Vec<Alert> {
        self.inner.alerts.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}
