//! Network filters that decide whether a connection is served.

use std::time::Duration;

use weft_proto::Any;
use weft_proto::envoy::config::listener::v3::Filter;
use weft_proto::envoy::config::listener::v3::filter::ConfigType;
use weft_proto::envoy::extensions::filters::network::connection_limit::v3::ConnectionLimit;
use weft_proto::envoy::extensions::filters::network::local_ratelimit::v3::LocalRateLimit;
use weft_proto::envoy::extensions::filters::network::rbac::v3::Rbac;
use weft_proto::envoy::extensions::filters::network::rbac::v3::rbac::EnforcementType;

use super::super::at::{
    At, Invalid, duration, enumeration, holds, nonempty, opened, required, unsupported,
};
use super::ext_authz::feature;
use super::local_ratelimit::bucket;
use super::rbac::optional_rules;
use crate::config::filter::gate::{Gate, GateKind};
use crate::config::filter::live::Live;
use crate::config::filter::rbac::RbacConfig;

/// No connection that may not pass is held for longer.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// All filters before the one that ends a chain. What is switched off for good is none.
pub(in crate::xds::translate) fn gates(at: &At<'_>, wire: &[Filter]) -> Result<Vec<Gate>, Invalid> {
    let mut gates = vec![];
    for (index, filter) in wire.iter().enumerate() {
        let at = at.index(index);
        let Filter { name, config_type } = filter;
        let name = nonempty(&at.field("name"), name)?;
        let any = match config_type {
            Some(ConfigType::TypedConfig(any)) => any,
            Some(ConfigType::ConfigDiscovery(_)) => {
                return Err(at.field("config_discovery").refuse("not supported"));
            }
            None => return Err(at.field("typed_config").refuse_value(name)),
        };
        gates.extend(gate(&at.field("typed_config"), any)?);
    }
    Ok(gates)
}

fn gate(at: &At<'_>, any: &Any) -> Result<Option<Gate>, Invalid> {
    if holds::<Rbac>(any) {
        rbac(at, &opened(at, any)?).map(Some)
    } else if holds::<LocalRateLimit>(any) {
        rate(at, &opened(at, any)?)
    } else if holds::<ConnectionLimit>(any) {
        open(at, &opened(at, any)?)
    } else {
        Err(at.refuse_value(&any.type_url))
    }
}

fn rbac(at: &At<'_>, wire: &Rbac) -> Result<Gate, Invalid> {
    let Rbac {
        rules,
        shadow_rules,
        stat_prefix,
        enforcement_type,
        shadow_rules_stat_prefix,
        delay_deny,
    } = wire;
    let at_enforcement = at.field("enforcement_type");
    match enumeration(&at_enforcement, *enforcement_type)? {
        // What is known of a connection does not change.
        EnforcementType::OneTimeOnFirstByte | EnforcementType::Continuous => {}
    }
    let config = RbacConfig {
        rules: optional_rules(&at.field("rules"), rules.as_ref())?,
        shadow: optional_rules(&at.field("shadow_rules"), shadow_rules.as_ref())?,
        shadow_stat_prefix: shadow_rules_stat_prefix.as_str().into(),
        ..RbacConfig::default()
    };
    Ok(Gate {
        stat_prefix: nonempty(&at.field("stat_prefix"), stat_prefix)?.into(),
        kind: GateKind::Rbac(config.into()),
        delay: delay(&at.field("delay_deny"), delay_deny.as_ref())?,
        live: Live::default(),
    })
}

fn rate(at: &At<'_>, wire: &LocalRateLimit) -> Result<Option<Gate>, Invalid> {
    let LocalRateLimit {
        stat_prefix,
        token_bucket,
        runtime_enabled,
        share_key,
    } = wire;
    unsupported!(at; share_key);
    let at_bucket = at.field("token_bucket");
    let gate = Gate {
        stat_prefix: nonempty(&at.field("stat_prefix"), stat_prefix)?.into(),
        kind: GateKind::Rate(bucket(
            &at_bucket,
            required(&at_bucket, token_bucket.as_ref())?,
        )?),
        delay: Duration::ZERO,
        live: Live::default(),
    };
    let is_enabled = feature(&at.field("runtime_enabled"), runtime_enabled.as_ref(), true)?;
    Ok(is_enabled.then_some(gate))
}

fn open(at: &At<'_>, wire: &ConnectionLimit) -> Result<Option<Gate>, Invalid> {
    let ConnectionLimit {
        stat_prefix,
        max_connections,
        delay: wait,
        runtime_enabled,
    } = wire;
    let at_max = at.field("max_connections");
    let max = *required(&at_max, max_connections.as_ref())?;
    if max == 0 {
        return Err(at_max.refuse("must be at least 1"));
    }
    let gate = Gate {
        stat_prefix: nonempty(&at.field("stat_prefix"), stat_prefix)?.into(),
        kind: GateKind::Open(max),
        delay: delay(&at.field("delay"), wait.as_ref())?,
        live: Live::default(),
    };
    let is_enabled = feature(&at.field("runtime_enabled"), runtime_enabled.as_ref(), true)?;
    Ok(is_enabled.then_some(gate))
}

fn delay(at: &At<'_>, wire: Option<&prost_types::Duration>) -> Result<Duration, Invalid> {
    let delay = duration(at, wire)?.unwrap_or_default();
    if delay > MAX_DELAY {
        return Err(at.refuse("must not exceed a minute"));
    }
    Ok(delay)
}

#[cfg(test)]
mod tests {
    use weft_proto::any::pack;

    use super::super::super::at::Notes;
    use super::*;

    fn translated(any: Any) -> Result<Vec<Gate>, Invalid> {
        let notes = Notes::default();
        let filter = Filter {
            name: "f".into(),
            config_type: Some(ConfigType::TypedConfig(any)),
        };
        gates(&At::root(&notes).field("filters"), &[filter])
    }

    #[test]
    fn a_limit_of_nothing_is_refused_by_path() {
        let wire = ConnectionLimit {
            stat_prefix: "a".into(),
            max_connections: Some(0),
            ..ConnectionLimit::default()
        };

        let error = translated(pack(&wire)).expect_err("refused");

        assert_eq!(
            error.to_string(),
            "filters[0].typed_config.max_connections: must be at least 1"
        );
    }

    #[test]
    fn a_filter_that_is_not_known_is_refused_by_its_type() {
        let any = Any {
            type_url: "type.googleapis.com/a.Unknown".into(),
            ..Any::default()
        };

        assert!(translated(any).is_err());
    }
}
