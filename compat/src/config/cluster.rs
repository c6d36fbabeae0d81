//! The `cluster` section: the peer itself, its addresses and periods.

use std::path::{Path, PathBuf};

use super::section::{
    Component, addr_texts, default_addr, parse_addrs, require, set_duration, set_number, set_text, table,
};
use super::value::{Nested, Texts};
use crate::go::quote::quote_char;
use crate::go::time::Duration;
use crate::types::Multiaddr;

/// The peer: identity towards people, network, periods, replication.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Name shown beside the peer id. Default: the host's name.
    pub peername: String,
    /// Key of the private network. `None`: an unprotected network.
    pub secret: Option<[u8; 32]>,
    /// Leave the peerset at shutdown. Default false. In CRDT mode there is no peerset to leave: no effect.
    pub leave_on_shutdown: bool,
    /// Where the swarm listens; never empty. QUIC addresses are kept and inert.
    pub listen_multiaddress: Vec<Multiaddr>,
    /// Announced instead of the detected addresses, if any.
    pub announce_multiaddress: Vec<Multiaddr>,
    /// Addresses, or masks ending in `/ipcidr/n`, that are never announced.
    pub no_announce_multiaddress: Vec<Multiaddr>,
    /// Relay for others. Default true, missing false.
    pub enable_relay_hop: bool,
    /// When connections are trimmed.
    pub connection_manager: ConnectionManager,
    /// Limits on what connections may use.
    pub resource_manager: ResourceManager,
    /// Gossip.
    pub pubsub: Pubsub,
    /// Longest dial to one peer. Default 3 s, above zero.
    pub dial_peer_timeout: Duration,
    /// Period of the state sync (expired pins, untracked pins). Default 5 min, above zero.
    pub state_sync_interval: Duration,
    /// Period of recovering failed pins. Default 12 min, above zero.
    pub pin_recover_interval: Duration,
    /// Fewest copies of a pin; -1: everywhere. Never 0.
    pub replication_factor_min: i64,
    /// Most copies of a pin; -1: everywhere. Never 0.
    pub replication_factor_max: i64,
    /// Period of the ping metric, which lives twice as long. Default 15 s, above zero.
    pub monitor_ping_interval: Duration,
    /// Period of watching the peerset. Default 5 s, above zero.
    pub peer_watch_interval: Duration,
    /// Zero disables mDNS, anything else enables it. Default 10 s.
    pub mdns_interval: Duration,
    /// Allocate only to trusted peers.
    pub pin_only_on_trusted_peers: bool,
    /// Allocate only to peers that are not trusted.
    pub pin_only_on_untrusted_peers: bool,
    /// Do not re-allocate pins of lost peers. Default true, missing false.
    pub disable_repinning: bool,
    /// Refuse to change the pinset from here.
    pub follower_mode: bool,
    /// Name of the peerstore file. Empty: `peerstore`.
    pub peerstore_file: String,
    /// Addresses to dial first at the start.
    pub peer_addresses: Vec<Multiaddr>,
}

/// When connections are trimmed.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectionManager {
    /// More connections than this are trimmed. Default 400, above zero.
    pub high_water: i64,
    /// Down to this many. Default 100, above zero, at most `high_water`.
    pub low_water: i64,
    /// New connections are spared for this long. Default 2 min, not zero.
    pub grace_period: Duration,
}

/// Limits on what connections may use.
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceManager {
    /// Whether there are limits. Default true, missing false.
    pub enabled: bool,
    /// Bytes; 0: a quarter of the memory.
    pub memory_limit_bytes: u64,
    /// File descriptors; 0: half of what the process may open.
    pub file_descriptors_limit: u64,
}

/// Gossip.
#[derive(Debug, Clone, PartialEq)]
pub struct Pubsub {
    /// How long a message is known as seen. Default 30 min, above zero.
    pub seen_messages_ttl: Duration,
    /// Default 10 s, above zero.
    pub heartbeat_interval: Duration,
    /// Factor of the mesh's degrees (D 6, Dlo 5, Dhi 12, Dscore 4, Dout 2, Dlazy 6). Default 4, at least 1.
    pub d_factor: i64,
    /// Heartbeats whose messages are gossiped. Default 2, above zero.
    pub history_gossip: i64,
    /// Heartbeats whose messages are kept. Default 6, above zero.
    pub history_length: i64,
    /// Send own messages to all peers of the topic. Default false.
    pub flood_publish: bool,
}

