//! Records of names: what a key signs about where its name leads. (<https://specs.ipfs.tech/ipns/ipns-record/>)
//!
//! A record is believed when its version 2 signature is that of the name's key, what stands beside the signed data
//! agrees with it, and its time is not over. Records come from anybody: sizes are bounded, and nothing is taken from a
//! record before it was checked.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cluster_compat::go::time::Time;
use cluster_compat::types::{Cid, PeerId};
use libp2p::identity::{Keypair, PublicKey};
use prost::Message as _;

use super::ipld::{self, LIBP2P_KEY, Value};

/// Largest record that is read. (spec, "Record Size Limit")
pub(super) const MAX_BYTES: usize = 10 << 10;
/// What the data is signed with in front.
const SIGNED_WITH: &[u8] = b"ipns-signature:";
/// Multihash code of keys that are in their peer ID.
const IDENTITY: u64 = 0;

/// The message on the wire.
#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(bytes = "vec", optional, tag = "1")]
    value: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "2")]
    signature_v1: Option<Vec<u8>>,
    #[prost(int32, optional, tag = "3")]
    validity_type: Option<i32>,
    #[prost(bytes = "vec", optional, tag = "4")]
    validity: Option<Vec<u8>>,
    #[prost(uint64, optional, tag = "5")]
    sequence: Option<u64>,
    #[prost(uint64, optional, tag = "6")]
    ttl: Option<u64>,
    #[prost(bytes = "vec", optional, tag = "7")]
    public_key: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "8")]
    signature_v2: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "9")]
    data: Option<Vec<u8>>,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// The path it leads to.
    pub(super) value: String,
    pub(super) sequence: u64,
    /// When it ends, as it is written.
    pub(super) until: String,
    /// How long it may be kept without asking again.
    pub(super) ttl: Duration,
}

/// Writes a record and signs it.
pub(super) fn sign(record: &Record, key: &Keypair) -> Result<Vec<u8>, String> {
    let ttl = u64::try_from(record.ttl.as_nanos()).unwrap_or(u64::MAX);
    let data = ipld::encode_cbor(&Value::Map(vec![
        (b"Value".to_vec(), Value::Bytes(record.value.clone().into_bytes())),
        (b"Validity".to_vec(), Value::Bytes(record.until.clone().into_bytes())),
        (b"ValidityType".to_vec(), Value::Int(0)),
        (b"Sequence".to_vec(), Value::Int(i128::from(record.sequence))),
        (b"TTL".to_vec(), Value::Int(i128::from(ttl))),
    ]));
    let failed = |cause: libp2p::identity::SigningError| cause.to_string();
    // for readers of before 2021, as Kubo writes it
    let old = [record.value.as_bytes(), record.until.as_bytes(), b"0"].concat();
    let public = key.public();
    let is_inline = public.to_peer_id().as_ref().code() == IDENTITY;
    let entry = Entry {
        value: Some(record.value.clone().into_bytes()),
        signature_v1: Some(key.sign(&old).map_err(failed)?),
        validity_type: Some(0),
        validity: Some(record.until.clone().into_bytes()),
        sequence: Some(record.sequence),
        ttl: Some(ttl),
        public_key: (!is_inline).then(|| public.encode_protobuf()),
        signature_v2: Some(key.sign(&[SIGNED_WITH, &data].concat()).map_err(failed)?),
        data: Some(data),
    };
    Ok(entry.encode_to_vec())
}

