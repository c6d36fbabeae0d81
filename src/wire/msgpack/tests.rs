//! The dialect, value by value, and recorded streams.

use cluster_compat::go::time::Time;

use super::*;

fn scan(data: &[u8]) -> Result<Option<usize>, Error> {
    Scanner::new().scan(data)
}

fn check(write: impl FnOnce(&mut Writer), expected: &str) {
    let mut out = Writer::new();
    write(&mut out);
    assert_eq!(hex::encode(out.into_bytes()), expected);
}

#[test]
fn numbers_take_gos_forms() {
    for (value, expected) in [
        (0, "00"),
        (127, "7f"),
        (-32, "e0"),
        (-33, "d0df"),
        (128, "d10080"),
        (200, "d100c8"),
        (32767, "d17fff"),
        (-200, "d1ff38"),
        (70000, "d200011170"),
        (1_000_000, "d2000f4240"),
        (i64::MIN, "d38000000000000000"),
    ] {
        check(|out| out.int(value), expected);
        assert_eq!(Reader::new(&hex::decode(expected).unwrap()).int(), Ok(value));
    }
    for (value, expected) in [
        (127, "7f"),
        (200, "ccc8"),
        (1000, "cd03e8"),
        (104_857_600, "ce06400000"),
        (u64::MAX, "cfffffffffffffffff"),
    ] {
        check(|out| out.uint(value), expected);
        assert_eq!(Reader::new(&hex::decode(expected).unwrap()).uint(), Ok(value));
    }
}

#[test]
fn times_take_the_shortest_of_three_forms() {
    for (time, expected) in [
        (Time::ZERO, "c0"),
        (Time::from_unix(1_700_000_000, 0), "a46553f100"),
        (Time::from_unix(1_700_000_000, 123_456_789), "a81d6f34546553f100"),
        (Time::from_unix(-2, 0), "ac00000000fffffffffffffffe"),
        (Time::from_unix(1 << 33, 0), "a80000000200000000"),
    ] {
        check(|out| out.time(time), expected);
        assert_eq!(Reader::new(&hex::decode(expected).unwrap()).time(), Ok(time));
    }
}

#[test]
fn what_gos_decoder_takes_is_taken() {
    let time = Time::from_unix(1_700_000_000, 0);
    for form in ["d6ff6553f100", "c70cff00000000000000006553f100", "c4046553f100"] {
        assert_eq!(Reader::new(&hex::decode(form).unwrap()).time(), Ok(time), "{form}");
    }
    assert_eq!(Reader::new(&[0xd9, 1, b'x']).text().as_deref(), Ok("x"));
    assert_eq!(Reader::new(&[0x93, 1, 0xcc, 255, 3]).bytes(), Ok(vec![1, 255, 3]));
    assert_eq!(Reader::new(&hex::decode("cb4008000000000000").unwrap()).int(), Ok(3));
    let mut seen = Vec::new();
    // an unknown key with a nested value, then a record given as a list with one field too many
    for form in ["82a17881a16191c0a16205", "92c005", "9301050a"] {
        let data = hex::decode(form).unwrap();
        let mut reader = Reader::new(&data);
        let mut b = 0;
        reader
            .record(&["a", "b"], |r, index| {
                let value = r.int()?;
                if index == 1 {
                    b = value;
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(reader.at(), data.len());
        seen.push(b);
    }
    assert_eq!(seen, [5, 5, 5]);
}

#[test]
fn wrong_values_are_named() {
    for (form, message) in [
        ("a0", "msgpack: value before byte 1: CID : "),
        ("c3", "msgpack: byte 0 starts a bool, expected a string"),
        ("a90155000568656c6c", "msgpack: input ends at byte 9, inside a value"),
        (
            "aa0155000568656c6c6f00",
            "msgpack: value before byte 11: CID 0155000568656c6c6f00: 1 bytes too many",
        ),
    ] {
        let error = Reader::new(&hex::decode(form).unwrap()).cid().unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
    assert!(Reader::new(&[0xff]).uint().is_err());
    assert!(Reader::new(&[0xa1, b'x']).int().is_err());
    assert!(Reader::new(&[0xa3, 1, 2, 3]).time().is_err());
}

#[test]
fn lengths_are_not_believed() {
    for form in ["ddffffffff", "dfffffffff", "dbffffffff", "c9ffffffff00"] {
        let data = hex::decode(form).unwrap();
        assert!(Reader::new(&data).peers().is_err());
        assert_eq!(scan(&data), Ok(None));
    }
    let deep = vec![0x91; 1 << 20];
    assert_eq!(scan(&deep), Ok(None));
    assert!(scan(&[0x91, 0xc1]).is_err());
}

#[test]
fn a_stream_of_values_falls_apart_as_the_reference_sent_it() {
    let file: serde_json::Value =
        serde_json::from_str(include_str!("../../../fixtures/wire/rpc-calls.json")).unwrap();
    for item in file["items"].as_array().unwrap() {
        for side in ["request", "response"] {
            let values: Vec<Vec<u8>> = item[side]
                .as_array()
                .unwrap()
                .iter()
                .map(|value| hex::decode(value.as_str().unwrap()).unwrap())
                .collect();
            let stream = values.concat();
            let mut at = 0;
            for value in &values {
                assert_eq!(scan(&stream[at..]), Ok(Some(value.len())), "{} {side}", item["title"]);
                let mut scanner = Scanner::new();
                for cut in 0..value.len() {
                    assert_eq!(scanner.scan(&stream[at..at + cut]), Ok(None));
                }
                assert_eq!(scanner.scan(&stream[at..]), Ok(Some(value.len())));
                at += value.len();
            }
        }
    }
}
