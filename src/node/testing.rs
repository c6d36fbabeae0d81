//! Blocks and repositories for the tests of this room.

use bytes::Bytes;
use cluster_compat::types::{Block, Cid};
use multihash_codetable::{Code, MultihashDigest as _};

use super::ipld::{self, Value};
use super::repo::Repo;

/// A repository of its own.
pub(super) fn repo() -> (tempfile::TempDir, Repo) {
    let folder = tempfile::tempdir().unwrap();
    let repo = Repo::open(folder.path(), 1 << 30).unwrap();
    (folder, repo)
}

/// A raw block.
pub(super) fn block(data: &[u8]) -> Block {
    named(ipld::RAW, data)
}

/// A DAG-CBOR list of links.
pub(super) fn node(links: &[Cid]) -> Block {
    let value = Value::List(links.iter().map(|cid| Value::Link(*cid)).collect());
    named(ipld::DAG_CBOR, &ipld::encode_cbor(&value))
}

/// A block of some codec.
pub(super) fn named(codec: u64, data: &[u8]) -> Block {
    let cid = Cid::new_v1(codec, Code::Sha2_256.digest(data));
    Block { cid, data: Bytes::copy_from_slice(data), is_spare: false }
}
