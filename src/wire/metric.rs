//! Metrics as they travel in gossip and calls (spec: wire 3.1).

use cluster_compat::types::Metric;

use super::Error;
use super::msgpack::{Reader, Writer};

const KEYS: [&str; 8] = ["n", "p", "v", "e", "d", "w", "o", "t"];

/// What peers up to 0.13.3 put before a metric.
const OLD_PREFIX: &[u8] = b"\x09/msgpack\n";

/// The bytes of a metric.
pub fn encode(metric: &Metric) -> Vec<u8> {
    let mut out = Writer::new();
    write(&mut out, metric);
    out.into_bytes()
}

/// Writes a metric as one value.
pub fn write(out: &mut Writer, metric: &Metric) {
    let mut record = out.record();
    record.text("n", &metric.name);
    record.peer("p", metric.peer.as_ref());
    record.text("v", &metric.value);
    record.int("e", metric.expire);
    record.bool("d", metric.valid);
    record.int("w", metric.weight);
    record.bool("o", metric.partitionable);
    record.int("t", metric.received_at);
    record.end();
}

/// Reads a metric; bytes after it are ignored, and so is the prefix of old peers.
pub fn decode(data: &[u8]) -> Result<Metric, Error> {
    read(&mut Reader::new(data.strip_prefix(OLD_PREFIX).unwrap_or(data)))
}

/// Reads a metric as one value.
pub fn read(reader: &mut Reader<'_>) -> Result<Metric, Error> {
    let mut metric = Metric {
        name: String::new(),
        peer: None,
        value: String::new(),
        expire: 0,
        valid: false,
        weight: 0,
        partitionable: false,
        received_at: 0,
    };
    reader.record(&KEYS, |r, index| {
        match KEYS[index] {
            "n" => metric.name = r.text()?,
            "p" => metric.peer = r.peer()?,
            "v" => metric.value = r.text()?,
            "e" => metric.expire = r.int()?,
            "d" => metric.valid = r.bool()?,
            "w" => metric.weight = r.int()?,
            "o" => metric.partitionable = r.bool()?,
            _ => metric.received_at = r.int()?,
        }
        Ok(())
    })?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_metrics_are_read_and_written_back() {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../../fixtures/wire/metrics.json")).unwrap();
        for item in file["items"].as_array().unwrap() {
            let data = hex::decode(item["data"].as_str().unwrap()).unwrap();
            let expected = &item["metric"];
            let metric = decode(&data).unwrap();
            assert_eq!(metric.name, expected["name"]);
            assert_eq!(metric.peer.unwrap().to_string(), expected["peer"]);
            assert_eq!(metric.value, expected["value"]);
            assert_eq!(metric.expire, expected["expire"]);
            assert_eq!(metric.valid, expected["valid"]);
            assert_eq!(metric.weight, expected["weight"]);
            assert_eq!(metric.partitionable, expected["partitionable"]);
            assert_eq!(metric.received_at, expected["received_at"]);
            assert_eq!(encode(&metric), data);
        }
    }

    #[test]
    fn the_prefix_of_old_peers_and_bytes_behind_are_ignored() {
        let data = hex::decode(concat!(
            "85a16ea470696e67a170da00260024080112202f32b61523ab09a84d78de966a2fbe08ba6b1bcb88295b525fd12f6739a82425",
            "a176b17b22706565725f6e616d65223a2261227da165d317979d05324dac00a164c3"
        ))
        .unwrap();
        let metric = decode(&data).unwrap();
        assert_eq!(metric.peer.unwrap().to_string(), "12D3KooWCzcBPSRVQGSdgtpVwPo1HaNKATUrMcRdcYmZbNpp7pqi");
        assert_eq!(decode(&[OLD_PREFIX, &data, b"more"].concat()), Ok(metric));
    }

    #[test]
    fn garbage_is_an_error() {
        for data in
            [&b""[..], b"hello", b"\x81\xa1n\x05", b"\x81\xa1p\xa0", b"\x81\xa1p\xa3abc", b"\x84\xa1n"]
        {
            assert!(decode(data).is_err(), "{data:?}");
        }
    }
}
