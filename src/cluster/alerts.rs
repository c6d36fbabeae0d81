//! Alerts: metrics that stopped (spec: core 10).

use std::sync::PoisonError;

use cluster_compat::types::Alert;
use tokio::sync::mpsc;
use tracing::warn;

use super::Cluster;

/// Alerts kept in memory; the next one empties the list. (Go: `cluster.go`, `maxAlerts`)
const MAX_ALERTS: usize = 1000;

impl Cluster {
    /// Remembers alerts as they come; a follower ignores them.
    pub(super) fn spawn_alerts(&self, mut alerts: mpsc::Receiver<Alert>) {
        let cluster = self.clone();
        let stop = self.inner.tasks.token();
        self.inner.tasks.spawn("alerts", async move {
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    alert = alerts.recv() => match alert {
                        Some(alert) => cluster.on_alert(alert),
                        None => return,
                    },
                }
            }
        });
    }

    fn on_alert(&self, alert: Alert) {
        if self.inner.config.follower_mode {
            return;
        }
        let peer = alert.metric.peer.map(|peer| peer.to_string()).unwrap_or_default();
        warn!(target: "cluster", "metric alert for {}: Peer: {peer}.", alert.metric.name);
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
