//! How an endpoint is chosen: Envoy's older fields of a cluster, and the list of policies that replaces them.

use std::time::Duration;

use weft_proto::envoy::config::cluster::v3::cluster::{
    LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig, RoundRobinLbConfig,
    SlowStartConfig as OlderSlowStart, ring_hash_lb_config,
};
use weft_proto::envoy::config::core::v3::RuntimeDouble;
use weft_proto::envoy::r#type::v3::Percent as WirePercent;

use super::at::{At, Invalid, duration, enumeration};
use super::share::percent;
use crate::config::balancing::{
    Among, Balancer, HashFunction, Hashing, Localities, SlowStart, SubsetConfig, ZoneRouting,
};

/// Envoy's: the less busy of two.
const DEFAULT_CHOICES: u32 = 2;
/// Envoy's smallest ring.
const DEFAULT_MIN_RING: u64 = 1024;
/// Envoy's largest ring, and the largest that may be asked for.
const DEFAULT_MAX_RING: u64 = 8 * 1024 * 1024;
/// Envoy's table.
const DEFAULT_TABLE: u64 = 65_537;
/// Envoy's largest table.
const MAX_TABLE: u64 = 5_000_011;
/// Envoy's: new endpoints begin with a tenth of their weight.
const DEFAULT_MIN_WEIGHT: f64 = 0.1;

/// All that a policy says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Balancing {
    pub(super) balancer: Balancer,
    pub(super) hashing: Hashing,
    pub(super) slow_start: Option<SlowStart>,
    pub(super) localities: Localities,
    pub(super) fails_on_panic: bool,
    pub(super) zones: ZoneRouting,
    pub(super) subsets: Option<SubsetConfig>,
}

impl From<Balancer> for Balancing {
    fn from(balancer: Balancer) -> Self {
        Balancing {
            balancer,
            hashing: Hashing::default(),
            slow_start: None,
            localities: Localities::Pooled,
            fails_on_panic: false,
            zones: ZoneRouting::default(),
            subsets: None,
        }
    }
}

/// From the older fields.
pub(super) fn older(
    at: &At<'_>,
    policy: i32,
    config: Option<&LbConfig>,
) -> Result<Balancing, Invalid> {
    let at_policy = at.field("lb_policy");
    match (enumeration(&at_policy, policy)?, config) {
        (LbPolicy::RoundRobin, Some(LbConfig::RoundRobinLbConfig(wire))) => {
            let at = at.field("round_robin_lb_config");
            let RoundRobinLbConfig { slow_start_config } = wire;
            Ok(Balancing {
                slow_start: older_slow_start(&at, slow_start_config.as_ref())?,
                ..Balancer::RoundRobin.into()
            })
        }
        (LbPolicy::LeastRequest, Some(LbConfig::LeastRequestLbConfig(wire))) => {
            let at = at.field("least_request_lb_config");
            let LeastRequestLbConfig {
                choice_count,
                active_request_bias,
                slow_start_config,
            } = wire;
            let balancer = least_request(&at, *choice_count, active_request_bias.as_ref())?;
            Ok(Balancing {
                slow_start: older_slow_start(&at, slow_start_config.as_ref())?,
                ..balancer.into()
            })
        }
        (LbPolicy::RingHash, Some(LbConfig::RingHashLbConfig(wire))) => {
            let at = at.field("ring_hash_lb_config");
            let RingHashLbConfig {
                minimum_ring_size,
                hash_function,
                maximum_ring_size,
            } = wire;
            let function = match enumeration(&at.field("hash_function"), *hash_function)? {
                ring_hash_lb_config::HashFunction::XxHash => HashFunction::XxHash,
                ring_hash_lb_config::HashFunction::MurmurHash2 => HashFunction::Murmur2,
            };
            ring(&at, *minimum_ring_size, *maximum_ring_size, function).map(Into::into)
        }
        (LbPolicy::Maglev, Some(LbConfig::MaglevLbConfig(wire))) => {
            let MaglevLbConfig { table_size } = wire;
            maglev(&at.field("maglev_lb_config"), *table_size).map(Into::into)
        }
        // A configuration of another policy than the one that is chosen has no effect, as in Envoy.
        (LbPolicy::LeastRequest, _) => Ok(Balancer::LEAST_REQUEST.into()),
        (LbPolicy::RingHash, _) => ring(at, None, None, HashFunction::XxHash).map(Into::into),
        (LbPolicy::Maglev, _) => maglev(at, None).map(Into::into),
        (LbPolicy::Random, _) => Ok(Balancer::Random.into()),
        // An original destination has only one endpoint.
        (LbPolicy::RoundRobin | LbPolicy::ClusterProvided, _) => Ok(Balancer::RoundRobin.into()),
        (LbPolicy::LoadBalancingPolicyConfig, _) => Err(at
            .field("load_balancing_policy")
            .refuse("missing, although lb_policy says that it decides")),
    }
}

/// The least busy.
pub(super) fn least_request(
    at: &At<'_>,
    choices: Option<u32>,
    bias: Option<&RuntimeDouble>,
) -> Result<Balancer, Invalid> {
    let at_bias = at.field("active_request_bias");
    let bias = runtime_double(&at_bias, bias)?.unwrap_or(1.0);
    if bias < 0.0 || !bias.is_finite() {
        return Err(at_bias
            .field("default_value")
            .refuse(format_args!("{bias} is less than 0")));
    }
    let choice_count = choices.unwrap_or(DEFAULT_CHOICES);
    if choice_count < DEFAULT_CHOICES {
        return Err(at
            .field("choice_count")
            .refuse(format_args!("{choice_count} is less than 2")));
    }
    Ok(Balancer::LeastRequest {
        choice_count,
        bias,
        among: Among::Drawn,
    })
}

