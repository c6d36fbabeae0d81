//! `encoding/json`, byte for byte.
