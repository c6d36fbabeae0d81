//! The commands and flags of ctl. Names, usages and defaults are those of the reference; descriptions are ours.

use cluster_compat::go::time::Duration;
use cluster_compat::types::DEFAULT_SHARD_SIZE;

use crate::cli::complete;
use crate::cli::table::{App, Command, Flag};

/// The version ctl says it is, and compares with.
const VERSION: &str = "1.1.6";

/// Where a peer listens unless told otherwise.
const DEFAULT_HOST: &str = "/ip4/127.0.0.1/tcp/9094";

const ABOUT: &str = "
ipfs-cluster-ctl talks to the REST API of a cluster peer and prints its answers,
for people or, with --encoding json, for programs.

The peer is expected at /ip4/127.0.0.1/tcp/9094. Use --host for another one, or
for several, comma-separated: the first that answers is used. A name that stands
for several addresses counts as several hosts.

\"ipfs-cluster-ctl help <command>\" tells more about a command.
";

const WAIT: &str = "Wait for the pin to reach the minimum replication factor before returning";
const WAIT_LIMIT: &str = "How many peers should reach the desired status to finish waiting";
const WAIT_TIMEOUT: &str = "How long to --wait (in seconds). Default: forever";
const ALLOCATIONS: &str = "Optional comma-separated list of peer IDs";
const METADATA: &str = "Pin metadata: key=value. Can be added multiple times";

/// The program.
pub(super) fn app() -> App {
    let mut app = App {
        name: "ipfs-cluster-ctl".to_owned(),
        usage: "CLI for IPFS Cluster".to_owned(),
        version: VERSION.into(),
        description: ABOUT,
        flags: globals(),
        commands: vec![
            command(
                "id",
                "",
                "Retrieve peer information",
                "\nShows who the contacted peer is: its addresses and its IPFS daemon.\n",
                vec![],
            ),
            group("peers", "List and manage IPFS Cluster peers", peers()),
            add(),
            group("pin", "Pin and unpin and list items in IPFS Cluster", pin()),
            status(),
            command(
                "recover",
                "[CID]",
                "Recover tracked items in error state",
                "
Tries again what failed: pinning or unpinning one CID, or, without an argument,
every CID that is in error. The answer shows where they stand then.

With --local, only the contacted peer tries again.
",
                vec![local()],
            ),
            command(
                "version",
                " ",
                "Retrieve cluster version",
                "\nShows the version of the contacted peer; that of this program is shown by -v.\n",
                vec![],
            ),
            group("health", "Cluster monitoring information", health()),
            group("ipfs", "Manage IPFS daemon", vec![gc()]),
            hidden(command("commands", " ", "List all commands", "", vec![])),
            // Commands of old releases, answered by what replaced them.
            hidden(command(
                "sync",
                "[CID]",
                "Use recover and status",
                "\nRecovers what is in error, then shows the status, of one CID or of all.\n",
                vec![local()],
            )),
            hidden(group(
                "member",
                "Use peers",
                vec![command("ls", " ", "Use peers ls", "\nThe same as \"peers ls\".\n", vec![])],
            )),
        ],
        needs_command: false,
    };
    app.commands.extend(complete::commands());
    app
}

fn command(
    name: &'static str,
    args_usage: &'static str,
    usage: &'static str,
    description: &'static str,
    flags: Vec<Flag>,
) -> Command {
    Command { name, usage, args_usage, description, flags, ..Command::default() }
}

fn group(name: &'static str, usage: &'static str, commands: Vec<Command>) -> Command {
    Command { name, usage, commands, ..Command::default() }
}

fn hidden(command: Command) -> Command {
    Command { hidden: true, ..command }
}

fn local() -> Flag {
    Flag::bool("local", "run operation only on the contacted peer")
}

fn globals() -> Vec<Flag> {
    vec![
        Flag::string("host, l", "API endpoint multiaddresses (comma-separated)", DEFAULT_HOST),
        Flag::string(
            "secret",
            "cluster secret (32 byte pnet-key) as needed. Only when using the LibP2P endpoint",
            "",
        ),
        Flag::bool("https, s", "use https to connect to the API"),
        Flag::bool(
            "no-check-certificate",
            "do not verify server TLS certificate. only valid with --https flag",
        ),
        Flag::string("encoding, enc", "output format encoding [text, json]", "text"),
        Flag::int("timeout, t", "number of seconds to wait before timing out a request", 0),
        Flag::bool("debug, d", "set debug log level"),
        Flag::string(
            "basic-auth",
            "<username>[:<password>] specify BasicAuth credentials for server that
requires authorization. implies --https, which you can disable with --force-http",
            "",
        )
        .env("CLUSTER_CREDENTIALS"),
        Flag::bool("force-http, f", "force HTTP. only valid when using BasicAuth"),
    ]
}

