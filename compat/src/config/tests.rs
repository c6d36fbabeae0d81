//! Configurations the reference was asked about, replayed.

use std::collections::BTreeMap;
use std::path::Path;

use libp2p_identity::Keypair;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::*;

#[derive(Deserialize)]
struct Refused {
    file: String,
    error: String,
}

#[derive(Deserialize)]
struct RefusedVariables {
    env: BTreeMap<String, String>,
    error: String,
}

#[derive(Deserialize)]
struct InitWithVariables {
    consensus: String,
    datastore: String,
    env: BTreeMap<String, String>,
    file: String,
}

#[derive(Deserialize)]
struct IdentityFile {
    file: String,
    error: Option<String>,
}

fn fixture_text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/config").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn fixture<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_str(&fixture_text(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn env(variables: &[(&str, &str)]) -> Env {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn engine(name: &str) -> Engine {
    match name {
        "badger" => Engine::Badger,
        "badger3" => Engine::Badger3,
        "leveldb" => Engine::Leveldb,
        "lmdb" => Engine::Lmdb,
        "pebble" => Engine::Pebble,
        other => panic!("no engine {other}"),
    }
}

fn consensus(name: &str) -> Consensus {
    if name == "raft" { Consensus::Raft } else { Consensus::Crdt }
}

/// `text` with what differs between machines filled in from `config`.
fn fill(text: &str, config: &Config) -> String {
    let secret = config.cluster.secret.map(hex::encode).unwrap_or_default();
    text.replace("<secret>", &secret).replace("{hostname}", &gethostname::gethostname().to_string_lossy())
}

/// The smallest configuration with `sections` beside `cluster`.
fn with_sections(sections: &str) -> String {
    format!(r#"{{"cluster":{{"listen_multiaddress":"/ip4/127.0.0.1/tcp/1"}}{sections}}}"#)
}

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("/nowhere"), &Env::default()).map_err(|reason| reason.to_string())
}

/// Errors where rulings let us use our own words after the reference's prefix.
fn is_own_wording(ours: &str, theirs: &str) -> bool {
    let prefixes = ["MemTableSize ("];
    prefixes.iter().any(|prefix| ours.starts_with(prefix) && theirs.starts_with(prefix))
}

