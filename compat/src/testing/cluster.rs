//! A cluster of one peer in memory, for tests of HTTP faces and clients.
//!
//! It keeps the reference's rules where clients see them (defaults, range checks, what a stored pin looks like)
//! and pins at once. Tests seed it, make calls fail, and ask what was called.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::stream::{self, StreamExt};

use crate::api::{ClusterApi, EntryKind, Error, Items, Result, Upload};
use crate::go::time::Time;
use crate::types::{
    AddParams, AddedOutput, Alert, Bandwidths, Cid, ConnectGraph, GlobalPinInfo, GlobalRepoGc, Id, IpfsId,
    IpfsRepoStat, Metric, Multiaddr, PeerId, Pin, PinInfo, PinInfoShort, PinMode, PinOptions, PinTypes,
    RepoGc, TrackerStatus, Version, parse_cid, parse_multiaddr, parse_peer_id,
};

/// The peer of the recordings.
pub const PEER: &str = "12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt";
/// The daemon of the recordings.
pub const IPFS: &str = "12D3KooWLktuTSPdVMTXRDYxZKMHY3gAcw5ThNBwDu5yis2yZ8j3";

/// Codec of raw blocks.
const RAW: u64 = 0x55;

/// One peer, named `peer0`, and its pinset. Clones are the same cluster.
#[derive(Clone)]
pub struct FakeCluster {
    peer: PeerId,
    ipfs: PeerId,
    state: Arc<Mutex<State>>,
}

/// All locks of it end before anything is awaited.
#[derive(Default)]
struct State {
    pins: BTreeMap<Cid, Pin>,
    /// What is said of a CID instead of what follows from the pinset.
    infos: BTreeMap<Cid, GlobalPinInfo>,
    paths: HashMap<String, Cid>,
    metrics: Vec<Metric>,
    alerts: Vec<Alert>,
    bandwidth: Bandwidths,
    repo_stat: IpfsRepoStat,
    failures: HashMap<String, Error>,
    /// Failures that come after the items of a stream.
    late_failures: HashMap<String, Error>,
    calls: Vec<String>,
}

impl FakeCluster {
    /// An empty cluster.
    ///
    /// # Panics
    /// Never: the ids are constants.
    #[allow(clippy::expect_used, reason = "constants that the types' tests read")]
    pub fn new() -> Self {
        Self {
            peer: parse_peer_id(PEER).expect("a peer id"),
            ipfs: parse_peer_id(IPFS).expect("a peer id"),
            state: Arc::default(),
        }
    }

    /// Puts a pin into the pinset as it stands.
    pub fn insert_pin(&self, pin: Pin) {
        self.lock().pins.insert(pin.cid, pin);
    }

    /// Says this of a CID in all status calls from now on.
    pub fn insert_info(&self, info: GlobalPinInfo) {
        if let Some(cid) = info.cid {
            self.lock().infos.insert(cid, info);
        }
    }

    /// Lets a path lead to a CID.
    pub fn insert_path(&self, path: &str, cid: Cid) {
        self.lock().paths.insert(path.to_string(), cid);
    }

    /// Adds a metric.
    pub fn insert_metric(&self, metric: Metric) {
        self.lock().metrics.push(metric);
    }

    /// Adds an alert.
    pub fn insert_alert(&self, alert: Alert) {
        self.lock().alerts.push(alert);
    }

    /// What [`ClusterApi::repo_stat`] says.
    pub fn set_repo_stat(&self, stat: IpfsRepoStat) {
        self.lock().repo_stat = stat;
    }

    /// What [`ClusterApi::bandwidth`] says.
    pub fn set_bandwidth(&self, bandwidth: Bandwidths) {
        self.lock().bandwidth = bandwidth;
    }

    /// Lets every call of a method fail, streams before their first item.
    pub fn fail(&self, method: &str, error: Error) {
        self.lock().failures.insert(method.to_string(), error);
    }

    /// Lets the streams of a method fail after their last item.
    pub fn fail_late(&self, method: &str, error: Error) {
        self.lock().late_failures.insert(method.to_string(), error);
    }

    /// Refuses all writes, as a follower does.
    pub fn set_follower(&self) {
        let refusal = "this peer is configured to be in follower mode. Write operations are disabled";
        for method in ["add", "peer_add", "pin", "pin_path", "unpin", "unpin_path"] {
            self.fail(method, Error::internal(refusal));
        }
    }

    /// The names of the methods called so far.
    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    /// The pinset.
    pub fn pins(&self) -> Vec<Pin> {
        self.lock().pins.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a call and lets it fail if a test wants it.
    fn enter(&self, method: &str) -> Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        state.calls.push(method.to_string());
        match state.failures.get(method) {
            Some(error) => Err(error.clone()),
            None => Ok(state),
        }
    }

