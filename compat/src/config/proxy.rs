//! The `api.ipfsproxy` section.

use std::path::{Path, PathBuf};

use super::section::{
    Component, addr_texts, default_addr, parse_addr, parse_addrs, require, set_duration, set_text, table,
};
use super::value::Texts;
use crate::go::time::Duration;
use crate::types::Multiaddr;

const MIN_MAX_HEADER_BYTES: i64 = 4096;
const EXTRACT_HEADERS_PATH: &str = "/api/v0/version";
const EXTRACT_HEADERS_TTL: Duration = Duration::from_mins(5);

/// The IPFS proxy.
#[derive(Debug, Clone, PartialEq)]
pub struct Proxy {
    /// Where it listens (TCP or Unix); never empty.
    pub listen_multiaddress: Vec<Multiaddr>,
    /// The daemon's RPC.
    pub node_multiaddress: Multiaddr,
    /// Speak HTTPS to the daemon. Default false.
    pub node_https: bool,
    /// Access log. Empty: the log facility. Relative to the configuration folder.
    pub log_file: String,
    /// Zero: none. Default 0.
    pub read_timeout: Duration,
    /// Zero: none. Default 5 s.
    pub read_header_timeout: Duration,
    /// Zero: none. Default 0.
    pub write_timeout: Duration,
    /// Zero: none. Default 1 min.
    pub idle_timeout: Duration,
    /// At least 4096, the default.
    pub max_header_bytes: i64,
    /// More headers of the daemon to repeat on intercepted paths.
    pub extract_headers_extra: Vec<String>,
    /// The daemon's path that is asked for headers. Default `/api/v0/version`.
    pub extract_headers_path: String,
    /// How long extracted headers are remembered. Default 5 min; zero: always asked.
    pub extract_headers_ttl: Duration,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            listen_multiaddress: vec![default_addr("/ip4/127.0.0.1/tcp/9095")],
            node_multiaddress: default_addr("/ip4/127.0.0.1/tcp/5001"),
            node_https: false,
            log_file: String::new(),
            read_timeout: Duration::ZERO,
            read_header_timeout: Duration::from_secs(5),
            write_timeout: Duration::ZERO,
            idle_timeout: Duration::from_mins(1),
            max_header_bytes: MIN_MAX_HEADER_BYTES,
            extract_headers_extra: Vec::new(),
            extract_headers_path: EXTRACT_HEADERS_PATH.to_owned(),
            extract_headers_ttl: EXTRACT_HEADERS_TTL,
        }
    }
}

impl Proxy {
    /// The file of the access log, if there is one.
    pub fn log_path(&self, folder: &Path) -> Option<PathBuf> {
        (!self.log_file.is_empty()).then(|| folder.join(&self.log_file))
    }
}

table! {
    ProxyTable = "ipfsproxy.jsonConfig" {
        listen_multiaddress: Texts = "ListenMultiaddress",
        node_multiaddress: String = "NodeMultiaddress",
        node_https: bool = "NodeHTTPS" omit_empty,
        log_file: String = "LogFile",
        read_timeout: String = "ReadTimeout",
        read_header_timeout: String = "ReadHeaderTimeout",
        write_timeout: String = "WriteTimeout",
        idle_timeout: String = "IdleTimeout",
        max_header_bytes: i64 = "MaxHeaderBytes",
        extract_headers_extra: Vec<String> = "ExtractHeadersExtra" omit_empty,
        extract_headers_path: String = "ExtractHeadersPath" omit_empty,
        extract_headers_ttl: String = "ExtractHeadersTTL" omit_empty,
    }
}

impl Component for Proxy {
    type Table = ProxyTable;

    fn key(&self) -> &'static str {
        "ipfsproxy"
    }

    fn env_prefix(&self) -> &'static str {
        "CLUSTER_IPFSPROXY"
    }

    fn apply(&mut self, table: ProxyTable, _folder: &Path) -> Result<(), String> {
        if !table.listen_multiaddress.0.is_empty() {
            let doing = "error parsing proxy listen_multiaddress";
            self.listen_multiaddress = parse_addrs(doing, &table.listen_multiaddress.0)?;
        }
        if !table.node_multiaddress.is_empty() {
            let doing = "error parsing ipfs node_multiaddress";
            self.node_multiaddress = parse_addr(doing, &table.node_multiaddress)?;
        }
        self.node_https |= table.node_https;
        set_text(table.log_file, &mut self.log_file);
        for (key, text, slot) in [
            ("read_timeout", &table.read_timeout, &mut self.read_timeout),
            ("read_header_timeout", &table.read_header_timeout, &mut self.read_header_timeout),
            ("write_timeout", &table.write_timeout, &mut self.write_timeout),
            ("idle_timeout", &table.idle_timeout, &mut self.idle_timeout),
            ("extract_header_ttl", &table.extract_headers_ttl, &mut self.extract_headers_ttl),
        ] {
            set_duration("ipfsproxy", key, text, slot)?;
        }
        self.max_header_bytes = match table.max_header_bytes {
            0 => MIN_MAX_HEADER_BYTES,
            n_bytes => n_bytes,
        };
        if !table.extract_headers_extra.is_empty() {
            self.extract_headers_extra = table.extract_headers_extra;
        }
        set_text(table.extract_headers_path, &mut self.extract_headers_path);
        Ok(())
    }

    /// With several errors the last one is told, as in the reference.
    fn validate(&self) -> Result<(), String> {
        let enough = self.max_header_bytes >= MIN_MAX_HEADER_BYTES;
        let limit = format!("ipfsproxy.max_header_size must be greater or equal to {MIN_MAX_HEADER_BYTES}");
        require(enough, &limit)?;
        require(self.extract_headers_ttl >= Duration::ZERO, "ipfsproxy.extract_headers_ttl is invalid")?;
        require(self.idle_timeout >= Duration::ZERO, "ipfsproxy.idle_timeout invalid")?;
        require(self.write_timeout >= Duration::ZERO, "ipfsproxy.write_timeout is invalid")?;
        require(self.read_header_timeout >= Duration::ZERO, "ipfsproxy.read_header_timeout is invalid")?;
        require(self.read_timeout >= Duration::ZERO, "ipfsproxy.read_timeout is invalid")
    }

    fn to_table(&self) -> ProxyTable {
        let path = &self.extract_headers_path;
        ProxyTable {
            listen_multiaddress: Texts(addr_texts(&self.listen_multiaddress)),
            node_multiaddress: self.node_multiaddress.to_string(),
            node_https: self.node_https,
            log_file: self.log_file.clone(),
            read_timeout: self.read_timeout.to_string(),
            read_header_timeout: self.read_header_timeout.to_string(),
            write_timeout: self.write_timeout.to_string(),
            idle_timeout: self.idle_timeout.to_string(),
            max_header_bytes: self.max_header_bytes,
            extract_headers_extra: self.extract_headers_extra.clone(),
            extract_headers_path: if path == EXTRACT_HEADERS_PATH { String::new() } else { path.clone() },
            extract_headers_ttl: if self.extract_headers_ttl == EXTRACT_HEADERS_TTL {
                String::new()
            } else {
                self.extract_headers_ttl.to_string()
            },
        }
    }
}
