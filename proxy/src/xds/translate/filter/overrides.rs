//! What hosts, routes and weighted clusters say to filters (`typed_per_filter_config`).

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_proto::Any;
use weft_proto::envoy::config::route::v3::route::Action;
use weft_proto::envoy::config::route::v3::{FilterConfig, Route, VirtualHost};

use super::super::at::{At, Invalid, holds, opened};
use super::{cors, cors_policy, rate_limits, said, value};
use crate::config::filter::rate_limits::RouteLimits;
use crate::config::filter::{FilterOverride, FilterOverrides};
use crate::config::route::{RouteAction, RouteConfig, Target};

/// What one part of the routes says.
pub(in crate::xds::translate) fn overrides(
    at: &At<'_>,
    wire: &BTreeMap<String, Any>,
) -> Result<FilterOverrides, Invalid> {
    let mut overrides = FilterOverrides::new();
    for (name, any) in wire {
        let at = at.key(name);
        if let Some(policy) = cors_policy(&at, any)? {
            overrides.cors = Some(Arc::new(policy));
        } else if let Some(said) = said_by_name(&at, name, any)? {
            overrides.set(name.as_str().into(), said);
        }
    }
    Ok(overrides)
}

fn said_by_name(at: &At<'_>, name: &str, any: &Any) -> Result<Option<FilterOverride>, Invalid> {
    if holds::<FilterConfig>(any) {
        return switched(at, name, &opened(at, any)?);
    }
    let said = said(at, any)?;
    said.map(Some).ok_or_else(|| at.refuse_value(&any.type_url))
}

/// A filter that is switched on or off, or that the control plane can do without.
fn switched(
    at: &At<'_>,
    name: &str,
    wire: &FilterConfig,
) -> Result<Option<FilterOverride>, Invalid> {
    let FilterConfig {
        config,
        is_optional,
        disabled,
    } = wire;
    if *disabled {
        return Ok(Some(FilterOverride::Disabled));
    }
    let at = at.field("config");
    let Some(any) = config else {
        return Ok(Some(FilterOverride::Enabled));
    };
    match said(&at, any)? {
        Some(said) => Ok(Some(said)),
        // Envoy: an empty message only switches the filter on.
        None if any.type_url.is_empty() && !is_optional => Err(at.refuse_value(name)),
        None if *is_optional => {
            at.note();
            Ok(None)
        }
        None => Err(at.refuse_value(&any.type_url)),
    }
}

/// What a host says, with the rate limits and the CORS policy that have fields of their own.
pub(in crate::xds::translate) fn of_host(
    at: &At<'_>,
    wire: &VirtualHost,
) -> Result<FilterOverrides, Invalid> {
    let at_filters = at.field("typed_per_filter_config");
    let mut said = overrides(&at_filters, &wire.typed_per_filter_config)?;
    if let (None, Some(policy)) = (&said.cors, &wire.cors) {
        said.cors = Some(Arc::new(cors::route_policy(&at.field("cors"), policy)?));
    }
    said.limit_by(RouteLimits {
        host: rate_limits::rules_of_routes(&at.field("rate_limits"), &wire.rate_limits)?,
        ..RouteLimits::default()
    });
    Ok(said)
}

/// What a route says, likewise, with what is said about it.
pub(in crate::xds::translate) fn of_route(
    at: &At<'_>,
    wire: &Route,
) -> Result<FilterOverrides, Invalid> {
    let at_filters = at.field("typed_per_filter_config");
    let mut said = overrides(&at_filters, &wire.typed_per_filter_config)?;
    said.describe(value::metadata(wire.metadata.as_ref()));
    let Some(Action::Route(action)) = &wire.action else {
        return Ok(said);
    };
    let at = at.field("route");
    if let (None, Some(policy)) = (&said.cors, &action.cors) {
        said.cors = Some(Arc::new(cors::route_policy(&at.field("cors"), policy)?));
    }
    said.limit_by(RouteLimits {
        route: rate_limits::rules_of_routes(&at.field("rate_limits"), &action.rate_limits)?,
        includes_host: action.include_vh_rate_limits.unwrap_or(false),
        ..RouteLimits::default()
    });
    Ok(said)
}

/// Makes each part of the routes say what the parts around it say, so that requests look in one place.
pub(in crate::xds::translate) fn inherit(routes: &mut RouteConfig, around: &FilterOverrides) {
    for host in &mut routes.virtual_hosts {
        host.filters.inherit(around);
        for route in &mut host.routes {
            route.filters.inherit(&host.filters);
            let host_limits = host.filters.rate_limits();
            if !host_limits.host.is_empty() {
                let limits = route.filters.rate_limits().clone();
                route.filters.limit_by(RouteLimits {
                    host: Arc::clone(&host_limits.host),
                    ..limits
                });
            }
            if let RouteAction::Forward(forward) = &mut route.action {
                let forward = Arc::make_mut(forward);
                if let Target::Weighted(clusters) = &mut forward.target {
                    for cluster in clusters.clusters_mut() {
                        cluster.filters.belong_to(&route.filters);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_proto::any::pack;
    use weft_proto::envoy::extensions::filters::http::fault::v3::HttpFault;

    use super::super::super::at::Notes;
    use super::*;
    use crate::config::filter::RouteFilter;

    fn overridden(name: &str, any: Any) -> Result<FilterOverrides, Invalid> {
        let notes = Notes::default();
        overrides(&At::root(&notes), &BTreeMap::from([(name.to_owned(), any)]))
    }

    #[test]
    fn a_filter_is_configured_by_the_name_of_the_key() {
        let said = overridden("f", pack(&HttpFault::default())).expect("valid");

        assert!(matches!(
            said.of("f"),
            Some(FilterOverride::Configured(RouteFilter::Fault(_)))
        ));
    }

    #[test]
    fn a_filter_is_switched_on_and_off() {
        let off = FilterConfig {
            disabled: true,
            ..FilterConfig::default()
        };

        let off = overridden("f", pack(&off)).expect("valid");
        let on = overridden("f", pack(&FilterConfig::default())).expect("valid");

        assert_eq!(off.of("f"), Some(&FilterOverride::Disabled));
        assert_eq!(on.of("f"), Some(&FilterOverride::Enabled));
    }

    #[test]
    fn a_filter_that_is_not_known_is_refused_unless_it_is_optional() {
        let unknown = FilterConfig {
            config: Some(Any::default()),
            ..FilterConfig::default()
        };
        let optional = FilterConfig {
            is_optional: true,
            ..unknown.clone()
        };

        assert!(overridden("lua", pack(&unknown)).is_err());
        assert_eq!(
            overridden("lua", pack(&optional)),
            Ok(FilterOverrides::default())
        );
    }
}
