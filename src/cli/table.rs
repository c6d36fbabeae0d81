//! Commands and flags as tables: one description feeds parsing, help and tests.
//!
//! The words are those of Go's `flag` and urfave/cli v1, which service and ctl are known for: `-name` as good as
//! `--name`, no bundling, flags of a command anywhere among its arguments, `--` ends them.
//!
//! Parsing has no side effects: [`App::parse`] tells what to print and the exit code, or which command to run.

use std::collections::BTreeMap;
use std::ffi::OsString;

use cluster_compat::go::time::Duration;

use super::help;
pub use super::values::Values;

/// A program.
#[derive(Debug, Clone, Default)]
pub struct App {
    /// Its name; that of a program within another has two words.
    pub name: String,
    /// One line about it.
    pub usage: String,
    /// What `--version` prints after the name.
    pub version: String,
    /// Paragraphs for the help page; a line end first and last.
    pub description: &'static str,
    /// Flags before the command.
    pub flags: Vec<Flag>,
    /// The commands.
    pub commands: Vec<Command>,
    /// Whether a line without a known command is an error: help and exit code 1. If not, help and exit code 0,
    /// and an unknown word is no help topic.
    pub needs_command: bool,
}

/// A command, or a group of commands.
#[derive(Debug, Clone, Default)]
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// One line about it.
    pub usage: &'static str,
    /// What it takes; empty: `[arguments...]`.
    pub args_usage: &'static str,
    /// Paragraphs for the help page; a line end first and last.
    pub description: &'static str,
    /// Its flags.
    pub flags: Vec<Flag>,
    /// The commands of a group.
    pub commands: Vec<Command>,
    /// Not listed in help.
    pub hidden: bool,
}

/// A flag.
#[derive(Debug, Clone)]
pub struct Flag {
    /// Its names, the first is the canonical one.
    pub names: Vec<&'static str>,
    /// One line about it; a word in back-quotes names the value.
    pub usage: &'static str,
    /// What it holds, with the default.
    pub kind: Kind,
    /// The variable that gives the value where the command line does not.
    pub env: Option<&'static str>,
    /// Not listed in help.
    pub hidden: bool,
}

/// What a flag holds, with its default.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// True when given.
    Bool,
    /// A text.
    String(String),
    /// A number, with Go's prefixes.
    Int(i64),
    /// A duration as Go writes it.
    Duration(Duration),
    /// A text each time it is given.
    List,
}

impl Flag {
    /// A flag without a value. `names` is `name, alias`.
    pub fn bool(names: &'static str, usage: &'static str) -> Self {
        Self::new(names, usage, Kind::Bool)
    }

    /// A text with a default.
    pub fn string(names: &'static str, usage: &'static str, default: impl Into<String>) -> Self {
        Self::new(names, usage, Kind::String(default.into()))
    }

    /// A number with a default.
    pub fn int(names: &'static str, usage: &'static str, default: i64) -> Self {
        Self::new(names, usage, Kind::Int(default))
    }

    /// A duration with a default.
    pub fn duration(names: &'static str, usage: &'static str, default: Duration) -> Self {
        Self::new(names, usage, Kind::Duration(default))
    }

    /// Texts.
    pub fn list(names: &'static str, usage: &'static str) -> Self {
        Self::new(names, usage, Kind::List)
    }

    /// The variable that gives the value where the command line does not.
    #[must_use]
    pub fn env(self, name: &'static str) -> Self {
        Self { env: Some(name), ..self }
    }

    /// Not listed in help.
    #[must_use]
    pub fn hidden(self) -> Self {
        Self { hidden: true, ..self }
    }

    fn new(names: &'static str, usage: &'static str, kind: Kind) -> Self {
        Self { names: names.split(", ").collect(), usage, kind, env: None, hidden: false }
    }

    /// The canonical name.
    pub(super) fn name(&self) -> &'static str {
        self.names.first().copied().unwrap_or_default()
    }
}

/// What a command line means.
#[derive(Debug)]
pub enum Parsed {
    /// Nothing is left but to print this and end.
    Done(Done),
    /// A command is to run.
    Run(Run),
}

/// Last words.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// For standard output, with its line ends.
    pub stdout: String,
    /// For standard error, with its line ends.
    pub stderr: String,
    /// The exit code.
    pub code: u8,
}

/// A command with its flags and arguments.
#[derive(Debug)]
pub struct Run {
    /// The names from the program's commands down, without the program's.
    pub path: Vec<&'static str>,
    /// The flags before the command.
    pub globals: Values,
    /// The flags of the command.
    pub flags: Values,
    /// Everything else.
    pub args: Vec<OsString>,
}

