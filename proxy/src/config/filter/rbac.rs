//! Who may do what: Envoy's RBAC, of requests and of connections.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use http::HeaderMap;
use ipnet::IpNet;

use super::live::Live;
use crate::config::matching::{HeaderMatch, MetadataMatch, RequestLine, TextMatch};
use crate::config::metadata::Metadata;

/// What is enforced, and what is only counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RbacConfig {
    /// Enforced; without rules everything is allowed.
    pub rules: Option<Rules>,
    /// Counted, and told in metadata.
    pub shadow: Option<Rules>,
    /// Of the enforced rules' counters.
    pub stat_prefix: Arc<str>,
    /// Of the shadow rules' counters.
    pub shadow_stat_prefix: Arc<str>,
    /// Whether each policy has counters, too.
    pub counts_policies: bool,
    /// Counters.
    pub live: Live,
}

/// Policies, and what it means that one of them matches.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// What it means.
    pub action: Action,
    /// By name, in the order of names.
    pub policies: Vec<Policy>,
}

/// What it means that a policy matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is allowed, and nothing else is.
    Allow,
    /// It is denied, and nothing else is.
    Deny,
    /// It is noted; everything is allowed.
    Log,
}

/// Matches where one of the permissions and one of the principals match.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Its name.
    pub name: Arc<str>,
    /// What is done.
    pub permissions: Vec<Rule>,
    /// By whom.
    pub principals: Vec<Rule>,
}

/// A condition on a request or connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// None.
    Any,
    /// All of these hold.
    All(Vec<Rule>),
    /// One of these holds.
    OneOf(Vec<Rule>),
    /// This does not hold.
    Not(Box<Rule>),
    /// A header of the request.
    Header(HeaderMatch),
    /// The path, without the query.
    Path(TextMatch),
    /// Where it is going.
    DestinationIp(IpNet),
    /// Where it is going.
    DestinationPorts(Range<u32>),
    /// The name a TLS client asks for; empty where there is none.
    ServerName(TextMatch),
    /// The peer has a verified certificate.
    Authenticated,
    /// The peer's verified certificate names it so.
    Principal(TextMatch),
    /// The peer of the connection.
    PeerIp(IpNet),
    /// Who has made the connection, whoever was announced by it.
    DirectIp(IpNet),
    /// The client, by `x-forwarded-for` where that is believed.
    ClientIp(IpNet),
    /// What filters have found out.
    Metadata(MetadataMatch),
    /// What is said about the route.
    RouteMetadata(MetadataMatch),
}

/// What is known when rules are asked.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The request, unless it is a connection.
    pub request: Option<(RequestLine<'a>, &'a HeaderMap)>,
    /// The peer of the connection.
    pub peer: IpAddr,
    /// Who has made the connection, whoever was announced by it.
    pub direct: IpAddr,
    /// The client.
    pub client: IpAddr,
    /// Where it is going.
    pub destination: (IpAddr, u16),
    /// The peer's verified identity.
    pub principal: Option<&'a str>,
    /// The name a TLS client asked for.
    pub server_name: Option<&'a str>,
    /// What filters have found out.
    pub metadata: &'a Metadata,
    /// What is said about the route.
    pub route_metadata: &'a Metadata,
}

/// What rules say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// Whether it is allowed.
    pub is_allowed: bool,
    /// The policy that matched.
    pub policy: Option<&'a Arc<str>>,
}

impl Rules {
    /// Asks them.
    pub fn verdict(&self, facts: &Facts<'_>) -> Verdict<'_> {
        let matched = self.policies.iter().find(|policy| policy.is_match(facts));
        self.verdict_by(matched)
    }

    /// All that they may say.
    pub fn verdicts(&self) -> impl Iterator<Item = Verdict<'_>> {
        let matched = self.policies.iter().map(Some).chain([None]);
        matched.map(|matched| self.verdict_by(matched))
    }

    fn verdict_by<'a>(&self, matched: Option<&'a Policy>) -> Verdict<'a> {
        let is_allowed = match self.action {
            Action::Allow => matched.is_some(),
            Action::Deny => matched.is_none(),
            Action::Log => true,
        };
        Verdict {
            is_allowed,
            policy: matched.map(|policy| &policy.name),
        }
    }
}

impl Policy {
    fn is_match(&self, facts: &Facts<'_>) -> bool {
        let is_match = |rule: &Rule| rule.is_match(facts);
        self.permissions.iter().any(is_match) && self.principals.iter().any(is_match)
    }
}

