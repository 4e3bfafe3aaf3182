//! What the proxy is started with: Envoy's bootstrap, as YAML or JSON.
//!
//! Who it is, where its control plane is, and resources of its own. Everything else comes over xDS. Errors name
//! the file and the field.

mod discovery;
mod fields;
mod runtime;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weft_proto::any::pack;
use weft_proto::envoy::config::bootstrap::v3::bootstrap::StaticResources;
use weft_proto::envoy::config::bootstrap::v3::{Admin, Bootstrap as Wire};
use weft_proto::envoy::config::core::v3::{Address, Node, address};
use weft_proto::envoy::config::overload::v3::OverloadManager;
use weft_proto::json::{self, JsonError};

use self::discovery::{Known, discovery, socket_target};
use self::fields::warn_of_ignored;
use crate::config::overload::OverloadConfig;
use crate::config::runtime::Runtime;
use crate::config::{Configuration, Workload};
use crate::xds::discovery::Discovery;
use crate::xds::kind::Kind;
use crate::xds::secrets::{self, Secrets};
use crate::xds::translate::overload::overload_manager;
use crate::xds::translate::{Checked, Invalid, chain, metadata, translate_with};

/// A bootstrap that was checked.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// As it came, for `/config_dump`.
    pub wire: Wire,
    /// Who we are.
    pub node: Node,
    /// The workload that is served.
    pub workload: Arc<Workload>,
    /// The proxy's own resources.
    pub statics: Configuration,
    /// Where other resources come from.
    pub discovery: Discovery,
    /// Where the admin interface listens.
    pub admin: Option<SocketAddr>,
    /// What runtime keys stand for.
    pub runtime: Runtime,
    /// What is done when the proxy itself runs short of something.
    pub overload: Option<OverloadConfig>,
}

/// Why a bootstrap is none.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The file cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is neither YAML nor JSON.
    #[error("{}: {reason}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where, and what.
        reason: String,
    },
    /// It is no bootstrap.
    #[error("{}: {reason}", path.display())]
    Shape {
        /// Which file.
        path: PathBuf,
        /// Which field, and what.
        reason: String,
    },
    /// It asks for what cannot be done.
    #[error("{}: {field}: {reason}", path.display())]
    Field {
        /// Which file.
        path: PathBuf,
        /// Which field.
        field: String,
        /// What.
        reason: String,
    },
}

/// A field and what is wrong with it.
struct Problem {
    field: String,
    reason: String,
}

fn problem(field: impl Into<String>, reason: impl Into<String>) -> Problem {
    Problem {
        field: field.into(),
        reason: reason.into(),
    }
}

