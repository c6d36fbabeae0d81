//! The `consensus.raft` section.

use std::path::{Path, PathBuf};

use super::section::{Component, require, set_number, set_text, table};
use crate::go::time::Duration;
use crate::types::{PeerId, parse_peer_id};

const NAMESPACE: &str = "/r";

/// The replicated log.
#[derive(Debug, Clone, PartialEq)]
pub struct Raft {
    /// Folder of the log and the snapshots, used as it is. Empty: `raft` below the configuration folder.
    pub data_folder: String,
    /// First members of a new cluster.
    pub init_peerset: Vec<PeerId>,
    /// Longest wait for a leader. Default 15 s, above zero.
    pub wait_for_leader_timeout: Duration,
    /// Default 10 s, above zero.
    pub network_timeout: Duration,
    /// Default 1, missing 0.
    pub commit_retries: i64,
    /// Default 200 ms, above zero.
    pub commit_retry_delay: Duration,
    /// How many old data folders are kept. Default 6, above zero.
    pub backups_rotate: i64,
    /// Prefix of the keys. Default `/r`.
    pub datastore_namespace: String,
    /// Default 1 s, at least 5 ms.
    pub heartbeat_timeout: Duration,
    /// Default 1 s, at least `heartbeat_timeout`.
    pub election_timeout: Duration,
    /// Default 50 ms, at least 1 ms.
    pub commit_timeout: Duration,
    /// Default 64, 1 to 1024.
    pub max_append_entries: i64,
    /// Default 10240.
    pub trailing_logs: u64,
    /// Default 2 min, at least 5 ms.
    pub snapshot_interval: Duration,
    /// Default 8192.
    pub snapshot_threshold: u64,
    /// Default 500 ms, at least 5 ms, at most `heartbeat_timeout`.
    pub leader_lease_timeout: Duration,
}

impl Default for Raft {
    fn default() -> Self {
        Self {
            data_folder: String::new(),
            init_peerset: Vec::new(),
            wait_for_leader_timeout: Duration::from_secs(15),
            network_timeout: Duration::from_secs(10),
            commit_retries: 1,
            commit_retry_delay: Duration::from_millis(200),
            backups_rotate: 6,
            datastore_namespace: NAMESPACE.to_owned(),
            heartbeat_timeout: Duration::from_secs(1),
            election_timeout: Duration::from_secs(1),
            commit_timeout: Duration::from_millis(50),
            max_append_entries: 64,
            trailing_logs: 10_240,
            snapshot_interval: Duration::from_mins(2),
            snapshot_threshold: 8192,
            leader_lease_timeout: Duration::from_millis(500),
        }
    }
}

impl Raft {
    /// The data folder, given the configuration folder.
    pub fn data_path(&self, folder: &Path) -> PathBuf {
        if self.data_folder.is_empty() { folder.join("raft") } else { PathBuf::from(&self.data_folder) }
    }
}

table! {
    RaftTable = "raft.jsonConfig" {
        data_folder: String = "DataFolder" omit_empty,
        init_peerset: Vec<String> = "InitPeerset",
        wait_for_leader_timeout: String = "WaitForLeaderTimeout",
        network_timeout: String = "NetworkTimeout",
        commit_retries: i64 = "CommitRetries",
        commit_retry_delay: String = "CommitRetryDelay",
        backups_rotate: i64 = "BackupsRotate",
        datastore_namespace: String = "DatastoreNamespace" omit_empty,
        heartbeat_timeout: String = "HeartbeatTimeout" omit_empty,
        election_timeout: String = "ElectionTimeout" omit_empty,
        commit_timeout: String = "CommitTimeout" omit_empty,
        max_append_entries: i64 = "MaxAppendEntries" omit_empty,
        trailing_logs: u64 = "TrailingLogs" omit_empty,
        snapshot_interval: String = "SnapshotInterval" omit_empty,
        snapshot_threshold: u64 = "SnapshotThreshold" omit_empty,
        leader_lease_timeout: String = "LeaderLeaseTimeout" omit_empty,
    }
}

/// Takes a duration; what is none, or zero, is warned of and leaves the default.
fn set_or_warn(text: &str, slot: &mut Duration) {
    let span = Duration::parse(text).unwrap_or_default();
    if span == Duration::ZERO && !text.is_empty() {
        tracing::warn!(target: "raft", "{text} is not a valid duration. Default will be used");
    }
    set_number(span, slot);
}

impl Component for Raft {
    type Table = RaftTable;

