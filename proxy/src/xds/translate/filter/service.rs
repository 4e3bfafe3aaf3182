//! Services that filters ask.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use weft_proto::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use weft_proto::envoy::config::core::v3::http_uri::HttpUpstreamType;
use weft_proto::envoy::config::core::v3::{GrpcService, HeaderValue as WireHeader, HttpUri};

use super::super::at::{At, Invalid, duration, harmless, nonempty, required, unsupported};
use super::super::text::header_name;
use crate::config::filter::service::GrpcTarget;

/// A gRPC service in a cluster.
pub(in crate::xds::translate) fn grpc(
    at: &At<'_>,
    wire: &GrpcService,
    default_timeout: Duration,
) -> Result<GrpcTarget, Invalid> {
    let GrpcService {
        timeout,
        initial_metadata,
        retry_policy,
        target_specifier,
    } = wire;
    unsupported!(at; retry_policy);
    let at_timeout = at.field("timeout");
    let timeout = duration(&at_timeout, timeout.as_ref())?.filter(|time| !time.is_zero());
    let TargetSpecifier::EnvoyGrpc(envoy) =
        required(&at.field("target_specifier"), target_specifier.as_ref())?;
    let at_envoy = at.field("envoy_grpc");
    let EnvoyGrpc {
        cluster_name,
        authority,
        retry_policy,
        max_receive_message_length,
        skip_envoy_headers,
    } = envoy;
    unsupported!(at_envoy; retry_policy, skip_envoy_headers);
    harmless!(at_envoy; max_receive_message_length);
    let mut metadata = HeaderMap::new();
    let at_metadata = at.field("initial_metadata");
    for (index, wire) in initial_metadata.iter().enumerate() {
        let (name, value) = header(&at_metadata.index(index), wire)?;
        metadata.append(name, value);
    }
    Ok(GrpcTarget {
        cluster: nonempty(&at_envoy.field("cluster_name"), cluster_name)?.into(),
        authority: authority.as_str().into(),
        timeout: timeout.unwrap_or(default_timeout),
        metadata,
    })
}

/// A header as it is.
pub(super) fn header(
    at: &At<'_>,
    wire: &WireHeader,
) -> Result<(http::HeaderName, HeaderValue), Invalid> {
    let WireHeader {
        key,
        value,
        raw_value,
    } = wire;
    let bytes = match raw_value.is_empty() {
        true => value.as_bytes(),
        false => raw_value,
    };
    let value = HeaderValue::from_bytes(bytes);
    let value = value.map_err(|_| at.field("value").refuse("no header value"))?;
    Ok((header_name(&at.field("key"), key)?, value))
}

/// A URI, the cluster that serves it, and how long an answer may take.
pub(super) fn http_uri<'wire>(
    at: &At<'_>,
    wire: &'wire HttpUri,
) -> Result<(http::Uri, &'wire str, Duration), Invalid> {
    let HttpUri {
        uri,
        timeout,
        http_upstream_type,
    } = wire;
    let at_uri = at.field("uri");
    let uri: http::Uri = nonempty(&at_uri, uri)?
        .parse()
        .map_err(|_| at_uri.refuse(format_args!("{uri:?} is no URI")))?;
    let at_type = at.field("http_upstream_type");
    let HttpUpstreamType::Cluster(cluster) = required(&at_type, http_upstream_type.as_ref())?;
    let at_timeout = at.field("timeout");
    let timeout = duration(&at_timeout, timeout.as_ref())?;
    let timeout = *required(&at_timeout, timeout.as_ref())?;
    if timeout.is_zero() {
        return Err(at_timeout.refuse("must be more than nothing"));
    }
    let cluster = nonempty(&at.field("cluster"), cluster)?;
    Ok((uri, cluster, timeout))
}
