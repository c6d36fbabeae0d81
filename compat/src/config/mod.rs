//! `service.json`, `identity.json` and the peerstore file.
//!
//! ```text
//!   file ─ json::parse ─ Document ─┬─ table ─ section   (one per component)
//!                                  │            │ ▲
//!   source URL ─ fetch ────────────┘            ▼ │
//!                                   environment ─ table
//! ```
//!
//! A configuration is loaded in this order: the file, or what its `source` points to; each component over its
//! defaults; validation; the environment over every component, present or not; validation again. Every error is
//! the reference's text, which names the key.
//!
//! - Loading writes nothing. Only [`Config::save`] writes `service.json`, and only `init` calls it.
//! - A section that is absent has its defaults and says so ([`Section::present`]); a variable never makes it
//!   present.
//! - Relative paths are relative to the configuration folder, except `raft.data_folder`.

mod allocator;
mod api;
mod cluster;
mod crdt;
mod datastore;
mod embedded;
mod engines;
mod file;
pub mod flat;
mod identity;
mod informer;
mod ipfs;
pub(crate) mod json;
mod monitor;
mod observe;
pub mod peerstore;
mod proxy;
mod raft;
mod section;
mod source;
mod tracker;
mod value;

#[cfg(test)]
mod tests;

use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

pub use self::allocator::Balanced;
pub use self::api::HttpApi;
pub use self::cluster::{Cluster, ConnectionManager, Pubsub, ResourceManager, parse_secret};
pub use self::crdt::{Batching, Crdt};
pub use self::datastore::{Badger, Badger3, Datastore, Leveldb, Lmdb, Pebble};
pub use self::embedded::Embedded;
pub use self::identity::Identity;
pub use self::informer::{Disk, DiskMetric, PinQueue, Tags};
pub use self::ipfs::IpfsHttp;
pub use self::monitor::Pubsubmon;
pub use self::observe::{Metrics, Tracing};
pub use self::proxy::Proxy;
pub use self::raft::Raft;
pub use self::section::{Env, Section};
pub use self::tracker::Stateless;

use self::file::{Document, SECTIONS};
use self::json::{Json, Writer};
use self::section::Part;

/// Largest configuration that is read, from a file or a URL; a full one has ten thousand bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Why a configuration or an identity was refused. The texts are the reference's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written: `open <path>: no such file or directory`.
    #[error("{0}")]
    File(String),
    /// A file is no JSON, or not of the outer shape of a configuration.
    #[error("{0}")]
    Json(String),
    /// A value is refused; the text names its key.
    #[error("{0}")]
    Value(String),
    /// A component cannot work with its values, whichever of them it is.
    #[error("{component} failed to validate: {reason}")]
    Invalid {
        /// `cluster section`, or the component's name.
        component: String,
        /// The component's text, which names the key.
        reason: String,
    },
    /// A file of a version 0.0.x; the key that tells so.
    #[error(
        "cluster section is missing, and \"{0}\" belongs to the flat layout of versions 0.0.x: carry its values \
         over with `init --convert`"
    )]
    FlatLayout(&'static str),
    /// A `source` cannot be reached: the URL.
    #[error("could not fetch configuration from source: {0}")]
    Fetch(String),
    /// A `source` answered with an error.
    #[error("unsuccessful request ({status}): {body}")]
    FetchStatus {
        /// The HTTP status.
        status: u16,
        /// What came with it.
        body: String,
    },
    /// A `source` points to a configuration that has a `source`.
    #[error("a sourced configuration cannot point to another source")]
    NestedSource,
}

/// Which consensus a new configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consensus {
    /// A conflict-free replicated set.
    Crdt,
    /// A replicated log.
    Raft,
}

/// Which datastore section a new configuration has. Data is kept in LMDB in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Badger 1.
    Badger,
    /// Badger 3.
    Badger3,
    /// LevelDB.
    Leveldb,
    /// LMDB.
    Lmdb,
    /// Pebble.
    Pebble,
}

/// A component of a section that we do not know, kept as it was.
#[derive(Debug, Clone, PartialEq)]
struct Kept {
    section: usize,
    name: String,
    json: String,
}