impl Bootstrap {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, BootstrapError> {
        let text = std::fs::read_to_string(path).map_err(|source| BootstrapError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Reads a text; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, BootstrapError> {
        // JSON is YAML, so one parser reads both.
        let value: serde_json::Value =
            serde_saphyr::from_str(text).map_err(|error| BootstrapError::Syntax {
                path: path.to_owned(),
                reason: error.to_string(),
            })?;
        let wire: Wire = json::from_json(value).map_err(|error| match error {
            JsonError::Field {
                path: field,
                source,
                ..
            } if field != "." => BootstrapError::Field {
                path: path.to_owned(),
                field,
                reason: source.to_string(),
            },
            JsonError::Field { source, .. } => BootstrapError::Shape {
                path: path.to_owned(),
                reason: source.to_string(),
            },
            other => BootstrapError::Shape {
                path: path.to_owned(),
                reason: chain(&other),
            },
        })?;
        check(wire).map_err(|Problem { field, reason }| BootstrapError::Field {
            path: path.to_owned(),
            field,
            reason,
        })
    }

    /// Names that resources of a control plane cannot have.
    pub fn reserved_names(&self) -> impl Iterator<Item = (Kind, String)> {
        let clusters = self
            .wire
            .static_resources
            .iter()
            .flat_map(|resources| &resources.clusters);
        let listeners = self.statics.listeners.keys();
        clusters
            .map(|cluster| (Kind::Cluster, cluster.name.clone()))
            .chain(listeners.map(|name| (Kind::Listener, name.to_string())))
    }
}

fn check(wire: Wire) -> Result<Bootstrap, Problem> {
    warn_of_ignored(&wire)?;
    let node = wire.node.clone().unwrap_or_default();
    let resources = wire.static_resources.clone().unwrap_or_default();
    let runtime = match &wire.layered_runtime {
        Some(wire) => runtime::runtime(wire)?,
        None => Runtime::default(),
    };
    let secrets = static_secrets(&resources, &runtime)?;
    let known = Known {
        clusters: &resources.clusters,
        secrets: &secrets,
    };
    let (discovery, xds_cluster) = match &wire.dynamic_resources {
        Some(dynamic) => discovery(dynamic, &known)?,
        None => Default::default(),
    };
    if discovery.has_services() && node.id.is_empty() {
        return Err(problem(
            "node.id",
            "must not be empty where there is a control plane",
        ));
    }
    let statics = statics(&resources, secrets, xds_cluster.as_deref(), &runtime)?;
    if discovery.is_none() {
        has_secrets(&statics)?;
    }
    Ok(Bootstrap {
        statics,
        workload: Arc::new(workload(&node)),
        discovery,
        runtime,
        admin: wire.admin.as_ref().map(admin).transpose()?.flatten(),
        overload: wire.overload_manager.as_ref().map(overload).transpose()?,
        node,
        wire,
    })
}

/// The proxy's own listeners and clusters; not the cluster that leads to the control plane, which is no one's to
/// send requests to.
fn statics(
    resources: &StaticResources,
    secrets: Secrets,
    xds: Option<&str>,
    runtime: &Runtime,
) -> Result<Configuration, Problem> {
    let StaticResources {
        listeners,
        clusters,
        secrets: _,
    } = resources;
    let mut statics = Configuration {
        secrets,
        ..Configuration::default()
    };
    for (index, listener) in listeners.iter().enumerate() {
        let field = format!("static_resources.listeners[{index}]");
        match checked(Kind::Listener, &pack(listener), &field, runtime)? {
            Checked::Listener(listener) => {
                insert(&mut statics.listeners, &listener.name, &listener, &field)?
            }
            _ => return Err(problem(field, "no listener")),
        }
    }
    for (index, cluster) in clusters.iter().enumerate() {
        if Some(cluster.name.as_str()) == xds {
            continue;
        }
        let field = format!("static_resources.clusters[{index}]");
        match checked(Kind::Cluster, &pack(cluster), &field, runtime)? {
            Checked::Cluster(cluster) => {
                insert(&mut statics.clusters, &cluster.name, &cluster, &field)?
            }
            _ => return Err(problem(field, "no cluster")),
        }
    }
    secrets::fill_in(&mut statics, None);
    Ok(statics)
}

fn static_secrets(resources: &StaticResources, runtime: &Runtime) -> Result<Secrets, Problem> {
    let mut secrets = Secrets::new();
    for (index, secret) in resources.secrets.iter().enumerate() {
        let field = format!("static_resources.secrets[{index}]");
        let name = Arc::from(secret.name.as_str());
        match checked(Kind::Secret, &pack(secret), &field, runtime)? {
            Checked::Secret(secret) => insert(&mut secrets, &name, &secret, &field)?,
            _ => return Err(problem(field, "no secret")),
        }
    }
    Ok(secrets)
}

/// Where nobody could send any more, every secret that is named must be there.
fn has_secrets(statics: &Configuration) -> Result<(), Problem> {
    let listeners = statics.listeners.values();
    let of_listeners = listeners.flat_map(|listener| secrets::of_listener(listener));
    let clusters = statics.clusters.values();
    let of_clusters = clusters.flat_map(|cluster| secrets::of_cluster(cluster));
    match of_listeners.chain(of_clusters).next() {
        None => Ok(()),
        Some(name) => Err(problem(
            "static_resources.secrets",
            format!(
                "TLS is configured with the secret {name:?}, which is not there, or is of another type"
            ),
        )),
    }
}

fn checked(
    kind: Kind,
    any: &weft_proto::Any,
    field: &str,
    runtime: &Runtime,
) -> Result<Checked, Problem> {
    let translated =
        translate_with(kind, any, runtime).map_err(|invalid| within(field, &invalid))?;
    warn_of(field, translated.notes);
    Ok(translated.checked)
}

fn overload(wire: &OverloadManager) -> Result<OverloadConfig, Problem> {
    let field = "overload_manager";
    let (config, notes) = overload_manager(wire).map_err(|invalid| within(field, &invalid))?;
    warn_of(field, notes);
    Ok(config)
}

fn warn_of(field: &str, notes: impl IntoIterator<Item = String>) {
    for path in notes {
        tracing::warn!(
            field = format!("{field}.{path}"),
            "this field of the bootstrap has no effect"
        );
    }
}

/// What is wrong with a resource, by the field's path from the top of the file.
fn within(resource: &str, invalid: &Invalid) -> Problem {
    let path = invalid.path();
    let field = match path.is_empty() || path.starts_with('[') {
        true => format!("{resource}{path}"),
        false => format!("{resource}.{path}"),
    };
    problem(field, invalid.reason())
}

fn insert<T>(
    into: &mut BTreeMap<Arc<str>, Arc<T>>,
    name: &Arc<str>,
    value: &Arc<T>,
    field: &str,
) -> Result<(), Problem> {
    match into.insert(Arc::clone(name), Arc::clone(value)) {
        None => Ok(()),
        Some(_) => Err(problem(
            field,
            format!("another one is called {name:?}, too"),
        )),
    }
}

fn admin(wire: &Admin) -> Result<Option<SocketAddr>, Problem> {
    let Some(Address {
        address: Some(address),
    }) = &wire.address
    else {
        return Ok(None);
    };
    match address {
        address::Address::SocketAddress(socket) => {
            let address = socket_target(socket)
                .ok_or_else(|| problem("admin.address", "must have an IP address and a port"))?;
            on_loopback(address).map(Some)
        }
        _ => Err(problem("admin.address", "must be a socket address")),
    }
}

/// Whoever reaches the admin interface can change and end the proxy: nobody but the machine itself does.
fn on_loopback(address: SocketAddr) -> Result<SocketAddr, Problem> {
    match address.ip() {
        ip if ip.is_loopback() => Ok(address),
        // Files of Envoy mean to be reachable from everywhere; from the machine itself is what can be had.
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ok(told_of_loopback(
            (Ipv4Addr::LOCALHOST, address.port()).into(),
        )),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ok(told_of_loopback(
            (Ipv6Addr::LOCALHOST, address.port()).into(),
        )),
        _ => Err(problem(
            "admin.address.socket_address.address",
            format!(
                "{:?} is not supported: the admin interface is served on loopback only, such as 127.0.0.1",
                address.ip().to_string()
            ),
        )),
    }
}

fn told_of_loopback(address: SocketAddr) -> SocketAddr {
    tracing::warn!(
        field = "admin.address",
        "the admin interface is served on loopback only: at {address}"
    );
    address
}

/// What the node says of its workload; else what its id and cluster let one guess: `sidecar~<pod>.<namespace>`.
fn workload(node: &Node) -> Workload {
    let told = node
        .metadata
        .as_ref()
        .map(metadata::workload_of)
        .unwrap_or_default();
    let guessed = node.id.rsplit_once('~').map_or("", |(_, rest)| rest);
    let (pod, namespace) = guessed.split_once('.').unwrap_or((guessed, ""));
    let name = node
        .cluster
        .split_once('.')
        .map_or(node.cluster.as_str(), |(name, _)| name);
    let or = |told: &Arc<str>, guess: &str| match told.is_empty() {
        true => Arc::from(guess),
        false => Arc::clone(told),
    };
    let name = or(&told.name, name);
    Workload {
        namespace: or(&told.namespace, namespace),
        pod: or(&told.pod, pod),
        // A service is mostly called as the workload behind it.
        service: or(&told.service, &name),
        name,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::xds::dialogue::Variant;
    use crate::xds::transport::{ControlPlane, Target};

    fn sidecar() -> Value {
        json!({
            "node": {
                "id": "sidecar~reviews-x1y2z.shop",
                "cluster": "reviews.shop",
                "metadata": {"workload": "reviews", "namespace": "shop", "pod": "reviews-x1y2z"},
            },
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 15000}}},
            "dynamic_resources": {
                "ads_config": {
                    "api_type": "DELTA_GRPC",
                    "transport_api_version": "V3",
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
                },
                "lds_config": {"ads": {}, "resource_api_version": "V3"},
                "cds_config": {"ads": {}, "resource_api_version": "V3"},
            },
            "static_resources": {"clusters": [{
                "name": "xds",
                "type": "STATIC",
                "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": {"pipe": {"path": "/run/weft/xds.sock"}}}},
                ]}]},
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": {"http2_protocol_options": {}},
                    },
                },
            }]},
        })
    }

    fn parsed(value: &Value) -> Result<Bootstrap, BootstrapError> {
        Bootstrap::parse(&value.to_string(), Path::new("b.json"))
    }

    #[test]
    fn a_sidecars_bootstrap_tells_who_it_is_and_where_its_control_plane_is() {
        let bootstrap = parsed(&sidecar()).expect("valid");

        assert_eq!(
            bootstrap.discovery.ads,
            Some(ControlPlane {
                authority: "xds".into(),
                ..ControlPlane::in_the_clear(
                    vec![Target::Socket("/run/weft/xds.sock".into())],
                    Variant::Delta,
                )
            })
        );
        assert_eq!(bootstrap.admin, Some(([127, 0, 0, 1], 15000).into()));
        assert_eq!(
            (&*bootstrap.workload.name, &*bootstrap.workload.pod),
            ("reviews", "reviews-x1y2z")
        );
        assert!(
            bootstrap.statics.clusters.is_empty(),
            "its cluster is nobody's to send requests to"
        );
        assert_eq!(bootstrap.reserved_names().count(), 1);
    }

    #[test]
    fn a_control_plane_has_several_endpoints_and_speaks_the_variant_that_is_named() {
        let mut json = sidecar();
        json["dynamic_resources"]["ads_config"]["api_type"] = "GRPC".into();
        let at = |port: u16| json!({"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}});
        json["static_resources"]["clusters"][0]["load_assignment"]["endpoints"] = json!([
            {"priority": 1, "lb_endpoints": [at(3)]},
            {"lb_endpoints": [at(1), at(2)]},
        ]);

        let control_plane = parsed(&json).expect("valid").discovery.ads;

        let target = |port: u16| Target::Address(([127, 0, 0, 1], port).into());
        assert_eq!(
            control_plane,
            Some(ControlPlane {
                authority: "xds".into(),
                ..ControlPlane::in_the_clear(
                    vec![target(1), target(2), target(3)],
                    Variant::StateOfTheWorld,
                )
            })
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_refused_by_its_path() {
        for field in ["lds_config", "cds_config"] {
            let mut json = sidecar();
            json["dynamic_resources"][field] =
                json!({"path_config_source": {"path": "/nonexistent/all.yaml"}});

            let refused = parsed(&json).expect_err("refused").to_string();

            assert_eq!(
                refused,
                format!(
                    "b.json: dynamic_resources.{field}.path_config_source.path: \
                     \"/nonexistent/all.yaml\" does not exist"
                )
            );
        }
    }

    #[test]
    fn each_kind_comes_from_the_source_that_is_named_for_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut json = sidecar();
        json["dynamic_resources"]["cds_config"] = json!({
            "path_config_source": {"path": dir.path()},
            "initial_fetch_timeout": "3s",
        });
        json["dynamic_resources"]["lds_config"] = json!({"api_config_source": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds", "authority": "listeners"}}],
        }});

        let discovery = parsed(&json).expect("valid").discovery;

        assert_eq!(
            discovery.aggregated(),
            [Kind::Endpoints, Kind::Routes, Kind::Secret]
        );
        let (kind, service) = &discovery.services[0];
        assert_eq!((*kind, &*service.authority), (Kind::Listener, "listeners"));
        assert_eq!(discovery.files[0].0, Kind::Cluster);
        let three = std::time::Duration::from_secs(3);
        assert_eq!(discovery.awaited[&Kind::Cluster], Some(three));
        assert_eq!(discovery.awaited[&Kind::Listener], None);
    }

    #[test]
    fn a_control_plane_with_tls_and_a_name_is_believed_by_secrets_of_the_bootstraps_own() {
        let mut json = sidecar();
        let cluster = &mut json["static_resources"]["clusters"][0];
        cluster["type"] = "STRICT_DNS".into();
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] =
            json!({"socket_address": {"address": "xds.example.com", "port_value": 443}});
        cluster["transport_socket"] = json!({"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": "xds.example.com",
            "common_tls_context": {"validation_context_sds_secret_config": {"name": "roots"}},
        }});

        let missing = parsed(&json).expect_err("refused").to_string();
        assert_eq!(
            missing,
            "b.json: static_resources.clusters[0].transport_socket: \
             the secret \"roots\" is not in static_resources.secrets, or is of another type"
        );

        let roots = crate::identity::testing::Authority::new().pem();
        json["static_resources"]["secrets"] = json!([{"name": "roots", "validation_context":
            {"trusted_ca": {"inline_string": roots}}}]);
        let control_plane = parsed(&json).expect("valid").discovery.ads.expect("ADS");
        assert_eq!(
            control_plane.targets,
            [Target::Host("xds.example.com".into(), 443)]
        );
        assert_eq!(
            control_plane.tls.expect("TLS").sni.as_deref(),
            Some("xds.example.com")
        );
    }

    #[test]
    fn runtime_values_take_the_place_of_defaults_and_of_layers_before_them() {
        let layers = |last: Value| {
            let yaml = json!({
                "layered_runtime": {"layers": [
                    {"name": "base", "static_layer": {"canary": {"share": 1}}},
                    {"name": "site", "static_layer": {"canary.share": 30}},
                    last,
                ]},
                "static_resources": {"clusters": [{
                    "name": "app",
                    "load_assignment": {"cluster_name": "app"},
                    "lb_policy": "LEAST_REQUEST",
                    "least_request_lb_config": {
                        "active_request_bias": {"default_value": 1.0, "runtime_key": "canary.share"},
                    },
                }]},
            });
            parsed(&yaml)
        };
        use crate::config::balancing::Balancer;

        let bootstrap = layers(json!({"name": "admin", "admin_layer": {}})).expect("valid");

        let balancer = &bootstrap.statics.clusters["app"].balancer;
        let is_told =
            matches!(balancer, Balancer::LeastRequest { bias, .. } if (*bias - 30.0).abs() < 1e-9);
        assert!(is_told, "{balancer:?}");
        let refused = layers(json!({"name": "disk", "disk_layer": {"symlink_root": "/srv"}}));
        assert_eq!(
            refused.expect_err("refused").to_string(),
            "b.json: layered_runtime.layers[2].disk_layer: not supported: use static_layer"
        );
    }

    #[test]
    fn a_node_without_metadata_is_known_by_its_id() {
        let mut json = sidecar();
        json["node"]
            .as_object_mut()
            .expect("an object")
            .remove("metadata");

        let workload = parsed(&json).expect("valid").workload;

        assert_eq!(
            (&*workload.name, &*workload.namespace, &*workload.pod),
            ("reviews", "shop", "reviews-x1y2z")
        );
    }

    #[test]
    fn yaml_is_read_with_the_proxys_own_resources() {
        let yaml = r#"
static_resources:
  listeners:
  - name: web
    address: { socket_address: { address: 127.0.0.1, port_value: 8080 } }
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: web
          cluster: web
  clusters:
  - name: web
    connect_timeout: 0.25s
    load_assignment:
      cluster_name: web
      endpoints:
      - lb_endpoints:
        - endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 80 } } }
