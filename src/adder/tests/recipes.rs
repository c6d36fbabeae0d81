//! Inputs of known content: what a line of `fixtures/add/*.jsonl` describes, made anew by whoever reads it. Tests of
//! whole peers in `tests/it` read the same lines.
#![allow(dead_code, reason = "shared by several tests, each of which uses some of it")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit as _, StreamCipher as _};
use cluster_compat::api::{Entry, EntryKind};
use cluster_compat::types::{AddParams, Layout, PinOptions};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// An upload and how it is added.
pub(crate) struct Recipe {
    pub(crate) params: AddParams,
    pub(crate) entries: Vec<(Entry, Bytes)>,
}

/// Kubo's deterministic test data: ChaCha20 under the SHA-256 of a seed.
pub(crate) struct ChaCha(ChaCha20);

impl ChaCha {
    pub(crate) fn new(seed: &str) -> Self {
        Self(ChaCha20::new(&Sha256::digest(seed), &[0; 12].into()))
    }

    /// The next bytes.
    pub(crate) fn take(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.apply_keystream(&mut bytes);
        bytes
    }
}

/// Go's `math/rand`, its first version: an additive generator of 607 words.
pub(crate) struct GoRand {
    words: Vec<u64>,
    tap: usize,
    feed: usize,
    /// What is left of the last number, for [`GoRand::take`].
    value: u64,
    n_left: u32,
}

/// Words of the state, and which two of them make the next.
const N_WORDS: usize = 607;
const SHORT: usize = 334;

impl GoRand {
    pub(crate) fn new(seed: u64) -> Self {
        let mut words = scattered(seed, 40, 20);
        words.iter_mut().zip(cooked()).for_each(|(word, cooked)| *word ^= cooked);
        Self { words, tap: 0, feed: SHORT, value: 0, n_left: 0 }
    }

    /// The next number, of 63 bits.
    pub(crate) fn int63(&mut self) -> u64 {
        self.tap = self.tap.checked_sub(1).unwrap_or(N_WORDS - 1);
        self.feed = self.feed.checked_sub(1).unwrap_or(N_WORDS - 1);
        let word = self.words[self.feed].wrapping_add(self.words[self.tap]);
        self.words[self.feed] = word;
        word & (u64::MAX >> 1)
    }

    /// The next bytes: seven of each number.
    pub(crate) fn take(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            if self.n_left == 0 {
                (self.value, self.n_left) = (self.int63(), 7);
            }
            if self.n_left == 7 && len - bytes.len() >= 7 {
                bytes.extend_from_slice(&self.value.to_le_bytes()[..7]);
                self.n_left = 0;
                continue;
            }
            bytes.push(self.value as u8);
            self.value >>= 8;
            self.n_left -= 1;
        }
        bytes
    }
}

/// Words out of a seed, three steps of Lehmer's generator each.
fn scattered(seed: u64, high: u32, middle: u32) -> Vec<u64> {
    let modulus = (1 << 31) - 1;
    let mut x = match seed % modulus {
        0 => 89_482_311,
        x => x,
    };
    let mut step = || {
        x = 48_271 * x % modulus;
        x
    };
    for _ in 0..20 {
        step();
    }
    (0..N_WORDS).map(|_| (step() << high) ^ (step() << middle) ^ step()).collect()
}

/// The words every seed is mixed with: what the same generator holds after 7.8e12 draws. Its draws are a linear
/// recurrence, so that far is the power of x, modulo its polynomial x^607 - x^334 - 1.
fn cooked() -> &'static [u64] {
    static COOKED: OnceLock<Vec<u64>> = OnceLock::new();
    COOKED.get_or_init(|| {
        const N_DRAWS: u64 = 7_800_000_000_000;
        // where the n-th draw is kept; draws before the first are the seed
        let place = |draw: u64| (SHORT as u64 - 1 + N_DRAWS * N_WORDS as u64 - draw) as usize % N_WORDS;
        let words = scattered(1, 20, 10);
        let mut draws: Vec<u64> = (0..N_WORDS as u64).map(|n| words[place(n)]).collect();
        for n in N_WORDS..2 * N_WORDS {
            draws.push(draws[n - N_WORDS].wrapping_add(draws[n - N_WORDS + SHORT]));
        }
        let far = power_of_x(N_DRAWS);
        let mut cooked = vec![0; N_WORDS];
        for n in 0..N_WORDS {
            let sum =
                far.iter().zip(&draws[n..]).fold(0u64, |sum, (a, b)| sum.wrapping_add(a.wrapping_mul(*b)));
            cooked[place(N_DRAWS + n as u64)] = sum;
        }
        cooked
    })
}

/// Coefficients of x^n modulo the polynomial of the generator.
fn power_of_x(n: u64) -> Vec<u64> {
    let mut power = vec![0u64; N_WORDS];
    power[0] = 1;
    for bit in (0..64 - n.leading_zeros()).rev() {
        let mut square = vec![0u64; 2 * N_WORDS];
        for (i, a) in power.iter().enumerate() {
            for (slot, b) in square[i..].iter_mut().zip(&power) {
                *slot = slot.wrapping_add(a.wrapping_mul(*b));
            }
        }
        if n >> bit & 1 == 1 {
            square.rotate_right(1);
        }
        for k in (N_WORDS..2 * N_WORDS).rev() {
            let over = square[k];
            for low in [k - N_WORDS, k - N_WORDS + SHORT] {
                square[low] = square[low].wrapping_add(over);
            }
        }
        square.truncate(N_WORDS);
        power = square;
    }
    power
}

