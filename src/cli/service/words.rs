//! Paragraphs of the help pages.

pub(super) const APP: &str = "
A peer keeps a pinset together with the other peers of its cluster, and sees to
it that the IPFS daemon beside it pins what is its share. It serves a REST API
for ipfs-cluster-ctl and other clients, and an IPFS Proxy that looks like the
daemon's own API and pins in the cluster.

A peer needs two files, which \"init\" makes: service.json, the configuration,
and identity.json, its key. They lie in ~/.ipfs-cluster unless --config or
IPFS_CLUSTER_PATH name another folder.

EXAMPLES:

Make a configuration, then run the peer:

$ ipfs-cluster-service init
$ ipfs-cluster-service daemon

Both at once, with an IPFS node in the same process:

$ ipfs-cluster-service daemon --init --embedded

Run it and join the cluster of another peer:

$ ipfs-cluster-service daemon --bootstrap /ip4/192.168.1.2/tcp/9096/p2p/<peer id>

Log levels are set for all components or for single ones:

$ ipfs-cluster-service --loglevel info,cluster:debug,pintracker:debug daemon
";

pub(super) const INIT: &str = "
Writes a new service.json and, unless there is one, a new identity.json.

With a URL, service.json only points to it, and the daemon fetches its
configuration from there at every start. Without, it holds the defaults, a new
cluster secret, and the values of CLUSTER_* variables. With --custom-secret the
secret is asked for.

An existing configuration is replaced after confirmation or with --force; an
identity never is: remove identity.json for a new one.

With --peers, the peerstore file gets these addresses, and their peers become
the \"trusted_peers\" of \"crdt\" or the \"init_peerset\" of \"raft\".

A service.json of versions 0.0.x, which had no sections, is carried over with
--convert, or where the question is answered with yes; the old file is kept.

Data is kept in LMDB whichever datastore is chosen; the sections of the others
are written for peers of the original implementation.
";

pub(super) const EXPORT: &str = "
Writes the pinset of this peer as JSON, one pin per line, to standard output or
to a file: for backups and for moving pins to another peer.
";

pub(super) const IMPORT: &str = "
Replaces the pinset of this peer by the pins of a file that \"export\" made, or
of standard input where no file is named. Everything is read and checked before
the old pinset is touched.
";

pub(super) const CLEANUP: &str = "
Removes the pinset and everything else the consensus keeps on this peer, so that
its next start is like its first. Configuration, identity and peerstore stay.
";

pub(super) const NODE: &str = "
Runs the IPFS node that a peer has in its own process with \"--embedded\", and
nothing else: a small IPFS daemon that speaks Kubo's RPC. It is configured by
section ipfs_connector.embedded of service.json, where there is one, and by the
variables CLUSTER_EMBEDDED_...; its RPC is on the socket node-socket in the
configuration folder, and where api_listen_multiaddress says so.
";

pub(super) const DEMO: &str = "
Starts a cluster on this machine, in this process: several peers, each with its
own IPFS node, REST API, IPFS proxy, pinning service and gateway, all on free
ports of 127.0.0.1. Prints the addresses, then a table of what the peers do.
Everything is stored in a temporary folder, which is removed at the end.
";
