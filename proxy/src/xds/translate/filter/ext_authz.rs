//! Asking a service whether a request may pass.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use weft_proto::envoy::config::core::v3::ApiVersion;
use weft_proto::envoy::extensions::filters::http::ext_authz::v3::check_settings::ServiceOverride;
use weft_proto::envoy::extensions::filters::http::ext_authz::v3::ext_authz::Services;
use weft_proto::envoy::extensions::filters::http::ext_authz::v3::ext_authz_per_route::Override;
use weft_proto::envoy::extensions::filters::http::ext_authz::v3::{
    AuthorizationRequest, AuthorizationResponse, BufferSettings, CheckSettings, ExtAuthz,
    ExtAuthzPerRoute, HttpService,
};
use weft_proto::envoy::r#type::matcher::v3::ListStringMatcher;
use weft_proto::envoy::r#type::v3::HttpStatus;

use super::super::at::{At, Invalid, enumeration, harmless, required, unsupported};
use super::super::share::runtime_fraction;
use super::super::text::text_match;
use super::service::{grpc, header, http_uri};
use super::value::metadata_match;
use crate::config::filter::ext_authz::{
    AuthzBody, AuthzOverride, AuthzService, ExtAuthzConfig, HttpAuthz,
};
use crate::config::filter::live::Live;
use crate::config::filter::{FilterOverride, RouteFilter};
use crate::config::matching::TextMatch;
use crate::config::percent::Percent;

/// Envoy's.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(200);

/// The filter.
pub(super) fn ext_authz(at: &At<'_>, wire: &ExtAuthz) -> Result<ExtAuthzConfig, Invalid> {
    let ExtAuthz {
        transport_api_version,
        failure_mode_allow,
        failure_mode_allow_header_add,
        with_request_body,
        clear_route_cache,
        status_on_error,
        validate_mutations,
        metadata_context_namespaces,
        typed_metadata_context_namespaces,
        route_metadata_context_namespaces,
        route_typed_metadata_context_namespaces,
        filter_enabled,
        filter_enabled_metadata,
        deny_at_disable,
        include_peer_certificate,
        stat_prefix,
        bootstrap_metadata_labels_key,
        allowed_headers,
        disallowed_headers,
        include_tls_session,
        charge_cluster_response_stats,
        encode_raw_headers,
        decoder_header_mutation_rules,
        enable_dynamic_metadata_ingestion,
        filter_metadata,
        emit_filter_state_stats,
        max_denied_response_body_bytes,
        enforce_response_header_limits,
        shadow_mode,
        emit_client_span,
        services,
    } = wire;
    unsupported!(at; typed_metadata_context_namespaces, route_typed_metadata_context_namespaces,
        include_peer_certificate, bootstrap_metadata_labels_key, encode_raw_headers,
        decoder_header_mutation_rules, enable_dynamic_metadata_ingestion,
        max_denied_response_body_bytes, shadow_mode);
    // Mutations that are not valid are never made.
    harmless!(at; validate_mutations, filter_metadata,
        emit_filter_state_stats, enforce_response_header_limits, emit_client_span);
    version(at, *transport_api_version)?;
    let service = match required(&at.field("services"), services.as_ref())? {
        Services::GrpcService(wire) => {
            AuthzService::Grpc(grpc(&at.field("grpc_service"), wire, DEFAULT_TIMEOUT)?)
        }
        Services::HttpService(wire) => {
            AuthzService::Http(http_service(&at.field("http_service"), wire)?.into())
        }
    };
    let at_metadata = at.field("filter_enabled_metadata");
    let at_deny = at.field("deny_at_disable");
    Ok(ExtAuthzConfig {
        service,
        failure_allows: *failure_mode_allow,
        failure_is_marked: *failure_mode_allow_header_add,
        body: with_request_body
            .as_ref()
            .map(|wire| body(&at.field("with_request_body"), wire))
            .transpose()?,
        charges_cluster: charge_cluster_response_stats.unwrap_or(true),
        clears_route: *clear_route_cache,
        status_on_error: error_status(&at.field("status_on_error"), status_on_error.as_ref())?,
        metadata_namespaces: texts(metadata_context_namespaces),
        route_metadata_namespaces: texts(route_metadata_context_namespaces),
        enabled: match filter_enabled {
            Some(wire) => runtime_fraction(&at.field("filter_enabled"), wire)?,
            None => Percent::ALL,
        },
        enabled_metadata: filter_enabled_metadata
            .as_ref()
            .map(|wire| metadata_match(&at_metadata, wire))
            .transpose()?,
        denies_unasked: feature(&at_deny, deny_at_disable.as_ref(), false)?,
        stat_prefix: stat_prefix.as_str().into(),
        allowed_headers: allowed_headers
            .as_ref()
            .map(|wire| matches(&at.field("allowed_headers"), Some(wire)))
            .transpose()?,
        disallowed_headers: matches(&at.field("disallowed_headers"), disallowed_headers.as_ref())?,
        tells_server_name: *include_tls_session,
        live: Live::default(),
    })
}

