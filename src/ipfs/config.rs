//! `resolve` and `config/show`.

use cluster_compat::go::query::escape;
use cluster_compat::go::quote::quote;
use cluster_compat::types::{Cid, parse_cid};
use serde_json::Value;
use tracing::error;

use super::json::{self, Text};
use super::{Client, Error};

json::object! {
    /// `resolve`.
    ResolveReply {
        path: Text<'a> = "Path",
    }
}

impl Client {
    /// The CID behind a path, or behind the root of what the path leads to.
    pub async fn resolve(&self, path: &str) -> Result<Cid, Error> {
        let parsed = ContentPath::parse(path).or_else(|_| ContentPath::parse(&format!("/ipfs/{path}")));
        let parsed = parsed.map_err(|text| {
            error!(target: "ipfshttp", "could not parse path: {text}");
            Error::Argument(text)
        })?;
        if let (Some(root), 2) = (parsed.root, parsed.n_segments) {
            return Ok(root);
        }
        let request = format!("resolve?arg={}", escape(&parsed.text));
        let body = self.inner.daemon.call(&request, self.request_limit()).await?;
        let reply: ResolveReply<'_> = json::document(&body).map_err(|text| {
            error!(target: "ipfshttp", "could not unmarshal response: {text}");
            Error::Reply(text)
        })?;
        let resolved = ContentPath::parse(&reply.path.0).map_err(|text| {
            error!(target: "ipfshttp", "invalid path in response: {text}");
            Error::Reply(text)
        })?;
        resolved.root.ok_or_else(|| {
            let text = format!("invalid path {}: path was expected to be immutable", quote(&resolved.text));
            error!(target: "ipfshttp", "resolved path is mutable: {text}");
            Error::Reply(text)
        })
    }

    /// A value of the daemon's configuration: `Section`, or `Section/Key`.
    pub async fn config_key(&self, key: &str) -> Result<Value, Error> {
        let body = self.inner.daemon.call("config/show", self.request_limit()).await?;
        let Value::Object(mut sections) = json::document::<Value>(&body).map_err(Error::Reply)? else {
            return Err(Error::Reply("the daemon's configuration is not an object".into()));
        };
        let missing = || Error::Argument("key not found in configuration".into());
        let (section, rest) = match key.split_once('/') {
            Some((section, rest)) => (section, Some(rest)),
            None => (key, None),
        };
        let value = sections.remove(section).ok_or_else(missing)?;
        match (value, rest) {
            (value, None) => Ok(value),
            (Value::Object(mut keys), Some(rest)) => keys.remove(rest).ok_or_else(missing),
            (_, Some(_)) => Err(Error::Argument("invalid path".into())),
        }
    }
}

/// A content path, cleaned as boxo does.
#[derive(Debug)]
struct ContentPath {
    text: String,
    n_segments: usize,
    /// Absent under `/ipns`, which may change.
    root: Option<Cid>,
}

impl ContentPath {
    /// The error is boxo's text. (Go: boxo `path/path.go`, `NewPath`)
    fn parse(text: &str) -> Result<Self, String> {
        let invalid = |cause: &str| format!("invalid path {}: {cause}", quote(text));
        let mut segments: Vec<&str> = Vec::new();
        for segment in text.split('/') {
            match segment {
                "" | "." => {}
                ".." => {
                    segments.pop();
                }
                _ => segments.push(segment),
            }
        }
        if !text.starts_with('/') || segments.len() < 2 {
            return Err(invalid("path does not have enough components"));
        }
        let root = match segments[0] {
            "ipfs" | "ipld" => Some(parse_cid(segments[1]).map_err(|cause| invalid(&cause))?),
            "ipns" => None,
            namespace => return Err(invalid(&format!("unknown namespace: {}", quote(namespace)))),
        };
        let mut cleaned = format!("/{}", segments.join("/"));
        if text.ends_with('/') {
            cleaned.push('/');
        }
        Ok(Self { text: cleaned, n_segments: segments.len(), root })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "bafkreic5vdzd33hts6yt6t2vw35yuymtmi4l7yeo3hmqcezjoty35tgelq";

    #[test]
    fn paths_are_cleaned_and_refused_as_boxo_does() {
        let path = ContentPath::parse(&format!("/ipfs//{CID}/./a/../b c/")).unwrap();
        assert_eq!((path.text, path.n_segments), (format!("/ipfs/{CID}/b c/"), 3));
        assert_eq!(ContentPath::parse(&format!("/ipld/{CID}/")).unwrap().n_segments, 2);
        assert!(ContentPath::parse("/ipns/docs.ipfs.tech/x").unwrap().root.is_none());
        for (text, expected) in [
            ("", "invalid path \"\": path does not have enough components"),
            ("/ipfs/", "invalid path \"/ipfs/\": path does not have enough components"),
            ("/http/a", "invalid path \"/http/a\": unknown namespace: \"http\""),
        ] {
            assert_eq!(ContentPath::parse(text).unwrap_err(), expected);
        }
    }
}
