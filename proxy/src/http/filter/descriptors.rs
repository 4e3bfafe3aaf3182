//! Descriptors: what rate limits count a request by.

use std::borrow::Cow;
use std::net::IpAddr;

use http::HeaderValue;
use ipnet::IpNet;
use serde_json::Value;
use weft_proto::envoy::r#type::v3::RateLimitUnit;

use super::Passing;
use super::rbac::client;
use crate::config::filter::rate_limits::{
    Absent, EntrySource, HitsAmount, HostRules, LimitOverride, LimitRule, RouteLimits, ValueSource,
};
use crate::http::formatting;
use crate::snapshot::routes::matches::is_query_match;
use crate::telemetry::access_log::format::Template;

/// One descriptor of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Descriptor {
    /// Keys and values.
    pub(super) entries: Vec<(String, String)>,
    /// How much the request counts.
    pub(super) hits: Option<u64>,
    /// Whether that is given back rather than taken.
    pub(super) is_given_back: bool,
    /// Another limit than the service's.
    pub(super) limit: Option<(u32, i32)>,
}

/// The descriptors that rules make of a request; those of a stage, where the rules are not the filter's own.
pub(super) fn descriptors<'a>(
    rules: impl Iterator<Item = &'a LimitRule>,
    stage: Option<u32>,
    passing: &Passing<'_>,
) -> Vec<Descriptor> {
    rules
        .filter(|rule| stage.is_none_or(|stage| rule.stage == stage))
        .filter_map(|rule| descriptor(rule, passing))
        .collect()
}

fn descriptor(rule: &LimitRule, passing: &Passing<'_>) -> Option<Descriptor> {
    let hits = match rule.hits.as_ref().map(|hits| &hits.amount) {
        None => None,
        Some(HitsAmount::Number(number)) => Some(*number),
        Some(HitsAmount::Formatted(template)) => Some(formatted(template, passing).parse().ok()?),
    };
    Some(Descriptor {
        entries: entries(&rule.entries, passing)?,
        hits,
        is_given_back: rule.hits.as_ref().is_some_and(|hits| hits.is_negative),
        limit: rule.limit.as_ref().and_then(|limit| over(limit, passing)),
    })
}

/// Another limit than the service's, where it is told whole.
fn over(limit: &LimitOverride, passing: &Passing<'_>) -> Option<(u32, i32)> {
    let path = match limit {
        LimitOverride::Fixed(requests, unit) => return Some((*requests, *unit)),
        LimitOverride::Metadata(path) => path,
    };
    let told = path.of(passing.completion.metadata())?;
    let requests = told.get("requests_per_unit")?.as_f64()?;
    let unit = RateLimitUnit::from_str_name(told.get("unit")?.as_str()?)?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "as Envoy takes numbers; a cast of floats saturates"
    )]
    let requests = requests as u32;
    Some((requests, unit.into()))
}

fn formatted(template: &Template, passing: &Passing<'_>) -> String {
    formatting::request_text(template, passing.head, passing.completion)
}

/// The rules that hold for a route, where the filter has none of its own.
pub(super) fn of_route(
    limits: &RouteLimits,
    host_rules: HostRules,
) -> impl Iterator<Item = &LimitRule> {
    let takes_host = match host_rules {
        _ if limits.includes_host => true,
        HostRules::Include => true,
        HostRules::Override => limits.route.is_empty(),
        HostRules::Ignore => false,
    };
    let host = if takes_host { &limits.host[..] } else { &[] };
    limits.route.iter().chain(host)
}

/// As in Envoy, a descriptor without any entry is one, too.
fn entries(sources: &[EntrySource], passing: &Passing<'_>) -> Option<Vec<(String, String)>> {
    let mut entries = Vec::with_capacity(sources.len());
    for source in sources {
        if is_elsewhere(&source.value, passing) {
            return None;
        }
        let may_be_empty = matches!(source.value, ValueSource::Header(_) | ValueSource::Query(_));
        let value = value(&source.value, passing);
        let value = value.filter(|value| may_be_empty || !value.is_empty());
        let value = match (value, &source.absent) {
            (Some(value), _) => value.into_owned(),
            (None, Absent::Default(value)) => value.to_string(),
            (None, Absent::NoEntry) => continue,
            (None, Absent::NoDescriptor) => return None,
        };
        entries.push((source.key.to_string(), value));
    }
    Some(entries)
}

