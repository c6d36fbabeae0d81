//! Names: the keys they belong to, publishing and following them.
//!
//! Keys lie in the node's folder under `keystore`, one file each, as in Kubo: `key_` and the name in base32 (Go: kubo
//! `keystore`). The node's own key is called `self`. The record that was published last for each of our keys is kept in
//! the repository and published again before it ends.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path as FilePath, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cluster_compat::go::quote::quote;
use cluster_compat::go::time::Time;
use cluster_compat::types::{PeerId, parse_cid};
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;
use libp2p::identity::Keypair;
use multibase::Base;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::ipld::LIBP2P_KEY;
use super::ipns::{self, Record};
use super::repo::Repo;
use super::source::blocking;
use super::swarm::Swarm;
use super::{Error, path};
use crate::net;

/// The node's own key.
pub(super) const SELF: &str = "self";
/// (Go: boxo `ipns`, `DefaultRecordLifetime` and `DefaultRecordTTL`)
pub(super) const LIFETIME: Duration = Duration::from_secs(48 * 3600);
pub(super) const TTL: Duration = Duration::from_secs(5 * 60);
/// Pause between publishing all names again. (Go: kubo `Ipns.RepublishPeriod`)
const REPUBLISH_EVERY: Duration = Duration::from_secs(4 * 3600);
/// Names that lead to names. (Go: boxo `namesys`, `DefaultDepthLimit`)
const MAX_DEPTH: usize = 32;
/// Longest search for the records of a name. (Go: boxo `namesys`, `DefaultResolverDhtTimeout`)
const SEARCH_LIMIT: Duration = Duration::from_secs(60);
/// How long a search goes on for a newer record once there is one.
const NEWER_WAIT: Duration = Duration::from_secs(5);
/// Longest answer of DNS.
const DNS_LIMIT: Duration = Duration::from_secs(10);
/// Longest name of a key in bytes: a file is called by it.
const MAX_KEY_NAME: usize = 120;

const UNRESOLVED: &str = "could not resolve name";

/// Keys and names. Clones share them.
#[derive(Clone)]
pub(super) struct Names {
    keystore: PathBuf,
    keypair: Keypair,
    repo: Repo,
    swarm: Swarm,
}

/// What a name is published with.
pub(super) struct Publishing {
    /// The path it leads to.
    pub(super) value: String,
    pub(super) lifetime: Duration,
    pub(super) ttl: Duration,
    /// A number higher than that of the record before.
    pub(super) sequence: Option<u64>,
    /// Whether it is enough that the record is kept here.
    pub(super) may_stay_here: bool,
}

/// One file of the key store.
fn file_name(name: &str) -> String {
    format!("key_{}", Base::Base32Lower.encode(name))
}

impl Names {
    /// The keys of a node.
    pub(super) fn new(folder: &FilePath, keypair: Keypair, repo: Repo, swarm: Swarm) -> Self {
        Self { keystore: folder.join("keystore"), keypair, repo, swarm }
    }

