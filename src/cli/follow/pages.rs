//! Help pages of the follower, as urfave/cli v2 lays them out: descriptions are indented, `--help` is always listed.

use crate::cli::help::{aligned, commands, options};
use crate::cli::table::{App, Command, Flag};

/// Which page.
pub(super) enum Page<'a> {
    /// Of the program without a cluster.
    Program(&'a App),
    /// Of a cluster.
    Cluster(&'a App),
    /// Of a cluster's command.
    Command(&'a App, &'a Command),
}

/// A page that was asked for.
pub(super) fn page(page: &Page<'_>) -> String {
    match page {
        Page::Program(app) => program(app),
        Page::Cluster(app) => cluster(app, "OPTIONS"),
        Page::Command(app, command) => leaf(app, command, false),
    }
}

/// The same page as it follows a mistake, where a few titles differ.
pub(super) fn after_mistake(page: &Page<'_>) -> String {
    match page {
        Page::Program(app) => program(app),
        Page::Cluster(app) => cluster(app, "GLOBAL OPTIONS"),
        Page::Command(app, command) => leaf(app, command, true),
    }
}

fn program(app: &App) -> String {
    let own = [Flag::bool("help, h", "show help"), Flag::bool("version, v", "print the version")];
    format!(
        "NAME:\n   {} - {}\n\nUSAGE:\n   {} [global options] <clusterName> [subcommand]...\n\nVERSION:\n   {}\n\n\
         {}COMMANDS:\n{}\nGLOBAL OPTIONS:\n{}",
        app.name,
        app.usage,
        app.name,
        app.version,
        described(app.description),
        aligned(&commands(&[], true)),
        aligned(&options(app.flags.iter().chain(&own)))
    )
}

fn cluster(app: &App, title: &str) -> String {
    format!(
        "NAME:\n   {} - {}\n\nUSAGE:\n   {} [subcommand]\n\nCOMMANDS:\n{}\n{title}:\n{}",
        app.name,
        app.usage,
        app.name,
        aligned(&commands(&app.commands, true)),
        aligned(&options([Flag::bool("help, h", "show help")].iter()))
    )
}

fn leaf(app: &App, command: &Command, with_help: bool) -> String {
    let name = format!("{} {}", app.name, command.name);
    let usage = format!("{name} [command options] {}", command.args_usage);
    let help =
        if with_help { format!("COMMANDS:\n{}\n", aligned(&commands(&[], true))) } else { String::new() };
    let own = [Flag::bool("help, h", "show help")];
    format!(
        "NAME:\n   {name} - {}\n\nUSAGE:\n   {}\n\n{}{help}OPTIONS:\n{}",
        command.usage,
        usage.trim_end(),
        described(command.description),
        aligned(&options(command.flags.iter().chain(&own)))
    )
}

/// A description with every line indented.
fn described(text: &str) -> String {
    let mut page = String::from("DESCRIPTION:\n");
    for line in text.trim_matches('\n').lines() {
        page.push_str(format!("   {line}").trim_end());
        page.push('\n');
    }
    page.push('\n');
    page
}

pub(super) const PROGRAM: &str = "
Runs peers that follow clusters of others: such a peer helps to hold the pins of
a cluster, and has no say in what they are. It takes changes of the pinset from
the cluster's trusted peers only, refuses to make any, and neither sees nor does
anything on other peers.

Any number of clusters can be followed. Each has a name, which you choose, and a
folder of that name in ~/.ipfs-cluster-follow with its configuration, its
identity and its data. The configuration comes from a URL that the owners of the
cluster tell, and is fetched anew at every start.

EXAMPLES:

Which clusters are followed here:

$ ipfs-cluster-follow

Begin to follow one:

$ ipfs-cluster-follow <clusterName> run --init <template_URL>

The same in two steps:

$ ipfs-cluster-follow <clusterName> init <template_URL>
$ ipfs-cluster-follow <clusterName> run

What is known about its peer, and its pins:

$ ipfs-cluster-follow <clusterName> info
$ ipfs-cluster-follow <clusterName> list

More about a command:

$ ipfs-cluster-follow <clusterName> <command> --help
";

pub(super) const INFO: &str = "
Shows where this follower peer has its files and its configuration from, and
whether the peer and its IPFS daemon are running.
";

pub(super) const INIT: &str = "
Makes a new identity for this follower peer, and a configuration that points to
the given URL. A name without http:// or https:// is a DNSLink or IPNS name, or
a path that begins with /ipfs/ or /ipns/, looked up through an IPFS gateway: the
local daemon's, or the one that IPFS_GATEWAY says.

Where there is a folder of this cluster already, nothing is done: remove it to
begin anew.
";

pub(super) const RUN: &str = "
Runs this follower peer until it is stopped. It needs to be initialized, before
or with --init, and an IPFS daemon: a running one, or with --embedded one of its
own. Its REST API, on the socket api-socket in its folder, can be asked with

$ ipfs-cluster-ctl --host /unix/<folder>/api-socket
";

pub(super) const LIST: &str = "
Lists the pins of this follower peer. Those of a running peer come with their
status, those of a stopped one are read from its disk.
";