"#;

        let bootstrap = Bootstrap::parse(yaml, Path::new("b.yaml")).expect("valid");

        assert_eq!(bootstrap.statics.listeners.len(), 1);
        assert_eq!(
            bootstrap.statics.clusters["web"]
                .connect_timeout
                .as_millis(),
            250
        );
        assert!(bootstrap.discovery.is_none());
    }

    #[test]
    fn secrets_of_its_own_are_found_by_name() {
        use crate::xds::testing::{listener_with_secret, secret};

        let with = |secrets: &[&str]| {
            let wire = Wire {
                static_resources: Some(StaticResources {
                    listeners: vec![listener_with_secret("web", "mine")],
                    clusters: vec![],
                    secrets: secrets.iter().map(|name| secret(name)).collect(),
                }),
                ..Wire::default()
            };
            check(wire).map_err(|Problem { field, reason }| format!("{field}: {reason}"))
        };

        assert!(with(&["mine"]).is_ok());
        let refused = with(&["other"]).expect_err("refused");
        assert!(
            refused.starts_with("static_resources.secrets: "),
            "{refused}"
        );
        assert!(refused.contains("\"mine\""), "{refused}");
    }

    #[test]
    fn the_admin_interface_is_served_on_loopback_only() {
        let at = |address: &str| {
            let mut json = sidecar();
            json["admin"]["address"]["socket_address"]["address"] = address.into();
            parsed(&json).map(|bootstrap| bootstrap.admin.expect("an address").ip().to_string())
        };

        assert_eq!(at("127.0.0.2").expect("valid"), "127.0.0.2");
        assert_eq!(at("0.0.0.0").expect("valid"), "127.0.0.1");
        assert_eq!(at("::").expect("valid"), "::1");
        let refused = at("10.0.0.1").expect_err("refused").to_string();
        assert!(
            refused.starts_with("b.json: admin.address.socket_address.address: \"10.0.0.1\""),
            "{refused}"
        );
    }

    #[test]
    fn what_shapes_statistics_is_harmless_and_where_they_would_be_sent_is_not() {
        let mut json = sidecar();
        json["stats_config"] = json!({"stats_tags": [{"tag_name": "a", "regex": "b"}]});
        json["watchdogs"] = json!({"worker_watchdog": {"kill_timeout": "1s"}});
        assert!(parsed(&json).is_ok());

        json["stats_sinks"] = json!([{"name": "statsd"}]);

        assert_eq!(
            parsed(&json).expect_err("refused").to_string(),
            "b.json: stats_sinks: not supported"
        );
    }

    #[test]
    fn a_listener_without_a_name_is_called_by_its_address() {
        let mut json = sidecar();
        json["static_resources"]["listeners"] = json!([{
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 8080}},
            "filter_chains": [],
            "traffic_direction": "outbound",
        }]);

        let statics = parsed(&json).expect("valid").statics;

        assert!(
            statics.listeners.contains_key("127.0.0.1:8080"),
            "{statics:?}"
        );
    }

    #[test]
    fn mistakes_are_named_by_file_and_field() {
        let mut missing = sidecar();
        missing["dynamic_resources"]["ads_config"]["grpc_services"][0]["envoy_grpc"]["cluster_name"] =
            "other".into();
        let mut unknown = sidecar();
        unknown["static_resourses"] = json!({});
        let mut refused = sidecar();
        refused["static_resources"]["clusters"][0]["name"] = "web".into();
        refused["dynamic_resources"] = json!({});

        assert_eq!(
            parsed(&missing).expect_err("refused").to_string(),
            "b.json: dynamic_resources.ads_config.grpc_services[0].envoy_grpc.cluster_name: \
             no static cluster is called \"other\""
        );
        let unknown = parsed(&unknown).expect_err("refused").to_string();
        assert!(unknown.contains("static_resourses"), "{unknown}");
        let refused = parsed(&refused).expect_err("refused").to_string();
        assert!(
            refused.starts_with("b.json: static_resources.clusters[0].load_assignment."),
            "{refused}"
        );
        let syntax = Bootstrap::parse("a: [", Path::new("b.yaml")).expect_err("refused");
        assert!(matches!(syntax, BootstrapError::Syntax { .. }));
    }
}
