//! The image's entry script and the Debian package, with stand-ins for what they call.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Writes a script that can be called. Another process does it: what this one has open for writing while a test beside it
/// forks is busy for a moment and cannot be called.
fn write_program(path: &Path, script: &str) {
    let mut child = Command::new("sh")
        .args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// A folder of stand-ins that write down how they were called, and a folder for a peer.
struct Image {
    folder: tempfile::TempDir,
}

impl Image {
    /// As seen by a user of this id.
    fn new(user_id: u32) -> Self {
        let image = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(image.bin()).unwrap();
        std::fs::create_dir(image.data()).unwrap();
        image.stand_in("id", &format!("echo {user_id}"));
        image.stand_in("ipfs-cluster-service", "[ -z \"$FAIL\" ] || [ \"$1\" != \"$FAIL\" ] || exit 7");
        image.stand_in("chown", "");
        // whoever is called by it is the user
        image.stand_in("su-exec", "if [ \"$2\" = test ]; then exit \"${UNWRITABLE:-0}\"; fi");
        image
    }

    fn bin(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data folder")
    }

    fn stand_in(&self, name: &str, then: &str) {
        let path = self.bin().join(name);
        let calls = self.folder.path().join("calls");
        let script = format!(
            "#!/bin/sh\n{{ printf '{name}'; for arg in \"$@\"; do printf ' [%s]' \"$arg\"; done; echo; }} >> '{}'\n{then}\n",
            calls.display()
        );
        let script = if name == "id" { format!("#!/bin/sh\n{then}\n") } else { script };
        write_program(&path, &script);
    }

    fn run(&self, args: &[&str], env: &[(&str, &str)]) -> (Output, Vec<String>) {
        let path = format!("{}:{}", self.bin().display(), std::env::var("PATH").unwrap());
        let output = Command::new("sh")
            .arg(script())
            .args(args)
            .env("PATH", path)
            .env("IPFS_CLUSTER_PATH", self.data())
            .env("IPFS_CLUSTER_CONSENSUS", "crdt")
            .envs(env.iter().copied())
            .output()
            .unwrap();
        let calls = self.folder.path().join("calls");
        let lines = std::fs::read_to_string(&calls).unwrap_or_default().lines().map(str::to_owned).collect();
        let _ = std::fs::remove_file(calls);
        (output, lines)
    }
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn script() -> PathBuf {
    top().join("packaging/entrypoint.sh")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_entry_script_makes_a_configuration_where_there_is_none_and_becomes_the_service() {
    let image = Image::new(1000);
    let service = |args: &str| format!("ipfs-cluster-service {args}");
    let (output, calls) = image.run(&["daemon", "--stats", "--leave"], &[]);
    assert!(output.status.success());
    let init = service("[init] [--consensus] [crdt]");
    assert_eq!(calls, [service("[--version]"), init, service("[daemon] [--stats] [--leave]")]);
    // an empty consensus is passed on, and refused by the service
    let (output, calls) = image.run(&["daemon"], &[("IPFS_CLUSTER_CONSENSUS", ""), ("FAIL", "init")]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(calls[1..], [service("[init] [--consensus] []")]);
    // a service that cannot say its version starts nothing
    let (output, calls) = image.run(&["daemon"], &[("FAIL", "--version")]);
    assert_eq!((output.status.code(), calls.len()), (Some(7), 1));
    std::fs::write(image.data().join("service.json"), "{}").unwrap();
    let (output, calls) = image.run(&["daemon --debug *"], &[("DOCKER_DEBUG", "1")]);
    let found = format!("Found IPFS cluster configuration at {}\n", image.data().display());
    assert!(text(&output.stdout).ends_with(&found), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("+ "), "a trace");
    assert_eq!(calls[1..], [service("[daemon] [--debug] [*]")], "words of one argument are several");
}

#[test]
fn as_root_the_entry_script_hands_the_folder_over_and_becomes_the_user() {
    let image = Image::new(0);
    let data = image.data();
    let asked = format!("su-exec [ipfs] [test] [-w] [{}]", data.display());
    let becomes = format!("su-exec [ipfs] [{}] [daemon] [a b]", script().display());
    let (output, calls) = image.run(&["daemon", "a b"], &[]);
    assert_eq!(text(&output.stdout), "Changing user to ipfs\n");
    assert_eq!(calls, [asked.clone(), becomes.clone()]);
    let (_, calls) = image.run(&["daemon", "a b"], &[("UNWRITABLE", "1")]);
    assert_eq!(calls, [asked, format!("chown [-R] [--] [ipfs] [{}]", data.display()), becomes]);
}

#[test]
fn the_entry_script_starts_the_real_service_without_a_terminal_or_a_secret() {
    let image = Image::new(1000);
    let service = image.bin().join("ipfs-cluster-service");
    std::fs::remove_file(&service).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ipfs-cluster-service"), &service).unwrap();
    for _ in 0..2 {
        let (output, _) = image.run(&["state", "export"], &[("CLUSTER_SECRET", "")]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    assert!(image.data().join("service.json").exists());
}

#[test]
fn the_image_has_the_paths_ports_and_variables_of_the_original() {
    let file = std::fs::read_to_string(top().join("packaging/Dockerfile")).unwrap();
    for line in [
        "ENV IPFS_CLUSTER_PATH=/data/ipfs-cluster",
        "ENV IPFS_CLUSTER_CONSENSUS=crdt",
        "EXPOSE 9094",
        "EXPOSE 9095",
        "EXPOSE 9096",
        "VOLUME $IPFS_CLUSTER_PATH",
        "ENTRYPOINT [\"/sbin/tini\", \"--\", \"/usr/local/bin/entrypoint.sh\"]",
        "CMD [\"daemon\"]",
    ] {
        assert!(file.lines().any(|known| known == line), "{line}");
    }
    assert!(file.contains("adduser -D -h \"$IPFS_CLUSTER_PATH\" -u 1000 -G users ipfs"));
}

#[test]
fn the_debian_package_has_programs_unit_and_scripts() {
    if Command::new("dpkg-deb").arg("--version").output().is_err() {
        println!("skipped: there is no dpkg-deb");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for program in ["service", "ctl", "follow"] {
        let path = folder.path().join(format!("ipfs-cluster-{program}"));
        write_program(&path, "#!/bin/sh\necho \"$*\" of $(basename \"$0\")\n");
    }
    let build = top().join("packaging/debian/build");
    let made =
        Command::new("sh").arg(build).args([folder.path(), folder.path()]).arg("0.1.0").output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let mut package = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let is_package = |path: &PathBuf| path.extension().is_some_and(|end| end == "deb");
    let package = package.find(is_package).unwrap();
    let ask = |what: &str| text(&Command::new("dpkg-deb").arg(what).arg(&package).output().unwrap().stdout);
    let (contents, info) = (ask("--contents"), ask("--info"));
    for path in [
        "usr/bin/ipfs-cluster-service",
        "usr/bin/ipfs-cluster-follow",
        "usr/share/bash-completion/completions/ipfs-cluster-ctl",
        "usr/share/man/man1/ipfs-cluster-follow.1.gz",
        "system/ipfs-cluster.service",
        "migration.md",
    ] {
        assert!(contents.contains(path), "{path} is not in\n{contents}");
    }
    assert!(contents.contains("-rwxr-xr-x root/root"), "{contents}");
    for line in [
        "Package: ipfs-cluster",
        "Version: 0.1.0",
        "Depends: adduser, ca-certificates\n",
        "postinst",
        "prerm",
    ] {
        assert!(info.contains(line), "{line} is not in\n{info}");
    }
}
