//! `block/put` as a stream: one multipart part per block, answers while the upload goes on.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cluster_compat::types::{Block, Cid, cid_text, parse_cid};
use http::HeaderValue;
use hyper::body::{Body, Frame, SizeHint};
use multihash::Multihash;
use rand::Rng;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::json::{self, Documents, Text};
use super::request::Limit;
use super::{Client, Error};
use crate::observe::metrics;

/// Random bytes of a multipart boundary. (Go: `mime/multipart`, `randomBoundary`)
const BOUNDARY_BYTES: usize = 30;

/// Bytes of parts that are sent as one piece.
const PIECE_BYTES: usize = 64 * 1024;

/// Blocks of up to so many bytes are copied into such a piece; larger ones go out as they are.
const COPIED_BYTES: usize = 16 * 1024;

json::object! {
    /// A line of `block/put`.
    PutLine {
        key: Text<'a> = "Key",
        message: Text<'a> = "Message",
    }
}

impl Client {
    /// Stores blocks in the daemon as they arrive, all with the codec and hash of the first. Succeeds when the
    /// daemon has confirmed every one of them. There is no limit to the whole, but a daemon that neither takes
    /// nor says anything for the length of a request has failed.
    pub async fn block_stream(&self, mut blocks: mpsc::Receiver<Vec<Block>>) -> Result<(), Error> {
        let _event = self.event_at_end();
        let batch = blocks.recv().await.ok_or(Error::NoBlocks)?;
        let path = put_path(&batch.first().ok_or(Error::NoBlocks)?.cid)?;
        let boundary = boundary();
        let sent = Arc::new(Mutex::new(Sent::new()));
        let mut upload = Upload {
            blocks,
            batch: Vec::new().into_iter(),
            buffer: BytesMut::new(),
            content: None,
            boundary: boundary.clone(),
            n_parts: 0,
            n_bytes: Arc::default(),
            sent: Arc::clone(&sent),
        };
        upload.begin(batch);
        let body = Outgoing::Blocks(Box::new(upload));
        let content_type = HeaderValue::try_from(format!("multipart/form-data; boundary={boundary}"))
            .map_err(|_| Error::Argument(format!("{boundary} is not a boundary")))?;
        let silence = self.inner.options.ipfs_request_timeout;
        metrics::BLOCKS_PUT.inc();
        let result = tokio::select! {
            biased;
            result = self.put(&path, content_type, body, &sent) => result,
            () = stalled(&sent, silence) => Err(Error::Reply(format!(
                "block/put: the daemon took nothing for {} seconds", silence.as_secs_f64()
            ))),
        };
        if result.is_err() {
            metrics::BLOCKS_PUT_ERRORS.inc();
        }
        result
    }

    async fn put(
        &self,
        path: &str,
        content_type: HeaderValue,
        body: Outgoing,
        sent: &Mutex<Sent>,
    ) -> Result<(), Error> {
        let mut reply = self.inner.daemon.post(path, Some(content_type), body, Limit::NONE).await?;
        let mut documents = Documents::default();
        let mut foreign = None;
        while let Some(piece) = reply.piece().await? {
            lock(sent).moved_at = Instant::now();
            let mut failure = None;
            let read = documents.feed(&piece, |lines| {
                while let Some(line) = lines.next::<PutLine<'_>>()? {
                    if !line.message.0.is_empty() {
                        failure = Some(line.message.0.into_owned());
                        break;
                    }
                    let key = parse_cid(&line.key.0)?;
                    debug!(target: "ipfshttp", "response block: {key}");
                    if !lock(sent).confirm(&key) {
                        let text = format!(
                            "blockPut response CID ({key}) does not match the multihash of any blocks sent"
                        );
                        warn!(target: "ipfshttp", "{text}");
                        foreign = Some(text);
                    }
                }
                Ok(())
            });
            read.map_err(|text| {
                error!(target: "ipfshttp", "{text}");
                Error::Reply(text)
            })?;
            if let Some(message) = failure {
                return Err(reply.failure(message));
            }
        }
        documents.finish().map_err(Error::Reply)?;
        if let Some(text) = foreign {
            return Err(Error::Reply(text));
        }
        lock(sent).verdict()
    }
}

