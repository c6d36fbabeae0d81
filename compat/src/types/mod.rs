//! The cluster's nouns and their JSON, as REST clients read it.
//!
//! Peers exchange the same nouns under other field names; those forms live in the root package's `wire`.

mod add;
mod addr;
mod base;
mod cid;
mod cid_fast;
mod document;
mod graph;
mod id;
mod info;
mod memo;
mod metric;
mod misc;
mod options;
mod peer;
mod pin;
mod status;

pub(crate) use self::addr::AddrsJson;
pub(crate) use self::cid::CidJson;

pub use self::add::{AddParams, AddedOutput, DEFAULT_SHARD_SIZE, Format, Layout};
pub use self::addr::{Multiaddr, multiaddr_peer, multiaddr_text, parse_multiaddr};
pub use self::base::Text;
pub use self::cid::{Cid, cid_text, parse_cid, parse_cid_bytes};
pub use self::document::Document;
pub use self::graph::ConnectGraph;
pub use self::id::{Id, IpfsId};
pub use self::info::{GlobalPinInfo, PeerMap, PinInfo, PinInfoShort};
pub use self::metric::Metric;
pub use self::misc::{
    Alert, Bandwidth, Bandwidths, Block, GlobalRepoGc, IpfsRepoStat, RepoGc, RepoGcKey, Version,
};
pub use self::options::{PinMode, PinOptions};
pub use self::peer::{PeerId, parse_peer_id};
pub use self::pin::{Pin, PinDepth, PinType, PinTypes};
pub use self::status::TrackerStatus;
