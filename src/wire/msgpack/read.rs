//! Reading values.

use std::borrow::Cow;
use std::collections::BTreeMap;

use cluster_compat::go::time::Time;
use cluster_compat::types::{Cid, Multiaddr, PeerId};

use super::NIL;
use crate::wire::Error;

/// The first bytes of a value, understood.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Head<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Raw(&'a [u8]),
    Ext(i8, &'a [u8]),
    List(usize),
    Map(usize),
}

impl Head<'_> {
    const fn name(self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "a bool",
            Self::Int(_) | Self::Uint(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Raw(_) => "a string",
            Self::Ext(..) => "an extension",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// Reads values one after another. Every method reads one whole value and turns `nil` into the zero value.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// From the first byte.
    pub const fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    /// In the middle, where a value starts.
    pub(super) const fn starting_at(data: &'a [u8], at: usize) -> Self {
        Self { data, at }
    }

    /// Bytes read so far.
    pub const fn at(&self) -> usize {
        self.at
    }

    /// Takes a `nil` if it comes next.
    pub fn nil(&mut self) -> bool {
        let is_nil = self.data.get(self.at) == Some(&NIL);
        self.at += usize::from(is_nil);
        is_nil
    }

    /// A bool.
    pub fn bool(&mut self) -> Result<bool, Error> {
        let start = self.at;
        match self.head()? {
            Head::Nil => Ok(false),
            Head::Bool(value) => Ok(value),
            other => Err(mismatch(start, other, "a bool")),
        }
    }

    /// A signed integer of any width, or a float without a fraction.
    pub fn int(&mut self) -> Result<i64, Error> {
        let start = self.at;
        match self.head()? {
            Head::Nil => Ok(0),
            Head::Int(value) => Ok(value),
            Head::Uint(value) => {
                i64::try_from(value).map_err(|_| self.invalid(format!("{value} overflows int64")))
            }
            // 2^63 as a float; below it every integral float converts exactly
            Head::Float(value) if value.fract() == 0.0 && value.abs() < 9_223_372_036_854_775_808.0 => {
                Ok(value as i64)
            }
            other => Err(mismatch(start, other, "a signed integer")),
        }
    }

    /// An unsigned integer of any width, or a float without a fraction.
    pub fn uint(&mut self) -> Result<u64, Error> {
        let start = self.at;
        match self.head()? {
            Head::Nil => Ok(0),
            Head::Uint(value) => Ok(value),
            Head::Int(value) => {
                u64::try_from(value).map_err(|_| self.invalid(format!("{value} is negative")))
            }
            // 2^64 as a float
            Head::Float(value)
                if value.fract() == 0.0 && (0.0..18_446_744_073_709_551_616.0).contains(&value) =>
            {
                Ok(value as u64)
            }
            other => Err(mismatch(start, other, "an unsigned integer")),
        }
    }

    /// A float, or an integer.
    pub fn float(&mut self) -> Result<f64, Error> {
        let start = self.at;
        match self.head()? {
            Head::Nil => Ok(0.0),
            Head::Float(value) => Ok(value),
            Head::Int(value) => Ok(value as f64),
            Head::Uint(value) => Ok(value as f64),
            other => Err(mismatch(start, other, "a float")),
        }
    }

    /// Bytes in any form, even as a list of small integers; `None` is `nil`.
    pub fn raw(&mut self) -> Result<Option<Cow<'a, [u8]>>, Error> {
        let start = self.at;
        match self.head()? {
            Head::Nil => Ok(None),
            Head::Raw(value) => Ok(Some(Cow::Borrowed(value))),
            Head::List(len) => {
                let mut bytes = Vec::with_capacity(len.min(self.left()));
                for _ in 0..len {
                    let value = self.uint()?;
                    bytes.push(u8::try_from(value).map_err(|_| self.invalid(format!("{value} is no byte")))?);
                }
                Ok(Some(Cow::Owned(bytes)))
            }
            other => Err(mismatch(start, other, "a string")),
        }
    }

    /// Bytes; `nil` is empty.
    pub fn bytes(&mut self) -> Result<Vec<u8>, Error> {
        Ok(self.raw()?.unwrap_or_default().into_owned())
    }

    /// Text. Go strings hold any bytes; what is not UTF-8 becomes U+FFFD, as it does in the reference's JSON.
    pub fn text(&mut self) -> Result<String, Error> {
        let start = self.at;
        match self.head()? {
            Head::Nil => Ok(String::new()),
            Head::Raw(value) => Ok(String::from_utf8_lossy(value).into_owned()),
            other => Err(mismatch(start, other, "a string")),
        }
    }

    /// An instant in UTC, as raw bytes or as the timestamp extension.
    pub fn time(&mut self) -> Result<Time, Error> {
        let start = self.at;
        let bytes = match self.head()? {
            Head::Nil => return Ok(Time::ZERO),
            Head::Raw(bytes) | Head::Ext(-1, bytes) => bytes,
            other => return Err(mismatch(start, other, "a time")),
        };
        let (secs, nanos) = match *bytes {
            [a, b, c, d] => (i64::from(u32::from_be_bytes([a, b, c, d])), 0),
            [a, b, c, d, e, f, g, h] => {
                let both = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                ((both & 0x3_ffff_ffff) as i64, (both >> 34) as u32)
            }
            [n0, n1, n2, n3, a, b, c, d, e, f, g, h] => {
                (i64::from_be_bytes([a, b, c, d, e, f, g, h]), u32::from_be_bytes([n0, n1, n2, n3]))
            }
            _ => return Err(self.invalid(format!("a time of {} bytes", bytes.len()))),
        };
        // as Go does, carry the nanoseconds that make whole seconds
        Ok(Time::from_unix(secs.saturating_add(i64::from(nanos / 1_000_000_000)), nanos % 1_000_000_000))
    }

    /// A peer id; `nil` is none.
    pub fn peer(&mut self) -> Result<Option<PeerId>, Error> {
        let Some(bytes) = self.raw()? else { return Ok(None) };
        PeerId::from_bytes(&bytes)
            .map(Some)
            .map_err(|e| self.invalid(format!("peer id {}: {e}", hex(&bytes))))
    }

    /// A CID; `nil` is none.
    pub fn cid(&mut self) -> Result<Option<Cid>, Error> {
        let Some(bytes) = self.raw()? else { return Ok(None) };
        let mut rest = &*bytes;
        match Cid::read_bytes(&mut rest) {
            Ok(cid) if rest.is_empty() => Ok(Some(cid)),
            Ok(_) => Err(self.invalid(format!("CID {}: {} bytes too many", hex(&bytes), rest.len()))),
            Err(e) => Err(self.invalid(format!("CID {}: {e}", hex(&bytes)))),
        }
    }

    /// A multiaddress; `nil` is none.
    pub fn addr(&mut self) -> Result<Option<Multiaddr>, Error> {
        let Some(bytes) = self.raw()? else { return Ok(None) };
        if bytes.is_empty() {
            return Err(self.invalid("an empty multiaddress".into()));
        }
        Multiaddr::try_from(bytes.to_vec())
            .map(Some)
            .map_err(|e| self.invalid(format!("multiaddress {}: {e}", hex(&bytes))))
    }

    /// A list read item by item; `nil` is `None`.
    pub fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<Option<Vec<T>>, Error> {
        let start = self.at;
        let len = match self.head()? {
            Head::Nil => return Ok(None),
            Head::List(len) => len,
            other => return Err(mismatch(start, other, "a list")),
        };
        // the claimed length is not trusted: every item takes a byte at least
        let mut items = Vec::with_capacity(len.min(self.left()).min(1024));
        for _ in 0..len {
            items.push(item(self)?);
        }
        Ok(Some(items))
    }

    /// Peer ids; `nil` is `None`.
    pub fn peers(&mut self) -> Result<Option<Vec<PeerId>>, Error> {
        self.list(|r| r.peer()?.ok_or_else(|| r.invalid("an empty peer id in a list".into())))
    }

    /// Multiaddresses; `nil` is `None`.
    pub fn addrs(&mut self) -> Result<Option<Vec<Multiaddr>>, Error> {
        self.list(|r| r.addr()?.ok_or_else(|| r.invalid("an empty multiaddress in a list".into())))
    }

    /// A map whose values are read by `value`; `nil` is `None`.
    pub fn map<T>(
        &mut self,
        mut value: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<Option<BTreeMap<String, T>>, Error> {
        let start = self.at;
        let len = match self.head()? {
            Head::Nil => return Ok(None),
            Head::Map(len) => len,
            other => return Err(mismatch(start, other, "a map")),
        };
        let mut map = BTreeMap::new();
        for _ in 0..len {
            let key = self.text()?;
            map.insert(key, value(self)?);
        }
        Ok(Some(map))
    }

    /// Text by text; `nil` is `None`.
    pub fn texts(&mut self) -> Result<Option<BTreeMap<String, String>>, Error> {
        self.map(Self::text)
    }

    /// A Go struct: calls `field` with the position of each key in `keys`, then the reader stands at its value.
    /// Unknown keys are skipped; a list is taken as the fields in order; `nil` has no fields.
    pub fn record(
        &mut self,
        keys: &[&str],
        mut field: impl FnMut(&mut Self, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let start = self.at;
        match self.head()? {
            Head::Nil => {}
            Head::List(len) => {
                for index in 0..len {
                    if index < keys.len() { field(self, index)? } else { self.skip()? }
                }
            }
            Head::Map(len) => {
                for _ in 0..len {
                    let key_at = self.at;
                    let key = match self.head()? {
                        Head::Raw(key) => key,
                        other => return Err(mismatch(key_at, other, "a key")),
                    };
                    match keys.iter().position(|known| known.as_bytes() == key) {
                        Some(index) => field(self, index)?,
                        None => self.skip()?,
                    }
                }
            }
            other => return Err(mismatch(start, other, "a record")),
        }
        Ok(())
    }

    /// Passes over one value, however deep it is.
    pub fn skip(&mut self) -> Result<(), Error> {
        let mut pending: u64 = 1;
        while pending > 0 {
            pending = (pending - 1).saturating_add(self.pass_head()?);
        }
        Ok(())
    }

    /// Passes over a value but for what is inside of it; how many values that are.
    pub(super) fn pass_head(&mut self) -> Result<u64, Error> {
        Ok(match self.head()? {
            Head::List(len) => len as u64,
            Head::Map(len) => 2 * len as u64,
            _ => 0,
        })
    }

    /// An [`Error::Invalid`] about the value just read.
    pub fn invalid(&self, reason: String) -> Error {
        Error::Invalid { at: self.at, reason }
    }

    fn left(&self) -> usize {
        self.data.len() - self.at
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let cut = Error::Cut { at: self.data.len() };
        let bytes =
            self.data.get(self.at..self.at.checked_add(len).ok_or_else(|| cut.clone())?).ok_or(cut)?;
        self.at += len;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn len8(&mut self) -> Result<usize, Error> {
        Ok(usize::from(u8::from_be_bytes(self.array()?)))
    }

    fn len16(&mut self) -> Result<usize, Error> {
        Ok(usize::from(u16::from_be_bytes(self.array()?)))
    }

    fn len32(&mut self) -> Result<usize, Error> {
        Ok(u32::from_be_bytes(self.array()?) as usize)
    }

    fn raw_of(&mut self, len: usize) -> Result<Head<'a>, Error> {
        Ok(Head::Raw(self.take(len)?))
    }

    fn ext_of(&mut self, len: usize) -> Result<Head<'a>, Error> {
        let kind = i8::from_be_bytes(self.array()?);
        Ok(Head::Ext(kind, self.take(len)?))
    }

    /// The head of the next value, and its payload where that is bytes. On an error the position is unspecified.
    fn head(&mut self) -> Result<Head<'a>, Error> {
        let [kind] = self.array()?;
        Ok(match kind {
            0x00..=0x7f => Head::Uint(u64::from(kind)),
            0x80..=0x8f => Head::Map(usize::from(kind & 0x0f)),
            0x90..=0x9f => Head::List(usize::from(kind & 0x0f)),
            0xa0..=0xbf => self.raw_of(usize::from(kind & 0x1f))?,
            NIL => Head::Nil,
            0xc1 => return Err(self.invalid("c1, which no msgpack value starts with".into())),
            0xc2 => Head::Bool(false),
            0xc3 => Head::Bool(true),
            0xc4 | 0xd9 => self.len8().and_then(|len| self.raw_of(len))?,
            0xc5 | 0xda => self.len16().and_then(|len| self.raw_of(len))?,
            0xc6 | 0xdb => self.len32().and_then(|len| self.raw_of(len))?,
            0xc7 => self.len8().and_then(|len| self.ext_of(len))?,
            0xc8 => self.len16().and_then(|len| self.ext_of(len))?,
            0xc9 => self.len32().and_then(|len| self.ext_of(len))?,
            0xca => Head::Float(f64::from(f32::from_be_bytes(self.array()?))),
            0xcb => Head::Float(f64::from_be_bytes(self.array()?)),
            0xcc => Head::Uint(u64::from(u8::from_be_bytes(self.array()?))),
            0xcd => Head::Uint(u64::from(u16::from_be_bytes(self.array()?))),
            0xce => Head::Uint(u64::from(u32::from_be_bytes(self.array()?))),
            0xcf => Head::Uint(u64::from_be_bytes(self.array()?)),
            0xd0 => Head::Int(i64::from(i8::from_be_bytes(self.array()?))),
            0xd1 => Head::Int(i64::from(i16::from_be_bytes(self.array()?))),
            0xd2 => Head::Int(i64::from(i32::from_be_bytes(self.array()?))),
            0xd3 => Head::Int(i64::from_be_bytes(self.array()?)),
            0xd4..=0xd8 => self.ext_of(1 << (kind - 0xd4))?,
            0xdc => Head::List(self.len16()?),
            0xdd => Head::List(self.len32()?),
            0xde => Head::Map(self.len16()?),
            0xdf => Head::Map(self.len32()?),
            0xe0..=0xff => Head::Int(i64::from(kind as i8)),
        })
    }
}

fn mismatch(at: usize, found: Head<'_>, expected: &'static str) -> Error {
    Error::Mismatch { at, found: found.name(), expected }
}

/// At most 64 bytes of a value that is going into an error.
fn hex(bytes: &[u8]) -> String {
    if bytes.len() <= 64 { hex::encode(bytes) } else { format!("{}…", hex::encode(&bytes[..64])) }
}
