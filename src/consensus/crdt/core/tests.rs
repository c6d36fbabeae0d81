//! Recorded histories of the reference, replayed; and the core's own habits.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use cluster_compat::types::Cid;
use serde_json::Value;

use super::*;
use crate::store::{Kv, Mem, kv};
use crate::wire::key::spell;

/// A replica without a network: blocks come from `known`, or not at all.
pub(super) struct Replica {
    pub(super) kv: Mem,
    pub(super) state: State,
    pub(super) known: HashMap<Cid, Vec<u8>>,
    pub(super) changes: Vec<Change>,
    pub(super) made: Vec<Cid>,
}

impl Replica {
    pub(super) fn new() -> Self {
        let kv = Mem::new();
        let state = kv::read(&kv, State::load).unwrap();
        Self { kv, state, known: HashMap::new(), changes: Vec::new(), made: Vec::new() }
    }

    /// Handles an event and all that follows from it, each in a transaction.
    pub(super) fn feed(&mut self, event: Event<'_>) {
        let mut fetch = self.feed_one(event);
        while let Some(Fetch { cid, .. }) = fetch.pop() {
            let event = match self.known.get(&cid) {
                Some(data) => Event::Block { cid, data: data.clone() },
                None => Event::Unavailable(cid),
            };
            fetch.extend(self.feed_one(event));
        }
    }

    /// Handles an event, and tells which blocks it needs.
    pub(super) fn feed_one(&mut self, event: Event<'_>) -> Vec<Fetch> {
        let mut fetch = Vec::new();
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let state = &mut self.state;
            let effects = kv::write(&self.kv, |transaction| {
                let effects = state.handle(event, transaction.as_read())?;
                effects.apply(transaction)?;
                Ok::<_, Error>(effects)
            })
            .unwrap();
            if effects.more {
                next = Some(Event::Continue);
            }
            fetch.extend(effects.fetch);
            self.changes.extend(effects.changes);
            self.made.extend(effects.made);
        }
        fetch
    }

    /// Forgets what is not stored.
    pub(super) fn restart(&mut self) {
        self.state = kv::read(&self.kv, State::load).unwrap();
    }

    pub(super) fn rows(&self, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        kv::read(&self.kv, |view| {
            view.scan(table, b"", None, &mut |key, value| {
                rows.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            })
        })
        .unwrap();
        rows
    }

    /// Pairs of key and id, as the reference spells them; an add may stand in the row of its key.
    pub(super) fn pairs(&self, table: Table) -> Vec<String> {
        let text = |packed: &[u8]| keys::id_of_pair(packed).unwrap();
        let mut pairs: Vec<_> = self
            .rows(table)
            .iter()
            .map(|(pair, _)| {
                let (length, rest) = pair.split_first().unwrap();
                let (key, id) = rest.split_at(usize::from(*length));
                format!("{}{}", text(key), text(id))
            })
            .collect();
        if table == Table::Adds {
            for (key, row) in self.rows(Table::Values) {
                let row = Row::parse(&row).unwrap();
                if !row.add.is_empty() {
                    pairs.push(format!("{}{}", String::from_utf8(key).unwrap(), spell(row.add)));
                }
            }
        }
        pairs.sort();
        pairs
    }

    /// Keys with their priorities and values.
    pub(super) fn values(&self) -> BTreeMap<String, (u64, Vec<u8>)> {
        let rows = self.rows(Table::Values).into_iter();
        rows.map(|(key, row)| {
            let row = Row::parse(&row).unwrap();
            (String::from_utf8(key).unwrap(), (row.priority, row.value.to_vec()))
        })
        .collect()
    }

    /// The replica as the recordings describe one.
    fn describe(&self) -> Value {
        let values = self.values().into_iter().map(|(key, (priority, value))| {
            (key, serde_json::json!({ "priority": priority, "value": hex::encode(value) }))
        });
        let values: BTreeMap<_, _> = values.collect();
        let heads: BTreeMap<_, _> =
            self.state.heads().heights().map(|(cid, height)| (name(&cid), height)).collect();
        let mut processed: Vec<_> = self
            .rows(Table::Blocks)
            .iter()
            .filter(|(_, row)| row[0] == 1)
            .map(|(key, _)| spell(key)[1..].to_owned())
            .collect();
        processed.sort();
        serde_json::json!({
            "adds": self.pairs(Table::Adds),
            "dirty": kv::read(&self.kv, is_dirty).unwrap(),
            "heads": heads,
            "processed": processed,
            "tombstones": self.pairs(Table::Tombs),
            "values": values,
        })
    }
}