/// Bytes that were made once, kept between lines: most share a seed.
#[derive(Default)]
pub(crate) struct Data {
    chacha: HashMap<String, Bytes>,
    gorand: HashMap<u64, Bytes>,
}

impl Data {
    fn chacha(&mut self, len: usize, seed: &str) -> Bytes {
        if self.chacha.get(seed).is_none_or(|bytes| bytes.len() < len) {
            // One more byte than asked for: the fixtures come in such pairs.
            self.chacha.insert(seed.to_owned(), ChaCha::new(seed).take(len + 1).into());
        }
        self.chacha[seed].slice(..len)
    }

    fn gorand(&mut self, seed: u64, at: usize, len: usize) -> Bytes {
        if self.gorand.get(&seed).is_none_or(|bytes| bytes.len() < at + len) {
            self.gorand.insert(seed, GoRand::new(seed).take(at + len).into());
        }
        self.gorand[&seed].slice(at..at + len)
    }
}

/// An entry of an upload.
pub(crate) fn entry(path: &[u8], kind: EntryKind) -> Entry {
    Entry { path: path.to_vec(), kind, abspath: None }
}

/// Names out of random bytes, the last one of another length.
pub(crate) fn names(count: usize, len: usize, last_len: usize, seed: &str) -> Vec<String> {
    let alphabet = b"abcdefghijklmnopqrstuvwxyz01234567890-_";
    let bytes = ChaCha::new(seed).take(1 << 20);
    let mut at = 0;
    let mut name = |len: usize| {
        let name = bytes[at..at + len].iter().map(|b| alphabet[usize::from(b % 39)] as char).collect();
        at += len;
        name
    };
    (1..=count).map(|n| name(if n == count { last_len } else { len })).collect()
}

/// The content of a file outside of the repository, in the folder `JS_UNIXFS_FIXTURES` names.
fn outside(name: &str, sha256: &str) -> Option<Bytes> {
    let Some(folder) = std::env::var_os("JS_UNIXFS_FIXTURES") else {
        eprintln!("skipped: {name}, for JS_UNIXFS_FIXTURES names no folder of js-ipfs-unixfs");
        return None;
    };
    let bytes = std::fs::read(Path::new(&folder).join(name)).unwrap();
    assert_eq!(hex::encode(Sha256::digest(&bytes)), sha256, "{name}");
    Some(bytes.into())
}

/// The content of a file a line describes; `None` if it is not to be had.
fn content(kind: &str, value: &Value, data: &mut Data) -> Option<Bytes> {
    let number = |n: usize| value[n].as_u64().unwrap() as usize;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Some(match kind {
        "text" => text(value).into(),
        "hex" => hex::decode(text(value)).unwrap().into(),
        "chacha" => data.chacha(number(0), value[1].as_str().unwrap()),
        "gorand" => data.gorand(value[0].as_u64().unwrap(), number(1), number(2)),
        "zeros" => vec![0; value.as_u64().unwrap() as usize].into(),
        "outside" => outside(&text(&value[0]), &text(&value[1]))?,
        other => panic!("unknown content {other}"),
    })
}

/// Entries a line of the fixture describes.
fn entries(path: &str, recipe: &Value, data: &mut Data) -> Option<Vec<(Entry, Bytes)>> {
    let number = |value: &Value, key: &str| value[key].as_u64().unwrap() as usize;
    let file =
        |name: String, content: Bytes| (entry(format!("{path}/{name}").as_bytes(), EntryKind::File), content);
    let (kind, value) = recipe.as_object().unwrap().iter().next().unwrap();
    Some(match kind.as_str() {
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
            let seed = value["seed"].as_str().unwrap();
            let names = names(number(value, "count"), number(value, "len"), number(value, "last_len"), seed);
            names.into_iter().map(|name| file(name, "x".into())).collect()
        }
        kind => vec![(entry(path.as_bytes(), EntryKind::File), content(kind, value, data)?)],
    })
}

/// What a line of a fixture describes; `None` if it needs what is not there.
pub(crate) fn read(line: &Value, data: &mut Data) -> Option<Recipe> {
    let given = &line["params"];
    let mut params = AddParams { options: PinOptions::default(), ..AddParams::default() };
    params.wrap_with_directory = given["wrap"].as_bool().unwrap_or(false);
    params.cid_version = given["version"].as_i64().unwrap_or(0);
    params.raw_leaves = given["raw"].as_bool().unwrap_or(false);
    params.hash = given["hash"].as_str().unwrap_or("sha2-256").into();
    params.chunker = given["chunker"].as_str().unwrap_or("size-262144").into();
    if given["layout"].as_str() == Some("trickle") {
        params.layout = Layout::Trickle;
    }
    let mut all = Vec::new();
    for described in line["entries"].as_array().unwrap() {
        all.extend(entries(described[0].as_str().unwrap(), &described[1], data)?);
    }
    Some(Recipe { params, entries: all })
}

/// The bytes of the first file a line describes.
pub(crate) fn first_file(line: &Value, data: &mut Data) -> Option<Bytes> {
    let recipe = read(line, data)?;
    recipe.entries.into_iter().find(|(entry, _)| entry.kind == EntryKind::File).map(|(_, bytes)| bytes)
}
