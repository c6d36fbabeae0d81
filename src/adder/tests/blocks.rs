//! Which blocks are sent, and in which order: `fixtures/add/blocks.jsonl`.

use std::sync::Arc;

use cluster_compat::types::AddParams;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::recipes::Data;
use super::vectors::case;
use super::{Collector, Item, Memory, add, file, params, pinned};
use crate::adder::Error;

/// CIDs sent in one import, a line each.
fn sent(host: &Collector) -> Vec<String> {
    host.kept().puts.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn blocks_come_in_the_order_of_the_reference_with_its_extra_ones() {
    let mut data = Data::default();
    for line in include_str!("../../../fixtures/add/blocks.jsonl").lines() {
        let recorded: Value = serde_json::from_str(line).unwrap();
        let (params, upload) = case(&recorded, &mut data).unwrap();
        let host = Arc::new(Collector::new());
        let (_, error) = add(params, upload, &host).await;
        assert_eq!(error, None, "{line}");
        let sent = sent(&host);
        match recorded["blocks"].as_array() {
            Some(blocks) => assert_eq!(sent, blocks.iter().map(|b| b.as_str().unwrap()).collect::<Vec<_>>()),
            None => {
                assert_eq!(sent.len() as u64, recorded["n"].as_u64().unwrap(), "{line}");
                let digest = hex::encode(Sha256::digest(sent.join("\n")));
                assert_eq!(digest, recorded["sha256"].as_str().unwrap(), "{line}");
            }
        }
    }
}

/// The reference sends them several times, in random order.
#[tokio::test]
async fn sibling_directories_are_sent_once_and_by_name() {
    let items = [Item::Dir("d"), file("d/y/1", "1"), file("d/x/2", "2"), file("d/z", "z")];
    let host = Arc::new(Collector::new());
    let (events, _) = add(params(), Memory::of(&items), &host).await;
    let directories: Vec<_> = events[3..].iter().map(|event| event.cid.unwrap().to_string()).collect();
    assert_eq!(directories.len(), 3);
    assert_eq!(sent(&host)[sent(&host).len() - 3..], directories);
}

#[tokio::test]
async fn an_identity_too_long_for_a_cid_is_refused_and_never_cut() {
    let identity = || AddParams { hash: "identity".into(), cid_version: 1, raw_leaves: true, ..params() };
    let host = Arc::new(Collector::new());
    let (_, error) = add(identity(), Memory::of(&[file("f", vec![1; 64])]), &host).await;
    assert_eq!(error, None);
    assert_eq!(pinned(&host).len(), 1);
    let (events, error) = add(identity(), Memory::of(&[file("f", vec![1; 65])]), &host).await;
    assert_eq!(events, []);
    assert!(matches!(error, Some(Error::NotSupported(_))), "{error:?}");
    assert_eq!(pinned(&host).len(), 1);
}
