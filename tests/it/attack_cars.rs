//! CAR files that are cut, corrupt or made to hurt.

use cluster_compat::types::Cid;
use multihash_codetable::{Code, MultihashDigest as _};

use crate::attacks::Expect::{Accepted, Refused};
use crate::attacks::{Attack, Expect, form, named, part};
use crate::raw::Body;

const RAW: u64 = 0x55;
const DAG_PB: u64 = 0x70;
const DAG_CBOR: u64 = 0x71;

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// The head of a CBOR item.
fn item(major: u8, argument: u64) -> Vec<u8> {
    match argument {
        0..24 => vec![major << 5 | argument as u8],
        24..256 => vec![major << 5 | 24, argument as u8],
        _ => [&[major << 5 | 27][..], &argument.to_be_bytes()].concat(),
    }
}

fn text(text: &str) -> Vec<u8> {
    [&item(3, text.len() as u64)[..], text.as_bytes()].concat()
}

/// A link to the bytes of a CID.
fn link(cid: &[u8]) -> Vec<u8> {
    [&b"\xd8\x2a"[..], &item(2, cid.len() as u64 + 1), b"\0", cid].concat()
}

/// A map of keys and values.
fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries_bytes = entries.iter().flat_map(|(key, value)| [text(key), value.clone()]);
    [item(5, entries.len() as u64)].into_iter().chain(entries_bytes).flatten().collect()
}

fn list(items: &[Vec<u8>]) -> Vec<u8> {
    [&item(4, items.len() as u64)[..], &items.concat()].concat()
}

fn section(bytes: &[u8]) -> Vec<u8> {
    [&varint(bytes.len() as u64)[..], bytes].concat()
}

fn cid_of(codec: u64, data: &[u8]) -> Vec<u8> {
    Cid::new_v1(codec, Code::Sha2_256.digest(data)).to_bytes()
}

/// The section of a block with its right CID.
fn block(codec: u64, data: &[u8]) -> Vec<u8> {
    section(&[&cid_of(codec, data)[..], data].concat())
}

/// The header of a file with one root.
fn header(root: &[u8]) -> Vec<u8> {
    map(&[("roots", list(&[link(root)])), ("version", item(0, 1))])
}

/// A file of one root, and sections.
fn car(root: &[u8], sections: &[Vec<u8>]) -> Vec<u8> {
    [&section(&header(root))[..], &sections.concat()].concat()
}

/// A file of the parts of its second version: where the data is said to be, and what it is.
fn second(offset: u64, size: u64, index: u64, data: &[u8]) -> Vec<u8> {
    let pragma = section(&map(&[("version", item(0, 2))]));
    let numbers = [offset, size, index].map(u64::to_le_bytes).concat();
    [&pragma[..], &[0; 16], &numbers, data].concat()
}

fn attack(name: &str, car: Vec<u8>, expect: Expect) -> Attack {
    Attack {
        name: format!("CAR: {name}"),
        options: "&format=car",
        kind: "multipart/form-data; boundary=b".into(),
        body: Body::Chunks(form(&[part(&named("x.car"), car)]), 64 << 10),
        expect,
    }
}

/// A root of raw bytes, and two files that have it for a root: one with another block, one with its own.
pub(crate) fn two_halves() -> (String, Vec<u8>, Vec<u8>) {
    let root = cid_of(RAW, b"the root");
    let text = Cid::try_from(&root[..]).unwrap().to_string();
    (text, car(&root, &[block(RAW, b"a block")]), car(&root, &[block(RAW, b"the root")]))
}

