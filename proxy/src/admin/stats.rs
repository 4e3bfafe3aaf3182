//! `/stats`: counters in Envoy's names, one on a line.
//!
//! Only those that tools of Envoy's world look for; `/stats/prometheus` has all.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use http::StatusCode;
use regex::Regex;
use serde_json::{Value, json};

use super::AdminState;
use super::reply::{Query, Reply};
use crate::cluster::Cluster;
use crate::cluster::breaker::Gauge;
use crate::snapshot::Snapshot;
use crate::snapshot::listener::Listener;
use crate::telemetry::exposition::CONTENT_TYPE;
use crate::telemetry::process::Usage;

/// All counters, or those whose name matches `filter`; with `usedonly` only those that are not zero; with
/// `format=json` as JSON, with `format=prometheus` as `/stats/prometheus`.
pub fn stats(state: &AdminState, query: &Query) -> Reply {
    if query.value("format") == Some("prometheus") {
        return Reply::of_type(CONTENT_TYPE, state.registry.render());
    }
    let filter = match query.value("filter").map(Regex::new).transpose() {
        Ok(filter) => filter,
        Err(error) => return Reply::text(StatusCode::BAD_REQUEST, format!("filter: {error}\n")),
    };
    let mut all = of_snapshot(&state.data_plane.snapshot());
    of_server(state, &mut all);
    let filters = state.data_plane.environment().counters.read();
    all.extend(
        filters
            .into_iter()
            .map(|(name, value)| (name.to_string(), value)),
    );
    if let Some(filter) = filter {
        all.retain(|name, _| filter.is_match(name));
    }
    if query.has("usedonly") {
        all.retain(|_, value| *value > 0);
    }
    match query.value("format") {
        Some("json") => Reply::json(&as_json(&all)),
        _ => Reply::ok(as_text(&all)),
    }
}

fn as_text(stats: &BTreeMap<String, u64>) -> String {
    let lines = stats
        .iter()
        .map(|(name, value)| format!("{name}: {value}\n"));
    lines.collect()
}

fn as_json(stats: &BTreeMap<String, u64>) -> Value {
    let all: Vec<_> = stats
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    json!({"stats": all})
}

/// Ours in Envoy's words.
fn envoy_name(counter: &str) -> &str {
    match counter {
        "requests" => "upstream_rq_total",
        "retries" => "upstream_rq_retry",
        "retries_refused" => "upstream_rq_retry_overflow",
        "retries_succeeded" => "upstream_rq_retry_success",
        "connections" => "upstream_cx_total",
        "connect_failures" => "upstream_cx_connect_fail",
        "connect_timeouts" => "upstream_cx_connect_timeout",
        "tls_failures" => "ssl.connection_error",
        "timeouts" => "upstream_rq_per_try_timeout",
        "ejections" => "outlier_detection.ejections_enforced_total",
        "ejections_refused" => "outlier_detection.ejections_overflow",
        other => other,
    }
}

fn of_snapshot(snapshot: &Snapshot) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (name, cluster) in &snapshot.clusters {
        let prefix = format!("cluster.{name}");
        for (counter, value) in cluster.stats.all() {
            all.insert(format!("{prefix}.{}", envoy_name(counter)), value);
        }
        all.insert(format!("{prefix}.upstream_rq_total"), tries(cluster));
        let counts = cluster.breakers.counts();
        for (gauge, stat) in [
            (Gauge::Connections, "upstream_cx_active"),
            (Gauge::Pending, "upstream_rq_pending_active"),
            (Gauge::Requests, "upstream_rq_active"),
        ] {
            all.insert(format!("{prefix}.{stat}"), counts.current(gauge).into());
        }
        for (gauge, stat) in [
            (Gauge::Connections, "upstream_cx_overflow"),
            (Gauge::Pending, "upstream_rq_pending_overflow"),
        ] {
            all.insert(format!("{prefix}.{stat}"), counts.overflows(gauge));
        }
        let total = cluster.endpoints().count() as u64;
        all.insert(format!("{prefix}.membership_total"), total);
    }
    for listener in snapshot.listeners.values() {
        let name = listener_name(listener);
        let live = &listener.live;
        for (stat, value) in [
            ("downstream_cx_total", &live.accepted),
            ("downstream_cx_active", &live.open),
            ("no_filter_chain_match", &live.unmatched),
            ("ssl.connection_error", &live.tls_failures),
        ] {
            all.insert(
                format!("listener.{name}.{stat}"),
                value.load(Ordering::Relaxed),
            );
        }
    }
    all.insert(
        "cluster_manager.active_clusters".into(),
        snapshot.clusters.len() as u64,
    );
    all.insert(
        "listener_manager.total_listeners_active".into(),
        snapshot.listeners.len() as u64,
    );
    all
}

/// Envoy counts each try that has found a connection.
fn tries(cluster: &Cluster) -> u64 {
    cluster.stats.tries.load(Ordering::Relaxed)
}

/// As Envoy calls a listener in its counters: by its first address, `0.0.0.0_15001`.
fn listener_name(listener: &Listener) -> String {
    match listener.config.addresses.first() {
        Some(address) => address.to_string().replace(':', "_"),
        None => listener.config.name.to_string(),
    }
}

fn of_server(state: &AdminState, all: &mut BTreeMap<String, u64>) {
    let uptime = SystemTime::now()
        .duration_since(state.started)
        .unwrap_or_default();
    let usage = Usage::read();
    let is_live = u64::from(state.readiness.unready().is_none());
    all.insert("server.live".into(), is_live);
    all.insert("server.uptime".into(), uptime.as_secs());
    let epoch = u64::from(state.epoch.number);
    all.insert("server.hot_restart_epoch".into(), epoch);
    all.insert("server.memory_allocated".into(), usage.anonymous_bytes);
    all.insert("server.memory_physical_size".into(), usage.resident_bytes);
}
