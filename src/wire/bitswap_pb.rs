//! Bitswap messages: what a peer wants, the blocks it sends, what it has and has not (spec: wire 6.1).
//!
//! Decoding checks a whole message and copies nothing: [`Message`] reads its entries, blocks and presences from the
//! received bytes each time it is asked. Encoding gives the reference's bytes, length prefix included.

use super::Error;
use super::pb::{
    Fields, Value, bytes_field_len, malformed, put_bytes, put_bytes_head, put_number_if_any, put_varint,
    varint_len,
};

/// Longest message the reference reads.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Longest CID the reference answers.
pub const MAX_CID_BYTES: usize = 168;

/// Shortest CID there is: version, codec, hash, length.
const MIN_CID_BYTES: usize = 4;

/// What is wanted of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Want {
    /// The block itself.
    #[default]
    Block,
    /// Whether the peer has it.
    Have,
}

/// A line of a wantlist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The CID as it came; it may be none.
    pub cid: &'a [u8],
    /// Higher ones are served first.
    pub priority: i32,
    /// No longer wanted.
    pub is_cancelled: bool,
    /// What is wanted.
    pub want: Want,
    /// Whether a peer without the block shall say so.
    pub wants_dont_have: bool,
}

/// A received message, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    bytes: &'a [u8],
    /// The wantlist replaces the one before.
    pub is_full: bool,
    /// Bytes of blocks that the peer is about to send.
    pub pending_bytes: i32,
}

/// A part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// A line of the wantlist.
    Entry(Entry<'a>),
    /// A block of protocol 1.0, which is named by a CID of version 0.
    OldBlock(&'a [u8]),
    /// A block, and what its CID is besides the digest.
    Block {
        /// Version, codec, hash function and length of the digest.
        prefix: &'a [u8],
        /// The block.
        data: &'a [u8],
    },
    /// Whether the peer has a block.
    Presence {
        /// Which block.
        cid: &'a [u8],
        /// Whether it has it.
        has: bool,
    },
}

impl<'a> Message<'a> {
    /// Checks a message without its length prefix.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut message = Self { bytes, is_full: false, pending_bytes: 0 };
        let mut fields = Fields::new(bytes);
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Bytes(wantlist)) => {
                    let mut lines = Fields::new(wantlist);
                    while let Some(line) = lines.next()? {
                        match line {
                            (1, Value::Bytes(entry)) => drop(decode_entry(entry)?),
                            (2, Value::Varint(full)) => message.is_full = full != 0,
                            _ => {}
                        }
                    }
                }
                (3, Value::Bytes(block)) => drop(decode_block(block)?),
                (4, Value::Bytes(presence)) => drop(decode_presence(presence)?),
                (5, Value::Varint(pending)) => message.pending_bytes = pending as i32,
                _ => {}
            }
        }
        Ok(message)
    }

    /// What is in it, in its order.
    pub fn parts(&self) -> impl Iterator<Item = Part<'a>> + use<'a> {
        let mut fields = Fields::new(self.bytes);
        let mut wantlist = Fields::new(&[]);
        // the bytes were checked: errors do not occur
        std::iter::from_fn(move || {
            loop {
                while let Ok(Some(line)) = wantlist.next() {
                    if let (1, Value::Bytes(entry)) = line {
                        return decode_entry(entry).ok();
                    }
                }
                match fields.next().ok()?? {
                    (1, Value::Bytes(lines)) => wantlist = Fields::new(lines),
                    (2, Value::Bytes(block)) => return Some(Part::OldBlock(block)),
                    (3, Value::Bytes(block)) => return decode_block(block).ok(),
                    (4, Value::Bytes(presence)) => return decode_presence(presence).ok(),
                    _ => {}
                }
            }
        })
    }
}

