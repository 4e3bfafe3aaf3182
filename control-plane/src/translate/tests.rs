//! A small mesh, translated: the whole of its resources as JSON beside this file, and what follows from changes.
//!
//! `WEFT_UPDATE_GOLDEN=1 cargo test -p weft-control-plane translate` writes the files anew; read the difference.

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use weft_proto::json::to_json;

use crate::mesh::source::Objects;
use crate::mesh::{Settings, Sharing};

use super::*;

fn read<T: DeserializeOwned>(values: &[Value]) -> Vec<Arc<T>> {
    let read = |value: &Value| Arc::new(serde_json::from_value(value.clone()).unwrap());
    values.iter().map(read).collect()
}

fn pod(app: &str, number: u8) -> Value {
    json!({
        "metadata": {
            "namespace": "default", "name": format!("{app}-{number}"),
            "labels": {"app": app, "weft.dev/alias.reviews": app.starts_with("reviews").to_string()},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": app, "uid": "1", "controller": true}],
        },
        "spec": {
            "serviceAccountName": app,
            "initContainers": [{"name": "weft-proxy", "restartPolicy": "Always"}],
            "containers": [{"name": app, "ports": [{"containerPort": 9080, "name": "web"}]}],
        },
        "status": {
            "phase": "Running",
            "podIP": format!("10.96.0.{number}"),
            "podIPs": [{"ip": format!("10.96.0.{number}")}, {"ip": format!("fd57:6060::{number}")}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

fn service(name: &str, address: u8, selector: Value) -> Value {
    json!({
        "metadata": {"namespace": "default", "name": name},
        "spec": {
            "clusterIP": format!("240.240.0.{address}"),
            "clusterIPs": [format!("240.240.0.{address}"), format!("fd57:f0f0::{address}")],
            "selector": selector,
            "ports": [{"port": 80, "targetPort": "web"}],
        },
    })
}

/// `reviews` is an alias of `reviews-v1` and `reviews-v2`; `web` is published; `redis` speaks its own protocol.
struct Bookstore {
    pods: Vec<Value>,
    services: Vec<Value>,
    routes: Vec<Value>,
    policies: Vec<Value>,
    authentications: Vec<Value>,
    telemetries: Vec<Value>,
    settings: Settings,
}

impl Bookstore {
    fn new() -> Self {
        let mut web = pod("web", 1);
        web["spec"]["containers"][0]["ports"][0]["hostPort"] = json!(8080);
        web["spec"]["containers"][0]["ports"][0]["hostIP"] = json!("127.0.0.1");
        let mut redis = service("redis", 4, json!({"app": "redis"}));
        redis["spec"]["ports"] = json!([{"port": 6379, "appProtocol": "tcp"}]);
        Self {
            pods: vec![web, pod("reviews-v1", 2), pod("reviews-v2", 3)],
            services: vec![
                service("web", 1, json!({"app": "web"})),
                service("reviews", 2, json!({"weft.dev/alias.reviews": "true"})),
                service("reviews-v1", 5, json!({"app": "reviews-v1"})),
                service("reviews-v2", 6, json!({"app": "reviews-v2"})),
                redis,
            ],
            routes: Vec::new(),
            policies: Vec::new(),
            authentications: Vec::new(),
            telemetries: Vec::new(),
            settings: Settings::default(),
        }
    }

    fn mesh(&self) -> Arc<Mesh> {
        let objects = Objects {
            revision: 7,
            pods: read(&self.pods),
            services: read(&self.services),
            routes: read(&self.routes),
            traffic_policies: read(&self.policies),
            peer_authentications: read(&self.authentications),
            telemetries: read(&self.telemetries),
        };
        Arc::new(Mesh::build(&objects, self.settings.clone()))
    }

    fn compile(&self) -> Snapshot {
        Snapshot::compile(self.mesh(), None)
    }

    fn resources_of(&self, pod: &str) -> ProxyResources {
        let name = ObjectName::new("default", pod);
        self.compile().resources(&name, None).unwrap()
    }

    fn show(&self, pod: &str, kind: ResourceKind, name: &str) -> Value {
        show(&self.resources_of(pod), kind, name)
    }
}

fn show(resources: &ProxyResources, kind: ResourceKind, name: &str) -> Value {
    let resource = resources.get(kind, name);
    to_json(&resource.unwrap_or_else(|| panic!("no {name}")).body).unwrap()
}

fn policy(name: &str, target: Value, spec: Value) -> Value {
    let mut policy = json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "BackendTrafficPolicy",
        "metadata": {"namespace": "default", "name": name},
        "spec": {"targetRefs": [target]},
    });
    for (key, value) in spec.as_object().unwrap() {
        policy["spec"][key] = value.clone();
    }
    policy
}

fn route(namespace: &str, name: &str, parent: Value, rules: Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"parentRefs": [parent], "rules": rules},
    })
}

