//! The pinset itself.

use http::StatusCode;

use super::error::{Failure, document};
use super::pins::target;
use super::{Answer, Call};
use crate::http::respond;
use crate::types::PinTypes;

/// `GET /allocations`
pub(super) async fn allocations(call: Call) -> Answer {
    let types = PinTypes::parse(call.query.get("filter"))
        .ok_or_else(|| Failure::bad_request("invalid filter value"))?;
    Ok(respond::stream(call.api.allocations(types), document).await)
}

/// `GET /allocations/{hash}`
pub(super) async fn allocation(call: Call) -> Answer {
    let (cid, _) = target(&call)?;
    let pin = call.api.allocation(cid).await?;
    Ok(respond::json(StatusCode::OK, &pin))
}
