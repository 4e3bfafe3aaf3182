//! Clusters: endpoints that stand for each other, and how they are used.

pub mod outlier;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use self::outlier::OutlierDetection;
use super::Network;
use super::balancing::{Balancer, Hashing, Localities, SlowStart, SubsetConfig, ZoneRouting};
use super::endpoints::EndpointsConfig;
use super::health_check::HealthCheckConfig;
use super::http::{
    DEFAULT_BUFFER_BYTES, DEFAULT_MAX_HEADER_BYTES, DEFAULT_MAX_HEADERS, Http2Options,
};
use super::http1::Http1Options;
use super::listener::socket::Keepalive;
use super::percent::Percent;
use super::tls::UpstreamTls;
use super::upstream_socket::Sources;
use crate::proxy_protocol::Version;

/// A cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterConfig {
    /// Its name.
    pub name: Arc<str>,
    /// What statistics call it; none: by its name.
    pub stat_name: Option<Arc<str>>,
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
    /// What is taken of one response, and buffered of one connection.
    pub bounds: ConnectionBounds,
    /// What connections are made from; `None`: what those of all clusters are.
    pub sources: Option<Arc<Sources>>,
    /// Whether the kernel asks after silent peers.
    pub keepalive: Option<Keepalive>,
    /// Whose network endpoints are dialled in.
    pub network: Network,
    /// Whether what goes to sidecars shares connections.
    pub sharing: Sharing,
}

/// Whether what goes from one sidecar to another shares a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Every request in flight and every opaque connection has one of its own.
    #[default]
    Never,
    /// Requests of HTTP/1.1 share one while there are many.
    WhenBusy,
    /// Requests of HTTP/1.1 do, and so do opaque connections.
    Always,
}

/// What is taken of one response, and buffered of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionBounds {
    /// Headers of a response.
    pub max_headers: usize,
    /// Header bytes of a response.
    pub max_header_bytes: u32,
    /// Bytes buffered of a connection.
    pub buffer_bytes: usize,
}

impl Default for ConnectionBounds {
    fn default() -> Self {
        ConnectionBounds {
            max_headers: DEFAULT_MAX_HEADERS,
            max_header_bytes: DEFAULT_MAX_HEADER_BYTES,
            buffer_bytes: DEFAULT_BUFFER_BYTES,
        }
    }
}

impl ClusterConfig {
    /// With Envoy's defaults.
    pub fn new(name: &str, discovery: Discovery) -> Self {
        ClusterConfig {
            name: name.into(),
            stat_name: None,
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
            bounds: ConnectionBounds::default(),
            sources: None,
            keepalive: None,
            network: Network::Sandbox,
            sharing: Sharing::Never,
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

impl Transport {
    /// Whether it is TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self, Transport::Tls(_))
    }
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
