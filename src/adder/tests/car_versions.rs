//! CAR files the reference refuses: several roots, version 2.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use cluster_compat::api::{self, EntryKind, ErrorKind};
use cluster_compat::types::{AddParams, Format};

use super::{Collector, Memory, add, entry, lines, params, pinned};

fn car_params() -> AddParams {
    AddParams { format: Format::Car, ..params() }
}

fn upload(name: &str, car: Bytes) -> Memory {
    Memory::new([(entry(name.as_bytes(), EntryKind::File), car)])
}

/// A dag-pb file of two raw blocks, as recorded in `car.json`.
const BLOCKS: &str = "hgEBcBIgXOYTv5vEnKb2j1s7Vg69bHz8KretN6RfOF1WorHyvBASKgokAVUSIF4yNag0blpFhfjFhWL1BSuP4mo7sSLh6Wx2eElk\
    38RhEgAYBhIqCiQBVRIgs09Oqrt4TCmKB2ZlxYlRmg0uR4c9e4U/MrPpVe+WuooSABgJCggIAhgPIAYgCSoBVRIgXjI1qDRuWkWF\
    +MWFYvUFK4/iajuxIuHpbHZ4SWTfxGFoZWxsbyAtAVUSILNPTqq7eEwpigdmZcWJUZoNLkeHPXuFPzKz6VXvlrqKY2FyIHdvcmxk";
const FILE: &str = "bafybeic44yj37g6etstpnd23hnla5plmpt6cvn5ng6sf6oc5k2rld4v4ca";
const LEAF: &str = "bafkreic6gi22qndoljcyl6gfqvrpkbjlr7rguo5relq6s3dwpbewjx6eme";

/// A file of version 1 with these roots.
fn car(roots: &[&str]) -> Vec<u8> {
    let mut header = vec![0xa2, 0x65];
    header.extend(b"roots");
    header.push(0x80 | roots.len() as u8);
    for root in roots {
        header.extend([0xd8, 42, 0x58, 37, 0]);
        header.extend(cluster_compat::types::parse_cid(root).unwrap().to_bytes());
    }
    header.extend(b"\x67version\x01");
    let mut car = Vec::new();
    for n in [header.len() & 0x7f | 0x80, header.len() >> 7] {
        car.push(n as u8);
    }
    car.extend(header);
    car.extend(BASE64_STANDARD.decode(BLOCKS).unwrap());
    car
}

/// The reference takes files of one root.
#[tokio::test]
async fn every_root_of_a_car_is_reported_and_pinned() {
    let host = Arc::new(Collector::new());
    let (events, error) = add(car_params(), upload("x.car", car(&[FILE, LEAF, FILE]).into()), &host).await;
    assert_eq!(error, None);
    assert_eq!(lines(&events), format!("\"x.car\" {FILE} 15\n\"x.car\" {LEAF} 0\n"));
    assert!(events.iter().all(|event| event.bytes == 113));
    let pinned: Vec<String> = pinned(&host).iter().map(ToString::to_string).collect();
    assert_eq!(pinned, [FILE, LEAF]);
    // The blocks of one root are not told from those of another.
    let mut params = AddParams { shard: true, ..car_params() };
    params.options.shard_size = 1000;
    let (_, error) = add(params.clone(), upload("x.car", car(&[FILE, LEAF]).into()), &host).await;
    let error = api::Error::from(error.unwrap());
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::BadRequest, "sharding a CAR file of 2 roots is not supported yet")
    );
    let (events, error) = add(params, upload("x.car", car(&[FILE]).into()), &host).await;
    assert_eq!((events.len(), error), (3, None));
}

/// A file of version 2: pragma, header, what stands before the data, data, index.
fn version_2(offset: u64, size: u64, index: u64, gap: usize, data: &[u8]) -> Bytes {
    let mut car = b"\x0a\xa1gversion\x02".to_vec();
    car.extend([0; 16]);
    for number in [offset, size, index] {
        car.extend(number.to_le_bytes());
    }
    car.extend(vec![0xff; gap]);
    car.extend(data);
    car.into()
}

/// The reference refuses version 2.
#[tokio::test]
async fn the_data_of_a_car_of_version_2_is_read_and_bad_offsets_are_named() {
    let data = car(&[FILE]);
    let size = data.len() as u64;
    let with_index = [&data[..], &[0x80, 0x08, 1, 2, 3]].concat();
    for (car, what) in [
        (version_2(51, size, 0, 0, &data), "the smallest"),
        (version_2(51, size, 51 + size, 0, &with_index), "an index behind it"),
        (version_2(51 + 4096, size, 0, 4096, &data), "padding"),
        (version_2(56, size, 51, 5, &data), "an index before it"),
    ] {
        let host = Arc::new(Collector::new());
        let (events, error) = add(car_params(), upload("x.car", car), &host).await;
        assert_eq!(error, None, "{what}");
        assert_eq!(lines(&events), format!("\"x.car\" {FILE} 15\n"), "{what}");
    }
    let prefix = "invalid header of CAR version 2: ";
    for (car, text) in [
        (version_2(0, size, 0, 0, &data), format!("{prefix}data offset 0 is inside the header of 51 bytes")),
        (
            version_2(50, size, 0, 0, &data),
            format!("{prefix}data offset 50 is inside the header of 51 bytes"),
        ),
        (version_2(51, 0, 0, 0, &data), format!("{prefix}data size is 0")),
        (
            version_2(u64::MAX, 2, 0, 0, &data),
            format!("{prefix}data offset {} and data size 2 are more than 64 bits hold", u64::MAX),
        ),
        (
            version_2(51, size, 52, 0, &data),
            format!("{prefix}index offset 52 is inside the header or the data"),
        ),
        (
            version_2(51, size, 7, 0, &data),
            format!("{prefix}index offset 7 is inside the header or the data"),
        ),
        (version_2(51, size + 1, 0, 0, &data), "unexpected EOF".into()),
        (version_2(51, size - 1, 0, 0, &data), "unexpected EOF".into()),
        (version_2(1 << 40, size, 0, 0, &data), "unexpected EOF".into()),
        (version_2(51, size, 0, 0, &data).slice(..30), "unexpected EOF".into()),
        (version_2(51, 11, 0, 0, b"\x0a\xa1gversion\x02"), "invalid car version: 2".into()),
    ] {
        let host = Arc::new(Collector::new());
        let (events, error) = add(car_params(), upload("x.car", car), &host).await;
        assert_eq!((events.len(), error.unwrap().to_string()), (0, text));
        assert_eq!(pinned(&host), []);
    }
}