/// Ends when the daemon was silent for too long while it was its turn. Zero: never.
async fn stalled(sent: &Mutex<Sent>, silence: Duration) {
    if silence.is_zero() {
        return std::future::pending().await;
    }
    loop {
        let ends_at = {
            let mut sent = lock(sent);
            if sent.is_starved {
                sent.moved_at = Instant::now();
            }
            sent.moved_at.checked_add(silence)
        };
        let Some(ends_at) = ends_at else { return std::future::pending().await };
        if ends_at <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(ends_at).await;
    }
}

/// What was sent and not confirmed.
#[derive(Debug)]
struct Sent {
    /// When the daemon last took or said something.
    moved_at: Instant,
    /// Whether the next block has yet to come from our side.
    is_starved: bool,
    /// How often each multihash was sent and not confirmed; the daemon may answer with another codec.
    unconfirmed: HashMap<Multihash<64>, usize>,
    n_unconfirmed: usize,
    /// The same of spare blocks, which need no confirmation and may have one.
    spare: HashMap<Multihash<64>, usize>,
    /// Whether the last part was sent.
    is_whole: bool,
}

impl Sent {
    fn new() -> Self {
        Self {
            moved_at: Instant::now(),
            is_starved: false,
            unconfirmed: HashMap::new(),
            n_unconfirmed: 0,
            spare: HashMap::new(),
            is_whole: false,
        }
    }

    /// Notes blocks that are about to be sent.
    fn begin(&mut self, batch: &[Block]) {
        for block in batch {
            let hash = *block.cid.hash();
            if block.is_spare {
                *self.spare.entry(hash).or_default() += 1;
            } else {
                *self.unconfirmed.entry(hash).or_default() += 1;
                self.n_unconfirmed += 1;
            }
        }
    }

    fn confirm(&mut self, cid: &Cid) -> bool {
        if take(&mut self.unconfirmed, cid.hash()) {
            self.n_unconfirmed -= 1;
            return true;
        }
        take(&mut self.spare, cid.hash())
    }

    fn verdict(&self) -> Result<(), Error> {
        if !self.is_whole {
            return Err(Error::Reply(
                "block/put: the daemon ended its reply before all blocks were sent".into(),
            ));
        }
        if self.n_unconfirmed > 0 {
            let text =
                format!("block/put: the daemon did not confirm {} of the blocks sent", self.n_unconfirmed);
            return Err(Error::Reply(text));
        }
        Ok(())
    }
}

/// Counts a hash down; whether it was there.
fn take(counts: &mut HashMap<Multihash<64>, usize>, hash: &Multihash<64>) -> bool {
    let Some(n) = counts.get_mut(hash) else { return false };
    *n -= 1;
    if *n == 0 {
        counts.remove(hash);
    }
    true
}

/// Taken for the moment a block is sent or confirmed, never over an await.
fn lock(sent: &Mutex<Sent>) -> MutexGuard<'_, Sent> {
    sent.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The body of a request.
#[derive(Debug, Default)]
pub(super) enum Outgoing {
    #[default]
    Empty,
    Blocks(Box<Upload>),
}

/// A multipart body made of blocks that arrive. Small blocks are copied into one piece with the heads of their parts;
/// nothing is buffered but that piece and the batch being sent.
#[derive(Debug)]
pub(super) struct Upload {
    blocks: mpsc::Receiver<Vec<Block>>,
    /// Blocks whose parts were not begun.
    batch: std::vec::IntoIter<Block>,
    /// Parts that wait to be sent.
    buffer: BytesMut,
    /// A large block, which comes after the buffer.
    content: Option<Bytes>,
    boundary: String,
    n_parts: u64,
    /// Bytes of blocks sent so far.
    n_bytes: Arc<AtomicU64>,
    sent: Arc<Mutex<Sent>>,
}

impl Outgoing {
    /// Counts what is sent of it; nothing of an empty one.
    pub(super) fn n_sent(&self) -> Option<Arc<AtomicU64>> {
        match self {
            Self::Empty => None,
            Self::Blocks(upload) => Some(Arc::clone(&upload.n_bytes)),
        }
    }
}

impl Upload {
    fn begin(&mut self, batch: Vec<Block>) {
        lock(&self.sent).begin(&batch);
        self.batch = batch.into_iter();
    }

    /// The next batch; `None` behind the last one.
    fn receive(&mut self, cx: &mut Context<'_>) -> Option<Poll<Option<Vec<Block>>>> {
        let mut sent = lock(&self.sent);
        sent.moved_at = Instant::now();
        if sent.is_whole {
            return None;
        }
        let received = self.blocks.poll_recv(cx);
        sent.is_starved = received.is_pending();
        sent.is_whole = matches!(received, Poll::Ready(None));
        Some(received)
    }

