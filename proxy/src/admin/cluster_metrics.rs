//! Metrics of clusters, endpoints and listeners, read off the snapshot at scrape time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::cluster::Cluster;
use crate::cluster::breaker::Gauge;
use crate::cluster::endpoint::Endpoint;
use crate::config::endpoints::EndpointHealth;
use crate::snapshot::Snapshot;
use crate::snapshot::listener::{Listener, Verdict};
use crate::telemetry::exposition::{Exposition, Kind};
use crate::telemetry::registry::DEFAULT_SERIES_CAP;
use crate::telemetry::series::OVERFLOW;

/// Counters of a cluster: as it calls them, their metric, and what they count.
const CLUSTER_COUNTERS: [(&str, &str, &str); 13] = [
    (
        "requests",
        "weft_cluster_requests_total",
        "Requests sent on, each once.",
    ),
    (
        "retries",
        "weft_cluster_retries_total",
        "Tries after the first.",
    ),
    (
        "retries_refused",
        "weft_cluster_retries_refused_total",
        "Retries that the budget did not allow.",
    ),
    (
        "retries_succeeded",
        "weft_cluster_retries_succeeded_total",
        "Retries that ended well.",
    ),
    (
        "connections",
        "weft_cluster_connections_total",
        "Connections made.",
    ),
    (
        "connect_failures",
        "weft_cluster_connect_failures_total",
        "Connections that could not be made.",
    ),
    (
        "connect_timeouts",
        "weft_cluster_connect_timeouts_total",
        "Connections that took too long to make.",
    ),
    (
        "tls_failures",
        "weft_cluster_tls_failures_total",
        "TLS handshakes with endpoints that failed.",
    ),
    (
        "connections_reused",
        "weft_cluster_connections_reused_total",
        "Requests that found a connection to reuse.",
    ),
    (
        "connections_stale",
        "weft_cluster_connections_stale_total",
        "Requests that met a connection just closed, and were sent on a fresh one.",
    ),
    (
        "timeouts",
        "weft_cluster_request_timeouts_total",
        "Tries that took too long.",
    ),
    (
        "ejections",
        "weft_cluster_ejections_total",
        "Endpoints ejected by outlier detection.",
    ),
    (
        "ejections_refused",
        "weft_cluster_ejections_refused_total",
        "Endpoints that were not ejected because too many were already.",
    ),
];

/// What circuit breakers count, with its label.
const LIMITS: [(Gauge, &str); 4] = [
    (Gauge::Connections, "connections"),
    (Gauge::Pending, "pending_requests"),
    (Gauge::Requests, "requests"),
    (Gauge::Retries, "retries"),
];

/// Writes all of them, in order of names.
pub fn collect(snapshot: &Snapshot, exposition: &mut Exposition) {
    let clusters: BTreeMap<_, _> = snapshot.clusters.iter().take(DEFAULT_SERIES_CAP).collect();
    let listeners: BTreeMap<_, _> = snapshot.listeners.iter().take(DEFAULT_SERIES_CAP).collect();
    breakers(&clusters, exposition);
    cluster_counters(&clusters, exposition);
    endpoints(&clusters, exposition);
    listener_metrics(&listeners, exposition);
    exposition.family(
        "weft_snapshot_version",
        "Counts configurations that were served.",
        Kind::Gauge,
    );
    exposition.sample("weft_snapshot_version", &[], snapshot.version);
}

/// A metric: its name, what it says, its kind, and its value.
type Family<T> = (&'static str, &'static str, Kind, fn(&T) -> u64);

type Clusters<'a> = BTreeMap<&'a Arc<str>, &'a Arc<Cluster>>;

fn breakers(clusters: &Clusters<'_>, exposition: &mut Exposition) {
    let name = "weft_cluster_breaker_active";
    if clusters.is_empty() {
        return;
    }
    exposition.family(name, "What is in flight, by circuit breaker.", Kind::Gauge);
    for (cluster, limit, gauge) in each_limit(clusters) {
        let current = cluster.breakers.counts().current(gauge);
        exposition.sample(
            name,
            &[("cluster", cluster.name()), ("limit", limit)],
            current,
        );
    }
    let name = "weft_cluster_breaker_overflows_total";
    exposition.family(
        name,
        "How often a circuit breaker has refused.",
        Kind::Counter,
    );
    for (cluster, limit, gauge) in each_limit(clusters) {
        let refused = cluster.breakers.counts().overflows(gauge);
        exposition.sample(
            name,
            &[("cluster", cluster.name()), ("limit", limit)],
            refused,
        );
    }
}

fn each_limit<'a>(
    clusters: &'a Clusters<'_>,
) -> impl Iterator<Item = (&'a Arc<Cluster>, &'static str, Gauge)> {
    clusters.values().flat_map(|cluster| {
        LIMITS
            .into_iter()
            .map(move |(gauge, limit)| (*cluster, limit, gauge))
    })
}

fn cluster_counters(clusters: &Clusters<'_>, exposition: &mut Exposition) {
    if clusters.is_empty() {
        return;
    }
    for (counter, name, help) in CLUSTER_COUNTERS {
        exposition.family(name, help, Kind::Counter);
        for cluster in clusters.values() {
            let value = cluster
                .stats
                .all()
                .into_iter()
                .find(|(each, _)| *each == counter);
            let value = value.map_or(0, |(_, value)| value);
            exposition.sample(name, &[("cluster", cluster.name())], value);
        }
    }
}

