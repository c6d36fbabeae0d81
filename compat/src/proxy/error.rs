//! Kubo's error shape, in which intercepted paths tell what went wrong (spec: ipfs-proxy 6).

use http::StatusCode;
use serde::Serialize;
use tracing::error;

use crate::api;
use crate::go::json;
use crate::http::respond::{self, Response};

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "Message")]
    message: &'a str,
    #[serde(rename = "Code")]
    code: u8,
    #[serde(rename = "Type")]
    kind: &'static str,
}

/// A failure with a status of its own.
pub(super) fn with_status(status: StatusCode, message: &str) -> Response {
    error!(target: "ipfsproxy", "sending error response: {}: {message}", status.as_u16());
    respond::document(status, json::to_vec(&Document { message, code: 0, kind: "error" }))
}

/// A failure: 500, as nearly all of them.
pub(super) fn internal(message: &str) -> Response {
    with_status(StatusCode::INTERNAL_SERVER_ERROR, message)
}

/// A failure of the cluster.
pub(super) fn from_api(error: &api::Error) -> Response {
    internal(&error.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_document_has_kubos_keys_and_no_line_feed() {
        let response = internal("a <b> & \"c\"");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        let expected = r#"{"Message":"a \u003cb\u003e \u0026 \"c\"","Code":0,"Type":"error"}"#;
        assert_eq!(body, expected.as_bytes());
    }
}
