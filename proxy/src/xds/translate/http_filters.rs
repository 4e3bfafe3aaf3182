//! The filters that every request passes, the router last.

use weft_proto::envoy::extensions::filters::http::router::v3::Router;
use weft_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter as WireFilter;
use weft_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;

use super::at::{At, Invalid, harmless, holds, nonempty, opened, unsupported};
use super::filter;
use crate::config::filter::HttpFilter;
use crate::config::http::RouterOptions;

/// All filters but the router, which must be there; and how the router behaves.
pub(super) fn http_filters(
    at: &At<'_>,
    wire: &[WireFilter],
) -> Result<(Vec<HttpFilter>, RouterOptions), Invalid> {
    let Some((last, others)) = wire.split_last() else {
        return Err(at.refuse("must end with the router"));
    };
    let mut filters = Vec::new();
    for (index, filter) in others.iter().enumerate() {
        filters.extend(http_filter(&at.index(index), filter)?);
    }
    let router = last_filter(&at.index(others.len()), last)?;
    Ok((filters, router))
}

/// A filter; none where it is optional and not known.
fn http_filter(at: &At<'_>, wire: &WireFilter) -> Result<Option<HttpFilter>, Invalid> {
    let WireFilter {
        name,
        is_optional,
        disabled,
        config_type,
    } = wire;
    let name = nonempty(&at.field("name"), name)?;
    let any = match config_type {
        Some(ConfigType::TypedConfig(any)) => any,
        Some(ConfigType::ConfigDiscovery(_)) => {
            return Err(at.field("config_discovery").refuse("not supported"));
        }
        None => return Err(at.field("typed_config").refuse_value(name)),
    };
    let at_config = at.field("typed_config");
    match filter::kind(&at_config, any)? {
        Some(kind) => Ok(Some(HttpFilter {
            name: name.into(),
            is_disabled: *disabled,
            kind,
        })),
        None if *is_optional => {
            at.note();
            Ok(None)
        }
        None => Err(at_config.refuse_value(&any.type_url)),
    }
}

fn last_filter(at: &At<'_>, wire: &WireFilter) -> Result<RouterOptions, Invalid> {
    let WireFilter {
        name,
        is_optional: _,
        disabled: _,
        config_type,
    } = wire;
    nonempty(&at.field("name"), name)?;
    match config_type {
        Some(ConfigType::TypedConfig(any)) if holds::<Router>(any) => {
            let at = at.field("typed_config");
            router(&at, &opened(&at, any)?)
        }
        _ => Err(at.refuse("the last filter must be the router")),
    }
}

fn router(at: &At<'_>, wire: &Router) -> Result<RouterOptions, Invalid> {
    let Router {
        dynamic_stats,
        start_child_span,
        upstream_log,
        upstream_log_options,
        suppress_envoy_headers,
        strict_check_headers,
        respect_expected_rq_timeout,
        suppress_grpc_request_failure_code_stats,
        upstream_http_filters,
        reject_connect_request_early_data,
    } = wire;
    unsupported!(at; upstream_log, strict_check_headers, upstream_http_filters);
    harmless!(at; dynamic_stats, start_child_span, upstream_log_options,
        suppress_grpc_request_failure_code_stats, reject_connect_request_early_data);
    Ok(RouterOptions {
        suppresses_envoy_headers: *suppress_envoy_headers,
        respects_expected_timeout: *respect_expected_rq_timeout,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weft_proto::Any;
    use weft_proto::any::pack;
    use weft_proto::envoy::extensions::filters::http::fault::v3::HttpFault;

    use super::super::at::Notes;
    use super::*;
    use crate::config::filter::FilterKind;

    fn filter(any: Any) -> WireFilter {
        WireFilter {
            name: "f".into(),
            config_type: Some(ConfigType::TypedConfig(any)),
            ..WireFilter::default()
        }
    }

    fn translated(wire: &[WireFilter]) -> Result<Vec<HttpFilter>, Invalid> {
        let notes = Notes::default();
        http_filters(&At::root(&notes).field("http_filters"), wire).map(|(filters, _)| filters)
    }

    #[test]
    fn the_router_ends_the_list_and_is_not_in_it() {
        let filters = translated(&[
            filter(pack(&HttpFault::default())),
            filter(pack(&Router::default())),
        ]);

        let kinds: Vec<_> = filters
            .expect("valid")
            .into_iter()
            .map(|one| one.kind)
            .collect();
        assert_eq!(kinds, [FilterKind::Fault(Arc::default())]);
    }

    #[test]
    fn a_list_without_a_router_is_refused() {
        assert!(translated(&[]).is_err());
        assert_eq!(
            translated(&[filter(pack(&HttpFault::default()))])
                .expect_err("refused")
                .to_string(),
            "http_filters[0]: the last filter must be the router"
        );
    }

    #[test]
    fn a_filter_that_is_not_known_is_refused_by_its_type() {
        let any = Any {
            type_url: "type.googleapis.com/a.Wasm".into(),
            ..Any::default()
        };

        let error =
            translated(&[filter(any), filter(pack(&Router::default()))]).expect_err("refused");

        assert_eq!(
            error.to_string(),
            "http_filters[0].typed_config: \"type.googleapis.com/a.Wasm\" is not supported"
        );
    }
}
