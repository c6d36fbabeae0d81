//! The tables in LMDB.

use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use heed::types::Bytes;
use heed::{
    CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, MdbError, PutFlags, RoTxn, RwTxn, WithoutTls,
};
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

/// Where [`Db::rebuild`] builds, within the folder of the database. What lies there is never of use to anyone else.
const NEXT: &str = "next";

/// LMDB's name for the file of a database.
const DATA_FILE: &str = "data.mdb";

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
    /// Whether this is being filled by [`Db::rebuild`], mostly in the order of the keys.
    is_filling: bool,
}

impl Db {
    /// Opens or makes the database in `folder`. `map_size_bytes` is address space, not disk: where the system
    /// grants less it is halved until it does. A process opens a folder once.
    pub fn open(folder: &Path, map_size_bytes: u64) -> Result<Self, Error> {
        Self::open_for(folder, map_size_bytes, false)
    }

    fn open_for(folder: &Path, map_size_bytes: u64, is_filling: bool) -> Result<Self, Error> {
        let failed = |message: String| Error::Open { folder: folder.to_owned(), message };
        make_folder(folder).map_err(|e| failed(e.to_string()))?;
        let opened = open_env(folder, map_size_bytes, is_filling);
        let (env, map_size_bytes) = opened.map_err(|e| failed(e.to_string()))?;
        let tables = open_tables(&env).map_err(|e| failed(e.to_string()))?;
        let folder = folder.to_owned();
        let db = Self { inner: Arc::new(Inner { env, tables, folder, map_size_bytes, is_filling }) };
        db.check_format()?;
        Ok(db)
    }

    /// Replaces the whole database by what `job` writes into an empty one. It may take as many transactions as it
    /// likes, and a file of its own in the folder it is given; until all of it is durable, nothing of the old database
    /// is touched, and then the new one takes its place in one step. Closes the database: this must be its last handle.
    pub fn rebuild<R, E: From<Error>>(self, job: impl FnOnce(&Self, &Path) -> Result<R, E>) -> Result<R, E> {
        let (folder, map_size_bytes) = (self.inner.folder.clone(), self.inner.map_size_bytes);
        let in_use = || Error::Database("it is still in use".into());
        drop(Arc::into_inner(self.inner).ok_or_else(in_use)?);
        let failed = |e: std::io::Error| Error::Open { folder: folder.clone(), message: e.to_string() };
        let next = folder.join(NEXT);
        remove_folder(&next).map_err(failed)?;
        let built = Self::open_for(&next, map_size_bytes, true).map_err(E::from).and_then(|db| {
            let answer = job(&db, &next)?;
            db.inner.env.force_sync().map_err(|e| db.inner.error(e))?;
            drop(Arc::into_inner(db.inner).ok_or_else(in_use)?);
            Ok(answer)
        });
        if built.is_ok() {
            replace_file(&next.join(DATA_FILE), &folder.join(DATA_FILE)).map_err(failed)?;
        }
        // what is left behind is removed by whoever comes next
        let _ = remove_folder(&next);
        built
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

fn remove_folder(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}

/// Puts one durable file in the place of another; both steps are on disk when this returns.
fn replace_file(next: &Path, target: &Path) -> std::io::Result<()> {
    std::fs::File::open(next)?.sync_all()?;
    std::fs::rename(next, target)?;
    match target.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[allow(unsafe_code, reason = "LMDB maps a file: only we write it, under LMDB's own locks")]
fn open_env(
    folder: &Path,
    asked_bytes: u64,
    is_filling: bool,
) -> Result<(Env<WithoutTls>, u64), heed::Error> {
    let mut size = asked_bytes.max(MIN_MAP_SIZE_BYTES) / MAP_UNIT_BYTES * MAP_UNIT_BYTES;
    loop {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.max_dbs(MAX_TABLES).max_readers(MAX_READERS);
        options.map_size(usize::try_from(size).unwrap_or(usize::MAX / 2));
        if is_filling {
            // SAFETY: it weakens durability alone, and what is being filled is nobody's until it has been synced
            unsafe { options.flags(EnvFlags::NO_SYNC) };
        }
        // SAFETY: the folder is this peer's own, locked by `cluster.lock`; no flag that weakens LMDB's locks is set
        let opened = unsafe { options.open(folder) };
        match opened {
            Ok(env) => {
                // places of readers that were killed
                env.clear_stale_readers()?;
                if size < asked_bytes / MAP_UNIT_BYTES * MAP_UNIT_BYTES {
                    warn!(
                        target: "service",
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
            // LMDB's word for a write that was cut short
            heed::Error::Io(cause) if cause.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                Error::Database(format!("{cause}; the disk may be full"))
            }
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
            return rows
                .put(&mut self.transaction, &stored, &wrap_long(key, value))
                .map_err(|e| self.inner.error(e));
        }
        // keys that come in order fill their pages; one that does not is put in its place
        if self.inner.is_filling && table == Table::Values {
            match rows.put_with_flags(&mut self.transaction, PutFlags::APPEND, &stored, value) {
                Err(heed::Error::Mdb(MdbError::KeyExist)) => {}
                put => return put.map_err(|e| self.inner.error(e)),
            }
        }
        rows.put(&mut self.transaction, &stored, value).map_err(|e| self.inner.error(e))
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

    fn values(db: &Db) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        read(db, |view| {
            view.scan(Table::Values, b"", None, &mut |key, value| {
                rows.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            })
        })
        .unwrap();
        rows
    }

    #[test]
    fn a_rebuilt_database_has_what_was_written_in_any_order_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(folder.path(), MAP).unwrap();
        write(&db, |t| t.put(Table::Values, b"old", b"1")).unwrap();
        let keys = ["b", "c", "a", "c"].map(|key| key.as_bytes().to_vec());
        let long = [vec![b'b'; 600], vec![b'b'; 601]];
        let all: Vec<_> = keys.iter().chain(&long).cloned().collect();
        db.rebuild(|next, _| {
            all.iter().try_for_each(|key| write(next, |t| t.put(Table::Values, key, &key[..1])))
        })
        .unwrap();
        assert!(!folder.path().join(NEXT).exists());
        let mut expected = all.clone();
        expected.sort();
        expected.dedup();
        let mut found: Vec<_> = values(&Db::open(folder.path(), MAP).unwrap())
            .into_iter()
            .inspect(|(key, value)| assert_eq!(&key[..1], value))
            .map(|(key, _)| key)
            .collect();
        found.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_rebuild_that_fails_or_was_killed_leaves_the_old_database() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(folder.path(), MAP).unwrap();
        write(&db, |t| t.put(Table::Values, b"old", b"1")).unwrap();
        let other = db.clone();
        assert!(db.rebuild(|_, _| Ok::<_, Error>(())).is_err(), "somebody else has it open");
        let refused = other.rebuild(|next, _| {
            write(next, |t| t.put(Table::Values, b"new", b"1"))?;
            Err::<(), _>(Error::Database("enough".into()))
        });
        assert_eq!(refused.unwrap_err().to_string(), "database: enough");
        assert!(!folder.path().join(NEXT).exists());
        // what a killed one leaves
        std::fs::create_dir(folder.path().join(NEXT)).unwrap();
        std::fs::write(folder.path().join(NEXT).join(DATA_FILE), b"half a page").unwrap();
        let db = Db::open(folder.path(), MAP).unwrap();
        assert_eq!(values(&db), [(b"old".to_vec(), b"1".to_vec())]);
        db.rebuild(|_, _| Ok::<_, Error>(())).unwrap();
        assert_eq!(values(&Db::open(folder.path(), MAP).unwrap()), []);
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
