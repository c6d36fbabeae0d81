//! The `api.restapi` and `api.pinsvcapi` sections: the same keys, other ports.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libp2p_identity::Keypair;

use super::Error;
use super::identity::{decode_base64, decode_key};
use super::section::{
    self, Component, Env, addr_texts, default_addr, parse_addrs, require, set_duration, table,
};
use super::value::{Map, Texts};
use crate::go::time::Duration;
use crate::http::tls;
use crate::types::{Multiaddr, PeerId, parse_peer_id};

const MIN_MAX_HEADER_BYTES: i64 = 4096;

/// An HTTP API: the REST API or the pinning service.
#[derive(Debug, Clone)]
pub struct HttpApi {
    /// `restapi` or `pinsvcapi`: the section's name, also in messages and log facilities.
    pub key: &'static str,
    /// Where it listens (TCP or Unix); never empty.
    pub http_listen_multiaddress: Vec<Multiaddr>,
    /// Certificate chain for HTTPS; both files or none. Relative to the configuration folder.
    pub ssl_cert_file: String,
    /// Private key for HTTPS.
    pub ssl_key_file: String,
    /// Zero: none. Default 0.
    pub read_timeout: Duration,
    /// Zero: none. Default 5 s.
    pub read_header_timeout: Duration,
    /// Zero: none. Default 0.
    pub write_timeout: Duration,
    /// Zero: none. Default 2 min.
    pub idle_timeout: Duration,
    /// At least 4096, the default.
    pub max_header_bytes: i64,
    /// Where the API's own libp2p host listens; with `id` and `private_key`, or none of the three.
    pub libp2p_listen_multiaddress: Vec<Multiaddr>,
    /// The peer id of the API's own libp2p host.
    pub id: Option<PeerId>,
    /// The key of the API's own libp2p host.
    pub private_key: Option<Keypair>,
    /// Users and passwords; `None`: open to all.
    pub basic_auth_credentials: Option<BTreeMap<String, String>>,
    /// Access log. Empty: the log facility. Relative to the configuration folder.
    pub http_log_file: String,
    /// Added to every response.
    pub headers: BTreeMap<String, Vec<String>>,
    /// Default `*`, missing none.
    pub cors_allowed_origins: Vec<String>,
    /// Default `GET`, missing none.
    pub cors_allowed_methods: Vec<String>,
    /// Default none.
    pub cors_allowed_headers: Vec<String>,
    /// Default the four headers clients of the API read, missing none.
    pub cors_exposed_headers: Vec<String>,
    /// Default true, missing false.
    pub cors_allow_credentials: bool,
    /// Default 0.
    pub cors_max_age: Duration,
}

impl HttpApi {
    /// The defaults of the REST API.
    pub fn rest() -> Self {
        Self::new("restapi", "/ip4/127.0.0.1/tcp/9094")
    }

    /// The defaults of the pinning service.
    pub fn pinsvc() -> Self {
        Self::new("pinsvcapi", "/ip4/127.0.0.1/tcp/9097")
    }

    fn new(key: &'static str, listen: &str) -> Self {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        Self {
            key,
            http_listen_multiaddress: vec![default_addr(listen)],
            ssl_cert_file: String::new(),
            ssl_key_file: String::new(),
            read_timeout: Duration::ZERO,
            read_header_timeout: Duration::from_secs(5),
            write_timeout: Duration::ZERO,
            idle_timeout: Duration::from_mins(2),
            max_header_bytes: MIN_MAX_HEADER_BYTES,
            libp2p_listen_multiaddress: Vec::new(),
            id: None,
            private_key: None,
            basic_auth_credentials: None,
            http_log_file: String::new(),
            headers: BTreeMap::new(),
            cors_allowed_origins: texts(&["*"]),
            cors_allowed_methods: texts(&["GET"]),
            cors_allowed_headers: Vec::new(),
            cors_exposed_headers: texts(&[
                "Content-Type",
                "X-Stream-Output",
                "X-Chunked-Output",
                "X-Content-Length",
            ]),
            cors_allow_credentials: true,
            cors_max_age: Duration::ZERO,
        }
    }

    /// These values with the variables over them.
    pub fn with_env(mut self, env: &Env, folder: &Path) -> Result<Self, Error> {
        section::apply_env(&mut self, env, folder).map_err(Error::Value)?;
        Ok(self)
    }

    /// The file of the access log, if there is one.
    pub fn http_log_path(&self, folder: &Path) -> Option<PathBuf> {
        (!self.http_log_file.is_empty()).then(|| folder.join(&self.http_log_file))
    }

    /// Certificate and key files, if HTTPS is configured.
    pub fn tls_paths(&self, folder: &Path) -> Option<(PathBuf, PathBuf)> {
        let any = !self.ssl_cert_file.is_empty() || !self.ssl_key_file.is_empty();
        any.then(|| (join(folder, &self.ssl_cert_file), join(folder, &self.ssl_key_file)))
    }

    fn check_libp2p(&self) -> Result<(), String> {
        let n_set =
            [self.id.is_some(), self.private_key.is_some(), !self.libp2p_listen_multiaddress.is_empty()];
        if !n_set.contains(&true) {
            return Ok(());
        }
        let (Some(id), Some(key), true) = (&self.id, &self.private_key, n_set[2]) else {
            return Err("all ID, private_key and libp2p_listen_multiaddress should be set".to_owned());
        };
        require(key.public().to_peer_id() == *id, &format!("{}.ID does not match private_key", self.key))
    }
}