/// A ring.
pub(super) fn ring(
    at: &At<'_>,
    min_size: Option<u64>,
    max_size: Option<u64>,
    function: HashFunction,
) -> Result<Balancer, Invalid> {
    let max_size = max_size.unwrap_or(DEFAULT_MAX_RING);
    let min_size = min_size.unwrap_or(DEFAULT_MIN_RING);
    if max_size > DEFAULT_MAX_RING {
        return Err(at
            .field("maximum_ring_size")
            .refuse(format_args!("{max_size} is more than {DEFAULT_MAX_RING}")));
    }
    if min_size > max_size {
        return Err(at.field("minimum_ring_size").refuse(format_args!(
            "{min_size} is more than the maximum, {max_size}"
        )));
    }
    Ok(Balancer::RingHash {
        min_size,
        max_size,
        function,
    })
}

/// A table.
pub(super) fn maglev(at: &At<'_>, table_size: Option<u64>) -> Result<Balancer, Invalid> {
    let table_size = table_size.unwrap_or(DEFAULT_TABLE);
    let at = at.field("table_size");
    if table_size > MAX_TABLE {
        return Err(at.refuse(format_args!("{table_size} is more than {MAX_TABLE}")));
    }
    if !is_prime(table_size) {
        return Err(at.refuse(format_args!("{table_size} is not prime")));
    }
    Ok(Balancer::Maglev { table_size })
}

fn is_prime(number: u64) -> bool {
    number > 1
        && (2..)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|divisor| !number.is_multiple_of(divisor))
}

fn older_slow_start(
    at: &At<'_>,
    wire: Option<&OlderSlowStart>,
) -> Result<Option<SlowStart>, Invalid> {
    let Some(OlderSlowStart {
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

/// How new endpoints begin.
pub(super) fn slow_start(
    at: &At<'_>,
    window: Option<&prost_types::Duration>,
    aggression: Option<&RuntimeDouble>,
    min_weight: Option<&WirePercent>,
) -> Result<SlowStart, Invalid> {
    let at_window = at.field("slow_start_window");
    let window = duration(&at_window, window)?.unwrap_or(Duration::ZERO);
    let at_aggression = at.field("aggression");
    let aggression = runtime_double(&at_aggression, aggression)?.unwrap_or(1.0);
    if aggression.is_nan() || aggression <= 0.0 {
        return Err(at_aggression
            .field("default_value")
            .refuse(format_args!("{aggression} is not more than 0")));
    }
    let min_weight = match min_weight {
        Some(wire) => {
            let share = percent(&at.field("min_weight_percent"), wire)?;
            f64::from(share.millionths()) / 1_000_000.0
        }
        None => DEFAULT_MIN_WEIGHT,
    };
    Ok(SlowStart {
        window,
        aggression,
        min_weight,
    })
}

/// A number, unless the runtime has another one by its key.
fn runtime_double(at: &At<'_>, wire: Option<&RuntimeDouble>) -> Result<Option<f64>, Invalid> {
    let Some(RuntimeDouble {
        default_value,
        runtime_key,
    }) = wire
    else {
        return Ok(None);
    };
    let told = at.runtime().number(runtime_key);
    match default_value.is_nan() {
        true => Err(at.field("default_value").refuse("no number")),
        false => Ok(Some(told.unwrap_or(*default_value))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::at::Notes;
    use super::*;

    fn translated(policy: LbPolicy, config: Option<LbConfig>) -> Result<Balancing, String> {
        let notes = Notes::default();
        older(&At::root(&notes), policy.into(), config.as_ref()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_table_that_is_not_prime_is_refused() {
        let config = |table_size| {
            Some(LbConfig::MaglevLbConfig(MaglevLbConfig {
                table_size: Some(table_size),
            }))
        };

        assert_eq!(
            translated(LbPolicy::Maglev, config(1000)),
            Err("maglev_lb_config.table_size: 1000 is not prime".into())
        );
        assert_eq!(
            translated(LbPolicy::Maglev, config(1009)).map(|found| found.balancer),
            Ok(Balancer::Maglev { table_size: 1009 })
        );
    }

    #[test]
    fn a_ring_has_envoys_sizes_unless_told() {
        let found = translated(LbPolicy::RingHash, None).expect("valid");

        assert_eq!(
            found.balancer,
            Balancer::RingHash {
                min_size: 1024,
                max_size: 8_388_608,
                function: HashFunction::XxHash
            }
        );
        let too_large = LbConfig::RingHashLbConfig(RingHashLbConfig {
            minimum_ring_size: Some(9_000_000),
            ..RingHashLbConfig::default()
        });
        assert!(translated(LbPolicy::RingHash, Some(too_large)).is_err());
    }

    #[test]
    fn a_slow_start_is_taken_with_envoys_defaults() {
        let config = LbConfig::RoundRobinLbConfig(RoundRobinLbConfig {
            slow_start_config: Some(OlderSlowStart {
                slow_start_window: Some(prost_types::Duration {
                    seconds: 60,
                    nanos: 0,
                }),
                ..OlderSlowStart::default()
            }),
        });

        let found = translated(LbPolicy::RoundRobin, Some(config)).expect("valid");

        assert_eq!(
            found.slow_start,
            Some(SlowStart {
                window: Duration::from_secs(60),
                aggression: 1.0,
                min_weight: 0.1
            })
        );
    }

    #[test]
    fn fewer_than_two_choices_are_refused() {
        let config = LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
            choice_count: Some(1),
            ..LeastRequestLbConfig::default()
        });

        assert!(translated(LbPolicy::LeastRequest, Some(config)).is_err());
    }
}
