//! Recorded calls in both directions: every value is read, and written back as it was.

use bytes::Bytes;
use cluster_compat::types::{PeerId, parse_peer_id};
use serde_json::Value;

use super::call::{Response, ServiceId};
use super::msgpack::{Reader, Writer};
use super::{add, gc, id, pin, status};

struct Recording {
    callee: PeerId,
    items: Vec<Value>,
}

fn recording(text: &str) -> Recording {
    let file: Value = serde_json::from_str(text).unwrap();
    Recording {
        callee: parse_peer_id(file["callee"].as_str().unwrap()).unwrap(),
        items: file["items"].as_array().unwrap().clone(),
    }
}

fn both() -> [Recording; 2] {
    [
        recording(include_str!("../../fixtures/wire/rpc-calls.json")),
        recording(include_str!("../../fixtures/wire/rpc-served.json")),
    ]
}

fn values(item: &Value, side: &str) -> Vec<Vec<u8>> {
    item[side].as_array().unwrap().iter().map(|value| hex::decode(value.as_str().unwrap()).unwrap()).collect()
}

/// The argument or reply of a method, read and written again.
fn again(method: &str, is_reply: bool, data: &[u8], callee: PeerId) -> Vec<u8> {
    let cid = |r: &mut Reader<'_>| Writer::one(|out| out.cid(&r.cid().unwrap().unwrap()));
    let peer = |r: &mut Reader<'_>| Writer::one(|out| out.peer(&r.peer().unwrap().unwrap()));
    let mut reader = Reader::new(data);
    match (method, is_reply) {
        ("Cluster.ID" | "Cluster.IDStream" | "Cluster.Peers" | "Cluster.PeerAdd", true) => {
            id::encode(&id::decode(data).unwrap())
        }
        ("Cluster.Version", true) => id::encode_version(&id::decode_version(data).unwrap()),
        (
            "Cluster.RecoverLocal"
            | "Cluster.RecoverAllLocal"
            | "PinTracker.Status"
            | "PinTracker.StatusAll"
            | "PinTracker.Recover",
            true,
        ) => status::encode(&status::decode(data, callee).unwrap()),
        ("Cluster.RepoGCLocal", true) => gc::encode(&gc::decode(data, callee).unwrap()),
        ("IPFSConnector.RepoStat", true) => gc::encode_stat(&gc::decode_stat(data).unwrap()),
        ("IPFSConnector.SwarmPeers", true) => Writer::one(|out| out.peers(&reader.peers().unwrap().unwrap())),
        ("Cluster.RecoverLocal" | "PinTracker.Status" | "PinTracker.Recover", false) => cid(&mut reader),
        ("PinTracker.StatusAll", false) => status::encode_filter(status::decode_filter(data).unwrap()),
        ("Cluster.PeerAdd" | "Cluster.PeerRemove" | "Consensus.AddPeer" | "Consensus.RmPeer", false) => {
            peer(&mut reader)
        }
        ("Consensus.LogPin" | "Consensus.LogUnpin", false) => pin::encode(&pin::decode(data).unwrap()),
        ("IPFSConnector.BlockStream", false) => {
            let message = Bytes::copy_from_slice(data);
            let block = add::decode(&message).unwrap();
            let mut written = add::encode(&block);
            assert_eq!(add::decode(&Bytes::from(written.clone())), Ok(block));
            // the size of what lies below is not written
            written[0] += 1;
            written.extend(&data[written.len()..]);
            written
        }
        // `struct{}`
        _ => {
            reader.record(&[], |_, _| Ok(())).unwrap();
            Writer::one(|out| out.map(0))
        }
    }
}

/// Without the empty error text that the reference's listings end each row with.
fn tidied(method: &str, data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    if matches!(method, "PinTracker.StatusAll" | "Cluster.RecoverAllLocal")
        && let Some(at) = data.windows(3).rposition(|window| window == b"\xa1e\xa0")
    {
        data.drain(at..at + 3);
        data[0] -= 1;
    }
    data
}

