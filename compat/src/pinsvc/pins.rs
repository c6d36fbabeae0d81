//! Single pins: add, look, replace, remove.

use std::collections::BTreeMap;

use http::header::CONNECTION;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use tracing::{debug, error};

use super::error::Failure;
use super::types::Pin;
use super::{Answer, Call, convert};
use crate::api::{ClusterApi, ErrorKind};
use crate::go::query::lossy;
use crate::http::conn::{Request, body_error};
use crate::http::respond::{self, Response};
use crate::types::{self, Cid, Multiaddr, PeerId, parse_cid, parse_multiaddr};

/// Longest body of a request to pin: metadata and a few addresses.
const MAX_BODY_BYTES: usize = 1 << 20;

/// `POST /pins`
pub(super) async fn add(call: Call) -> Answer {
    let (cid, wanted) = match body(call.request).await? {
        Body::Pin(cid, wanted) => (cid, wanted),
        Body::Refused(response) => return Ok(response),
    };
    debug!(target: "pinsvcapi", "addPin: {cid}");
    let pin = call.shared.api.pin(convert::to_cluster(wanted, cid)).await?;
    accepted(&*call.shared.api, pin).await
}

/// `POST /pins/{requestID}`: the new pin is a copy of the old one, but for its name. By itself a pin is replaced where
/// it stands.
pub(super) async fn replace(call: Call) -> Answer {
    let id = call.params.get("requestID").to_owned();
    let (cid, wanted) = match body(call.request).await? {
        Body::Pin(cid, wanted) => (cid, wanted),
        Body::Refused(response) => return Ok(response),
    };
    let old = request_id(&id)?;
    debug!(target: "pinsvcapi", "addPin: {cid} instead of {old}");
    let api = &*call.shared.api;
    let mut wanted = convert::to_cluster(wanted, cid);
    if old == cid {
        api.allocation(cid).await?;
        return accepted(api, api.pin(wanted).await?).await;
    }
    wanted.options.pin_update = Some(old);
    let pin = api.pin(wanted).await?;
    match api.unpin(old).await {
        Ok(_) => {}
        // somebody else has removed it meanwhile
        Err(failure) if failure.kind == ErrorKind::NotFound => {}
        Err(failure) => return Err(failure.into()),
    }
    accepted(api, pin).await
}

/// `GET /pins/{requestID}`
pub(super) async fn get(call: Call) -> Answer {
    let cid = request_id(call.params.get("requestID"))?;
    debug!(target: "pinsvcapi", "getPin: {cid}");
    let info = call.shared.api.status(cid, false).await?;
    let status = convert::stated(cid, info).ok_or_else(Failure::no_pin)?;
    Ok(respond::json(StatusCode::OK, &status))
}

/// `DELETE /pins/{requestID}`
pub(super) async fn remove(call: Call) -> Answer {
    let cid = request_id(call.params.get("requestID"))?;
    debug!(target: "pinsvcapi", "removePin: {cid}");
    call.shared.api.unpin(cid).await?;
    Ok(respond::empty_json(StatusCode::ACCEPTED))
}

fn request_id(text: &str) -> Result<Cid, Failure> {
    parse_cid(text).map_err(|error| Failure::bad_request(format!("error decoding requestID: {error}")))
}

enum Body {
    Pin(Cid, Pin),
    /// Where what is left of the body cannot be told from a next request.
    Refused(Response),
}

async fn body(request: Request) -> Result<Body, Failure> {
    let failed = |error: String| Failure::bad_request(format!("error decoding request body: {error}"));
    let bytes = match Limited::new(request.into_body(), MAX_BODY_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            let mut response = failed(body_error(&*error)).into_response();
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return Ok(Body::Refused(response));
        }
    };
    let pin = Pin::from_body(&lossy(&bytes)).map_err(failed)?;
    let cid = pin.cid.ok_or_else(|| failed("cid is missing".into()))?;
    Ok(Body::Pin(cid, pin))
}

async fn accepted(api: &dyn ClusterApi, pin: types::Pin) -> Answer {
    let delegates = delegates(api, &pin).await;
    let status = super::types::PinStatus { delegates, ..convert::submitted(pin) };
    Ok(respond::json(StatusCode::ACCEPTED, &status))
}

/// Addresses of the daemons that shall hold a pin, as far as their peers' pings tell them.
async fn delegates(api: &dyn ClusterApi, pin: &types::Pin) -> Vec<Multiaddr> {
    let pings = match api.metrics("ping").await {
        Ok(pings) => pings,
        Err(failure) => {
            error!(target: "pinsvcapi", "no delegates: {failure}");
            return Vec::new();
        }
    };
    let told = pings.into_iter().filter_map(|ping| Some((ping.peer?, daemon_addresses(&ping.value))));
    if pin.is_pin_everywhere() {
        return told.flat_map(|(_, addresses)| addresses).collect();
    }
    let mut told: BTreeMap<PeerId, Vec<Multiaddr>> = told.collect();
    pin.allocations.iter().flatten().flat_map(|peer| told.remove(peer).unwrap_or_default()).collect()
}

/// What a ping says of the daemon's addresses; what cannot be read is left out.
fn daemon_addresses(ping: &str) -> Vec<Multiaddr> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Ping {
        ipfs_addresses: Option<Vec<String>>,
    }
    let ping: Ping = serde_json::from_str(ping).unwrap_or_default();
    ping.ipfs_addresses.iter().flatten().filter_map(|addr| parse_multiaddr(addr).ok()).collect()
}