impl Default for Cluster {
    /// The reference's defaults; the secret is `None`, [`Cluster::with_new_secret`] draws one.
    fn default() -> Self {
        Self {
            peername: gethostname::gethostname().to_string_lossy().into_owned(),
            secret: None,
            leave_on_shutdown: false,
            listen_multiaddress: vec![
                default_addr("/ip4/0.0.0.0/tcp/9096"),
                default_addr("/ip4/0.0.0.0/udp/9096/quic"),
            ],
            announce_multiaddress: Vec::new(),
            no_announce_multiaddress: Vec::new(),
            enable_relay_hop: true,
            connection_manager: ConnectionManager {
                high_water: 400,
                low_water: 100,
                grace_period: Duration::from_mins(2),
            },
            resource_manager: ResourceManager {
                enabled: true,
                memory_limit_bytes: 0,
                file_descriptors_limit: 0,
            },
            pubsub: Pubsub {
                seen_messages_ttl: Duration::from_mins(30),
                heartbeat_interval: Duration::from_secs(10),
                d_factor: 4,
                history_gossip: 2,
                history_length: 6,
                flood_publish: false,
            },
            dial_peer_timeout: Duration::from_secs(3),
            state_sync_interval: Duration::from_mins(5),
            pin_recover_interval: Duration::from_mins(12),
            replication_factor_min: -1,
            replication_factor_max: -1,
            monitor_ping_interval: Duration::from_secs(15),
            peer_watch_interval: Duration::from_secs(5),
            mdns_interval: Duration::from_secs(10),
            pin_only_on_trusted_peers: false,
            pin_only_on_untrusted_peers: false,
            disable_repinning: true,
            follower_mode: false,
            peerstore_file: String::new(),
            peer_addresses: Vec::new(),
        }
    }
}

impl Cluster {
    /// The defaults with a new random secret, as `init` writes them.
    pub fn with_new_secret() -> Self {
        Self { secret: Some(rand::random()), ..Self::default() }
    }

    /// What a file without this section gives: nothing, so that validation refuses it.
    pub(super) fn undefined() -> Self {
        Self { listen_multiaddress: Vec::new(), ..Self::default() }
    }

    /// Where the peerstore file lies, given the configuration folder.
    pub fn peerstore_path(&self, folder: &Path) -> PathBuf {
        let name = if self.peerstore_file.is_empty() { "peerstore" } else { &self.peerstore_file };
        // Go joins even an absolute name below the folder.
        folder.join(name.trim_start_matches('/'))
    }
}

/// Parses the secret of a private network: 64 hexadecimal digits, or nothing for an unprotected one.
pub fn parse_secret(text: &str) -> Result<Option<[u8; 32]>, String> {
    let secret = match hex::decode(text) {
        Ok(secret) => secret,
        Err(_) => return Err(bad_hex(text)),
    };
    if secret.is_empty() {
        tracing::warn!(target: "cluster", "Cluster secret is empty, cluster will start on unprotected network.");
        return Ok(None);
    }
    let n_bytes = secret.len();
    let secret = secret.try_into();
    secret.map(Some).map_err(|_| format!("input secret is {n_bytes} bytes, cluster secret should be 32"))
}

/// Go reads digits before it counts them, so a bad one comes first; it names bytes, not characters.
fn bad_hex(text: &str) -> String {
    match text.bytes().find(|byte| !byte.is_ascii_hexdigit()) {
        Some(byte) => format!("encoding/hex: invalid byte: U+{byte:04X} {}", quote_char(char::from(byte))),
        None => "encoding/hex: odd length hex string".to_owned(),
    }
}

table! {
    ClusterTable = "ipfscluster.configJSON" {
        id: String = "ID" omit_empty,
        peername: String = "Peername",
        private_key: String = "PrivateKey" omit_empty hidden,
        secret: String = "Secret" hidden,
        leave_on_shutdown: bool = "LeaveOnShutdown",
        listen_multiaddress: Texts = "ListenMultiaddress",
        announce_multiaddress: Texts = "AnnounceMultiaddress",
        no_announce_multiaddress: Texts = "NoAnnounceMultiaddress",
        enable_relay_hop: bool = "EnableRelayHop",
        connection_manager: Option<Nested<ConnectionManagerTable>> = "ConnectionManager",
        resource_manager: Option<Nested<ResourceManagerTable>> = "ResourceManager",
        pubsub: Option<Nested<PubsubTable>> = "PubSub",
        dial_peer_timeout: String = "DialPeerTimeout",
        state_sync_interval: String = "StateSyncInterval",
        pin_recover_interval: String = "PinRecoverInterval",
        replication_factor_min: i64 = "ReplicationFactorMin",
        replication_factor_max: i64 = "ReplicationFactorMax",
        monitor_ping_interval: String = "MonitorPingInterval",
        peer_watch_interval: String = "PeerWatchInterval",
        mdns_interval: String = "MDNSInterval",
        pin_only_on_trusted_peers: bool = "PinOnlyOnTrustedPeers",
        pin_only_on_untrusted_peers: bool = "PinOnlyOnUntrustedPeers",
        disable_repinning: bool = "DisableRepinning",
        follower_mode: bool = "FollowerMode" omit_empty,
        peerstore_file: String = "PeerstoreFile" omit_empty,
        peer_addresses: Vec<String> = "PeerAddresses",
    }
}

