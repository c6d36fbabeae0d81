//! What ctl prints, in text: each kind of answer, byte by byte as the reference does (spec: cli 3.5).

use std::collections::BTreeMap;
use std::fmt::Write;

use cluster_compat::go::size;
use cluster_compat::go::time::Time;
use cluster_compat::types::{
    AddedOutput, Alert, Bandwidth, GlobalPinInfo, GlobalRepoGc, Id, Metric, Multiaddr, PeerId, Pin, PinMode,
    Version,
};

/// An answer that can be printed as text. Lines are complete.
pub(super) trait Text {
    /// Appends the lines; `now` is what relative times are counted from.
    fn text(&self, now: Time, out: &mut String);
}

/// Appends formatted text; a string takes all of it.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{ let _ = write!($out, $($arg)*); }};
}

impl<T: Text> Text for Option<T> {
    fn text(&self, now: Time, out: &mut String) {
        if let Some(answer) = self {
            answer.text(now, out);
        }
    }
}

fn sorted(addresses: Option<&Vec<Multiaddr>>) -> Vec<String> {
    let mut texts: Vec<String> = addresses.into_iter().flatten().map(Multiaddr::to_string).collect();
    texts.sort();
    texts
}

fn peer(id: Option<PeerId>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}

impl Text for Id {
    fn text(&self, _: Time, out: &mut String) {
        let id = peer(self.id);
        if !self.error.is_empty() {
            put!(out, "{id} | ERROR: {}\n", self.error);
            return;
        }
        let others = self.cluster_peers.as_ref().map_or(0, Vec::len) as i64 - 1;
        put!(out, "{id} | {} | Sees {others} other peers\n  > Addresses:\n", self.peername);
        for address in sorted(self.addresses.as_ref()) {
            put!(out, "    - {address}\n");
        }
        if !self.ipfs.error.is_empty() {
            put!(out, "  > IPFS ERROR: {}\n", self.ipfs.error);
            return;
        }
        put!(out, "  > IPFS: {}\n", peer(self.ipfs.id));
        for address in sorted(self.ipfs.addresses.as_ref()) {
            put!(out, "    - {address}\n");
        }
    }
}

impl Text for GlobalPinInfo {
    fn text(&self, _: Time, out: &mut String) {
        if let Some(cid) = self.cid {
            put!(out, "{cid}");
        }
        if !self.name.is_empty() {
            put!(out, " | {}", self.name);
        }
        out.push_str(":\n");
        for (id, info) in self.peer_map.iter() {
            let name = if info.peername.is_empty() { id } else { &info.peername };
            put!(out, "    > {name:<20} : {}", info.status.to_string().to_uppercase());
            if !info.error.is_empty() {
                put!(out, ": {}", info.error);
            }
            let (time, attempts, priority) = (info.timestamp, info.attempt_count, info.priority_pin);
            put!(out, " | {time} | Attempts: {attempts} | Priority: {priority}\n");
        }
    }
}

/// `2006-01-02 15:04:05`, in the zone the time came with.
fn date_and_time(time: Time) -> String {
    let text = time.to_string();
    match (text.get(..10), text.get(11..19)) {
        (Some(date), Some(time)) => format!("{date} {time}"),
        _ => text,
    }
}

impl Text for Pin {
    fn text(&self, _: Time, out: &mut String) {
        let direct = if self.options.mode == PinMode::Direct { "-DIRECT" } else { "" };
        let kind = self.pin_type.as_str().to_uppercase();
        put!(out, "{} | {} | {kind}{direct} | ", self.cid, self.options.name);
        if self.is_pin_everywhere() {
            out.push_str("Repl. Factor: -1 | Allocations: [everywhere]");
        } else {
            let (min, max) = (self.options.replication_factor_min, self.options.replication_factor_max);
            let mut peers: Vec<String> = self.allocations.iter().flatten().map(PeerId::to_string).collect();
            peers.sort();
            put!(out, "Repl. Factor: {min}--{max} | Allocations: [{}]", peers.join(" "));
        }
        match self.max_depth {
            0 => out.push_str(" | Direct"),
            -1 => out.push_str(" | Recursive"),
            depth => put!(out, " | Recursive-{depth}"),
        }
        let has_metadata = self.options.metadata.as_ref().is_some_and(|metadata| !metadata.is_empty());
        put!(out, " | Metadata: {}", if has_metadata { "yes" } else { "no" });
        let expires = match self.options.expire_at {
            never if never.is_zero() => "∞".into(),
            time => date_and_time(time),
        };
        let added = match self.timestamp {
            unknown if unknown.is_zero() => "unknown".into(),
            time => date_and_time(time),
        };
        put!(out, " | Exp: {expires} | Added: {added}\n");
    }
}