/// The whole configuration of a peer.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder of `service.json`; relative paths begin here.
    pub folder: PathBuf,
    /// The URL the configuration was loaded from, if the file names one.
    pub source: Option<String>,
    /// The peer itself.
    pub cluster: Cluster,
    /// CRDT consensus.
    pub crdt: Section<Crdt>,
    /// Raft consensus.
    pub raft: Section<Raft>,
    /// The REST API.
    pub restapi: Section<HttpApi>,
    /// The pinning service API.
    pub pinsvcapi: Section<HttpApi>,
    /// The IPFS proxy.
    pub ipfsproxy: Section<Proxy>,
    /// The IPFS node in this process.
    pub embedded: Section<Embedded>,
    /// The client of the IPFS daemon.
    pub ipfshttp: Section<IpfsHttp>,
    /// The pin tracker.
    pub stateless: Section<Stateless>,
    /// The monitor.
    pub pubsubmon: Section<Pubsubmon>,
    /// The allocator.
    pub balanced: Section<Balanced>,
    /// The disk informer.
    pub disk: Section<Disk>,
    /// The tags informer.
    pub tags: Section<Tags>,
    /// The pin queue informer.
    pub pinqueue: Section<PinQueue>,
    /// Figures.
    pub metrics: Section<Metrics>,
    /// Traces.
    pub tracing: Section<Tracing>,
    /// The datastores.
    pub datastore: Datastore,
    kept: Vec<Kept>,
}

