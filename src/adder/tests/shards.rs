//! Uploads that are spread over shards.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cluster_compat::api::{self, ErrorKind};
use cluster_compat::types::{AddParams, AddedOutput, Cid, Pin, PinType};
use futures::StreamExt;
use sha2::{Digest, Sha256};

use super::{Collector, Item, Memory, add, file, lines, params, pinned};
use crate::adder::collector::{Destination, peer};
use crate::adder::{Error, import, shard_links};

fn sharded(shard_size: u64) -> AddParams {
    let mut params = AddParams { shard: true, ..params() };
    params.options.shard_size = shard_size;
    params.options.name = "sh".into();
    params
}

/// SHA-256 of `seed:0`, `seed:1`, …: the content of recorded uploads.
fn recorded(seed: &str, len: usize) -> Vec<u8> {
    (0..len.div_ceil(32)).flat_map(|n| Sha256::digest(format!("{seed}:{n}"))).take(len).collect()
}

fn pins(host: &Collector, pin_type: PinType) -> Vec<Pin> {
    host.kept().pins.iter().filter(|pin| pin.pin_type == pin_type).cloned().collect()
}

/// The links of an index that is here.
#[track_caller]
fn links(host: &Collector, index: Cid) -> Vec<Cid> {
    shard_links(&host.kept().blocks[&index]).unwrap()
}

/// Whether meta pin, cluster DAG and shards of `root` belong together; gives the blocks of each shard.
#[track_caller]
fn shards_of(host: &Collector, root: Cid) -> Vec<Vec<Cid>> {
    let metas = pins(host, PinType::Meta);
    let meta = metas.iter().find(|pin| pin.cid == root).expect("a meta pin");
    assert_eq!((meta.max_depth, &meta.allocations), (0, &None));
    let dags = pins(host, PinType::ClusterDag);
    let dag = dags.iter().find(|pin| Some(pin.cid) == meta.reference).expect("a cluster DAG");
    assert_eq!((dag.max_depth, dag.reference), (0, Some(root)));
    assert_eq!((dag.options.replication_factor_min, dag.options.replication_factor_max), (-1, -1));
    assert_eq!(dag.options.name, format!("{}-clusterDAG", meta.options.name));
    let all = pins(host, PinType::Shard);
    let mut before = None;
    let mut blocks = Vec::new();
    for (n, cid) in links(host, dag.cid).into_iter().enumerate() {
        let shard = all.iter().find(|pin| pin.cid == cid).expect("a shard");
        assert_eq!((shard.max_depth, shard.reference), (1, before));
        assert_eq!(shard.options.name, format!("{}-shard-{n}", meta.options.name));
        before = Some(cid);
        let held = links(host, cid);
        let size: usize = held.iter().map(|cid| host.kept().blocks[cid].len()).sum();
        assert_eq!(shard.options.shard_size, size as u64);
        assert!((size as u64) < meta.options.shard_size);
        blocks.push(held);
    }
    blocks
}

/// Recorded from 1.1.6, `sharded.json`.
#[tokio::test]
async fn events_and_pins_of_a_sharded_file_are_as_recorded() {
    let host = Arc::new(Collector::new());
    let params = AddParams { chunker: "size-1000".into(), ..sharded(6000) };
    let item = [file("big", recorded("big", 20_000))];
    let (events, error) = add(params, Memory::of(&item), &host).await;
    assert_eq!(error, None);
    assert_eq!(
        lines(&events),
        r#""shard-0" bafyreigxl72qpbkodenghrss2mjix3fa7nxfmn2bkncoybr5q6hn6zi2ui 5055
"shard-1" bafyreig2mxzheyv3lhsxlwvdp4qtwmff75k7i3zz2hoiqs56bqljglkmhq 5055
"shard-2" bafyreihuzhf6clwkuc5vfpm6gsamvmgftm5mbwosof2l5wk3jespzs546y 5055
"big" QmdDxjEsi7wx367w9haKoPWpTdzzq38xEySdxzxxGtXuV1 21148
"shard-3" bafyreia6vzsvku5ajl6nbccbywf2s4j2pt7ptz53f3hen2tz7ofzb7qz4m 5987
"shard-4" bafyreiadxfjac2bz454cmctvocegl55jiywzm7h6kzdb75upsto2eyysai 94
"sh-clusterDAG" bafyreicpqew6irigx44nqb6hbmro7bkwlbkluxvcwjf263djag5q5t6bve 21246
"#
    );
    let (last, shards) = events.split_last().unwrap();
    assert!(shards.iter().all(|event| event.allocations == [peer(1)]));
    assert_eq!(last.allocations, []);
    let root = events[3].cid.unwrap();
    assert_eq!(shards_of(&host, root).len(), 5);
    host.assert_complete(root);
    // The cluster DAG goes to this peer.
    assert_eq!(host.kept().destinations, [peer(9)]);
}

