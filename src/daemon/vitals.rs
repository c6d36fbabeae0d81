//! A peer's own vital signs, for whoever looks for a leak: one line now and then, at level debug of `service`.

use std::time::Duration;

use tracing::{Level, debug, enabled};

use crate::net::Network;
use crate::task::Tasks;

/// Pause between two lines.
const EVERY: Duration = Duration::from_secs(10);

/// Starts telling; costs nothing where nobody reads that level.
pub(super) fn start(network: &Network, tasks: &Tasks) {
    if !enabled!(target: "service", Level::DEBUG) {
        return;
    }
    let network = network.clone();
    tasks.every("vitals", EVERY, false, move || {
        let n_tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let (n_inbound, n_outbound) = network.n_streams();
        let n_peers = network.connected_peers().len();
        debug!(
            target: "service",
            "vitals: tasks={n_tasks} inbound={n_inbound} outbound={n_outbound} peers={n_peers}"
        );
        std::future::ready(())
    });
}