/// How parsing of one level's flags ended.
pub(super) enum Stop {
    /// `--help` or `-h`.
    Help,
    /// A mistake: `flag provided but not defined: -x`.
    Usage(String),
    /// A flag under two of its names.
    TwoForms(String),
}

/// Parses flags out of `args` into `values`. With `anywhere`, flags after arguments count too; otherwise the first
/// argument ends them. Gives what is left.
pub(super) fn parse_flags(
    flags: &[Flag],
    values: &mut Values,
    args: Vec<OsString>,
    anywhere: bool,
) -> Result<Vec<OsString>, Stop> {
    let mut rest = Vec::new();
    let mut typed: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy().into_owned();
        if text.len() < 2 || !text.starts_with('-') {
            rest.push(arg);
            if anywhere {
                continue;
            }
            break;
        }
        let body = text.strip_prefix("--").unwrap_or(&text[1..]);
        if text == "--" {
            break;
        }
        if body.is_empty() || body.starts_with('-') || body.starts_with('=') {
            return Err(Stop::Usage(format!("bad flag syntax: {text}")));
        }
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let Some(flag) = flags.iter().find(|flag| flag.names.contains(&name)) else {
            if name == "help" || name == "h" {
                return Err(Stop::Help);
            }
            return Err(Stop::Usage(format!("flag provided but not defined: -{name}")));
        };
        let value = match (inline, &flag.kind) {
            (Some(value), _) => value,
            (None, Kind::Bool) => "true".to_owned(),
            (None, _) => match args.next() {
                Some(value) => value.to_string_lossy().into_owned(),
                None => return Err(Stop::Usage(format!("flag needs an argument: -{name}"))),
            },
        };
        values.set(flag, name, &value).map_err(Stop::Usage)?;
        typed.entry(flag.name()).or_default().push(name.to_owned());
    }
    rest.extend(args);
    for flag in flags {
        let Some(names) = typed.get(flag.name()) else { continue };
        let mut used = flag.names.iter().filter(|name| names.iter().any(|typed| typed == *name));
        if let (Some(first), Some(second)) = (used.next(), used.next()) {
            let text = format!("Cannot use two forms of the same flag: {second} {first}");
            return Err(Stop::TwoForms(text));
        }
    }
    Ok(rest)
}

/// Puts the variables of `flags` over their defaults.
pub(super) fn apply_env(
    flags: &[Flag],
    values: &mut Values,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(), Stop> {
    for flag in flags {
        if let Some(text) = flag.env.and_then(env) {
            values.set(flag, flag.name(), &text).map_err(Stop::Usage)?;
        }
    }
    Ok(())
}

/// Which help page, as the first words of its command.
enum Page<'a> {
    App,
    Group(&'a [&'a Command]),
    Leaf(&'a [&'a Command]),
}

impl App {
    /// Tells what a command line means. `args` come without the program's name.
    pub fn parse(&self, args: Vec<OsString>, env: &dyn Fn(&str) -> Option<String>) -> Parsed {
        match self.walk(args, env) {
            Ok(run) => Parsed::Run(run),
            Err(done) => Parsed::Done(done),
        }
    }

    fn walk(&self, args: Vec<OsString>, env: &dyn Fn(&str) -> Option<String>) -> Result<Run, Done> {
        let mut globals = Values::defaults(&self.flags);
        apply_env(&self.flags, &mut globals, env).map_err(|stop| self.stopped(stop, &Page::App))?;
        let mut own = self.flags.clone();
        own.push(Flag::bool("version, v", ""));
        globals.declare("version");
        let rest =
            parse_flags(&own, &mut globals, args, false).map_err(|stop| self.stopped(stop, &Page::App))?;
        if globals.bool("version") {
            return Err(printed(format!("{} version {}\n", self.name, self.version)));
        }
        self.descend(globals, rest)
    }

