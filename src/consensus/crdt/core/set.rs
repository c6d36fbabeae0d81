//! The add-wins observed-remove set: what a delta changes.
//!
//! A key has adds, one per node that wrote it; a delete kills the adds it saw. The current value of a key is that
//! of the living add with the highest priority, among equals the greatest value.
//!
//! One thing is kept though it breaks that rule, because all replicas must agree with the reference: where one
//! delta has a key several times, each element is compared with what stood before the delta, so the last one that
//! wins stays; a later recomputation takes the greatest.

use std::collections::HashMap;
use std::ops::ControlFlow;

use super::{Change, Effects, Error, keys};
use crate::store::{self, KvRead, Table, blocks};
use crate::wire::crdt_pb::{self, Delta, Element};
use crate::wire::key::spell;

/// A row of [`Table::Values`]: 8 bytes of priority, big endian; the length of a multihash and the multihash of a node
/// that added the key; the value. That one add has no row in [`Table::Adds`], which for most keys means that nothing
/// but this row is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// Height of the node the value is from.
    pub priority: u64,
    /// One of the nodes that added the key, or nothing.
    pub add: &'a [u8],
    /// The current value.
    pub value: &'a [u8],
}

impl<'a> Row<'a> {
    /// Reads a stored row.
    pub fn parse(row: &'a [u8]) -> Result<Self, store::Error> {
        let parts = row.split_first_chunk::<8>().and_then(|(priority, rest)| {
            let (length, rest) = rest.split_first()?;
            let (add, value) = rest.split_at_checked(usize::from(*length))?;
            Some(Self { priority: u64::from_be_bytes(*priority), add, value })
        });
        parts.ok_or_else(|| store::Error::Damaged {
            table: Table::Values.name(),
            message: "the row of a value is cut short".into(),
        })
    }

    /// The row of a key.
    fn read(key: &str, view: &'a dyn KvRead) -> Result<Option<Self>, store::Error> {
        view.get(Table::Values, key.as_bytes())?.map(Self::parse).transpose()
    }

    fn write(&self, key: &str, effects: &mut Effects) {
        let mut row = Vec::with_capacity(9 + self.add.len() + self.value.len());
        row.extend_from_slice(&self.priority.to_be_bytes());
        // a multihash that does not fit stays in its table
        row.push(u8::try_from(self.add.len()).unwrap_or(0));
        row.extend_from_slice(self.add);
        row.extend_from_slice(self.value);
        effects.put(Table::Values, key.as_bytes().to_vec(), row);
    }
}

/// Merges the delta of the node with this multihash. Reads the state before the node; all changes are effects.
pub(super) fn merge(
    delta: &Delta<'_>,
    node: &[u8],
    view: &dyn KvRead,
    effects: &mut Effects,
) -> Result<(), Error> {
    let deleted = merge_tombstones(&delta.tombstones, view, effects)?;
    merge_elements(delta, node, &deleted, view, effects)
}

/// What the tombstones of a delta leave of each key they name: its row, if any.
type Deleted = HashMap<String, Option<OwnRow>>;

struct OwnRow {
    priority: u64,
    add: Vec<u8>,
    value: Vec<u8>,
}

impl OwnRow {
    fn as_row(&self) -> Row<'_> {
        Row { priority: self.priority, add: &self.add, value: &self.value }
    }
}

/// A key with tombstones, and the pairs they kill.
struct Dying {
    key: String,
    prefix: Vec<u8>,
    pairs: Vec<Vec<u8>>,
}

