//! The `consensus.crdt` section.

use std::path::Path;

use super::section::{Component, require, set_duration, set_number, set_text, table};
use super::value::Nested;
use crate::go::time::Duration;
use crate::types::{PeerId, parse_peer_id};

const MAX_QUEUE_SIZE: i64 = 50_000;
const REBROADCAST_INTERVAL: Duration = Duration::from_mins(1);
const PEERSET_METRIC: &str = "ping";
const NAMESPACE: &str = "/c";

/// The CRDT pinset.
#[derive(Debug, Clone, PartialEq)]
pub struct Crdt {
    /// Name of the cluster; the gossip topic derives from it. Default `ipfs-cluster`.
    pub cluster_name: String,
    /// Whether every peer may write (`*` in the file). Default true, missing false.
    pub trust_all: bool,
    /// The peers that may write besides this one, unless all may.
    pub trusted_peers: Vec<PeerId>,
    /// Many pins in one update.
    pub batching: Batching,
    /// Period of repairs of a dirty DAG; zero disables them. Default 1 h.
    pub repair_interval: Duration,
    /// Period of announcing the heads again. Default 1 min, above zero.
    pub rebroadcast_interval: Duration,
    /// The metric whose senders are the members. Default `ping`.
    pub peerset_metric: String,
    /// Prefix of the keys. Default `/c`.
    pub datastore_namespace: String,
}

/// Many pins in one update.
#[derive(Debug, Clone, PartialEq)]
pub struct Batching {
    /// Commit at this many pins; not above zero: no batching. Default 0.
    pub max_batch_size: i64,
    /// Commit when the oldest waits this long; not above zero: no batching. Default 0.
    pub max_batch_age: Duration,
    /// More waiting pins than this are refused. Default 50000, above zero.
    pub max_queue_size: i64,
}

impl Batching {
    /// Batching needs both a size and an age.
    pub fn is_enabled(&self) -> bool {
        self.max_batch_size > 0 && self.max_batch_age > Duration::ZERO
    }
}

impl Default for Crdt {
    fn default() -> Self {
        Self {
            cluster_name: "ipfs-cluster".to_owned(),
            trust_all: true,
            trusted_peers: Vec::new(),
            batching: Batching {
                max_batch_size: 0,
                max_batch_age: Duration::ZERO,
                max_queue_size: MAX_QUEUE_SIZE,
            },
            repair_interval: Duration::from_hours(1),
            rebroadcast_interval: REBROADCAST_INTERVAL,
            peerset_metric: PEERSET_METRIC.to_owned(),
            datastore_namespace: NAMESPACE.to_owned(),
        }
    }
}

table! {
    CrdtTable = "crdt.jsonConfig" {
        cluster_name: String = "ClusterName",
        trusted_peers: Vec<String> = "TrustedPeers",
        batching: Nested<BatchingTable> = "Batching",
        repair_interval: String = "RepairInterval",
        rebroadcast_interval: String = "RebroadcastInterval" omit_empty,
        peerset_metric: String = "PeersetMetric" omit_empty,
        datastore_namespace: String = "DatastoreNamespace" omit_empty,
    }
}

table! {
    BatchingTable = "crdt.batchingConfigJSON" {
        max_batch_size: i64 = "MaxBatchSize",
        max_batch_age: String = "MaxBatchAge",
        max_queue_size: i64 = "MaxQueueSize" omit_empty,
    }
}

impl Component for Crdt {
    type Table = CrdtTable;

    fn key(&self) -> &'static str {
        "crdt"
    }

    fn env_prefix(&self) -> &'static str {
        "CLUSTER_CRDT"
    }

    fn mismatch(&self, _text: String) -> String {
        "error unmarshaling crdt config".to_owned()
    }

    fn apply(&mut self, table: CrdtTable, _folder: &Path) -> Result<(), String> {
        set_text(table.cluster_name, &mut self.cluster_name);
        self.trust_all = false;
        self.trusted_peers.clear();
        for peer in &table.trusted_peers {
            if peer == "*" {
                self.trust_all = true;
                self.trusted_peers.clear();
                break;
            }
            let peer =
                parse_peer_id(peer).map_err(|reason| format!("error parsing trusted peers: {reason}"))?;
            self.trusted_peers.push(peer);
        }
        self.batching.max_batch_size = table.batching.0.max_batch_size;
        set_number(table.batching.0.max_queue_size, &mut self.batching.max_queue_size);
        set_text(table.peerset_metric, &mut self.peerset_metric);
        set_text(table.datastore_namespace, &mut self.datastore_namespace);
        // The reference drops the error and keeps the defaults from the first bad duration on.
        for (key, text, slot) in [
            ("rebroadcast_interval", &table.rebroadcast_interval, &mut self.rebroadcast_interval),
            ("max_batch_age", &table.batching.0.max_batch_age, &mut self.batching.max_batch_age),
            ("repair_interval", &table.repair_interval, &mut self.repair_interval),
        ] {
            if let Err(reason) = set_duration("crdt", key, text, slot) {
                tracing::warn!(target: "config", "{reason}. It is ignored");
                break;
            }
        }
        Ok(())
    }

    fn validate(&self) -> Result<(), String> {
        require(!self.cluster_name.is_empty(), "crdt.cluster_name cannot be empty")?;
        require(!self.peerset_metric.is_empty(), "crdt.peerset_metric needs a name")?;
        require(self.rebroadcast_interval > Duration::ZERO, "crdt.rebroadcast_interval is invalid")?;
        require(self.batching.max_queue_size > 0, "crdt.batching.max_queue_size is invalid")?;
        require(self.repair_interval >= Duration::ZERO, "crdt.repair_interval is invalid")
    }

    fn to_table(&self) -> CrdtTable {
        let trusted_peers = if self.trust_all {
            vec!["*".to_owned()]
        } else {
            self.trusted_peers.iter().map(|peer| peer.to_base58()).collect()
        };
        let unless =
            |text: &String, default: &str| if text == default { String::new() } else { text.clone() };
        let max_queue_size = self.batching.max_queue_size;
        CrdtTable {
            cluster_name: self.cluster_name.clone(),
            trusted_peers,
            batching: Nested(BatchingTable {
                max_batch_size: self.batching.max_batch_size,
                max_batch_age: self.batching.max_batch_age.to_string(),
                max_queue_size: if max_queue_size == MAX_QUEUE_SIZE { 0 } else { max_queue_size },
            }),
            repair_interval: self.repair_interval.to_string(),
            rebroadcast_interval: if self.rebroadcast_interval == REBROADCAST_INTERVAL {
                String::new()
            } else {
                self.rebroadcast_interval.to_string()
            },
            peerset_metric: unless(&self.peerset_metric, PEERSET_METRIC),
            datastore_namespace: unless(&self.datastore_namespace, NAMESPACE),
        }
    }
}