/// A node as the reference's datastore names it.
fn name(cid: &Cid) -> String {
    spell(&cid.hash().to_bytes())[1..].to_owned()
}

pub(super) fn cid(text: &Value) -> Cid {
    text.as_str().unwrap().parse().unwrap()
}

pub(super) fn replay(history: &Value) -> Replica {
    let mut replica = Replica::new();
    let mut withheld = HashMap::new();
    for step in history["steps"].as_array().unwrap() {
        if let Some(block) = step["block"].as_str() {
            let (cid, block) = (cid(&step["node"]), hex::decode(block).unwrap());
            let place = if step["withheld"] == true { &mut withheld } else { &mut replica.known };
            place.insert(cid, block);
        } else if let Some(tips) = step["announce"].as_array() {
            let tips: Vec<_> = tips.iter().map(cid).collect();
            replica.feed(Event::Announced(&tips));
        } else if step.get("serve").is_some() {
            replica.known.extend(withheld.drain());
        }
    }
    replica
}

#[test]
fn recorded_histories_end_as_in_the_reference() {
    let mut n_histories = 0;
    for line in include_str!("../../../../fixtures/crdt/histories.jsonl").lines() {
        let mut history: Value = serde_json::from_str(line).unwrap();
        let replica = replay(&history);
        // where a ruling asks for more than the reference does
        let ours = if history["ours"].is_null() { "expected" } else { "ours" };
        history[ours].as_object_mut().unwrap().remove("listed");
        let (found, expected) = (replica.describe(), &history[ours]);
        assert_eq!(found, *expected, "history {}", history["name"]);
        n_histories += 1;
    }
    assert_eq!(n_histories, 28);
}

#[test]
fn a_history_ends_the_same_when_its_nodes_come_one_by_one() {
    for line in include_str!("../../../../fixtures/crdt/histories.jsonl").lines() {
        let history: Value = serde_json::from_str(line).unwrap();
        let name = history["name"].as_str().unwrap();
        if !name.starts_with("random") {
            continue;
        }
        let mut replica = Replica::new();
        for step in history["steps"].as_array().unwrap() {
            if let Some(block) = step["block"].as_str() {
                let cid = cid(&step["node"]);
                replica.known.insert(cid, hex::decode(block).unwrap());
                replica.feed(Event::Announced(&[cid]));
            }
        }
        assert_eq!(replica.describe()["values"], history["expected"]["values"], "history {name}");
    }
}

#[test]
fn nodes_written_by_the_reference_come_out_the_same() {
    let recorded: Value = serde_json::from_str(include_str!("../../../../fixtures/crdt/nodes.json")).unwrap();
    for node in recorded["nodes"].as_array().unwrap() {
        let block = hex::decode(node[1].as_str().unwrap()).unwrap();
        assert_eq!(crdt_pb::node_cid(&block), cid(&node[0]));
        let node = crdt_pb::decode_node(&block).unwrap();
        assert_eq!(hex::encode(crdt_pb::encode_node(&node.links, &node.delta)), hex::encode(&block));
    }
}

/// Writes what the recorded nodes say, as they were written: a node must get the recorded CID.
#[test]
fn the_same_writes_give_the_same_nodes() {
    let recorded: Value = serde_json::from_str(include_str!("../../../../fixtures/crdt/nodes.json")).unwrap();
    let mut replica = Replica::new();
    let mut n_made = 0;
    for recorded in recorded["nodes"].as_array().unwrap().iter().rev() {
        let cid = cid(&recorded[0]);
        let block = hex::decode(recorded[1].as_str().unwrap()).unwrap();
        let node = crdt_pb::decode_node(&block).unwrap();
        if node.links == replica.state.heads().list() {
            let n_before = replica.made.len();
            match (&node.delta.elements[..], &node.delta.tombstones[..]) {
                ([element], []) => replica.feed(Event::Put { key: element.key, value: element.value }),
                ([], [tombstone]) => replica.feed(Event::Delete { key: tombstone.key }),
                (elements, tombstones) => {
                    let writes = elements.iter().map(|e| (e.key, Some(e.value)));
                    let deletes = tombstones.iter().map(|t| (t.key, None));
                    for (key, value) in deletes.chain(writes) {
                        replica.feed(Event::Queue { key, value, is_journalled: true });
                    }
                    replica.feed(Event::Commit);
                }
            }
            assert_eq!(replica.made[n_before..], [cid]);
            n_made += 1;
        }
        replica.known.insert(cid, block);
        replica.feed(Event::Announced(&[cid]));
    }
    assert!(n_made > 20, "only {n_made} nodes were made over the recorded heads");
}

