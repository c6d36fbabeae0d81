//! Our own way to fetch nodes of the DAG: many in one answer. Original peers do not speak it.
//!
//! The asker names a node, the nodes it has, and how much it takes; the answer is the node and its ancestors, nearest
//! first, up to those it has: each a length (uvarint) and a block, until the stream ends. Whether a block is the one
//! that was meant its hash says.

use cluster_compat::types::Cid;

use super::Error;
use super::pb::{Fields, Value, malformed, put_bytes, put_number_if_any};
use super::pin_pb::parse_cid;

/// The protocol.
pub const PROTOCOL: &str = "/ipfs-cluster-rs/nodes/1.0.0";

/// Most nodes an asker names as those it has.
pub const MAX_HAVE: usize = 256;

/// Longest request: [`MAX_HAVE`] CIDs of the usual 36 bytes, the node and the number, with room.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// What an asker wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The node to begin with.
    pub want: Cid,
    /// Nodes the asker has, and with them all beneath.
    pub have: Vec<Cid>,
    /// How many bytes of blocks to send at most; the first node comes whatever its size.
    pub max_bytes: u64,
}

impl Request {
    /// The bytes of a request. Nodes beyond [`MAX_HAVE`] are left out.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, 1, &self.want.to_bytes());
        for cid in self.have.iter().take(MAX_HAVE) {
            put_bytes(&mut out, 2, &cid.to_bytes());
        }
        put_number_if_any(&mut out, 3, self.max_bytes);
        out
    }

    /// Reads a request.
    pub fn decode(message: &[u8]) -> Result<Self, Error> {
        let cid = |bytes: &[u8]| {
            parse_cid(bytes)
                .ok_or_else(|| malformed(format!("invalid CID {} in a request", hex::encode(bytes))))
        };
        let (mut want, mut have, mut max_bytes) = (None, Vec::new(), 0);
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Bytes(bytes)) => want = Some(cid(bytes)?),
                (2, Value::Bytes(bytes)) if have.len() < MAX_HAVE => have.push(cid(bytes)?),
                (3, Value::Varint(number)) => max_bytes = number,
                _ => {}
            }
        }
        let want = want.ok_or_else(|| malformed("a request for no node".into()))?;
        Ok(Self { want, have, max_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::crdt_pb::node_cid;

    #[test]
    fn requests_survive_both_ways() {
        for n_have in [0, 1, MAX_HAVE] {
            let have = (0..n_have).map(|n| node_cid(&n.to_be_bytes())).collect();
            let request = Request { want: node_cid(b"tip"), have, max_bytes: 1 << 20 };
            let message = request.encode();
            assert!(message.len() <= MAX_REQUEST_BYTES);
            assert_eq!(Request::decode(&message).unwrap(), request);
        }
    }

    #[test]
    fn bad_requests_are_errors() {
        for bad in ["", "1801", "0a0101", "0a24", "0a0401701220"] {
            assert!(Request::decode(&hex::decode(bad).unwrap()).is_err(), "{bad}");
        }
    }
}
