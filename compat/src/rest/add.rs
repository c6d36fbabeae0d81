//! Uploads: `POST /add` (spec: rest-api 13, adder 3).

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, EXPECT, HeaderMap, HeaderName, HeaderValue, TRAILER,
};
use http::{Response as HttpResponse, StatusCode};
use http_body::Frame;

use super::error::{Failure, document};
use super::{Answer, Call};
use crate::api::{self, ErrorKind, Items};
use crate::go::json;
use crate::http::face::ReplacesConfigured;
use crate::http::multipart::Multipart;
use crate::http::respond::{
    self, Body, BodyError, Lines, MAX_COLLECTED_BYTES, Response, X_STREAM_ERROR, header_safe,
};
use crate::types::{AddParams, AddedOutput};

/// Tells clients that outputs come while the upload is read.
const X_CHUNKED_OUTPUT: HeaderName = HeaderName::from_static("x-chunked-output");

/// `POST /add`
pub(super) async fn add(call: Call) -> Answer {
    let (head, body) = call.request.into_parts();
    let (upload, _) = Multipart::new(&head.headers, body).map_err(Failure::bad_request)?;
    let params = AddParams::from_query(&call.query).map_err(Failure::bad_request)?;
    let is_streamed = params.stream_channels;
    let mut outputs = call.api.add(params, Box::new(upload));
    let mut response = if !is_streamed {
        buffered(outputs, MAX_COLLECTED_BYTES).await?
    } else if head.headers.contains_key(EXPECT) {
        // the status at once takes the place of "100 Continue", which the reference never sends here
        streamed(None, outputs)
    } else {
        // what is the client's fault and known before any output is an ordinary refusal
        match outputs.next().await {
            Some(Err(error)) if error.kind == ErrorKind::BadRequest => return Err(error.into()),
            first => streamed(Some(first), outputs),
        }
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.extensions_mut().insert(ReplacesConfigured);
    Ok(response)
}

/// Outputs as they come; every failure is in the trailer.
fn streamed(first: Option<Option<api::Result<AddedOutput>>>, outputs: Items<AddedOutput>) -> Response {
    let mut response =
        HttpResponse::new(Body::frames(Outputs { first, outputs, lines: Lines::default(), is_done: false }));
    let headers = response.headers_mut();
    headers.insert(TRAILER, HeaderValue::from_static("X-Stream-Error"));
    headers.insert(X_CHUNKED_OUTPUT, HeaderValue::from_static("1"));
    response
}

/// One list of at most `limit` bytes at the end, or the first error alone.
async fn buffered(mut outputs: Items<AddedOutput>, limit: usize) -> Answer {
    let mut body = Vec::new();
    while let Some(output) = outputs.next().await {
        match output {
            Ok(output) => {
                body.push(if body.is_empty() { b'[' } else { b',' });
                json::write_into(&mut body, &output);
                if body.len() > limit {
                    return Err(Failure::bad_request(respond::too_large_to_collect(limit)));
                }
            }
            Err(error) if error.kind == ErrorKind::BadRequest => return Err(error.into()),
            Err(error) => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                return Ok(respond::document(status, document(status, &error.message)));
            }
        }
    }
    body.extend_from_slice(if body.is_empty() { b"null\n" } else { b"]\n" });
    Ok(respond::document(StatusCode::OK, body))
}

/// The frames of a streamed add. Unlike other streams it has no trailer line when all went well.
struct Outputs {
    /// What the stream has already given, if it was asked.
    first: Option<Option<api::Result<AddedOutput>>>,
    outputs: Items<AddedOutput>,
    lines: Lines,
    is_done: bool,
}

impl futures::Stream for Outputs {
    type Item = Result<Frame<Bytes>, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.is_done {
            return Poll::Ready(None);
        }
        let next = match this.first.take() {
            Some(first) => Poll::Ready(first),
            None => this.outputs.poll_next_unpin(cx),
        };
        next.map(|next| match next {
            Some(Ok(output)) => Some(Ok(Frame::data(this.lines.line(&output)))),
            Some(Err(error)) => {
                this.is_done = true;
                let trailers = HeaderMap::from_iter([(X_STREAM_ERROR, header_safe(&error.message))]);
                Some(Ok(Frame::trailers(trailers)))
            }
            None => {
                this.is_done = true;
                None
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_that_is_not_streamed_is_bounded() {
        let outputs = |n: usize| {
            let output = AddedOutput { name: "n".repeat(100), ..AddedOutput::default() };
            futures::stream::iter(vec![Ok(output); n]).boxed()
        };
        assert!(buffered(outputs(8), 1000).await.is_ok());
        assert!(buffered(outputs(9), 1000).await.is_err());
    }
}
