//! Telling the others, and hearing from them (spec: wire 3).

use std::sync::Arc;

use cluster_compat::go::time::Time;
use cluster_compat::types::Metric;
use tracing::{debug, error, warn};

use super::window::is_discarded;
use super::{Error, Monitor, Shared};
use crate::net;
use crate::task::Tasks;
use crate::wire;

/// The topic of all metrics (Go: `monitor/pubsubmon/pubsubmon.go`, PubsubTopic).
const TOPIC: &str = "monitor.metrics";

impl Monitor {
    /// Stores a metric of ours at once, and tells the others. One that says nothing is discarded.
    pub fn publish(&self, metric: Metric) {
        let now = Time::now();
        if is_discarded(&metric, now.unix_nanos()) {
            warn!(target: "monitor", "discarding invalid metric: {}", in_go_words(&metric));
            return;
        }
        debug!(target: "monitor", name = metric.name, value = metric.value, "publish metric");
        let data = wire::metric::encode(&metric);
        self.shared.store(metric, true, now);
        if let Some(network) = &self.shared.network {
            network.publish(TOPIC, data);
        }
    }
}

/// Starts to listen.
pub(super) fn subscribe(shared: &Arc<Shared>, tasks: &Tasks) -> Result<(), Error> {
    let Some(network) = &shared.network else { return Ok(()) };
    // whoever is in the swarm may speak: that a peer is untrusted says nothing against its free space
    let mut messages = network.subscribe(TOPIC, Arc::new(|_| true))?;
    let (shared, stop) = (Arc::clone(shared), tasks.token());
    tasks.spawn("monitor gossip", async move {
        loop {
            let message = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                message = messages.recv() => message,
            };
            let Some(message) = message else { return };
            on_message(&shared, &message);
        }
    });
    Ok(())
}

pub(super) fn on_message(shared: &Shared, message: &net::Message) {
    let metric = match wire::metric::decode(&message.data) {
        Ok(metric) => metric,
        Err(e) => return error!(target: "monitor", source = %message.source, "{e}"),
    };
    if message.source == shared.peer {
        return;
    }
    if metric.peer != Some(message.source) {
        let claimed = metric.peer.map(|peer| peer.to_string()).unwrap_or_default();
        return warn!(target: "monitor", source = %message.source, name = metric.name, claimed, "dropping a metric that its signer made for another peer");
    }
    debug!(target: "monitor", source = %message.source, name = metric.name, value = metric.value, "received metric");
    shared.store(metric, true, Time::now());
}

/// As the reference prints the struct.
fn in_go_words(metric: &Metric) -> String {
    format!(
        "{{Name:{} Peer:{} Value:{} Expire:{} Valid:{} Weight:{} Partitionable:{} ReceivedAt:{}}}",
        metric.name,
        metric.peer.map(|peer| peer.to_string()).unwrap_or_default(),
        metric.value,
        metric.expire,
        metric.valid,
        metric.weight,
        metric.partitionable,
        metric.received_at
    )
}
