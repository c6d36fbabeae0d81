//! Status of one CID and of all (spec: core 14).

use cluster_compat::api::{Items, Result};
use cluster_compat::go::time::Time;
use cluster_compat::types::{Cid, GlobalPinInfo, PeerId, Pin, PinInfo, PinInfoShort, TrackerStatus};
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use tracing::{debug, error};

use super::members::{ANSWER_LIMIT, MAX_ASKED};
use super::merge::{Ended, Told, merged};
use super::{Cluster, failed};
use crate::rpc::{self, Call};
use crate::wire::msgpack::Writer;
use crate::{tracker, wire};

impl Cluster {
    pub(super) async fn status_of(&self, cid: Cid, local: bool) -> Result<GlobalPinInfo> {
        if local {
            return Ok(self.inner.tracker.status(&cid).await.into_global());
        }
        match self.stored(&cid)? {
            None => self.unknown(cid).await,
            Some(pin) => {
                self.gathered(&pin, Call::Status, async { Ok(self.inner.tracker.status(&cid).await) }).await
            }
        }
    }

    pub(super) fn status_items(&self, filter: TrackerStatus, local: bool) -> Items<GlobalPinInfo> {
        let own = self.inner.tracker.status_all(filter);
        if local {
            return own.map(|item| item.map(PinInfo::into_global).map_err(failed)).boxed();
        }
        self.gathered_lists(own, Call::StatusAll, vec![wire::status::encode_filter(filter)])
    }

    /// The cluster's answer about a stored pin: the rows of the peers that shall hold it, asked with `call`, this
    /// peer's from `own`; a `remote` row for each other member, which is not asked.
    pub(super) async fn gathered(
        &self,
        pin: &Pin,
        call: Call,
        own: impl Future<Output = Result<PinInfo>>,
    ) -> Result<GlobalPinInfo> {
        let members = self.shown_members().await?;
        let is_everywhere = pin.is_pin_everywhere() || self.inner.config.follower_mode;
        let asked = if is_everywhere { members.clone() } else { pin.allocations.clone().unwrap_or_default() };
        // CID and name are the pin's, whatever the rows say
        let mut global =
            GlobalPinInfo { cid: Some(pin.cid), name: pin.options.name.clone(), ..Default::default() };
        for peer in members.iter().filter(|peer| !asked.contains(peer)) {
            global.add(self.row_of(pin, peer, TrackerStatus::REMOTE, String::new()));
        }
        let others: Vec<PeerId> = asked.iter().filter(|peer| **peer != self.inner.peer).copied().collect();
        let others = stream::iter(others)
            .map(|peer| async move { (peer, self.row_there(peer, call, &pin.cid).await) })
            .buffer_unordered(MAX_ASKED)
            .collect::<Vec<_>>();
        let own = async {
            match asked.contains(&self.inner.peer) {
                true => Some(own.await.map_err(|cause| cause.message)),
                false => None,
            }
        };
        let (mut answers, own) = tokio::join!(others, own);
        // the last one says what the pin is: always in the order of the allocations, as the reference has it
        let place = |peer: &PeerId| asked.iter().position(|known| known == peer);
        if let Some(own) = own {
            answers.push((self.inner.peer, own.map_err(Ended::Failed)));
        }
        answers.sort_by_key(|(peer, _)| place(peer));
        for (peer, answer) in answers {
            match answer {
                Ok(row) => global.add(row),
                Err(Ended::Refused) => {}
                Err(Ended::Failed(cause)) => {
                    let own = self.inner.peer;
                    error!(target: "cluster", "{own}: error in broadcast response from {peer}: {cause}");
                    global.add(self.row_of(pin, &peer, TrackerStatus::CLUSTER_ERROR, cause));
                }
            }
        }
        Ok(global)
    }

    async fn row_there(&self, peer: PeerId, call: Call, cid: &Cid) -> Result<PinInfo, Ended> {
        let argument = Writer::one(|out| out.cid(cid));
        let reply = self.ask(peer, call, &argument, Some(ANSWER_LIMIT)).await.map_err(ended)?;
        wire::status::decode(&reply, peer).map_err(|cause| Ended::Failed(cause.to_string()))
    }

