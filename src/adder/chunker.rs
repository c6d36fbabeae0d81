//! Where a file is cut: the `chunker` parameter, and the buffer that becomes a leaf.

use bytes::{Buf, Bytes};
use cluster_compat::api::Upload;

use super::Error;
use super::buffer::{Buffer, Pool};
use super::rolling::{BUZ_MAX, Rabin, buzhash_cut};
use super::unixfs::{LEAF_HEAD, LEAF_TAIL};

/// Chunk size when none is asked for.
const DEFAULT_SIZE: usize = 262_144;
/// Largest chunk: 2 MiB less 256 bytes for the headers of a leaf. (Go: `boxo/chunker`)
const MAX_SIZE: i64 = 2_096_896;
/// Longest block, and so the longest chunk of a chunker that never cuts. (Go: `boxo/chunker`)
const MAX_BLOCK_BYTES: usize = 2 * 1024 * 1024;
/// Bytes between two progress events. (Go: `adder/ipfsadd`)
const PROGRESS_EVERY: u64 = 262_144;

/// A way to cut files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunker {
    /// Chunks of so many bytes.
    Size(usize),
    /// Chunks that end by their Rabin fingerprint.
    Rabin(Rabin),
    /// Chunks that end by their buzhash.
    Buzhash,
    /// The whole file in one chunk, which must not be longer than a block.
    Whole,
}

impl Chunker {
    /// Reads the parameter; errors are the reference's (spec: adder 8).
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() || text == "default" {
            return Ok(Self::Size(DEFAULT_SIZE));
        }
        let parts: Vec<&str> = text.split('-').collect();
        match parts[0] {
            "size" => parse_size(&parts),
            "rabin" => parse_rabin(&parts),
            "buzhash" => Ok(Self::Buzhash),
            _ => Err(Error::Chunker(format!("unrecognized chunker option: {text}"))),
        }
    }

    /// The longest chunk.
    fn max(self) -> usize {
        match self {
            Self::Size(size) => size,
            Self::Rabin(rabin) => rabin.max(),
            Self::Buzhash => BUZ_MAX,
            Self::Whole => MAX_BLOCK_BYTES,
        }
    }

    /// Length of the chunk at the start of `data`, which is as long as a chunk can be or all that is left.
    fn cut(self, data: &[u8]) -> usize {
        match self {
            Self::Size(_) | Self::Whole => data.len(),
            Self::Rabin(rabin) => rabin.cut(data),
            Self::Buzhash => buzhash_cut(data),
        }
    }
}

fn chunker_error<T>(text: &str) -> Result<T, Error> {
    Err(Error::Chunker(text.into()))
}

fn too_large<T>() -> Result<T, Error> {
    Err(Error::Chunker(format!("chunker parameters may not exceed the maximum chunk size of {MAX_SIZE}")))
}

fn parse_size(parts: &[&str]) -> Result<Chunker, Error> {
    let &[_, size] = parts else {
        return chunker_error("incorrect chunker string format (expected size-{size})");
    };
    match atoi(size)? {
        size if size <= 0 => chunker_error("chunker size must be greater than 0"),
        size if size > MAX_SIZE => too_large(),
        size => Ok(Chunker::Size(size as usize)),
    }
}

/// `rabin`, `rabin-AVG` or `rabin-MIN-AVG-MAX`.
fn parse_rabin(parts: &[&str]) -> Result<Chunker, Error> {
    let (min, average, max) = match *parts {
        [_] => around(DEFAULT_SIZE as i64),
        [_, average] => {
            let average = atoi(average)?;
            // The reference multiplies in 32-bit floating point.
            if (average as f32 * 1.5) as i64 > MAX_SIZE {
                return too_large();
            }
            around(average)
        }
        [_, min, average, max] => {
            let min = labelled(min, "min", "first label must be min")?;
            if min < 16 {
                return chunker_error("rabin min must be greater than 16");
            }
            let average = labelled(average, "avg", "second label must be avg")?;
            let max = labelled(max, "max", "final label must be max")?;
            if min >= average {
                return chunker_error("incorrect format: rabin-min must be smaller than rabin-avg");
            } else if average >= max {
                return chunker_error("incorrect format: rabin-avg must be smaller than rabin-max");
            } else if max > MAX_SIZE {
                return too_large();
            }
            (min, average, max)
        }
        _ => {
            return chunker_error(
                "incorrect format (expected 'rabin' 'rabin-[avg]' or 'rabin-[min]-[avg]-[max]'",
            );
        }
    };
    let size = |number: i64| usize::try_from(number).unwrap_or(0);
    Ok(Rabin::new(size(min), size(average), size(max)).map_or(Chunker::Whole, Chunker::Rabin))
}

