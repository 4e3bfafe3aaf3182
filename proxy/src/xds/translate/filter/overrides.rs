//! What hosts, routes and weighted clusters say to filters (`typed_per_filter_config`).

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_proto::Any;
use weft_proto::envoy::config::route::v3::FilterConfig;

use super::super::at::{At, Invalid, holds, opened};
use super::route_filter;
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
        if let Some(said) = said(&at, name, any)? {
            overrides.set(name.as_str().into(), said);
        }
    }
    Ok(overrides)
}

fn said(at: &At<'_>, name: &str, any: &Any) -> Result<Option<FilterOverride>, Invalid> {
    if holds::<FilterConfig>(any) {
        return switched(at, name, &opened(at, any)?);
    }
    match route_filter(at, any)? {
        Some(filter) => Ok(Some(FilterOverride::Configured(filter))),
        None => Err(at.refuse_value(&any.type_url)),
    }
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
    match route_filter(&at, any)? {
        Some(filter) => Ok(Some(FilterOverride::Configured(filter))),
        // Envoy: an empty message only switches the filter on.
        None if any.type_url.is_empty() && !is_optional => Err(at.refuse_value(name)),
        None if *is_optional => {
            at.note();
            Ok(None)
        }
        None => Err(at.refuse_value(&any.type_url)),
    }
}

/// Makes each part of the routes say what the parts around it say, so that requests look in one place.
pub(in crate::xds::translate) fn inherit(routes: &mut RouteConfig, around: &FilterOverrides) {
    for host in &mut routes.virtual_hosts {
        host.filters.inherit(around);
        for route in &mut host.routes {
            route.filters.inherit(&host.filters);
            if let RouteAction::Forward(forward) = &mut route.action {
                let forward = Arc::make_mut(forward);
                if let Target::Weighted(clusters) = &mut forward.target {
                    for cluster in clusters.clusters_mut() {
                        cluster.filters.inherit(&route.filters);
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
