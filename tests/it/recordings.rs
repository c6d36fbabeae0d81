//! What the original programs printed and wrote, held against ours: the recordings in `fixtures/cli` that need no
//! daemon, replayed step by step. `fixtures/README.md` tells their format.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex};

use regex::{Captures, Regex};
use serde_json::{Value, json};

use crate::support::{SECRET, free_port};

/// The peers that recordings name by their number; the first is the one that is run.
const IDS: [&str; 5] = [
    "12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt",
    "12D3KooWMkHC3xeDUkNkT3bWSM7XAshpRqt6pYw1VRxCufeXQNhU",
    "12D3KooWEV5cJhqzWRw9QhFZTYJoM85XNQByswBtBPXhmCbwzxx9",
    "12D3KooWEHCTYcywbmfE85dvqAR4hHhfMswTz6iQetLRrrduGr8J",
    "12D3KooWSzGz2Zh9U1j8wNDMCm37AFJJJwzDLsJYCAnxVZsPWBpB",
];
const KEY: &str =
    "CAESQCir5YnWrLIplhuoC5fAOK1ZvBUYRcJqgv66s3aw8Cj8W4xZF3tcN/MAO5FnnymGO2iZagbZMD4HcB3K9TWbuGE=";

/// Steps that a row of `compat/DEVIATIONS.md` answers otherwise.
const DEPARTURES: [(&str, usize); 3] =
    [("state-crdt-tools", 4), ("config-init-environment", 9), ("config-source", 32)];

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap()
}

static NAMES: LazyLock<Regex> =
    LazyLock::new(|| regex(r"\{(root|id|rest|proxy|pinsvc|kubotee|cluster|web)(\d?)\}"));
static PORTS: LazyLock<Regex> = LazyLock::new(|| regex(r"(%2F|\b)(\d{4,5})\b"));
static TIMES: LazyLock<Regex> =
    LazyLock::new(|| regex(r"\b(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)"));
static LOG_LINE: LazyLock<Regex> = LazyLock::new(|| regex(r"^\d{4}-\d\d-\d\dT\S+\t"));
static TITLE: LazyLock<Regex> = LazyLock::new(|| regex(r"^([A-Z][A-Z ]+):"));
static FLAG: LazyLock<Regex> = LazyLock::new(|| regex(r"(?:^|, )(--?[A-Za-z0-9-]+)"));

/// One recording's folder, ports and file server.
struct Run {
    root: tempfile::TempDir,
    /// By name and number, as they are first asked for.
    ports: Mutex<BTreeMap<String, u16>>,
    /// JSON files as they were before their first edit.
    originals: BTreeMap<PathBuf, Value>,
    served: Arc<Mutex<Vec<String>>>,
}