/// Minimum, average and maximum of the reference around an average.
fn around(average: i64) -> (i64, i64, i64) {
    (average / 3, average, average + average / 2)
}

/// `N` or `label:N`.
fn labelled(text: &str, label: &str, error: &str) -> Result<i64, Error> {
    match text.split_once(':') {
        Some((found, _)) if found != label => chunker_error(error),
        Some((_, rest)) => atoi(rest.rsplit(':').next().unwrap_or(rest)),
        None => atoi(text),
    }
}

/// Go's `strconv.Atoi`.
fn atoi(text: &str) -> Result<i64, Error> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let fault = if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        "invalid syntax"
    } else {
        match text.parse() {
            Ok(number) => return Ok(number),
            Err(_) => "value out of range",
        }
    };
    Err(Error::Chunker(format!("strconv.Atoi: parsing {text:?}: {fault}")))
}

/// One file of an upload, cut into chunks.
pub(super) struct Chunks<'a> {
    upload: &'a mut dyn Upload,
    chunker: Chunker,
    pool: Pool,
    /// What the last piece held beyond the last chunk.
    rest: Bytes,
    is_at_end: bool,
    n_bytes: u64,
    progress: Option<u64>,
}

/// What [`Chunks::next`] found.
pub(super) enum Next {
    /// [`LEAF_HEAD`] free bytes, then a chunk of at least one byte.
    Chunk(Buffer),
    /// So many bytes have been read: time for a progress event. Ask again.
    Progress(u64),
    /// The file ended.
    End,
}

impl<'a> Chunks<'a> {
    /// The content of the entry `upload` has just given out.
    pub(super) fn new(upload: &'a mut dyn Upload, chunker: Chunker, pool: Pool, progress: bool) -> Self {
        Self {
            upload,
            chunker,
            pool,
            rest: Bytes::new(),
            is_at_end: false,
            n_bytes: 0,
            progress: progress.then_some(0),
        }
    }

    /// Bytes read so far.
    pub(super) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Takes the next chunk out of a buffer that is full or holds the end.
    async fn chunk(&mut self, buffer: &mut Buffer) -> Result<Buffer, Error> {
        if self.chunker == Chunker::Whole && buffer.len() == LEAF_HEAD + MAX_BLOCK_BYTES {
            let is_more = !self.rest.is_empty() || self.upload.read().await?.is_some();
            if is_more {
                // (Go: `boxo/ipld/unixfs/importer/helpers`)
                return chunker_error("object size limit exceeded");
            }
        }
        let end = LEAF_HEAD + self.chunker.cut(&buffer[LEAF_HEAD..]);
        if end == buffer.len() {
            return Ok(std::mem::take(buffer));
        }
        let mut next = self.pool.take(LEAF_HEAD + self.chunker.max() + LEAF_TAIL);
        next.resize(LEAF_HEAD, 0);
        next.extend_from_slice(&buffer[end..]);
        let mut chunk = std::mem::replace(buffer, next);
        chunk.truncate(end);
        Ok(chunk)
    }

    /// Whether the file ended with a whole chunk, so that its end was found by one more read.
    pub(super) fn ended_on_a_border(&self) -> bool {
        match self.chunker {
            Chunker::Size(size) => self.n_bytes > 0 && self.n_bytes.is_multiple_of(size as u64),
            Chunker::Rabin(_) | Chunker::Buzhash | Chunker::Whole => false,
        }
    }

