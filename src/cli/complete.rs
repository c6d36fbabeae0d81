//! Completions for shells, and which commands give them: made from the tables that parsing reads.
//!
//! Each script walks the words typed so far the way [`super::table`] does: a flag that takes a value takes the next
//! word, other flags are passed over, the name of a command goes one level down. What it offers then are the
//! commands of that level, or its flags where a dash was typed, or files.

use super::exit::Failure;
use super::man;
use super::table::{App, Command, Flag, Kind, Run};

/// Any word at this place goes one level down.
const ANY: &str = "*";

/// The commands that give completions and manual pages; they stand on no help page.
pub(super) fn commands() -> [Command; 2] {
    let hidden = |name, args_usage, usage, description| Command {
        name,
        args_usage,
        usage,
        description,
        hidden: true,
        ..Command::default()
    };
    [
        hidden(
            "completion",
            "bash|zsh|fish",
            "Print a completion script for a shell",
            "\nFor one session of bash: source <(PROGRAM completion bash)\n",
        ),
        hidden("man", " ", "Print the manual page", "\nTo read it: PROGRAM man | man -l -\n"),
    ]
}

/// What one of [`commands`] prints; `None` is another command.
pub(super) fn answer(app: &App, run: &Run) -> Option<Result<String, Failure>> {
    match run.path[..] {
        ["completion"] => {
            let shell = run.args.first().map(|shell| shell.to_string_lossy()).unwrap_or_default();
            Some(script(&app.name, &levels(app), &shell))
        }
        ["man"] => Some(Ok(man::page(app))),
        _ => None,
    }
}

/// What can stand at one place of a command line.
pub(super) struct Level {
    /// The commands before it.
    path: String,
    /// Names and usages of what can follow.
    commands: Vec<(String, String)>,
    /// Flags: name with dashes, usage, whether a value follows.
    flags: Vec<(String, String, bool)>,
    /// A shell command that prints names which can follow too, a line each; then any word goes a level down.
    lister: Option<String>,
}

/// The levels of a program.
pub(super) fn levels(app: &App) -> Vec<Level> {
    let mut levels = Vec::new();
    walk("", &app.commands, &app.flags, &mut levels);
    levels
}

/// The levels of a program whose first word is a name of the user's, printed by `lister`.
pub(super) fn levels_of_named(app: &App, named: &App, lister: &str) -> Vec<Level> {
    let mut levels = levels(app);
    if let Some(first) = levels.first_mut() {
        first.lister = Some(lister.to_owned());
    }
    walk(ANY, &named.commands, &named.flags, &mut levels);
    levels
}

fn walk(path: &str, commands: &[Command], flags: &[Flag], levels: &mut Vec<Level>) {
    let shown: Vec<&Command> = commands.iter().filter(|command| !command.hidden).collect();
    let mut offered: Vec<(String, String, bool)> = Vec::new();
    for flag in flags.iter().filter(|flag| !flag.hidden) {
        let usage = flag.usage.replace('`', "").replace('\n', " ");
        for name in &flag.names {
            let dashes = if name.len() == 1 { "-" } else { "--" };
            offered.push((format!("{dashes}{name}"), usage.clone(), flag.kind != Kind::Bool));
        }
    }
    offered.push(("--help".to_owned(), "show help".to_owned(), false));
    levels.push(Level {
        path: path.to_owned(),
        commands: shown.iter().map(|command| (command.name.to_owned(), command.usage.to_owned())).collect(),
        flags: offered,
        lister: None,
    });
    for command in shown {
        let below =
            if path.is_empty() { command.name.to_owned() } else { format!("{path} {}", command.name) };
        walk(&below, &command.commands, &command.flags, levels);
    }
}

/// The script of a shell.
pub(super) fn script(program: &str, levels: &[Level], shell: &str) -> Result<String, Failure> {
    match shell {
        "bash" => Ok(bash(program, levels)),
        "zsh" => Ok(zsh(program, levels)),
        "fish" => Ok(fish(program, levels)),
        other => {
            Err(Failure::new("printing completions", format!("{other:?} is none of bash, zsh and fish")))
        }
    }
}

/// A text in single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn function(program: &str) -> String {
    format!("_{}", program.replace('-', "_"))
}

fn joined<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.collect::<Vec<_>>().join(" ")
}

