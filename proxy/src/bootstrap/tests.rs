//! Bootstraps that are read, and those that are refused.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::xds::dialogue::Variant;
use crate::xds::file::FileSource;
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
fn it_can_be_shown_as_it_came() {
    let json = sidecar();
    let came: Wire = json::from_json(json.clone()).expect("a bootstrap");

    assert_eq!(parsed(&json).expect("valid").wire(), came);
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
        [Kind::Endpoints, Kind::Routes, Kind::Secret, Kind::Runtime]
    );
    let (kind, service) = &discovery.services[0];
    assert_eq!((*kind, &*service.authority), (Kind::Listener, "listeners"));
    assert_eq!(discovery.files[0].0, Kind::Cluster);
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(discovery.awaited[&Kind::Cluster], seconds(3));
    assert_eq!(discovery.awaited[&Kind::Listener], seconds(15));
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
        control_plane.tls.expect("TLS").last().sni.as_deref(),
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
        "b.json: layered_runtime.layers[2].disk_layer: not supported: use static_layer or rtds_layer"
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

/// A listener that ends TLS with a secret.
fn with_secret(secret: Value) -> Value {
    const TYPES: &str = "type.googleapis.com/envoy.extensions";
    json!({
        "name": "web",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{
            "filters": [{"name": "tcp", "typed_config": {
                "@type": format!("{TYPES}.filters.network.tcp_proxy.v3.TcpProxy"),
                "stat_prefix": "web",
                "cluster": "web",
            }}],
            "transport_socket": {"name": "tls", "typed_config": {
                "@type": format!("{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"),
                "common_tls_context": {"tls_certificate_sds_secret_configs": [secret]},
            }},
        }],
    })
}

#[test]
fn secrets_of_its_own_are_found_by_name() {
    let with = |name: &str| {
        let mut json = json!({"static_resources": {
            "listeners": [with_secret(json!({"name": name}))],
        }});
        let secret = weft_proto::json::to_json(&crate::xds::testing::secret("mine"));
        json["static_resources"]["secrets"] = json!([secret.expect("JSON")]);
        parsed(&json)
    };

    assert!(with("mine").is_ok());
    assert_eq!(
        with("other").expect_err("refused").to_string(),
        "b.json: static_resources.listeners[0].filter_chains[0].transport_socket.typed_config.\
         common_tls_context.tls_certificate_sds_secret_configs[0].sds_config: \
         missing: no secret of static_resources is called \"other\""
    );
}

#[test]
fn what_comes_over_an_aggregated_stream_is_refused_where_there_is_none() {
    let secret = json!({"name": "mine", "sds_config": {"ads": {}}});
    let eds =
        json!({"name": "app", "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}});
    let refused = |resources: Value| {
        let json = json!({"static_resources": resources});
        let refused = parsed(&json).expect_err("refused").to_string();
        let told = ".ads: there is no ADS: the bootstrap has no dynamic_resources.ads_config";
        refused.strip_suffix(told).map(str::to_owned)
    };

    let cluster = refused(json!({"clusters": [eds]}));
    let listener = refused(json!({"listeners": [with_secret(secret)]}));

    let expected = "b.json: static_resources.clusters[0].eds_cluster_config.eds_config";
    assert_eq!(cluster.as_deref(), Some(expected));
    let listener = listener.expect("refused for that reason");
    assert!(
        listener.ends_with("tls_certificate_sds_secret_configs[0].sds_config"),
        "{listener}"
    );
}

#[test]
fn a_resource_that_is_named_has_a_source_of_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("eds.yaml");
    std::fs::write(&file, "resources: []").expect("written");
    let mut json = sidecar();
    let clusters = &mut json["static_resources"]["clusters"];
    let eds = |name: &str, source: Value| {
        json!({"name": name, "type": "EDS", "eds_cluster_config": {
            "service_name": format!("{name}-endpoints"), "eds_config": source,
        }})
    };
    let all = clusters.as_array_mut().expect("clusters");
    all.push(eds("a", json!({"path_config_source": {"path": file}})));
    all.push(eds(
        "b",
        json!({"api_config_source": {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
    }, "initial_fetch_timeout": "2s"}),
    ));

    let bootstrap = parsed(&json).expect("valid");

    let needs: Vec<_> = bootstrap.own.needs().collect();
    assert_eq!(&*needs[0].name, "a-endpoints");
    assert_eq!(needs[0].origin, Origin::File(FileSource::new(file)));
    assert_eq!(needs[0].limit, Some(Duration::from_secs(15)));
    assert!(matches!(&needs[1].origin, Origin::Service(service) if &*service.authority == "xds"));
    assert_eq!(needs[1].limit, Some(Duration::from_secs(2)));

    let source = "grpc_services[0].envoy_grpc.cluster_name";
    json["static_resources"]["clusters"][2]["eds_cluster_config"]["eds_config"]["api_config_source"]
        ["grpc_services"][0]["envoy_grpc"]["cluster_name"] = "other".into();
    assert_eq!(
        parsed(&json).expect_err("refused").to_string(),
        format!(
            "b.json: static_resources.clusters[2].eds_cluster_config.eds_config.\
            api_config_source.{source}: no static cluster is called \"other\""
        )
    );
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

fn refused(value: &Value) -> String {
    parsed(value).expect_err("refused").to_string()
}

fn tcp_proxy() -> Value {
    let kind = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    json!({"name": "tcp", "typed_config": {"@type": kind, "stat_prefix": "tcp", "cluster": "c"}})
}

/// A listener that forwards to a cluster, beside the cluster `books`.
fn routing(cluster: &str, validate_clusters: Option<bool>) -> Value {
    const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters";
    let mut routes = json!({"name": "all", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
        {"match": {"prefix": "/"}, "route": {"cluster": cluster}},
    ]}]});
    if let Some(validate_clusters) = validate_clusters {
        routes["validate_clusters"] = validate_clusters.into();
    }
    json!({"static_resources": {
        "listeners": [{
            "name": "web",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 8080}},
            "filter_chains": [{"filters": [{"name": "http", "typed_config": {
                "@type": format!("{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager"),
                "stat_prefix": "web",
                "route_config": routes,
                "http_filters": [{"name": "router", "typed_config": {"@type": format!("{FILTERS}.http.router.v3.Router")}}],
            }}]}],
        }],
        "clusters": [{"name": "books", "type": "STATIC"}],
    }})
}

