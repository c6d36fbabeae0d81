//! What adding costs without a daemon: `cargo bench --bench add`. Blocks are taken and forgotten.
//!
//! The last lines give memory per entry of a large directory.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark stops where something fails")]

use std::alloc::System;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cluster_compat::api::{self, Entry, EntryKind, Upload};
use cluster_compat::types::{AddParams, Cid, Layout, PeerId, Pin, PinOptions};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use futures::StreamExt;
use ipfs_cluster::adder::{Batch, Error, Host, import};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::sync::{mpsc, oneshot};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes of the large file.
const FILE_BYTES: usize = 64 << 20;

/// Length of the pieces an upload arrives in.
const PIECE_BYTES: usize = 64 << 10;

/// Files of a folder, and their length.
const N_FILES: usize = 10_000;
const SMALL_BYTES: usize = 4096;

fn main() {
    divan::main();
    if std::env::args().any(|argument| argument == "--bench") && std::env::args().count() <= 2 {
        memory();
    }
}

/// Takes blocks and pins, and forgets them.
struct Nowhere(PeerId);

#[async_trait]
impl Host for Nowhere {
    fn local_peer(&self) -> PeerId {
        self.0
    }

    async fn allocate(&self, _: &PinOptions) -> Result<Vec<PeerId>, Error> {
        Ok(vec![self.0])
    }

    async fn put_blocks(&self, _: &[PeerId], mut blocks: mpsc::Receiver<Batch>) -> Result<(), Error> {
        while blocks.recv().await.is_some() {}
        Ok(())
    }

    async fn pin(&self, pin: Pin) -> Result<Pin, Error> {
        Ok(pin)
    }

    async fn is_pinned(&self, _: &Cid) -> Result<bool, Error> {
        Ok(false)
    }

    fn take_back(&self, _: Vec<Cid>) -> oneshot::Receiver<()> {
        oneshot::channel().1
    }
}

/// Files of one length in one folder, or a single one.
struct Files {
    n: usize,
    len: usize,
    next: usize,
    left: usize,
    piece: Bytes,
}

impl Files {
    fn new(n: usize, len: usize) -> Self {
        // no two chunks alike: each file differs in its first bytes, and no period of the pieces is a chunk
        let piece: Vec<u8> =
            (0..PIECE_BYTES as u32 + 1).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        Self { n, len, next: 0, left: 0, piece: piece.into() }
    }
}

#[async_trait]
impl Upload for Files {
    async fn next_entry(&mut self) -> api::Result<Option<Entry>> {
        if self.next == self.n {
            return Ok(None);
        }
        let path = format!("folder/file{:07}", self.next).into_bytes();
        self.next += 1;
        self.left = self.len;
        Ok(Some(Entry { path, kind: EntryKind::File, abspath: None }))
    }

    async fn read(&mut self) -> api::Result<Option<Bytes>> {
        if self.left == 0 {
            return Ok(None);
        }
        if self.left == self.len && self.n > 1 {
            self.left = 0;
            let mut bytes = self.piece[..self.len].to_vec();
            bytes[..8].copy_from_slice(&self.next.to_le_bytes());
            return Ok(Some(bytes.into()));
        }
        let n = self.left.min(self.piece.len());
        self.left -= n;
        Ok(Some(self.piece.slice(..n)))
    }
}

/// Imports; the number of events.
fn add(params: AddParams, files: Files) -> usize {
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    let peer = libp2p_peer();
    runtime.block_on(async {
        let outputs = import(params, Box::new(files), Arc::new(Nowhere(peer)));
        outputs.map(|output| output.unwrap()).count().await
    })
}

fn libp2p_peer() -> PeerId {
    cluster_compat::types::parse_peer_id("12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt").unwrap()
}

#[divan::bench(args = ["size-262144", "size-1048576", "rabin", "buzhash"], sample_count = 5, sample_size = 1)]
fn large_file(bencher: Bencher<'_, '_>, chunker: &str) {
    bencher.counter(BytesCount::new(FILE_BYTES)).bench_local(|| {
        let params = AddParams { chunker: chunker.into(), ..AddParams::default() };
        add(params, Files::new(1, FILE_BYTES))
    });
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn large_file_trickle(bencher: Bencher<'_, '_>) {
    bencher.counter(BytesCount::new(FILE_BYTES)).bench_local(|| {
        let params = AddParams { layout: Layout::Trickle, ..AddParams::default() };
        add(params, Files::new(1, FILE_BYTES))
    });
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn small_files_in_a_folder(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(N_FILES)).bench_local(|| {
        assert_eq!(add(AddParams::default(), Files::new(N_FILES, SMALL_BYTES)), N_FILES + 1);
    });
}

/// The most memory in use while a directory is imported, for each of its entries.
fn memory() {
    for n in [10_000, 1_000_000] {
        let region = Region::new(ALLOCATOR);
        let watch = std::thread::scope(|scope| {
            let (done, is_done) = std::sync::mpsc::channel::<()>();
            let watcher = scope.spawn(move || {
                let mut most = 0;
                while is_done.recv_timeout(std::time::Duration::from_millis(1))
                    == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
                {
                    let now = region.change();
                    most = most.max(now.bytes_allocated.saturating_sub(now.bytes_deallocated));
                }
                most
            });
            assert_eq!(add(AddParams::default(), Files::new(n, 16)), n + 1);
            drop(done);
            watcher.join().unwrap()
        });
        println!("a directory of {n} entries: {} bytes an entry at most", watch / n);
    }
}
