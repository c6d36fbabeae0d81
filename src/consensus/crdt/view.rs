//! The set as a store of its own: what [`crate::state::Pinset`] reads.

use std::ops::ControlFlow;

use super::core::Row;
use crate::store::{Error, KvRead, Reads, Table, Visit};

/// The current values of the set in a store, without their priorities. Other tables look empty.
pub struct SetReads<K>(
    /// The store of the set.
    pub K,
);

struct SetView<'a>(&'a dyn KvRead);

impl<K: Reads> Reads for SetReads<K> {
    fn with_snapshot(&self, job: &mut dyn FnMut(&dyn KvRead)) -> Result<(), Error> {
        self.0.with_snapshot(&mut |view| job(&SetView(view)))
    }
}

impl KvRead for SetView<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, Error> {
        if table != Table::Values {
            return Ok(None);
        }
        self.0.get(table, key)?.map(|row| Ok(Row::parse(row)?.value)).transpose()
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        if table != Table::Values {
            return Ok(());
        }
        let mut damaged = None;
        self.0.scan(table, prefix, after, &mut |key, row| match Row::parse(row) {
            Ok(row) => visit(key, row.value),
            Err(cause) => {
                damaged = Some(cause);
                ControlFlow::Break(())
            }
        })?;
        damaged.map_or(Ok(()), Err)
    }
}