/// Endpoints by state, and the traffic of each: past the cap of series, of all others together.
fn endpoints(clusters: &Clusters<'_>, exposition: &mut Exposition) {
    let now = Instant::now();
    let all: Vec<(&Arc<str>, Arc<Endpoint>)> = clusters
        .values()
        .flat_map(|cluster| {
            cluster
                .endpoints()
                .map(move |endpoint| (cluster.name(), endpoint))
        })
        .collect();
    if all.is_empty() {
        return;
    }
    let mut states: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (cluster, endpoint) in &all {
        *states.entry((cluster, state(endpoint, now))).or_default() += 1;
    }
    let name = "weft_cluster_endpoints";
    exposition.family(name, "Endpoints, by what is known of them.", Kind::Gauge);
    for ((cluster, state), count) in states {
        exposition.sample(name, &[("cluster", cluster), ("state", state)], count);
    }
    let (shown, others) = all.split_at(all.len().min(DEFAULT_SERIES_CAP));
    let families: [Family<Endpoint>; 3] = [
        (
            "weft_endpoint_failures_total",
            "Requests that an endpoint failed.",
            Kind::Counter,
            |endpoint| endpoint.state.failures(),
        ),
        (
            "weft_endpoint_requests_active",
            "Requests in flight at an endpoint.",
            Kind::Gauge,
            |endpoint| endpoint.state.active().into(),
        ),
        (
            "weft_endpoint_requests_total",
            "Requests sent to an endpoint.",
            Kind::Counter,
            |endpoint| endpoint.state.requests(),
        ),
    ];
    for (name, help, kind, value) in families {
        exposition.family(name, help, kind);
        for (cluster, endpoint) in shown {
            let address = endpoint.address.to_string();
            let labels = [("cluster", &***cluster), ("endpoint", &*address)];
            exposition.sample(name, &labels, value(endpoint));
        }
        if !others.is_empty() {
            let sum: u64 = others.iter().map(|(_, endpoint)| value(endpoint)).sum();
            exposition.sample(name, &[("cluster", OVERFLOW), ("endpoint", OVERFLOW)], sum);
        }
    }
}

fn state(endpoint: &Endpoint, now: Instant) -> &'static str {
    if endpoint.state.outlier.is_ejected(now) {
        return "ejected";
    }
    match endpoint.health {
        EndpointHealth::Healthy => "healthy",
        EndpointHealth::Degraded => "degraded",
        EndpointHealth::Unhealthy => "unhealthy",
        EndpointHealth::Draining => "draining",
    }
}

fn listener_metrics(listeners: &BTreeMap<&Arc<str>, &Arc<Listener>>, exposition: &mut Exposition) {
    if listeners.is_empty() {
        return;
    }
    let families: [Family<Listener>; 11] = [
        (
            "weft_listener_connections_total",
            "Connections accepted.",
            Kind::Counter,
            |listener| listener.live.accepted.load(Ordering::Relaxed),
        ),
        (
            "weft_listener_local_channels_total",
            "Connections accepted from sidecars of the same machine without TCP and TLS.",
            Kind::Counter,
            |listener| listener.live.local_channels.load(Ordering::Relaxed),
        ),
        (
            "weft_listener_streams_total",
            "Connections accepted as streams of one that a sidecar shares.",
            Kind::Counter,
            |listener| listener.live.streams.load(Ordering::Relaxed),
        ),
        (
            "weft_listener_connections_active",
            "Connections open.",
            Kind::Gauge,
            |listener| listener.live.open.load(Ordering::Relaxed),
        ),
        (
            "weft_listener_unmatched_total",
            "Connections that no filter chain was for.",
            Kind::Counter,
            |listener| listener.live.unmatched.load(Ordering::Relaxed),
        ),
        (
            "weft_listener_plaintext_refused_total",
            "Connections in the clear where only mTLS is served.",
            Kind::Counter,
            |listener| listener.live.plaintext_refused.load(Ordering::Relaxed),
        ),
        (
            "weft_listener_tls_failures_total",
            "TLS handshakes with clients that failed.",
            Kind::Counter,
            |listener| listener.live.tls_failures.load(Ordering::Relaxed),
        ),
        (
            "weft_listener_loops_refused_total",
            "Connections that would have gone in a circle.",
            Kind::Counter,
            |listener| listener.live.loops_refused.load(Ordering::Relaxed),
        ),
        (
            "weft_listener_proxy_headers_refused_total",
            "Connections whose PROXY header was missing or not valid.",
            Kind::Counter,
            |listener| listener.live.proxy_headers_refused.load(Ordering::Relaxed),
        ),
        (
            "weft_listener_dialled_ahead_total",
            "Upstream connections made before it was known what the client speaks.",
            Kind::Counter,
            |listener| listener.live.dialled_ahead.load(Ordering::Relaxed),
        ),
        (
            "weft_listener_http2_greetings_total",
            "Servers of HTTP/2 that were quicker than their clients.",
            Kind::Counter,
            |listener| listener.live.http2_greetings.load(Ordering::Relaxed),
        ),
    ];
    for (name, help, kind, value) in families {
        exposition.family(name, help, kind);
        for (listener, state) in listeners {
            exposition.sample(name, &[("listener", listener)], value(state));
        }
    }
    let name = "weft_listener_detected_total";
    let detecting = listeners
        .iter()
        .filter(|(_, listener)| listener.config.needs_detection());
    let mut detecting = detecting.peekable();
    if detecting.peek().is_none() {
        return;
    }
    exposition.family(name, "What connections turned out to be.", Kind::Counter);
    for (listener, state) in detecting {
        for verdict in Verdict::ALL {
            let labels = [("listener", &***listener), ("protocol", verdict.as_str())];
            exposition.sample(name, &labels, state.live.count_of(verdict));
        }
    }
}
