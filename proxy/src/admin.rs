//! The proxy's own HTTP: the admin interface in Envoy's words, health, and metrics.
//!
//! Each on ports of its own: admin on loopback for people and tools inside the pod, health for the launcher's
//! probe, metrics for Prometheus. None of them is on the request path.

pub mod certs;
pub mod cluster_metrics;
pub mod clusters;
pub mod config_dump;
pub mod listeners;
pub mod logging;
pub mod mask;
pub mod readiness;
pub mod reply;
pub mod runtime;
pub mod server;
pub mod server_info;
pub mod stats;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use http::{Method, StatusCode};
use tokio_util::sync::CancellationToken;

use self::readiness::Readiness;
use self::reply::{Query, Reply};
use self::stats::baseline::Baseline;
use crate::app::LogControl;
use crate::bootstrap::Bootstrap;
use crate::handover::Epoch;
use crate::identity::CredentialsReceiver;
use crate::telemetry::recorder::Recorder;
use crate::telemetry::registry::Registry;
use crate::workers::DataPlane;
use crate::xds::cache::SharedCache;
use crate::xds::metrics::Metrics;
use crate::xds::state::State;

/// What the admin interface shows and changes.
pub struct AdminState {
    /// What the proxy was started with.
    pub bootstrap: Bootstrap,
    /// What the control plane has sent.
    pub cache: SharedCache,
    /// What is in force, where that may change.
    pub configuration: Option<Arc<State>>,
    /// How the conversation with control planes goes; none where there is none.
    pub discovery: Option<Metrics>,
    /// All metrics.
    pub registry: Arc<Registry>,
    /// What was served: what is counted, logged and traced of it.
    pub recorder: Arc<Recorder>,
    /// What is served.
    pub data_plane: Arc<DataPlane>,
    /// Who the proxy is; none where it has no identity.
    pub credentials: Option<CredentialsReceiver>,
    /// Whether it can be sent traffic.
    pub readiness: Arc<Readiness>,
    /// The level of the log.
    pub log: LogControl,
    /// When it began.
    pub started: SystemTime,
    /// How often the proxy has been replaced before.
    pub epoch: Epoch,
    /// What had been counted when counters last began anew.
    pub baseline: Baseline,
    /// Gives memory that was freed back to the system.
    pub release_memory: fn(),
    /// Ends the proxy.
    pub quit: CancellationToken,
}

/// A path and what it does, for `/help`.
const HELP: [(&str, &str); 21] = [
    (
        "/certs",
        "certificates and authorities: the workload's, and those of the configuration's own",
    ),
    (
        "/clusters",
        "clusters and their endpoints; ?filter=REGEX, ?format=json",
    ),
    (
        "/config_dump",
        "all configuration with versions and errors; ?include_eds, ?resource=NAME, ?name_regex=REGEX, ?mask=PATHS",
    ),
    (
        "/drain_listeners",
        "accept nothing more and let connections finish (POST)",
    ),
    (
        "/healthcheck/fail",
        "be unready, and end connections with their next response, until /healthcheck/ok (POST)",
    ),
    ("/healthcheck/ok", "end /healthcheck/fail (POST)"),
    ("/help", "this list"),
    (
        "/hot_restart_version",
        "which proxies may replace this one, and be replaced by it",
    ),
    ("/init_dump", "what the proxy waits for before it is ready"),
    (
        "/listeners",
        "listeners with their addresses; ?format=json also what they detected",
    ),
    (
        "/logging",
        "the level of the log; ?level=LEVEL or ?paths=TARGET:LEVEL,… changes it (POST)",
    ),
    ("/memory", "what the kernel says of the process's memory"),
    ("/quitquitquit", "drain and exit (POST)"),
    ("/ready", "200 once the proxy can be sent traffic"),
    (
        "/reopen_logs",
        "open the files of access logs anew, after they were moved away (POST)",
    ),
    (
        "/reset_counters",
        "counters begin anew for who looks at them here; gauges do not (POST)",
    ),
    ("/runtime", "what runtime keys stand for, by layer"),
    (
        "/runtime_modify",
        "sets keys in the admin layer, or takes them out where they are empty; ?KEY=VALUE&… (POST)",
    ),
    ("/server_info", "version, state, uptime, node"),
    (
        "/stats",
        "counters of clusters, listeners and the server in Envoy's names; ?filter=REGEX, ?type=Counters|Gauges, ?usedonly, ?format=json",
    ),
    (
        "/stats/prometheus",
        "all metrics in Prometheus's text format; ?filter=REGEX, ?usedonly",
    ),
];