impl Run {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("work")).unwrap();
        Self { root, ports: Mutex::default(), originals: BTreeMap::new(), served: Arc::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn port(&self, name: &str) -> u16 {
        *self.ports.lock().unwrap().entry(name.to_owned()).or_insert_with(free_port)
    }

    /// A text of the recording with the names of this run's folder and ports filled in.
    fn fill(&self, text: &str) -> String {
        let name = |found: &Captures<'_>| match &found[1] {
            "root" => self.root.path().display().to_string(),
            "id" => IDS[found[2].parse::<usize>().unwrap_or_default()].to_owned(),
            name => self.port(&format!("{name}{}", &found[2])).to_string(),
        };
        NAMES.replace_all(text, name).into_owned()
    }

    /// What came out of this run as a recording has it.
    fn unfill(&self, text: &str) -> String {
        let text = text.replace(&self.root.path().display().to_string(), "{root}");
        let host = format!("\"peername\": \"{}\"", gethostname::gethostname().to_string_lossy());
        let text = text.replace(&host, "\"peername\": \"{hostname}\"");
        let ports = self.ports.lock().unwrap();
        let name = |found: &Captures<'_>| {
            let known = ports.iter().find(|(_, port)| port.to_string() == found[2]);
            known.map_or_else(|| found[0].to_owned(), |(name, _)| format!("{}{{{name}}}", &found[1]))
        };
        PORTS.replace_all(&text, name).into_owned()
    }

    /// The folder of a step: the peer's, or one of the run's.
    fn folder(&self, step: &Value) -> PathBuf {
        self.path(step["in"].as_str().unwrap_or("cluster0"))
    }

    fn file(&self, step: &Value) -> PathBuf {
        self.folder(step).join(step["path"].as_str().unwrap())
    }

    /// Does a step; what it answers.
    fn take(&mut self, step: &Value) -> Option<Value> {
        match step["do"].as_str().unwrap() {
            "cli" => return Some(self.cli(step)),
            "init" => self.init(),
            "edit" => self.edit(step),
            "write" => self.write(step),
            "remove" => {
                let path = self.file(step);
                if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
                    .unwrap();
            }
            "file" => {
                let path = self.file(step);
                let Ok(content) = std::fs::read(&path) else { return Some(json!({ "exists": false })) };
                let content = self.unfill(&String::from_utf8(content).unwrap());
                return Some(
                    json!({ "mode": format!("0o{:o}", mode(&path)), "content": { "text": content } }),
                );
            }
            "tree" => return Some(json!({ "files": self.tree(step) })),
            "serve" => self.serve(step),
            "served" => {
                return Some(json!({ "requests": std::mem::take(&mut *self.served.lock().unwrap()) }));
            }
            other => panic!("no step {other}"),
        }
        None
    }

    fn cli(&self, step: &Value) -> Value {
        let program = step["program"].as_str().unwrap();
        let text = |value: &Value| self.fill(value.as_str().unwrap());
        let mut args = match program {
            _ if step["bare"] == true => Vec::new(),
            "ipfs-cluster-service" => vec!["-c".to_owned(), self.path("cluster0").display().to_string()],
            "ipfs-cluster-ctl" => {
                vec!["--host".to_owned(), format!("/ip4/127.0.0.1/tcp/{}", self.port("rest0"))]
            }
            _ => vec!["--config".to_owned(), self.path("follow0").display().to_string()],
        };
        args.extend(step["args"].as_array().unwrap().iter().map(text));
        for (name, content) in step["files"].as_object().into_iter().flatten() {
            std::fs::write(self.path("work").join(name), content["text"].as_str().unwrap()).unwrap();
        }
        let binary = match program {
            "ipfs-cluster-service" => env!("CARGO_BIN_EXE_ipfs-cluster-service"),
            "ipfs-cluster-ctl" => env!("CARGO_BIN_EXE_ipfs-cluster-ctl"),
            _ => env!("CARGO_BIN_EXE_ipfs-cluster-follow"),
        };
        // file modes are recorded
        let mut command = Command::new("sh");
        command.args(["-c", "umask 022; exec \"$0\" \"$@\"", binary]).args(args);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.path("work")).current_dir(self.path("work"));
        for (name, value) in step["env"].as_object().into_iter().flatten() {
            command.env(name, text(value));
        }
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // who does not read it is free not to
        let _ =
            child.stdin.take().unwrap().write_all(step["stdin"]["text"].as_str().unwrap_or("").as_bytes());
        let output = child.wait_with_output().unwrap();
        let out = |bytes: &[u8]| self.unfill(&String::from_utf8_lossy(bytes));
        let mut answer = json!({
            "exit": output.status.code(),
            "stdout": out(&output.stdout),
            "stderr": without_log(&out(&output.stderr)),
        });
        if step["help"] == true {
            let page = answer["stdout"].as_str().unwrap_or_default().to_owned();
            answer["first"] = page.lines().next().into();
            answer["offers"] = json!(offers(&page));
            answer.as_object_mut().unwrap().remove("stdout");
        }
        answer
    }

    /// A peer as the recordings begin with.
    fn init(&self) {
        let folder = self.path("cluster0");
        let done = self.cli(&json!({ "program": "ipfs-cluster-service", "args": ["init"] }));
        assert_eq!(done["exit"], 0, "{done}");
        let identity = json!({ "id": IDS[0], "private_key": KEY });
        std::fs::write(folder.join("identity.json"), identity.to_string()).unwrap();
        let path = folder.join("service.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let addr = |name| json!(format!("/ip4/127.0.0.1/tcp/{}", self.port(name)));
        let cluster = json!({
            "secret": SECRET, "peername": "peer0", "listen_multiaddress": [addr("cluster0")],
            "mdns_interval": "0s", "monitor_ping_interval": "2s", "peer_watch_interval": "1s",
            "state_sync_interval": "10m", "pin_recover_interval": "1h",
        });
        config["cluster"].as_object_mut().unwrap().extend(cluster.as_object().unwrap().clone());
        config["consensus"]["crdt"]["trusted_peers"] = json!(["*"]);
        config["api"]["restapi"]["http_listen_multiaddress"] = addr("rest0");
        config["api"]["ipfsproxy"]["listen_multiaddress"] = addr("proxy0");
        config["api"]["ipfsproxy"]["node_multiaddress"] = addr("kubotee0");
        config["api"]["pinsvcapi"]["http_listen_multiaddress"] = addr("pinsvc0");
        config["ipfs_connector"]["ipfshttp"]["node_multiaddress"] = addr("kubotee0");
        std::fs::write(&path, config.to_string()).unwrap();
    }

    /// Changes keys of a JSON file, always from what it first held.
    fn edit(&mut self, step: &Value) {
        let path = self.file(step);
        let read = || serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        if step["anew"] == true {
            self.originals.remove(&path);
        }
        let mut document = self.originals.entry(path.clone()).or_insert_with(read).clone();
        for (key, value) in step["set"].as_object().into_iter().flatten() {
            let value: Value = serde_json::from_str(&self.fill(&value.to_string())).unwrap();
            let place = key.split('/').fold(&mut document, |at, part| &mut at[part]);
            *place = value;
        }
        for key in step["unset"].as_array().into_iter().flatten() {
            let (above, last) = key.as_str().unwrap().rsplit_once('/').unwrap_or(("", key.as_str().unwrap()));
            let parts = above.split('/').filter(|part| !part.is_empty());
            let place = parts.fold(&mut document, |at, part| &mut at[part]);
            place.as_object_mut().unwrap().remove(last);
        }
        std::fs::write(&path, document.to_string()).unwrap();
    }

    fn write(&self, step: &Value) {
        let path = self.file(step);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = step["content"]["text"].as_str().unwrap();
        let text = if step["fill"] == true { self.fill(text) } else { text.to_owned() };
        std::fs::write(&path, text).unwrap();
        if let Some(mode) = step["mode"].as_str() {
            let mode = u32::from_str_radix(mode.trim_start_matches("0o"), 8).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    /// Files below a folder, with their modes where these are recorded.
    fn tree(&self, step: &Value) -> Vec<String> {
        fn walk(top: &Path, at: &Path, with_folders: bool, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(at).into_iter().flatten() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(top).unwrap().display().to_string();
                match path.is_dir() {
                    false => found.push(name),
                    true => {
                        if with_folders {
                            found.push(format!("{name}/"));
                        }
                        walk(top, &path, with_folders, found);
                    }
                }
            }
        }
        let (top, with_modes) = (self.folder(step), step["modes"] == true);
        let mut found = Vec::new();
        walk(&top, &top, with_modes, &mut found);
        found.sort();
        let skip = regex(step["skip"].as_str().unwrap_or("^$"));
        found.retain(|name| !skip.is_match(name));
        if with_modes {
            for name in &mut found {
                *name = format!("{:o} {name}", mode(&top.join(&*name)));
            }
        }
        found
    }

    /// Serves documents over HTTP until the test ends.
    fn serve(&self, step: &Value) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        self.ports.lock().unwrap().insert("web0".to_owned(), listener.local_addr().unwrap().port());
        let mut pages: BTreeMap<String, String> = BTreeMap::new();
        for (path, route) in step["routes"].as_object().unwrap() {
            let body = match route["file"].as_str() {
                Some(file) => std::fs::read_to_string(self.path(file)).unwrap(),
                None => self.fill(route["body"]["text"].as_str().unwrap_or_default()),
            };
            let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", route["status"]);
            for header in route["headers"].as_array().into_iter().flatten() {
                head.push_str(&format!(
                    "{}: {}\r\n",
                    header[0].as_str().unwrap(),
                    header[1].as_str().unwrap()
                ));
            }
            let page = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
            pages.insert(path.clone(), page);
        }
        let served = Arc::clone(&self.served);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let first = lines.next().unwrap().unwrap();
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let mut words = first.split(' ');
                let (method, path) = (words.next().unwrap(), words.next().unwrap());
                served.lock().unwrap().push(format!("{method} {path}"));
                let _ = stream.write_all(pages.get(path).map_or("", String::as_str).as_bytes());
            }
        });
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