fn bash(program: &str, levels: &[Level]) -> String {
    let name = function(program);
    let mut cases = String::new();
    for level in levels {
        let commands = joined(level.commands.iter().map(|(name, _)| name.as_str()));
        let flags = joined(level.flags.iter().map(|(name, ..)| name.as_str()));
        let valued =
            joined(level.flags.iter().filter(|(.., is_valued)| *is_valued).map(|(name, ..)| name.as_str()));
        let more =
            level.lister.as_ref().map(|lister| format!(" more={}", quoted(lister))).unwrap_or_default();
        cases.push_str(&format!(
            "        {}) commands={} flags={} valued={}{more} ;;\n",
            quoted(&level.path),
            quoted(&commands),
            quoted(&flags),
            quoted(&format!(" {valued} "))
        ));
    }
    format!(
        r#"# bash completion for {program}
{name}_at() {{
    commands= flags= valued= more=
    case "$1" in
{cases}    esac
}}
{name}() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} at= skip= i word commands flags valued more
    {name}_at ""
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${{COMP_WORDS[i]}}
        if [[ $word == "=" ]]; then
            skip=1
        elif [[ -n $skip ]]; then
            skip=
        elif [[ $valued == *" $word "* ]]; then
            skip=1
        elif [[ $word != -* && -n $more ]]; then
            at='*'
            {name}_at "$at"
        elif [[ " $commands " == *" $word "* ]]; then
            at="${{at:+$at }}$word"
            {name}_at "$at"
        fi
    done
    COMPREPLY=()
    if [[ -n $skip ]]; then
        compopt -o default
    elif [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$flags" -- "$cur"))
    elif [[ -n $more ]]; then
        local IFS=$'\n'
        COMPREPLY=($(compgen -W "$(eval "$more")" -- "$cur"))
    elif [[ -n $commands ]]; then
        COMPREPLY=($(compgen -W "$commands" -- "$cur"))
    else
        compopt -o default
    fi
}}
complete -F {name} {program}
"#
    )
}

