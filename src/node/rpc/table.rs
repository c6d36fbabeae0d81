//! The endpoints: what each is called with, and who answers. `commands` and the dispatch read the same lines.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::super::Core;
use super::answer::{Answer, Failure};
use super::call::Call;
use super::{add, bitswap, block, car, dag, files, mfs, misc, name, pin, refs, repo, routing, swarm};

/// Answers a call.
type Run = fn(Arc<Core>, Call) -> BoxFuture<'static, Result<Answer, Failure>>;

/// One endpoint.
pub(super) struct Endpoint {
    /// Below `/api/v0/`.
    pub(super) path: &'static str,
    pub(super) args: &'static [Arg],
    pub(super) options: &'static [Opt],
    pub(super) run: Run,
}

/// What an argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ArgKind {
    Text,
    /// Text, or lines of the body.
    TextOrBody,
    File,
}

/// An argument.
pub(super) struct Arg {
    pub(super) name: &'static str,
    pub(super) required: bool,
    pub(super) kind: ArgKind,
}

/// What an option holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int,
    Int64,
    Uint,
    Text,
    Texts,
}

/// An option: all its names, the first of which counts, and its default.
pub(super) struct Opt {
    pub(super) names: &'static [&'static str],
    pub(super) kind: Kind,
    pub(super) default: &'static str,
}

const fn arg(name: &'static str) -> Arg {
    Arg { name, required: true, kind: ArgKind::Text }
}

const fn arg_or_body(name: &'static str) -> Arg {
    Arg { name, required: true, kind: ArgKind::TextOrBody }
}

const fn maybe(name: &'static str) -> Arg {
    Arg { name, required: false, kind: ArgKind::Text }
}

const fn file(name: &'static str) -> Arg {
    Arg { name, required: true, kind: ArgKind::File }
}

const fn bool(names: &'static [&'static str]) -> Opt {
    Opt { names, kind: Kind::Bool, default: "" }
}

const fn on(names: &'static [&'static str]) -> Opt {
    Opt { names, kind: Kind::Bool, default: "true" }
}

const fn text(names: &'static [&'static str], default: &'static str) -> Opt {
    Opt { names, kind: Kind::Text, default }
}

const fn int(names: &'static [&'static str], default: &'static str) -> Opt {
    Opt { names, kind: Kind::Int, default }
}

const fn int64(names: &'static [&'static str]) -> Opt {
    Opt { names, kind: Kind::Int64, default: "" }
}

const fn uint(names: &'static [&'static str]) -> Opt {
    Opt { names, kind: Kind::Uint, default: "" }
}

/// Options that every endpoint takes.
pub(super) const GLOBAL: &[Opt] = &[
    text(&["encoding", "enc"], ""),
    bool(&["stream-channels"]),
    text(&["timeout"], ""),
    text(&["cid-base"], ""),
    bool(&["upgrade-cidv0-in-output"]),
    bool(&["offline"]),
    text(&["api"], ""),
    text(&["repo-dir"], ""),
    text(&["config-file"], ""),
    text(&["config", "c"], ""),
    bool(&["debug", "D"]),
    bool(&["help"]),
    bool(&["h"]),
    bool(&["local", "L"]),
    text(&["api-auth"], ""),
];

const FLUSH: Opt = on(&["flush", "f"]);
const PARENTS: Opt = bool(&["parents", "p"]);
const CID_VERSION: Opt = int(&["cid-version", "cid-ver"], "");
const HASH: Opt = text(&["hash"], "");

const IPNS_BASE: Opt = text(&["ipns-base"], "");

const PROVIDE_ROOT: Opt = bool(&["fast-provide-root"]);
const PROVIDE_DAG: Opt = bool(&["fast-provide-dag"]);
const PROVIDE_WAIT: Opt = bool(&["fast-provide-wait"]);

macro_rules! endpoint {
    ($path:literal, [$($arg:expr),*], [$($option:expr),* $(,)?], $run:path) => {
        Endpoint { path: $path, args: &[$($arg),*], options: &[$($option),*], run: |core, call| $run(core, call).boxed() }
    };
}