#[test]
fn recorded_arguments_and_replies_are_read_and_written_back() {
    for Recording { callee, items } in both() {
        for item in items {
            let (title, method) = (item["title"].as_str().unwrap(), item["method"].as_str().unwrap());
            let is_refused = item["error"].as_str().is_some_and(|error| error.starts_with("client does not"));
            let request = values(&item, "request");
            let service = ServiceId::decode(&request[0]).unwrap();
            assert_eq!(format!("{}.{}", service.service, service.method), method);
            assert_eq!(hex::encode(service.encode()), hex::encode(&request[0]), "{title}");
            if is_refused {
                continue;
            }
            for argument in &request[1..] {
                let written = again(method, false, argument, callee);
                assert_eq!(hex::encode(written), hex::encode(argument), "{title}");
            }
            for pair in values(&item, "response").chunks(2) {
                let head = Response::decode(&pair[0]).unwrap();
                assert_eq!(head.service, service, "{title}");
                assert_eq!(head.error, item["error"].as_str().unwrap_or_default(), "{title}");
                assert_eq!(hex::encode(head.encode()), hex::encode(&pair[0]), "{title}");
                if head.error.is_empty() {
                    let written = again(method, true, &pair[1], callee);
                    assert_eq!(hex::encode(written), hex::encode(tidied(method, &pair[1])), "{title}");
                }
            }
        }
    }
}

#[test]
fn recorded_replies_mean_what_the_reference_says() {
    let Recording { callee, items } = recording(include_str!("../../fixtures/wire/rpc-calls.json"));
    for item in items {
        let (title, method) = (item["title"].as_str().unwrap(), item["method"].as_str().unwrap());
        let replies = item["replies"].as_array().cloned().unwrap_or_default();
        for (pair, expected) in values(&item, "response").chunks(2).zip(replies) {
            if item.get("error").is_some() {
                continue;
            }
            match method {
                "Cluster.ID" | "Cluster.IDStream" | "Cluster.Peers" | "Cluster.PeerAdd" => {
                    let mut id = serde_json::to_value(id::decode(&pair[1]).unwrap()).unwrap();
                    if id["ipfs"].get("id").is_none() {
                        id["ipfs"]["id"] = "".into();
                    }
                    assert_eq!(id, expected, "{title}");
                }
                "PinTracker.Status"
                | "PinTracker.StatusAll"
                | "PinTracker.Recover"
                | "Cluster.RecoverLocal" => {
                    let row = status::decode(&pair[1], callee).unwrap();
                    assert_eq!(row.cid.to_string(), expected["cid"], "{title}");
                    assert_eq!(row.name, expected["name"], "{title}");
                    assert_eq!(row.peer.to_string(), expected["peer"], "{title}");
                    assert_eq!(row.short.status.0, expected["status"], "{title}");
                    assert_eq!(row.short.error, expected["error"], "{title}");
                    assert_eq!(row.short.attempt_count, expected["attempt_count"], "{title}");
                    assert_eq!(row.short.peername, expected["peername"], "{title}");
                    let times = serde_json::json!([row.created, row.short.timestamp]);
                    assert_eq!(
                        times,
                        serde_json::json!([expected["created"], expected["timestamp"]]),
                        "{title}"
                    );
                }
                _ => {}
            }
        }
    }
}

#[test]
fn nobody_speaks_for_another_peer() {
    let named = parse_peer_id("12D3KooWCzcBPSRVQGSdgtpVwPo1HaNKATUrMcRdcYmZbNpp7pqi").unwrap();
    let answering = PeerId::random();
    let data = hex::decode("81a16bc0").unwrap();
    let row = gc::decode(&gc::encode(&gc::decode(&data, named).unwrap()), answering).unwrap();
    assert_eq!(row.peer, answering);
    assert!(status::decode(&hex::decode("81a163c0").unwrap(), answering).is_err());
}
