//! Paths: `/ipfs/CID/a/b`, and what they lead to. Texts of errors are boxo's.

use bytes::Bytes;
use cluster_compat::go::quote::quote;
use cluster_compat::types::{Cid, parse_cid};

use super::ipld::pb::{Kind, Node, UnixFs};
use super::ipld::{self, Value};
use super::source::Source;
use super::{Error, hamt};

/// How its first component says a path is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Namespace {
    /// Files.
    Ipfs,
    /// The data model.
    Ipld,
}

impl Namespace {
    fn word(self) -> &'static str {
        match self {
            Self::Ipfs => "ipfs",
            Self::Ipld => "ipld",
        }
    }
}

/// A path that was parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Path {
    Immutable {
        namespace: Namespace,
        root: Cid,
        segments: Vec<String>,
    },
    /// Something that has to be resolved first: its name and the rest.
    Mutable {
        name: String,
        segments: Vec<String>,
    },
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let segments = match self {
            Self::Immutable { namespace, root, segments } => {
                write!(f, "/{}/{root}", namespace.word())?;
                segments
            }
            Self::Mutable { name, segments } => {
                write!(f, "/ipns/{name}")?;
                segments
            }
        };
        segments.iter().try_for_each(|segment| write!(f, "/{segment}"))
    }
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) namespace: Namespace,
    /// The last block.
    pub(super) cid: Cid,
    /// The way within it.
    pub(super) remainder: Vec<String>,
}

impl Resolved {
    /// As a path again.
    pub(super) fn to_path(&self) -> String {
        let mut text = format!("/{}/{}", self.namespace.word(), self.cid);
        for segment in &self.remainder {
            text.push('/');
            text.push_str(segment);
        }
        text
    }
}

/// Parses a path, or a CID alone; the error is that of the text as it came. (Go: `cmdutils.PathOrCidPath`)
pub(super) fn parse(text: &str) -> Result<Path, Error> {
    strict(text).or_else(|cause| strict(&format!("/ipfs/{text}")).map_err(|_| cause))
}

fn invalid(text: &str, why: &str) -> Error {
    Error::message(format!("invalid path {}: {why}", quote(text)))
}

fn strict(text: &str) -> Result<Path, Error> {
    let mut segments: Vec<String> = Vec::new();
    for segment in text.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment.to_owned()),
        }
    }
    if !text.starts_with('/') || segments.len() < 2 {
        return Err(invalid(text, "path does not have enough components"));
    }
    let rest = segments.split_off(2);
    let namespace = match segments[0].as_str() {
        "ipfs" => Namespace::Ipfs,
        "ipld" => Namespace::Ipld,
        "ipns" => return Ok(Path::Mutable { name: segments.remove(1), segments: rest }),
        other => return Err(invalid(text, &format!("unknown namespace: {}", quote(other)))),
    };
    let root = parse_cid(&segments[1]).map_err(|cause| invalid(text, &cause))?;
    Ok(Path::Immutable { namespace, root, segments: rest })
}

/// Follows a path.
pub(super) async fn resolve(source: &Source, path: &Path) -> Result<Resolved, Error> {
    let followed;
    let (namespace, root, segments) = match path {
        Path::Immutable { namespace, root, segments } => (*namespace, *root, segments),
        Path::Mutable { name, segments } => {
            let mut text = source.follow(name).await?;
            for segment in segments {
                text.push('/');
                text.push_str(segment);
            }
            followed = parse(&text)?;
            match &followed {
                Path::Immutable { namespace, root, segments } => (*namespace, *root, segments),
                Path::Mutable { .. } => return Err(Error::message("could not resolve name")),
            }
        }
    };
    let mut cid = root;
    let mut at = 0;
    while at < segments.len() {
        let block = source.block(cid).await?;
        let found = match (namespace, cid.codec()) {
            (Namespace::Ipfs, ipld::DAG_PB) => {
                let link = link(source, cid, block, &segments[at]).await?;
                at += 1;
                Found::Link(link)
            }
            _ => within(cid, &block, segments, &mut at)?,
        };
        match found {
            Found::Link(next) => cid = next,
            Found::Value(start) => {
                return Ok(Resolved { namespace, cid, remainder: segments[start..].to_vec() });
            }
        }
    }
    Ok(Resolved { namespace, cid, remainder: Vec::new() })
}

