//! Pins as peers send them in calls (spec: wire 4.4); the stored form is another one.

use cluster_compat::types::{Cid, Pin, PinMode, PinOptions, PinType};

use super::Error;
use super::msgpack::{Reader, Writer};

const KEYS: [&str; 16] = ["rn", "rx", "n", "o", "s", "ua", "e", "m", "pu", "g", "c", "t", "a", "d", "r", "i"];

/// The bytes of a pin.
pub fn encode(pin: &Pin) -> Vec<u8> {
    let mut out = Writer::new();
    write(&mut out, pin);
    out.into_bytes()
}

/// Writes a pin as one value.
pub fn write(out: &mut Writer, pin: &Pin) {
    let options = &pin.options;
    let mut record = out.record();
    record.int("rn", options.replication_factor_min);
    record.int("rx", options.replication_factor_max);
    record.text("n", &options.name);
    record.int(
        "o",
        match options.mode {
            PinMode::Recursive => 0,
            PinMode::Direct => 1,
        },
    );
    record.uint("s", options.shard_size);
    record.peers("ua", options.user_allocations.as_deref());
    record.time("e", options.expire_at);
    record.texts("m", options.metadata.as_ref());
    record.cid("pu", options.pin_update.as_ref());
    record.addrs("g", options.origins.as_deref());
    record.cid("c", Some(&pin.cid));
    record.uint("t", type_bit(pin.pin_type));
    record.peers("a", pin.allocations.as_deref());
    record.int("d", pin.max_depth);
    record.cid("r", pin.reference.as_ref());
    record.time("i", pin.timestamp);
    record.end();
}

/// Reads a pin; bytes after it are ignored. One without a CID is refused.
pub fn decode(data: &[u8]) -> Result<Pin, Error> {
    read(&mut Reader::new(data))
}

/// Reads a pin as one value.
pub fn read(reader: &mut Reader<'_>) -> Result<Pin, Error> {
    let mut options = PinOptions::default();
    let mut cid: Option<Cid> = None;
    let mut pin_type = PinType::Bad;
    let mut allocations = None;
    let mut max_depth = 0;
    let mut reference = None;
    let mut timestamp = Default::default();
    reader.record(&KEYS, |r, index| {
        match KEYS[index] {
            "rn" => options.replication_factor_min = r.int()?,
            "rx" => options.replication_factor_max = r.int()?,
            "n" => options.name = r.text()?,
            // a mode that does not exist is recursive, api/types.go ToPinDepth
            "o" => options.mode = if r.int()? == 1 { PinMode::Direct } else { PinMode::Recursive },
            "s" => options.shard_size = r.uint()?,
            "ua" => options.user_allocations = r.peers()?,
            "e" => options.expire_at = r.time()?,
            "m" => options.metadata = r.texts()?,
            "pu" => options.pin_update = r.cid()?,
            "g" => options.origins = r.addrs()?,
            "c" => cid = r.cid()?,
            "t" => pin_type = type_of_bits(r.uint()?),
            "a" => allocations = r.peers()?,
            "d" => max_depth = r.int()?,
            "r" => reference = r.cid()?,
            _ => timestamp = r.time()?,
        }
        Ok(())
    })?;
    let cid = cid.ok_or(Error::PinWithoutCid)?;
    Ok(Pin { options, cid, pin_type, allocations, max_depth, reference, timestamp })
}

const fn type_bit(pin_type: PinType) -> u64 {
    match pin_type {
        PinType::Bad => 1,
        PinType::Data => 2,
        PinType::Meta => 4,
        PinType::ClusterDag => 8,
        PinType::Shard => 16,
    }
}

/// A union of types counts as its highest one, as the reference stores it.
const fn type_of_bits(bits: u64) -> PinType {
    match bits {
        2..=3 => PinType::Data,
        4..=7 => PinType::Meta,
        8..=15 => PinType::ClusterDag,
        16..=31 => PinType::Shard,
        _ => PinType::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts<T: ToString>(list: Option<&Vec<T>>) -> serde_json::Value {
        list.map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>()).into()
    }

    #[test]
    fn recorded_pins_are_read_and_written_back() {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../../fixtures/wire/pins.json")).unwrap();
        for item in file["items"].as_array().unwrap() {
            let title = item["title"].as_str().unwrap();
            let data = hex::decode(item["msgpack"].as_str().unwrap()).unwrap();
            let sent = &item["pin"];
            let pin = decode(&data).unwrap();
            let or = |key: &str, zero: serde_json::Value| sent.get(key).cloned().unwrap_or(zero);
            assert_eq!(pin.cid.to_string(), sent["cid"], "{title}");
            assert_eq!(pin.options.name, or("name", "".into()), "{title}");
            assert_eq!(pin.options.replication_factor_min, or("replication_factor_min", 0.into()), "{title}");
            assert_eq!(pin.options.replication_factor_max, or("replication_factor_max", 0.into()), "{title}");
            assert_eq!(
                pin.options.mode == PinMode::Direct,
                sent.get("mode").is_some_and(|mode| mode == 1),
                "{title}"
            );
            assert_eq!(pin.options.shard_size, or("shard_size", 0.into()), "{title}");
            assert_eq!(texts(pin.options.user_allocations.as_ref()), sent["user_allocations"], "{title}");
            assert_eq!(texts(pin.options.origins.as_ref()), sent["origins"], "{title}");
            assert_eq!(serde_json::to_value(&pin.options.metadata).unwrap(), sent["metadata"], "{title}");
            assert_eq!(texts(pin.allocations.as_ref()), sent["allocations"], "{title}");
            assert_eq!(pin.max_depth, or("max_depth", 0.into()), "{title}");
            assert_eq!(
                pin.reference.map(|cid| cid.to_string()),
                sent["reference"].as_str().map(str::to_owned),
                "{title}"
            );
            assert_eq!(pin.timestamp.is_zero(), title == "no timestamp", "{title}");

            let written = encode(&pin);
            match title {
                // Go writes maps in random order
                "metadata" | "everything at once" => assert_eq!(written.len(), data.len(), "{title}"),
                // a union of types has no place in our `PinType`
                "all types at once" => assert_eq!(pin.pin_type, PinType::Shard),
                _ => assert_eq!(hex::encode(written), item["msgpack"], "{title}"),
            }
        }
    }

    #[test]
    fn a_pin_without_a_cid_is_refused() {
        for form in ["80", "c0", "81a163c0"] {
            assert!(matches!(decode(&hex::decode(form).unwrap()), Err(Error::PinWithoutCid)), "{form}");
        }
    }

    #[test]
    fn empty_lists_are_not_nothing() {
        let form = concat!(
            "89a2726effa27278ffa16ea16ea16d81a161a162a163da00221220c3c4733ec8affd06cf9e9ff50ffc6bcd2ec85a6170004bb709669c31",
            "de94391aa17402a16190a164ffa169a81d6f34546553f100"
        );
        let pin = decode(&hex::decode(form).unwrap()).unwrap();
        assert_eq!(pin.allocations, Some(vec![]));
        assert_eq!(hex::encode(encode(&pin)), form);
    }
}
