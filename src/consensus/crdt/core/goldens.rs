//! Recorded nodes in words, listings and whole datastores of the reference, held against this core.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::super::SetReads;
use super::tests::{Replica, cid, replay};
use super::*;
use crate::state::Pinset;
use crate::wire::key::spell;

fn lines(text: &str) -> impl Iterator<Item = Value> + '_ {
    text.lines().map(|line| serde_json::from_str(line).unwrap())
}

fn histories() -> impl Iterator<Item = Value> {
    lines(include_str!("../../../../fixtures/crdt/histories.jsonl"))
}

fn two_writers() -> Value {
    serde_json::from_str(include_str!("../../../../fixtures/crdt/nodes.json")).unwrap()
}

/// Every recorded block of a node, readable or not.
fn blocks_by_cid() -> HashMap<Cid, Vec<u8>> {
    let mut blocks = HashMap::new();
    let mut insert = |node: &Value, block: &Value| {
        blocks.insert(cid(node), hex::decode(block.as_str().unwrap()).unwrap());
    };
    for history in histories() {
        for step in history["steps"].as_array().unwrap().iter().filter(|step| step.get("block").is_some()) {
            insert(&step["node"], &step["block"]);
        }
    }
    for node in two_writers()["nodes"].as_array().unwrap() {
        insert(&node[0], &node[1]);
    }
    blocks
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn pinset(replica: Replica) -> Pinset {
    Pinset::new(Arc::new(SetReads(replica.kv)))
}

#[test]
fn every_recorded_node_says_what_the_reference_reads_in_it_and_is_made_again_of_those_words() {
    let mut blocks = blocks_by_cid();
    for words in lines(include_str!("../../../../fixtures/crdt/words.jsonl")) {
        let title = text_of(&words["cid"]);
        let block = blocks.remove(&cid(&words["cid"])).unwrap();
        assert_eq!(crdt_pb::node_cid(&block), cid(&words["cid"]), "{title}");

        let values: Vec<_> = words["elements"].as_array().unwrap().iter().map(|e| text_of(&e[1])).collect();
        let values: Vec<_> = values.into_iter().map(|value| hex::decode(value).unwrap()).collect();
        let elements = words["elements"].as_array().unwrap().iter().zip(&values);
        let tombstones = words["tombstones"].as_array().unwrap().iter();
        let delta = Delta {
            elements: elements.map(|(e, value)| Element { key: text_of(&e[0]), id: "", value }).collect(),
            tombstones: tombstones
                .map(|t| Element { key: text_of(&t[0]), id: text_of(&t[1]), value: b"" })
                .collect(),
            priority: words["priority"].as_u64().unwrap(),
        };
        let parents: Vec<_> = words["parents"].as_array().unwrap().iter().map(cid).collect();

        let node = crdt_pb::decode_node(&block).unwrap();
        assert_eq!(node.delta, delta, "{title}");
        assert_eq!(node.links, parents, "{title}");
        assert_eq!(delta.encoded_len(), delta_len(&block, parents.len()), "{title}");
        assert_eq!(hex::encode(crdt_pb::encode_node(&parents, &delta)), hex::encode(&block), "{title}");
    }
    let unreadable: Vec<_> = blocks.into_values().collect();
    assert_eq!(unreadable, [vec![0xff; 4]]);
    assert!(crdt_pb::decode_node(&unreadable[0]).is_err());
}

/// Bytes of the delta in a block, from the outside: a link takes 44, the rest is a tag, a length and the delta.
fn delta_len(block: &[u8], n_links: usize) -> usize {
    let rest = block.len() - 44 * n_links;
    let head = (1..).find(|n| rest - 1 - n < 1 << (7 * n)).unwrap();
    rest - 1 - head
}

#[test]
fn recorded_histories_list_what_the_reference_lists() {
    for history in histories() {
        // where a ruling asks for more than the reference does
        let ours = if history["ours"].is_null() { "expected" } else { "ours" };
        let listed = history[ours]["listed"].as_array().unwrap();
        let expected: BTreeMap<_, _> = listed.iter().map(|p| (cid(&p["cid"]), text_of(&p["name"]))).collect();
        let (pins, _) = pinset(replay(&history)).page(None, 10_000).unwrap();
        let found: BTreeMap<_, _> = pins.iter().map(|pin| (pin.cid, pin.options.name.as_str())).collect();
        assert_eq!(found, expected, "history {}", history["name"]);
        assert_eq!(pins.len(), listed.len(), "history {}", history["name"]);
    }
}

#[test]
fn the_pins_of_two_writers_are_listed_as_the_reference_lists_them() {
    let recorded = two_writers();
    let nodes = recorded["nodes"].as_array().unwrap();
    let mut replica = Replica::new();
    replica.known = blocks_by_cid();
    replica.feed(Event::Announced(&[cid(&nodes[0][0])]));
    assert_eq!(replica.rows(Table::Blocks).len(), nodes.len());
    assert_eq!(replica.state.heads().list(), [cid(&nodes[0][0])]);

    let mut out = Vec::new();
    crate::state::export(&pinset(replica), &mut out).unwrap();
    let found = String::from_utf8(out).unwrap();
    let found: BTreeSet<_> =
        lines(&found).map(|mut pin| pin.as_object_mut().map(|pin| format!("{pin:?}"))).collect();
    let listed = recorded["listed"].as_array().unwrap();
    let expected: BTreeSet<_> = listed.iter().map(|pin| pin.as_object().map(|p| format!("{p:?}"))).collect();
    assert_eq!(found, expected);
    assert_eq!(listed.len(), 51);
}

fn uvarint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

/// The rows the reference would keep under its namespace for what this replica holds.
fn reference_rows(replica: &Replica) -> BTreeMap<String, String> {
    let mut rows = BTreeMap::from([("/c/crdt_version".to_owned(), "02".to_owned())]);
    let mut put = |key: String, value: &[u8]| rows.insert(key, hex::encode(value));
    for (multihash, row) in replica.rows(Table::Blocks) {
        let name = spell(&multihash);
        put(format!("/c/b/blocks{name}"), &row[1..]);
        if row[0] == 1 {
            put(format!("/c/b{name}"), b"");
        }
    }
    for (head, height) in replica.state.heads().heights() {
        put(format!("/c/h{}", spell(&head.hash().to_bytes())), &uvarint(height));
    }
    for (place, table) in [("s", Table::Adds), ("t", Table::Tombs)] {
        for pair in replica.pairs(table) {
            put(format!("/c/s/{place}{pair}"), b"");
        }
    }
    for (key, (priority, value)) in replica.values() {
        put(format!("/c/s/k{key}/v"), &value);
        put(format!("/c/s/k{key}/p"), &uvarint(priority + 1));
    }
    rows
}

#[test]
fn three_recorded_datastores_hold_the_same_rows() {
    let stores: Vec<_> = lines(include_str!("../../../../fixtures/crdt/stores.jsonl")).collect();
    for store in &stores {
        let history = histories().find(|history| history["name"] == store["name"]).unwrap();
        let rows = store["rows"].as_array().unwrap().iter();
        let expected: BTreeMap<_, _> =
            rows.map(|row| (text_of(&row[0]).to_owned(), text_of(&row[1]).to_owned())).collect();
        assert_eq!(reference_rows(&replay(&history)), expected, "history {}", store["name"]);
    }
    assert_eq!(stores.len(), 3);
}

/// Histories made by chance and the rows of go-ds-crdt after them; `tests/it/oracle.rs` makes the file.
#[test]
fn histories_by_chance_end_as_in_go() {
    let mut n_histories = 0;
    for history in lines(include_str!("../../../../fixtures/crdt/by-chance.jsonl")) {
        let rows = history["rows"].as_object().unwrap().iter();
        let expected: BTreeMap<_, _> =
            rows.map(|(key, value)| (key.clone(), text_of(value).to_owned())).collect();
        let mut found = reference_rows(&replay(&history));
        found.retain(|key, _| !key.starts_with("/c/b/blocks/"));
        assert_eq!(found, expected, "history {}", history["name"]);
        n_histories += 1;
    }
    assert!(n_histories >= 11);
}

/// The reference fails to read both forms and takes nothing in. We take the heads: a bare CID as the rulings say, and
/// those of a message that has a field more, as protobuf says.
#[test]
fn recorded_broadcasts_of_old_and_coming_peers_are_read() {
    let history = histories().find(|history| history["name"] == "legacy-broadcast").unwrap();
    let mut n_broadcasts = 0;
    for step in history["steps"].as_array().unwrap().iter().filter(|step| step.get("broadcast").is_some()) {
        let heads = crdt_pb::decode_heads(&hex::decode(text_of(&step["broadcast"])).unwrap()).unwrap();
        assert_eq!(heads, step["heads"].as_array().unwrap().iter().map(cid).collect::<Vec<_>>());
        n_broadcasts += 1;
    }
    assert_eq!(n_broadcasts, 2);
}