fn peers() -> Vec<Command> {
    vec![
        command(
            "ls",
            " ",
            "list the nodes participating in the IPFS Cluster",
            "\nShows every member of the cluster as \"id\" shows the contacted one.\n",
            vec![],
        ),
        command(
            "rm",
            "<peer ID>",
            "remove a peer from the Cluster",
            "
Takes a peer out of the cluster (raft only). It stops by itself if it is running.
The other peers should be running, so that all learn about it.
",
            vec![],
        ),
    ]
}

fn add() -> Command {
    command(
        "add",
        "<path>",
        "Add a file or directory to ipfs and pin it in the cluster",
        "
Sends files and folders of this machine, or the content of web addresses, to the
peer, which cuts them into blocks, writes the blocks to the IPFS daemons chosen
for the pin, and pins the result. Options of the DAG are those of \"ipfs add\".
Several paths are wrapped in a directory. The path - is standard input.

All chosen daemons get the blocks while they are sent; with --local only the
contacted peer's daemon does, which is faster, and the others fetch them later.

With --format car the blocks of a CAR file are imported as they are, and its roots
pinned.

With --shard the blocks are spread over shards, each pinned on peers of its own.

Replication factors: -1 is every peer, 0 what the cluster is configured for.
",
        vec![
            Flag::bool("recursive, r", "Add directory paths recursively"),
            Flag::bool("quiet, q", "Write only hashes to output (one per line)"),
            Flag::bool("quieter, Q", "Write only final hash to output"),
            Flag::bool("no-stream", "Buffer output locally. Produces a valid JSON array with --enc=json."),
            Flag::bool("local", "Add to local peer but pin normally"),
            Flag::string("name, n", "Sets a name for this pin", ""),
            Flag::int(
                "replication-min, rmin",
                "Sets the minimum replication factor for pinning this file",
                0,
            ),
            Flag::int(
                "replication-max, rmax",
                "Sets the maximum replication factor for pinning this file",
                0,
            ),
            Flag::string("expire-in", "Duration after which the pin should be unpinned automatically", ""),
            Flag::list("metadata", METADATA),
            Flag::string("allocations, allocs", ALLOCATIONS, ""),
            Flag::bool("no-pin", "Do not pin after adding"),
            Flag::bool("wait", WAIT),
            Flag::duration("wait-timeout, wt", WAIT_TIMEOUT, Duration::ZERO),
            Flag::bool("wrap-with-directory, w", "Wrap a with a directory object"),
            Flag::string("format", "'unixfs' (add as unixfs DAG), 'car' (import CAR file)", "unixfs"),
            Flag::string("layout", "Dag layout to use for dag generation: balanced or trickle", ""),
            Flag::bool("hidden, H", "Include files that are hidden.  Only takes effect on recursive add"),
            Flag::string("chunker, s", "'size-<size>' or 'rabin-<min>-<avg>-<max>'", "size-262144"),
            Flag::bool("raw-leaves", "Use raw blocks for leaves (experimental)"),
            Flag::int("cid-version", "CID version. Non default implies raw-leaves", 0),
            Flag::string("hash", "Hash function to use. Implies cid-version=1", "sha2-256"),
            Flag::bool("nocopy", "Add the URL using filestore. Implies raw-leaves. (experimental)"),
            Flag::bool("progress, p", "Show on standard error how much has been sent"),
            Flag::string("stdin-name", "Name of what is read from standard input (path -)", ""),
            Flag::bool("shard", "Spread the content over shards, each allocated on its own (experimental)"),
            Flag::int("shard-size", "Most bytes of a shard", DEFAULT_SHARD_SIZE as i64),
        ],
    )
}

fn waiting(no_status: &'static str) -> [Flag; 4] {
    [
        Flag::bool("no-status, ns", no_status),
        Flag::bool("wait, w", WAIT),
        Flag::int("wait-limit, wl", WAIT_LIMIT, 0),
        Flag::duration("wait-timeout, wt", WAIT_TIMEOUT, Duration::ZERO),
    ]
}

