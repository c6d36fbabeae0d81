//! Kubo's RPC, as a client.
//!
//! ```text
//!  pin  ls  block  repo  swarm  config      what can be asked, in the daemon's words
//!          └─────┬─────┘
//!             request      the brake (throttle), redirects, status → Error, limits, trailers
//!                │
//!              link        connections (dial), kept idle between requests
//! ```
//!
//! - Requests are those of the reference byte for byte: names, order and spelling of headers, order of query
//!   parameters. That, and trailers, is why connections are hyper's own and not reqwest's: reqwest always adds
//!   an `Accept` line, and its body stream drops the trailer in which Kubo reports a late failure.
//! - The room spawns nothing. A request lives in the future of its caller; dropping that aborts it.
//! - Nothing is retried here; the tracker does that. The only exception is a request that was never sent because
//!   an idle connection had been closed.
//! - Whatever the daemon sends is bounded: heads, error texts, documents of a stream, whole replies.
//! - A failure after the first byte of output, in the trailer or as an error line, is a failure of the call.

mod asked;
mod block;
mod config;
mod dial;
mod inflate;
mod json;
mod link;
mod ls;
mod pin;
mod repo;
mod request;
mod swarm;
mod throttle;
mod via;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cluster_compat::config::IpfsHttp;
use cluster_compat::types::TrackerStatus;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::dial::Address;
use self::request::{Daemon, Limit};
use self::via::Via;

/// Pause between two tries while the daemon is not there yet.
const READY_PAUSE: Duration = Duration::from_secs(1);

/// Tries between two warnings while the daemon is not there yet.
const TRIES_PER_WARNING: u64 = 10;

/// Why a call to the daemon failed. The text is the reference's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The daemon answered with an error document, or reported a failure after its first output (status 200).
    #[error("IPFS error ({path}). Code: {status}. Message: {message}")]
    Daemon {
        /// What was asked: everything after `/api/v0/`.
        path: String,
        /// The HTTP status.
        status: u16,
        /// The daemon's words.
        message: String,
    },
    /// Something answered, but not as a daemon does.
    #[error("IPFS request failed (is it running?) ({path}). Code {status}: {body}")]
    Refused {
        /// What was asked: everything after `/api/v0/`.
        path: String,
        /// The HTTP status.
        status: u16,
        /// The body as it came.
        body: String,
    },
    /// There was no response.
    #[error("{method} \"{url}\": {cause}")]
    Unreachable {
        /// `Post`, or `Get` after a redirect.
        method: &'static str,
        /// What was asked.
        url: String,
        /// Go's words for what happened.
        cause: String,
    },
    /// The call took too long, or its pin stalled, while it waited for its turn or read the reply.
    #[error("{0}")]
    Limit(#[from] Cause),
    /// The reply could not be read or makes no sense.
    #[error("{0}")]
    Reply(String),
    /// `unpin_disable` is set.
    #[error("ipfs unpinning is disallowed by configuration on this peer")]
    UnpinDisabled,
    /// A block stream ended before its first block.
    #[error("BlockStream: no blocks to peek in blocks channel")]
    NoBlocks,
    /// The argument was wrong; nothing was asked.
    #[error("{0}")]
    Argument(String),
}

/// Why a call was ended from our side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// Its time was over.
    #[error("context deadline exceeded")]
    DeadlineExceeded,
    /// A pin made no progress.
    #[error("context canceled")]
    Canceled,
}

/// How the daemon holds a CID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IpfsPinStatus {
    /// It said something we do not know.
    Bug,
    /// It could not be asked.
    Error,
    /// The block alone.
    Direct,
    /// The whole DAG.
    Recursive,
    /// As part of another DAG.
    Indirect,
    /// Not at all.
    Unpinned,
}

impl IpfsPinStatus {
    /// Reads the type in a line of `pin/ls`.
    pub fn parse(text: &str) -> Self {
        match text {
            "direct" => Self::Direct,
            _ if text.starts_with("recursive") => Self::Recursive,
            // the line goes on: `indirect through <cid>`
            _ if text.starts_with("indirect") => Self::Indirect,
            _ => Self::Bug,
        }
    }

    /// Whether this is what a pin of this depth asks for.
    pub fn is_pinned(self, depth: i64) -> bool {
        match depth {
            0 => self == Self::Direct,
            _ => self == Self::Recursive,
        }
    }

