//! What a sidecar tells of its traffic: the access log, spans, and the cluster that they are sent to.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_proto::envoy::config::cluster::v3::Cluster;
use weft_proto::envoy::config::cluster::v3::cluster::DiscoveryType;
use weft_proto::envoy::config::core::v3 as core;
use weft_proto::envoy::config::trace::v3 as trace;
use weft_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing;
use weft_proto::envoy::extensions::upstreams::http::v3 as http;
use weft_proto::envoy::r#type::v3::Percent;
use weft_proto::any;

use crate::kinds::reference::Percentage;
use crate::kinds::telemetry::{AccessLog, AccessLogFormat, TelemetrySpec};
use crate::mesh::Mesh;

use super::{clusters, wire};

mod access_log;

/// The cluster that telemetry goes to; further receivers carry their address behind it.
const OTLP: &str = "otlp";
/// What OTLP over gRPC listens on.
const DEFAULT_PORT: u16 = 4317;
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The receivers of telemetry in a mesh, by endpoint.
#[derive(Debug, Default)]
pub(super) struct Receivers {
    by_endpoint: BTreeMap<String, Receiver>,
    default: Option<String>,
}

#[derive(Debug)]
struct Receiver {
    cluster: Arc<str>,
    host: String,
    port: u16,
}

/// What is told of some traffic.
#[derive(Debug, Clone)]
pub(super) struct Reporting {
    access_log: AccessLog,
    spans: Option<Spans>,
}

#[derive(Debug, Clone)]
struct Spans {
    sampled: Percentage,
    cluster: Arc<str>,
    service_name: String,
}

impl Receivers {
    /// All that any resource or the daemon names. An endpoint that cannot be read is none: validation has
    /// refused it.
    pub(super) fn of(mesh: &Mesh) -> Self {
        let default = mesh.settings.otlp_endpoint.as_deref();
        let of_policies = mesh
            .policies
            .all_telemetry()
            .filter_map(|spec| spec.tracing.as_ref()?.endpoint.as_deref());
        let mut others: Vec<&str> = of_policies
            .filter(|endpoint| Some(*endpoint) != default)
            .collect();
        others.sort_unstable();
        others.dedup();

        let mut by_endpoint = BTreeMap::new();
        for endpoint in default.into_iter().chain(others) {
            if let Some((host, port)) = authority(endpoint) {
                let cluster = match by_endpoint.is_empty() {
                    true => OTLP.into(),
                    false => format!("{OTLP}|{host}:{port}").into(),
                };
                by_endpoint.insert(
                    endpoint.to_owned(),
                    Receiver {
                        cluster,
                        host,
                        port,
                    },
                );
            }
        }
        Self {
            by_endpoint,
            default: default.map(str::to_owned),
        }
    }

    /// Whether anybody is told anything.
    pub(super) fn is_empty(&self) -> bool {
        self.by_endpoint.is_empty()
    }

    /// One cluster for each receiver.
    pub(super) fn clusters(&self) -> impl Iterator<Item = Cluster> {
        self.by_endpoint.values().map(Receiver::cluster)
    }

    /// What policies, the most specific first, want told of some traffic, by a sidecar of a workload.
    pub(super) fn report<'a>(
        &self,
        policies: impl Iterator<Item = &'a TelemetrySpec>,
        service_name: &str,
    ) -> Reporting {
        let policies: Vec<_> = policies.collect();
        let access_log = policies.iter().find_map(|spec| spec.access_log.clone());
        let tracing = policies.iter().find_map(|spec| spec.tracing.as_ref());
        let endpoint = tracing
            .and_then(|tracing| tracing.endpoint.as_ref())
            .or(self.default.as_ref());
        let spans = endpoint
            .and_then(|endpoint| self.by_endpoint.get(endpoint))
            .map(|receiver| Spans {
                sampled: tracing.map_or(Percentage::ALL, |tracing| {
                    tracing.random_sampling_percentage
                }),
                cluster: Arc::clone(&receiver.cluster),
                service_name: service_name.to_owned(),
            });
        Reporting {
            access_log: access_log.unwrap_or(AccessLog {
                enabled: true,
                format: AccessLogFormat::Text,
                minimum_status: None,
            }),
            spans,
        }
    }
}

impl Receiver {
    fn cluster(&self) -> Cluster {
        let is_address = self.host.parse::<std::net::IpAddr>().is_ok();
        let kind = match is_address {
            true => DiscoveryType::Static,
            false => DiscoveryType::StrictDns,
        };
        let address = core::Address {
            address: Some(core::address::Address::SocketAddress(core::SocketAddress {
                address: self.host.clone(),
                port_specifier: Some(core::socket_address::PortSpecifier::PortValue(u32::from(
                    self.port,
                ))),
                ..core::SocketAddress::default()
            })),
        };
        Cluster {
            metadata: Some(wire::host_network()),
            typed_extension_protocol_options: BTreeMap::from([(
                HTTP_OPTIONS.to_owned(),
                http2_only(),
            )]),
            ..clusters::fixed(&self.cluster, kind, address)
        }
    }
}

/// gRPC needs HTTP/2, which nobody negotiates in plaintext.
fn http2_only() -> weft_proto::Any {
    use http::http_protocol_options::explicit_http_config::ProtocolConfig;
    use http::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions};

    any::pack(&http::HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(
            ExplicitHttpConfig {
                protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(
                    core::Http2ProtocolOptions::default(),
                )),
            },
        )),
        ..http::HttpProtocolOptions::default()
    })
}

/// Host and port of `http://host:port`.
fn authority(endpoint: &str) -> Option<(String, u16)> {
    let uri: ::http::Uri = endpoint.parse().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']);
    Some((host.to_owned(), uri.port_u16().unwrap_or(DEFAULT_PORT)))
}

impl Reporting {
    /// Which requests become spans, and where they go.
    pub(super) fn tracing(&self) -> Option<Tracing> {
        let spans = self.spans.as_ref()?;
        let configuration = trace::OpenTelemetryConfig {
            grpc_service: Some(core::GrpcService {
                target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(
                    core::grpc_service::EnvoyGrpc {
                        cluster_name: spans.cluster.to_string(),
                        ..core::grpc_service::EnvoyGrpc::default()
                    },
                )),
                ..core::GrpcService::default()
            }),
            service_name: spans.service_name.clone(),
            ..trace::OpenTelemetryConfig::default()
        };
        Some(Tracing {
            random_sampling: Some(Percent {
                value: spans.sampled.get(),
            }),
            provider: Some(trace::tracing::Http {
                name: "envoy.tracers.opentelemetry".to_owned(),
                config_type: Some(trace::tracing::http::ConfigType::TypedConfig(any::pack(
                    &configuration,
                ))),
            }),
            ..Tracing::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_without_a_port_means_the_standard_one() {
        assert_eq!(
            authority("http://collector"),
            Some(("collector".to_owned(), 4317))
        );
        assert_eq!(authority("http://[::1]:9"), Some(("::1".to_owned(), 9)));
        assert_eq!(authority("not an endpoint"), None);
    }
}
