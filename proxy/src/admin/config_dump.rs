//! `/config_dump`: the very resources that are in force, with versions and the last errors, as Envoy shows them.

mod lists;

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use regex::Regex;
use serde_json::{Value, json};
use weft_proto::Any;
use weft_proto::any::{pack, unpack};
use weft_proto::envoy::admin::v3::clusters_config_dump::{DynamicCluster, StaticCluster};
use weft_proto::envoy::admin::v3::endpoints_config_dump::DynamicEndpointConfig;
use weft_proto::envoy::admin::v3::listeners_config_dump::{
    DynamicListener, DynamicListenerState, StaticListener,
};
use weft_proto::envoy::admin::v3::routes_config_dump::{DynamicRouteConfig, StaticRouteConfig};
use weft_proto::envoy::admin::v3::secrets_config_dump::DynamicSecret;
use weft_proto::envoy::admin::v3::{
    BootstrapConfigDump, ClientResourceStatus, ClustersConfigDump, ConfigDump, EndpointsConfigDump,
    ListenersConfigDump, RoutesConfigDump, SecretsConfigDump, UpdateFailureState,
};
use weft_proto::envoy::config::core::v3::DataSource;
use weft_proto::envoy::config::core::v3::data_source::Specifier;
use weft_proto::envoy::config::listener::v3::Listener;
use weft_proto::envoy::config::listener::v3::filter::ConfigType;
use weft_proto::envoy::config::route::v3::RouteConfiguration;
use weft_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use weft_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
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

/// Everything; endpoints only where asked for with `include_eds`, resources whose whole name `name_regex` fits, or one
/// list of it by `resource`.
pub fn config_dump(state: &AdminState, query: &Query) -> Reply {
    let asks_for_endpoints = query
        .value("resource")
        .is_some_and(|name| name.contains("endpoint"));
    let names = match query.value("name_regex").map(whole).transpose() {
        Ok(names) => names,
        Err(error) => {
            let refusal = format!("Error while parsing name_regex: {error}\n");
            return Reply::text(StatusCode::BAD_REQUEST, refusal);
        }
    };
    let scope = Scope { state, names };
    let dump = ConfigDump {
        configs: configs(&scope, query.has("include_eds") || asks_for_endpoints),
    };
    match to_json(&dump) {
        Err(error) => Reply::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("config_dump: {error}\n"),
        ),
        Ok(mut json) => {
            redact(&mut json);
            if let Some(name) = query.value("resource").filter(|name| !name.is_empty()) {
                match lists::list(&json, name) {
                    Ok(list) if list.is_empty() => return Reply::json(&json!({})),
                    Ok(list) => json = json!({"configs": list}),
                    Err(refusal) => return refusal,
                }
            }
            match query.value("mask") {
                None => Reply::json(&json),
                Some(mask) => masked(&json, mask),
            }
        }
    }
}

/// What is shown.
struct Scope<'a> {
    state: &'a AdminState,
    /// What names of resources must be; none: anything.
    names: Option<Regex>,
}

impl Scope<'_> {
    fn has(&self, name: &str) -> bool {
        self.names.as_ref().is_none_or(|names| names.is_match(name))
    }
}

/// An expression that must fit the whole of a text.
fn whole(expression: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!("^(?:{expression})$"))
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