fn merge_tombstones(
    tombstones: &[Element<'_>],
    view: &dyn KvRead,
    effects: &mut Effects,
) -> Result<Deleted, Error> {
    let mut deleted = Deleted::new();
    // in the order of the keys' first tombstones
    let mut dying: Vec<Dying> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for tombstone in tombstones {
        let key = keys::clean(tombstone.key);
        let place = match places.get(key.as_ref()) {
            Some(place) => *place,
            None => {
                let prefix = keys::pair_prefix(&key);
                dying.push(Dying { key: key.clone().into_owned(), prefix, pairs: Vec::new() });
                places.insert(key.into_owned(), dying.len() - 1);
                dying.len() - 1
            }
        };
        let pair = keys::pair(&dying[place].prefix, tombstone.id);
        dying[place].pairs.push(pair);
    }
    for Dying { key, prefix, pairs } in dying {
        let before = Row::read(&key, view)?;
        let add = before.map(|row| row.add.to_vec()).unwrap_or_default();
        let best = best_value(&key, &prefix, &pairs, view)?;
        let left = best.map(|(priority, value)| OwnRow { priority, add: add.clone(), value });
        match &left {
            Some(row) => row.as_row().write(&key, effects),
            None => {
                effects.delete(Table::Values, key.clone().into_bytes());
                if !add.is_empty() {
                    effects.put(Table::Adds, keys::pair_of_node(prefix, &add), Vec::new());
                }
            }
        }
        let mut is_news = before.is_some();
        for pair in pairs {
            is_news = is_news || !view.has(Table::Tombs, &pair)?;
            effects.put(Table::Tombs, pair, Vec::new());
        }
        match &left {
            // also where the add it kills was never here: a walk comes from above, and a daemon may hold the pin still
            None if !is_news => {}
            None => effects.changes.push(Change::Deleted { key: key.clone() }),
            Some(left) if before.is_some_and(|before| before.value == left.value) => {}
            Some(left) => {
                effects.changes.push(Change::Put { key: key.clone(), value: left.value.clone() });
            }
        }
        deleted.insert(key, left);
    }
    Ok(deleted)
}

/// The best of the adds of a key that live on: neither dead in the store nor dying now. Reads the adding nodes.
fn best_value(
    key: &str,
    prefix: &[u8],
    dying: &[Vec<u8>],
    view: &dyn KvRead,
) -> Result<Option<(u64, Vec<u8>)>, Error> {
    let mut best_priority = 0;
    let mut best: Vec<u8> = Vec::new();
    for pair in adds(key, prefix, view)? {
        if dying.contains(&pair) || view.has(Table::Tombs, &pair)? {
            continue;
        }
        let Some(node_id) = keys::node_of_pair(&pair[prefix.len()..]) else { continue };
        let block = blocks::get(view, node_id)?;
        let block = block.ok_or_else(|| Error::MissingBlock(spell(node_id)))?;
        let node = crdt_pb::decode_node(block.data);
        let delta = node.map_err(|e| Error::Damaged(format!("node {}: {e}", spell(node_id))))?.delta;
        if delta.priority < best_priority {
            continue;
        }
        let values = delta.elements.iter().filter(|e| keys::clean(e.key) == key).map(|e| e.value);
        let greatest = values.max().unwrap_or_default();
        if delta.priority > best_priority || greatest > best.as_slice() {
            best_priority = delta.priority;
            best = greatest.to_vec();
        }
    }
    // an empty best value counts as none, as in the reference
    Ok((!best.is_empty()).then_some((best_priority, best)))
}

/// The recorded adds of a key, as pairs: that of its row, and those of the table.
fn adds(key: &str, prefix: &[u8], view: &dyn KvRead) -> Result<Vec<Vec<u8>>, Error> {
    let mut pairs = Vec::new();
    view.scan(Table::Adds, prefix, None, &mut |pair, _| {
        pairs.push(pair.to_vec());
        ControlFlow::Continue(())
    })?;
    if let Some(row) = Row::read(key, view)?
        && !row.add.is_empty()
    {
        let pair = keys::pair_of_node(prefix.to_vec(), row.add);
        if !pairs.contains(&pair) {
            pairs.push(pair);
        }
    }
    Ok(pairs)
}

fn merge_elements(
    delta: &Delta<'_>,
    node: &[u8],
    deleted: &Deleted,
    view: &dyn KvRead,
    effects: &mut Effects,
) -> Result<(), Error> {
    let priority = delta.priority;
    for element in &delta.elements {
        let key = keys::clean(element.key);
        let pair = keys::pair_of_node(keys::pair_prefix(&key), node);
        // what stood before this delta's elements
        let stored = match deleted.get(key.as_ref()) {
            Some(left) => left.as_ref().map(OwnRow::as_row),
            None => Row::read(&key, view)?,
        };
        let is_dead = view.has(Table::Tombs, &pair)?;
        let wins = !is_dead
            && match stored {
                Some(row) => priority > row.priority || priority == row.priority && element.value > row.value,
                None => priority > 0 || !element.value.is_empty(),
            };
        let add = match stored {
            Some(row) => row.add,
            None if wins && node.len() <= usize::from(u8::MAX) => node,
            None => b"",
        };
        if add != node {
            effects.put(Table::Adds, pair, Vec::new());
        }
        if wins {
            Row { priority, add, value: element.value }.write(&key, effects);
            effects.changes.push(Change::Put { key: key.into_owned(), value: element.value.to_vec() });
        }
    }
    Ok(())
}

/// The ids of the living adds of a key: what a delete of it has to name.
pub(super) fn living_ids(key: &str, view: &dyn KvRead) -> Result<Vec<String>, Error> {
    let prefix = keys::pair_prefix(key);
    let mut ids = Vec::new();
    for pair in adds(key, &prefix, view)? {
        if !view.has(Table::Tombs, &pair)? {
            ids.extend(keys::id_of_pair(&pair[prefix.len()..]));
        }
    }
    // the reference's order: that of the ids as text
    ids.sort_unstable();
    Ok(ids)
}