impl Text for AddedOutput {
    fn text(&self, _: Time, out: &mut String) {
        let cid = self.cid.map(|cid| cid.to_string()).unwrap_or_default();
        put!(out, "added {cid} {}\n", self.name);
    }
}

impl Text for Version {
    fn text(&self, _: Time, out: &mut String) {
        put!(out, "{}\n", self.version);
    }
}

impl Text for String {
    fn text(&self, _: Time, out: &mut String) {
        put!(out, "{self}\n");
    }
}

impl Text for Metric {
    fn text(&self, now: Time, out: &mut String) {
        let value = match u64::try_from(self.weight) {
            Ok(weight) if weight > 0 && self.name == "freespace" => size::bytes(weight),
            _ => self.value.clone(),
        };
        let expires = relative(now, Time::from_unix_nanos(self.expire));
        put!(out, "{} | {}: {value} | Expires in: {expires}\n", peer(self.peer), self.name);
    }
}

impl Text for Alert {
    fn text(&self, now: Time, out: &mut String) {
        let metric = &self.metric;
        let expired = relative(now, Time::from_unix_nanos(metric.expire));
        let triggered = relative(now, self.triggered_at);
        let peer = peer(metric.peer);
        put!(out, "{peer}: {}. Expired at: {expired}. Triggered at: {triggered}\n", metric.name);
    }
}

impl Text for BTreeMap<String, Bandwidth> {
    fn text(&self, _: Time, out: &mut String) {
        for (protocol, stat) in self {
            let bytes = |total: i64| size::bytes(total as u64);
            put!(out, "{protocol:>25}: In: {:>7}. Out: {:>7}. ", bytes(stat.total_in), bytes(stat.total_out));
            put!(out, "RateIn: {:.2}B/s. RateOut: {:.2}B/s\n", stat.rate_in, stat.rate_out);
        }
    }
}

impl Text for GlobalRepoGc {
    fn text(&self, _: Time, out: &mut String) {
        for (id, item) in self.peer_map.iter() {
            let name = if item.peername.is_empty() { id } else { &item.peername };
            if item.error.is_empty() {
                put!(out, "{name:<15}\n");
            } else {
                put!(out, "{name:<15} | ERROR: {}\n", item.error);
            }
            out.push_str("  > CIDs:\n");
            for key in item.keys.iter().flatten() {
                match key.key {
                    Some(cid) if key.error.is_empty() => put!(out, "    - {cid}\n"),
                    _ => put!(out, "    - ERROR: {}\n", key.error),
                }
            }
        }
    }
}

