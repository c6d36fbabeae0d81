//! The command line of the follower: a program of its own for each cluster, `ipfs-cluster-follow NAME …`.
//!
//! Unlike service and ctl, flags stand before positional words at every level, and any word that is no command is
//! `info`. (Go: urfave/cli v2)

use std::ffi::OsString;
use std::path::Path;

use super::pages::{self, Page};
use crate::cli::service::VERSION;
use crate::cli::table::{App, Command, Done, Flag, Stop, Values, apply_env, no_topic, parse_flags, printed};
use crate::cli::{complete, man};

/// The program's name.
pub(super) const NAME: &str = "ipfs-cluster-follow";

/// Where names are looked up that are no URLs. (Go: `DefaultGateway`)
pub(super) const DEFAULT_GATEWAY: &str = "127.0.0.1:8080";

/// Prints the names of the clusters, for completions.
const LISTER: &str = "ipfs-cluster-follow 2>/dev/null | sed -n 's/^ipfs-cluster-follow \"\\(.*\\)\"$/\\1/p'";

/// A command line that asks for something to be done.
#[derive(Debug)]
pub(super) struct Request {
    /// `--config`: the folder of all clusters.
    pub(super) folder: String,
    /// What to do.
    pub(super) what: What,
}

/// What can be asked for.
#[derive(Debug)]
pub(super) enum What {
    /// Which clusters there are.
    Clusters,
    /// A command of one cluster.
    Cluster {
        /// The cluster's name, also that of its folder.
        name: String,
        /// `info`, `init`, `run` or `list`.
        command: &'static str,
        /// The flags of the command.
        flags: Values,
        /// Everything else.
        args: Vec<OsString>,
    },
}

