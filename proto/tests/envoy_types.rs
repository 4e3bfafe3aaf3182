//! Our messages against Envoy's, as the envoy-types crate carries them: every name, number and type, and the
//! bytes of the messages that travel.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::Command;

use envoy_types::pb::envoy as theirs;
use prost::{Message, Name};
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey,
    MessageDescriptor, Value,
};
use weft_proto::{descriptor_pool, envoy as ours};

/// Packages that Envoy has not.
const OWN: &str = "weft.";
/// Packages of Envoy's contributed extensions, which envoy-types leaves out.
const CONTRIBUTED: [&str; 1] = ["envoy.extensions.load_balancing_policies.peak_ewma.v3alpha."];

#[test]
fn every_message_field_and_enum_value_is_envoys() {
    let (envoy, pool) = (envoy_descriptors(), descriptor_pool());
    let mut differences = Vec::new();

    for message in shared(pool.all_messages(), MessageDescriptor::full_name) {
        match envoy.get_message_by_name(message.full_name()) {
            Some(theirs) => differences.extend(message_differences(&message, &theirs)),
            None => differences.push(format!("{} does not exist", message.full_name())),
        }
    }
    for values in shared(pool.all_enums(), EnumDescriptor::full_name) {
        match envoy.get_enum_by_name(values.full_name()) {
            Some(theirs) if enum_values(&values) == enum_values(&theirs) => {}
            Some(_) => differences.push(format!("{} has other values", values.full_name())),
            None => differences.push(format!("{} does not exist", values.full_name())),
        }
    }

    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_field_is_left_out_only_with_its_type() {
    let (envoy, pool) = (envoy_descriptors(), descriptor_pool());
    let is_ours = |kind: Kind| match kind {
        Kind::Message(message) => pool.get_message_by_name(message.full_name()).is_some(),
        Kind::Enum(values) => pool.get_enum_by_name(values.full_name()).is_some(),
        _ => true,
    };

    for message in shared(pool.all_messages(), MessageDescriptor::full_name) {
        let theirs = envoy.get_message_by_name(message.full_name()).unwrap();
        for field in theirs.fields() {
            let is_included = message.get_field_by_name(field.name()).is_some();
            let kind = match field.kind() {
                Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
                kind => kind,
            };
            assert_eq!(is_included, is_ours(kind), "{}", field.full_name());
        }
    }
}

#[test]
fn every_message_lives_in_the_file_it_lives_in_at_envoy() {
    let (envoy, pool) = (envoy_descriptors(), descriptor_pool());

    for message in shared(pool.all_messages(), MessageDescriptor::full_name) {
        let theirs = envoy.get_message_by_name(message.full_name()).unwrap();

        assert_eq!(
            message.parent_file().name(),
            theirs.parent_file().name(),
            "{}",
            message.full_name()
        );
    }
}

#[test]
fn the_services_have_envoys_methods() {
    let envoy = envoy_descriptors();
    let methods = |pool: &DescriptorPool| {
        let service = pool
            .get_service_by_name("envoy.service.discovery.v3.AggregatedDiscoveryService")
            .unwrap();
        service
            .methods()
            .map(|method| {
                (
                    method.name().to_owned(),
                    method.input().full_name().to_owned(),
                    method.output().full_name().to_owned(),
                    method.is_client_streaming(),
                    method.is_server_streaming(),
                )
            })
            .collect::<BTreeSet<_>>()
    };

    assert_eq!(methods(&descriptor_pool()), methods(&envoy));
}

/// One test per message: filled completely, it survives the way through envoy-types and back.
macro_rules! survives_envoy_types {
    ($($test:ident: $($path:ident)::+;)+) => {$(
        #[test]
        fn $test() {
            survives::<ours::$($path)::+, theirs::$($path)::+>();
        }
    )+};
}

survives_envoy_types! {
    a_listener: config::listener::v3::Listener;
    a_route_configuration: config::route::v3::RouteConfiguration;
    a_route: config::route::v3::Route;
    a_route_action: config::route::v3::RouteAction;
    a_retry_policy: config::route::v3::RetryPolicy;
    a_cluster: config::cluster::v3::Cluster;
    a_load_assignment: config::endpoint::v3::ClusterLoadAssignment;
    a_secret: extensions::transport_sockets::tls::v3::Secret;
    a_typed_extension_config: config::core::v3::TypedExtensionConfig;
    a_health_check: config::core::v3::HealthCheck;
    a_bootstrap: config::bootstrap::v3::Bootstrap;
    rbac_rules: config::rbac::v3::Rbac;
    an_access_log: config::accesslog::v3::AccessLog;
    an_opentelemetry_config: config::trace::v3::OpenTelemetryConfig;
    a_connection_manager:
        extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
    a_tcp_proxy: extensions::filters::network::tcp_proxy::v3::TcpProxy;
    a_network_rbac_filter: extensions::filters::network::rbac::v3::Rbac;
    a_router_filter: extensions::filters::http::router::v3::Router;
    a_fault_filter: extensions::filters::http::fault::v3::HttpFault;
    an_http_rbac_filter: extensions::filters::http::rbac::v3::Rbac;
    an_rbac_filter_per_route: extensions::filters::http::rbac::v3::RbacPerRoute;
    a_cors_policy: extensions::filters::http::cors::v3::CorsPolicy;
    a_csrf_policy: extensions::filters::http::csrf::v3::CsrfPolicy;
    a_local_rate_limit: extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
    an_external_authorization: extensions::filters::http::ext_authz::v3::ExtAuthz;
    a_check_request: service::auth::v3::CheckRequest;
    a_check_response: service::auth::v3::CheckResponse;
    jwt_authentication: extensions::filters::http::jwt_authn::v3::JwtAuthentication;
    a_rate_limit_filter: extensions::filters::http::ratelimit::v3::RateLimit;
    a_rate_limit_request: service::ratelimit::v3::RateLimitRequest;
    a_rate_limit_response: service::ratelimit::v3::RateLimitResponse;
    headers_to_metadata: extensions::filters::http::header_to_metadata::v3::Config;
    a_compressor: extensions::filters::http::compressor::v3::Compressor;
    a_decompressor: extensions::filters::http::decompressor::v3::Decompressor;
    a_bandwidth_limit: extensions::filters::http::bandwidth_limit::v3::BandwidthLimit;
    adaptive_concurrency:
        extensions::filters::http::adaptive_concurrency::v3::AdaptiveConcurrency;
    a_header_mutation: extensions::filters::http::header_mutation::v3::HeaderMutation;
    a_health_check_filter: extensions::filters::http::health_check::v3::HealthCheck;
    a_network_local_rate_limit: extensions::filters::network::local_ratelimit::v3::LocalRateLimit;
    a_connection_limit: extensions::filters::network::connection_limit::v3::ConnectionLimit;
    a_tls_inspector: extensions::filters::listener::tls_inspector::v3::TlsInspector;
    a_proxy_protocol_filter: extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
    an_upstream_tls_context: extensions::transport_sockets::tls::v3::UpstreamTlsContext;
    a_downstream_tls_context: extensions::transport_sockets::tls::v3::DownstreamTlsContext;
    upstream_protocol_options: extensions::upstreams::http::v3::HttpProtocolOptions;
    a_file_access_log: extensions::access_loggers::file::v3::FileAccessLog;
    a_stdout_access_log: extensions::access_loggers::stream::v3::StdoutAccessLog;
    round_robin: extensions::load_balancing_policies::round_robin::v3::RoundRobin;
    least_request: extensions::load_balancing_policies::least_request::v3::LeastRequest;
    random: extensions::load_balancing_policies::random::v3::Random;
    ring_hash: extensions::load_balancing_policies::ring_hash::v3::RingHash;
    maglev: extensions::load_balancing_policies::maglev::v3::Maglev;
    a_discovery_request: service::discovery::v3::DiscoveryRequest;
    a_discovery_response: service::discovery::v3::DiscoveryResponse;
    a_delta_request: service::discovery::v3::DeltaDiscoveryRequest;
    a_delta_response: service::discovery::v3::DeltaDiscoveryResponse;
    a_listeners_dump: admin::v3::ListenersConfigDump;
    a_clusters_dump: admin::v3::ClustersConfigDump;
    clusters_with_their_hosts: admin::v3::Clusters;
}

/// Fills an `Ours` once for each choice of oneof fields, and sends it through `Theirs`.
fn survives<Ours, Theirs>()
where
    Ours: Name + Default + PartialEq + Debug,
    Theirs: Message + Default,
{
    let pool = descriptor_pool();
    let descriptor = pool.get_message_by_name(&Ours::full_name()).unwrap();
    for choice in 0..most_choices(&descriptor) {
        let filled = filled(&descriptor, choice, 4);
        let sent = Ours::decode(filled.encode_to_vec().as_slice()).unwrap();

        let read = Theirs::decode(sent.encode_to_vec().as_slice()).unwrap();
        let returned = Ours::decode(read.encode_to_vec().as_slice()).unwrap();

        assert_eq!(returned, sent);
        let kept = DynamicMessage::decode(descriptor.clone(), returned.encode_to_vec().as_slice())
            .unwrap();
        assert_eq!(kept, filled);
    }
}

/// The number of fields in the largest oneof of a message or of the messages right below it.
fn most_choices(descriptor: &MessageDescriptor) -> usize {
    let of = |message: &MessageDescriptor| {
        message
            .oneofs()
            .map(|oneof| oneof.fields().len())
            .max()
            .unwrap_or(1)
    };
    descriptor
        .fields()
        .filter_map(|field| field.kind().as_message().map(of))
        .chain([of(descriptor)])
        .max()
        .unwrap_or(1)
}

/// A message with every field set to something that is not its default, `depth` levels deep.
fn filled(descriptor: &MessageDescriptor, choice: usize, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    if depth == 0 {
        return message;
    }
    for field in descriptor.fields() {
        if let Some(oneof) = field.containing_oneof() {
            let chosen = oneof.fields().nth(choice % oneof.fields().len()).unwrap();
            if chosen != field {
                continue;
            }
        }
        message.set_field(&field, filled_field(&field, choice, depth));
    }
    message
}

fn filled_field(field: &FieldDescriptor, choice: usize, depth: usize) -> Value {
    if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
        let value = filled_value(&entry.map_entry_value_field(), choice, depth);
        return Value::Map([(MapKey::String("key".into()), value)].into());
    }
    let value = filled_value(field, choice, depth);
    if field.is_list() {
        return Value::List(vec![value.clone(), value]);
    }
    value
}