fn on_service(name: &str) -> Value {
    json!({"kind": "Service", "name": name})
}

/// Compares with a file of this folder.
fn check_golden(name: &str, shown: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join(format!("src/translate/tests/golden/{name}.json"));
    let shown = serde_json::to_string_pretty(shown).unwrap() + "\n";
    if std::env::var_os("WEFT_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &shown).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(shown, golden, "{} differs", path.display());
}

#[test]
fn a_sidecar_has_exactly_the_resources_of_the_table() {
    let resources = Bookstore::new().resources_of("web-1");

    let names = |kind| {
        resources
            .all(kind)
            .map(|resource| resource.name.to_string())
            .collect::<BTreeSet<_>>()
    };
    let services: BTreeSet<_> = [
        "outbound|6379||redis.default",
        "outbound|80||reviews-v1.default",
        "outbound|80||reviews-v2.default",
        "outbound|80||reviews.default",
        "outbound|80||web.default",
    ]
    .map(str::to_owned)
    .into();
    let with = |others: &[&str]| -> BTreeSet<String> {
        services
            .iter()
            .cloned()
            .chain(others.iter().map(|&name| name.to_owned()))
            .collect()
    };
    assert_eq!(
        names(ResourceKind::Listener),
        with(&["outbound", "inbound", "published|127.0.0.1|8080"])
    );
    assert_eq!(
        names(ResourceKind::Cluster),
        with(&["passthrough", "inbound", "inbound|9080"])
    );
    assert_eq!(names(ResourceKind::Endpoints), services);
    assert_eq!(names(ResourceKind::Route), services);
}

const PUBLISHED: &str = "published|127.0.0.1|8080";

/// A second pod of `web`, made by a rolling update.
fn with_two_doors() -> Bookstore {
    let mut bookstore = Bookstore::new();
    let mut successor = bookstore.pods[0].clone();
    successor["metadata"]["name"] = json!("web-4");
    successor["status"]["podIP"] = json!("10.96.0.4");
    successor["status"]["podIPs"] = json!([{"ip": "10.96.0.4"}]);
    bookstore.pods.push(successor);
    bookstore
}

fn has_door(bookstore: &Bookstore, pod: &str) -> bool {
    let resources = bookstore.resources_of(pod);
    resources.get(ResourceKind::Listener, PUBLISHED).is_some()
}

#[test]
fn a_pod_on_its_way_out_accepts_nothing_more_at_its_published_port() {
    let mut bookstore = with_two_doors();
    assert!(has_door(&bookstore, "web-1") && has_door(&bookstore, "web-4"));

    bookstore.pods[0]["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");

    assert!(!has_door(&bookstore, "web-1"));
    assert!(has_door(&bookstore, "web-4"));
    let resources = bookstore.resources_of("web-1");
    assert!(
        resources
            .get(ResourceKind::Cluster, "inbound|9080")
            .is_some(),
        "what was accepted before still gets to the application"
    );
}

#[test]
fn a_pod_that_is_not_ready_leaves_its_published_port_to_one_that_is() {
    let mut bookstore = with_two_doors();

    bookstore.pods[3]["status"]["conditions"][0]["status"] = json!("False");
    assert!(has_door(&bookstore, "web-1"));
    assert!(!has_door(&bookstore, "web-4"));

    // Whoever comes then is told why, not turned away.
    bookstore.pods[0]["status"]["conditions"][0]["status"] = json!("False");
    assert!(has_door(&bookstore, "web-1") && has_door(&bookstore, "web-4"));
}

#[test]
fn a_pod_that_is_not_ready_accepts_at_a_port_that_only_others_on_their_way_out_publish() {
    let mut bookstore = with_two_doors();
    bookstore.pods[0]["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    bookstore.pods[3]["status"]["conditions"][0]["status"] = json!("False");

    assert!(has_door(&bookstore, "web-4"));
}

#[test]
fn listeners_are_as_they_were() {
    let resources = Bookstore::new().resources_of("web-1");

    for (file, name) in [
        ("listener-outbound", "outbound"),
        ("listener-inbound", "inbound"),
        ("listener-published", "published|127.0.0.1|8080"),
        ("listener-service", "outbound|80||reviews.default"),
        ("listener-service-tcp", "outbound|6379||redis.default"),
    ] {
        check_golden(file, &show(&resources, ResourceKind::Listener, name));
    }
}

#[test]
fn clusters_and_endpoints_are_as_they_were() {
    let mut bookstore = Bookstore::new();
    bookstore.policies = vec![policy(
        "reviews",
        on_service("reviews"),
        json!({
            "circuitBreaker": {"maxParallelRequests": 10, "maxPendingRequests": 0},
            "outlierDetection": {"consecutive5XxErrors": 3, "baseEjectionTime": "5s"},
            "loadBalancer": {"type": "RoundRobin"},
            "timeout": {"tcp": {"connectTimeout": "1s"}},
        }),
    )];
    let resources = bookstore.resources_of("web-1");

    for (file, name) in [
        ("cluster-service", "outbound|80||reviews.default"),
        ("cluster-passthrough", "passthrough"),
        ("cluster-inbound", "inbound"),
        ("cluster-inbound-port", "inbound|9080"),
    ] {
        check_golden(file, &show(&resources, ResourceKind::Cluster, name));
    }
    let endpoints = show(
        &resources,
        ResourceKind::Endpoints,
        "outbound|80||reviews.default",
    );
    check_golden("endpoints-service", &endpoints);
}

#[test]
fn routes_with_split_fault_and_retries_are_as_they_were() {
    let mut bookstore = Bookstore::new();
    bookstore.routes = vec![route(
        "default",
        "reviews",
        json!({"kind": "Service", "group": "", "name": "reviews", "port": 80}),
        json!([
            {
                "name": "testers",
                "matches": [{"headers": [{"name": "X-User", "value": "jason"}]}],
                "backendRefs": [{"name": "reviews-v2", "port": 80}],
                "timeouts": {"request": "2s", "backendRequest": "500ms"},
                "retry": {"codes": [503], "attempts": 3, "backoff": "100ms"},
            },
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/v1/"}, "method": "GET"}],
                "filters": [
                    {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}},
                    {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-a", "value": "50%"}], "remove": ["x-b"]}},
                ],
                "backendRefs": [{"name": "reviews-v1"}],
            },
            {
                "backendRefs": [
                    {"name": "reviews-v1", "port": 80, "weight": 90},
                    {"name": "reviews-v2", "port": 80, "weight": 10},
                ],
            },
        ]),
    )];
    bookstore.policies = vec![
        policy(
            "testers",
            json!({"kind": "HTTPRoute", "name": "reviews", "sectionName": "testers"}),
            json!({"faultInjection": {"delay": {"fixedDelay": "7s"}, "abort": {"httpStatus": 503, "percentage": 12.5}}}),
        ),
        policy(
            "reviews",
            on_service("reviews"),
            json!({"timeout": {"http": {"requestTimeout": "10s"}}}),
        ),
    ];

    let table = bookstore.show("web-1", ResourceKind::Route, "outbound|80||reviews.default");

    check_golden("route-service", &table);
}

#[test]
fn tracing_is_told_by_the_workload_that_makes_the_span() {
    let mut bookstore = Bookstore::new();
    bookstore.settings.otlp_endpoint = Some("http://127.0.0.1:4317".to_owned());
    bookstore.telemetries = vec![json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "Telemetry",
        "metadata": {"namespace": "default", "name": "all"},
        "spec": {
            "tracing": {"randomSamplingPercentage": 5},
            "accessLog": {"format": "JSON", "minimumStatus": 400},
        },
    })];

    let resources = bookstore.resources_of("web-1");

    let listener = show(
        &resources,
        ResourceKind::Listener,
        "outbound|80||reviews.default",
    );
    check_golden("listener-traced", &listener);
    check_golden(
        "cluster-otlp",
        &show(&resources, ResourceKind::Cluster, "otlp"),
    );
}