fn pin() -> Vec<Command> {
    let mut add = vec![
        Flag::int("replication, r", "Sets a custom replication factor (overrides -rmax and -rmin)", 0),
        Flag::int("replication-min, rmin", "Sets the minimum replication factor for this pin", 0),
        Flag::int("replication-max, rmax", "Sets the maximum replication factor for this pin", 0),
        Flag::string("allocations, allocs", ALLOCATIONS, ""),
        Flag::string("name, n", "Sets a name for this pin", ""),
        Flag::string("mode", "Select a way to pin: recursive or direct", "recursive"),
        Flag::string("expire-in", "Duration after which pin should be unpinned automatically", ""),
        Flag::list("metadata", METADATA),
    ];
    add.extend(waiting("Prevents fetching pin status after pinning (faster, quieter)"));
    let mut update = vec![
        Flag::string("name, n", "Sets a name for this updated pin", ""),
        Flag::string(
            "expire-in",
            "Duration after which the pin should be unpinned automatically after updating",
            "",
        ),
    ];
    update.extend(waiting("Prevents fetching pin status after updating (faster, quieter)"));
    vec![
        command(
            "add",
            "<CID|Path>",
            "Pin an item in the cluster",
            "
Puts a CID, or what a path leads to, into the pinset. The answer is its status a
moment later; the daemons that were chosen go on pinning it.

Replication factors: -1 is every peer, 0 what the cluster is configured for. Peers
named with --allocations are preferred to others within those factors.
",
            add,
        ),
        command(
            "rm",
            "<CID|Path>",
            "Unpin an item from the cluster",
            "
Takes a CID, or what a path leads to, out of the pinset, and so out of the daemons
that hold it. It is gone from \"pin ls\" at once, from the daemons soon after.
",
            waiting("Prevents fetching pin status after unpinning (faster, quieter)").into(),
        ),
        command(
            "update",
            "<existing-CID> <new-CID|Path>",
            "Pin a new item based on an existing one",
            "
Adds a pin with the options and on the peers of an existing one. Daemons use their
own \"pin update\", which is fast where both have content in common.

The existing pin stays; remove it with \"pin rm\".
",
            update,
        ),
        command(
            "ls",
            "[CID]",
            "List items in the cluster pinset",
            "
Lists the pinset: which CIDs the cluster holds, on which peers, with which options.
Where they stand in the daemons is shown by \"status\".

Types for --filter, without effect on a single CID:
  - all (default)
  - pin (recursive and direct)
  - meta-pin (roots of sharded adds)
  - clusterdag-pin (their indexes)
  - shard-pin (their shards)
",
            vec![Flag::string("filter", "Comma separated list of pin types. See help above.", "all")],
        ),
    ]
}

fn status() -> Command {
    command(
        "status",
        "[CID1] [CID2]...",
        "Retrieve the status of tracked items",
        "
Shows where CIDs stand on each peer: those given, or all. With --local only the
contacted peer is asked.

With --filter, items are shown that have one of these statuses on some peer:

  - cluster_error
  - error
  - pin_error
  - pin_queued
  - pinned
  - pinning
  - queued
  - remote
  - sharded
  - unexpectedly_unpinned
  - unpin_error
  - unpin_queued
  - unpinned
  - unpinning
",
        vec![local(), Flag::string("filter", "comma-separated list of filters", "")],
    )
}

fn health() -> Vec<Command> {
    vec![
        command(
            "graph",
            "",
            "create a graph displaying connectivity of cluster peers",
            "\nWrites who is connected to whom, peers and daemons, in the DOT language.\n",
            vec![
                Flag::string("file, f", "sets an output dot-file for the connectivity graph", ""),
                Flag::bool(
                    "all-ipfs-peers",
                    "causes the graph to mark nodes for ipfs peers not directly in the cluster",
                ),
            ],
        ),
        command(
            "metrics",
            "<metric name>",
            "List latest metrics logged by this peer",
            "
Shows the latest valid metric of this name that the contacted peer has from each
member; without a name, which metrics there are: usually freespace, pinqueue, ping
and tag:group.
",
            vec![],
        ),
        command(
            "alerts",
            "",
            "List the latest expired metric alerts",
            "
Shows the metrics that expired without a new one in their place, newest first. A
lost ping can make the cluster pin content elsewhere.
",
            vec![],
        ),
        command(
            "bandwidth",
            "",
            "Lists bandwidth stats for libp2p protocols",
            "\nShows bytes and rates, by libp2p protocol, of the contacted peer.\n",
            vec![],
        ),
    ]
}

fn gc() -> Command {
    command(
        "gc",
        "",
        "run garbage collection on IPFS repos of cluster peers",
        "\nCollects garbage in the repositories of all daemons, or of the contacted peer's (--local).\n",
        vec![local()],
    )
}