/// The text less the lines of the program's log and those that go on from them.
fn without_log(text: &str) -> String {
    let mut is_log = false;
    let lines = text.split('\n').filter(|line| {
        is_log = LOG_LINE.is_match(line) || is_log && line.starts_with([' ', '\t']);
        !is_log
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The commands and flags that a help page offers.
fn offers(page: &str) -> BTreeSet<String> {
    let (mut names, mut section) = (BTreeSet::new(), String::new());
    for line in page.lines() {
        let row = line.trim().split("  ").next().unwrap_or_default();
        if let Some(title) = TITLE.captures(line) {
            section = title[1].to_owned();
        } else if section == "COMMANDS" && line.starts_with(' ') && !row.is_empty() {
            let words = row.split([',', ' ']).filter(|word| !word.is_empty());
            names.extend(words.map(|word| format!("command {word}")));
        } else if section.ends_with("OPTIONS") && line.trim_start().starts_with('-') {
            names.extend(FLAG.captures_iter(row).map(|flag| format!("flag {}", &flag[1])));
        }
    }
    names
}

/// An answer as lines of text, with what no two runs share masked.
fn comparable(answer: &Value, step: &Value) -> Vec<String> {
    let masks: Vec<(Regex, String)> = step["mask"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|mask| (regex(mask[0].as_str().unwrap()), mask[1].as_str().unwrap().replace("\\1", "${1}")))
        .collect();
    let mut lines = Vec::new();
    for (key, value) in answer.as_object().unwrap() {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Object(body) => body["text"].as_str().unwrap().to_owned(),
            other => other.to_string(),
        };
        let time = |found: &Captures<'_>| match found[1].starts_with("0001-01-01T") {
            true => found[0].to_owned(),
            false => format!("<time>{}", &found[3]),
        };
        let mut text = TIMES.replace_all(&text, time).into_owned();
        for (pattern, name) in &masks {
            text = pattern.replace_all(&text, name).into_owned();
        }
        let mut rows: Vec<&str> = text.split('\n').collect();
        if step["any_order"] == true {
            rows.sort_unstable();
        }
        lines.extend(rows.iter().map(|row| format!("{key}: {row}")));
    }
    lines
}

/// Help pages may offer more than was recorded.
fn without_more(mut answer: Value, expected: &Value) -> Value {
    let offers = answer.get_mut("offers").and_then(Value::as_array_mut);
    if let (Some(offers), Some(recorded)) = (offers, expected["offers"].as_array()) {
        offers.retain(|offer| recorded.contains(offer));
    }
    answer
}

fn replay(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/cli/{name}.json"));
    let recording: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let mut run = Run::new();
    let mut wrong = String::new();
    for (number, step) in recording["steps"].as_array().unwrap().iter().enumerate() {
        let answer = run.take(step);
        let (Some(answer), expected) = (answer, &step["answer"]) else { continue };
        if expected.is_null() || DEPARTURES.contains(&(name, number)) {
            continue;
        }
        let got = comparable(&without_more(answer, expected), step);
        let wanted = comparable(expected, step);
        if got != wanted {
            wrong.push_str(&format!("step {number}: {} {}\n", step["do"], step["args"]));
            let lost = wanted.iter().filter(|line| !got.contains(line)).map(|line| format!("  - {line}\n"));
            let new = got.iter().filter(|line| !wanted.contains(line)).map(|line| format!("  + {line}\n"));
            wrong.extend(lost.chain(new));
        }
    }
    assert!(wrong.is_empty(), "{name}:\n{wrong}");
}

macro_rules! recordings {
    ($($test:ident = $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                replay($name);
            }
        )*

        #[test]
        fn every_recording_is_replayed() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cli");
            let names = std::fs::read_dir(folder).unwrap().map(|entry| {
                let name = entry.unwrap().file_name().into_string().unwrap();
                name.strip_suffix(".json").unwrap().to_owned()
            });
            assert_eq!(names.collect::<BTreeSet<_>>(), BTreeSet::from([$($name.to_owned()),*]));
        }
    };
}

