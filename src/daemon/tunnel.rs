//! An API over libp2p, on a host of its own (spec: rest-api 1.3).
//!
//! Each stream of `/libp2p-http` is a connection that carries HTTP/1.1. It gets to the same handlers as one by TCP;
//! TLS is not in between, as libp2p encrypts, and credentials are asked for all the same.

use std::sync::Arc;
use std::time::Duration;

use cluster_compat::config::HttpApi;
use cluster_compat::http::conn::PeerAddr;
use cluster_compat::http::face::Face;
use cluster_compat::types::PeerId;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::compat::FuturesAsyncReadCompatExt as _;
use tokio_util::sync::CancellationToken;

use crate::net::host::{HTTP, Host, HostArgs};
use crate::net::{self, Stream};
use crate::task::Tasks;

/// Streams served at a time, of all peers; more wait in the queue, and then with their peers.
const MAX_STREAMS: usize = 1024;
/// Streams that wait to be served; filled by many clients at once.
const MAX_WAITING: usize = 64;
/// How long requests may take to finish after the stop, as for other listeners.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// A host, and the streams that come to it.
pub(super) struct Tunnel {
    host: Host,
    streams: mpsc::Receiver<(PeerId, Stream)>,
}

impl Tunnel {
    /// Listens where `config` wants it, if it does; whether the three keys fit together was checked with it.
    pub(super) async fn open(config: &HttpApi, tasks: &Tasks) -> Result<Option<Self>, net::Error> {
        let (Some(keypair), false) = (&config.private_key, config.libp2p_listen_multiaddress.is_empty())
        else {
            return Ok(None);
        };
        let args = HostArgs {
            keypair: keypair.clone(),
            // the cluster's secret is not this host's
            secret: None,
            listen: config.libp2p_listen_multiaddress.clone(),
            tasks: tasks.clone(),
        };
        let (host, streams) = Host::serve(args, HTTP, MAX_WAITING).await?;
        Ok(Some(Self { host, streams }))
    }

    /// Serves `face` to every stream until `stop`.
    pub(super) async fn serve(self, face: Face, stop: CancellationToken) {
        let Self { host, mut streams } = self;
        let mut addrs = String::new();
        for addr in host.listen_addrs() {
            addrs.push_str(&format!("        {addr}\n"));
        }
        face.tell(&format!("(libp2p-http): ENABLED. Listening on:\n{addrs}"));
        let slots = Arc::new(Semaphore::new(MAX_STREAMS));
        let mut serving = JoinSet::new();
        loop {
            let slot = tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = serving.join_next(), if !serving.is_empty() => continue,
                slot = Arc::clone(&slots).acquire_owned() => slot,
            };
            let (Ok(slot), Some((peer, stream))) = (slot, next(&mut streams, &stop).await) else { break };
            let (face, stop) = (face.clone(), stop.clone());
            serving.spawn(async move {
                face.serve_stream(stream.compat(), PeerAddr::Libp2p(peer.to_base58()), stop).await;
                drop(slot);
            });
        }
        let all = async { while serving.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(STOP_GRACE, all).await;
        serving.shutdown().await;
    }
}

async fn next(
    streams: &mut mpsc::Receiver<(PeerId, Stream)>,
    stop: &CancellationToken,
) -> Option<(PeerId, Stream)> {
    tokio::select! {
        () = stop.cancelled() => None,
        next = streams.recv() => next,
    }
}
