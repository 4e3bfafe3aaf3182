//! What rate limits count by: descriptors, made from requests as routes and filters say.

use std::sync::Arc;

use http::HeaderName;
use ipnet::IpNet;

use crate::config::matching::HeaderMatch;
use crate::config::metadata::MetadataPath;
use crate::config::route::QueryMatch;
use crate::telemetry::access_log::format::Template;

/// What a route says to rate limits.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RouteLimits {
    /// Of the route itself.
    pub route: Arc<[LimitRule]>,
    /// Of its host.
    pub host: Arc<[LimitRule]>,
    /// Whether the host's hold beside the route's.
    pub includes_host: bool,
}

/// Whether the rules of the host hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostRules {
    /// Where the route has none of its own.
    #[default]
    Override,
    /// Beside the route's.
    Include,
    /// Never.
    Ignore,
}

/// One descriptor.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitRule {
    /// Which filters look at it: those of the same stage.
    pub stage: u32,
    /// Its entries, in order. One that cannot be made unmakes the descriptor.
    pub entries: Vec<EntrySource>,
    /// How much a request counts; 1 where nothing is said.
    pub hits: Option<Hits>,
    /// Another limit than the service's.
    pub limit: Option<LimitOverride>,
}

/// How much a request counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Hits {
    /// The number.
    pub amount: HitsAmount,
    /// Whether it is given back rather than taken.
    pub is_negative: bool,
}

/// Where the number comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum HitsAmount {
    /// It is this.
    Number(u64),
    /// What operators come to; where that is no number, there is no descriptor.
    Formatted(Template),
}

/// Another limit than the service's.
#[derive(Debug, Clone, PartialEq)]
pub enum LimitOverride {
    /// Requests for each unit.
    Fixed(u32, i32),
    /// An object with `requests_per_unit` and `unit` that filters have put there.
    Metadata(MetadataPath),
}

/// Where an entry's key and value come from.
#[derive(Debug, Clone, PartialEq)]
pub struct EntrySource {
    /// The key.
    pub key: Arc<str>,
    /// The value.
    pub value: ValueSource,
    /// What becomes of the descriptor where there is no value.
    pub absent: Absent,
}

/// What becomes of a descriptor where an entry has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absent {
    /// There is none.
    NoDescriptor,
    /// It has one entry less.
    NoEntry,
    /// The entry has this value.
    Default(Arc<str>),
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueSource {
    /// It is this.
    Literal(Arc<str>),
    /// The peer's verified identity (`%DOWNSTREAM_PEER_URI_SAN%`).
    PeerIdentity,
    /// The cluster of the route.
    DestinationCluster,
    /// The cluster that the proxy's own node says it is of.
    SourceCluster,
    /// A header.
    Header(HeaderName),
    /// `:method`.
    Method,
    /// `:scheme`.
    Scheme,
    /// `:path`, with the query.
    Path,
    /// `:authority`.
    Authority,
    /// A parameter of the query.
    Query(Arc<str>),
    /// The client's address.
    ClientIp,
    /// The client's network, by these lengths of IPv4 and IPv6 prefixes.
    ClientNetwork(u8, u8),
    /// This, where the headers match as expected.
    HeadersMatch {
        /// The value.
        value: Arc<str>,
        /// Whether they are to match.
        expected: bool,
        /// The tests.
        headers: Vec<HeaderMatch>,
    },
    /// This, where the query matches as expected.
    QueryMatches {
        /// The value.
        value: Arc<str>,
        /// Whether it is to match.
        expected: bool,
        /// The tests.
        query: Vec<QueryMatch>,
    },
    /// This, where the client is in one of the networks, or in none.
    ClientIn {
        /// The value; operators may stand in it.
        value: Template,
        /// The networks.
        networks: Vec<IpNet>,
        /// Whether the client is to be in none.
        invert: bool,
    },
    /// A value that filters have put there.
    Metadata(MetadataPath),
    /// A value of the route's own metadata.
    RouteMetadata(MetadataPath),
}
