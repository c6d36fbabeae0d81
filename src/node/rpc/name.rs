//! `key/*` and `name/*`. (Go: kubo `core/commands/{keystore.go,name}`, their words)

use std::sync::Arc;
use std::time::Duration;

use cluster_compat::api::{EntryKind, Upload as _};
use cluster_compat::go::time::Duration as GoDuration;
use cluster_compat::types::PeerId;
use futures::stream;
use libp2p::identity::Keypair;
use multibase::Base;
use serde::Serialize;

use super::super::names::{self, Publishing, SELF};
use super::super::{Core, ipns, path};
use super::answer::{Answer, Failure};
use super::call::{Call, base};

/// Largest file that a key is read from.
const MAX_KEY_BYTES: usize = 16 << 10;

#[derive(Serialize)]
struct Key {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Id")]
    id: String,
}

#[derive(Serialize)]
struct Keys {
    #[serde(rename = "Keys")]
    keys: Vec<Key>,
}

#[derive(Serialize)]
struct Renamed {
    #[serde(rename = "Was")]
    was: String,
    #[serde(rename = "Now")]
    now: String,
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "Overwrite")]
    overwrite: bool,
}

/// How names are written: `b58mh` or a multibase. (Go: kubo `keyencode`)
fn written(how: &str, peer: &PeerId) -> Result<String, Failure> {
    let cid = ipns::name_cid(peer);
    Ok(match how {
        "" => multibase::encode(Base::Base36Lower, cid.to_bytes()),
        "b58mh" | "v0" => peer.to_base58(),
        name => {
            let base =
                base(name).ok_or_else(|| Failure::new(format!("unsupported multibase encoding: {name}")))?;
            multibase::encode(base, cid.to_bytes())
        }
    })
}

fn key_row(call: &Call, name: String, key: &Keypair) -> Result<Key, Failure> {
    Ok(Key { name, id: written(call.text("ipns-base"), &key.public().to_peer_id())? })
}

fn rows(call: &Call, keys: Vec<(String, Keypair)>) -> Result<Answer, Failure> {
    let keys = keys.into_iter().map(|(name, key)| key_row(call, name, &key)).collect::<Result<_, _>>()?;
    Ok(Answer::one(&Keys { keys }))
}

/// `key/gen`.
pub(super) async fn generate(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let name = call.args[0].clone();
    if name == SELF {
        return Err(Failure::new("cannot create key with name 'self'"));
    }
    // before anything is written
    written(call.text("ipns-base"), &core.keypair.public().to_peer_id())?;
    let key = match call.text("type") {
        "ed25519" => Keypair::generate_ed25519(),
        "rsa" => return Err(Failure::new("this node makes no RSA keys; use ed25519, or import the key")),
        other => return Err(Failure::new(format!("unrecognized key type: {other}"))),
    };
    core.names.store(&name, &key).await?;
    Ok(Answer::one(&key_row(&call, name, &key)?))
}

/// `key/list`.
pub(super) async fn list(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    rows(&call, core.names.all().await?)
}

/// `key/rename`.
pub(super) async fn rename(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let (was, now) = (call.args[0].clone(), call.args[1].clone());
    let (key, overwrite) = core.names.rename(&was, &now, call.is("force")).await?;
    let id = written(call.text("ipns-base"), &key.public().to_peer_id())?;
    Ok(Answer::one(&Renamed { was, now, id, overwrite }))
}

/// `key/rm`.
pub(super) async fn remove(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let keys = core.names.remove(&call.args).await?;
    rows(&call, keys)
}