/// Headers.
fn headers() -> Vec<Attack> {
    let hello = block(RAW, b"hello");
    let root = cid_of(RAW, b"hello");
    let one = |name: &str, header: Vec<u8>, expect| {
        attack(name, [section(&header), hello.clone()].concat(), expect)
    };
    let roots = || list(&[link(&root)]);
    let version = |value: Vec<u8>| map(&[("roots", list(&[link(&root)])), ("version", value)]);
    let invalid = Refused("invalid header");
    vec![
        attack("nothing", Vec::new(), Refused("EOF")),
        attack("a length beyond 64 bits", [0xff; 10].to_vec(), Refused("varint overflows a 64-bit integer")),
        attack("a length without end", [0x80; 9].to_vec(), Refused("unexpected EOF")),
        attack("a header of 2^63 bytes", varint(1 << 63), Refused("")),
        attack("a header of 2^64-1 bytes", varint(u64::MAX), Refused("")),
        attack("a header that ends early", section(&header(&root))[..20].to_vec(), Refused("unexpected EOF")),
        one("an empty header", Vec::new(), invalid),
        one("a header of a number", item(0, 5), invalid),
        one("a header of a text", text("hello"), invalid),
        one("a header of a list", list(&[roots()]), invalid),
        one("a header of 2^64-1 entries", item(5, u64::MAX), invalid),
        one("a header with numbers for keys", [item(5, 1), item(0, 1), item(0, 1)].concat(), invalid),
        one("a header without end", [&b"\xbf"[..], &text("version"), &item(0, 1), b"\xff"].concat(), invalid),
        one(
            "a list of roots without end",
            map(&[("roots", b"\x9f\xff".to_vec()), ("version", item(0, 1))]),
            invalid,
        ),
        one("no version", map(&[("roots", roots())]), Refused("invalid car version: 0")),
        one("version 0", version(item(0, 0)), Refused("invalid car version: 0")),
        one("version 3", version(item(0, 3)), Refused("invalid car version: 3")),
        one(
            "version 2^64-1",
            version(item(0, u64::MAX)),
            Refused("invalid car version: 18446744073709551615"),
        ),
        one("version -1", version(item(1, 0)), invalid),
        one("version \"1\"", version(text("1")), invalid),
        one("no roots", map(&[("version", item(0, 1))]), Refused("empty car, no roots")),
        one(
            "an empty list of roots",
            map(&[("roots", list(&[])), ("version", item(0, 1))]),
            Refused("empty car, no roots"),
        ),
        one("roots of a number", map(&[("roots", item(0, 1)), ("version", item(0, 1))]), invalid),
        one("roots of texts", map(&[("roots", list(&[text("x")])), ("version", item(0, 1))]), invalid),
        one("2^64-1 roots", map(&[("roots", item(4, u64::MAX)), ("version", item(0, 1))]), invalid),
        one(
            "a link of another tag",
            map(&[
                ("roots", list(&[[&[0xd8, 43][..], &link(&root)[2..]].concat()])),
                ("version", item(0, 1)),
            ]),
            invalid,
        ),
        one(
            "a link without its zero",
            map(&[
                ("roots", list(&[[&b"\xd8\x2a"[..], &item(2, root.len() as u64), &root].concat()])),
                ("version", item(0, 1)),
            ]),
            invalid,
        ),
        one("a link to nothing", map(&[("roots", list(&[link(b"")])), ("version", item(0, 1))]), invalid),
        one(
            "a link to no CID",
            map(&[("roots", list(&[link(b"\x01\x55\x12")])), ("version", item(0, 1))]),
            invalid,
        ),
        one(
            "a link of 2^63 bytes",
            map(&[
                ("roots", list(&[[b"\xd8\x2a".to_vec(), item(2, 1 << 63)].concat()])),
                ("version", item(0, 1)),
            ]),
            invalid,
        ),
        one(
            "two versions",
            map(&[("roots", roots()), ("version", item(0, 1)), ("version", item(0, 1))]),
            Accepted("x.car"),
        ),
        one(
            "two lists of roots",
            map(&[("roots", roots()), ("roots", roots()), ("version", item(0, 1))]),
            Accepted("x.car"),
        ),
        one(
            "a deep header",
            map(&[("roots", roots()), ("version", item(0, 1)), ("x", vec![0x81; 100_000])]),
            invalid,
        ),
        one("a header with more behind it", [header(&root), b"more".to_vec()].concat(), Accepted("x.car")),
        attack("a header alone", section(&header(&root)), Refused("has no blocks")),
    ]
}

