//! The tables in LMDB.

use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, RoTxn, RwTxn, WithoutTls};
use tracing::warn;

use super::kv::{is_long, physical, physical_prefix, unwrap_long, wrap_long};
use super::{Error, Kv, KvRead, KvWrite, Outcome, Reads, Table, Visit};

/// Version of the layout of all tables, checked when a database is opened.
pub const FORMAT: &str = "1";

/// Where [`FORMAT`] is kept, in [`Table::Meta`].
const FORMAT_KEY: &[u8] = b"format";

/// Named tables a database may ever have; room for those to come.
const MAX_TABLES: u32 = 64;

/// Snapshots at a time, of all threads: the blocking pool has 512 threads.
const MAX_READERS: u32 = 1024;

/// Smallest map that is tried when the system grants less than asked for.
const MIN_MAP_SIZE_BYTES: u64 = 16 * 1024 * 1024;

/// Maps are multiples of this, the largest page size in use.
const MAP_UNIT_BYTES: u64 = 64 * 1024;

type Rows = Database<'static, Bytes, Bytes>;

/// The database of a peer. Clones share it; it closes with the last one.
#[derive(Clone)]
pub struct Db {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env<WithoutTls>,
    tables: [Rows; Table::ALL.len()],
    folder: PathBuf,
    map_size_bytes: u64,
}

impl Db {
    /// Opens or makes the database in `folder`. `map_size_bytes` is address space, not disk: where the system
    /// grants less it is halved until it does. A process opens a folder once.
    pub fn open(folder: &Path, map_size_bytes: u64) -> Result<Self, Error> {
        let failed = |message: String| Error::Open { folder: folder.to_owned(), message };
        make_folder(folder).map_err(|e| failed(e.to_string()))?;
        let (env, map_size_bytes) = open_env(folder, map_size_bytes).map_err(|e| failed(e.to_string()))?;
        let tables = open_tables(&env).map_err(|e| failed(e.to_string()))?;
        let db = Self { inner: Arc::new(Inner { env, tables, folder: folder.to_owned(), map_size_bytes }) };
        db.check_format()?;
        Ok(db)
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.inner.folder
    }

    /// Bytes on disk.
    pub fn size_bytes(&self) -> Result<u64, Error> {
        self.inner.env.real_disk_size().map_err(|e| self.inner.error(e))
    }

    /// Rows of a table.
    pub fn len(&self, table: Table) -> Result<u64, Error> {
        let transaction = self.inner.env.read_txn().map_err(|e| self.inner.error(e))?;
        self.inner.rows(table).len(&transaction).map_err(|e| self.inner.error(e))
    }

    /// Reads the format version, or writes it into a new database.
    fn check_format(&self) -> Result<(), Error> {
        let inner = &self.inner;
        let refused = |found: &[u8]| Error::Format {
            folder: inner.folder.clone(),
            found: String::from_utf8_lossy(found).into_owned(),
        };
        super::kv::write(self, |transaction| match transaction.get(Table::Meta, FORMAT_KEY)? {
            Some(found) if found == FORMAT.as_bytes() => Ok(()),
            Some(found) => Err(refused(found)),
            None => {
                for table in Table::ALL {
                    let mut is_used = false;
                    transaction.scan(table, b"", None, &mut |_, _| {
                        is_used = true;
                        ControlFlow::Break(())
                    })?;
                    if is_used {
                        return Err(refused(b""));
                    }
                }
                transaction.put(Table::Meta, FORMAT_KEY, FORMAT.as_bytes())
            }
        })
    }
}

