//! Clusters: endpoints that stand for each other, and how they are used.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Network;
use super::balancing::{Balancer, Hashing, Localities, SlowStart, SubsetConfig, ZoneRouting};
use super::endpoints::EndpointsConfig;
use super::health_check::HealthCheckConfig;
use super::http::Http2Options;
use super::http1::Http1Options;
use super::percent::Percent;
use super::tls::UpstreamTls;
use super::upstream_socket::{Keepalive, Sources};
use crate::proxy_protocol::Version;

/// A cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterConfig {
    /// Its name.
    pub name: Arc<str>,
    /// How its endpoints are found.
    pub discovery: Discovery,
    /// How one is chosen.
    pub balancer: Balancer,
    /// How hashes are spread.
    pub hashing: Hashing,
    /// How new endpoints begin.
    pub slow_start: Option<SlowStart>,
    /// Whether localities have shares of their own.
    pub localities: Localities,
    /// How much stays in the proxy's own locality.
    pub zones: ZoneRouting,
    /// How endpoints are divided by their labels.
    pub subsets: Option<Arc<SubsetConfig>>,
    /// How endpoints are asked whether they are well.
    pub health_checks: Vec<Arc<HealthCheckConfig>>,
    /// Whether connections to an endpoint are closed when it fails its health checks.
    pub close_on_health_failure: bool,
    /// Whether an endpoint that discovery no longer names goes at once, healthy or not.
    pub ignore_health_on_removal: bool,
    /// Which endpoints are used where a session asks for one.
    pub override_standings: OverrideStandings,
    /// How names are looked up.
    pub dns: DnsOptions,
    /// Where original destinations come from.
    pub original: OriginalDestinationOptions,
    /// How long a connection may take to be made, TLS included.
    pub connect_timeout: Duration,
    /// What may be in flight.
    pub breakers: Thresholds,
    /// What may be in flight of requests of high priority.
    pub urgent_breakers: Thresholds,
    /// How many connections each endpoint may have.
    pub max_connections_per_endpoint: Option<u32>,
    /// When an endpoint is taken out.
    pub outlier_detection: Option<OutlierDetection>,
    /// Below this share of healthy endpoints all are used (Envoy's panic threshold).
    pub panic_threshold: Percent,
    /// Whether nothing is used below it, instead of all.
    pub fails_on_panic: bool,
    /// The first whose labels the endpoint has.
    pub transport_matches: Vec<TransportMatch>,
    /// Where none matches.
    pub transport: Transport,
    /// The version of the PROXY header that connections begin with, where they do.
    pub proxy_protocol: Option<Version>,
    /// What is spoken upstream.
    pub protocol: UpstreamProtocol,
    /// HTTP/1.1 of the upstream side.
    pub http1: Http1Options,
    /// HTTP/2 of the upstream side.
    pub http2: Http2Options,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// How many requests a connection may carry.
    pub max_requests_per_connection: Option<u32>,
    /// How long a connection is used at most; what is in flight then is finished.
    pub max_connection_duration: Option<Duration>,
    /// How many connections there are for each stream of an endpoint, from 1 to 3; `None`: none are made ahead of need.
    pub preconnect_ratio: Option<f64>,
    /// How many connections there are for each stream of the cluster, from 1 to 3: those beyond the streams are made to
    /// the endpoints that will be chosen next. `None`: none are.
    pub predictive_preconnect_ratio: Option<f64>,
    /// What connections are made from; `None`: what those of all clusters are.
    pub sources: Option<Arc<Sources>>,
    /// Whether the kernel asks after silent peers.
    pub keepalive: Option<Keepalive>,
    /// Whose network endpoints are dialled in.
    pub network: Network,
}

impl ClusterConfig {
    /// With Envoy's defaults.
    pub fn new(name: &str, discovery: Discovery) -> Self {
        ClusterConfig {
            name: name.into(),
            discovery,
            balancer: Balancer::RoundRobin,
            hashing: Hashing::default(),
            slow_start: None,
            localities: Localities::Pooled,
            zones: ZoneRouting::default(),
            subsets: None,
            health_checks: vec![],
            close_on_health_failure: false,
            ignore_health_on_removal: false,
            override_standings: OverrideStandings::default(),
            dns: DnsOptions::default(),
            original: OriginalDestinationOptions::default(),
            connect_timeout: Duration::from_secs(5),
            breakers: Thresholds::default(),
            urgent_breakers: Thresholds::default(),
            max_connections_per_endpoint: None,
            outlier_detection: None,
            panic_threshold: Percent::of(50),
            fails_on_panic: false,
            transport_matches: vec![],
            transport: Transport::Plaintext,
            proxy_protocol: None,
            protocol: UpstreamProtocol::Http1,
            http1: Http1Options::default(),
            http2: Http2Options::default(),
            idle_timeout: Duration::from_secs(3600),
            max_requests_per_connection: None,
            max_connection_duration: None,
            preconnect_ratio: None,
            predictive_preconnect_ratio: None,
            sources: None,
            keepalive: None,
            network: Network::Sandbox,
        }
    }

