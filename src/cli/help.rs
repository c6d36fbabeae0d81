//! Help pages as urfave/cli v1 lays them out.

use super::table::{App, Command, Flag, Kind};

/// The page of a program.
pub(super) fn app(app: &App) -> String {
    let mut page = format!("NAME:\n   {} - {}\n\n", app.name, app.usage);
    page += &format!("USAGE:\n   {} [global options] command [command options] [arguments...]\n\n", app.name);
    page += &format!("VERSION:\n   {}\n\n", app.version);
    page += &described(app.description);
    page += "COMMANDS:\n";
    page += &aligned(&commands(&app.commands, true));
    page += "\nGLOBAL OPTIONS:\n";
    let help = [Flag::bool("help, h", "show help"), Flag::bool("version, v", "print the version")];
    page + &aligned(&options(app.flags.iter().chain(&help)))
}

/// The page of a group.
pub(super) fn group(program: &str, path: &[&Command]) -> String {
    let name = full_name(program, path);
    let Some(group) = path.last() else { return String::new() };
    let mut page = format!("NAME:\n   {name} - {}\n\n", group.usage);
    page += &format!("USAGE:\n   {name} command [command options] [arguments...]\n\nCOMMANDS:\n");
    page += &aligned(&commands(&group.commands, false));
    page += "\nOPTIONS:\n";
    page += &aligned(&options([Flag::bool("help, h", "show help")].iter()));
    page + "   \n"
}

/// The page of a command.
pub(super) fn leaf(program: &str, path: &[&Command]) -> String {
    let name = full_name(program, path);
    let Some(command) = path.last() else { return String::new() };
    let flags = aligned(&options(command.flags.iter()));
    let args = if command.args_usage.is_empty() { "[arguments...]" } else { command.args_usage };
    let bracket = if flags.is_empty() { "" } else { " [command options]" };
    let mut page = format!("NAME:\n   {name} - {}\n\nUSAGE:\n   {name}{bracket} {args}\n", command.usage);
    if !command.description.is_empty() {
        page += "\n";
        page += described(command.description).trim_end_matches('\n');
        page += "\n\n";
    }
    if !flags.is_empty() {
        page += &format!("\nOPTIONS:\n{flags}   \n");
    }
    page
}

fn full_name(program: &str, path: &[&Command]) -> String {
    let names = path.iter().map(|command| command.name);
    [program].into_iter().chain(names).collect::<Vec<_>>().join(" ")
}

fn described(description: &str) -> String {
    if description.is_empty() { String::new() } else { format!("DESCRIPTION:\n   {description}\n\n") }
}

/// Names and usages; `help` last.
pub(super) fn commands(commands: &[Command], with_help: bool) -> Vec<(String, String)> {
    let listed = commands.iter().filter(|command| !command.hidden);
    let mut rows: Vec<_> =
        listed.map(|command| (command.name.to_owned(), command.usage.to_owned())).collect();
    if with_help {
        rows.push(("help, h".to_owned(), "Shows a list of commands or help for one command".to_owned()));
    }
    rows
}

/// Names and usages of the flags that are not hidden.
pub(super) fn options<'a>(flags: impl Iterator<Item = &'a Flag>) -> Vec<(String, String)> {
    flags.filter(|flag| !flag.hidden).map(option).collect()
}

/// `--long value, -s value` and `usage (default: X) [$ENV]`.
fn option(flag: &Flag) -> (String, String) {
    let (placeholder, usage) = match flag.usage.split('`').collect::<Vec<_>>()[..] {
        [before, word, after] => (word, format!("{before}{word}{after}")),
        _ => ("value", flag.usage.to_owned()),
    };
    let name = |name: &&str| {
        let dashes = if name.len() == 1 { "-" } else { "--" };
        let value = if flag.kind == Kind::Bool { String::new() } else { format!(" {placeholder}") };
        format!("{dashes}{name}{value}")
    };
    let names: Vec<String> = flag.names.iter().map(name).collect();
    let default = match &flag.kind {
        Kind::Bool | Kind::List => String::new(),
        Kind::String(text) if text.is_empty() => String::new(),
        Kind::String(text) => format!(" (default: {text:?})"),
        Kind::Int(number) => format!(" (default: {number})"),
        Kind::Duration(span) => format!(" (default: {span})"),
    };
    let env = flag.env.map(|name| format!(" [${name}]")).unwrap_or_default();
    (names.join(", "), format!("{usage}{default}{env}"))
}

/// Two columns, indented by three, two spaces between. A line end inside a row ends the block: what follows is
/// aligned on its own.
pub(super) fn aligned(rows: &[(String, String)]) -> String {
    let mut text = String::new();
    let mut rest = rows;
    while !rest.is_empty() {
        let block = rest.iter().position(|(_, right)| right.contains('\n')).map_or(rest.len(), |at| at + 1);
        let (rows, others) = rest.split_at(block);
        let width = rows.iter().map(|(left, _)| left.chars().count()).max().unwrap_or_default();
        for (left, right) in rows {
            text += &format!("   {left:width$}  {right}\n");
        }
        rest = others;
    }
    text
}
