//! `load_balancing_policy`: policies in order of preference, some of them around others.

use weft_proto::Any;
use weft_proto::envoy::config::cluster::v3::LoadBalancingPolicy;
use weft_proto::envoy::config::cluster::v3::load_balancing_policy::Policy;
use weft_proto::envoy::extensions::load_balancing_policies as wire;
use wire::cluster_provided::v3::ClusterProvided;
use wire::common::v3::locality_lb_config::zone_aware_lb_config::{ForceLocalZone, LocalityBasis};
use wire::common::v3::locality_lb_config::{LocalityConfigSpecifier, ZoneAwareLbConfig};
use wire::common::v3::{ConsistentHashingLbConfig, LocalityLbConfig, SlowStartConfig};
use wire::least_request::v3::LeastRequest;
use wire::least_request::v3::least_request::SelectionMethod;
use wire::maglev::v3::Maglev;
use wire::peak_ewma::v3alpha::PeakEwma;
use wire::random::v3::Random;
use wire::ring_hash::v3::{RingHash, ring_hash};
use wire::round_robin::v3::RoundRobin;
use wire::subset::v3::Subset;
use wire::wrr_locality::v3::WrrLocality;

use std::time::Duration;

use super::at::{
    At, Invalid, duration, enumeration, harmless, holds, opened, required, unsupported,
};
use super::balancer::{Balancing, least_request, maglev, ring, slow_start};
use super::subsets::subsets;
use super::zones::zones;
use crate::config::balancing::{
    Among, Balancer, Basis, HashFunction, Hashing, Localities, SlowStart, ZoneRouting,
};

/// Envoy's: latencies are remembered for ten seconds.
const DEFAULT_DECAY: Duration = Duration::from_secs(10);
/// Envoy's, of endpoints that have not answered yet.
const DEFAULT_LATENCY: Duration = Duration::from_millis(10);
/// No policy is deeper within others.
const MAX_DEPTH: usize = 4;

/// The first policy that is known here.
pub(super) fn newer(at: &At<'_>, wire: &LoadBalancingPolicy) -> Result<Balancing, Invalid> {
    first_known(at, wire, MAX_DEPTH)
}

fn first_known(
    at: &At<'_>,
    wire: &LoadBalancingPolicy,
    depth: usize,
) -> Result<Balancing, Invalid> {
    let LoadBalancingPolicy { policies } = wire;
    let at = at.field("policies");
    let mut unknown = Vec::new();
    for (index, policy) in policies.iter().enumerate() {
        let Policy {
            typed_extension_config,
        } = policy;
        let at = at.index(index);
        let at = at.field("typed_extension_config");
        let extension = required(&at, typed_extension_config.as_ref())?;
        let at = at.field("typed_config");
        let any = required(&at, extension.typed_config.as_ref())?;
        if let Some(found) = policy_of(&at, any, depth)? {
            return Ok(found);
        }
        unknown.push(any.type_url.as_str());
    }
    Err(at.refuse(format_args!(
        "none of the policies is supported: {}",
        unknown.join(", ")
    )))
}

fn policy_of(at: &At<'_>, any: &Any, depth: usize) -> Result<Option<Balancing>, Invalid> {
    let found = if holds::<RoundRobin>(any) {
        round_robin(at, &opened(at, any)?)?
    } else if holds::<LeastRequest>(any) {
        least_busy(at, &opened(at, any)?)?
    } else if holds::<Random>(any) {
        let Random { locality_lb_config } = &opened(at, any)?;
        with_localities(at, Balancer::Random.into(), locality_lb_config.as_ref())?
    } else if holds::<PeakEwma>(any) {
        peak_ewma(at, &opened(at, any)?)?.into()
    } else if holds::<RingHash>(any) {
        ring_hash(at, &opened(at, any)?)?
    } else if holds::<Maglev>(any) {
        maglev_table(at, &opened(at, any)?)?
    } else if holds::<ClusterProvided>(any) {
        Balancer::RoundRobin.into()
    } else if depth == 0 {
        return Err(at.refuse("too deep within other policies"));
    } else if holds::<WrrLocality>(any) {
        let WrrLocality {
            endpoint_picking_policy,
        } = &opened(at, any)?;
        let at = at.field("endpoint_picking_policy");
        let within = required(&at, endpoint_picking_policy.as_ref())?;
        Balancing {
            localities: Localities::Weighted,
            ..first_known(&at, within, depth - 1)?
        }
    } else if holds::<Subset>(any) {
        let wire: Subset = opened(at, any)?;
        let at_policy = at.field("subset_lb_policy");
        let within = required(&at_policy, wire.subset_lb_policy.as_ref())?;
        Balancing {
            subsets: subsets(at, &wire)?,
            ..first_known(&at_policy, within, depth - 1)?
        }
    } else {
        return Ok(None);
    };
    Ok(Some(found))
}