fn filled_value(field: &FieldDescriptor, choice: usize, depth: usize) -> Value {
    let number = field.number();
    match field.kind() {
        Kind::Bool => Value::Bool(true),
        Kind::Double => Value::F64(f64::from(number) + 0.5),
        Kind::Int32 => Value::I32(-number.cast_signed()),
        Kind::Int64 => Value::I64(-i64::from(number)),
        Kind::Uint32 => Value::U32(number),
        Kind::Uint64 => Value::U64(number.into()),
        Kind::String => Value::String(field.name().into()),
        Kind::Bytes => Value::Bytes(field.name().to_owned().into()),
        Kind::Enum(values) => Value::EnumNumber(values.values().last().unwrap().number()),
        Kind::Message(inner) => Value::Message(filled(&inner, choice, depth - 1)),
        other => panic!("{} has the unexpected type {other:?}", field.full_name()),
    }
}

fn message_differences(ours: &MessageDescriptor, theirs: &MessageDescriptor) -> Vec<String> {
    ours.fields()
        .filter_map(|field| {
            let ours = field_facts(&field);
            let theirs = theirs.get_field_by_name(field.name());
            let theirs = theirs.as_ref().map(field_facts);
            (theirs.as_ref() != Some(&ours))
                .then(|| format!("{}: {ours:?}, not {theirs:?}", field.full_name()))
        })
        .collect()
}