#[test]
fn routes_of_the_file_forward_to_its_clusters_unless_told_otherwise() {
    assert!(parsed(&routing("books", None)).is_ok());
    assert!(parsed(&routing("book", Some(false))).is_ok());
    assert_eq!(
        refused(&routing("book", None)),
        "b.json: static_resources.listeners[0]: a route forwards to the cluster \"book\", which is not there"
    );
    let mut copied = routing("books", None);
    let route = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes/0/route";
    copied.pointer_mut(route).expect("a route")["request_mirror_policies"] =
        json!([{"cluster": "nowhere"}]);
    assert!(refused(&copied).contains("nowhere"));
}

#[test]
fn layers_of_the_runtime_have_names_of_their_own() {
    let layers = |names: [&str; 2]| {
        let layer = |name: &str| json!({"name": name, "static_layer": {}});
        json!({"layered_runtime": {"layers": names.map(layer)}})
    };

    assert!(parsed(&layers(["a", "b"])).is_ok());
    assert_eq!(
        refused(&layers(["a", ""])),
        "b.json: layered_runtime.layers[1].name: must not be empty"
    );
    assert_eq!(
        refused(&layers(["a", "a"])),
        "b.json: layered_runtime.layers[1].name: \"a\" is the name of a layer before it"
    );
}

#[test]
fn a_listener_without_a_name_is_called_by_its_address() {
    let mut json = sidecar();
    json["static_resources"]["listeners"] = json!([{
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 8080}},
        "filter_chains": [{"filters": [tcp_proxy()]}],
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

/// A listener whose routes are part of it.
fn with_routes(route_config: Value) -> Value {
    const TYPES: &str = "type.googleapis.com/envoy.extensions.filters";
    json!({
        "name": "web",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": {
            "@type": format!("{TYPES}.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "web",
            "route_config": route_config,
            "http_filters": [
                {"name": "router", "typed_config": {"@type": format!("{TYPES}.http.router.v3.Router")}},
            ],
        }}]}],
    })
}

#[test]
fn values_are_what_envoys_api_wants_them_to_be() {
    const MANAGER: &str = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";
    let routes = |route: Value| json!({"virtual_hosts": [{"name": "a", "domains": ["*"], "routes": [route]}]});
    let answer = json!({"status": 200});
    let added = |key: &str, value: &str| {
        routes(json!({
            "match": {"prefix": "/"},
            "direct_response": answer,
            "request_headers_to_add": [{"header": {"key": key, "value": value}}],
        }))
    };
    let header = "route_config.virtual_hosts[0].routes[0].request_headers_to_add[0].header";
    for (field, value, path, reason) in [
        (
            "stat_prefix",
            json!(""),
            "stat_prefix".to_owned(),
            "must not be empty",
        ),
        (
            "max_request_headers_kb",
            json!(9000),
            "max_request_headers_kb".to_owned(),
            "must be 8192 or less",
        ),
        (
            "http2_protocol_options",
            json!({"connection_keepalive": {"timeout": "0.0005s"}}),
            "http2_protocol_options.connection_keepalive.timeout".to_owned(),
            "must be 0.001s or more",
        ),
        (
            "route_config",
            json!({"virtual_hosts": [{"name": "a"}]}),
            "route_config.virtual_hosts[0].domains".to_owned(),
            "has fewer than 1 members",
        ),
        (
            "route_config",
            routes(json!({"direct_response": answer})),
            "route_config.virtual_hosts[0].routes[0].match".to_owned(),
            "is required",
        ),
        (
            "route_config",
            routes(json!({"match": {}, "direct_response": answer})),
            "route_config.virtual_hosts[0].routes[0].match".to_owned(),
            "one of prefix, path",
        ),
        (
            "route_config",
            added("", "b"),
            format!("{header}.key"),
            "must not be empty",
        ),
        (
            "route_config",
            added("a", "b\nc"),
            format!("{header}.value"),
            "has a line break or a NUL in it",
        ),
        (
            "route_config",
            added("a", &"b".repeat(16385)),
            format!("{header}.value"),
            "is longer than 16384 bytes",
        ),
    ] {
        let mut listener = with_routes(added("a", "b"));
        let parsed_with =
            |listener: &Value| parsed(&json!({"static_resources": {"listeners": [listener]}}));
        assert!(parsed_with(&listener).is_ok());
        listener["filter_chains"][0]["filters"][0]["typed_config"][field] = value;

        let refused = parsed_with(&listener).expect_err("refused").to_string();

        let expected = format!("{MANAGER}.{path}: {reason}");
        assert!(refused.contains(&expected), "{refused}");
    }
}
