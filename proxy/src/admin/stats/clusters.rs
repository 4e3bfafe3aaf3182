//! `/stats` of clusters: what has happened in each, in Envoy's words.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::{Scope, Stat, Told};
use crate::cluster::Cluster;
use crate::cluster::breaker::{Breakers, Gauge};
use crate::cluster::endpoint::Standing;
use crate::cluster::outlier::Detector;
use crate::cluster::stats::{ClusterStats, SubsetStats};
use crate::cluster::zones::ZoneStats;
use crate::config::cluster::Discovery;

/// Adds all that is told of a cluster.
pub(super) fn of_cluster(cluster: &Cluster, all: &mut Told) {
    let config = &cluster.config;
    let name = config.stat_name.as_ref().unwrap_or(&config.name);
    let mut told = OfCluster {
        scope: Scope::Cluster(Arc::clone(name)),
        all,
    };
    told.connections(cluster);
    told.requests(cluster);
    told.responses(cluster);
    told.breaker("default", &cluster.breakers);
    told.breaker("high", &cluster.urgent_breakers);
    told.membership(cluster);
    told.health_checks(cluster);
    told.outliers(cluster);
    told.never(cluster);
}

/// There is no HTTP/3, no limit on streams of a cluster, and no
/// header of a response is dropped for its name.
const NEVER: [&str; 22] = [
    "assignment_stale",
    "assignment_timeout_received",
    "assignment_use_cached",
    "membership_excluded",
    "update_empty",
    "update_failure",
    "update_no_rebuild",
    "http1.dropped_headers_with_underscores",
    "http1.metadata_not_supported_error",
    "http1.requests_rejected_with_underscores_in_headers",
    "http1.response_flood",
    "upstream_cx_connect_with_0_rtt",
    "upstream_cx_http3_total",
    "upstream_cx_pool_overflow",
    "upstream_http3_broken",
    "upstream_queue_overloaded",
    "upstream_rq_0rtt",
    "upstream_rq_maintenance_mode",
    "upstream_rq_max_duration_reached",
    "circuit_breakers.default.cx_pool_open",
    "circuit_breakers.high.cx_pool_open",
    "warming_state",
];

/// What only subsets make happen.
const NEVER_WITHOUT_SUBSETS: [&str; 1] = ["lb_subsets_active"];

/// Where statistics of one cluster go.
struct OfCluster<'a> {
    scope: Scope,
    all: &'a mut Told,
}

