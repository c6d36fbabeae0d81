//! Uploads: forms, CAR files, and the blocks in them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use cluster_compat::api::{self, Entry, EntryKind, Upload};
use cluster_compat::http::multipart::Multipart;
use cluster_compat::types::{AddParams, Cid, Format, PeerId, Pin, PinOptions};
use futures::{StreamExt as _, stream};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::StreamBody;
use hyper::body::Frame;
use ipfs_cluster::adder::{self, Batch, Host};
use multihash_codetable::{Code, MultihashDigest as _};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

use super::fixture;

const RAW: u64 = 0x55;
const DAG_PB: u64 = 0x70;
const DAG_CBOR: u64 = 0x71;

thread_local! {
    static RUNTIME: Runtime =
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
}

/// Pieces of so many bytes.
fn pieces(data: &[u8], step: usize) -> VecDeque<Bytes> {
    data.chunks(step).map(Bytes::copy_from_slice).collect()
}

/// All entries of a form with their contents, or what went wrong.
async fn entries(body: VecDeque<Bytes>) -> (Vec<(Entry, Vec<u8>)>, Option<String>) {
    let kind = "multipart/form-data; boundary=b".parse().expect("a header");
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind)]);
    let body = stream::iter(body.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece))));
    let (mut form, _) = Multipart::new(&headers, StreamBody::new(body)).expect("it has a boundary");
    let mut entries = Vec::new();
    loop {
        match form.next_entry().await {
            Ok(None) => return (entries, None),
            Err(error) => return (entries, Some(error.message)),
            Ok(Some(entry)) => {
                let mut content = Vec::new();
                loop {
                    match form.read().await {
                        Ok(Some(piece)) => content.extend_from_slice(&piece),
                        Ok(None) => break,
                        Err(error) => return (entries, Some(error.message)),
                    }
                }
                entries.push((entry, content));
            }
        }
    }
}

/// A form is read the same however it is cut; the first byte says how.
pub(super) fn form(data: &[u8]) {
    let Some((step, body)) = data.split_first() else { return };
    let (whole, cut) = RUNTIME.with(|runtime| {
        runtime.block_on(async {
            (entries(pieces(body, usize::MAX)).await, entries(pieces(body, usize::from(*step) + 1)).await)
        })
    });
    assert_eq!(whole, cut, "pieces of {} bytes", usize::from(*step) + 1);
    assert!(whole.0.iter().map(|(_, content)| content.len()).sum::<usize>() <= body.len());
}

/// One file that comes in pieces.
struct OneFile(Option<VecDeque<Bytes>>, VecDeque<Bytes>);

#[async_trait]
impl Upload for OneFile {
    async fn next_entry(&mut self) -> api::Result<Option<Entry>> {
        self.1 = match self.0.take() {
            Some(content) => content,
            None => return Ok(None),
        };
        Ok(Some(Entry { path: b"x.car".to_vec(), kind: EntryKind::File, abspath: None }))
    }

    async fn read(&mut self) -> api::Result<Option<Bytes>> {
        Ok(self.1.pop_front())
    }
}

/// Takes blocks that are named after their data, and pins.
struct Keeper {
    pins: Mutex<Vec<Cid>>,
}

#[async_trait]
impl Host for Keeper {
    fn local_peer(&self) -> PeerId {
        PeerId::from_bytes(&[0, 1, 0]).expect("an identity multihash of one byte")
    }

    async fn allocate(&self, _: &PinOptions) -> Result<Vec<PeerId>, adder::Error> {
        Ok(vec![self.local_peer()])
    }

    async fn put_blocks(&self, _: &[PeerId], mut blocks: mpsc::Receiver<Batch>) -> Result<(), adder::Error> {
        while let Some(batch) = blocks.recv().await {
            for block in batch {
                let hash = block.cid.hash();
                let named = adder::digest(hash.code(), hash.size(), &block.data);
                assert_eq!(named.as_ref(), Some(hash), "{} is not the name of its data", block.cid);
            }
        }
        Ok(())
    }

    async fn pin(&self, pin: Pin) -> Result<Pin, adder::Error> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner).push(pin.cid);
        Ok(pin)
    }

    async fn is_pinned(&self, _: &Cid) -> Result<bool, adder::Error> {
        Ok(false)
    }

    fn take_back(&self, _: Vec<Cid>) -> oneshot::Receiver<()> {
        oneshot::channel().1
    }
}

