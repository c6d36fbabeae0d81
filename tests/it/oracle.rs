//! Histories made by chance, and what go-ds-crdt 0.6.8 makes of them: `fixtures/crdt/by-chance.jsonl`. The core is
//! held against that file wherever `cargo test` runs; here the file is held against the Go peer of `tests/interop`.
//!
//! `ORACLE=1` asks the Go peer; it is no test for every run, since the original merges branches side by side: where a
//! node has a key twice, what is left after a delete depends there on which branch came first, and a busy machine
//! changes that. `BLESS=1` writes the file anew; `ORACLE_HISTORIES=n` makes as many instead of those that are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use cluster_compat::types::Cid;
use ipfs_cluster::wire::crdt_pb::{self, Delta, Element};
use ipfs_cluster::wire::key;
use serde_json::{Value, json};

use crate::scripted::Scripted;
use crate::support::{cid, eventually};

/// Histories that are kept: with those of the reference itself there are 39.
const N_HISTORIES: u64 = 11;

/// A small generator of our own, so that a seed means the same for ever (xorshift64*).
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}

struct Made {
    cid: Cid,
    height: u64,
    keys: Vec<String>,
}

/// Nodes over earlier ones, with conflicts and deletes, and announcements of some of them; the last node is a root of
/// its own under `/END`, so that its merge is the end of all others.
fn history(seed: u64) -> Value {
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let keys: Vec<String> = (0..5).map(|n| key::of_cid(&cid(n))).chain(["/odd".to_owned()]).collect();
    let mut made: Vec<Made> = Vec::new();
    let mut steps = Vec::new();
    for n in 0..15 + chance.below(15) {
        let n_parents = [0, 1, 1, 1, 1, 2, 2, 3][chance.below(8)].min(made.len());
        let mut parents = BTreeSet::new();
        while parents.len() < n_parents {
            // mostly the latest: long branches, some of them forked far below
            let back = if chance.below(3) == 0 { chance.below(made.len()) } else { chance.below(3) };
            parents.insert(made.len() - 1 - back.min(made.len() - 1));
        }
        let height = parents.iter().map(|at| made[*at].height).max().unwrap_or(0) + 1;
        // heights are what their writers say
        let height = if chance.below(12) == 0 { chance.below(20) as u64 } else { height };
        let mut free: Vec<&String> = keys.iter().collect();
        let mut elements = Vec::new();
        for _ in 0..chance.below(4) {
            let key = free.remove(chance.below(free.len()));
            elements.push((key, format!("value {}", chance.below(40)).into_bytes()));
        }
        let mut tombstones = Vec::new();
        for _ in 0..[0, 0, 0, 1, 1, 2][chance.below(6)] {
            let Some(at) = (!made.is_empty()).then(|| chance.below(made.len())) else { continue };
            if let Some(key) = made[at].keys.first() {
                tombstones.push((key.clone(), key::spell(&made[at].cid.hash().to_bytes())));
            }
        }
        let delta = Delta {
            elements: elements.iter().map(|(key, value)| Element { key, id: "", value }).collect(),
            tombstones: tombstones.iter().map(|(key, id)| Element { key, id, value: b"" }).collect(),
            priority: height,
        };
        let mut links: Vec<Cid> = parents.iter().map(|at| made[*at].cid).collect();
        links.sort_by_key(Cid::to_bytes);
        let block = crdt_pb::encode_node(&links, &delta);
        let node = crdt_pb::node_cid(&block);
        if made.iter().any(|other| other.cid == node) {
            continue;
        }
        let keys = elements.iter().map(|(key, _)| (*key).clone()).collect();
        made.push(Made { cid: node, height, keys });
        steps.push(json!({ "node": node.to_string(), "block": hex::encode(&block) }));
        if n % 3 == 2 {
            let tips: BTreeSet<_> =
                (0..=chance.below(3)).map(|_| made.len() - 1 - chance.below(made.len().min(5))).collect();
            let tips: Vec<_> = tips.iter().map(|at| made[*at].cid.to_string()).collect();
            steps.push(json!({ "announce": tips }));
        }
    }
    let last = Delta {
        elements: vec![Element { key: "/END", id: "", value: b"" }],
        tombstones: vec![],
        priority: 1,
    };
    let block = crdt_pb::encode_node(&[], &last);
    let node = crdt_pb::node_cid(&block).to_string();
    steps.push(json!({ "node": node, "block": hex::encode(&block) }));
    steps.push(json!({ "announce": [node] }));
    json!({ "name": format!("by-chance-{seed}"), "steps": steps })
}

/// The datastore of a Go peer that took a history; its blocks are those of the history.
async fn go_rows(history: &Value) -> Option<BTreeMap<String, String>> {
    let mut go = Scripted::start(&[]).await?;
    let steps = history["steps"].as_array().unwrap();
    for step in steps {
        if let Some(block) = step["block"].as_str() {
            go.run(&format!("block {block}")).await;
        } else {
            let tips = step["announce"].as_array().unwrap().iter();
            let tips: Vec<_> = tips.map(|tip| tip.as_str().unwrap()).collect();
            go.run(&format!("take {}", tips.join(" "))).await;
        }
    }
    let last: Cid = steps.last().unwrap()["announce"][0].as_str().unwrap().parse().unwrap();
    let head = last.to_string();
    eventually("the last head is there", async || go.heads().await.contains(&head)).await.unwrap();
    let store = go.run("store").await;
    let rows = store["set"].as_object().unwrap().iter();
    let rows = rows.filter(|(key, _)| !key.starts_with("/c/b/blocks/"));
    Some(rows.map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())).collect())
}

fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/crdt/by-chance.jsonl")
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_histories_by_chance_are_what_go_makes_of_them() {
    if std::env::var("BLESS").is_ok() {
        let wanted = std::env::var("ORACLE_HISTORIES").ok().and_then(|n| n.parse().ok());
        let mut text = String::new();
        for seed in 1..=wanted.unwrap_or(N_HISTORIES) {
            let mut history = history(seed);
            let Some(rows) = go_rows(&history).await else { return };
            history["rows"] = json!(rows);
            text.push_str(&format!("{history}\n"));
        }
        std::fs::write(fixture(), text).unwrap();
    }
    let recorded = std::fs::read_to_string(fixture()).unwrap();
    for (line, seed) in recorded.lines().zip(1..) {
        let mut recorded: Value = serde_json::from_str(line).unwrap();
        let expected: BTreeMap<String, String> =
            serde_json::from_value(recorded.as_object_mut().unwrap().remove("rows").unwrap()).unwrap();
        assert_eq!(recorded, history(seed), "the fixture is not what this file makes");
        if std::env::var("ORACLE").is_err() {
            eprintln!("skipped: ORACLE is not set");
            continue;
        }
        let Some(found) = go_rows(&recorded).await else { return };
        assert_eq!(found, expected, "history {seed}");
    }
}
