//! Small answers: version, garbage collection, alerts, bandwidth, repository sizes.

use std::collections::BTreeMap;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::cid::{CidJson, deserialize_cid};
use super::metric::serialize_fields;
use super::peer::{PeerJson, deserialize_some_peer};
use super::{Cid, Metric, PeerId};
use crate::go::time::Time;

/// Reads a field whose `null` means its zero value, as Go does.
pub(super) fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The version a peer says it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// `1.1.6`.
    #[serde(default, deserialize_with = "or_default")]
    pub version: String,
}

/// A metric that stopped.
#[derive(Debug, Clone, Deserialize)]
pub struct Alert {
    /// Its last sample.
    #[serde(flatten)]
    pub metric: Metric,
    /// When this peer noticed.
    #[serde(default, deserialize_with = "or_default")]
    pub triggered_at: Time,
}

/// Traffic of one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Bandwidth {
    /// Bytes received.
    pub total_in: i64,
    /// Bytes sent.
    pub total_out: i64,
    /// Bytes a second received.
    pub rate_in: f64,
    /// Bytes a second sent.
    pub rate_out: f64,
}

/// Traffic by libp2p protocol id.
pub type Bandwidths = BTreeMap<String, Bandwidth>;

/// One step of a garbage collection.
#[derive(Debug, Clone, Deserialize)]
pub struct RepoGcKey {
    /// The removed block; `None` prints `null`.
    #[serde(default, deserialize_with = "deserialize_cid")]
    pub key: Option<Cid>,
    /// Why it could not be removed.
    #[serde(default, deserialize_with = "or_default")]
    pub error: String,
}

/// A garbage collection on one peer.
#[derive(Debug, Clone, Deserialize)]
pub struct RepoGc {
    /// The peer.
    #[serde(deserialize_with = "deserialize_some_peer")]
    pub peer: PeerId,
    /// Its name.
    #[serde(default, deserialize_with = "or_default")]
    pub peername: String,
    /// Steps; `None` prints `null`.
    #[serde(default)]
    pub keys: Option<Vec<RepoGcKey>>,
    /// Why it failed as a whole.
    #[serde(default, deserialize_with = "or_default")]
    pub error: String,
}

/// A garbage collection on all peers, keyed by peer id text.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct GlobalRepoGc {
    /// By peer.
    #[serde(default, deserialize_with = "or_default")]
    pub peer_map: BTreeMap<String, RepoGc>,
}

/// Size of a daemon's repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IpfsRepoStat {
    /// Bytes used.
    pub repo_size: u64,
    /// Bytes allowed; 18446744073709551615 is "no limit".
    pub storage_max: u64,
}

/// A finished block on its way to a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its CID.
    pub cid: Cid,
    /// Its bytes.
    pub data: bytes::Bytes,
    /// Whether no pin needs it: sent because the reference sends it, or sent before. A daemon may leave it unconfirmed.
    pub is_spare: bool,
}

impl Serialize for Alert {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Alert", 9)?;
        serialize_fields(&self.metric, &mut out)?;
        out.serialize_field("triggered_at", &self.triggered_at)?;
        out.end()
    }
}

impl Serialize for RepoGcKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("IPFSRepoGC", 2)?;
        out.serialize_field("key", &CidJson(self.key.as_ref()))?;
        if !self.error.is_empty() {
            out.serialize_field("error", &self.error)?;
        }
        out.end()
    }
}

impl Serialize for RepoGc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("RepoGC", 4)?;
        out.serialize_field("peer", &PeerJson(Some(&self.peer)))?;
        out.serialize_field("peername", &self.peername)?;
        out.serialize_field("keys", &self.keys)?;
        if !self.error.is_empty() {
            out.serialize_field("error", &self.error)?;
        }
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go::json;

    fn round_trip<T: Serialize + serde::de::DeserializeOwned>(text: &str) {
        match serde_json::from_str::<T>(text) {
            Ok(value) => assert_eq!(json::to_string(&value), text),
            Err(error) => panic!("{text}: {error}"),
        }
    }

    #[test]
    fn documents_of_the_reference_survive_a_round_trip() {
        round_trip::<Version>(r#"{"version":"1.1.6"}"#);
        round_trip::<Vec<Alert>>(
            r#"[{"name":"ping","peer":"QmUZ13osndQ5uL4tPWHXe3iBgBgq9gfewcBMSCAuMBsDJ6","value":"","expire":1795230959632083170,"valid":true,"weight":0,"partitionable":false,"received_at":1795230929632083270,"triggered_at":"2026-11-21T03:16:29.632083331Z"}]"#,
        );
        round_trip::<Bandwidths>(
            r#"{"":{"total_in":0,"total_out":0,"rate_in":0,"rate_out":1e-7},"protocol1":{"total_in":10,"total_out":20,"rate_in":1,"rate_out":2.5}}"#,
        );
        round_trip::<GlobalRepoGc>(
            r#"{"peer_map":{"12D3KooWGHTKzeT4KaLGLrbKKyT8zKrBPXAUBRzCAN6ZMDMo4M6M":{"peer":"12D3KooWGHTKzeT4KaLGLrbKKyT8zKrBPXAUBRzCAN6ZMDMo4M6M","peername":"cluster0","keys":[{"key":"QmP63DkAFEnDYNjDYBpyNDfttu1fvUw99x1brscPzpqmmq"},{"key":null,"error":"no link by that name"}],"error":"x"}}}"#,
        );
    }
}