/// `name` below `folder`, or `folder` itself where there is no name, as Go joins paths.
fn join(folder: &Path, name: &str) -> PathBuf {
    if name.is_empty() { folder.to_owned() } else { folder.join(name) }
}

/// Reads certificate and key to know that they can be served.
fn check_keys(certificate: &Path, key: &Path) -> Result<(), String> {
    let pair = super::read_file(certificate)
        .and_then(|certificate| tls::key_pair(&certificate, &super::read_file(key)?));
    pair.map(|_| ()).map_err(|reason| tls::Error::Keys(reason).to_string())
}

table! {
    HttpApiTable = "common.jsonConfig" {
        http_listen_multiaddress: Texts = "HTTPListenMultiaddress",
        ssl_cert_file: String = "SSLCertFile" omit_empty,
        ssl_key_file: String = "SSLKeyFile" omit_empty,
        read_timeout: String = "ReadTimeout",
        read_header_timeout: String = "ReadHeaderTimeout",
        write_timeout: String = "WriteTimeout",
        idle_timeout: String = "IdleTimeout",
        max_header_bytes: i64 = "MaxHeaderBytes",
        libp2p_listen_multiaddress: Texts = "Libp2pListenMultiaddress" omit_empty,
        id: String = "ID" omit_empty,
        private_key: String = "PrivateKey" omit_empty hidden,
        basic_auth_credentials: Map<String> = "BasicAuthCredentials" hidden,
        http_log_file: String = "HTTPLogFile",
        headers: Map<Vec<String>> = "Headers",
        cors_allowed_origins: Vec<String> = "CORSAllowedOrigins",
        cors_allowed_methods: Vec<String> = "CORSAllowedMethods",
        cors_allowed_headers: Vec<String> = "CORSAllowedHeaders",
        cors_exposed_headers: Vec<String> = "CORSExposedHeaders",
        cors_allow_credentials: bool = "CORSAllowCredentials",
        cors_max_age: String = "CORSMaxAge",
    }
}

impl Component for HttpApi {
    type Table = HttpApiTable;

