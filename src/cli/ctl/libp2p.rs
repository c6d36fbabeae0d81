//! How ctl reaches an API by a peer id: HTTP over a libp2p stream.

use std::sync::Arc;

use cluster_compat::client::Dialer;
use cluster_compat::http::listen::Duplex;
use cluster_compat::types::{Multiaddr, multiaddr_peer};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use tokio::sync::OnceCell;
use tokio_util::compat::FuturesAsyncReadCompatExt as _;

use crate::net::Error;
use crate::net::host::{HTTP, Host, HostArgs};
use crate::task::Tasks;

/// Dials with an identity made for the occasion, as a holder of `secret` if there is one. All calls of a command
/// share the host.
pub(super) fn dialer(secret: Option<[u8; 32]>) -> Dialer {
    let host = Arc::new(OnceCell::new());
    let tasks = Tasks::new();
    Dialer::new(move |address| {
        let (host, tasks) = (Arc::clone(&host), tasks.clone());
        Box::pin(async move {
            let host = host.get_or_try_init(|| start(secret, tasks)).await;
            dial(host.map_err(|error| error.to_string())?, &address).await
        })
    })
}

async fn start(secret: Option<[u8; 32]>, tasks: Tasks) -> Result<Host, Error> {
    let keypair = Keypair::generate_ed25519();
    Host::start(HostArgs { keypair, secret, listen: Vec::new(), tasks }).await
}

async fn dial(host: &Host, address: &Multiaddr) -> Result<Box<dyn Duplex>, String> {
    let peer = multiaddr_peer(address).ok_or_else(|| format!("{address} names no peer"))?;
    let mut addr = address.clone();
    if matches!(addr.iter().last(), Some(Protocol::P2p(_))) {
        addr.pop();
    }
    match host.open(peer, &[addr], HTTP).await {
        Ok(stream) => Ok(Box::new(stream.compat())),
        Err(error @ Error::Dial { .. }) => Err(format!("failed to dial: {error}")),
        Err(Error::Unsupported { .. }) => {
            Err(format!("failed to negotiate protocol: protocols not supported: [{HTTP}]"))
        }
        Err(error) => Err(error.to_string()),
    }
}