    /// The key of a name.
    pub(super) async fn key(&self, name: &str) -> Result<Option<Keypair>, Error> {
        if name == SELF {
            return Ok(Some(self.keypair.clone()));
        }
        let path = self.keystore.join(file_name(name));
        let read = blocking(move || match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(Error::message(format!("{}: {cause}", path.display()))),
        });
        read.await?.map(|bytes| parse(&bytes)).transpose()
    }

    /// The key of a name or of the peer ID that a text is. (Go: kubo `keylookup`)
    pub(super) async fn key_of(&self, text: &str) -> Result<Keypair, Error> {
        if let Some(key) = self.key(text).await? {
            return Ok(key);
        }
        if let Some(peer) = peer_of(text) {
            for (_, key) in self.all().await? {
                if key.public().to_peer_id() == peer {
                    return Ok(key);
                }
            }
        }
        Err(Error::message("no key by the given name was found"))
    }

    /// All keys: the node's own, then the others by their names.
    pub(super) async fn all(&self) -> Result<Vec<(String, Keypair)>, Error> {
        let keystore = self.keystore.clone();
        let mut others = blocking(move || {
            let mut keys = Vec::new();
            let files = match std::fs::read_dir(&keystore) {
                Ok(files) => files,
                Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(keys),
                Err(cause) => return Err(Error::message(format!("{}: {cause}", keystore.display()))),
            };
            for file in files {
                let file = file.map_err(|cause| Error::message(cause.to_string()))?;
                let name =
                    file.file_name().to_str().and_then(|name| name.strip_prefix("key_")).map(str::to_owned);
                let name = name.and_then(|name| Base::Base32Lower.decode(name).ok());
                // other files are not ours to judge
                let Some(Ok(name)) = name.map(String::from_utf8) else { continue };
                let bytes = std::fs::read(file.path()).map_err(|cause| Error::message(cause.to_string()))?;
                keys.push((name, parse(&bytes)?));
            }
            Ok(keys)
        })
        .await?;
        others.sort_by(|one, other| one.0.cmp(&other.0));
        others.insert(0, (SELF.to_owned(), self.keypair.clone()));
        Ok(others)
    }

    /// Stores a key under a new name; it is on disk when this returns.
    pub(super) async fn store(&self, name: &str, key: &Keypair) -> Result<(), Error> {
        if name.is_empty() {
            return Err(Error::message("key name must be at least one character"));
        }
        if name.len() > MAX_KEY_NAME {
            return Err(Error::message(format!(
                "the name of a key has at most {MAX_KEY_NAME} bytes: {name}"
            )));
        }
        if self.key(name).await?.is_some() {
            return Err(Error::message(format!("key with name '{name}' already exists")));
        }
        let bytes = key.to_protobuf_encoding().map_err(|cause| Error::message(cause.to_string()))?;
        let (keystore, file) = (self.keystore.clone(), file_name(name));
        blocking(move || write(&keystore, &file, &bytes).map_err(|cause| Error::message(cause.to_string())))
            .await
    }

    /// Gives a key another name; whether another key had it.
    pub(super) async fn rename(
        &self,
        from: &str,
        to: &str,
        may_replace: bool,
    ) -> Result<(Keypair, bool), Error> {
        if from == SELF {
            return Err(Error::message("cannot rename key with name 'self'"));
        }
        if to == SELF {
            return Err(Error::message("cannot overwrite key with name 'self'"));
        }
        let none = || Error::message(format!("no key named {from} was found"));
        let key = self.key(from).await?.ok_or_else(none)?;
        if from == to {
            return Ok((key, false));
        }
        if to.is_empty() || to.len() > MAX_KEY_NAME {
            return Err(Error::message(format!("key name must have 1 to {MAX_KEY_NAME} bytes")));
        }
        let replaces = self.key(to).await?.is_some();
        if replaces && !may_replace {
            return Err(Error::message("key by that name already exists, refusing to overwrite"));
        }
        let (old, new) = (self.keystore.join(file_name(from)), self.keystore.join(file_name(to)));
        blocking(move || std::fs::rename(old, new).map_err(|cause| Error::message(cause.to_string())))
            .await?;
        Ok((key, replaces))
    }

    /// Removes keys, all of them or none.
    pub(super) async fn remove(&self, names: &[String]) -> Result<Vec<(String, Keypair)>, Error> {
        let mut keys = Vec::with_capacity(names.len());
        for name in names {
            if name == SELF {
                return Err(Error::message("cannot remove key with name 'self'"));
            }
            let key = self.key(name).await?;
            let key = key.ok_or_else(|| Error::message(format!("no key named {name} was found")))?;
            keys.push((name.clone(), key));
        }
        let files: Vec<PathBuf> = names.iter().map(|name| self.keystore.join(file_name(name))).collect();
        blocking(move || {
            for file in files {
                std::fs::remove_file(file).map_err(|cause| Error::message(cause.to_string()))?;
            }
            Ok(())
        })
        .await?;
        Ok(keys)
    }

    /// Signs a new record of a key's name, keeps it and tells the DHTs.
    pub(super) async fn publish(&self, key: &Keypair, args: Publishing) -> Result<(), Error> {
        let name = key.public().to_peer_id();
        let before = self.kept(&name).await?;
        let sequence = match (args.sequence, &before) {
            (Some(wanted), Some(before)) if wanted <= before.sequence => {
                let least = before.sequence;
                return Err(Error::message(format!(
                    "cannot publish with sequence {wanted}: it must be higher than {least}, the current one"
                )));
            }
            (Some(wanted), _) => wanted,
            (None, None) => 0,
            // another number only where something else is said
            (None, Some(before)) => before.sequence + u64::from(before.value != args.value),
        };
        let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + args.lifetime;
        let until = Time::from_unix(i64::try_from(end.as_secs()).unwrap_or(i64::MAX), end.subsec_nanos());
        let record = Record { value: args.value, sequence, until: until.to_string(), ttl: args.ttl };
        let bytes = ipns::sign(&record, key).map_err(Error::message)?;
        let (repo, row, kept) = (self.repo.clone(), name.to_bytes(), bytes.clone());
        blocking(move || repo.set_name_record(&row, kept)).await?;
        match self.swarm.put_value(ipns::routing_key(&name), bytes).await {
            Err(net::Error::NoDhtPeers) if args.may_stay_here => Ok(()),
            told => told.map_err(|cause| Error::message(cause.to_string())),
        }
    }

    /// The record that was published here last, ended or not.
    async fn kept(&self, name: &PeerId) -> Result<Option<Record>, Error> {
        let (repo, row) = (self.repo.clone(), name.to_bytes());
        let bytes = blocking(move || repo.name_record(&row)).await?;
        // one that has ended has a number all the same
        Ok(bytes.and_then(|bytes| ipns::verify(name, &bytes, UNIX_EPOCH).ok()))
    }

    /// Where a name leads in one step.
    pub(super) async fn step(&self, name: &str, is_offline: bool) -> Result<String, Error> {
        match peer_of(name) {
            Some(peer) => self.lookup(&peer, is_offline).await,
            None => dnslink(name).await,
        }
    }

    /// Where a name leads in the end; `depth` bounds the names in between.
    pub(super) async fn resolve(&self, name: &str, is_offline: bool) -> Result<String, Error> {
        let (mut name, mut rest) = (name.to_owned(), String::new());
        for _ in 0..MAX_DEPTH {
            let value = self.step(&name, is_offline).await?;
            let Some(next) = value.strip_prefix("/ipns/") else { return Ok(value + &rest) };
            let (next, below) = next
                .split_once('/')
                .map_or((next, String::new()), |(next, below)| (next, format!("/{below}")));
            (name, rest) = (next.to_owned(), below + &rest);
        }
        Err(Error::message("could not resolve name (recursion limit exceeded)"))
    }

    async fn lookup(&self, name: &PeerId, is_offline: bool) -> Result<String, Error> {
        let now = SystemTime::now();
        let (repo, row) = (self.repo.clone(), name.to_bytes());
        let here = blocking(move || repo.name_record(&row)).await?;
        let mut best = here.and_then(|bytes| ipns::verify(name, &bytes, now).ok());
        if !is_offline {
            let found = self.search(name, now, best.take()).await?;
            best = found;
        }
        best.map(|record| record.value).ok_or_else(|| Error::message(UNRESOLVED))
    }

    /// The best of the records that the DHTs have. Where there is nobody to ask, there is no answer, as in Kubo.
    async fn search(
        &self,
        name: &PeerId,
        now: SystemTime,
        here: Option<Record>,
    ) -> Result<Option<Record>, Error> {
        let found = self.swarm.get_values(ipns::routing_key(name)).await;
        let mut found = found.map_err(|cause| Error::message(cause.to_string()))?;
        let (mut best, mut limit): (Option<Record>, _) = (None, tokio::time::Instant::now() + SEARCH_LIMIT);
        while let Ok(Some(bytes)) = tokio::time::timeout_at(limit, found.recv()).await {
            match ipns::verify(name, &bytes, now) {
                Ok(record) if best.as_ref().is_none_or(|best| best.sequence < record.sequence) => {
                    if best.is_none() {
                        limit = limit.min(tokio::time::Instant::now() + NEWER_WAIT);
                    }
                    best = Some(record);
                }
                Ok(_) => {}
                Err(cause) => debug!(target: "namesys", %name, "a record is not believed: {cause}"),
            }
        }
        Ok(match (best, here) {
            (Some(best), Some(here)) if here.sequence > best.sequence => Some(here),
            (None, here) if !self.swarm.connections().is_empty() => here,
            (best, _) => best,
        })
    }

    /// Publishes all names again, now and then, until `stop`.
    pub(super) async fn republish(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(REPUBLISH_EVERY) => {}
            }
            let keys = match self.all().await {
                Ok(keys) => keys,
                Err(cause) => {
                    tracing::warn!(target: "namesys", "cannot read the keys: {cause}");
                    continue;
                }
            };
            for (key_name, key) in keys {
                let kept = self.kept(&key.public().to_peer_id()).await.ok().flatten();
                let Some(record) = kept else { continue };
                let (value, ttl) = (record.value, record.ttl);
                let args = Publishing { value, lifetime: LIFETIME, ttl, sequence: None, may_stay_here: true };
                match self.publish(&key, args).await {
                    Ok(()) => info!(target: "namesys", key = key_name, "published again"),
                    Err(cause) => {
                        tracing::warn!(target: "namesys", key = key_name, "not published again: {cause}")
                    }
                }
            }
        }
    }
}