    /// A stream of what is found in the state now.
    fn items<T: Send + 'static>(&self, method: &str, find: impl FnOnce(&State) -> Vec<T>) -> Items<T> {
        let items: Vec<Result<T>> = match self.enter(method) {
            Ok(state) => {
                let late = state.late_failures.get(method).cloned().map(Err);
                find(&state).into_iter().map(Ok).chain(late).collect()
            }
            Err(error) => vec![Err(error)],
        };
        stream::iter(items).boxed()
    }

    fn addrs(port: u16, peer: &PeerId) -> Vec<Multiaddr> {
        parse_multiaddr(&format!("/ip4/127.0.0.1/tcp/{port}/p2p/{peer}")).into_iter().collect()
    }

    fn own_id(&self) -> Id {
        Id {
            id: Some(self.peer),
            addresses: Some(Self::addrs(9096, &self.peer)),
            cluster_peers: Some(vec![self.peer]),
            cluster_peers_addresses: Some(vec![]),
            version: "1.1.6".into(),
            commit: String::new(),
            rpc_protocol_version: "/ipfscluster/1.0/rpc".into(),
            error: String::new(),
            ipfs: IpfsId {
                id: Some(self.ipfs),
                addresses: Some(Self::addrs(4001, &self.ipfs)),
                error: String::new(),
            },
            peername: "peer0".into(),
        }
    }

    fn info(&self, state: &State, cid: Cid, is_local: bool) -> GlobalPinInfo {
        if let Some(info) = state.infos.get(&cid) {
            return info.clone();
        }
        let pin = state.pins.get(&cid);
        let short = PinInfoShort {
            peername: "peer0".into(),
            ipfs_peer_id: Some(self.ipfs),
            ipfs_peer_addresses: vec![],
            status: if pin.is_some() { TrackerStatus::PINNED } else { TrackerStatus::UNPINNED },
            timestamp: pin.map_or_else(Time::now, |pin| pin.timestamp),
            error: String::new(),
            attempt_count: 0,
            priority_pin: false,
        };
        let nobodys_pin = || PinInfo {
            cid,
            name: String::new(),
            peer: self.peer,
            allocations: if is_local { None } else { Some(vec![]) },
            origins: None,
            created: if is_local { Time::ZERO } else { Time::now() },
            metadata: None,
            short: short.clone(),
        };
        let info = pin.map_or_else(nobodys_pin, |pin| PinInfo {
            cid,
            name: pin.options.name.clone(),
            peer: self.peer,
            allocations: pin.allocations.clone(),
            origins: pin.options.origins.clone(),
            created: pin.timestamp,
            metadata: pin.options.metadata.clone(),
            short: short.clone(),
        });
        info.into_global()
    }

    /// What `pin` does once the call is let in.
    fn submit(&self, state: &mut State, mut pin: Pin) -> Result<Pin> {
        let options = &mut pin.options;
        let now = Time::now();
        for factor in [&mut options.replication_factor_min, &mut options.replication_factor_max] {
            if *factor == 0 {
                *factor = -1;
            }
        }
        check_factors(options.replication_factor_min, options.replication_factor_max)?;
        if !options.expire_at.is_zero() && options.expire_at < now {
            return Err(Error::internal("pin.ExpireAt set before current time"));
        }
        if let Some(source) = options.pin_update.filter(|source| *source != pin.cid) {
            let source = state.pins.get(&source).ok_or_else(Error::not_found)?;
            let name = std::mem::take(&mut options.name);
            let expire_at = options.expire_at;
            *options = PinOptions { pin_update: Some(source.cid), ..source.options.clone() };
            if !name.is_empty() {
                options.name = name;
            }
            if !expire_at.is_zero() {
                options.expire_at = expire_at;
            }
            pin.max_depth = source.max_depth;
        }
        let is_direct = pin.max_depth == 0;
        if let Some(held) = state.pins.get(&pin.cid).filter(|held| is_direct && held.max_depth != 0) {
            let mode = |pin: &Pin| PinMode::from_depth(pin.max_depth).as_str();
            return Err(Error::internal(format!(
                "cannot repin a CID which is already pinned in {} mode (new pin is pinned as {}). Unpin it first.",
                mode(held),
                mode(&pin)
            )));
        }
        let n_needed = pin.options.replication_factor_min;
        if n_needed > 1 {
            return Err(Error::internal(format!(
                "not enough peers to allocate CID. Needed at least: {n_needed}. Wanted at most: {}. \
                 Available candidates: 1. See logs for more info.",
                pin.options.replication_factor_max
            )));
        }
        pin.allocations = Some(if n_needed == -1 { vec![] } else { vec![self.peer] });
        state.pins.insert(pin.cid, stored(&pin));
        Ok(pin)
    }

    fn resolved(state: &State, path: &str) -> Result<Cid> {
        let bare = path.strip_prefix("/ipfs/").or_else(|| path.strip_prefix("/ipld/"));
        match bare.and_then(|cid| parse_cid(cid).ok()).or_else(|| state.paths.get(path).copied()) {
            Some(cid) => Ok(cid),
            None => Err(Error::internal(format!(
                "IPFS error (resolve?arg={}). Code: 500. Message: could not resolve name",
                crate::go::query::escape(path)
            ))),
        }
    }
}