    fn key(&self) -> &'static str {
        self.key
    }

    fn env_prefix(&self) -> &'static str {
        if self.key == "restapi" { "CLUSTER_RESTAPI" } else { "CLUSTER_PINSVCAPI" }
    }

    fn apply(&mut self, table: HttpApiTable, folder: &Path) -> Result<(), String> {
        let key = self.key;
        if !table.http_listen_multiaddress.0.is_empty() {
            let doing = format!("error parsing {key}.http_listen_multiaddress");
            self.http_listen_multiaddress = parse_addrs(&doing, &table.http_listen_multiaddress.0)?;
        }
        if !table.ssl_cert_file.is_empty() || !table.ssl_key_file.is_empty() {
            self.ssl_cert_file = table.ssl_cert_file;
            self.ssl_key_file = table.ssl_key_file;
        }
        if let Some((certificate, private_key)) = self.tls_paths(folder) {
            check_keys(&certificate, &private_key)?;
        }
        self.max_header_bytes = match table.max_header_bytes {
            0 => MIN_MAX_HEADER_BYTES,
            n_bytes => n_bytes,
        };
        self.cors_allowed_origins = table.cors_allowed_origins;
        self.cors_allowed_methods = table.cors_allowed_methods;
        self.cors_allowed_headers = table.cors_allowed_headers;
        self.cors_exposed_headers = table.cors_exposed_headers;
        self.cors_allow_credentials = table.cors_allow_credentials;
        let cors_max_age = if table.cors_max_age.is_empty() { "0s" } else { &table.cors_max_age };
        for (name, text, slot) in [
            ("read_timeout", table.read_timeout.as_str(), &mut self.read_timeout),
            ("read_header_timeout", &table.read_header_timeout, &mut self.read_header_timeout),
            ("write_timeout", &table.write_timeout, &mut self.write_timeout),
            ("idle_timeout", &table.idle_timeout, &mut self.idle_timeout),
            ("cors_max_age", cors_max_age, &mut self.cors_max_age),
        ] {
            set_duration(key, name, text, slot)?;
        }
        if !table.libp2p_listen_multiaddress.0.is_empty() {
            let doing = format!("error parsing {key}.libp2p_listen_multiaddress");
            self.libp2p_listen_multiaddress = parse_addrs(&doing, &table.libp2p_listen_multiaddress.0)?;
        }
        if !table.private_key.is_empty() {
            let bytes = decode_base64(&table.private_key)
                .map_err(|reason| format!("error decoding {key}.private_key: {reason}"))?;
            let pair = decode_key(&bytes)
                .map_err(|reason| format!("error parsing {key}.private_key ID: {reason}"))?;
            self.private_key = Some(pair);
        }
        if !table.id.is_empty() {
            let id =
                parse_peer_id(&table.id).map_err(|reason| format!("error parsing {key}.ID: {reason}"))?;
            self.id = Some(id);
        }
        self.basic_auth_credentials = table.basic_auth_credentials;
        self.http_log_file = table.http_log_file;
        self.headers = table.headers.unwrap_or_default();
        Ok(())
    }

    fn validate(&self) -> Result<(), String> {
        for (name, span) in [
            ("read_timeout is invalid", self.read_timeout),
            ("read_header_timeout is invalid", self.read_header_timeout),
            ("write_timeout is invalid", self.write_timeout),
            ("idle_timeout invalid", self.idle_timeout),
        ] {
            require(span >= Duration::ZERO, &format!("{}.{name}", self.key))?;
        }
        let key = self.key;
        let enough = self.max_header_bytes >= MIN_MAX_HEADER_BYTES;
        require(enough, &format!("{key}.max_header_bytes must be not less then {MIN_MAX_HEADER_BYTES}"))?;
        let no_users = self.basic_auth_credentials.as_ref().is_some_and(BTreeMap::is_empty);
        require(!no_users, &format!("{key}.basic_auth_creds should be null or have at least one entry"))?;
        require(self.cors_max_age >= Duration::ZERO, &format!("{key}.cors_max_age is invalid"))?;
        self.check_libp2p()
    }

    fn to_table(&self) -> HttpApiTable {
        let private_key = self.private_key.as_ref().and_then(|key| key.to_protobuf_encoding().ok());
        HttpApiTable {
            http_listen_multiaddress: Texts(addr_texts(&self.http_listen_multiaddress)),
            ssl_cert_file: self.ssl_cert_file.clone(),
            ssl_key_file: self.ssl_key_file.clone(),
            read_timeout: self.read_timeout.to_string(),
            read_header_timeout: self.read_header_timeout.to_string(),
            write_timeout: self.write_timeout.to_string(),
            idle_timeout: self.idle_timeout.to_string(),
            max_header_bytes: self.max_header_bytes,
            libp2p_listen_multiaddress: Texts(addr_texts(&self.libp2p_listen_multiaddress)),
            id: self.id.map(|id| id.to_base58()).unwrap_or_default(),
            private_key: private_key.map(|bytes| STANDARD.encode(bytes)).unwrap_or_default(),
            basic_auth_credentials: self.basic_auth_credentials.clone(),
            http_log_file: self.http_log_file.clone(),
            headers: Some(self.headers.clone()),
            cors_allowed_origins: self.cors_allowed_origins.clone(),
            cors_allowed_methods: self.cors_allowed_methods.clone(),
            cors_allowed_headers: self.cors_allowed_headers.clone(),
            cors_exposed_headers: self.cors_exposed_headers.clone(),
            cors_allow_credentials: self.cors_allow_credentials,
            cors_max_age: self.cors_max_age.to_string(),
        }
    }
}
