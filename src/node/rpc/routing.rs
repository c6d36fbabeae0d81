//! Who has what, and who is where: `routing/*`. (Go: Kubo `core/commands/routing.go`)

use std::sync::Arc;

use cluster_compat::types::{Cid, Multiaddr, PeerId};
use futures::{StreamExt as _, stream};
use libp2p::multiaddr::Protocol;
use serde::Serialize;

use super::super::Core;
use super::super::source::blocking;
use super::answer::{Answer, Failure};
use super::call::Call;
use super::swarm::peer_id;
use crate::net::{self, Contact};

/// Providers that are looked for unless the call says otherwise.
const N_PROVIDERS: i64 = 20;

/// How Kubo numbers what happens in a query. (Go: `go-libp2p/core/routing/query.go`)
const FINAL_PEER: u8 = 2;
const PROVIDER: u8 = 4;

#[derive(Serialize)]
struct Response {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Addrs")]
    addrs: Vec<String>,
}

#[derive(Serialize)]
struct Event {
    #[serde(rename = "Extra")]
    extra: &'static str,
    #[serde(rename = "ID")]
    id: &'static str,
    #[serde(rename = "Responses")]
    responses: Vec<Response>,
    #[serde(rename = "Type")]
    kind: u8,
}

impl Event {
    fn new(kind: u8, peer: PeerId, addrs: &[Multiaddr]) -> Self {
        let addrs = addrs.iter().map(ToString::to_string).collect();
        Self { extra: "", id: "", responses: vec![Response { id: peer.to_base58(), addrs }], kind }
    }
}

fn failed(cause: &net::Error) -> Failure {
    Failure::new(cause.to_string())
}

fn parse(text: &str) -> Result<Cid, Failure> {
    text.parse().map_err(|e| Failure::new(format!("invalid cid: {e}")))
}

/// `routing/findprovs`.
pub(super) async fn find_providers(core: Arc<Core>, mut call: Call) -> Result<Answer, Failure> {
    let n_providers = call.number("num-providers").unwrap_or(N_PROVIDERS);
    if n_providers < 1 {
        return Err(Failure::new("number of providers must be greater than 0"));
    }
    let cid = parse(&call.take_args().await?.into_iter().next().unwrap_or_default())?;
    let found = core.swarm.find_providers(&cid).await.map_err(|e| failed(&e))?;
    let ours = (core.swarm.local_peer(), core.swarm.addrs());
    let events = stream::unfold(found, |mut found| async move {
        let contact = found.recv().await?;
        Some((contact, found))
    });
    let events =
        events.take(usize::try_from(n_providers).unwrap_or(usize::MAX)).map(move |contact: Contact| {
            let addrs = if contact.peer == ours.0 { &ours.1 } else { &contact.addrs };
            Ok(Event::new(PROVIDER, contact.peer, addrs))
        });
    Ok(Answer::many(events))
}

/// `routing/findpeer`.
pub(super) async fn find_peer(core: Arc<Core>, mut call: Call) -> Result<Answer, Failure> {
    let peer = peer_id(&call.take_args().await?.into_iter().next().unwrap_or_default())?;
    let known = |core: &Core| {
        let known = core.swarm.known_peers().into_iter().find(|known| known.peer == peer);
        known.map(|known| known.addrs).filter(|addrs| !addrs.is_empty())
    };
    if !core.swarm.is_connected(&peer) {
        // whether it could be reached is not the question
        let _ = core.swarm.connect(&Multiaddr::empty().with(Protocol::P2p(peer))).await;
    }
    let addrs = known(&core).ok_or_else(|| Failure::new("routing: not found"))?;
    Ok(Answer::many(stream::iter([Ok(Event::new(FINAL_PEER, peer, &addrs))])))
}

/// `routing/provide`.
pub(super) async fn provide(core: Arc<Core>, mut call: Call) -> Result<Answer, Failure> {
    if core.swarm.connections().is_empty() {
        return Err(Failure::new("cannot provide, no connected peers"));
    }
    let cids: Vec<Cid> = call.take_args().await?.iter().map(|text| parse(text)).collect::<Result<_, _>>()?;
    for cid in &cids {
        let (repo, wanted) = (core.repo.clone(), *cid);
        if blocking(move || repo.size(&wanted)).await?.is_none() {
            return Err(Failure::new(format!("block {cid} not found locally, cannot provide")));
        }
    }
    for cid in &cids {
        let told = core.swarm.provide_now(cid).await;
        told.map_err(|e| Failure::new(format!("error providing cid: {e}")))?;
    }
    Ok(Answer::many(stream::empty::<Result<Event, Failure>>()))
}

/// `routing/reprovide`.
pub(super) async fn reprovide(core: Arc<Core>, _call: Call) -> Result<Answer, Failure> {
    core.swarm.reprovide();
    Ok(Answer::many(stream::empty::<Result<Event, Failure>>()))
}
