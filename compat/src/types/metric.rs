//! Metrics that peers publish about themselves.

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use super::PeerId;
use super::misc::or_default;
use super::peer::{PeerJson, deserialize_peer};
use crate::go::time::{Duration, Time};

/// One sample.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Metric {
    /// `ping`, `freespace`, `tag:group`, …
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Whom it is about; `None` prints `""`.
    #[serde(deserialize_with = "deserialize_peer")]
    pub peer: Option<PeerId>,
    /// The value as text.
    #[serde(deserialize_with = "or_default")]
    pub value: String,
    /// When it stops counting: Unix nanoseconds by the sender's clock.
    pub expire: i64,
    /// Whether the sender could measure it.
    pub valid: bool,
    /// What the allocator sorts by.
    pub weight: i64,
    /// Whether equal values form one partition.
    pub partitionable: bool,
    /// When this peer stored it: Unix nanoseconds.
    pub received_at: i64,
}

impl Metric {
    /// Lets the metric expire a time to live after `now`.
    pub fn set_ttl(&mut self, now: Time, ttl: Duration) {
        self.expire = now.add(ttl).unix_nanos();
    }

    /// Whether it stopped counting before `now`.
    pub fn is_expired_at(&self, now: Time) -> bool {
        now.unix_nanos() > self.expire
    }

    /// Whether nobody should look at it: invalid or expired.
    pub fn is_discarded_at(&self, now: Time) -> bool {
        !self.valid || self.is_expired_at(now)
    }
}

/// Writes the metric's fields, also into the larger document of an alert.
pub(super) fn serialize_fields<S: SerializeStruct>(metric: &Metric, out: &mut S) -> Result<(), S::Error> {
    out.serialize_field("name", &metric.name)?;
    out.serialize_field("peer", &PeerJson(metric.peer.as_ref()))?;
    out.serialize_field("value", &metric.value)?;
    out.serialize_field("expire", &metric.expire)?;
    out.serialize_field("valid", &metric.valid)?;
    out.serialize_field("weight", &metric.weight)?;
    out.serialize_field("partitionable", &metric.partitionable)?;
    out.serialize_field("received_at", &metric.received_at)
}

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Metric", 8)?;
        serialize_fields(self, &mut out)?;
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go::json;

    #[test]
    fn documents_of_the_reference_survive_a_round_trip() {
        let text = r#"{"name":"freespace","peer":"12D3KooWGHTKzeT4KaLGLrbKKyT8zKrBPXAUBRzCAN6ZMDMo4M6M","value":"9876543210","expire":1795230991632766386,"valid":true,"weight":9876543210,"partitionable":false,"received_at":1795230961632766386}"#;
        match serde_json::from_str::<Metric>(text) {
            Ok(metric) => assert_eq!(json::to_string(&metric), text),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_metric_counts_until_it_expires() {
        let now = Time::from_unix(100, 0);
        let mut metric = Metric { valid: true, ..Metric::default() };
        metric.set_ttl(now, Duration::from_secs(5));
        assert!(!metric.is_discarded_at(now.add(Duration::from_secs(5))));
        assert!(metric.is_discarded_at(now.add(Duration(5_000_000_001))));
        metric.valid = false;
        assert!(metric.is_discarded_at(now) && !metric.is_expired_at(now));
    }
}
