//! What has been counted in Envoy's names, as metrics with Envoy's labels: dashboards of Envoy's world find them.
//!
//! As in Envoy, the part of a name that says what it is of becomes a label, and so do status and class of a response.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::selection::Selection;
use super::shown;
use super::told::{Scope, Stat, written};
use crate::admin::AdminState;
use crate::snapshot::chain::Service;
use crate::telemetry::exposition::{Exposition, Kind};
use crate::telemetry::registry::DEFAULT_SERIES_CAP;
use crate::telemetry::value::HistogramReading;
use crate::workers::DataPlane;

/// Labels of a sample, in order.
type Labels = Vec<(&'static str, String)>;

/// Writes all of them, in order of names. A cluster that nothing was sent to tells its members alone: a mesh has many
/// of those.
pub(in crate::admin) fn collect(state: &AdminState, exposition: &mut Exposition) {
    collect_selected(state, &Selection::default(), exposition);
}

/// What is selected: by their names in `/stats`, and those that are weft's own by the names of their metrics.
pub(super) fn selected(state: &AdminState, selection: &Selection) -> String {
    let mut exposition = Exposition::default();
    collect_selected(state, selection, &mut exposition);
    let mut text = exposition.into_text();
    of_weft(&state.registry.render(), selection, &mut text);
    text
}

/// Those of all metrics that are not Envoy's, each family with its head.
fn of_weft(all: &str, selection: &Selection, text: &mut String) {
    let mut head = String::new();
    for line in all.lines() {
        if line.starts_with("# HELP ") {
            head.clear();
        }
        if line.starts_with('#') {
            head.extend([line, "\n"]);
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or((line, ""));
        let name = series.split('{').next().unwrap_or_default();
        if !name.starts_with("envoy_") && selection.has(name, || value != "0") {
            text.push_str(&std::mem::take(&mut head));
            text.extend([line, "\n"]);
        }
    }
}

fn collect_selected(state: &AdminState, selection: &Selection, exposition: &mut Exposition) {
    let all = shown(state).into_all();
    let used = used_clusters(&all);
    let mut families: BTreeMap<String, Vec<(Labels, u64)>> = BTreeMap::new();
    for stat in all {
        if stat.name == NOT_IN_SECONDS {
            continue;
        }
        if let Scope::Cluster(name) = &stat.scope
            && !used.contains_key(name)
            && !stat.name.starts_with("membership_")
        {
            continue;
        }
        if !selection.is_all() && !selection.has(&stat.whole_name(), || stat.value > 0) {
            continue;
        }
        let (name, labels) = metric(&stat);
        families.entry(name).or_default().push((labels, stat.value));
    }
    for (name, mut samples) in families {
        exposition.family(&name, "As Envoy counts it.", kind(&name));
        samples.sort();
        samples.dedup_by(|one, other| one.0 == other.0);
        for (labels, value) in samples.iter().take(DEFAULT_SERIES_CAP) {
            exposition.sample(&name, &borrowed(labels), value);
        }
    }
    times(&state.data_plane, selection, exposition);
}

/// Clusters that anything was sent to.
fn used_clusters(all: &[Stat]) -> BTreeMap<Arc<str>, ()> {
    let of_traffic = [
        "upstream_cx_total",
        "upstream_rq_total",
        "upstream_rq_completed",
    ];
    let used = all.iter().filter_map(|stat| match &stat.scope {
        Scope::Cluster(name) if stat.value > 0 && of_traffic.contains(&&*stat.name) => {
            Some((Arc::clone(name), ()))
        }
        _ => None,
    });
    used.collect()
}

/// The time that requests took, in milliseconds as in Envoy.
fn times(data_plane: &DataPlane, selection: &Selection, exposition: &mut Exposition) {
    let name = "envoy_http_downstream_rq_time";
    let mut readings: BTreeMap<Arc<str>, HistogramReading> = BTreeMap::new();
    let snapshot = data_plane.snapshot();
    let chains = snapshot.listeners.values().flat_map(|each| &each.chains);
    for chain in chains {
        let Service::Http(service) = &chain.service else {
            continue;
        };
        let prefix = &service.config.stat_prefix;
        if !readings.contains_key(prefix)
            && let Some(sum) = sum(data_plane, prefix)
            && selection.has(&format!("http.{prefix}.downstream_rq_time"), || {
                sum.count > 0
            })
        {
            readings.insert(Arc::clone(prefix), sum);
        }
    }
    if readings.is_empty() {
        return;
    }
    exposition.family(
        name,
        "As Envoy counts it, in milliseconds.",
        Kind::Histogram,
    );
    for (prefix, reading) in readings.iter().take(DEFAULT_SERIES_CAP) {
        exposition.histogram(name, &[(MANAGER, prefix)], reading);
    }
}

fn sum(data_plane: &DataPlane, prefix: &str) -> Option<HistogramReading> {
    let all = data_plane.environment().managers.of_prefix(prefix);
    let sum = all.iter().map(|one| one.times()).reduce(|mut sum, other| {
        sum.add(&other);
        sum
    });
    sum.map(in_milliseconds)
}

fn in_milliseconds(reading: HistogramReading) -> HistogramReading {
    let buckets = reading.buckets.into_iter();
    HistogramReading {
        // Bounds are round numbers of them.
        buckets: buckets
            .map(|(bound, count)| ((bound * 10_000.0).round() / 10.0, count))
            .collect(),
        count: reading.count,
        sum: reading.sum * 1000.0,
    }
}

/// A metric of time is in seconds: `/stats` alone has it.
const NOT_IN_SECONDS: &str = "server.days_until_first_cert_expiring";
const MANAGER: &str = "envoy_http_conn_manager_prefix";
const LISTENER: &str = "envoy_listener_address";

/// The metric of a statistic, and its labels.
fn metric(stat: &Stat) -> (String, Labels) {
    let (of, mut labels): (&str, Labels) = match &stat.scope {
        Scope::Process => ("", vec![]),
        Scope::Cluster(name) => ("cluster_", vec![("envoy_cluster_name", written(name))]),
        Scope::Listener(address) => ("listener_", vec![(LISTENER, written(address))]),
        Scope::ManagerOnListener(address, prefix) => (
            "listener_http_",
            vec![(LISTENER, written(address)), (MANAGER, written(prefix))],
        ),
        Scope::Manager(prefix) => ("http_", vec![(MANAGER, written(prefix))]),
        Scope::Tunnel(prefix) => ("tcp_", vec![("envoy_tcp_prefix", written(prefix))]),
    };
    let name = match response(&stat.name) {
        Some((name, label, value)) => {
            labels.push((label, value.to_owned()));
            name
        }
        None => stat.name.to_string(),
    };
    let plain = |character: char| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => character,
        _ => '_',
    };
    let name = name.chars().map(plain);
    (format!("envoy_{of}{}", name.collect::<String>()), labels)
}

/// Takes the status, or its class, out of a name: `upstream_rq_200`, `downstream_rq_2xx`.
fn response(name: &str) -> Option<(String, &'static str, &str)> {
    let at = name.rfind("_rq_")? + "_rq_".len();
    let (begin, status) = name.split_at(at);
    let has_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match status.strip_suffix("xx") {
        Some(class) if class.len() == 1 && has_digits(class) => {
            Some((format!("{begin}xx"), "envoy_response_code_class", class))
        }
        None if status.len() == 3 && has_digits(status) => {
            let name = begin.trim_end_matches('_').to_owned();
            Some((name, "envoy_response_code", status))
        }
        _ => None,
    }
}

/// Whether it goes down, too.
pub(super) fn is_gauge(stat: &Stat) -> bool {
    names_gauge(&metric(stat).0)
}

/// Told apart by name, as Envoy's names are.
fn names_gauge(metric: &str) -> bool {
    const GAUGES: [&str; 34] = [
        "_active",
        "_open",
        "_state",
        "_live",
        "_uptime",
        "_concurrency",
        "_epoch",
        "_allocated",
        "_size",
        "_total_connections",
        "_expiring",
        "membership_healthy",
        "check_healthy",
        "_degraded",
        "_excluded",
        "membership_total",
        "_clusters",
        "_buffered",
        "_pressure",
        "_warming",
        "_draining",
        "_weight",
        "workers_started",
        "queue_overloaded",
        "soft_drain",
        "fips_mode",
        "parent_connections",
        "recent_lookups",
        "_pinned",
        "_faults",
        "_percent",
        "concurrency_limit",
        "_rtt_msecs",
        "_gradient",
    ];
    metric.contains("_remaining_") || GAUGES.iter().any(|suffix| metric.ends_with(suffix))
}

/// Where a name is against Prometheus's conventions, `promtool` is told nothing that it would complain about.
fn kind(metric: &str) -> Kind {
    match (names_gauge(metric), metric.ends_with("_total")) {
        (true, false) => Kind::Gauge,
        (false, true) => Kind::Counter,
        (true, true) | (false, false) => Kind::Untyped,
    }
}

fn borrowed(labels: &Labels) -> Vec<(&str, &str)> {
    labels
        .iter()
        .map(|(name, value)| (*name, &**value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str) -> String {
        let (name, labels) = metric(&Stat::named(name, 1));
        let mut exposition = Exposition::default();
        exposition.sample(&name, &borrowed(&labels), 1);
        exposition.into_text()
    }

    #[test]
    fn what_a_name_is_of_and_the_class_of_a_response_become_labels() {
        assert_eq!(
            shown("http.web.downstream_rq_2xx"),
            "envoy_http_downstream_rq_xx{envoy_http_conn_manager_prefix=\"web\",envoy_response_code_class=\"2\"} 1\n"
        );
        assert_eq!(
            shown("cluster.app.upstream_rq_503"),
            "envoy_cluster_upstream_rq{envoy_cluster_name=\"app\",envoy_response_code=\"503\"} 1\n"
        );
        assert_eq!(
            shown("cluster.app.circuit_breakers.high.rq_open"),
            "envoy_cluster_circuit_breakers_high_rq_open{envoy_cluster_name=\"app\"} 1\n"
        );
        assert_eq!(shown("server.live"), "envoy_server_live 1\n");
    }

    #[test]
    fn what_goes_down_is_a_gauge() {
        assert_eq!(kind("envoy_cluster_membership_healthy"), Kind::Gauge);
        assert_eq!(kind("envoy_http_downstream_cx_active"), Kind::Gauge);
        assert_eq!(kind("envoy_http_downstream_cx_total"), Kind::Counter);
        assert_eq!(kind("envoy_http_downstream_rq_xx"), Kind::Untyped);
        assert_eq!(
            kind("envoy_http_downstream_cx_rx_bytes_total"),
            Kind::Counter
        );
    }

    #[test]
    fn bounds_of_times_are_milliseconds() {
        let reading = HistogramReading {
            buckets: vec![(0.000_5, 1), (0.025, 2)],
            count: 2,
            sum: 0.02,
        };

        let reading = in_milliseconds(reading);

        assert_eq!(reading.buckets, [(0.5, 1), (25.0, 2)]);
    }
}
