//! Who called whom, as labels: the words that metrics have for the ends of an exchange.
//!
//! Spelled out here, and only here. Every label has a bounded set of values: methods are the known ones, what is
//! not known is `unknown`, so that sums over a label stay sums.

use http::Method;
use weft_proto::spiffe::SpiffeId;

use super::report::{Downstream, Upstream};
use crate::config::Workload;
use crate::config::listener::Direction;

/// What is not known.
const UNKNOWN: &str = "unknown";

/// The two ends of an exchange, as labels.
pub(super) struct Peers<'report> {
    pub(super) reporter: &'static str,
    pub(super) source_workload: &'report str,
    pub(super) source_namespace: &'report str,
    pub(super) source_principal: &'report str,
    pub(super) destination_workload: &'report str,
    pub(super) destination_namespace: &'report str,
}

impl<'report> Peers<'report> {
    pub(super) fn of(
        downstream: &'report Downstream,
        upstream: Option<&'report Upstream>,
        own: &'report Workload,
        principal: Option<&'report str>,
    ) -> Self {
        match downstream.direction {
            Direction::Outbound => Self::from_source(upstream, own, principal),
            Direction::Inbound => Self::from_destination(downstream, own),
        }
    }

    fn from_source(
        upstream: Option<&'report Upstream>,
        own: &'report Workload,
        principal: Option<&'report str>,
    ) -> Self {
        let is_mutual = upstream.is_some_and(|upstream| upstream.is_mutual_tls);
        Self {
            reporter: "source",
            source_workload: known(&own.name),
            source_namespace: known(&own.namespace),
            source_principal: principal.filter(|_| is_mutual).unwrap_or(UNKNOWN),
            destination_workload: upstream
                .map_or(UNKNOWN, |upstream| known(&upstream.workload.name)),
            destination_namespace: upstream
                .map_or(UNKNOWN, |upstream| known(&upstream.workload.namespace)),
        }
    }

    /// A caller is known by its certificate alone: its service account is named as its workload.
    fn from_destination(downstream: &'report Downstream, own: &'report Workload) -> Self {
        let principal = downstream.principal.as_deref();
        let (namespace, account) = principal
            .and_then(namespace_and_account)
            .unwrap_or((UNKNOWN, UNKNOWN));
        Self {
            reporter: "destination",
            source_workload: account,
            source_namespace: namespace,
            source_principal: principal.unwrap_or(UNKNOWN),
            destination_workload: known(&own.name),
            destination_namespace: known(&own.namespace),
        }
    }
}

fn known(text: &str) -> &str {
    if text.is_empty() { UNKNOWN } else { text }
}

/// The service as it was called: as discovery says, else from the cluster's name.
pub(super) fn destination_service<'report>(
    direction: Direction,
    upstream: Option<&'report Upstream>,
    cluster: Option<&'report str>,
    own: &'report Workload,
) -> &'report str {
    if direction == Direction::Inbound {
        return known(&own.service);
    }
    let discovered = upstream.map(|upstream| &*upstream.workload.service);
    match discovered.filter(|service| !service.is_empty()) {
        Some(service) => service,
        None => cluster.map_or(UNKNOWN, service_of_cluster),
    }
}

/// `reviews` of `outbound|9080||reviews.default`; another name stands for itself.
fn service_of_cluster(cluster: &str) -> &str {
    match cluster.rsplit_once("||") {
        Some((_, host)) => host.split_once('.').map_or(host, |(service, _)| service),
        None => cluster,
    }
}

/// Namespace and service account of a SPIFFE id, borrowed from it.
fn namespace_and_account(principal: &str) -> Option<(&str, &str)> {
    principal.parse::<SpiffeId>().ok()?;
    let mut segments = principal.rsplit('/');
    let account = segments.next()?;
    let namespace = segments.nth(1)?;
    Some((namespace, account))
}

/// The methods of RFC 9110 and RFC 5789; what a client invents is `OTHER`.
pub(super) fn known_method(method: &Method) -> &str {
    match *method {
        Method::GET
        | Method::HEAD
        | Method::POST
        | Method::PUT
        | Method::DELETE
        | Method::CONNECT
        | Method::OPTIONS
        | Method::TRACE
        | Method::PATCH => method.as_str(),
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_found_in_the_name_of_its_cluster() {
        assert_eq!(
            service_of_cluster("outbound|9080||reviews.default"),
            "reviews"
        );
        assert_eq!(service_of_cluster("passthrough"), "passthrough");
    }

    #[test]
    fn a_principal_is_taken_apart_only_where_it_is_a_workloads() {
        let account = namespace_and_account("spiffe://cluster.local/ns/shop/sa/cart");

        assert_eq!(account, Some(("shop", "cart")));
        assert_eq!(
            namespace_and_account("spiffe://cluster.local/gateway"),
            None
        );
    }
}