    /// The name its endpoints are discovered under.
    pub fn discovery_name(&self) -> Option<&Arc<str>> {
        match &self.discovery {
            Discovery::Eds { service_name } => Some(service_name.as_ref().unwrap_or(&self.name)),
            _ => None,
        }
    }
}

/// How endpoints are found.
#[derive(Debug, Clone, PartialEq)]
pub enum Discovery {
    /// They are given.
    Static(Arc<EndpointsConfig>),
    /// They are discovered, under the cluster's name or this one.
    Eds {
        /// Instead of the cluster's name.
        service_name: Option<Arc<str>>,
    },
    /// Wherever the connection was going.
    OriginalDestination,
    /// Names are given; every address they resolve to is an endpoint.
    StrictDns(Arc<EndpointsConfig>),
    /// A name is given; one of the addresses it resolves to is the endpoint.
    LogicalDns(Arc<EndpointsConfig>),
}

impl Discovery {
    /// The endpoints by name, where they are looked up.
    pub fn names(&self) -> Option<&Arc<EndpointsConfig>> {
        match self {
            Discovery::StrictDns(config) | Discovery::LogicalDns(config) => Some(config),
            _ => None,
        }
    }
}

/// How names are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsOptions {
    /// How often.
    pub refresh: Duration,
    /// Whether the answer's time to live decides instead.
    pub respects_ttl: bool,
    /// How soon after a failure, at first and at most.
    pub failure_refresh: Option<(Duration, Duration)>,
    /// Added to each wait, drawn up to this.
    pub jitter: Duration,
    /// Which addresses.
    pub family: DnsFamily,
}

impl Default for DnsOptions {
    /// Envoy's; the time to live is respected.
    fn default() -> Self {
        DnsOptions {
            refresh: Duration::from_secs(5),
            respects_ttl: true,
            failure_refresh: None,
            jitter: Duration::ZERO,
            family: DnsFamily::All,
        }
    }
}

/// Which addresses of a name are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsFamily {
    /// IPv6, and IPv4 where there are none.
    PreferV6,
    /// IPv4, and IPv6 where there are none.
    PreferV4,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// All.
    All,
}

/// Where the destinations of [`Discovery::OriginalDestination`] come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginalDestinationOptions {
    /// The header that overrides where the connection was going, where requests may say so.
    pub header: Option<http::HeaderName>,
    /// The port in place of the connection's.
    pub port: Option<u16>,
    /// How long one that is not used is remembered; `None`: while it has connections.
    pub cleanup: Option<Duration>,
}

/// Which endpoints may be used because a session asks for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverrideStandings {
    /// Those that are well.
    pub healthy: bool,
    /// Those that are used where others are not enough.
    pub degraded: bool,
    /// Those that are not.
    pub unhealthy: bool,
    /// Those that are going away.
    pub draining: bool,
}

impl Default for OverrideStandings {
    /// Envoy's.
    fn default() -> Self {
        OverrideStandings {
            healthy: true,
            degraded: true,
            unhealthy: false,
            draining: false,
        }
    }
}

/// What may be in flight at once (Envoy's circuit breakers, of one priority).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thresholds {
    /// Connections.
    pub max_connections: u32,
    /// Requests waiting for a connection.
    pub max_pending_requests: u32,
    /// Requests.
    pub max_requests: u32,
    /// Retries.
    pub retries: RetryLimit,
    /// Whether statistics tell how many more there may be.
    pub tracks_remaining: bool,
}

/// How many retries may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryLimit {
    /// So many.
    Count(u32),
    /// A share of the active requests.
    Budget {
        /// The share.
        share: Percent,
        /// So many in any case.
        min_concurrency: u32,
    },
}

impl Default for Thresholds {
    /// Envoy's.
    fn default() -> Self {
        Thresholds {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            retries: RetryLimit::Count(3),
            tracks_remaining: false,
        }
    }
}

