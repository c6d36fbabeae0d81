//! Known inputs and their CIDs: `fixtures/add/vectors.jsonl`.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use cluster_compat::api::{Entry, EntryKind};
use cluster_compat::types::{AddParams, Layout};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Collector, Memory, add, entry, params, pinned};

/// ChaCha20 under the SHA-256 of a seed: Kubo's deterministic test data.
pub(super) fn chacha(len: usize, seed: &str) -> Vec<u8> {
    let key: [u8; 32] = Sha256::digest(seed).into();
    let mut state = [0u32; 16];
    state[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
    for (word, bytes) in state[4..12].iter_mut().zip(key.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    let mut out = Vec::with_capacity(len + 64);
    while out.len() < len {
        let mut block = state;
        for _ in 0..10 {
            for [a, b, c, d] in [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]]
                .into_iter()
                .chain([[0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]])
            {
                for (x, y, z, turn) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
                    block[x] = block[x].wrapping_add(block[y]);
                    block[z] = (block[z] ^ block[x]).rotate_left(turn);
                }
            }
        }
        for (word, start) in block.iter().zip(state) {
            out.extend_from_slice(&word.wrapping_add(start).to_le_bytes());
        }
        state[12] += 1;
    }
    out.truncate(len);
    out
}

/// Bytes of [`chacha`], kept between lines: most share a seed, and making them takes longer than importing them.
#[derive(Default)]
pub(super) struct Data(HashMap<String, Bytes>);

impl Data {
    fn chacha(&mut self, len: usize, seed: &str) -> Bytes {
        if self.0.get(seed).is_none_or(|bytes| bytes.len() < len) {
            // One more byte than asked for: the fixtures come in such pairs.
            self.0.insert(seed.to_owned(), chacha(len + 1, seed).into());
        }
        self.0[seed].slice(..len)
    }
}

/// Entries a line of the fixture describes.
fn entries(path: &str, content: &Value, data: &mut Data) -> Vec<(Entry, Bytes)> {
    let number = |value: &Value, key: &str| value[key].as_u64().unwrap() as usize;
    let file =
        |name: String, content: Bytes| (entry(format!("{path}/{name}").as_bytes(), EntryKind::File), content);
    let (kind, value) = content.as_object().unwrap().iter().next().unwrap();
    match kind.as_str() {
        "text" => vec![(entry(path.as_bytes(), EntryKind::File), value.as_str().unwrap().to_owned().into())],
        "chacha" => {
            let data = data.chacha(value[0].as_u64().unwrap() as usize, value[1].as_str().unwrap());
            vec![(entry(path.as_bytes(), EntryKind::File), data)]
        }
        "zeros" => {
            vec![(entry(path.as_bytes(), EntryKind::File), vec![0; value.as_u64().unwrap() as usize].into())]
        }
        "link" => {
            let target = value.as_str().unwrap().as_bytes().to_vec();
            vec![(entry(path.as_bytes(), EntryKind::Symlink(target)), Bytes::new())]
        }
        "dir" => vec![(entry(path.as_bytes(), EntryKind::Directory), Bytes::new())],
        "numbered" => (number(value, "from")..=number(value, "to"))
            .map(|n| {
                let name =
                    format!("{}{n:0width$}", value["name"].as_str().unwrap(), width = number(value, "width"));
                file(name, format!("{n}\n").into())
            })
            .collect(),
        "named_by_content" => (0..number(value, "count"))
            .map(|n| {
                let name = format!("{}{n}", value["prefix"].as_str().unwrap());
                file(name.clone(), name.into())
            })
            .collect(),
        "names" => {
            let alphabet = b"abcdefghijklmnopqrstuvwxyz01234567890-_";
            let bytes = chacha(1 << 20, value["seed"].as_str().unwrap());
            let mut at = 0;
            let count = number(value, "count");
            (1..=count)
                .map(|n| {
                    let len = number(value, if n == count { "last_len" } else { "len" });
                    let name =
                        bytes[at..at + len].iter().map(|b| alphabet[usize::from(b % 39)] as char).collect();
                    at += len;
                    file(name, "x".into())
                })
                .collect()
        }
        other => panic!("unknown content {other}"),
    }
}

/// Parameters and upload of a line of a fixture.
pub(super) fn case(line: &Value, data: &mut Data) -> (AddParams, Memory) {
    let given = &line["params"];
    let mut params = params();
    params.wrap_with_directory = given["wrap"].as_bool().unwrap_or(false);
    params.cid_version = given["version"].as_i64().unwrap_or(0);
    params.raw_leaves = given["raw"].as_bool().unwrap_or(false);
    params.hash = given["hash"].as_str().unwrap_or("sha2-256").into();
    params.chunker = given["chunker"].as_str().unwrap_or("size-262144").into();
    if given["layout"].as_str() == Some("trickle") {
        params.layout = Layout::Trickle;
    }
    let all = line["entries"].as_array().unwrap().iter();
    let upload = Memory::new(all.flat_map(|e| entries(e[0].as_str().unwrap(), &e[1], data)));
    (params, upload)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_inputs_have_their_known_cids() {
    let text = include_str!("../../../fixtures/add/vectors.jsonl");
    let mut data = Data::default();
    for line in text.lines() {
        let vector: Value = serde_json::from_str(line).unwrap();
        let id = vector["id"].as_str().unwrap();
        let (params, upload) = case(&vector, &mut data);
        let host = Arc::new(Collector::new());
        let (events, error) = add(params, upload, &host).await;
        assert_eq!(error, None, "{id}");
        let last = events.last().unwrap();
        assert_eq!(last.cid.unwrap().to_string(), vector["cid"].as_str().unwrap(), "{id}");
        assert_eq!(pinned(&host), [last.cid.unwrap()], "{id}");
        host.assert_complete(last.cid.unwrap());
    }
}