#[test]
fn sidecars_are_not_told_to_share_connections_where_they_are_not_to() {
    let mut bookstore = Bookstore::new();
    bookstore.settings.sharing = Sharing::Never;

    let cluster = bookstore.show(
        "web-1",
        ResourceKind::Cluster,
        "outbound|80||reviews.default",
    );

    assert_eq!(cluster.get("metadata"), None);
}

#[test]
fn the_same_mesh_is_always_the_same_bytes() {
    let (one, other) = (
        Bookstore::new().resources_of("web-1"),
        Bookstore::new().resources_of("web-1"),
    );

    for kind in ResourceKind::ALL {
        let versions = |resources: &ProxyResources| -> Vec<_> {
            resources
                .all(kind)
                .map(|resource| Arc::clone(&resource.version))
                .collect()
        };
        assert_eq!(versions(&one), versions(&other));
    }
}

#[test]
fn a_pod_that_stops_being_ready_changes_the_endpoints_of_its_services_only() {
    let mut bookstore = Bookstore::new();
    let before = bookstore.compile();
    bookstore.pods[1]["status"]["conditions"][0]["status"] = json!("False");

    let after = Snapshot::compile(bookstore.mesh(), Some(&before));

    assert!(Arc::ptr_eq(&before.clusters, &after.clusters));
    assert!(Arc::ptr_eq(&before.routes, &after.routes));
    assert!(!after.is_same(&before));
    let changed: Vec<_> = after
        .endpoints
        .iter()
        .filter(|(name, resource)| before.endpoints[*name].version != resource.version)
        .map(|(name, _)| &**name)
        .collect();
    assert_eq!(
        changed,
        [
            "outbound|80||reviews-v1.default",
            "outbound|80||reviews.default"
        ]
    );
}