/// What two descriptions of one field must agree on.
#[derive(Debug, PartialEq)]
struct FieldFacts {
    number: u32,
    kind: String,
    cardinality: Cardinality,
    oneof: Option<String>,
    json_name: String,
    is_packed: bool,
}

fn field_facts(field: &FieldDescriptor) -> FieldFacts {
    let kind = match field.kind() {
        Kind::Message(message) if field.is_map() => format!(
            "map of {:?} to {:?}",
            message.map_entry_key_field().kind(),
            message.map_entry_value_field().kind()
        ),
        kind => format!("{kind:?}"),
    };
    FieldFacts {
        number: field.number(),
        kind,
        cardinality: field.cardinality(),
        oneof: field.containing_oneof().map(|oneof| oneof.name().into()),
        json_name: field.json_name().into(),
        is_packed: field.is_packed(),
    }
}

fn enum_values(values: &EnumDescriptor) -> BTreeSet<(String, i32)> {
    values
        .values()
        .map(|value| (value.name().to_owned(), value.number()))
        .collect()
}

/// Those descriptors whose package Envoy has too.
fn shared<T>(
    descriptors: impl Iterator<Item = T>,
    name: impl Fn(&T) -> &str,
) -> impl Iterator<Item = T> {
    descriptors.filter(move |descriptor| {
        let name = name(descriptor);
        !name.starts_with(OWN) && !CONTRIBUTED.iter().any(|package| name.starts_with(package))
    })
}

/// The descriptor set that envoy-types was generated from; it lies in the package, but is not public.
fn envoy_descriptors() -> DescriptorPool {
    let set = std::fs::read(envoy_types_folder().join("src/generated/types.bin")).unwrap();
    DescriptorPool::decode(set.as_slice()).unwrap()
}

fn envoy_types_folder() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let package = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .find(|package| package["name"] == "envoy-types")
        .unwrap();
    let manifest = Path::new(package["manifest_path"].as_str().unwrap());
    manifest.parent().unwrap().to_owned()
}
