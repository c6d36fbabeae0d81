//! A file of the tree of which a part is written anew, as an upload.

use async_trait::async_trait;
use bytes::Bytes;
use cluster_compat::api::{self, Entry, EntryKind as PartKind, Upload};
use cluster_compat::types::Cid;
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};

use super::super::source::Source;
use super::super::{Error, unixfs};
use super::call::Files;

/// Zeros in one piece between the end of a file and the place that is written.
const ZEROS: Bytes = Bytes::from_static(&[0; 64 << 10]);

/// The content of a file of which a part is written anew: what was before it, the part, what was behind it.
pub(super) struct Content {
    source: Source,
    /// The file before, with its size.
    old: Option<(Cid, u64)>,
    before: BoxStream<'static, Result<Bytes, Error>>,
    files: Files,
    /// Bytes of the form that are still taken.
    left: u64,
    /// Where the next byte of the form goes.
    at: u64,
    after: Option<BoxStream<'static, Result<Bytes, Error>>>,
}

impl Content {
    pub(super) fn new(
        source: Source,
        old: Option<(Cid, u64)>,
        files: Files,
        offset: u64,
        count: u64,
    ) -> Self {
        let size = old.map_or(0, |(_, size)| size);
        let kept = match old {
            Some((cid, _)) => unixfs::bytes(source.clone(), cid, 0..offset.min(size)).boxed(),
            None => stream::empty().fuse().boxed(),
        };
        // bytes that nobody wrote are zero
        let gap = stream::unfold(offset.saturating_sub(size), |left| async move {
            let piece =
                ZEROS.slice(..usize::try_from(left).map_or(ZEROS.len(), |left| left.min(ZEROS.len())));
            (left > 0).then(|| (Ok(piece.clone()), left - piece.len() as u64))
        });
        Self {
            source,
            old,
            before: kept.chain(gap).fuse().boxed(),
            files,
            left: count,
            at: offset,
            after: None,
        }
    }

    async fn next(&mut self) -> api::Result<Option<Bytes>> {
        let failed = |cause: Error| api::Error::internal(cause.to_string());
        if let Some(piece) = self.before.next().await {
            return piece.map(Some).map_err(failed);
        }
        while self.after.is_none() {
            match self.files.read().await? {
                // the rest of the form is read, not taken
                Some(_) if self.left == 0 => {}
                Some(mut piece) => {
                    piece.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
                    self.left -= piece.len() as u64;
                    self.at = self.at.saturating_add(piece.len() as u64);
                    return Ok(Some(piece));
                }
                None => {
                    let rest = self.old.filter(|(_, size)| self.at < *size);
                    self.after = Some(match rest {
                        Some((cid, size)) => {
                            unixfs::bytes(self.source.clone(), cid, self.at..size).fuse().boxed()
                        }
                        None => stream::empty().fuse().boxed(),
                    });
                }
            }
        }
        match &mut self.after {
            Some(after) => after.next().await.transpose().map_err(failed),
            None => Ok(None),
        }
    }
}

/// That content as an upload of one file.
pub(super) struct Patched {
    pub(super) is_told: bool,
    pub(super) content: Content,
}

#[async_trait]
impl Upload for Patched {
    async fn next_entry(&mut self) -> api::Result<Option<Entry>> {
        let is_first = !std::mem::replace(&mut self.is_told, true);
        Ok(is_first.then(|| Entry { path: b"file".to_vec(), kind: PartKind::File, abspath: None }))
    }

    async fn read(&mut self) -> api::Result<Option<Bytes>> {
        self.content.next().await
    }
}
