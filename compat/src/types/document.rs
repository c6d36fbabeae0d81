//! Documents of long listings, written without ceremony.
//!
//! A listing prints a million pins, and their encoding is most of its cost. So the two kinds of rows write
//! themselves piece by piece: fixed text in one go, strings as they are where nothing in them needs an escape, CIDs,
//! peers and times from buffers on the stack. What comes out is what serde makes of the same value.

use std::collections::BTreeMap;

use serde::Serialize;

use super::addr::with_addr_text;
use super::cid::cid_text;
use super::peer::with_peer_text;
use super::{AddedOutput, Cid, GlobalPinInfo, Id, Multiaddr, PeerId, Pin, PinInfoShort, TrackerStatus};
use crate::go::json::{self, write_str};
use crate::go::time::Time;

/// A row of a long answer.
pub trait Document: Serialize {
    /// Appends its JSON.
    fn write_json(&self, out: &mut Vec<u8>) {
        json::write_into(out, self);
    }
}

impl Document for AddedOutput {}
impl Document for Id {}
impl Document for u32 {}

impl Document for Pin {
    fn write_json(&self, out: &mut Vec<u8>) {
        let options = &self.options;
        out.reserve(768);
        out.extend_from_slice(b"{\"replication_factor_min\":");
        write_int(out, options.replication_factor_min);
        out.extend_from_slice(b",\"replication_factor_max\":");
        write_int(out, options.replication_factor_max);
        out.extend_from_slice(b",\"name\":");
        write_str(out, &options.name);
        out.extend_from_slice(b",\"mode\":\"");
        out.extend_from_slice(options.mode.as_str().as_bytes());
        out.extend_from_slice(b"\",\"shard_size\":");
        write_uint(out, options.shard_size);
        out.extend_from_slice(b",\"user_allocations\":");
        write_peers(out, options.user_allocations.as_deref());
        out.extend_from_slice(b",\"expire_at\":");
        write_time(out, options.expire_at);
        out.extend_from_slice(b",\"metadata\":");
        write_metadata(out, options.metadata.as_ref());
        out.extend_from_slice(b",\"pin_update\":");
        write_cid(out, options.pin_update.as_ref());
        out.extend_from_slice(b",\"origins\":");
        write_addrs(out, options.origins.as_deref());
        out.extend_from_slice(b",\"cid\":");
        write_cid(out, Some(&self.cid));
        out.extend_from_slice(b",\"type\":\"");
        out.extend_from_slice(self.pin_type.as_str().as_bytes());
        out.extend_from_slice(b"\",\"allocations\":");
        write_peers(out, self.allocations.as_deref());
        out.extend_from_slice(b",\"max_depth\":");
        write_int(out, self.max_depth);
        out.extend_from_slice(b",\"reference\":");
        write_cid(out, self.reference.as_ref());
        out.extend_from_slice(b",\"timestamp\":");
        write_time(out, self.timestamp);
        out.push(b'}');
    }
}

impl Document for GlobalPinInfo {
    fn write_json(&self, out: &mut Vec<u8>) {
        out.reserve(768);
        out.extend_from_slice(b"{\"cid\":");
        write_cid(out, self.cid.as_ref());
        out.extend_from_slice(b",\"name\":");
        write_str(out, &self.name);
        out.extend_from_slice(b",\"allocations\":");
        write_peers(out, self.allocations.as_deref());
        out.extend_from_slice(b",\"origins\":");
        write_addrs(out, self.origins.as_deref());
        out.extend_from_slice(b",\"created\":");
        write_time(out, self.created);
        out.extend_from_slice(b",\"metadata\":");
        write_metadata(out, self.metadata.as_ref());
        out.extend_from_slice(b",\"peer_map\":{");
        for (i, (peer, short)) in self.peer_map.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            write_str(out, peer);
            out.push(b':');
            write_short(out, short);
        }
        out.extend_from_slice(b"}}");
    }
}

fn write_short(out: &mut Vec<u8>, short: &PinInfoShort) {
    out.extend_from_slice(b"{\"peername\":");
    write_str(out, &short.peername);
    if let Some(peer) = &short.ipfs_peer_id {
        out.extend_from_slice(b",\"ipfs_peer_id\":");
        with_peer_text(peer, |text| write_str(out, text));
    }
    if !short.ipfs_peer_addresses.is_empty() {
        out.extend_from_slice(b",\"ipfs_peer_addresses\":");
        write_addrs(out, Some(&short.ipfs_peer_addresses));
    }
    out.extend_from_slice(b",\"status\":");
    write_status(out, short.status);
    out.extend_from_slice(b",\"timestamp\":");
    write_time(out, short.timestamp);
    out.extend_from_slice(b",\"error\":");
    write_str(out, &short.error);
    out.extend_from_slice(b",\"attempt_count\":");
    write_uint(out, short.attempt_count);
    out.extend_from_slice(if short.priority_pin {
        b",\"priority_pin\":true}"
    } else {
        b",\"priority_pin\":false}"
    });
}

fn write_status(out: &mut Vec<u8>, status: TrackerStatus) {
    match status.name() {
        Some(name) => write_str(out, name),
        None => json::write_into(out, &status),
    }
}

fn write_time(out: &mut Vec<u8>, time: Time) {
    out.push(b'"');
    time.write_to(out);
    out.push(b'"');
}

fn write_cid(out: &mut Vec<u8>, cid: Option<&Cid>) {
    let Some(cid) = cid else { return out.extend_from_slice(b"null") };
    out.push(b'"');
    out.extend_from_slice(cid_text(cid).as_bytes());
    out.push(b'"');
}