/// `key/import`.
pub(super) async fn import(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let name = call.args[0].clone();
    if name == SELF {
        return Err(Failure::new("cannot import key with name 'self'"));
    }
    let (format, wanted) = (call.text("format").to_owned(), "libp2p-protobuf-cleartext");
    if format != wanted {
        return Err(Failure::new(format!("unrecognized import format: {format}; this node reads {wanted}")));
    }
    written(call.text("ipns-base"), &core.keypair.public().to_peer_id())?;
    let bases = call.text("ipns-base").to_owned();
    let mut files = call.files()?;
    let failed = |cause: cluster_compat::api::Error| Failure::new(cause.message);
    let mut bytes = Vec::new();
    while let Some(entry) = files.next_entry().await.map_err(failed)? {
        if entry.kind != EntryKind::File {
            continue;
        }
        while let Some(piece) = files.read().await.map_err(failed)? {
            bytes.extend_from_slice(&piece);
            if bytes.len() > MAX_KEY_BYTES {
                return Err(Failure::new(format!("a key has at most {MAX_KEY_BYTES} bytes")));
            }
        }
        break;
    }
    let key = names::parse(&bytes);
    let key = key.map_err(|cause| Failure::new(format!("unable to unmarshall format={wanted}: {cause}")))?;
    core.names.store(&name, &key).await?;
    let id = written(&bases, &key.public().to_peer_id())?;
    Ok(Answer::one(&Key { name, id }))
}

#[derive(Serialize)]
struct Published {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Value")]
    value: String,
}

/// `name/publish`.
pub(super) async fn publish(core: Arc<Core>, mut call: Call) -> Result<Answer, Failure> {
    let time = |name: &str, default: Duration| match call.text(name) {
        "" => Ok(default),
        text => GoDuration::parse(text).map(GoDuration::to_std).map_err(|cause| cause.to_string()),
    };
    let lifetime = time("lifetime", names::LIFETIME)
        .map_err(|cause| Failure::new(format!("error parsing lifetime option: {cause}")))?;
    let ttl = time("ttl", names::TTL).map_err(Failure::new)?;
    let sequence = call.number("sequence").and_then(|number| u64::try_from(number).ok());
    let (source, checks) = (core.source(call.is_offline()), call.is("resolve"));
    let (key, may_stay_here) = (call.text("key").to_owned(), call.is("allow-offline"));
    let arg = call.take_args().await?.into_iter().next().unwrap_or_default();
    let parsed = path::parse(&arg)?;
    if checks {
        let resolved = path::resolve(&source, &parsed).await?;
        source.block(resolved.cid).await?;
    }
    let value = parsed.to_string();
    let key = core.names.key_of(if key.is_empty() { SELF } else { &key }).await?;
    let args = Publishing { value: value.clone(), lifetime, ttl, sequence, may_stay_here };
    core.names.publish(&key, args).await?;
    let name = written("", &key.public().to_peer_id())?;
    Ok(Answer::one(&Published { name, value }))
}

#[derive(Serialize)]
struct Path {
    #[serde(rename = "Path")]
    path: String,
}

/// `name/resolve`.
pub(super) async fn resolve(core: Arc<Core>, call: Call) -> Result<Answer, Failure> {
    let own = || core.keypair.public().to_peer_id().to_base58();
    let arg = call.args.first().cloned().unwrap_or_else(own);
    let arg = arg.strip_prefix("/ipns/").unwrap_or(&arg);
    let (name, rest) =
        arg.split_once('/').map_or((arg, String::new()), |(name, rest)| (name, format!("/{rest}")));
    let found = match call.is("recursive") {
        true => core.names.resolve(name, call.is_offline()).await,
        false => core.names.step(name, call.is_offline()).await,
    };
    if !call.is("stream") {
        return Ok(Answer::one(&Path { path: found? + &rest }));
    }
    // a stream has what was found, and nothing where there was nothing
    let rows: Vec<Result<Path, Failure>> =
        found.into_iter().map(|path| Ok(Path { path: path + &rest })).collect();
    Ok(Answer::many(stream::iter(rows)))
}

#[derive(Serialize)]
struct PubsubState {
    #[serde(rename = "Enabled")]
    enabled: bool,
}

/// `name/pubsub/state`: names do not go by pubsub here.
pub(super) async fn pubsub_state(_: Arc<Core>, _: Call) -> Result<Answer, Failure> {
    Ok(Answer::one(&PubsubState { enabled: false }))
}
