//! The inventory of a peer: one line of intent per component, bottom up, no decisions.

use std::path::PathBuf;
use std::sync::Arc;

use cluster_compat::api::ClusterApi;
use cluster_compat::config::{Config, HttpApi, Section, go_error, peerstore};
use cluster_compat::http::conn::Layer;
use cluster_compat::http::listen::Listener;
use cluster_compat::pinsvc::PinSvc;
use cluster_compat::proxy::Proxy;
use cluster_compat::rest::Rest;
use cluster_compat::types::{Multiaddr, PeerId, multiaddr_peer};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::tunnel::Tunnel;
use super::{Error, RunArgs, data, metrics, notify, unserved, vitals};
use crate::cluster::{Cluster, ClusterArgs, DaemonSeen};
use crate::consensus::Consensus;
use crate::consensus::crdt::{Crdt, CrdtArgs};
use crate::informer::{Informer, QueueSize};
use crate::ipfs;
use crate::monitor::{Monitor, MonitorArgs};
use crate::net::{Network, NetworkArgs};
use crate::node::Node;
use crate::observe::{self, trace};
use crate::rpc;
use crate::store::{Db, Table};
use crate::task::Tasks;
use crate::tracker::{Tracker, TrackerArgs};

/// Changes of the pinset on their way to the tracker; filled by bursts of writes, and by a long import.
const PINSET_EVENTS: usize = 1024;

/// Alerts on their way to the alert list. (Go: `monitor/metrics`, `alertChannelCap`)
const ALERTS: usize = 256;

/// A peer at work, with what is needed to stop it in order.
pub(super) struct Running {
    pub(super) cluster: Cluster,
    pub(super) consensus: Arc<Crdt>,
    pub(super) network: Network,
    pub(super) db: Db,
    pub(super) peerstore_file: PathBuf,
    pub(super) leaves: bool,
    pub(super) apis: Tasks,
    pub(super) jobs: Tasks,
    pub(super) consensus_tasks: Tasks,
    pub(super) monitor_tasks: Tasks,
    pub(super) tracker_tasks: Tasks,
    pub(super) network_tasks: Tasks,
    pub(super) trace_tasks: Tasks,
    pub(super) node: Option<Node>,
}