/// When an endpoint is taken out of the balancing for a while. A count of zero switches a test off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Server errors in a row.
    pub consecutive_5xx: u32,
    /// 502, 503, 504 in a row.
    pub consecutive_gateway_failure: u32,
    /// Failed connections in a row; counted apart only with `split_local_origin`.
    pub consecutive_local_origin_failure: u32,
    /// Whether failures to connect are counted apart, instead of as server errors.
    pub split_local_origin: bool,
    /// How often rates are judged, and ejections forgotten, one at a time, where there are no new ones.
    pub interval: Duration,
    /// The first ejection; the n-th in a row is n times as long.
    pub base_ejection_time: Duration,
    /// The longest.
    pub max_ejection_time: Duration,
    /// Added to each ejection, drawn up to this.
    pub max_ejection_jitter: Duration,
    /// At most this share of the endpoints is out at a time.
    pub max_ejection_percent: Percent,
    /// Whether one may be out in any case.
    pub always_ejects_one: bool,
    /// Whether an active health check that succeeds ends an ejection.
    pub is_ended_by_health_check: bool,
    /// Whether an endpoint that answers with `x-envoy-degraded` is spared for a while.
    pub detects_degraded: bool,
    /// How often what a test finds is acted upon.
    pub enforcing: Enforcing,
    /// Who is far below the others.
    pub success_rate: SuccessRateTest,
    /// Who fails too many.
    pub failure_percentage: FailurePercentageTest,
}

impl Default for OutlierDetection {
    /// Envoy's, without the tests of rates; and gateway failures are acted upon where they are counted.
    fn default() -> Self {
        OutlierDetection {
            consecutive_5xx: 5,
            consecutive_gateway_failure: 0,
            consecutive_local_origin_failure: 5,
            split_local_origin: false,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_jitter: Duration::ZERO,
            max_ejection_percent: Percent::of(10),
            always_ejects_one: true,
            is_ended_by_health_check: true,
            detects_degraded: false,
            enforcing: Enforcing::default(),
            success_rate: SuccessRateTest::default(),
            failure_percentage: FailurePercentageTest::default(),
        }
    }
}

/// How often what a test of outlier detection finds is acted upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enforcing {
    /// Server errors in a row.
    pub consecutive_5xx: Percent,
    /// Gateway errors in a row.
    pub gateway_failure: Percent,
    /// Failed connections in a row.
    pub local_origin_failure: Percent,
    /// Success rates.
    pub success_rate: Percent,
    /// Success rates of connecting.
    pub local_success_rate: Percent,
    /// Shares of failures.
    pub failure_percentage: Percent,
    /// Shares of failures to connect.
    pub local_failure_percentage: Percent,
}

impl Default for Enforcing {
    /// All that counts failures in a row, and nothing that judges rates.
    fn default() -> Self {
        Enforcing {
            consecutive_5xx: Percent::ALL,
            gateway_failure: Percent::ALL,
            local_origin_failure: Percent::ALL,
            success_rate: Percent::ZERO,
            local_success_rate: Percent::ZERO,
            failure_percentage: Percent::ZERO,
            local_failure_percentage: Percent::ZERO,
        }
    }
}

/// Who is far below the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuccessRateTest {
    /// So many endpoints with enough requests there must be.
    pub minimum_hosts: u32,
    /// So many requests in an interval are enough.
    pub request_volume: u32,
    /// So many thousandths of a standard deviation below the mean.
    pub deviation_thousandths: u32,
}

impl Default for SuccessRateTest {
    /// Envoy's.
    fn default() -> Self {
        SuccessRateTest {
            minimum_hosts: 5,
            request_volume: 100,
            deviation_thousandths: 1900,
        }
    }
}

/// Who fails too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailurePercentageTest {
    /// This share of its requests.
    pub threshold: Percent,
    /// So many endpoints with enough requests there must be.
    pub minimum_hosts: u32,
    /// So many requests in an interval are enough.
    pub request_volume: u32,
}

impl Default for FailurePercentageTest {
    /// Envoy's.
    fn default() -> Self {
        FailurePercentageTest {
            threshold: Percent::of(85),
            minimum_hosts: 5,
            request_volume: 50,
        }
    }
}

/// A transport for the endpoints that have these labels.
#[derive(Debug, Clone, PartialEq)]
pub struct TransportMatch {
    /// Its name.
    pub name: Arc<str>,
    /// All of them must be the endpoint's.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// The transport.
    pub transport: Transport,
}

/// What connections to an endpoint are made of.
#[derive(Debug, Clone, PartialEq)]
pub enum Transport {
    /// Bytes in the clear.
    Plaintext,
    /// TLS.
    Tls(Arc<UpstreamTls>),
}

/// What is spoken upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, with prior knowledge.
    Http2,
    /// What the caller spoke.
    Downstream,
}
