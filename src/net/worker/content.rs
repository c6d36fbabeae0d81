//! Searches for providers and announcements of our own, in both DHTs at once.

use std::collections::{HashMap, HashSet};

use cluster_compat::types::{Multiaddr, PeerId};
use libp2p::core::Endpoint;
use libp2p::kad::{self, ProviderRecord, QueryId, RecordKey as Key};
use libp2p::swarm::{ConnectionId, NetworkBehaviour as _};
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use super::Worker;
use crate::net::dht::{self, Scope};
use crate::net::{Contact, Error, addrs};

/// Searches at the same time; whoever wants one more finds nobody.
const MAX_FINDS: usize = 128;

/// Announcements at the same time; more are refused.
const MAX_PROVIDES: usize = 64;

/// Providers that one search gives.
const MAX_PROVIDERS: usize = 100;

/// What is asked of the DHTs.
#[derive(Default)]
pub(super) struct Content {
    next: u64,
    queries: HashMap<(Scope, QueryId), u64>,
    finds: HashMap<u64, Find>,
    provides: HashMap<u64, Provide>,
}

struct Find {
    found: mpsc::Sender<Contact>,
    seen: HashSet<PeerId>,
    n_queries: usize,
}

struct Provide {
    respond_to: oneshot::Sender<Result<(), Error>>,
    n_queries: usize,
    is_told: bool,
}

impl Worker {
    /// The DHTs that know anybody.
    fn scopes(&mut self) -> Vec<Scope> {
        let scopes = [Scope::Wan, Scope::Lan];
        scopes
            .into_iter()
            .filter(|scope| self.dht(*scope).kbuckets().any(|bucket| !bucket.is_empty()))
            .collect()
    }

    pub(super) fn on_find_providers(&mut self, key: &Key, found: mpsc::Sender<Contact>) {
        if self.content.finds.len() >= MAX_FINDS {
            debug!(target: "dht", "too many searches for providers");
            return;
        }
        let number = self.content.next;
        self.content.next += 1;
        let mut n_queries = 0;
        for scope in self.scopes() {
            let query = self.dht(scope).get_providers(key.clone());
            self.content.queries.insert((scope, query), number);
            n_queries += 1;
        }
        if n_queries > 0 {
            self.content.finds.insert(number, Find { found, seen: HashSet::new(), n_queries });
        }
    }

    pub(super) fn on_provide(&mut self, key: &Key, respond_to: oneshot::Sender<Result<(), Error>>) {
        let scopes = self.scopes();
        if scopes.is_empty() || self.content.provides.len() >= MAX_PROVIDES {
            let _ = respond_to.send(Err(if scopes.is_empty() { Error::NoDhtPeers } else { Error::Busy }));
            return;
        }
        let number = self.content.next;
        self.content.next += 1;
        let mut n_queries = 0;
        for scope in scopes {
            if let Ok(query) = self.dht(scope).start_providing(key.clone()) {
                self.content.queries.insert((scope, query), number);
                n_queries += 1;
            }
        }
        self.content.provides.insert(number, Provide { respond_to, n_queries, is_told: false });
    }

    /// Providers that a peer told of.
    pub(super) fn on_providers(&mut self, scope: Scope, id: QueryId, providers: HashSet<PeerId>) {
        let Some(number) = self.content.queries.get(&(scope, id)).copied() else { return };
        let local_peer = *self.swarm.local_peer_id();
        for peer in providers {
            let Some(find) = self.content.finds.get_mut(&number) else { break };
            if find.seen.len() >= MAX_PROVIDERS || !find.seen.insert(peer) {
                continue;
            }
            let addrs = if peer == local_peer { Vec::new() } else { self.addrs_told(scope, peer) };
            let Some(find) = self.content.finds.get_mut(&number) else { break };
            // whoever is slow has enough of them, whoever left wants no more
            if find.found.try_send(Contact { peer, addrs }).is_err() && find.found.is_closed() {
                self.finish(scope, id);
                break;
            }
        }
        if self.content.finds.get(&number).is_some_and(|find| find.found.is_closed()) {
            self.finish(scope, id);
        }
    }

    /// The addresses under which a query has heard of a peer: it keeps them to itself, but for dials.
    fn addrs_told(&mut self, scope: Scope, peer: PeerId) -> Vec<Multiaddr> {
        let id = ConnectionId::new_unchecked(usize::MAX);
        let told = self.dht(scope).handle_pending_outbound_connection(id, Some(peer), &[], Endpoint::Dialer);
        let mut addrs: Vec<Multiaddr> = told.unwrap_or_default();
        addrs.retain_mut(|addr| match addrs::claimed_by(&peer, addr) {
            Some(claimed) => {
                *addr = claimed;
                true
            }
            None => false,
        });
        addrs.sort_unstable();
        addrs.dedup();
        addrs
    }

    fn finish(&mut self, scope: Scope, id: QueryId) {
        if let Some(mut query) = self.dht(scope).query_mut(&id) {
            query.finish();
        }
    }

    /// A search or an announcement is over, in one of the DHTs.
    pub(super) fn on_query_over(&mut self, scope: Scope, id: QueryId, is_ok: bool) {
        let Some(number) = self.content.queries.remove(&(scope, id)) else { return };
        if let Some(find) = self.content.finds.get_mut(&number) {
            find.n_queries -= 1;
            if find.n_queries == 0 {
                self.content.finds.remove(&number);
            }
        }
        if let Some(provide) = self.content.provides.get_mut(&number) {
            provide.n_queries -= 1;
            provide.is_told |= is_ok;
            if provide.n_queries == 0
                && let Some(provide) = self.content.provides.remove(&number)
            {
                let result = if provide.is_told { Ok(()) } else { Err(Error::NotProvided) };
                let _ = provide.respond_to.send(result);
            }
        }
    }

    /// A peer says that it has a block.
    pub(super) fn on_add_provider(&mut self, scope: Scope, mut record: ProviderRecord) {
        let provider = record.provider;
        record.addresses.retain(|addr| dht::is_fit(scope, addr));
        record.addresses.truncate(dht::MAX_ADDRS_PER_PEER);
        if record.addresses.is_empty() {
            return;
        }
        if let Err(e) = kad::store::RecordStore::add_provider(self.dht(scope).store_mut(), record) {
            debug!(target: "dht", peer = %provider, "provider record not kept: {e}");
        }
    }
}