    /// The status of an item in the pinset whose CID is held this way.
    pub fn to_tracker_status(self) -> TrackerStatus {
        match self {
            Self::Direct | Self::Recursive => TrackerStatus::PINNED,
            Self::Indirect | Self::Unpinned => TrackerStatus::UNPINNED,
            Self::Bug => TrackerStatus::UNDEFINED,
            Self::Error => TrackerStatus::CLUSTER_ERROR,
        }
    }
}

/// What a client needs to know, once read from the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Multiaddress of the daemon's RPC, `/unix/<path>` for a socket.
    pub node_multiaddress: String,
    /// Limit of every short request. Zero: all of them fail at once.
    pub ipfs_request_timeout: Duration,
    /// Longest silence from the daemon while pinning; pins themselves may take hours. Zero: none.
    pub pin_timeout: Duration,
    /// Limit of `pin/rm`. Zero: all of them fail at once.
    pub unpin_timeout: Duration,
    /// Limit of `repo/gc`. Zero: all of them fail at once.
    pub repogc_timeout: Duration,
    /// Events between two informer triggers. Zero: never.
    pub informer_trigger_interval: u64,
    /// Refuse to unpin.
    pub unpin_disable: bool,
}

impl From<&IpfsHttp> for Options {
    fn from(config: &IpfsHttp) -> Self {
        Self {
            node_multiaddress: config.node_multiaddress.to_string(),
            ipfs_request_timeout: config.ipfs_request_timeout.to_std(),
            pin_timeout: config.pin_timeout.to_std(),
            unpin_timeout: config.unpin_timeout.to_std(),
            repogc_timeout: config.repogc_timeout.to_std(),
            informer_trigger_interval: u64::try_from(config.informer_trigger_interval).unwrap_or(0),
            unpin_disable: config.unpin_disable,
        }
    }
}

/// A client of one daemon. Clones share connections, brake and counters.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    daemon: Arc<Daemon>,
    /// Events since the last trigger.
    events: AtomicU64,
    trigger: Arc<Notify>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

impl Client {
    /// A client as configured; the daemon is not asked anything yet.
    pub fn new(config: &IpfsHttp) -> Result<Self, Error> {
        Self::with_options(Options::from(config))
    }

    /// A client with these options; the daemon is not asked anything yet.
    pub fn with_options(options: Options) -> Result<Self, Error> {
        let address = Address::parse(&options.node_multiaddress).map_err(Error::Argument)?;
        let via = Via::of(&address, via::process);
        Self::reached(address, via, options)
    }

    fn reached(address: Address, via: Option<Via>, options: Options) -> Result<Self, Error> {
        let daemon = Arc::new(Daemon::new(address, via)?);
        let inner = Inner { options, daemon, events: AtomicU64::new(0), trigger: Arc::new(Notify::new()) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Waits until the daemon says who it is, or until `stop`; answers whether it did.
    pub async fn wait_ready(&self, stop: &CancellationToken) -> bool {
        let mut n_tries: u64 = 0;
        loop {
            let answer = tokio::select! {
                biased;
                () = stop.cancelled() => return false,
                answer = self.id() => answer,
            };
            if answer.is_ok() {
                return true;
            }
            n_tries += 1;
            if n_tries.is_multiple_of(TRIES_PER_WARNING) {
                warn!(target: "ipfshttp", "ipfs does not seem to be available after {n_tries} retries");
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return false,
                () = tokio::time::sleep(READY_PAUSE) => {}
            }
        }
    }

    /// Notified at every n-th event (a pin starts or ends, a block stream or a collection ends); then the
    /// informers' metrics are worth publishing. One waiter.
    pub fn informer_trigger(&self) -> Arc<Notify> {
        Arc::clone(&self.inner.trigger)
    }

    fn count_event(&self) {
        let interval = self.inner.options.informer_trigger_interval;
        if interval > 0 && self.inner.events.fetch_add(1, Ordering::Relaxed) + 1 >= interval {
            self.inner.events.store(0, Ordering::Relaxed);
            self.inner.trigger.notify_one();
        }
    }

    /// Counts an event when it is dropped, however its scope ends.
    fn event_at_end(&self) -> EventAtEnd<'_> {
        EventAtEnd(self)
    }

    fn request_limit(&self) -> Limit {
        Limit::after(self.inner.options.ipfs_request_timeout)
    }
}

struct EventAtEnd<'a>(&'a Client);

impl Drop for EventAtEnd<'_> {
    fn drop(&mut self) {
        self.0.count_event();
    }
}

#[cfg(test)]
mod tests;
