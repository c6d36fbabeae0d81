//! Puts the rows of an import in the order of their keys, with little memory however many there are.
//!
//! ```text
//!   push ─► a run in memory ─► full: sorted, written behind the others ─┐
//!   next ◄─ the least key of all runs ◄────────────────────────────────┘
//! ```
//!
//! A database filled in the order of its keys is written once, page after page; filled in any other order each of its
//! pages is written many times over, or kept in memory. Of rows with the same key the last one pushed is left.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::Error;

/// Bytes of a run: what is kept in memory at most, besides its index of four bytes a row.
const RUN_BYTES: usize = 16 << 20;

/// Bytes read ahead, of all runs together.
const READ_AHEAD_BYTES: usize = 8 << 20;

/// Least read ahead of one run.
const MIN_READ_AHEAD_BYTES: usize = 16 << 10;

/// Lengths of key and value, before each row.
const HEAD_BYTES: usize = 8;

/// Takes rows in any order; see [`Sorter::finish`].
pub struct Sorter {
    folder: PathBuf,
    run_bytes: usize,
    run: Run,
    spool: Option<BufWriter<File>>,
    written: Vec<Range<u64>>,
}

/// Rows one behind the other, and where each begins.
#[derive(Default)]
struct Run {
    rows: Vec<u8>,
    starts: Vec<u32>,
}

impl Sorter {
    /// What does not fit into memory goes into a file in `folder` that has no name.
    pub fn new(folder: &Path) -> Self {
        Self::with_runs(folder, RUN_BYTES)
    }

    fn with_runs(folder: &Path, run_bytes: usize) -> Self {
        let folder = folder.to_owned();
        Self { folder, run_bytes, run: Run::default(), spool: None, written: Vec::new() }
    }

    /// Takes a row.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let n_bytes = HEAD_BYTES + key.len() + value.len();
        if !self.run.rows.is_empty() && self.run.rows.len() + n_bytes > self.run_bytes {
            self.flush().map_err(|cause| Error::Sort { folder: self.folder.clone(), cause })?;
        }
        self.run.push(key, value);
        Ok(())
    }

    /// The rows in order.
    pub fn finish(mut self) -> Result<Sorted, Error> {
        let folder = self.folder.clone();
        let failed = |cause| Error::Sort { folder: folder.clone(), cause };
        if self.spool.is_some() {
            self.flush().map_err(failed)?;
        } else {
            self.run.sort();
        }
        let Self { folder, run, spool, written, .. } = self;
        let source = match spool {
            None => Source::Memory { run, at: 0 },
            Some(spool) => {
                let file = spool.into_inner().map_err(|e| failed(e.into_error()))?;
                drop(run);
                Source::Runs(Merge::new(file, written).map_err(failed)?)
            }
        };
        Ok(Sorted { folder, source })
    }

    /// Writes the run and empties it.
    fn flush(&mut self) -> io::Result<()> {
        self.run.sort();
        let spool = match &mut self.spool {
            Some(spool) => spool,
            None => self.spool.insert(BufWriter::with_capacity(1 << 20, nameless(&self.folder)?)),
        };
        let start = self.written.last().map_or(0, |run| run.end);
        let mut end = start;
        for i in 0..self.run.starts.len() {
            if self.run.is_last_of_key(i) {
                let row = self.run.row(i);
                spool.write_all(row)?;
                end += row.len() as u64;
            }
        }
        self.written.push(start..end);
        self.run.rows.clear();
        self.run.starts.clear();
        Ok(())
    }
}

