//! The pinset, read from a `Kv`; export and import.

/// The pinset as it stands; a cheap handle that always reads the present.
#[derive(Clone)]
pub struct Pinset {}
