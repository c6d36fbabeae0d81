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

/// A stored value: its priority, 8 bytes big endian, then the value.
pub fn value_of_row(row: &[u8]) -> Result<(u64, &[u8]), store::Error> {
    row.split_first_chunk::<8>().map(|(priority, value)| (u64::from_be_bytes(*priority), value)).ok_or_else(
        || store::Error::Damaged {
            table: Table::Values.name(),
            message: "a value without its priority".into(),
        },
    )
}

fn row_of_value(priority: u64, value: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(8 + value.len());
    row.extend_from_slice(&priority.to_be_bytes());
    row.extend_from_slice(value);
    row
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

/// What the tombstones of a delta leave of each key they name: its value and priority.
type Deleted = HashMap<String, Option<(u64, Vec<u8>)>>;

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
        let best = best_value(&key, &prefix, &pairs, view)?;
        match &best {
            Some((priority, value)) => {
                effects.put(Table::Values, key.clone().into_bytes(), row_of_value(*priority, value));
            }
            None => effects.delete(Table::Values, key.clone().into_bytes()),
        }
        for pair in pairs {
            effects.put(Table::Tombs, pair, Vec::new());
        }
        effects.changes.push(Change::Deleted { key: key.clone() });
        deleted.insert(key, best);
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
    for pair in adds(prefix, view)? {
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

/// The stored adds of a key, as pairs.
fn adds(prefix: &[u8], view: &dyn KvRead) -> Result<Vec<Vec<u8>>, Error> {
    let mut pairs = Vec::new();
    view.scan(Table::Adds, prefix, None, &mut |pair, _| {
        pairs.push(pair.to_vec());
        ControlFlow::Continue(())
    })?;
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
        let is_dead = view.has(Table::Tombs, &pair)?;
        effects.put(Table::Adds, pair, Vec::new());
        if is_dead {
            continue;
        }
        let beats = |stored_priority: u64, stored: &[u8]| {
            priority > stored_priority || priority == stored_priority && element.value > stored
        };
        let wins = match deleted.get(key.as_ref()) {
            Some(Some((priority, value))) => beats(*priority, value),
            Some(None) => beats(0, b""),
            None => match view.get(Table::Values, key.as_bytes())? {
                Some(row) => {
                    let (priority, value) = value_of_row(row)?;
                    beats(priority, value)
                }
                None => beats(0, b""),
            },
        };
        if wins {
            let key = key.into_owned();
            effects.put(Table::Values, key.clone().into_bytes(), row_of_value(priority, element.value));
            effects.changes.push(Change::Put { key, value: element.value.to_vec() });
        }
    }
    Ok(())
}

/// The ids of the living adds of a key: what a delete of it has to name.
pub(super) fn living_ids(key: &str, view: &dyn KvRead) -> Result<Vec<String>, Error> {
    let prefix = keys::pair_prefix(key);
    let mut ids = Vec::new();
    for pair in adds(&prefix, view)? {
        if !view.has(Table::Tombs, &pair)? {
            ids.extend(keys::id_of_pair(&pair[prefix.len()..]));
        }
    }
    // the reference's order: that of the ids as text
    ids.sort_unstable();
    Ok(ids)
}