    /// Continues with `buffer`, which is empty or what an earlier call left in it.
    pub(super) async fn next(&mut self, buffer: &mut Buffer) -> Result<Next, Error> {
        let full = LEAF_HEAD + self.chunker.max();
        loop {
            if buffer.len() == full {
                return self.chunk(buffer).await.map(Next::Chunk);
            }
            if self.rest.is_empty() && !self.is_at_end {
                match self.upload.read().await? {
                    Some(piece) => self.rest = piece,
                    None => {
                        self.is_at_end = true;
                        if let Some(reported) = &mut self.progress
                            && (*reported != self.n_bytes || self.n_bytes == 0)
                        {
                            *reported = self.n_bytes;
                            return Ok(Next::Progress(self.n_bytes));
                        }
                    }
                }
                continue;
            }
            if self.rest.is_empty() {
                if buffer.len() <= LEAF_HEAD {
                    return Ok(Next::End);
                }
                return self.chunk(buffer).await.map(Next::Chunk);
            }
            if buffer.is_empty() {
                // Small files are one piece: no need for the room of a whole chunk.
                *buffer = self.pool.take(LEAF_HEAD + self.rest.len().min(self.chunker.max()) + LEAF_TAIL);
                buffer.resize(LEAF_HEAD, 0);
            } else if buffer.capacity() < full + LEAF_TAIL {
                let mut larger = self.pool.take(full + LEAF_TAIL);
                larger.extend_from_slice(buffer);
                *buffer = larger;
            }
            let mut n = self.rest.len().min(full - buffer.len());
            if let Some(reported) = self.progress {
                // Stop where an event is due.
                let due = (reported + PROGRESS_EVERY).saturating_sub(self.n_bytes);
                n = n.min(usize::try_from(due).unwrap_or(usize::MAX));
            }
            buffer.extend_from_slice(&self.rest[..n]);
            self.rest.advance(n);
            self.n_bytes += n as u64;
            if let Some(reported) = &mut self.progress
                && self.n_bytes - *reported >= PROGRESS_EVERY
            {
                *reported = self.n_bytes;
                return Ok(Next::Progress(self.n_bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        assert_eq!(Chunker::parse(text).unwrap_err().to_string(), expected, "{text}");
    }

    #[test]
    fn sizes_are_read() {
        for (text, size) in [("", 262_144), ("default", 262_144), ("size-1", 1), ("size-2096896", 2_096_896)]
        {
            assert_eq!(Chunker::parse(text).unwrap(), Chunker::Size(size), "{text}");
        }
    }

    #[test]
    fn bad_chunkers_get_the_text_of_the_reference() {
        refused("size-0", "chunker size must be greater than 0");
        refused("size-2096897", "chunker parameters may not exceed the maximum chunk size of 2096896");
        refused("size-x", "strconv.Atoi: parsing \"x\": invalid syntax");
        refused("size-", "strconv.Atoi: parsing \"\": invalid syntax");
        refused(
            "size-99999999999999999999",
            "strconv.Atoi: parsing \"99999999999999999999\": value out of range",
        );
        refused("size", "incorrect chunker string format (expected size-{size})");
        refused("size--1", "incorrect chunker string format (expected size-{size})");
        assert_eq!(Chunker::parse("rabin-0").unwrap(), Chunker::Whole);
        assert!(matches!(Chunker::parse("rabin-1397931").unwrap(), Chunker::Rabin(_)));
        assert_eq!(Chunker::parse("buzhash-whatever").unwrap(), Chunker::Buzhash);
        refused("rabin-12-512-1024", "rabin min must be greater than 16");
        refused("rabin-512-100-1024", "incorrect format: rabin-min must be smaller than rabin-avg");
        refused("rabin-100-1024-512", "incorrect format: rabin-avg must be smaller than rabin-max");
        refused("rabin-1-2", "incorrect format (expected 'rabin' 'rabin-[avg]' or 'rabin-[min]-[avg]-[max]'");
        refused("rabin-x", "strconv.Atoi: parsing \"x\": invalid syntax");
        refused("rabin-max:1-avg:2-min:3", "first label must be min");
        refused("rabin-1397932", "chunker parameters may not exceed the maximum chunk size of 2096896");
        refused("foo", "unrecognized chunker option: foo");
    }
}
