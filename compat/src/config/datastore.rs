//! The `datastore.*` sections: ours, and those of the reference's four engines.
//!
//! Data is kept in LMDB whichever section is present. The sections of the other engines are read, checked and
//! written back, and their folder tells where the reference keeps its data; nothing else of them has effect.

use std::path::{Path, PathBuf};

use super::engines::{Badger3Options, BadgerOptions, LeveldbOptions, PebbleOptions};
use super::section::{Component, Section, require, set_duration, set_number, set_text, table};
use super::value::Nested;
use crate::go::time::Duration;

const MAP_SIZE_BYTES: u64 = 1_099_511_627_776;
const MIN_MAP_SIZE_BYTES: u64 = 16_777_216;
const FORMAT_MAJOR_VERSIONS: std::ops::RangeInclusive<i64> = 13..=24;

/// The datastore sections. With CRDT consensus exactly one is present.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Datastore {
    /// The reference's oldest engine.
    pub badger: Section<Badger>,
    /// Its third version.
    pub badger3: Section<Badger3>,
    /// LevelDB.
    pub leveldb: Section<Leveldb>,
    /// Ours: these values count even where another section is the present one.
    pub lmdb: Section<Lmdb>,
    /// The reference's default.
    pub pebble: Section<Pebble>,
}

impl Datastore {
    /// The name of the one section that is present; `None` if none or several are.
    pub fn present(&self) -> Option<&'static str> {
        let mut present = self.folders().into_iter().filter(|(_, present, _)| *present);
        match (present.next(), present.next()) {
            (Some((name, _, _)), None) => Some(name),
            _ => None,
        }
    }

    /// Where the reference's engines keep their data, given the configuration folder: name and folder.
    pub fn reference_folders(&self, folder: &Path) -> Vec<(&'static str, PathBuf)> {
        let folders = self.folders().into_iter().filter(|(name, _, _)| *name != "lmdb");
        folders.map(|(name, _, own)| (name, folder.join(own))).collect()
    }

    fn folders(&self) -> [(&'static str, bool, &str); 5] {
        [
            ("badger", self.badger.present, &self.badger.folder),
            ("badger3", self.badger3.present, &self.badger3.folder),
            ("leveldb", self.leveldb.present, &self.leveldb.folder),
            ("lmdb", self.lmdb.present, &self.lmdb.folder),
            ("pebble", self.pebble.present, &self.pebble.folder),
        ]
    }
}

/// Our database.
#[derive(Debug, Clone, PartialEq)]
pub struct Lmdb {
    /// Its folder, relative to the configuration folder. Default `lmdb`.
    pub folder: String,
    /// Address space for the database, in bytes. Default 1 TiB, at least 16 MiB.
    pub map_size_bytes: u64,
}

impl Default for Lmdb {
    fn default() -> Self {
        Self { folder: "lmdb".to_owned(), map_size_bytes: MAP_SIZE_BYTES }
    }
}

impl Lmdb {
    /// The folder, given the configuration folder.
    pub fn path(&self, folder: &Path) -> PathBuf {
        folder.join(&self.folder)
    }
}

table! {
    LmdbTable = "lmdb.jsonConfig" {
        folder: String = "Folder" omit_empty,
        map_size_bytes: u64 = "MapSizeBytes" omit_empty,
    }
}

impl Component for Lmdb {
    type Table = LmdbTable;

    fn key(&self) -> &'static str {
        "lmdb"
    }

    fn env_prefix(&self) -> &'static str {
        "CLUSTER_LMDB"
    }

    fn apply(&mut self, table: LmdbTable, _folder: &Path) -> Result<(), String> {
        set_text(table.folder, &mut self.folder);
        set_number(table.map_size_bytes, &mut self.map_size_bytes);
        Ok(())
    }

    fn validate(&self) -> Result<(), String> {
        require(self.map_size_bytes >= MIN_MAP_SIZE_BYTES, "lmdb.map_size_bytes is invalid")
    }

    fn to_table(&self) -> LmdbTable {
        let map_size_bytes = self.map_size_bytes;
        LmdbTable {
            folder: unless_default(&self.folder, "lmdb"),
            map_size_bytes: if map_size_bytes == MAP_SIZE_BYTES { 0 } else { map_size_bytes },
        }
    }
}

fn unless_default(folder: &str, default: &str) -> String {
    if folder == default { String::new() } else { folder.to_owned() }
}

/// When badger collects its garbage.
#[derive(Debug, Clone, PartialEq)]
struct BadgerGc {
    discard_ratio: f64,
    interval: Duration,
    sleep: Duration,
}

impl Default for BadgerGc {
    fn default() -> Self {
        Self { discard_ratio: 0.2, interval: Duration::from_mins(15), sleep: Duration::from_secs(10) }
    }
}

impl BadgerGc {
    fn apply(&mut self, discard_ratio: f64, interval: &str, sleep: &str) -> Result<(), String> {
        set_number(discard_ratio, &mut self.discard_ratio);
        set_duration("badger", "gc_interval", interval, &mut self.interval)?;
        set_duration("badger", "gc_sleep", sleep, &mut self.sleep)
    }

    fn validate(&self) -> Result<(), String> {
        let valid = self.discard_ratio > 0.0 && self.discard_ratio < 1.0;
        require(valid, "gc_discard_ratio must be more than 0 and less than 1")
    }
}

