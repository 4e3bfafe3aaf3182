//! `/config_dump`: the very resources that are in force, with versions and the last errors, as Envoy shows them.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::{Value, json};
use weft_proto::Any;
use weft_proto::any::pack;
use weft_proto::envoy::admin::v3::clusters_config_dump::{DynamicCluster, StaticCluster};
use weft_proto::envoy::admin::v3::endpoints_config_dump::DynamicEndpointConfig;
use weft_proto::envoy::admin::v3::listeners_config_dump::{
    DynamicListener, DynamicListenerState, StaticListener,
};
use weft_proto::envoy::admin::v3::routes_config_dump::DynamicRouteConfig;
use weft_proto::envoy::admin::v3::secrets_config_dump::DynamicSecret;
use weft_proto::envoy::admin::v3::{
    BootstrapConfigDump, ClientResourceStatus, ClustersConfigDump, ConfigDump, EndpointsConfigDump,
    ListenersConfigDump, RoutesConfigDump, SecretsConfigDump, UpdateFailureState,
};
use weft_proto::envoy::config::core::v3::DataSource;
use weft_proto::envoy::config::core::v3::data_source::Specifier;
use weft_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret,
};
use weft_proto::json::to_json;
use weft_proto::names::{SECRET_IDENTITY, SECRET_TRUST_BUNDLE};

use super::AdminState;
use super::mask::Mask;
use super::reply::{Query, Reply};
use crate::identity::credentials::Credentials;
use crate::tls::pem::pem;
use crate::xds::cache::{Entry, Refused};
use crate::xds::kind::Kind;

/// Everything; endpoints only where asked for with `include_eds`, or one list of it by `resource`.
pub fn config_dump(state: &AdminState, query: &Query) -> Reply {
    let asks_for_endpoints = query
        .value("resource")
        .is_some_and(|name| name.contains("endpoint"));
    let dump = ConfigDump {
        configs: configs(state, query.has("include_eds") || asks_for_endpoints),
    };
    match to_json(&dump) {
        Err(error) => Reply::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("config_dump: {error}\n"),
        ),
        Ok(mut json) => {
            redact(&mut json);
            if let Some(name) = query.value("resource") {
                let mut configs = json["configs"].as_array().into_iter().flatten();
                match configs.find_map(|config| config[name].as_array()) {
                    Some(list) => json = json!({"configs": list}),
                    None => return not_found(name),
                }
            }
            match query.value("mask") {
                None => Reply::json(&json),
                Some(mask) => masked(&json, mask),
            }
        }
    }
}

