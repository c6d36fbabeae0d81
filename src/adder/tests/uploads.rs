//! Uploads by chance: a seed makes parameters and a multipart body, near the places where something changes.

use std::collections::BTreeSet;

use cluster_compat::go::query;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};

/// Between the parts.
pub(super) const BOUNDARY: &str = "a-boundary-by-chance";

/// Children of a node of a file.
const WIDTH: usize = 174;

/// Bytes of names and CIDs above which a directory is sharded.
const SHARDED_ABOVE: usize = 262_144;

/// Most bytes of files in one upload.
const MAX_BYTES: usize = 2 << 20;

/// One upload.
pub(super) struct Case {
    /// Of its URL; what Kubo and the cluster call differently is left out.
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// Whether a directory may be sharded: Kubo lists those in no order of its own.
    pub(super) has_wide: bool,
    /// What a failure shows: kind, length and path of the parts.
    pub(super) parts: Vec<String>,
}

/// A node of the tree that is sent.
enum Node {
    File(Vec<u8>),
    Link(Vec<u8>),
    Dir(Vec<(Vec<u8>, Node)>),
}

struct Maker {
    random: StdRng,
    lengths: Vec<usize>,
    n_left: usize,
    /// Length of the CID of a file of one chunk, and of any other node; for directories of an exact size.
    leaf_cid: usize,
    node_cid: usize,
    has_wide: bool,
}

