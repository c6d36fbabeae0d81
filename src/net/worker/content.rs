//! Searches for providers and values, and announcements of our own, in both DHTs at once.

use std::collections::{HashMap, HashSet};

use cluster_compat::types::{Multiaddr, PeerId};
use libp2p::core::Endpoint;
use libp2p::kad::{self, ProviderRecord, QueryId, Quorum, Record, RecordKey as Key};
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

/// Values that one search gives. (Go: kubo `name resolve`, `dht-record-count`)
const MAX_VALUES: usize = 16;

/// Providers that one search gives.
const MAX_PROVIDERS: usize = 100;

/// What is asked of the DHTs.
#[derive(Default)]
pub(super) struct Content {
    next: u64,
    queries: HashMap<(Scope, QueryId), u64>,
    finds: HashMap<u64, Find>,
    gets: HashMap<u64, Get>,
    provides: HashMap<u64, Provide>,
}

struct Get {
    found: mpsc::Sender<Vec<u8>>,
    n_found: usize,
    n_queries: usize,
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
        let mut queries = Vec::new();
        for scope in scopes {
            queries.extend(self.dht(scope).start_providing(key.clone()).ok().map(|query| (scope, query)));
        }
        self.await_all(queries, respond_to);
    }

    /// Waits for the queries of one announcement.
    fn await_all(&mut self, queries: Vec<(Scope, QueryId)>, respond_to: oneshot::Sender<Result<(), Error>>) {
        if queries.is_empty() {
            let _ = respond_to.send(Err(Error::NotProvided));
            return;
        }
        let number = self.content.next;
        self.content.next += 1;
        let n_queries = queries.len();
        self.content.queries.extend(queries.into_iter().map(|query| (query, number)));
        self.content.provides.insert(number, Provide { respond_to, n_queries, is_told: false });
    }

    pub(super) fn on_put_value(
        &mut self,
        key: &Key,
        value: &[u8],
        respond_to: oneshot::Sender<Result<(), Error>>,
    ) {
        let scopes = self.scopes();
        if scopes.is_empty() || self.content.provides.len() >= MAX_PROVIDES {
            let _ = respond_to.send(Err(if scopes.is_empty() { Error::NoDhtPeers } else { Error::Busy }));
            return;
        }
        let mut queries = Vec::new();
        for scope in scopes {
            let record = Record::new(key.clone(), value.to_vec());
            let query = self.dht(scope).put_record(record, Quorum::One);
            queries.extend(query.ok().map(|query| (scope, query)));
        }
        self.await_all(queries, respond_to);
    }

    /// Asks for the values of a key; nobody is asked where nobody is known.
    pub(super) fn on_get_values(&mut self, key: &Key, found: mpsc::Sender<Vec<u8>>) {
        if self.content.gets.len() >= MAX_FINDS {
            debug!(target: "dht", "too many searches for values");
            return;
        }
        let number = self.content.next;
        self.content.next += 1;
        let mut n_queries = 0;
        for scope in self.scopes() {
            let query = self.dht(scope).get_record(key.clone());
            self.content.queries.insert((scope, query), number);
            n_queries += 1;
        }
        if n_queries > 0 {
            self.content.gets.insert(number, Get { found, n_found: 0, n_queries });
        }
    }

    /// A value that a peer told of.
    pub(super) fn on_value(&mut self, scope: Scope, id: QueryId, value: Vec<u8>) {
        let Some(number) = self.content.queries.get(&(scope, id)).copied() else { return };
        let Some(get) = self.content.gets.get_mut(&number) else { return };
        get.n_found += 1;
        // whoever is slow has enough of them, whoever left wants no more
        let is_enough = get.n_found >= MAX_VALUES || get.found.try_send(value).is_err();
        if is_enough {
            self.finish(scope, id);
        }
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
        if let Some(get) = self.content.gets.get_mut(&number) {
            get.n_queries -= 1;
            if get.n_queries == 0 {
                self.content.gets.remove(&number);
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
