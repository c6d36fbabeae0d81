//! Who is connected, and who shall be: `swarm/*`, `ping`, `id` of others. (Go: Kubo `core/commands/{swarm,ping,id}.go`)

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use cluster_compat::go::quote::quote;
use cluster_compat::go::time::Duration as GoDuration;
use cluster_compat::types::{Multiaddr, PeerId};
use futures::{StreamExt as _, stream};
use libp2p::multiaddr::Protocol;
use serde::Serialize;
use tokio::time::Instant;

use super::super::Core;
use super::super::swarm::{Pinger, Swarm};
use super::answer::{Answer, Failure};
use super::call::Call;
use crate::net::{self, Connection, Contact, Identity};

/// Pause between two pings.
const PING_EVERY: Duration = Duration::from_secs(1);

/// Pings of one call; the original has no limit, and nobody waits for an hour.
const MAX_PINGS: i64 = 3600;

/// How Kubo numbers directions.
const INBOUND: u8 = 1;
const OUTBOUND: u8 = 2;

/// What a peer told about itself.
#[derive(Default, Serialize)]
struct Told {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "PublicKey")]
    public_key: String,
    #[serde(rename = "Addresses")]
    addresses: Option<Vec<String>>,
    #[serde(rename = "AgentVersion")]
    agent_version: String,
    #[serde(rename = "Protocols")]
    protocols: Option<Vec<String>>,
}

impl Told {
    fn new(peer: PeerId, identity: Option<&Identity>, addrs: &[Multiaddr]) -> Self {
        let mut addresses: Vec<String> = addrs.iter().map(|addr| format!("{addr}/p2p/{peer}")).collect();
        addresses.sort();
        addresses.dedup();
        let key = |key: &[u8]| base64::engine::general_purpose::STANDARD.encode(key);
        Self {
            id: peer.to_base58(),
            public_key: identity.map(|told| key(&told.public_key)).unwrap_or_default(),
            addresses: (!addresses.is_empty()).then_some(addresses),
            agent_version: identity.map(|told| told.agent.clone()).unwrap_or_default(),
            protocols: identity.map(|told| told.protocols.clone()).filter(|known| !known.is_empty()),
        }
    }
}

#[derive(Serialize)]
struct Peer {
    #[serde(rename = "Addr")]
    addr: String,
    #[serde(rename = "Peer")]
    peer: String,
    #[serde(rename = "Latency", skip_serializing_if = "Option::is_none")]
    latency: Option<String>,
    #[serde(rename = "Direction", skip_serializing_if = "Option::is_none")]
    direction: Option<u8>,
    #[serde(rename = "Identify")]
    identify: Told,
}

#[derive(Serialize)]
struct Peers {
    #[serde(rename = "Peers")]
    peers: Option<Vec<Peer>>,
}

#[derive(Serialize)]
struct Addrs {
    #[serde(rename = "Addrs")]
    addrs: BTreeMap<String, Vec<String>>,
}

#[derive(Serialize)]
struct Strings {
    #[serde(rename = "Strings")]
    strings: Option<Vec<String>>,
}

impl Strings {
    fn sorted(mut strings: Vec<String>) -> Self {
        strings.sort();
        Self { strings: (!strings.is_empty()).then_some(strings) }
    }
}

/// `swarm/peers`.
pub(super) async fn peers(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let is_verbose = call.is("verbose");
    let wants = |name| is_verbose || call.is(name);
    let known: BTreeMap<PeerId, Vec<Multiaddr>> = if wants("identify") {
        core.swarm.known_peers().into_iter().map(|known| (known.peer, known.addrs)).collect()
    } else {
        BTreeMap::new()
    };
    let peer = |connection: Connection| {
        let peer = connection.peer;
        let addrs = known.get(&peer).map(Vec::as_slice).unwrap_or_default();
        Peer {
            addr: connection.addr.to_string(),
            peer: peer.to_base58(),
            latency: wants("latency").then(|| latency(connection.latency)),
            direction: wants("direction").then_some(if connection.is_outbound { OUTBOUND } else { INBOUND }),
            identify: if wants("identify") {
                Told::new(peer, connection.identity.as_deref(), addrs)
            } else {
                Told::default()
            },
        }
    };
    let peers: Vec<Peer> = core.swarm.connections().into_iter().map(peer).collect();
    Ok(Answer::one(&Peers { peers: (!peers.is_empty()).then_some(peers) }))
}

