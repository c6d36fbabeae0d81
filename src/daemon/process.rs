//! What the system says of this process: `process_*` of the metrics.

use rustix::process::{Resource, getrlimit};

/// Ticks of a second in `/proc`: the same on every Linux that runs us.
const TICKS: f64 = 100.0;

/// Zeros where the system does not say.
#[derive(Debug, Clone, Default)]
pub(super) struct Process {
    pub(super) cpu_seconds: f64,
    pub(super) began_unix_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    pub(super) max_virtual_bytes: u64,
    pub(super) n_open_files: u64,
    pub(super) max_files: u64,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
}

/// Asks the system.
pub(super) fn read() -> Process {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (status, stat) = (file("/proc/self/status"), file("/proc/self/stat"));
    // behind the name of the program, which may hold anything
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
    let booted = line(&file("/proc/stat"), "btime").and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    let kibibytes = |key: &str| {
        let text = line(&status, key).and_then(|text| text.split_whitespace().next());
        text.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    let octets = octets(&file("/proc/self/net/netstat"));
    Process {
        cpu_seconds: (ticks(11) + ticks(12)) / TICKS,
        began_unix_seconds: booted + ticks(19) / TICKS,
        resident_bytes: kibibytes("VmRSS:"),
        virtual_bytes: kibibytes("VmSize:"),
        max_virtual_bytes: getrlimit(Resource::As).current.unwrap_or(u64::MAX),
        n_open_files: std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
        max_files: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        received_bytes: octets.0,
        sent_bytes: octets.1,
    }
}

/// What stands behind a key at the beginning of a line.
fn line<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.strip_prefix(key)?.trim()))
}

/// Bytes in and out of the network that the process is in.
fn octets(netstat: &str) -> (u64, u64) {
    let mut lines = netstat.lines().filter(|line| line.starts_with("IpExt:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return (0, 0) };
    let find = |wanted: &str| {
        let mut pairs = names.split_whitespace().zip(values.split_whitespace());
        pairs.find(|(name, _)| *name == wanted).and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
    };
    (find("InOctets"), find("OutOctets"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_found_by_name() {
        let text = "TcpExt: A B\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 1 20 300\n";
        assert_eq!((octets(text), octets("")), ((20, 300), (0, 0)));
    }
}