fn round_robin(at: &At<'_>, wire: &RoundRobin) -> Result<Balancing, Invalid> {
    let RoundRobin {
        slow_start_config,
        locality_lb_config,
    } = wire;
    let balancing = Balancing {
        slow_start: newer_slow_start(at, slow_start_config.as_ref())?,
        ..Balancer::RoundRobin.into()
    };
    with_localities(at, balancing, locality_lb_config.as_ref())
}

fn least_busy(at: &At<'_>, wire: &LeastRequest) -> Result<Balancing, Invalid> {
    let LeastRequest {
        choice_count,
        active_request_bias,
        slow_start_config,
        locality_lb_config,
        enable_full_scan,
        selection_method,
    } = wire;
    let method: SelectionMethod = enumeration(&at.field("selection_method"), *selection_method)?;
    let is_full = *enable_full_scan == Some(true) || method == SelectionMethod::FullScan;
    let mut balancer = least_request(at, *choice_count, active_request_bias.as_ref())?;
    if let (true, Balancer::LeastRequest { among, .. }) = (is_full, &mut balancer) {
        *among = Among::All;
    }
    let balancing = Balancing {
        slow_start: newer_slow_start(at, slow_start_config.as_ref())?,
        ..balancer.into()
    };
    with_localities(at, balancing, locality_lb_config.as_ref())
}

fn peak_ewma(at: &At<'_>, wire: &PeakEwma) -> Result<Balancer, Invalid> {
    let PeakEwma {
        decay_time,
        aggregation_interval,
        max_samples_per_host,
        default_rtt,
        penalty_value,
    } = wire;
    // All workers see every latency at once: nothing is gathered, and nothing has to be kept for that.
    harmless!(at; aggregation_interval, max_samples_per_host, penalty_value);
    Ok(Balancer::PeakEwma {
        decay: duration(&at.field("decay_time"), decay_time.as_ref())?.unwrap_or(DEFAULT_DECAY),
        default_latency: duration(&at.field("default_rtt"), default_rtt.as_ref())?
            .unwrap_or(DEFAULT_LATENCY),
    })
}

fn ring_hash(at: &At<'_>, wire: &RingHash) -> Result<Balancing, Invalid> {
    let RingHash {
        hash_function,
        minimum_ring_size,
        maximum_ring_size,
        use_hostname_for_hashing,
        hash_balance_factor,
        consistent_hashing_lb_config,
        locality_weighted_lb_config,
    } = wire;
    let function = match enumeration(&at.field("hash_function"), *hash_function)? {
        ring_hash::HashFunction::DefaultHash | ring_hash::HashFunction::XxHash => {
            HashFunction::XxHash
        }
        ring_hash::HashFunction::MurmurHash2 => HashFunction::Murmur2,
    };
    let older = Hashing {
        by_hostname: *use_hostname_for_hashing,
        balance_factor: balance_factor(&at.field("hash_balance_factor"), *hash_balance_factor)?,
    };
    Ok(Balancing {
        hashing: match consistent_hashing_lb_config {
            Some(wire) => hashing(&at.field("consistent_hashing_lb_config"), wire)?,
            None => older,
        },
        localities: weighted_where(locality_weighted_lb_config.is_some()),
        ..ring(at, *minimum_ring_size, *maximum_ring_size, function)?.into()
    })
}

fn maglev_table(at: &At<'_>, wire: &Maglev) -> Result<Balancing, Invalid> {
    let Maglev {
        table_size,
        consistent_hashing_lb_config,
        locality_weighted_lb_config,
    } = wire;
    Ok(Balancing {
        hashing: match consistent_hashing_lb_config {
            Some(wire) => hashing(&at.field("consistent_hashing_lb_config"), wire)?,
            None => Hashing::default(),
        },
        localities: weighted_where(locality_weighted_lb_config.is_some()),
        ..maglev(at, *table_size)?.into()
    })
}

fn hashing(at: &At<'_>, wire: &ConsistentHashingLbConfig) -> Result<Hashing, Invalid> {
    let ConsistentHashingLbConfig {
        use_hostname_for_hashing,
        hash_balance_factor,
        hash_policy,
    } = wire;
    unsupported!(at; hash_policy);
    Ok(Hashing {
        by_hostname: *use_hostname_for_hashing,
        balance_factor: balance_factor(&at.field("hash_balance_factor"), *hash_balance_factor)?,
    })
}

/// How much one endpoint may get; 0 stands for any amount.
pub(super) fn balance_factor(at: &At<'_>, wire: Option<u32>) -> Result<Option<u32>, Invalid> {
    match wire {
        None | Some(0) => Ok(None),
        Some(factor) if factor < 100 => {
            Err(at.refuse(format_args!("{factor} is less than 100 percent")))
        }
        factor => Ok(factor),
    }
}

