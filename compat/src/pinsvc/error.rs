//! What a client reads when a call fails, and with which status.

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use tracing::error;

use crate::api::{self, ErrorKind};
use crate::go::json;
use crate::http::respond::{self, Response};

/// A refused or failed call.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    reason: String,
}

impl Failure {
    /// A request that cannot be understood: 400.
    pub(super) fn bad_request(reason: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, reason: reason.into() }
    }

    /// A pin that has no status users see: 404.
    pub(super) fn no_pin() -> Self {
        Self { status: StatusCode::NOT_FOUND, reason: "pin not found".into() }
    }

    /// `POST /token` where nobody needs a token: 401.
    pub(super) fn no_credentials() -> Self {
        Self { status: StatusCode::UNAUTHORIZED, reason: "unauthorized".into() }
    }

    /// The answer; it is logged too.
    pub(super) fn into_response(self) -> Response {
        respond::document(self.status, document(self.status, &self.reason))
    }

    /// Several failures of one request: the first says whose fault it is, all say why.
    pub(super) fn joined(failures: Vec<Self>) -> Option<Self> {
        let reasons: Vec<&str> = failures.iter().map(|failure| failure.reason.as_str()).collect();
        let reason = reasons.join("; ");
        failures.into_iter().next().map(|first| Self { reason, ..first })
    }
}

impl From<api::Error> for Failure {
    fn from(error: api::Error) -> Self {
        let status = match error.kind {
            ErrorKind::BadRequest => StatusCode::BAD_REQUEST,
            ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, reason: error.message }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    error: Detail<'a>,
}

#[derive(Serialize)]
struct Detail<'a> {
    reason: &'a str,
}

/// The error document and its line feed; the failure is logged.
pub(super) fn document(status: StatusCode, reason: &str) -> Bytes {
    error!(target: "pinsvcapi", "sending error response: {}: {reason}", status.as_u16());
    let mut document = json::to_vec(&Document { error: Detail { reason } });
    document.push(b'\n');
    document.into()
}
