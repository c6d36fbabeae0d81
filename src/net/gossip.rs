//! Gossip with the reference's parameters, signatures and message ids (spec: wire 2).

use std::time::Duration;

use libp2p::gossipsub::{self, ConfigBuilder, MessageAuthenticity, MessageId, ValidationMode};
use libp2p::identity::Keypair;

use super::Error;
use super::plan::GossipSettings;

/// Largest message the reference takes in.
pub(super) const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Room for what the frame adds to a message: topic, signature, ids.
pub(super) const FRAME_BYTES: usize = 1024;

/// The library compares this with all bytes it has buffered, which may be several frames.
const MAX_RECEIVE_BYTES: usize = 4 << 20;

/// The reference announces up to 10,000 ids of 24 bytes at once; a larger control part closes the stream.
const MAX_CONTROL_BYTES: usize = 1 << 20;

/// Ids in one announcement.
const MAX_IHAVE: usize = 10_000;

/// Messages in one frame; the reference has no limit.
const MAX_MESSAGES_PER_FRAME: usize = 10_000;

/// Messages that wait for one slow peer.
const MAX_QUEUED_PER_PEER: usize = 1024;

/// How long a message is known as seen, whatever the configuration says. clusterhost.go:279
const SEEN_TTL: Duration = Duration::from_secs(30 * 60);

/// The gossip protocol for a peer with `keypair`.
pub(super) fn behaviour(keypair: &Keypair, settings: &GossipSettings) -> Result<gossipsub::Behaviour, Error> {
    let invalid = |reason: String| Error::GossipSettings { reason };
    let degree = settings.degree_factor.clamp(1, 1000);
    let mut builder = ConfigBuilder::default();
    builder
        .support_floodsub()
        .validate_messages()
        .validation_mode(ValidationMode::Strict)
        .message_id_fn(message_id)
        .heartbeat_initial_delay(Duration::from_millis(100))
        .heartbeat_interval(settings.heartbeat_every)
        .mesh_n(degree * 6)
        .mesh_n_low(degree * 5)
        .mesh_n_high(degree * 12)
        .retain_scores(degree * 4)
        .mesh_outbound_min(degree * 2)
        .gossip_lazy(degree * 6)
        .gossip_factor(0.25)
        .history_length(settings.history_length)
        .history_gossip(settings.history_gossip)
        .gossip_retransimission(3)
        .fanout_ttl(Duration::from_secs(60))
        .prune_peers(16)
        .prune_backoff(Duration::from_secs(60))
        .unsubscribe_backoff(Duration::from_secs(10))
        .flood_publish(settings.floods)
        .graft_flood_threshold(Duration::from_secs(10))
        .opportunistic_graft_ticks(60)
        .opportunistic_graft_peers(2)
        .check_explicit_peers_ticks(300)
        .iwant_followup_time(Duration::from_secs(3))
        .max_ihave_messages_heartbeat(10)
        .max_control_messages_sent(MAX_IHAVE)
        .max_control_message_size(MAX_CONTROL_BYTES)
        .max_publish_messages(MAX_MESSAGES_PER_FRAME)
        .idontwant_message_size_threshold(1024)
        .max_transmit_size(MAX_RECEIVE_BYTES)
        .duplicate_cache_time(SEEN_TTL)
        .connection_handler_queue_len(MAX_QUEUED_PER_PEER);
    if settings.exchanges_peers {
        builder.do_px();
    }
    let config = builder.build().map_err(|e| invalid(e.to_string()))?;
    gossipsub::Behaviour::new(MessageAuthenticity::Signed(keypair.clone()), config)
        .map_err(|e| invalid(e.to_owned()))
}

/// The first 16 bytes of the author's id, then the sequence number: 24 bytes. clusterhost.go:227
fn message_id(message: &gossipsub::Message) -> MessageId {
    let mut id = message.source.map(|peer| peer.to_bytes()).unwrap_or_default();
    id.truncate(16);
    id.extend_from_slice(&message.sequence_number.unwrap_or_default().to_be_bytes());
    MessageId(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_are_the_recorded_ones() {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../../fixtures/wire/metrics.json")).unwrap();
        for item in file["items"].as_array().unwrap() {
            let message = gossipsub::Message {
                source: Some(item["metric"]["peer"].as_str().unwrap().parse().unwrap()),
                data: Vec::new(),
                sequence_number: Some(u64::from_str_radix(item["seqno"].as_str().unwrap(), 16).unwrap()),
                topic: gossipsub::TopicHash::from_raw("monitor.metrics"),
            };
            assert_eq!(hex::encode(message_id(&message).0), item["id"].as_str().unwrap());
        }
    }

    #[test]
    fn the_defaults_of_the_reference_are_accepted() {
        let settings = GossipSettings {
            heartbeat_every: Duration::from_secs(10),
            degree_factor: 4,
            history_length: 6,
            history_gossip: 2,
            floods: false,
            exchanges_peers: true,
        };
        assert!(behaviour(&Keypair::generate_ed25519(), &settings).is_ok());
        let error =
            behaviour(&Keypair::generate_ed25519(), &GossipSettings { history_gossip: 7, ..settings });
        assert!(matches!(error, Err(Error::GossipSettings { .. })));
    }
}
