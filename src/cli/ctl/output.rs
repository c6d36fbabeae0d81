//! Answers on standard output, as text or as JSON, and how a command ends.

use std::io::Write;

use cluster_compat::client::{self, Items, WaitError};
use cluster_compat::go::json;
use cluster_compat::go::time::Time;
use futures::StreamExt;
use serde::Serialize;

use super::format::Text;
use crate::cli::exit;

/// Why a command ended early.
#[derive(Debug)]
pub(super) enum Failure {
    /// A line for standard error.
    Line(exit::Failure),
    /// The peer said so, or could not be asked: shown where answers are shown.
    Call(client::Error),
    /// Nobody reads the answers any more.
    Gone,
}

impl Failure {
    /// `error <doing>: <cause>`
    pub(super) fn new(doing: &str, cause: impl std::fmt::Display) -> Self {
        Self::Line(exit::Failure::new(doing, cause))
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        Self::Call(error)
    }
}

impl From<WaitError> for Failure {
    fn from(error: WaitError) -> Self {
        let failure = exit::Failure::new("waiting for pin status", &error);
        Self::Line(match error {
            // Go's `ETIME`. main.go:99
            WaitError::DeadlineExceeded => failure.with_code(62),
            WaitError::Failed(_) | WaitError::Call(_) => failure,
        })
    }
}

/// A failed call as JSON.
#[derive(Serialize)]
struct Refusal<'a> {
    code: u16,
    message: &'a str,
}

/// Where answers go.
pub(super) struct Output<'a> {
    is_json: bool,
    writer: &'a mut dyn Write,
}

impl<'a> Output<'a> {
    pub(super) fn new(is_json: bool, writer: &'a mut dyn Write) -> Self {
        Self { is_json, writer }
    }

    /// Prints one answer.
    pub(super) fn show<T: Text + Serialize>(&mut self, answer: &T) -> Result<(), Failure> {
        if self.is_json { self.document(answer) } else { self.lines(std::slice::from_ref(answer)) }
    }

    /// Prints a list: one document, or the lines of each item.
    pub(super) fn list<T: Text + Serialize>(&mut self, items: Option<&[T]>) -> Result<(), Failure> {
        if self.is_json { self.document(&items) } else { self.lines(items.unwrap_or_default()) }
    }

    /// Prints answers as they come.
    pub(super) async fn stream<T: Text + Serialize>(&mut self, mut items: Items<T>) -> Result<(), Failure> {
        while let Some(item) = items.next().await {
            self.show(&item?)?;
        }
        Ok(())
    }

    /// Prints text as it is, in either encoding.
    pub(super) fn raw(&mut self, text: &str) -> Result<(), Failure> {
        let written = self.writer.write_all(text.as_bytes());
        written.and_then(|()| self.writer.flush()).map_err(|_| Failure::Gone)
    }

    fn document<T: Serialize>(&mut self, answer: &T) -> Result<(), Failure> {
        let mut text = String::from_utf8_lossy(&json::to_vec_indent(answer, "    ")).into_owned();
        text.push('\n');
        self.raw(&text)
    }

    fn lines<T: Text>(&mut self, items: &[T]) -> Result<(), Failure> {
        let mut text = String::new();
        let now = Time::now();
        for item in items {
            item.text(now, &mut text);
        }
        self.raw(&text)
    }

    /// Says how a command ended; its exit code.
    pub(super) fn finish(&mut self, result: Result<(), Failure>) -> u8 {
        match result {
            Ok(()) => 0,
            Err(Failure::Gone) => 1,
            Err(Failure::Line(failure)) => {
                if !failure.line.is_empty() {
                    exit::print_error(&format!("{}\n", failure.line));
                }
                failure.code
            }
            Err(Failure::Call(error)) => {
                // A reader that left cannot be told.
                let _ = if self.is_json {
                    self.document(&Refusal { code: error.code, message: &error.message })
                } else {
                    let text =
                        format!("An error occurred:\n  Code: {}\n  Message: {}\n", error.code, error.message);
                    self.raw(&text)
                };
                if error.code == 0 { 1 } else { 2 }
            }
        }
    }
}
