//! Whom to connect to, and how that went.

use std::sync::PoisonError;
use std::time::Instant;

use cluster_compat::types::PeerId;
use libp2p::swarm::DialError;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::Worker;
use crate::net::bootstrap::{LOOKS_PER_PRIORITY_ROUND, Round};
use crate::net::peerstore::UNREACHABLE;
use crate::net::{Error, addrs};

impl Worker {
    pub(super) fn on_dial(&mut self, peer: PeerId, respond_to: oneshot::Sender<Result<(), Error>>) {
        if self.swarm.is_connected(&peer) {
            let _ = respond_to.send(Ok(()));
            return;
        }
        match self.dial(peer) {
            Ok(()) => self.dials.entry(peer).or_default().push(respond_to),
            Err(reason) => {
                let _ = respond_to.send(Err(Error::Dial { peer, reason }));
            }
        }
    }

    /// Starts a dial by peer id, or joins the one that is under way.
    pub(super) fn dial(&mut self, peer: PeerId) -> Result<(), String> {
        let mut addrs = self.shared.peerstore().addrs(&peer, Instant::now());
        addrs.retain(|addr| !addrs::is_relayed(addr));
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(addrs)
            .extend_addresses_through_behaviour()
            .build();
        match self.swarm.dial(options) {
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => Ok(()),
            Err(e) => Err(reason(&e)),
        }
    }

    pub(super) fn dial_nameless(&mut self) {
        for addr in &self.nameless {
            if let Err(e) = self.swarm.dial(addr.clone()) {
                warn!(target: "pstoremgr", "cannot dial {addr}: {}", reason(&e));
            }
        }
    }

    /// Starts a round that brings the number of connected peers up to `wanted`.
    pub(super) fn bootstrap(&mut self, wanted: usize, respond_to: Option<oneshot::Sender<Vec<PeerId>>>) {
        let missing = wanted.saturating_sub(self.swarm.connected_peers().count());
        let mut candidates = self.shared.peerstore().by_priority(Instant::now());
        candidates.retain(|peer| !self.swarm.is_connected(peer));
        self.rounds.push(Round::new(missing, candidates, respond_to));
        self.advance_rounds();
    }

    pub(super) fn advance_rounds(&mut self) {
        let mut rounds = std::mem::take(&mut self.rounds);
        rounds.retain_mut(|round| {
            while let Some(peer) = round.next() {
                if self.swarm.is_connected(&peer) {
                    round.on_ended(&peer, true);
                } else if let Err(reason) = self.dial(peer) {
                    debug!(target: "pstoremgr", %peer, "cannot dial: {reason}");
                    round.on_ended(&peer, false);
                }
            }
            !round.is_done()
        });
        self.rounds = rounds;
    }

    pub(super) fn on_look(&mut self) {
        let now = Instant::now();
        self.looks += 1;
        self.shared.peerstore().expire(now);
        let excess = {
            let protected = self.shared.protected.lock().unwrap_or_else(PoisonError::into_inner);
            self.connections.excess(self.config.marks, &protected, now)
        };
        for id in excess {
            self.swarm.close_connection(id);
        }
        // a round that is still under way does the same work
        if self.rounds.is_empty() && self.connections.len() < self.config.marks.low {
            self.bootstrap(self.config.marks.low, None);
        }
        if self.config.has_peer_addresses && self.looks.is_multiple_of(LOOKS_PER_PRIORITY_ROUND) {
            let is_reached = self.config.priority_peers.iter().any(|peer| self.swarm.is_connected(peer));
            if !is_reached {
                self.rounds.push(Round::new(1, self.config.priority_peers.iter().copied(), None));
                self.advance_rounds();
            }
        }
        if self.connections.len() == 0 {
            self.dial_nameless();
        }
    }

    pub(super) fn on_dial_failed(&mut self, peer: Option<PeerId>, error: &DialError) {
        let Some(peer) = peer else {
            debug!(target: "pstoremgr", "cannot connect: {}", reason(error));
            return;
        };
        debug!(target: "pstoremgr", %peer, "cannot connect: {}", reason(error));
        let is_connected = self.swarm.is_connected(&peer);
        if !is_connected {
            self.shared.peerstore().set_priority(peer, UNREACHABLE);
        }
        for respond_to in self.dials.remove(&peer).unwrap_or_default() {
            let _ = respond_to.send(if is_connected {
                Ok(())
            } else {
                Err(Error::Dial { peer, reason: reason(error) })
            });
        }
        self.end_dial(&peer, is_connected);
    }

    pub(super) fn end_dial(&mut self, peer: &PeerId, is_connected: bool) {
        let mut was_ours = false;
        for round in &mut self.rounds {
            was_ours |= round.on_ended(peer, is_connected);
        }
        if was_ours {
            self.advance_rounds();
        }
    }
}

/// The causes of a failed dial, without the library's layers around them.
fn reason(error: &DialError) -> String {
    match error {
        DialError::NoAddresses => "no addresses".to_owned(),
        DialError::Transport(failures) => {
            let each = failures.iter().map(|(addr, e)| format!("{addr}: {}", innermost(e)));
            each.collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