/// Declares a badger section: its struct, its table, how they convert.
macro_rules! badger {
    ($(#[$meta:meta])* $name:ident, $table:ident, $options:ident, $key:literal, $env:literal, $go:literal) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            /// Where the reference keeps its data, relative to the configuration folder.
            pub folder: String,
            gc: BadgerGc,
            options: $options,
        }

        impl Default for $name {
            fn default() -> Self {
                Self { folder: $key.to_owned(), gc: BadgerGc::default(), options: $options::engine_defaults() }
            }
        }

        table! {
            $table = $go {
                folder: String = "Folder" omit_empty,
                gc_discard_ratio: f64 = "GCDiscardRatio",
                gc_interval: String = "GCInterval",
                gc_sleep: String = "GCSleep",
                badger_options: Nested<$options> = "BadgerOptions",
            }
        }

        impl Component for $name {
            type Table = $table;

            fn key(&self) -> &'static str {
                $key
            }

            fn env_prefix(&self) -> &'static str {
                $env
            }

            fn blank_table(&self) -> $table {
                $table { badger_options: Nested($options::engine_defaults()), ..$table::default() }
            }

            fn apply(&mut self, table: $table, _folder: &Path) -> Result<(), String> {
                set_text(table.folder, &mut self.folder);
                self.gc.apply(table.gc_discard_ratio, &table.gc_interval, &table.gc_sleep)?;
                self.options = table.badger_options.0;
                Ok(())
            }

            fn validate(&self) -> Result<(), String> {
                self.gc.validate()
            }

            fn to_table(&self) -> $table {
                $table {
                    folder: unless_default(&self.folder, $key),
                    gc_discard_ratio: self.gc.discard_ratio,
                    gc_interval: self.gc.interval.to_string(),
                    gc_sleep: self.gc.sleep.to_string(),
                    badger_options: Nested(self.options.clone()),
                }
            }
        }
    };
}

badger!(
    /// The reference's oldest engine.
    Badger, BadgerTable, BadgerOptions, "badger", "CLUSTER_BADGER", "badger.jsonConfig"
);
badger!(
    /// The third version of the reference's oldest engine.
    Badger3, Badger3Table, Badger3Options, "badger3", "CLUSTER_BADGER3", "badger3.jsonConfig"
);

/// LevelDB.
#[derive(Debug, Clone, PartialEq)]
pub struct Leveldb {
    /// Where the reference keeps its data, relative to the configuration folder.
    pub folder: String,
    options: LeveldbOptions,
}

impl Default for Leveldb {
    fn default() -> Self {
        Self { folder: "leveldb".to_owned(), options: LeveldbOptions::default() }
    }
}

table! {
    LeveldbTable = "leveldb.jsonConfig" {
        folder: String = "Folder" omit_empty,
        leveldb_options: Nested<LeveldbOptions> = "LevelDBOptions",
    }
}

impl Component for Leveldb {
    type Table = LeveldbTable;

    fn key(&self) -> &'static str {
        "leveldb"
    }

    fn env_prefix(&self) -> &'static str {
        "CLUSTER_LEVELDB"
    }

    fn apply(&mut self, table: LeveldbTable, _folder: &Path) -> Result<(), String> {
        set_text(table.folder, &mut self.folder);
        self.options = table.leveldb_options.0;
        Ok(())
    }

    fn validate(&self) -> Result<(), String> {
        Ok(())
    }

    fn to_table(&self) -> LeveldbTable {
        LeveldbTable {
            folder: unless_default(&self.folder, "leveldb"),
            leveldb_options: Nested(self.options.clone()),
        }
    }
}

/// The reference's default engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Pebble {
    /// Where the reference keeps its data, relative to the configuration folder.
    pub folder: String,
    options: PebbleOptions,
}

impl Default for Pebble {
    fn default() -> Self {
        Self { folder: "pebble".to_owned(), options: PebbleOptions::engine_defaults() }
    }
}

table! {
    PebbleTable = "pebble.jsonConfig" {
        folder: String = "Folder" omit_empty,
        pebble_options: Nested<PebbleOptions> = "PebbleOptions",
    }
}

impl Component for Pebble {
    type Table = PebbleTable;

    fn key(&self) -> &'static str {
        "pebble"
    }

    fn env_prefix(&self) -> &'static str {
        "CLUSTER_PEBBLE"
    }

    fn blank_table(&self) -> PebbleTable {
        PebbleTable { folder: String::new(), pebble_options: Nested(PebbleOptions::engine_defaults()) }
    }

    fn apply(&mut self, table: PebbleTable, _folder: &Path) -> Result<(), String> {
        set_text(table.folder, &mut self.folder);
        self.options = table.pebble_options.0;
        Ok(())
    }

    /// Zeros that the engine itself replaces by its defaults are left to it; so it is with the reference.
    fn validate(&self) -> Result<(), String> {
        let options = &self.options;
        let mut lines = String::new();
        let (stop, compaction) = (options.l0_stop_writes_threshold, options.l0_compaction_threshold);
        if stop != 0 && stop < compaction {
            lines +=
                &format!("L0StopWritesThreshold ({stop}) must be >= L0CompactionThreshold ({compaction})\n");
        }
        let size = options.mem_table_size;
        if size >= u64::from(u32::MAX) {
            lines += &format!("MemTableSize ({size}) must be < {}\n", u32::MAX);
        }
        let memtables = options.mem_table_stop_writes_threshold;
        if memtables != 0 && memtables < 2 {
            lines += &format!("MemTableStopWritesThreshold ({memtables}) must be >= 2\n");
        }
        let version = options.format_major_version;
        if version != 0 && !FORMAT_MAJOR_VERSIONS.contains(&version) {
            lines += &format!("FormatMajorVersion ({version}) must be between 13 and 24\n");
        }
        if lines.is_empty() { Ok(()) } else { Err(lines) }
    }

    fn to_table(&self) -> PebbleTable {
        PebbleTable {
            folder: unless_default(&self.folder, "pebble"),
            pebble_options: Nested(self.options.clone()),
        }
    }
}