#[tokio::test]
async fn what_the_reference_refuses_is_refused_in_its_words() {
    let cases: Vec<Refused> = fixture("refused.json");
    assert!(cases.len() > 150);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("service.json");
    let mut wrong = Vec::new();
    for case in cases {
        std::fs::write(&path, &case.file).unwrap();
        let theirs = case.error.replace("{folder}", &folder.path().to_string_lossy());
        match Config::load(&path, &Env::default()).await {
            Ok(_) => wrong.push(format!("loads: {}\n   not: {theirs}", case.file)),
            Err(ours)
                if ours.to_string().trim_end() != theirs && !is_own_wording(&ours.to_string(), &theirs) =>
            {
                wrong.push(format!("{}\n  ours: {ours}\ntheirs: {theirs}", case.file));
            }
            Err(_) => {}
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), case.file, "a refused file was changed");
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn what_the_reference_loads_loads() {
    let cases: Vec<String> = fixture("accepted.json");
    for case in cases {
        if let Err(reason) = parse(&case) {
            panic!("{reason}: {case}");
        }
    }
}

#[test]
fn variables_the_reference_refuses_are_refused_in_its_words() {
    let cases: Vec<RefusedVariables> = fixture("refused-variables.json");
    for case in cases {
        let shown = format!("{:?}", case.env);
        let variables = case.env.into_iter().collect();
        let init = Config::init(Consensus::Crdt, Engine::Pebble, Path::new("/nowhere"), &variables);
        match init {
            Ok(_) => panic!("{shown} is accepted"),
            Err(reason) => assert_eq!(reason.to_string(), case.error, "{shown}"),
        }
    }
}

#[test]
fn new_files_are_those_of_the_reference_byte_for_byte() {
    for name in ["pebble", "badger", "badger3", "leveldb", "raft"] {
        let engine = if name == "raft" { Engine::Leveldb } else { engine(name) };
        let config = Config::init(consensus(name), engine, Path::new("/nowhere"), &Env::default()).unwrap();
        let expected = fill(&fixture_text(&format!("init-{name}.json")), &config);
        assert_eq!(config.to_json(), expected, "{name}");
        let again = Config::parse(&expected, Path::new("/nowhere"), &Env::default()).unwrap();
        assert_eq!(again.to_json(), expected, "{name}, loaded and saved");
    }
}

#[test]
fn our_datastore_section_is_empty_at_its_defaults() {
    let config = Config::init(Consensus::Crdt, Engine::Lmdb, Path::new("/nowhere"), &Env::default()).unwrap();
    let pebble = fill(&fixture_text("init-pebble.json"), &config);
    let (before, _) = pebble.split_once("  \"datastore\"").unwrap();
    assert_eq!(config.to_json(), format!("{before}  \"datastore\": {{\n    \"lmdb\": {{}}\n  }}\n}}"));

    let variables = env(&[("CLUSTER_LMDB_FOLDER", "db"), ("CLUSTER_LMDB_MAPSIZEBYTES", "16777216")]);
    let config = Config::init(Consensus::Crdt, Engine::Lmdb, Path::new("/nowhere"), &variables).unwrap();
    let section = "\"lmdb\": {\n      \"folder\": \"db\",\n      \"map_size_bytes\": 16777216\n    }";
    assert!(config.to_json().contains(section));
    assert_eq!(config.datastore.lmdb.path(&config.folder), Path::new("/nowhere/db"));
}

#[test]
fn too_small_a_map_is_refused() {
    let file = with_sections(r#","datastore":{"lmdb":{"map_size_bytes":16777215}}"#);
    assert_eq!(parse(&file).unwrap_err(), "lmdb.map_size_bytes is invalid");
    let file = with_sections(r#","datastore":{"lmdb":{"map_size_bytes":0}}"#);
    assert_eq!(parse(&file).unwrap().datastore.lmdb.map_size_bytes, 1 << 40);
}

#[test]
fn every_variable_is_written_by_init() {
    let cases: Vec<InitWithVariables> = fixture("init-variables.json");
    for case in cases {
        let shown = format!("{:?}", case.env);
        let variables = case.env.into_iter().collect();
        let init = Config::init(
            consensus(&case.consensus),
            engine(&case.datastore),
            Path::new("/nowhere"),
            &variables,
        );
        let config = init.unwrap_or_else(|reason| panic!("{reason}: {shown}"));
        // The reference forgets raft's namespace; here it counts.
        let forgotten = "\"backups_rotate\": 5,\n";
        let remembered = "\"backups_rotate\": 5,\n      \"datastore_namespace\": \"/q\",\n";
        let expected = fill(&case.file, &config).replace(forgotten, remembered);
        assert_eq!(config.to_json(), expected, "{shown}");
    }
}

#[test]
fn variables_change_a_loaded_configuration_and_no_presence() {
    let variables = env(&[
        ("CLUSTER_PEERNAME", "other"),
        ("CLUSTER_SECRET", ""),
        ("CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS", "/ip4/127.0.0.1/tcp/7"),
        ("CLUSTER_TAGS_TAGS", ""),
        ("CLUSTER_PEERADDRESSES", ""),
    ]);
    let mut file = with_sections(r#","informer":{"tags":{"tags":{"a":"b"}}}"#);
    file.insert_str(12, r#""secret":"1111111111111111111111111111111111111111111111111111111111111111","#);
    let config = Config::parse(&file, Path::new("/nowhere"), &variables).unwrap();
    assert_eq!(config.cluster.peername, "other");
    assert_eq!(config.cluster.secret, None);
    assert!(!config.restapi.present);
    assert_eq!(config.restapi.http_listen_multiaddress[0].to_string(), "/ip4/127.0.0.1/tcp/7");
    assert!(config.tags.present && config.tags.tags.is_empty());
}

#[test]
fn missing_values_mean_what_they_mean_to_the_reference() {
    let config = parse(&with_sections(
        r#","consensus":{"crdt":{}},"api":{"restapi":{},"ipfsproxy":null},"consensus":{"raft":{}}"#,
    ))
    .unwrap();
    assert!(!config.cluster.disable_repinning && !config.cluster.enable_relay_hop);
    assert_eq!(config.cluster.secret, None);
    assert_eq!(config.cluster.connection_manager.high_water, 400);
    assert_eq!(config.cluster.replication_factor_min, -1);
    assert!(!config.crdt.trust_all && config.crdt.trusted_peers.is_empty());
    assert!(config.raft.present && config.crdt.present && config.consensus().is_none());
    assert_eq!(config.raft.commit_retries, 0);
    assert!(config.restapi.present && !config.ipfsproxy.present);
    assert!(config.restapi.cors_allowed_origins.is_empty() && !config.restapi.cors_allow_credentials);
    assert_eq!(config.restapi.max_header_bytes, 4096);
    assert_eq!(config.balanced.allocate_by, ["freespace"]);
    assert_eq!(config.datastore.present(), None);
}

#[test]
fn a_present_zero_or_false_counts_in_a_datastore() {
    let file =
        with_sections(r#","datastore":{"badger":{"badger_options":{"sync_writes":false,"truncate":false}}}"#);
    let text = parse(&file).unwrap().to_json();
    assert!(text.contains("\"sync_writes\": false") && text.contains("\"truncate\": false"));
    assert!(text.contains("\"max_table_size\": 16777216"));
}

#[test]
fn unknown_components_of_known_sections_are_kept() {
    let kept =
        r#","api":{"grpc":{"b":[1.50,"<"],"a":{}}},"informer":{"numpin":{"metric_ttl":"1s"}},"else":{"x":1}"#;
    let text = parse(&with_sections(kept)).unwrap().to_json();
    let api = "\"api\": {\n    \"grpc\": {\n      \"b\": [\n        1.50,\n        \"\\u003c\"\n      ],\n      \"a\": {}";
    assert!(text.contains(api), "{text}");
    assert!(text.contains("\"numpin\": {\n      \"metric_ttl\": \"1s\"\n    }"));
    assert!(!text.contains("\"else\""));
}

#[test]
fn secrets_do_not_show_in_logs() {
    let variables = env(&[("CLUSTER_RESTAPI_BASICAUTHCREDENTIALS", "user:topsecret")]);
    let config = Config::init(Consensus::Crdt, Engine::Lmdb, Path::new("/nowhere"), &variables).unwrap();
    let text = config.to_display_json();
    let secret = config.cluster.secret.map(hex::encode).unwrap();
    assert!(!text.contains("topsecret") && !text.contains(&secret));
    assert!(text.contains("\"secret\": \"XXX_hidden_XXX\"") && text.contains("\"follower_mode\": false"));
}

#[test]
fn files_of_the_first_versions_are_recognised() {
    let reason =
        parse(r#"{"id":"x","cluster_peers":[],"cluster_multiaddress":"/ip4/0.0.0.0/tcp/9096"}"#).unwrap_err();
    assert!(reason.starts_with("cluster section is missing, and \"cluster_peers\" belongs to"), "{reason}");
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("service.json");
    let reason = Config::load(&path, &Env::default()).await.unwrap_err();
    assert_eq!(reason.to_string(), format!("open {}: no such file or directory", path.display()));
}

#[test]
fn saving_makes_a_private_file_that_loads_again() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("deep/er");
    let config = Config::init(Consensus::Crdt, Engine::Lmdb, &base, &Env::default()).unwrap();
    let path = base.join("service.json");
    config.save(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(&base).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), config.to_json());
}

#[test]
fn identities_load_or_are_refused_as_by_the_reference() {
    let cases: Vec<IdentityFile> = fixture("identities.json");
    assert!(cases.len() > 12);
    for case in cases {
        let shown = &case.file[..case.file.len().min(120)];
        match (Identity::parse(&case.file), case.error) {
            // Read, put variables over it, written again: the same text, whatever the type of the key.
            (Ok(identity), None) => {
                let again = identity.clone().with_env(&Env::default()).unwrap().to_json();
                assert_eq!(again, identity.to_json());
                let typed: BTreeMap<String, serde_json::Value> = serde_json::from_str(&case.file).unwrap();
                assert!(typed.values().any(|value| value.as_str().is_some_and(|key| again.contains(key))));
            }
            (Ok(_), Some(error)) => panic!("{shown} loads, not: {error}"),
            (Err(reason), None) => panic!("{shown}: {reason}"),
            // Texts of the protobuf library are our own.
            (Err(ours), Some(theirs)) if theirs.contains("ID: proto: ") => {
                assert!(ours.starts_with("error parsing private_key ID: "), "{ours}");
            }
            (Err(ours), Some(theirs)) => assert_eq!(ours, theirs, "{shown}"),
        }
    }
}

#[test]
fn keys_of_every_type_load() {
    let secp256k1 = Keypair::from(libp2p_identity::secp256k1::Keypair::generate());
    let ecdsa = Keypair::from(libp2p_identity::ecdsa::Keypair::generate());
    for keypair in [Keypair::generate_ed25519(), secp256k1, ecdsa] {
        let identity = Identity::new(keypair).unwrap();
        let loaded = Identity::parse(&identity.to_json()).unwrap();
        assert_eq!(loaded.id, identity.id);
    }
}

#[test]
fn a_new_identity_is_written_as_the_reference_writes_it() {
    let identity = Identity::generate().unwrap();
    let text = identity.to_json();
    let start = format!("{{\n    \"id\": \"{}\",\n    \"private_key\": \"CAESQ", identity.id);
    assert!(text.starts_with(&start) && text.ends_with("\"\n}") && text.len() == 183, "{text}");
}

#[test]
fn an_identity_of_old_configurations_moves_to_its_own_file() {
    let folder = tempfile::tempdir().unwrap();
    let (path, service) = (folder.path().join("identity.json"), folder.path().join("service.json"));
    let old = Identity::generate().unwrap();
    std::fs::write(&service, format!(r#"{{"cluster":{}}}"#, old.to_json())).unwrap();
    let (loaded, extracted) = Identity::load(&path, &service, &Env::default()).unwrap();
    assert!(extracted && loaded.id == old.id);
    let (loaded, extracted) = Identity::load(&path, &service, &Env::default()).unwrap();
    assert!(!extracted && loaded.id == old.id);

    std::fs::remove_file(&path).unwrap();
    std::fs::write(&service, r#"{"source":"http://x"}"#).unwrap();
    let reason = Identity::load(&path, &service, &Env::default()).unwrap_err().to_string();
    let expected = "error loading identity: error decoding cluster ID: failed to parse peer ID: \
                    invalid cid: cid too short";
    assert_eq!(reason, expected);
    assert!(!path.exists());
}

#[test]
fn variables_replace_an_identity_together() {
    let (one, two) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let id = ("CLUSTER_ID".to_owned(), two.id.to_base58());
    let reason = one.clone().with_env(&[id.clone()].into_iter().collect()).unwrap_err();
    assert_eq!(reason.to_string(), "identity ID does not match the private_key");
    let json: serde_json::Value = serde_json::from_str(&two.to_json()).unwrap();
    let key = ("CLUSTER_PRIVATEKEY".to_owned(), json["private_key"].as_str().unwrap().to_owned());
    assert_eq!(one.with_env(&[id, key].into_iter().collect()).unwrap().id, two.id);
}

#[test]
fn peerstores_skip_comments_and_bad_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peerstore");
    assert!(peerstore::read(&path).unwrap().is_empty());
    let id = Identity::generate().unwrap().id;
    let lines = [format!("/ip4/10.0.0.1/tcp/9096/p2p/{id}"), format!("/dns4/host/tcp/9096/p2p/{id}")];
    peerstore::write(&path, &lines).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, format!("{}\n{}\n", lines[0], lines[1]));
    std::fs::write(&path, format!("# mine\n\n{}\r\n/nonsense\n/ip4/10.0.0.2/tcp/1/ipfs/{id}", lines[0]))
        .unwrap();
    let addrs: Vec<String> = peerstore::read(&path).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(addrs, [lines[0].clone(), format!("/ip4/10.0.0.2/tcp/1/p2p/{id}")]);
}

#[test]
fn a_text_that_cannot_be_written_leaves_the_old_one() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("service.json");
    write_private(&path, "old").unwrap();
    // what is written beside it ends on a device without room
    std::os::unix::fs::symlink("/dev/full", folder.path().join("service.json.new")).unwrap();
    let reason = write_private(&path, "new").unwrap_err();
    assert_eq!(reason, format!("open {}: no space left on device", path.display()));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    write_private(&path, "new").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}
