//! Endpoints about the node itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use cluster_compat::go::quote::quote;
use serde::Serialize;
use serde_json::{Value, json};

use super::super::{Core, path};
use super::KUBO_VERSION;
use super::answer::{Answer, Failure};
use super::call::Call;
use super::table::{ENDPOINTS, GLOBAL};

/// The version of the repository whose layout clients may expect.
pub(super) const REPO_VERSION: &str = "18";

#[derive(Serialize)]
struct Version {
    #[serde(rename = "Version")]
    version: &'static str,
    #[serde(rename = "Commit")]
    commit: &'static str,
    #[serde(rename = "Repo")]
    repo: &'static str,
    #[serde(rename = "System")]
    system: String,
    #[serde(rename = "Golang")]
    golang: String,
}

/// `version`.
pub(super) async fn version(_core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let version = Version {
        version: KUBO_VERSION,
        commit: "",
        repo: REPO_VERSION,
        system: format!("{arch}/{}", std::env::consts::OS),
        // where Kubo names its compiler
        golang: format!("ipfs-cluster-rs/{}", env!("CARGO_PKG_VERSION")),
    };
    Ok(match call.text("encoding") {
        "text" if call.is("number") => Answer::Text("text/plain", format!("{KUBO_VERSION}\n")),
        "text" if call.is("repo") => Answer::Text("text/plain", format!("{REPO_VERSION}\n")),
        "text" => Answer::Text("text/plain", format!("ipfs version {KUBO_VERSION}\n")),
        "xml" => Answer::Text(
            "application/xml",
            format!(
                "<VersionInfo><Version>{}</Version><Commit></Commit><Repo>{}</Repo><System>{}</System><Golang>{}\
                 </Golang></VersionInfo>",
                version.version, version.repo, version.system, version.golang
            ),
        ),
        _ => Answer::one(&version),
    })
}

#[derive(Serialize)]
struct Id {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "PublicKey")]
    public_key: String,
    #[serde(rename = "Addresses")]
    addresses: Option<Vec<String>>,
    #[serde(rename = "AgentVersion")]
    agent_version: String,
    #[serde(rename = "Protocols")]
    protocols: Option<Vec<String>>,
}

/// `id`.
pub(super) async fn id(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let peer = core.keypair.public().to_peer_id();
    if let Some(other) = call.args.first()
        && *other != peer.to_base58()
    {
        return super::swarm::id_of(&core, other).await;
    }
    let public_key = core.keypair.public().encode_protobuf();
    let mut addresses: Vec<String> =
        core.addrs().into_iter().map(|addr| format!("{addr}/p2p/{peer}")).collect();
    addresses.sort();
    addresses.dedup();
    let mut protocols = core.protocols();
    protocols.sort();
    let id = Id {
        id: peer.to_base58(),
        public_key: base64::engine::general_purpose::STANDARD.encode(public_key),
        addresses: (!addresses.is_empty()).then_some(addresses),
        agent_version: format!("kubo/{KUBO_VERSION}"),
        protocols: (!protocols.is_empty()).then_some(protocols),
    };
    Ok(Answer::one(&id))
}

#[derive(Serialize)]
struct Path {
    #[serde(rename = "Path")]
    path: String,
}

/// `resolve`.
pub(super) async fn resolve(core: Arc<Core>, mut call: Call) -> Result<Answer, Failure> {
    let source = core.source(call.is_offline());
    let arg = call.take_args().await?.into_iter().next().unwrap_or_default();
    let resolved = path::resolve(&source, &path::parse(&arg)?).await?;
    Ok(Answer::one(&Path { path: resolved.to_path() }))
}

