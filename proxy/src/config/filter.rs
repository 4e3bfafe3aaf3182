//! The HTTP filters of a chain, and what routes say to them.
//!
//! One variant of [`FilterKind`] for each filter, with its configuration in a file of `config/filter/`. A filter
//! that routes can configure has a variant of [`RouteFilter`], too. How one is added is told in
//! `docs/contributing/add-a-filter.md`.

pub mod adaptive_concurrency;
pub mod bandwidth_limit;
pub mod buffer;
pub mod compression;
pub mod cors;
pub mod csrf;
pub mod ext_authz;
pub mod gate;
pub mod header_mutation;
pub mod header_to_metadata;
pub mod health_check;
pub mod jwt_authn;
pub mod live;
pub mod local_ratelimit;
pub mod rate_limits;
pub mod ratelimit;
pub mod rbac;
pub mod service;
pub mod stateful_session;

use std::sync::{Arc, LazyLock};

use self::adaptive_concurrency::AdaptiveConcurrencyConfig;
use self::bandwidth_limit::BandwidthLimitConfig;
use self::buffer::BufferConfig;
use self::compression::{CompressorConfig, DecompressorConfig};
use self::cors::CorsPolicy;
use self::csrf::{CsrfConfig, CsrfPolicy};
use self::ext_authz::{AuthzOverride, ExtAuthzConfig};
use self::header_mutation::{HeaderMutationConfig, Mutations};
use self::header_to_metadata::HeaderToMetadataConfig;
use self::health_check::HealthCheckConfig;
use self::jwt_authn::{JwtAuthnConfig, JwtOverride};
use self::live::Live;
use self::local_ratelimit::LocalRateLimitConfig;
use self::rate_limits::RouteLimits;
use self::ratelimit::{RateLimitConfig, RateLimitOverride};
use self::rbac::RbacConfig;
use self::stateful_session::StatefulSessionConfig;
use super::fault::FaultConfig;
use super::metadata::Metadata;
use super::upstream_socket::OriginalSource;

/// A filter that every request passes, unless it is switched off.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpFilter {
    /// The name by which routes configure it.
    pub name: Arc<str>,
    /// Whether it is passed only where a route says so.
    pub is_disabled: bool,
    /// What it does.
    pub kind: FilterKind,
}

/// What a filter does.
#[derive(Debug, Clone, PartialEq)]
pub enum FilterKind {
    /// Injects faults; an empty one has effect only where a route says so.
    Fault(Arc<FaultConfig>),
    /// Says who may do what.
    Rbac(Arc<RbacConfig>),
    /// Limits the rate of requests.
    LocalRateLimit(Arc<LocalRateLimitConfig>),
    /// Answers preflights, and tells browsers what they may see.
    Cors(Live),
    /// Refuses changes that pages of other origins ask for.
    Csrf(Arc<CsrfConfig>),
    /// Changes headers.
    HeaderMutation(Arc<HeaderMutationConfig>),
    /// Puts headers into metadata.
    HeaderToMetadata(Arc<HeaderToMetadataConfig>),
    /// Waits for the whole request.
    Buffer(Arc<BufferConfig>),
    /// Answers health checks.
    HealthCheck(Arc<HealthCheckConfig>),
    /// Asks a service whether a request may pass.
    ExtAuthz(Arc<ExtAuthzConfig>),
    /// Compresses bodies.
    Compressor(Arc<CompressorConfig>),
    /// Decompresses them.
    Decompressor(Arc<DecompressorConfig>),
    /// Slows bodies down.
    BandwidthLimit(Arc<BandwidthLimitConfig>),
    /// Lets as many through as the upstream bears.
    AdaptiveConcurrency(Arc<AdaptiveConcurrencyConfig>),
    /// Does nothing: it is switched off for good.
    Nothing,
    /// Makes gRPC of gRPC-Web.
    GrpcWeb,
    /// Verifies JSON web tokens.
    JwtAuthn(Arc<JwtAuthnConfig>),
    /// Asks a service whether it is within its limits.
    RateLimit(Arc<RateLimitConfig>),
    /// Keeps sessions at one endpoint.
    StatefulSession(Arc<StatefulSessionConfig>),
    /// Has connections to the upstream made from the client's address.
    OriginalSource(OriginalSource),
}

/// What a part of the routes says to one filter.
#[derive(Debug, Clone, PartialEq)]
pub enum FilterOverride {
    /// It is not passed.
    Disabled,
    /// It is passed, configured as the chain says.
    Enabled,
    /// It is passed, configured so.
    Configured(RouteFilter),
}

/// A filter's configuration for a part of the routes.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteFilter {
    /// Other faults.
    Fault(Arc<FaultConfig>),
    /// Other rules.
    Rbac(Arc<RbacConfig>),
    /// Another limit.
    LocalRateLimit(Arc<LocalRateLimitConfig>),
    /// Another policy.
    Csrf(Arc<CsrfPolicy>),
    /// More changes, of the innermost part first.
    HeaderMutation(Vec<Arc<Mutations>>),
    /// Other headers.
    HeaderToMetadata(Arc<HeaderToMetadataConfig>),
    /// Another bound.
    Buffer(Arc<BufferConfig>),
    /// Another speed.
    BandwidthLimit(Arc<BandwidthLimitConfig>),
    /// Another requirement.
    JwtAuthn(Arc<JwtOverride>),
    /// More to be said.
    ExtAuthz(Arc<AuthzOverride>),
    /// Other rules.
    RateLimit(Arc<RateLimitOverride>),
    /// Told elsewhere.
    StatefulSession(Arc<StatefulSessionConfig>),
}