/// Adds metrics of what is served to the registry. They end with the data plane.
pub fn register_metrics(state: &Arc<AdminState>) {
    let data_plane: Weak<DataPlane> = Arc::downgrade(&state.data_plane);
    let in_envoys_names = Arc::downgrade(state);
    state.registry.collector("envoy", move |exposition| {
        if let Some(state) = in_envoys_names.upgrade() {
            stats::prometheus::collect(&state, exposition);
        }
    });
    state.registry.collector("weft_cluster", move |exposition| {
        if let Some(data_plane) = data_plane.upgrade() {
            cluster_metrics::collect(&data_plane.snapshot(), exposition);
        }
    });
}

/// Answers a request to the admin port.
pub async fn admin(state: &AdminState, method: &Method, path: &str, query: &Query) -> Reply {
    let is_change = matches!(
        path,
        "/drain_listeners"
            | "/healthcheck/fail"
            | "/healthcheck/ok"
            | "/quitquitquit"
            | "/reopen_logs"
            | "/reset_counters"
            | "/runtime_modify"
    ) || path == "/logging" && !query.is_empty();
    if is_change && method != Method::POST {
        return Reply::text(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("use POST for {path}\n"),
        );
    }
    match path {
        "/" | "/help" => Reply::ok(help()),
        "/certs" => certs::certs(state.credentials.as_ref(), &state.data_plane.snapshot()),
        "/clusters" => clusters::clusters(&state.data_plane.snapshot(), &state.bootstrap, query),
        "/config_dump" => {
            let reply = config_dump::config_dump(state, query);
            // The descriptors behind it are many times larger than the rest of an idle proxy.
            (state.release_memory)();
            reply
        }
        "/init_dump" => server_info::init_dump(state),
        "/listeners" => listeners::listeners(&state.data_plane, query).await,
        "/logging" => logging::logging(&state.log, query),
        "/memory" => server_info::memory(),
        "/ready" => health(state),
        "/hot_restart_version" => Reply::ok(format!("{}\n", crate::handover::VERSION)),
        "/reopen_logs" => reopen_logs(state),
        "/reset_counters" => stats::reset_counters(state),
        "/runtime" => runtime::runtime(state.cache.read().runtime()),
        "/runtime_modify" => runtime::modify(state.configuration.as_deref(), query),
        "/server_info" => server_info::server_info(state),
        "/stats" => stats::stats(state, query),
        "/stats/prometheus" | "/metrics" => stats::metrics(state, query),
        "/drain_listeners" => {
            state.readiness.drain();
            state.data_plane.environment().drain.start();
            Reply::ok("OK\n")
        }
        "/healthcheck/fail" => {
            state.readiness.fail();
            set_failed(state, true);
            Reply::ok("OK\n")
        }
        "/healthcheck/ok" => {
            state.readiness.heal();
            set_failed(state, false);
            Reply::ok("OK\n")
        }
        "/quitquitquit" => {
            state.quit.cancel();
            Reply::ok("OK\n")
        }
        _ => Reply::text(
            StatusCode::NOT_FOUND,
            format!("no such path: {path}\n\n{}", help()),
        ),
    }
}

fn reopen_logs(state: &AdminState) -> Reply {
    match state.recorder.reopen_logs() {
        true => Reply::ok("OK\n"),
        false => Reply::text(
            StatusCode::SERVICE_UNAVAILABLE,
            "an access log has too many lines to write; try again\n",
        ),
    }
}

/// Clients are told, or no longer told, that their connections end.
fn set_failed(state: &AdminState, is_failed: bool) {
    let environment = state.data_plane.environment();
    environment.is_failed.store(is_failed, Ordering::Relaxed);
}

/// Answers a request to the health port.
pub fn health_port(state: &AdminState, path: &str) -> Reply {
    match path {
        "/healthz/ready" | "/ready" => health(state),
        _ => Reply::text(StatusCode::NOT_FOUND, "try /healthz/ready\n"),
    }
}

/// Answers a request to the metrics port.
pub fn metrics_port(state: &AdminState, path: &str) -> Reply {
    match path {
        "/metrics" | "/stats/prometheus" => stats::metrics(state, &Query::default()),
        _ => Reply::text(StatusCode::NOT_FOUND, "try /metrics\n"),
    }
}

fn health(state: &AdminState) -> Reply {
    match state.readiness.unready() {
        None => Reply::ok("LIVE\n"),
        Some(reason) => Reply::text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{}: {reason}\n", reason.state()),
        ),
    }
}

fn help() -> String {
    let lines = HELP
        .iter()
        .map(|(path, what)| format!("  {path}: {what}\n"));
    std::iter::once("admin commands are:\n".to_owned())
        .chain(lines)
        .collect()
}
