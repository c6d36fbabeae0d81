//! Which row of the tables of known answers is checked where; none may be missing.
//!
//! Tables A to F are those of golden vectors, T is the list of things a tester ticks off.

use std::collections::BTreeMap;
use std::path::Path;

/// Rows, and where they are checked: ids of lines in `fixtures/add/vectors.jsonl`, or a test in a file.
const ROWS: &str = "
A01 A02 A03 A04 A05 A06 A07 A08 A09 A10 A11 A12 A13 A14 A15 A16 A17 A18 A19 A20 A21 A22: vectors
B01 B02 B03 B04 B05 B06 B07 B08 B09 B10 B11 B12 B13 B14 B15 B16 B17 B18: vectors
B19 B20: src/adder/tests/forced.rs two_thousand_numbered_files_make_their_known_trie
B21: src/adder/tests/forced.rs two_hundred_empty_directories_make_their_known_trie
B22 B23 B24 B25 B26: vectors
B27: src/adder/tests/forced.rs names_of_the_profile_of_2025_make_their_known_trie
B28 B29: vectors
C01 C02 C03 C04 C05 C06 C07 C08 C09 C10 C11 C12 C13 C14 C15 C16 C17 C18: vectors
C19: src/adder/tests/vectors.rs a_file_of_wide_nodes_has_its_known_cid
C20: src/adder/tests/rabin.rs the_slow_rabin_makes_the_chunks_of_the_originals_library
D01 D02 D03: vectors
D04: src/adder/tests/cars.rs a_tree_added_again_as_a_car_has_its_root_and_its_blocks
D05: src/adder/tests/shards.rs every_block_of_a_tree_is_in_one_shard
D06: src/adder/tests/shards.rs a_large_file_fills_its_shards
D10: src/adder/tests/kubo.rs what_the_originals_tests_compare_with_kubo_is_equal
D07: src/adder/tests/vectors.rs ten_thousand_files_fit_one_directory
D08 D09: src/adder/tests/vectors.rs blocks_of_the_originals_tests_have_their_cids
E01 E02 F23 F24: src/adder/shard_dag.rs small_indexes_are_one_node
F25 F26: src/adder/shard_dag.rs large_indexes_have_leaves_under_a_root
E03: src/adder/tests/cars.rs a_single_raw_block_is_a_car
F01 F02 F03 F04 F05 F06 F07 F08 F09 F10 F11 F12 F13 F14 F15 F16 F17 F18 F19 F20 F21 F22: vectors
";

/// How many rows each table has.
const N_ROWS: [(char, usize); 6] = [('A', 22), ('B', 29), ('C', 20), ('D', 10), ('E', 3), ('F', 26)];

#[test]
fn every_row_is_checked_somewhere() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let vectors = std::fs::read_to_string(package.join("fixtures/add/vectors.jsonl")).unwrap();
    let mut checked = BTreeMap::new();
    for line in ROWS.trim().lines() {
        let (rows, place) = line.split_once(": ").unwrap();
        for row in rows.split(' ') {
            assert_eq!(checked.insert(row, place), None, "{row} is listed twice");
            match place.split_once(' ') {
                None => {
                    let id = |end: char| format!("{{\"id\": \"{row}{end}");
                    let is_there = vectors.contains(&id('"')) || vectors.contains(&id(' '));
                    assert!(place == "vectors" && is_there, "{row} is no line of vectors.jsonl");
                }
                Some((file, test)) => {
                    let source = std::fs::read_to_string(package.join(file)).unwrap();
                    assert!(source.contains(&format!("fn {test}(")), "{row}: {file} has no test {test}");
                }
            }
        }
    }
    let expected = N_ROWS.iter().flat_map(|(table, n)| (1..=*n).map(move |row| format!("{table}{row:02}")));
    let expected: Vec<String> = expected.collect();
    assert_eq!(expected.len(), 110);
    let missing: Vec<_> = expected.iter().filter(|row| !checked.contains_key(row.as_str())).collect();
    assert_eq!(missing, Vec::<&String>::new(), "checked nowhere");
    assert_eq!(checked.len(), expected.len(), "rows of no table");
}
