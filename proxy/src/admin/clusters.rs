//! `/clusters`: clusters and their endpoints with live state, as text or JSON, as Envoy shows them.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use regex::Regex;
use serde_json::{Value, json};

use super::reply::{Query, Reply};
use crate::bootstrap::Bootstrap;
use crate::cluster::Cluster;
use crate::cluster::breaker::Breakers;
use crate::cluster::endpoint::Endpoint;
use crate::config::cluster::RetryLimit;
use crate::config::endpoints::EndpointHealth;
use crate::snapshot::Snapshot;

/// All clusters, or those whose name `filter` is found in.
pub fn clusters(snapshot: &Snapshot, bootstrap: &Bootstrap, query: &Query) -> Reply {
    let filter = match query.value("filter").map(Regex::new).transpose() {
        Ok(filter) => filter,
        Err(error) => return Reply::text(StatusCode::BAD_REQUEST, format!("filter: {error}\n")),
    };
    let is_meant = |name: &str| filter.as_ref().is_none_or(|filter| filter.is_match(name));
    let all = snapshot.clusters.values();
    let mut all: Vec<_> = all.filter(|cluster| is_meant(cluster.name())).collect();
    all.sort_by(|left, right| left.name().cmp(right.name()));
    let shown: Vec<_> = all
        .into_iter()
        .map(|cluster| Shown {
            is_added: !bootstrap.statics.clusters.contains_key(cluster.name()),
            cluster,
            now: Instant::now(),
        })
        .collect();
    match query.value("format") {
        Some("json") => {
            let statuses: Vec<_> = shown.iter().map(Shown::json).collect();
            Reply::json(&json!({"cluster_statuses": statuses}))
        }
        _ => {
            let mut text = String::new();
            for cluster in &shown {
                // Writing to a String cannot fail.
                let _ = cluster.write(&mut text);
            }
            Reply::ok(text)
        }
    }
}

struct Shown<'a> {
    cluster: &'a Arc<Cluster>,
    is_added: bool,
    now: Instant,
}

impl Shown<'_> {
    fn write(&self, text: &mut String) -> std::fmt::Result {
        let name = self.cluster.name();
        writeln!(text, "{name}::observability_name::{name}")?;
        for (priority, breakers) in [
            ("default_priority", &self.cluster.breakers),
            ("high_priority", &self.cluster.urgent_breakers),
        ] {
            let limits = breakers.limits();
            for (limit, value) in [
                ("max_connections", limits.max_connections),
                ("max_pending_requests", limits.max_pending_requests),
                ("max_requests", limits.max_requests),
            ] {
                writeln!(text, "{name}::{priority}::{limit}::{value}")?;
            }
            if let RetryLimit::Count(count) = limits.retries {
                writeln!(text, "{name}::{priority}::max_retries::{count}")?;
            }
        }
        writeln!(text, "{name}::added_via_api::{}", self.is_added)?;
        if let Some(discovered) = self.cluster.config.discovery_name() {
            writeln!(text, "{name}::eds_service_name::{discovered}")?;
        }
        for endpoint in self.cluster.endpoints() {
            self.write_endpoint(&endpoint, text)?;
        }
        Ok(())
    }

    fn write_endpoint(&self, endpoint: &Endpoint, text: &mut String) -> std::fmt::Result {
        let prefix = format!("{}::{}", self.cluster.name(), endpoint.address);
        for (stat, value) in stats(endpoint) {
            writeln!(text, "{prefix}::{stat}::{value}")?;
        }
        let hostname = endpoint.hostname.as_deref().unwrap_or_default();
        writeln!(text, "{prefix}::hostname::{hostname}")?;
        writeln!(
            text,
            "{prefix}::health_flags::{}",
            self.health_flags(endpoint)
        )?;
        writeln!(text, "{prefix}::weight::{}", endpoint.weight)?;
        writeln!(text, "{prefix}::region::{}", endpoint.locality.region)?;
        writeln!(text, "{prefix}::zone::{}", endpoint.locality.zone)?;
        writeln!(text, "{prefix}::sub_zone::{}", endpoint.locality.sub_zone)?;
        writeln!(text, "{prefix}::canary::{}", is_canary(endpoint))?;
        let priority = self.cluster.priority_of(endpoint);
        writeln!(text, "{prefix}::priority::{priority}")?;
        writeln!(text, "{prefix}::tls::{}", endpoint.transport.is_tls())?;
        writeln!(text, "{prefix}::workload::{}", endpoint.workload.name)
    }

    /// Envoy's flags, joined by slashes.
    fn health_flags(&self, endpoint: &Endpoint) -> String {
        let ejected = endpoint
            .state
            .outlier
            .is_ejected(self.now)
            .then_some("/failed_outlier_check");
        let discovered = match endpoint.health {
            EndpointHealth::Healthy => None,
            EndpointHealth::Degraded => Some("/degraded_eds_health"),
            EndpointHealth::Unhealthy => Some("/failed_eds_health"),
            EndpointHealth::Draining => Some("/eds_status_draining"),
        };
        let health = &endpoint.state.health;
        let checked = match (health.has_failed(), health.is_expected()) {
            (true, _) => Some("/failed_active_hc"),
            (_, true) => Some("/pending_active_hc"),
            _ => health.is_degraded().then_some("/degraded_active_hc"),
        };
        let spared = endpoint
            .state
            .outlier
            .is_degraded(self.now)
            .then_some("/degraded_outlier_detection");
        let flags: String = checked
            .into_iter()
            .chain(ejected)
            .chain(discovered)
            .chain(spared)
            .collect();
        if flags.is_empty() {
            "healthy".to_owned()
        } else {
            flags
        }
    }

    fn json(&self) -> Value {
        let endpoints: Vec<_> = self
            .cluster
            .endpoints()
            .map(|endpoint| self.endpoint_json(&endpoint))
            .collect();
        let thresholds = [
            ("DEFAULT", &self.cluster.breakers),
            ("HIGH", &self.cluster.urgent_breakers),
        ];
        json!({
            "name": self.cluster.name(),
            "observability_name": self.cluster.name(),
            "added_via_api": self.is_added,
            "eds_service_name": self.cluster.config.discovery_name(),
            "circuit_breakers": {"thresholds": thresholds.map(thresholds_json)},
            "host_statuses": endpoints,
        })
    }

    fn endpoint_json(&self, endpoint: &Endpoint) -> Value {
        let stats: Vec<_> = stats(endpoint)
            .into_iter()
            .map(|(name, value)| {
                let kind = if name.ends_with("_active") {
                    "GAUGE"
                } else {
                    "COUNTER"
                };
                json!({"name": name, "type": kind, "value": value.to_string()})
            })
            .collect();
        let discovered = match endpoint.health {
            EndpointHealth::Healthy => "HEALTHY",
            EndpointHealth::Degraded => "DEGRADED",
            EndpointHealth::Unhealthy => "UNHEALTHY",
            EndpointHealth::Draining => "DRAINING",
        };
        json!({
            "address": {"socket_address": {
                "address": endpoint.address.ip().to_string(),
                "port_value": endpoint.address.port(),
            }},
            "stats": stats,
            "health_status": {
                "eds_health_status": discovered,
                "failed_outlier_check": endpoint.state.outlier.is_ejected(self.now),
                "failed_active_health_check": endpoint.state.health.has_failed(),
                "pending_active_hc": endpoint.state.health.is_expected(),
            },
            "weight": endpoint.weight,
            "priority": self.cluster.priority_of(endpoint),
            "hostname": endpoint.hostname,
            "locality": {
                "region": endpoint.locality.region,
                "zone": endpoint.locality.zone,
                "sub_zone": endpoint.locality.sub_zone,
            },
        })
    }
}

