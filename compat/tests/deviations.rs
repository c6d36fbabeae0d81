//! `compat/DEVIATIONS.md` against the fixtures: a difference without a row is a bug, and so is a row without one.
//!
//! That our answers are those of the fixtures is the replays' business; here only the files are read.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cluster_compat::testing::golden::{Recording, difference};

/// Folders of `fixtures/` that hold recordings of the HTTP faces.
const AREAS: [&str; 5] = ["rest", "proxy", "pinsvc", "security", "connector"];

/// A step of a recording: `rest/redirects`, 3.
type Place = (String, usize);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The rows of the table, as their cells.
fn rows() -> Vec<Vec<String>> {
    let page = fs::read_to_string(root().join("compat/DEVIATIONS.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let cells = rows.map(|row| {
        let row = row.trim_matches('|').replace("\\|", "\u{1}");
        row.split(" | ").map(|cell| cell.trim().replace('\u{1}', "|")).collect::<Vec<_>>()
    });
    cells.skip(2).collect()
}

/// The steps that a first cell names: `rest/redirects` 3, 5 to 7.
fn places(cell: &str) -> Vec<Place> {
    let mut places = Vec::new();
    for (i, quoted) in cell.split('`').enumerate() {
        let text = if i % 2 == 1 { quoted } else { continue };
        let mut words = text.split(' ');
        let name = words.next().unwrap_or_default();
        if !AREAS.iter().any(|area| name.strip_prefix(area).is_some_and(|rest| rest.starts_with('/'))) {
            continue;
        }
        let after = cell.split('`').nth(i + 1).unwrap_or_default();
        let numbers = if text.contains(' ') { text } else { after };
        places.extend(steps(numbers).into_iter().map(|no| (name.to_owned(), no)));
    }
    places
}

/// The numbers of `3, 5 to 7`, up to the first word that is none.
fn steps(text: &str) -> BTreeSet<usize> {
    let mut numbers = BTreeSet::new();
    let mut last = None;
    let mut is_range = false;
    for word in text.split([' ', ',', ';', ')']).filter(|word| !word.is_empty() && !word.contains('/')) {
        match (word, word.parse::<usize>()) {
            ("to", _) => is_range = true,
            ("and", _) => {}
            (_, Ok(no)) if is_range => {
                numbers.extend(last.unwrap_or(no)..=no);
                is_range = false;
            }
            (_, Ok(no)) => {
                numbers.insert(no);
                last = Some(no);
            }
            _ => break,
        }
    }
    numbers
}

/// Every recording of the HTTP faces, by name.
fn recordings() -> BTreeMap<String, Recording> {
    let mut found = BTreeMap::new();
    for area in AREAS {
        let Ok(entries) = fs::read_dir(root().join("fixtures").join(area)) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            found.insert(format!("{area}/{name}"), Recording::load(&path).unwrap());
        }
    }
    found
}

/// The steps where a fixture holds another answer of ours than of the original.
fn differing() -> BTreeMap<Place, String> {
    let mut found = BTreeMap::new();
    for (name, recording) in recordings() {
        for step in &recording.steps {
            let differs = step.ours.as_ref().and_then(|ours| difference(step, &step.answer, ours));
            if let Some(differs) = differs {
                found.insert((name.clone(), step.no), differs.to_string());
            }
        }
    }
    found
}

/// Recordings that `fixtures/README.md` leaves to the conformance runner.
fn left_to_the_runner() -> BTreeSet<String> {
    let page = fs::read_to_string(root().join("fixtures/README.md")).unwrap();
    let (_, section) = page.split_once("## Left to the conformance runner").expect("the section");
    let names = section.split('`').skip(1).step_by(2);
    names.filter(|name| name.contains('/')).map(str::to_owned).collect()
}

#[test]
fn every_difference_of_a_fixture_has_a_row() {
    let covered: BTreeSet<Place> = rows().iter().flat_map(|row| places(&row[0])).collect();
    let missing: Vec<String> = differing()
        .into_iter()
        .filter(|(place, _)| !covered.contains(place))
        .map(|((name, _), text)| format!("{name} {text}"))
        .collect();
    assert!(missing.is_empty(), "no row of DEVIATIONS.md names\n{}", missing.join("\n"));
}

#[test]
fn every_step_that_a_row_names_differs() {
    let (known, differing, elsewhere) = (recordings(), differing(), left_to_the_runner());
    let mut stale = Vec::new();
    for place in rows().iter().flat_map(|row| places(&row[0])) {
        let (name, no) = &place;
        let has_step =
            known.get(name).is_some_and(|recording| recording.steps.iter().any(|step| step.no == *no));
        if has_step && !differing.contains_key(&place) {
            stale.push(format!("{name} {no} does not differ"));
        } else if !has_step && !elsewhere.contains(name) {
            stale.push(format!("{name} {no} is neither in fixtures/ nor left to the conformance runner"));
        }
    }
    assert!(stale.is_empty(), "rows of DEVIATIONS.md:\n{}", stale.join("\n"));
}

#[test]
fn every_row_has_five_cells_and_names_a_test_that_is_there() {
    let mut names = BTreeSet::new();
    let mut folders: Vec<PathBuf> =
        ["src", "compat", "repl", "tests"].iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(&path).unwrap();
                let declared = source.split("fn ").skip(1).filter_map(|rest| rest.split('(').next());
                names.extend(declared.map(str::to_owned));
            }
        }
    }
    let mut wrong = Vec::new();
    for row in rows() {
        if row.len() != 5 {
            wrong.push(format!("{} cells: {}", row.len(), row.join(" | ")));
            continue;
        }
        let test = &row[4];
        let quoted: Vec<&str> = test.split('`').skip(1).step_by(2).collect();
        let is_excused = test.starts_with("none") || test.starts_with("recording ");
        if quoted.is_empty() && !is_excused {
            wrong.push(format!("no test: {}", row[0]));
        }
        let tests = quoted.iter().filter(|name| !name.contains(['/', '-']) && !is_excused);
        wrong.extend(tests.filter(|name| !names.contains(**name)).map(|name| format!("no test {name}")));
    }
    assert!(wrong.is_empty(), "rows of DEVIATIONS.md:\n{}", wrong.join("\n"));
}

#[test]
fn steps_are_read_from_cells() {
    let cell = "rest-api 2.2, `/` (`rest/redirects` 3, 5 to 7; `proxy/pin-ls` 1, and the rest)";
    let expected =
        [("rest/redirects", 3), ("rest/redirects", 5), ("rest/redirects", 6), ("rest/redirects", 7)];
    let mut expected: Vec<Place> = expected.iter().map(|(name, no)| ((*name).to_owned(), *no)).collect();
    expected.push(("proxy/pin-ls".into(), 1));
    assert_eq!(places(cell), expected);
}