/// Builds a peer from its configuration. Nothing listens and nothing is written before the configuration is known
/// to be served whole.
pub(super) async fn build(mut args: RunArgs) -> Result<Running, Error> {
    unserved::check(&args.config).map_err(Error::Unserved)?;
    let metrics_addr =
        args.config.metrics.enable_stats.then(|| vec![args.config.metrics.prometheus_endpoint.clone()]);
    let metrics_listeners = bind(metrics_addr.as_ref(), "setting up Metrics").await?;
    let trace_tasks = Tasks::new();
    let layer = start_tracing(&args.config, &trace_tasks).map_err(Error::step("setting up Tracing"))?;
    let node = super::node::start(&mut args).await?;
    let RunArgs { config, identity, folder, .. } = &args;

    let db = open_store(&args).await?;
    let network_tasks = Tasks::new();
    let network = Network::start(NetworkArgs {
        keypair: identity.keypair.clone(),
        secret: config.cluster.secret,
        config: &config.cluster,
        peerstore: peerstore::read(&config.peerstore_path())
            .map_err(|cause| go_error("read", &config.peerstore_path(), &cause))
            .map_err(Error::step("reading the peerstore file"))?,
        tasks: network_tasks.clone(),
    })
    .await
    .map_err(Error::step("creating libp2p host"))?;
    let calls =
        network.accept(&[rpc::PROTOCOL], rpc::MAX_WAITING).map_err(Error::step("creating RPC server"))?;
    let rest_addrs = config.restapi.present.then_some(&config.restapi.http_listen_multiaddress);
    let rest_listeners = bind(rest_addrs, "creating REST API component").await?;
    let rest_tunnel = tunnel(&config.restapi, "creating REST API component", &network_tasks).await?;
    let pinsvc_addrs = config.pinsvcapi.present.then_some(&config.pinsvcapi.http_listen_multiaddress);
    let pinsvc_listeners = bind(pinsvc_addrs, "creating Pinning Service API component").await?;
    let pinsvc_tunnel =
        tunnel(&config.pinsvcapi, "creating Pinning Service API component", &network_tasks).await?;
    let proxy_addrs = config.ipfsproxy.present.then_some(&config.ipfsproxy.listen_multiaddress);
    let proxy_listeners = bind(proxy_addrs, "creating IPFS Proxy component").await?;
    let ipfs =
        ipfs::Client::new(&config.ipfshttp).map_err(Error::step("creating IPFS Connector component"))?;

    let monitor_tasks = Tasks::new();
    let (alerts_tx, alerts) = mpsc::channel(ALERTS);
    let monitor = Monitor::start(MonitorArgs {
        config: config.pubsubmon.value.clone(),
        peer: identity.id,
        network: Some(network.clone()),
        alerts: alerts_tx,
        members: None,
        tasks: monitor_tasks.clone(),
    })
    .map_err(Error::step("setting up PeerMonitor"))?;

    let consensus_tasks = Tasks::new();
    let (events_tx, events) = mpsc::channel(PINSET_EVENTS);
    let consensus = Crdt::start(CrdtArgs {
        config: config.crdt.value.clone(),
        peer: identity.id,
        db: db.clone(),
        network: Some(network.clone()),
        members: members(&monitor, config.crdt.peerset_metric.clone()),
        events: events_tx,
        tasks: consensus_tasks.clone(),
        trusted: trusted(&args),
    })
    .map_err(Error::step("setting up Consensus"))?;

    let tracker_tasks = Tasks::new();
    let daemon_seen = DaemonSeen::default();
    let seen = daemon_seen.clone();
    let tracker = Tracker::start(TrackerArgs {
        config: config.stateless.value.clone(),
        peer: identity.id,
        peername: config.cluster.peername.clone(),
        ipfs: ipfs.clone(),
        pinset: consensus.pinset(),
        ipfs_id: Arc::new(move || seen.get()),
        tasks: tracker_tasks.clone(),
    });

    let sources = metrics::Sources {
        db: db.clone(),
        network: network.clone(),
        tracker: tracker.clone(),
        is_traced: config.tracing.enable_tracing,
    };
    let queue = tracker.clone();
    let queue_size: QueueSize = Arc::new(move || queue.pin_queue_size());
    let informers = Informer::configured(config, &ipfs, &queue_size);
    if informers.is_empty() {
        return Err(Error::step("starting cluster")("no informers are passed"));
    }
    let jobs = Tasks::new();
    let cluster = Cluster::start(ClusterArgs {
        config: config.cluster.clone(),
        allocate_by: config.balanced.allocate_by.clone(),
        connect_swarms_delay: config.ipfshttp.connect_swarms_delay.to_std(),
        consensus: consensus.clone(),
        events,
        network: network.clone(),
        ipfs,
        tracker,
        monitor,
        alerts,
        informers,
        daemon_seen,
        calls,
        closed: if args.follows { &[rpc::Call::RepoGcLocal] } else { &[] },
        tasks: jobs.clone(),
    });

    let apis = Tasks::new();
    let api: Arc<dyn ClusterApi> = Arc::new(cluster.clone());
    if config.restapi.present {
        let rest = Rest::new(&config.restapi, folder, Arc::clone(&api));
        let rest = rest.map_err(Error::step("creating REST API component"))?.layered(layer);
        if let Some(tunnel) = rest_tunnel {
            apis.spawn("rest api over libp2p", tunnel.serve(rest.face().clone(), apis.token()));
        }
        apis.spawn("rest api", rest.serve(rest_listeners, apis.token()));
    }
    if config.pinsvcapi.present {
        let pinsvc = PinSvc::new(&config.pinsvcapi, folder, Arc::clone(&api));
        let pinsvc = pinsvc.map_err(Error::step("creating Pinning Service API component"))?.layered(layer);
        if let Some(tunnel) = pinsvc_tunnel {
            apis.spawn("pinning service api over libp2p", tunnel.serve(pinsvc.face().clone(), apis.token()));
        }
        apis.spawn("pinning service api", pinsvc.serve(pinsvc_listeners, apis.token()));
    }
    if config.ipfsproxy.present {
        let proxy = Proxy::new(&config.ipfsproxy, folder, api);
        let proxy = proxy.map_err(Error::step("creating IPFS Proxy component"))?.layered(layer);
        apis.spawn("ipfs proxy", proxy.serve(proxy_listeners, apis.token()));
    }
    for listener in metrics_listeners {
        apis.spawn("metrics", metrics::serve(listener, sources.clone(), apis.token()));
    }
    vitals::start(&network, &jobs);
    cluster.join_in_background(args.bootstrap.clone());
    Ok(Running {
        cluster,
        consensus,
        network,
        db,
        peerstore_file: config.peerstore_path(),
        leaves: args.leave || config.cluster.leave_on_shutdown,
        apis,
        jobs,
        consensus_tasks,
        monitor_tasks,
        tracker_tasks,
        network_tasks,
        trace_tasks,
        node,
    })
}

