//! CIDs: text with the reference's errors, JSON.

pub use cid::Cid;

/// Parses a CID as go-cid does; the error is its text, from `invalid cid: …` on (spec: rest-api 5.4).
pub fn parse_cid(text: &str) -> Result<Cid, String> {
    Cid::try_from(text).map_err(|e| format!("invalid cid: {e}"))
}
