//! The body of an add: files as a multipart form, in the dialect of Go's `files.MultiFileReader`.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use http_body::Frame;

use crate::api::{self, EntryKind, Upload};
use crate::go::query::{escape, escape_raw};

/// Why an upload broke off, for whoever finds that its request failed. Taken by the body and by the request,
/// never across an await.
#[derive(Debug, Clone, Default)]
pub(super) struct Failure(Arc<Mutex<Option<String>>>);

impl Failure {
    fn set(&self, error: &api::Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.message.clone());
    }

    /// What was set.
    pub(super) fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A boundary no content contains, but by a chance of one in 2^240.
pub(super) fn boundary() -> String {
    hex::encode(rand::random::<[u8; 30]>())
}

struct State {
    upload: Box<dyn Upload>,
    boundary: String,
    failure: Failure,
    /// Whether the current entry is a file with content to come.
    in_file: bool,
    is_first: bool,
    is_done: bool,
}

/// The frames of a body, read from the upload as the connection takes them.
pub(super) fn frames(
    upload: Box<dyn Upload>,
    boundary: String,
    failure: Failure,
) -> BoxStream<'static, api::Result<Frame<Bytes>>> {
    let state = State { upload, boundary, failure, in_file: false, is_first: true, is_done: false };
    stream::unfold(state, |mut state| async move {
        if state.is_done {
            return None;
        }
        let piece = state.next().await;
        if let Err(error) = &piece {
            state.failure.set(error);
            state.is_done = true;
        }
        Some((piece.map(Frame::data), state))
    })
    .boxed()
}

impl State {
    async fn next(&mut self) -> api::Result<Bytes> {
        if self.in_file {
            if let Some(piece) = self.upload.read().await? {
                return Ok(piece);
            }
            self.in_file = false;
        }
        let mut out = BytesMut::new();
        let line = if std::mem::take(&mut self.is_first) { "--" } else { "\r\n--" };
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(self.boundary.as_bytes());
        let Some(entry) = self.upload.next_entry().await? else {
            self.is_done = true;
            out.extend_from_slice(b"--\r\n");
            return Ok(out.freeze());
        };
        let (kind, content) = match &entry.kind {
            EntryKind::File => ("application/octet-stream", &b""[..]),
            EntryKind::Directory => ("application/x-directory", &b""[..]),
            EntryKind::Symlink(target) => ("application/symlink", &target[..]),
        };
        self.in_file = entry.kind == EntryKind::File;
        out.extend_from_slice(b"\r\n");
        if let Some(path) = &entry.abspath {
            out.extend_from_slice(format!("Abspath-Encoded: {}\r\n", escape(path)).as_bytes());
        }
        let name = escape_raw(&entry.path);
        let head = format!(
            "Content-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: {kind}\r\n\r\n"
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(content);
        Ok(out.freeze())
    }
}
