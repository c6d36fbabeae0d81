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
    message: String,
}

impl Failure {
    /// A request that cannot be understood: 400.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into() }
    }

    /// `POST /token` where nobody needs a token: 401.
    pub(super) fn no_credentials() -> Self {
        Self { status: StatusCode::UNAUTHORIZED, message: "unauthorized".into() }
    }

    /// The answer; it is logged too.
    pub(super) fn into_response(self) -> Response {
        respond::document(self.status, document(self.status, &self.message))
    }
}

impl From<api::Error> for Failure {
    fn from(error: api::Error) -> Self {
        Self { status: status_of(error.kind), message: error.message }
    }
}

/// The status of a failed call: the only place that decides.
pub(super) fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::BadRequest => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[derive(Serialize)]
struct Document<'a> {
    code: u16,
    message: &'a str,
}

/// The error document and its line feed; the failure is logged.
pub(super) fn document(status: StatusCode, message: &str) -> Bytes {
    error!(target: "restapi", "sending error response: {}: {message}", status.as_u16());
    let mut document = json::to_vec(&Document { code: status.as_u16(), message });
    document.push(b'\n');
    document.into()
}
