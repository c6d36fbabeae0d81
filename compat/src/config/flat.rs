//! `service.json` as versions 0.0.x had it: one flat object, identity and peers included.
//!
//! Such a file is not loaded. `init` carries its values over to a configuration of today; what has no place any more
//! is named.

use std::path::Path;

use super::file::flat_key;
use super::informer::DiskMetric;
use super::json::{Json, Kind};
use super::section::{read_table, table};
use super::value::Texts;
use super::{Config, Consensus, Engine, Error, Identity, parse_json, parse_secret};
use crate::go::time::Duration;
use crate::types::{Multiaddr, multiaddr_peer, parse_multiaddr};

/// Longest period that is taken over: a year, in seconds.
const MAX_SECONDS: i64 = 365 * 24 * 3600;

/// What a flat file says, in today's terms.
#[derive(Debug)]
pub struct Converted {
    /// The defaults with its values over them.
    pub config: Config,
    /// Who the peer is, where the file says so.
    pub identity: Option<Identity>,
    /// The addresses of other peers, for the peerstore.
    pub peers: Vec<Multiaddr>,
    /// Keys with a value that nothing takes over.
    pub dropped: Vec<String>,
}

table! {
    FlatTable = "config.JSONConfig" {
        id: String = "ID",
        private_key: String = "PrivateKey",
        cluster_secret: String = "ClusterSecret",
        cluster_peers: Texts = "ClusterPeers",
        bootstrap: Texts = "Bootstrap",
        leave_on_shutdown: bool = "LeaveOnShutdown",
        cluster_multiaddress: String = "ClusterListenMultiaddress",
        api_listen_multiaddress: String = "APIListenMultiaddress",
        ipfs_proxy_listen_multiaddress: String = "IPFSProxyListenMultiaddress",
        ipfs_node_multiaddress: String = "IPFSNodeMultiaddress",
        state_sync_seconds: i64 = "StateSyncSeconds",
        replication_factor: i64 = "ReplicationFactor",
        monitoring_interval_seconds: i64 = "MonitoringIntervalSeconds",
        allocation_strategy: String = "AllocationStrategy",
    }
}

/// Keys that are taken over.
const KEYS: [&str; 14] = [
    "id",
    "private_key",
    "cluster_secret",
    "cluster_peers",
    "bootstrap",
    "leave_on_shutdown",
    "cluster_multiaddress",
    "api_listen_multiaddress",
    "ipfs_proxy_listen_multiaddress",
    "ipfs_node_multiaddress",
    "state_sync_seconds",
    "replication_factor",
    "monitoring_interval_seconds",
    "allocation_strategy",
];

/// Whether a text is a flat file; one that cannot be read is none.
pub fn is_flat(text: &str) -> bool {
    parse_json(text).is_ok_and(|json| !has_cluster(&json) && flat_key(&json).is_some())
}

fn has_cluster(json: &Json<'_>) -> bool {
    let Kind::Object(entries) = &json.kind else { return false };
    entries.iter().any(|(name, _)| name.eq_ignore_ascii_case("cluster"))
}

