//! A stopped peer's pinset, for the `state` commands: no network, no daemon, no events.

use std::io::{Read, Write};
use std::sync::Arc;

use cluster_compat::config;

use crate::consensus;
use crate::consensus::crdt::SetReads;
use crate::consensus::crdt::offline::{self, Info, Overrides};
use crate::state::{self, Pinset};
use crate::store::{self, Db};

/// The pinset of a stopped CRDT open(). The caller holds the lock of its folder.
pub struct Offline {
    db: Db,
}

impl Offline {
    /// Opens the database a configuration names; a peer that never ran has an empty one.
    pub fn open(config: &config::Config) -> Result<Self, store::Error> {
        let lmdb = &config.datastore.lmdb;
        let db = Db::open(&lmdb.path(&config.folder), lmdb.map_size_bytes)?;
        Ok(Self { db })
    }

    /// The pinset.
    pub fn pinset(&self) -> Pinset {
        Pinset::new(Arc::new(SetReads(self.db.clone())))
    }

    /// Writes all pins as JSON lines; says how many.
    pub fn export(&self, out: impl Write) -> Result<u64, state::Error> {
        state::export(&self.pinset(), out)
    }

    /// Replaces the pinset by JSON lines. The new one is built beside the old one and takes its place when it is whole:
    /// however this ends, there is one or the other. Says how many lines there were.
    pub fn import(self, reader: impl Read, overrides: &Overrides) -> Result<u64, consensus::Error> {
        self.db.rebuild(|next, scratch| offline::import(next, state::import(reader), overrides, scratch))
    }

    /// Removes the pinset, and gives its disk space back.
    pub fn clean(self) -> Result<(), consensus::Error> {
        self.db.rebuild(|_, _| Ok(()))
    }

    /// The DAG in short.
    pub fn info(&self) -> Result<Info, consensus::Error> {
        offline::info(&self.db)
    }

    /// Notes that the DAG has to be walked at the next start, or that it need not be.
    pub fn mark_dirty(&self, is_dirty: bool) -> Result<(), consensus::Error> {
        offline::mark_dirty(&self.db, is_dirty)
    }

    /// Draws the DAG for Graphviz.
    pub fn dot(&self, out: impl Write) -> Result<(), consensus::Error> {
        offline::dot(&self.db, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn export_clean_and_import_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let env = config::Env::default();
        let config = config::Config::init(config::Consensus::Crdt, config::Engine::Lmdb, folder.path(), &env);
        let mut config = config.unwrap();
        config.datastore.lmdb.value.map_size_bytes = 1 << 28;
        let open = || Offline::open(&config).unwrap();
        let lines = "{\"cid\":\"bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy\",\"name\":\"a\",\
                     \"allocations\":[],\"replication_factor_min\":-1,\"replication_factor_max\":-1}\n";
        assert_eq!(open().import(lines.as_bytes(), &Overrides::default()).unwrap(), 1);
        let (mut before, mut after) = (Vec::new(), Vec::new());
        open().export(&mut before).unwrap();
        open().clean().unwrap();
        open().import(&before[..], &Overrides::default()).unwrap();
        open().export(&mut after).unwrap();
        assert_eq!(String::from_utf8(before).unwrap(), String::from_utf8(after).unwrap());
        assert!(open().import(&b"{}"[..], &Overrides::default()).is_err());
        assert_eq!(
            open().pinset().page(None, 9).unwrap().0.len(),
            1,
            "a failed import leaves the old pinset"
        );
    }
}
