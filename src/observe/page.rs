//! The page that Prometheus reads: text format 0.0.4, and the families that every peer has (spec: metrics).

use std::fmt::{self, Display, Write as _};
use std::sync::atomic::Ordering;

use super::metrics::{
    self, BYTES, HTTP_CLIENT, HTTP_SERVER, LAST_LATENCY, LATENCIES, METHODS, N_RPC_ONLY, RPC, STATUSES,
};
use super::metrics::{Latencies, Sizes};

/// What a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It grows and shrinks.
    Gauge,
    /// Counts by bound.
    Histogram,
}

/// A page in text format 0.0.4.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    family: String,
}

impl Page {
    /// Begins a family; its samples follow.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.family.clear();
        self.family.push_str(name);
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// A sample of the family that was begun last.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line("", labels, None, value);
    }

    /// A family of one sample without labels.
    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(&[], value);
    }

    /// A histogram of sizes, as part of the family that was begun last.
    pub fn sizes(&mut self, labels: &[(&str, &str)], sizes: &Sizes) {
        let mut n_below = 0;
        for (bound, bucket) in BYTES.iter().zip(&sizes.buckets) {
            n_below += bucket.load(Ordering::Relaxed);
            self.line("_bucket", labels, Some(&Short(*bound as f64)), n_below);
        }
        self.end_of_histogram(labels, n_below, sizes.sum.get() as f64, sizes.n.get());
    }

    /// A histogram of latencies in milliseconds, without the first `n_skipped` bounds.
    pub fn latencies(&mut self, labels: &[(&str, &str)], latencies: &Latencies, n_skipped: usize) {
        let mut n_below = 0;
        let bounds = LATENCIES.iter().chain([&LAST_LATENCY]);
        for (i, (bound, bucket)) in bounds.zip(&latencies.buckets).enumerate() {
            n_below += bucket.load(Ordering::Relaxed);
            if i >= n_skipped {
                self.line("_bucket", labels, Some(&Short(*bound as f64 / 1e3)), n_below);
            }
        }
        self.end_of_histogram(labels, n_below, latencies.sum_nanos.get() as f64 / 1e6, latencies.n.get());
    }

    fn end_of_histogram(&mut self, labels: &[(&str, &str)], n_below: u64, sum: f64, n: u64) {
        // one that is being counted just now may be in its bucket already
        let n = n.max(n_below);
        self.line("_bucket", labels, Some(&"+Inf"), n);
        self.line("_sum", labels, None, Short(sum));
        self.line("_count", labels, None, n);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], le: Option<&dyn Display>, value: impl Display) {
        self.text.push_str(&self.family);
        self.text.push_str(suffix);
        let mut separator = '{';
        for (key, value) in labels {
            self.put(format_args!("{separator}{key}=\"{}\"", Escaped(value)));
            separator = ',';
        }
        if let Some(le) = le {
            self.put(format_args!("{separator}le=\"{le}\""));
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        self.put(format_args!(" {value}\n"));
    }

    fn put(&mut self, text: fmt::Arguments<'_>) {
        // memory does not fail
        let _ = self.text.write_fmt(text);
    }

    /// The whole page.
    pub fn into_text(self) -> String {
        self.text
    }

    /// What the rooms count for every peer.
    pub fn counted(&mut self) {
        use Kind::{Counter, Gauge};
        for (name, help, counter) in [
            ("ipfscluster_pins_pin_add", "Total number of IPFS pin requests", &metrics::PIN_ADD),
            (
                "ipfscluster_pins_pin_add_errors",
                "Total number of failed pin requests",
                &metrics::PIN_ADD_ERRORS,
            ),
            ("ipfscluster_blocks_put", "Total number of blocks/put requests", &metrics::BLOCKS_PUT),
            ("ipfscluster_blocks_added", "Total number of blocks added", &metrics::BLOCKS_ADDED),
            (
                "ipfscluster_blocks_added_size",
                "Total size of blocks added in bytes",
                &metrics::BLOCKS_ADDED_SIZE,
            ),
            (
                "ipfscluster_blocks_put_errors",
                "Total number of block/put errors",
                &metrics::BLOCKS_PUT_ERRORS,
            ),
            (
                "ipfscluster_add_failed_destinations",
                "Destinations of adds that failed while another succeeded",
                &metrics::ADD_FAILED_DESTINATIONS,
            ),
            ("ipfscluster_gossip_received", "Messages of topics taken in", &metrics::GOSSIP_RECEIVED),
            (
                "ipfscluster_gossip_refused",
                "Messages whose signer does not count here",
                &metrics::GOSSIP_REFUSED,
            ),
            (
                "ipfscluster_gossip_lost",
                "Messages lost because their reader was too slow",
                &metrics::GOSSIP_LOST,
            ),
            ("ipfscluster_gossip_published", "Messages sent to topics", &metrics::GOSSIP_PUBLISHED),
            ("ipfscluster_crdt_nodes_made", "Nodes of the DAG made here", &metrics::CRDT_NODES_MADE),
            ("ipfscluster_crdt_nodes_merged", "Nodes of other peers merged", &metrics::CRDT_NODES_MERGED),
            ("ipfscluster_trace_spans_sent", "Spans that the collector took", &metrics::TRACE_SPANS_SENT),
            (
                "ipfscluster_trace_spans_dropped",
                "Spans dropped because the collector was slow or away",
                &metrics::TRACE_SPANS_DROPPED,
            ),
        ] {
            self.single(name, Counter, help, counter.get());
        }
        for (name, help, gauge) in [
            ("ipfscluster_pins_ipfs_pins", "Current number of items pinned on IPFS", &metrics::IPFS_PINS),
            (
                "ipfscluster_informer_disk",
                "The metric value weight issued by disk informer",
                &metrics::INFORMER_DISK,
            ),
            ("ipfscluster_crdt_heads", "Heads of the DAG", &metrics::CRDT_HEADS),
            ("ipfscluster_crdt_max_height", "Height of the highest head", &metrics::CRDT_MAX_HEIGHT),
            ("ipfscluster_crdt_batch_items", "Items of the pending batch", &metrics::CRDT_BATCH_ITEMS),
            (
                "ipfscluster_crdt_unfinished_nodes",
                "Nodes that are known and not merged yet",
                &metrics::CRDT_UNFINISHED,
            ),
            (
                "ipfscluster_crdt_stalled_nodes",
                "Nodes that could not be had and wait for a repair",
                &metrics::CRDT_STALLED,
            ),
        ] {
            self.single(name, Gauge, help, gauge.get());
        }
    }

    /// What is recorded while tracing is on; `methods` are the names of [`RPC`].
    pub fn traced(&mut self, methods: &[String]) {
        self.http_client();
        self.http_server();
        let served: Vec<_> =
            methods.iter().zip(&RPC).filter(|(_, counts)| counts.latency.n.get() > 0).collect();
        let method = "gorpc_server_method";
        if served.is_empty() {
            return;
        }
        let name = |end: &str| format!("ipfscluster_gorpc_libp2p_io_server_{end}");
        self.family(&name("completed_rpcs"), Kind::Counter, "Count of RPCs by method and status.");
        for (call, counts) in &served {
            self.sample(&[(method, call)], counts.latency.n.get());
        }
        let help = "Distribution of received bytes per RPC, by method.";
        self.family(&name("received_bytes_per_rpc"), Kind::Histogram, help);
        for (call, counts) in &served {
            self.sizes(&[(method, call)], &counts.received);
        }
        let help = "Distribution of total sent bytes per RPC, by method.";
        self.family(&name("sent_bytes_per_rpc"), Kind::Histogram, help);
        for (call, counts) in &served {
            self.sizes(&[(method, call)], &counts.sent);
        }
        let help = "Distribution of server latency in milliseconds, by method.";
        self.family(&name("server_latency"), Kind::Histogram, help);
        for (call, counts) in &served {
            self.latencies(&[(method, call)], &counts.latency, 0);
        }
    }

    fn http_client(&mut self) {
        let asked: Vec<_> =
            STATUSES.iter().zip(&HTTP_CLIENT).filter(|(_, counts)| counts.latency.n.get() > 0).collect();
        if asked.is_empty() {
            return;
        }
        let name = |end: &str| format!("ipfscluster_opencensus_io_http_client_{end}");
        let of = |status: &'static str| [("http_client_method", "POST"), ("http_client_status", status)];
        let help = "Count of completed requests, by HTTP method and response status";
        self.family(&name("completed_count"), Kind::Counter, help);
        for ((_, status), counts) in &asked {
            self.sample(&of(status), counts.latency.n.get());
        }
        let help = "End-to-end latency, by HTTP method and response status";
        self.family(&name("roundtrip_latency"), Kind::Histogram, help);
        for ((_, status), counts) in &asked {
            self.latencies(&of(status), &counts.latency, N_RPC_ONLY);
        }
        let help = "Total bytes received in response bodies (not including headers but including error responses with bodies), by HTTP method and response status";
        self.family(&name("received_bytes"), Kind::Histogram, help);
        for ((_, status), counts) in &asked {
            self.sizes(&of(status), &counts.received);
        }
        let help =
            "Total bytes sent in request body (not including headers), by HTTP method and response status";
        self.family(&name("sent_bytes"), Kind::Histogram, help);
        for ((_, status), counts) in &asked {
            self.sizes(&of(status), &counts.sent);
        }
    }

    fn http_server(&mut self) {
        let server = &HTTP_SERVER;
        let n: u64 = server.by_method.iter().map(metrics::Counter::get).sum();
        if n == 0 {
            return;
        }
        let name = |end: &str| format!("ipfscluster_opencensus_io_http_server_{end}");
        self.single(&name("request_count"), Kind::Counter, "Count of HTTP requests started", n);
        self.family(&name("request_count_by_method"), Kind::Counter, "Server request count by HTTP method");
        for (method, counter) in
            METHODS.iter().zip(&server.by_method).filter(|(_, counter)| counter.get() > 0)
        {
            self.sample(&[("http_method", method)], counter.get());
        }
        let help = "Server response count by status code";
        self.family(&name("response_count_by_status_code"), Kind::Counter, help);
        for ((_, status), counter) in
            STATUSES.iter().zip(&server.by_status).filter(|(_, counter)| counter.get() > 0)
        {
            self.sample(&[("http_status", status)], counter.get());
        }
        self.family(&name("request_bytes"), Kind::Histogram, "Size distribution of HTTP request body");
        self.sizes(&[], &server.request_bytes);
        self.family(&name("response_bytes"), Kind::Histogram, "Size distribution of HTTP response body");
        self.sizes(&[], &server.response_bytes);
        self.family(&name("latency"), Kind::Histogram, "Latency distribution of HTTP requests");
        self.latencies(&[], &server.latency, N_RPC_ONLY);
    }
}