/// What a part of the routes says to filters.
///
/// A route's holds what its host says, too, and a weighted cluster's what its route says, so that a request looks
/// in one place: [`FilterOverrides::inherit`] sees to that once, when the routes are taken.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FilterOverrides {
    by_name: Vec<(Arc<str>, FilterOverride)>,
    /// The policy for callers of other origins.
    pub cors: Option<Arc<CorsPolicy>>,
    /// What rate limits count by.
    limits: Option<Arc<RouteLimits>>,
    /// What is said about the route itself.
    metadata: Option<Arc<Metadata>>,
}

static NO_LIMITS: LazyLock<RouteLimits> = LazyLock::new(RouteLimits::default);
static NO_METADATA: Metadata = Metadata::new();

impl FilterOverrides {
    /// Nothing is said.
    pub const fn new() -> Self {
        FilterOverrides {
            by_name: vec![],
            cors: None,
            limits: None,
            metadata: None,
        }
    }

    /// What is said to a filter.
    pub fn of(&self, filter: &str) -> Option<&FilterOverride> {
        let (_, said) = self.by_name.iter().find(|(name, _)| &**name == filter)?;
        Some(said)
    }

    /// Says something to a filter, in place of what has been said to it.
    pub fn set(&mut self, filter: Arc<str>, said: FilterOverride) {
        self.by_name.retain(|(name, _)| *name != filter);
        self.by_name.push((filter, said));
    }

    /// What rate limits count by.
    pub fn rate_limits(&self) -> &RouteLimits {
        self.limits.as_deref().unwrap_or(&NO_LIMITS)
    }

    /// Says what rate limits count by.
    pub fn limit_by(&mut self, limits: RouteLimits) {
        self.limits = (limits != RouteLimits::default()).then(|| Arc::new(limits));
    }

    /// What is said about the route itself.
    pub fn metadata(&self) -> &Metadata {
        self.metadata.as_deref().unwrap_or(&NO_METADATA)
    }

    /// The same, to be kept; none where nothing is said.
    pub fn shared_metadata(&self) -> Option<&Arc<Metadata>> {
        self.metadata.as_ref()
    }

    /// Says something about the route itself.
    pub fn describe(&mut self, metadata: Metadata) {
        self.metadata = (!metadata.is_empty()).then(|| Arc::new(metadata));
    }

    /// Adds what the surrounding part of the routes says and this one does not.
    pub fn inherit(&mut self, outer: &FilterOverrides) {
        for (filter, said) in &outer.by_name {
            let position = self.by_name.iter().position(|(name, _)| name == filter);
            match position.map(|position| &mut self.by_name[position].1) {
                Some(own) => own.inherit(said),
                None => self.by_name.push((Arc::clone(filter), said.clone())),
            }
        }
        self.cors = match (self.cors.take(), &outer.cors) {
            (Some(own), Some(outer)) => Some(Arc::new(own.completed_by(outer))),
            (own, outer) => own.or_else(|| outer.clone()),
        };
    }

    /// Says of a weighted cluster what is said of its route.
    pub fn belong_to(&mut self, route: &FilterOverrides) {
        self.inherit(route);
        self.limits.clone_from(&route.limits);
        self.metadata.clone_from(&route.metadata);
    }
}

impl FilterOverride {
    /// Most filters take the innermost configuration alone.
    fn inherit(&mut self, outer: &FilterOverride) {
        let (FilterOverride::Configured(own), FilterOverride::Configured(outer)) = (self, outer)
        else {
            return;
        };
        match (own, outer) {
            (RouteFilter::HeaderMutation(own), RouteFilter::HeaderMutation(outer)) => {
                own.extend(outer.iter().cloned());
            }
            (RouteFilter::ExtAuthz(own), RouteFilter::ExtAuthz(outer)) => {
                Arc::make_mut(own).inherit(outer);
            }
            _ => {}
        }
    }
}

/// The filters of a chain, each with what lives of its predecessor where that was configured alike.
pub fn carried_over(filters: &[HttpFilter], before: &[HttpFilter]) -> Arc<[HttpFilter]> {
    filters
        .iter()
        .map(|filter| {
            before
                .iter()
                .find(|before| *before == filter)
                .unwrap_or(filter)
                .clone()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_closest_to_the_route_counts() {
        let mut host = FilterOverrides::default();
        host.set("a".into(), FilterOverride::Disabled);
        host.set("b".into(), FilterOverride::Disabled);
        let mut route = FilterOverrides::default();
        route.set("a".into(), FilterOverride::Enabled);

        route.inherit(&host);

        assert_eq!(route.of("a"), Some(&FilterOverride::Enabled));
        assert_eq!(route.of("b"), Some(&FilterOverride::Disabled));
        assert_eq!(route.of("c"), None);
    }

    #[test]
    fn a_filter_that_is_configured_alike_stays_the_same() {
        let filter = || HttpFilter {
            name: "fault".into(),
            is_disabled: false,
            kind: FilterKind::Fault(Arc::default()),
        };
        let before = [filter()];

        let after = carried_over(&[filter()], &before);

        let (FilterKind::Fault(one), FilterKind::Fault(other)) = (&before[0].kind, &after[0].kind)
        else {
            panic!("another filter");
        };
        assert!(Arc::ptr_eq(one, other));
    }
}
