//! What other peers may call (spec: wire 4.5): each method is a call of this peer's own rooms.

use async_trait::async_trait;
use bytes::Bytes;
use cluster_compat::types::{Cid, PeerId, PinInfo, TrackerStatus, Version};
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;

use super::{Cluster, VERSION};
use crate::rpc::{Arguments, Call, Failure, Handler, Outcome, Outcomes};
use crate::tracker;
use crate::wire;
use crate::wire::msgpack::{Reader, Writer};

/// Blocks from another peer that wait for the daemon, each of up to 2 MiB.
const BLOCKS_AHEAD: usize = 8;

/// The reply of methods that have none.
const DONE: &[u8] = b"\x80";

#[async_trait]
impl Handler for Cluster {
    fn is_trusted(&self, peer: &PeerId) -> bool {
        self.inner.consensus.is_trusted(peer)
    }

    fn is_closed(&self, call: Call) -> bool {
        self.inner.closed.contains(&call)
    }

    async fn call(&self, call: Call, argument: Bytes) -> Outcome {
        let inner = &self.inner;
        match call {
            Call::Id => {
                nothing(&argument)?;
                Ok(wire::id::encode(&self.own_id().await))
            }
            Call::Version => {
                nothing(&argument)?;
                Ok(wire::id::encode_version(&Version { version: VERSION.into() }))
            }
            Call::PeerAdd => {
                let added = self.add_member(peer(&argument)?).await.map_err(method)?;
                Ok(wire::id::encode(&added))
            }
            Call::PeerRemove => {
                self.remove_member(peer(&argument)?).await.map_err(method)?;
                Ok(DONE.to_vec())
            }
            Call::RecoverLocal => {
                let row = self.recover_here(&cid(&argument)?).await.map_err(method)?;
                Ok(wire::status::encode(&row))
            }
            Call::RepoGcLocal => {
                nothing(&argument)?;
                Ok(wire::gc::encode(&self.collect_here().await.map_err(method)?))
            }
            Call::Status => Ok(wire::status::encode(&inner.tracker.status(&cid(&argument)?).await)),
            Call::Recover => {
                let row = inner.tracker.recover(&cid(&argument)?).await.map_err(method)?;
                Ok(wire::status::encode(&row))
            }
            Call::RepoStat => {
                nothing(&argument)?;
                Ok(wire::gc::encode_stat(&inner.ipfs.repo_stat().await.map_err(method)?))
            }
            Call::SwarmPeers => {
                nothing(&argument)?;
                let peers = inner.ipfs.swarm_peers().await.map_err(method)?;
                Ok(Writer::one(|out| out.peers(&peers)))
            }
            Call::LogPin | Call::LogUnpin => {
                let pin = wire::pin::decode(&argument).map_err(|cause| match cause {
                    wire::Error::PinWithoutCid => method(cause),
                    cause => cause.into(),
                })?;
                let logged = match call {
                    Call::LogPin => inner.consensus.log_pin(pin).await,
                    _ => inner.consensus.log_unpin(pin).await,
                };
                logged.map_err(method)?;
                Ok(DONE.to_vec())
            }
            Call::AddPeer => {
                inner.consensus.add_peer(peer(&argument)?).await.map_err(method)?;
                Ok(DONE.to_vec())
            }
            Call::RmPeer => {
                self.remove_member(peer(&argument)?).await.map_err(method)?;
                Ok(DONE.to_vec())
            }
            Call::IdStream | Call::Peers | Call::RecoverAllLocal | Call::StatusAll | Call::BlockStream => {
                Err(Failure::Method(format!("{} is a stream", call.method().name)))
            }
        }
    }

    fn stream(&self, call: Call, arguments: Arguments) -> Outcomes {
        let cluster = self.clone();
        match call {
            Call::IdStream => {
                let id = async move { Ok(wire::id::encode(&cluster.own_id().await)) };
                id.into_stream().boxed()
            }
            Call::Peers => {
                self.peer_items().map(|item| item.map(|id| wire::id::encode(&id)).map_err(method)).boxed()
            }
            Call::RecoverAllLocal => rows(self.inner.tracker.recover_all()),
            Call::StatusAll => {
                let listed = async move {
                    match first(arguments).await {
                        Ok(filter) => rows(cluster.inner.tracker.status_all(filter)),
                        Err(failure) => stream::iter([Err(failure)]).boxed(),
                    }
                };
                listed.into_stream().flatten().boxed()
            }
            Call::BlockStream => {
                let stored = async move { cluster.store_blocks(arguments).await.err().map(Err) };
                stored.into_stream().filter_map(std::future::ready).boxed()
            }
            other => {
                let text = format!("{} is no stream", other.method().name);
                stream::iter([Err(Failure::Method(text))]).boxed()
            }
        }
    }
}

impl Cluster {
    /// Gives the blocks that come to the daemon, which checks that they are what they are called.
    async fn store_blocks(&self, mut arguments: Arguments) -> Result<(), Failure> {
        let (tx, rx) = mpsc::channel(BLOCKS_AHEAD);
        let feed = async {
            while let Some(argument) = arguments.next().await {
                let block = wire::add::decode(&argument?)?;
                if tx.send(vec![block]).await.is_err() {
                    break;
                }
            }
            drop(tx);
            Ok::<_, Failure>(())
        };
        let mut stored = std::pin::pin!(self.inner.ipfs.block_stream(rx));
        tokio::select! {
            // a daemon that has failed needs no more blocks
            stored = &mut stored => return stored.map_err(method),
            fed = feed => fed?,
        }
        stored.await.map_err(method)
    }
}

fn method(cause: impl std::fmt::Display) -> Failure {
    Failure::Method(cause.to_string())
}

fn rows(items: BoxStream<'static, Result<PinInfo, tracker::Error>>) -> Outcomes {
    items.map(|item| item.map(|row| wire::status::encode(&row)).map_err(method)).boxed()
}

/// The filter of a list: the first argument, or none.
async fn first(mut arguments: Arguments) -> Result<TrackerStatus, Failure> {
    match arguments.next().await {
        Some(argument) => Ok(wire::status::decode_filter(&argument?)?),
        None => Ok(TrackerStatus::UNDEFINED),
    }
}

fn nothing(argument: &[u8]) -> Result<(), Failure> {
    Ok(Reader::new(argument).record(&[], |_, _| Ok(()))?)
}

fn peer(argument: &[u8]) -> Result<PeerId, Failure> {
    let missing = || Failure::Argument("a peer id is missing".into());
    Reader::new(argument).peer()?.ok_or_else(missing)
}

fn cid(argument: &[u8]) -> Result<Cid, Failure> {
    let missing = || Failure::Argument("a CID is missing".into());
    Reader::new(argument).cid()?.ok_or_else(missing)
}
