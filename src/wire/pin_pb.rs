//! A pin as the CRDT stores it: the reference's protobuf, byte for byte (fields in number order).
//!
//! Mode and user allocations are not stored; the mode comes back from the depth. Times lose their fraction.

use std::collections::BTreeMap;

use cluster_compat::go::time::Time;
use cluster_compat::types::{Cid, Multiaddr, PeerId, Pin, PinMode, PinOptions, PinType};

use super::Error;
use super::pb::{
    Fields, Value, malformed, put_bytes, put_bytes_if_any, put_number_if_any, put_sint32_if_any, sint32, text,
};

/// The stored form of a pin.
pub fn encode(pin: &Pin) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    put_bytes(&mut out, 1, &pin.cid.to_bytes());
    put_number_if_any(&mut out, 2, type_number(pin.pin_type));
    for peer in pin.allocations.iter().flatten() {
        put_bytes(&mut out, 3, &peer.to_bytes());
    }
    put_sint32_if_any(&mut out, 4, pin.max_depth);
    if let Some(reference) = &pin.reference {
        put_bytes(&mut out, 5, &reference.to_bytes());
    }
    put_bytes(&mut out, 6, &encode_options(&pin.options));
    put_number_if_any(&mut out, 7, seconds(pin.timestamp));
    out
}

fn encode_options(options: &PinOptions) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    put_sint32_if_any(&mut out, 1, options.replication_factor_min);
    put_sint32_if_any(&mut out, 2, options.replication_factor_max);
    put_bytes_if_any(&mut out, 3, options.name.as_bytes());
    put_number_if_any(&mut out, 4, options.shard_size);
    if let Some(update) = &options.pin_update {
        put_bytes(&mut out, 7, &update.to_bytes());
    }
    put_number_if_any(&mut out, 8, seconds(options.expire_at));
    for origin in options.origins.iter().flatten() {
        put_bytes(&mut out, 9, origin.as_ref());
    }
    for (key, value) in options.metadata.iter().flatten() {
        let mut entry = Vec::with_capacity(4 + key.len() + value.len());
        put_bytes_if_any(&mut entry, 1, key.as_bytes());
        put_bytes_if_any(&mut entry, 2, value.as_bytes());
        put_bytes(&mut out, 10, &entry);
    }
    out
}

fn type_number(pin_type: PinType) -> u64 {
    match pin_type {
        PinType::Bad => 0,
        PinType::Data => 1,
        PinType::Meta => 2,
        PinType::ClusterDag => 3,
        PinType::Shard => 4,
    }
}

/// Unix seconds; both Go's zero time and 1970 itself are "not set". Times before 1970 wrap, as the reference's do.
fn seconds(time: Time) -> u64 {
    if time.is_zero() { 0 } else { time.unix() as u64 }
}

/// Reads a stored pin; its CID is the one in the value.
pub fn decode(value: &[u8]) -> Result<Pin, Error> {
    let mut fields = Fields::new(value);
    let mut cid = None;
    while let Some((number, value)) = fields.next()? {
        if let (1, Value::Bytes(bytes)) = (number, value) {
            cid = parse_cid(bytes);
        }
    }
    let cid = cid.ok_or_else(|| malformed("the pin has no CID that can be read".into()))?;
    decode_as(cid, value)
}

/// Reads a stored pin whose CID is known from its key; the one in the value is not looked at.
pub fn decode_as(cid: Cid, value: &[u8]) -> Result<Pin, Error> {
    let mut pin = Pin {
        options: PinOptions { origins: Some(Vec::new()), ..PinOptions::default() },
        cid,
        pin_type: PinType::Bad,
        allocations: None,
        max_depth: 0,
        reference: None,
        timestamp: Time::ZERO,
    };
    let mut allocations = Vec::new();
    let mut sorted_metadata = BTreeMap::new();
    let mut fields = Fields::new(value);
    while let Some(field) = fields.next()? {
        match field {
            (2, Value::Varint(number)) => pin.pin_type = parse_type(number),
            (3, Value::Bytes(bytes)) => {
                let peer = PeerId::from_bytes(bytes);
                allocations
                    .push(peer.map_err(|e| malformed(format!("allocation {}: {e}", hex::encode(bytes))))?);
            }
            (4, Value::Varint(number)) => pin.max_depth = sint32(number),
            (5, Value::Bytes(bytes)) => pin.reference = parse_cid(bytes),
            (6, Value::Bytes(bytes)) => decode_options(&mut pin.options, &mut sorted_metadata, bytes)?,
            (7, Value::Varint(number)) => pin.timestamp = parse_time(number),
            _ => {}
        }
    }
    if !sorted_metadata.is_empty() {
        pin.options.metadata.get_or_insert_default().append(&mut sorted_metadata);
    }
    pin.options.mode = if pin.max_depth == 0 { PinMode::Direct } else { PinMode::Recursive };
    pin.allocations = Some(allocations);
    Ok(pin)
}

