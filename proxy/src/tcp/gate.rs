//! Network filters that decide whether a connection is served: RBAC, a limit on their rate, a limit on their number.
//!
//! `connection` asks once it knows who the client is, and before anything is passed on.

use std::sync::Arc;
use std::time::Instant;

use crate::config::filter::gate::{Gate, GateKind};
use crate::config::filter::rbac::{Facts, RbacConfig};
use crate::config::metadata::Metadata;
use crate::telemetry::counters::{Count, Counters, counted};
use crate::telemetry::report::Downstream;
use crate::token_bucket::TokenBucket;

counted! {
    /// What is counted of rules.
    struct RuleStats { allowed, denied }
}
counted! {
    /// What is counted of rules that are only tried.
    struct ShadowStats { shadow_allowed, shadow_denied }
}
counted! {
    /// What is counted of a rate.
    struct RateStats { rate_limited }
}
counted! {
    /// What is counted of a number.
    struct OpenStats { active_connections, limited_connections }
}

/// A connection that has passed; counted out when dropped.
#[derive(Debug, Default)]
pub struct Passed(Vec<Counted>);

#[derive(Debug)]
struct Counted(Arc<Count>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement();
    }
}

/// Why a connection is closed.
#[derive(Debug, PartialEq, Eq)]
pub struct Denied {
    what: &'static str,
    /// What logs say of it, in Envoy's words, where Envoy has some.
    pub termination: Option<Arc<str>>,
}

impl Denied {
    fn by(what: &'static str) -> Self {
        Denied {
            what,
            termination: None,
        }
    }

    /// By rules, of which this policy is the one that matched.
    fn by_policy(policy: Option<&Arc<str>>) -> Self {
        let policy = policy.map_or("none", |policy| &**policy);
        // Details are one word in an access log.
        let details = format!(
            "rbac_access_denied_matched_policy[{}]",
            policy.replace(' ', "_")
        );
        Denied {
            what: "RBAC",
            termination: Some(details.into()),
        }
    }
}

/// Lets a connection pass all gates; an error where one of them closes it, which may take a while.
///
/// # Errors
/// It is not to be served.
pub async fn pass(
    gates: &[Gate],
    downstream: &Downstream,
    counters: &Counters,
) -> Result<Passed, Denied> {
    let mut passed = Passed::default();
    for gate in gates {
        if let Err(denied) = ask(gate, downstream, counters, &mut passed) {
            let reason = denied.what;
            tracing::debug!(peer = %downstream.peer, reason, "connection closed by a network filter");
            tokio::time::sleep(gate.delay).await;
            return Err(denied);
        }
    }
    Ok(passed)
}

fn ask(
    gate: &Gate,
    downstream: &Downstream,
    counters: &Counters,
    passed: &mut Passed,
) -> Result<(), Denied> {
    match &gate.kind {
        GateKind::Rbac(rules) => {
            let stats = gate.live.get_or_init(|| {
                let prefix = format!("{}.rbac.", gate.stat_prefix.trim_end_matches('.'));
                let shadow = match rules.shadow_stat_prefix.trim_end_matches('.') {
                    "" => prefix.clone(),
                    own => format!("{prefix}{own}."),
                };
                let shadow = ShadowStats::new(counters, &shadow);
                (RuleStats::new(counters, &prefix), shadow)
            });
            allow(rules, downstream, stats)
        }
        GateKind::Rate(bucket) => {
            let now = Instant::now();
            let prefix = || format!("local_rate_limit.{}.", gate.stat_prefix);
            let (tokens, stats) = gate.live.get_or_init(|| {
                let stats = RateStats::new(counters, &prefix());
                (TokenBucket::new(*bucket, now), stats)
            });
            if tokens.take(now) {
                return Ok(());
            }
            stats.rate_limited.increment();
            Err(Denied::by("rate limit"))
        }
        GateKind::Open(limit) => {
            let prefix = || format!("connection_limit.{}.", gate.stat_prefix);
            let stats = gate
                .live
                .get_or_init(|| OpenStats::new(counters, &prefix()));
            if stats.active_connections.increment_below(*limit) {
                passed
                    .0
                    .push(Counted(Arc::clone(&stats.active_connections)));
                return Ok(());
            }
            stats.limited_connections.increment();
            Err(Denied::by("connection limit"))
        }
    }
}

fn allow(
    config: &RbacConfig,
    downstream: &Downstream,
    (stats, tried): &(RuleStats, ShadowStats),
) -> Result<(), Denied> {
    let nothing = Metadata::new();
    let peer = downstream.peer.ip().to_canonical();
    let facts = Facts {
        request: None,
        peer,
        direct: downstream.direct_peer.ip().to_canonical(),
        client: peer,
        destination: (
            downstream.local.ip().to_canonical(),
            downstream.local.port(),
        ),
        principal: downstream.principal.as_deref(),
        server_name: downstream.server_name.as_deref(),
        metadata: &nothing,
        route_metadata: &nothing,
    };
    if let Some(shadow) = &config.shadow {
        match shadow.verdict(&facts).is_allowed {
            true => tried.shadow_allowed.increment(),
            false => tried.shadow_denied.increment(),
        }
    }
    let verdict = config.rules.as_ref().map(|rules| rules.verdict(&facts));
    match verdict {
        Some(verdict) if !verdict.is_allowed => {
            stats.denied.increment();
            Err(Denied::by_policy(verdict.policy))
        }
        _ => {
            stats.allowed.increment();
            Ok(())
        }
    }
}
