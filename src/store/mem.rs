//! The tables in memory, for tests and simulations: nothing is durable.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

use super::kv::{is_long, physical, physical_prefix, unwrap_long, wrap_long};
use super::{Error, Kv, KvRead, KvWrite, Outcome, Reads, Table, Visit};

type Key = (Table, Vec<u8>);

type Rows = BTreeMap<Key, Vec<u8>>;

/// Tables in memory.
#[derive(Default)]
pub struct Mem {
    /// Taken by readers and by the writer for the whole of a transaction.
    rows: RwLock<Rows>,
}

impl Mem {
    /// Empty tables.
    pub fn new() -> Self {
        Self::default()
    }
}

fn get<'r>(rows: &'r Rows, table: Table, key: &[u8]) -> Result<Option<&'r [u8]>, Error> {
    let stored = physical(key);
    let long = is_long(&stored);
    match rows.get(&(table, stored.into_owned())) {
        Some(row) if long => Ok(Some(unwrap_long(table, row)?.1)),
        row => Ok(row.map(Vec::as_slice)),
    }
}

fn scan(
    rows: &Rows,
    table: Table,
    prefix: &[u8],
    after: Option<&[u8]>,
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    let stored_prefix = physical_prefix(prefix).to_vec();
    let from = match after.map(physical) {
        Some(after) if *after >= *stored_prefix => Bound::Excluded((table, after.into_owned())),
        _ => Bound::Included((table, stored_prefix.clone())),
    };
    for ((row_table, stored), row) in rows.range((from, Bound::Unbounded)) {
        if *row_table != table || !stored.starts_with(&stored_prefix) {
            break;
        }
        let (key, value) = if is_long(stored) { unwrap_long(table, row)? } else { (&stored[..], &row[..]) };
        if key.starts_with(prefix) && visit(key, value).is_break() {
            break;
        }
    }
    Ok(())
}

struct Snapshot<'a>(&'a Rows);

impl KvRead for Snapshot<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, Error> {
        get(self.0, table, key)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        scan(self.0, table, prefix, after, visit)
    }
}

struct Transaction<'a> {
    rows: &'a mut Rows,
    /// What stood there before, in the order of the changes.
    undo: Vec<(Key, Option<Vec<u8>>)>,
}

impl Transaction<'_> {
    fn set(&mut self, table: Table, stored: Vec<u8>, value: Option<Vec<u8>>) -> bool {
        let key = (table, stored);
        let before = match value {
            Some(value) => self.rows.insert(key.clone(), value),
            None => self.rows.remove(&key),
        };
        let was_there = before.is_some();
        self.undo.push((key, before));
        was_there
    }
}

impl KvRead for Transaction<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, Error> {
        get(self.rows, table, key)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        scan(self.rows, table, prefix, after, visit)
    }
}

impl KvWrite for Transaction<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let stored = physical(key).into_owned();
        let row = if is_long(&stored) { wrap_long(key, value) } else { value.to_vec() };
        self.set(table, stored, Some(row));
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, Error> {
        Ok(self.set(table, physical(key).into_owned(), None))
    }

    fn clear(&mut self, table: Table) -> Result<(), Error> {
        let keys: Vec<_> = self
            .rows
            .range((table, Vec::new())..)
            .map_while(|(k, _)| (k.0 == table).then(|| k.1.clone()))
            .collect();
        for key in keys {
            self.set(table, key, None);
        }
        Ok(())
    }

    fn as_read(&self) -> &dyn KvRead {
        self
    }
}

impl Reads for Mem {
    fn with_snapshot(&self, job: &mut dyn FnMut(&dyn KvRead)) -> Result<(), Error> {
        job(&Snapshot(&self.rows.read().unwrap_or_else(PoisonError::into_inner)));
        Ok(())
    }
}

impl Kv for Mem {
    fn with_transaction(&self, job: &mut dyn FnMut(&mut dyn KvWrite) -> Outcome) -> Result<(), Error> {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        let mut transaction = Transaction { rows: &mut rows, undo: Vec::new() };
        if job(&mut transaction) == Outcome::Abort {
            while let Some((key, before)) = transaction.undo.pop() {
                match before {
                    Some(value) => transaction.rows.insert(key, value),
                    None => transaction.rows.remove(&key),
                };
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite;

    #[test]
    fn passes_the_suite() {
        suite::run(|| (Box::new(Mem::new()), Box::new(())));
    }
}
