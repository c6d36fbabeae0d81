//! What CRDT peers exchange: nodes of the DAG (dag-pb around a delta) and broadcasts of heads.
//!
//! Decoding borrows from the block. Encoding gives the reference's bytes, and with them its CIDs.

use cluster_compat::types::Cid;
use sha2::{Digest, Sha256};

use super::Error;
use super::pb::{
    Fields, Value, bytes_field_len, malformed, put_bytes, put_bytes_head, put_bytes_if_any,
    put_number_if_any, text, varint_len,
};
use super::pin_pb::parse_cid;

/// Multicodec of dag-pb.
const DAG_PB: u64 = 0x70;

/// Multicodec of SHA2-256.
const SHA2_256: u64 = 0x12;

/// An element (key and value) or a tombstone (key and id).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Element<'a> {
    /// `/` and the base32 of a CID; other peers may write anything.
    pub key: &'a str,
    /// Of a tombstone: `/` and the base32 of the multihash of the node that added the element.
    pub id: &'a str,
    /// Of an element: the stored pin.
    pub value: &'a [u8],
}

impl<'a> Element<'a> {
    fn message_len(&self) -> usize {
        [self.key.len(), self.id.len(), self.value.len()]
            .iter()
            .filter(|n| **n > 0)
            .map(|n| bytes_field_len(*n))
            .sum()
    }

    /// Bytes it takes in a delta.
    pub fn encoded_len(&self) -> usize {
        bytes_field_len(self.message_len())
    }

    fn encode(&self, field: u8, out: &mut Vec<u8>) {
        put_bytes_head(out, field, self.message_len());
        put_bytes_if_any(out, 1, self.key.as_bytes());
        put_bytes_if_any(out, 2, self.id.as_bytes());
        put_bytes_if_any(out, 3, self.value);
    }

    fn decode(message: &'a [u8]) -> Result<Self, Error> {
        let mut element = Self::default();
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Bytes(bytes)) => element.key = text(bytes, "key")?,
                (2, Value::Bytes(bytes)) => element.id = text(bytes, "id")?,
                (3, Value::Bytes(bytes)) => element.value = bytes,
                _ => {}
            }
        }
        Ok(element)
    }
}

/// What one node changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delta<'a> {
    /// Adds.
    pub elements: Vec<Element<'a>>,
    /// Deletes.
    pub tombstones: Vec<Element<'a>>,
    /// Height of the node in the DAG.
    pub priority: u64,
}

impl<'a> Delta<'a> {
    /// Bytes of its protobuf.
    pub fn encoded_len(&self) -> usize {
        let parts = self.elements.iter().chain(&self.tombstones);
        let priority = if self.priority == 0 { 0 } else { 1 + varint_len(self.priority) };
        parts.map(Element::encoded_len).sum::<usize>() + priority
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for element in &self.elements {
            element.encode(1, out);
        }
        for tombstone in &self.tombstones {
            tombstone.encode(2, out);
        }
        put_number_if_any(out, 3, self.priority);
    }

    fn decode(message: &'a [u8]) -> Result<Self, Error> {
        let mut delta = Self::default();
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Bytes(bytes)) => delta.elements.push(Element::decode(bytes)?),
                (2, Value::Bytes(bytes)) => delta.tombstones.push(Element::decode(bytes)?),
                (3, Value::Varint(number)) => delta.priority = number,
                _ => {}
            }
        }
        Ok(delta)
    }
}

/// A node of the DAG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node<'a> {
    /// Its parents, in the order of the block.
    pub links: Vec<Cid>,
    /// What it changes.
    pub delta: Delta<'a>,
}

/// The block of a node over `links`, which are sorted by the bytes of their CIDs.
pub fn encode_node(links: &[Cid], delta: &Delta<'_>) -> Vec<u8> {
    let delta_len = delta.encoded_len();
    let mut out = Vec::with_capacity(links.len() * 48 + bytes_field_len(delta_len));
    for link in links {
        let hash = link.to_bytes();
        // Hash, then Name and Tsize, which the reference writes though they are empty and zero
        put_bytes_head(&mut out, 2, bytes_field_len(hash.len()) + 4);
        put_bytes(&mut out, 1, &hash);
        out.extend_from_slice(&[0x12, 0, 0x18, 0]);
    }
    if delta_len > 0 {
        put_bytes_head(&mut out, 1, delta_len);
        delta.encode(&mut out);
    }
    out
}

/// The CID of a node's block.
pub fn node_cid(block: &[u8]) -> Cid {
    let mut multihash = [0u8; 34];
    multihash[0] = SHA2_256 as u8;
    multihash[1] = 32;
    multihash[2..].copy_from_slice(&Sha256::digest(block));
    match cid::multihash::Multihash::from_bytes(&multihash) {
        Ok(multihash) => Cid::new_v1(DAG_PB, multihash),
        Err(_) => unreachable!("34 bytes that announce a digest of 32 are a multihash"),
    }
}

/// The CID by which a node of a given multihash is known.
pub fn cid_of_multihash(multihash: &[u8]) -> Option<Cid> {
    cid::multihash::Multihash::from_bytes(multihash).ok().map(|multihash| Cid::new_v1(DAG_PB, multihash))
}