/// Reads a record of a name, if it is believed at `now`.
pub(super) fn verify(name: &PeerId, bytes: &[u8], now: SystemTime) -> Result<Record, String> {
    if bytes.len() > MAX_BYTES {
        return Err(format!("the record has {} bytes, at most {MAX_BYTES} are allowed", bytes.len()));
    }
    let entry = Entry::decode(bytes).map_err(|cause| format!("record is malformed: {cause}"))?;
    let key = public_key(name, entry.public_key.as_deref())?;
    let data = entry.data.ok_or("the record has no signed data")?;
    let signature = entry.signature_v2.ok_or("the record has no signature of version 2")?;
    if !key.verify(&[SIGNED_WITH, &data].concat(), &signature) {
        return Err("the record's signature is not that of its name".into());
    }
    let data = ipld::decode_cbor(&data, true)?;
    let bytes_of = |name: &str| match data.step(name) {
        Some(Value::Bytes(bytes)) => Ok(bytes.clone()),
        _ => Err(format!("the record's data has no {name}")),
    };
    let number_of = |name: &str| match data.step(name) {
        Some(Value::Int(number)) => u64::try_from(*number).map_err(|_| format!("{name} is {number}")),
        _ => Err(format!("the record's data has no {name}")),
    };
    let (value, until) = (bytes_of("Value")?, bytes_of("Validity")?);
    let (sequence, ttl) = (number_of("Sequence")?, number_of("TTL")?);
    // what stands outside is not signed, and must not say otherwise
    let differs = entry.value.is_some_and(|outside| outside != value)
        || entry.validity.is_some_and(|outside| outside != until)
        || entry.sequence.is_some_and(|outside| outside != sequence)
        || entry.ttl.is_some_and(|outside| outside != ttl);
    if differs {
        return Err("what stands beside the record's signed data differs from it".into());
    }
    if number_of("ValidityType")? != 0 {
        return Err("the record's validity is of an unknown type".into());
    }
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| "the record's texts are not UTF-8");
    let (value, until) = (text(value)?, text(until)?);
    let end = Time::parse_rfc3339(&until).map_err(|cause| format!("the record's end {until:?}: {cause}"))?;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    if end <= Time::from_unix(i64::try_from(now.as_secs()).unwrap_or(i64::MAX), now.subsec_nanos()) {
        return Err(format!("the record ended at {until}"));
    }
    Ok(Record { value, sequence, until, ttl: Duration::from_nanos(ttl) })
}

fn public_key(name: &PeerId, told: Option<&[u8]>) -> Result<PublicKey, String> {
    let bytes = match (name.as_ref().code(), told) {
        (IDENTITY, _) => name.as_ref().digest(),
        (_, Some(told)) => told,
        (_, None) => return Err("the record does not have its public key".into()),
    };
    let key = PublicKey::try_decode_protobuf(bytes).map_err(|cause| cause.to_string())?;
    match key.to_peer_id() == *name {
        true => Ok(key),
        false => Err("the record's public key is not that of its name".into()),
    }
}

/// What the DHTs know a name's record by.
pub(super) fn routing_key(name: &PeerId) -> Vec<u8> {
    [b"/ipns/", name.to_bytes().as_slice()].concat()
}

/// A name as a CID.
pub(super) fn name_cid(name: &PeerId) -> Cid {
    Cid::new_v1(LIBP2P_KEY, *name.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            value: "/ipfs/bafkqaaa".into(),
            sequence: 7,
            until: "2100-01-02T03:04:05.000000006Z".into(),
            ttl: Duration::from_secs(300),
        }
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn a_record_is_believed_of_its_own_name_alone() {
        let (key, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let name = key.public().to_peer_id();
        let bytes = sign(&record(), &key).unwrap();
        assert_eq!(verify(&name, &bytes, now()).unwrap(), record());
        verify(&other.public().to_peer_id(), &bytes, now()).unwrap_err();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            // the old signature is read by nobody
            if let Ok(read) = verify(&name, &bad, now()) {
                assert_eq!(read, record(), "byte {at}");
            }
        }
    }

    #[test]
    fn a_record_that_has_ended_is_not_believed() {
        let key = Keypair::generate_ed25519();
        let old = Record { until: "2020-01-02T03:04:05Z".into(), ..record() };
        let refused = verify(&key.public().to_peer_id(), &sign(&old, &key).unwrap(), now()).unwrap_err();
        assert_eq!(refused, "the record ended at 2020-01-02T03:04:05Z");
    }

    #[test]
    fn a_key_that_is_too_long_for_its_name_stands_in_the_record() {
        let key = Keypair::generate_secp256k1();
        let bytes = sign(&record(), &key).unwrap();
        assert_eq!(verify(&key.public().to_peer_id(), &bytes, now()).unwrap(), record());
    }
}
