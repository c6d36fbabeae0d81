//! The addresses of peers that have none: what the routing tables learn and find.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use cluster_compat::types::{Multiaddr, PeerId};
use libp2p::StreamProtocol;
use libp2p::kad::{self, InboundRequest, QueryId, QueryResult};
use tracing::debug;

use super::Worker;
use crate::net::dht::{self, Dht, MAX_ADDRS_PER_PEER, Scope};
use crate::net::peerstore::RECENT_TTL;

/// Searches at the same time; whoever wants one more goes without.
const MAX_SEARCHES: usize = 64;

/// Searches under way.
#[derive(Debug, Default)]
pub(super) struct Searches {
    queries: HashMap<(Scope, QueryId), PeerId>,
}

impl Searches {
    fn n_of(&self, peer: &PeerId) -> usize {
        self.queries.values().filter(|wanted| *wanted == peer).count()
    }
}

impl Worker {
    /// Searches both tables for a peer, unless they are empty. [`Worker::on_found`] hears of the end.
    pub(super) fn look_up(&mut self, peer: PeerId) -> bool {
        if self.searches.n_of(&peer) > 0 {
            return true;
        }
        if self.searches.queries.len() >= MAX_SEARCHES {
            return false;
        }
        for scope in [Scope::Wan, Scope::Lan] {
            let dht = self.dht(scope);
            if dht.kbuckets().next().is_some() {
                let query = dht.get_closest_peers(peer);
                self.searches.queries.insert((scope, query), peer);
            }
        }
        self.searches.n_of(&peer) > 0
    }

    /// Whether a search for a peer is under way.
    pub(super) fn is_searched(&self, peer: &PeerId) -> bool {
        self.searches.n_of(peer) > 0
    }

    /// Enters an identified peer into the tables whose protocol it serves.
    pub(super) fn on_routable(
        &mut self,
        peer: PeerId,
        protocols: &[StreamProtocol],
        claimed: &[Multiaddr],
        seen: &Multiaddr,
    ) {
        let ours: Vec<Multiaddr> = self.swarm.external_addresses().cloned().collect();
        for scope in [Scope::Wan, Scope::Lan] {
            if !protocols.contains(&scope.protocol()) {
                continue;
            }
            let addrs = dht::routable(scope, claimed, seen, &ours);
            if addrs.is_empty() {
                continue;
            }
            let dht = self.dht(scope);
            if scope == Scope::Wan && !has_room(dht, &peer, &addrs) {
                debug!(target: "dht", %peer, "too many peers of one network in the routing table");
                continue;
            }
            // the table keeps what it was told before, which must not pile up
            if n_addrs(dht, &peer) + addrs.len() > MAX_ADDRS_PER_PEER {
                dht.remove_peer(&peer);
            }
            for addr in addrs.into_iter().take(MAX_ADDRS_PER_PEER) {
                dht.add_address(&peer, addr);
            }
        }
    }

    pub(super) fn on_dht_event(&mut self, scope: Scope, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                self.on_progress(scope, id, result, step.last);
            }
            // original peers push a provider record for each block of their DAG
            kad::Event::InboundRequest { request: InboundRequest::AddProvider { record: Some(record) } }
                if self.has_contacts =>
            {
                self.on_add_provider(scope, record);
            }
            _ => {}
        }
    }

    fn on_progress(&mut self, scope: Scope, id: QueryId, result: QueryResult, is_last: bool) {
        let result = match result {
            QueryResult::GetClosestPeers(result) => result,
            QueryResult::GetProviders(result) => {
                if let Ok(kad::GetProvidersOk::FoundProviders { providers, .. }) = result {
                    self.on_providers(scope, id, providers);
                }
                if is_last {
                    self.on_query_over(scope, id, true);
                }
                return;
            }
            QueryResult::GetRecord(result) => {
                if let Ok(kad::GetRecordOk::FoundRecord(found)) = result {
                    self.on_value(scope, id, found.record.value);
                }
                if is_last {
                    self.on_query_over(scope, id, true);
                }
                return;
            }
            QueryResult::PutRecord(result) => return self.on_query_over(scope, id, result.is_ok()),
            QueryResult::StartProviding(result) => return self.on_query_over(scope, id, result.is_ok()),
            _ => return,
        };
        let Some(peer) = self.searches.queries.get(&(scope, id)).copied() else { return };
        let (Ok(kad::GetClosestPeersOk { peers, .. })
        | Err(kad::GetClosestPeersError::Timeout { peers, .. })) = result;
        let found = peers.into_iter().filter(|found| found.peer_id == peer).flat_map(|found| found.addrs);
        {
            let now = Instant::now();
            let mut store = self.shared.peerstore();
            for addr in found {
                store.add(peer, addr, Some(RECENT_TTL), now);
            }
        }
        if is_last {
            self.searches.queries.remove(&(scope, id));
            if self.searches.n_of(&peer) == 0 {
                self.on_found(peer);
            }
        }
    }

    pub(super) fn dht(&mut self, scope: Scope) -> &mut Dht {
        let behaviour = self.swarm.behaviour_mut();
        match scope {
            Scope::Wan => &mut behaviour.wan,
            Scope::Lan => &mut behaviour.lan,
        }
    }
}

fn n_addrs(dht: &mut Dht, peer: &PeerId) -> usize {
    let Some(bucket) = dht.kbucket(*peer) else { return 0 };
    bucket.iter().find(|entry| entry.node.key.preimage() == peer).map_or(0, |entry| entry.node.value.len())
}

fn has_room(dht: &mut Dht, peer: &PeerId, addrs: &[Multiaddr]) -> bool {
    let mut known = HashSet::new();
    for bucket in dht.kbuckets() {
        for entry in bucket.iter() {
            if entry.node.key.preimage() == peer {
                return true;
            }
            known.insert(entry.node.value.first().clone());
        }
    }
    dht::is_diverse(known.iter(), addrs)
}