fn latency(latency: Option<Duration>) -> String {
    latency.map_or_else(|| "n/a".to_owned(), |latency| go_duration(latency).to_string())
}

fn go_duration(span: Duration) -> GoDuration {
    GoDuration(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX))
}

/// `swarm/addrs`.
pub(super) async fn addrs(core: Arc<Core>, _call: Call) -> Result<Answer, Failure> {
    let texts = |addrs: Vec<Multiaddr>| addrs.iter().map(ToString::to_string).collect();
    let ours = (core.swarm.local_peer().to_base58(), texts(core.swarm.addrs()));
    let known = core.swarm.known_peers().into_iter().filter(|known| !known.addrs.is_empty());
    let known = known.map(|known| (known.peer.to_base58(), texts(known.addrs)));
    Ok(Answer::one(&Addrs { addrs: known.chain([ours]).collect() }))
}

/// `swarm/addrs/local`.
pub(super) async fn addrs_local(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let peer = core.swarm.local_peer();
    let text = |addr: &Multiaddr| if call.is("id") { format!("{addr}/p2p/{peer}") } else { addr.to_string() };
    Ok(Answer::one(&Strings::sorted(core.swarm.addrs().iter().map(text).collect())))
}

/// `swarm/addrs/listen`.
pub(super) async fn addrs_listen(core: Arc<Core>, _call: Call) -> Result<Answer, Failure> {
    Ok(Answer::one(&Strings::sorted(core.swarm.sockets().iter().map(ToString::to_string).collect())))
}

/// An address and whose it is.
fn peer_addr(text: &str) -> Result<(PeerId, Multiaddr), Failure> {
    if !text.starts_with('/') {
        let why = if text.is_empty() { "empty multiaddr" } else { "must begin with /" };
        return Err(Failure::new(format!("failed to parse multiaddr {}: {why}", quote(text))));
    }
    let addr: Multiaddr =
        text.parse().map_err(|e| Failure::new(format!("failed to parse multiaddr {}: {e}", quote(text))))?;
    let last = addr.iter().last();
    match last {
        Some(Protocol::P2p(peer)) => Ok((peer, addr)),
        _ => Err(Failure::new(format!("found no ipfs peers at {addr}"))),
    }
}

/// Whose an address is, and the address alone; a name that stands for peers is resolved.
async fn peer_addrs(texts: &[String]) -> Result<Vec<(PeerId, Multiaddr)>, Failure> {
    let mut found = Vec::new();
    for text in texts {
        match text.parse::<Multiaddr>() {
            Ok(addr) if addr.iter().next().is_some_and(|part| matches!(part, Protocol::Dnsaddr(_))) => {
                let resolved = net::resolve(&addr).await;
                let peers: Vec<_> =
                    resolved.iter().filter_map(|addr| peer_addr(&addr.to_string()).ok()).collect();
                if peers.is_empty() {
                    return Err(Failure::new(format!("found no ipfs peers at {addr}")));
                }
                found.extend(peers);
            }
            _ => found.push(peer_addr(text)?),
        }
    }
    Ok(found)
}

/// Why a dial failed, in Kubo's words.
fn dial_failure(swarm: &Swarm, peer: PeerId, cause: &net::Error) -> String {
    if peer == swarm.local_peer() {
        return "failed to dial: dial to self attempted".to_owned();
    }
    match cause {
        net::Error::Dial { reason, .. } if reason.starts_with("no addresses") => {
            "routing: not found".to_owned()
        }
        cause => format!("failed to dial: {cause}"),
    }
}