table! {
    ConnectionManagerTable = "ipfscluster.connMgrConfigJSON" {
        high_water: i64 = "HighWater",
        low_water: i64 = "LowWater",
        grace_period: String = "GracePeriod",
    }
}

table! {
    ResourceManagerTable = "ipfscluster.resourceMgrConfigJSON" {
        enabled: bool = "Enabled",
        memory_limit_bytes: u64 = "MemoryLimitBytes",
        file_descriptors_limit: u64 = "FileDescriptorsLimit",
    }
}

table! {
    PubsubTable = "ipfscluster.pubSubConfigJSON" {
        seen_messages_ttl: String = "SeenMessagesTTL",
        heartbeat_interval: String = "HeartbeatInterval",
        d_factor: i64 = "DFactor",
        history_gossip: i64 = "HistoryGossip",
        history_length: i64 = "HistoryLength",
        flood_publish: bool = "FloodPublish",
    }
}

impl Component for Cluster {
    type Table = ClusterTable;

    fn key(&self) -> &'static str {
        "cluster"
    }

    fn env_prefix(&self) -> &'static str {
        "CLUSTER"
    }

    fn apply(&mut self, table: ClusterTable, _folder: &Path) -> Result<(), String> {
        set_text(table.peerstore_file, &mut self.peerstore_file);
        set_text(table.peername, &mut self.peername);
        self.secret = parse_secret(&table.secret)
            .map_err(|reason| format!("error loading cluster secret from config: {reason}"))?;
        self.listen_multiaddress =
            parse_addrs("error parsing listen_multiaddress", &table.listen_multiaddress.0)?;
        self.announce_multiaddress = parse_addrs("error parsing announce", &table.announce_multiaddress.0)?;
        self.no_announce_multiaddress =
            parse_addrs("error parsing no_announce", &table.no_announce_multiaddress.0)?;
        self.enable_relay_hop = table.enable_relay_hop;
        if let Some(Nested(manager)) = table.connection_manager {
            self.connection_manager = ConnectionManager {
                high_water: manager.high_water,
                low_water: manager.low_water,
                grace_period: Duration::ZERO,
            };
            let grace_period = &mut self.connection_manager.grace_period;
            set_duration("cluster", "connection_manager.grace_period", &manager.grace_period, grace_period)?;
        }
        if let Some(Nested(manager)) = table.resource_manager {
            self.resource_manager = ResourceManager {
                enabled: manager.enabled,
                memory_limit_bytes: manager.memory_limit_bytes,
                file_descriptors_limit: manager.file_descriptors_limit,
            };
        }
        if let Some(Nested(pubsub)) = table.pubsub {
            self.pubsub.d_factor = pubsub.d_factor;
            self.pubsub.history_gossip = pubsub.history_gossip;
            self.pubsub.history_length = pubsub.history_length;
            self.pubsub.flood_publish = pubsub.flood_publish;
            let (own, section) = (&mut self.pubsub, "cluster.pubsub");
            set_duration(
                section,
                "seen_messages_ttl",
                &pubsub.seen_messages_ttl,
                &mut own.seen_messages_ttl,
            )?;
            set_duration(
                section,
                "heartbeat_interval",
                &pubsub.heartbeat_interval,
                &mut own.heartbeat_interval,
            )?;
        }
        set_number(table.replication_factor_min, &mut self.replication_factor_min);
        set_number(table.replication_factor_max, &mut self.replication_factor_max);
        for (key, text, slot) in [
            ("dial_peer_timeout", &table.dial_peer_timeout, &mut self.dial_peer_timeout),
            ("state_sync_interval", &table.state_sync_interval, &mut self.state_sync_interval),
            ("pin_recover_interval", &table.pin_recover_interval, &mut self.pin_recover_interval),
            ("monitor_ping_interval", &table.monitor_ping_interval, &mut self.monitor_ping_interval),
            ("peer_watch_interval", &table.peer_watch_interval, &mut self.peer_watch_interval),
            ("mdns_interval", &table.mdns_interval, &mut self.mdns_interval),
        ] {
            set_duration("cluster", key, text, slot)?;
        }
        self.peer_addresses = parse_addrs("error parsing peer_addresses", &table.peer_addresses)?;
        self.leave_on_shutdown = table.leave_on_shutdown;
        self.pin_only_on_trusted_peers = table.pin_only_on_trusted_peers;
        self.pin_only_on_untrusted_peers = table.pin_only_on_untrusted_peers;
        self.disable_repinning = table.disable_repinning;
        self.follower_mode = table.follower_mode;
        Ok(())
    }

    fn validate(&self) -> Result<(), String> {
        let manager = &self.connection_manager;
        require(!self.listen_multiaddress.is_empty(), "cluster.listen_multiaddress is undefined")?;
        require(manager.low_water > 0, "cluster.connection_manager.low_water is invalid")?;
        require(manager.high_water > 0, "cluster.connection_manager.high_water is invalid")?;
        let in_order = manager.low_water <= manager.high_water;
        require(in_order, "cluster.connection_manager.low_water is greater than high_water")?;
        let grace_period = manager.grace_period;
        require(grace_period != Duration::ZERO, "cluster.connection_manager.grace_period is invalid")?;
        for (name, span) in [
            ("pubsub.seen_message_ttl", self.pubsub.seen_messages_ttl),
            ("pubsub.heartbeat_interval", self.pubsub.heartbeat_interval),
            ("pubsub.d_factor", Duration(self.pubsub.d_factor)),
            ("pubsub.history_gossip", Duration(self.pubsub.history_gossip)),
            ("pubsub.history_length", Duration(self.pubsub.history_length)),
            ("dial_peer_timeout", self.dial_peer_timeout),
            ("state_sync_interval", self.state_sync_interval),
            ("pin_recover_interval", self.pin_recover_interval),
            ("monitoring_interval", self.monitor_ping_interval),
            ("peer_watch_interval", self.peer_watch_interval),
        ] {
            require(span > Duration::ZERO, &format!("cluster.{name} is invalid"))?;
        }
        require(
            !(self.pin_only_on_trusted_peers && self.pin_only_on_untrusted_peers),
            "cluster.pin_only_on_trusted_peers and pin_only_on_untrusted_peers cannot both be true",
        )?;
        let (min, max) = (self.replication_factor_min, self.replication_factor_max);
        require(min != 0 && max != 0, "cluster.replication_factor_min and max must be set")?;
        require(min <= max, "cluster.replication_factor_min is larger than max")?;
        require(min >= -1, "cluster.replication_factor_min is wrong")?;
        require(
            (min == -1) == (max == -1),
            "cluster.replication_factor_min and max must be -1 when one of them is",
        )
    }

    fn to_table(&self) -> ClusterTable {
        let (connections, resources, pubsub) =
            (&self.connection_manager, &self.resource_manager, &self.pubsub);
        ClusterTable {
            id: String::new(),
            peername: self.peername.clone(),
            private_key: String::new(),
            secret: self.secret.map(hex::encode).unwrap_or_default(),
            leave_on_shutdown: self.leave_on_shutdown,
            listen_multiaddress: Texts(addr_texts(&self.listen_multiaddress)),
            announce_multiaddress: Texts(addr_texts(&self.announce_multiaddress)),
            no_announce_multiaddress: Texts(addr_texts(&self.no_announce_multiaddress)),
            enable_relay_hop: self.enable_relay_hop,
            connection_manager: Some(Nested(ConnectionManagerTable {
                high_water: connections.high_water,
                low_water: connections.low_water,
                grace_period: connections.grace_period.to_string(),
            })),
            resource_manager: Some(Nested(ResourceManagerTable {
                enabled: resources.enabled,
                memory_limit_bytes: resources.memory_limit_bytes,
                file_descriptors_limit: resources.file_descriptors_limit,
            })),
            pubsub: Some(Nested(PubsubTable {
                seen_messages_ttl: pubsub.seen_messages_ttl.to_string(),
                heartbeat_interval: pubsub.heartbeat_interval.to_string(),
                d_factor: pubsub.d_factor,
                history_gossip: pubsub.history_gossip,
                history_length: pubsub.history_length,
                flood_publish: pubsub.flood_publish,
            })),
            dial_peer_timeout: self.dial_peer_timeout.to_string(),
            state_sync_interval: self.state_sync_interval.to_string(),
            pin_recover_interval: self.pin_recover_interval.to_string(),
            replication_factor_min: self.replication_factor_min,
            replication_factor_max: self.replication_factor_max,
            monitor_ping_interval: self.monitor_ping_interval.to_string(),
            peer_watch_interval: self.peer_watch_interval.to_string(),
            mdns_interval: self.mdns_interval.to_string(),
            pin_only_on_trusted_peers: self.pin_only_on_trusted_peers,
            pin_only_on_untrusted_peers: self.pin_only_on_untrusted_peers,
            disable_repinning: self.disable_repinning,
            follower_mode: self.follower_mode,
            peerstore_file: self.peerstore_file.clone(),
            peer_addresses: addr_texts(&self.peer_addresses),
        }
    }
}
