//! IPFS paths, as boxo's `path.NewPath` reads them.

use crate::go::quote::quote;
use crate::types::parse_cid;

/// Reads an argument that is a CID or a path; gives the path as the API takes it. The error is Go's text, about
/// the argument with `/ipfs/` before it, whatever it began with.
pub fn parse_path(argument: &str) -> Result<String, String> {
    new_path(argument).or_else(|_| new_path(&format!("/ipfs/{argument}")))
}

/// A path in canonical form.
fn new_path(text: &str) -> Result<String, String> {
    let invalid = |cause: &str| Err(format!("invalid path {}: {cause}", quote(text)));
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    let [namespace, root, ..] = segments[..] else {
        return invalid("path does not have enough components");
    };
    if !text.starts_with('/') {
        return invalid("path does not have enough components");
    }
    match namespace {
        "ipfs" | "ipld" => {
            if let Err(cause) = parse_cid(root) {
                return invalid(&cause);
            }
        }
        "ipns" => {}
        other => return invalid(&format!("unknown namespace: {}", quote(other))),
    }
    let slash = if text.ends_with('/') { "/" } else { "" };
    Ok(format!("/{}{slash}", segments.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN";

    #[test]
    fn cids_and_paths_are_accepted() {
        assert_eq!(parse_path(CID).unwrap(), format!("/ipfs/{CID}"));
        assert_eq!(parse_path(&format!("/ipld/{CID}/a//b/")).unwrap(), format!("/ipld/{CID}/a/b/"));
        assert_eq!(parse_path(&format!("{CID}/a")).unwrap(), format!("/ipfs/{CID}/a"));
        assert_eq!(parse_path("/ipns/example.org").unwrap(), "/ipns/example.org");
    }

    /// Recorded from 1.1.6, `ctl-bad-arguments.json`.
    #[test]
    fn errors_speak_of_the_argument_below_ipfs() {
        for (argument, error) in [
            ("", r#"invalid path "/ipfs/": path does not have enough components"#),
            ("x", r#"invalid path "/ipfs/x": invalid cid: cid too short"#),
            ("/ipfs/", r#"invalid path "/ipfs//ipfs/": invalid cid: selected encoding not supported"#),
            ("/ipfs/x", r#"invalid path "/ipfs//ipfs/x": invalid cid: selected encoding not supported"#),
        ] {
            assert_eq!(parse_path(argument).unwrap_err(), error);
        }
    }
}
