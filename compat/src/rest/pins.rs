//! Adding and removing pins, by CID and by path.

use http::StatusCode;

use super::error::Failure;
use super::{Answer, Call};
use crate::go::quote::quote;
use crate::http::respond;
use crate::types::{Cid, Pin, PinOptions, parse_cid};

/// `POST /pins/{hash}`
pub(super) async fn pin(call: Call) -> Answer {
    let (cid, options) = target(&call)?;
    let pin = call.api.pin(Pin::with_options(cid, options)).await?;
    Ok(respond::json(StatusCode::OK, &pin))
}

/// `DELETE /pins/{hash}`
pub(super) async fn unpin(call: Call) -> Answer {
    let (cid, _) = target(&call)?;
    let pin = call.api.unpin(cid).await?;
    Ok(respond::json(StatusCode::OK, &pin))
}

/// `POST /pins/{keyType}/{path}`
pub(super) async fn pin_path(call: Call) -> Answer {
    let (path, options) = path_target(&call)?;
    let pin = call.api.pin_path(&path, options).await?;
    Ok(respond::json(StatusCode::OK, &pin))
}

/// `DELETE /pins/{keyType}/{path}`
pub(super) async fn unpin_path(call: Call) -> Answer {
    let (path, _) = path_target(&call)?;
    let pin = call.api.unpin_path(&path).await?;
    Ok(respond::json(StatusCode::OK, &pin))
}

/// The CID of a path and the options of its query. Options are read even where nothing uses them, because
/// bad ones are refused everywhere.
pub(super) fn target(call: &Call) -> Result<(Cid, PinOptions), Failure> {
    let cid = parse_cid(call.params.get("hash"))
        .map_err(|error| Failure::bad_request(format!("error decoding Cid: {error}")))?;
    let options = PinOptions::from_query(&call.query).map_err(Failure::bad_request)?;
    Ok((cid, options))
}

/// The IPFS path of a path and the options of its query.
fn path_target(call: &Call) -> Result<(String, PinOptions), Failure> {
    let rest = call.params.get("path");
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let path = parse_path(call.params.get("keyType"), rest)
        .map_err(|error| Failure::bad_request(format!("error parsing path: {error}")))?;
    let options = PinOptions::from_query(&call.query).map_err(Failure::bad_request)?;
    Ok((path, options))
}

/// Checks an IPFS path as boxo does and returns it cleaned.
fn parse_path(namespace: &str, rest: &str) -> Result<String, String> {
    let whole = format!("/{namespace}/{rest}");
    let invalid = |error: String| format!("invalid path {}: {error}", quote(&whole));
    let mut segments: Vec<&str> = Vec::new();
    for segment in whole.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let (Some(&namespace), Some(&root)) = (segments.first(), segments.get(1)) else {
        return Err(invalid("path does not have enough components".into()));
    };
    match namespace {
        "ipfs" | "ipld" => drop(parse_cid(root).map_err(invalid)?),
        "ipns" => {}
        other => return Err(invalid(format!("unknown namespace: {}", quote(other)))),
    }
    let slash = if whole.ends_with('/') { "/" } else { "" };
    Ok(format!("/{}{slash}", segments.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "bafybeigxhyyshaovknmxuqstphof2nyek54wqgvu5om5fkwzklsb4se63u";

    #[test]
    fn paths_are_checked_as_boxo_checks_them() {
        let cases = [
            ("ipfs", format!("{CID}/a/b"), Ok(format!("/ipfs/{CID}/a/b"))),
            ("ipns", "example.org".into(), Ok("/ipns/example.org".into())),
            ("ipns", " ".into(), Ok("/ipns/ ".into())),
            (
                "ipfs",
                "abc".into(),
                Err(r#"invalid path "/ipfs/abc": invalid cid: selected encoding not supported"#.into()),
            ),
            (
                "ipns",
                String::new(),
                Err(r#"invalid path "/ipns/": path does not have enough components"#.into()),
            ),
            (
                "ipld",
                format!("{CID} /x"),
                Err(format!(
                    r#"invalid path "/ipld/{CID} /x": invalid cid: illegal base32 data at input byte 58"#
                )),
            ),
        ];
        for (namespace, rest, expected) in cases {
            assert_eq!(parse_path(namespace, &rest), expected);
        }
    }
}