fn thresholds_json((priority, breakers): (&str, &Breakers)) -> Value {
    let limits = breakers.limits();
    let mut thresholds = json!({
        "priority": priority,
        "max_connections": limits.max_connections,
        "max_pending_requests": limits.max_pending_requests,
        "max_requests": limits.max_requests,
    });
    if let RetryLimit::Count(count) = limits.retries {
        thresholds["max_retries"] = count.into();
    }
    thresholds
}

/// As Envoy: what `envoy.lb` says of it.
fn is_canary(endpoint: &Endpoint) -> bool {
    let canary = endpoint.labels.get("canary");
    canary.is_some_and(|value| &*value.text == "true")
}

fn stats(endpoint: &Endpoint) -> [(&'static str, u64); 5] {
    let (total, failed) = (endpoint.state.requests(), endpoint.state.failures());
    [
        ("cx_active", endpoint.state.connections().into()),
        ("rq_active", endpoint.state.active().into()),
        ("rq_total", total),
        ("rq_error", failed),
        ("rq_success", total.saturating_sub(failed)),
    ]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Configuration;
    use crate::config::cluster::{ClusterConfig, Discovery};
    use crate::config::endpoints::{EndpointConfig, EndpointsConfig, LocalityConfig};
    use crate::snapshot::Resolved;

    fn snapshot() -> Snapshot {
        let endpoint = EndpointConfig {
            health: EndpointHealth::Draining,
            ..EndpointConfig::at(([127, 0, 0, 1], 80).into())
        };
        let endpoints = EndpointsConfig {
            name: "reviews".into(),
            policy: Default::default(),
            localities: vec![LocalityConfig {
                locality: Default::default(),
                priority: 0,
                weight: 0,
                endpoints: vec![endpoint],
            }],
        };
        let cluster = ClusterConfig::new("reviews", Discovery::Static(Arc::new(endpoints)));
        let mut configuration = Configuration::default();
        configuration
            .clusters
            .insert("reviews".into(), Arc::new(cluster));
        Snapshot::build(&Snapshot::default(), &configuration, &Resolved::new())
    }

    fn shown(query: &str) -> String {
        let bootstrap = Bootstrap::parse("{}", Path::new("b.json")).expect("valid");
        let reply = clusters(&snapshot(), &bootstrap, &Query::parse(query));
        String::from_utf8(reply.body().to_vec()).expect("text")
    }

    #[test]
    fn the_text_is_envoys() {
        let text = shown("");

        assert!(
            text.contains("reviews::default_priority::max_requests::1024\n"),
            "{text}"
        );
        assert!(text.contains("reviews::added_via_api::true\n"), "{text}");
        assert!(
            text.contains("reviews::127.0.0.1:80::health_flags::/eds_status_draining\n"),
            "{text}"
        );
        assert!(
            text.contains("reviews::127.0.0.1:80::rq_total::0\n"),
            "{text}"
        );
    }

    #[test]
    fn the_json_is_envoys_message() {
        use weft_proto::envoy::admin::v3::Clusters;

        let json: Value = serde_json::from_str(&shown("format=json")).expect("json");
        let message: Clusters = weft_proto::json::from_json(json).expect("envoy.admin.v3.Clusters");

        assert_eq!(message.cluster_statuses[0].host_statuses[0].stats.len(), 5);
    }
}
