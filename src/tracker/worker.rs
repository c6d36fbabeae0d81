//! Workers: each takes a job, asks the daemon, and writes down how it went.

use std::sync::Arc;

use cluster_compat::go::time::Time;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Shared;
use super::ops::{Job, Kind, Lane};
use crate::task::Tasks;

/// Unpins of pins that are for other peers, at a time. The reference runs them in line with the events that cause
/// them, any number at once; a limit keeps a burst of allocations from flooding the daemon.
const N_REMOTE_WORKERS: usize = 10;

/// Unpins at a time, as in the reference.
const N_UNPIN_WORKERS: usize = 1;

/// Starts all workers; they run until `tasks` stops.
pub(super) fn start(shared: &Arc<Shared>, tasks: &Tasks, n_pin_workers: usize) {
    let lanes =
        [(Lane::Pins, n_pin_workers), (Lane::Unpins, N_UNPIN_WORKERS), (Lane::Remotes, N_REMOTE_WORKERS)];
    for (lane, n_workers) in lanes {
        for i in 0..n_workers {
            let worker = Worker { shared: Arc::clone(shared), lane, stop: tasks.token() };
            tasks.spawn(format!("tracker {lane:?} {i}"), worker.run());
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    lane: Lane,
    stop: CancellationToken,
}

impl Worker {
    async fn run(self) {
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                (job, abort) = self.next_job() => {
                    tokio::select! {
                        biased;
                        () = self.stop.cancelled() => return,
                        // whoever aborted it has replaced the operation already
                        () = abort.cancelled() => debug!(target: "pintracker", cid = %job.pin.cid, "aborted"),
                        failure = self.work(&job) => self.on_done(&job, failure),
                    }
                }
            }
        }
    }

    async fn next_job(&self) -> (Job, CancellationToken) {
        let waiters = self.shared.waiters(self.lane);
        loop {
            {
                let mut state = self.shared.lock();
                if let Some(job) = state.ops.take(self.lane, Time::now()) {
                    if state.ops.has_jobs(self.lane) {
                        waiters.notify_one();
                    }
                    let abort = CancellationToken::new();
                    state.running.insert(job.id, abort.clone());
                    return (job, abort);
                }
            }
            waiters.notified().await;
        }
    }

    /// The error's text, or `None` when it went well.
    async fn work(&self, job: &Job) -> Option<String> {
        let cid = &job.pin.cid;
        debug!(target: "pintracker", %cid, kind = ?job.kind, "asking the daemon");
        let result = match job.kind {
            Kind::Pin => self.shared.ipfs.pin(&job.pin).await,
            Kind::Unpin | Kind::Remote => self.shared.ipfs.unpin(cid).await,
        };
        result.err().map(|e| e.to_string())
    }

    fn on_done(&self, job: &Job, failure: Option<String>) {
        let mut state = self.shared.lock();
        state.running.remove(&job.id);
        state.ops.finish(job.id, failure, Time::now());
    }
}
