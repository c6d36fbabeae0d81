//! Streams of nodes between peers of ours ([`crate::wire::nodes_pb`]), and the swarm as the fetcher's [`Exchange`].

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster_compat::types::{Cid, PeerId};
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tracing::{debug, error};

use super::fetch::{Exchange, Nodes};
use super::unheard::Unheard;
use crate::net::{self, Network};
use crate::store::{self, Db, KvRead, blocks, kv};
use crate::task::Tasks;
use crate::wire::crdt_pb;
use crate::wire::nodes_pb::{MAX_REQUEST_BYTES, PROTOCOL, Request};

/// Requests that wait for their turn.
const WAITING_REQUESTS: usize = 64;

/// Requests that are answered at the same time.
const MAX_REQUESTS: usize = 16;

/// Blocks read from the store at once, and held until they are sent.
const CHUNK_BYTES: usize = 256 * 1024;

/// Nodes of one answer, and what an answer remembers of: a hundred bytes each. Whoever wants more asks again.
const MAX_NODES: usize = 32 * 1024;

/// Longest block taken: what the reference's bitswap takes (boxo, `maxBlockSize` 2 MiB).
const MAX_BLOCK_BYTES: usize = 2 << 20;

/// Longest wait for a request, or for an asker to take what it asked for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers requests for nodes.
pub(super) fn serve(network: &Network, stored: Stored, tasks: &Tasks) -> Result<(), net::Error> {
    let streams = network.accept(&[PROTOCOL], WAITING_REQUESTS)?;
    tasks.spawn("crdt nodes", accept(streams, stored, tasks.clone()));
    Ok(())
}

async fn accept(mut streams: mpsc::Receiver<(PeerId, net::Stream)>, stored: Stored, tasks: Tasks) {
    let stop = tasks.token();
    let places = Arc::new(Semaphore::new(MAX_REQUESTS));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((streams.recv().await?, place))
        };
        let ((peer, stream), place) = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            next = next => match next {
                Some(next) => next,
                None => return,
            },
        };
        let (stored, stop) = (stored.clone(), stop.clone());
        tasks.spawn("crdt nodes request", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                answered = answer(stream, stored) => {
                    if let Err(cause) = answered {
                        debug!(target: "crdt", %peer, "request for nodes: {cause}");
                    }
                }
            }
            drop(place);
        });
    }
}

/// Reads one request and sends what it asks for.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, stored: Stored) -> io::Result<()> {
    let mut message = Vec::new();
    let mut limited = (&mut stream).take(MAX_REQUEST_BYTES as u64 + 1);
    timeout(PATIENCE, limited.read_to_end(&mut message)).await??;
    if message.len() > MAX_REQUEST_BYTES {
        return Err(io::Error::other(format!("request of more than {MAX_REQUEST_BYTES} bytes")));
    }
    let request = Request::decode(&message).map_err(io::Error::other)?;
    let mut ancestry = Ancestry::new(&request);
    loop {
        let db = stored.db.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut chunk = Vec::new();
            kv::read(&db, |view| ancestry.read(view, &mut chunk)).map(|()| (ancestry, chunk))
        });
        let chunk;
        (ancestry, chunk) = read.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
        if chunk.is_empty() {
            return timeout(PATIENCE, stream.close()).await?;
        }
        timeout(PATIENCE, stream.write_all(&chunk)).await??;
        stored.unheard.on_heard(&[request.want]);
    }
}

/// A node and its ancestors, nearest first.
struct Ancestry {
    queue: VecDeque<Cid>,
    /// Nodes that are or were in the queue, and those the asker has; at most [`MAX_NODES`].
    seen: HashSet<Cid>,
    bytes_left: u64,
    is_first: bool,
}

impl Ancestry {
    fn new(request: &Request) -> Self {
        let mut seen: HashSet<Cid> = request.have.iter().copied().collect();
        seen.insert(request.want);
        Self { queue: [request.want].into(), seen, bytes_left: request.max_bytes, is_first: true }
    }

