//! Arguments that may be CIDs or content paths (spec: ipfs-proxy 6.1).

use crate::go::quote::quote;
use crate::types::parse_cid;

/// Reads `text` as a content path, or as a path below `/ipfs/`; the error is that of the first attempt.
pub(super) fn parse(text: &str) -> Result<String, String> {
    parse_path(text).or_else(|error| parse_path(&format!("/ipfs/{text}")).map_err(|_| error))
}

/// boxo's `path.NewPath`: cleaned, a final slash kept.
fn parse_path(text: &str) -> Result<String, String> {
    let invalid = |reason: &str| format!("invalid path {}: {reason}", quote(text));
    let segments = clean_segments(text);
    let ([namespace, root, ..], true) = (&segments[..], text.starts_with('/')) else {
        return Err(invalid("path does not have enough components"));
    };
    match *namespace {
        "ipfs" | "ipld" => {
            parse_cid(root).map_err(|error| invalid(&error))?;
        }
        "ipns" => {}
        other => return Err(invalid(&format!("unknown namespace: {}", quote(other)))),
    }
    let end = if text.ends_with('/') { "/" } else { "" };
    Ok(format!("/{}{end}", segments.join("/")))
}

/// The segments of Go's `path.Clean`; those of a path without a leading slash are of no interest.
fn clean_segments(text: &str) -> Vec<&str> {
    let mut segments = Vec::new();
    for segment in text.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN";

    #[test]
    fn cids_and_paths_are_accepted() {
        for (text, path) in [
            (CID.to_string(), format!("/ipfs/{CID}")),
            (format!("/{CID}"), format!("/ipfs/{CID}")),
            (format!("/ipfs/{CID}/"), format!("/ipfs/{CID}/")),
            (format!("/ipld/{CID}"), format!("/ipld/{CID}")),
            (format!("{CID}/a//b"), format!("/ipfs/{CID}/a/b")),
            ("/ipns/docs.ipfs.tech/x".to_string(), "/ipns/docs.ipfs.tech/x".to_string()),
        ] {
            assert_eq!(parse(&text), Ok(path));
        }
    }

    #[test]
    fn what_is_none_is_told_as_the_reference_does() {
        let few = "path does not have enough components";
        assert_eq!(parse("").unwrap_err(), format!("invalid path \"\": {few}"));
        assert_eq!(parse("foo").unwrap_err(), format!("invalid path \"foo\": {few}"));
        assert_eq!(parse(&format!("ipfs/{CID}")).unwrap_err(), format!("invalid path \"ipfs/{CID}\": {few}"));
        assert_eq!(
            parse(&format!("ipfs://{CID}")).unwrap_err(),
            format!("invalid path \"ipfs://{CID}\": {few}")
        );
        assert_eq!(parse("/foo/bar").unwrap_err(), "invalid path \"/foo/bar\": unknown namespace: \"foo\"");
        let error = parse("/ipfs/foo").unwrap_err();
        assert!(error.starts_with("invalid path \"/ipfs/foo\": invalid cid: "), "{error}");
        assert_eq!(parse("<b>&\"").unwrap_err(), format!("invalid path \"<b>&\\\"\": {few}"));
    }
}
