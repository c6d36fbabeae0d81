//! Who has which blocks, in the DHTs (spec: node; wire 1.9): the records that are kept for others, and what is asked.
//!
//! Pure but for the look at our own blocks. A swarm without content keeps nothing and answers nothing.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::iter::Empty;
use std::sync::Arc;

use cid::multihash::Multihash;
use cluster_compat::types::{Cid, PeerId};
use libp2p::kad::store::{self, RecordStore};
use libp2p::kad::{ProviderRecord, Record, RecordKey as Key};
use tokio::sync::{mpsc, oneshot};

use super::{Blocks, Cmd, Contact, Error, Network};

/// Provider records kept for others, about 300 bytes each; the oldest make room.
const MAX_RECORDS: usize = 16_384;

/// Providers kept of one block; as many as an answer has use for.
const MAX_PROVIDERS: usize = 20;

/// Providers that wait for whoever searches.
const MAX_FOUND: usize = 32;

/// Codec of raw blocks: the records name hashes, and whichever CID they stand in.
const RAW: u64 = 0x55;

/// The provider records of one DHT.
pub(super) struct Records {
    local_peer: PeerId,
    ours: Option<Arc<dyn Blocks>>,
    by_key: HashMap<Key, Vec<(u64, ProviderRecord)>>,
    /// Oldest first.
    ages: BTreeMap<u64, (Key, PeerId)>,
    n_added: u64,
}

impl Records {
    /// None yet; `ours` are the blocks that we answer for ourselves.
    pub(super) fn new(local_peer: PeerId, ours: Option<Arc<dyn Blocks>>) -> Self {
        Self { local_peer, ours, by_key: HashMap::new(), ages: BTreeMap::new(), n_added: 0 }
    }

    fn has(&self, key: &Key) -> bool {
        let Some(blocks) = &self.ours else { return false };
        let Ok(hash) = Multihash::from_bytes(key.as_ref()) else { return false };
        blocks.size(&Cid::new_v1(RAW, hash)).is_some()
    }
}

impl RecordStore for Records {
    type RecordsIter<'a> = Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, _: &Key) -> Option<Cow<'_, Record>> {
        None
    }

    /// Values are kept for nobody; one of our own goes to others.
    fn put(&mut self, record: Record) -> store::Result<()> {
        match record.publisher == Some(self.local_peer) {
            true => Ok(()),
            false => Err(store::Error::MaxRecords),
        }
    }

    fn remove(&mut self, _: &Key) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        std::iter::empty()
    }

    fn add_provider(&mut self, record: ProviderRecord) -> store::Result<()> {
        // what we have we know ourselves
        if record.provider == self.local_peer {
            return Ok(());
        }
        if self.ours.is_none() {
            return Err(store::Error::MaxProvidedKeys);
        }
        self.remove_provider(&record.key, &record.provider);
        let of_key = self.by_key.get(&record.key);
        if let Some((_, oldest)) =
            of_key.filter(|known| known.len() >= MAX_PROVIDERS).and_then(|known| known.first())
        {
            let (key, provider) = (oldest.key.clone(), oldest.provider);
            self.remove_provider(&key, &provider);
        }
        if self.ages.len() >= MAX_RECORDS
            && let Some((_, (key, provider))) = self.ages.first_key_value()
        {
            let (key, provider) = (key.clone(), *provider);
            self.remove_provider(&key, &provider);
        }
        self.ages.insert(self.n_added, (record.key.clone(), record.provider));
        self.by_key.entry(record.key.clone()).or_default().push((self.n_added, record));
        self.n_added += 1;
        Ok(())
    }

    fn providers(&self, key: &Key) -> Vec<ProviderRecord> {
        let known = self.by_key.get(key).into_iter().flatten().map(|(_, record)| record.clone());
        let ours = self.has(key).then(|| ProviderRecord::new(key.clone(), self.local_peer, Vec::new()));
        ours.into_iter().chain(known).collect()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        std::iter::empty()
    }

    fn remove_provider(&mut self, key: &Key, provider: &PeerId) {
        let Some(known) = self.by_key.get_mut(key) else { return };
        if let Some(at) = known.iter().position(|(_, record)| record.provider == *provider) {
            let (age, _) = known.remove(at);
            self.ages.remove(&age);
        }
        if known.is_empty() {
            self.by_key.remove(key);
        }
    }
}

