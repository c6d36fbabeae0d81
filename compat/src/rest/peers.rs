//! This peer, the cluster's peers.

use std::fmt;

use http::header::CONNECTION;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};

use super::error::{Failure, document};
use super::{Answer, Call};
use crate::http::respond;
use crate::types::parse_peer_id;

/// Longest body of `POST /peers`; a peer id has some fifty characters.
const MAX_BODY_BYTES: usize = 64 << 10;

/// `GET /id`
pub(super) async fn id(call: Call) -> Answer {
    Ok(respond::json(StatusCode::OK, &call.api.id().await?))
}

/// `GET /version`
pub(super) async fn version(call: Call) -> Answer {
    Ok(respond::json(StatusCode::OK, &call.api.version().await?))
}

/// `GET /peers`
pub(super) async fn list(call: Call) -> Answer {
    Ok(respond::stream(call.api.peers(), document).await)
}

/// `POST /peers`
pub(super) async fn add(call: Call) -> Answer {
    let bad_body = || Failure::bad_request("error decoding request body");
    let Ok(body) = Limited::new(call.request.into_body(), MAX_BODY_BYTES).collect().await else {
        // what is left of the body cannot be told from a next request
        let mut response = bad_body().into_response();
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return Ok(response);
    };
    // only the first value counts, whatever follows it
    let first = serde_json::Deserializer::from_slice(&body.to_bytes()).into_iter::<AddPeer>().next();
    let request = first.and_then(Result::ok).ok_or_else(bad_body)?;
    let peer = parse_peer_id(&request.peer_id).map_err(|_| Failure::bad_request("error decoding peer_id"))?;
    Ok(respond::json(StatusCode::OK, &call.api.peer_add(peer).await?))
}

/// `DELETE /peers/{peer}`
pub(super) async fn remove(call: Call) -> Answer {
    let peer = parse_peer_id(call.params.get("peer"))
        .map_err(|error| Failure::bad_request(format!("error decoding Peer ID: {error}")))?;
    call.api.peer_rm(peer).await?;
    Ok(respond::empty_json(StatusCode::NO_CONTENT))
}

/// The body of `POST /peers`. Names of fields match whatever their case, the last one counts, and `null`
/// leaves what was there: the habits of Go's decoder.
#[derive(Default)]
struct AddPeer {
    peer_id: String,
}

impl<'de> Deserialize<'de> for AddPeer {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AddPeerVisitor)
    }
}

struct AddPeerVisitor;

impl<'de> Visitor<'de> for AddPeerVisitor {
    type Value = AddPeer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with peer_id")
    }

    fn visit_unit<E>(self) -> Result<AddPeer, E> {
        Ok(AddPeer::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AddPeer, A::Error> {
        let mut request = AddPeer::default();
        while let Some(key) = map.next_key::<String>()? {
            if !key.eq_ignore_ascii_case("peer_id") {
                map.next_value::<IgnoredAny>()?;
            } else if let Some(peer_id) = map.next_value()? {
                request.peer_id = peer_id;
            }
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read_as_gos_decoder_reads_them() {
        let cases = [
            (r#"{"peer_id":"a"}"#, Some("a")),
            (r#"{"PEER_ID":"a","x":[1],"peer_id":"b"} trailing"#, Some("b")),
            (r#"{"peer_id":null}"#, Some("")),
            ("null", Some("")),
            ("{}", Some("")),
            ("", None),
            ("x", None),
            ("[]", None),
            (r#"{"peer_id":1}"#, None),
            (r#"{"peer_id":"a""#, None),
        ];
        for (body, expected) in cases {
            let first = serde_json::Deserializer::from_str(body).into_iter::<AddPeer>().next();
            let peer = first.and_then(Result::ok).map(|request| request.peer_id);
            assert_eq!(peer.as_deref(), expected, "{body}");
        }
    }
}