fn zsh(program: &str, levels: &[Level]) -> String {
    let name = function(program);
    let described = |name: &str, usage: &str| quoted(&format!("{name}:{usage}"));
    let mut cases = String::new();
    for level in levels {
        let commands: Vec<String> =
            level.commands.iter().map(|(name, usage)| described(name, usage)).collect();
        let flags: Vec<String> = level.flags.iter().map(|(name, usage, _)| described(name, usage)).collect();
        let valued =
            joined(level.flags.iter().filter(|(.., is_valued)| *is_valued).map(|(name, ..)| name.as_str()));
        let more =
            level.lister.as_ref().map(|lister| format!(" more={}", quoted(lister))).unwrap_or_default();
        cases.push_str(&format!(
            "        ({}) commands=({}) flags=({}) valued=({valued}){more} ;;\n",
            quoted(&level.path),
            commands.join(" "),
            flags.join(" ")
        ));
    }
    format!(
        r#"#compdef {program}
{name}_at() {{
    commands=() flags=() valued=() more=
    case "$1" in
{cases}    esac
}}
{name}() {{
    local -a commands flags valued names
    local at= skip= i word more
    {name}_at ""
    for ((i = 2; i < CURRENT; i++)); do
        word=${{words[i]}}
        names=(${{commands%%:*}})
        if [[ -n $skip ]]; then
            skip=
        elif ((${{valued[(Ie)$word]}})); then
            skip=1
        elif [[ $word != -* && -n $more ]]; then
            at='*'
            {name}_at "$at"
        elif ((${{names[(Ie)$word]}})); then
            at="${{at:+$at }}$word"
            {name}_at "$at"
        fi
    done
    if [[ -n $skip ]]; then
        _files
    elif [[ ${{words[CURRENT]}} == -* ]]; then
        _describe -o option flags
    elif [[ -n $more ]]; then
        names=(${{(f)"$(eval "$more")"}})
        compadd -a names
    elif (($#commands)); then
        _describe command commands
    else
        _files
    fi
}}
if [[ $funcstack[1] == {name} ]]; then {name} "$@"; else compdef {name} {program}; fi
"#
    )
}

fn fish(program: &str, levels: &[Level]) -> String {
    let name = format!("_{}", function(program));
    let mut valued: Vec<&str> = Vec::new();
    let mut lines = String::new();
    for level in levels {
        let at = format!("complete -c {program} -n \"{name}_at {}\"", quoted(&level.path));
        for (command, usage) in &level.commands {
            lines.push_str(&format!("{at} -f -a {command} -d {}\n", quoted(usage)));
        }
        if let Some(lister) = &level.lister {
            lines.push_str(&format!("{at} -f -a {}\n", quoted(&format!("({lister})"))));
        }
        for (flag, usage, is_valued) in &level.flags {
            let (kind, word) = match flag.strip_prefix("--") {
                Some(long) => ("-l", long),
                None => ("-s", flag.trim_start_matches('-')),
            };
            let value = if *is_valued { " -r" } else { "" };
            lines.push_str(&format!("{at} {kind} {word}{value} -d {}\n", quoted(usage)));
            if *is_valued && !valued.contains(&flag.as_str()) {
                valued.push(flag);
            }
        }
    }
    let paths: Vec<String> = levels.iter().map(|level| quoted(&level.path)).collect();
    let is_named = levels.iter().any(|level| level.lister.is_some());
    let first = if is_named { "test -z \"$at\"; and set word '*'" } else { "true" };
    format!(
        r#"# fish completion for {program}
function {name}_at
    set -l at
    set -l skip 0
    set -l tokens (commandline -opc)
    for word in $tokens[2..-1]
        if test $skip -eq 1
            set skip 0
        else if contains -- $word {}
            set skip 1
        else if not string match -q -- '-*' $word
            {first}
            set -l next (string trim "$at $word")
            contains -- $next {}; and set at $next
        end
    end
    test "$at" = "$argv[1]"
end
{lines}"#,
        valued.join(" "),
        paths.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use std::process::Command as Process;

    use super::*;

    fn app() -> App {
        App {
            name: "prog".to_owned(),
            flags: vec![Flag::string("host, l", "where it's", "x"), Flag::bool("debug, d", "talk")],
            commands: vec![
                Command {
                    name: "pin",
                    usage: "pins",
                    commands: vec![
                        Command {
                            name: "add",
                            usage: "adds",
                            flags: vec![Flag::string("name, n", "a `NAME`", ""), Flag::bool("wait", "waits")],
                            ..Command::default()
                        },
                        Command { name: "ls", usage: "lists", ..Command::default() },
                    ],
                    ..Command::default()
                },
                Command { name: "secret", usage: "is hidden", hidden: true, ..Command::default() },
                Command { name: "id", usage: "who", ..Command::default() },
            ],
            ..App::default()
        }
    }

    /// What bash offers for a line whose last word is being typed.
    fn offered(script: &str, function: &str, words: &[&str]) -> Option<String> {
        let line: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        let ask = format!(
            "{script}\ncompopt() {{ echo FILES; }}\nCOMP_WORDS=({}) COMP_CWORD={}\n{function}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
            line.join(" "),
            words.len() - 1
        );
        let output = match Process::new("bash").args(["-c", &ask]).output() {
            Ok(output) => output,
            Err(_) => {
                eprintln!("skipped: there is no bash");
                return None;
            }
        };
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8(output.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn bash_offers_what_can_follow() {
        let script = script("prog", &levels(&app()), "bash").unwrap();
        for (words, expected) in [
            (&["prog", ""][..], "pin id"),
            (&["prog", "-l", "pin", ""], "pin id"),
            (&["prog", "--host", "="], "FILES"),
            (&["prog", "--host", "=", "x", "pin", ""], "add ls"),
            (&["prog", "-d", "pin", "a"], "add"),
            (&["prog", "pin", "add", "--"], "--name --wait --help"),
            (&["prog", "pin", "add", "--name", ""], "FILES"),
            (&["prog", "pin", "ls", ""], "FILES"),
        ] {
            let Some(offered) = offered(&script, "_prog", words) else { return };
            assert_eq!(offered, expected, "{words:?}");
        }
    }

    #[test]
    fn bash_offers_names_of_the_user() {
        let levels = levels_of_named(&App { commands: Vec::new(), ..app() }, &app(), "printf 'one\\ntwo\\n'");
        let script = script("prog", &levels, "bash").unwrap();
        for (words, expected) in [
            (&["prog", "t"][..], "two"),
            (&["prog", "new", ""], "pin id"),
            (&["prog", "new", "pin", "add", "--n"], "--name"),
        ] {
            let Some(offered) = offered(&script, "_prog", words) else { return };
            assert_eq!(offered, expected, "{words:?}");
        }
    }

    #[test]
    fn scripts_of_other_shells_can_be_read_by_them() {
        for (shell, args) in [("zsh", ["-n"]), ("fish", ["-n"])] {
            let script = script("prog", &levels(&app()), shell).unwrap();
            assert!(
                script.contains("'where it'\\''s'") || script.contains("'--host:where it'\\''s'"),
                "{script}"
            );
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &script).unwrap();
            match Process::new(shell).args(args).arg(file.path()).output() {
                Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
                Err(_) => eprintln!("skipped: there is no {shell}"),
            }
        }
        let failure = script("prog", &levels(&app()), "csh").unwrap_err();
        assert_eq!(failure.line, "error printing completions: \"csh\" is none of bash, zsh and fish");
    }
}
