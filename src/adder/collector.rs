//! A host for tests: keeps blocks and pins in memory, and can refuse.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use cluster_compat::types::{Cid, PeerId, Pin, PinOptions};
use tokio::sync::{mpsc, oneshot};

use super::{Batch, Error, Host};

/// What a collector does with blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    Takes,
    /// Fails at the first block.
    Refuses,
    /// Waits for ever.
    Stalls,
}

/// See the module.
pub(super) struct Collector {
    local: PeerId,
    allocations: Vec<PeerId>,
    destination: Destination,
    kept: Mutex<Kept>,
}

#[derive(Default)]
pub(super) struct Kept {
    pub(super) blocks: HashMap<Cid, Bytes>,
    /// CIDs of all blocks, as they came.
    pub(super) puts: Vec<Cid>,
    /// Of the last transfer.
    pub(super) destinations: Vec<PeerId>,
    pub(super) all_destinations: Vec<Vec<PeerId>>,
    /// How many blocks had come when each transfer began.
    pub(super) starts: Vec<usize>,
    pub(super) pins: Vec<Pin>,
    pub(super) taken_back: Vec<Cid>,
    pub(super) is_put_dropped: bool,
}

/// A peer id made of one byte.
pub(super) fn peer(n: u8) -> PeerId {
    let digest = multihash::Multihash::wrap(0, &[n; 38]).unwrap();
    PeerId::from_multihash(digest).unwrap()
}

impl Collector {
    pub(super) fn new() -> Self {
        Self::with(Destination::Takes, vec![peer(1)])
    }

    pub(super) fn with(destination: Destination, allocations: Vec<PeerId>) -> Self {
        Self { local: peer(9), allocations, destination, kept: Mutex::default() }
    }

    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the whole DAG of `root` is here.
    #[track_caller]
    pub(super) fn assert_complete(&self, root: Cid) {
        let kept = self.kept();
        let mut todo = vec![root];
        while let Some(cid) = todo.pop() {
            let data = kept.blocks.get(&cid).unwrap_or_else(|| panic!("{cid} was not put"));
            if cid.codec() == 0x70 {
                todo.extend(links(data));
            }
        }
    }
}

/// CIDs of the links of a dag-pb node.
pub(super) fn links(mut node: &[u8]) -> Vec<Cid> {
    fn field<'a>(bytes: &mut &'a [u8]) -> (u8, &'a [u8]) {
        let tag = bytes[0];
        let (len, rest) = unsigned_varint::decode::usize(&bytes[1..]).unwrap();
        let (value, rest) = rest.split_at(len);
        *bytes = rest;
        (tag, value)
    }
    let mut cids = Vec::new();
    while !node.is_empty() {
        let (tag, mut value) = field(&mut node);
        if tag == 0x12 {
            let (tag, hash) = field(&mut value);
            assert_eq!(tag, 0x0a, "the hash of a link comes first");
            cids.push(Cid::try_from(hash).unwrap());
        }
    }
    cids
}

struct OnDrop<'a>(&'a Collector);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.kept().is_put_dropped = true;
    }
}

#[async_trait]
impl Host for Collector {
    fn local_peer(&self) -> PeerId {
        self.local
    }

    async fn allocate(&self, _: &PinOptions) -> Result<Vec<PeerId>, Error> {
        Ok(self.allocations.clone())
    }

    async fn put_blocks(
        &self,
        destinations: &[PeerId],
        mut blocks: mpsc::Receiver<Batch>,
    ) -> Result<(), Error> {
        let _guard = OnDrop(self);
        {
            let mut kept = self.kept();
            let n_puts = kept.puts.len();
            kept.starts.push(n_puts);
            kept.destinations = destinations.to_vec();
            kept.all_destinations.push(destinations.to_vec());
        }
        match self.destination {
            Destination::Takes => {
                while let Some(batch) = blocks.recv().await {
                    let mut kept = self.kept();
                    for block in batch {
                        kept.puts.push(block.cid);
                        kept.blocks.insert(block.cid, block.data);
                    }
                }
                Ok(())
            }
            Destination::Refuses => {
                blocks.recv().await;
                Err(Error::AllDestinationsFailed)
            }
            Destination::Stalls => std::future::pending().await,
        }
    }

    async fn pin(&self, pin: Pin) -> Result<Pin, Error> {
        self.kept().pins.push(pin.clone());
        Ok(pin)
    }

    async fn is_pinned(&self, cid: &Cid) -> Result<bool, Error> {
        Ok(self.kept().pins.iter().any(|pin| pin.cid == *cid))
    }

    fn take_back(&self, cids: Vec<Cid>) -> oneshot::Receiver<()> {
        let (done, end) = oneshot::channel();
        let mut kept = self.kept();
        kept.pins.retain(|pin| !cids.contains(&pin.cid));
        kept.taken_back.extend(cids);
        let _ = done.send(());
        end
    }
}
