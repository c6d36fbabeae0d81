//! The command lines: what was typed becomes calls of the rooms below.
//!
//! ```text
//!   arguments ─ table::App::parse ─┬─ Done: help, version, usage errors
//!                                  └─ Run ─ service │ ctl │ follow ─ exit::finish ─ exit code
//! ```
//!
//! - [`table`] describes programs, commands and flags once, for parsing, help and tests; `help` prints the pages.
//! - [`exit`] has the last words: `error <doing>: <cause>` and the exit codes scripts depend on.
//! - [`service`] is `ipfs-cluster-service`, [`ctl`] is `ipfs-cluster-ctl`, [`follow`] is `ipfs-cluster-follow`.
//! - `complete` and `man` print completions for shells and manual pages from the same tables.
//!
//! Nothing here decides how a cluster works; a command reads, calls, prints.

mod complete;
pub mod ctl;
pub mod exit;
mod folder;
pub mod follow;
mod help;
mod man;
pub mod service;
pub mod table;
mod values;
