//! Every byte exchanged with peers: msgpack of calls and gossip, protobuf of stored pins, of the
//! CRDT and of bitswap.
//!
//! Peers name fields differently from JSON (`rn` for `replication_factor_min`), and what "empty" means differs too,
//! so each type has a file that turns `compat::types` into bytes and back, with a golden test against recordings of
//! the reference beside it.
//!
//! Invariants: decoding never panics and never allocates more than a small multiple of its input; encoding is the
//! reference's, byte for byte (the order of map entries aside, which is random there and sorted here); no other
//! room knows an encoding.

pub mod add;
pub mod bitswap_pb;
pub mod call;
pub mod crdt_pb;
pub mod gc;
pub mod id;
pub mod key;
pub mod metric;
pub mod msgpack;
pub mod nodes_pb;
mod pb;
pub mod pin;
pub mod pin_pb;
pub mod status;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The input ends inside a value.
    #[error("msgpack: input ends at byte {at}, inside a value")]
    Cut {
        /// Length of the input.
        at: usize,
    },
    /// A value of another type than its field.
    #[error("msgpack: byte {at} starts {found}, expected {expected}")]
    Mismatch {
        /// Position of the value.
        at: usize,
        /// What is there.
        found: &'static str,
        /// What its place in the message asks for.
        expected: &'static str,
    },
    /// A value of the right type with impossible content.
    #[error("msgpack: value before byte {at}: {reason}")]
    Invalid {
        /// Position after the value.
        at: usize,
        /// Names the value.
        reason: String,
    },
    /// The reference stores such a pin under an unusable key; here it is refused.
    #[error("pin without a CID")]
    PinWithoutCid,
    /// A status of nothing.
    #[error("status without a CID")]
    RowWithoutCid,
    /// A block that cannot be named.
    #[error("block without a CID")]
    BlockWithoutCid,
    /// A message that is not the protobuf it should be.
    #[error("protobuf: {0}")]
    Protobuf(String),
}

#[cfg(test)]
mod tests;
