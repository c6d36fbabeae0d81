//! The agreed pinset.

pub mod crdt;
#[cfg(test)]
pub(crate) mod suite;

use async_trait::async_trait;
use cluster_compat::types::{Cid, PeerId, Pin};

use crate::state::Pinset;

/// A change of the pinset, told to this peer's tracker in the order it was applied.
#[derive(Debug, Clone)]
pub enum PinsetEvent {
    /// A pin was written or replaced.
    Pinned(Box<Pin>),
    /// A CID left the pinset (or one of its adds did: look at the pinset).
    Unpinned(Cid),
}

/// Why the consensus could not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The message is the reference's, and reaches clients.
    #[error("{0}")]
    Message(String),
    /// The store failed.
    #[error("{0}")]
    Store(#[from] crate::store::Error),
}

/// How peers agree on the pinset.
#[async_trait]
pub trait Consensus: Send + Sync + 'static {
    /// Writes a pin. Returns when it is durable and listed (with batching: durable).
    async fn log_pin(&self, pin: Pin) -> Result<(), Error>;
    /// Removes a pin. Returns as [`Consensus::log_pin`] does.
    async fn log_unpin(&self, pin: Pin) -> Result<(), Error>;
    /// The pinset as it stands; a cheap handle that always reads the present.
    fn pinset(&self) -> Pinset;
    /// The members, this peer included, sorted by the bytes of their ids.
    async fn peers(&self) -> Result<Vec<PeerId>, Error>;
    /// Whether the writes of a peer count here.
    fn is_trusted(&self, peer: &PeerId) -> bool;
    /// Adds a member.
    async fn add_peer(&self, peer: PeerId) -> Result<(), Error>;
    /// Removes a member.
    async fn rm_peer(&self, peer: PeerId) -> Result<(), Error>;
    /// Flushes what waits and stops; everything acknowledged is on disk afterwards.
    async fn stop(&self) -> Result<(), Error>;
}
