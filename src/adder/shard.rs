//! Many pins: the blocks of a root are spread over shards, each with peers of its own (spec: adder 18).
//!
//! ```text
//!   meta pin (the root) ──► cluster DAG ──► shard-0, shard-1, … ──► blocks
//! ```
//!
//! - A block is in one shard, however often it comes. The memory for this is 70 bytes for each different block of a
//!   root, and that of the [`Index`] for those of the shard being written.
//! - A shard is pinned when it is full, before the rest of the upload has come; all other pins come at the end. An
//!   import that fails or is dropped takes back the pins it has made, and no pin that was there before.
//! - Each root has shards of its own, as if it were added alone: unpinning one leaves the others whole.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use cluster_compat::go::time::Time;
use cluster_compat::types::{AddedOutput, Block, Cid, PeerId, Pin, PinType};
use tracing::{debug, info};

use super::Error;
use super::shard_dag::Index;
use super::sink::{Allocated, SinkArgs};
use super::transfer::Transfer;

/// Most blocks of a shard: its index has two levels.
const MAX_BLOCKS: usize = 5984 * 5984;

/// See the module.
pub(super) struct Sharded {
    args: SinkArgs,
    current: Root,
    /// Roots that have all their shards.
    complete: Vec<Complete>,
}

/// The root whose blocks are coming.
#[derive(Default)]
struct Root {
    cid: Option<Cid>,
    seen: Seen,
    shard: Option<Shard>,
    /// Its shards that have been flushed.
    shards: Index,
    n_bytes: u64,
    last_shard: Option<Cid>,
    /// Pins of roots before this one.
    n_pins_before: usize,
}

/// A shard being written.
struct Shard {
    allocations: Vec<PeerId>,
    transfer: Transfer,
    blocks: Index,
    n_bytes: u64,
}

/// A root with all its shards.
struct Complete {
    root: Cid,
    shards: Index,
    n_bytes: u64,
}

impl Sharded {
    pub(super) fn new(args: SinkArgs) -> Self {
        Self { args, current: Root::default(), complete: Vec::new() }
    }

    pub(super) fn allocations(&self) -> Vec<PeerId> {
        self.current.shard.as_ref().map(|shard| shard.allocations.clone()).unwrap_or_default()
    }

    /// Puts a block that has not come yet into the shard; flushes the shard first if it has no room.
    pub(super) async fn put(&mut self, block: Block) -> Result<(), Error> {
        if !self.current.seen.insert(&block.cid) {
            return Ok(());
        }
        let len = block.data.len() as u64;
        loop {
            let shard = match &mut self.current.shard {
                Some(shard) => shard,
                none => none.insert(Shard::new(&self.args).await?),
            };
            if shard.n_bytes.saturating_add(len) < self.args.options.shard_size
                && shard.blocks.len() < MAX_BLOCKS
            {
                shard.blocks.push(&block.cid);
                shard.n_bytes += len;
                return shard.transfer.put(block).await;
            }
            if shard.n_bytes == 0 {
                return Err(Error::BlockTooLarge);
            }
            self.flush().await?;
        }
    }

    /// Completes and pins the shard being written, if there is one.
    async fn flush(&mut self) -> Result<(), Error> {
        let Some(Shard { allocations, mut transfer, blocks, n_bytes }) = self.current.shard.take() else {
            return Ok(());
        };
        let (cid, nodes) = blocks.into_nodes();
        for node in nodes {
            transfer.put(node).await?;
        }
        transfer.end().await?;
        let n = self.current.shards.len();
        let mut options = self.args.options.clone();
        options.name = format!("{}-shard-{n}", options.name);
        options.shard_size = n_bytes;
        let pin = Pin {
            options,
            cid,
            pin_type: PinType::Shard,
            allocations: Some(allocations.clone()),
            max_depth: 1,
            reference: self.current.last_shard,
            timestamp: Time::now(),
        };
        self.pin(pin).await?;
        self.current.shards.push(&cid);
        self.current.last_shard = Some(cid);
        self.current.n_bytes += n_bytes;
        debug!(target: "adder", "shard {n} ({cid}) completed: {n_bytes} bytes");
        let name = format!("shard-{n}");
        self.report(AddedOutput { name, cid: Some(cid), bytes: 0, size: n_bytes, allocations }).await;
        Ok(())
    }