pub(super) fn version(at: &At<'_>, wire: i32) -> Result<(), Invalid> {
    let at = at.field("transport_api_version");
    match enumeration(&at, wire)? {
        ApiVersion::Auto | ApiVersion::V3 => Ok(()),
        other @ ApiVersion::V2 => Err(at.refuse_value(other)),
    }
}

/// A switch, unless the runtime has another one by its key.
pub(super) fn feature(
    at: &At<'_>,
    wire: Option<&weft_proto::envoy::config::core::v3::RuntimeFeatureFlag>,
    default: bool,
) -> Result<bool, Invalid> {
    let Some(wire) = wire else { return Ok(default) };
    let weft_proto::envoy::config::core::v3::RuntimeFeatureFlag {
        default_value,
        runtime_key,
    } = wire;
    let told = at.runtime().switch(runtime_key);
    Ok(told.or(*default_value).unwrap_or(default))
}

fn texts(wire: &[String]) -> Vec<Arc<str>> {
    wire.iter().map(|text| text.as_str().into()).collect()
}

fn matches(at: &At<'_>, wire: Option<&ListStringMatcher>) -> Result<Vec<TextMatch>, Invalid> {
    let Some(ListStringMatcher { patterns }) = wire else {
        return Ok(vec![]);
    };
    let at = at.field("patterns");
    patterns
        .iter()
        .enumerate()
        .map(|(index, wire)| {
            let test = text_match(&at.index(index), wire)?;
            // Names of headers have no case.
            Ok(TextMatch {
                ignore_case: true,
                ..test
            })
        })
        .collect()
}

fn error_status(at: &At<'_>, wire: Option<&HttpStatus>) -> Result<StatusCode, Invalid> {
    let Some(HttpStatus { code }) = wire else {
        return Ok(StatusCode::FORBIDDEN);
    };
    u16::try_from(*code)
        .ok()
        .filter(|code| (200..600).contains(code))
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or_else(|| at.field("code").refuse(format_args!("{code} is no status")))
}

fn body(at: &At<'_>, wire: &BufferSettings) -> Result<AuthzBody, Invalid> {
    let BufferSettings {
        max_request_bytes,
        allow_partial_message,
        pack_as_bytes,
    } = wire;
    if *max_request_bytes == 0 {
        return Err(at.field("max_request_bytes").refuse("must be at least 1"));
    }
    Ok(AuthzBody {
        max_bytes: usize::try_from(*max_request_bytes).unwrap_or(usize::MAX),
        allows_partial: *allow_partial_message,
        is_raw: *pack_as_bytes,
    })
}

fn http_service(at: &At<'_>, wire: &HttpService) -> Result<HttpAuthz, Invalid> {
    let HttpService {
        server_uri,
        path_prefix,
        path_override,
        authorization_request,
        authorization_response,
        retry_policy,
    } = wire;
    unsupported!(at; retry_policy);
    let at_uri = at.field("server_uri");
    let (_, cluster, timeout) = http_uri(&at_uri, required(&at_uri, server_uri.as_ref())?)?;
    for (field, path) in [
        ("path_prefix", path_prefix),
        ("path_override", path_override),
    ] {
        if !path.is_empty() && !path.starts_with('/') {
            return Err(at.field(field).refuse("must begin with a slash"));
        }
    }
    let at_request = at.field("authorization_request");
    let default = AuthorizationRequest::default();
    let AuthorizationRequest {
        allowed_headers,
        headers_to_add,
    } = authorization_request.as_ref().unwrap_or(&default);
    let at_response = at.field("authorization_response");
    let default = AuthorizationResponse::default();
    let AuthorizationResponse {
        allowed_upstream_headers,
        allowed_upstream_headers_to_append,
        allowed_client_headers,
        allowed_client_headers_on_success,
        dynamic_metadata_from_headers,
    } = authorization_response.as_ref().unwrap_or(&default);
    let at_adds = at_request.field("headers_to_add");
    let headers = headers_to_add.iter().enumerate();
    let headers = headers.map(|(index, wire)| header(&at_adds.index(index), wire));
    let of_response = |field: &'static str, wire: &Option<ListStringMatcher>| {
        matches(&at_response.field(field), wire.as_ref())
    };
    Ok(HttpAuthz {
        cluster: cluster.into(),
        timeout,
        path_prefix: path_prefix.as_str().into(),
        path_override: path_override.as_str().into(),
        allowed: matches(
            &at_request.field("allowed_headers"),
            allowed_headers.as_ref(),
        )?,
        headers: headers.collect::<Result<_, _>>()?,
        upstream: of_response("allowed_upstream_headers", allowed_upstream_headers)?,
        upstream_append: of_response(
            "allowed_upstream_headers_to_append",
            allowed_upstream_headers_to_append,
        )?,
        client: of_response("allowed_client_headers", allowed_client_headers)?,
        client_on_success: of_response(
            "allowed_client_headers_on_success",
            allowed_client_headers_on_success,
        )?,
        metadata: of_response(
            "dynamic_metadata_from_headers",
            dynamic_metadata_from_headers,
        )?,
    })
}