fn make_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[allow(unsafe_code, reason = "LMDB maps a file: only we write it, under LMDB's own locks")]
fn open_env(folder: &Path, asked_bytes: u64) -> Result<(Env<WithoutTls>, u64), heed::Error> {
    let mut size = asked_bytes.max(MIN_MAP_SIZE_BYTES) / MAP_UNIT_BYTES * MAP_UNIT_BYTES;
    loop {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.max_dbs(MAX_TABLES).max_readers(MAX_READERS);
        options.map_size(usize::try_from(size).unwrap_or(usize::MAX / 2));
        // SAFETY: the folder is this peer's own, locked by `cluster.lock`; no flag that weakens LMDB's locks is set
        let opened = unsafe { options.open(folder) };
        match opened {
            Ok(env) => {
                // places of readers that were killed
                env.clear_stale_readers()?;
                if size < asked_bytes / MAP_UNIT_BYTES * MAP_UNIT_BYTES {
                    warn!(
                        target: "datastore",
                        "the system does not grant a map of {asked_bytes} bytes; using {size} bytes"
                    );
                }
                return Ok((env, size));
            }
            Err(heed::Error::Io(cause)) if is_too_large(&cause) && size / 2 >= MIN_MAP_SIZE_BYTES => {
                size = size / 2 / MAP_UNIT_BYTES * MAP_UNIT_BYTES;
            }
            Err(cause) => return Err(cause),
        }
    }
}

/// Whether the system refused a map for its size: no address space, limits, more than it can count.
fn is_too_large(cause: &std::io::Error) -> bool {
    use rustix::io::Errno;
    Errno::from_io_error(cause)
        .is_some_and(|errno| matches!(errno, Errno::NOMEM | Errno::INVAL | Errno::OVERFLOW | Errno::FBIG))
}

fn open_tables(env: &Env<WithoutTls>) -> Result<[Rows; Table::ALL.len()], heed::Error> {
    let transaction = env.write_txn()?;
    let opened = env.create_databases_and_commit(transaction, |opener, transaction| {
        let mut open = |table: Table| opener.create_database::<Bytes, Bytes>(transaction, Some(table.name()));
        let tables = [
            open(Table::Meta)?,
            open(Table::Blocks)?,
            open(Table::Heads)?,
            open(Table::Adds)?,
            open(Table::Tombs)?,
            open(Table::Values)?,
            open(Table::Journal)?,
            open(Table::Unfinished)?,
            open(Table::Sizes)?,
            open(Table::Pins)?,
        ];
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(tables))
    })?;
    match opened {
        CommitOrAbort::Commit(tables) => Ok(tables),
        CommitOrAbort::Abort(()) => Err(heed::Error::Io(std::io::Error::other("tables were not made"))),
    }
}

impl Inner {
    fn rows(&self, table: Table) -> &Rows {
        &self.tables[table as usize]
    }

    fn error(&self, cause: heed::Error) -> Error {
        match cause {
            heed::Error::Mdb(heed::MdbError::MapFull) => Error::Full { map_size_bytes: self.map_size_bytes },
            cause => Error::Database(cause.to_string()),
        }
    }

    fn get<'t>(&self, transaction: &'t RoTxn, table: Table, key: &[u8]) -> Result<Option<&'t [u8]>, Error> {
        let stored = physical(key);
        let row = self.rows(table).get(transaction, &stored).map_err(|e| self.error(e))?;
        match row {
            Some(row) if is_long(&stored) => Ok(Some(unwrap_long(table, row)?.1)),
            row => Ok(row),
        }
    }

    fn scan(
        &self,
        transaction: &RoTxn,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        let stored_prefix = physical_prefix(prefix);
        let after = after.map(physical);
        let from = match &after {
            Some(after) if after.as_ref() >= stored_prefix => Bound::Excluded(after.as_ref()),
            // LMDB has no empty keys, and will not look for one
            _ if stored_prefix.is_empty() => Bound::Unbounded,
            _ => Bound::Included(stored_prefix),
        };
        let range =
            self.rows(table).range(transaction, &(from, Bound::Unbounded)).map_err(|e| self.error(e))?;
        for row in range {
            let (stored, row) = row.map_err(|e| self.error(e))?;
            if !stored.starts_with(stored_prefix) {
                break;
            }
            let (key, value) = if is_long(stored) { unwrap_long(table, row)? } else { (stored, row) };
            if key.starts_with(prefix) && visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

struct Snapshot<'a> {
    inner: &'a Inner,
    transaction: RoTxn<'a, WithoutTls>,
}

impl KvRead for Snapshot<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, Error> {
        self.inner.get(&self.transaction, table, key)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        self.inner.scan(&self.transaction, table, prefix, after, visit)
    }
}

