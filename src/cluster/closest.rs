//! The one peer that acts on a CID when several could (spec: core 11).

use blake2::Blake2b;
use blake2::Digest as _;
use blake2::digest::consts::U32;
use cluster_compat::types::{Cid, PeerId};

/// Whether none of `others` is strictly closer to the CID than `own`: distance is the XOR of the BLAKE2b-256
/// of both binary forms, compared as a big-endian number.
pub(super) fn is_closest(cid: &Cid, own: &PeerId, others: impl IntoIterator<Item = PeerId>) -> bool {
    let target = hash(&cid.to_bytes());
    let distance = |peer: &PeerId| {
        let mut distance = hash(&peer.to_bytes());
        distance.iter_mut().zip(target).for_each(|(byte, target)| *byte ^= target);
        distance
    };
    let ours = distance(own);
    !others.into_iter().any(|peer| distance(&peer) < ours)
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Blake2b::<U32>::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_of_several_peers_is_the_closest_and_a_lone_peer_always_is() {
        let peers: Vec<PeerId> = (0..7).map(|_| PeerId::random()).collect();
        for n in 0..50_u8 {
            let hash = multihash::Multihash::wrap(0x12, &[n; 32]).unwrap();
            let cid = Cid::new_v1(0x70, hash);
            let closest = peers
                .iter()
                .filter(|own| is_closest(&cid, own, peers.iter().copied().filter(|peer| peer != *own)))
                .count();
            assert_eq!(closest, 1, "{cid}");
            assert!(is_closest(&cid, &peers[0], []));
        }
    }
}
