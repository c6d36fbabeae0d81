//! Peer ids and multiaddresses: text with the reference's errors, JSON.

pub use libp2p_identity::PeerId;
pub use multiaddr::Multiaddr;

/// Parses a peer id in base58 or CID form; the error is go-libp2p's text.
pub fn parse_peer_id(text: &str) -> Result<PeerId, String> {
    text.parse().map_err(|e| format!("failed to parse peer ID: {e}"))
}

/// Parses a multiaddress; the error is go-multiaddr's text.
pub fn parse_multiaddr(text: &str) -> Result<Multiaddr, String> {
    text.parse().map_err(|e| format!("failed to parse multiaddr {text:?}: {e}"))
}
