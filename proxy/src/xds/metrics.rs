//! What the conversation with the control plane is counted by.

use std::sync::Arc;

use super::kind::Kind;
use crate::telemetry::registry::{Family, Registry};
use crate::telemetry::value::{Counter, Gauge};

/// Metrics of the client.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// How many streams are open.
    connected: Arc<Gauge>,
    /// Streams opened, and failures to.
    pub connects: Arc<Family<Counter>>,
    /// Responses, by kind and result.
    responses: Arc<Family<Counter>>,
    refused_resources: Arc<Family<Counter>>,
    resources: Arc<Family<Gauge>>,
    /// Resources that wait for others.
    pub waiting: Arc<Gauge>,
    /// Configurations put in force.
    pub updates: Arc<Counter>,
    /// Failures to keep the last good configuration on disk.
    pub store_failures: Arc<Counter>,
}

impl Metrics {
    /// Adds them to the registry.
    pub fn register(registry: &Registry) -> Self {
        Self {
            connected: registry
                .gauge("weft_xds_connected", "How many streams to the control plane are open."),
            connects: registry.counters(
                "weft_xds_connects_total",
                "Attempts to open a stream to the control plane, by result.",
                &["result"],
            ),
            responses: registry.counters(
                "weft_xds_responses_total",
                "Responses of the control plane, by kind and whether all of their resources were accepted.",
                &["kind", "result"],
            ),
            refused_resources: registry.counters(
                "weft_xds_refused_resources_total",
                "Resources that were refused, by kind.",
                &["kind"],
            ),
            resources: registry.gauges(
                "weft_xds_resources",
                "Resources in force, by kind.",
                &["kind"],
            ),
            waiting: registry.gauge(
                "weft_xds_waiting_resources",
                "Resources that wait for others before they are put in force.",
            ),
            updates: registry
                .counter("weft_xds_updates_total", "Configurations that were put in force."),
            store_failures: registry.counter(
                "weft_xds_store_failures_total",
                "Failures to keep the last good configuration on disk.",
            ),
        }
    }

    /// A stream is open until this is dropped.
    pub fn stream(&self) -> OpenStream {
        self.connected.add(1);
        OpenStream(Arc::clone(&self.connected))
    }

    /// Whether a stream is open.
    pub fn is_connected(&self) -> bool {
        self.connected.value() > 0
    }

    /// A response was answered; so many of its resources were refused.
    pub fn response(&self, kind: &str, refused: usize) {
        let result = if refused == 0 { "accepted" } else { "refused" };
        self.responses.with(&[kind, result]).increment();
        if refused > 0 {
            self.refused_resources.with(&[kind]).add(refused as u64);
        }
    }

    /// So many of a kind are in force.
    pub fn in_force(&self, kind: Kind, count: usize) {
        self.resources
            .with(&[kind.word()])
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// Counts a stream that is open.
#[derive(Debug)]
pub struct OpenStream(Arc<Gauge>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}
