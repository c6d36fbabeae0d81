//! What is done with hostile bytes: a function for each decoder of bytes that come from peers or files, the seeds it
//! starts from, and how much it may allocate.
//!
//! `fuzz_targets/decoder.rs` gives them to libFuzzer; `tests/hostile.rs` of the main package runs them with seeded
//! mutations wherever `cargo test` runs. Targets panic where something is wrong: what was decoded must read the same
//! when encoded again, and whatever comes in, a state must load again.

mod uploads;

use std::path::Path;

use bytes::Bytes;
use cluster_compat::types::{Cid, PeerId};
use ipfs_cluster::consensus::crdt::core::{self, Event, State, keys};
use ipfs_cluster::store::{Mem, kv};
use ipfs_cluster::wire::bitswap_pb::{Builder, Message, Part};
use ipfs_cluster::wire::msgpack::{Reader, Scanner};
use ipfs_cluster::wire::{add, call, crdt_pb, gc, id, key, metric, pin, pin_pb, status};
use serde_json::Value;

/// A decoder under attack.
pub struct Target {
    /// What `FUZZ_TARGET` calls it.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Good bytes to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Most bytes it may allocate, all in all, for each byte of input; what empty items of a list take in memory.
    pub max_growth: usize,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "crdt-node", run: crdt_node, seeds: nodes, max_growth: 80 },
    Target { name: "crdt-heads", run: crdt_heads, seeds: heads, max_growth: 80 },
    Target { name: "crdt-core", run: crdt_core, seeds: nodes, max_growth: usize::MAX },
    Target { name: "keys", run: all_keys, seeds: texts_of_keys, max_growth: 20 },
    Target { name: "bitswap", run: a_bitswap_message, seeds: bitswap_messages, max_growth: 20 },
    Target { name: "pin-protobuf", run: pin_protobuf, seeds: pins_as_protobuf, max_growth: 120 },
    Target { name: "pin-msgpack", run: pin_msgpack, seeds: pins_as_msgpack, max_growth: 120 },
    Target { name: "metric", run: a_metric, seeds: metrics, max_growth: 20 },
    Target { name: "msgpack", run: any_msgpack, seeds: calls, max_growth: 4 },
    Target { name: "calls", run: all_calls, seeds: calls, max_growth: 300 },
    Target { name: "multipart", run: uploads::form, seeds: uploads::forms, max_growth: usize::MAX },
    Target { name: "car", run: uploads::car, seeds: uploads::cars, max_growth: usize::MAX },
    Target { name: "unixfs", run: uploads::block, seeds: uploads::blocks, max_growth: usize::MAX },
    Target { name: "peerstore", run: peerstore, seeds: peerstores, max_growth: 80 },
];

fn crdt_node(data: &[u8]) {
    if let Ok(node) = crdt_pb::decode_node(data) {
        let again = crdt_pb::encode_node(&node.links, &node.delta);
        assert_eq!(
            crdt_pb::decode_node(&again).as_ref(),
            Ok(&node),
            "a node that reads otherwise when written"
        );
        assert!(again.len() <= data.len() + 4 * node.links.len() + 16);
    }
}

fn crdt_heads(data: &[u8]) {
    if let Ok(heads) = crdt_pb::decode_heads(data) {
        assert_eq!(crdt_pb::decode_heads(&crdt_pb::encode_heads(&heads)), Ok(heads));
    }
}