/// Sections and the CIDs in them.
fn sections() -> Vec<Attack> {
    let root = cid_of(RAW, b"hello");
    let hello = block(RAW, b"hello");
    let after =
        |name: &str, bytes: Vec<u8>, expect| attack(name, car(&root, &[hello.clone(), bytes]), expect);
    let with_cid = |name: &str, cid: &[u8], data: &[u8], expect| {
        attack(name, car(&root, &[hello.clone(), section(&[cid, data].concat())]), expect)
    };
    let digest = Code::Sha2_256.digest(b"x");
    let hash =
        |code: u64, digest: &[u8]| [varint(code), varint(digest.len() as u64), digest.to_vec()].concat();
    let v1 = |codec: u64, hash: &[u8]| [&[1][..], &varint(codec), hash].concat();
    let sha = |n: usize| hash(0x12, &digest.digest()[..n]);
    let invalid = Refused("invalid cid");
    vec![
        after(
            "a section length beyond 64 bits",
            [0xff; 10].to_vec(),
            Refused("varint overflows a 64-bit integer"),
        ),
        after("a section length without end", vec![0x80], Refused("unexpected EOF")),
        after("a section of 2^63 bytes", varint(1 << 63), Refused("9223372036854775808")),
        after(
            "a section of 32 MiB and a byte",
            [varint((32 << 20) + 1), vec![0; 100]].concat(),
            Refused("33554433"),
        ),
        after("a section that ends early", block(RAW, b"abcdef")[..30].to_vec(), Refused("unexpected EOF")),
        after("a section of no bytes and more", [&b"\0"[..], &[0xff; 100]].concat(), Accepted("x.car")),
        attack(
            "a section of 32 MiB",
            car(&root, &[hello.clone(), block(RAW, &vec![7; (32 << 20) - 36])]),
            Accepted("x.car"),
        ),
        after("a section of a byte", section(b"\x01"), invalid),
        with_cid(
            "a wrong hash",
            &cid_of(RAW, b"y"),
            b"x",
            Refused("mismatch in content integrity, name: bafkrei"),
        ),
        with_cid(
            "a wrong hash of version 0",
            &Code::Sha2_256.digest(b"y").to_bytes(),
            b"x",
            Refused("mismatch in content integrity, name: Qm"),
        ),
        with_cid(
            "a CID of version 0 with another length",
            &[&[0x12, 0x14][..], &digest.digest()[..20]].concat(),
            b"x",
            invalid,
        ),
        with_cid("a CID of version 0 that ends early", &[0x12, 0x20, 1, 2, 3], b"", invalid),
        with_cid("a CID of version 2", &[&[2, 0x55][..], &sha(32)].concat(), b"x", invalid),
        with_cid("a CID of version 3", &[&[3, 0x55][..], &sha(32)].concat(), b"x", invalid),
        with_cid("a CID with version 0 spelled out", &[&[0, 0x70][..], &sha(32)].concat(), b"x", invalid),
        with_cid(
            "a CID of a version beyond 64 bits",
            &[&[0xff; 10][..], &[0x55], &sha(32)].concat(),
            b"x",
            invalid,
        ),
        with_cid(
            "a CID of a codec beyond 64 bits",
            &[&[1][..], &[0xff; 10], &sha(32)].concat(),
            b"x",
            invalid,
        ),
        with_cid("a CID whose hash ends early", &v1(RAW, &sha(32))[..20], b"", invalid),
        with_cid("a CID of a digest of 65 bytes", &v1(RAW, &hash(0x13, &[7; 65])), b"x", invalid),
        with_cid(
            "a CID of a digest of 2^40 bytes",
            &v1(RAW, &[varint(0x12), varint(1 << 40)].concat()),
            b"x",
            invalid,
        ),
        with_cid(
            "a CID with padded numbers",
            &[&[0x81, 0x00, 0x55][..], &sha(32)].concat(),
            b"x",
            Refused(""),
        ),
        with_cid("a CID of zeros", &[0; 36], b"x", invalid),
        with_cid(
            "a CID of an unknown hash",
            &v1(RAW, &hash(0x7777, &[7; 32])),
            b"x",
            Refused("hash function of block"),
        ),
        with_cid("a CID of an unknown codec", &v1(0x7777, &sha(32)), b"x", Refused("30583 (0x7777)")),
        with_cid("a digest longer than the hash", &v1(RAW, &hash(0x12, &[7; 40])), b"x", Refused("")),
        with_cid("a digest of no bytes", &v1(RAW, &sha(0)), b"x", Refused("fewer than 20")),
        with_cid("a digest of 4 bytes", &v1(RAW, &sha(4)), b"x", Refused("fewer than 20")),
        with_cid("a digest of 20 bytes of 32", &v1(RAW, &sha(20)), b"x", Accepted("x.car")),
        with_cid("an identity", &v1(RAW, &hash(0, b"x")), b"x", Accepted("x.car")),
        with_cid(
            "an identity of other data",
            &v1(RAW, &hash(0, b"x")),
            b"y",
            Refused("mismatch in content integrity"),
        ),
        with_cid(
            "an identity of less data",
            &v1(RAW, &hash(0, b"xy")),
            b"x",
            Refused("mismatch in content integrity"),
        ),
        with_cid("an empty identity", &v1(RAW, &hash(0, b"")), b"", Accepted("x.car")),
        attack("the same block again and again", car(&root, &vec![hello.clone(); 20_000]), Accepted("x.car")),
        attack(
            "a root that is not there",
            car(&cid_of(RAW, b"elsewhere"), std::slice::from_ref(&hello)),
            Accepted("x.car"),
        ),
    ]
}