    fn descend(&self, globals: Values, mut rest: Vec<OsString>) -> Result<Run, Done> {
        let mut path: Vec<&Command> = Vec::new();
        let mut commands = &self.commands;
        loop {
            let page = if path.is_empty() { Page::App } else { Page::Group(&path) };
            if rest.is_empty() {
                let help = self.page(&page);
                let code = u8::from(path.is_empty() && self.needs_command);
                return Err(Done { stdout: help, code, ..Done::default() });
            }
            let word = rest.remove(0).to_string_lossy().into_owned();
            if word == "help" || word == "h" {
                return Err(self.help_on(&path, commands, &page, rest.first()));
            }
            let Some(command) = commands.iter().find(|command| command.name == word) else {
                if path.is_empty() && self.needs_command {
                    return Err(Done { stdout: self.page(&page), code: 1, ..Done::default() });
                }
                return Err(no_topic(&word));
            };
            path.push(command);
            if command.commands.is_empty() {
                let mut flags = Values::defaults(&command.flags);
                let args = parse_flags(&command.flags, &mut flags, rest, true)
                    .map_err(|stop| self.stopped(stop, &Page::Leaf(&path)))?;
                let path = path.iter().map(|command| command.name).collect();
                return Ok(Run { path, globals, flags, args });
            }
            rest = parse_flags(&[], &mut Values::default(), rest, false)
                .map_err(|stop| self.stopped(stop, &Page::Group(&path)))?;
            commands = &command.commands;
        }
    }

    /// `help`, or `help COMMAND`, which shows groups as it shows commands.
    fn help_on<'a>(
        &self,
        path: &[&'a Command],
        commands: &'a [Command],
        page: &Page<'_>,
        topic: Option<&OsString>,
    ) -> Done {
        let Some(topic) = topic else { return printed(self.page(page)) };
        let topic = topic.to_string_lossy();
        match commands.iter().find(|command| command.name == topic) {
            Some(command) => {
                let path: Vec<&Command> = path.iter().copied().chain([command]).collect();
                printed(self.page(&Page::Leaf(&path)))
            }
            None => no_topic(&topic),
        }
    }

    fn stopped(&self, stop: Stop, page: &Page<'_>) -> Done {
        let help = self.page(page);
        match stop {
            Stop::Help => printed(help),
            Stop::TwoForms(text) => {
                let stdout = match page {
                    Page::Leaf(_) => format!("Incorrect Usage: {text}\n\n{help}"),
                    Page::App | Page::Group(_) => format!("{text}\n{help}"),
                };
                Done { stdout, code: 1, ..Done::default() }
            }
            Stop::Usage(reason) => {
                let mark = if matches!(page, Page::Leaf(_)) { ':' } else { '.' };
                let stdout = format!("Incorrect Usage{mark} {reason}\n\n{help}");
                Done { stdout, code: 1, ..Done::default() }
            }
        }
    }

    fn page(&self, page: &Page<'_>) -> String {
        match page {
            Page::App => help::app(self),
            Page::Group(path) => help::group(&self.name, path),
            Page::Leaf(path) => help::leaf(&self.name, path),
        }
    }
}

/// The end of a line that asked for nothing but this text.
pub(super) fn printed(stdout: String) -> Done {
    Done { stdout, ..Done::default() }
}