    /// Writes parts into the buffer until it is a piece, or the batch ends.
    fn fill(&mut self) {
        while self.content.is_none()
            && self.buffer.len() < PIECE_BYTES
            && let Some(block) = self.batch.next()
        {
            self.write_head(&block.cid);
            let n_bytes = block.data.len() as u64;
            self.n_bytes.fetch_add(n_bytes, Ordering::Relaxed);
            metrics::BLOCKS_ADDED.inc();
            metrics::BLOCKS_ADDED_SIZE.add(n_bytes);
            if block.data.len() <= COPIED_BYTES {
                self.buffer.extend_from_slice(&block.data);
            } else {
                self.content = Some(block.data);
            }
        }
    }

    /// The head of a part, with the line that ends the one before.
    fn write_head(&mut self, cid: &Cid) {
        let name = cid_text(cid);
        let pieces: [&[u8]; 5] = [
            if self.n_parts == 0 { b"--" } else { b"\r\n--" },
            self.boundary.as_bytes(),
            b"\r\nAbspath-Encoded: \r\nContent-Disposition: form-data; name=\"file\"; filename=\"",
            name.as_bytes(),
            b"\"\r\nContent-Type: application/octet-stream\r\n\r\n",
        ];
        for piece in pieces {
            self.buffer.extend_from_slice(piece);
        }
        self.n_parts += 1;
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Self::Blocks(upload) = &mut *self else { return Poll::Ready(None) };
        loop {
            upload.fill();
            let has_piece = upload.content.is_some() || upload.buffer.len() >= PIECE_BYTES;
            let received = if has_piece { None } else { upload.receive(cx) };
            match received {
                Some(Poll::Ready(Some(batch))) => upload.begin(batch),
                Some(Poll::Ready(None)) => {
                    let end = format!("\r\n--{}--\r\n", upload.boundary);
                    upload.buffer.extend_from_slice(end.as_bytes());
                }
                Some(Poll::Pending) if upload.buffer.is_empty() => return Poll::Pending,
                Some(Poll::Pending) | None => {
                    let piece = if upload.buffer.is_empty() {
                        upload.content.take()
                    } else {
                        Some(upload.buffer.split().freeze())
                    };
                    return Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Blocks(_) => SizeHint::default(),
        }
    }
}

fn boundary() -> String {
    let mut bytes = [0; BOUNDARY_BYTES];
    rand::rng().fill(&mut bytes[..]);
    hex::encode(bytes)
}

/// The path with the codec, hash and length that the daemon shall use for all blocks of a stream.
fn put_path(cid: &Cid) -> Result<String, Error> {
    let hash = cid.hash();
    let codec = codec_name(cid.codec());
    let kind = hash_name(hash.code()).ok_or_else(|| {
        Error::Argument(format!("cannot find name for the blocks' Multihash type: {:x}", hash.code()))
    })?;
    let length = hash.size();
    Ok(format!("block/put?allow-big-block=true&cid-codec={codec}&mhlen={length}&mhtype={kind}&pin=false"))
}

/// Names of content codecs (multicodec table, tags `ipld` and `serialization`).
const CODECS: &[(u64, &str)] = &[
    (0x50, "protobuf"),
    (0x51, "cbor"),
    (0x55, "raw"),
    (0x60, "rlp"),
    (0x63, "bencode"),
    (0x70, "dag-pb"),
    (0x71, "dag-cbor"),
    (0x72, "libp2p-key"),
    (0x78, "git-raw"),
    (0x7b, "torrent-info"),
    (0x7c, "torrent-file"),
    (0x80, "blake3-hashseq"),
    (0x81, "leofcoin-block"),
    (0x82, "leofcoin-tx"),
    (0x83, "leofcoin-pr"),
    (0x85, "dag-jose"),
    (0x86, "dag-cose"),
    (0x90, "eth-block"),
    (0x91, "eth-block-list"),
    (0x92, "eth-tx-trie"),
    (0x93, "eth-tx"),
    (0x94, "eth-tx-receipt-trie"),
    (0x95, "eth-tx-receipt"),
    (0x96, "eth-state-trie"),
    (0x97, "eth-account-snapshot"),
    (0x98, "eth-storage-trie"),
    (0x99, "eth-receipt-log-trie"),
    (0x9a, "eth-receipt-log"),
    (0xb0, "bitcoin-block"),
    (0xb1, "bitcoin-tx"),
    (0xb2, "bitcoin-witness-commitment"),
    (0xc0, "zcash-block"),
    (0xc1, "zcash-tx"),
    (0xd0, "stellar-block"),
    (0xd1, "stellar-tx"),
    (0xe0, "decred-block"),
    (0xe1, "decred-tx"),
    (0xf0, "dash-block"),
    (0xf1, "dash-tx"),
    (0xfa, "swarm-manifest"),
    (0xfb, "swarm-feed"),
    (0xfc, "beeson"),
    (0x0129, "dag-json"),
    (0x01f0, "swhid-1-snp"),
    (0x0200, "json"),
    (0x0201, "messagepack"),
    (0x0202, "car"),
    (0x0210, "x509-certificate"),
    (0x0300, "ipns-record"),
    (0x0400, "car-index-sorted"),
    (0x0401, "car-multihash-index-sorted"),
    (0x1208, "provenance-log"),
    (0x1209, "provenance-log-entry"),
    (0x120a, "provenance-log-script"),
    (0xb403, "rdfc-1"),
    (0xb501, "ssz"),
    (0xb601, "json-jcs"),
];

/// The name of a codec; one without a name is named as Go prints it, and refused by the daemon.
fn codec_name(code: u64) -> String {
    match CODECS.binary_search_by_key(&code, |(code, _)| *code) {
        Ok(at) => CODECS[at].1.to_owned(),
        Err(_) => format!("Code%28{code}%29"),
    }
}

/// Names of hashes. (Go: go-multihash `multihash.go`, `Codes`)
fn hash_name(code: u64) -> Option<String> {
    let name = match code {
        0x00 => "identity",
        0x11 => "sha1",
        0x12 => "sha2-256",
        0x13 => "sha2-512",
        0x14 => "sha3-512",
        0x15 => "sha3-384",
        0x16 => "sha3-256",
        0x17 => "sha3-224",
        0x18 => "shake-128",
        0x19 => "shake-256",
        0x1a => "keccak-224",
        0x1b => "keccak-256",
        0x1c => "keccak-384",
        0x1d => "keccak-512",
        0x1e => "blake3",
        0x22 => "murmur3-x64-64",
        0x56 => "dbl-sha2-256",
        0xd5 => "md5",
        0x1012 => "sha2-256-trunc254-padded",
        0x1100 => "x11",
        0xb201..=0xb240 => return Some(format!("blake2b-{}", (code - 0xb200) * 8)),
        0xb241..=0xb260 => return Some(format!("blake2s-{}", (code - 0xb240) * 8)),
        0xb401 => "poseidon-bls12_381-a2-fc1",
        _ => return None,
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_block_names_codec_and_hash() {
        for (cid, expected) in [
            ("QmV4STRyo1dygxGhZcr877TQ1M9AZuXhfm6HrXjxW1TYNP", "cid-codec=dag-pb&mhlen=32&mhtype=sha2-256"),
            (
                "bafkreic5vdzd33hts6yt6t2vw35yuymtmi4l7yeo3hmqcezjoty35tgelq",
                "cid-codec=raw&mhlen=32&mhtype=sha2-256",
            ),
        ] {
            let path = put_path(&cid.parse().unwrap()).unwrap();
            assert_eq!(path, format!("block/put?allow-big-block=true&{expected}&pin=false"));
        }
        let blake = Multihash::<64>::wrap(0xb220, &[7; 32]).unwrap();
        assert!(
            put_path(&Cid::new_v1(0x71, blake))
                .unwrap()
                .contains("cid-codec=dag-cbor&mhlen=32&mhtype=blake2b-256")
        );
        let unknown = Multihash::<64>::wrap(0x7777, &[7; 32]).unwrap();
        let failure = put_path(&Cid::new_v1(0x71, unknown)).unwrap_err();
        assert_eq!(failure.to_string(), "cannot find name for the blocks' Multihash type: 7777");
        assert_eq!(codec_name(0x3f_ffff), "Code%284194303%29");
    }

    #[test]
    fn the_table_of_codecs_is_in_order() {
        assert!(CODECS.is_sorted_by_key(|(code, _)| *code));
    }
}
