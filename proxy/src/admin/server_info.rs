//! `/server_info`, `/init_dump` and `/memory`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use weft_proto::json::to_json;

use super::AdminState;
use super::reply::Reply;
use crate::telemetry::process::Usage;

/// Version, state, uptime and node.
pub fn server_info(state: &AdminState) -> Reply {
    let now = SystemTime::now();
    let uptime = now.duration_since(state.started).unwrap_or_default();
    let first = UNIX_EPOCH + Duration::from_secs(state.epoch.first_started);
    let since_first = now.duration_since(first).unwrap_or_default();
    Reply::json(&json!({
        "version": concat!("weft/", env!("CARGO_PKG_VERSION")),
        "state": state.readiness.unready().map_or("LIVE", |reason| reason.state()),
        "hot_restart_version": crate::handover::VERSION,
        "uptime_current_epoch": format!("{}s", uptime.as_secs()),
        "uptime_all_epochs": format!("{}s", since_first.as_secs()),
        "command_line_options": {"restart_epoch": state.epoch.number},
        "node": to_json(&state.bootstrap.node).unwrap_or_default(),
        "snapshot_version": state.data_plane.snapshot().version,
    }))
}

/// What is waited for before the proxy is ready; nothing where it is.
pub fn init_dump(state: &AdminState) -> Reply {
    Reply::json(&match state.readiness.unready() {
        None => json!({}),
        Some(reason) => json!({"unready_targets_dumps": [
            {"name": "init manager Server", "target_names": [reason.to_string()]},
        ]}),
    })
}

/// In Envoy's words, from the kernel: what is allocated is what is resident and the process's own.
pub fn memory() -> Reply {
    let usage = Usage::read();
    let text = |bytes: u64| bytes.to_string();
    Reply::json(&json!({
        "allocated": text(usage.anonymous_bytes),
        "heap_size": text(usage.virtual_bytes),
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": text(usage.resident_bytes),
    }))
}