impl Config {
    /// Loads a file, or what its `source` points to, with the environment over it.
    pub async fn load(path: &Path, env: &Env) -> Result<Self, Error> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let bytes = read_file(path).map_err(|reason| {
            tracing::error!(target: "config", "error reading the configuration file: {reason}");
            Error::File(reason)
        })?;
        let text = String::from_utf8_lossy(&bytes);
        let source = source_of(&text)?;
        if source.is_empty() {
            return Self::parse(&text, folder, env);
        }
        let sourced = source::fetch(&source).await?;
        let nested = source_of(&sourced)?;
        if !nested.is_empty() {
            source::fetch(&nested).await?;
            return Err(Error::NestedSource);
        }
        let mut config = Self::parse(&sourced, folder, env)?;
        config.source = Some(source);
        Ok(config)
    }

    /// Reads the text of a configuration, without looking at its `source`, with the environment over it.
    /// Relative paths begin at `folder`.
    pub fn parse(text: &str, folder: &Path, env: &Env) -> Result<Self, Error> {
        let json = parse_json(text)?;
        let document = Document::new(&json).map_err(not_a_config)?;
        let mut config = Self::absent(folder);
        match document.cluster {
            Some(json) => section::load(&mut config.cluster, json, folder).map_err(Error::Value)?,
            None => {
                if let Some(key) = file::flat_key(&json) {
                    return Err(Error::FlatLayout(key));
                }
                config.cluster = Cluster::undefined();
            }
        }
        let folder = folder.to_owned();
        let mut known: Vec<(usize, &'static str)> = Vec::new();
        for (section, part) in config.parts() {
            known.push((section, part.key()));
            let json = document.component(section, part.key());
            part.set_present(json.is_some());
            if let Some(json) = json {
                part.load(json, &folder).map_err(|reason| {
                    tracing::error!(target: "config", "{reason}");
                    Error::Value(reason)
                })?;
            }
        }
        for section in 0..SECTIONS.len() {
            for (name, json) in document.components(section) {
                if !known.contains(&(section, *name)) {
                    let kept = Kept { section, name: (*name).to_owned(), json: json.raw.to_owned() };
                    config.kept.push(kept);
                }
            }
        }
        config.validate()?;
        config.apply_env(env, false)?;
        if !config.balanced.present {
            config.balanced.value = Balanced::when_absent();
        }
        Ok(config)
    }

    /// The configuration `init` writes: defaults with a new secret and the variables over them. Only the chosen
    /// consensus and, with CRDT, the chosen datastore are present.
    pub fn init(consensus: Consensus, engine: Engine, folder: &Path, env: &Env) -> Result<Self, Error> {
        let mut config = Self::defaults(consensus, engine, folder);
        config.apply_env(env, true)?;
        Ok(config)
    }

    /// The defaults with a new secret. Only the chosen consensus and, with CRDT, the chosen datastore are present.
    pub fn defaults(consensus: Consensus, engine: Engine, folder: &Path) -> Self {
        let mut config = Self::absent(folder);
        config.cluster = Cluster::with_new_secret();
        for (_, part) in config.parts() {
            part.set_present(true);
        }
        config.embedded.present = false;
        config.raft.present = consensus == Consensus::Raft;
        config.crdt.present = consensus == Consensus::Crdt;
        let chosen = |other| config.crdt.present && engine == other;
        let present =
            [Engine::Badger, Engine::Badger3, Engine::Leveldb, Engine::Lmdb, Engine::Pebble].map(chosen);
        let datastore = &mut config.datastore;
        [
            datastore.badger.present,
            datastore.badger3.present,
            datastore.leveldb.present,
            datastore.lmdb.present,
            datastore.pebble.present,
        ] = present;
        config
    }

    /// Puts the variables over the components, or over those only that are present, and checks them.
    pub fn apply_env(&mut self, env: &Env, only_present: bool) -> Result<(), Error> {
        let folder = self.folder.clone();
        for (_, part) in self.parts() {
            if !only_present || part.is_present() {
                part.apply_env(env, &folder).map_err(Error::Value)?;
            }
        }
        section::apply_env(&mut self.cluster, env, &folder).map_err(Error::Value)
    }

    /// Checks every component.
    pub fn validate(&mut self) -> Result<(), Error> {
        let invalid = |component: &str| {
            let component = component.to_owned();
            |reason| Error::Invalid { component, reason }
        };
        section::Component::validate(&self.cluster).map_err(invalid("cluster section"))?;
        for (_, part) in self.parts() {
            part.validate().map_err(invalid(part.key()))?;
        }
        Ok(())
    }

    /// The one consensus whose section is present; `None` if none or both are.
    pub fn consensus(&self) -> Option<Consensus> {
        match (self.crdt.present, self.raft.present) {
            (true, false) => Some(Consensus::Crdt),
            (false, true) => Some(Consensus::Raft),
            _ => None,
        }
    }

    /// The text of the file: what the reference writes, without a final line end. Components that are absent are
    /// left out; unknown ones follow in the order of their names.
    pub fn to_json(&self) -> String {
        let mut out = Writer::new("  ");
        match &self.source {
            Some(source) => {
                out.open('{');
                out.key("source");
                out.string(source);
                out.close('}');
            }
            None => self.clone().write(&mut out, false),
        }
        out.finish()
    }

    /// The configuration for logs: every key, secrets hidden.
    pub fn to_display_json(&self) -> String {
        let mut out = Writer::new("  ");
        self.clone().write(&mut out, true);
        out.finish()
    }

    fn write(&mut self, out: &mut Writer, display: bool) {
        let kept = std::mem::take(&mut self.kept);
        out.open('{');
        out.key("cluster");
        section::write_table(&mut section::Component::to_table(&self.cluster), out, display);
        let mut parts = self.parts();
        parts.retain(|(_, part)| display || part.is_present());
        for (at, section) in SECTIONS.iter().enumerate() {
            let mut names: Vec<&str> =
                parts.iter().filter(|(of, _)| *of == at).map(|(_, part)| part.key()).collect();
            names.extend(kept.iter().filter(|kept| kept.section == at).map(|kept| kept.name.as_str()));
            names.sort_unstable();
            names.dedup();
            if names.is_empty() {
                continue;
            }
            out.key(section);
            out.open('{');
            for name in names {
                out.key(name);
                if let Some((_, part)) = parts.iter().find(|(of, part)| *of == at && part.key() == name) {
                    part.write(out, display);
                    continue;
                }
                let text = kept.iter().rev().find(|kept| kept.section == at && kept.name == name);
                // What was kept was parsed before.
                if let Some(json) = text.and_then(|kept| json::parse(&kept.json).ok()) {
                    out.kept(&json);
                }
            }
            out.close('}');
        }
        out.close('}');
    }

    /// Writes `service.json`, readable by its owner only; makes its folder if it is missing.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        tracing::info!(target: "config", "Saving configuration");
        self.clone().validate()?;
        make_folder(&self.folder).map_err(Error::File)?;
        write_private(path, &self.to_json()).map_err(Error::File)
    }

    /// Where the peerstore file lies.
    pub fn peerstore_path(&self) -> PathBuf {
        self.cluster.peerstore_path(&self.folder)
    }

    /// Everything at its defaults, nothing present, no secret.
    fn absent(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            source: None,
            cluster: Cluster::default(),
            crdt: Section::default(),
            raft: Section::default(),
            restapi: Section { present: false, value: HttpApi::rest() },
            pinsvcapi: Section { present: false, value: HttpApi::pinsvc() },
            ipfsproxy: Section::default(),
            embedded: Section::default(),
            ipfshttp: Section::default(),
            stateless: Section::default(),
            pubsubmon: Section::default(),
            balanced: Section::default(),
            disk: Section::default(),
            tags: Section::default(),
            pinqueue: Section::default(),
            metrics: Section::default(),
            tracing: Section::default(),
            datastore: Datastore::default(),
            kept: Vec::new(),
        }
    }

    /// Every component with the position of its section in [`SECTIONS`].
    fn parts(&mut self) -> Vec<(usize, &mut dyn Part)> {
        let datastore = &mut self.datastore;
        vec![
            (0, &mut self.crdt),
            (0, &mut self.raft),
            (1, &mut self.ipfsproxy),
            (1, &mut self.pinsvcapi),
            (1, &mut self.restapi),
            (2, &mut self.embedded),
            (2, &mut self.ipfshttp),
            (4, &mut self.stateless),
            (5, &mut self.pubsubmon),
            (6, &mut self.balanced),
            (7, &mut self.disk),
            (7, &mut self.pinqueue),
            (7, &mut self.tags),
            (8, &mut self.metrics),
            (8, &mut self.tracing),
            (9, &mut datastore.badger),
            (9, &mut datastore.badger3),
            (9, &mut datastore.leveldb),
            (9, &mut datastore.lmdb),
            (9, &mut datastore.pebble),
        ]
    }
}