/// Reads a node. Strict as the reference's decoder: fields in order, none twice, none unknown.
pub fn decode_node(block: &[u8]) -> Result<Node<'_>, Error> {
    let mut links = Vec::new();
    let mut data = None;
    let mut links_are_closed = false;
    let mut fields = Fields::new(block);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(_)) if data.is_some() => return Err(malformed("dag-pb: duplicate Data".into())),
            (1, Value::Bytes(bytes)) => {
                data = Some(bytes);
                links_are_closed = !links.is_empty();
            }
            (2, Value::Bytes(_)) if links_are_closed => {
                return Err(malformed("dag-pb: duplicate Links".into()));
            }
            (2, Value::Bytes(bytes)) => links.push(decode_link(bytes)?),
            (number, _) => return Err(malformed(format!("dag-pb: invalid field {number} of a node"))),
        }
    }
    Ok(Node { links, delta: Delta::decode(data.unwrap_or_default())? })
}

fn decode_link(message: &[u8]) -> Result<Cid, Error> {
    let mut cid = None;
    let mut last = 0;
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        match field {
            (number, _) if number <= last => {
                return Err(malformed("dag-pb: fields of a link out of order".into()));
            }
            (1, Value::Bytes(bytes)) => {
                cid = parse_cid(bytes);
                if cid.is_none() {
                    return Err(malformed(format!("dag-pb: invalid CID {} in a link", hex::encode(bytes))));
                }
            }
            (2, Value::Bytes(_)) | (3, Value::Varint(_)) => {}
            (number, _) => return Err(malformed(format!("dag-pb: invalid field {number} of a link"))),
        }
        last = field.0;
    }
    cid.ok_or_else(|| malformed("dag-pb: a link without Hash".into()))
}

/// The announcement of heads.
pub fn encode_heads(heads: &[Cid]) -> Vec<u8> {
    let mut out = Vec::with_capacity(heads.len() * 40);
    for head in heads {
        let cid = head.to_bytes();
        put_bytes_head(&mut out, 1, bytes_field_len(cid.len()));
        put_bytes(&mut out, 1, &cid);
    }
    out
}

/// Reads an announcement; one that is a bare CID, as very old peers sent, is taken too.
pub fn decode_heads(message: &[u8]) -> Result<Vec<Cid>, Error> {
    match decode_heads_message(message) {
        Ok(heads) => Ok(heads),
        Err(cause) => parse_cid(message).map(|cid| vec![cid]).ok_or(cause),
    }
}

fn decode_heads_message(message: &[u8]) -> Result<Vec<Cid>, Error> {
    let mut heads = Vec::new();
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        let (1, Value::Bytes(head)) = field else { continue };
        let mut head_fields = Fields::new(head);
        let mut cid: &[u8] = &[];
        while let Some(field) = head_fields.next()? {
            if let (1, Value::Bytes(bytes)) = field {
                cid = bytes;
            }
        }
        let parsed = parse_cid(cid);
        heads.push(parsed.ok_or_else(|| malformed(format!("invalid CID {} of a head", hex::encode(cid))))?);
    }
    Ok(heads)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The worked example of two independent encoders: a pin, then its removal.
    #[test]
    fn the_first_node_of_a_set_has_the_known_cid() {
        let value = hex::decode(
            "0a221220c3c4733ec8affd06cf9e9ff50ffc6bcd2ec85a6170004bb709669c31de94391a10012001320f080110011a016e52060a01611201623880e2cfaa06",
        )
        .unwrap();
        let key = "/CIQMHRDTH3EK77IGZ6PJ75IP7RV42LWILJQXAACLW4EWNHBR32KDSGQ";
        let elements = vec![Element { key, id: "", value: &value }];
        let block = encode_node(&[], &Delta { elements, tombstones: vec![], priority: 1 });
        let first = node_cid(&block);
        assert_eq!(first.to_string(), "bafybeichkobqq3enzvdvmf33zehps5gxgvij3nwzhhmpsgsiq7qfdf7uxi");
        let id = crate::wire::key::spell(&first.hash().to_bytes());
        let tombstones = vec![Element { key, id: &id, value: b"" }];
        let block = encode_node(&[first], &Delta { elements: vec![], tombstones, priority: 2 });
        assert_eq!(
            node_cid(&block).to_string(),
            "bafybeibowikfg7bwxngavgjzy22hfjtb3tl6eq7g3z6abqqvijrkikp2ky"
        );
    }

    #[test]
    fn recorded_broadcasts_read_and_come_out_the_same() {
        let recorded: Value = serde_json::from_str(include_str!("../../fixtures/crdt/heads.json")).unwrap();
        for message in recorded.as_array().unwrap() {
            let data = hex::decode(message["data"].as_str().unwrap()).unwrap();
            let heads = decode_heads(&data).unwrap();
            let texts: Vec<_> = heads.iter().map(ToString::to_string).collect();
            assert_eq!(serde_json::json!(texts), message["heads"]);
            assert_eq!(encode_heads(&heads), data);
        }
    }

    #[test]
    fn a_bare_cid_is_taken_for_one_head() {
        let cid = node_cid(b"x");
        assert_eq!(decode_heads(&cid.to_bytes()).unwrap(), [cid]);
        assert!(decode_heads(&hex::decode("0a020a00").unwrap()).is_err());
    }

    #[test]
    fn blocks_that_are_no_strict_dag_pb_are_refused() {
        let link = "122a0a2401701220b0cf9bf94afe6ebff0a45951c37fae540b24783eb1e837957371baf2dc9b96c312001800";
        let good = hex::decode(format!("{link}0a00")).unwrap();
        assert_eq!(decode_node(&good).unwrap().links.len(), 1);
        for bad in [
            format!("{link}0a00{link}"),
            "0a000a00".to_owned(),
            "1a00".to_owned(),
            "12021200".to_owned(),
            "12060a0401701220".to_owned(),
            "0a020aff".to_owned(),
        ] {
            assert!(decode_node(&hex::decode(&bad).unwrap()).is_err(), "{bad}");
        }
    }
}