/// The configuration in Kubo's shape, as far as it is ours.
fn configuration(core: &Core) -> Value {
    let texts = |addrs: &[cluster_compat::types::Multiaddr]| -> Vec<String> {
        addrs.iter().map(ToString::to_string).collect()
    };
    let one = |addrs: &[cluster_compat::types::Multiaddr]| match addrs {
        [] => json!(""),
        [addr] => json!(addr.to_string()),
        addrs => json!(texts(addrs)),
    };
    let config = &core.config;
    json!({
        "API": {"HTTPHeaders": {}},
        "Addresses": {
            "API": one(&config.api_listen_multiaddress),
            "Announce": [],
            "AppendAnnounce": [],
            "Gateway": one(&config.gateway_listen_multiaddress),
            "NoAnnounce": [],
            "Swarm": texts(&config.swarm_listen_multiaddress),
        },
        "Bootstrap": texts(&config.bootstrap),
        "Datastore": {
            "GCPeriod": "1h",
            "HashOnRead": false,
            "Spec": {"path": "blocks", "type": "lmdb"},
            "StorageGCWatermark": 90,
            "StorageMax": storage_max(config.storage_max_bytes),
        },
        "Discovery": {"MDNS": {"Enabled": config.mdns}},
        "Experimental": {},
        "Gateway": {"NoFetch": false, "RootRedirect": ""},
        "Identity": {"PeerID": core.keypair.public().to_peer_id().to_base58()},
        "Pinning": {"RemoteServices": {}},
        "Routing": {"Type": "auto"},
        "Swarm": {},
    })
}

/// Kubo keeps a text with a unit; whole gigabytes and megabytes keep theirs.
fn storage_max(bytes: u64) -> String {
    for (unit, size) in [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)] {
        if bytes >= size && bytes.is_multiple_of(size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    format!("{bytes}B")
}

/// `config`: reads. The node is configured in `service.json`.
pub(super) async fn config(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let key = &call.args[0];
    if ["identity", "identity.privkey"].contains(&key.to_lowercase().as_str()) {
        return Err(Failure::new("cannot show or change private key through API"));
    }
    if call.args.len() > 1 {
        return Err(Failure::new(
            "this node is configured in service.json, section ipfs_connector.embedded; it is not changed through its API",
        ));
    }
    let all = configuration(&core);
    let mut place = &all;
    for part in key.split('.') {
        place = place.get(part).ok_or_else(|| {
            Failure::new(format!("failed to get config value: {}", quote(&format!("{key} not found"))))
        })?;
    }
    Ok(Answer::one(&json!({"Key": key, "Value": place})))
}

/// `config/show`.
pub(super) async fn config_show(core: Arc<Core>, _call: Call) -> Result<Answer, Failure> {
    Ok(Answer::one(&configuration(&core)))
}

/// `shutdown`.
pub(super) async fn shutdown(core: Arc<Core>, _call: Call) -> Result<Answer, Failure> {
    core.ask_to_stop()?;
    Ok(Answer::Text("text/plain", String::new()))
}

#[derive(Serialize, Default)]
struct Command {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Subcommands")]
    subcommands: Option<Vec<Command>>,
    #[serde(rename = "Options")]
    options: Option<Vec<CommandOption>>,
}

#[derive(Serialize)]
struct CommandOption {
    #[serde(rename = "Names")]
    names: Vec<&'static str>,
}

/// `commands`: the table itself.
pub(super) async fn commands(_core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let shows_options = call.is("flags");
    let options = |options: &'static [super::table::Opt]| {
        let list = options.iter().map(|option| CommandOption { names: option.names.to_vec() });
        shows_options.then(|| list.collect::<Vec<_>>())
    };
    let mut groups: BTreeMap<&str, Command> = BTreeMap::new();
    for endpoint in ENDPOINTS {
        let (group, name) = endpoint.path.split_once('/').unwrap_or((endpoint.path, ""));
        let command =
            groups.entry(group).or_insert_with(|| Command { name: group.to_owned(), ..Command::default() });
        if name.is_empty() {
            command.options = options(endpoint.options);
        } else {
            command.subcommands.get_or_insert_default().push(Command {
                name: name.to_owned(),
                options: options(endpoint.options),
                ..Command::default()
            });
        }
    }
    let root = Command {
        name: "ipfs".into(),
        subcommands: Some(groups.into_values().collect()),
        options: options(GLOBAL),
    };
    Ok(Answer::one(&root))
}
