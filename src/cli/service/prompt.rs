//! Questions to the user.

use std::io::BufRead;

use crate::cli::exit::print;

/// How often a question is asked before the answer is taken for no.
const MAX_ASKED: usize = 3;

/// Asks until the answer is yes or no. An empty line or the end of input is no the first time, and later the
/// answer given before.
pub(super) fn confirm(question: &str, input: &mut impl BufRead) -> bool {
    let mut answer = String::new();
    for _ in 0..MAX_ASKED {
        print(&format!("{question} [y/n]: "));
        if let Some(word) = read_line(input).split_whitespace().next() {
            word.clone_into(&mut answer);
        }
        match answer.as_str() {
            "y" | "Y" => return true,
            "n" | "N" | "" => return false,
            _ => print("Please press either 'y' or 'n'\n"),
        }
    }
    false
}

/// Asks for a line.
pub(super) fn ask(question: &str, input: &mut impl BufRead) -> String {
    print(question);
    read_line(input)
}

/// One line without its end; empty at the end of input or where it cannot be read.
fn read_line(input: &mut impl BufRead) -> String {
    let mut line = Vec::new();
    match input.read_until(b'\n', &mut line) {
        Ok(_) => String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_count_as_the_reference_counts_them() {
        for (typed, expected) in [
            ("y\n", true),
            ("Y", true),
            ("  y  \n", true),
            ("q\nY\n", true),
            ("n\ny\n", false),
            ("\ny\n", false),
            ("", false),
            ("no\nyes\nmaybe\ny\n", false),
        ] {
            assert_eq!(confirm("?", &mut typed.as_bytes()), expected, "{typed:?}");
        }
    }

    #[test]
    fn questions_read_one_line_each() {
        let mut typed = "one\r\ntwo".as_bytes();
        assert_eq!(ask("?", &mut typed), "one");
        assert_eq!(ask("?", &mut typed), "two");
        assert_eq!(ask("?", &mut typed), "");
    }
}