/// Carries a flat file over to a configuration of `consensus` and `engine` in `folder`. Errors name the key.
pub fn convert(
    text: &str,
    (consensus, engine): (Consensus, Engine),
    folder: &Path,
) -> Result<Converted, Error> {
    let json = parse_json(text)?;
    let mut table = FlatTable::default();
    read_table(&mut table, &json, "").map_err(Error::Json)?;
    let mut config = Config::defaults(consensus, engine, folder);
    let cluster = &mut config.cluster;
    cluster.secret = parse_secret(&table.cluster_secret).map_err(at("cluster_secret"))?;
    cluster.leave_on_shutdown = table.leave_on_shutdown;
    if let Some(addr) = addr("cluster_multiaddress", &table.cluster_multiaddress)? {
        cluster.listen_multiaddress = vec![addr];
    }
    if table.replication_factor != 0 {
        cluster.replication_factor_min = table.replication_factor;
        cluster.replication_factor_max = table.replication_factor;
    }
    if let Some(period) = seconds("state_sync_seconds", table.state_sync_seconds)? {
        cluster.state_sync_interval = period;
    }
    if let Some(period) = seconds("monitoring_interval_seconds", table.monitoring_interval_seconds)? {
        config.pubsubmon.check_interval = period;
    }
    if let Some(addr) = addr("api_listen_multiaddress", &table.api_listen_multiaddress)? {
        config.restapi.http_listen_multiaddress = vec![addr];
    }
    if let Some(addr) = addr("ipfs_proxy_listen_multiaddress", &table.ipfs_proxy_listen_multiaddress)? {
        config.ipfsproxy.listen_multiaddress = vec![addr];
    }
    if let Some(addr) = addr("ipfs_node_multiaddress", &table.ipfs_node_multiaddress)? {
        config.ipfsproxy.node_multiaddress = addr.clone();
        config.ipfshttp.node_multiaddress = addr;
    }
    let mut dropped = dropped(&json);
    match table.allocation_strategy.as_str() {
        "" => {}
        "reposize" => {
            config.disk.metric_type = DiskMetric::Reposize;
            config.balanced.allocate_by = vec!["tag:group".to_owned(), "reposize".to_owned()];
        }
        _ => dropped.push("allocation_strategy".to_owned()),
    }
    let identity = match (table.id.as_str(), table.private_key.as_str()) {
        ("", "") => None,
        _ => Some(Identity::from_json(&json).map_err(Error::Value)?),
    };
    let own = identity.as_ref().map(|identity| identity.id);
    let mut peers = Vec::new();
    for (key, texts) in [("cluster_peers", &table.cluster_peers), ("bootstrap", &table.bootstrap)] {
        for text in &texts.0 {
            let Some(addr) = addr(key, text)? else { continue };
            let Some(peer) = multiaddr_peer(&addr) else {
                return Err(Error::Value(format!("{key}: {text} names no peer")));
            };
            if Some(peer) != own && !peers.contains(&addr) {
                peers.push(addr);
            }
        }
    }
    if consensus == Consensus::Raft {
        for peer in peers.iter().filter_map(multiaddr_peer) {
            if !config.raft.init_peerset.contains(&peer) {
                config.raft.init_peerset.push(peer);
            }
        }
    }
    Ok(Converted { config, identity, peers, dropped })
}

fn at(key: &str) -> impl Fn(String) -> Error {
    move |reason| Error::Value(format!("{key}: {reason}"))
}

/// An address; nothing where the text is empty.
fn addr(key: &str, text: &str) -> Result<Option<Multiaddr>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    parse_multiaddr(text).map(Some).map_err(at(key))
}

/// A period; nothing where it is zero, which meant the default.
fn seconds(key: &str, seconds: i64) -> Result<Option<Duration>, Error> {
    match seconds {
        0 => Ok(None),
        1..=MAX_SECONDS => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(Error::Value(format!("{key}: {seconds} is not between 0 and {MAX_SECONDS}"))),
    }
}