/// What adding a CAR file gives: the lines of its events, or the error; and what is pinned.
fn added(file: VecDeque<Bytes>) -> (Vec<String>, Vec<Cid>) {
    let host = Arc::new(Keeper { pins: Mutex::default() });
    let params = AddParams { format: Format::Car, ..AddParams::default() };
    let upload = Box::new(OneFile(Some(file), VecDeque::new()));
    let events = adder::import(params, upload, host.clone());
    let lines = events.map(|event| format!("{event:?}")).collect();
    let lines = RUNTIME.with(|runtime| runtime.block_on(lines));
    let pins = host.pins.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (lines, pins)
}

/// A CAR file comes to the same however it is cut, and nothing of a bad one is pinned; the first byte says how it is cut.
pub(super) fn car(data: &[u8]) {
    let Some((step, file)) = data.split_first() else { return };
    let whole = added(pieces(file, usize::MAX));
    assert_eq!(whole, added(pieces(file, usize::from(*step) + 1)));
    let (events, pins) = whole;
    assert_eq!(events.iter().any(|event| event.starts_with("Err")), pins.is_empty(), "{events:?}, {pins:?}");
}

fn section(section: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut length = section.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    [&bytes, section].concat()
}

/// A CAR file of one block.
fn car_of(codec: u64, data: &[u8]) -> Vec<u8> {
    let cid = Cid::new_v1(codec, Code::Sha2_256.digest(data)).to_bytes();
    let header = [b"\xa2\x65roots\x81\xd8\x2a\x58\x25\0", &cid[..], b"\x67version\x01"].concat();
    [section(&header), section(&[&cid[..], data].concat())].concat()
}

/// Blocks as the reader of CAR files decodes them; the first byte chooses the codec.
pub(super) fn block(data: &[u8]) {
    let Some((codec, block)) = data.split_first() else { return };
    let codec = if codec % 4 == 0 { DAG_CBOR } else { DAG_PB };
    added(pieces(&car_of(codec, block), usize::MAX));
}

/// Good forms, in pieces of one length each.
pub(super) fn forms() -> Vec<Vec<u8>> {
    let part = |head: &str, content: &str| format!("--b\r\n{head}\r\n\r\n{content}\r\n");
    let named = |name: &str| format!("Content-Disposition: form-data; name=\"file\"; filename=\"{name}\"");
    let forms = [
        format!("{}--b--\r\n", part(&named("a"), "some content")),
        format!(
            "{}{}{}--b--\r\n",
            part(&format!("{}\r\nContent-Type: application/x-directory", named("d")), ""),
            part(&format!("{}\r\nContent-Type: application/symlink", named("d%2Fl")), "target"),
            part(&format!("{}\r\nAbspath-Encoded: %2Fa+b", named("d%2F%ff%20")), "x\r\n--bx\r\n--\r\n"),
        ),
        "hello\r\n--b\r\nContent-Disposition: form-data; filename*=utf-8''%e2%82%ac\r\n\r\n--b--".to_owned(),
        "--b\nContent-Disposition: form-data; filename=a\n\nx\n--b \nContent-Disposition: x\n\n\n--b--\n"
            .to_owned(),
    ];
    forms.iter().zip([0u8, 3, 17, 255]).map(|(form, step)| [&[step], form.as_bytes()].concat()).collect()
}

/// The recorded CAR files, short ones.
pub(super) fn cars() -> Vec<Vec<u8>> {
    let recorded = fixture("add/cars.jsonl");
    let cars = recorded.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        base64::Engine::decode(&base64::prelude::BASE64_STANDARD, line["car"].as_str()?).ok()
    });
    let cars = cars.filter(|car| car.len() < 8192).map(|car| [&[20][..], &car].concat());
    cars.chain([[&[255][..], &car_of(RAW, b"hello")].concat()]).collect()
}

/// A file, its parts, a link, directories of both kinds, and DAG-CBOR.
pub(super) fn blocks() -> Vec<Vec<u8>> {
    let blocks = [
        "010a0408021800",
        "010a0b0802120568656c6c6f1805",
        "0112280a2212209273fd63ec94bed5abb219b2d9cb010cabe4af7b0177292d4335eff50464060a120018100a0608021805200518052005",
        "010a0a080412067461726765740a00",
        "010a020801",
        "0112340a2212209273fd63ec94bed5abb219b2d9cb010cabe4af7b0177292d4335eff50464060a120a4146616263646566676818100a0808051201802822308002",
        "00a16130d82a58230012209273fd63ec94bed5abb219b2d9cb010cabe4af7b0177292d4335eff50464060a",
        "0083f6fb3ff0000000000000a26161f56162f4",
    ];
    blocks.iter().map(|block| hex::decode(block).expect("hexadecimal")).collect()
}
