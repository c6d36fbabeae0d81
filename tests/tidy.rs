//! The house's rules, checked: directions between rooms, sizes of files, pages of rooms, formatting, versions.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// No file is longer.
const MAX_LINES: usize = 600;

/// Rooms of `src/` and their levels; `task` and `observe` are open to all.
const LEVELS: &[(&str, u32)] = &[
    ("task", 0),
    ("observe", 0),
    ("wire", 0),
    ("store", 0),
    ("net", 1),
    ("ipfs", 1),
    ("state", 1),
    ("allocator", 1),
    ("adder", 1),
    ("rpc", 2),
    ("monitor", 2),
    ("tracker", 2),
    ("node", 2),
    ("consensus", 3),
    ("informer", 3),
    ("cluster", 4),
    ("daemon", 5),
    ("cli", 6),
];

/// Rooms open to every other.
const OPEN: &[&str] = &["task", "observe"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn all_rust_files() -> Vec<PathBuf> {
    ["src", "compat", "repl", "tests", "benches", "fuzz"]
        .iter()
        .flat_map(|folder| rust_files(&root().join(folder)))
        .filter(|path| !path.components().any(|part| part.as_os_str() == "target"))
        .collect()
}

/// The room of `src/` a file belongs to: its first folder, or its own name.
fn room_of(path: &Path) -> Option<String> {
    let inner = path.strip_prefix(root().join("src")).ok()?;
    let first = inner.components().next()?.as_os_str().to_str()?.to_owned();
    let room = first.strip_suffix(".rs").unwrap_or(&first).to_owned();
    (room != "lib" && room != "bin").then_some(room)
}

/// Rooms named by `crate::ROOM` anywhere in a source, `use` groups included.
fn rooms_named(source: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, _) in source.match_indices("crate::") {
        if source[..at].ends_with('$') {
            continue;
        }
        let rest = &source[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            for item in group.split_inclusive(['{', '}', ',']) {
                let word = item.trim().trim_end_matches(['{', '}', ',']).trim();
                if depth == 0 {
                    let room = word.split("::").next().unwrap_or_default();
                    if !room.is_empty() {
                        rooms.push(room.to_owned());
                    }
                }
                match item.chars().last() {
                    Some('{') => depth += 1,
                    Some('}') if depth == 0 => break,
                    Some('}') => depth -= 1,
                    _ => {}
                }
            }
        } else {
            rooms.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    rooms
}

#[test]
fn rooms_import_from_lower_levels_only() {
    let levels: BTreeMap<&str, u32> = LEVELS.iter().copied().collect();
    let mut wrong = Vec::new();
    for path in rust_files(&root().join("src")) {
        let Some(room) = room_of(&path) else { continue };
        let Some(level) = levels.get(room.as_str()) else {
            wrong.push(format!("{}: room {room} has no level in tests/tidy.rs", path.display()));
            continue;
        };
        let source = fs::read_to_string(&path).unwrap();
        let code: String =
            source.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        // what tests reach for stays below them, but may be wider than what the room itself may use
        let code = code.split("#[cfg(test)]").next().unwrap_or_default();
        for other in rooms_named(code) {
            let Some(other_level) = levels.get(other.as_str()) else { continue };
            if other != room && !OPEN.contains(&other.as_str()) && other_level >= level {
                wrong.push(format!(
                    "{}: {room} (level {level}) names {other} (level {other_level})",
                    path.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn compat_knows_no_swarm_and_repl_sees_only_compat() {
    let compat = fs::read_to_string(root().join("compat/Cargo.toml")).unwrap();
    for crate_name in ["libp2p.", "heed", "openraft", "ipfs_cluster"] {
        assert!(!compat.lines().any(|line| line.starts_with(crate_name)), "compat depends on {crate_name}");
    }
    let repl = fs::read_to_string(root().join("repl/Cargo.toml")).unwrap();
    assert!(!repl.lines().any(|line| line.starts_with("ipfs_cluster") || line.starts_with("libp2p")));
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    let long: Vec<String> = all_rust_files()
        .iter()
        .filter_map(|path| {
            let n_lines = fs::read_to_string(path).unwrap().lines().count();
            (n_lines > MAX_LINES).then(|| format!("{} has {n_lines} lines", path.display()))
        })
        .collect();
    assert!(long.is_empty(), "above {MAX_LINES} lines, split by noun:\n{}", long.join("\n"));
}

#[test]
fn every_file_opens_with_a_page() {
    let bare: Vec<String> = all_rust_files()
        .iter()
        .filter(|path| !fs::read_to_string(path).unwrap().starts_with("//! "))
        .map(|path| path.display().to_string())
        .collect();
    assert!(bare.is_empty(), "no module page at the top of:\n{}", bare.join("\n"));
}

#[test]
fn nothing_unfinished_hides_in_the_sources() {
    let words = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[ig", "nore"),
        concat!("FIX", "ME"),
    ];
    let mut found = Vec::new();
    for path in all_rust_files() {
        let source = fs::read_to_string(&path).unwrap();
        for word in words.iter().filter(|word| source.contains(**word)) {
            found.push(format!("{}: {word}", path.display()));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn unsafe_code_stands_in_the_disk_store_alone() {
    let word = concat!("unsafe", "_code");
    let found: Vec<String> = all_rust_files()
        .iter()
        .filter(|path| !path.ends_with("src/store/disk.rs") && !path.ends_with("tests/tidy.rs"))
        .filter(|path| fs::read_to_string(path).unwrap().contains(word))
        .map(|path| path.display().to_string())
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_types_of_libp2p_come_in_one_version() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for name in ["cid", "multiaddr", "multihash", "libp2p-identity"] {
        let line = format!("name = \"{name}\"");
        let n = lock.lines().filter(|l| **l == line).count();
        assert_eq!(n, 1, "{name} is in the lock {n} times: two versions do not mix");
    }
}

#[test]
fn every_folder_of_fixtures_says_where_it_comes_from() {
    let page = fs::read_to_string(root().join("fixtures/README.md")).unwrap();
    for entry in fs::read_dir(root().join("fixtures")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(page.contains(&format!("`{name}/")), "fixtures/README.md does not mention `{name}/…`");
        }
    }
}

#[test]
fn the_sources_are_formatted() {
    let formatted = Command::new("cargo").args(["fmt", "--all", "--check"]).current_dir(root()).output();
    let Ok(output) = formatted else {
        eprintln!("skipped: cargo fmt is not installed");
        return;
    };
    if String::from_utf8_lossy(&output.stderr).contains("is not installed") {
        eprintln!("skipped: rustfmt is not installed");
        return;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
