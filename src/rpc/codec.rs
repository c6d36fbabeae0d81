//! Values in a stream of bytes.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::wire;
use crate::wire::msgpack::Scanner;

/// Room made for each read.
const READ_BYTES: usize = 16 << 10;

/// Why there is no value.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The stream ended inside a value.
    #[error("unexpected EOF")]
    Cut,
    /// A value that nobody needs to be as long.
    #[error("a message of more than {max} bytes")]
    TooLong {
        /// The limit of its place.
        max: usize,
    },
    /// Not msgpack.
    #[error("{0}")]
    Malformed(wire::Error),
}

/// One direction of a stream, as values.
#[derive(Debug)]
pub(super) struct Incoming<R> {
    reader: R,
    buffer: BytesMut,
    scanner: Scanner,
}

impl<R: AsyncRead + Unpin> Incoming<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, buffer: BytesMut::new(), scanner: Scanner::new() }
    }

    /// The stream, without what was read ahead.
    pub(super) fn into_reader(self) -> R {
        self.reader
    }

    /// The next value; `None` where the stream ends instead. Nothing is lost when the future is dropped.
    pub(super) async fn value(&mut self, max: usize) -> Result<Option<Bytes>, Error> {
        loop {
            match self.scanner.scan(&self.buffer).map_err(Error::Malformed)? {
                Some(len) if len <= max => {
                    self.scanner = Scanner::new();
                    return Ok(Some(self.buffer.split_to(len).freeze()));
                }
                None if self.buffer.len() <= max => {}
                _ => return Err(Error::TooLong { max }),
            }
            self.buffer.reserve(READ_BYTES);
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(Error::Cut) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn values_come_out_however_they_were_cut() {
        let values: [&[u8]; 4] = [b"\x80", b"\xa3abc", b"\x92\x01\x91\xc0", b"\xda\x00\x04wxyz"];
        let all = values.concat();
        for size in 1..all.len() {
            let chunks: Vec<io::Result<Bytes>> =
                all.chunks(size).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
            let mut incoming =
                Incoming::new(tokio_util::io::StreamReader::new(futures::stream::iter(chunks)));
            for expected in values {
                assert_eq!(incoming.value(64).await.unwrap().unwrap(), expected);
            }
            assert!(incoming.value(64).await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn long_cut_and_foreign_values_are_told_apart() {
        let mut endless = Incoming::new(tokio::io::repeat(0x91));
        assert!(matches!(endless.value(1 << 16).await, Err(Error::TooLong { max: 65536 })));
        assert!(matches!(Incoming::new(&b"\xa3abc"[..]).value(3).await, Err(Error::TooLong { max: 3 })));
        assert!(matches!(Incoming::new(&b"\xa3ab"[..]).value(9).await, Err(Error::Cut)));
        assert!(matches!(Incoming::new(&b"\xc1"[..]).value(9).await, Err(Error::Malformed(_))));
        assert!(matches!(Incoming::new(&b"\xdf\xff\xff\xff\xff"[..]).value(9).await, Err(Error::Cut)));
    }
}
