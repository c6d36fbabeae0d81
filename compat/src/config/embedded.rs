//! The `ipfs_connector.embedded` section: an IPFS daemon of our own, in the process of the peer.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use multiaddr::Protocol;

use super::section::{
    Component, addr_texts, default_addr, parse_addrs, require, set_number, set_text, table,
};
use super::value::Texts;
use crate::types::Multiaddr;

/// Where the node's data lies unless a folder is configured.
const FOLDER: &str = "ipfs";

/// Peers to begin with in the public network. (Kubo: `config.DefaultBootstrapAddresses`)
const BOOTSTRAP: [&str; 6] = [
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmQCU2EcMqAqQPR2i9bChDtGNJchTbq5TbXJJ16u19uLTa",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmbLHAnMoJPWSCR5Zhtx6BHJX9KiKNN6tpvbUcqanj75Nb",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmcZf59bWwK5XFi76CZX8cbJ4BhTzzA3gU1ZjYZcYW3dwt",
    "/dnsaddr/va1.bootstrap.libp2p.io/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8",
    "/ip4/104.131.131.82/tcp/4001/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ",
];

/// Where the node listens for other nodes.
const SWARM: [&str; 2] = ["/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1"];

/// The embedded IPFS node.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// Its data. Default `ipfs`, relative to the configuration folder.
    pub folder: PathBuf,
    /// Most bytes of blocks it stores. Default 10 GB.
    pub storage_max_bytes: u64,
    /// Where it listens for other nodes.
    pub swarm_listen_multiaddress: Vec<Multiaddr>,
    /// Nodes to connect to first; empty: none. Default those of Kubo.
    pub bootstrap: Vec<Multiaddr>,
    /// Where its RPC listens besides its Unix socket. Default nowhere.
    pub api_listen_multiaddress: Vec<Multiaddr>,
    /// What callers of its RPC over TCP must show; required where others can reach it. Default nothing.
    pub api_token: String,
    /// Where it serves files over HTTP. Default nowhere.
    pub gateway_listen_multiaddress: Vec<Multiaddr>,
    /// Look for nodes in the local network. Default true.
    pub mdns: bool,
}

impl Default for Embedded {
    fn default() -> Self {
        Self {
            folder: PathBuf::from(FOLDER),
            storage_max_bytes: 10_000_000_000,
            swarm_listen_multiaddress: SWARM.map(default_addr).to_vec(),
            bootstrap: BOOTSTRAP.map(default_addr).to_vec(),
            api_listen_multiaddress: Vec::new(),
            api_token: String::new(),
            gateway_listen_multiaddress: Vec::new(),
            mdns: true,
        }
    }
}

impl Embedded {
    /// Where the node's data lies.
    pub fn path(&self, folder: &Path) -> PathBuf {
        folder.join(&self.folder)
    }
}

table! {
    EmbeddedTable = "embedded.jsonConfig" {
        folder: String = "Folder",
        storage_max_bytes: u64 = "StorageMaxBytes",
        swarm_listen_multiaddress: Texts = "SwarmListenMultiaddress",
        bootstrap: Vec<String> = "Bootstrap",
        api_listen_multiaddress: Texts = "APIListenMultiaddress",
        api_token: String = "APIToken" omit_empty hidden,
        gateway_listen_multiaddress: Texts = "GatewayListenMultiaddress",
        mdns: bool = "MDNS",
    }
}

impl Component for Embedded {
    type Table = EmbeddedTable;

    fn key(&self) -> &'static str {
        "embedded"
    }

    fn env_prefix(&self) -> &'static str {
        "CLUSTER_EMBEDDED"
    }

    fn apply(&mut self, table: EmbeddedTable, _folder: &Path) -> Result<(), String> {
        let mut folder = String::new();
        set_text(table.folder, &mut folder);
        if !folder.is_empty() {
            self.folder = PathBuf::from(folder);
        }
        set_number(table.storage_max_bytes, &mut self.storage_max_bytes);
        self.swarm_listen_multiaddress =
            addrs("swarm_listen_multiaddress", &table.swarm_listen_multiaddress.0)?;
        self.bootstrap = addrs("bootstrap", &table.bootstrap)?;
        self.api_listen_multiaddress = addrs("api_listen_multiaddress", &table.api_listen_multiaddress.0)?;
        self.api_token = table.api_token;
        self.gateway_listen_multiaddress =
            addrs("gateway_listen_multiaddress", &table.gateway_listen_multiaddress.0)?;
        self.mdns = table.mdns;
        Ok(())
    }

    fn validate(&self) -> Result<(), String> {
        require(!self.folder.as_os_str().is_empty(), "embedded.folder not set")?;
        require(self.storage_max_bytes > 0, "embedded.storage_max_bytes is invalid")?;
        let open = self.api_listen_multiaddress.iter().find(|addr| !is_private(addr));
        match open {
            Some(addr) if self.api_token.is_empty() => Err(format!(
                "embedded.api_listen_multiaddress {addr} can be reached by others: it needs embedded.api_token"
            )),
            _ => Ok(()),
        }
    }

    fn to_table(&self) -> EmbeddedTable {
        EmbeddedTable {
            folder: self.folder.to_string_lossy().into_owned(),
            storage_max_bytes: self.storage_max_bytes,
            swarm_listen_multiaddress: Texts(addr_texts(&self.swarm_listen_multiaddress)),
            bootstrap: addr_texts(&self.bootstrap),
            api_listen_multiaddress: Texts(addr_texts(&self.api_listen_multiaddress)),
            api_token: self.api_token.clone(),
            gateway_listen_multiaddress: Texts(addr_texts(&self.gateway_listen_multiaddress)),
            mdns: self.mdns,
        }
    }

    /// A missing key has its default; an empty list is one.
    fn blank_table(&self) -> EmbeddedTable {
        self.to_table()
    }
}