impl Rule {
    fn is_match(&self, facts: &Facts<'_>) -> bool {
        match self {
            Rule::Any => true,
            Rule::All(rules) => rules.iter().all(|rule| rule.is_match(facts)),
            Rule::OneOf(rules) => rules.iter().any(|rule| rule.is_match(facts)),
            Rule::Not(rule) => !rule.is_match(facts),
            Rule::Header(header) => facts
                .request
                .is_some_and(|(line, headers)| header.is_match(line, headers)),
            Rule::Path(test) => facts
                .request
                .is_some_and(|(line, _)| test.is_match(without_query(line.path))),
            Rule::DestinationIp(network) => network.contains(&facts.destination.0),
            Rule::DestinationPorts(ports) => ports.contains(&facts.destination.1.into()),
            Rule::ServerName(test) => test.is_match(facts.server_name.unwrap_or_default()),
            Rule::Authenticated => facts.principal.is_some(),
            Rule::Principal(test) => facts.principal.is_some_and(|name| test.is_match(name)),
            Rule::PeerIp(network) => network.contains(&facts.peer),
            Rule::DirectIp(network) => network.contains(&facts.direct),
            Rule::ClientIp(network) => network.contains(&facts.client),
            Rule::Metadata(test) => test.is_match(facts.metadata),
            Rule::RouteMetadata(test) => test.is_match(facts.route_metadata),
        }
    }
}

fn without_query(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts<'a>(headers: &'a HeaderMap, metadata: &'a Metadata) -> Facts<'a> {
        let line = RequestLine {
            method: "GET",
            path: "/admin?x=1",
            authority: "reviews",
            scheme: "http",
        };
        Facts {
            request: Some((line, headers)),
            peer: [10, 96, 0, 7].into(),
            direct: [10, 96, 0, 7].into(),
            client: [192, 0, 2, 1].into(),
            destination: ([10, 96, 0, 5].into(), 8080),
            principal: Some("spiffe://cluster.local/ns/default/sa/cart"),
            server_name: None,
            metadata,
            route_metadata: metadata,
        }
    }

    fn is_match(rule: Rule) -> bool {
        rule.is_match(&facts(&HeaderMap::new(), &Metadata::default()))
    }

    fn rules(action: Action, permission: Rule) -> Rules {
        Rules {
            action,
            policies: vec![Policy {
                name: "p".into(),
                permissions: vec![permission],
                principals: vec![Rule::Any],
            }],
        }
    }

    #[test]
    fn what_no_policy_allows_is_denied_and_what_none_denies_is_allowed() {
        let (headers, metadata) = (HeaderMap::new(), Metadata::default());
        let facts = facts(&headers, &metadata);
        let none = || Rule::OneOf(vec![]);
        let allowed = |action, rule| rules(action, rule).verdict(&facts).is_allowed;

        assert!(allowed(Action::Allow, Rule::Any));
        assert!(!allowed(Action::Allow, none()));
        assert!(!allowed(Action::Deny, Rule::Any));
        assert!(allowed(Action::Deny, none()));
        assert!(allowed(Action::Log, none()));
    }

    #[test]
    fn what_they_say_is_among_what_they_may_say() {
        let (headers, metadata) = (HeaderMap::new(), Metadata::default());
        let facts = facts(&headers, &metadata);
        for rule in [Rule::Any, Rule::OneOf(vec![])] {
            let rules = rules(Action::Deny, rule);
            let verdict = rules.verdict(&facts);

            assert!(rules.verdicts().any(|possible| possible == verdict));
        }
    }

    #[test]
    fn a_path_is_compared_without_its_query() {
        assert!(is_match(Rule::Path(TextMatch::exact("/admin"))));
    }

    #[test]
    fn a_caller_is_known_by_its_certificate() {
        let cart = "spiffe://cluster.local/ns/default/sa/cart";

        assert!(is_match(Rule::Principal(TextMatch::exact(cart))));
        assert!(!is_match(Rule::Principal(TextMatch::exact("cart"))));
        assert!(is_match(Rule::Authenticated));
    }

    #[test]
    fn the_peer_and_the_client_are_not_the_same() {
        let pods: IpNet = "10.96.0.0/16".parse().expect("a network");

        assert!(is_match(Rule::PeerIp(pods)));
        assert!(!is_match(Rule::ClientIp(pods)));
        assert!(is_match(Rule::Not(Box::new(Rule::ClientIp(pods)))));
    }

    #[test]
    fn a_range_of_ports_is_without_its_end() {
        assert!(is_match(Rule::DestinationPorts(8080..8081)));
        assert!(!is_match(Rule::DestinationPorts(8000..8080)));
    }
}
