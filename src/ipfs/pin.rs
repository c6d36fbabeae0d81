//! `pin/add`, `pin/update` and `pin/rm`.

use std::time::Duration;

use cluster_compat::types::{Cid, Pin, PinMode};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;
use tracing::{debug, info};

use super::block::Outgoing;
use super::json::{self, Documents, Text};
use super::request::Limit;
use super::{Cause, Client, Error};
use crate::observe::metrics;

/// Origins the daemon is told to connect to before it pins.
const MAX_ORIGINS: usize = 10;

/// Kubo's message for a `pin/rm` of what is not pinned, compared as a whole. (Go: boxo `pinning/pinner`)
const NOT_PINNED: &str = "not pinned or pinned indirectly";

json::object! {
    /// A line of `pin/add`.
    ProgressLine {
        progress: i64 = "Progress",
        message: Text<'a> = "Message",
    }
}

impl Client {
    /// Makes the daemon hold `pin`, unless it already does. Takes as long as there is progress.
    pub async fn pin(&self, pin: &Pin) -> Result<(), Error> {
        let status = self.pin_ls_cid(&pin.cid, pin.max_depth).await?;
        if status.is_pinned(pin.max_depth) {
            debug!(target: "ipfshttp", "IPFS object is already pinned: {}", pin.cid);
            return Ok(());
        }
        self.count_event();
        let _event = self.event_at_end();
        let origins = pin.options.origins.as_deref().unwrap_or_default();
        let mut connecting: FuturesUnordered<_> =
            origins.iter().take(MAX_ORIGINS).map(|origin| self.connect(origin, Limit::NONE)).collect();
        let work = self.fetch(pin);
        tokio::pin!(work);
        loop {
            // Connections still being made when the work ends are dropped with it.
            tokio::select! {
                biased;
                result = &mut work => return result,
                Some(result) = connecting.next() => if let Err(failure) = result {
                    debug!(target: "ipfshttp", "{failure}");
                },
            }
        }
    }

    async fn fetch(&self, pin: &Pin) -> Result<(), Error> {
        if let Some(from) = &pin.options.pin_update {
            let depth = match pin.options.mode {
                PinMode::Recursive => -1,
                PinMode::Direct => 0,
            };
            // An old pin that cannot be asked for is one that is not there.
            if self.pin_ls_cid(from, depth).await.is_ok_and(|status| status.is_pinned(-1)) {
                match self.pin_update(from, &pin.cid).await {
                    // The old pin may be on its way out; what is there of it need not be fetched again either way.
                    Err(failure @ Error::Daemon { .. }) => {
                        info!(target: "ipfshttp", "IPFS Pin Update request failed, pinning anew: {failure}");
                    }
                    done => return done,
                }
            }
        }
        metrics::PIN_ADD.inc();
        self.pin_add(&pin.cid, pin.max_depth).await.inspect_err(|_| metrics::PIN_ADD_ERRORS.inc())?;
        metrics::IPFS_PINS.add(1);
        info!(target: "ipfshttp", "IPFS Pin request succeeded: {}", pin.cid);
        Ok(())
    }

    async fn pin_update(&self, from: &Cid, to: &Cid) -> Result<(), Error> {
        let path = format!("pin/update?arg={from}&arg={to}&unpin=false");
        self.inner.daemon.call(&path, Limit::NONE).await?;
        metrics::IPFS_PINS.add(1);
        info!(target: "ipfshttp", "IPFS Pin Update request succeeded. {from} -> {to} (unpin=false)");
        Ok(())
    }

    async fn pin_add(&self, cid: &Cid, depth: i64) -> Result<(), Error> {
        let path = match depth {
            ..0 => format!("pin/add?arg={cid}&recursive=true&progress=true"),
            0 => format!("pin/add?arg={cid}&recursive=false&progress=true"),
            1.. => format!("pin/add?arg={cid}&max-depth={depth}&recursive=true&progress=true"),
        };
        let stall = Stall { span: self.inner.options.pin_timeout, start: Instant::now() };
        let mut reply =
            self.inner.daemon.post(&path, None, Outgoing::Empty, stall.limit(stall.start)).await?;
        let mut documents = Documents::default();
        let mut highest = 0;
        while let Some(piece) = reply.piece().await? {
            let mut has_progress = false;
            let mut failure = None;
            let read = documents.feed(&piece, |lines| {
                while let Some(line) = lines.next::<ProgressLine<'_>>()? {
                    if !line.message.0.is_empty() {
                        failure = Some(line.message.0.into_owned());
                        break;
                    }
                    if line.progress > highest {
                        highest = line.progress;
                        has_progress = true;
                    }
                }
                Ok(())
            });
            read.map_err(Error::Reply)?;
            if let Some(message) = failure {
                return Err(reply.failure(message));
            }
            if has_progress {
                reply.limit = stall.limit(Instant::now());
            }
        }
        documents.finish().map_err(Error::Reply)
    }

    /// Makes the daemon drop `cid`; if it does not hold it, that is fine.
    pub async fn unpin(&self, cid: &Cid) -> Result<(), Error> {
        let options = &self.inner.options;
        if options.unpin_disable {
            return Err(Error::UnpinDisabled);
        }
        let limit = Limit::after(options.unpin_timeout);
        match self.inner.daemon.call(&format!("pin/rm?arg={cid}"), limit).await {
            Ok(_) => {
                metrics::IPFS_PINS.add(-1);
                info!(target: "ipfshttp", "IPFS Unpin request succeeded: {cid}");
                Ok(())
            }
            Err(Error::Daemon { message, .. }) if message == NOT_PINNED => {
                debug!(target: "ipfshttp", "IPFS object is already unpinned: {cid}");
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }
}

/// The rule that ends a pin without progress: looked at every `span` from the start, it ends when the last
/// progress is at least `span` old. So silence is noticed after one to two spans.
struct Stall {
    /// Zero: no limit.
    span: Duration,
    start: Instant,
}

impl Stall {
    /// The look that ends the pin if nothing comes after `progress_at`.
    fn limit(&self, progress_at: Instant) -> Limit {
        let span = self.span.as_nanos();
        if span == 0 {
            return Limit { at: None, cause: Cause::Canceled };
        }
        let n_looks = progress_at.duration_since(self.start).as_nanos().div_ceil(span) + 1;
        let at = u32::try_from(n_looks).ok().and_then(|n| self.span.checked_mul(n));
        Limit { at: at.and_then(|after| self.start.checked_add(after)), cause: Cause::Canceled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_ends_a_pin_at_the_first_look_that_finds_it_old() {
        let stall = Stall { span: Duration::from_secs(2), start: Instant::now() };
        for (progress_ms, end_ms) in [(0, 2000), (1, 4000), (1999, 4000), (2000, 4000), (2001, 6000)] {
            let limit = stall.limit(stall.start + Duration::from_millis(progress_ms));
            assert_eq!(
                limit.at,
                Some(stall.start + Duration::from_millis(end_ms)),
                "progress at {progress_ms}"
            );
        }
        let unlimited = Stall { span: Duration::ZERO, start: Instant::now() };
        assert_eq!(unlimited.limit(unlimited.start).at, None);
    }
}