    /// Adds the next blocks to `chunk`, each with its length; none are left when nothing is added.
    fn read(&mut self, view: &dyn KvRead, chunk: &mut Vec<u8>) -> Result<(), store::Error> {
        while chunk.len() < CHUNK_BYTES
            && let Some(cid) = self.queue.pop_front()
        {
            let Some(block) = blocks::get(view, &blocks::key(&cid))? else { continue };
            let size = block.data.len() as u64;
            if size > self.bytes_left && !self.is_first {
                self.queue.clear();
                return Ok(());
            }
            self.bytes_left = self.bytes_left.saturating_sub(size);
            self.is_first = false;
            let mut length = unsigned_varint::encode::usize_buffer();
            chunk.extend_from_slice(unsigned_varint::encode::usize(block.data.len(), &mut length));
            chunk.extend_from_slice(block.data);
            let Ok(node) = crdt_pb::decode_node(block.data) else { continue };
            for parent in node.links {
                if self.seen.len() < MAX_NODES && self.seen.insert(parent) {
                    self.queue.push_back(parent);
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Exchange for Network {
    async fn block(&self, cid: Cid, likely: &[PeerId]) -> Result<Vec<u8>, String> {
        self.fetch_block(cid, likely).await.map(Into::into).map_err(|cause| cause.to_string())
    }

    fn streamers(&self, likely: &[PeerId]) -> Vec<PeerId> {
        let connected = self.connected_peers();
        let is_any = !likely.iter().any(|peer| connected.contains(peer));
        let candidates: &[PeerId] = if is_any { &connected } else { likely };
        candidates.iter().filter(|peer| self.speaks(peer, PROTOCOL)).copied().collect()
    }

    async fn stream(&self, peer: PeerId, request: Request) -> Result<Box<dyn Nodes>, String> {
        let (mut stream, _) = self.open(peer, &[PROTOCOL]).await.map_err(|cause| cause.to_string())?;
        let asked = async {
            stream.write_all(&request.encode()).await?;
            stream.close().await
        };
        asked.await.map_err(|cause| cause.to_string())?;
        Ok(Box::new(Reading(BufReader::new(stream))))
    }
}

/// The answer to a request.
struct Reading<S>(BufReader<S>);

#[async_trait]
impl<S: AsyncRead + Unpin + Send> Nodes for Reading<S> {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        self.read().await.map_err(|cause| cause.to_string())
    }
}

impl<S: AsyncRead + Unpin> Reading<S> {
    async fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(length) = self.length().await? else { return Ok(None) };
        if length > MAX_BLOCK_BYTES {
            return Err(io::Error::other(format!("a block of {length} bytes")));
        }
        let mut data = vec![0; length];
        self.0.read_exact(&mut data).await?;
        Ok(Some(data))
    }

    /// The length before a block; `None` where the stream ends instead.
    async fn length(&mut self) -> io::Result<Option<usize>> {
        let mut buffer = unsigned_varint::encode::usize_buffer();
        for at in 0..buffer.len() {
            match self.0.read(&mut buffer[at..=at]).await? {
                0 if at == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
            if let Ok((length, _)) = unsigned_varint::decode::usize(&buffer[..=at]) {
                return Ok(Some(length));
            }
        }
        Err(io::Error::other("a length that does not end"))
    }
}

/// The nodes of a store, for those who ask for them.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) db: Db,
    /// Hears of what was served.
    pub(super) unheard: Arc<Unheard>,
}

impl net::Blocks for Stored {
    fn block(&self, cid: &Cid) -> Option<Vec<u8>> {
        let block = blocks::load(&self.db, cid).unwrap_or_else(|cause| {
            error!(target: "crdt", "cannot serve {cid}: {cause}");
            None
        });
        self.unheard.on_heard(std::slice::from_ref(cid));
        block
    }
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;

    use super::*;
    use crate::store::Mem;
    use crate::wire::crdt_pb::{Delta, Element, encode_node, node_cid};

    /// A chain from the bottom, in a store.
    fn chain(n: usize) -> (Mem, Vec<Cid>) {
        let store = Mem::new();
        let mut cids: Vec<Cid> = Vec::new();
        kv::write(&store, |transaction| {
            for i in 0..n {
                let element = Element { key: &format!("/K{i}"), id: "", value: b"v" };
                let delta = Delta { elements: vec![element], priority: i as u64 + 1, ..Delta::default() };
                let block = encode_node(&cids[i.saturating_sub(1)..i], &delta);
                let cid = node_cid(&block);
                transaction.put(store::Table::Blocks, &blocks::key(&cid), &blocks::row(&block, true))?;
                cids.push(cid);
            }
            Ok::<_, store::Error>(())
        })
        .unwrap();
        (store, cids)
    }

    /// What an asker reads of an answer.
    async fn answer(store: &Mem, request: &Request) -> Vec<Cid> {
        let (mut ancestry, mut bytes) = (Ancestry::new(request), Vec::new());
        loop {
            let mut chunk = Vec::new();
            kv::read(store, |view| ancestry.read(view, &mut chunk)).unwrap();
            if chunk.is_empty() {
                break;
            }
            bytes.extend(chunk);
        }
        let mut reading = Reading(BufReader::new(Cursor::new(bytes)));
        let mut cids = Vec::new();
        while let Some(block) = reading.next().await.unwrap() {
            cids.push(node_cid(&block));
        }
        cids
    }

    #[tokio::test]
    async fn an_answer_goes_from_the_wanted_node_down_to_those_the_asker_has() {
        let (store, mut cids) = chain(5000);
        cids.reverse();
        let request = |want: Cid, have: &[Cid], max_bytes| Request { want, have: have.to_vec(), max_bytes };
        assert_eq!(answer(&store, &request(cids[0], &[], u64::MAX)).await, cids);
        assert_eq!(answer(&store, &request(cids[10], &cids[15..16], u64::MAX)).await, cids[10..15]);
        assert_eq!(answer(&store, &request(cids[0], &[], 0)).await, cids[..1]);
        assert!(answer(&store, &request(node_cid(b"unknown"), &[], u64::MAX)).await.is_empty());
        let some = answer(&store, &request(cids[0], &[], 1000)).await;
        assert!(some.len() > 5 && some.len() < 20 && cids.starts_with(&some), "{}", some.len());
    }

    #[tokio::test]
    async fn broken_answers_are_errors() {
        for bad in ["05aabb", "8080", "ffffffffffffffffff7f", "818001"] {
            let mut reading = Reading(BufReader::new(Cursor::new(hex::decode(bad).unwrap())));
            assert!(reading.next().await.is_err(), "{bad}");
        }
    }
}
