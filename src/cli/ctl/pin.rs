//! Writing and reading the pinset.

use std::collections::BTreeMap;
use std::time::Duration as StdDuration;

use cluster_compat::client::{Wait, parse_path};
use cluster_compat::go::time::{Duration, Time};
use cluster_compat::types::{
    PeerId, Pin, PinMode, PinOptions, PinTypes, TrackerStatus, parse_cid, parse_peer_id,
};

use super::output::{Failure, Output};
use super::{Request, cid};

/// Pause before a status is asked for, and between looks while waiting. main.go:42
pub(super) const WAIT_EVERY: StdDuration = StdDuration::from_secs(1);

/// `pin add`
pub(super) async fn add(request: &Request<'_>, output: &mut Output<'_>) -> Result<(), Failure> {
    let flags = request.flags;
    let (mut min, mut max) = (flags.int("replication-min"), flags.int("replication-max"));
    if flags.int("replication") != 0 {
        (min, max) = (flags.int("replication"), flags.int("replication"));
    }
    let user_allocations = match flags.string("allocations") {
        "" => None,
        text => {
            let texts: Vec<&str> = text.split(',').map(str::trim).collect();
            let peers: Vec<PeerId> = texts.iter().filter_map(|text| parse_peer_id(text).ok()).collect();
            if peers.len() != texts.len() {
                let cause = "some peer IDs could not be decoded";
                return Err(Failure::new("decoding allocations", cause));
            }
            Some(peers)
        }
    };
    let options = PinOptions {
        replication_factor_min: min,
        replication_factor_max: max,
        name: flags.string("name").into(),
        mode: PinMode::parse(flags.string("mode")),
        user_allocations,
        expire_at: expire_at(flags.string("expire-in"))?,
        metadata: Some(metadata(flags.list("metadata"))?),
        ..PinOptions::default()
    };
    let path = path(&request.arg(0))?;
    let pin = request.client.pin_path(&path, &options).await?;
    follow(request, output, &pin, TrackerStatus::PINNED).await
}

/// `pin rm`
pub(super) async fn rm(request: &Request<'_>, output: &mut Output<'_>) -> Result<(), Failure> {
    let path = path(&request.arg(0))?;
    let pin = request.client.unpin_path(&path).await?;
    follow(request, output, &pin, TrackerStatus::UNPINNED).await
}

/// `pin update`
pub(super) async fn update(request: &Request<'_>, output: &mut Output<'_>) -> Result<(), Failure> {
    let from = parse_cid(&request.arg(0)).map_err(|error| Failure::new("parsing from Cid", error))?;
    let options = PinOptions {
        name: request.flags.string("name").into(),
        expire_at: expire_at(request.flags.string("expire-in"))?,
        pin_update: Some(from),
        ..PinOptions::default()
    };
    let path = path(&request.arg(1))?;
    let pin = request.client.pin_path(&path, &options).await?;
    follow(request, output, &pin, TrackerStatus::PINNED).await
}

/// `pin ls`
pub(super) async fn ls(request: &Request<'_>, output: &mut Output<'_>) -> Result<(), Failure> {
    match request.arg(0).as_str() {
        "" => output.stream(request.client.allocations(&types(request.flags.string("filter")))).await,
        text => output.show(&request.client.allocation(cid(text)?).await?),
    }
}

/// The pin types of a filter as the API takes them; unknown names are left out.
fn types(filter: &str) -> String {
    PinTypes::parse(filter).map(|types| types.to_string()).unwrap_or_default()
}

/// A CID or path argument, as the API takes it.
fn path(argument: &str) -> Result<String, Failure> {
    parse_path(argument).map_err(|error| Failure::new("", error))
}

/// Waits if asked to, then prints the pin or its status.
async fn follow(
    request: &Request<'_>,
    output: &mut Output<'_>,
    pin: &Pin,
    target: TrackerStatus,
) -> Result<(), Failure> {
    let flags = request.flags;
    let mut status = None;
    if flags.bool("wait") {
        let limit = match () {
            () if flags.is_set("wait-limit") => flags.int("wait-limit"),
            () if target == TrackerStatus::PINNED => pin.options.replication_factor_min,
            () => 0,
        };
        let timeout = flags.duration("wait-timeout").to_std();
        let wait = Wait { cid: pin.cid, target, limit, every: WAIT_EVERY, timeout };
        status = Some(request.client.wait(wait).await?);
    }
    if flags.bool("no-status") {
        return output.show(pin);
    }
    let status = match status {
        Some(status) => status,
        None => {
            tokio::time::sleep(WAIT_EVERY).await;
            request.client.status(pin.cid, false).await?
        }
    };
    output.show(&status)
}

/// When a pin expires that lives so long from now; empty is never.
pub(super) fn expire_at(expire_in: &str) -> Result<Time, Failure> {
    if expire_in.is_empty() {
        return Ok(Time::ZERO);
    }
    let span = Duration::parse(expire_in).map_err(|error| Failure::new("parsing expire-in", error))?;
    Ok(Time::now().add(span))
}

/// `key=value` pairs.
pub(super) fn metadata(pairs: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let split = |pair: &String| {
        pair.split_once('=')
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .ok_or_else(|| Failure::new("parsing metadata", "metadata were not in the format key=value"))
    };
    pairs.iter().map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_types_are_left_out_of_a_filter() {
        for (filter, expected) in [
            ("all", "all"),
            ("", "all"),
            ("nosuch", ""),
            ("nosuch,meta-pin", "meta-pin"),
            ("shard-pin,clusterdag-pin", "clusterdag-pin,shard-pin"),
            ("all,meta-pin", "all"),
        ] {
            assert_eq!(types(filter), expected, "{filter}");
        }
    }

    #[test]
    fn metadata_is_split_at_the_first_sign() {
        let map = metadata(&["k=v=w,x=y".into(), "a=".into()]).unwrap();
        assert_eq!(map["k"], "v=w,x=y");
        assert_eq!(map["a"], "");
        assert!(metadata(&["nokey".into()]).is_err());
    }
}