/// What the original's own tests compare with Kubo: files of two sizes and a folder, in several ways.
pub(super) fn fixed() -> Vec<Case> {
    let set =
        |pairs: &[(&'static str, &str)]| pairs.iter().map(|(name, value)| (*name, (*value).into())).collect();
    let (wrap, raw) = (("wrap-with-directory", "true"), ("raw-leaves", "true"));
    let mut random = StdRng::seed_from_u64(0);
    let mut bytes = |n: usize| {
        let mut bytes = vec![0; n];
        random.fill(&mut bytes[..]);
        bytes
    };
    let files = [Node::File(bytes(500)), Node::File(bytes(20 << 20))];
    let folder = Node::Dir(vec![
        (b"a".to_vec(), Node::File(bytes(300_000))),
        (b"empty".to_vec(), Node::Dir(Vec::new())),
        (b"sub".to_vec(), Node::Dir(vec![(b"b c".to_vec(), Node::File(bytes(5)))])),
    ]);
    let mut cases = Vec::new();
    for (file, n_ways) in [(&files[0], 5), (&files[1], 5), (&folder, 8)] {
        let ways: [&[(&str, &str)]; 8] = [
            &[],
            &[wrap],
            &[raw],
            &[wrap, raw],
            &[("trickle", "true")],
            &[("cid-version", "1")],
            &[("hash", "sha3-512")],
            &[("cid-version", "1"), wrap],
        ];
        for way in &ways[..n_ways] {
            let query = set(way);
            let mut case = Case { query, body: Vec::new(), has_wide: false, parts: Vec::new() };
            write(&mut case, &mut StdRng::seed_from_u64(0), b"top", file);
            end(&mut case);
            cases.push(case);
        }
    }
    cases
}

/// After the last part.
fn end(case: &mut Case) {
    case.body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
}

pub(super) fn case(seed: u64) -> Case {
    let mut random = StdRng::seed_from_u64(seed);
    let mut query = Vec::new();
    let lengths = chunker(&mut random, &mut query);
    let (leaf_cid, node_cid) = format(&mut random, &mut query);
    if random.random_bool(0.25) {
        query.push(("trickle", "true".into()));
    }
    if random.random_bool(0.4) {
        query.push(("wrap-with-directory", random.random_bool(0.8).to_string()));
    }
    let mut maker = Maker { random, lengths, n_left: MAX_BYTES, leaf_cid, node_cid, has_wide: false };
    let tops = maker.tops();
    let mut case = Case { query, body: Vec::new(), has_wide: maker.has_wide, parts: Vec::new() };
    for (name, node) in &tops {
        write(&mut case, &mut maker.random, name, node);
    }
    end(&mut case);
    case
}

/// Chooses a chunker; gives lengths of files where it does something else than one byte earlier.
fn chunker(random: &mut StdRng, query: &mut Vec<(&'static str, String)>) -> Vec<usize> {
    let mut lengths = vec![0, 1, 2, 255, 256, 65_535, 65_536];
    let mut borders = |size: usize, counts: &[usize]| {
        lengths.extend(counts.iter().flat_map(|n| [n * size - 1, n * size, n * size + 1]));
    };
    let name = match random.random_range(0..12) {
        0 | 1 => {
            borders(262_144, &[1, 2, 5]);
            return lengths;
        }
        2 => {
            borders(262_144, &[1, 2]);
            ["default", "size-262144"].choose(random).unwrap().to_string()
        }
        // few bytes a chunk: nodes of several levels
        3 | 4 => {
            let size = random.random_range(1..=40);
            borders(size, &[1, 2, WIDTH, WIDTH + 1, 2 * WIDTH, WIDTH * WIDTH / 10]);
            if size <= 6 && random.random_bool(0.3) {
                borders(size, &[WIDTH * WIDTH]);
            }
            format!("size-{size}")
        }
        5 | 6 => {
            let size = random.random_range(41..5000);
            borders(size, &[1, 2, WIDTH, WIDTH + 1]);
            format!("size-{size}")
        }
        7 => {
            let size = *[1_048_576, 2_096_896, 1_000_003, 262_145, 131_072].choose(random).unwrap();
            borders(size, &[1]);
            format!("size-{size}")
        }
        8 => {
            lengths.extend([87_380, 87_381, 87_382, 393_215, 393_216, 393_217, 1_200_000]);
            ["rabin".into(), "rabin-262144".into(), format!("rabin-{}", random.random_range(48..300_000))]
                .choose(random)
                .unwrap()
                .clone()
        }
        9 | 10 => {
            let min = random.random_range(16..2000);
            let average = min + random.random_range(1..3000);
            let max = average + random.random_range(1..9000);
            lengths.extend([min - 1, min, min + 1, max - 1, max, max + 1, 40_000]);
            match random.random_bool(0.3) {
                true => format!("rabin-min:{min}-avg:{average}-max:{max}"),
                false => format!("rabin-{min}-{average}-{max}"),
            }
        }
        _ => {
            lengths.extend([131_071, 131_072, 131_073, 524_287, 524_288, 524_289, 1_400_000]);
            ["buzhash", "buzhash-anything"].choose(random).unwrap().to_string()
        }
    };
    query.push(("chunker", name));
    lengths
}

/// Chooses CID version, hash and kind of leaves; gives the lengths of CIDs.
fn format(random: &mut StdRng, query: &mut Vec<(&'static str, String)>) -> (usize, usize) {
    let hashes = [
        ("sha2-512", 64),
        ("sha1", 20),
        ("sha3", 64),
        ("sha3-224", 28),
        ("sha3-256", 32),
        ("sha3-384", 48),
        ("sha3-512", 64),
        ("dbl-sha2-256", 32),
        ("keccak-256", 32),
        ("keccak-512", 64),
        ("blake3", 32),
        ("shake-256", 64),
        ("blake2b-160", 20),
        ("blake2b-200", 25),
        ("blake2b-256", 32),
        ("blake2b-512", 64),
        ("blake2s-256", 32),
        ("SHA2-512", 64),
    ];
    let mut version = 0;
    // version, codec, code and length before the digest of SHA-256
    let mut cid = 36;
    if random.random_bool(0.25) {
        let (hash, digest) = *hashes.choose(random).unwrap();
        query.push(("hash", hash.into()));
        version = 1;
        let code = if hash.starts_with("blake2") { 3 } else { 1 };
        cid = 3 + code + digest;
        if random.random_bool(0.5) {
            query.push(("cid-version", "1".into()));
        }
    } else if random.random_bool(0.7) {
        version = random.random_range(0..2);
        query.push(("cid-version", version.to_string()));
    }
    let mut is_raw = version == 1;
    if random.random_bool(0.5) {
        is_raw = random.random_bool(0.5);
        query.push(("raw-leaves", is_raw.to_string()));
    }
    let node = if version == 0 { 34 } else { cid };
    (if is_raw { cid } else { node }, node)
}

impl Maker {
    /// The entries of the upload itself.
    fn tops(&mut self) -> Vec<(Vec<u8>, Node)> {
        let n = *[1, 1, 1, 1, 2, 3].choose(&mut self.random).unwrap();
        let names = self.names(n);
        names.into_iter().map(|name| (name, self.node(0))).collect()
    }

    fn node(&mut self, depth: usize) -> Node {
        match self.random.random_range(0..20) {
            0 => Node::Link(self.target()),
            1..=7 if depth < 5 => Node::Dir(self.children(depth)),
            8 if depth < 3 => Node::Dir(self.wide()),
            _ => Node::File(self.content()),
        }
    }

    fn children(&mut self, depth: usize) -> Vec<(Vec<u8>, Node)> {
        let n = *[0, 1, 1, 2, 3, 4, 6].choose(&mut self.random).unwrap();
        let names = self.names(n);
        names.into_iter().map(|name| (name, self.node(depth + 1))).collect()
    }

    fn target(&mut self) -> Vec<u8> {
        let targets: [&[u8]; 6] = [b"a", b"../x/y", b"/", b"", b"\xff\xfe", "été/日本".as_bytes()];
        targets.choose(&mut self.random).unwrap().to_vec()
    }

    fn content(&mut self) -> Vec<u8> {
        let length = match self.random.random_range(0..10) {
            0..=4 => *self.lengths.choose(&mut self.random).unwrap(),
            5..=7 => self.random.random_range(0..64),
            _ => self.random.random_range(0..20_000),
        };
        // small files are free, so that trees do not run dry
        let length = if length <= 64 { length } else { length.min(self.n_left) };
        self.n_left -= length.min(self.n_left);
        let mut content = vec![0; length];
        match self.random.random_range(0..5) {
            0 => content.fill(self.random.random()),
            1 => {
                // repeats after an odd number of bytes
                let mut piece = vec![0; self.random.random_range(1..300)];
                self.random.fill(&mut piece[..]);
                content.iter_mut().zip(piece.iter().cycle()).for_each(|(byte, piece)| *byte = *piece);
            }
            _ => self.random.fill(&mut content[..]),
        }
        content
    }

    /// Names that differ, of letters or of any bytes.
    fn names(&mut self, n: usize) -> Vec<Vec<u8>> {
        let mut names = BTreeSet::new();
        while names.len() < n {
            let stems = [
                "a",
                "B",
                "été",
                "a b",
                " ",
                "%2F",
                "%",
                "+",
                "<&>",
                ".hidden",
                "...",
                "\"",
                "\\",
                "日本",
                "\u{2028}",
                "a\nb",
                "\r\n",
                "\t",
                "\0",
                "name=\"x\"; filename=\"y\"",
                "=",
                "-",
                "--a-boundary-by-chance",
                "~",
            ];
            let mut name = stems.choose(&mut self.random).unwrap().as_bytes().to_vec();
            match self.random.random_range(0..6) {
                0 => name.push(self.random.random_range(b'0'..=b'9')),
                1 => {
                    let length = self.random.random_range(1..40);
                    name = (0..length).map(|_| self.random.random()).collect();
                }
                2 => name.extend(vec![b'x'; self.random.random_range(0..500)]),
                _ => {}
            }
            name.retain(|byte| *byte != b'/');
            if !matches!(&name[..], b"" | b"." | b"..") {
                names.insert(name);
            }
        }
        let mut names: Vec<_> = names.into_iter().collect();
        if self.random.random_bool(0.4) {
            names.shuffle(&mut self.random);
        }
        names
    }

    /// A directory about as large as one is before it is sharded, often to the byte.
    ///
    /// One with directories in it is not just above the border: there Kubo takes back the shards or not, by chance. It
    /// puts each directory below once more when all are complete, takes that for a change by the length of its name
    /// (`needsToSwitchToBasicDir`), and comes upon them in random order.
    fn wide(&mut self) -> Vec<(Vec<u8>, Node)> {
        self.has_wide = true;
        let kind = self.random.random_range(0..4);
        let holds_directory = self.random.random_bool(0.15);
        let below = self.random.random_range(0..2);
        let total = match self.random.random_range(0..8) {
            0 | 1 if !holds_directory => SHARDED_ABOVE - below,
            2..5 if !holds_directory && kind != 0 => SHARDED_ABOVE + 1 + below,
            0..5 => SHARDED_ABOVE - 5000,
            5 | 6 => SHARDED_ABOVE + 50_000,
            _ => SHARDED_ABOVE + 700_000,
        };
        let n = match self.random.random_range(0..12) {
            0 => 4000,
            1 | 2 => 1500,
            _ => self.random.random_range(70..700),
        };
        let cid = if kind == 0 { self.node_cid } else { self.leaf_cid };
        let bytes = total.saturating_sub(n * cid).max(n * 8);
        let is_text = self.random.random_bool(0.7);
        let mut entries = Vec::new();
        for i in 0..n {
            let length = bytes / n + usize::from(i < bytes % n);
            let mut name = format!("{i:05}").into_bytes();
            while name.len() < length {
                name.push(if is_text { self.random.random_range(b'a'..=b'z') } else { self.random.random() });
            }
            // no slash; the start keeps names apart
            name.iter_mut().filter(|byte| **byte == b'/').for_each(|byte| *byte = b'_');
            let node = match kind {
                0 if i % 2 == 0 => Node::Link(b"target".to_vec()),
                0 => Node::Dir(Vec::new()),
                _ => Node::File(format!("{}", i % 3).into_bytes()),
            };
            entries.push((name, node));
        }
        // one of them a directory that is itself at the border
        if holds_directory && n < 700 {
            let inner = self.wide();
            entries.push((b"inner".to_vec(), Node::Dir(inner)));
        }
        if self.random.random_bool(0.3) {
            entries.shuffle(&mut self.random);
        }
        entries
    }
}

/// Appends the parts of a node; directories that are not empty may go without a part of their own.
fn write(case: &mut Case, random: &mut StdRng, path: &[u8], node: &Node) {
    match node {
        Node::File(content) => {
            let kinds = ["application/octet-stream", "text/plain; charset=utf-8", ""];
            let kind = kinds.choose(random).unwrap();
            part(case, random, path, kind, content);
        }
        Node::Link(target) => part(case, random, path, "application/symlink", target),
        Node::Dir(children) => {
            if children.is_empty() || random.random_bool(0.8) {
                part(case, random, path, "application/x-directory", b"");
            }
            for (name, child) in children {
                write(case, random, &[path, b"/", name].concat(), child);
            }
        }
    }
}

fn part(case: &mut Case, random: &mut StdRng, path: &[u8], kind: &str, content: &[u8]) {
    let names = ["file", "file", "x", "file?mode=0644&mtime=1604320482&mtime-nsecs=55555"];
    let mut lines = vec![format!(
        "Content-Disposition: form-data; name=\"{}\"; filename=\"{}\"",
        names.choose(random).unwrap(),
        query::escape_raw(path)
    )];
    if !kind.is_empty() {
        lines.push(format!("Content-Type: {kind}"));
    }
    if random.random_bool(0.1) {
        lines.push("Abspath-Encoded: %2Fa%2Fb".into());
    }
    if random.random_bool(0.2) {
        lines.reverse();
    }
    case.body.extend_from_slice(format!("--{BOUNDARY}\r\n{}\r\n\r\n", lines.join("\r\n")).as_bytes());
    case.body.extend_from_slice(content);
    case.body.extend_from_slice(b"\r\n");
    if case.parts.len() < 60 {
        let shown = &path[..path.len().min(100)];
        case.parts.push(format!("{kind} {} {}", content.len(), shown.escape_ascii()));
    }
}
