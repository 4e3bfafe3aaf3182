//! What everything on the data path is served with.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::Notify;

use super::Upstreams;
use crate::drain::Drain;
use crate::overload::Overload;
use crate::snapshot::CurrentSnapshot;
use crate::telemetry::changes::ConfigurationChanges;
use crate::telemetry::counters::Counters;
use crate::telemetry::managers::ManagerStats;
use crate::telemetry::report::ReportSink;
use crate::telemetry::tally::Tallies;
use crate::telemetry::tunnels::TcpStats;

/// One for the whole data plane, shared by all workers.
pub struct Environment {
    /// The configuration as it is served.
    pub snapshot: CurrentSnapshot,
    /// The cluster that the proxy's own node says it is of.
    pub node_cluster: Arc<str>,
    /// The way to endpoints.
    pub upstreams: Upstreams,
    /// Who is told what has happened.
    pub reports: Arc<dyn ReportSink>,
    /// The drain of the whole process.
    pub drain: Drain,
    /// Whether `/healthcheck/fail` was called: clients are to go elsewhere with what comes next.
    pub is_failed: AtomicBool,
    /// Told when clusters, or the health of their endpoints, have changed: [`keeper`](super::keeper) waits for it.
    pub changed: Arc<Notify>,
    /// What filters count.
    pub counters: Counters,
    /// What has become of configurations.
    pub changes: ConfigurationChanges,
    /// What connection managers count.
    pub managers: Tallies<ManagerStats>,
    /// What TCP proxies count.
    pub tunnels: Tallies<TcpStats>,
    /// What the proxy itself is short of.
    pub overload: Arc<Overload>,
}