impl Running {
    /// Resolves with the name of a task that panicked.
    pub(super) async fn panicked(&self) -> String {
        let owners = [
            &self.apis,
            &self.jobs,
            &self.consensus_tasks,
            &self.monitor_tasks,
            &self.tracker_tasks,
            &self.network_tasks,
            &self.trace_tasks,
        ];
        let node = async {
            match &self.node {
                Some(node) => node.panicked().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            (name, ..) = futures::future::select_all(owners.map(|owner| Box::pin(owner.panicked()))) => name,
            name = node => name,
        }
    }

    /// Tells systemd when the peer is ready, then waits for ever.
    pub(super) async fn announce_and_wait(&self) {
        self.cluster.ready().await;
        if let Err(cause) = notify::ready() {
            warn!(target: "service", "notifying systemd: {cause}");
        }
        std::future::pending().await
    }
}

/// Traces from now on, where that is wanted; what the HTTP faces stand behind for it.
fn start_tracing(config: &Config, tasks: &Tasks) -> Result<Layer, trace::Error> {
    if !config.tracing.enable_tracing {
        return Ok(|handler| handler);
    }
    trace::start(&trace::TraceArgs {
        jaeger_agent_endpoint: &config.tracing.jaeger_agent_endpoint,
        sampling_prob: config.tracing.sampling_prob,
        service: format!("{}-{}", config.tracing.service_name, config.cluster.peername),
        env: &|name| std::env::var(name).ok(),
        tasks,
    })?;
    Ok(observe::http::layer)
}

/// Opens the peer's database; refuses to begin an empty one beside the data of an original peer that nobody else has.
async fn open_store(args: &RunArgs) -> Result<Db, Error> {
    let RunArgs { config, folder, bootstrap, start_empty, .. } = args;
    let path = config.datastore.lmdb.path(folder);
    let is_new = !path.exists();
    let knows_peers = !bootstrap.is_empty()
        || !config.cluster.peer_addresses.is_empty()
        || peerstore::read(&config.peerstore_path()).is_ok_and(|addrs| !addrs.is_empty());
    let found = data::go_data(config, folder);
    if is_new
        && !knows_peers
        && !start_empty
        && let Some(found) = &found
    {
        return Err(Error::step("creating datastore")(format!(
            "{}, or pass --start-empty",
            data::advice(found)
        )));
    }
    let map_size_bytes = config.datastore.lmdb.map_size_bytes;
    let opened = tokio::task::spawn_blocking(move || Db::open(&path, map_size_bytes)).await;
    let db = opened.map_err(Error::step("opening datastore"))?.map_err(Error::step("opening datastore"))?;
    info!(target: "service", "Datastore backend: lmdb");
    if let Some(found) = found
        && db.len(Table::Values).map_err(Error::step("opening datastore"))? == 0
    {
        warn!(
            target: "service",
            "the pinset is empty. {}; without that the pins come from the other peers of the cluster",
            data::advice(&found)
        );
    }
    Ok(db)
}

/// Peers to trust besides the configured ones: those to bootstrap from, unless `--no-trust`.
fn trusted(args: &RunArgs) -> Vec<PeerId> {
    if args.no_trust { Vec::new() } else { args.bootstrap.iter().filter_map(multiaddr_peer).collect() }
}

/// The peers with a live ping, as the monitor knows them.
fn members(monitor: &Monitor, metric: String) -> Arc<dyn Fn() -> Vec<PeerId> + Send + Sync> {
    let monitor = monitor.clone();
    Arc::new(move || monitor.latest_valid(&metric).into_iter().filter_map(|metric| metric.peer).collect())
}

async fn bind(addrs: Option<&Vec<Multiaddr>>, step: &'static str) -> Result<Vec<Listener>, Error> {
    let mut listeners = Vec::new();
    for addr in addrs.into_iter().flatten() {
        listeners.push(Listener::bind(addr).await.map_err(Error::step(step))?);
    }
    Ok(listeners)
}

/// A host of the API's own, where its section asks for one.
async fn tunnel(
    section: &Section<HttpApi>,
    step: &'static str,
    tasks: &Tasks,
) -> Result<Option<Tunnel>, Error> {
    if section.present { Tunnel::open(section, tasks).await.map_err(Error::step(step)) } else { Ok(None) }
}
