//! Status of pins, and recovering those that failed.

use futures::{StreamExt, stream};
use http::StatusCode;

use super::error::{Failure, document};
use super::pins::target;
use super::{Answer, Call};
use crate::http::respond;
use crate::types::{TrackerStatus, parse_cid};

/// CIDs of one request that are asked about at a time.
const MAX_CONCURRENT: usize = 64;

/// `GET /pins`
pub(super) async fn status_all(call: Call) -> Answer {
    let cids = call.query.get("cids");
    if !cids.is_empty() {
        return status_cids(&call, cids).await;
    }
    let text = call.query.get("filter");
    let filter = TrackerStatus::parse_filter(text);
    if filter == TrackerStatus::UNDEFINED && !text.is_empty() {
        return Err(Failure::bad_request("invalid filter value"));
    }
    Ok(respond::stream(call.api.status_all(filter, call.is_local()), document).await)
}

/// `GET /pins?cids=…`: in order of completion.
async fn status_cids(call: &Call, cids: &str) -> Answer {
    let cids: Vec<_> = cids
        .split(',')
        .map(parse_cid)
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::bad_request(format!("error decoding Cid: {error}")))?;
    let (api, is_local) = (call.api.clone(), call.is_local());
    let items = stream::iter(cids)
        .map(move |cid| {
            let api = api.clone();
            async move { api.status(cid, is_local).await }
        })
        .buffer_unordered(MAX_CONCURRENT)
        .boxed();
    Ok(respond::stream(items, document).await)
}

/// `GET /pins/{hash}`
pub(super) async fn status(call: Call) -> Answer {
    let (cid, _) = target(&call)?;
    let info = call.api.status(cid, call.is_local()).await?;
    Ok(respond::json(StatusCode::OK, &info))
}

/// `POST /pins/{hash}/recover`
pub(super) async fn recover(call: Call) -> Answer {
    let (cid, _) = target(&call)?;
    let info = call.api.recover(cid, call.is_local()).await?;
    Ok(respond::json(StatusCode::OK, &info))
}

/// `POST /pins/recover`
pub(super) async fn recover_all(call: Call) -> Answer {
    Ok(respond::stream(call.api.recover_all(call.is_local()), document).await)
}
