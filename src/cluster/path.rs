//! Pins given by an IPFS path, and the parts of a sharded pin.

use cluster_compat::api::{Error, Result};
use cluster_compat::types::{Cid, Pin, PinInfo, PinOptions};
use tracing::error;

use super::{Cluster, failed};

impl Cluster {
    /// The CID a path leads to, as this peer's daemon resolves it.
    pub(super) async fn resolved(&self, path: &str) -> Result<Cid> {
        self.inner.ipfs.resolve(path).await.map_err(|cause| {
            error!(target: "cluster", "could not resolve {path}: {cause}");
            failed(cause)
        })
    }

    pub(super) async fn submit_path(&self, path: &str, options: PinOptions) -> Result<Pin> {
        let cid = self.resolved(path).await?;
        self.submit(Pin::with_options(cid, options), &[]).await
    }

    pub(super) async fn remove_path(&self, path: &str) -> Result<Pin> {
        let cid = self.resolved(path).await?;
        self.remove(cid).await
    }

    /// Unpins a sharded add: its shards, its cluster DAG, then the meta pin itself (spec: core 5.6).
    pub(super) async fn remove_meta(&self, meta: &Pin) -> Result<()> {
        for cid in self.sharded_parts(meta).await? {
            let part = self.stored(&cid)?.unwrap_or_else(|| Pin::new(cid));
            self.inner.consensus.log_unpin(part).await.map_err(failed)?;
        }
        self.inner.consensus.log_unpin(meta.clone()).await.map_err(failed)
    }

    /// Recovers every part of a sharded add; the last result stands for all.
    pub(super) async fn recover_meta(&self, meta: &Pin) -> Result<PinInfo> {
        for cid in self.sharded_parts(meta).await? {
            self.inner.tracker.recover(&cid).await.map_err(failed)?;
        }
        self.inner.tracker.recover(&meta.cid).await.map_err(failed)
    }

    /// The shards of a meta pin, then its cluster DAG: read from the daemon's block of the cluster DAG.
    async fn sharded_parts(&self, meta: &Pin) -> Result<Vec<Cid>> {
        let index = meta.reference.ok_or_else(|| Error::internal("metaPin.Reference is unset"))?;
        if self.stored(&index)?.is_none() {
            return Err(Error::internal(format!(
                "could not get clusterDAG pin from state. Malformed pin?: {}",
                cluster_compat::api::PIN_NOT_FOUND
            )));
        }
        let block = self
            .inner
            .ipfs
            .block_get(&index)
            .await
            .map_err(|cause| failed(format!("error reading clusterDAG block from ipfs: {cause}")))?;
        let mut parts = shard_links(&block)
            .map_err(|cause| failed(format!("error parsing clusterDAG block: {cause}")))?;
        parts.push(index);
        Ok(parts)
    }
}

/// The links of a cluster DAG's root: a DAG-CBOR map of decimal keys to CIDs, in key order.
fn shard_links(block: &[u8]) -> std::result::Result<Vec<Cid>, String> {
    let mut reader = Cbor { bytes: block };
    let n = reader.head(5)?;
    let mut links = Vec::new();
    for _ in 0..n {
        let key = reader.text()?;
        let number: u64 = key.parse().map_err(|_| format!("key {key:?} is not a number"))?;
        links.push((number, reader.link()?));
    }
    if !reader.bytes.is_empty() {
        return Err(format!("{} bytes after the map", reader.bytes.len()));
    }
    links.sort_by_key(|(number, _)| *number);
    Ok(links.into_iter().map(|(_, cid)| cid).collect())
}

/// As much of DAG-CBOR as a shard index needs.
struct Cbor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cbor<'a> {
    /// The length or value in the head of an item of this major type.
    fn head(&mut self, major: u8) -> std::result::Result<u64, String> {
        let (&first, rest) = self.bytes.split_first().ok_or("unexpected end")?;
        if first >> 5 != major {
            return Err(format!("major type {} where {major} belongs", first >> 5));
        }
        let n_bytes = match first & 31 {
            small @ 0..=23 => {
                self.bytes = rest;
                return Ok(u64::from(small));
            }
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            other => return Err(format!("length form {other}")),
        };
        let (number, rest) = rest.split_at_checked(n_bytes).ok_or("unexpected end")?;
        self.bytes = rest;
        Ok(number.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn take(&mut self, n: u64) -> std::result::Result<&'a [u8], String> {
        let n = usize::try_from(n).map_err(|_| "length out of range")?;
        let (head, rest) = self.bytes.split_at_checked(n).ok_or("unexpected end")?;
        self.bytes = rest;
        Ok(head)
    }

    fn text(&mut self) -> std::result::Result<&'a str, String> {
        let n = self.head(3)?;
        std::str::from_utf8(self.take(n)?).map_err(|cause| cause.to_string())
    }

    /// Tag 42 over a byte string: a zero byte, then the binary CID.
    fn link(&mut self) -> std::result::Result<Cid, String> {
        let tag = self.head(6)?;
        if tag != 42 {
            return Err(format!("tag {tag} where a link belongs"));
        }
        let n = self.head(2)?;
        let bytes = self.take(n)?;
        let cid = bytes.strip_prefix(&[0]).ok_or("link without its zero byte")?;
        Cid::try_from(cid).map_err(|cause| cause.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_links_come_in_numeric_order_and_broken_indexes_are_errors() {
        let cid: Cid = "bafybeichkobqq3enzvdvmf33zehps5gxgvij3nwzhhmpsgsiq7qfdf7uxi".parse().unwrap();
        let mut link = vec![0xd8, 42, 0x58, 37, 0];
        link.extend(cid.to_bytes());
        let mut block = vec![0xa2, 0x62, b'1', b'0'];
        block.extend(&link);
        block.extend([0x61, b'2']);
        block.extend(&link);
        assert_eq!(shard_links(&block).unwrap(), [cid, cid]);
        for end in 0..block.len() {
            assert!(shard_links(&block[..end]).is_err(), "cut at {end}");
        }
        block.push(0);
        assert_eq!(shard_links(&block).unwrap_err(), "1 bytes after the map");
    }
}