/// Whether an entry is for clients of other networks: then there is no default value either.
fn is_elsewhere(source: &ValueSource, passing: &Passing<'_>) -> bool {
    let ValueSource::ClientIn {
        networks, invert, ..
    } = source
    else {
        return false;
    };
    let client = client(passing);
    networks.iter().any(|network| network.contains(&client)) == *invert
}

fn value<'a>(source: &'a ValueSource, passing: &'a Passing<'_>) -> Option<Cow<'a, str>> {
    let head = &*passing.head;
    Some(match source {
        ValueSource::Literal(value) => Cow::Borrowed(&**value),
        ValueSource::PeerIdentity => passing.connection.downstream.principal.as_deref()?.into(),
        ValueSource::SourceCluster => Cow::Borrowed(&*passing.connection.environment.node_cluster),
        ValueSource::DestinationCluster => Cow::Borrowed(&*passing.destination?.cluster),
        ValueSource::Header(name) => text(head.headers.get(name)?)?.into(),
        ValueSource::Method => head.method.as_str().into(),
        ValueSource::Scheme => head.scheme.into(),
        ValueSource::Path => head.path().into(),
        ValueSource::Authority => head.authority().into(),
        ValueSource::Query(name) => parameter(head.path(), name)?.into(),
        ValueSource::ClientIp => client(passing).to_string().into(),
        ValueSource::ClientNetwork(ipv4, ipv6) => network(client(passing), *ipv4, *ipv6)?.into(),
        ValueSource::HeadersMatch {
            value,
            expected,
            headers,
        } => {
            let line = passing.line();
            let mut tests = headers.iter();
            let is_match = tests.all(|header| header.is_match(line, &head.headers));
            (is_match == *expected).then_some(&**value)?.into()
        }
        ValueSource::QueryMatches {
            value,
            expected,
            query,
        } => {
            let asked = query_of(head.path());
            let is_match = query.iter().all(|test| is_query_match(test, asked));
            (is_match == *expected).then_some(&**value)?.into()
        }
        ValueSource::ClientIn { value, .. } => formatted(value, passing).into(),
        ValueSource::Metadata(path) => plain(path.of(passing.completion.metadata())?)?,
        ValueSource::RouteMetadata(path) => plain(path.of(passing.overrides().metadata())?)?,
    })
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

/// Only texts are values, as in Envoy.
fn plain(value: &Value) -> Option<Cow<'_, str>> {
    value.as_str().map(Cow::Borrowed)
}

fn query_of(path: &str) -> &str {
    path.split_once('?').map_or("", |(_, query)| query)
}

fn parameter<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    let mut parameters = query_of(path).split('&');
    parameters.find_map(|parameter| {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        (key == name).then_some(value)
    })
}

fn network(address: IpAddr, ipv4: u8, ipv6: u8) -> Option<String> {
    let length = if address.is_ipv4() { ipv4 } else { ipv6 };
    let network = IpNet::new(address, length).ok()?.trunc();
    Some(network.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn rule(value: &str) -> LimitRule {
        LimitRule {
            stage: 0,
            entries: vec![EntrySource {
                key: "generic_key".into(),
                value: ValueSource::Literal(value.into()),
                absent: Absent::NoDescriptor,
            }],
            hits: None,
            limit: None,
        }
    }

    #[test]
    fn the_rules_of_the_host_hold_where_the_route_has_none() {
        let limits = |route: Vec<LimitRule>| RouteLimits {
            route: route.into(),
            host: Arc::new([rule("host")]),
            includes_host: false,
        };
        let count = |limits: &RouteLimits, host_rules| of_route(limits, host_rules).count();

        assert_eq!(count(&limits(vec![]), HostRules::Override), 1);
        assert_eq!(count(&limits(vec![rule("route")]), HostRules::Override), 1);
        assert_eq!(count(&limits(vec![rule("route")]), HostRules::Include), 2);
        assert_eq!(count(&limits(vec![]), HostRules::Ignore), 0);
    }

    #[test]
    fn a_parameter_is_found_by_its_whole_name() {
        assert_eq!(parameter("/a?xx=1&x=2", "x"), Some("2"));
        assert_eq!(parameter("/a?xx=1", "x"), None);
        assert_eq!(parameter("/a", "x"), None);
    }

    #[test]
    fn a_client_is_counted_with_its_network() {
        let address = [10, 1, 2, 3].into();

        assert_eq!(network(address, 24, 64), Some("10.1.2.0/24".into()));
    }
}
