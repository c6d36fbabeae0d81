//! Who the contacted peer is, and the other members.

use cluster_compat::types::parse_peer_id;

use super::Request;
use super::output::{Failure, Output};

/// `id`
pub(super) async fn id(request: &Request<'_>, output: &mut Output<'_>) -> Result<(), Failure> {
    output.show(&request.client.id().await?)
}

/// `version`
pub(super) async fn version(request: &Request<'_>, output: &mut Output<'_>) -> Result<(), Failure> {
    output.show(&request.client.version().await?)
}

/// `peers ls`
pub(super) async fn ls(request: &Request<'_>, output: &mut Output<'_>) -> Result<(), Failure> {
    output.stream(request.client.peers()).await
}

/// `peers rm`
pub(super) async fn rm(request: &Request<'_>) -> Result<(), Failure> {
    let peer = parse_peer_id(&request.arg(0)).map_err(|error| Failure::new("parsing peer ID", error))?;
    Ok(request.client.peer_rm(peer).await?)
}