#[test]
fn nothing_changed_is_the_same_snapshot_and_the_same_maps() {
    let bookstore = Bookstore::new();
    let before = bookstore.compile();
    let name = ObjectName::new("default", "web-1");
    let old = before.resources(&name, None).unwrap();

    let after = Snapshot::compile(bookstore.mesh(), Some(&before));
    let new = after.resources(&name, Some(&old)).unwrap();

    assert!(after.is_same(&before));
    for kind in ResourceKind::ALL {
        let pairs = old.maps(kind).iter().zip(new.maps(kind));
        assert!(
            pairs.into_iter().all(|(old, new)| Arc::ptr_eq(old, new)),
            "{kind:?}"
        );
    }
}

#[test]
fn a_service_without_pods_trusts_nobody() {
    let cluster = Bookstore::new().show(
        "web-1",
        ResourceKind::Cluster,
        "outbound|6379||redis.default",
    );

    assert!(
        cluster
            .to_string()
            .contains("spiffe://cluster.local/nobody")
    );
}

#[test]
fn a_route_of_the_callers_namespace_goes_before_the_services_own() {
    let mut bookstore = Bookstore::new();
    let mut stranger = pod("stranger", 9);
    stranger["metadata"]["namespace"] = json!("other");
    bookstore.pods.push(stranger);
    let parent = json!({"name": "reviews", "namespace": "default"});
    bookstore.routes = vec![
        route(
            "default",
            "own",
            parent.clone(),
            json!([{"backendRefs": [{"name": "reviews-v1", "port": 80}]}]),
        ),
        route(
            "other",
            "theirs",
            parent,
            json!([{"backendRefs": [{"name": "reviews-v2", "namespace": "default", "port": 80}]}]),
        ),
    ];
    let snapshot = bookstore.compile();

    let first_route = |namespace: &str, pod: &str| {
        let resources = snapshot
            .resources(&ObjectName::new(namespace, pod), None)
            .unwrap();
        let table = show(
            &resources,
            ResourceKind::Route,
            "outbound|80||reviews.default",
        );
        table["virtual_hosts"][0]["routes"][0]["name"].clone()
    };

    assert_eq!(first_route("default", "web-1"), "default/own/0");
    assert_eq!(first_route("other", "stranger-9"), "other/theirs/0");
}