fn decode_options(
    options: &mut PinOptions,
    sorted_metadata: &mut BTreeMap<String, String>,
    message: &[u8],
) -> Result<(), Error> {
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Varint(number)) => options.replication_factor_min = sint32(number),
            (2, Value::Varint(number)) => options.replication_factor_max = sint32(number),
            (3, Value::Bytes(bytes)) => options.name = text(bytes, "name")?.to_owned(),
            (4, Value::Varint(number)) => options.shard_size = number,
            (6, Value::Bytes(bytes)) => {
                let (key, value) = decode_metadata(bytes)?;
                options.metadata.get_or_insert_default().insert(key, value);
            }
            (7, Value::Bytes(bytes)) => options.pin_update = parse_cid(bytes),
            (8, Value::Varint(number)) => options.expire_at = parse_time(number),
            (9, Value::Bytes(bytes)) => {
                let origin = Multiaddr::try_from(bytes.to_vec());
                let origin = origin.map_err(|e| malformed(format!("origin {}: {e}", hex::encode(bytes))))?;
                options.origins.get_or_insert_default().push(origin);
            }
            (10, Value::Bytes(bytes)) => {
                let (key, value) = decode_metadata(bytes)?;
                sorted_metadata.insert(key, value);
            }
            _ => {}
        }
    }
    Ok(())
}

fn decode_metadata(message: &[u8]) -> Result<(String, String), Error> {
    let mut fields = Fields::new(message);
    let (mut key, mut value) = ("", "");
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(bytes)) => key = text(bytes, "metadata key")?,
            (2, Value::Bytes(bytes)) => value = text(bytes, "metadata value")?,
            _ => {}
        }
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// The reference computes 1 << n; what is none of its types is bad.
fn parse_type(number: u64) -> PinType {
    match number {
        1 => PinType::Data,
        2 => PinType::Meta,
        3 => PinType::ClusterDag,
        4 => PinType::Shard,
        _ => PinType::Bad,
    }
}

fn parse_time(seconds: u64) -> Time {
    if seconds == 0 { Time::ZERO } else { Time::from_unix(seconds as i64, 0).local() }
}

/// A CID that takes all the bytes, or none.
pub(crate) fn parse_cid(mut bytes: &[u8]) -> Option<Cid> {
    let cid = Cid::read_bytes(&mut bytes).ok()?;
    bytes.is_empty().then_some(cid)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::wire::{key, pin};

    fn recorded() -> Vec<Value> {
        let recorded: Value = serde_json::from_str(include_str!("../../fixtures/wire/pins.json")).unwrap();
        recorded["items"].as_array().unwrap().clone()
    }

    #[test]
    fn pins_are_stored_as_the_reference_stores_them() {
        let mut n_pins = 0;
        for item in recorded() {
            let text = |name: &str| item[name].as_str().unwrap().to_owned();
            let pin = pin::decode(&hex::decode(text("msgpack")).unwrap()).unwrap();
            assert_eq!(hex::encode(encode(&pin)), text("protobuf"), "{}", item["title"]);
            assert_eq!(key::of_cid(&pin.cid), text("key"), "{}", item["title"]);
            n_pins += 1;
        }
        assert!(n_pins >= 30);
    }

    #[test]
    fn a_stored_pin_reads_back_to_the_same_bytes() {
        for item in recorded() {
            let stored = hex::decode(item["protobuf"].as_str().unwrap()).unwrap();
            assert_eq!(
                hex::encode(encode(&decode(&stored).unwrap())),
                hex::encode(&stored),
                "{}",
                item["title"]
            );
        }
    }

    #[test]
    fn old_metadata_is_read_under_the_sorted_one() {
        // options with field 6 {a: 1}, {b: 1} and field 10 {b: 2}
        let value = hex::decode("321a3206 0a0161120131 3206 0a0162120131 5206 0a0162120132".replace(' ', ""))
            .unwrap();
        let value = [&[0x32, 24][..], &value[2..]].concat();
        let pin = decode_as(crate::wire::crdt_pb::node_cid(b""), &value).unwrap();
        let metadata: Vec<_> = pin.options.metadata.unwrap().into_iter().collect();
        assert_eq!(metadata, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
    }

    #[test]
    fn an_empty_value_is_a_pin_of_bad_type() {
        let pin = decode_as(crate::wire::crdt_pb::node_cid(b""), b"").unwrap();
        assert_eq!((pin.pin_type, pin.max_depth, pin.options.mode), (PinType::Bad, 0, PinMode::Direct));
        assert!(decode(b"").is_err());
    }

    #[test]
    fn bad_values_are_errors_that_name_the_value() {
        for (value, part) in
            [("1a0101", "allocation 01"), ("32041a02fffe", "name is not UTF-8"), ("4a", "protobuf")]
        {
            let refused =
                decode_as(crate::wire::crdt_pb::node_cid(b""), &hex::decode(value).unwrap()).unwrap_err();
            assert!(refused.to_string().contains(part), "{refused}");
        }
    }
}