    pub(super) async fn begin_root(&mut self) -> Result<(), Error> {
        let Some(root) = self.current.cid else { return Ok(()) };
        if self.complete.iter().any(|complete| complete.root == root) {
            // It has its pins already; a second set would have nobody to unpin it.
            self.args.unfinished.take_back_from(self.current.n_pins_before).await;
            self.current.shard = None;
        } else {
            self.flush().await?;
            let Root { shards, n_bytes, .. } = std::mem::take(&mut self.current);
            self.complete.push(Complete { root, shards, n_bytes });
        }
        self.current = Root { n_pins_before: self.args.unfinished.len(), ..Root::default() };
        Ok(())
    }

    pub(super) fn name_root(&mut self, root: Cid) {
        self.current.cid = Some(root);
    }

    /// Flushes the last shard, then writes a cluster DAG for each root and pins both.
    pub(super) async fn finish(mut self) -> Result<(), Error> {
        self.begin_root().await?;
        for Complete { root, shards, n_bytes } in std::mem::take(&mut self.complete) {
            let n_shards = shards.len();
            let (cluster_dag, nodes) = shards.into_nodes();
            let mut transfer = Transfer::new(self.args.starts.clone(), vec![self.args.host.local_peer()]);
            for node in nodes {
                transfer.put(node).await?;
            }
            transfer.end().await?;
            let name = format!("{}-clusterDAG", self.args.options.name);
            let output = AddedOutput {
                name: name.clone(),
                cid: Some(cluster_dag),
                size: n_bytes,
                ..AddedOutput::default()
            };
            self.report(output).await;
            let mut options = self.args.options.clone();
            options.name = name;
            options.replication_factor_min = -1;
            options.replication_factor_max = -1;
            let meta = Pin {
                options: self.args.options.clone(),
                cid: root,
                pin_type: PinType::Meta,
                allocations: None,
                max_depth: 0,
                reference: Some(cluster_dag),
                timestamp: Time::now(),
            };
            let pin = Pin {
                options,
                cid: cluster_dag,
                pin_type: PinType::ClusterDag,
                reference: Some(root),
                ..meta.clone()
            };
            self.pin(pin).await?;
            self.pin(meta).await?;
            info!(
                target: "adder",
                "{root} successfully added to cluster: {n_shards} shards, {n_bytes} bytes, cluster DAG {cluster_dag}"
            );
        }
        self.args.unfinished.keep();
        Ok(())
    }

    async fn pin(&self, pin: Pin) -> Result<(), Error> {
        let SinkArgs { host, no_pin, unfinished, .. } = &self.args;
        if *no_pin {
            return Ok(());
        }
        if !host.is_pinned(&pin.cid).await? {
            unfinished.add(pin.cid);
        }
        host.pin(pin).await.map(|_| ())
    }

    /// Sends an event. A reader that left drops the import, so no error is handled here.
    async fn report(&self, output: AddedOutput) {
        let _ = self.args.outputs.send(output).await;
    }
}

impl Shard {
    async fn new(args: &SinkArgs) -> Result<Self, Error> {
        let Allocated { allocations, destinations } =
            Allocated::new(&*args.host, &args.options, args.is_local).await?;
        let transfer = Transfer::new(args.starts.clone(), destinations);
        Ok(Self { allocations, transfer, blocks: Index::default(), n_bytes: 0 })
    }
}

/// Blocks that came, by 128 bits that nobody outside can foresee: 17 to 34 bytes each, half as much again while
/// the table grows.
#[derive(Default)]
struct Seen {
    first: RandomState,
    second: RandomState,
    marks: HashSet<(u64, u64)>,
}

impl Seen {
    /// Whether `cid` is new.
    fn insert(&mut self, cid: &Cid) -> bool {
        self.marks.insert((self.first.hash_one(cid), self.second.hash_one(cid)))
    }
}
