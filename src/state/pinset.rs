//! Reading pins: one by one, page by page, as a stream.

use std::ops::ControlFlow;
use std::sync::Arc;

use cluster_compat::types::{Cid, Pin};
use futures::stream::{self, BoxStream, StreamExt};
use tokio::task::JoinHandle;
use tracing::{error, warn};

use super::Error;
use crate::store::kv::read;
use crate::store::{Reads, Table};
use crate::wire::{key, pin_pb};

/// Pins per page of a stream: a few hundred microseconds of one snapshot. A stream holds at most two pages.
const PAGE_PINS: usize = 512;

/// The pinset as it stands; a cheap handle that always reads the present.
#[derive(Clone)]
pub struct Pinset {
    source: Arc<dyn Reads>,
}

/// Where a page ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(Vec<u8>);

impl Pinset {
    /// The pinset in [`Table::Values`] of a source.
    pub fn new(source: Arc<dyn Reads>) -> Self {
        Self { source }
    }

    /// A pin, if it is part of the pinset. Takes microseconds.
    pub fn get(&self, cid: &Cid) -> Result<Option<Pin>, Error> {
        read(&*self.source, |view| {
            let Some(value) = view.get(Table::Values, key::of_cid(cid).as_bytes())? else { return Ok(None) };
            let pin = pin_pb::decode_as(*cid, value);
            pin.map(Some).map_err(|cause| Error::Pin { cid: Box::new(*cid), cause })
        })
    }

    /// Whether a CID is part of the pinset. Takes microseconds.
    pub fn contains(&self, cid: &Cid) -> Result<bool, Error> {
        read(&*self.source, |view| Ok(view.has(Table::Values, key::of_cid(cid).as_bytes())?))
    }

    /// Up to `limit` pins after a cursor, and the cursor for the next page; `None` at the end. Blocks.
    pub fn page(&self, after: Option<Cursor>, limit: usize) -> Result<(Vec<Pin>, Option<Cursor>), Error> {
        let mut pins = Vec::with_capacity(limit.min(PAGE_PINS));
        let mut last = None;
        read(&*self.source, |view| {
            let after = after.as_ref().map(|cursor| cursor.0.as_slice());
            view.scan(Table::Values, b"", after, &mut |key, value| {
                pins.extend(read_pin(key, value));
                if pins.len() < limit {
                    return ControlFlow::Continue(());
                }
                last = Some(Cursor(key.to_vec()));
                ControlFlow::Break(())
            })?;
            Ok::<_, Error>(())
        })?;
        Ok((pins, last))
    }

    /// All pins in the order of the store.
    pub fn stream(&self) -> BoxStream<'static, Result<Pin, Error>> {
        let pages = self.pages().flat_map(|page| match page {
            Ok(pins) => stream::iter(pins).map(Ok).left_stream(),
            Err(cause) => stream::iter([Err(cause)]).right_stream(),
        });
        pages.boxed()
    }

    /// All pins in the order of the store, a page at a time: for those who work on many at once. Pages are read
    /// ahead, one at a time, on blocking threads.
    pub fn pages(&self) -> BoxStream<'static, Result<Vec<Pin>, Error>> {
        let pages = stream::unfold(Some((self.clone(), None::<JoinHandle<Page>>)), |reading| async move {
            let (pinset, ahead) = reading?;
            let ahead = ahead.unwrap_or_else(|| pinset.read_ahead(None));
            match ahead.await {
                Ok(Ok((pins, cursor))) => {
                    let next = cursor.map(|cursor| (pinset.clone(), Some(pinset.read_ahead(Some(cursor)))));
                    Some((Ok(pins), next))
                }
                Ok(Err(cause)) => Some((Err(cause), None)),
                Err(cause) => Some((Err(Error::Aborted(cause.to_string())), None)),
            }
        });
        pages.boxed()
    }

    fn read_ahead(&self, after: Option<Cursor>) -> JoinHandle<Page> {
        let pinset = self.clone();
        tokio::task::spawn_blocking(move || pinset.page(after, PAGE_PINS))
    }
}

type Page = Result<(Vec<Pin>, Option<Cursor>), Error>;

fn read_pin(key: &[u8], value: &[u8]) -> Option<Pin> {
    let Some(cid) = key::to_cid(key) else {
        warn!(target: "dsstate", "bad key (ignoring). key: {} error: not the base32 of a CID", key.escape_ascii());
        return None;
    };
    match pin_pb::decode_as(cid, value) {
        Ok(pin) => Some(pin),
        Err(cause) => {
            error!(target: "dsstate", "error deserializing pin ({}): {cause}", key.escape_ascii());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Error as StoreError, Mem, kv};

    fn cid(n: u64) -> Cid {
        crate::wire::crdt_pb::node_cid(&n.to_be_bytes())
    }

    fn pinset(n_pins: u64) -> (Arc<Mem>, Pinset) {
        let store = Arc::new(Mem::new());
        kv::write(&*store, |t| {
            for n in 0..n_pins {
                let value = [0x32, 0];
                t.put(Table::Values, key::of_cid(&cid(n)).as_bytes(), &value)?;
            }
            t.put(Table::Values, b"/NOTACID", b"")?;
            t.put(Table::Values, key::of_cid(&cid(n_pins)).as_bytes(), b"\xff")?;
            Ok::<_, StoreError>(())
        })
        .unwrap();
        (Arc::clone(&store), Pinset::new(store))
    }

    #[tokio::test]
    async fn a_stream_lists_every_readable_pin_once_in_store_order() {
        let (_, pinset) = pinset(2000);
        let listed: Vec<_> = pinset.stream().map(|pin| key::of_cid(&pin.unwrap().cid)).collect().await;
        let mut expected: Vec<_> = (0..2000).map(|n| key::of_cid(&cid(n))).collect();
        expected.sort();
        assert_eq!(listed, expected);
    }

    #[test]
    fn pages_meet_without_a_gap() {
        let (_, pinset) = pinset(10);
        let mut cids = Vec::new();
        let mut cursor = None;
        loop {
            let (pins, next) = pinset.page(cursor, 3).unwrap();
            cids.extend(pins.into_iter().map(|pin| pin.cid));
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(cids.len(), 10);
    }

    #[test]
    fn an_unreadable_pin_is_an_error_when_asked_for() {
        let (_, pinset) = pinset(1);
        assert!(pinset.get(&cid(0)).unwrap().is_some());
        assert!(pinset.contains(&cid(1)).unwrap());
        assert!(matches!(pinset.get(&cid(1)), Err(Error::Pin { .. })));
        assert!(pinset.get(&cid(2)).unwrap().is_none());
    }
}
