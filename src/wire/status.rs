//! What a peer says of one CID (spec: wire 4.4).

use cluster_compat::go::time::Time;
use cluster_compat::types::{PeerId, PinInfo, PinInfoShort, TrackerStatus};

use super::Error;
use super::msgpack::{Reader, Writer};

const KEYS: [&str; 15] = ["c", "m", "p", "o", "g", "t", "md", "pn", "i", "ia", "st", "ts", "e", "a", "y"];

/// Writes a row as one value.
pub fn write(out: &mut Writer, info: &PinInfo) {
    let short = &info.short;
    let mut record = out.record();
    record.cid("c", Some(&info.cid));
    record.text("m", &info.name);
    record.peer("p", Some(&info.peer));
    record.peers("o", info.allocations.as_deref());
    record.addrs("g", info.origins.as_deref());
    record.time("t", info.created);
    record.texts("md", info.metadata.as_ref());
    record.text("pn", &short.peername);
    record.peer("i", short.ipfs_peer_id.as_ref());
    record.addrs("ia", Some(&*short.ipfs_peer_addresses).filter(|addrs| !addrs.is_empty()));
    record.int("st", i64::try_from(short.status.0).unwrap_or(i64::MAX));
    record.time("ts", short.timestamp);
    record.text("e", &short.error);
    record.int("a", i64::try_from(short.attempt_count).unwrap_or(i64::MAX));
    record.bool("y", short.priority_pin);
    record.end();
}

/// The bytes of a row.
pub fn encode(info: &PinInfo) -> Vec<u8> {
    Writer::one(|out| write(out, info))
}

/// Reads a row; bytes after it are ignored. It is `from`'s, whatever peer it names: nobody speaks for another.
pub fn decode(data: &[u8], from: PeerId) -> Result<PinInfo, Error> {
    let mut cid = None;
    let mut info = Row::default();
    let mut short = PinInfoShort {
        peername: String::new(),
        ipfs_peer_id: None,
        ipfs_peer_addresses: Vec::new(),
        status: TrackerStatus::UNDEFINED,
        timestamp: Time::ZERO,
        error: String::new(),
        attempt_count: 0,
        priority_pin: false,
    };
    Reader::new(data).record(&KEYS, |r, index| {
        match KEYS[index] {
            "c" => cid = r.cid()?,
            "m" => info.name = r.text()?,
            "p" => drop(r.peer()?),
            "o" => info.allocations = r.peers()?,
            "g" => info.origins = r.addrs()?,
            "t" => info.created = r.time()?,
            "md" => info.metadata = r.texts()?,
            "pn" => short.peername = r.text()?,
            "i" => short.ipfs_peer_id = r.peer()?,
            "ia" => short.ipfs_peer_addresses = r.addrs()?.unwrap_or_default(),
            "st" => short.status = TrackerStatus(u64::try_from(r.int()?).unwrap_or(0)),
            "ts" => short.timestamp = r.time()?,
            "e" => short.error = r.text()?,
            "a" => short.attempt_count = u64::try_from(r.int()?).unwrap_or(0),
            _ => short.priority_pin = r.bool()?,
        }
        Ok(())
    })?;
    let Row { name, allocations, origins, created, metadata } = info;
    let cid = cid.ok_or(Error::RowWithoutCid)?;
    Ok(PinInfo { cid, name, peer: from, allocations, origins, created, metadata, short })
}

/// What a row says of the pin itself.
#[derive(Default)]
struct Row {
    name: String,
    allocations: Option<Vec<PeerId>>,
    origins: Option<Vec<cluster_compat::types::Multiaddr>>,
    created: Time,
    metadata: Option<std::collections::BTreeMap<String, String>>,
}

/// The bytes of a filter of statuses.
pub fn encode_filter(filter: TrackerStatus) -> Vec<u8> {
    let mut out = Writer::new();
    out.int(i64::try_from(filter.0).unwrap_or(i64::MAX));
    out.into_bytes()
}

/// Reads a filter; bytes after it are ignored.
pub fn decode_filter(data: &[u8]) -> Result<TrackerStatus, Error> {
    let mut reader = Reader::new(data);
    let bits = reader.int()?;
    u64::try_from(bits)
        .map(TrackerStatus)
        .map_err(|_| reader.invalid(format!("{bits} is no filter of statuses")))
}
