//! `/stats` of the process and of its configuration.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::{Scope, Told};
use crate::admin::AdminState;
use crate::admin::certs::days_left;
use crate::admin::readiness::{STATE_LIVE, Unready};
use crate::snapshot::Snapshot;
use crate::telemetry::process::Usage;
use crate::upstream::environment::Environment;

/// What cannot happen here: the parser refuses fields that it does not know, and there are no assertions that only count, no
/// watchdogs, no sinks, no merged updates, no warming apart from the whole configuration, and no draining of a part of it.
const NEVER: [&str; 25] = [
    "cluster_manager.cluster_updated_via_merge",
    "cluster_manager.update_merge_cancelled",
    "cluster_manager.update_out_of_merge_window",
    "cluster_manager.warming_clusters",
    "listener_manager.listener_in_place_updated",
    "listener_manager.listener_stopped",
    "listener_manager.total_filter_chains_draining",
    "listener_manager.total_listeners_warming",
    "listener_manager.workers_pinned",
    "server.compilation_settings.fips_mode",
    "server.debug_assertion_failures",
    "server.dropped_stat_flushes",
    "server.dynamic_unknown_fields",
    "server.envoy_bug_failures",
    "server.envoy_notifications",
    "server.main_thread.watchdog_mega_miss",
    "server.main_thread.watchdog_miss",
    "server.parent_connections",
    "server.seconds_until_first_ocsp_response_expiring",
    "server.static_unknown_fields",
    "server.stats_recent_lookups",
    "server.wip_protos",
    "http1.metadata_not_supported_error",
    "http1.response_flood",
    "envoy.overload_actions.reset_high_memory_stream.count",
];

/// What has become of configurations.
pub(super) fn of_configuration(snapshot: &Snapshot, environment: &Environment, told: &mut Told) {
    let (clusters, listeners) = (snapshot.clusters.len(), snapshot.listeners.len());
    let changes = &environment.changes;
    let counted = [
        ("cluster_manager.cluster_added", &changes.clusters.added),
        (
            "cluster_manager.cluster_modified",
            &changes.clusters.modified,
        ),
        ("cluster_manager.cluster_removed", &changes.clusters.removed),
        (
            "cluster_manager.cluster_updated",
            &changes.clusters.refreshed,
        ),
        ("listener_manager.listener_added", &changes.listeners.added),
        (
            "listener_manager.listener_modified",
            &changes.listeners.modified,
        ),
        (
            "listener_manager.listener_removed",
            &changes.listeners.removed,
        ),
        ("listener_manager.listener_create_success", &changes.bound),
        (
            "listener_manager.listener_create_failure",
            &changes.not_bound,
        ),
    ];
    let counted = counted.map(|(name, value)| (name, value.load(Ordering::Relaxed)));
    told.add_all(&Scope::Process, counted);
    told.add_all(
        &Scope::Process,
        [
            ("cluster_manager.active_clusters", clusters as u64),
            ("listener_manager.total_listeners_active", listeners as u64),
            ("listener_manager.workers_started", 1),
        ],
    );
    told.add_all(&Scope::Process, NEVER.map(|name| (name, 0)));
}

/// What the process is, and what it uses.
pub(super) fn of_process(state: &AdminState, told: &mut Told) {
    let uptime = SystemTime::now()
        .duration_since(state.started)
        .unwrap_or_default();
    let usage = Usage::read();
    let mut add = |name: String, value: u64| told.add_all(&Scope::Process, [(name, value)]);
    if let Some(discovery) = &state.discovery
        && state.bootstrap.discovery.has_services()
    {
        let is_connected = u64::from(discovery.is_connected());
        add("control_plane.connected_state".into(), is_connected);
    }
    let unready = state.readiness.unready();
    let snapshot = state.data_plane.snapshot();
    let listeners = snapshot.listeners.values();
    let open = listeners.map(|listener| listener.live.open.load(Ordering::Relaxed));
    for (name, value) in [
        ("live", u64::from(unready.is_none())),
        ("state", unready.map_or(STATE_LIVE, Unready::number)),
        ("uptime", uptime.as_secs()),
        ("concurrency", state.data_plane.workers() as u64),
        (
            "days_until_first_cert_expiring",
            days_left(state.credentials.as_ref()),
        ),
        ("hot_restart_epoch", state.epoch.number.into()),
        ("memory_allocated", usage.anonymous_bytes),
        ("memory_heap_size", usage.virtual_bytes),
        ("memory_physical_size", usage.resident_bytes),
        ("total_connections", open.sum()),
    ] {
        add(format!("server.{name}"), value);
    }
}
