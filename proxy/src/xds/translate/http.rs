//! The network filter that serves requests: Envoy's HTTP connection manager.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use ipnet::IpNet;
use weft_proto::envoy::config::core::v3::SchemeHeaderTransformation;
use weft_proto::envoy::config::core::v3::scheme_header_transformation::Transformation;
use weft_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, ForwardClientCertDetails, InternalAddressConfig, PathWithEscapedSlashesAction,
    RouteSpecifier, ServerHeaderTransformation, SetCurrentClientCertDetails, StripPortMode,
    UpgradeConfig,
};
use weft_proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, Rds,
};

use super::access_log::access_logs;
use super::address::networks;
use super::at::{At, Invalid, enumeration, harmless, limit, nonempty, required, unsupported};
use super::config_source::needs;
use super::http_filters::http_filters;
use super::http_options::{common_options, http2_options};
use super::http1_options::http1_options;
use super::local_replies::local_replies;
use super::route::route_config;
use super::tracing::tracing;
use crate::config::http::{
    CertificateDetails, Codec, DEFAULT_BUFFER_BYTES, DEFAULT_MAX_HEADER_BYTES,
    ForwardClientCertificate, ForwardingOptions, HttpConfig, RouteSource, ServerHeader,
};
use crate::config::lifespan::Lifespan;
use crate::config::paths::{EscapedSlashes, HostOptions, PathOptions, StripPort};
use crate::xds::kind::Kind;