/// How long ago, or from now, as go-humanize says it.
fn relative(now: Time, then: Time) -> String {
    const SECOND: i64 = 1_000_000_000;
    const MINUTE: i64 = 60 * SECOND;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const WEEK: i64 = 7 * DAY;
    const MONTH: i64 = 30 * DAY;
    const YEAR: i64 = 12 * MONTH;
    /// Upper bound, what is counted, its name.
    const STEPS: [(i64, i64, &str); 15] = [
        (2 * SECOND, 0, "1 second"),
        (MINUTE, SECOND, "seconds"),
        (2 * MINUTE, 0, "1 minute"),
        (HOUR, MINUTE, "minutes"),
        (2 * HOUR, 0, "1 hour"),
        (DAY, HOUR, "hours"),
        (2 * DAY, 0, "1 day"),
        (WEEK, DAY, "days"),
        (2 * WEEK, 0, "1 week"),
        (MONTH, WEEK, "weeks"),
        (2 * MONTH, 0, "1 month"),
        (YEAR, MONTH, "months"),
        (18 * MONTH, 0, "1 year"),
        (2 * YEAR, 0, "2 years"),
        (37 * YEAR, YEAR, "years"),
    ];
    let difference = now.unix_nanos().saturating_sub(then.unix_nanos());
    let side = if difference < 0 { "from now" } else { "ago" };
    let difference = difference.saturating_abs();
    if difference < SECOND {
        return "now".into();
    }
    match STEPS.iter().find(|(bound, ..)| difference < *bound) {
        Some((_, 0, name)) => format!("{name} {side}"),
        Some((_, unit, name)) => format!("{} {name} {side}", difference / unit),
        None => format!("a long while {side}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_273_458;

    #[track_caller]
    fn check<T: Text + serde::de::DeserializeOwned>(json: &str, expected: &str) {
        let mut out = String::new();
        serde_json::from_str::<T>(json).unwrap().text(Time::from_unix(NOW, 0), &mut out);
        assert_eq!(out, expected);
    }

    #[test]
    fn peers_show_their_addresses_or_why_they_failed() {
        check::<Id>(
            r#"{"id":"12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt","peername":"cluster0",
                "addresses":["/ip4/192.168.1.2/tcp/9096","/ip4/127.0.0.1/tcp/9096"],
                "cluster_peers":["12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt"],
                "ipfs":{"error":"no daemon"}}"#,
            "12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt | cluster0 | Sees 0 other peers
  > Addresses:
    - /ip4/127.0.0.1/tcp/9096
    - /ip4/192.168.1.2/tcp/9096
  > IPFS ERROR: no daemon
",
        );
        check::<Id>(
            r#"{"id":"12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt","error":"dial backoff"}"#,
            "12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt | ERROR: dial backoff\n",
        );
    }

    #[test]
    fn pins_are_one_line() {
        check::<Pin>(
            r#"{"cid":"QmbrCtydGyPeHiLURSPMqrvE5mCgMCwFYq3UD4XLCeAYw6","type":"pin","mode":"direct","max_depth":0,
                "replication_factor_min":1,"replication_factor_max":2,"metadata":{"a":"b"},
                "expire_at":"2027-01-02T03:04:05+02:00",
                "allocations":["12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt"]}"#,
            "QmbrCtydGyPeHiLURSPMqrvE5mCgMCwFYq3UD4XLCeAYw6 |  | PIN-DIRECT | Repl. Factor: 1--2 | Allocations: \
             [12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt] | Direct | Metadata: yes | \
             Exp: 2027-01-02 03:04:05 | Added: unknown\n",
        );
        check::<Pin>(
            r#"{"cid":"QmbrCtydGyPeHiLURSPMqrvE5mCgMCwFYq3UD4XLCeAYw6","name":"my pin","type":"pin","max_depth":-1,
                "replication_factor_min":-1,"replication_factor_max":-1,"timestamp":"2026-05-11T10:20:30Z"}"#,
            "QmbrCtydGyPeHiLURSPMqrvE5mCgMCwFYq3UD4XLCeAYw6 | my pin | PIN | Repl. Factor: -1 | Allocations: \
             [everywhere] | Recursive | Metadata: no | Exp: ∞ | Added: 2026-05-11 10:20:30\n",
        );
    }

    #[test]
    fn a_status_lists_peers_with_aligned_names() {
        check::<GlobalPinInfo>(
            r#"{"cid":"QmbrCtydGyPeHiLURSPMqrvE5mCgMCwFYq3UD4XLCeAYw6","name":"n","peer_map":{
                "12D3KooWFyjPo1BnEk1AFvPoiD2CF1ruwnmAsjr7itumrmhFJgSt":{"peername":"clüster0","status":"pinned",
                "timestamp":"2026-05-11T10:20:30.123456789Z","error":"","attempt_count":0,"priority_pin":false},
                "12D3KooWMkHC3xeDUkNkT3bWSM7XAshpRqt6pYw1VRxCufeXQNhU":{"peername":"","status":"pin_error",
                "timestamp":"2026-05-11T10:20:30Z","error":"no","attempt_count":2,"priority_pin":true}}}"#,
            "QmbrCtydGyPeHiLURSPMqrvE5mCgMCwFYq3UD4XLCeAYw6 | n:
    > clüster0             : PINNED | 2026-05-11T10:20:30.123456789Z | Attempts: 0 | Priority: false
    > 12D3KooWMkHC3xeDUkNkT3bWSM7XAshpRqt6pYw1VRxCufeXQNhU : PIN_ERROR: no | 2026-05-11T10:20:30Z | \
             Attempts: 2 | Priority: true
",
        );
    }

    #[test]
    fn bandwidth_is_aligned() {
        check::<BTreeMap<String, Bandwidth>>(
            r#"{"/ipfscluster/1.0/rpc":{"total_in":123999,"total_out":99,"rate_in":1.234,"rate_out":0}}"#,
            "     /ipfscluster/1.0/rpc: In:  124 kB. Out:    99 B. RateIn: 1.23B/s. RateOut: 0.00B/s\n",
        );
    }

    #[test]
    fn relative_times_are_humanised() {
        for (seconds, expected) in [
            (0, "now"),
            (1, "1 second from now"),
            (59, "59 seconds from now"),
            (-60, "1 minute ago"),
            (-3599, "59 minutes ago"),
            (7200, "2 hours from now"),
            (-86400 * 6, "6 days ago"),
            (-86400 * 29, "4 weeks ago"),
            (86400 * 359, "11 months from now"),
            (86400 * 360 * 3, "3 years from now"),
            (86400 * 360 * 40, "a long while from now"),
        ] {
            assert_eq!(relative(Time::from_unix(NOW, 0), Time::from_unix(NOW + seconds, 0)), expected);
        }
    }
}
