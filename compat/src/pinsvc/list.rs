//! Lists: `GET /pins`.
//!
//! ```text
//!  cid=… ───────────────────────────► status of each
//!  before=… of a long list that waits ► status of each pin of the page
//!  else ── all that match the status ──┬─► count · the newest · what comes after them, to wait
//!                                      └─► more than a page asked for: once more, written as they come
//! ```
//!
//! - What is in memory is a page and the places behind it, never all pins.
//! - The newest pins come first; a page never repeats those of the one before.

use std::time::Instant;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future, stream};
use http::StatusCode;
use http_body::Frame;

use super::convert::{is_listed, place, stated, to_tracker};
use super::error::Failure;
use super::newest::{List, N_REMEMBERED, Newest, Place};
use super::types::{Filters, ListOptions, PinList, PinStatus};
use super::{Answer, Call, Shared};
use crate::go::json;
use crate::go::time::Time;
use crate::http::respond::{self, Body, BodyError, Coalesce, Response};
use crate::types::{Cid, GlobalPinInfo, TrackerStatus};

/// CIDs of one request that are asked about at a time.
const MAX_CONCURRENT: usize = 64;

/// Longest list that is made in memory, and the most the published API lets clients ask for.
const MAX_PAGE: usize = 1000;

/// What it costs to ask about one pin, counted in pins of a look at all.
const COST_OF_ONE: u64 = 8;

/// `GET /pins`
pub(super) async fn list(call: Call) -> Answer {
    let mut options = ListOptions::from_query(&call.query).map_err(Failure::bad_request)?;
    let shared = &call.shared;
    if !options.cids.is_empty() {
        return Ok(respond::json(StatusCode::OK, &of_cids(shared, &options).await?));
    }
    let n_page = usize::try_from(options.limit).unwrap_or(usize::MAX);
    if (1..=MAX_PAGE).contains(&n_page)
        && let Some(waiting) = shared.lists.take(&options.filters, options.before, Instant::now())
    {
        // as the list has it, whatever the client has kept of it
        options.before = waiting.boundary;
        let is_worth_it = waiting.n_left > n_page as u64 * COST_OF_ONE;
        if is_worth_it && let Some(page) = next_page(shared, &options, waiting, n_page).await? {
            return Ok(respond::json(StatusCode::OK, &page));
        }
    }
    let found = search(shared, &options, n_page).await?;
    if n_page > MAX_PAGE && found.count > MAX_PAGE as u64 {
        return Ok(written_as_they_come(shared, &options, &found));
    }
    Ok(respond::json(StatusCode::OK, &PinList { count: found.count, results: found.results }))
}

/// Exactly the pins asked for, in that order; the filters do not count, and those without a status that users see are
/// left out.
async fn of_cids(shared: &Shared, options: &ListOptions) -> Result<PinList, Failure> {
    let asked = stream::iter(options.cids.iter().copied()).map(|cid| async move {
        let info = shared.api.status(cid, false).await?;
        Ok::<_, Failure>(stated(cid, info))
    });
    let mut asked = asked.buffered(MAX_CONCURRENT);
    let (mut count, mut results, mut failures) = (0, Vec::new(), Vec::new());
    while let Some(item) = asked.next().await {
        let is_shown = count < options.limit;
        match item {
            Ok(None) => continue,
            Ok(Some(status)) if is_shown => results.push(status),
            Err(failure) if is_shown => failures.push(failure),
            Ok(Some(_)) | Err(_) => {}
        }
        count += 1;
    }
    match Failure::joined(failures) {
        Some(failure) => Err(failure),
        None => Ok(PinList { count, results }),
    }
}

/// The next page of a list that has waited, told by asking for its pins alone. `None` if they are not remembered.
async fn next_page(
    shared: &Shared,
    options: &ListOptions,
    mut list: List,
    n_page: usize,
) -> Result<Option<PinList>, Failure> {
    let mut results: Vec<PinStatus> = Vec::new();
    while results.len() < n_page {
        let n_next = list.next.len().min(n_page - results.len());
        if n_next == 0 {
            break;
        }
        let next: Vec<Place> = list.next.drain(..n_next).collect();
        let boundary = list.boundary;
        let mut asked = stream::iter(next)
            .map(|(_, cid)| async move {
                let info = shared.api.status(cid, false).await?;
                Ok::<_, Failure>(listed_now(cid, info, &options.filters, boundary))
            })
            .buffered(MAX_CONCURRENT);
        while let Some(status) = asked.try_next().await? {
            match status {
                Some(status) => results.push(status),
                // it has left the list since
                None => list.n_left = list.n_left.saturating_sub(1),
            }
        }
    }
    let n_results = results.len() as u64;
    if results.len() < n_page && n_results < list.n_left {
        return Ok(None);
    }
    let count = list.n_left;
    if let Some(last) = results.last() {
        list.boundary = last.created;
        list.n_left -= n_results;
        shared.lists.put(list, Instant::now());
    }
    Ok(Some(PinList { count, results }))
}

