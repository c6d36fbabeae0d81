//! Who a peer is, as it answers calls (spec: wire 4.4).

use cluster_compat::types::{Id, IpfsId, Version};

use super::Error;
use super::msgpack::{Reader, Writer};

const IPFS_KEYS: [&str; 3] = ["i", "a", "e"];
const KEYS: [&str; 10] = ["i", "a", "cp", "cpa", "v", "c", "rv", "e", "ip", "pn"];

/// The bytes of a peer's description.
pub fn encode(id: &Id) -> Vec<u8> {
    let mut out = Writer::new();
    let mut record = out.record();
    record.peer("i", id.id.as_ref());
    record.addrs("a", id.addresses.as_deref());
    record.peers("cp", id.cluster_peers.as_deref());
    record.addrs("cpa", id.cluster_peers_addresses.as_deref());
    record.text("v", &id.version);
    record.text("c", &id.commit);
    record.text("rv", &id.rpc_protocol_version);
    record.text("e", &id.error);
    let ipfs = &id.ipfs;
    if ipfs.id.is_some() || ipfs.addresses.is_some() || !ipfs.error.is_empty() {
        let mut inner = record.field("ip").record();
        inner.peer("i", ipfs.id.as_ref());
        inner.addrs("a", ipfs.addresses.as_deref());
        inner.text("e", &ipfs.error);
        inner.end();
    }
    record.text("pn", &id.peername);
    record.end();
    out.into_bytes()
}

/// Reads a peer's description; bytes after it are ignored.
pub fn decode(data: &[u8]) -> Result<Id, Error> {
    let mut id = Id::default();
    Reader::new(data).record(&KEYS, |r, index| {
        match KEYS[index] {
            "i" => id.id = r.peer()?,
            "a" => id.addresses = r.addrs()?,
            "cp" => id.cluster_peers = r.peers()?,
            "cpa" => id.cluster_peers_addresses = r.addrs()?,
            "v" => id.version = r.text()?,
            "c" => id.commit = r.text()?,
            "rv" => id.rpc_protocol_version = r.text()?,
            "e" => id.error = r.text()?,
            "ip" => id.ipfs = read_ipfs(r)?,
            _ => id.peername = r.text()?,
        }
        Ok(())
    })?;
    Ok(id)
}

fn read_ipfs(reader: &mut Reader<'_>) -> Result<IpfsId, Error> {
    let mut id = IpfsId::default();
    reader.record(&IPFS_KEYS, |r, index| {
        match index {
            0 => id.id = r.peer()?,
            1 => id.addresses = r.addrs()?,
            _ => id.error = r.text()?,
        }
        Ok(())
    })?;
    Ok(id)
}

/// The bytes of a version.
pub fn encode_version(version: &Version) -> Vec<u8> {
    let mut out = Writer::new();
    let mut record = out.record();
    record.text("v", &version.version);
    record.end();
    out.into_bytes()
}

/// Reads a version; bytes after it are ignored.
pub fn decode_version(data: &[u8]) -> Result<Version, Error> {
    let mut version = Version { version: String::new() };
    Reader::new(data).record(&["v"], |r, _| {
        version.version = r.text()?;
        Ok(())
    })?;
    Ok(version)
}