fn configs(scope: &Scope<'_>, include_eds: bool) -> Vec<Any> {
    let started = timestamp(scope.state.started);
    let mut configs = vec![
        pack(&BootstrapConfigDump {
            bootstrap: Some(scope.state.bootstrap.wire()),
            last_updated: Some(started),
        }),
        pack(&clusters(scope, started)),
        pack(&listeners(scope, started)),
        pack(&routes(scope)),
        pack(&secrets(scope)),
    ];
    if include_eds {
        configs.push(pack(&endpoints(scope)));
    }
    configs
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

fn clusters(scope: &Scope<'_>, started: prost_types::Timestamp) -> ClustersConfigDump {
    let wire = scope.state.bootstrap.wire().static_resources;
    let wire = wire.into_iter().flat_map(|resources| resources.clusters);
    ClustersConfigDump {
        version_info: String::new(),
        static_clusters: wire
            .filter(|cluster| scope.has(&cluster.name))
            .map(|cluster| StaticCluster {
                cluster: Some(pack(&cluster)),
                last_updated: Some(started),
            })
            .collect(),
        dynamic_active_clusters: dynamic(scope, Kind::Cluster, |_, shown| DynamicCluster {
            version_info: shown.version,
            cluster: shown.resource,
            last_updated: shown.since,
            error_state: shown.error,
            client_status: shown.status,
        }),
        dynamic_warming_clusters: vec![],
    }
}

fn listeners(scope: &Scope<'_>, started: prost_types::Timestamp) -> ListenersConfigDump {
    let wire = scope.state.bootstrap.wire().static_resources;
    let wire = wire.into_iter().flat_map(|resources| resources.listeners);
    ListenersConfigDump {
        version_info: String::new(),
        static_listeners: wire
            .filter(|listener| scope.has(&listener.name))
            .map(|listener| StaticListener {
                listener: Some(pack(&listener)),
                last_updated: Some(started),
            })
            .collect(),
        dynamic_listeners: dynamic(scope, Kind::Listener, |name, shown| DynamicListener {
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

fn routes(scope: &Scope<'_>) -> RoutesConfigDump {
    RoutesConfigDump {
        static_route_configs: inline_routes(scope),
        dynamic_route_configs: dynamic(scope, Kind::Routes, |_, shown| DynamicRouteConfig {
            version_info: shown.version,
            route_config: shown.resource,
            last_updated: shown.since,
            error_state: shown.error,
            client_status: shown.status,
        }),
    }
}

/// Routes that stand in listeners, those of the bootstrap first.
fn inline_routes(scope: &Scope<'_>) -> Vec<StaticRouteConfig> {
    let started = timestamp(scope.state.started);
    let wire = scope.state.bootstrap.wire().static_resources;
    let own = wire.into_iter().flat_map(|resources| resources.listeners);
    let own = own.map(|listener| (listener, started));
    let cache = scope.state.cache.read();
    let discovered = cache.in_force(Kind::Listener).filter_map(|(_, accepted)| {
        let listener = unpack::<Listener>(&accepted.resource).ok()?;
        Some((listener, timestamp(accepted.since)))
    });
    let shown = own.chain(discovered).flat_map(|(listener, since)| {
        let routes = routes_of(&listener).into_iter();
        routes.map(move |routes| (routes, since))
    });
    shown
        .filter(|(routes, _)| scope.has(&routes.name))
        .map(|(routes, since)| StaticRouteConfig {
            route_config: Some(pack(&routes)),
            last_updated: Some(since),
        })
        .collect()
}

fn routes_of(listener: &Listener) -> Vec<RouteConfiguration> {
    let chains = listener.filter_chains.iter();
    let chains = chains.chain(&listener.default_filter_chain);
    let filters = chains.flat_map(|chain| &chain.filters);
    let routes = filters.filter_map(|filter| match &filter.config_type {
        Some(ConfigType::TypedConfig(any)) => {
            match unpack::<HttpConnectionManager>(any).ok()?.route_specifier? {
                RouteSpecifier::RouteConfig(routes) => Some(routes),
                _ => None,
            }
        }
        _ => None,
    });
    routes.collect()
}

fn endpoints(scope: &Scope<'_>) -> EndpointsConfigDump {
    EndpointsConfigDump {
        static_endpoint_configs: vec![],
        dynamic_endpoint_configs: dynamic(scope, Kind::Endpoints, |_, shown| {
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
fn secrets(scope: &Scope<'_>) -> SecretsConfigDump {
    let current = scope
        .state
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
    let discovered = dynamic(scope, Kind::Secret, |name, shown| DynamicSecret {
        name: name.to_owned(),
        version_info: shown.version,
        secret: shown.resource,
        last_updated: shown.since,
        error_state: shown.error,
        client_status: shown.status,
    });
    SecretsConfigDump {
        dynamic_active_secrets: own
            .filter(|secret| scope.has(&secret.name))
            .chain(discovered)
            .collect(),
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

fn dynamic<T>(scope: &Scope<'_>, kind: Kind, show: impl Fn(&str, Shown) -> T) -> Vec<T> {
    let cache = scope.state.cache.read();
    cache
        .of_kind(kind)
        .filter(|(name, _)| scope.has(name))
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