/// Private keys that the configuration holds itself; where a file is named, its name stays.
fn redact(dump: &mut Value) {
    match dump {
        Value::Object(fields) => {
            for (name, value) in fields {
                match name.as_str() {
                    "private_key" | "password" => redact_source(value),
                    _ => redact(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(redact),
        _ => {}
    }
}

fn redact_source(source: &mut Value) {
    for (form, redacted) in [
        ("inline_string", "[redacted]".to_owned()),
        ("inline_bytes", STANDARD.encode("[redacted]")),
    ] {
        if let Some(value) = source.get_mut(form) {
            *value = redacted.into();
        }
    }
}

fn configs(state: &AdminState, include_eds: bool) -> Vec<Any> {
    let started = timestamp(state.started);
    let mut configs = vec![
        pack(&BootstrapConfigDump {
            bootstrap: Some(state.bootstrap.wire.clone()),
            last_updated: Some(started),
        }),
        pack(&clusters(state, started)),
        pack(&listeners(state, started)),
        pack(&routes(state)),
        pack(&secrets(state)),
    ];
    if include_eds {
        configs.push(pack(&endpoints(state)));
    }
    configs
}

/// No dump has a list of this name.
fn not_found(name: &str) -> Reply {
    Reply::text(
        StatusCode::NOT_FOUND,
        format!("{name} not found in config dump\n"),
    )
}

/// Those dumps, or resources, that the mask leaves something of.
fn masked(dump: &Value, paths: &str) -> Reply {
    let mask = Mask::parse(paths);
    let configs = dump["configs"].as_array().into_iter().flatten();
    let shown: Vec<_> = configs.filter_map(|config| mask.of(config)).collect();
    match shown.is_empty() {
        false => Reply::json(&json!({"configs": shown})),
        true => Reply::text(
            StatusCode::BAD_REQUEST,
            format!("FieldMask paths: {paths:?} could not be successfully used.\n"),
        ),
    }
}

fn clusters(state: &AdminState, started: prost_types::Timestamp) -> ClustersConfigDump {
    let wire = state.bootstrap.wire.static_resources.iter();
    ClustersConfigDump {
        version_info: String::new(),
        static_clusters: wire
            .flat_map(|resources| &resources.clusters)
            .map(|cluster| StaticCluster {
                cluster: Some(pack(cluster)),
                last_updated: Some(started),
            })
            .collect(),
        dynamic_active_clusters: dynamic(state, Kind::Cluster, |_, shown| DynamicCluster {
            version_info: shown.version,
            cluster: shown.resource,
            last_updated: shown.since,
            error_state: shown.error,
            client_status: shown.status,
        }),
        dynamic_warming_clusters: vec![],
    }
}

fn listeners(state: &AdminState, started: prost_types::Timestamp) -> ListenersConfigDump {
    let wire = state.bootstrap.wire.static_resources.iter();
    ListenersConfigDump {
        version_info: String::new(),
        static_listeners: wire
            .flat_map(|resources| &resources.listeners)
            .map(|listener| StaticListener {
                listener: Some(pack(listener)),
                last_updated: Some(started),
            })
            .collect(),
        dynamic_listeners: dynamic(state, Kind::Listener, |name, shown| DynamicListener {
            name: name.to_owned(),
            active_state: shown.resource.is_some().then(|| DynamicListenerState {
                version_info: shown.version,
                listener: shown.resource,
                last_updated: shown.since,
            }),
            warming_state: None,
            draining_state: None,
            error_state: shown.error,
            client_status: shown.status,
        }),
    }
}

fn routes(state: &AdminState) -> RoutesConfigDump {
    RoutesConfigDump {
        static_route_configs: vec![],
        dynamic_route_configs: dynamic(state, Kind::Routes, |_, shown| DynamicRouteConfig {
            version_info: shown.version,
            route_config: shown.resource,
            last_updated: shown.since,
            error_state: shown.error,
            client_status: shown.status,
        }),
    }
}

fn endpoints(state: &AdminState) -> EndpointsConfigDump {
    EndpointsConfigDump {
        static_endpoint_configs: vec![],
        dynamic_endpoint_configs: dynamic(state, Kind::Endpoints, |_, shown| {
            DynamicEndpointConfig {
                version_info: shown.version,
                endpoint_config: shown.resource,
                last_updated: shown.since,
                error_state: shown.error,
                client_status: shown.status,
            }
        }),
    }
}

/// The certificate and the roots of the workload, and what was discovered; never a key.
fn secrets(state: &AdminState) -> SecretsConfigDump {
    let current = state
        .credentials
        .as_ref()
        .and_then(|current| current.borrow().clone());
    let own = current.iter().flat_map(|credentials| {
        let shown = |name: &str, kind| DynamicSecret {
            name: name.to_owned(),
            secret: Some(pack(&Secret {
                name: name.to_owned(),
                r#type: Some(kind),
            })),
            client_status: ClientResourceStatus::Acked.into(),
            ..DynamicSecret::default()
        };
        [
            shown(SECRET_IDENTITY, certificate(credentials)),
            shown(SECRET_TRUST_BUNDLE, trust_bundle(credentials)),
        ]
    });
    let discovered = dynamic(state, Kind::Secret, |name, shown| DynamicSecret {
        name: name.to_owned(),
        version_info: shown.version,
        secret: shown.resource,
        last_updated: shown.since,
        error_state: shown.error,
        client_status: shown.status,
    });
    SecretsConfigDump {
        dynamic_active_secrets: own.chain(discovered).collect(),
        ..SecretsConfigDump::default()
    }
}

fn certificate(credentials: &Credentials) -> secret::Type {
    let chain = credentials
        .identity
        .key
        .cert
        .iter()
        .map(|der| pem(der))
        .collect::<String>();
    secret::Type::TlsCertificate(TlsCertificate {
        certificate_chain: Some(inline(chain)),
        private_key: Some(inline("[redacted]".to_owned())),
        ..TlsCertificate::default()
    })
}

fn trust_bundle(credentials: &Credentials) -> secret::Type {
    let roots = credentials
        .roots
        .values()
        .flatten()
        .map(|der| pem(der))
        .collect::<String>();
    secret::Type::ValidationContext(CertificateValidationContext {
        trusted_ca: Some(inline(roots)),
        ..CertificateValidationContext::default()
    })
}

fn inline(text: String) -> DataSource {
    DataSource {
        specifier: Some(Specifier::InlineString(text)),
        ..DataSource::default()
    }
}

/// What every kind of dump says of a resource.
struct Shown {
    version: String,
    resource: Option<Any>,
    since: Option<prost_types::Timestamp>,
    error: Option<UpdateFailureState>,
    status: i32,
}

fn dynamic<T>(state: &AdminState, kind: Kind, show: impl Fn(&str, Shown) -> T) -> Vec<T> {
    let cache = state.cache.read();
    cache
        .of_kind(kind)
        .map(|(name, entry)| show(name, shown(entry)))
        .collect()
}

fn shown(entry: &Entry) -> Shown {
    let accepted = entry.accepted.as_ref();
    let status = match entry.refused {
        Some(_) => ClientResourceStatus::Nacked,
        None => ClientResourceStatus::Acked,
    };
    Shown {
        version: accepted
            .map(|accepted| accepted.version.clone())
            .unwrap_or_default(),
        resource: accepted.map(|accepted| accepted.resource.clone()),
        since: accepted.map(|accepted| timestamp(accepted.since)),
        error: entry.refused.as_ref().map(failure),
        status: status.into(),
    }
}

fn failure(refused: &Refused) -> UpdateFailureState {
    UpdateFailureState {
        failed_configuration: Some(refused.resource.clone()),
        last_update_attempt: Some(timestamp(refused.at)),
        details: refused.reason.clone(),
        version_info: refused.version.clone(),
    }
}

fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    time.into()
}
