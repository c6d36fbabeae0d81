//! Whatever a network or a file says, no parser of the crate's types panics, and what one prints it reads again.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use cluster_compat::go::json;
use cluster_compat::go::query::Query;
use cluster_compat::go::time::{Duration, Time};
use cluster_compat::types::{
    AddParams, AddedOutput, Alert, ConnectGraph, GlobalPinInfo, GlobalRepoGc, Id, Metric, Pin, PinOptions,
    PinTypes, TrackerStatus, multiaddr_text, parse_cid_bytes, parse_multiaddr, parse_peer_id,
};

/// Texts that are mutated.
const SEEDS: [&str; 16] = [
    "QmXw2sSTXLXyJjrAv6rnWL1oZ1HA8eqvkrngCm7dpxjtFM",
    "bafkreiardpf2hbld7fyvfdcq2gqfdgg4jffzwwaur5ht3uubb57ueqra4m",
    "zb2rhXo4hw8PS9PCf5b6b6TWYWiZkbcrBUjBkanmZQo3RYfgW",
    "k2cwue92r6mdqrbywjcrzgawdx1skgq5pip64pkvyzonhhno09n02kmb",
    "uAVUSIBEby6OFY_lxUoxQ0aBRmNxJS5tYFI9PPdKBD39CQiDj",
    "MAVUSIBEby6OFY/lxUoxQ0aBRmNxJS5tYFI9PPdKBD39CQiDj",
    "cafkreiardpf2hbld7fyvfdcq2gqfdgg4jffzwwaur5ht3uubb57ueqra4m======",
    "12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt",
    "/ip4/127.0.0.1/tcp/9096/p2p/12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt",
    "/dns4/a.b/udp/1/quic-v1/webtransport/certhash/uEiAIR3Xyy/p2p-circuit/unix/a/b",
    "/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:1234/http-path/a%2Fb",
    "2999-01-02T03:04:05.123456789+02:30",
    "1h30m10.5s500ms-3us",
    "replication=3&shard-size=5&expire-at=2999-01-02T03:04:05Z&meta-a=b&origins=/ip4/1.2.3.4/tcp/1,x&%41=%zz;",
    "layout=trickle&chunker=size-1&cid-version=1&raw-leaves=F&stream-channels=0&expire-in=1h&pin-update=bafy",
    "pinned,pin_error, unpinned,error,meta-pin,shard-pin,all",
];

/// A small generator; the same numbers every time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }

    /// A seed with a few of its bytes changed, removed, doubled or cut off.
    fn mutate(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(5) {
                0 => bytes.insert(at, self.below(256) as u8),
                1 if at < bytes.len() => bytes[at] = self.below(256) as u8,
                2 if at < bytes.len() => drop(bytes.remove(at)),
                3 => bytes.truncate(at),
                _ => bytes.extend_from_within(at..),
            }
        }
        bytes
    }
}

#[test]
fn no_text_makes_a_parser_panic() {
    let mut random = Random(1);
    let mut n_cids = 0;
    for round in 0..8_000 {
        let bytes = random.mutate(SEEDS[round % SEEDS.len()].as_bytes());
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(cid) = parse_cid_bytes(&bytes) {
            n_cids += 1;
            assert_eq!(parse_cid_bytes(cid.to_string().as_bytes()), Ok(cid), "{text}");
        }
        if let Ok(peer) = parse_peer_id(&text) {
            assert_eq!(parse_peer_id(&peer.to_string()), Ok(peer), "{text}");
        }
        if let Ok(addr) = parse_multiaddr(&text) {
            let printed = multiaddr_text(&addr);
            assert_eq!(parse_multiaddr(&printed).map(|again| multiaddr_text(&again)), Ok(printed), "{text}");
        }
        if let Ok(time) = Time::parse_rfc3339(&text) {
            assert_eq!(Time::parse_rfc3339(&time.to_string()), Ok(time), "{text}");
        }
        let _ = Duration::parse(&text);
        let query = Query::parse(&text);
        assert_eq!(Query::parse(&query.encode()).encode(), query.encode(), "{text}");
        if let Ok(options) = PinOptions::from_query(&query) {
            assert!(PinOptions::from_query(&options.to_query()).is_ok(), "{text}");
        }
        if let Ok(params) = AddParams::from_query(&query) {
            assert!(AddParams::from_query(&params.to_query()).is_ok(), "{text}");
        }
        let _ = (TrackerStatus::parse_filter(&text).to_string(), PinTypes::parse(&text));
    }
    assert!(n_cids > 500, "{n_cids}");
}

#[test]
fn no_document_makes_a_reader_panic() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/rest/");
    let mut seeds = Vec::new();
    for name in ["info-single-peer.json", "status-cids.json", "pin-options.json"] {
        let recording =
            cluster_compat::testing::golden::Recording::load(&std::path::Path::new(fixtures).join(name))
                .unwrap();
        let lines = recording.steps.iter().filter_map(|step| step.answer.body.text().lines().next());
        seeds.extend(lines.map(str::to_string));
    }
    let mut random = Random(2);
    for round in 0..3_000 {
        let bytes = random.mutate(seeds[round % seeds.len()].as_bytes());
        if let Ok(pin) = serde_json::from_slice::<Pin>(&bytes) {
            let again: Pin = serde_json::from_slice(&json::to_vec(&pin)).unwrap();
            assert_eq!(json::to_string(&again), json::to_string(&pin));
        }
        if let Ok(info) = serde_json::from_slice::<GlobalPinInfo>(&bytes) {
            let again: GlobalPinInfo = serde_json::from_slice(&json::to_vec(&info)).unwrap();
            assert_eq!(json::to_string(&again), json::to_string(&info));
        }
        if let Ok(id) = serde_json::from_slice::<Id>(&bytes) {
            let again: Id = serde_json::from_slice(&json::to_vec(&id)).unwrap();
            assert_eq!(json::to_string(&again), json::to_string(&id));
        }
        let _ = serde_json::from_slice::<Metric>(&bytes);
        let _ = serde_json::from_slice::<Alert>(&bytes);
        let _ = serde_json::from_slice::<ConnectGraph>(&bytes);
        let _ = serde_json::from_slice::<GlobalRepoGc>(&bytes);
        let _ = serde_json::from_slice::<AddedOutput>(&bytes);
    }
}