/// Vector D05: the tree of the reference's own test.
#[tokio::test]
async fn every_block_of_a_tree_is_in_one_shard() {
    let vectors = include_str!("../../../fixtures/add/vectors.jsonl").lines();
    let mut vectors = vectors.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let tree = vectors.find(|vector| vector["id"] == "D01").unwrap();
    let (params, tree) = super::vectors::case(&tree, &mut super::recipes::Data::default()).unwrap();
    let mut params = AddParams { shard: true, ..params };
    params.options.shard_size = 300 * 1024;
    let host = Arc::new(Collector::new());
    let (_, error) = add(params, tree, &host).await;
    assert_eq!(error, None);
    let root = pins(&host, PinType::Meta)[0].cid;
    assert_eq!(root.to_string(), "QmdHXJgxeCFf6qDZqYYmMesV2DbZCVPEdEhj2oVTxP1y7Y");
    let shards = shards_of(&host, root);
    assert_eq!(shards.len(), 14);
    let blocks: Vec<Cid> = shards.concat();
    assert_eq!(blocks.len(), 28);
    assert_eq!(blocks.iter().collect::<HashSet<_>>().len(), 28);
    host.assert_complete(root);
}

/// Vector D06.
#[tokio::test]
async fn a_large_file_fills_its_shards() {
    let mut content = vec![0; 50 << 20];
    for (n, chunk) in content.chunks_mut(262_144).enumerate() {
        chunk[..8].copy_from_slice(&n.to_be_bytes());
    }
    let host = Arc::new(Collector::new());
    let (events, error) = add(sharded(2 << 20), Memory::of(&[file("f", content)]), &host).await;
    assert_eq!(error, None);
    assert_eq!(shards_of(&host, events.iter().find(|e| e.name == "f").unwrap().cid.unwrap()).len(), 29);
}

#[tokio::test]
async fn no_pin_writes_shards_and_pins_nothing() {
    let host = Arc::new(Collector::new());
    let params = AddParams { no_pin: true, ..sharded(100_000) };
    let (events, error) = add(params, Memory::of(&[file("np", "not to be pinned")]), &host).await;
    assert_eq!(error, None);
    // Recorded from 1.1.6, which pins all the same.
    assert_eq!(
        lines(&events),
        r#""np" QmdfjTLenNWJMfrLXeRyTafA9odybeJtqfnQ5hxNwiR5dt 24
"shard-0" bafyreicq4oclhpuwclhybpplygb4zhojq25yf6equjngjssjk5qgbobmzq 120
"sh-clusterDAG" bafyreif22bttal637oekv3fmkhgd4zcx67ggc4vwyltqyhr4hc7ih7ofx4 120
"#
    );
    assert_eq!(pinned(&host), []);
    assert_eq!(links(&host, events[2].cid.unwrap()), [events[1].cid.unwrap()]);
}

#[tokio::test]
async fn local_shards_are_allocated_to_this_peer() {
    let host = Arc::new(Collector::with(Destination::Takes, vec![peer(1), peer(2)]));
    let mut params = AddParams { local: true, ..sharded(100_000) };
    params.options.replication_factor_min = 2;
    let (events, _) = add(params, Memory::of(&[file("f", "here")]), &host).await;
    assert_eq!(events[1].allocations, [peer(1), peer(9)]);
    assert_eq!(pins(&host, PinType::Shard)[0].allocations, Some(vec![peer(1), peer(9)]));
    assert_eq!(host.kept().all_destinations, [vec![peer(9)], vec![peer(9)]]);
}

#[tokio::test]
async fn a_block_that_fits_no_shard_is_an_error() {
    let text = "block doesn't fit in empty shard: shard size too small?";
    for size in [0, 10, 20] {
        let host = Arc::new(Collector::new());
        let (events, error) = add(sharded(size), Memory::of(&[file("f", "hello shards")]), &host).await;
        assert_eq!((events, error.unwrap().to_string().as_str()), (vec![], text));
    }
}