fn weighted_where(is_weighted: bool) -> Localities {
    match is_weighted {
        true => Localities::Weighted,
        false => Localities::Pooled,
    }
}

fn with_localities(
    at: &At<'_>,
    balancing: Balancing,
    wire: Option<&LocalityLbConfig>,
) -> Result<Balancing, Invalid> {
    let specifier = wire.and_then(|wire| wire.locality_config_specifier.as_ref());
    let at = at.field("locality_lb_config");
    Ok(match specifier {
        None => balancing,
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => Balancing {
            localities: Localities::Weighted,
            ..balancing
        },
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(wire)) => {
            let at = at.field("zone_aware_lb_config");
            let ZoneAwareLbConfig {
                routing_enabled,
                min_cluster_size,
                fail_traffic_on_panic,
                force_locality_direct_routing,
                force_local_zone,
                locality_basis,
            } = wire;
            let older = zones(&at, routing_enabled.as_ref(), *min_cluster_size)?;
            let forced = force_local_zone.as_ref();
            let forced_from = forced.map(|ForceLocalZone { min_size }| min_size.unwrap_or(1));
            let basis: LocalityBasis = enumeration(&at.field("locality_basis"), *locality_basis)?;
            Balancing {
                zones: ZoneRouting {
                    forced_from: forced_from
                        .or(force_locality_direct_routing.then_some(1))
                        .map(u64::from),
                    basis: match basis {
                        LocalityBasis::HealthyHostsNum => Basis::Count,
                        LocalityBasis::HealthyHostsWeight => Basis::Weight,
                    },
                    ..older
                },
                fails_on_panic: *fail_traffic_on_panic,
                ..balancing
            }
        }
    })
}

fn newer_slow_start(
    at: &At<'_>,
    wire: Option<&SlowStartConfig>,
) -> Result<Option<SlowStart>, Invalid> {
    let Some(SlowStartConfig {
        slow_start_window,
        aggression,
        min_weight_percent,
    }) = wire
    else {
        return Ok(None);
    };
    slow_start(
        &at.field("slow_start_config"),
        slow_start_window.as_ref(),
        aggression.as_ref(),
        min_weight_percent.as_ref(),
    )
    .map(Some)
}

#[cfg(test)]
mod tests {
    use weft_proto::any::pack;
    use weft_proto::envoy::config::core::v3::TypedExtensionConfig;

    use super::super::at::Notes;
    use super::*;

    fn policies(anys: Vec<Any>) -> LoadBalancingPolicy {
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

    fn translated(anys: Vec<Any>) -> Result<Balancing, String> {
        let notes = Notes::default();
        newer(&At::root(&notes), &policies(anys)).map_err(|error| error.to_string())
    }

    fn unknown() -> Any {
        Any {
            type_url: "type.googleapis.com/envoy.ClientSideWeightedRoundRobin".into(),
            value: Default::default(),
        }
    }

    #[test]
    fn the_first_policy_that_is_known_is_taken() {
        let least = LeastRequest {
            choice_count: Some(3),
            ..LeastRequest::default()
        };

        let found = translated(vec![unknown(), pack(&least), pack(&RoundRobin::default())]);

        let expected = Balancer::LeastRequest {
            choice_count: 3,
            bias: 1.0,
            among: Among::Drawn,
        };
        assert_eq!(found.map(|found| found.balancer), Ok(expected));
    }

    #[test]
    fn policies_that_are_all_unknown_are_refused_by_name() {
        let error = translated(vec![unknown()]).expect_err("refused");

        assert!(error.starts_with("policies: none"), "{error}");
        assert!(error.contains("ClientSideWeightedRoundRobin"), "{error}");
    }

    #[test]
    fn localities_are_weighted_around_another_policy() {
        let around = WrrLocality {
            endpoint_picking_policy: Some(policies(vec![pack(&Random::default())])),
        };

        let found = translated(vec![pack(&around)]).expect("valid");

        assert_eq!(found.balancer, Balancer::Random);
        assert_eq!(found.localities, Localities::Weighted);
    }

    #[test]
    fn policies_are_not_opened_without_end() {
        let mut within = policies(vec![pack(&Random::default())]);
        for _ in 0..6 {
            within = policies(vec![pack(&WrrLocality {
                endpoint_picking_policy: Some(within),
            })]);
        }
        let notes = Notes::default();

        assert!(newer(&At::root(&notes), &within).is_err());
    }

    #[test]
    fn a_bound_below_the_mean_is_refused() {
        let wire = Maglev {
            consistent_hashing_lb_config: Some(ConsistentHashingLbConfig {
                hash_balance_factor: Some(99),
                ..ConsistentHashingLbConfig::default()
            }),
            ..Maglev::default()
        };

        assert!(translated(vec![pack(&wire)]).is_err());
    }
}