fn decode_entry(message: &[u8]) -> Result<Part<'_>, Error> {
    let mut entry =
        Entry { cid: &[], priority: 0, is_cancelled: false, want: Want::Block, wants_dont_have: false };
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(cid)) => entry.cid = cid,
            (2, Value::Varint(priority)) => entry.priority = priority as i32,
            (3, Value::Varint(cancelled)) => entry.is_cancelled = cancelled != 0,
            (4, Value::Varint(want)) => entry.want = if want == 0 { Want::Block } else { Want::Have },
            (5, Value::Varint(wants)) => entry.wants_dont_have = wants != 0,
            _ => {}
        }
    }
    check_cid(entry.cid)?;
    Ok(Part::Entry(entry))
}

fn decode_block(message: &[u8]) -> Result<Part<'_>, Error> {
    let (mut prefix, mut data): (&[u8], &[u8]) = (&[], &[]);
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(bytes)) => prefix = bytes,
            (2, Value::Bytes(bytes)) => data = bytes,
            _ => {}
        }
    }
    if prefix.is_empty() {
        return Err(malformed("bitswap: a block without the prefix of its CID".into()));
    }
    Ok(Part::Block { prefix, data })
}

fn decode_presence(message: &[u8]) -> Result<Part<'_>, Error> {
    let (mut cid, mut has): (&[u8], bool) = (&[], true);
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(bytes)) => cid = bytes,
            (2, Value::Varint(kind)) => has = kind == 0,
            _ => {}
        }
    }
    check_cid(cid)?;
    Ok(Part::Presence { cid, has })
}

fn check_cid(cid: &[u8]) -> Result<(), Error> {
    if cid.len() < MIN_CID_BYTES {
        return Err(malformed(format!("bitswap: {} bytes are no CID", cid.len())));
    }
    Ok(())
}

/// A message to be sent. Parts may come in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Builder {
    wantlist: Vec<u8>,
    is_full: bool,
    old_blocks: Vec<u8>,
    blocks: Vec<u8>,
    presences: Vec<u8>,
    pending_bytes: i32,
}

impl Builder {
    /// Adds a line to the wantlist.
    pub fn entry(&mut self, entry: &Entry<'_>) {
        let priority = i64::from(entry.priority) as u64;
        let mut length = bytes_field_len(entry.cid.len());
        length += if priority == 0 { 0 } else { 1 + varint_len(priority) };
        length += 2 * usize::from(entry.is_cancelled);
        length += 2 * usize::from(entry.want == Want::Have);
        length += 2 * usize::from(entry.wants_dont_have);
        let out = &mut self.wantlist;
        put_bytes_head(out, 1, length);
        put_bytes(out, 1, entry.cid);
        put_number_if_any(out, 2, priority);
        put_number_if_any(out, 3, u64::from(entry.is_cancelled));
        put_number_if_any(out, 4, u64::from(entry.want == Want::Have));
        put_number_if_any(out, 5, u64::from(entry.wants_dont_have));
    }

    /// Says that the wantlist replaces what was sent before.
    pub const fn full(&mut self) {
        self.is_full = true;
    }

    /// Adds a block.
    pub fn block(&mut self, prefix: &[u8], data: &[u8]) {
        put_bytes_head(&mut self.blocks, 3, bytes_field_len(prefix.len()) + bytes_field_len(data.len()));
        put_bytes(&mut self.blocks, 1, prefix);
        put_bytes(&mut self.blocks, 2, data);
    }

    /// Adds a block as protocol 1.0 sends it.
    pub fn old_block(&mut self, data: &[u8]) {
        put_bytes(&mut self.old_blocks, 2, data);
    }

    /// Adds whether we have a block.
    pub fn presence(&mut self, cid: &[u8], has: bool) {
        let out = &mut self.presences;
        put_bytes_head(out, 4, bytes_field_len(cid.len()) + 2 * usize::from(!has));
        put_bytes(out, 1, cid);
        put_number_if_any(out, 2, u64::from(!has));
    }

    /// Says how many bytes of blocks will follow in other messages.
    pub const fn pending_bytes(&mut self, n_bytes: i32) {
        self.pending_bytes = n_bytes;
    }