/// The end of a line that asked for help on something unknown.
pub(super) fn no_topic(word: &str) -> Done {
    Done { stderr: format!("No help topic for '{word}'\n"), code: 3, ..Done::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> App {
        App {
            name: "prog".to_owned(),
            usage: "does things".to_owned(),
            version: "1.1.6".to_owned(),
            flags: vec![Flag::string("host, l", "where", "here").env("HOST"), Flag::bool("debug, d", "talk")],
            commands: vec![
                Command {
                    name: "add",
                    usage: "adds",
                    args_usage: "<path>",
                    flags: vec![
                        Flag::string("name, n", "a name", ""),
                        Flag::bool("wait, w", "waits"),
                        Flag::int("replication-min, rmin", "how many", 0),
                        Flag::duration("wait-timeout, wt", "how long", Duration::ZERO),
                        Flag::list("metadata", "key=value"),
                    ],
                    ..Command::default()
                },
                Command {
                    name: "peers",
                    usage: "group",
                    commands: vec![Command { name: "ls", usage: "lists", ..Command::default() }],
                    ..Command::default()
                },
            ],
            ..App::default()
        }
    }

    fn parse(line: &str) -> Parsed {
        parse_with(line, None)
    }

    fn parse_with(line: &str, host: Option<&str>) -> Parsed {
        let host = host.map(str::to_owned);
        let env = move |name: &str| if name == "HOST" { host.clone() } else { None };
        app().parse(line.split_whitespace().map(OsString::from).collect(), &env)
    }

    fn run(line: &str) -> Run {
        match parse(line) {
            Parsed::Run(run) => run,
            Parsed::Done(done) => panic!("{line}: {done:?}"),
        }
    }

    fn done(line: &str) -> Done {
        match parse(line) {
            Parsed::Done(done) => done,
            Parsed::Run(run) => panic!("{line}: {run:?}"),
        }
    }

    #[test]
    fn flags_are_found_before_and_after_arguments_with_one_dash_or_two() {
        for line in [
            "-l there add --wait --name n -rmin 2 cid --metadata a=b,c=d --metadata e=f",
            "--host=there add cid -w -n=n --replication-min=0x2 --metadata a=b,c=d --metadata=e=f",
        ] {
            let run = run(line);
            assert_eq!(run.path, ["add"]);
            assert_eq!(run.globals.string("host"), "there");
            assert_eq!(run.flags.string("n"), "n");
            assert!(run.flags.bool("wait") && run.flags.is_set("w") && !run.flags.is_set("wt"));
            assert_eq!(run.flags.int("rmin"), 2);
            assert_eq!(run.flags.list("metadata"), ["a=b,c=d", "e=f"]);
            assert_eq!(run.args, ["cid"]);
        }
        assert_eq!(run("add -- -w --name").args, ["-w", "--name"]);
        assert!(!run("add --wait=false a").flags.bool("wait"));
        assert_eq!(run("add -wt 1h30m").flags.duration("wait-timeout"), Duration::from_mins(90));
        assert_eq!(run("add -rmin -1").flags.int("rmin"), -1);
    }

    #[test]
    fn a_variable_counts_unless_the_flag_is_given() {
        let host = |line, host| match parse_with(line, host) {
            Parsed::Run(run) => run.globals.string("host").to_owned(),
            Parsed::Done(done) => panic!("{done:?}"),
        };
        assert_eq!(host("add", None), "here");
        assert_eq!(host("add", Some("")), "");
        assert_eq!(host("-l x add", Some("y")), "x");
    }

    #[test]
    fn usage_errors_are_told_in_gos_words() {
        for (line, first) in [
            (
                "--frob add",
                "Incorrect Usage. flag provided but not defined: -frob\n\nNAME:\n   prog - does things",
            ),
            ("-dl add", "Incorrect Usage. flag provided but not defined: -dl\n\n"),
            (
                "--debug=maybe add",
                "Incorrect Usage. invalid boolean value \"maybe\" for -debug: parse error\n\n",
            ),
            ("add --name", "Incorrect Usage: flag needs an argument: -name\n\nNAME:\n   prog add - adds"),
            ("add -rmin x", "Incorrect Usage: invalid value \"x\" for flag -rmin: parse error\n\n"),
            ("add -wt 5", "Incorrect Usage: invalid value \"5\" for flag -wt: parse error\n\n"),
            ("add ---x", "Incorrect Usage: bad flag syntax: ---x\n\n"),
            (
                "add -n a --name b",
                "Incorrect Usage: Cannot use two forms of the same flag: n name\n\nNAME:\n",
            ),
            ("-l a --host b", "Cannot use two forms of the same flag: l host\nNAME:\n"),
            (
                "peers --frob",
                "Incorrect Usage. flag provided but not defined: -frob\n\nNAME:\n   prog peers - group",
            ),
        ] {
            let done = done(line);
            assert_eq!(done.code, 1, "{line}");
            assert!(done.stdout.starts_with(first) && done.stderr.is_empty(), "{line}: {}", done.stdout);
        }
    }

    #[test]
    fn unknown_topics_and_commands_of_groups_end_with_3() {
        for line in ["help frob", "peers frob", "peers help frob", "frob"] {
            let done = done(line);
            assert_eq!((done.code, done.stderr.as_str()), (3, "No help topic for 'frob'\n"), "{line}");
        }
        let strict = App { needs_command: true, ..app() };
        for args in [vec![], vec![OsString::from("frob")]] {
            let Parsed::Done(done) = strict.parse(args, &|_| None) else { panic!("it runs") };
            assert_eq!(done.code, 1);
            assert!(done.stdout.starts_with("NAME:\n   prog - does things\n"));
        }
    }

    #[test]
    fn version_and_help_print_and_end() {
        assert_eq!(done("-v"), printed("prog version 1.1.6\n".to_owned()));
        for (line, page) in [
            ("", "prog - does things"),
            ("-h", "prog - does things"),
            ("help", "prog - does things"),
            ("h add", "prog add - adds"),
            ("add x --help", "prog add - adds"),
            ("peers", "prog peers - group"),
            ("peers -h", "prog peers - group"),
            ("peers help", "prog peers - group"),
            ("peers h ls", "prog peers ls - lists"),
        ] {
            let done = done(line);
            assert!(done.code == 0 && done.stdout.starts_with(&format!("NAME:\n   {page}\n")), "{line}");
        }
    }
}