/// All endpoints.
pub(super) const ENDPOINTS: &[Endpoint] = &[
    endpoint!(
        "add",
        [file("path")],
        [
            bool(&["recursive", "r"]),
            bool(&["quiet", "q"]),
            bool(&["quieter", "Q"]),
            bool(&["silent"]),
            bool(&["progress", "p"]),
            bool(&["trickle", "t"]),
            bool(&["only-hash", "n"]),
            bool(&["wrap-with-directory", "w"]),
            text(&["chunker", "s"], ""),
            bool(&["raw-leaves"]),
            bool(&["nocopy"]),
            bool(&["fscache"]),
            int(&["cid-version"], ""),
            text(&["hash"], ""),
            bool(&["inline"]),
            int(&["inline-limit"], ""),
            on(&["pin"]),
            text(&["pin-name"], ""),
            text(&["to-files"], ""),
            bool(&["preserve-mode"]),
            bool(&["preserve-mtime"]),
            uint(&["mode"]),
            int64(&["mtime"]),
            uint(&["mtime-nsecs"]),
            int(&["max-file-links"], ""),
            int(&["max-directory-links"], ""),
            int(&["max-hamt-fanout"], ""),
            bool(&["hidden", "H"]),
            bool(&["dereference-args"]),
            bool(&["dereference-symlinks"]),
            bool(&["include-empty-dirs", "E"]),
            PROVIDE_ROOT,
            PROVIDE_DAG,
            PROVIDE_WAIT,
        ],
        add::add
    ),
    endpoint!("bitswap/stat", [], [bool(&["verbose", "v"]), bool(&["human"])], bitswap::stat),
    endpoint!("bitswap/wantlist", [], [text(&["peer", "p"], "")], bitswap::wantlist),
    endpoint!("block/get", [arg_or_body("cid")], [], block::get),
    endpoint!(
        "block/put",
        [file("data")],
        [
            text(&["cid-codec"], "raw"),
            text(&["mhtype"], ""),
            int(&["mhlen"], "-1"),
            bool(&["pin"]),
            bool(&["allow-big-block"]),
            text(&["format", "f"], ""),
        ],
        block::put
    ),
    endpoint!("block/rm", [arg("cid")], [bool(&["force", "f"]), bool(&["quiet", "q"])], block::rm),
    endpoint!("block/stat", [arg_or_body("cid")], [], block::stat),
    endpoint!(
        "cat",
        [arg_or_body("ipfs-path")],
        [int64(&["offset", "o"]), int64(&["length", "l"]), on(&["progress", "p"]),],
        files::cat
    ),
    endpoint!("commands", [], [bool(&["flags", "f"])], misc::commands),
    endpoint!(
        "config",
        [arg("key"), maybe("value")],
        [bool(&["bool"]), bool(&["json"]), bool(&["expand-auto"]),],
        misc::config
    ),
    endpoint!("config/show", [], [bool(&["expand-auto"])], misc::config_show),
    endpoint!("dag/export", [arg("root")], [bool(&["progress", "p"]), bool(&["local-only"])], car::export),
    endpoint!("dag/get", [arg_or_body("ref")], [text(&["output-codec"], "dag-json")], dag::get),
    endpoint!(
        "dag/import",
        [file("path")],
        [
            bool(&["pin-roots"]),
            bool(&["local-only"]),
            bool(&["silent"]),
            bool(&["stats"]),
            bool(&["allow-big-block"]),
            PROVIDE_ROOT,
            PROVIDE_DAG,
            PROVIDE_WAIT,
        ],
        car::import
    ),
    endpoint!(
        "dag/put",
        [file("object data")],
        [
            text(&["store-codec"], "dag-cbor"),
            text(&["input-codec"], "dag-json"),
            bool(&["pin"]),
            text(&["hash"], ""),
            bool(&["allow-big-block"]),
        ],
        dag::put
    ),
    endpoint!("dag/resolve", [arg_or_body("ref")], [], dag::resolve),
    endpoint!("dag/stat", [arg_or_body("root")], [on(&["progress", "p"])], dag::stat),
    endpoint!(
        "get",
        [arg_or_body("ipfs-path")],
        [
            text(&["output", "o"], ""),
            bool(&["archive", "a"]),
            bool(&["compress", "C"]),
            int(&["compression-level", "l"], ""),
            on(&["progress", "p"]),
        ],
        files::get
    ),
    endpoint!("files/chcid", [arg("path")], [CID_VERSION, HASH, FLUSH], mfs::chcid),
    endpoint!("files/chmod", [arg("mode"), arg("path")], [FLUSH], mfs::chmod),
    endpoint!(
        "files/cp",
        [arg("source"), arg("dest")],
        [bool(&["force"]), PARENTS, CID_VERSION, HASH, FLUSH],
        mfs::cp
    ),
    endpoint!("files/flush", [maybe("path")], [FLUSH], mfs::flush),
    endpoint!("files/ls", [maybe("path")], [bool(&["long", "l"]), bool(&["U"]), FLUSH], mfs::ls),
    endpoint!("files/mkdir", [arg("path")], [PARENTS, CID_VERSION, HASH, FLUSH], mfs::mkdir),
    endpoint!("files/mv", [arg("source"), arg("dest")], [FLUSH], mfs::mv),
    endpoint!(
        "files/read",
        [arg("path")],
        [int64(&["offset", "o"]), int64(&["count", "n"]), FLUSH],
        mfs::read
    ),
    endpoint!("files/rm", [arg("path")], [bool(&["recursive", "r"]), bool(&["force"]), FLUSH], mfs::rm),
    endpoint!(
        "files/stat",
        [arg("path")],
        [text(&["format"], ""), bool(&["hash"]), bool(&["size"]), bool(&["with-local"]), FLUSH],
        mfs::stat
    ),
    endpoint!("files/touch", [arg("path")], [int64(&["mtime"]), uint(&["mtime-nsecs"]), FLUSH], mfs::touch),
    endpoint!(
        "files/write",
        [arg("path"), file("data")],
        [
            int64(&["offset", "o"]),
            bool(&["create", "e"]),
            PARENTS,
            bool(&["truncate", "t"]),
            int64(&["count", "n"]),
            bool(&["raw-leaves"]),
            CID_VERSION,
            HASH,
            FLUSH,
        ],
        mfs::write
    ),
    endpoint!("id", [maybe("peerid")], [text(&["format", "f"], ""), text(&["peerid-base"], "")], misc::id),
    endpoint!(
        "key/gen",
        [arg("name")],
        [text(&["type", "t"], "ed25519"), int(&["size", "s"], ""), IPNS_BASE],
        name::generate
    ),
    endpoint!(
        "key/import",
        [arg("name"), file("key")],
        [text(&["format", "f"], "libp2p-protobuf-cleartext"), bool(&["allow-any-key-type"]), IPNS_BASE],
        name::import
    ),
    endpoint!("key/list", [], [bool(&["l"]), IPNS_BASE], name::list),
    endpoint!("key/ls", [], [bool(&["l"]), IPNS_BASE], name::list),
    endpoint!("key/rename", [arg("name"), arg("newName")], [bool(&["force", "f"]), IPNS_BASE], name::rename),
    endpoint!("key/rm", [arg("name")], [bool(&["l"]), IPNS_BASE], name::remove),
    endpoint!(
        "ls",
        [arg_or_body("ipfs-path")],
        [
            bool(&["headers", "v"]),
            on(&["resolve-type"]),
            on(&["size"]),
            bool(&["stream", "s"]),
            bool(&["long", "l"]),
        ],
        files::ls
    ),
    endpoint!(
        "name/publish",
        [arg_or_body("ipfs-path")],
        [
            text(&["key", "k"], "self"),
            on(&["resolve"]),
            text(&["lifetime", "t"], ""),
            text(&["ttl"], ""),
            bool(&["quieter", "Q"]),
            on(&["v1compat"]),
            bool(&["allow-offline"]),
            int64(&["sequence"]),
            IPNS_BASE,
        ],
        name::publish
    ),
    endpoint!("name/pubsub/state", [], [], name::pubsub_state),
    endpoint!(
        "name/resolve",
        [maybe("name")],
        [
            on(&["recursive", "r"]),
            bool(&["nocache", "n"]),
            uint(&["dht-record-count", "dhtrc"]),
            text(&["dht-timeout", "dhtt"], ""),
            bool(&["stream", "s"]),
        ],
        name::resolve
    ),
    endpoint!(
        "pin/add",
        [arg_or_body("ipfs-path")],
        [
            on(&["recursive", "r"]),
            text(&["name", "n"], ""),
            bool(&["progress"]),
            PROVIDE_ROOT,
            PROVIDE_DAG,
            PROVIDE_WAIT,
        ],
        pin::add
    ),
    endpoint!(
        "pin/ls",
        [maybe("ipfs-path")],
        [
            text(&["type", "t"], "all"),
            bool(&["quiet", "q"]),
            text(&["name", "n"], ""),
            bool(&["stream", "s"]),
            bool(&["names"]),
        ],
        pin::ls
    ),
    endpoint!("pin/rm", [arg_or_body("ipfs-path")], [on(&["recursive", "r"])], pin::rm),
    endpoint!(
        "pin/update",
        [arg("from-path"), arg("to-path")],
        [on(&["unpin"]), PROVIDE_ROOT, PROVIDE_DAG, PROVIDE_WAIT,],
        pin::update
    ),
    endpoint!("pin/verify", [], [bool(&["verbose"]), bool(&["quiet", "q"])], pin::verify),
    endpoint!("ping", [arg_or_body("peer ID")], [int(&["count", "n"], "10")], swarm::ping),
    endpoint!(
        "refs",
        [arg_or_body("ipfs-path")],
        [
            text(&["format"], "<dst>"),
            bool(&["edges", "e"]),
            bool(&["unique", "u"]),
            bool(&["recursive", "r"]),
            int(&["max-depth"], "-1"),
        ],
        refs::refs
    ),
    endpoint!("refs/local", [], [], refs::local),
    endpoint!("repo/gc", [], [bool(&["stream-errors"]), bool(&["quiet", "q"]), bool(&["silent"])], repo::gc),
    endpoint!("repo/stat", [], [bool(&["size-only", "s"]), bool(&["human", "H"])], repo::stat),
    endpoint!(
        "repo/verify",
        [],
        [bool(&["drop"]), bool(&["heal"]), text(&["heal-timeout"], ""),],
        repo::verify
    ),
    endpoint!("repo/version", [], [bool(&["quiet", "q"])], repo::version),
    endpoint!(
        "resolve",
        [arg_or_body("name")],
        [
            on(&["recursive", "r"]),
            uint(&["dht-record-count", "dhtrc"]),
            text(&["dht-timeout", "dhtt"], ""),
            bool(&["stream", "s"]),
        ],
        misc::resolve
    ),
    endpoint!("routing/findpeer", [arg("peerID")], [bool(&["verbose", "v"])], routing::find_peer),
    endpoint!(
        "routing/findprovs",
        [arg("key")],
        [bool(&["verbose", "v"]), int(&["num-providers", "n"], "20")],
        routing::find_providers
    ),
    endpoint!(
        "routing/provide",
        [arg_or_body("key")],
        [bool(&["verbose", "v"]), bool(&["recursive", "r"])],
        routing::provide
    ),
    endpoint!("routing/reprovide", [], [], routing::reprovide),
    endpoint!("shutdown", [], [], misc::shutdown),
    endpoint!("stats/bitswap", [], [bool(&["verbose", "v"]), bool(&["human"])], bitswap::stat),
    endpoint!(
        "stats/bw",
        [],
        [
            text(&["peer", "p"], ""),
            text(&["proto", "t"], ""),
            bool(&["poll"]),
            text(&["interval", "i"], "1s"),
        ],
        bitswap::bandwidth
    ),
    endpoint!("swarm/addrs", [], [], swarm::addrs),
    endpoint!("swarm/addrs/listen", [], [], swarm::addrs_listen),
    endpoint!("swarm/addrs/local", [], [bool(&["id"])], swarm::addrs_local),
    endpoint!("swarm/connect", [arg_or_body("address")], [], swarm::connect),
    endpoint!("swarm/disconnect", [arg_or_body("address")], [], swarm::disconnect),
    endpoint!(
        "swarm/peers",
        [],
        [
            bool(&["verbose", "v"]),
            bool(&["streams"]),
            bool(&["latency"]),
            bool(&["direction"]),
            bool(&["identify"]),
        ],
        swarm::peers
    ),
    endpoint!(
        "version",
        [],
        [bool(&["number", "n"]), bool(&["commit"]), bool(&["repo"]), bool(&["all"]),],
        misc::version
    ),
];

/// The endpoint of a path, and its last segment where that is an argument.
pub(super) fn find(path: &str) -> Option<(&'static Endpoint, Option<&str>)> {
    let exact = |path: &str| ENDPOINTS.iter().find(|endpoint| endpoint.path == path);
    if let Some(endpoint) = exact(path) {
        return Some((endpoint, None));
    }
    let (path, arg) = path.rsplit_once('/')?;
    exact(path).map(|endpoint| (endpoint, Some(arg)))
}