/// Keys that are not among ours and hold something.
fn dropped(json: &Json<'_>) -> Vec<String> {
    let Kind::Object(entries) = &json.kind else { return Vec::new() };
    let is_known = |name: &str| KEYS.iter().any(|key| key.eq_ignore_ascii_case(name));
    let is_empty = |json: &Json<'_>| match &json.kind {
        Kind::Null => true,
        Kind::String(text) => text.is_empty(),
        _ => false,
    };
    let left = entries.iter().filter(|(name, json)| !is_known(name) && !is_empty(json));
    left.map(|(name, _)| name.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Env;
    use super::*;

    const FLAT: &str = r#"{
        "id": "12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt",
        "private_key": "CAESQCir5YnWrLIplhuoC5fAOK1ZvBUYRcJqgv66s3aw8Cj8W4xZF3tcN/MAO5FnnymGO2iZagbZMD4HcB3K9TWbuGE=",
        "cluster_secret": "5f0a3c9d1e7b24680f1e2d3c4b5a69788796a5b4c3d2e1f00123456789abcdef",
        "cluster_peers": [
            "/ip4/10.0.0.1/tcp/9096/ipfs/12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt",
            "/ip4/10.0.0.2/tcp/9096/ipfs/12D3KooWMkHC3xeDUkNkT3bWSM7XAshpRqt6pYw1VRxCufeXQNhU"
        ],
        "bootstrap": [], "leave_on_shutdown": true, "cluster_multiaddress": "/ip4/0.0.0.0/tcp/9196",
        "api_listen_multiaddress": "/ip4/127.0.0.1/tcp/9194",
        "ipfs_proxy_listen_multiaddress": "/ip4/127.0.0.1/tcp/9195",
        "ipfs_node_multiaddress": "/ip4/127.0.0.1/tcp/5101",
        "consensus_data_folder": "/home/u/.ipfs-cluster/data",
        "state_sync_seconds": 60, "replication_factor": 2, "monitoring_interval_seconds": 20,
        "allocation_strategy": "reposize"
    }"#;

    fn converted(text: &str, consensus: Consensus) -> Result<Converted, String> {
        convert(text, (consensus, Engine::Lmdb), Path::new("/nowhere")).map_err(|reason| reason.to_string())
    }

    #[test]
    fn a_flat_file_is_carried_over() {
        assert!(is_flat(FLAT) && !is_flat("{}") && !is_flat("{\"cluster\":{}}") && !is_flat("nonsense"));
        let Converted { mut config, identity, peers, dropped } = converted(FLAT, Consensus::Raft).unwrap();
        config.validate().unwrap();
        let text = config.to_json();
        for part in [
            "\"secret\": \"5f0a3c9d1e7b24680f1e2d3c4b5a69788796a5b4c3d2e1f00123456789abcdef\"",
            "\"leave_on_shutdown\": true",
            "\"listen_multiaddress\": \"/ip4/0.0.0.0/tcp/9196\"",
            "\"http_listen_multiaddress\": \"/ip4/127.0.0.1/tcp/9194\"",
            "\"listen_multiaddress\": \"/ip4/127.0.0.1/tcp/9195\"",
            "\"node_multiaddress\": \"/ip4/127.0.0.1/tcp/5101\"",
            "\"state_sync_interval\": \"1m0s\"",
            "\"replication_factor_min\": 2",
            "\"check_interval\": \"20s\"",
            "\"metric_type\": \"reposize\"",
            "\"init_peerset\": [\n        \"12D3KooWMkHC3xeDUkNkT3bWSM7XAshpRqt6pYw1VRxCufeXQNhU\"\n      ]",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert_eq!(identity.unwrap().id.to_base58(), "12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt");
        assert_eq!(peers.len(), 1, "the peer itself is none of the others");
        assert_eq!(dropped, ["consensus_data_folder"]);
    }

    #[test]
    fn values_that_cannot_be_carried_over_are_named() {
        for (key, value, expected) in [
            ("cluster_multiaddress", "\"x\"", "cluster_multiaddress: failed to parse multiaddr \"x\""),
            ("cluster_secret", "\"ab\"", "cluster_secret: input secret is 1 bytes"),
            ("cluster_peers", "[\"/ip4/1.1.1.1/tcp/1\"]", "cluster_peers: /ip4/1.1.1.1/tcp/1 names no peer"),
            ("state_sync_seconds", "-1", "state_sync_seconds: -1 is not between"),
            ("private_key", "\"x\"", "error decoding cluster ID"),
            ("replication_factor", "\"all\"", "json: cannot unmarshal string"),
        ] {
            let error = converted(&format!("{{\"{key}\": {value}}}"), Consensus::Crdt).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_flat_file_is_not_loaded() {
        let error = Config::parse(FLAT, Path::new("/nowhere"), &Env::default()).unwrap_err().to_string();
        assert!(error.contains("\"cluster_peers\" belongs to the flat layout"), "{error}");
    }
}
