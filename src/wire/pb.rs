//! Protobuf's wire format, as far as our few messages need it.

use super::Error;

/// Deepest nesting of groups that is skipped.
const MAX_GROUP_DEPTH: usize = 32;

/// One field as it stands in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Fixed-width numbers and groups: no message of ours has them.
    Other,
}

/// Reads the fields of a message, in order; unknown ones are for the caller to ignore.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next field's number and value, or `None` at the end of the message.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Error> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.field(0).map(Some)
    }

    fn field(&mut self, depth: usize) -> Result<(u32, Value<'a>), Error> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|n| (1..1 << 29).contains(n));
        let number = number.ok_or_else(|| malformed(format!("invalid field number {}", tag >> 3)))?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Other)?,
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                Value::Bytes(self.take(length)?)
            }
            3 => self.skip_group(number, depth + 1)?,
            5 => self.take(4).map(|_| Value::Other)?,
            other => return Err(malformed(format!("invalid wire type {other} of field {number}"))),
        };
        Ok((number, value))
    }

    fn skip_group(&mut self, number: u32, depth: usize) -> Result<Value<'a>, Error> {
        if depth > MAX_GROUP_DEPTH {
            return Err(malformed(format!("groups nested deeper than {MAX_GROUP_DEPTH}")));
        }
        let end = u64::from(number) << 3 | 4;
        loop {
            let mut ahead = Self { rest: self.rest };
            if ahead.varint()? == end {
                self.rest = ahead.rest;
                return Ok(Value::Other);
            }
            self.field(depth)?;
        }
    }

    fn varint(&mut self) -> Result<u64, Error> {
        if let [first, rest @ ..] = self.rest
            && *first < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(*first));
        }
        let mut number = 0u64;
        for (i, byte) in self.rest.iter().enumerate().take(10) {
            if i == 9 && *byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << (7 * i);
            if *byte < 0x80 {
                self.rest = &self.rest[i + 1..];
                return Ok(number);
            }
        }
        Err(malformed("a number is cut short or too long".into()))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| malformed(format!("{length} bytes announced, {} there", self.rest.len())))?;
        self.rest = rest;
        Ok(taken)
    }
}

pub(super) fn malformed(message: String) -> Error {
    Error::Protobuf(message)
}

/// A string field: protobuf 3 demands UTF-8.
pub(super) fn text<'a>(bytes: &'a [u8], field: &str) -> Result<&'a str, Error> {
    std::str::from_utf8(bytes).map_err(|_| malformed(format!("{field} is not UTF-8")))
}

/// Bytes a number takes.
pub(super) const fn varint_len(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Bytes a field of bytes takes, with its tag (fields 1 to 15).
pub(super) const fn bytes_field_len(length: usize) -> usize {
    1 + varint_len(length as u64) + length
}

/// Tag and length of a field of bytes (fields 1 to 15); the bytes follow.
pub(super) fn put_bytes_head(out: &mut Vec<u8>, field: u8, length: usize) {
    out.push(field << 3 | 2);
    put_varint(out, length as u64);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    put_bytes_head(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

/// A field of bytes that is left out when empty.
pub(super) fn put_bytes_if_any(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_bytes(out, field, bytes);
    }
}

/// A number that is left out when zero.
pub(super) fn put_number_if_any(out: &mut Vec<u8>, field: u8, number: u64) {
    if number != 0 {
        out.push(field << 3);
        put_varint(out, number);
    }
}

/// A zigzag number of 32 bits that is left out when zero. Wider values are cut, as the reference does.
pub(super) fn put_sint32_if_any(out: &mut Vec<u8>, field: u8, number: i64) {
    let number = number as i32;
    put_number_if_any(out, field, u64::from((number << 1 ^ number >> 31) as u32));
}

/// The value of a zigzag field of 32 bits.
pub(super) fn sint32(number: u64) -> i64 {
    let number = number as u32;
    i64::from((number >> 1) as i32 ^ -((number & 1) as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(message: &[u8]) -> Result<Vec<(u32, Value<'_>)>, Error> {
        let mut reader = Fields::new(message);
        let mut found = Vec::new();
        while let Some(field) = reader.next()? {
            found.push(field);
        }
        Ok(found)
    }

    #[test]
    fn every_wire_type_is_read_or_skipped() {
        let message = hex::decode("08960112026869190102030405060708253132333433080134").unwrap();
        assert_eq!(
            fields(&message[..21]).unwrap(),
            [(1, Value::Varint(150)), (2, Value::Bytes(b"hi")), (3, Value::Other), (4, Value::Other)]
        );
        assert_eq!(fields(&message).unwrap().len(), 5);
    }

    #[test]
    fn bad_messages_are_errors() {
        for bad in ["00", "0a05aa", "08", "08ffffffffffffffffff02", "0f", "13", "0affffffffffffffffff01"] {
            assert!(fields(&hex::decode(bad).unwrap()).is_err(), "{bad}");
        }
        assert!(fields(&[0x0b; 1000]).is_err());
    }

    #[test]
    fn numbers_survive_both_ways() {
        for number in [0i64, 1, -1, 2, i64::from(i32::MAX), i64::from(i32::MIN)] {
            let mut out = Vec::new();
            put_sint32_if_any(&mut out, 1, number);
            let read = fields(&out).unwrap();
            let back = read.first().map_or(0, |(_, value)| match value {
                Value::Varint(n) => sint32(*n),
                _ => panic!("not a number"),
            });
            assert_eq!(back, number);
        }
        for number in [0u64, 127, 128, 16383, 16384, u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, number);
            assert_eq!(out.len(), varint_len(number));
        }
    }
}
