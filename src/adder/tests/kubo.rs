//! Random trees, held against a real Kubo (`KUBO_BIN`); without one this test says so and passes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use cluster_compat::api::{Entry, EntryKind};
use cluster_compat::types::{AddParams, Layout};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::{Collector, Memory, add, entry, params};

/// Fills a folder: files of lengths around the borders, links, empty and wide directories.
fn plant(folder: &Path, depth: usize, random: &mut StdRng) {
    let lens = [0usize, 1, 255, 256, 999, 1000, 1001, 65_536, 262_143, 262_144, 262_145, 800_000];
    for n in 0..random.random_range(0..6) {
        let stem = ["a", "été", "a b", "%2F", "<&>", ".hidden", "Z", "\"", "日本"].choose(random).unwrap();
        let path = folder.join(format!("{stem}{n}"));
        match random.random_range(0..10) {
            0 => symlink(format!("../target-{n}"), path).unwrap(),
            1..=3 if depth < 4 => {
                fs::create_dir(&path).unwrap();
                plant(&path, depth + 1, random);
            }
            _ => {
                let mut content = vec![0; *lens.choose(random).unwrap()];
                random.fill(&mut content[..]);
                fs::write(path, content).unwrap();
            }
        }
    }
    if random.random_range(0..12) == 0 {
        for n in 0..1800 {
            fs::write(folder.join(format!("{n}{}", "x".repeat(150))), "").unwrap();
        }
    }
}

/// The entries of a folder as a client sends them: parents first, in name order.
fn gather(root: &Path, below: &Path, out: &mut Vec<(Entry, Bytes)>) {
    let path = below.as_os_str().as_bytes();
    let full = root.join(below);
    let kind = fs::symlink_metadata(&full).unwrap().file_type();
    if kind.is_symlink() {
        let target = fs::read_link(&full).unwrap().as_os_str().as_bytes().to_vec();
        out.push((entry(path, EntryKind::Symlink(target)), Bytes::new()));
    } else if kind.is_dir() {
        out.push((entry(path, EntryKind::Directory), Bytes::new()));
        let names: BTreeMap<_, _> =
            fs::read_dir(&full).unwrap().map(|item| (item.unwrap().file_name(), ())).collect();
        for name in names.keys() {
            gather(root, &below.join(name), out);
        }
    } else {
        out.push((entry(path, EntryKind::File), fs::read(&full).unwrap().into()));
    }
}

/// Options of one run, for both sides.
fn options(random: &mut StdRng) -> (AddParams, Vec<String>) {
    let mut params = params();
    params.cid_version = random.random_range(0..2);
    params.raw_leaves = random.random_bool(0.5);
    params.wrap_with_directory = random.random_bool(0.3);
    let chunkers =
        ["size-262144", "size-1000", "size-65536", "rabin-1000-3000-9000", "rabin-65536", "buzhash"];
    params.chunker = chunkers.choose(random).unwrap().to_string();
    let mut arguments = vec![
        format!("--cid-version={}", params.cid_version),
        format!("--raw-leaves={}", params.raw_leaves),
        format!("--wrap-with-directory={}", params.wrap_with_directory),
        format!("--chunker={}", params.chunker),
    ];
    if random.random_bool(0.3) {
        params.layout = Layout::Trickle;
        arguments.push("--trickle".into());
    }
    (params, arguments)
}

#[tokio::test]
async fn random_trees_have_the_cids_of_kubo() {
    let Ok(kubo) = std::env::var("KUBO_BIN") else {
        eprintln!("skipped: KUBO_BIN names no Kubo program");
        return;
    };
    let repo = tempfile::tempdir().unwrap();
    let run = |arguments: &[String]| {
        let output = Command::new(&kubo).env("IPFS_PATH", repo.path()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    run(&["init".into()]);
    for seed in 0..25 {
        let mut random = StdRng::seed_from_u64(seed);
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("top");
        fs::create_dir(&top).unwrap();
        plant(&top, 0, &mut random);
        let (params, mut arguments) = options(&mut random);
        arguments.insert(0, "add".into());
        arguments.extend(["--only-hash", "-r", "-H", "-Q"].map(String::from));
        arguments.push(top.to_string_lossy().into_owned());
        let mut entries = Vec::new();
        gather(folder.path(), Path::new("top"), &mut entries);
        let host = Arc::new(Collector::new());
        let (events, error) = add(params, Memory::new(entries), &host).await;
        assert_eq!(error, None, "seed {seed}");
        let root = events.last().unwrap().cid.unwrap();
        assert_eq!(root.to_string(), run(&arguments).trim(), "seed {seed}, {arguments:?}");
        host.assert_complete(root);
    }
}