impl Default for FakeCluster {
    fn default() -> Self {
        Self::new()
    }
}

/// A pin as it is read back from a pinset.
fn stored(pin: &Pin) -> Pin {
    let never = pin.options.expire_at.is_zero();
    let options = PinOptions {
        user_allocations: None,
        expire_at: if never { Time::ZERO } else { pin.options.expire_at.truncate_to_secs().local() },
        metadata: pin.options.metadata.clone().filter(|metadata| !metadata.is_empty()),
        origins: Some(pin.options.origins.clone().unwrap_or_default()),
        ..pin.options.clone()
    };
    Pin { options, timestamp: pin.timestamp.truncate_to_secs(), ..pin.clone() }
}

/// The reference's rules for replication factors that are set.
fn check_factors(min: i64, max: i64) -> Result<()> {
    let message = if min > max {
        "cluster.replication_factor_min is larger than max"
    } else if min < -1 {
        "cluster.replication_factor_min is wrong"
    } else if max < -1 {
        "cluster.replication_factor_max is wrong"
    } else if (min == -1) != (max == -1) {
        "cluster.replication_factor_min and max must be -1 when one of them is"
    } else {
        return Ok(());
    };
    Err(Error::internal(message))
}

#[async_trait]
impl ClusterApi for FakeCluster {
    async fn id(&self) -> Result<Id> {
        self.enter("id").map(|_| self.own_id())
    }

    async fn version(&self) -> Result<Version> {
        self.enter("version").map(|_| Version { version: "1.1.6".into() })
    }

    fn peers(&self) -> Items<Id> {
        self.items("peers", |_| vec![self.own_id()])
    }

    async fn peer_add(&self, peer: PeerId) -> Result<Id> {
        let _state = self.enter("peer_add")?;
        if peer == self.peer { Ok(self.own_id()) } else { Err(Error::internal("routing: not found")) }
    }

    async fn peer_rm(&self, _: PeerId) -> Result<()> {
        let _state = self.enter("peer_rm")?;
        Err(Error::internal("crdt consensus component cannot remove peers"))
    }

    async fn pin(&self, pin: Pin) -> Result<Pin> {
        let mut state = self.enter("pin")?;
        self.submit(&mut state, pin)
    }

    async fn unpin(&self, cid: Cid) -> Result<Pin> {
        self.enter("unpin")?.pins.remove(&cid).ok_or_else(Error::not_found)
    }

    async fn pin_path(&self, path: &str, options: PinOptions) -> Result<Pin> {
        let mut state = self.enter("pin_path")?;
        let cid = Self::resolved(&state, path)?;
        self.submit(&mut state, Pin::with_options(cid, options))
    }

    async fn unpin_path(&self, path: &str) -> Result<Pin> {
        let mut state = self.enter("unpin_path")?;
        let cid = Self::resolved(&state, path)?;
        state.pins.remove(&cid).ok_or_else(Error::not_found)
    }

    async fn resolve(&self, path: &str) -> Result<Cid> {
        let state = self.enter("resolve")?;
        Self::resolved(&state, path)
    }

    fn allocations(&self, types: PinTypes) -> Items<Pin> {
        self.items("allocations", |state| {
            state.pins.values().filter(|pin| types.matches(pin.pin_type)).cloned().collect()
        })
    }

    async fn allocation(&self, cid: Cid) -> Result<Pin> {
        self.enter("allocation")?.pins.get(&cid).cloned().ok_or_else(Error::not_found)
    }

    async fn status(&self, cid: Cid, is_local: bool) -> Result<GlobalPinInfo> {
        let state = self.enter("status")?;
        Ok(self.info(&state, cid, is_local))
    }

    fn status_all(&self, filter: TrackerStatus, is_local: bool) -> Items<GlobalPinInfo> {
        self.items("status_all", |state| {
            let cids: BTreeSet<Cid> = state.pins.keys().chain(state.infos.keys()).copied().collect();
            cids.into_iter()
                .map(|cid| self.info(state, cid, is_local))
                .filter(|info| info.matches(filter))
                .collect()
        })
    }

