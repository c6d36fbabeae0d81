//! CAR files and what 1.1.6 made of them: `fixtures/add/cars.jsonl`.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use cluster_compat::api::{self, EntryKind, ErrorKind};
use cluster_compat::types::{AddParams, Cid, Format};
use serde_json::Value;

use super::recipes::Data;
use super::{Collector, Item, Memory, add, entry, params, pinned};
use crate::adder::Error;

fn car_params() -> AddParams {
    AddParams { format: Format::Car, ..params() }
}

fn upload(name: &str, car: Bytes) -> Memory {
    Memory::new([(entry(name.as_bytes(), EntryKind::File), car)])
}

#[tokio::test]
async fn cars_are_checked_written_and_pinned_as_the_reference_does() {
    for line in include_str!("../../../fixtures/add/cars.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let car: Bytes = BASE64_STANDARD.decode(case["car"].as_str().unwrap()).unwrap().into();
        let host = Arc::new(Collector::new());
        // What shapes a DAG does not count.
        let params = AddParams { chunker: "foo".into(), hash: "nope".into(), cid_version: 9, ..car_params() };
        let (events, error) = add(params, upload("x.car", car), &host).await;
        assert_eq!(error.map(|error| error.to_string()).as_deref(), case["error"].as_str(), "{line}");
        if let Some(cid) = case["cid"].as_str() {
            let [event] = &events[..] else { panic!("{events:?}") };
            assert_eq!(event.cid.unwrap().to_string(), cid, "{line}");
            assert_eq!(
                (event.bytes, event.size),
                (case["bytes"].as_u64().unwrap(), case["size"].as_u64().unwrap())
            );
            assert_eq!(event.name, "x.car");
            assert_eq!(pinned(&host), [event.cid.unwrap()]);
        } else {
            assert_eq!((events.len(), pinned(&host).len()), (0, 0), "{line}");
        }
    }
}

/// Vector E03.
#[tokio::test]
async fn a_single_raw_block_is_a_car() {
    let hex = "3aa265726f6f747381d82a58250001551220b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9\
               6776657273696f6e012f01551220b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9\
               68656c6c6f20776f726c64";
    let host = Arc::new(Collector::new());
    let car = hex::decode(hex).unwrap();
    let (events, error) = add(car_params(), upload("x", car.clone().into()), &host).await;
    assert_eq!(error, None);
    let cid = events[0].cid.unwrap();
    assert_eq!(cid.to_string(), "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e");
    assert_eq!((events[0].bytes, events[0].size), (11, 0));
    host.assert_complete(cid);
    // The header alone is the caller's fault (ruling A5).
    let (_, error) = add(car_params(), upload("x", car[..59].to_vec().into()), &host).await;
    assert_eq!(api::Error::from(error.unwrap()).kind, ErrorKind::BadRequest);
}

#[tokio::test]
async fn only_a_file_at_the_top_is_a_car() {
    let host = Arc::new(Collector::new());
    let refused = Some(Error::car("expected CAR file is not of type file"));
    assert_eq!(add(car_params(), upload("folder/a.car", Bytes::new()), &host).await.1, refused);
    assert_eq!(add(car_params(), Memory::of(&[Item::Dir("d")]), &host).await.1, refused);
    let wrapped = AddParams { wrap_with_directory: true, ..car_params() };
    let refused = Some(Error::car("cannot wrap a CAR file upload"));
    assert_eq!(add(wrapped, upload("a", Bytes::new()), &host).await.1, refused);
    assert_eq!(add(car_params(), Memory::of(&[]), &host).await.1, Some(Error::NoParts));
}

/// A CAR of one root and some blocks.
fn car(root: Cid, blocks: &[(Cid, Bytes)]) -> Bytes {
    let link = root.to_bytes();
    let mut header = b"\xa2\x65roots\x81\xd8\x2a\x58".to_vec();
    header.extend([link.len() as u8 + 1, 0]);
    header.extend(link);
    header.extend(b"\x67version\x01");
    let mut car = Vec::new();
    let sections = blocks.iter().map(|(cid, data)| [&cid.to_bytes()[..], data].concat());
    for section in [header].into_iter().chain(sections) {
        car.extend_from_slice(unsigned_varint::encode::usize(section.len(), &mut Default::default()));
        car.extend(section);
    }
    car.into()
}

/// Vector D04.
#[tokio::test]
async fn a_tree_added_again_as_a_car_has_its_root_and_its_blocks() {
    let vectors = include_str!("../../../fixtures/add/vectors.jsonl").lines();
    let mut vectors = vectors.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let tree = vectors.find(|vector| vector["id"] == "D01").unwrap();
    let (params, tree) = super::vectors::case(&tree, &mut Data::default()).unwrap();
    let files = Arc::new(Collector::new());
    let (events, _) = add(params, tree, &files).await;
    let root = events.last().unwrap().cid.unwrap();
    let blocks: Vec<_> = files.kept().blocks.iter().map(|(cid, data)| (*cid, data.clone())).collect();
    assert_eq!(blocks.len(), 28);
    let again = Arc::new(Collector::new());
    let (events, error) = add(car_params(), upload("x.car", car(root, &blocks)), &again).await;
    assert_eq!(error, None);
    assert_eq!((events.len(), pinned(&again)), (1, vec![root]));
    assert_eq!(again.kept().blocks, files.kept().blocks);
}