/// Blocks that are not what their codec says.
fn blocks() -> Vec<Attack> {
    let good = block(RAW, b"hello");
    let root = cid_of(RAW, b"hello");
    let node = |name: &str, codec: u64, data: &[u8], expect| {
        attack(name, car(&root, &[good.clone(), block(codec, data)]), expect)
    };
    let linked = |hash: &[u8]| {
        let link = [&[0x0a, hash.len() as u8][..], hash].concat();
        [&[0x12, link.len() as u8][..], &link].concat()
    };
    let huge = [&[0x12][..], &varint(1 << 62)].concat();
    let some = Refused("");
    vec![
        node("dag-pb of noise", DAG_PB, b"\xff\xfe\xfd\xfc", some),
        node("dag-pb of nothing", DAG_PB, b"", Accepted("x.car")),
        node("dag-pb with a link of 2^62 bytes", DAG_PB, &huge, Refused("unexpected EOF")),
        node("dag-pb with a tag beyond 64 bits", DAG_PB, &[0xff; 11], some),
        node("dag-pb with an empty link", DAG_PB, &[0x12, 0], Refused("invalid Hash field found in link")),
        node("dag-pb with a link to noise", DAG_PB, &linked(b"noise"), Refused("invalid cid")),
        node("dag-pb with two contents", DAG_PB, &[0x0a, 0, 0x0a, 0], Refused("duplicate Data section")),
        node("dag-pb with another field", DAG_PB, &[0x1a, 0], Refused("invalid fieldNumber")),
        node("dag-pb with a number", DAG_PB, &[0x08, 1], Refused("invalid wireType")),
        node("dag-pb that ends early", DAG_PB, &[0x0a, 5, 8], Refused("unexpected EOF")),
        node("dag-pb that holds no file", DAG_PB, &[0x0a, 3, 0xff, 0xff, 0xff], Accepted("x.car")),
        node("dag-cbor of nothing", DAG_CBOR, b"", Refused("unexpected EOF")),
        node(
            "dag-cbor of lists in lists",
            DAG_CBOR,
            &[0x81; 200_000],
            Refused("nested more than 128 levels"),
        ),
        node(
            "dag-cbor of maps in maps",
            DAG_CBOR,
            &b"\xa1\x61a".repeat(50_000),
            Refused("nested more than 128 levels"),
        ),
        node("dag-cbor of a list of 2^64-1 items", DAG_CBOR, &item(4, u64::MAX), Refused("unexpected EOF")),
        node("dag-cbor of a map of 2^64-1 items", DAG_CBOR, &item(5, u64::MAX), Refused("unexpected EOF")),
        node("dag-cbor of a text of 2^64-1 bytes", DAG_CBOR, &item(3, u64::MAX), Refused("unexpected EOF")),
        node("dag-cbor without end", DAG_CBOR, b"\x9f\x01\xff", Refused("indefinite lengths")),
        node("dag-cbor with another tag", DAG_CBOR, b"\xc1\x01", Refused("unhandled cbor tag 1")),
        node("dag-cbor with a link to noise", DAG_CBOR, &link(b"noise"), Refused("invalid cid")),
        node("dag-cbor with more behind it", DAG_CBOR, b"\x01\x01", Refused("unexpected content after end")),
        node("dag-cbor with a text that is none", DAG_CBOR, b"\x61\xff", Refused("not UTF-8")),
        node(
            "dag-cbor of a million small items",
            DAG_CBOR,
            &[item(4, 1_000_000), vec![1; 1_000_000]].concat(),
            Accepted("x.car"),
        ),
        attack(
            "a root of dag-pb whose sizes are too large",
            {
                let message = [&[8, 2, 0x18][..], &varint(u64::MAX)].concat();
                let node = [&[0x0a, message.len() as u8][..], &message].concat();
                car(&cid_of(DAG_PB, &node), &[block(DAG_PB, &node)])
            },
            Accepted("x.car"),
        ),
    ]
}

