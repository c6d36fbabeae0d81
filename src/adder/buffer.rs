//! Room for chunks, used again: a large buffer that goes back to the system costs a page fault for each of its pages
//! when the next one is taken, which is a tenth of what importing a large file costs.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers from this size on are kept; smaller ones cost the allocator nothing.
const KEPT_FROM_BYTES: usize = 64 * 1024;

/// Most bytes that wait for their next use in one import: the blocks that are under way at the default chunk size.
const MAX_KEPT_BYTES: usize = 4 * 1024 * 1024;

/// The free buffers of an import. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool {
    /// Taken by whoever takes or gives back a buffer, for a push or a pop.
    free: Arc<Mutex<Free>>,
}

#[derive(Debug, Default)]
struct Free {
    buffers: Vec<Vec<u8>>,
    n_bytes: usize,
}

/// Bytes that grow like a `Vec`, and become a block without a copy.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    /// Where it goes in the end.
    pool: Option<Pool>,
}

impl Pool {
    /// An empty buffer with room for `capacity` bytes.
    pub(super) fn take(&self, capacity: usize) -> Buffer {
        if capacity < KEPT_FROM_BYTES {
            return Buffer { bytes: Vec::with_capacity(capacity), pool: None };
        }
        let kept = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = free.buffers.pop();
            free.n_bytes -= kept.as_ref().map_or(0, Vec::capacity);
            kept
        };
        let bytes = match kept {
            Some(bytes) if bytes.capacity() >= capacity => bytes,
            _ => Vec::with_capacity(capacity),
        };
        Buffer { bytes, pool: Some(self.clone()) }
    }

    fn give_back(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.n_bytes + bytes.capacity() <= MAX_KEPT_BYTES {
            free.n_bytes += bytes.capacity();
            free.buffers.push(bytes);
        }
    }
}

impl Buffer {
    /// The content, without a copy; the room goes back to its pool when the last part of it is dropped.
    pub(super) fn into_bytes(mut self) -> Bytes {
        match self.pool {
            Some(_) => Bytes::from_owner(self),
            None => std::mem::take(&mut self.bytes).into(),
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.give_back(std::mem::take(&mut self.bytes));
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_buffer_is_used_again_when_its_last_part_is_dropped() {
        let pool = Pool::default();
        let mut buffer = pool.take(KEPT_FROM_BYTES);
        buffer.resize(KEPT_FROM_BYTES, 7);
        let place = buffer.as_ptr();
        let bytes = buffer.into_bytes();
        let part = bytes.slice(10..20);
        drop(bytes);
        assert_ne!(pool.take(KEPT_FROM_BYTES).as_ptr(), place, "a part of it is still in use");
        assert_eq!(&part[..], &[7; 10]);
        drop(part);
        let again = pool.take(KEPT_FROM_BYTES);
        assert_eq!(again.as_ptr(), place);
        assert!(again.is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let pool = Pool::default();
        let many: Vec<_> = (0..100).map(|_| pool.take(KEPT_FROM_BYTES)).collect();
        drop(many);
        let free = pool.free.lock().unwrap();
        assert!(free.n_bytes <= MAX_KEPT_BYTES && free.n_bytes > MAX_KEPT_BYTES - 2 * KEPT_FROM_BYTES);
    }
}
