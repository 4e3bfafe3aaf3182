//! `/stats`: counters in Envoy's names, one on a line.
//!
//! Only those that tools of Envoy's world look for; `/stats/prometheus` has all.

mod clusters;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use http::StatusCode;
use regex::Regex;
use serde_json::{Value, json};

use super::AdminState;
use super::readiness::{STATE_LIVE, Unready};
use super::reply::{Query, Reply};
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

fn of_snapshot(snapshot: &Snapshot) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for cluster in snapshot.clusters.values() {
        clusters::of_cluster(cluster, &mut all);
    }
    for listener in snapshot.listeners.values() {
        let name = listener_name(listener);
        let live = &listener.live;
        for (stat, value) in [
            ("downstream_cx_total", &live.accepted),
            ("downstream_cx_active", &live.open),
            ("no_filter_chain_match", &live.unmatched),
            ("downstream_global_cx_overflow", &live.refused_in_overload),
            ("ssl.connection_error", &live.tls_failures),
        ] {
            all.insert(
                format!("listener.{name}.{stat}"),
                value.load(Ordering::Relaxed),
            );
        }
        let (accepted, open) = (
            live.accepted.load(Ordering::Relaxed),
            live.open.load(Ordering::Relaxed),
        );
        all.insert(
            format!("listener.{name}.downstream_cx_destroy"),
            accepted.saturating_sub(open),
        );
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
    if let Some(discovery) = &state.discovery
        && state.bootstrap.discovery.has_services()
    {
        let is_connected = u64::from(discovery.is_connected());
        all.insert("control_plane.connected_state".into(), is_connected);
    }
    let unready = state.readiness.unready();
    let snapshot = state.data_plane.snapshot();
    let listeners = snapshot.listeners.values();
    let open = listeners.map(|listener| listener.live.open.load(Ordering::Relaxed));
    for (name, value) in [
        ("live", u64::from(unready.is_none())),
        ("state", unready.map_or(STATE_LIVE, Unready::number)),
        ("uptime", uptime.as_secs()),
        ("hot_restart_epoch", state.epoch.number.into()),
        ("memory_allocated", usage.anonymous_bytes),
        ("memory_heap_size", usage.virtual_bytes),
        ("memory_physical_size", usage.resident_bytes),
        ("total_connections", open.sum()),
    ] {
        all.insert(format!("server.{name}"), value);
    }
}
