//! `/server_info` and `/memory`.

use std::time::SystemTime;

use serde_json::json;
use weft_proto::json::to_json;

use super::AdminState;
use super::reply::Reply;
use crate::telemetry::process::Usage;

/// Version, state, uptime and node.
pub fn server_info(state: &AdminState) -> Reply {
    let uptime = SystemTime::now()
        .duration_since(state.started)
        .unwrap_or_default()
        .as_secs();
    Reply::json(&json!({
        "version": concat!("weft/", env!("CARGO_PKG_VERSION")),
        "state": state.readiness.unready().map_or("LIVE", |reason| reason.state()),
        "hot_restart_version": "disabled",
        "uptime_current_epoch": format!("{uptime}s"),
        "uptime_all_epochs": format!("{uptime}s"),
        "node": to_json(&state.bootstrap.node).unwrap_or_default(),
        "snapshot_version": state.data_plane.snapshot().version,
    }))
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
