//! How programs end: last words and exit codes.

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use super::table::Done;

/// Why a command ended early: a line for standard error, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Printed to standard error with a line end; nothing if empty.
    pub line: String,
    /// The exit code.
    pub code: u8,
}

impl Failure {
    /// `error <doing>: <cause>`, exit code 1.
    pub fn new(doing: &str, cause: impl Display) -> Self {
        Self { line: format!("error {doing}: {cause}"), code: 1 }
    }

    /// The same with another exit code.
    #[must_use]
    pub fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }
}

/// For `map_err`: `error <doing>: <cause>`.
pub fn failed<E: Display>(doing: &str) -> impl FnOnce(E) -> Failure {
    move |cause| Failure::new(doing, cause)
}

/// Prints to standard output; a reader that left is no error.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints to standard error; a reader that left is no error.
pub fn print_error(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Says the last words of a line that was only to be parsed.
pub fn done(done: &Done) -> ExitCode {
    print(&done.stdout);
    print_error(&done.stderr);
    ExitCode::from(done.code)
}

/// Says the last words of a command.
pub fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { line, code }) => {
            if !line.is_empty() {
                print_error(&format!("{line}\n"));
            }
            ExitCode::from(code)
        }
    }
}