/// Envoy's: a stream may be silent for five minutes.
const DEFAULT_STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Envoy's: a connection may be without requests for an hour.
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// How requests are served.
pub(super) fn http(at: &At<'_>, wire: &HttpConnectionManager) -> Result<HttpConfig, Invalid> {
    let HttpConnectionManager {
        codec_type,
        stat_prefix,
        http_filters: filters,
        add_user_agent,
        tracing: traced,
        common_http_protocol_options,
        http1_safe_max_connection_duration,
        http_protocol_options,
        http2_protocol_options,
        server_name,
        server_header_transformation,
        scheme_header_transformation,
        max_request_headers_kb,
        stream_idle_timeout,
        stream_flush_timeout,
        request_timeout,
        request_headers_timeout,
        drain_timeout,
        drain_timeout_jitter,
        delayed_close_timeout,
        access_log,
        access_log_flush_interval,
        flush_access_log_on_new_request,
        access_log_options,
        use_remote_address,
        xff_num_trusted_hops,
        original_ip_detection_extensions,
        early_header_mutation_extensions,
        internal_address_config,
        skip_xff_append,
        via,
        generate_request_id,
        preserve_external_request_id,
        always_set_request_id_in_response,
        forward_client_cert_details,
        set_current_client_cert_details,
        proxy_100_continue,
        represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        upgrade_configs,
        normalize_path,
        merge_slashes,
        path_with_escaped_slashes_action,
        request_id_extension,
        local_reply_config,
        strip_matching_host_port,
        stream_error_on_invalid_http_message,
        path_normalization_options,
        strip_trailing_host_dot,
        proxy_status_config,
        typed_header_validation_config,
        append_x_forwarded_port,
        append_local_overload,
        add_proxy_protocol_connection_state,
        forward_proto_config,
        route_specifier,
        strip_port_mode,
    } = wire;
    unsupported!(at; original_ip_detection_extensions,
        early_header_mutation_extensions, path_normalization_options, append_x_forwarded_port, forward_proto_config);
    harmless!(at; add_user_agent, stream_flush_timeout, drain_timeout,
        drain_timeout_jitter, delayed_close_timeout, access_log_flush_interval,
        flush_access_log_on_new_request, access_log_options,
        represent_ipv4_remote_address_as_ipv4_mapped_ipv6, request_id_extension,
        stream_error_on_invalid_http_message, proxy_status_config, typed_header_validation_config,
        append_local_overload, add_proxy_protocol_connection_state);
    let (filters, router) = http_filters(&at.field("http_filters"), filters)?;
    let common = common_options(
        &at.field("common_http_protocol_options"),
        common_http_protocol_options.as_ref(),
        Some(DEFAULT_IDLE_TIMEOUT),
    )?;
    Ok(HttpConfig {
        stat_prefix: nonempty(&at.field("stat_prefix"), stat_prefix)?.into(),
        routes: routes(at, route_specifier.as_ref())?,
        codec: codec(&at.field("codec_type"), *codec_type)?,
        filters,
        router,
        local_replies: local_reply_config
            .as_ref()
            .map(|wire| local_replies(&at.field("local_reply_config"), wire).map(Arc::new))
            .transpose()?,
        proxies_continue: *proxy_100_continue,
        paths: PathOptions {
            escaped_slashes: escaped_slashes(at, *path_with_escaped_slashes_action)?,
            normalize: normalize_path.unwrap_or(false),
            merge_slashes: *merge_slashes,
        },
        hosts: HostOptions {
            strip_trailing_dot: *strip_trailing_host_dot,
            strip_port: match (strip_port_mode, strip_matching_host_port) {
                (Some(StripPortMode::StripAnyHostPort(true)), _) => StripPort::Any,
                (_, true) => StripPort::Matching,
                (_, false) => StripPort::None,
            },
        },
        max_stream_duration: common.max_stream_duration,
        underscored_names: common.underscored_names,
        internal_addresses: internal_addresses(
            &at.field("internal_address_config"),
            internal_address_config.as_ref(),
        )?,
        request_headers_timeout: limit(
            &at.field("request_headers_timeout"),
            request_headers_timeout.as_ref(),
            None,
        )?,
        request_timeout: limit(&at.field("request_timeout"), request_timeout.as_ref(), None)?,
        idle_timeout: common.idle_timeout,
        lifespan: Lifespan {
            waits_for_response: *http1_safe_max_connection_duration,
            ..common.lifespan
        },
        stream_idle_timeout: limit(
            &at.field("stream_idle_timeout"),
            stream_idle_timeout.as_ref(),
            Some(DEFAULT_STREAM_IDLE_TIMEOUT),
        )?,
        max_header_bytes: max_request_headers_kb.map_or(DEFAULT_MAX_HEADER_BYTES, |kilobytes| {
            kilobytes.saturating_mul(1024)
        }),
        max_headers: common.max_headers,
        // The listener says.
        buffer_bytes: DEFAULT_BUFFER_BYTES,
        ends_when_failed: true,
        heeds_overload: true,
        http1: http1_options(
            &at.field("http_protocol_options"),
            http_protocol_options.as_ref(),
        )?,
        http2: http2_options(
            &at.field("http2_protocol_options"),
            http2_protocol_options.as_ref(),
        )?,
        access_logs: access_logs(&at.field("access_log"), access_log)?,
        tracing: traced
            .as_ref()
            .map(|wire| tracing(&at.field("tracing"), wire).map(Arc::new))
            .transpose()?,
        client_certificate_details: certificate_details(
            at,
            set_current_client_cert_details.as_ref(),
        )?,
        client_certificate: client_certificate(
            &at.field("forward_client_cert_details"),
            *forward_client_cert_details,
        )?,
        // Not to be appended to is the same as not to be used: nothing else asks for the client's address.
        use_remote_address: use_remote_address.unwrap_or(false),
        forwarding: ForwardingOptions {
            trusted_hops: *xff_num_trusted_hops,
            appends_peer: !skip_xff_append,
            via: (!via.is_empty()).then(|| via.as_str().into()),
            server: server_header(at, *server_header_transformation, server_name)?,
            scheme: scheme_header(
                &at.field("scheme_header_transformation"),
                scheme_header_transformation.as_ref(),
            )?,
            scheme_matches_upstream: scheme_header_transformation
                .as_ref()
                .is_some_and(|wire| wire.match_upstream),
            preserves_request_id: *preserve_external_request_id,
            returns_request_id: *always_set_request_id_in_response,
        },
        generate_request_id: generate_request_id.unwrap_or(true),
        upgrades: upgrades(&at.field("upgrade_configs"), upgrade_configs)?,
    })
}

/// What every request is said to have come by; Envoy takes no other schemes.
fn scheme_header(
    at: &At<'_>,
    wire: Option<&SchemeHeaderTransformation>,
) -> Result<Option<&'static str>, Invalid> {
    match wire.and_then(|wire| wire.transformation.as_ref()) {
        None => Ok(None),
        Some(Transformation::SchemeToOverwrite(scheme)) => match scheme.as_str() {
            "http" => Ok(Some("http")),
            "https" => Ok(Some("https")),
            other => Err(at.field("scheme_to_overwrite").refuse_value(other)),
        },
    }
}

