//! Adding files.

use cluster_compat::client::Wait;
use cluster_compat::go::query::Query;
use cluster_compat::go::time::Time;
use cluster_compat::types::{AddParams, AddedOutput, Cid, PinOptions, TrackerStatus, parse_peer_id};
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Serialize, Serializer};
use tokio::io::BufReader;

use super::Request;
use super::files::{Files, Rules, Stdin};
use super::format::Text;
use super::output::{Failure, Output};
use super::pin::{WAIT_EVERY, expire_at, metadata};

/// What `--hash` is unless told otherwise.
const DEFAULT_HASH: &str = "sha2-256";

/// Pins that are waited for at the same time.
const MAX_WAITING: usize = 8;

/// Codec of shards and cluster DAGs.
const DAG_CBOR: u64 = 0x71;

/// An added element, maybe printed as its CID alone. JSON is the same either way.
struct Added {
    output: AddedOutput,
    quiet: bool,
}

impl Text for Added {
    fn text(&self, now: Time, out: &mut String) {
        match self.output.cid {
            Some(cid) if self.quiet => {
                out.push_str(&cid.to_string());
                out.push('\n');
            }
            _ => self.output.text(now, out),
        }
    }
}

impl Serialize for Added {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.output.serialize(serializer)
    }
}

/// `add`
pub(super) async fn add(request: &Request<'_>, output: &mut Output<'_>) -> Result<(), Failure> {
    let flags = request.flags;
    if request.args.is_empty() {
        return Err(Failure::new("", "need at least one path"));
    }
    let (params, query) = parameters(request)?;
    if params.wrap_with_directory && flags.string("format") == "car" {
        let cause = "only a single CAR file can be added and wrap-with-directory is not supported";
        return Err(Failure::new("", cause));
    }
    let rules = Rules { recursive: params.recursive, hidden: params.hidden, no_copy: params.no_copy };
    let name = Some(flags.string("stdin-name")).filter(|name| !name.is_empty()).map(Into::into);
    let stdin = Stdin { name, reader: Box::new(BufReader::new(tokio::io::stdin())) };
    let files = Files::new(request.args, rules, stdin).await;
    let mut files = files.map_err(|error| Failure::new("", error))?;
    let bar = flags.bool("progress").then(progress_bar);
    if let Some(bar) = &bar {
        files = files.with_progress(bar.clone());
    }

    let is_last_only = flags.bool("quieter");
    let quiet = flags.bool("quiet") || is_last_only;
    let is_buffered = flags.bool("no-stream");
    let is_car = flags.string("format") == "car";
    let mut held: Vec<Added> = Vec::new();
    // What a wait is for: the last root, all roots of a CAR, or all that a sharded one is made of.
    let mut awaited: Vec<Cid> = Vec::new();
    let mut result = Ok(());
    let mut outputs = request.client.add(&query, Box::new(files));
    while let Some(item) = outputs.next().await {
        match item {
            Ok(item) if item.cid.is_none() => {}
            Ok(item) => {
                let is_index = params.shard && is_index(&item, &params.options.name);
                match item.cid {
                    Some(cid) if is_index || (is_car && !params.shard) => awaited.push(cid),
                    Some(cid) if !params.shard => awaited = vec![cid],
                    _ => {}
                }
                let added = Added { output: item, quiet };
                if is_last_only {
                    // the final root, which its last shards follow
                    if !is_index {
                        held = vec![added];
                    }
                } else if is_buffered {
                    held.push(added);
                } else {
                    output.show(&added)?;
                }
            }
            Err(error) => result = Err(Failure::from(error)),
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    // What was added is shown even if the end failed.
    match &held[..] {
        [] => {}
        [last] if !is_buffered => output.show(last)?,
        all => output.list(Some(all))?,
    }
    result?;
    if flags.bool("wait") {
        let timeout = flags.duration("wait-timeout").to_std();
        let (client, asked) = (&request.client, params.options.replication_factor_min);
        let waits = stream::iter(awaited).map(Ok).try_for_each_concurrent(MAX_WAITING, |cid| async move {
            let stored = client.allocation(cid).await;
            let limit = stored.map_or(asked, |pin| pin.options.replication_factor_min);
            let wait = Wait { cid, target: TrackerStatus::PINNED, limit, every: WAIT_EVERY, timeout };
            client.wait(wait).await.map(|_| ())
        });
        waits.await?;
    }
    Ok(())
}

/// Whether an event tells of a shard or a cluster DAG.
pub(super) fn is_index(output: &AddedOutput, name: &str) -> bool {
    let is_numbered = output.name.strip_prefix("shard-").is_some_and(|n| n.parse::<u64>().is_ok());
    output.cid.is_some_and(|cid| cid.codec() == DAG_CBOR)
        && (is_numbered || output.name.strip_suffix("-clusterDAG") == Some(name))
}

/// What is asked for, as parameters and as the query that is sent. Layout and format go as they were typed: it is
/// the peer that refuses wrong ones.
fn parameters(request: &Request<'_>) -> Result<(AddParams, Query), Failure> {
    let flags = request.flags;
    let user_allocations = match flags.string("allocations") {
        "" => None,
        // Bad ids are left out here. main.go:541
        text => Some(text.split(',').filter_map(|text| parse_peer_id(text).ok()).collect()),
    };
    let defaults = AddParams::default();
    let no_copy = flags.bool("nocopy");
    let shard_size = flags.int("shard-size");
    let shard_size = u64::try_from(shard_size)
        .map_err(|_| Failure::new("", format!("shard-size {shard_size} is less than 0")))?;
    let cid_version = if flags.string("hash") == DEFAULT_HASH { flags.int("cid-version") } else { 1 };
    let params = AddParams {
        options: PinOptions {
            replication_factor_min: flags.int("replication-min"),
            replication_factor_max: flags.int("replication-max"),
            name: flags.string("name").into(),
            expire_at: expire_at(flags.string("expire-in"))?,
            metadata: Some(metadata(flags.list("metadata"))?),
            user_allocations,
            shard_size,
            ..defaults.options.clone()
        },
        shard: flags.bool("shard"),
        no_pin: flags.bool("no-pin"),
        recursive: flags.bool("recursive"),
        local: flags.bool("local"),
        chunker: flags.string("chunker").into(),
        raw_leaves: flags.bool("raw-leaves") || cid_version > 0 || no_copy,
        hidden: flags.bool("hidden"),
        wrap_with_directory: flags.bool("wrap-with-directory") || request.args.len() > 1,
        cid_version,
        hash: flags.string("hash").into(),
        no_copy,
        ..defaults
    };
    let mut query = params.to_query();
    query.set("format", flags.string("format"));
    query.set("layout", flags.string("layout"));
    Ok((params, query))
}

/// How much has been sent, on standard error.
fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {bytes} sent, {bytes_per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::no_length().with_style(style)
}
