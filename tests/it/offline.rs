//! `state export`, `import` and `cleanup` as an operator runs them, and what is left when one does not come to its end.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::cid;

/// How long a command may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A folder with a configuration, and no peer running on it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        succeeded(folder.run(&["init"]));
        folder
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ipfs-cluster-service"));
        command.arg("-c").arg(self.0.path()).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// The first word runs with standard input from a pipe.
    fn piped(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// What would be exported.
    fn state(&self) -> String {
        succeeded(self.run(&["state", "export"]))
    }

    fn import(&self, lines: &str) {
        let file = self.file(lines);
        succeeded(self.run(&["state", "import", "-f", file.to_str().unwrap()]));
    }

    fn file(&self, lines: &str) -> PathBuf {
        let path = self.0.path().join("pins.json");
        std::fs::write(&path, lines).unwrap();
        path
    }

    fn next(&self) -> PathBuf {
        self.0.path().join("lmdb/next/data.mdb")
    }
}

fn succeeded(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Lines of pins, some of them of CIDs that `lines` of another name has too.
fn lines(name: &str, n_pins: usize) -> String {
    let line =
        |n| format!("{{\"cid\":\"{}\",\"name\":\"{name} {n}\",\"max_depth\":-1,\"type\":\"pin\"}}\n", cid(n));
    (0..n_pins).map(line).collect()
}

/// The names in an export, sorted.
fn names(export: &str) -> Vec<String> {
    let name =
        |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["name"].as_str().unwrap().to_owned();
    let mut names: Vec<_> = export.lines().map(name).collect();
    names.sort();
    names
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::yield_now();
    }
}

#[test]
fn an_import_that_is_killed_leaves_the_old_state_or_the_new_one() {
    let (old, new) = (lines("old", 3), lines("new", 4000));
    let folder = Folder::new();
    folder.import(&old);
    let before = folder.state();
    // while it reads
    let mut importing = folder.piped(&["state", "import", "-f"]);
    importing.stdin.as_mut().unwrap().write_all(&new.as_bytes()[..new.len() / 2]).unwrap();
    importing.kill().unwrap();
    importing.wait().unwrap();
    assert_eq!(folder.state(), before);
    // while it writes, which begins when all has been read; a little later each time
    let file = folder.file(&new);
    let mut n_new = 0;
    for n in 0..12u64 {
        let mut importing = folder.command(&["state", "import", "-f", file.to_str().unwrap()]);
        let mut importing = importing.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let wanted_bytes = 1 + n * 200_000;
        wait_for("the new state, or the end", || {
            let n_bytes = std::fs::metadata(folder.next()).map_or(0, |file| file.len());
            n_bytes >= wanted_bytes || importing.try_wait().unwrap().is_some()
        });
        importing.kill().unwrap();
        importing.wait().unwrap();
        let after = folder.state();
        if after != before {
            assert_eq!(names(&after), names(&new));
            n_new += 1;
            folder.import(&old);
        }
    }
    assert!(n_new < 12, "none was killed in time");
    folder.import(&new);
    assert_eq!(names(&folder.state()), names(&new));
}

#[test]
fn a_cleanup_that_is_killed_leaves_the_old_state_or_none() {
    let folder = Folder::new();
    let old = lines("old", 3);
    for _ in 0..5 {
        folder.import(&old);
        let before = folder.state();
        let mut cleaning = folder.piped(&["state", "cleanup", "-f"]);
        wait_for("a beginning, or the end", || {
            folder.next().exists() || cleaning.try_wait().unwrap().is_some()
        });
        cleaning.kill().unwrap();
        cleaning.wait().unwrap();
        let after = folder.state();
        assert!(after == before || after.is_empty(), "{after}");
    }
    succeeded(folder.run(&["state", "cleanup", "-f"]));
    assert_eq!(folder.state(), "");
}

/// The command where files cannot grow beyond a MiB, as on a disk that fills up.
fn on_a_small_disk(folder: &Folder, args: &[&str]) -> Output {
    let mut shell = Command::new("sh");
    shell.arg0("sh").args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\""]);
    shell.arg(env!("CARGO_BIN_EXE_ipfs-cluster-service")).arg("-c").arg(folder.0.path()).args(args);
    shell.output().unwrap()
}

#[test]
fn a_full_disk_ends_an_import_and_an_export_with_one_clear_line_and_changes_nothing() {
    let folder = Folder::new();
    let many = lines("new", 9000);
    folder.import(&lines("old", 3));
    let before = folder.state();
    let file = folder.file(&many);
    let refused = on_a_small_disk(&folder, &["state", "import", "-f", file.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    let words = String::from_utf8(refused.stderr).unwrap();
    assert!(words.contains("error importing state: ") && words.contains("the disk may be full"), "{words}");
    assert_eq!(folder.state(), before);
    assert!(!folder.next().exists());
    folder.import(&many);
    let out = folder.0.path().join("out.json");
    let refused = on_a_small_disk(&folder, &["state", "export", "-f", out.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    let words = String::from_utf8(refused.stderr).unwrap();
    assert!(words.contains("error exporting state: ") && words.contains("File too large"), "{words}");
}

#[test]
fn a_damaged_file_or_stream_changes_nothing() {
    let folder = Folder::new();
    folder.import(&lines("old", 3));
    let before = folder.state();
    let good = lines("new", 10);
    for bad in ["{", "null", "{}", "{\"cid\":null}", "{\"cid\":\"QmBad\"}", "no JSON", "[]", "\u{0}"] {
        let text = format!("{good}{bad}\n");
        let file = folder.file(&text);
        let from_file = folder.run(&["state", "import", "-f", file.to_str().unwrap()]);
        assert_eq!(from_file.status.code(), Some(1), "{bad}");
        let mut importing = folder.piped(&["state", "import", "-f"]);
        importing.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert_eq!(importing.wait().unwrap().code(), Some(1), "{bad}");
        assert_eq!(folder.state(), before, "{bad}");
    }
    // a whole stream counts, the last of two lines of a pin
    let mut importing = folder.piped(&["state", "import", "-f"]);
    let text = format!("{good}{}", lines("newer", 2));
    importing.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert_eq!(importing.wait().unwrap().code(), Some(0));
    let after = names(&folder.state());
    assert_eq!((after.len(), &after[8..]), (10, &["newer 0".to_owned(), "newer 1".to_owned()][..]));
}
