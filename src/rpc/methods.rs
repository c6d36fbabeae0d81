//! The methods peers may call of each other (spec: wire 4.5): one table for serving, calling and tests.

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Any peer of the swarm.
    Open,
    /// Peers whose writes count here.
    Trusted,
}

/// What travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One argument, one reply; `zero` is the reply's zero value, sent with an error of the method itself.
    Unary {
        /// msgpack.
        zero: &'static [u8],
    },
    /// Any number of arguments and replies.
    Streaming,
}

/// A method that peers call of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the table")]
pub enum Call {
    Id,
    IdStream,
    Version,
    PeerAdd,
    PeerRemove,
    Peers,
    RecoverAllLocal,
    RecoverLocal,
    RepoGcLocal,
    Status,
    StatusAll,
    Recover,
    BlockStream,
    RepoStat,
    SwarmPeers,
    LogPin,
    LogUnpin,
    AddPeer,
    RmPeer,
}

/// A row of the table.
#[derive(Debug)]
pub struct Method {
    /// What it is called in here.
    pub call: Call,
    /// Name on the wire.
    pub service: &'static str,
    /// Name on the wire.
    pub name: &'static str,
    /// Who may call it.
    pub policy: Policy,
    /// What travels.
    pub kind: Kind,
    /// Longest argument or reply that is read.
    pub max_bytes: usize,
}

/// Longest message of most methods. The largest that are sent are blocks, of 2 MiB at most.
const MAX_BYTES: usize = 4 << 20;

/// Longest report of a garbage collection: it names every removed block, about 50 bytes each.
const MAX_GC_BYTES: usize = 256 << 20;

/// The zero value of a record without fields, and of one whose empty fields are all left out.
const EMPTY: Kind = Kind::Unary { zero: b"\x80" };
/// Of a list.
const NIL: Kind = Kind::Unary { zero: b"\xc0" };
/// Of a row about a CID.
const ROW: Kind = Kind::Unary { zero: b"\x81\xa1c\xc0" };
/// Of a garbage collection.
const GC: Kind = Kind::Unary { zero: b"\x81\xa1k\xc0" };
/// Of a repository's sizes.
const STAT: Kind = Kind::Unary { zero: b"\x81\xa1s\x00" };

use Kind::Streaming;
use Policy::{Open, Trusted};

static METHODS: [Method; 19] = [
    row(Call::Id, "Cluster", "ID", Open, EMPTY),
    row(Call::IdStream, "Cluster", "IDStream", Open, Streaming),
    row(Call::Version, "Cluster", "Version", Open, EMPTY),
    row(Call::PeerAdd, "Cluster", "PeerAdd", Open, EMPTY),
    row(Call::PeerRemove, "Cluster", "PeerRemove", Trusted, EMPTY),
    row(Call::Peers, "Cluster", "Peers", Trusted, Streaming),
    row(Call::RecoverAllLocal, "Cluster", "RecoverAllLocal", Trusted, Streaming),
    row(Call::RecoverLocal, "Cluster", "RecoverLocal", Trusted, ROW),
    Method { max_bytes: MAX_GC_BYTES, ..row(Call::RepoGcLocal, "Cluster", "RepoGCLocal", Trusted, GC) },
    row(Call::Status, "PinTracker", "Status", Trusted, ROW),
    row(Call::StatusAll, "PinTracker", "StatusAll", Trusted, Streaming),
    row(Call::Recover, "PinTracker", "Recover", Trusted, ROW),
    row(Call::BlockStream, "IPFSConnector", "BlockStream", Trusted, Streaming),
    row(Call::RepoStat, "IPFSConnector", "RepoStat", Trusted, STAT),
    row(Call::SwarmPeers, "IPFSConnector", "SwarmPeers", Trusted, NIL),
    row(Call::LogPin, "Consensus", "LogPin", Trusted, EMPTY),
    row(Call::LogUnpin, "Consensus", "LogUnpin", Trusted, EMPTY),
    row(Call::AddPeer, "Consensus", "AddPeer", Trusted, EMPTY),
    row(Call::RmPeer, "Consensus", "RmPeer", Trusted, EMPTY),
];

/// Methods the reference has for itself alone: a call from elsewhere is refused.
const CLOSED: [(&str, &[&str]); 5] = [
    (
        "Cluster",
        &[
            "Alerts",
            "BandwidthByProtocol",
            "BlockAllocate",
            "ConnectGraph",
            "IPFSID",
            "Join",
            "PeersWithFilter",
            "Pin",
            "PinGet",
            "PinPath",
            "Pins",
            "Recover",
            "RecoverAll",
            "RepoGC",
            "SendInformerMetrics",
            "SendInformersMetrics",
            "Status",
            "StatusAll",
            "StatusAllLocal",
            "StatusLocal",
            "Unpin",
            "UnpinPath",
        ],
    ),
    ("PinTracker", &["PinQueueSize", "RecoverAll", "Track", "Untrack"]),
    ("IPFSConnector", &["BlockGet", "ConfigKey", "Pin", "PinLs", "PinLsCid", "Resolve", "Unpin"]),
    ("Consensus", &["Peers"]),
    ("PeerMonitor", &["LatestMetrics", "MetricNames"]),
];

const fn row(call: Call, service: &'static str, name: &'static str, policy: Policy, kind: Kind) -> Method {
    Method { call, service, name, policy, kind, max_bytes: MAX_BYTES }
}

/// What is known under a name.
#[derive(Debug)]
pub(super) enum Known {
    Method(&'static Method),
    Closed,
    NoMethod,
    NoService,
}

/// Looks a name up, as it came over the wire.
pub(super) fn find(service: &str, name: &str) -> Known {
    if let Some(method) = METHODS.iter().find(|row| row.service == service && row.name == name) {
        return Known::Method(method);
    }
    match CLOSED.iter().find(|(known, _)| *known == service) {
        None => Known::NoService,
        Some((_, names)) if names.contains(&name) => Known::Closed,
        Some(_) => Known::NoMethod,
    }
}

/// The names of all methods, in the order of [`Call`].
pub fn method_names() -> Vec<String> {
    METHODS.iter().map(Method::full_name).collect()
}

impl Method {
    /// `Service.Method`, as on the wire.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.service, self.name)
    }
}

impl Call {
    /// Its row.
    pub fn method(self) -> &'static Method {
        // the rows stand in the order of the variants, which a test checks
        &METHODS[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_order_of_the_calls() {
        for (index, row) in METHODS.iter().enumerate() {
            assert_eq!(row.call as usize, index);
            assert!(matches!(find(row.service, row.name), Known::Method(found) if found.call == row.call));
        }
        assert!(matches!(find("Cluster", "Pin"), Known::Closed));
        assert!(matches!(find("Cluster", "y"), Known::NoMethod));
        assert!(matches!(find("X", "Y"), Known::NoService));
    }
}