    fn key(&self) -> &'static str {
        "raft"
    }

    fn env_prefix(&self) -> &'static str {
        "CLUSTER_RAFT"
    }

    fn apply(&mut self, table: RaftTable, _folder: &Path) -> Result<(), String> {
        for (text, slot) in [
            (&table.wait_for_leader_timeout, &mut self.wait_for_leader_timeout),
            (&table.network_timeout, &mut self.network_timeout),
            (&table.commit_retry_delay, &mut self.commit_retry_delay),
            (&table.heartbeat_timeout, &mut self.heartbeat_timeout),
            (&table.election_timeout, &mut self.election_timeout),
            (&table.commit_timeout, &mut self.commit_timeout),
            (&table.snapshot_interval, &mut self.snapshot_interval),
            (&table.leader_lease_timeout, &mut self.leader_lease_timeout),
        ] {
            set_or_warn(text, slot);
        }
        set_text(table.data_folder, &mut self.data_folder);
        self.commit_retries = table.commit_retries;
        set_number(table.backups_rotate, &mut self.backups_rotate);
        set_text(table.datastore_namespace, &mut self.datastore_namespace);
        set_number(table.max_append_entries, &mut self.max_append_entries);
        set_number(table.trailing_logs, &mut self.trailing_logs);
        set_number(table.snapshot_threshold, &mut self.snapshot_threshold);
        self.init_peerset.clear();
        for text in &table.init_peerset {
            match parse_peer_id(text) {
                Ok(peer) => self.init_peerset.push(peer),
                Err(_) => tracing::debug!(target: "raft", "'{text}': must be a valid peer ID"),
            }
        }
        Ok(())
    }

    fn validate(&self) -> Result<(), String> {
        let tick = Duration::from_millis(5);
        require(self.wait_for_leader_timeout > Duration::ZERO, "wait_for_leader_timeout <= 0")?;
        require(self.network_timeout > Duration::ZERO, "network_timeout <= 0")?;
        require(self.commit_retries >= 0, "commit_retries is invalid")?;
        require(self.commit_retry_delay > Duration::ZERO, "commit_retry_delay is invalid")?;
        require(self.backups_rotate > 0, "backups_rotate should be larger than 0")?;
        require(self.heartbeat_timeout >= tick, "HeartbeatTimeout is too low")?;
        require(self.election_timeout >= tick, "ElectionTimeout is too low")?;
        require(self.commit_timeout >= Duration::from_millis(1), "CommitTimeout is too low")?;
        require(self.max_append_entries > 0, "MaxAppendEntries must be positive")?;
        require(self.max_append_entries <= 1024, "MaxAppendEntries is too large")?;
        require(self.snapshot_interval >= tick, "SnapshotInterval is too low")?;
        require(self.leader_lease_timeout >= tick, "LeaderLeaseTimeout is too low")?;
        require(
            self.leader_lease_timeout <= self.heartbeat_timeout,
            &format!(
                "LeaderLeaseTimeout ({}) cannot be larger than heartbeat timeout ({})",
                self.leader_lease_timeout, self.heartbeat_timeout
            ),
        )?;
        require(
            self.election_timeout >= self.heartbeat_timeout,
            &format!(
                "ElectionTimeout ({}) must be equal or greater than Heartbeat Timeout ({})",
                self.election_timeout, self.heartbeat_timeout
            ),
        )
    }

    fn to_table(&self) -> RaftTable {
        let namespace = &self.datastore_namespace;
        RaftTable {
            data_folder: self.data_folder.clone(),
            init_peerset: self.init_peerset.iter().map(|peer| peer.to_base58()).collect(),
            wait_for_leader_timeout: self.wait_for_leader_timeout.to_string(),
            network_timeout: self.network_timeout.to_string(),
            commit_retries: self.commit_retries,
            commit_retry_delay: self.commit_retry_delay.to_string(),
            backups_rotate: self.backups_rotate,
            datastore_namespace: if namespace == NAMESPACE { String::new() } else { namespace.clone() },
            heartbeat_timeout: self.heartbeat_timeout.to_string(),
            election_timeout: self.election_timeout.to_string(),
            commit_timeout: self.commit_timeout.to_string(),
            max_append_entries: self.max_append_entries,
            trailing_logs: self.trailing_logs,
            snapshot_interval: self.snapshot_interval.to_string(),
            snapshot_threshold: self.snapshot_threshold,
            leader_lease_timeout: self.leader_lease_timeout.to_string(),
        }
    }
}
