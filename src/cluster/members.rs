//! The other members: asking them, and what is known of those that do not answer.

use std::time::Duration;

use bytes::Bytes;
use cluster_compat::api::Result;
use cluster_compat::go::time::Time;
use cluster_compat::types::{Multiaddr, PeerId, PinInfoShort, TrackerStatus, parse_multiaddr, parse_peer_id};
use serde::Deserialize;

use super::allocate::PING;
use super::{Cluster, failed};
use crate::rpc::{self, Call};

/// How long a member may take to answer a question of one value. (Go: `cluster.go`, 15 s in three places)
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// Intervals of our own pings within which one of another peer must have arrived, if its clock were so far ahead that
/// its pings never run out.
const N_PINGS_OF_LIFE: u32 = 4;

/// Pause between looks at the pings of a peer that owes an answer.
const LIFE_CHECK_EVERY: Duration = Duration::from_secs(1);

/// Members that are asked at once; in larger clusters the others wait their turn.
pub(super) const MAX_ASKED: usize = 256;

/// The argument of methods that take none.
pub(super) const NOTHING: &[u8] = b"\x80";

impl Cluster {
    /// All members, this peer included; a follower shows itself alone.
    pub(super) async fn shown_members(&self) -> Result<Vec<PeerId>> {
        if self.inner.config.follower_mode {
            return Ok(vec![self.inner.peer]);
        }
        self.inner.consensus.peers().await.map_err(failed)
    }

    /// Asks a member one thing.
    pub(super) async fn ask(
        &self,
        peer: PeerId,
        call: Call,
        argument: &[u8],
        limit: Option<Duration>,
    ) -> Result<Bytes, rpc::Error> {
        self.inner.rpc.call(peer, call, argument.to_vec(), limit).await
    }

    /// Resolves when a peer that owes an answer has given no sign of life: its pings have run out, by its clock or by
    /// ours. Who still pings is slow, and may be.
    pub(super) async fn is_gone(&self, peer: &PeerId) {
        tokio::time::sleep(ANSWER_LIMIT).await;
        let lifetime = self.inner.config.monitor_ping_interval.to_std() * N_PINGS_OF_LIFE;
        let lifetime = i64::try_from(lifetime.max(ANSWER_LIMIT).as_nanos()).unwrap_or(i64::MAX);
        loop {
            let now = Time::now();
            let is_alive = self.inner.monitor.latest_of(PING, peer).is_some_and(|ping| {
                !ping.is_discarded_at(now) && now.unix_nanos().saturating_sub(ping.received_at) < lifetime
            });
            if !is_alive {
                return;
            }
            tokio::time::sleep(LIFE_CHECK_EVERY).await;
        }
    }

    /// A member's part of a status that it did not give itself: its last ping, even an expired one, names it.
    pub(super) fn last_known(&self, peer: &PeerId, status: TrackerStatus, error: String) -> PinInfoShort {
        let ping = self.last_ping(peer);
        PinInfoShort {
            peername: ping.peer_name,
            ipfs_peer_id: ping.ipfs_id,
            ipfs_peer_addresses: ping.ipfs_addresses,
            status,
            timestamp: Time::now(),
            error,
            attempt_count: 0,
            priority_pin: false,
        }
    }

    /// What a peer said last about itself and its daemon.
    pub(super) fn last_ping(&self, peer: &PeerId) -> Ping {
        let metric = self.inner.monitor.latest_of(PING, peer);
        metric.map(|metric| Ping::parse(&metric.value)).unwrap_or_default()
    }
}

/// The value of a `ping`, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ping {
    pub(super) peer_name: String,
    pub(super) ipfs_id: Option<PeerId>,
    pub(super) ipfs_addresses: Vec<Multiaddr>,
}

impl Ping {
    /// What cannot be read is left out.
    fn parse(value: &str) -> Self {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Json {
            peer_name: Option<String>,
            ipfs_id: Option<String>,
            ipfs_addresses: Option<Vec<String>>,
        }
        let json: Json = serde_json::from_str(value).unwrap_or_default();
        Self {
            peer_name: json.peer_name.unwrap_or_default(),
            ipfs_id: json.ipfs_id.and_then(|id| parse_peer_id(&id).ok()),
            ipfs_addresses: json
                .ipfs_addresses
                .unwrap_or_default()
                .iter()
                .filter_map(|addr| parse_multiaddr(addr).ok())
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_tell_names_and_daemons_as_far_as_they_can_be_read() {
        let daemon = "12D3KooWKuJ8LPTyHbyX4nt4C7uWmUobzFsiceTVoFw7HpmoNakM";
        let ping = Ping::parse(&format!(
            r#"{{"peer_name":"a","ipfs_id":"{daemon}","ipfs_addresses":["/ip4/1.2.3.4/tcp/1","?"],"x":1}}"#
        ));
        assert_eq!(ping.peer_name, "a");
        assert_eq!(ping.ipfs_id.map(|id| id.to_string()).as_deref(), Some(daemon));
        assert_eq!(ping.ipfs_addresses.len(), 1);
        for odd in ["", "not json", "[]", r#"{"ipfs_id":null}"#] {
            assert_eq!(Ping::parse(odd), Ping::default(), "{odd}");
        }
    }
}