#[test]
fn a_key_written_once_is_one_row_and_its_add_outlives_it() {
    let mut replica = Replica::new();
    replica.feed(Event::Put { key: "/K", value: b"v" });
    assert!(replica.rows(Table::Adds).is_empty());
    let added = replica.pairs(Table::Adds);
    replica.feed(Event::Delete { key: "/K" });
    assert_eq!((replica.rows(Table::Adds).len(), replica.pairs(Table::Adds)), (1, added));
    replica.feed(Event::Put { key: "/K", value: b"w" });
    replica.feed(Event::Put { key: "/K", value: b"x" });
    assert_eq!(replica.pairs(Table::Adds).len(), 3);
    replica.feed(Event::Delete { key: "/K" });
    assert_eq!((replica.values().len(), replica.pairs(Table::Tombs).len()), (0, 3));
}

#[test]
fn deleting_what_is_not_there_makes_no_node() {
    let mut replica = Replica::new();
    replica.feed(Event::Delete { key: "/AFKREIGH2AKISCAILDCQABSYG3DFR6CHU3FGPREGIYMSCK7E7AQA4S52ZY" });
    assert!(replica.made.is_empty() && replica.state.heads().is_empty());
}

#[test]
fn a_delete_takes_back_pending_writes_and_kills_stored_ones() {
    let mut replica = Replica::new();
    replica.feed(Event::Put { key: "/K", value: b"old" });
    replica.feed(Event::Queue { key: "/K", value: Some(b"new"), is_journalled: true });
    replica.feed(Event::Queue { key: "/L", value: Some(b"other"), is_journalled: true });
    replica.feed(Event::Queue { key: "/K", value: None, is_journalled: true });
    assert_eq!(replica.rows(Table::Values).len(), 1, "nothing shows before the commit");
    replica.feed(Event::Commit);
    let keys: Vec<_> = replica.rows(Table::Values).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [b"/L"]);
    assert!(replica.rows(Table::Journal).is_empty());
}

#[test]
fn a_pending_batch_survives_a_restart() {
    let mut replica = Replica::new();
    replica.feed(Event::Queue { key: "/K", value: Some(b"one"), is_journalled: true });
    replica.feed(Event::Queue { key: "/L", value: None, is_journalled: true });
    replica.state = kv::read(&replica.kv, State::load).unwrap();
    assert_eq!(replica.state.n_pending(), 2);
    replica.feed(Event::Queue { key: "/M", value: Some(b"two"), is_journalled: true });
    replica.feed(Event::Commit);
    assert_eq!(replica.rows(Table::Values).len(), 2);
    assert!(replica.rows(Table::Journal).is_empty());
    replica.state = kv::read(&replica.kv, State::load).unwrap();
    assert_eq!((replica.state.n_pending(), replica.state.heads().max_height()), (0, 1));
}

#[test]
fn a_batch_that_grows_too_large_is_committed_at_once() {
    let mut replica = Replica::new();
    let value = vec![7; 300_000];
    for key in ["/A", "/B", "/C"] {
        replica.feed(Event::Queue { key, value: Some(&value), is_journalled: false });
    }
    assert_eq!(replica.made.len(), 0);
    replica.feed(Event::Queue { key: "/D", value: Some(&value), is_journalled: false });
    assert_eq!((replica.made.len(), replica.state.n_pending()), (1, 0));
}

