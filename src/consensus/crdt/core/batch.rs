//! The pending batch: items that wait for one common node.

use std::collections::HashMap;
use std::ops::ControlFlow;

use super::{Effects, Error, set};
use crate::store::{KvRead, Table};
use crate::wire::crdt_pb::{Delta, Element};

/// Size of a delta above which it becomes a node at once: the reference's `MaxBatchDeltaSize`.
const MAX_DELTA_BYTES: usize = 1024 * 1024;

/// A journal row of a write: this, the length of the key in four bytes, the key, the value.
const WRITE: u8 = 1;

/// A journal row of a delete: this, then the key.
const DELETE: u8 = 2;

#[derive(Debug, Default)]
pub(super) struct Batch {
    elements: Vec<Pending>,
    /// Elements by key that are still in the batch, so that most deletes need not look through them.
    n_by_key: HashMap<String, usize>,
    tombstones: Vec<(String, String)>,
    /// Bytes of the delta's protobuf, still without its height.
    delta_bytes: usize,
    n_items: usize,
    /// Journal rows of these items, and the number of the next.
    journalled: std::ops::Range<u64>,
}

#[derive(Debug)]
struct Pending {
    key: String,
    value: Vec<u8>,
}

impl Pending {
    fn encoded_len(&self) -> usize {
        Element { key: &self.key, id: "", value: &self.value }.encoded_len()
    }
}

impl Batch {
    pub(super) fn n_items(&self) -> usize {
        self.n_items
    }

    pub(super) fn has_write_of(&self, key: &str) -> bool {
        self.n_by_key.get(key).is_some_and(|n| *n > 0)
    }

    pub(super) fn is_too_large(&self) -> bool {
        self.delta_bytes > MAX_DELTA_BYTES
    }

    /// Takes in the items of the journal.
    pub(super) fn resume(&mut self, view: &dyn KvRead) -> Result<(), Error> {
        let mut rows = Vec::new();
        view.scan(Table::Journal, b"", None, &mut |number, row| {
            rows.push((number.to_vec(), row.to_vec()));
            ControlFlow::Continue(())
        })?;
        for (number, row) in rows {
            let damaged = || Error::Damaged(format!("journal row {} cannot be read", hex::encode(&number)));
            let number = number.as_slice().try_into().map(u64::from_be_bytes).map_err(|_| damaged())?;
            let (key, value) = parse_row(&row).ok_or_else(damaged)?;
            self.take_in(key, value, view)?;
            if self.journalled.is_empty() {
                self.journalled.start = number;
            }
            self.journalled.end = number + 1;
        }
        Ok(())
    }

    pub(super) fn add(
        &mut self,
        key: &str,
        value: Option<&[u8]>,
        is_journalled: bool,
        view: &dyn KvRead,
        effects: &mut Effects,
    ) -> Result<(), Error> {
        self.take_in(key, value, view)?;
        if is_journalled {
            effects.put(Table::Journal, self.journalled.end.to_be_bytes().to_vec(), row(key, value));
            self.journalled.end += 1;
        }
        Ok(())
    }

    /// A delete removes pending elements of its key, and kills the adds that the store has now.
    fn take_in(&mut self, key: &str, value: Option<&[u8]>, view: &dyn KvRead) -> Result<(), Error> {
        self.n_items += 1;
        if let Some(value) = value {
            let element = Pending { key: key.to_owned(), value: value.to_vec() };
            self.delta_bytes += element.encoded_len();
            *self.n_by_key.entry(key.to_owned()).or_default() += 1;
            self.elements.push(element);
            return Ok(());
        }
        if self.n_by_key.remove(key).is_some() {
            self.elements.retain(|element| {
                let stays = element.key != key;
                if !stays {
                    self.delta_bytes -= element.encoded_len();
                }
                stays
            });
        }
        for id in set::living_ids(key, view)? {
            self.delta_bytes += Element { key, id: &id, value: b"" }.encoded_len();
            self.tombstones.push((key.to_owned(), id));
        }
        Ok(())
    }

    /// What the node of this batch will say. Where deletes took back all writes it says nothing, and is made all the
    /// same, as the reference does.
    pub(super) fn delta(&self) -> Delta<'_> {
        Delta {
            elements: self
                .elements
                .iter()
                .map(|e| Element { key: &e.key, id: "", value: &e.value })
                .collect(),
            tombstones: self.tombstones.iter().map(|(key, id)| Element { key, id, value: b"" }).collect(),
            priority: 0,
        }
    }

    /// The empty batch that follows; the journal loses the items of this one.
    pub(super) fn emptied(self, effects: &mut Effects) -> Self {
        for number in self.journalled.clone() {
            effects.delete(Table::Journal, number.to_be_bytes().to_vec());
        }
        Self { journalled: self.journalled.end..self.journalled.end, ..Self::default() }
    }
}

fn row(key: &str, value: Option<&[u8]>) -> Vec<u8> {
    let mut row = Vec::with_capacity(5 + key.len() + value.map_or(0, <[u8]>::len));
    match value {
        Some(value) => {
            row.push(WRITE);
            row.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes());
            row.extend_from_slice(key.as_bytes());
            row.extend_from_slice(value);
        }
        None => {
            row.push(DELETE);
            row.extend_from_slice(key.as_bytes());
        }
    }
    row
}

fn parse_row(row: &[u8]) -> Option<(&str, Option<&[u8]>)> {
    match row {
        [WRITE, rest @ ..] => {
            let (length, rest) = rest.split_first_chunk::<4>()?;
            let (key, value) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
            Some((std::str::from_utf8(key).ok()?, Some(value)))
        }
        [DELETE, key @ ..] => Some((std::str::from_utf8(key).ok()?, None)),
        _ => None,
    }
}
