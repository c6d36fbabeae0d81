//! Trying again what failed or got lost.

use cluster_compat::types::{Cid, Pin, PinInfo, TrackerStatus};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tracing::{error, info, warn};

use super::ops::{Kind, OpId};
use super::{Error, Tracker};

/// Failed unpins looked at in one go.
const N_UNPINS_PER_PAGE: usize = 64;

/// Pins that failed, and pins that the daemon lost.
const RECOVERABLE: TrackerStatus =
    TrackerStatus(TrackerStatus::PIN_ERROR.0 | TrackerStatus::UNEXPECTEDLY_UNPINNED.0);

impl Tracker {
    /// Tries a CID again where its operation failed or the daemon lost it; the status afterwards.
    pub async fn recover(&self, cid: &Cid) -> Result<PinInfo, Error> {
        let before = self.status(cid).await;
        Ok(self.retry(&before.cid, before.short.status).await?.unwrap_or(before))
    }

    /// Tries again all that failed or that the daemon lost; yields what was queued. Ends after the first operation
    /// that finds no place. When the daemon cannot list its pins only failed unpins are tried, and that is no error.
    pub fn recover_all(&self) -> BoxStream<'static, Result<PinInfo, Error>> {
        // unpins first: they need no daemon to be found
        let unpins = stream::unfold((self.clone(), Some(None)), |(tracker, next)| async move {
            let (cids, next) = tracker.failed_unpins(next?);
            let retried = stream::iter(cids).then({
                let tracker = tracker.clone();
                move |cid| {
                    let tracker = tracker.clone();
                    async move { tracker.retry(&cid, TrackerStatus::UNPIN_ERROR).await.transpose() }
                }
            });
            Some((retried, (tracker, next)))
        })
        .flatten();
        let tracker = self.clone();
        let pins = self.status_all(RECOVERABLE).then(move |listed| {
            let tracker = tracker.clone();
            async move {
                match listed {
                    Ok(info) => tracker.retry(&info.cid, info.short.status).await.transpose(),
                    Err(e) => {
                        error!(target: "pintracker", "{e}");
                        None
                    }
                }
            }
        });
        let retried = unpins.chain(pins).filter_map(futures::future::ready);
        // up to and with the first error
        let until_error = retried.scan(false, |has_failed, item| {
            let item = (!*has_failed).then_some(item);
            *has_failed = matches!(item, Some(Err(_)));
            futures::future::ready(item)
        });
        until_error.map(|item| item.map_err(|e| Error::RecoverAll(Box::new(e)))).boxed()
    }

    /// Queues a CID again if `status` asks for it; what it became.
    async fn retry(&self, cid: &Cid, status: TrackerStatus) -> Result<Option<PinInfo>, Error> {
        let (kind, pin) = match status {
            TrackerStatus::PIN_ERROR | TrackerStatus::UNEXPECTEDLY_UNPINNED => {
                match self.shared.pinset.get(cid) {
                    Ok(Some(pin)) => (Kind::Pin, pin),
                    // it left the pinset meanwhile
                    Ok(None) => return Ok(Some(self.status(cid).await)),
                    Err(e) => {
                        warn!(target: "pintracker", %cid, "{e}");
                        return Ok(Some(self.status(cid).await));
                    }
                }
            }
            // one that was pinned again since has its own operation, or will have it in a moment
            TrackerStatus::UNPIN_ERROR if self.shared.pinset.contains(cid)? => {
                return Ok(Some(self.status(cid).await));
            }
            TrackerStatus::UNPIN_ERROR => (Kind::Unpin, Pin::new(*cid)),
            _ => return Ok(None),
        };
        let word = if kind == Kind::Pin { "pin" } else { "unpin" };
        info!(target: "pintracker", "Restarting {word} operation for {cid}");
        let me = self.shared.me();
        match self.shared.wish(kind, pin, |operation| me.about_operation(operation))? {
            Some(queued) => Ok(Some(queued)),
            None => Ok(Some(self.status(cid).await)),
        }
    }

    fn failed_unpins(&self, after: Option<OpId>) -> (Vec<Cid>, Option<Option<OpId>>) {
        let state = self.shared.lock();
        let (cids, next) =
            state
                .ops
                .page(after, N_UNPINS_PER_PAGE, TrackerStatus::UNPIN_ERROR, |operation| operation.pin.cid);
        (cids, next.map(Some))
    }
}