#[test]
fn cleaning_leaves_nothing() {
    let mut replica = Replica::new();
    replica.feed(Event::Put { key: "/K", value: b"v" });
    replica.feed(Event::Queue { key: "/L", value: Some(b"v"), is_journalled: true });
    replica.feed(Event::MarkDirty(true));
    replica
        .kv
        .with_transaction(&mut |t| {
            clean(t).unwrap();
            store::Outcome::Commit
        })
        .unwrap();
    for table in Table::ALL {
        assert!(replica.rows(table).is_empty(), "{}", table.name());
    }
}

/// A chain of three nodes of somebody else, from the top.
fn chain(replica: &mut Replica) -> Vec<Cid> {
    let mut writer = Replica::new();
    for key in ["/A", "/B", "/C"] {
        writer.feed(Event::Put { key, value: b"v" });
    }
    for cid in &writer.made {
        replica.known.insert(*cid, store::blocks::load(&writer.kv, cid).unwrap().unwrap());
    }
    writer.made.into_iter().rev().collect()
}

#[test]
fn a_restart_resumes_a_walk_without_a_new_announcement() {
    let mut replica = Replica::new();
    let chain = chain(&mut replica);
    let bottom = replica.known.remove(&chain[2]).unwrap();
    replica.feed(Event::Announced(&chain[..1]));
    assert_eq!((replica.values().len(), replica.state.n_stalled()), (2, 1));
    replica.known.insert(chain[2], bottom);
    replica.restart();
    assert_eq!((replica.state.n_unfinished(), replica.state.has_more()), (1, true));
    replica.feed(Event::Continue);
    assert_eq!((replica.values().len(), replica.state.n_unfinished()), (3, 0));
    assert!(!kv::read(&replica.kv, is_dirty).unwrap());
}

#[test]
fn a_set_that_was_marked_dirty_is_walked_whole() {
    let mut replica = Replica::new();
    let chain = chain(&mut replica);
    replica.feed(Event::Announced(&chain[..1]));
    kv::write(&replica.kv, |t| t.delete(Table::Blocks, &blocks::key(&chain[1]))).unwrap();
    replica.feed(Event::MarkDirty(true));
    replica.restart();
    replica.feed(Event::Repair);
    assert_eq!(replica.rows(Table::Blocks).len(), 3);
    assert_eq!(replica.state.heads().list(), chain[..1]);
    assert!(!kv::read(&replica.kv, is_dirty).unwrap() && replica.rows(Table::Unfinished).is_empty());
}

#[test]
fn a_tip_that_cannot_be_had_is_forgotten_until_it_is_announced_again() {
    let mut replica = Replica::new();
    let chain = chain(&mut replica);
    let top = replica.known.remove(&chain[0]).unwrap();
    replica.feed(Event::Announced(&chain[..1]));
    assert!(replica.state.heads().is_empty() && !kv::read(&replica.kv, is_dirty).unwrap());
    replica.known.insert(chain[0], top);
    replica.feed(Event::Announced(&chain[..1]));
    assert_eq!(replica.state.heads().list(), chain[..1]);
}

#[test]
fn a_delete_that_leaves_a_value_is_a_change_to_that_value() {
    let (mut one, mut other) = (Replica::new(), Replica::new());
    one.feed(Event::Put { key: "/K", value: b"one" });
    other.feed(Event::Put { key: "/K", value: b"other" });
    other.feed(Event::Delete { key: "/K" });
    for cid in &other.made {
        one.known.insert(*cid, store::blocks::load(&other.kv, cid).unwrap().unwrap());
    }
    one.feed(Event::Announced(&other.made[..1]));
    assert_eq!(one.values()["/K"].1, b"other");
    one.changes.clear();
    one.feed(Event::Announced(&other.made[1..]));
    assert_eq!(one.changes, [Change::Put { key: "/K".into(), value: b"one".into() }]);
}

#[test]
fn a_delete_is_told_once_though_the_add_it_kills_was_never_here() {
    let mut one = Replica::new();
    one.feed(Event::Put { key: "/K", value: b"one" });
    let add = one.made[0];
    one.feed(Event::Delete { key: "/K" });
    let (mut other, tip) = (Replica::new(), one.made[1]);
    for cid in [add, tip] {
        other.known.insert(cid, store::blocks::load(&one.kv, &cid).unwrap().unwrap());
    }
    other.feed(Event::Announced(&[tip]));
    assert!(other.values().is_empty());
    assert_eq!(other.changes, [Change::Deleted { key: "/K".into() }]);
}
