//! The `observations.metrics` and `observations.tracing` sections.

use std::path::Path;

use super::section::{Component, default_addr, parse_addr, require, set_duration, table};
use crate::go::time::Duration;
use crate::types::Multiaddr;

/// Figures for Prometheus.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// Default false.
    pub enable_stats: bool,
    /// Where they are served. Default `/ip4/127.0.0.1/tcp/8888`, required in the file.
    pub prometheus_endpoint: Multiaddr,
    /// Default 30 s.
    pub reporting_interval: Duration,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            enable_stats: false,
            prometheus_endpoint: default_addr("/ip4/127.0.0.1/tcp/8888"),
            reporting_interval: Duration::from_secs(30),
        }
    }
}

/// Traces for Jaeger.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// Default false.
    pub enable_tracing: bool,
    /// The agent. Default `/ip4/0.0.0.0/udp/6831`, required in the file.
    pub jaeger_agent_endpoint: Multiaddr,
    /// Default 0.3.
    pub sampling_prob: f64,
    /// Default `cluster-daemon`.
    pub service_name: String,
}

impl Default for Tracing {
    fn default() -> Self {
        Self {
            enable_tracing: false,
            jaeger_agent_endpoint: default_addr("/ip4/0.0.0.0/udp/6831"),
            sampling_prob: 0.3,
            service_name: "cluster-daemon".to_owned(),
        }
    }
}

table! {
    MetricsTable = "observations.jsonMetricsConfig" {
        enable_stats: bool = "EnableStats",
        prometheus_endpoint: String = "PrometheusEndpoint",
        reporting_interval: String = "ReportingInterval",
    }
}

table! {
    TracingTable = "observations.jsonTracingConfig" {
        enable_tracing: bool = "EnableTracing",
        jaeger_agent_endpoint: String = "JaegerAgentEndpoint",
        sampling_prob: f64 = "SamplingProb",
        service_name: String = "ServiceName",
    }
}

impl Component for Metrics {
    type Table = MetricsTable;

    fn key(&self) -> &'static str {
        "metrics"
    }

    fn env_prefix(&self) -> &'static str {
        "CLUSTER_METRICS"
    }

    fn apply(&mut self, table: MetricsTable, _folder: &Path) -> Result<(), String> {
        self.enable_stats = table.enable_stats;
        let doing = "loadMetricsOptions: PrometheusEndpoint multiaddr";
        self.prometheus_endpoint = parse_addr(doing, &table.prometheus_endpoint)?;
        let interval = &mut self.reporting_interval;
        set_duration("metrics", "metrics.reporting_interval", &table.reporting_interval, interval)
    }

    fn validate(&self) -> Result<(), String> {
        let valid = !self.enable_stats || self.reporting_interval >= Duration::ZERO;
        require(valid, "metrics.reporting_interval is invalid")
    }

    fn to_table(&self) -> MetricsTable {
        MetricsTable {
            enable_stats: self.enable_stats,
            prometheus_endpoint: self.prometheus_endpoint.to_string(),
            reporting_interval: self.reporting_interval.to_string(),
        }
    }
}

impl Component for Tracing {
    type Table = TracingTable;

    fn key(&self) -> &'static str {
        "tracing"
    }

    fn env_prefix(&self) -> &'static str {
        "CLUSTER_TRACING"
    }

    fn apply(&mut self, table: TracingTable, _folder: &Path) -> Result<(), String> {
        self.enable_tracing = table.enable_tracing;
        let doing = "loadTracingOptions: JaegerAgentEndpoint multiaddr";
        self.jaeger_agent_endpoint = parse_addr(doing, &table.jaeger_agent_endpoint)?;
        self.sampling_prob = table.sampling_prob;
        self.service_name = table.service_name;
        Ok(())
    }

    fn validate(&self) -> Result<(), String> {
        require(!self.enable_tracing || self.sampling_prob >= 0.0, "tracing.sampling_prob is invalid")
    }

    fn to_table(&self) -> TracingTable {
        TracingTable {
            enable_tracing: self.enable_tracing,
            jaeger_agent_endpoint: self.jaeger_agent_endpoint.to_string(),
            sampling_prob: self.sampling_prob,
            service_name: self.service_name.clone(),
        }
    }
}
