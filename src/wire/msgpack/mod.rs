//! msgpack in the dialect of ugorji/go's `MsgpackHandle` (spec: wire 4.3).
//!
//! The reference writes strings and bytes alike as "raw" of the old msgpack specification, signed and unsigned
//! integers in different forms, times as raw bytes, and leaves empty fields out of its maps. [`Writer`] does the
//! same. [`Reader`] takes everything the reference's decoder takes: new-style strings and binaries, integers of any
//! width, records as maps or arrays, `nil` for any zero value.
//!
//! [`scan`] finds the end of one value in a stream of them; calls between peers have no other framing.

mod read;
mod write;

pub use self::read::Reader;
pub use self::write::{Record, Writer};
use super::Error;

const NIL: u8 = 0xc0;

/// The length of the first value of `data`; `None` when it is not complete yet.
pub fn scan(data: &[u8]) -> Result<Option<usize>, Error> {
    let mut reader = Reader::new(data);
    match reader.skip() {
        Ok(()) => Ok(Some(reader.at())),
        Err(Error::Cut { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

#[cfg(test)]
mod tests;