struct Transaction<'a> {
    inner: &'a Inner,
    transaction: RwTxn<'a>,
}

impl KvRead for Transaction<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, Error> {
        self.inner.get(&self.transaction, table, key)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        self.inner.scan(&self.transaction, table, prefix, after, visit)
    }
}

impl KvWrite for Transaction<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let stored = physical(key);
        let rows = self.inner.rows(table);
        if is_long(&stored) {
            rows.put(&mut self.transaction, &stored, &wrap_long(key, value))
        } else {
            rows.put(&mut self.transaction, &stored, value)
        }
        .map_err(|e| self.inner.error(e))
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, Error> {
        let rows = self.inner.rows(table);
        rows.delete(&mut self.transaction, &physical(key)).map_err(|e| self.inner.error(e))
    }

    fn clear(&mut self, table: Table) -> Result<(), Error> {
        self.inner.rows(table).clear(&mut self.transaction).map_err(|e| self.inner.error(e))
    }

    fn as_read(&self) -> &dyn KvRead {
        self
    }
}

impl Reads for Db {
    fn with_snapshot(&self, job: &mut dyn FnMut(&dyn KvRead)) -> Result<(), Error> {
        let inner = &*self.inner;
        let transaction = inner.env.read_txn().map_err(|e| inner.error(e))?;
        job(&Snapshot { inner, transaction });
        Ok(())
    }
}

impl Kv for Db {
    fn with_transaction(&self, job: &mut dyn FnMut(&mut dyn KvWrite) -> Outcome) -> Result<(), Error> {
        let inner = &*self.inner;
        let transaction = inner.env.write_txn().map_err(|e| inner.error(e))?;
        let mut transaction = Transaction { inner, transaction };
        match job(&mut transaction) {
            Outcome::Commit => transaction.transaction.commit().map_err(|e| inner.error(e)),
            Outcome::Abort => {
                transaction.transaction.abort();
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::kv::{read, write};
    use crate::store::suite;

    const MAP: u64 = 64 * 1024 * 1024;

    #[test]
    fn passes_the_suite() {
        suite::run(|| {
            let folder = tempfile::tempdir().unwrap();
            let db = Db::open(folder.path(), MAP).unwrap();
            (Box::new(db), Box::new(folder))
        });
    }

    #[test]
    fn rows_are_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(folder.path(), MAP).unwrap();
        write(&db, |t| t.put(Table::Values, b"a", b"1")).unwrap();
        drop(db);
        let db = Db::open(folder.path(), MAP).unwrap();
        let value =
            read(&db, |view| Ok::<_, Error>(view.get(Table::Values, b"a")?.map(<[u8]>::to_vec))).unwrap();
        assert_eq!(value.as_deref(), Some(&b"1"[..]));
    }

    #[test]
    fn another_format_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(folder.path(), MAP).unwrap();
        write(&db, |t| t.put(Table::Meta, FORMAT_KEY, b"99")).unwrap();
        drop(db);
        let refused = Db::open(folder.path(), MAP).err().unwrap();
        assert!(refused.to_string().contains("format \"99\""), "{refused}");
    }

    #[test]
    fn a_map_the_system_does_not_grant_is_halved_until_it_does() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(folder.path(), 1 << 62).unwrap();
        write(&db, |t| t.put(Table::Values, b"a", b"1")).unwrap();
    }

    #[test]
    fn a_full_map_is_an_error_that_leaves_the_database_usable() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(folder.path(), 0).unwrap();
        let value = vec![7; 1 << 20];
        let full =
            write(&db, |t| (0..64u32).try_for_each(|i| t.put(Table::Values, &i.to_be_bytes(), &value)));
        assert!(matches!(full, Err(Error::Full { map_size_bytes: MIN_MAP_SIZE_BYTES })), "{full:?}");
        write(&db, |t| t.put(Table::Values, b"a", b"1")).unwrap();
        assert_eq!(db.len(Table::Values).unwrap(), 1);
    }
}
