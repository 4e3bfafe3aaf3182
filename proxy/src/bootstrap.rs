//! What the proxy is started with: Envoy's bootstrap, as YAML or JSON.
//!
//! Who it is, where its control plane is, and resources of its own. Everything else comes over xDS. Errors name
//! the file and the field.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weft_proto::any::pack;
use weft_proto::envoy::config::bootstrap::v3::bootstrap::{DynamicResources, StaticResources};
use weft_proto::envoy::config::bootstrap::v3::{Admin, Bootstrap as Wire};
use weft_proto::envoy::config::cluster::v3::Cluster;
use weft_proto::envoy::config::core::v3::api_config_source::ApiType;
use weft_proto::envoy::config::core::v3::grpc_service::TargetSpecifier;
use weft_proto::envoy::config::core::v3::{
    Address, ApiConfigSource, Node, address, socket_address,
};
use weft_proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use weft_proto::json;

use crate::config::{Configuration, Workload};
use crate::xds::kind::Kind;
use crate::xds::translate::{Checked, chain, metadata, translate};
use crate::xds::transport::Target;

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
    /// Where the control plane is; none: there are only resources of its own.
    pub control_plane: Option<Target>,
    /// Where the admin interface listens.
    pub admin: Option<SocketAddr>,
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
    #[error("{}: no Envoy bootstrap: {reason}", path.display())]
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
        let wire: Wire = json::from_json(value).map_err(|error| BootstrapError::Shape {
            path: path.to_owned(),
            reason: chain(&error),
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
    let control_plane = match &wire.dynamic_resources {
        Some(dynamic) => control_plane(dynamic, &resources.clusters)?,
        None => None,
    };
    if control_plane.is_some() && node.id.is_empty() {
        return Err(problem(
            "node.id",
            "must not be empty where there is a control plane",
        ));
    }
    let xds_cluster = wire.dynamic_resources.as_ref().and_then(ads_cluster);
    Ok(Bootstrap {
        statics: statics(&resources, xds_cluster)?,
        workload: Arc::new(workload(&node)),
        control_plane,
        admin: wire.admin.as_ref().map(admin).transpose()?.flatten(),
        node,
        wire,
    })
}

/// Every field but those that are used; each is refused, or harmless here.
fn warn_of_ignored(wire: &Wire) -> Result<(), Problem> {
    let Wire {
        node: _,
        static_resources: _,
        dynamic_resources: _,
        admin: _,
        cluster_manager,
        flags_path,
        stats_flush_interval,
        tracing,
        hds_config,
        enable_dispatcher_stats,
        layered_runtime,
        header_prefix,
        stats_server_version_override,
        use_tcp_for_dns_lookups,
        bootstrap_extensions,
        config_sources,
        default_config_source,
        default_socket_interface,
        certificate_provider_instances,
        node_context_params,
        dns_resolution_config,
        typed_dns_resolver_config,
        inline_headers,
        perf_tracing_file_path,
        default_regex_engine,
        xds_delegate_extension,
        xds_config_tracker_extension,
        listener_manager,
        application_log_config,
        deferred_stat_options,
        grpc_async_client_manager_config,
        memory_allocator_manager,
        enable_worker_cpu_affinity,
        stats_flush,
        stats_eviction,
    } = wire;
    let refused = [
        ("tracing", tracing.is_some()),
        ("hds_config", hds_config.is_some()),
        ("header_prefix", !header_prefix.is_empty()),
        ("bootstrap_extensions", !bootstrap_extensions.is_empty()),
        ("config_sources", !config_sources.is_empty()),
        ("default_config_source", default_config_source.is_some()),
        (
            "certificate_provider_instances",
            !certificate_provider_instances.is_empty(),
        ),
        ("dns_resolution_config", dns_resolution_config.is_some()),
        ("xds_delegate_extension", xds_delegate_extension.is_some()),
        ("listener_manager", listener_manager.is_some()),
    ];
    if let Some((field, _)) = refused.into_iter().find(|(_, is_set)| *is_set) {
        return Err(problem(field, "not supported"));
    }
    let harmless = [
        ("cluster_manager", cluster_manager.is_some()),
        ("flags_path", !flags_path.is_empty()),
        ("stats_flush_interval", stats_flush_interval.is_some()),
        ("enable_dispatcher_stats", *enable_dispatcher_stats),
        ("layered_runtime", layered_runtime.is_some()),
        (
            "stats_server_version_override",
            stats_server_version_override.is_some(),
        ),
        ("use_tcp_for_dns_lookups", *use_tcp_for_dns_lookups),
        (
            "default_socket_interface",
            !default_socket_interface.is_empty(),
        ),
        ("node_context_params", !node_context_params.is_empty()),
        (
            "typed_dns_resolver_config",
            typed_dns_resolver_config.is_some(),
        ),
        ("inline_headers", !inline_headers.is_empty()),
        ("perf_tracing_file_path", !perf_tracing_file_path.is_empty()),
        ("default_regex_engine", default_regex_engine.is_some()),
        (
            "xds_config_tracker_extension",
            xds_config_tracker_extension.is_some(),
        ),
        ("application_log_config", application_log_config.is_some()),
        ("deferred_stat_options", deferred_stat_options.is_some()),
        (
            "grpc_async_client_manager_config",
            grpc_async_client_manager_config.is_some(),
        ),
        (
            "memory_allocator_manager",
            memory_allocator_manager.is_some(),
        ),
        ("enable_worker_cpu_affinity", *enable_worker_cpu_affinity),
        ("stats_flush", stats_flush.is_some()),
        ("stats_eviction", stats_eviction.is_some()),
    ];
    for (field, _) in harmless.into_iter().filter(|(_, is_set)| *is_set) {
        tracing::warn!(field, "this field of the bootstrap has no effect");
    }
    Ok(())
}

/// The proxy's own listeners and clusters; not the cluster that leads to the control plane, which is no one's to
/// send requests to.
fn statics(resources: &StaticResources, xds: Option<&str>) -> Result<Configuration, Problem> {
    let StaticResources {
        listeners,
        clusters,
        secrets,
    } = resources;
    if !secrets.is_empty() {
        return Err(problem("static_resources.secrets", "not supported"));
    }
    let mut statics = Configuration::default();
    for (index, listener) in listeners.iter().enumerate() {
        let field = format!("static_resources.listeners[{index}]");
        match checked(Kind::Listener, &pack(listener), &field)? {
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
        match checked(Kind::Cluster, &pack(cluster), &field)? {
            Checked::Cluster(cluster) => {
                insert(&mut statics.clusters, &cluster.name, &cluster, &field)?
            }
            _ => return Err(problem(field, "no cluster")),
        }
    }
    Ok(statics)
}

fn checked(kind: Kind, any: &weft_proto::Any, field: &str) -> Result<Checked, Problem> {
    let translated = translate(kind, any).map_err(|invalid| problem(field, invalid.to_string()))?;
    for path in translated.notes {
        tracing::warn!(
            field = format!("{field}.{path}"),
            "this field of the bootstrap has no effect"
        );
    }
    Ok(translated.checked)
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

/// The cluster of the ADS stream.
fn ads_cluster(dynamic: &DynamicResources) -> Option<&str> {
    let services = &dynamic.ads_config.as_ref()?.grpc_services;
    let Some(TargetSpecifier::EnvoyGrpc(grpc)) = &services.first()?.target_specifier else {
        return None;
    };
    Some(&grpc.cluster_name)
}

fn control_plane(
    dynamic: &DynamicResources,
    clusters: &[Cluster],
) -> Result<Option<Target>, Problem> {
    let DynamicResources {
        lds_config,
        cds_config,
        ads_config,
        lds_resources_locator,
        cds_resources_locator,
    } = dynamic;
    const FIELD: &str = "dynamic_resources";
    if !lds_resources_locator.is_empty() || !cds_resources_locator.is_empty() {
        return Err(problem(
            format!("{FIELD}.lds_resources_locator"),
            "not supported",
        ));
    }
    let Some(ads) = ads_config else {
        return match lds_config.is_some() || cds_config.is_some() {
            true => Err(problem(
                format!("{FIELD}.ads_config"),
                "missing: only ADS is spoken",
            )),
            false => Ok(None),
        };
    };
    check_api_type(ads)?;
    let name = ads_cluster(dynamic).ok_or_else(|| {
        problem(
            format!("{FIELD}.ads_config.grpc_services"),
            "must name an `envoy_grpc` cluster",
        )
    })?;
    let index = clusters
        .iter()
        .position(|cluster| cluster.name == name)
        .ok_or_else(|| {
            problem(
                format!("{FIELD}.ads_config.grpc_services[0].envoy_grpc.cluster_name"),
                format!("no static cluster is called {name:?}"),
            )
        })?;
    target(
        &clusters[index],
        &format!("static_resources.clusters[{index}]"),
    )
    .map(Some)
}

fn check_api_type(ads: &ApiConfigSource) -> Result<(), Problem> {
    let field = "dynamic_resources.ads_config.api_type";
    match ApiType::try_from(ads.api_type) {
        Ok(ApiType::DeltaGrpc) => Ok(()),
        // The delta variant is spoken in any case; every server of the other one speaks it, too.
        Ok(ApiType::Grpc) => Ok(()),
        _ => Err(problem(field, "must be DELTA_GRPC or GRPC")),
    }
}

/// The one endpoint of the control plane's cluster.
fn target(cluster: &Cluster, field: &str) -> Result<Target, Problem> {
    if cluster.transport_socket.is_some() {
        return Err(problem(
            format!("{field}.transport_socket"),
            "TLS to the control plane is not supported",
        ));
    }
    let endpoints: Vec<_> = cluster
        .load_assignment
        .iter()
        .flat_map(|assignment| &assignment.endpoints)
        .flat_map(|locality| &locality.lb_endpoints)
        .collect();
    let field = format!("{field}.load_assignment");
    let [endpoint] = endpoints.as_slice() else {
        return Err(problem(
            field,
            format!("must have one endpoint, has {}", endpoints.len()),
        ));
    };
    let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else {
        return Err(problem(field, "the endpoint has no address"));
    };
    match endpoint
        .address
        .as_ref()
        .and_then(|address| address.address.as_ref())
    {
        Some(address::Address::Pipe(pipe)) => Ok(Target::Socket(PathBuf::from(&pipe.path))),
        Some(address::Address::SocketAddress(socket)) => socket_target(socket)
            .map(Target::Address)
            .ok_or_else(|| problem(field, "the endpoint must have an IP address and a port")),
        _ => Err(problem(
            field,
            "the endpoint must have a pipe or a socket address",
        )),
    }
}

fn socket_target(
    socket: &weft_proto::envoy::config::core::v3::SocketAddress,
) -> Option<SocketAddr> {
    let ip = socket.address.parse().ok()?;
    match socket.port_specifier {
        Some(socket_address::PortSpecifier::PortValue(port)) => {
            Some(SocketAddr::new(ip, u16::try_from(port).ok()?))
        }
        _ => None,
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
        address::Address::SocketAddress(socket) => socket_target(socket)
            .map(Some)
            .ok_or_else(|| problem("admin.address", "must have an IP address and a port")),
        _ => Err(problem("admin.address", "must be a socket address")),
    }
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
            bootstrap.control_plane,
            Some(Target::Socket("/run/weft/xds.sock".into()))
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
        assert_eq!(bootstrap.control_plane, None);
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
            refused.starts_with("b.json: static_resources.clusters[0]: load_assignment."),
            "{refused}"
        );
        let syntax = Bootstrap::parse("a: [", Path::new("b.yaml")).expect_err("refused");
        assert!(matches!(syntax, BootstrapError::Syntax { .. }));
    }
}
