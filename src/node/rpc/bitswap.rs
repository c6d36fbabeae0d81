//! What was exchanged: `bitswap/*`, `stats/*`. (Go: Kubo `core/commands/{bitswap,stat}.go`)

use std::sync::Arc;
use std::time::Duration;

use cluster_compat::go::time::Duration as GoDuration;
use cluster_compat::types::Cid;
use futures::{StreamExt as _, stream};
use serde::Serialize;

use super::super::Core;
use super::super::swarm::Swarm;
use super::answer::{Answer, Failure};
use super::call::Call;
use super::swarm::peer_id;

/// The shortest pause between two lines of `stats/bw`.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);

/// A CID as Kubo's JSON links to it.
#[derive(Serialize)]
struct Link {
    #[serde(rename = "/")]
    cid: String,
}

fn links(cids: &[Cid]) -> Vec<Link> {
    let mut texts: Vec<String> = cids.iter().map(ToString::to_string).collect();
    texts.sort();
    texts.into_iter().map(|cid| Link { cid }).collect()
}

#[derive(Serialize)]
struct Stat {
    #[serde(rename = "Wantlist")]
    wantlist: Vec<Link>,
    #[serde(rename = "Peers")]
    peers: Vec<String>,
    #[serde(rename = "BlocksReceived")]
    blocks_received: u64,
    #[serde(rename = "DataReceived")]
    data_received: u64,
    #[serde(rename = "DupBlksReceived")]
    dup_blocks_received: u64,
    #[serde(rename = "DupDataReceived")]
    dup_data_received: u64,
    #[serde(rename = "MessagesReceived")]
    messages_received: u64,
    #[serde(rename = "BlocksSent")]
    blocks_sent: u64,
    #[serde(rename = "DataSent")]
    data_sent: u64,
}

/// `bitswap/stat`, `stats/bitswap`.
pub(super) async fn stat(core: Arc<Core>, _call: Call) -> Result<Answer, Failure> {
    let stat = core.swarm.bitswap_stat().await.map_err(|e| Failure::new(e.to_string()))?;
    Ok(Answer::one(&Stat {
        wantlist: links(&stat.wantlist),
        peers: stat.peers.iter().map(|peer| peer.to_base58()).collect(),
        blocks_received: stat.blocks_received,
        data_received: stat.data_received,
        dup_blocks_received: stat.dup_blocks_received,
        dup_data_received: stat.dup_data_received,
        messages_received: stat.messages_received,
        blocks_sent: stat.blocks_sent,
        data_sent: stat.data_sent,
    }))
}

#[derive(Serialize)]
struct Keys {
    #[serde(rename = "Keys")]
    keys: Option<Vec<Link>>,
}

/// `bitswap/wantlist`.
pub(super) async fn wantlist(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let keys = match call.has("peer").then(|| peer_id(call.text("peer"))).transpose()? {
        Some(peer) if peer != core.swarm.local_peer() => {
            let wanted = core.swarm.wantlist_of(&peer);
            (!wanted.is_empty()).then(|| links(&wanted))
        }
        _ => {
            let stat = core.swarm.bitswap_stat().await.map_err(|e| Failure::new(e.to_string()))?;
            Some(links(&stat.wantlist))
        }
    };
    Ok(Answer::one(&Keys { keys }))
}

#[derive(Serialize)]
struct Rates {
    #[serde(rename = "TotalIn")]
    total_in: i64,
    #[serde(rename = "TotalOut")]
    total_out: i64,
    #[serde(rename = "RateIn")]
    rate_in: f64,
    #[serde(rename = "RateOut")]
    rate_out: f64,
}

fn rates(swarm: &Swarm, protocol: Option<&str>) -> Rates {
    let mut rates = Rates { total_in: 0, total_out: 0, rate_in: 0.0, rate_out: 0.0 };
    let bandwidths = swarm.bandwidth();
    let meant = bandwidths.iter().filter(|(name, _)| protocol.is_none_or(|wanted| wanted == name.as_str()));
    for (_, bandwidth) in meant {
        rates.total_in += bandwidth.total_in;
        rates.total_out += bandwidth.total_out;
        rates.rate_in += bandwidth.rate_in;
        rates.rate_out += bandwidth.rate_out;
    }
    rates
}

/// `stats/bw`.
pub(super) async fn bandwidth(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    if call.has("peer") && call.has("proto") {
        return Err(Failure::new("please only specify peer OR protocol"));
    }
    if call.has("peer") {
        peer_id(call.text("peer"))?;
        return Err(Failure::new("the embedded node counts its traffic by protocol, not by peer"));
    }
    let protocol = call.has("proto").then(|| call.text("proto").to_owned());
    let interval = call.text("interval");
    let interval = GoDuration::parse(interval);
    let interval = interval.map_err(Failure::new)?.to_std().max(LEAST_INTERVAL);
    let n_lines = if call.is("poll") { usize::MAX } else { 1 };
    let swarm = core.swarm.clone();
    let lines = stream::unfold(true, move |is_first| {
        let (swarm, protocol) = (swarm.clone(), protocol.clone());
        async move {
            if !is_first {
                tokio::time::sleep(interval).await;
            }
            Some((Ok(rates(&swarm, protocol.as_deref())), false))
        }
    });
    Ok(Answer::many(lines.take(n_lines)))
}
