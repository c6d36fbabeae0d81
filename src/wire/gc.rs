//! Garbage collection and sizes of daemons' repositories (spec: wire 4.4).

use cluster_compat::types::{IpfsRepoStat, PeerId, RepoGc, RepoGcKey};

use super::Error;
use super::msgpack::{Reader, Writer};

/// Steps of a garbage collection that are read: in memory one takes about 200 bytes, on the wire as few as 8.
const MAX_KEYS: usize = 4_000_000;

const KEYS: [&str; 4] = ["p", "pn", "k", "e"];

/// The bytes of what a peer collected.
pub fn encode(gc: &RepoGc) -> Vec<u8> {
    let mut out = Writer::new();
    let mut record = out.record();
    record.peer("p", Some(&gc.peer));
    record.text("pn", &gc.peername);
    let keys = record.field("k");
    match &gc.keys {
        None => keys.nil(),
        Some(list) => {
            keys.list(list.len());
            for item in list {
                let mut inner = keys.record();
                inner.cid("k", item.key.as_ref());
                inner.text("e", &item.error);
                inner.end();
            }
        }
    }
    record.text("e", &gc.error);
    record.end();
    out.into_bytes()
}

/// Reads what a peer collected; bytes after it are ignored. It is `from`'s, whatever peer it names.
pub fn decode(data: &[u8], from: PeerId) -> Result<RepoGc, Error> {
    let mut gc = RepoGc { peer: from, peername: String::new(), keys: None, error: String::new() };
    Reader::new(data).record(&KEYS, |r, index| {
        match index {
            0 => drop(r.peer()?),
            1 => gc.peername = r.text()?,
            2 => {
                let mut n = 0;
                gc.keys = r.list(|r| {
                    n += 1;
                    if n > MAX_KEYS {
                        return Err(r.invalid(format!("more than {MAX_KEYS} steps of a garbage collection")));
                    }
                    read_key(r)
                })?;
            }
            _ => gc.error = r.text()?,
        }
        Ok(())
    })?;
    Ok(gc)
}

fn read_key(reader: &mut Reader<'_>) -> Result<RepoGcKey, Error> {
    let mut item = RepoGcKey { key: None, error: String::new() };
    reader.record(&["k", "e"], |r, index| {
        match index {
            0 => item.key = r.cid()?,
            _ => item.error = r.text()?,
        }
        Ok(())
    })?;
    if item.key.is_none() && item.error.is_empty() {
        return Err(reader.invalid("a step of a garbage collection without key or error".into()));
    }
    Ok(item)
}

/// The bytes of a repository's sizes; the second is written even when it is 0.
pub fn encode_stat(stat: &IpfsRepoStat) -> Vec<u8> {
    let mut out = Writer::new();
    let mut record = out.record();
    record.uint("r", stat.repo_size);
    record.field("s").uint(stat.storage_max);
    record.end();
    out.into_bytes()
}

/// Reads a repository's sizes; bytes after them are ignored.
pub fn decode_stat(data: &[u8]) -> Result<IpfsRepoStat, Error> {
    let mut stat = IpfsRepoStat::default();
    Reader::new(data).record(&["r", "s"], |r, index| {
        match index {
            0 => stat.repo_size = r.uint()?,
            _ => stat.storage_max = r.uint()?,
        }
        Ok(())
    })?;
    Ok(stat)
}