fn parse_json(text: &str) -> Result<Json<'_>, Error> {
    json::parse(text).map_err(not_a_config)
}

fn not_a_config(reason: String) -> Error {
    tracing::error!(target: "config", "error parsing JSON: {reason}");
    Error::Json(reason)
}

fn source_of(text: &str) -> Result<String, Error> {
    let json = parse_json(text)?;
    Document::new(&json).map(|document| document.source).map_err(not_a_config)
}

/// Reads a file of bounded size; the error is Go's text.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let file = std::fs::File::open(path).map_err(|reason| go_error("open", path, &reason))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|reason| go_error("read", path, &reason))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("read {}: more than {MAX_FILE_BYTES} bytes", path.display()));
    }
    Ok(bytes)
}

/// Reads the text of a configuration file; the error is Go's text.
pub fn read_text(path: &Path) -> Result<String, String> {
    read_file(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Makes a folder that only its owner may enter, and those above it.
pub fn make_folder(folder: &Path) -> Result<(), String> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|reason| go_error("mkdir", folder, &reason))
}

/// Writes a file only its owner may read, through one beside it: a crash or a full disk leaves the old or the new text.
/// Where nothing may be put beside it, or it cannot be replaced (a mount of its own), it is written in place.
pub fn write_private(path: &Path, text: &str) -> Result<(), String> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut beside = target.clone().into_os_string();
    beside.push(".new");
    let write = |path: &Path| {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    let replaced = write(Path::new(&beside)).and_then(|()| std::fs::rename(&beside, &target));
    let Err(reason) = replaced else { return Ok(()) };
    // Best effort: it may not even exist.
    let _ = std::fs::remove_file(&beside);
    let written = match reason.kind() {
        // no room for the new text: the old one must not go
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Err(reason),
        _ => write(&target),
    };
    written.map_err(|reason| go_error("open", path, &reason))
}

/// An error of the operating system as Go words it: `open <path>: no such file or directory`.
pub fn go_error(operation: &str, path: &Path, reason: &std::io::Error) -> String {
    let text = reason.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    let lower = chars.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(chars);
    format!("{operation} {}: {}", path.display(), lower.collect::<String>())
}