    async fn recover(&self, cid: Cid, is_local: bool) -> Result<GlobalPinInfo> {
        let state = self.enter("recover")?;
        if is_local && !state.pins.contains_key(&cid) {
            return Err(Error::not_found());
        }
        Ok(self.info(&state, cid, is_local))
    }

    fn recover_all(&self, _: bool) -> Items<GlobalPinInfo> {
        self.items("recover_all", |_| vec![])
    }

    async fn repo_gc(&self, _: bool) -> Result<GlobalRepoGc> {
        let _state = self.enter("repo_gc")?;
        let gc =
            RepoGc { peer: self.peer, peername: "peer0".into(), keys: Some(vec![]), error: String::new() };
        Ok(GlobalRepoGc { peer_map: BTreeMap::from([(self.peer.to_string(), gc)]) })
    }

    async fn repo_stat(&self) -> Result<IpfsRepoStat> {
        Ok(self.enter("repo_stat")?.repo_stat)
    }

    async fn connect_graph(&self) -> Result<ConnectGraph> {
        let _state = self.enter("connect_graph")?;
        let (peer, ipfs) = (self.peer.to_string(), self.ipfs.to_string());
        Ok(ConnectGraph {
            cluster_id: self.peer,
            id_to_peername: BTreeMap::from([(peer.clone(), "peer0".into())]),
            ipfs_links: BTreeMap::from([(ipfs, vec![])]),
            cluster_links: BTreeMap::from([(peer.clone(), vec![])]),
            cluster_trust_links: BTreeMap::from([(peer.clone(), true)]),
            cluster_to_ipfs: BTreeMap::from([(peer, self.ipfs)]),
        })
    }

    async fn alerts(&self) -> Result<Vec<Alert>> {
        Ok(self.enter("alerts")?.alerts.clone())
    }

    async fn bandwidth(&self) -> Result<Bandwidths> {
        Ok(self.enter("bandwidth")?.bandwidth.clone())
    }

    async fn metrics(&self, name: &str) -> Result<Vec<Metric>> {
        let state = self.enter("metrics")?;
        Ok(state.metrics.iter().filter(|metric| metric.name == name).cloned().collect())
    }

    async fn metric_names(&self) -> Result<Vec<String>> {
        let state = self.enter("metric_names")?;
        let names: BTreeSet<String> = state.metrics.iter().map(|metric| metric.name.clone()).collect();
        Ok(names.into_iter().collect())
    }

    /// Reads the whole upload; each file is one raw block whose CID holds its first bytes.
    fn add(&self, params: AddParams, upload: Box<dyn Upload>) -> Items<AddedOutput> {
        let failure = self.enter("add").err();
        let late = self.lock().late_failures.get("add").cloned();
        let fake = self.clone();
        stream::unfold((upload, failure, late, false), move |(mut upload, failure, late, is_done)| {
            let (fake, params) = (fake.clone(), params.clone());
            async move {
                if is_done {
                    return None;
                }
                if let Some(error) = failure {
                    return Some((Err(error), (upload, None, late, true)));
                }
                match fake.add_entry(&params, upload.as_mut()).await {
                    Ok(Some(output)) => Some((Ok(output), (upload, None, late, false))),
                    Ok(None) => late.map(|error| (Err(error), (upload, None, None, true))),
                    Err(error) => Some((Err(error), (upload, None, late, true))),
                }
            }
        })
        .boxed()
    }
}

impl FakeCluster {
    async fn add_entry(&self, params: &AddParams, upload: &mut dyn Upload) -> Result<Option<AddedOutput>> {
        let Some(entry) = upload.next_entry().await? else { return Ok(None) };
        let mut content = match entry.kind {
            EntryKind::Symlink(target) => target,
            EntryKind::File | EntryKind::Directory => vec![],
        };
        let mut size = content.len() as u64;
        while let Some(piece) = upload.read().await? {
            size += piece.len() as u64;
            content.extend(piece.iter().take(32usize.saturating_sub(content.len())));
        }
        let hash = multihash::Multihash::wrap(0, &content).map_err(|e| Error::internal(e.to_string()))?;
        let cid = Cid::new_v1(RAW, hash);
        if !params.no_pin {
            let mut state = self.lock();
            self.submit(&mut state, Pin::with_options(cid, params.options.clone()))?;
        }
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        Ok(Some(AddedOutput { name, cid: Some(cid), bytes: 0, size, allocations: vec![self.peer] }))
    }
}
