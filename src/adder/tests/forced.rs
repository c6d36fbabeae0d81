//! Sharded directories below the size at which one is sharded: what Kubo's and boxo's own tests of them assert.

use std::sync::Arc;

use bytes::Bytes;
use cluster_compat::api::EntryKind;
use cluster_compat::types::AddParams;

use super::recipes::{entry, names};
use super::{Collector, Memory, add, params};
use crate::adder::hamt;
use crate::adder::hash::CidBuilder;
use crate::adder::unixfs::Link;

/// The link to a file of one short chunk.
fn link(cids: CidBuilder, is_raw: bool, name: String, content: &[u8]) -> Link {
    let n = content.len() as u8;
    let message = [&[8, 2, 0x12, n][..], content, &[0x18, n]].concat();
    let node = [&[0x0a, message.len() as u8][..], &message].concat();
    let (cid, tsize) =
        if is_raw { (cids.raw(content), content.len()) } else { (cids.dag_pb(&node), node.len()) };
    Link { name: name.into(), cid, tsize: tsize as u64 }
}

#[track_caller]
fn check(cids: CidBuilder, links: Vec<Link>, expected: &str) {
    let nodes = hamt::build(links, cids).unwrap();
    assert_eq!(nodes.last().unwrap().block.cid.to_string(), expected);
}

/// Vectors B19 and B20.
#[test]
fn two_thousand_numbered_files_make_their_known_trie() {
    for (version, expected) in [
        (0, "QmSCJD1KYLhVVHqBK3YyXuoEqHt7vggyJhzoFYbT8v1XYL"),
        (1, "bafybeibiemewfzzdyhq2l74wrd6qj2oz42usjlktgnlqv4yfawgouaqn4u"),
    ] {
        let cids = CidBuilder::new(version, "sha2-256").unwrap();
        let links =
            (1..=2000).map(|n| link(cids, version == 1, format!("file{n}"), format!("{n}\n").as_bytes()));
        check(cids, links.collect(), expected);
    }
}

/// Vector B21.
#[test]
fn two_hundred_empty_directories_make_their_known_trie() {
    let cids = CidBuilder::new(0, "sha2-256").unwrap();
    let empty = cids.dag_pb(&[0x0a, 2, 8, 1]);
    let links = (0..200).map(|n| Link { name: format!("DIRNAME{n}").into(), cid: empty, tsize: 4 });
    check(cids, links.collect(), "QmY89TkSEVHykWMHDmyejSWFj9CYNtvzw4UwnT9xbc4Zjc");
}

/// Vector B27: sharded by Kubo's profile of 2025, which counts otherwise; by the size rule it stays one node.
#[tokio::test]
async fn names_of_the_profile_of_2025_make_their_known_trie() {
    let names = names(4766, 11, 22, "hamt-unixfs-v1-2025");
    let cids = CidBuilder::new(1, "sha2-256").unwrap();
    check(
        cids,
        names.iter().map(|name| link(cids, true, name.clone(), b"x")).collect(),
        "bafybeiegvuterwurhdtkikfhbxcldohmxp566vpjdofhzmnhv6o4freidu",
    );
    let host = Arc::new(Collector::new());
    let params = AddParams { cid_version: 1, raw_leaves: true, ..params() };
    let files = names
        .iter()
        .map(|name| (entry(format!("d/{name}").as_bytes(), EntryKind::File), Bytes::from_static(b"x")));
    let (events, error) = add(params, Memory::new(files), &host).await;
    assert_eq!(error, None);
    let root = &host.kept().blocks[&events.last().unwrap().cid.unwrap()];
    assert!(root.ends_with(&[0x0a, 2, 8, 1]), "a directory of one node");
}