/// The peer that a name is: a peer ID, or the CID of a key.
fn peer_of(text: &str) -> Option<PeerId> {
    let of_cid = || {
        let cid = parse_cid(text).ok().filter(|cid| cid.codec() == LIBP2P_KEY)?;
        PeerId::from_multihash(*cid.hash()).ok()
    };
    text.parse().ok().or_else(of_cid)
}

/// The libp2p protobuf of a private key. The error is Go's with its cause.
pub(super) fn parse(bytes: &[u8]) -> Result<Keypair, Error> {
    Keypair::from_protobuf_encoding(bytes).map_err(|cause| Error::message(cause.to_string()))
}

/// Writes a file of the key store, whole or not at all.
fn write(keystore: &FilePath, file: &str, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(keystore)?;
    let part = keystore.join(format!(".{file}"));
    let mut out =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    std::fs::rename(part, keystore.join(file))?;
    std::fs::File::open(keystore)?.sync_all()
}

/// Where the TXT records of a domain lead. (<https://dnslink.org>; Go: boxo `namesys/dns_resolver.go`, its words)
async fn dnslink(name: &str) -> Result<String, Error> {
    let name = name.trim_end_matches('.');
    let fqdn = format!("{name}.");
    let failed = |cause: &str| {
        Error::message(format!("DNSLink lookup for {} failed: {UNRESOLVED}: {cause}", quote(&fqdn)))
    };
    let missing = "DNSLink lookup could not find a TXT record (https://docs.ipfs.tech/concepts/dnslink/)";
    let resolver = TokioResolver::builder_tokio().and_then(hickory_resolver::ResolverBuilder::build);
    let Ok(resolver) = resolver else { return Err(failed(missing)) };
    for place in [format!("_dnslink.{fqdn}"), fqdn.clone()] {
        let answer = tokio::time::timeout(DNS_LIMIT, resolver.txt_lookup(place)).await;
        let Ok(Ok(answer)) = answer else { continue };
        let texts = answer.answers().iter().filter_map(|record| match &record.data {
            RData::TXT(text) => {
                let whole: Vec<u8> = text.txt_data.iter().flat_map(|part| part.iter().copied()).collect();
                String::from_utf8(whole).ok()
            }
            _ => None,
        });
        let mut paths = texts.filter_map(|text| text.strip_prefix("dnslink=").map(str::to_owned));
        let mut paths = paths.by_ref().filter(|text| path::parse(text).is_ok());
        match (paths.next(), paths.next()) {
            (Some(path), None) => return Ok(path),
            (Some(_), Some(_)) => {
                return Err(failed(
                    "DNSLink lookup returned more than one IPFS content path; ask domain owner to remove duplicate TXT \
                     records",
                ));
            }
            _ => {}
        }
    }
    Err(failed(missing))
}