/// Without a name of its own a proxy leaves `server` to the upstream: it has nothing to say that anybody needs.
fn server_header(at: &At<'_>, transformation: i32, name: &str) -> Result<ServerHeader, Invalid> {
    let at_transformation = at.field("server_header_transformation");
    let transformation = enumeration(&at_transformation, transformation)?;
    if name.is_empty() {
        if transformation == ServerHeaderTransformation::AppendIfAbsent {
            at_transformation.note();
        }
        return Ok(ServerHeader::Upstreams);
    }
    let name =
        HeaderValue::try_from(name).map_err(|_| at.field("server_name").refuse_value(name))?;
    Ok(match transformation {
        ServerHeaderTransformation::Overwrite => ServerHeader::Overwritten(name),
        ServerHeaderTransformation::AppendIfAbsent => ServerHeader::IfAbsent(name),
        ServerHeaderTransformation::PassThrough => ServerHeader::Upstreams,
    })
}

fn escaped_slashes(at: &At<'_>, wire: i32) -> Result<EscapedSlashes, Invalid> {
    let at = at.field("path_with_escaped_slashes_action");
    Ok(match enumeration(&at, wire)? {
        PathWithEscapedSlashesAction::ImplementationSpecificDefault
        | PathWithEscapedSlashesAction::KeepUnchanged => EscapedSlashes::Keep,
        PathWithEscapedSlashesAction::RejectRequest => EscapedSlashes::Reject,
        PathWithEscapedSlashesAction::UnescapeAndRedirect => EscapedSlashes::Redirect,
        PathWithEscapedSlashesAction::UnescapeAndForward => EscapedSlashes::Unescape,
    })
}

/// As in Envoy since 1.33, nobody is inside where nothing is said.
fn internal_addresses(
    at: &At<'_>,
    wire: Option<&InternalAddressConfig>,
) -> Result<Vec<IpNet>, Invalid> {
    let Some(wire) = wire else { return Ok(vec![]) };
    let InternalAddressConfig {
        unix_sockets,
        cidr_ranges,
    } = wire;
    // No client of a listener here comes by a unix socket.
    harmless!(at; unix_sockets);
    networks(&at.field("cidr_ranges"), cidr_ranges)
}

fn certificate_details(
    at: &At<'_>,
    wire: Option<&SetCurrentClientCertDetails>,
) -> Result<CertificateDetails, Invalid> {
    let Some(wire) = wire else {
        return Ok(CertificateDetails::default());
    };
    let at = at.field("set_current_client_cert_details");
    let SetCurrentClientCertDetails {
        subject,
        cert,
        chain,
        dns,
        uri,
        issuer,
        format,
    } = wire;
    unsupported!(at; issuer, format);
    Ok(CertificateDetails {
        subject: subject.unwrap_or(false),
        certificate: *cert,
        chain: *chain,
        hosts: *dns,
        uri: *uri,
    })
}

fn routes(at: &At<'_>, wire: Option<&RouteSpecifier>) -> Result<RouteSource, Invalid> {
    Ok(match required(&at.field("route_specifier"), wire)? {
        RouteSpecifier::RouteConfig(routes) => {
            RouteSource::Inline(Arc::new(route_config(&at.field("route_config"), routes)?))
        }
        RouteSpecifier::Rds(Rds {
            config_source,
            route_config_name,
        }) => {
            let at = at.field("rds");
            let name = nonempty(&at.field("route_config_name"), route_config_name)?;
            let source = config_source.as_ref();
            needs(&at.field("config_source"), Kind::Routes, name, source)?;
            RouteSource::Discovered(name.into())
        }
    })
}

fn codec(at: &At<'_>, wire: i32) -> Result<Codec, Invalid> {
    match enumeration(at, wire)? {
        CodecType::Auto => Ok(Codec::Auto),
        CodecType::Http1 => Ok(Codec::Http1),
        CodecType::Http2 => Ok(Codec::Http2),
        CodecType::Http3 => Err(at.refuse_value(CodecType::Http3)),
    }
}