fn addrs(key: &str, texts: &[String]) -> Result<Vec<Multiaddr>, String> {
    parse_addrs(&format!("error parsing embedded.{key}"), texts)
}

/// Whether an address can be reached from this machine alone.
fn is_private(addr: &Multiaddr) -> bool {
    match addr.iter().next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip).is_loopback(),
        Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) => name == "localhost",
        Some(Protocol::Unix(_)) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Consensus, Engine, Env};
    use super::*;

    fn parse(section: &str, env: &[(&str, &str)]) -> Result<Embedded, String> {
        let folder = Path::new("/x");
        let text = Config::defaults(Consensus::Crdt, Engine::Lmdb, folder).to_json();
        let text = text.replacen("\"ipfshttp\": {", &format!("\"embedded\": {section}, \"ipfshttp\": {{"), 1);
        let env: Env = env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let config = Config::parse(&text, folder, &env).map_err(|error| error.to_string())?;
        assert!(config.embedded.present);
        Ok(config.embedded.value)
    }

    #[test]
    fn every_key_has_a_default_and_an_empty_list_is_none() {
        assert_eq!(parse("{}", &[]).unwrap(), Embedded::default());
        assert_eq!(Embedded::default().bootstrap.len(), BOOTSTRAP.len());
        assert!(!Embedded::default().bootstrap.iter().any(Multiaddr::is_empty));
        let own = parse(r#"{"bootstrap": [], "mdns": false, "folder": "here"}"#, &[]).unwrap();
        assert!(own.bootstrap.is_empty() && !own.mdns);
        assert_eq!(own.path(Path::new("/x")), Path::new("/x/here"));
        assert_eq!(own.swarm_listen_multiaddress.len(), 2);
    }

    #[test]
    fn variables_are_put_over_the_file() {
        let own = parse(
            "{}",
            &[
                ("CLUSTER_EMBEDDED_STORAGEMAXBYTES", "5"),
                ("CLUSTER_EMBEDDED_SWARMLISTENMULTIADDRESS", "/ip4/127.0.0.1/tcp/0"),
                ("CLUSTER_EMBEDDED_BOOTSTRAP", ""),
                ("CLUSTER_EMBEDDED_MDNS", "false"),
            ],
        );
        let own = own.unwrap();
        assert_eq!((own.storage_max_bytes, own.mdns, own.bootstrap.len()), (5, false, 0));
        assert_eq!(addr_texts(&own.swarm_listen_multiaddress), ["/ip4/127.0.0.1/tcp/0"]);
    }

    #[test]
    fn an_api_that_others_can_reach_needs_a_token() {
        let refused = parse(r#"{"api_listen_multiaddress": "/ip4/0.0.0.0/tcp/5001"}"#, &[]).unwrap_err();
        assert!(refused.contains("it needs embedded.api_token"), "{refused}");
        let open = r#"{"api_listen_multiaddress": "/ip4/0.0.0.0/tcp/5001", "api_token": "x"}"#;
        assert_eq!(parse(open, &[]).unwrap().api_token, "x");
        assert!(parse(r#"{"api_listen_multiaddress": "/ip4/127.0.0.1/tcp/5001"}"#, &[]).is_ok());
        let refused = parse(r#"{"api_listen_multiaddress": "nope"}"#, &[]).unwrap_err();
        assert!(refused.contains("embedded.api_listen_multiaddress"), "{refused}");
    }

    #[test]
    fn init_writes_it_only_when_asked() {
        let mut config = Config::defaults(Consensus::Crdt, Engine::Lmdb, Path::new("/x"));
        assert!(!config.to_json().contains("\"embedded\""));
        config.embedded.present = true;
        config.ipfshttp.present = false;
        let text = config.to_json();
        assert!(text.contains("\"storage_max_bytes\": 10000000000"), "{text}");
        let again = Config::parse(&text, Path::new("/x"), &Env::default()).unwrap();
        assert_eq!(again.embedded, config.embedded);
    }
}