recordings! {
    configurations_of_apis_are_refused_as_recorded = "config-bad-apis",
    configurations_of_the_cluster_are_refused_as_recorded = "config-bad-cluster",
    configurations_of_components_are_refused_as_recorded = "config-bad-components",
    daemons_refuse_bad_structures_as_recorded = "config-daemon-bad-structure",
    identities_are_loaded_and_refused_as_recorded = "config-identity",
    init_refuses_bad_variables_as_recorded = "config-init-bad-environment",
    init_writes_variables_as_recorded = "config-init-environment",
    init_writes_files_as_recorded = "config-init-files",
    init_takes_peers_as_recorded = "config-init-peers",
    init_asks_as_recorded = "config-init-prompts",
    odd_configurations_are_accepted_as_recorded = "config-load-accepted",
    sources_are_fetched_as_recorded = "config-source",
    ctl_offers_what_was_recorded = "ctl-help",
    ctl_without_a_server_says_what_was_recorded = "ctl-no-server",
    usage_errors_of_ctl_are_as_recorded = "ctl-usage-errors",
    follow_offers_what_was_recorded = "follow-help",
    followers_are_initialised_as_recorded = "follow-init",
    usage_errors_of_follow_are_as_recorded = "follow-usage-errors",
    service_offers_what_was_recorded = "service-help",
    usage_errors_of_service_are_as_recorded = "service-usage-errors",
    the_crdt_tools_print_what_was_recorded = "state-crdt-tools",
    imports_are_refused_as_recorded = "state-import-errors",
}
