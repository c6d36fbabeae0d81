//! The `ipfs_connector.ipfshttp` section.

use std::path::Path;

use super::Error;
use super::section::{self, Component, Env, default_addr, parse_addr, require, set_duration, table};
use crate::go::time::Duration;
use crate::types::Multiaddr;

/// The client of the daemon's RPC.
#[derive(Debug, Clone, PartialEq)]
pub struct IpfsHttp {
    /// The daemon's RPC. Default `/ip4/127.0.0.1/tcp/5001`, required in the file.
    pub node_multiaddress: Multiaddr,
    /// Pause before daemons are connected with each other. Default 30 s.
    pub connect_swarms_delay: Duration,
    /// Longest request. Default 5 min.
    pub ipfs_request_timeout: Duration,
    /// Longest pause in the progress of a pin. Default 2 min.
    pub pin_timeout: Duration,
    /// Longest unpin. Default 3 h.
    pub unpin_timeout: Duration,
    /// Longest garbage collection. Default 24 h.
    pub repogc_timeout: Duration,
    /// Send the metrics after this many pins and blocks; 0: not. Default 0.
    pub informer_trigger_interval: i64,
    /// Refuse to unpin. Default false.
    pub unpin_disable: bool,
}

impl Default for IpfsHttp {
    fn default() -> Self {
        Self {
            node_multiaddress: default_addr("/ip4/127.0.0.1/tcp/5001"),
            connect_swarms_delay: Duration::from_secs(30),
            ipfs_request_timeout: Duration::from_mins(5),
            pin_timeout: Duration::from_mins(2),
            unpin_timeout: Duration::from_hours(3),
            repogc_timeout: Duration::from_hours(24),
            informer_trigger_interval: 0,
            unpin_disable: false,
        }
    }
}

impl IpfsHttp {
    /// The defaults with the variables over them: for who has no file.
    pub fn from_env(env: &Env) -> Result<Self, Error> {
        let mut connector = Self::default();
        section::apply_env(&mut connector, env, Path::new("")).map_err(Error::Value)?;
        Ok(connector)
    }
}

table! {
    IpfsHttpTable = "ipfshttp.jsonConfig" {
        node_multiaddress: String = "NodeMultiaddress",
        connect_swarms_delay: String = "ConnectSwarmsDelay",
        ipfs_request_timeout: String = "IPFSRequestTimeout",
        pin_timeout: String = "PinTimeout",
        unpin_timeout: String = "UnpinTimeout",
        repogc_timeout: String = "RepoGCTimeout",
        informer_trigger_interval: i64 = "InformerTriggerInterval",
        unpin_disable: bool = "UnpinDisable" omit_empty,
    }
}

impl Component for IpfsHttp {
    type Table = IpfsHttpTable;

    fn key(&self) -> &'static str {
        "ipfshttp"
    }

    fn env_prefix(&self) -> &'static str {
        "CLUSTER_IPFSHTTP"
    }

    fn apply(&mut self, table: IpfsHttpTable, _folder: &Path) -> Result<(), String> {
        self.node_multiaddress =
            parse_addr("error parsing ipfs_node_multiaddress", &table.node_multiaddress)?;
        self.unpin_disable = table.unpin_disable;
        self.informer_trigger_interval = table.informer_trigger_interval;
        for (key, text, slot) in [
            ("connect_swarms_delay", &table.connect_swarms_delay, &mut self.connect_swarms_delay),
            ("ipfs_request_timeout", &table.ipfs_request_timeout, &mut self.ipfs_request_timeout),
            ("pin_timeout", &table.pin_timeout, &mut self.pin_timeout),
            ("unpin_timeout", &table.unpin_timeout, &mut self.unpin_timeout),
            ("repogc_timeout", &table.repogc_timeout, &mut self.repogc_timeout),
        ] {
            set_duration("ipfshttp", key, text, slot)?;
        }
        Ok(())
    }

    /// With several errors the last one is told, as in the reference.
    fn validate(&self) -> Result<(), String> {
        require(self.informer_trigger_interval >= 0, "ipfshttp.informer_trigger_interval")?;
        require(self.repogc_timeout >= Duration::ZERO, "ipfshttp.repogc_timeout invalid")?;
        require(self.unpin_timeout >= Duration::ZERO, "ipfshttp.unpin_timeout invalid")?;
        require(self.pin_timeout >= Duration::ZERO, "ipfshttp.pin_timeout invalid")?;
        require(self.ipfs_request_timeout >= Duration::ZERO, "ipfshttp.ipfs_request_timeout invalid")?;
        require(self.connect_swarms_delay >= Duration::ZERO, "ipfshttp.connect_swarms_delay is invalid")
    }

    fn to_table(&self) -> IpfsHttpTable {
        IpfsHttpTable {
            node_multiaddress: self.node_multiaddress.to_string(),
            connect_swarms_delay: self.connect_swarms_delay.to_string(),
            ipfs_request_timeout: self.ipfs_request_timeout.to_string(),
            pin_timeout: self.pin_timeout.to_string(),
            unpin_timeout: self.unpin_timeout.to_string(),
            repogc_timeout: self.repogc_timeout.to_string(),
            informer_trigger_interval: self.informer_trigger_interval,
            unpin_disable: self.unpin_disable,
        }
    }
}
