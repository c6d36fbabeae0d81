//! Manual pages, made from the tables that parsing reads.

use super::help::options;
use super::table::{App, Command, Flag};

/// The page of a program, in the man macros of roff.
pub(super) fn page(app: &App) -> String {
    let mut page = opening(app, "[global options] command [command options] [arguments...]");
    section(&mut page, "GLOBAL OPTIONS", &app.flags);
    page.push_str(".SH COMMANDS\n");
    commands(&mut page, "", &app.commands);
    page
}

/// The page of a program whose first word is a name, with the commands of that level.
pub(super) fn page_of_named(app: &App, named: &App) -> String {
    let mut page = opening(app, "[global options] <clusterName> [subcommand]...");
    section(&mut page, "GLOBAL OPTIONS", &app.flags);
    page.push_str(".SH COMMANDS\n");
    commands(&mut page, "<clusterName> ", &named.commands);
    page
}

fn opening(app: &App, synopsis: &str) -> String {
    format!(
        ".TH {} 1 \"\" \"ipfs\\-cluster {}\"\n.SH NAME\n{} \\- {}\n.SH SYNOPSIS\n.B {}\n{}\n.SH DESCRIPTION\n{}",
        escaped(&app.name.to_uppercase()),
        escaped(&app.version),
        escaped(&app.name),
        escaped(&app.usage),
        escaped(&app.name),
        escaped(synopsis),
        paragraphs(app.description)
    )
}

fn section(page: &mut String, title: &str, flags: &[Flag]) {
    page.push_str(&format!(".SH {title}\n"));
    rows(page, flags);
}

fn rows(page: &mut String, flags: &[Flag]) {
    for (names, usage) in options(flags.iter()) {
        page.push_str(&format!(".TP\n.B {}\n{}\n", escaped(&names), escaped(&usage.replace('\n', " "))));
    }
}

fn commands(page: &mut String, path: &str, list: &[Command]) {
    for command in list.iter().filter(|command| !command.hidden) {
        let path = format!("{path}{}", command.name);
        if command.commands.is_empty() {
            let head = format!("{path} {}", command.args_usage);
            page.push_str(&format!(".SS {}\n{}.\n", escaped(head.trim_end()), escaped(command.usage)));
            page.push_str(&paragraphs(command.description));
            rows(page, &command.flags);
        } else {
            commands(page, &format!("{path} "), &command.commands);
        }
    }
}

/// A description as paragraphs; lines that are indented or begin with a prompt stay lines.
fn paragraphs(text: &str) -> String {
    let mut page = String::new();
    for paragraph in text.trim_matches('\n').split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        page.push_str(".PP\n");
        let is_shown = paragraph.lines().any(|line| line.starts_with([' ', '$']));
        if is_shown {
            page.push_str(".nf\n");
        }
        for line in paragraph.lines() {
            page.push_str(&escaped(line));
            page.push('\n');
        }
        if is_shown {
            page.push_str(".fi\n");
        }
    }
    page
}

/// Text that roff prints as it is.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_all_commands_and_flags() {
        let app = App {
            name: "prog".to_owned(),
            usage: "does things".to_owned(),
            version: "1.1.6".to_owned(),
            description: "\nA paragraph\nof two lines.\n\n$ prog -h\n",
            flags: vec![Flag::string("host, l", "where", "here").env("HOST")],
            commands: vec![Command {
                name: "pin",
                usage: "pins",
                commands: vec![Command {
                    name: "add",
                    usage: "adds",
                    args_usage: "<cid>",
                    flags: vec![Flag::bool("wait", ".waits\\")],
                    ..Command::default()
                }],
                ..Command::default()
            }],
            ..App::default()
        };
        let expected = ".TH PROG 1 \"\" \"ipfs\\-cluster 1.1.6\"\n.SH NAME\nprog \\- does things\n.SH SYNOPSIS\n.B prog\n\
                        [global options] command [command options] [arguments...]\n.SH DESCRIPTION\n.PP\nA paragraph\nof \
                        two lines.\n.PP\n.nf\n$ prog \\-h\n.fi\n.SH GLOBAL OPTIONS\n.TP\n.B \\-\\-host value, \\-l value\n\
                        where (default: \"here\") [$HOST]\n.SH COMMANDS\n.SS pin add <cid>\nadds.\n.TP\n.B \\-\\-wait\n\
                        \\&.waits\\e\n";
        assert_eq!(page(&app), expected);
    }
}
