//! The options of the reference's database engines: read, checked, written back, without effect here.
//!
//! The reference drops zeros and `false` from a file where its default is something else; here a value that is
//! in the file counts.

use super::json::{Json, Kind, Writer};
use super::section::{Env, Key, table};
use super::value::{Nested, Value};
use crate::go::quote::quote;
use crate::go::time::Duration;

table! {
    /// Options of badger, version 1.
    BadgerOptions = "badger.badgerOptions" {
        dir: String = "Dir",
        value_dir: String = "ValueDir",
        sync_writes: bool = "SyncWrites",
        table_loading_mode: i64 = "TableLoadingMode",
        value_log_loading_mode: i64 = "ValueLogLoadingMode",
        num_versions_to_keep: i64 = "NumVersionsToKeep",
        max_table_size: i64 = "MaxTableSize",
        level_size_multiplier: i64 = "LevelSizeMultiplier",
        max_levels: i64 = "MaxLevels",
        value_threshold: i64 = "ValueThreshold",
        num_memtables: i64 = "NumMemtables",
        num_level_zero_tables: i64 = "NumLevelZeroTables",
        num_level_zero_tables_stall: i64 = "NumLevelZeroTablesStall",
        level_one_size: i64 = "LevelOneSize",
        value_log_file_size: i64 = "ValueLogFileSize",
        value_log_max_entries: u32 = "ValueLogMaxEntries",
        num_compactors: i64 = "NumCompactors",
        compact_l_0_on_close: bool = "CompactL0OnClose",
        read_only: bool = "ReadOnly",
        truncate: bool = "Truncate",
    }
}

table! {
    /// Options of badger, version 3.
    Badger3Options = "badger3.badgerOptions" {
        dir: String = "Dir",
        value_dir: String = "ValueDir",
        sync_writes: bool = "SyncWrites",
        num_versions_to_keep: i64 = "NumVersionsToKeep",
        read_only: bool = "ReadOnly",
        compression: u32 = "Compression",
        in_memory: bool = "InMemory",
        metrics_enabled: bool = "MetricsEnabled",
        num_goroutines: i64 = "NumGoroutines",
        mem_table_size: i64 = "MemTableSize",
        base_table_size: i64 = "BaseTableSize",
        base_level_size: i64 = "BaseLevelSize",
        level_size_multiplier: i64 = "LevelSizeMultiplier",
        table_size_multiplier: i64 = "TableSizeMultiplier",
        max_levels: i64 = "MaxLevels",
        v_log_percentile: f64 = "VLogPercentile",
        value_threshold: i64 = "ValueThreshold",
        num_memtables: i64 = "NumMemtables",
        block_size: i64 = "BlockSize",
        bloom_false_positive: f64 = "BloomFalsePositive",
        block_cache_size: i64 = "BlockCacheSize",
        index_cache_size: i64 = "IndexCacheSize",
        num_level_zero_tables: i64 = "NumLevelZeroTables",
        num_level_zero_tables_stall: i64 = "NumLevelZeroTablesStall",
        value_log_file_size: i64 = "ValueLogFileSize",
        value_log_max_entries: u32 = "ValueLogMaxEntries",
        num_compactors: i64 = "NumCompactors",
        compact_l_0_on_close: bool = "CompactL0OnClose",
        lmax_compaction: bool = "LmaxCompaction",
        zstd_compression_level: i64 = "ZSTDCompressionLevel",
        verify_value_checksum: bool = "VerifyValueChecksum",
        checksum_verification_mode: i64 = "ChecksumVerificationMode",
        detect_conflicts: bool = "DetectConflicts",
        namespace_offset: i64 = "NamespaceOffset",
    }
}

