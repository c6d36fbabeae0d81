//! Remotes that speak another language: most likely peers of another cluster. Each is told once in a while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cluster_compat::types::Multiaddr;
use libp2p::core::ConnectedPoint;
use libp2p::multiaddr::Protocol;
use tracing::warn;

/// Pause between two lines about one remote; such a peer tries again every half minute.
const SILENCE: Duration = Duration::from_secs(10 * 60);

/// Remotes remembered; when there are more nothing is said about new ones until the oldest are forgotten.
const MAX_REMOTES: usize = 256;

/// Remotes that were told of, and when. The lock is taken for a moment by a connection whose handshake failed.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    told: Mutex<HashMap<Multiaddr, Instant>>,
}

impl Strangers {
    /// A remote has turned out to be a stranger.
    pub(super) fn met(&self, endpoint: &ConnectedPoint, is_private: bool) {
        let remote = endpoint.get_remote_address();
        if !self.is_new(key(remote, endpoint.is_listener()), Instant::now()) {
            return;
        }
        let direction = if endpoint.is_dialer() { "to" } else { "from" };
        if is_private {
            warn!(target: "cluster", "connection {direction} {remote} refused: it probably has another cluster secret, or none");
        } else {
            warn!(target: "cluster", "connection {direction} {remote} refused: it probably has a cluster secret, and we have none");
        }
    }

    fn is_new(&self, remote: Multiaddr, now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&remote).is_some_and(|at| now.duration_since(*at) < SILENCE) {
            return false;
        }
        if told.len() >= MAX_REMOTES {
            told.retain(|_, at| now.duration_since(*at) < SILENCE);
        }
        if told.len() >= MAX_REMOTES {
            return false;
        }
        told.insert(remote, now);
        true
    }
}

/// The port of an incoming connection is another one each time.
fn key(remote: &Multiaddr, is_incoming: bool) -> Multiaddr {
    if !is_incoming {
        return remote.clone();
    }
    remote.iter().filter(|part| !matches!(part, Protocol::Tcp(_) | Protocol::P2p(_))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_is_told_of_once_in_a_while_whatever_its_port() {
        let (strangers, start) = (Strangers::default(), Instant::now());
        let from = |port: u16| key(&format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap(), true);
        assert!(strangers.is_new(from(1), start));
        assert!(!strangers.is_new(from(2), start + SILENCE / 2));
        assert!(strangers.is_new(from(3), start + SILENCE));
    }

    #[test]
    fn a_flood_of_remotes_is_not_remembered_beyond_the_limit() {
        let (strangers, start) = (Strangers::default(), Instant::now());
        let remote =
            |i: usize| format!("/ip4/192.0.{}.{}/tcp/1", i / 256, i % 256).parse::<Multiaddr>().unwrap();
        let n_told = (0..2 * MAX_REMOTES).filter(|i| strangers.is_new(remote(*i), start)).count();
        assert_eq!(n_told, MAX_REMOTES);
        assert!(strangers.is_new(remote(3 * MAX_REMOTES), start + SILENCE));
    }
}
