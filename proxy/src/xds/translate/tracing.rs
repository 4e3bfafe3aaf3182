//! Which requests are traced, and where spans go.

use std::sync::Arc;

use weft_proto::envoy::config::core::v3::GrpcService;
use weft_proto::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use weft_proto::envoy::config::trace::v3::OpenTelemetryConfig;
use weft_proto::envoy::config::trace::v3::tracing::Http;
use weft_proto::envoy::config::trace::v3::tracing::http::ConfigType;
use weft_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing;
use weft_proto::envoy::r#type::tracing::v3::CustomTag;
use weft_proto::envoy::r#type::tracing::v3::custom_tag::{Header, Literal, Type};
use weft_proto::envoy::r#type::v3::Percent as WirePercent;

use super::at::{At, Invalid, harmless, holds, nonempty, opened, required, unsupported};
use super::share::percent;
use super::text::header_name;
use crate::config::percent::Percent;
use crate::config::tracing::{Tag, TagValue, TracingConfig};

/// Tracing of a filter chain.
pub(super) fn tracing(at: &At<'_>, wire: &Tracing) -> Result<TracingConfig, Invalid> {
    let Tracing {
        client_sampling,
        random_sampling,
        overall_sampling,
        verbose,
        max_path_tag_length,
        custom_tags,
        provider,
        spawn_upstream_span,
        operation,
        upstream_operation,
        no_context_propagation,
    } = wire;
    unsupported!(at; operation, upstream_operation, no_context_propagation);
    harmless!(at; verbose, max_path_tag_length, spawn_upstream_span);
    let collector = match provider {
        Some(wire) => collector(&at.field("provider"), wire)?,
        None => Collector::default(),
    };
    Ok(TracingConfig {
        random_sampling: sampling(&at.field("random_sampling"), random_sampling.as_ref())?,
        client_sampling: sampling(&at.field("client_sampling"), client_sampling.as_ref())?,
        overall_sampling: sampling(&at.field("overall_sampling"), overall_sampling.as_ref())?,
        // The listener says.
        is_egress: false,
        service_name: collector.service_name,
        cluster: collector.cluster,
        tags: tags(&at.field("custom_tags"), custom_tags)?,
    })
}

/// Envoy's default is all.
fn sampling(at: &At<'_>, wire: Option<&WirePercent>) -> Result<Percent, Invalid> {
    wire.map_or(Ok(Percent::ALL), |wire| percent(at, wire))
}

#[derive(Debug, Default)]
struct Collector {
    cluster: Option<Arc<str>>,
    service_name: Arc<str>,
}

fn collector(at: &At<'_>, wire: &Http) -> Result<Collector, Invalid> {
    let Http { name, config_type } = wire;
    let Some(ConfigType::TypedConfig(any)) = config_type else {
        return Err(at.field("typed_config").refuse_value(name));
    };
    let at = at.field("typed_config");
    if !holds::<OpenTelemetryConfig>(any) {
        return Err(at.refuse_value(&any.type_url));
    }
    let wire: OpenTelemetryConfig = opened(&at, any)?;
    let OpenTelemetryConfig {
        grpc_service,
        http_service,
        service_name,
        resource_detectors,
        sampler,
        exporter,
        max_cache_size,
        set_telemetry_sdk_resource_attributes,
        set_service_name_resource_attribute,
        set_instrumentation_scope,
    } = &wire;
    unsupported!(at; http_service, resource_detectors, sampler, exporter);
    harmless!(at; max_cache_size, set_telemetry_sdk_resource_attributes,
        set_service_name_resource_attribute, set_instrumentation_scope);
    let at_service = at.field("grpc_service");
    let service = required(&at_service, grpc_service.as_ref())?;
    Ok(Collector {
        cluster: Some(grpc_cluster(&at_service, service)?),
        service_name: service_name.as_str().into(),
    })
}

fn grpc_cluster(at: &At<'_>, wire: &GrpcService) -> Result<Arc<str>, Invalid> {
    let GrpcService {
        timeout,
        initial_metadata,
        retry_policy,
        target_specifier,
    } = wire;
    unsupported!(at; initial_metadata);
    harmless!(at; timeout, retry_policy);
    let TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
        cluster_name,
        authority,
        retry_policy,
        max_receive_message_length,
        skip_envoy_headers,
    }) = required(&at.field("target_specifier"), target_specifier.as_ref())?;
    let at = at.field("envoy_grpc");
    harmless!(at; authority, retry_policy, max_receive_message_length, skip_envoy_headers);
    nonempty(&at.field("cluster_name"), cluster_name).map(Arc::from)
}

fn tags(at: &At<'_>, wire: &[CustomTag]) -> Result<Vec<Tag>, Invalid> {
    wire.iter()
        .enumerate()
        .map(|(index, wire)| tag(&at.index(index), wire))
        .collect()
}

fn tag(at: &At<'_>, wire: &CustomTag) -> Result<Tag, Invalid> {
    let CustomTag { tag, r#type } = wire;
    let value = match required(&at.field("type"), r#type.as_ref())? {
        Type::Literal(Literal { value }) => TagValue::Literal(value.as_str().into()),
        Type::RequestHeader(Header {
            name,
            default_value,
        }) => TagValue::RequestHeader {
            name: header_name(&at.field("request_header").field("name"), name)?,
            default: (!default_value.is_empty()).then(|| default_value.as_str().into()),
        },
        Type::Environment(_) => return Err(at.field("environment").refuse("not supported")),
        Type::Metadata(_) => return Err(at.field("metadata").refuse("not supported")),
        Type::Value(value) if !value.contains('%') => TagValue::Literal(value.as_str().into()),
        Type::Value(value) => return Err(at.field("value").refuse_value(value)),
    };
    Ok(Tag {
        name: nonempty(&at.field("tag"), tag)?.into(),
        value,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_proto::json::from_json;

    use super::super::at::Notes;
    use super::*;

    #[test]
    fn spans_go_to_the_cluster_of_the_provider() {
        let wire: Tracing = from_json(json!({
            "random_sampling": {"value": 12.5},
            "custom_tags": [{"tag": "user", "request_header": {"name": "x-user"}}],
            "provider": {"name": "otel", "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                "grpc_service": {"envoy_grpc": {"cluster_name": "otlp"}},
                "service_name": "reviews",
            }},
        }))
        .expect("tracing");
        let notes = Notes::default();

        let config = tracing(&At::root(&notes), &wire).expect("valid");

        assert_eq!(config.random_sampling.millionths(), 125_000);
        assert_eq!(config.overall_sampling, Percent::ALL);
        assert_eq!(config.cluster.as_deref(), Some("otlp"));
        assert_eq!(&*config.service_name, "reviews");
        assert!(matches!(
            config.tags[0].value,
            TagValue::RequestHeader { default: None, .. }
        ));
    }
}
