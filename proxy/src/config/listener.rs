//! Listeners: where connections arrive, and by which filter chain each is served.

pub mod socket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use self::socket::SocketSettings;
use super::Network;
use super::access_log::AccessLogConfig;
use super::balancing::Criteria;
use super::filter::gate::Gate;
use super::http::HttpConfig;
use super::percent::Percent;
use super::route::WeightedClusters;
use super::tls::DownstreamTls;
use super::tunnel::TunnelConfig;
use super::upstream_socket::OriginalSource;
use crate::proxy_protocol::Version;

/// A listener.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerConfig {
    /// Its name.
    pub name: Arc<str>,
    /// Where it listens, or which destinations it stands for.
    pub addresses: Vec<SocketAddr>,
    /// How each of its sockets is made, in the order of the addresses; none: as usual.
    pub sockets: Vec<SocketSettings>,
    /// Whether connections that are for others are let in by the kernel (TPROXY): where each was going is then where
    /// it arrives.
    pub is_transparent: bool,
    /// Whether it has sockets of its own.
    pub binding: Binding,
    /// Whose network its sockets are in.
    pub network: Network,
    /// Which way its traffic goes, seen from the application.
    pub direction: Direction,
    /// Whether connections are handed on by where they were going before they were redirected.
    pub use_original_destination: bool,
    /// Whether connections come from a proxy that names their client (`proxy_protocol`).
    pub proxy_header: Option<ProxyHeader>,
    /// Whose address connections to upstreams are made from, where it is not the proxy's.
    pub original_source: Option<(OriginalSourceOf, OriginalSource)>,
    /// The most specific that matches is taken.
    pub filter_chains: Vec<FilterChain>,
    /// Taken where none matches.
    pub default_chain: Option<FilterChain>,
    /// Whether the first bytes are looked at for HTTP (`http_inspector`).
    pub inspect_http: bool,
    /// Whether the first bytes are looked at for TLS (`tls_inspector`).
    pub inspect_tls: bool,
    /// What statistics call it; none: by its first address.
    pub stat_name: Option<Arc<str>>,
    /// How many connections may be open.
    pub max_connections: Option<u64>,
    /// What of the overload manager it heeds.
    pub overload: OverloadPolicy,
    /// What is written about each of its connections, also about those that no chain is for.
    pub access_logs: Arc<[Arc<AccessLogConfig>]>,
}

/// What of the overload manager a listener heeds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OverloadPolicy {
    /// All of it.
    #[default]
    Heeded,
    /// All but the number of connections of the proxy: its own are not among them (`ignore_global_conn_limit`).
    Uncounted,
    /// Nothing (`bypass_overload_manager`).
    Bypassed,
}

impl ListenerConfig {
    /// Whether HTTP and opaque bytes may both arrive, in the clear, so that somebody must find out.
    pub fn needs_detection(&self) -> bool {
        let raw_http = self
            .chains()
            .any(|chain| chain.tls.is_none() && matches!(chain.filter, NetworkFilter::Http(_)));
        let raw_tcp = self
            .chains()
            .any(|chain| chain.tls.is_none() && matches!(chain.filter, NetworkFilter::Tcp(_)));
        raw_http && raw_tcp
    }

    /// All chains, the default one last.
    pub fn chains(&self) -> impl Iterator<Item = &FilterChain> {
        self.filter_chains.iter().chain(&self.default_chain)
    }
}

/// The PROXY header that connections begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Whether connections without one are served, too.
    pub is_optional: bool,
    /// Versions that are refused.
    pub disallowed: Vec<Version>,
    /// How long it may take.
    pub timeout: Option<Duration>,
}

impl ProxyHeader {
    /// Whether a header of this version is taken.
    pub fn allows(&self, version: Version) -> bool {
        !self.disallowed.contains(&version)
    }
}

/// Whose address connections to upstreams have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginalSourceOf {
    /// The client's, whom a PROXY header may have named.
    Client,
    /// Whoever made the connection, whatever its PROXY header says: that is read later.
    Peer,
}

/// Whether a listener has sockets of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// It binds its addresses.
    Bound,
    /// It is handed connections by a bound listener (`bind_to_port: false`).
    Virtual,
}

/// Which way traffic goes, seen from the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the application.
    Inbound,
    /// From it.
    Outbound,
}