/// A pin as a list shows it: of what its peers say only that counts which a list is told.
fn listed_now(cid: Cid, mut info: GlobalPinInfo, filters: &Filters, boundary: Time) -> Option<PinStatus> {
    let wanted = to_tracker(filters.status).union(TrackerStatus::CLUSTER_ERROR);
    info.peer_map.retain(|_, row| row.status.matches(wanted));
    let at = place(info.created, &cid);
    let is_there = !info.peer_map.is_empty() && is_listed(&info, at, filters, boundary);
    is_there.then(|| stated(cid, info)).flatten().map(|status| PinStatus { created: at, ..status })
}

/// What a look at all pins finds.
struct Found {
    count: u64,
    results: Vec<PinStatus>,
    /// The place of the last result of a list that is too long to be made in memory.
    oldest: Time,
}

async fn search(shared: &Shared, options: &ListOptions, n_page: usize) -> Result<Found, Failure> {
    let is_paged = n_page <= MAX_PAGE;
    let n_remembered = if is_paged && n_page > 0 { n_page + N_REMEMBERED } else { 0 };
    let mut page: Newest<Place, GlobalPinInfo> = Newest::new(n_page.min(MAX_PAGE));
    let mut behind: Newest<Place, ()> = Newest::new(n_remembered);
    let mut moments: Newest<i64, ()> = Newest::new(if is_paged { 0 } else { n_page });
    let mut count = 0;
    let mut items = shared.api.status_all(to_tracker(options.filters.status), false);
    while let Some(info) = items.try_next().await? {
        let Some(cid) = info.cid else { continue };
        let at = place(info.created, &cid);
        if !is_listed(&info, at, &options.filters, options.before) {
            continue;
        }
        count += 1;
        moments.push(at.unix_nanos(), ());
        behind.push((at, cid), ());
        if page.wants((at, cid)) {
            page.push((at, cid), info);
        }
    }
    let results: Vec<PinStatus> =
        page.into_sorted().into_iter().filter_map(|(place, info)| shown(place, info)).collect();
    if is_paged && let Some(last) = results.last() {
        let next = behind.into_sorted().into_iter().skip(results.len()).map(|(place, ())| place).collect();
        let n_left = count - results.len() as u64;
        let list = List { filters: options.filters.clone(), boundary: last.created, next, n_left };
        shared.lists.put(list, Instant::now());
    }
    let oldest = moments.into_sorted().last().map_or(Time::ZERO, |(nanos, ())| Time::from_unix_nanos(*nanos));
    Ok(Found { count, results, oldest })
}

fn shown((at, cid): Place, info: GlobalPinInfo) -> Option<PinStatus> {
    stated(cid, info).map(|status| PinStatus { created: at, ..status })
}

/// A list longer than a page, in the order of the pinset. A failure under way cuts the connection, as the number of
/// results has been told.
fn written_as_they_come(shared: &Shared, options: &ListOptions, found: &Found) -> Response {
    let n_results = usize::try_from(found.count.min(options.limit)).unwrap_or(usize::MAX);
    let (oldest, options) = (found.oldest, options.clone());
    let items = shared.api.status_all(to_tracker(options.filters.status), false);
    let results = items.try_filter_map(move |info| {
        let result = info.cid.and_then(|cid| {
            let at = place(info.created, &cid);
            let is_shown = at.unix_nanos() >= oldest.unix_nanos()
                && is_listed(&info, at, &options.filters, options.before);
            is_shown.then(|| shown((at, cid), info)).flatten()
        });
        future::ready(Ok(result))
    });
    let results = results.take(n_results).enumerate().map(|(n, result)| {
        let result = result.map_err(|failure| Box::new(failure) as BodyError)?;
        let mut text = if n > 0 { vec![b','] } else { Vec::new() };
        json::write_into(&mut text, &result);
        Ok(Frame::data(Bytes::from(text)))
    });
    let start = Bytes::from(format!("{{\"count\":{},\"results\":[", found.count));
    let frames = stream::iter([Ok(Frame::data(start))])
        .chain(results)
        .chain(stream::iter([Ok(Frame::data(Bytes::from_static(b"]}\n")))]));
    let mut response = respond::empty_json(StatusCode::OK);
    *response.body_mut() = Body::frames(Coalesce::new(frames.boxed()));
    response
}
