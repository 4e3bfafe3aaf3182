//! Role-based access control of requests.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde_json::Map;

use super::{Passing, joined};
use crate::config::filter::rbac::{Action, Facts, RbacConfig, Rules, Verdict};
use crate::config::metadata::Fields;
use crate::http::failure::{Failure, LocalReply};
use crate::telemetry::counters::{Count, Counters, counted};

/// Where verdicts are told.
const NAMESPACE: &str = "envoy.filters.http.rbac";

/// Where an access log finds what is to be logged.
const COMMON: &str = "envoy.common";
const LOG_HINT: &str = "access_log_hint";

/// What is told of, behind the name that the configuration gives it.
const ENFORCED: &str = "enforced";
const SHADOW: &str = "shadow";

counted! {
    /// What is counted of the rules that are enforced.
    struct Enforced { allowed, denied }
}
counted! {
    /// What is counted of the rules that are not.
    struct Shadow { shadow_allowed, shadow_denied }
}

struct Stats {
    enforced: Enforced,
    shadow: Shadow,
    prefix: String,
    namespace: Arc<str>,
    /// Of the filter's own rules.
    told: Told,
    shadow_told: Told,
}

/// What is told of each verdict of some rules, by the policy that has matched: made once, and shared by all requests.
struct Told(Vec<(Option<Arc<str>>, Fields)>);

impl Told {
    fn of_all(rules: Option<&Rules>, kind: &str) -> Self {
        let verdicts = rules.into_iter().flat_map(Rules::verdicts);
        let told = verdicts.map(|verdict| (verdict.policy.cloned(), told(kind, verdict)));
        Told(told.collect())
    }

    fn of(&self, verdict: Verdict<'_>) -> Option<&Fields> {
        let address = |policy: Option<&Arc<str>>| policy.map(Arc::as_ptr);
        let mut all = self.0.iter();
        let found = all.find(|(policy, _)| address(policy.as_ref()) == address(verdict.policy));
        found.map(|(_, fields)| fields)
    }
}

impl Stats {
    fn new(config: &RbacConfig, stat_prefix: &str, counters: &Counters) -> Self {
        let all = format!("http.{stat_prefix}.rbac.");
        let prefix = joined(&all, &config.stat_prefix);
        Stats {
            enforced: Enforced::new(counters, &prefix),
            shadow: Shadow::new(counters, &joined(&all, &config.shadow_stat_prefix)),
            prefix,
            namespace: NAMESPACE.into(),
            told: Told::of_all(
                config.rules.as_ref(),
                &format!("{}{ENFORCED}", config.stat_prefix),
            ),
            shadow_told: Told::of_all(
                config.shadow.as_ref(),
                &format!("{}{SHADOW}", config.shadow_stat_prefix),
            ),
        }
    }
}

/// Asks the shadow rules, then the others: those of the route, where it has its own. They are counted as the filter's.
pub(super) fn request(
    config: &RbacConfig,
    own: &RbacConfig,
    passing: &mut Passing<'_>,
) -> Result<(), Failure> {
    let counters = &passing.connection.environment.counters;
    let stats = config
        .live
        .get_or_init(|| Stats::new(config, passing.stat_prefix(), counters));
    let is_of_chain = std::ptr::eq(config, own);
    let facts = facts(passing);
    let shadow = own.shadow.as_ref().map(|rules| rules.verdict(&facts));
    let enforced = own.rules.as_ref().map(|rules| rules.verdict(&facts));

    if let Some(verdict) = shadow {
        count(
            verdict,
            &stats.shadow.shadow_allowed,
            &stats.shadow.shadow_denied,
        );
        let of_route = || {
            let name = or(&own.shadow_stat_prefix, &config.shadow_stat_prefix);
            told(&format!("{name}{SHADOW}"), verdict)
        };
        let known = stats.shadow_told.of(verdict).filter(|_| is_of_chain);
        let fields = known.cloned().unwrap_or_else(of_route);
        tell(passing, stats, &fields);
    }
    let Some(verdict) = enforced else {
        return Ok(());
    };
    count(verdict, &stats.enforced.allowed, &stats.enforced.denied);
    if let (true, Some(policy)) = (
        config.counts_policies || own.counts_policies,
        verdict.policy,
    ) {
        let name = if verdict.is_allowed {
            "allowed"
        } else {
            "denied"
        };
        let name = format!("{}policy.{policy}.{name}", stats.prefix);
        counters.counter(&name).increment();
    }
    let of_route = || {
        let name = or(&own.stat_prefix, &config.stat_prefix);
        told(&format!("{name}{ENFORCED}"), verdict)
    };
    let known = stats.told.of(verdict).filter(|_| is_of_chain);
    let fields = known.cloned().unwrap_or_else(of_route);
    tell(passing, stats, &fields);
    if own
        .rules
        .as_ref()
        .is_some_and(|rules| rules.action == Action::Log)
    {
        let is_logged = verdict.policy.is_some();
        passing
            .completion
            .with_metadata(|metadata| metadata.put(COMMON, LOG_HINT, is_logged.into()));
    }
    if verdict.is_allowed {
        return Ok(());
    }
    let policy = verdict.policy.map_or("none", |policy| &**policy);
    // Details are one word in an access log.
    let details = format!(
        "rbac_access_denied_matched_policy[{}]",
        policy.replace(' ', "_")
    );
    Err(Failure::Answered(Box::new(LocalReply {
        body: Bytes::from_static(b"RBAC: access denied"),
        ..LocalReply::new(StatusCode::FORBIDDEN, &details)
    })))
}

/// A route's own name for what is told, or the chain's.
fn or<'a>(own: &'a str, chain: &'a str) -> &'a str {
    if own.is_empty() { chain } else { own }
}

fn count(verdict: Verdict<'_>, allowed: &Count, denied: &Count) {
    match verdict.is_allowed {
        true => allowed.increment(),
        false => denied.increment(),
    }
}

fn tell(passing: &mut Passing<'_>, stats: &Stats, fields: &Fields) {
    let completion = &mut *passing.completion;
    completion.with_metadata(|metadata| metadata.share(&stats.namespace, fields));
}

/// What is told of a verdict.
fn told(kind: &str, verdict: Verdict<'_>) -> Fields {
    let result = if verdict.is_allowed {
        "allowed"
    } else {
        "denied"
    };
    let mut fields = Map::new();
    fields.insert(format!("{kind}_engine_result"), result.into());
    if let Some(policy) = verdict.policy {
        let id = policy.to_string().into();
        fields.insert(format!("{kind}_effective_policy_id"), id);
    }
    Fields::new(fields)
}

fn facts<'a>(passing: &'a Passing<'_>) -> Facts<'a> {
    let downstream = &passing.connection.downstream;
    Facts {
        request: Some((passing.line(), &passing.head.headers)),
        peer: downstream.peer.ip().to_canonical(),
        direct: downstream.direct_peer.ip().to_canonical(),
        client: client(passing),
        destination: (
            downstream.local.ip().to_canonical(),
            downstream.local.port(),
        ),
        principal: downstream.principal.as_deref(),
        server_name: downstream.server_name.as_deref(),
        metadata: passing.completion.metadata(),
        route_metadata: passing.overrides().metadata(),
    }
}

/// The client: the peer, unless it is a proxy that is believed and names another.
pub(super) fn client(passing: &Passing<'_>) -> IpAddr {
    let peer = || passing.connection.downstream.peer.ip().to_canonical();
    passing.completion.client().unwrap_or_else(peer)
}