/// `swarm/connect`.
pub(super) async fn connect(core: Arc<Core>, mut call: Call) -> Result<Answer, Failure> {
    let mut strings = Vec::new();
    for (peer, addr) in peer_addrs(&call.take_args().await?).await? {
        if let Err(e) = core.swarm.connect(&addr).await {
            let reason = dial_failure(&core.swarm, peer, &e);
            return Err(Failure::new(format!("connect {peer} failure: {reason}")));
        }
        strings.push(format!("connect {peer} success"));
    }
    Ok(Answer::one(&Strings { strings: Some(strings) }))
}

/// `swarm/disconnect`.
pub(super) async fn disconnect(core: Arc<Core>, mut call: Call) -> Result<Answer, Failure> {
    let mut strings = Vec::new();
    for (peer, mut addr) in peer_addrs(&call.take_args().await?).await? {
        addr.pop();
        let addr = (!addr.is_empty()).then_some(addr);
        let missing = if addr.is_some() { "conn not found" } else { "not connected" };
        let ended = core.swarm.disconnect(peer, addr).await.map_err(|e| Failure::new(e.to_string()))?;
        strings.push(if ended > 0 {
            format!("disconnect {peer} success")
        } else {
            format!("disconnect {peer} failure: {missing}")
        });
    }
    Ok(Answer::one(&Strings { strings: Some(strings) }))
}

/// A peer's id, in any of its forms.
pub(super) fn peer_id(text: &str) -> Result<PeerId, Failure> {
    let failed =
        |e: &dyn std::fmt::Display| Failure::new(format!("failed to parse peer ID: invalid cid: {e}"));
    match text.parse::<PeerId>() {
        Ok(peer) => Ok(peer),
        // the form of a CID
        Err(e) => match text.parse::<cluster_compat::types::Cid>() {
            Ok(cid) => PeerId::from_multihash(*cid.hash()).map_err(|_| failed(&e)),
            Err(_) => Err(failed(&e)),
        },
    }
}

#[derive(Serialize)]
struct Pinged {
    #[serde(rename = "Success")]
    is_success: bool,
    #[serde(rename = "Time")]
    nanoseconds: u64,
    #[serde(rename = "Text")]
    text: String,
}

impl Pinged {
    fn said(text: String) -> Self {
        Self { is_success: true, nanoseconds: 0, text }
    }

    fn took(time: Duration) -> Self {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self { is_success: true, nanoseconds, text: String::new() }
    }

    fn failed(reason: &str) -> Self {
        Self { is_success: false, nanoseconds: 0, text: format!("Ping error: {reason}") }
    }
}

/// What is left of a `ping`.
struct Pinging {
    swarm: Swarm,
    peer: PeerId,
    pinger: Option<Pinger>,
    n_left: i64,
    times: Vec<Duration>,
    step: Step,
    due: Instant,
}

enum Step {
    LookUp,
    Begin,
    Ping,
    End,
    Over,
}

impl Pinging {
    async fn next(&mut self) -> Option<Result<Pinged, Failure>> {
        loop {
            match self.step {
                Step::LookUp => {
                    self.step = Step::Begin;
                    return Some(Ok(Pinged::said(format!("Looking up peer {}", self.peer))));
                }
                Step::Begin => {
                    self.step = Step::Ping;
                    return Some(Ok(Pinged::said(format!("PING {}.", self.peer))));
                }
                Step::Ping if self.n_left == 0 => self.step = Step::End,
                Step::Ping => {
                    self.n_left -= 1;
                    tokio::time::sleep_until(self.due).await;
                    self.due = Instant::now() + PING_EVERY;
                    return Some(Ok(self.ping().await));
                }
                Step::End => {
                    self.step = Step::Over;
                    if self.times.is_empty() {
                        return Some(Err(Failure::new("ping failed")));
                    }
                    let total: Duration = self.times.iter().sum();
                    let average = total.as_secs_f64() * 1000.0 / self.times.len() as f64;
                    return Some(Ok(Pinged::said(format!("Average latency: {average:.2}ms"))));
                }
                Step::Over => return None,
            }
        }
    }