    /// The cluster's list: the rows of all members, asked with `call`, this peer's from `own`.
    pub(super) fn gathered_lists(
        &self,
        own: BoxStream<'static, Result<PinInfo, tracker::Error>>,
        call: Call,
        arguments: Vec<Vec<u8>>,
    ) -> Items<GlobalPinInfo> {
        let cluster = self.clone();
        let me = self.inner.peer;
        let own: Told = own.map(|item| item.map_err(|cause| Ended::Failed(cause.to_string()))).boxed();
        let list = async move {
            let members = match cluster.shown_members().await {
                Ok(members) => members,
                Err(cause) => return stream::iter([Err(cause)]).boxed(),
            };
            let mut told = vec![(me, logged(me, me, own))];
            for peer in members.into_iter().filter(|peer| *peer != me) {
                let rows = cluster.rows_there(peer, call, arguments.clone());
                told.push((peer, logged(me, peer, rows)));
            }
            let row_of =
                move |peer: &PeerId, cause| cluster.short_of(peer, TrackerStatus::CLUSTER_ERROR, cause);
            merged(me, told, row_of).map(Ok).boxed()
        };
        stream::once(list).flatten().boxed()
    }

    /// A member's rows as they come. It may take its time as long as it pings.
    fn rows_there(&self, peer: PeerId, call: Call, arguments: Vec<Vec<u8>>) -> Told {
        let arguments = stream::iter(arguments.into_iter().map(Into::into)).boxed();
        let replies = self.inner.rpc.stream(peer, call, arguments);
        stream::unfold(Some((self.clone(), replies)), move |state| async move {
            let (cluster, mut replies) = state?;
            loop {
                let reply = tokio::select! {
                    biased;
                    reply = replies.next() => reply?,
                    () = cluster.is_gone(&peer) => Err(rpc::Error::Gone),
                };
                return match reply.map(|reply| wire::status::decode(&reply, peer)) {
                    Ok(Ok(row)) => Some((Ok(row), Some((cluster, replies)))),
                    // a row about nothing
                    Ok(Err(wire::Error::RowWithoutCid)) => continue,
                    Ok(Err(cause)) => Some((Err(Ended::Failed(cause.to_string())), None)),
                    Err(cause) => Some((Err(ended(cause)), None)),
                };
            }
        })
        .boxed()
    }

    /// The cluster's answer for a CID out of the pinset: every member is `unpinned`, without being asked.
    pub(super) async fn unknown(&self, cid: Cid) -> Result<GlobalPinInfo> {
        let pin = Pin { timestamp: Time::now(), allocations: Some(Vec::new()), ..Pin::new(cid) };
        let mut global = GlobalPinInfo::default();
        for peer in self.shown_members().await? {
            let row = self.row_of(&pin, &peer, TrackerStatus::UNPINNED, String::new());
            global.add(PinInfo { origins: None, metadata: None, ..row });
        }
        Ok(global)
    }

    /// A member's row that it did not give itself.
    fn row_of(&self, pin: &Pin, peer: &PeerId, status: TrackerStatus, error: String) -> PinInfo {
        PinInfo {
            cid: pin.cid,
            name: pin.options.name.clone(),
            peer: *peer,
            allocations: pin.allocations.clone(),
            origins: pin.options.origins.clone(),
            created: pin.timestamp,
            metadata: pin.options.metadata.clone(),
            short: self.short_of(peer, status, error),
        }
    }

    fn short_of(&self, peer: &PeerId, status: TrackerStatus, error: String) -> PinInfoShort {
        if *peer != self.inner.peer {
            return self.last_known(peer, status, error);
        }
        let (ipfs_peer_id, ipfs_peer_addresses) = self.inner.daemon_seen.get();
        PinInfoShort {
            peername: self.inner.config.peername.clone(),
            ipfs_peer_id,
            ipfs_peer_addresses,
            status,
            timestamp: Time::now(),
            error,
            attempt_count: 0,
            priority_pin: false,
        }
    }
}

fn ended(cause: rpc::Error) -> Ended {
    if cause.is_refusal() {
        debug!(target: "cluster", "rpc auth error: {cause}");
        Ended::Refused
    } else {
        Ended::Failed(cause.to_string())
    }
}

/// Tells the log of a list that fails.
fn logged(me: PeerId, peer: PeerId, told: Told) -> Told {
    told.inspect(move |item| {
        if let Err(Ended::Failed(cause)) = item {
            error!(target: "cluster", "{me}: error in broadcast response from {peer}: {cause}");
        }
    })
    .boxed()
}
