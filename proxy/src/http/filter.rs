//! The filters of a request, in their configured order; on the way back, the other way round.
//!
//! `exchange` lets a request pass them once its route is known. A filter can answer, wait, change the request's head
//! and wrap its body, put values into its metadata, and leave behind what is to be done with the response. One file
//! for each filter; how one is added is told in `docs/contributing/add-a-filter.md`.

mod adaptive_concurrency;
mod bandwidth_limit;
mod buffer;
mod call;
mod compression;
mod cors;
mod csrf;
mod descriptors;
mod ext_authz;
mod fault;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod grpc_web;
mod header_mutation;
mod header_to_metadata;
mod health_check;
mod jwt_authn;
mod local_ratelimit;
mod rate;
mod ratelimit;
mod rbac;
mod stateful_session;
mod trailers;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Response};

use super::body::Source;
use super::completion::Completion;
use super::failure::Failure;
use super::headers::Head;
use super::target::Destination;
use super::{HttpConnection, Scene};
use crate::cluster::Session;
use crate::config::filter::{FilterKind, FilterOverride, FilterOverrides, RouteFilter};
use crate::config::matching::RequestLine;
use crate::config::upstream_socket::ClientSource;
use crate::random;
use crate::snapshot::routes::{RequestFacts, Selected};
use crate::upstream::body::client::ClientBody;

/// A request among its filters: what they may look at, and what they may change.
pub(super) struct Passing<'a> {
    pub(super) connection: &'a HttpConnection,
    pub(super) scene: &'a Scene,
    /// Where it belongs; `None`: nowhere, which the caller will be told after the filters.
    pub(super) selected: Option<Selected<'a>>,
    /// Where it goes, where its route leads to a cluster.
    pub(super) destination: Option<&'a Destination<'a>>,
    pub(super) head: &'a mut Head,
    pub(super) body: &'a mut ClientBody,
    pub(super) completion: &'a mut Completion,
    /// What is kept until the response.
    pub(super) passage: &'a mut Passage,
}

/// What filters have left behind for the rest of the exchange.
#[derive(Default)]
pub(super) struct Passage {
    on_response: Vec<OnResponse>,
    /// Whether the route is to be chosen anew, because what it depends on has changed.
    pub(super) is_rerouted: bool,
    /// The endpoint of the request's session.
    pub(super) session: Option<Session>,
    /// The client whose address the connection to the upstream is to have.
    pub(super) source: Option<ClientSource>,
}

/// What a filter does with the response.
type OnResponse = Box<dyn FnOnce(&mut Returning<'_>) + Send>;

/// A response among the filters on its way back.
pub(super) struct Returning<'a> {
    pub(super) response: &'a mut Response<Source>,
    pub(super) completion: &'a mut Completion,
}

impl Passage {
    /// Keeps something to be done with the response, whoever makes it.
    pub(super) fn on_response(&mut self, act: impl FnOnce(&mut Returning<'_>) + Send + 'static) {
        self.on_response.push(Box::new(act));
    }

    /// Lets a response pass; the filter nearest to the upstream goes first.
    pub(super) fn back(self, response: &mut Response<Source>, completion: &mut Completion) {
        for act in self.on_response.into_iter().rev() {
            act(&mut Returning {
                response,
                completion,
            });
        }
    }
}

/// What is said where there is no route to say anything.
static NOTHING_SAID: FilterOverrides = FilterOverrides::new();

/// What the route says to filters.
pub(super) fn overrides<'a>(
    selected: Option<Selected<'a>>,
    destination: Option<&Destination<'a>>,
) -> &'a FilterOverrides {
    let weighted = destination.and_then(|destination| destination.weighted);
    match (weighted, selected) {
        (Some(weighted), _) => &weighted.filters,
        (None, Some(selected)) => &selected.route.filters,
        (None, None) => &NOTHING_SAID,
    }
}

impl Passing<'_> {
    /// What the route says to filters.
    pub(super) fn overrides(&self) -> &FilterOverrides {
        overrides(self.selected, self.destination)
    }

    /// Method, path, authority and scheme.
    pub(super) fn line(&self) -> RequestLine<'_> {
        self.head.line()
    }

    /// The counters' name of the chain.
    pub(super) fn stat_prefix(&self) -> &str {
        &self.scene.service.config.stat_prefix
    }
}

/// What of a request decides which rule is for it.
fn request_facts<'a>(passing: &'a Passing<'_>) -> RequestFacts<'a> {
    RequestFacts {
        line: passing.line(),
        headers: &passing.head.headers,
        drawn: random::draw(),
        is_authenticated: passing.connection.downstream.principal.is_some(),
        metadata: passing.completion.metadata(),
    }
}

/// The name of a counter after its prefix, with one dot between them.
fn joined(prefix: &str, name: &str) -> String {
    // A name may end with a dot of its own, as Envoy's may.
    match (prefix, name.trim_end_matches('.')) {
        (prefix, "") => prefix.to_owned(),
        (prefix, name) if prefix.ends_with('.') => format!("{prefix}{name}."),
        (prefix, name) => format!("{prefix}.{name}."),
    }
}

