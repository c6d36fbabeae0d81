//! Messages on a stream: each behind its length.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::io::BufReader;
use futures::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Stream;
use crate::wire::bitswap_pb::MAX_MESSAGE_BYTES;

/// Bytes of one peer's messages that are read and not yet digested.
const MAX_PEER_BYTES: usize = 4 * MAX_MESSAGE_BYTES;

/// Longest wait for the rest of a message; the pause between two messages may be any.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest wait for a peer to take a message; an original gives large ones two minutes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);

/// What a stream is read through; messages that fit need one read.
const BUFFER_BYTES: usize = 4096;

/// How much of one peer may be in memory.
#[derive(Clone)]
pub(super) struct Allowance(Arc<Semaphore>);

/// The part of an [`Allowance`] that a message takes until it is digested.
pub(super) struct Budget {
    _permit: OwnedSemaphorePermit,
}

impl Allowance {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_PEER_BYTES)))
    }

    /// Whether nobody else uses it.
    pub(super) fn is_unused(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    async fn take(&self, n_bytes: usize) -> io::Result<Budget> {
        let n_bytes = u32::try_from(n_bytes).map_err(io::Error::other)?;
        let permit = Arc::clone(&self.0).acquire_many_owned(n_bytes).await.map_err(io::Error::other)?;
        Ok(Budget { _permit: permit })
    }
}

/// Reads the messages of a stream.
pub(super) struct Reader<R> {
    stream: BufReader<R>,
    allowance: Allowance,
    timeout: Duration,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(stream: R, allowance: Allowance) -> Self {
        let stream = BufReader::with_capacity(BUFFER_BYTES, stream);
        Self { stream, allowance, timeout: READ_TIMEOUT }
    }

    /// The next message; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> io::Result<Option<(Vec<u8>, Budget)>> {
        let Some(first) = self.byte().await? else { return Ok(None) };
        let read = tokio::time::timeout(self.timeout, self.rest(first)).await;
        read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map(Some)
    }

    async fn rest(&mut self, first: u8) -> io::Result<(Vec<u8>, Budget)> {
        let n_bytes = self.length(first).await?;
        let budget = self.allowance.take(n_bytes).await?;
        let mut message = vec![0; n_bytes];
        self.stream.read_exact(&mut message).await?;
        Ok((message, budget))
    }

    async fn length(&mut self, first: u8) -> io::Result<usize> {
        let (mut length, mut byte, mut shift) = (0, first, 0);
        loop {
            length |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
            shift += 7;
            // four bytes hold more than the limit
            if shift > 21 {
                length = usize::MAX;
                break;
            }
            byte = self.byte().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        }
        if length > MAX_MESSAGE_BYTES {
            let reason = format!("a message of more than {MAX_MESSAGE_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        Ok(length)
    }

    async fn byte(&mut self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        Ok((self.stream.read(&mut byte).await? == 1).then_some(byte[0]))
    }
}

/// Writes a message that stands behind its length.
pub(super) async fn write(stream: &mut Stream, message: &[u8]) -> io::Result<()> {
    let written = async {
        stream.write_all(message).await?;
        stream.flush().await
    };
    tokio::time::timeout(WRITE_TIMEOUT, written).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt as _;

    use super::*;

    async fn read(bytes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let mut reader = Reader::new(bytes, Allowance::new());
        let mut messages = Vec::new();
        while let Some((message, _)) = reader.next().await? {
            messages.push(message);
        }
        Ok(messages)
    }

    #[tokio::test]
    async fn messages_are_cut_at_their_lengths() {
        let long = [&[0x80, 0x02][..], &[7; 256]].concat();
        let stream = [&[2, 10, 0, 0][..], &long, &[1, 9]].concat();
        assert_eq!(read(&stream).await.unwrap(), [vec![10, 0], vec![], vec![7; 256], vec![9]]);
        assert_eq!(read(&[3, 1, 2]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(&[0x80]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        for too_long in [&[0x81, 0x80, 0x80, 0x02][..], &[0xff; 12], &[0x80, 0x80, 0x80, 0x80, 1]] {
            assert_eq!(read(too_long).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    #[tokio::test]
    async fn a_peer_that_announces_much_and_sends_nothing_is_held_to_its_allowance_and_time() {
        let allowance = Allowance::new();
        let head = [0x80, 0x80, 0x80, 0x02];
        let stalled = |n_head| {
            let never = futures::stream::pending::<io::Result<Vec<u8>>>();
            let stream = head[..n_head].chain(never.into_async_read());
            let mut reader = Reader::new(stream, allowance.clone());
            reader.timeout = Duration::from_millis(50);
            async move { reader.next().await.map(|_| ()) }
        };
        for n_head in [1, 4] {
            for end in futures::future::join_all((0..8).map(|_| stalled(n_head))).await {
                assert_eq!(end.unwrap_err().kind(), io::ErrorKind::TimedOut);
            }
        }
        assert!(allowance.is_unused());
    }
}
