//! Gossip: subscriptions, messages out and in.

use std::collections::HashSet;
use std::sync::Arc;

use cluster_compat::types::PeerId;
use libp2p::gossipsub::{self, MessageAcceptance, PublishError, TopicHash};
use tokio::sync::mpsc;
use tracing::{debug, error, warn};

use super::Worker;
use crate::net::{Message, Topic, Validator};
use crate::observe::metrics;

/// A subscribed topic, as the worker sees it.
pub(super) struct Subscription {
    topic: Arc<Topic>,
    validator: Validator,
    messages: mpsc::Sender<Message>,
    peers: HashSet<PeerId>,
}

impl Worker {
    pub(super) fn on_subscribe(
        &mut self,
        topic: Arc<Topic>,
        validator: Validator,
        messages: mpsc::Sender<Message>,
    ) {
        let hash = topic.ident.hash();
        let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() else {
            error!(target: "pubsub", topic = %hash, "cannot subscribe: this swarm has no gossip");
            return;
        };
        if let Err(e) = gossip.subscribe(&topic.ident) {
            error!(target: "pubsub", topic = %hash, "cannot subscribe: {e}");
        }
        let is_subscribed = |topics: &[&TopicHash]| topics.contains(&&hash);
        let peers: HashSet<PeerId> =
            gossip.all_peers().filter(|(_, topics)| is_subscribed(topics)).map(|(peer, _)| *peer).collect();
        topic.subscribers.send_replace(peers.len());
        self.subscriptions.insert(hash, Subscription { topic, validator, messages, peers });
    }

    pub(super) fn on_publish(&mut self, topic: &Topic, data: Vec<u8>) {
        let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() else { return };
        match gossip.publish(topic.ident.hash(), data) {
            Ok(_) => metrics::GOSSIP_PUBLISHED.inc(),
            Err(PublishError::NoPeersSubscribedToTopic) => {}
            Err(e) => warn!(target: "pubsub", topic = %topic.ident, "message not published: {e}"),
        }
    }

    pub(super) fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let acceptance = self.deliver(propagation_source, message);
                if let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() {
                    gossip.report_message_validation_result(&message_id, &propagation_source, acceptance);
                }
            }
            gossipsub::Event::Subscribed { peer_id, topic } => {
                if let Some(subscription) = self.subscriptions.get_mut(&topic) {
                    subscription.joined(peer_id);
                }
            }
            gossipsub::Event::Unsubscribed { peer_id, topic } => {
                if let Some(subscription) = self.subscriptions.get_mut(&topic) {
                    subscription.left(&peer_id);
                }
            }
            gossipsub::Event::SlowPeer { peer_id, failed_messages } => {
                debug!(target: "pubsub", peer = %peer_id, ?failed_messages, "peer is too slow for its messages");
            }
            _ => {}
        }
    }

    fn deliver(&self, from: PeerId, message: gossipsub::Message) -> MessageAcceptance {
        let (Some(source), Some(subscription)) = (message.source, self.subscriptions.get(&message.topic))
        else {
            return MessageAcceptance::Ignore;
        };
        if !(subscription.validator)(&source) {
            metrics::GOSSIP_REFUSED.inc();
            return MessageAcceptance::Reject;
        }
        match subscription.messages.try_send(Message { source, from, data: message.data }) {
            Ok(()) => metrics::GOSSIP_RECEIVED.inc(),
            Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                metrics::GOSSIP_LOST.inc();
                warn!(target: "pubsub", topic = %message.topic, "subscriber too slow: message lost");
            }
        }
        MessageAcceptance::Accept
    }
}

impl Subscription {
    pub(super) fn joined(&mut self, peer: PeerId) {
        if self.peers.insert(peer) {
            self.topic.subscribers.send_replace(self.peers.len());
        }
    }

    pub(super) fn left(&mut self, peer: &PeerId) {
        if self.peers.remove(peer) {
            self.topic.subscribers.send_replace(self.peers.len());
        }
    }
}