/// For a part of the routes.
pub(super) fn per_route(at: &At<'_>, wire: &ExtAuthzPerRoute) -> Result<FilterOverride, Invalid> {
    let ExtAuthzPerRoute { r#override } = wire;
    let settings = match required(&at.field("override"), r#override.as_ref())? {
        Override::Disabled(true) => return Ok(FilterOverride::Disabled),
        Override::Disabled(false) => return Err(at.field("disabled").refuse("must be true")),
        Override::CheckSettings(settings) => settings,
    };
    let at = at.field("check_settings");
    let CheckSettings {
        context_extensions,
        disable_request_body_buffering,
        with_request_body,
        service_override,
        emit_client_span,
    } = settings;
    harmless!(at; emit_client_span);
    let body = match with_request_body {
        Some(_) if *disable_request_body_buffering => {
            let at = at.field("with_request_body");
            return Err(at.refuse("`disable_request_body_buffering` is set, too"));
        }
        Some(wire) => Some(Some(body(&at.field("with_request_body"), wire)?)),
        None if *disable_request_body_buffering => Some(None),
        None => None,
    };
    let service = match service_override {
        None => None,
        Some(ServiceOverride::GrpcService(wire)) => Some(AuthzService::Grpc(grpc(
            &at.field("grpc_service"),
            wire,
            DEFAULT_TIMEOUT,
        )?)),
        Some(ServiceOverride::HttpService(wire)) => Some(AuthzService::Http(
            http_service(&at.field("http_service"), wire)?.into(),
        )),
    };
    let own = AuthzOverride {
        context: context_extensions.clone(),
        body,
        service,
    };
    Ok(FilterOverride::Configured(RouteFilter::ExtAuthz(
        own.into(),
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_proto::json::from_json;

    use super::super::super::at::Notes;
    use super::*;

    fn translated(json: serde_json::Value) -> Result<ExtAuthzConfig, Invalid> {
        let notes = Notes::default();
        ext_authz(&At::root(&notes), &from_json(json).expect("a filter"))
    }

    #[test]
    fn what_is_not_said_is_as_in_envoy() {
        let config = translated(json!({"grpc_service": {"envoy_grpc": {"cluster_name": "authz"}}}));

        let config = config.expect("valid");
        assert_eq!(config.status_on_error, StatusCode::FORBIDDEN);
        assert!(!config.failure_allows);
        assert!(matches!(&config.service, AuthzService::Grpc(target)
            if &*target.cluster == "authz" && target.timeout == DEFAULT_TIMEOUT));
    }

    #[test]
    fn names_of_headers_have_no_case() {
        let config = translated(json!({
            "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}},
            "allowed_headers": {"patterns": [{"exact": "X-User"}]},
        }));

        let allowed = config.expect("valid").allowed_headers.expect("some");
        assert!(allowed[0].is_match("x-user"));
    }

    #[test]
    fn what_cannot_be_is_refused_by_path() {
        let refused = |json| translated(json).expect_err("refused").to_string();

        assert_eq!(refused(json!({})), "services: missing");
        assert_eq!(
            refused(json!({"http_service": {"server_uri":
                {"uri": "http://a", "cluster": "a", "timeout": "1s"}, "path_prefix": "x"}})),
            "http_service.path_prefix: must begin with a slash"
        );
    }
}