/// What is in a message is in the one built of its parts, kind by kind in the same order.
fn a_bitswap_message(data: &[u8]) {
    let Ok(message) = Message::decode(data) else { return };
    let mut builder = Builder::default();
    if message.is_full {
        builder.full();
    }
    builder.pending_bytes(message.pending_bytes);
    for part in message.parts() {
        match part {
            Part::Entry(entry) => builder.entry(&entry),
            Part::OldBlock(data) => builder.old_block(data),
            Part::Block { prefix, data } => builder.block(prefix, data),
            Part::Presence { cid, has } => builder.presence(cid, has),
        }
    }
    let built = builder.build();
    let prefix = built.iter().take_while(|byte| **byte >= 0x80).count() + 1;
    let again = Message::decode(&built[prefix..]).expect("a message we have built can be read");
    assert_eq!((again.is_full, again.pending_bytes), (message.is_full, message.pending_bytes));
    let kinds: [fn(&Part<'_>) -> bool; 4] = [
        |part| matches!(part, Part::Entry(_)),
        |part| matches!(part, Part::OldBlock(_)),
        |part| matches!(part, Part::Block { .. }),
        |part| matches!(part, Part::Presence { .. }),
    ];
    for is_kind in kinds {
        assert!(message.parts().filter(is_kind).eq(again.parts().filter(is_kind)));
    }
}

fn pin_protobuf(data: &[u8]) {
    if let Ok(pin) = pin_pb::decode(data) {
        let written = pin_pb::encode(&pin);
        let read = pin_pb::decode(&written).expect("a pin we have written can be read");
        assert_eq!(pin_pb::encode(&read), written);
        serde_json::to_string(&pin).expect("a pin can be listed");
    }
}

fn pin_msgpack(data: &[u8]) {
    if let Ok(pin) = pin::decode(data) {
        let written = pin::encode(&pin);
        let read = pin::decode(&written).expect("a pin we have written can be read");
        assert_eq!(pin::encode(&read), written);
        pin_pb::encode(&pin);
    }
}

fn a_metric(data: &[u8]) {
    if let Ok(read) = metric::decode(data) {
        assert_eq!(metric::decode(&metric::encode(&read)), Ok(read));
    }
}

/// Finds the end of the first value at once, and again when the bytes come piece by piece.
fn any_msgpack(data: &[u8]) {
    let whole = Scanner::new().scan(data);
    let mut scanner = Scanner::new();
    let mut piecewise = Ok(None);
    for end in (0..=data.len()).step_by(1 + data.len() / 512).chain([data.len()]) {
        piecewise = scanner.scan(&data[..end]);
        if !matches!(piecewise, Ok(None)) {
            break;
        }
    }
    assert_eq!(whole.is_ok(), piecewise.is_ok());
    if let (Ok(whole), Ok(piecewise)) = (whole, piecewise) {
        assert_eq!(whole, piecewise);
        assert!(whole.is_none_or(|end| (1..=data.len()).contains(&end)));
    }
    let _ = Reader::new(data).skip();
}

fn all_calls(data: &[u8]) {
    let from = PeerId::from_bytes(&[0, 1, 0]).expect("an identity multihash of one byte");
    if let Ok(read) = call::ServiceId::decode(data) {
        assert_eq!(call::ServiceId::decode(&read.encode()), Ok(read));
    }
    if let Ok(read) = call::Response::decode(data) {
        assert_eq!(call::Response::decode(&read.encode()), Ok(read));
    }
    let _ = (id::decode(data), id::decode_version(data), gc::decode(data, from), gc::decode_stat(data));
    let _ = (status::decode(data, from), status::decode_filter(data));
    let _ = add::decode(&Bytes::copy_from_slice(data));
}

fn all_keys(data: &[u8]) {
    if let Some(bytes) = key::unspell(data) {
        assert_eq!(key::spell(&bytes).as_bytes(), data);
    }
    let _ = key::to_cid(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let clean = keys::clean(text);
        assert_eq!(keys::clean(&clean), clean);
        keys::pair(&keys::pair_prefix(text), text);
    }
}

fn peerstore(data: &[u8]) {
    let lines = |addrs: &[cluster_compat::types::Multiaddr]| -> String {
        addrs.iter().map(|addr| format!("{addr}\n")).collect()
    };
    let addrs = cluster_compat::config::peerstore::parse(&String::from_utf8_lossy(data));
    let again = cluster_compat::config::peerstore::parse(&lines(&addrs));
    assert_eq!(again, addrs);
}

/// A peer's announcements and blocks in any order. The first byte of the input says how many operations follow, the
/// rest is cut into blocks; hashes are not looked at here, so any bytes may stand for any node.
fn crdt_core(data: &[u8]) {
    let Some((n_operations, rest)) = data.split_first() else { return };
    let (operations, rest) = rest.split_at(rest.len().min(usize::from(*n_operations % 32)));
    let blocks: Vec<&[u8]> = rest.chunks(rest.len() / 4 + 1).chain([rest]).collect();
    let mut cids: Vec<Cid> = blocks.iter().map(|block| crdt_pb::node_cid(block)).collect();
    let parents: Vec<Cid> = blocks
        .iter()
        .filter_map(|block| crdt_pb::decode_node(block).ok())
        .flat_map(|node| node.links)
        .take(8)
        .collect();
    cids.extend(parents);

    let store = Mem::new();
    let mut state = kv::read(&store, State::load).expect("an empty state loads");
    for operation in operations {
        let (block, cid) = (
            blocks[usize::from(operation >> 3) % blocks.len()],
            cids[usize::from(operation >> 3) % cids.len()],
        );
        let name = ["/K", "/L", "/M", ""][usize::from(operation >> 3) % 4];
        match operation & 7 {
            0 => drop(feed(&store, &mut state, Event::Announced(&[cid]))),
            1 => drop(feed(&store, &mut state, Event::Announced(&cids))),
            2 | 3 => drop(feed(&store, &mut state, Event::Block { cid, data: block.to_vec() })),
            4 => drop(feed(&store, &mut state, Event::Unavailable(cid))),
            5 => {
                drop(feed(&store, &mut state, Event::Put { key: name, value: &block[..block.len().min(64)] }))
            }
            6 => drop(feed(&store, &mut state, Event::Delete { key: name })),
            _ => {
                drop(feed(&store, &mut state, Event::Repair));
                let loaded = kv::read(&store, State::load).expect("what was written loads");
                assert_eq!(loaded.heads().list(), state.heads().list());
                state = loaded;
            }
        }
    }
}

/// One event and what follows from it; a store that cannot be written or read again is a bug.
fn feed(store: &Mem, state: &mut State, event: Event<'_>) -> Vec<Cid> {
    let mut wanted = Vec::new();
    let mut next = Some(event);
    for _ in 0..1000 {
        let Some(event) = next.take() else { return wanted };
        let effects = kv::write(store, |transaction| {
            let effects = state.handle(event, transaction.as_read())?;
            effects.apply(transaction)?;
            Ok::<_, core::Error>(effects)
        })
        .expect("the core takes whatever peers send");
        wanted.extend(effects.fetch.iter().map(|fetch| fetch.cid));
        if effects.more {
            next = Some(Event::Continue);
        }
    }
    panic!("no end of a walk over a handful of nodes");
}

fn fixture(name: &str) -> String {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [package.join("fixtures"), package.join("../fixtures")];
    let text = folders.iter().find_map(|folder| std::fs::read_to_string(folder.join(name)).ok());
    text.unwrap_or_else(|| panic!("no fixture {name}"))
}

fn bytes_of(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap_or_default()).expect("fixtures are in hexadecimal")
}