    /// Whether there is nothing to say.
    pub const fn is_empty(&self) -> bool {
        self.wantlist.is_empty()
            && !self.is_full
            && self.old_blocks.is_empty()
            && self.blocks.is_empty()
            && self.presences.is_empty()
    }

    /// The message behind its length.
    pub fn build(self) -> Vec<u8> {
        let pending = i64::from(self.pending_bytes) as u64;
        let wantlist = self.wantlist.len() + 2 * usize::from(self.is_full);
        let length = bytes_field_len(wantlist)
            + self.old_blocks.len()
            + self.blocks.len()
            + self.presences.len()
            + if pending == 0 { 0 } else { 1 + varint_len(pending) };
        let mut out = Vec::with_capacity(varint_len(length as u64) + length);
        put_varint(&mut out, length as u64);
        // the reference writes the wantlist even when it is empty
        put_bytes_head(&mut out, 1, wantlist);
        out.extend_from_slice(&self.wantlist);
        put_number_if_any(&mut out, 2, u64::from(self.is_full));
        out.extend_from_slice(&self.old_blocks);
        out.extend_from_slice(&self.blocks);
        out.extend_from_slice(&self.presences);
        put_number_if_any(&mut out, 5, pending);
        out
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};
    use serde_json::Value as Json;

    use super::*;

    fn recorded() -> Vec<(Vec<u8>, Json)> {
        let text = include_str!("../../fixtures/wire/bitswap.json");
        let mut recording: Json = serde_json::from_str(text).unwrap();
        let messages = recording["messages"].as_array_mut().unwrap();
        messages
            .iter_mut()
            .map(|message| {
                (hex::decode(message["frame"].as_str().unwrap()).unwrap(), message["decoded"].take())
            })
            .collect()
    }

    fn rebuilt(message: &Message<'_>) -> Vec<u8> {
        let mut builder = Builder::default();
        if message.is_full {
            builder.full();
        }
        builder.pending_bytes(message.pending_bytes);
        for part in message.parts() {
            match part {
                Part::Entry(entry) => builder.entry(&entry),
                Part::OldBlock(data) => builder.old_block(data),
                Part::Block { prefix, data } => builder.block(prefix, data),
                Part::Presence { cid, has } => builder.presence(cid, has),
            }
        }
        builder.build()
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        put_varint(&mut frame, message.len() as u64);
        frame.extend_from_slice(message);
        frame
    }

    #[test]
    fn recorded_messages_are_read_and_written_byte_for_byte() {
        let cid = |bytes: &[u8]| cluster_compat::types::Cid::try_from(bytes).unwrap().to_string();
        let recorded = recorded();
        assert_eq!(recorded.len(), 24);
        for (frame, decoded) in recorded {
            let message = Message::decode(&frame).unwrap();
            assert_eq!(rebuilt(&message), framed(&frame));
            let (mut entries, mut blocks) = (Vec::new(), Vec::new());
            for part in message.parts() {
                match part {
                    Part::Entry(entry) => entries.push(serde_json::json!({
                        "cancel": entry.is_cancelled,
                        "cid": cid(entry.cid),
                        "priority": entry.priority,
                        "send_dont_have": entry.wants_dont_have,
                        "want_type": format!("{:?}", entry.want),
                    })),
                    Part::Block { prefix, data } => blocks.push(serde_json::json!({
                        "prefix": hex::encode(prefix), "data": hex::encode(data),
                    })),
                    other => panic!("not recorded: {other:?}"),
                }
            }
            let mut read = serde_json::json!({ "wantlist": { "entries": entries, "full": message.is_full } });
            if !blocks.is_empty() {
                read["payload"] = blocks.into();
            }
            assert_eq!(read, decoded);
        }
    }