table! {
    /// Options of LevelDB; zeros are the library's defaults.
    LeveldbOptions = "leveldb.levelDBOptions" {
        block_cache_capacity: i64 = "BlockCacheCapacity",
        block_cache_evict_removed: bool = "BlockCacheEvictRemoved",
        block_restart_interval: i64 = "BlockRestartInterval",
        block_size: i64 = "BlockSize",
        compaction_expand_limit_factor: i64 = "CompactionExpandLimitFactor",
        compaction_gp_overlaps_factor: i64 = "CompactionGPOverlapsFactor",
        compaction_l0_trigger: i64 = "CompactionL0Trigger",
        compaction_source_limit_factor: i64 = "CompactionSourceLimitFactor",
        compaction_table_size: i64 = "CompactionTableSize",
        compaction_table_size_multiplier: f64 = "CompactionTableSizeMultiplier",
        compaction_table_size_multiplier_per_level: Option<Vec<f64>> = "CompactionTableSizeMultiplierPerLevel",
        compaction_total_size: i64 = "CompactionTotalSize",
        compaction_total_size_multiplier: f64 = "CompactionTotalSizeMultiplier",
        compaction_total_size_multiplier_per_level: Option<Vec<f64>> = "CompactionTotalSizeMultiplierPerLevel",
        compression: u64 = "Compression",
        disable_buffer_pool: bool = "DisableBufferPool",
        disable_block_cache: bool = "DisableBlockCache",
        disable_compaction_backoff: bool = "DisableCompactionBackoff",
        disable_large_batch_transaction: bool = "DisableLargeBatchTransaction",
        iterator_sampling_rate: i64 = "IteratorSamplingRate",
        no_sync: bool = "NoSync",
        no_write_merge: bool = "NoWriteMerge",
        open_files_cache_capacity: i64 = "OpenFilesCacheCapacity",
        read_only: bool = "ReadOnly",
        strict: u64 = "Strict",
        write_buffer: i64 = "WriteBuffer",
        write_l0_pause_trigger: i64 = "WriteL0PauseTrigger",
        write_l0_slowdown_trigger: i64 = "WriteL0SlowdownTrigger",
    }
}

table! {
    /// Options of pebble.
    PebbleOptions = "pebble.pebbleOptions" {
        cache_size_bytes: i64 = "CacheSizeBytes",
        bytes_per_sync: i64 = "BytesPerSync",
        disable_wal: bool = "DisableWAL",
        flush_delay_delete_range: Nanos = "FlushDelayDeleteRange",
        flush_delay_range_key: Nanos = "FlushDelayRangeKey",
        flush_split_bytes: i64 = "FlushSplitBytes",
        format_major_version: i64 = "FormatMajorVersion",
        l0_compaction_file_threshold: i64 = "L0CompactionFileThreshold",
        l0_compaction_threshold: i64 = "L0CompactionThreshold",
        l0_stop_writes_threshold: i64 = "L0StopWritesThreshold",
        l_base_max_bytes: i64 = "LBaseMaxBytes",
        max_open_files: i64 = "MaxOpenFiles",
        mem_table_size: u64 = "MemTableSize",
        mem_table_stop_writes_threshold: i64 = "MemTableStopWritesThreshold",
        read_only: bool = "ReadOnly",
        wal_bytes_per_sync: i64 = "WALBytesPerSync",
        levels: Vec<Nested<LevelOptions>> = "Levels",
    }
}

table! {
    /// Options of one level of pebble's.
    LevelOptions = "pebble.levelOptions" {
        block_restart_interval: i64 = "BlockRestartInterval",
        block_size: i64 = "BlockSize",
        block_size_threshold: i64 = "BlockSizeThreshold",
        compression: i64 = "Compression",
        filter_type: i64 = "FilterType",
        filter_policy: i64 = "FilterPolicy",
        index_block_size: i64 = "IndexBlockSize",
        target_file_size: i64 = "TargetFileSize",
    }
}

impl BadgerOptions {
    /// What the reference writes for a new file.
    pub(super) fn engine_defaults() -> Self {
        Self {
            sync_writes: true,
            table_loading_mode: 2,
            num_versions_to_keep: 1,
            max_table_size: 16_777_216,
            level_size_multiplier: 10,
            max_levels: 7,
            value_threshold: 32,
            num_memtables: 5,
            num_level_zero_tables: 5,
            num_level_zero_tables_stall: 10,
            level_one_size: 268_435_456,
            value_log_file_size: 1_073_741_823,
            value_log_max_entries: 1_000_000,
            num_compactors: 2,
            truncate: true,
            ..Self::default()
        }
    }
}

impl Badger3Options {
    /// What the reference writes for a new file.
    pub(super) fn engine_defaults() -> Self {
        Self {
            num_versions_to_keep: 1,
            metrics_enabled: true,
            num_goroutines: 8,
            mem_table_size: 67_108_864,
            base_table_size: 2_097_152,
            base_level_size: 10_485_760,
            level_size_multiplier: 10,
            table_size_multiplier: 2,
            max_levels: 7,
            value_threshold: 100,
            num_memtables: 5,
            block_size: 4096,
            bloom_false_positive: 0.01,
            num_level_zero_tables: 5,
            num_level_zero_tables_stall: 15,
            value_log_file_size: 1_073_741_823,
            value_log_max_entries: 1_000_000,
            num_compactors: 4,
            zstd_compression_level: 1,
            namespace_offset: -1,
            ..Self::default()
        }
    }
}

