//! Tests of whole imports.

mod behaviour;
mod blocks;
mod car_versions;
mod cars;
mod forced;
mod kubo;
mod rabin;
mod recipes;
mod rows;
mod shards;
mod uploads;
mod vectors;

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_compat::api::{self, Entry, EntryKind, Upload};
use cluster_compat::types::{AddParams, AddedOutput, Cid, PinOptions};
use futures::StreamExt;

use self::recipes::entry;
use super::collector::Collector;
use super::{Error, import};

/// The parameters of a request without a query.
fn params() -> AddParams {
    AddParams { options: PinOptions::default(), ..AddParams::default() }
}

/// What an upload of the tests holds.
#[derive(Debug, Clone)]
enum Item {
    File(&'static str, Bytes),
    Dir(&'static str),
}

fn file(path: &'static str, content: impl Into<Bytes>) -> Item {
    Item::File(path, content.into())
}

/// Entries in memory; content comes in pieces of several lengths.
struct Memory {
    entries: VecDeque<(Entry, Bytes)>,
    current: Bytes,
    n_reads: usize,
    /// What stands instead of the end.
    end: Option<api::Error>,
}

impl Memory {
    fn new(entries: impl IntoIterator<Item = (Entry, Bytes)>) -> Self {
        Self { entries: entries.into_iter().collect(), current: Bytes::new(), n_reads: 0, end: None }
    }

    fn of(items: &[Item]) -> Self {
        Self::new(items.iter().map(|item| match item {
            Item::File(path, content) => (entry(path.as_bytes(), EntryKind::File), content.clone()),
            Item::Dir(path) => (entry(path.as_bytes(), EntryKind::Directory), Bytes::new()),
        }))
    }
}

#[async_trait]
impl Upload for Memory {
    async fn next_entry(&mut self) -> api::Result<Option<Entry>> {
        match self.entries.pop_front() {
            Some((entry, content)) => {
                self.current = content;
                Ok(Some(entry))
            }
            None => self.end.take().map_or(Ok(None), Err),
        }
    }

    async fn read(&mut self) -> api::Result<Option<Bytes>> {
        if self.current.is_empty() {
            return Ok(None);
        }
        self.n_reads += 1;
        let n = [1, 4096, 65536, 300_000, 17][self.n_reads % 5].min(self.current.len());
        Ok(Some(self.current.split_to(n)))
    }
}

/// Imports into a collector; gives the events and the error at the end.
async fn add(params: AddParams, upload: Memory, host: &Arc<Collector>) -> (Vec<AddedOutput>, Option<Error>) {
    let mut events = Vec::new();
    let mut stream = import(params, Box::new(upload), host.clone());
    while let Some(item) = stream.next().await {
        match item {
            Ok(event) => events.push(event),
            Err(error) => return (events, Some(error)),
        }
    }
    (events, None)
}

/// Name, CID and size of events, a line each; byte counts as `name … bytes`.
fn lines(events: &[AddedOutput]) -> String {
    events
        .iter()
        .map(|event| match event.cid {
            Some(cid) => format!("{:?} {cid} {}\n", event.name, event.size),
            None => format!("{:?} … {}\n", event.name, event.bytes),
        })
        .collect()
}

/// CIDs that were pinned, in order.
fn pinned(host: &Collector) -> Vec<Cid> {
    host.kept().pins.iter().map(|pin| pin.cid).collect()
}
