//! Known inputs and their CIDs: `fixtures/add/vectors.jsonl`.

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster_compat::types::{AddParams, Block, Cid};
use serde_json::Value;

use super::recipes::{self, ChaCha, Data};
use super::{Collector, Memory, add, entry, pinned};
use crate::adder::buffer::Pool;
use crate::adder::collector::{self, Kept};
use crate::adder::decode;
use crate::adder::hash::{CidBuilder, DAG_PB};
use crate::adder::layout::{Balanced, Layout};
use crate::adder::unixfs::{LEAF_HEAD, LeafKind, leaf};

/// Parameters and upload of a line of a fixture; `None` if it needs a file that is not here.
pub(super) fn case(line: &Value, data: &mut Data) -> Option<(AddParams, Memory)> {
    let recipe = recipes::read(line, data)?;
    Some((recipe.params, Memory::new(recipe.entries)))
}

/// Lengths of the leaves of a file, in order.
pub(super) fn leaf_lengths(kept: &Kept, root: Cid) -> Vec<u64> {
    let mut lengths = Vec::new();
    let mut todo = vec![root];
    while let Some(cid) = todo.pop() {
        let data = kept.blocks[&cid].clone();
        if cid.codec() != DAG_PB {
            lengths.push(data.len() as u64);
            continue;
        }
        let links = collector::links(&data);
        if links.is_empty() {
            lengths.push(decode::file_size(&Block { cid, data, is_spare: false }));
        }
        todo.extend(links.into_iter().rev());
    }
    lengths
}

/// One line: the root, what else it says, and that everything beneath the root was sent.
async fn check(vector: &Value, data: &mut Data) {
    let id = vector["id"].as_str().unwrap();
    let Some((params, upload)) = case(vector, data) else { return };
    let host = Arc::new(Collector::new());
    let (events, error) = add(params, upload, &host).await;
    assert_eq!(error, None, "{id}");
    let root = events.last().unwrap().cid.unwrap();
    assert_eq!(root.to_string(), vector["cid"].as_str().unwrap(), "{id}");
    assert_eq!(pinned(&host), [root], "{id}");
    host.assert_complete(root);
    for (name, cid) in vector["nodes"].as_object().into_iter().flatten() {
        let event = events.iter().find(|event| event.name == *name).unwrap_or_else(|| panic!("{id}: {name}"));
        assert_eq!(event.cid.unwrap().to_string(), cid.as_str().unwrap(), "{id}: {name}");
    }
    if let Some(blocks) = vector["blocks"].as_array() {
        let expected: BTreeSet<_> = blocks.iter().map(|cid| cid.as_str().unwrap().to_owned()).collect();
        let sent: BTreeSet<_> = host.kept().blocks.keys().map(ToString::to_string).collect();
        assert_eq!(sent, expected, "{id}");
    }
    if let Some(chunks) = vector["chunks"].as_object() {
        let lengths = leaf_lengths(&host.kept(), root);
        assert_eq!(lengths.len() as u64, chunks["n"].as_u64().unwrap(), "{id}");
        let first: Vec<u64> = serde_json::from_value(chunks["first"].clone()).unwrap();
        assert_eq!(lengths[..first.len()], first, "{id}");
        if let Some(last) = chunks.get("last") {
            assert_eq!(lengths.last(), last.as_u64().as_ref(), "{id}");
        }
    }
}

/// The lines whose ids start with one of some letters.
async fn check_all(letters: &str) {
    let mut data = Data::default();
    let mut n_checked = 0;
    for line in include_str!("../../../fixtures/add/vectors.jsonl").lines() {
        let vector: Value = serde_json::from_str(line).unwrap();
        if vector["id"].as_str().unwrap().starts_with(|letter| letters.contains(letter)) {
            check(&vector, &mut data).await;
            n_checked += 1;
        }
    }
    assert!(n_checked > 20, "{n_checked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_inputs_and_directories_have_their_known_cids() {
    check_all("ABDH").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_files_have_their_known_cids() {
    check_all("C").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunkers_and_layouts_have_their_known_cids() {
    check_all("F").await;
}

/// Vector C19: what an importer with wider nodes makes of 256 MiB; our parameters have no width.
#[test]
fn a_file_of_wide_nodes_has_its_known_cid() {
    let cids = CidBuilder::new(0, "sha2-256").unwrap();
    let mut layout = Layout::Balanced(Balanced::with_width(cids, 1024));
    let mut data = ChaCha::new("hello world");
    let mut nodes = Vec::new();
    for _ in 0..1024 {
        let mut buffer = Pool::default().take(LEAF_HEAD + 262_144);
        buffer.resize(LEAF_HEAD, 0);
        buffer.extend_from_slice(&data.take(262_144));
        layout.push(&leaf(LeafKind::File, cids, buffer), &mut nodes);
    }
    assert_eq!(nodes.len(), 0, "one node holds them all");
    let root = layout.finish(&mut nodes).unwrap();
    assert_eq!(root.cid.to_string(), "QmbBftNHWmjSWKLC49dMVrfnY8pjrJYntiAXirFJ7oJrNk");
}

/// The check values of the generator that several lines use.
#[test]
fn random_bytes_are_those_of_go() {
    assert_eq!(recipes::GoRand::new(1).int63(), 5_577_006_791_947_779_410);
    let bytes = recipes::GoRand::new(41).take(5_242_880);
    let digest = <sha1::Sha1 as sha1::Digest>::digest(&bytes);
    assert_eq!(hex::encode(digest), "5b8c4bc8f87ea2fcfc3d55708b8cac2aadf12862");
}

/// Vector D07: sharding a directory needs no block that was sent before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_files_fit_one_directory() {
    let files = (0..10_000).map(|n| {
        let name = format!("file{n}");
        (entry(name.as_bytes(), cluster_compat::api::EntryKind::File), name.clone().into())
    });
    let host = Arc::new(Collector::new());
    let params = AddParams { wrap_with_directory: true, ..super::params() };
    let (events, error) = add(params, Memory::new(files), &host).await;
    assert_eq!((events.len(), error), (10_001, None));
    host.assert_complete(events.last().unwrap().cid.unwrap());
}

/// Vector D09, and D08 beside it.
#[test]
fn blocks_of_the_originals_tests_have_their_cids() {
    let v0 = CidBuilder::new(0, "sha2-256").unwrap();
    assert_eq!(v0.dag_pb(b"Cid5Data").to_string(), "QmbgmXgsFjxAJ7cEaziL2NDSptHAkPwkEGMmKMpfyYeFXL");
    let blake = CidBuilder::new(1, "blake2b-256").unwrap();
    let cid = "bafk2bzaceawsyhsnrwwy5mtit2emnjfalkxsyq2p2ptd6fuliolzwwjbs42fq";
    assert_eq!(blake.raw(b"Cid4Data").to_string(), cid);
}