#[test]
fn a_rule_without_backends_answers_500() {
    let mut bookstore = Bookstore::new();
    bookstore.routes = vec![route(
        "default",
        "none",
        json!({"name": "reviews"}),
        json!([{"backendRefs": [{"name": "reviews-v1", "weight": 0}]}]),
    )];

    let table = bookstore.show("web-1", ResourceKind::Route, "outbound|80||reviews.default");

    assert_eq!(
        table["virtual_hosts"][0]["routes"][0]["direct_response"]["status"],
        500
    );
}

#[test]
fn strict_mutual_tls_has_no_chain_for_plaintext_and_permissive_has_both() {
    let mut bookstore = Bookstore::new();
    let chains = |bookstore: &Bookstore| {
        let listener = bookstore.show("web-1", ResourceKind::Listener, "inbound");
        let chains = listener["filter_chains"].as_array().unwrap().clone();
        chains
            .iter()
            .map(|chain| chain["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(chains(&bookstore), ["mtls-http", "mtls-tcp"]);

    bookstore.authentications = vec![json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "PeerAuthentication",
        "metadata": {"namespace": "default", "name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "mtls": {"mode": "PERMISSIVE"}},
    })];
    assert_eq!(chains(&bookstore), ["mtls-http", "mtls-tcp", "http", "tcp"]);

    bookstore.authentications[0]["spec"]["mtls"]["mode"] = json!("DISABLE");
    assert_eq!(chains(&bookstore), ["http", "tcp"]);
    let endpoints = bookstore.show("web-1", ResourceKind::Endpoints, "outbound|80||web.default");
    assert!(!endpoints.to_string().contains("tlsMode"), "{endpoints}");
}

#[test]
fn a_pod_without_a_sidecar_is_spoken_to_in_plaintext() {
    let mut bookstore = Bookstore::new();
    bookstore.pods[1]["spec"]["initContainers"] = json!([]);

    let endpoints = bookstore.show(
        "web-1",
        ResourceKind::Endpoints,
        "outbound|80||reviews-v1.default",
    );

    assert!(!endpoints.to_string().contains("tlsMode"), "{endpoints}");
}

#[test]
fn no_resource_has_fields_that_a_reader_would_miss() {
    let resources = Bookstore::new().resources_of("web-1");

    for kind in ResourceKind::ALL {
        for resource in resources.all(kind) {
            let unknown =
                weft_proto::unknown::fields(kind.type_url(), &resource.body.value).unwrap();
            assert_eq!(unknown, [""; 0], "{}", resource.name);
        }
    }
}