/// Every string of bytes that `pick` finds in the items of a fixture.
fn items(name: &str, pick: fn(&Value) -> Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let file: Value = serde_json::from_str(&fixture(name)).expect("fixtures are JSON");
    let items = file.get("items").unwrap_or(&file).as_array().cloned().unwrap_or_default();
    items.iter().flat_map(pick).collect()
}

/// A message of one field that repeats a piece: the items of a list that take least.
fn flood(field: u8, piece: &[u8]) -> Vec<u8> {
    let n_pieces = 8000 / piece.len();
    let length = n_pieces * piece.len();
    let mut message = vec![field, length as u8 | 0x80, (length >> 7) as u8];
    message.extend(piece.repeat(n_pieces));
    message
}

fn nodes() -> Vec<Vec<u8>> {
    let history = |line: &str| -> Vec<Vec<u8>> {
        let history: Value = serde_json::from_str(line).expect("a history is JSON");
        let steps = history["steps"].as_array().cloned().unwrap_or_default();
        steps.iter().filter(|step| step.get("block").is_some()).map(|step| bytes_of(&step["block"])).collect()
    };
    let recorded = fixture("crdt/histories.jsonl");
    let floods = [flood(0x0a, &[0x0a, 0]), flood(0x0a, &[0x12, 0]), flood(0x0a, &[0x0a, 3, 0x0a, 1, b'/'])];
    recorded.lines().flat_map(history).chain(floods).collect()
}