/// A file that goes with the process, however it ends.
fn nameless(folder: &Path) -> io::Result<File> {
    let path = folder.join(format!("import-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

impl Run {
    fn push(&mut self, key: &[u8], value: &[u8]) {
        // a run is smaller than this, unless one row alone is larger, and that one starts at 0
        self.starts.push(u32::try_from(self.rows.len()).unwrap_or(u32::MAX));
        self.rows.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.rows.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.rows.extend_from_slice(key);
        self.rows.extend_from_slice(value);
    }

    fn sort(&mut self) {
        let Self { rows, starts } = self;
        // rows of one key keep their order: the later one starts later
        starts.sort_unstable_by(|a, b| key_at(rows, *a).cmp(key_at(rows, *b)).then(a.cmp(b)));
    }

    fn row(&self, i: usize) -> &[u8] {
        let rest = &self.rows[self.starts[i] as usize..];
        let (key_bytes, value_bytes) = lengths(rest);
        &rest[..HEAD_BYTES + key_bytes + value_bytes]
    }

    fn is_last_of_key(&self, i: usize) -> bool {
        let key = |i: usize| key_at(&self.rows, self.starts[i]);
        i + 1 == self.starts.len() || key(i) != key(i + 1)
    }
}

/// Lengths of key and value of the row that `rows` begins with.
fn lengths(rows: &[u8]) -> (usize, usize) {
    let number =
        |at: usize| u32::from_le_bytes([rows[at], rows[at + 1], rows[at + 2], rows[at + 3]]) as usize;
    (number(0), number(4))
}

fn key_at(rows: &[u8], start: u32) -> &[u8] {
    let row = &rows[start as usize..];
    &row[HEAD_BYTES..HEAD_BYTES + lengths(row).0]
}

/// Rows in the order of their keys, one for each key.
pub struct Sorted {
    folder: PathBuf,
    source: Source,
}

enum Source {
    Memory { run: Run, at: usize },
    Runs(Merge),
}

/// A key and its value.
pub type Entry<'a> = (&'a [u8], &'a [u8]);

impl Sorted {
    /// The next one.
    #[allow(clippy::should_implement_trait, reason = "what it gives is borrowed from it")]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>, Error> {
        let row = match &mut self.source {
            Source::Memory { run, at } => loop {
                if *at == run.starts.len() {
                    break None;
                }
                *at += 1;
                if run.is_last_of_key(*at - 1) {
                    break Some(run.row(*at - 1));
                }
            },
            Source::Runs(merge) => {
                merge.next().map_err(|cause| Error::Sort { folder: self.folder.clone(), cause })?
            }
        };
        Ok(row.map(|row| row[HEAD_BYTES..].split_at(lengths(row).0)))
    }
}

/// The runs of a file, and the row of each that is next; the least is on top, of equal ones that of the earliest run.
struct Merge {
    file: File,
    runs: Vec<Cursor>,
    next: BinaryHeap<Reverse<(Vec<u8>, usize)>>,
    row: Vec<u8>,
}

impl Merge {
    fn new(file: File, written: Vec<Range<u64>>) -> io::Result<Self> {
        let ahead = (READ_AHEAD_BYTES / written.len().max(1)).max(MIN_READ_AHEAD_BYTES);
        let cursor = |left| Cursor { left, ahead, buffer: Vec::new(), start: 0 };
        let runs = written.into_iter().map(cursor).collect();
        let mut merge = Self { file, runs, next: BinaryHeap::new(), row: Vec::new() };
        for i in 0..merge.runs.len() {
            let mut key = Vec::new();
            if merge.runs[i].look(&merge.file, &mut key)? {
                merge.next.push(Reverse((key, i)));
            }
        }
        Ok(merge)
    }

    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            let Some(mut top) = self.next.peek_mut() else { return Ok(None) };
            let Reverse((key, i)) = &mut *top;
            let run = &mut self.runs[*i];
            run.take(&mut self.row);
            if !run.look(&self.file, key)? {
                PeekMut::pop(top);
            } else {
                drop(top);
            }
            let key = &self.row[HEAD_BYTES..HEAD_BYTES + lengths(&self.row).0];
            if self.next.peek().is_none_or(|Reverse((next, _))| next != key) {
                return Ok(Some(&self.row));
            }
        }
    }
}

/// What is left of a run.
struct Cursor {
    left: Range<u64>,
    ahead: usize,
    buffer: Vec<u8>,
    start: usize,
}

impl Cursor {
    /// Copies the key of the next row, which is whole in the buffer then; says whether there is one.
    fn look(&mut self, file: &File, key: &mut Vec<u8>) -> io::Result<bool> {
        if !self.fill(file, HEAD_BYTES)? {
            return Ok(false);
        }
        let (key_bytes, value_bytes) = lengths(&self.buffer[self.start..]);
        if !self.fill(file, HEAD_BYTES + key_bytes + value_bytes)? {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a run is cut short"));
        }
        key.clear();
        key.extend_from_slice(&self.buffer[self.start + HEAD_BYTES..][..key_bytes]);
        Ok(true)
    }

    /// Copies the row that was looked at, and goes on.
    fn take(&mut self, row: &mut Vec<u8>) {
        let rest = &self.buffer[self.start..];
        let (key_bytes, value_bytes) = lengths(rest);
        row.clear();
        row.extend_from_slice(&rest[..HEAD_BYTES + key_bytes + value_bytes]);
        self.start += row.len();
    }

    /// Sees to it that so many bytes are in the buffer; says whether there are.
    fn fill(&mut self, file: &File, n_bytes: usize) -> io::Result<bool> {
        let n_there = self.buffer.len() - self.start;
        if n_there >= n_bytes {
            return Ok(true);
        }
        let n_left = usize::try_from(self.left.end - self.left.start).unwrap_or(usize::MAX);
        let n_more = n_left.min(self.ahead.max(n_bytes - n_there));
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.resize(n_there + n_more, 0);
        file.read_exact_at(&mut self.buffer[n_there..], self.left.start)?;
        self.left.start += n_more as u64;
        Ok(self.buffer.len() >= n_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn rows_come_out_in_order_and_the_last_of_a_key_counts_however_small_the_runs() {
        let folder = tempfile::tempdir().unwrap();
        let mut chance = StdRng::seed_from_u64(1);
        for (n_rows, run_bytes) in [(0, 1), (1, 1), (1, 1000), (500, 1), (3000, 700), (3000, 1 << 20)] {
            let mut sorter = Sorter::with_runs(folder.path(), run_bytes);
            let mut expected = BTreeMap::new();
            for n in 0..n_rows {
                let key = format!("/{}", chance.random_range(0..n_rows)).into_bytes();
                let value = vec![n as u8; chance.random_range(0..200)];
                sorter.push(&key, &value).unwrap();
                expected.insert(key, value);
            }
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no file has a name");
            let mut sorted = sorter.finish().unwrap();
            let mut found = Vec::new();
            while let Some((key, value)) = sorted.next().unwrap() {
                found.push((key.to_vec(), value.to_vec()));
            }
            assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{n_rows} rows, runs of {run_bytes}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error_that_names_it() {
        let mut sorter = Sorter::with_runs(Path::new("/nowhere"), 1);
        sorter.push(b"a", b"").unwrap();
        let refused = sorter.push(b"b", b"").unwrap_err().to_string();
        assert!(refused.starts_with("sorting the pins in /nowhere: "), "{refused}");
    }
}