/// How connections that match are served.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterChain {
    /// Its name; may be empty.
    pub name: Arc<str>,
    /// Which connections.
    pub matches: ChainMatch,
    /// TLS towards the client.
    pub tls: Option<Arc<DownstreamTls>>,
    /// What connections pass first, in order.
    pub gates: Vec<Gate>,
    /// What is inside.
    pub filter: NetworkFilter,
}

/// Which connections a chain is for; what is empty matches all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChainMatch {
    /// Where the connection was going.
    pub destination_port: Option<u16>,
    /// Where the connection was going.
    pub destination_prefixes: Vec<IpNet>,
    /// TLS or not.
    pub transport: Option<TransportProtocol>,
    /// One of these is offered by ALPN, or found by inspection (`http/1.1`, `h2c`).
    pub application_protocols: Vec<Arc<str>>,
    /// One of these is the name asked for.
    pub server_names: Vec<ServerNameMatch>,
    /// Who made the connection.
    pub direct_source_prefixes: Vec<IpNet>,
    /// Whether the client is on this machine.
    pub source_type: SourceType,
    /// The client, which a proxy before us may have named.
    pub source_prefixes: Vec<IpNet>,
    /// The client's port is one of these.
    pub source_ports: Vec<u16>,
}

impl ChainMatch {
    /// Whether there are connections of which neither is more to the point than the other: in each respect they name the same
    /// once, or both name nothing. As in Envoy, `10.0.0.0/8` and `10.0.0.0/16` are not the same.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.destination_port == other.destination_port
            && self.transport == other.transport
            && self.source_type == other.source_type
            && share_one(&self.destination_prefixes, &other.destination_prefixes)
            && share_one(&self.application_protocols, &other.application_protocols)
            && share_one(&self.server_names, &other.server_names)
            && share_one(&self.direct_source_prefixes, &other.direct_source_prefixes)
            && share_one(&self.source_prefixes, &other.source_prefixes)
            && share_one(&self.source_ports, &other.source_ports)
    }

    /// Whether something is named twice.
    pub fn repeats(&self) -> bool {
        has_twice(&self.destination_prefixes)
            || has_twice(&self.application_protocols)
            || has_twice(&self.server_names)
            || has_twice(&self.direct_source_prefixes)
            || has_twice(&self.source_prefixes)
            || has_twice(&self.source_ports)
    }
}

fn share_one<T: PartialEq>(one: &[T], other: &[T]) -> bool {
    (one.is_empty() && other.is_empty()) || one.iter().any(|item| other.contains(item))
}

fn has_twice<T: PartialEq>(list: &[T]) -> bool {
    let mut rest = list.iter().enumerate();
    rest.any(|(index, item)| list[..index].contains(item))
}

/// Whether a client is on this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SourceType {
    /// It does not matter.
    #[default]
    Any,
    /// It calls from loopback, or from the address that it calls.
    SameAddressOrLoopback,
    /// It is not.
    External,
}

/// Whether a connection begins with a TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportProtocol {
    /// It does.
    Tls,
    /// It does not (`raw_buffer`).
    Raw,
}

/// A name a TLS client asks for; lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerNameMatch {
    /// This one.
    Exact(Arc<str>),
    /// `*.example.com`: holds `.example.com`.
    Suffix(Arc<str>),
}

/// What is inside a connection.
#[derive(Debug, Clone, PartialEq)]
pub enum NetworkFilter {
    /// Requests.
    Http(Arc<HttpConfig>),
    /// Bytes.
    Tcp(Arc<TcpConfig>),
}

/// How bytes are proxied.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpConfig {
    /// A name for its counters.
    pub stat_prefix: Arc<str>,
    /// Where they go.
    pub target: TcpTarget,
    /// Bytes that are buffered of a connection, each way.
    pub buffer_bytes: usize,
    /// How long a connection may be silent.
    pub idle_timeout: Option<Duration>,
    /// How long a connection may last, and by which share of that at most it lasts longer, drawn for each.
    pub longest: Option<(Duration, Percent)>,
    /// What labels the endpoint must have.
    pub subset: Option<Arc<Criteria>>,
    /// Whether connections of one client go to one endpoint, where the cluster hashes.
    pub hashes_source: bool,
    /// How the bytes are carried in HTTP, where they are.
    pub tunnel: Option<Arc<TunnelConfig>>,
    /// What is written about each connection.
    pub access_logs: Arc<[Arc<AccessLogConfig>]>,
}

/// Where bytes go.
#[derive(Debug, Clone, PartialEq)]
pub enum TcpTarget {
    /// To this cluster.
    Cluster(Arc<str>),
    /// To one of these.
    Weighted(WeightedClusters),
}