fn heads() -> Vec<Vec<u8>> {
    let mut heads = items("crdt/heads.json", |item| vec![bytes_of(&item["data"])]);
    // heads with the shortest CID
    heads.push([0x0a, 6, 0x0a, 4, 1, 0x55, 0, 0].repeat(1000));
    heads
}

fn bitswap_messages() -> Vec<Vec<u8>> {
    let file: Value = serde_json::from_str(&fixture("wire/bitswap.json")).expect("fixtures are JSON");
    let messages = file["messages"].as_array().cloned().unwrap_or_default();
    let mut messages: Vec<_> = messages.iter().map(|message| bytes_of(&message["frame"])).collect();
    messages.push(flood(0x0a, &[0x0a, 6, 0x0a, 4, 1, 0x55, 0, 0]));
    messages.push([0x22, 6, 0x0a, 4, 1, 0x55, 0, 0].repeat(1000));
    messages
}

fn texts_of_keys() -> Vec<Vec<u8>> {
    items("wire/pins.json", |item| vec![item["key"].as_str().unwrap_or_default().into()])
}

fn pins_as_protobuf() -> Vec<Vec<u8>> {
    let mut pins = items("wire/pins.json", |item| vec![bytes_of(&item["protobuf"])]);
    let one = pins[0].clone();
    // metadata, old metadata, origins
    for piece in [&[0x52, 3, 0x0a, 1, b'k'][..], &[0x32, 0], &[0x4a, 0], &[0x52, 0]] {
        pins.push([&one[..], &flood(0x32, piece)].concat());
    }
    // allocations to a peer with the shortest id
    pins.push([&one[..], &[0x1a, 3, 0, 1, 0].repeat(2000)].concat());
    pins
}

fn pins_as_msgpack() -> Vec<Vec<u8>> {
    items("wire/pins.json", |item| vec![bytes_of(&item["msgpack"])])
}

fn metrics() -> Vec<Vec<u8>> {
    items("wire/metrics.json", |item| vec![bytes_of(&item["data"])])
}

fn calls() -> Vec<Vec<u8>> {
    let values = |item: &Value| -> Vec<Vec<u8>> {
        let lists = ["request", "response"].map(|name| item[name].as_array().cloned().unwrap_or_default());
        lists.iter().flatten().map(bytes_of).filter(|value| value.len() < 4096).collect()
    };
    let mut calls: Vec<_> =
        ["wire/rpc-calls.json", "wire/rpc-served.json"].iter().flat_map(|name| items(name, values)).collect();
    // lists of nothing, for each field that may be a list, and lists within lists
    for field in ["a", "cp", "cpa", "k", "o", "g", "ia", "md", "ip"] {
        let mut list = vec![0x81, 0xa0 | field.len() as u8];
        list.extend_from_slice(field.as_bytes());
        for item in [0x80, 0x90, 0xa0, 0xc0] {
            calls.push([&list[..], &[0xdc, 0x05, 0xdc], &[item; 1500]].concat());
        }
    }
    calls.push(vec![0x91; 1500]);
    calls
}

fn peerstores() -> Vec<Vec<u8>> {
    let peer = "p2p/12D3KooWLktuTSPdVMTXRDYxZKMHY3gAcw5ThNBwDu5yis2yZ8j3";
    [
        format!("/ip4/127.0.0.1/tcp/9096/{peer}\n/dns4/example.com/tcp/9096/ws/{peer}\n"),
        format!("# a comment\n/ip6/::1/udp/4001/quic-v1/{peer}\n\n/dnsaddr/example.com\n"),
        format!(
            "/ip4/1.2.3.4/tcp/1/{peer}/p2p-circuit/{peer}\n/unix/tmp/socket\n/onion3/{}:80\n",
            "a".repeat(56)
        ),
    ]
    .map(String::into_bytes)
    .into()
}