impl PebbleOptions {
    /// What the reference writes for a new file.
    pub(super) fn engine_defaults() -> Self {
        Self {
            cache_size_bytes: 1_073_741_824,
            bytes_per_sync: 1_048_576,
            flush_split_bytes: 4_194_304,
            format_major_version: 24,
            l0_compaction_file_threshold: 750,
            l0_compaction_threshold: 4,
            l0_stop_writes_threshold: 12,
            l_base_max_bytes: 134_217_728,
            max_open_files: 1000,
            mem_table_size: 67_108_864,
            mem_table_stop_writes_threshold: 20,
            levels: (0..7).map(|level| Nested(LevelOptions::engine_defaults(level))).collect(),
            ..Self::default()
        }
    }
}

impl LevelOptions {
    /// What the reference writes for the `level`-th of seven levels: file sizes double.
    fn engine_defaults(level: u32) -> Self {
        Self {
            block_restart_interval: 16,
            block_size: 4096,
            block_size_threshold: 90,
            compression: 1,
            filter_type: 0,
            filter_policy: 10,
            index_block_size: 4096,
            target_file_size: 4_194_304 << level,
        }
    }
}

/// A duration that the file holds as a number of nanoseconds and the environment as Go writes durations.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Nanos(i64);

impl Value for Nanos {
    fn read(&mut self, json: &Json<'_>, table: &str, path: &str) -> Result<(), String> {
        self.0.read(json, table, path)
    }

    fn read_env(&mut self, name: &str, key: &Key, env: &Env) -> Result<(), String> {
        let Some(value) = env.get(name) else { return Ok(()) };
        let span = Duration::parse(value).map_err(|details| {
            format!(
                "envconfig.Process: assigning {name} to {}: converting '{value}' to type time.Duration. \
                 details: {details}",
                key.go
            )
        })?;
        self.0 = span.0;
        Ok(())
    }

    fn write(&mut self, out: &mut Writer, display: bool) {
        self.0.write(out, display);
    }

    fn is_empty(&self) -> bool {
        self.0 == 0
    }
}

/// Factors per level; `null` where the file names none.
impl Value for Option<Vec<f64>> {
    fn read(&mut self, json: &Json<'_>, table: &str, path: &str) -> Result<(), String> {
        match &json.kind {
            Kind::Array(items) => {
                let mut numbers = vec![0.0; items.len()];
                for (number, item) in numbers.iter_mut().zip(items) {
                    number.read(item, table, path)?;
                }
                *self = Some(numbers);
            }
            Kind::Null => *self = None,
            other => {
                let word = other.word();
                return Err(format!(
                    "json: cannot unmarshal {word} into Go struct field {path} of type []float64"
                ));
            }
        }
        Ok(())
    }

    fn read_env(&mut self, name: &str, key: &Key, env: &Env) -> Result<(), String> {
        let Some(value) = env.get(name) else { return Ok(()) };
        let items = value.split(',').filter(|_| !value.trim().is_empty());
        let numbers: Result<Vec<f64>, _> = items.map(str::parse).collect();
        let numbers = numbers.map_err(|_| {
            format!(
                "envconfig.Process: assigning {name} to {}: converting '{value}' to type []float64. \
                 details: strconv.ParseFloat: parsing {}: invalid syntax",
                key.go,
                quote(value)
            )
        })?;
        *self = Some(numbers);
        Ok(())
    }

    fn write(&mut self, out: &mut Writer, display: bool) {
        let Some(numbers) = self else { return out.plain("null") };
        out.open('[');
        for number in numbers {
            out.item();
            number.write(out, display);
        }
        out.close(']');
    }

    fn is_empty(&self) -> bool {
        self.is_none()
    }
}

/// Levels: a list of tables. The environment cannot usefully set it.
impl Value for Vec<Nested<LevelOptions>> {
    fn read(&mut self, json: &Json<'_>, table: &str, path: &str) -> Result<(), String> {
        match &json.kind {
            Kind::Array(items) => {
                let mut levels = vec![Nested::default(); items.len()];
                for (level, item) in levels.iter_mut().zip(items) {
                    level.read(item, table, path)?;
                }
                *self = levels;
            }
            Kind::Null => {}
            other => {
                let word = other.word();
                return Err(format!(
                    "json: cannot unmarshal {word} into Go struct field {path} of type []pebble.levelOptions"
                ));
            }
        }
        Ok(())
    }

    fn read_env(&mut self, _name: &str, _key: &Key, _env: &Env) -> Result<(), String> {
        Ok(())
    }

    fn write(&mut self, out: &mut Writer, display: bool) {
        out.open('[');
        for level in self {
            out.item();
            level.write(out, display);
        }
        out.close(']');
    }

    fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
}