fn client_certificate(at: &At<'_>, wire: i32) -> Result<ForwardClientCertificate, Invalid> {
    Ok(match enumeration(at, wire)? {
        ForwardClientCertDetails::Sanitize => ForwardClientCertificate::Sanitize,
        ForwardClientCertDetails::ForwardOnly => ForwardClientCertificate::ForwardOnly,
        ForwardClientCertDetails::AppendForward => ForwardClientCertificate::AppendForward,
        ForwardClientCertDetails::SanitizeSet => ForwardClientCertificate::SanitizeSet,
        ForwardClientCertDetails::AlwaysForwardOnly => ForwardClientCertificate::AlwaysForwardOnly,
    })
}

fn upgrades(at: &At<'_>, wire: &[UpgradeConfig]) -> Result<Vec<Arc<str>>, Invalid> {
    let mut upgrades = Vec::new();
    for (index, upgrade) in wire.iter().enumerate() {
        let at = at.index(index);
        let is_same = |other: &UpgradeConfig| {
            other
                .upgrade_type
                .eq_ignore_ascii_case(&upgrade.upgrade_type)
        };
        if wire[..index].iter().any(is_same) {
            let reason = format_args!("{} is named twice", upgrade.upgrade_type);
            return Err(at.field("upgrade_type").refuse(reason));
        }
        let UpgradeConfig {
            upgrade_type,
            filters,
            enabled,
        } = upgrade;
        unsupported!(at; filters);
        let name = upgrade_type.to_ascii_lowercase();
        if enabled.unwrap_or(true) {
            upgrades.push(name.into());
        }
    }
    Ok(upgrades)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_proto::json::from_json;

    use super::super::at::Notes;
    use super::*;

    fn translated(more: serde_json::Value) -> Result<HttpConfig, Invalid> {
        let mut json = json!({
            "stat_prefix": "reviews",
            "rds": {"config_source": {"ads": {}}, "route_config_name": "reviews"},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            }}],
        });
        let fields = json.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        let wire: HttpConnectionManager = from_json(json).expect("a connection manager");
        let notes = Notes::default();
        http(&At::root(&notes), &wire)
    }

    #[test]
    fn what_is_not_said_is_as_in_envoy() {
        let config = translated(json!({})).expect("valid");

        assert_eq!(config.routes, RouteSource::Discovered("reviews".into()));
        assert_eq!(config.stream_idle_timeout, Some(Duration::from_secs(300)));
        assert_eq!(config.idle_timeout, Some(Duration::from_secs(3600)));
        assert_eq!(config.max_header_bytes, 60 * 1024);
        assert!(config.generate_request_id);
        assert!(config.upgrades.is_empty());
    }

    #[test]
    fn a_limit_of_zero_is_none() {
        let config = translated(json!({"stream_idle_timeout": "0s"})).expect("valid");

        assert_eq!(config.stream_idle_timeout, None);
    }

    #[test]
    fn upgrades_are_those_that_are_enabled() {
        let config = translated(json!({"upgrade_configs": [
            {"upgrade_type": "WebSocket"}, {"upgrade_type": "foo", "enabled": false},
        ]}))
        .expect("valid");

        assert_eq!(config.upgrades, ["websocket".into()]);
        let twice = json!({"upgrade_configs": [{"upgrade_type": "WebSocket"}, {"upgrade_type": "websocket"}]});
        assert_eq!(
            translated(twice).expect_err("refused").to_string(),
            "upgrade_configs[1].upgrade_type: websocket is named twice"
        );
    }

    #[test]
    fn paths_and_hosts_are_changed_as_asked() {
        let config = translated(json!({
            "normalize_path": true,
            "merge_slashes": true,
            "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
            "strip_any_host_port": true,
            "strip_trailing_host_dot": true,
            "internal_address_config": {"cidr_ranges": [
                {"address_prefix": "10.0.0.0", "prefix_len": 8},
            ]},
        }))
        .expect("valid");

        assert!(config.paths.normalize && config.paths.merge_slashes);
        assert_eq!(config.paths.escaped_slashes, EscapedSlashes::Redirect);
        assert_eq!(config.hosts.strip_port, StripPort::Any);
        assert!(config.hosts.strip_trailing_dot);
        assert_eq!(config.internal_addresses.len(), 1);
    }
}
