//! What this peer tells about itself, for allocators everywhere to choose by.
//!
//! An [`Informer`] measures one thing and answers with metrics; [`crate::cluster`] stamps them with the peer and
//! has them published, every half life of a metric. A metric that could not be measured is invalid, and an
//! invalid metric is not published: so a peer whose daemon is down or full stops being chosen once the last good
//! metric has expired.
//!
//! - The set is closed: an informer is there if the configuration has its section.
//! - No informer keeps a schedule, a task or a last value.

mod disk;
mod pinqueue;
mod tags;

use cluster_compat::config::Config;
use cluster_compat::go::time::{Duration, Time};
use cluster_compat::types::Metric;

pub use self::disk::Disk;
pub use self::pinqueue::{PinQueue, QueueSize};
pub use self::tags::Tags;
use crate::ipfs;

/// One of the things a peer can tell.
#[derive(Debug)]
pub enum Informer {
    /// Room in the daemon's repository.
    Disk(Disk),
    /// Labels from the configuration.
    Tags(Tags),
    /// Pins that wait.
    PinQueue(PinQueue),
}

impl Informer {
    /// Those that the configuration asks for, in the reference's order.
    pub fn configured(config: &Config, ipfs: &ipfs::Client, queue_size: &QueueSize) -> Vec<Self> {
        let mut informers = Vec::new();
        if config.disk.present {
            informers.push(Self::Disk(Disk::new(&config.disk, ipfs.clone())));
        }
        if config.tags.present {
            informers.push(Self::Tags(Tags::new(&config.tags)));
        }
        if config.pinqueue.present {
            informers.push(Self::PinQueue(PinQueue::new(&config.pinqueue, queue_size.clone())));
        }
        informers
    }

    /// Measures. There is at least one metric; `peer` is left to the caller.
    pub async fn metrics(&self) -> Vec<Metric> {
        match self {
            Self::Disk(disk) => vec![disk.metric().await],
            Self::Tags(tags) => tags.metrics(Time::now()),
            Self::PinQueue(queue) => vec![queue.metric(Time::now())],
        }
    }

    /// How long its metrics count; they are due again after half of that.
    pub fn metric_ttl(&self) -> Duration {
        match self {
            Self::Disk(disk) => disk.metric_ttl(),
            Self::Tags(tags) => tags.metric_ttl(),
            Self::PinQueue(queue) => queue.metric_ttl(),
        }
    }
}