/// Headers as fields, one for each value.
fn fields(headers: HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let mut fields = Vec::with_capacity(headers.len());
    let mut last = None;
    for (name, value) in headers {
        last = name.or(last);
        if let Some(name) = &last {
            fields.push((name.clone(), value));
        }
    }
    fields
}

/// Lets a request pass all filters, until one answers it.
pub(super) async fn pass(passing: &mut Passing<'_>) -> Result<(), Failure> {
    let filters = Arc::clone(&passing.scene.service.filters);
    let overrides = overrides(passing.selected, passing.destination);
    for filter in &*filters {
        let said = overrides.of(&filter.name);
        let own = match said {
            Some(FilterOverride::Disabled) => continue,
            Some(FilterOverride::Configured(own)) => Some(own),
            Some(FilterOverride::Enabled) => None,
            None if filter.is_disabled => continue,
            None => None,
        };
        let passed = pass_one(&filter.kind, own, passing).await;
        if passed.is_err() {
            // As in Envoy: an answer given before it does not escape a filter that changes every response.
            header_mutation::skipped(&filters, &filter.name, overrides, passing);
            return passed;
        }
    }
    Ok(())
}

/// Lets a request pass a filter. What waits seldom is boxed there, so that the wait costs nobody else.
async fn pass_one(
    filter: &FilterKind,
    own: Option<&RouteFilter>,
    passing: &mut Passing<'_>,
) -> Result<(), Failure> {
    match (filter, own) {
        (FilterKind::Rbac(config), Some(RouteFilter::Rbac(own))) => {
            rbac::request(config, own, passing)
        }
        (FilterKind::Rbac(config), _) => rbac::request(config, config, passing),
        (_, Some(RouteFilter::LocalRateLimit(own))) => local_ratelimit::request(own, passing),
        (FilterKind::LocalRateLimit(config), _) => local_ratelimit::request(config, passing),
        (FilterKind::Cors(live), _) => cors::request(live, passing),
        (FilterKind::Csrf(config), own) => {
            let own = match own {
                Some(RouteFilter::Csrf(own)) => own,
                _ => &config.policy,
            };
            csrf::request(config, own, passing)
        }
        (FilterKind::HeaderMutation(config), own) => {
            header_mutation::request(config, own, passing);
            Ok(())
        }
        (FilterKind::HeaderToMetadata(config), own) => {
            let own = match own {
                Some(RouteFilter::HeaderToMetadata(own)) => own,
                _ => config,
            };
            header_to_metadata::request(own, passing);
            Ok(())
        }
        (FilterKind::Buffer(config), own) => {
            let own = match own {
                Some(RouteFilter::Buffer(own)) => own,
                _ => config,
            };
            Box::pin(buffer::request(own, passing)).await
        }
        (FilterKind::ExtAuthz(config), own) => {
            let own = match own {
                Some(RouteFilter::ExtAuthz(own)) => Some(&**own),
                _ => None,
            };
            Box::pin(ext_authz::request(config, own, passing)).await
        }
        (FilterKind::Compressor(config), _) => {
            compression::compress(config, passing);
            Ok(())
        }
        (FilterKind::Decompressor(config), _) => {
            compression::decompress(config, passing);
            Ok(())
        }
        (FilterKind::BandwidthLimit(config), own) => {
            let own = match own {
                Some(RouteFilter::BandwidthLimit(own)) => own,
                _ => config,
            };
            bandwidth_limit::request(own, passing);
            Ok(())
        }
        (FilterKind::AdaptiveConcurrency(config), _) => {
            adaptive_concurrency::request(config, passing)
        }
        (FilterKind::Nothing, _) => Ok(()),
        (FilterKind::GrpcWeb, _) => {
            grpc_web::request(passing);
            Ok(())
        }
        (FilterKind::JwtAuthn(config), own) => {
            let own = match own {
                Some(RouteFilter::JwtAuthn(own)) => Some(&**own),
                _ => None,
            };
            Box::pin(jwt_authn::request(config, own, passing)).await
        }
        (FilterKind::RateLimit(config), own) => {
            let own = match own {
                Some(RouteFilter::RateLimit(own)) => Some(&**own),
                _ => None,
            };
            Box::pin(ratelimit::request(config, own, passing)).await
        }
        (FilterKind::StatefulSession(config), own) => {
            let own = match own {
                Some(RouteFilter::StatefulSession(own)) => own,
                _ => config,
            };
            stateful_session::request(own, passing);
            Ok(())
        }
        (FilterKind::HealthCheck(config), _) => health_check::request(config, passing),
        (FilterKind::OriginalSource(config), _) => {
            let client = passing.completion.client();
            passing.passage.source = client.map(|client| config.of(client));
            Ok(())
        }
        (FilterKind::Fault(chain), Some(RouteFilter::Fault(own))) => {
            fault::request(chain, own, passing).await
        }
        (FilterKind::Fault(chain), _) => fault::request(chain, chain, passing).await,
    }
}
