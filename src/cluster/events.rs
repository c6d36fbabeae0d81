//! Changes of the pinset, told to the tracker in the order they were applied.

use tokio::sync::mpsc;

use super::Cluster;
use crate::consensus::PinsetEvent;

impl Cluster {
    pub(super) fn spawn_events(&self, mut events: mpsc::Receiver<PinsetEvent>) {
        let tracker = self.inner.tracker.clone();
        let stop = self.inner.tasks.token();
        self.inner.tasks.spawn("pinset events", async move {
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    event = events.recv() => match event {
                        Some(PinsetEvent::Pinned(pin)) => tracker.track(*pin).await,
                        Some(PinsetEvent::Unpinned(cid)) => tracker.untrack(cid).await,
                        None => return,
                    },
                }
            }
        });
    }
}
