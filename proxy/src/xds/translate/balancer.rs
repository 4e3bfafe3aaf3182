//! How an endpoint is chosen.

use weft_proto::envoy::config::cluster::v3::LoadBalancingPolicy;
use weft_proto::envoy::config::cluster::v3::cluster::{
    LbConfig, LbPolicy, LeastRequestLbConfig, RoundRobinLbConfig,
};
use weft_proto::envoy::config::cluster::v3::load_balancing_policy::Policy;
use weft_proto::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use weft_proto::envoy::extensions::load_balancing_policies::random::v3::Random;
use weft_proto::envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin;

use super::at::{At, Invalid, enumeration, harmless, holds, opened, required};
use crate::config::cluster::Balancer;

/// Envoy's: the less busy of two.
const DEFAULT_CHOICES: u32 = 2;

/// The balancer; the newer way of naming it goes before the older.
pub(super) fn balancer(
    at: &At<'_>,
    policy: i32,
    config: Option<&LbConfig>,
    newer: Option<&LoadBalancingPolicy>,
) -> Result<Balancer, Invalid> {
    if let Some(newer) = newer {
        return first_known(&at.field("load_balancing_policy"), newer);
    }
    let at_policy = at.field("lb_policy");
    match enumeration(&at_policy, policy)? {
        LbPolicy::RoundRobin => {
            if let Some(LbConfig::RoundRobinLbConfig(wire)) = config {
                let at = at.field("round_robin_lb_config");
                let RoundRobinLbConfig { slow_start_config } = wire;
                harmless!(at; slow_start_config);
            }
            Ok(Balancer::RoundRobin)
        }
        LbPolicy::LeastRequest => match config {
            Some(LbConfig::LeastRequestLbConfig(wire)) => {
                let at = at.field("least_request_lb_config");
                let LeastRequestLbConfig {
                    choice_count,
                    active_request_bias,
                    slow_start_config,
                } = wire;
                harmless!(at; active_request_bias, slow_start_config);
                Ok(least_request(*choice_count))
            }
            _ => Ok(least_request(None)),
        },
        LbPolicy::Random => Ok(Balancer::Random),
        // An original destination has only one endpoint.
        LbPolicy::ClusterProvided => Ok(Balancer::RoundRobin),
        other => Err(at_policy.refuse_value(other)),
    }
}

fn least_request(choices: Option<u32>) -> Balancer {
    Balancer::LeastRequest {
        choice_count: choices.unwrap_or(DEFAULT_CHOICES).max(2),
    }
}

/// Policies stand in order of preference: the first that is known here is taken.
fn first_known(at: &At<'_>, wire: &LoadBalancingPolicy) -> Result<Balancer, Invalid> {
    let LoadBalancingPolicy { policies } = wire;
    let at = at.field("policies");
    for (
        index,
        Policy {
            typed_extension_config,
        },
    ) in policies.iter().enumerate()
    {
        let at = at.index(index);
        let at = at.field("typed_extension_config");
        let extension = required(&at, typed_extension_config.as_ref())?;
        let at = at.field("typed_config");
        let any = required(&at, extension.typed_config.as_ref())?;
        if holds::<RoundRobin>(any) {
            let RoundRobin {
                slow_start_config,
                locality_lb_config,
            } = &opened(&at, any)?;
            harmless!(at; slow_start_config, locality_lb_config);
            return Ok(Balancer::RoundRobin);
        }
        if holds::<LeastRequest>(any) {
            let wire: LeastRequest = opened(&at, any)?;
            let LeastRequest {
                choice_count,
                active_request_bias,
                slow_start_config,
                locality_lb_config,
                enable_full_scan,
                selection_method,
            } = &wire;
            harmless!(at; active_request_bias, slow_start_config, locality_lb_config, enable_full_scan,
                selection_method);
            return Ok(least_request(*choice_count));
        }
        if holds::<Random>(any) {
            let Random { locality_lb_config } = &opened(&at, any)?;
            harmless!(at; locality_lb_config);
            return Ok(Balancer::Random);
        }
    }
    Err(at.refuse("none of the policies is supported: round robin, least request and random are"))
}

#[cfg(test)]
mod tests {
    use weft_proto::any::pack;
    use weft_proto::envoy::config::core::v3::TypedExtensionConfig;
    use weft_proto::envoy::extensions::load_balancing_policies::maglev::v3::Maglev;

    use super::super::at::Notes;
    use super::*;

    fn policies(anys: Vec<weft_proto::Any>) -> LoadBalancingPolicy {
        let policies = anys
            .into_iter()
            .map(|any| Policy {
                typed_extension_config: Some(TypedExtensionConfig {
                    name: "p".into(),
                    typed_config: Some(any),
                }),
            })
            .collect();
        LoadBalancingPolicy { policies }
    }

    #[test]
    fn the_first_policy_that_is_known_is_taken() {
        let notes = Notes::default();
        let least = LeastRequest {
            choice_count: Some(3),
            ..LeastRequest::default()
        };
        let wire = policies(vec![
            pack(&Maglev::default()),
            pack(&least),
            pack(&RoundRobin::default()),
        ]);

        let chosen = balancer(&At::root(&notes), 0, None, Some(&wire));

        assert_eq!(chosen, Ok(Balancer::LeastRequest { choice_count: 3 }));
    }

    #[test]
    fn consistent_hashing_alone_is_refused() {
        let notes = Notes::default();
        let at = At::root(&notes);

        let newer = balancer(
            &at,
            0,
            None,
            Some(&policies(vec![pack(&Maglev::default())])),
        );
        let older = balancer(&at, LbPolicy::RingHash.into(), None, None);

        assert!(newer.is_err());
        assert_eq!(
            older.expect_err("refused").to_string(),
            "lb_policy: RingHash is not supported"
        );
    }
}
