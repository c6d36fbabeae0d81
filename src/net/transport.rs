//! From a socket to streams: TCP, the cluster's secret, noise, yamux (spec: wire 1.1, 1.2).

use std::sync::Arc;
use std::time::Duration;

use futures::TryFutureExt as _;
use futures::future::{self, Either};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::pnet::{PnetConfig, PreSharedKey};
use libp2p::{PeerId, Transport as _, dns, noise, tcp, yamux};

use super::Error;
use super::bandwidth::{Counted, Traffic};

/// Longest handshake of an incoming connection; one with another secret hangs until then.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(15);

/// Streams of one connection. yamux ends the whole connection when the other side opens more, and 4097 would not
/// fit its window of 1 GiB at 256 KiB each.
const MAX_STREAMS: usize = 4096;

/// Builds the transport. With a secret nothing but its holders gets as far as a handshake.
pub(super) fn build(
    keypair: &Keypair,
    secret: Option<[u8; 32]>,
    dial_timeout: Duration,
    traffic: Arc<Traffic>,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, Error> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    let dns = dns::tokio::Transport::system(tcp).map_err(|source| Error::Dns { source })?;
    let secret = secret.map(|bytes| PnetConfig::new(PreSharedKey::new(bytes)));
    let noise = noise::Config::new(keypair).map_err(|e| Error::Keypair { reason: e.to_string() })?;
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(MAX_STREAMS);
    let transport = dns
        .and_then(move |socket, _| match secret {
            Some(secret) => Either::Left(secret.handshake(socket).map_ok(Either::Left)),
            None => Either::Right(future::ok(Either::Right(socket))),
        })
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux)
        .outbound_timeout(dial_timeout)
        .inbound_timeout(ACCEPT_TIMEOUT)
        .map(move |(peer, muxer), _| (peer, StreamMuxerBox::new(Counted::new(muxer, Arc::clone(&traffic)))))
        .boxed();
    Ok(transport)
}