    #[test]
    fn every_field_survives_both_ways() {
        let cid = hex::decode("01701220").unwrap().into_iter().chain([7; 32]).collect::<Vec<_>>();
        let mut builder = Builder::default();
        assert!(builder.is_empty());
        let entry =
            Entry { cid: &cid, priority: -1, is_cancelled: true, want: Want::Have, wants_dont_have: true };
        builder.entry(&entry);
        builder.full();
        builder.old_block(b"old");
        builder.block(&cid[..4], b"new");
        builder.block(&cid[..4], b"");
        builder.presence(&cid, true);
        builder.presence(&cid, false);
        builder.pending_bytes(-7);
        let frame = builder.clone().build();
        let message = Message::decode(&frame[2..]).unwrap();
        assert!(message.is_full);
        assert_eq!(message.pending_bytes, -7);
        assert_eq!(
            message.parts().collect::<Vec<_>>(),
            [
                Part::Entry(entry),
                Part::OldBlock(b"old"),
                Part::Block { prefix: &cid[..4], data: b"new" },
                Part::Block { prefix: &cid[..4], data: b"" },
                Part::Presence { cid: &cid, has: true },
                Part::Presence { cid: &cid, has: false },
            ]
        );
        assert_eq!(rebuilt(&message), frame);
        // nothing at all
        assert_eq!(Builder::default().build(), [2, 10, 0]);
        assert_eq!(Message::decode(&[]).unwrap().parts().count(), 0);
    }

    #[test]
    fn messages_that_name_no_cid_are_errors() {
        for (message, word) in [
            ("0a020a00", "0 bytes are no CID"),
            ("0a070a050a03017012", "3 bytes are no CID"),
            ("1a03120161", "without the prefix"),
            ("22021001", "0 bytes are no CID"),
            ("0a05", "announced"),
            ("0a030a0a01", "announced"),
        ] {
            let error = Message::decode(&hex::decode(message).unwrap()).unwrap_err().to_string();
            assert!(error.contains(word), "{message}: {error}");
        }
    }

    #[test]
    fn damaged_messages_are_errors_or_other_messages() {
        let mut random = StdRng::seed_from_u64(0x6b17);
        let mut seeds: Vec<Vec<u8>> = recorded().into_iter().map(|(frame, _)| frame).collect();
        let mut all = Builder::default();
        all.full();
        all.old_block(&[1; 40]);
        all.block(&[1, 0x70, 0x12, 0x20], &[2; 40]);
        all.presence(&[1, 0x55, 0, 1, 9], false);
        all.pending_bytes(300);
        seeds.push(all.build()[2..].to_vec());
        let (mut n_read, mut n_refused) = (0, 0);
        for _ in 0..60_000 {
            let mut bytes = seeds[random.random_range(0..seeds.len())].clone();
            for _ in 0..random.random_range(1..6) {
                let at = random.random_range(0..bytes.len());
                match random.random_range(0..5) {
                    0 => bytes[at] = random.random(),
                    1 => bytes[at] ^= 1 << random.random_range(0..8),
                    2 => bytes.truncate(at.max(1)),
                    3 => bytes.insert(at, random.random()),
                    _ => {
                        let piece = bytes[at..].to_vec();
                        bytes.extend_from_slice(&piece);
                    }
                }
            }
            match Message::decode(&bytes) {
                Err(_) => n_refused += 1,
                Ok(message) => {
                    n_read += 1;
                    // what was read is written as a message of the same meaning, no longer than its parts
                    let again = rebuilt(&message);
                    let start = again.iter().position(|byte| *byte < 0x80).unwrap() + 1;
                    let second = Message::decode(&again[start..]).unwrap();
                    assert_eq!(
                        (second.is_full, second.pending_bytes),
                        (message.is_full, message.pending_bytes)
                    );
                    assert_eq!(second.parts().count(), message.parts().count());
                    assert_eq!(rebuilt(&second), again);
                }
            }
        }
        assert!(n_read > 5_000 && n_refused > 5_000, "{n_read} read, {n_refused} refused");
    }
}