/// The key of a block's records.
fn key(cid: &Cid) -> Key {
    Key::from(cid.hash().to_bytes())
}

impl Network {
    /// Searches both DHTs for peers that have a block; each comes once, as it is found. The end of the stream is the
    /// end of the search; dropping it ends the search.
    pub async fn find_providers(&self, cid: &Cid) -> Result<mpsc::Receiver<Contact>, Error> {
        let (found, providers) = mpsc::channel(MAX_FOUND);
        let cmd = Cmd::FindProviders { key: key(cid), found };
        self.commands.send(cmd).await.map_err(|_| Error::Stopped)?;
        Ok(providers)
    }

    /// Puts a value into both DHTs; returns when peers have taken it.
    pub async fn put_value(&self, key: Vec<u8>, value: Vec<u8>) -> Result<(), Error> {
        let (respond_to, answer) = oneshot::channel();
        self.ask(Cmd::PutValue { key: Key::from(key), value, respond_to }, answer).await?
    }

    /// The values that peers of both DHTs have under a key, as they tell them and not checked. The end of the stream is
    /// the end of the search; dropping it ends the search.
    pub async fn get_values(&self, key: Vec<u8>) -> Result<mpsc::Receiver<Vec<u8>>, Error> {
        let (found, values) = mpsc::channel(MAX_FOUND);
        self.commands
            .send(Cmd::GetValues { key: Key::from(key), found })
            .await
            .map_err(|_| Error::Stopped)?;
        Ok(values)
    }

    /// Tells the DHTs that we have a block; returns when they have been told.
    pub async fn provide(&self, cid: &Cid) -> Result<(), Error> {
        let (respond_to, answer) = oneshot::channel();
        self.ask(Cmd::Provide { key: key(cid), respond_to }, answer).await?
    }
}

#[cfg(test)]
mod tests {
    use multihash_codetable::{Code, MultihashDigest as _};

    use super::*;

    struct One(Cid);

    impl Blocks for One {
        fn block(&self, cid: &Cid) -> Option<Vec<u8>> {
            (cid.hash() == self.0.hash()).then(Vec::new)
        }
    }

    fn cid(n: usize) -> Cid {
        Cid::new_v1(0x70, Code::Sha2_256.digest(&n.to_be_bytes()))
    }

    fn record(n: usize, provider: PeerId) -> ProviderRecord {
        ProviderRecord::new(key(&cid(n)), provider, vec!["/ip4/10.0.0.7/tcp/1".parse().unwrap()])
    }

    #[test]
    fn records_of_others_are_kept_up_to_the_bounds_and_our_blocks_are_answered_for() {
        let (local, other) = (PeerId::random(), PeerId::random());
        let mut records = Records::new(local, Some(Arc::new(One(cid(1)))));
        for _ in 0..2 {
            records.add_provider(record(1, other)).unwrap();
        }
        let providers: Vec<PeerId> =
            records.providers(&key(&cid(1))).iter().map(|record| record.provider).collect();
        assert_eq!(providers, [local, other]);
        assert!(records.providers(&key(&cid(2))).is_empty());
        assert!(records.providers(&Key::from(b"no hash".to_vec())).is_empty());
        let crowd: Vec<PeerId> = (0..=MAX_PROVIDERS).map(|_| PeerId::random()).collect();
        for peer in &crowd {
            records.add_provider(record(2, *peer)).unwrap();
        }
        let providers = records.providers(&key(&cid(2)));
        assert_eq!((providers.len(), providers[0].provider), (MAX_PROVIDERS, crowd[1]));
        for n in 10..10 + MAX_RECORDS {
            records.add_provider(record(n, other)).unwrap();
        }
        assert_eq!((records.ages.len(), records.by_key.len()), (MAX_RECORDS, MAX_RECORDS));
        assert!(records.providers(&key(&cid(2))).is_empty());
        records.remove_provider(&key(&cid(10)), &other);
        assert!(records.providers(&key(&cid(10))).is_empty());
    }

    #[test]
    fn a_swarm_without_content_keeps_nothing() {
        let mut records = Records::new(PeerId::random(), None);
        assert!(records.add_provider(record(1, PeerId::random())).is_err());
        assert!(records.providers(&key(&cid(1))).is_empty());
    }
}
