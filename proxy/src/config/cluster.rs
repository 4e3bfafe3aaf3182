//! Clusters: endpoints that stand for each other, and how they are used.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Network;
use super::endpoints::EndpointsConfig;
use super::http::Http2Options;
use super::matching::TextMatch;
use super::percent::Percent;

/// A cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterConfig {
    /// Its name.
    pub name: Arc<str>,
    /// How its endpoints are found.
    pub discovery: Discovery,
    /// How one is chosen.
    pub balancer: Balancer,
    /// How long a connection may take to be made, TLS included.
    pub connect_timeout: Duration,
    /// What may be in flight.
    pub breakers: Thresholds,
    /// When an endpoint is taken out.
    pub outlier_detection: Option<OutlierDetection>,
    /// Below this share of healthy endpoints all are used (Envoy's panic threshold).
    pub panic_threshold: Percent,
    /// The first whose labels the endpoint has.
    pub transport_matches: Vec<TransportMatch>,
    /// Where none matches.
    pub transport: Transport,
    /// What is spoken upstream.
    pub protocol: UpstreamProtocol,
    /// HTTP/2 of the upstream side.
    pub http2: Http2Options,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// How many requests a connection may carry.
    pub max_requests_per_connection: Option<u32>,
    /// What connections are made from: the first of the endpoint's address family.
    pub source_addresses: Vec<IpAddr>,
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
            connect_timeout: Duration::from_secs(5),
            breakers: Thresholds::default(),
            outlier_detection: None,
            panic_threshold: Percent::of(50),
            transport_matches: vec![],
            transport: Transport::Plaintext,
            protocol: UpstreamProtocol::Http1,
            http2: Http2Options::default(),
            idle_timeout: Duration::from_secs(3600),
            max_requests_per_connection: None,
            source_addresses: vec![],
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
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balancer {
    /// In turn, by weight.
    RoundRobin,
    /// The least busy of some drawn by weight.
    LeastRequest {
        /// How many are drawn; at least two.
        choice_count: u32,
    },
    /// By weight.
    Random,
}

/// What may be in flight at once (Envoy's circuit breakers, default priority).
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
    /// How often ejections are forgotten, one at a time, where there are no new ones.
    pub interval: Duration,
    /// The first ejection; the n-th in a row is n times as long.
    pub base_ejection_time: Duration,
    /// The longest.
    pub max_ejection_time: Duration,
    /// At most this share of the endpoints is out at a time; one may always be.
    pub max_ejection_percent: Percent,
}

impl Default for OutlierDetection {
    /// Envoy's.
    fn default() -> Self {
        OutlierDetection {
            consecutive_5xx: 5,
            consecutive_gateway_failure: 0,
            consecutive_local_origin_failure: 5,
            split_local_origin: false,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: Percent::of(10),
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
    /// TLS with the workload's own identity.
    Tls(Arc<UpstreamTls>),
}

/// TLS towards an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamTls {
    /// Which identities are accepted; one must match one of the certificate's. Empty: every valid one.
    pub peer_identities: Vec<TextMatch>,
    /// The name asked for; none: the endpoint's address, which is not sent.
    pub sni: Option<Arc<str>>,
    /// Offered for opaque bytes. For HTTP the version that is spoken is offered.
    pub alpn: Vec<Arc<str>>,
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
