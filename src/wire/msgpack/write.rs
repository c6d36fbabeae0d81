//! Writing values.

use std::collections::BTreeMap;

use cluster_compat::go::time::Time;
use cluster_compat::types::{Cid, Multiaddr, PeerId};

use super::NIL;

/// Writes values one after another.
#[derive(Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// An empty output.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// The zero value of anything that has a length.
    pub fn nil(&mut self) {
        self.out.push(NIL);
    }

    /// A bool.
    pub fn bool(&mut self, value: bool) {
        self.out.push(if value { 0xc3 } else { 0xc2 });
    }

    /// A signed integer: positive ones are `d1` and up where they do not fit seven bits.
    pub fn int(&mut self, value: i64) {
        if (-32..=127).contains(&value) {
            self.out.push(value as u8);
        } else if let Ok(small) = i8::try_from(value) {
            self.head(0xd0, &small.to_be_bytes());
        } else if let Ok(small) = i16::try_from(value) {
            self.head(0xd1, &small.to_be_bytes());
        } else if let Ok(small) = i32::try_from(value) {
            self.head(0xd2, &small.to_be_bytes());
        } else {
            self.head(0xd3, &value.to_be_bytes());
        }
    }

    /// An unsigned integer.
    pub fn uint(&mut self, value: u64) {
        if value < 128 {
            self.out.push(value as u8);
        } else if let Ok(small) = u8::try_from(value) {
            self.head(0xcc, &[small]);
        } else if let Ok(small) = u16::try_from(value) {
            self.head(0xcd, &small.to_be_bytes());
        } else if let Ok(small) = u32::try_from(value) {
            self.head(0xce, &small.to_be_bytes());
        } else {
            self.head(0xcf, &value.to_be_bytes());
        }
    }

    /// A float.
    pub fn float(&mut self, value: f64) {
        self.head(0xcb, &value.to_be_bytes());
    }

    /// Bytes or text. Go calls both raw; what exceeds 4 GiB cannot be sent at all.
    pub fn raw(&mut self, value: &[u8]) {
        self.length(value.len(), 32, 0xa0, 0xda);
        self.out.extend_from_slice(value);
    }

    /// An instant, always UTC; the zero time is `nil`.
    pub fn time(&mut self, value: Time) {
        if value.is_zero() {
            return self.nil();
        }
        let (secs, nanos) = (value.unix(), value.subsec_nanos());
        match u64::try_from(secs) {
            Ok(secs) if nanos == 0 && u32::try_from(secs).is_ok() => self.raw(&(secs as u32).to_be_bytes()),
            Ok(secs) if secs >> 34 == 0 => self.raw(&((u64::from(nanos) << 34) | secs).to_be_bytes()),
            _ => {
                let mut bytes = [0; 12];
                bytes[..4].copy_from_slice(&nanos.to_be_bytes());
                bytes[4..].copy_from_slice(&secs.to_be_bytes());
                self.raw(&bytes);
            }
        }
    }

    /// The head of a list; `len` values follow.
    pub fn list(&mut self, len: usize) {
        self.length(len, 16, 0x90, 0xdc);
    }

    /// The head of a map; `len` pairs follow.
    pub fn map(&mut self, len: usize) {
        self.length(len, 16, 0x80, 0xde);
    }

    /// A peer id.
    pub fn peer(&mut self, peer: &PeerId) {
        self.raw(&peer.to_bytes());
    }

    /// A CID.
    pub fn cid(&mut self, cid: &Cid) {
        self.raw(&cid.to_bytes());
    }

    /// One value alone.
    pub fn one(write: impl FnOnce(&mut Self)) -> Vec<u8> {
        // what most values that stand alone need
        let mut out = Self { out: Vec::with_capacity(256) };
        write(&mut out);
        out.into_bytes()
    }

    /// A list of peer ids.
    pub fn peers(&mut self, peers: &[PeerId]) {
        self.list(peers.len());
        for peer in peers {
            self.peer(peer);
        }
    }

    /// A list of multiaddresses.
    pub fn addrs(&mut self, addrs: &[Multiaddr]) {
        self.list(addrs.len());
        for addr in addrs {
            self.raw(addr.as_ref());
        }
    }

    /// Starts a record; end it with [`Record::end`].
    pub fn record(&mut self) -> Record<'_> {
        let start = self.out.len();
        self.out.push(0x80);
        Record { out: self, start, len: 0 }
    }

    fn head(&mut self, kind: u8, payload: &[u8]) {
        self.out.push(kind);
        self.out.extend_from_slice(payload);
    }

    fn length(&mut self, len: usize, fix_below: usize, fix: u8, wide: u8) {
        if len < fix_below {
            self.out.push(fix | len as u8);
        } else if let Ok(len) = u16::try_from(len) {
            self.head(wide, &len.to_be_bytes());
        } else {
            self.head(wide + 1, &u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
}

/// A Go struct on its way out: a map whose empty fields are left out. Fields go in the order of declaration.
/// The named methods omit zero values; [`Record::field`] always writes.
#[derive(Debug)]
pub struct Record<'a> {
    out: &'a mut Writer,
    start: usize,
    len: usize,
}

impl Record<'_> {
    /// Writes a key; the caller writes exactly one value.
    pub fn field(&mut self, key: &str) -> &mut Writer {
        self.len += 1;
        self.out.raw(key.as_bytes());
        self.out
    }

    /// Signed.
    pub fn int(&mut self, key: &str, value: i64) {
        if value != 0 {
            self.field(key).int(value);
        }
    }

    /// Unsigned.
    pub fn uint(&mut self, key: &str, value: u64) {
        if value != 0 {
            self.field(key).uint(value);
        }
    }

    /// Written when true.
    pub fn bool(&mut self, key: &str, value: bool) {
        if value {
            self.field(key).bool(true);
        }
    }

    /// Text.
    pub fn text(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.field(key).raw(value.as_bytes());
        }
    }

    /// Bytes.
    pub fn bytes(&mut self, key: &str, value: &[u8]) {
        if !value.is_empty() {
            self.field(key).raw(value);
        }
    }

    /// An instant.
    pub fn time(&mut self, key: &str, value: Time) {
        if !value.is_zero() {
            self.field(key).time(value);
        }
    }

    /// A peer id.
    pub fn peer(&mut self, key: &str, value: Option<&PeerId>) {
        if let Some(peer) = value {
            self.field(key).peer(peer);
        }
    }

    /// A CID.
    pub fn cid(&mut self, key: &str, value: Option<&Cid>) {
        if let Some(cid) = value {
            self.field(key).cid(cid);
        }
    }

    /// Peer ids; an empty list is not nothing.
    pub fn peers(&mut self, key: &str, value: Option<&[PeerId]>) {
        if let Some(peers) = value {
            self.field(key).peers(peers);
        }
    }

    /// Multiaddresses; an empty list is not nothing.
    pub fn addrs(&mut self, key: &str, value: Option<&[Multiaddr]>) {
        if let Some(addrs) = value {
            self.field(key).addrs(addrs);
        }
    }

    /// Text by text; an empty map is not nothing.
    pub fn texts(&mut self, key: &str, value: Option<&BTreeMap<String, String>>) {
        if let Some(map) = value {
            let out = self.field(key);
            out.map(map.len());
            for (key, value) in map {
                out.raw(key.as_bytes());
                out.raw(value.as_bytes());
            }
        }
    }

    /// Puts the number of fields into the head.
    pub fn end(self) {
        if self.len < 16 {
            self.out.out[self.start] = 0x80 | self.len as u8;
        } else {
            // no type has as many as 65536 fields
            let [high, low] = (self.len as u16).to_be_bytes();
            self.out.out.splice(self.start..=self.start, [0xde, high, low]);
        }
    }
}