/// Tells what a command line means. `args` come without the program's name; `home` is the default folder.
pub(super) fn parse(
    home: &Path,
    args: Vec<OsString>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Request, Done> {
    let program = program(home);
    let mut globals = Values::defaults(&program.flags);
    let stopped = |stop| stopped(stop, &Page::Program(&program));
    apply_env(&program.flags, &mut globals, env).map_err(stopped)?;
    let mut own = program.flags.clone();
    own.push(Flag::bool("version, v", ""));
    globals.declare("version");
    let mut rest = parse_flags(&own, &mut globals, args, false).map_err(stopped)?;
    if globals.bool("man") {
        let program = self::program(Path::new("~/.ipfs-cluster-follow"));
        return Err(printed(man::page_of_named(&program, &cluster("<clusterName>"))));
    }
    if globals.is_set("completion") {
        let levels = complete::levels_of_named(&program, &cluster("<clusterName>"), LISTER);
        return Err(match complete::script(NAME, &levels, globals.string("completion")) {
            Ok(script) => printed(script),
            Err(failure) => {
                Done { stderr: format!("{}\n", failure.line), code: failure.code, ..Done::default() }
            }
        });
    }
    if globals.bool("version") {
        return Err(printed(format!("{NAME} version {VERSION}\n")));
    }
    let folder = globals.string("config").to_owned();
    if rest.is_empty() {
        return Ok(Request { folder, what: What::Clusters });
    }
    let name = rest.remove(0).to_string_lossy().into_owned();
    if is_help(&name) {
        return Err(match rest.first() {
            Some(topic) => no_topic(&topic.to_string_lossy()),
            None => printed(pages::page(&Page::Program(&program))),
        });
    }
    Ok(Request { folder, what: parse_cluster(name, rest, env)? })
}

/// What stands after the name of a cluster.
fn parse_cluster(
    name: String,
    args: Vec<OsString>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<What, Done> {
    let app = cluster(&name);
    let rest = parse_flags(&[], &mut Values::default(), args, false)
        .map_err(|stop| stopped(stop, &Page::Cluster(&app)))?;
    let mut rest = rest.into_iter();
    let word = rest.next().unwrap_or_default().to_string_lossy().into_owned();
    let find = |word: &str| app.commands.iter().find(|command| command.name == word);
    if is_help(&word) {
        let topic = rest.next().map(|topic| topic.to_string_lossy().into_owned());
        return Err(match topic.as_deref().map(|topic| (topic, find(topic))) {
            None => printed(pages::page(&Page::Cluster(&app))),
            Some((_, Some(command))) => printed(pages::page(&Page::Command(&app, command))),
            Some((topic, None)) => no_topic(topic),
        });
    }
    let Some(command) = find(&word) else {
        return Ok(What::Cluster { name, command: "info", flags: Values::default(), args: Vec::new() });
    };
    let page = Page::Command(&app, command);
    let mut flags = Values::defaults(&command.flags);
    apply_env(&command.flags, &mut flags, env).map_err(|stop| stopped(stop, &page))?;
    let args = parse_flags(&command.flags, &mut flags, rest.collect(), false)
        .map_err(|stop| stopped(stop, &page))?;
    if args.first().is_some_and(|word| is_help(&word.to_string_lossy())) {
        return Err(printed(pages::page(&page)));
    }
    Ok(What::Cluster { name, command: command.name, flags, args })
}

fn is_help(word: &str) -> bool {
    matches!(word, "help" | "h")
}

fn stopped(stop: Stop, page: &Page<'_>) -> Done {
    match stop {
        Stop::Help => printed(pages::page(page)),
        Stop::Usage(reason) | Stop::TwoForms(reason) => {
            let stdout = format!("Incorrect Usage: {reason}\n\n{}", pages::after_mistake(page));
            Done { stdout, code: 1, ..Done::default() }
        }
    }
}

/// The program without a cluster.
fn program(home: &Path) -> App {
    App {
        name: NAME.to_owned(),
        usage: "IPFS Cluster Follower".to_owned(),
        version: VERSION.to_owned(),
        description: pages::PROGRAM,
        flags: vec![
            Flag::string(
                "config, c",
                "path to the followers configuration and data `FOLDER`",
                home.to_string_lossy(),
            )
            .env("IPFS_CLUSTER_PATH"),
            // flags, as any first word can be the name of a cluster
            Flag::string("completion", "print a completion script for bash, zsh or fish", "").hidden(),
            Flag::bool("man", "print the manual page").hidden(),
        ],
        ..App::default()
    }
}

/// The commands of one cluster.
fn cluster(name: &str) -> App {
    let gateway = || Flag::string("gateway", "gateway URL", DEFAULT_GATEWAY).env("IPFS_GATEWAY").hidden();
    App {
        name: format!("{NAME} {name}"),
        usage: format!("Follower peer management for \"{name}\""),
        version: VERSION.to_owned(),
        commands: vec![
            Command {
                name: "info",
                usage: "displays information for this peer",
                description: pages::INFO,
                ..Command::default()
            },
            Command {
                name: "init",
                usage: "initializes the follower peer",
                args_usage: "<template_URL>",
                description: pages::INIT,
                flags: vec![gateway()],
                ..Command::default()
            },
            Command {
                name: "run",
                usage: "runs the follower peer",
                description: pages::RUN,
                flags: vec![
                    Flag::string("init", "initialize cluster peer with the given URL before running", ""),
                    Flag::bool("embedded", "run an IPFS node in the peer's own process: no Kubo is needed"),
                    Flag::bool(
                        "start-empty",
                        "start with an empty pinset beside the data of an original peer, which is not read",
                    )
                    .hidden(),
                    gateway(),
                ],
                ..Command::default()
            },
            Command {
                name: "list",
                usage: "list items in the peers' pinset",
                description: pages::LIST,
                ..Command::default()
            },
        ],
        ..App::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Request, Done> {
        let env = |name: &str| (name == "IPFS_GATEWAY").then(|| "http://gw".to_owned());
        parse(Path::new("/home"), line.split_whitespace().map(OsString::from).collect(), &env)
    }

    fn command(line: &str) -> (String, &'static str, Values, Vec<OsString>) {
        match parsed(line).unwrap().what {
            What::Cluster { name, command, flags, args } => (name, command, flags, args),
            What::Clusters => panic!("{line}: no cluster"),
        }
    }

    fn done(line: &str) -> Done {
        parsed(line).unwrap_err()
    }

    #[test]
    fn flags_count_before_positional_words_only() {
        let request = parsed("-c /x").unwrap();
        assert!(request.folder == "/x" && matches!(request.what, What::Clusters));
        let (name, command, flags, args) = command("--config=/x one init --gateway g url --gateway other");
        assert_eq!((name.as_str(), command, flags.string("gateway")), ("one", "init", "g"));
        assert_eq!(args, ["url", "--gateway", "other"]);
    }

    #[test]
    fn a_word_that_is_no_command_is_info_and_variables_count() {
        for line in ["one", "one info", "one whatever"] {
            assert_eq!(command(line).1, "info", "{line}");
        }
        let (_, _, flags, _) = command("one run --init u");
        assert_eq!((flags.string("gateway"), flags.string("init")), ("http://gw", "u"));
    }

    #[test]
    fn help_is_given_at_every_level() {
        for (line, first) in [
            ("--help", "ipfs-cluster-follow - IPFS Cluster Follower"),
            ("help", "ipfs-cluster-follow - IPFS Cluster Follower"),
            ("one -h", "ipfs-cluster-follow one - Follower peer management for \"one\""),
            ("one h", "ipfs-cluster-follow one - Follower peer management for \"one\""),
            ("one help run", "ipfs-cluster-follow one run - runs the follower peer"),
            ("one run -h", "ipfs-cluster-follow one run - runs the follower peer"),
            ("one init help", "ipfs-cluster-follow one init - initializes the follower peer"),
        ] {
            let done = done(line);
            assert!(done.code == 0 && done.stdout.starts_with(&format!("NAME:\n   {first}\n")), "{line}");
        }
        for line in ["help one", "one help one"] {
            assert_eq!((done(line).code, done(line).stderr.as_str()), (3, "No help topic for 'one'\n"));
        }
        assert_eq!(done("-v").stdout, "ipfs-cluster-follow version 1.1.6\n");
    }

    #[test]
    fn mistakes_show_the_page_of_their_level() {
        for (line, start) in [
            (
                "--frob",
                "Incorrect Usage: flag provided but not defined: -frob\n\nNAME:\n   ipfs-cluster-follow - ",
            ),
            (
                "one -v",
                "Incorrect Usage: flag provided but not defined: -v\n\nNAME:\n   ipfs-cluster-follow one - ",
            ),
            (
                "one run --init",
                "Incorrect Usage: flag needs an argument: -init\n\nNAME:\n   ipfs-cluster-follow one run",
            ),
        ] {
            let done = done(line);
            assert!(done.code == 1 && done.stdout.starts_with(start), "{line}: {}", done.stdout);
        }
        assert!(done("one --frob").stdout.contains("\nGLOBAL OPTIONS:\n   --help, -h  show help\n"));
        assert!(done("one run --frob").stdout.contains("\nCOMMANDS:\n   help, h  Shows a list"));
    }
}
