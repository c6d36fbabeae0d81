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
T01 T04 T05 T06: src/adder/tests/vectors.rs small_inputs_and_directories_have_their_known_cids
T02 T20: tests/it/add.rs known_inputs_have_their_known_cids_through_both_faces
T03: src/adder/tests/kubo.rs what_the_originals_tests_compare_with_kubo_is_equal
T07 T08 T09 T11: tests/it/add.rs a_lone_destination_that_fails_fails_the_add_at_its_end
T10: tests/it/add.rs one_destination_of_three_that_fails_is_made_up_for_later
T12: compat/src/types/add.rs the_first_bad_parameter_is_named_in_the_references_words
T13: src/adder/chunker.rs bad_chunkers_get_the_text_of_the_reference
T14 T43: compat/src/types/add.rs parameters_are_read_with_the_references_defaults
T15: src/adder/hash.rs unknown_versions_and_hashes_are_named_in_this_order
T16: src/adder/hash.rs version_zero_is_raised_for_other_hashes
T17 T18: src/adder/tests/behaviour.rs events_name_files_as_they_come_and_directories_at_the_end
T19: src/adder/tests/behaviour.rs progress_counts_bytes_as_the_reference_does
T21 T24 T25: tests/it/add_pins.rs attributes_of_files_change_no_cid
T22: compat/src/http/multipart/tests.rs names_are_unescaped_and_cleaned
T23: src/adder/files.rs directories_may_be_announced_or_implied
T27: src/adder/tests/cars.rs cars_are_checked_written_and_pinned_as_the_reference_does
T28: tests/it/add_pins.rs a_car_in_two_halves_is_pinned_with_the_second
T29 T30: src/adder/tests/behaviour.rs local_sends_blocks_to_this_peer_and_makes_it_an_allocation
T31: tests/it/add_pins.rs an_upload_that_cannot_be_allocated_is_refused
T32: tests/it/add_pins.rs a_follower_refuses_uploads
T33 T34 T35 T36: tests/it/add_pins.rs the_options_of_an_upload_are_those_of_its_pin
T38: tests/it/add.rs the_daemon_sees_the_codec_and_hash_of_the_first_block
T40: src/adder/tests/shards.rs events_and_pins_of_a_sharded_file_are_as_recorded
T42: src/adder/shard_dag.rs small_indexes_are_one_node
T45: tests/it/add_hostile.rs a_client_that_leaves_leaves_nothing
T46: src/adder/tests/behaviour.rs an_upload_without_parts_is_the_callers_fault
";

/// Rows that only scenarios beside the original, and measurements, check.
const ELSEWHERE: [&str; 5] = ["T26", "T37", "T39", "T41", "T44"];

/// How many rows each table has.
const N_ROWS: [(char, usize); 7] =
    [('A', 22), ('B', 29), ('C', 20), ('D', 10), ('E', 3), ('F', 26), ('T', 46)];

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
    assert_eq!(expected.len(), 110 + 46);
    let missing: Vec<_> = expected.iter().filter(|row| !checked.contains_key(row.as_str())).collect();
    assert_eq!(missing, ELSEWHERE.iter().collect::<Vec<_>>(), "checked nowhere");
    assert_eq!(checked.len() + missing.len(), expected.len(), "rows of no table");
}
