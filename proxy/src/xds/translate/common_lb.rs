//! What a cluster says of all balancing policies: `common_lb_config`.

use weft_proto::envoy::config::cluster::v3::cluster::CommonLbConfig;
use weft_proto::envoy::config::cluster::v3::cluster::common_lb_config::{
    ConsistentHashingLbConfig, LocalityConfigSpecifier, ZoneAwareLbConfig,
};
use weft_proto::envoy::config::core::v3::{HealthStatus, HealthStatusSet};

use super::at::{At, Invalid, enumeration, harmless, unsupported};
use super::balancer::Balancing;
use super::policies::balance_factor;
use super::share::percent;
use super::zones::zones;
use crate::config::balancing::{Hashing, Localities};
use crate::config::cluster::OverrideStandings;
use crate::config::percent::Percent;

/// Envoy's.
const DEFAULT_PANIC_PERCENT: u32 = 50;

/// What `common_lb_config` says, and the policy does not.
pub(super) struct Common {
    pub(super) panic_threshold: Percent,
    pub(super) override_standings: OverrideStandings,
}

/// Lays it over what the policy says.
pub(super) fn common_lb(
    at: &At<'_>,
    wire: Option<&CommonLbConfig>,
    balancing: &mut Balancing,
) -> Result<Common, Invalid> {
    let default = Percent::of(DEFAULT_PANIC_PERCENT);
    let Some(wire) = wire else {
        return Ok(Common {
            panic_threshold: default,
            override_standings: OverrideStandings::default(),
        });
    };
    let CommonLbConfig {
        healthy_panic_threshold,
        update_merge_window,
        ignore_new_hosts_until_first_hc,
        close_connections_on_host_set_change,
        consistent_hashing_lb_config,
        override_host_status,
        locality_config_specifier,
    } = wire;
    unsupported!(at; close_connections_on_host_set_change);
    // Endpoints that have not been checked yet are not counted on in either case.
    harmless!(at; update_merge_window, ignore_new_hosts_until_first_hc);
    if let Some(ConsistentHashingLbConfig {
        use_hostname_for_hashing,
        hash_balance_factor,
    }) = consistent_hashing_lb_config
    {
        let at = at.field("consistent_hashing_lb_config");
        balancing.hashing = Hashing {
            by_hostname: *use_hostname_for_hashing,
            balance_factor: balance_factor(&at.field("hash_balance_factor"), *hash_balance_factor)?,
        };
    }
    match locality_config_specifier {
        None => {}
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => {
            balancing.localities = Localities::Weighted;
        }
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(wire)) => {
            let at = at.field("zone_aware_lb_config");
            let ZoneAwareLbConfig {
                routing_enabled,
                min_cluster_size,
                fail_traffic_on_panic,
            } = wire;
            balancing.zones = zones(&at, routing_enabled.as_ref(), *min_cluster_size)?;
            balancing.fails_on_panic |= *fail_traffic_on_panic;
        }
    }
    let at_threshold = at.field("healthy_panic_threshold");
    Ok(Common {
        panic_threshold: healthy_panic_threshold
            .as_ref()
            .map_or(Ok(default), |wire| percent(&at_threshold, wire))?,
        override_standings: override_host_status
            .as_ref()
            .map_or(Ok(OverrideStandings::default()), |wire| {
                override_standings(&at.field("override_host_status"), wire)
            })?,
    })
}

fn override_standings(at: &At<'_>, wire: &HealthStatusSet) -> Result<OverrideStandings, Invalid> {
    let HealthStatusSet { statuses } = wire;
    let mut allowed = OverrideStandings {
        healthy: false,
        degraded: false,
        unhealthy: false,
        draining: false,
    };
    for status in statuses {
        match enumeration(&at.field("statuses"), *status)? {
            HealthStatus::Unknown | HealthStatus::Healthy => allowed.healthy = true,
            HealthStatus::Degraded => allowed.degraded = true,
            HealthStatus::Unhealthy | HealthStatus::Timeout => allowed.unhealthy = true,
            HealthStatus::Draining => allowed.draining = true,
        }
    }
    Ok(allowed)
}