enum Found {
    Link(Cid),
    /// Something in the block; where the way within it begins.
    Value(usize),
}

fn no_link(name: &str, cid: Cid) -> Error {
    Error::message(format!("no link named {} under {cid}", quote(name)))
}

/// Why there is no way on. (Go: `go-ipld-prime`, its words)
fn no_step(place: &Value, segment: &str, cid: Cid) -> Error {
    let kind = place.kind();
    match place {
        Value::List(_) if segment.parse::<i64>().is_err() => Error::message(format!(
            "invalid segment for lookup on a list: {0}: strconv.ParseInt: parsing {0}: invalid syntax",
            quote(segment)
        )),
        Value::Map(_) | Value::List(_) => no_link(segment, cid),
        _ => wrong_kind(kind, kind),
    }
}

fn wrong_kind(node: &str, kind: &str) -> Error {
    Error::message(format!(
        "func called on wrong kind: \"LookupBySegment\" called on a {node} node (kind: {kind}), but only makes sense on map \
         or list"
    ))
}

/// Follows segments through the data model of one block until a link or the end.
fn within(cid: Cid, block: &[u8], segments: &[String], at: &mut usize) -> Result<Found, Error> {
    let value = ipld::value(&cid, block).map_err(Error::message)?;
    let start = *at;
    let mut place = &value;
    while let Some(segment) = segments.get(*at) {
        place = place.step(segment).ok_or_else(|| no_step(place, segment, cid))?;
        *at += 1;
        if let Value::Link(next) = place {
            return Ok(Found::Link(*next));
        }
    }
    Ok(Found::Value(start))
}

/// The entry of a directory, or the link of another dag-pb node, that has a name.
async fn link(source: &Source, cid: Cid, block: Bytes, name: &str) -> Result<Cid, Error> {
    let node = Node::decode(&block).map_err(Error::message)?;
    let unixfs = node.data.as_deref().and_then(|data| UnixFs::decode(data).ok());
    let found = match unixfs {
        Some(unixfs) if unixfs.kind == Kind::Hamt => hamt::find(source, &node, &unixfs, name).await?,
        Some(unixfs) if matches!(unixfs.kind, Kind::File | Kind::Raw) => {
            return Err(wrong_kind("data.Bytes", "bytes"));
        }
        _ => node.link(name).map(|link| link.cid),
    };
    found.ok_or_else(|| no_link(name, cid))
}

/// The value that the remainder of a path leads to.
pub(super) fn value_at(value: &Value, remainder: &[String]) -> Result<Value, Error> {
    let mut place = value;
    for segment in remainder {
        place = place
            .step(segment)
            .ok_or_else(|| Error::message(format!("no such path segment {}", quote(segment))))?;
    }
    Ok(place.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_parsed_and_refused_as_boxo_does() {
        let cid = "QmV4STRyo1dygxGhZcr877TQ1M9AZuXhfm6HrXjxW1TYNP";
        let root = parse_cid(cid).unwrap();
        let path = |segments: &[&str]| Path::Immutable {
            namespace: Namespace::Ipfs,
            root,
            segments: segments.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(parse(cid).unwrap(), path(&[]));
        assert_eq!(parse(&format!("/ipfs/{cid}/a//b/")).unwrap(), path(&["a", "b"]));
        assert_eq!(parse(&format!("{cid}/a/../c")).unwrap(), path(&["c"]));
        for (text, words) in [
            ("foo", "invalid path \"foo\": path does not have enough components"),
            ("", "invalid path \"\": path does not have enough components"),
            ("/nope/x", "invalid path \"/nope/x\": unknown namespace: \"nope\""),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), words);
        }
        assert!(matches!(parse("/ipns/foo/x").unwrap(), Path::Mutable { .. }));
    }
}
