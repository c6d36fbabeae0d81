//! One pin for each root: all blocks go to the same peers, in one stream.

use cluster_compat::go::time::Time;
use cluster_compat::types::{Block, Cid, PeerId, Pin, PinType};
use futures::stream::{self, StreamExt};
use tracing::info;

use super::Error;
use super::sink::{Allocated, SinkArgs};
use super::transfer::Transfer;

/// Pins of one import that wait for the consensus at the same time: it makes one transaction of those that wait.
const MAX_PINNING: usize = 512;

/// See the module.
pub(super) struct Single {
    args: SinkArgs,
    /// What the first block asked for.
    started: Option<(Vec<PeerId>, Transfer)>,
    /// The last two blocks, which are not sent again. (Go: `adder/single/dag_service.go`)
    recent: [Option<Cid>; 2],
}

impl Single {
    pub(super) fn new(args: SinkArgs) -> Self {
        Self { args, started: None, recent: [None; 2] }
    }

    pub(super) fn allocations(&self) -> Vec<PeerId> {
        self.started.as_ref().map(|(allocations, _)| allocations.clone()).unwrap_or_default()
    }

    pub(super) async fn put(&mut self, block: Block) -> Result<(), Error> {
        if self.recent.contains(&Some(block.cid)) {
            return Ok(());
        }
        self.recent = [self.recent[1], Some(block.cid)];
        if let Some((_, transfer)) = &mut self.started {
            return transfer.put(block).await;
        }
        let args = &self.args;
        let Allocated { allocations, destinations } =
            Allocated::new(&*args.host, &args.options, args.is_local).await?;
        let (_, transfer) =
            self.started.insert((allocations, Transfer::new(args.starts.clone(), destinations)));
        transfer.put(block).await
    }

    /// Waits for the destinations, then pins the roots where their blocks are.
    pub(super) async fn finish(self, roots: &[Cid]) -> Result<(), Error> {
        let (mut allocations, transfer) = self.started.unzip();
        if let Some(mut transfer) = transfer {
            transfer.end().await?;
        }
        let SinkArgs { host, options, no_pin, .. } = self.args;
        if options.replication_factor_min < 0 {
            allocations = None;
        }
        if !no_pin {
            let pins = stream::iter(roots.to_vec()).map(|root| {
                host.pin(Pin {
                    options: options.clone(),
                    cid: root,
                    pin_type: PinType::Data,
                    allocations: Some(allocations.clone().unwrap_or_default()),
                    max_depth: -1,
                    reference: None,
                    timestamp: Time::now(),
                })
            });
            let mut pinned = pins.buffered(MAX_PINNING);
            while let Some(result) = pinned.next().await {
                result?;
            }
        }
        for root in roots {
            info!(target: "adder", "{root} successfully added to cluster");
        }
        Ok(())
    }
}
