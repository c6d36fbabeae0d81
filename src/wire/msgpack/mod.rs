//! msgpack in the dialect of ugorji/go's `MsgpackHandle` (spec: wire 4.3).
//!
//! The reference writes strings and bytes alike as "raw" of the old msgpack specification, signed and unsigned
//! integers in different forms, times as raw bytes, and leaves empty fields out of its maps. [`Writer`] does the
//! same. [`Reader`] takes everything the reference's decoder takes: new-style strings and binaries, integers of any
//! width, records as maps or arrays, `nil` for any zero value.
//!
//! [`Scanner`] finds the end of one value in a stream of them; calls between peers have no other framing.

mod read;
mod write;

pub use self::read::Reader;
pub use self::write::{Record, Writer};
use super::Error;

const NIL: u8 = 0xc0;

/// Finds the end of the first value of bytes that arrive piece by piece: no byte is looked at twice.
#[derive(Debug, Clone, Copy)]
pub struct Scanner {
    at: usize,
    /// Values that have yet to begin, those inside of others included.
    pending: u64,
}

impl Scanner {
    /// At the start of a value.
    pub const fn new() -> Self {
        Self { at: 0, pending: 1 }
    }

    /// The length of the value that `data` starts with; `None` when it is not complete yet: come again with the same
    /// bytes and more behind them.
    pub fn scan(&mut self, data: &[u8]) -> Result<Option<usize>, Error> {
        let mut reader = Reader::starting_at(data, self.at);
        while self.pending > 0 {
            match reader.pass_head() {
                Ok(n_inside) => self.pending = (self.pending - 1).saturating_add(n_inside),
                Err(Error::Cut { .. }) => return Ok(None),
                Err(other) => return Err(other),
            }
            self.at = reader.at();
        }
        Ok(Some(self.at))
    }
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
