//! (page of the room)

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
#[error("store")]
pub struct Error;