/// Recorded from 1.1.6, which leaves the shard pinned for ever: `sharded.json`, step 13.
#[tokio::test]
async fn a_sharded_add_that_fails_takes_its_shards_back() {
    let items = [
        Item::Dir("top"),
        Item::Dir("top/sub"),
        file("top/sub/europa.txt", "Hello Europa!\n"),
        file("top/mercury.txt", "hey you are no moon!\n"),
        file("top/zz.txt", "Hello Titan!\n"),
    ];
    let host = Arc::new(Collector::new());
    let (events, error) = add(sharded(150), Memory::of(&items), &host).await;
    assert_eq!(error, Some(Error::BlockTooLarge));
    let shard = events.last().unwrap();
    assert_eq!(shard.name, "shard-0");
    assert_eq!(host.kept().taken_back, [shard.cid.unwrap()]);
    assert_eq!(pinned(&host), []);
    // What was pinned before stays.
    let earlier = Pin { pin_type: PinType::Shard, ..Pin::new(shard.cid.unwrap()) };
    host.kept().pins.push(earlier);
    host.kept().taken_back.clear();
    let (_, error) = add(sharded(150), Memory::of(&items), &host).await;
    assert_eq!(error, Some(Error::BlockTooLarge));
    assert_eq!(host.kept().taken_back, []);
    assert_eq!(pinned(&host).len(), 2);
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_shards_with_it() {
    let host = Arc::new(Collector::new());
    let params = AddParams { chunker: "size-1000".into(), ..sharded(6000) };
    let mut upload = Memory::of(&[file("big", recorded("big", 20_000))]);
    upload.end = Some(api::Error::internal("not reached"));
    let mut stream = import(params, Box::new(upload), host.clone());
    let first = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.unwrap();
    let shard = first.unwrap().unwrap().cid.unwrap();
    drop(stream);
    assert!(host.kept().taken_back.contains(&shard));
    assert_eq!(pinned(&host), []);
}

#[tokio::test]
async fn a_shard_whose_destinations_fail_ends_the_add() {
    let host = Arc::new(Collector::with(Destination::Refuses, vec![peer(1)]));
    let params = AddParams { chunker: "size-1000".into(), ..sharded(6000) };
    let items = [file("big", recorded("big", 20_000))];
    let (events, error) = add(params, Memory::of(&items), &host).await;
    assert_eq!((events, error), (vec![], Some(Error::AllDestinationsFailed)));
}

#[tokio::test]
async fn sharded_roots_are_independent() {
    let host = Arc::new(Collector::new());
    let shared = recorded("shared", 2000);
    let items = [
        file("a", shared.clone()),
        Item::Dir("d"),
        file("d/a", shared.clone()),
        file("d/b", "b"),
        file("e", shared),
    ];
    let params = AddParams { chunker: "size-1000".into(), ..sharded(1500) };
    let (events, error) = add(params, Memory::of(&items), &host).await;
    assert_eq!(error, None);
    let cid = |name: &str| {
        let event = events.iter().find(|event: &&AddedOutput| event.name == name);
        event.and_then(|event| event.cid).unwrap()
    };
    let metas: Vec<Cid> = pins(&host, PinType::Meta).iter().map(|pin| pin.cid).collect();
    // `e` is `a` again, and has its pin.
    assert_eq!(metas, [cid("a"), cid("d")]);
    for root in metas {
        let held: Vec<Cid> = shards_of(&host, root).concat();
        assert!(held.contains(&root));
    }
    assert!(shards_of(&host, cid("d")).concat().contains(&cid("a")), "each root has all its blocks");
    // No shard is left that nothing leads to.
    let dags = pins(&host, PinType::ClusterDag);
    let reached: HashSet<Cid> = dags.iter().flat_map(|dag| links(&host, dag.cid)).collect();
    assert_eq!(pins(&host, PinType::Shard).iter().map(|pin| pin.cid).collect::<HashSet<_>>(), reached);
}

#[tokio::test]
async fn a_sharded_directory_comes_in_one_part() {
    let host = Arc::new(Collector::new());
    let items = [file("d/a", "a"), file("f", "f"), file("d/b", "b")];
    let (_, error) = add(sharded(1000), Memory::of(&items), &host).await;
    let error = api::Error::from(error.unwrap());
    assert_eq!(error.kind, ErrorKind::BadRequest);
    assert_eq!(error.message, "the parts of d must follow each other in an upload with shard=true");
    assert_eq!(pinned(&host), []);
    let wrapped = AddParams { wrap_with_directory: true, ..sharded(1000) };
    assert_eq!(add(wrapped, Memory::of(&items), &host).await.1, None);
}

#[tokio::test]
async fn indexes_of_other_hashes_travel_apart() {
    let host = Arc::new(Collector::new());
    let params = AddParams { hash: "blake2b-256".into(), cid_version: 1, ..sharded(100_000) };
    let (events, error) = add(params, Memory::of(&[file("f", "x")]), &host).await;
    assert_eq!(error, None);
    let kept = host.kept();
    assert_eq!(kept.all_destinations, [vec![peer(1)], vec![peer(1)], vec![peer(9)]]);
    let shard = events[1].cid.unwrap();
    assert_eq!(kept.puts.iter().position(|cid| *cid == shard), Some(kept.starts[1]));
}