/// The second version, and parts that hold no file.
fn others() -> Vec<Attack> {
    let inner = car(&cid_of(RAW, b"hello"), &[block(RAW, b"hello")]);
    let size = inner.len() as u64;
    let v2 = |name: &str, offset, size, index, data: &[u8]| {
        attack(&format!("version 2, {name}"), second(offset, size, index, data), Refused(""))
    };
    let form_of = |name: &str, options: &'static str, parts: &[Vec<u8>], expect| Attack {
        options,
        body: Body::Whole(form(parts)),
        ..attack(name, Vec::new(), expect)
    };
    let whole = second(51, size, 0, &inner);
    vec![
        v2("data before the header's end", 50, size, 0, &inner),
        v2("data at 0", 0, size, 0, &inner),
        v2("data at 2^64-1", u64::MAX, size, 0, &inner),
        v2("data behind the end", 10_000, size, 0, &inner),
        v2("data longer than the file", 51, size + 1, 0, &inner),
        v2("data of 2^64-1 bytes", 51, u64::MAX, 0, &inner),
        v2("data of 10 bytes", 51, 10, 0, &inner),
        v2("data that ends in a section", 51, size - 3, 0, &inner),
        v2("data of no bytes", 51, 0, 0, &inner),
        v2("no data", 51, size, 0, b""),
        v2("another version 2 inside", 51, whole.len() as u64, 0, &whole),
        attack("version 2 that ends in its header", whole[..30].to_vec(), Refused("")),
        attack("packed", b"\x1f\x8b\x08\0\0\0\0\0\0\0".to_vec(), Refused("")),
        attack("zeros", vec![0; 100_000], Refused("invalid header: EOF")),
        form_of("no part", "&format=car", &[], Refused("no file parts")),
        form_of(
            "in a directory",
            "&format=car",
            &[part(&named("d%2Fx.car"), &inner)],
            Refused("not of type file"),
        ),
        form_of(
            "a directory",
            "&format=car",
            &[part(&format!("{}\r\nContent-Type: application/x-directory", named("d")), "")],
            Refused("not of type file"),
        ),
        form_of(
            "a link",
            "&format=car",
            &[part(&format!("{}\r\nContent-Type: application/symlink", named("d")), "x")],
            Refused("EOF"),
        ),
        form_of(
            "wrapped",
            "&format=car&wrap-with-directory=true",
            &[part(&named("x"), &inner)],
            Refused("cannot wrap a CAR file upload"),
        ),
        attack("a part that is cut", Vec::new(), Refused("EOF")).with(Body::Whole(
            [&b"--b\r\n"[..], named("x.car").as_bytes(), b"\r\n\r\n", &inner[..70]].concat(),
        )),
    ]
}

impl Attack {
    fn with(self, body: Body) -> Self {
        Self { body, ..self }
    }
}

pub(crate) fn all() -> Vec<Attack> {
    [headers(), sections(), blocks(), others()].into_iter().flatten().collect()
}