impl OfCluster<'_> {
    fn tell(&mut self, name: impl Into<Cow<'static, str>>, value: u64) {
        self.all.add(Stat {
            scope: self.scope.clone(),
            name: name.into(),
            value,
        });
    }

    fn counter(&mut self, name: &'static str, value: &AtomicU64) {
        self.tell(name, value.load(Ordering::Relaxed));
    }

    fn connections(&mut self, cluster: &Cluster) {
        let (stats, counts) = (&cluster.stats, cluster.breakers.counts());
        self.counter("upstream_cx_total", &stats.connections_begun);
        self.counter("upstream_cx_http1_total", &stats.http1_connections);
        self.counter("upstream_cx_http2_total", &stats.http2_connections);
        self.counter("upstream_cx_connect_fail", &stats.connect_failures);
        self.counter("upstream_cx_connect_timeout", &stats.connect_timeouts);
        self.counter("upstream_cx_max_requests", &stats.connections_worn);
        self.counter("upstream_cx_idle_timeout", &stats.connections_idled);
        self.counter("upstream_cx_max_duration_reached", &stats.connections_aged);
        self.counter("upstream_cx_none_healthy", &stats.none_healthy);
        let given_up = &stats.connects_given_up;
        self.counter("upstream_cx_connect_attempts_exceeded", given_up);
        self.counter("ssl.connection_error", &stats.tls_failures);
        self.counter("bind_errors", &stats.bind_failures);
        self.counter("upstream_cx_protocol_error", &stats.protocol_errors);
        self.counter("upstream_cx_rx_bytes_total", &stats.bytes_read);
        self.counter("upstream_cx_tx_bytes_total", &stats.bytes_written);
        self.ends(stats);
        let active = counts.current(Gauge::Connections);
        self.tell("upstream_cx_active", active.into());
        let overflow = counts.overflows(Gauge::Connections);
        self.tell("upstream_cx_overflow", overflow);
    }

    /// Who has ended connections: whoever is not the endpoint is the proxy.
    fn ends(&mut self, stats: &ClusterStats) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (all, remote) = (
            read(&stats.connections_ended),
            read(&stats.connections_ended_by_peer),
        );
        let (in_use, in_use_remote) = (
            read(&stats.connections_ended_in_use),
            read(&stats.connections_ended_in_use_by_peer),
        );
        self.tell("upstream_cx_destroy", all);
        self.tell("upstream_cx_destroy_remote", remote);
        self.tell("upstream_cx_destroy_local", all.saturating_sub(remote));
        self.tell("upstream_cx_destroy_with_active_rq", in_use);
        self.tell("upstream_cx_destroy_remote_with_active_rq", in_use_remote);
        let local = in_use.saturating_sub(in_use_remote);
        self.tell("upstream_cx_destroy_local_with_active_rq", local);
    }

    fn requests(&mut self, cluster: &Cluster) {
        let (stats, counts) = (&cluster.stats, cluster.breakers.counts());
        // As Envoy does: each try that has found a connection.
        self.counter("upstream_rq_total", &stats.tries);
        self.counter("upstream_rq_retry", &stats.retries);
        self.counter("upstream_rq_retry_overflow", &stats.retries_refused);
        self.counter("upstream_rq_retry_success", &stats.retries_succeeded);
        let beyond = &stats.retries_beyond;
        self.counter("upstream_rq_retry_limit_exceeded", beyond);
        let (own, asked) = (&stats.waits_of_policy, &stats.waits_of_upstream);
        self.counter("upstream_rq_retry_backoff_exponential", own);
        self.counter("upstream_rq_retry_backoff_ratelimited", asked);
        let (followed, not) = (&stats.redirects_followed, &stats.redirects_not_followed);
        self.counter("upstream_internal_redirect_succeeded_total", followed);
        self.counter("upstream_internal_redirect_failed_total", not);
        self.counter("upstream_rq_rx_reset", &stats.resets);
        self.counter("upstream_rq_per_try_idle_timeout", &stats.idle_tries);
        self.counter("upstream_rq_per_try_timeout", &stats.timeouts);
        self.counter("upstream_rq_timeout", &stats.request_timeouts);
        self.counter("upstream_rq_pending_total", &stats.pending);
        let pending = counts.current(Gauge::Pending);
        self.tell("upstream_rq_pending_active", pending.into());
        let active = counts.current(Gauge::Requests);
        self.tell("upstream_rq_active", active.into());
        let urgent = cluster.urgent_breakers.counts();
        for (gauge, name) in [
            (Gauge::Pending, "upstream_rq_pending_overflow"),
            (Gauge::Requests, "upstream_rq_active_overflow"),
        ] {
            self.tell(name, counts.overflows(gauge) + urgent.overflows(gauge));
        }
    }

    /// By status, by class, and all of them.
    fn responses(&mut self, cluster: &Cluster) {
        let mut classes = [0; 6];
        for (status, count) in cluster.stats.responses.read() {
            classes[usize::from(status / 100 - 1)] += count;
            if status < 600 {
                self.tell(format!("upstream_rq_{status}"), count);
            }
        }
        let known = (1..=5).zip(classes);
        for (class, count) in known.filter(|(_, count)| *count > 0) {
            self.tell(format!("upstream_rq_{class}xx"), count);
        }
        self.tell("upstream_rq_completed", classes.iter().sum());
    }

    fn breaker(&mut self, priority: &str, breakers: &Breakers) {
        for (gauge, open, remaining) in [
            (Gauge::Connections, "cx_open", "remaining_cx"),
            (Gauge::Pending, "rq_pending_open", "remaining_pending"),
            (Gauge::Requests, "rq_open", "remaining_rq"),
            (Gauge::Retries, "rq_retry_open", "remaining_retries"),
        ] {
            let left = breakers.remaining(gauge);
            let prefix = format!("circuit_breakers.{priority}");
            self.tell(format!("{prefix}.{open}"), u64::from(left == 0));
            if breakers.limits().tracks_remaining {
                self.tell(format!("{prefix}.{remaining}"), left.into());
            }
        }
    }

    fn membership(&mut self, cluster: &Cluster) {
        let now = Instant::now();
        let (mut total, mut healthy, mut degraded) = (0, 0, 0);
        let mut heaviest = 0;
        for endpoint in cluster.endpoints() {
            total += 1;
            // Original destinations have none.
            if cluster.config.discovery != Discovery::OriginalDestination {
                heaviest = heaviest.max(endpoint.weight);
            }
            match endpoint.standing(now) {
                Standing::Healthy => healthy += 1,
                Standing::Degraded => degraded += 1,
                Standing::Unhealthy | Standing::Draining => {}
            }
        }
        self.tell("membership_total", total);
        self.tell("membership_healthy", healthy);
        self.tell("membership_degraded", degraded);
        self.tell("max_host_weight", heaviest.into());
        self.counter("update_attempt", &cluster.stats.updates);
        self.counter("update_success", &cluster.stats.updates);
        self.counter("membership_change", &cluster.stats.membership_changes);
        self.counter("lb_healthy_panic", &cluster.stats.panics);
        self.zones(&cluster.stats.zones);
        let SubsetStats {
            created,
            removed,
            selected,
            fallback,
            fallback_panic,
        } = &cluster.stats.subsets;
        self.counter("lb_subsets_created", created);
        self.counter("lb_subsets_removed", removed);
        self.counter("lb_subsets_selected", selected);
        self.counter("lb_subsets_fallback", fallback);
        self.counter("lb_subsets_fallback_panic", fallback_panic);
        if cluster.config.subsets.is_some() {
            self.tell("lb_subsets_active", cluster.subsets() as u64);
        }
    }

    fn zones(&mut self, stats: &ZoneStats) {
        let ZoneStats {
            recalculated,
            all_directly,
            sampled,
            cross_zone,
            no_capacity,
            too_small,
            not_ok,
        } = stats;
        self.counter("lb_recalculate_zone_structures", recalculated);
        self.counter("lb_zone_routing_all_directly", all_directly);
        self.counter("lb_zone_routing_sampled", sampled);
        self.counter("lb_zone_routing_cross_zone", cross_zone);
        self.counter("lb_zone_no_capacity_left", no_capacity);
        self.counter("lb_zone_cluster_too_small", too_small);
        self.counter("lb_local_cluster_not_ok", not_ok);
    }

    /// What cannot happen here.
    fn never(&mut self, cluster: &Cluster) {
        self.all.add_all(&self.scope, NEVER.map(|name| (name, 0)));
        if cluster.config.subsets.is_none() {
            let none = NEVER_WITHOUT_SUBSETS.map(|name| (name, 0));
            self.all.add_all(&self.scope, none);
        }
    }

    fn health_checks(&mut self, cluster: &Cluster) {
        if cluster.config.health_checks.is_empty() {
            return;
        }
        let stats = &cluster.stats;
        self.counter("health_check.attempt", &stats.health_checks);
        self.counter("health_check.success", &stats.health_checks_passed);
        self.counter("health_check.failure", &stats.health_checks_failed);
        let (mut healthy, mut degraded) = (0, 0);
        for endpoint in cluster.endpoints() {
            healthy += u64::from(!endpoint.state.health.is_failed());
            degraded += u64::from(endpoint.state.health.is_degraded());
        }
        self.tell("health_check.healthy", healthy);
        self.tell("health_check.degraded", degraded);
    }

    fn outliers(&mut self, cluster: &Cluster) {
        if cluster.config.outlier_detection.is_none() {
            return;
        }
        let (stats, now) = (&cluster.stats, Instant::now());
        let ejected = cluster
            .endpoints()
            .filter(|endpoint| endpoint.state.outlier.is_ejected(now));
        self.tell("outlier_detection.ejections_active", ejected.count() as u64);
        self.counter(
            "outlier_detection.ejections_enforced_total",
            &stats.ejections,
        );
        self.counter(
            "outlier_detection.ejections_overflow",
            &stats.ejections_refused,
        );
        for detector in Detector::ALL {
            let (detected, enforced) = stats.outliers(detector);
            let name = detector.name();
            self.tell(
                format!("outlier_detection.ejections_detected_{name}"),
                detected,
            );
            self.tell(
                format!("outlier_detection.ejections_enforced_{name}"),
                enforced,
            );
        }
    }
}