/// A float without needless digits: a whole number as one.
struct Short(f64);

impl Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A label's value.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observe::metrics::daemon_request;

    #[test]
    fn a_histogram_counts_what_is_at_most_its_bound() {
        let (sizes, latencies) = (Sizes::new(), Latencies::new());
        for n_bytes in [0, 1024, 1025, 5_000_000_000] {
            sizes.observe(n_bytes);
        }
        for micros in [10, 11, 1000, 100_000_000, 200_000_000] {
            latencies.observe(Duration::from_micros(micros));
        }
        let mut page = Page::default();
        page.family("s", Kind::Histogram, "sizes");
        page.sizes(&[("a", "x\"\\\n")], &sizes);
        page.family("l", Kind::Histogram, "latencies");
        page.latencies(&[], &latencies, N_RPC_ONLY);
        let text = page.into_text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..3],
            ["# HELP s sizes", "# TYPE s histogram", "s_bucket{a=\"x\\\"\\\\\\n\",le=\"1024\"} 2"]
        );
        assert!(text.contains("le=\"4294967296\"} 3\n") && text.contains("le=\"+Inf\"} 4\n"), "{text}");
        assert!(
            text.contains("l_bucket{le=\"1\"} 3\n") && text.contains("l_bucket{le=\"100000\"} 4\n"),
            "{text}"
        );
        assert!(text.ends_with("l_bucket{le=\"+Inf\"} 5\nl_sum 300001.021\nl_count 5\n"), "{text}");
        assert_eq!(text.matches("l_bucket").count(), 35);
    }

    #[test]
    fn every_family_has_help_type_and_a_name_without_a_suffix_of_counters() {
        let mut page = Page::default();
        page.counted();
        HTTP_SERVER.begin("BREW");
        HTTP_SERVER.end(418, 1, 2, Duration::from_millis(1));
        daemon_request(200, 0, 10, Duration::from_millis(1));
        RPC[0].latency.observe(Duration::ZERO);
        page.traced(&["Cluster.ID".to_owned()]);
        let text = page.into_text();
        for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
            assert!(!line.contains("_total "), "{line}");
        }
        assert!(
            text.contains("http_method=\"other\"} ") && text.contains("http_status=\"other\"} "),
            "{text}"
        );
        assert!(text.contains("completed_rpcs{gorpc_server_method=\"Cluster.ID\"} "), "{text}");
        assert!(
            text.contains("client_completed_count{http_client_method=\"POST\",http_client_status=\"200\"} ")
        );
    }
}