    async fn ping(&mut self) -> Pinged {
        if self.pinger.is_none() {
            match self.swarm.pinger(self.peer).await {
                Ok(pinger) => self.pinger = Some(pinger),
                Err(e) => {
                    // it is not tried again, as in the original
                    self.n_left = 0;
                    return Pinged::failed(&dial_failure(&self.swarm, self.peer, &e));
                }
            }
        }
        let Some(pinger) = &mut self.pinger else { return Pinged::failed("stopped") };
        match pinger.ping().await {
            Ok(time) => {
                self.times.push(time);
                Pinged::took(time)
            }
            Err(e) => {
                self.n_left = 0;
                Pinged::failed(&e.to_string())
            }
        }
    }
}

/// `ping`.
pub(super) async fn ping(core: Arc<Core>, mut call: Call) -> Result<Answer, Failure> {
    let arg = call.take_args().await?.into_iter().next().unwrap_or_default();
    let failed = |e: &Failure| Failure::new(format!("failed to parse peer address '{arg}': {e}"));
    let (peer, addr) = if arg.starts_with('/') {
        peer_addr(&arg).map(|(peer, addr)| (peer, Some(addr))).map_err(|e| failed(&e))?
    } else {
        (peer_id(&arg).map_err(|e| failed(&e))?, None)
    };
    if peer == core.swarm.local_peer() {
        return Err(Failure::new("error: can't ping self"));
    }
    let n_pings = call.number("count").unwrap_or(10);
    if n_pings <= 0 {
        return Err(Failure::new(format!("ping count must be greater than 0, was {n_pings}")));
    }
    let is_known = core.swarm.is_connected(&peer)
        || core.swarm.known_peers().iter().any(|known| known.peer == peer && !known.addrs.is_empty());
    let mut step = if is_known { Step::Begin } else { Step::LookUp };
    if let Some(mut addr) = addr
        && addr.pop().is_some()
        && !addr.is_empty()
    {
        // what comes of it the first ping says
        let _ = core.swarm.dial(&Contact { peer, addrs: vec![addr] }).await;
        step = Step::Begin;
    }
    let pinging = Pinging {
        swarm: core.swarm.clone(),
        peer,
        pinger: None,
        n_left: n_pings.min(MAX_PINGS),
        times: Vec::new(),
        step,
        due: Instant::now(),
    };
    let steps = stream::unfold(pinging, |mut pinging| async move {
        let step = pinging.next().await?;
        Some((step, pinging))
    });
    Ok(Answer::many(steps.boxed()))
}

/// `id` of another peer.
pub(super) async fn id_of(core: &Core, text: &str) -> Result<Answer, Failure> {
    let peer = peer_id(text).map_err(|_| Failure::new("invalid peer id"))?;
    let known = |core: &Core| core.swarm.connections().into_iter().find(|known| known.peer == peer);
    if known(core).is_none() {
        let addr = Multiaddr::empty().with(Protocol::P2p(peer));
        let dialled = core.swarm.connect(&addr).await;
        dialled.map_err(|e| Failure::new(dial_failure(&core.swarm, peer, &e)))?;
    }
    let addrs = core.swarm.known_peers().into_iter().find(|known| known.peer == peer);
    let addrs = addrs.map(|known| known.addrs).unwrap_or_default();
    let identity = known(core).and_then(|connection| connection.identity);
    Ok(Answer::one(&Told::new(peer, identity.as_deref(), &addrs)))
}