fn write_peers(out: &mut Vec<u8>, peers: Option<&[PeerId]>) {
    write_list(out, peers, |out, peer| with_peer_text(peer, |text| write_str(out, text)));
}

fn write_addrs(out: &mut Vec<u8>, addrs: Option<&[Multiaddr]>) {
    write_list(out, addrs, |out, addr| with_addr_text(addr, |text| write_str(out, text)));
}

fn write_list<T>(out: &mut Vec<u8>, items: Option<&[T]>, write: impl Fn(&mut Vec<u8>, &T)) {
    let Some(items) = items else { return out.extend_from_slice(b"null") };
    out.push(b'[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

fn write_metadata(out: &mut Vec<u8>, metadata: Option<&BTreeMap<String, String>>) {
    let Some(metadata) = metadata else { return out.extend_from_slice(b"null") };
    out.push(b'{');
    for (i, (key, value)) in metadata.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_str(out, key);
        out.push(b':');
        write_str(out, value);
    }
    out.push(b'}');
}

fn write_int(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    write_uint(out, value.unsigned_abs());
}

fn write_uint(out: &mut Vec<u8>, mut value: u64) {
    // 2^64 has 20 digits
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{PinMode, PinType, parse_cid, parse_multiaddr, parse_peer_id};

    const PEERS: [&str; 2] = [
        "12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt",
        "QmUZ13osndQ5uL4tPWHXe3iBgBgq9gfewcBMSCAuMBsDJ6",
    ];
    const TEXTS: [&str; 8] =
        ["", "plain", "12345678\"", "<a>&b", "\u{1}\t\n\\", "é\u{2028}\u{2029}ß", "\u{7f}", "tail\u{1f}"];

    fn same<T: Document>(value: &T) {
        let mut written = b"before".to_vec();
        value.write_json(&mut written);
        assert_eq!(String::from_utf8(written).unwrap(), format!("before{}", json::to_string(value)));
    }

    fn times() -> [Time; 3] {
        [Time::ZERO, Time::from_unix(1_790_000_000, 120_000_000), Time::from_unix(-5, 1)]
    }

    #[test]
    fn pins_are_written_as_serde_writes_them() {
        let cids = ["QmP63DkAFEnDYNjDYBpyNDfttu1fvUw99x1brscPzpqmmq", "bafkqab3uoj2xg5dfmq"]
            .map(|text| parse_cid(text).unwrap());
        let peers: Vec<PeerId> = PEERS.iter().map(|text| parse_peer_id(text).unwrap()).collect();
        let addrs =
            vec![parse_multiaddr("/ip4/1.2.3.4/tcp/1").unwrap(), parse_multiaddr("/dns4/a/tcp/2").unwrap()];
        let types = [PinType::Bad, PinType::Data, PinType::Meta, PinType::ClusterDag, PinType::Shard];
        for n in 0..40 {
            let mut pin = Pin::new(cids[n % 2]);
            pin.pin_type = types[n % 5];
            pin.max_depth = [-1, 0, i64::MIN, i64::MAX][n % 4];
            pin.reference = (n % 3 == 0).then_some(cids[1]);
            pin.timestamp = times()[n % 3];
            pin.allocations = [None, Some(vec![]), Some(peers.clone())][n % 3].clone();
            pin.options.name = TEXTS[n % 8].into();
            pin.options.mode = [PinMode::Recursive, PinMode::Direct][n % 2];
            pin.options.replication_factor_min = [-1, 0, 12][n % 3];
            pin.options.shard_size = [0, 9, u64::MAX][n % 3];
            pin.options.user_allocations = (n % 4 == 0).then(|| peers.clone());
            pin.options.expire_at = times()[(n + 1) % 3];
            pin.options.metadata = (n % 5 != 0).then(|| {
                TEXTS[..n % 8].iter().map(|text| (text.to_string(), TEXTS[n % 8].to_string())).collect()
            });
            pin.options.pin_update = (n % 2 == 0).then_some(cids[0]);
            pin.options.origins = [None, Some(vec![]), Some(addrs.clone())][n % 3].clone();
            same(&pin);
        }
    }

    #[test]
    fn statuses_are_written_as_serde_writes_them() {
        let peer = parse_peer_id(PEERS[0]).unwrap();
        same(&GlobalPinInfo::default());
        for n in 0..40u64 {
            let text = TEXTS[n as usize % 8];
            let mut info = GlobalPinInfo {
                name: text.into(),
                created: times()[n as usize % 3],
                ..GlobalPinInfo::default()
            };
            for peer in &PEERS[..n as usize % 3] {
                let short = PinInfoShort {
                    peername: text.into(),
                    ipfs_peer_id: (n % 2 == 0).then(|| parse_peer_id(PEERS[1]).unwrap()),
                    ipfs_peer_addresses: (0..n % 3)
                        .map(|_| parse_multiaddr("/ip4/1.2.3.4/udp/1/quic-v1").unwrap())
                        .collect(),
                    status: TrackerStatus(1 << (n % 20)),
                    timestamp: times()[n as usize % 3],
                    error: text.into(),
                    attempt_count: n,
                    priority_pin: n % 2 == 1,
                };
                info.add_view(&parse_peer_id(peer).unwrap(), short);
            }
            info.allocations = (n % 2 == 0).then(|| vec![peer]);
            info.cid = (n % 4 != 0).then(|| parse_cid("bafkqab3uoj2xg5dfmq").unwrap());
            same(&info);
        }
        same(&7u32);
    }
}
