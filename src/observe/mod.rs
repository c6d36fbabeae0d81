//! What a peer lets its operator see.
//!
//! Code anywhere logs through `tracing` with the reference's facility as target
//! (`info!(target: "pintracker", …)`); this room decides what is shown and prints it as go-log does, since people
//! and machines filter on those names and columns. Rooms count in statics of [`metrics`], which cost an atomic addition,
//! and begin spans with [`trace`], which cost nothing while nobody traces.

pub mod http;
pub mod log;
pub mod metrics;
mod otlp;
pub mod page;
pub mod trace;

/// Why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// cmd/ipfs-cluster-service/main.go:793
    #[error("log level not in expected format \"identifier:loglevel\" or \"loglevel\"")]
    LevelFormat,
    /// The file of `GOLOG_FILE` cannot be opened.
    #[error("unable to open logging output: {path}: {source}")]
    File {
        /// As configured.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Logging is set up once in a process.
    #[error("logging is already set up")]
    AlreadySet,
}
