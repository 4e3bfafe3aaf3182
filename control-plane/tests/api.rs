//! The API as its clients see it: over real sockets, resources through their whole life.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use serde_json::{Value, json};

#[path = "support/plane.rs"]
mod plane;

use plane::{DEADLINE, DEPLOYMENTS, PODS, Plane, SERVICES, deployment, pod, service};

const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// The lines of a watch, one event each.
struct Watch {
    body: hyper::body::Incoming,
    rest: Vec<u8>,
}

impl Watch {
    async fn start(plane: &Plane, path: &str) -> Self {
        let request = plane.request(Method::GET, path, "application/json", "");
        let response = plane.response(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        Self {
            body: response.into_body(),
            rest: Vec::new(),
        }
    }

    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap();
                let kind = event["type"].as_str().unwrap().to_owned();
                return (kind, event["object"].clone());
            }
            let frame = tokio::time::timeout(DEADLINE, self.body.frame())
                .await
                .unwrap();
            self.rest
                .extend_from_slice(&frame.unwrap().unwrap().into_data().unwrap());
        }
    }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

#[tokio::test]
async fn without_the_token_nothing_is_told() {
    let plane = Plane::start().await;
    for token in [None, Some("Bearer wrong"), Some("Basic Zm9vOmJhcg==")] {
        let mut request = Request::get("/api/v1/pods").header("host", "weft");
        if let Some(token) = token {
            request = request.header("authorization", token);
        }

        let response = plane
            .response(request.body(Full::new(Bytes::new())).unwrap())
            .await;

        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{token:?}");
    }
}

#[tokio::test]
async fn the_owner_needs_no_token_on_the_socket() {
    let plane = Plane::start().await;
    let request = Request::get("/api/v1/pods")
        .header("host", "weft")
        .body(Full::new(Bytes::new()))
        .unwrap();

    let response = plane.response_of_owner(request).await;

    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_socket_and_the_secrets_are_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let plane = Plane::start().await;

    for file in ["weft.sock", "token", "state.redb"] {
        let path = plane.home.path().join(file);
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn an_object_lives_from_creation_to_deletion() {
    let plane = Plane::start().await;
    let created = plane.create(SERVICES, service("web")).await;
    assert_eq!(created["metadata"]["generation"], 1);

    let path = format!("{SERVICES}/web");
    let change = json!({"spec": {"ports": [{"port": 81}]}}).to_string();
    let (status, patched) = plane.send(Method::PATCH, &path, MERGE, change).await;
    assert_eq!(status, StatusCode::OK, "{patched}");
    assert_eq!(patched["metadata"]["generation"], 2);
    assert_eq!(patched["spec"]["ports"][0]["targetPort"], 81);
    assert_eq!(patched["metadata"]["uid"], created["metadata"]["uid"]);

    let (status, gone) = plane
        .send(Method::DELETE, &path, "application/json", "")
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(gone["status"], "Success");
    let (status, body) = plane.get(&path).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(body["reason"], "NotFound");
    assert_eq!(body["message"], r#"services "web" not found"#);
}

#[tokio::test]
async fn everything_is_still_there_after_a_restart() {
    let plane = Plane::start().await;
    let before = plane.create(SERVICES, service("web")).await;
    let home = plane.stop().await;

    let plane = Plane::start_in(home).await;

    let (_, after) = plane.get(&format!("{SERVICES}/web")).await;
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_write_on_top_of_an_old_version_is_a_conflict() {
    let plane = Plane::start().await;
    let first = plane.create(SERVICES, service("web")).await;
    let path = format!("{SERVICES}/web");
    let mut second = first.clone();
    second["metadata"]["labels"] = json!({"a": "b"});
    let put = |value: &Value| value.to_string();
    let (status, _) = plane
        .send(Method::PUT, &path, "application/json", put(&second))
        .await;
    assert_eq!(status, StatusCode::OK);

    let (status, body) = plane
        .send(Method::PUT, &path, "application/json", put(&second))
        .await;

    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(body["reason"], "Conflict");
    let (_, kept) = plane.get(&path).await;
    assert_ne!(
        kept["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn creating_twice_is_refused() {
    let plane = Plane::start().await;
    plane.create(SERVICES, service("web")).await;

    let (status, body) = plane.post(SERVICES, &service("web")).await;

    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(body["reason"], "AlreadyExists");
}

#[tokio::test]
async fn every_service_has_addresses_of_its_own() {
    let plane = Plane::start().await;
    let mut addresses = std::collections::BTreeSet::new();
    for number in 0..50 {
        let created = plane
            .create(SERVICES, service(&format!("web-{number}")))
            .await;
        let ips = created["spec"]["clusterIPs"].as_array().unwrap();
        assert_eq!(ips.len(), 2);
        assert!(ips[0].as_str().unwrap().starts_with("240.240."));
        assert!(ips[1].as_str().unwrap().starts_with("fd57:f0f0::"));
        addresses.insert(ips[0].to_string());
    }

    assert_eq!(addresses.len(), 50);
    let taken = json!({
        "metadata": {"name": "thief"},
        "spec": {"clusterIP": serde_json::from_str::<Value>(addresses.first().unwrap()).unwrap(), "ports": [{"port": 80}]},
    });
    let (status, body) = plane.post(SERVICES, &taken).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
}

#[tokio::test]
async fn a_watch_sees_what_happens_after_a_list() {
    let plane = Plane::start().await;
    plane.create(SERVICES, service("old")).await;
    let (_, list) = plane.get(SERVICES).await;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = Watch::start(
        &plane,
        &format!("{SERVICES}?watch=1&resourceVersion={version}"),
    )
    .await;

    plane.create(SERVICES, service("new")).await;
    plane
        .send(
            Method::DELETE,
            &format!("{SERVICES}/old"),
            "application/json",
            "",
        )
        .await;

    let (event, object) = watch.next().await;
    assert_eq!((event.as_str(), name(&object)), ("ADDED", "new"));
    let (event, object) = watch.next().await;
    assert_eq!((event.as_str(), name(&object)), ("DELETED", "old"));
}

#[tokio::test]
async fn a_watch_by_labels_tells_of_objects_that_cease_to_match() {
    let plane = Plane::start().await;
    let mut object = service("web");
    object["metadata"]["labels"] = json!({"tier": "front"});
    plane.create(SERVICES, object).await;
    let mut watch = Watch::start(
        &plane,
        &format!("{SERVICES}?watch=1&labelSelector=tier%3Dfront"),
    )
    .await;
    assert_eq!(watch.next().await.0, "ADDED");

    let change = json!({"metadata": {"labels": {"tier": "back"}}}).to_string();
    plane
        .send(Method::PATCH, &format!("{SERVICES}/web"), MERGE, change)
        .await;

    assert_eq!(watch.next().await.0, "DELETED");
}

#[tokio::test]
async fn an_informer_is_told_where_the_beginning_ends() {
    let plane = Plane::start().await;
    plane.create(SERVICES, service("web")).await;
    let path = format!(
        "{SERVICES}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );

    let mut watch = Watch::start(&plane, &path).await;

    assert_eq!(watch.next().await.0, "ADDED");
    let (event, bookmark) = watch.next().await;
    assert_eq!(event, "BOOKMARK");
    assert_eq!(
        bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
}

#[tokio::test]
async fn a_watch_from_before_a_restart_starts_over() {
    let plane = Plane::start().await;
    plane.create(SERVICES, service("web")).await;
    let plane = Plane::start_in(plane.stop().await).await;

    let (status, body) = plane
        .get(&format!("{SERVICES}?watch=1&resourceVersion=1"))
        .await;

    assert_eq!(status, StatusCode::GONE);
    assert_eq!(body["reason"], "Expired");
}

#[tokio::test]
async fn a_list_comes_in_pages() {
    let plane = Plane::start().await;
    for number in 0..5 {
        plane
            .create(SERVICES, service(&format!("web-{number}")))
            .await;
    }

    let mut names = Vec::new();
    let mut next = String::new();
    loop {
        let (_, page) = plane
            .get(&format!("{SERVICES}?limit=2&continue={next}"))
            .await;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        names.extend(items.iter().map(|item| name(item).to_owned()));
        match page["metadata"]["continue"].as_str() {
            Some(token) => token.clone_into(&mut next),
            None => break,
        }
    }

    assert_eq!(names, ["web-0", "web-1", "web-2", "web-3", "web-4"]);
}

#[tokio::test]
async fn a_pod_goes_when_its_containers_have_ended() {
    let plane = Plane::start().await;
    plane.create(PODS, pod("web-1", "web")).await;
    let path = format!("{PODS}/web-1");

    let (status, marked) = plane
        .send(Method::DELETE, &path, "application/json", "")
        .await;
    assert_eq!(status, StatusCode::OK);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(plane.get(&path).await.0, StatusCode::OK);

    let now = json!({"gracePeriodSeconds": 0}).to_string();
    plane
        .send(Method::DELETE, &path, "application/json", now)
        .await;
    assert_eq!(plane.get(&path).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn pods_go_with_their_deployment() {
    let plane = Plane::start().await;
    let owner = plane.create(DEPLOYMENTS, deployment("web")).await;
    let mut owned = pod("web-1", "web");
    owned["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "web",
        "uid": owner["metadata"]["uid"],
    }]);
    plane.create(PODS, owned.clone()).await;

    plane
        .send(
            Method::DELETE,
            &format!("{DEPLOYMENTS}/web"),
            "application/json",
            "",
        )
        .await;

    let (_, marked) = plane.get(&format!("{PODS}/web-1")).await;
    assert!(
        marked["metadata"]["deletionTimestamp"].is_string(),
        "{marked}"
    );
    owned["metadata"]["name"] = json!("web-2");
    let (status, body) = plane.post(PODS, &owned).await;
    assert_eq!(
        status,
        StatusCode::CONFLICT,
        "an owner that is gone gets no new pods: {body}"
    );
}

#[tokio::test]
async fn a_finalizer_holds_an_object_until_it_is_taken_off() {
    let plane = Plane::start().await;
    let mut object = service("web");
    object["metadata"]["finalizers"] = json!(["example.org/hold"]);
    plane.create(SERVICES, object).await;
    let path = format!("{SERVICES}/web");
    plane
        .send(Method::DELETE, &path, "application/json", "")
        .await;
    assert_eq!(plane.get(&path).await.0, StatusCode::OK);

    let change = json!({"metadata": {"finalizers": null}}).to_string();
    plane.send(Method::PATCH, &path, MERGE, change).await;

    assert_eq!(plane.get(&path).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_namespace_takes_all_that_is_in_it_along() {
    let plane = Plane::start().await;
    plane
        .create("/api/v1/namespaces", json!({"metadata": {"name": "shop"}}))
        .await;
    plane
        .create("/api/v1/namespaces/shop/services", service("web"))
        .await;
    plane
        .create("/api/v1/namespaces/shop/pods", pod("web-1", "web"))
        .await;

    plane
        .send(
            Method::DELETE,
            "/api/v1/namespaces/shop",
            "application/json",
            "",
        )
        .await;

    let (_, namespace) = plane.get("/api/v1/namespaces/shop").await;
    assert_eq!(namespace["status"]["phase"], "Terminating");
    let (status, _) = plane
        .post("/api/v1/namespaces/shop/services", &service("late"))
        .await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let now = json!({"gracePeriodSeconds": 0}).to_string();
    plane
        .send(
            Method::DELETE,
            "/api/v1/namespaces/shop/pods/web-1",
            "application/json",
            now,
        )
        .await;
    assert_eq!(
        plane.get("/api/v1/namespaces/shop").await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn endpoints_follow_the_pods_that_are_ready() {
    let plane = Plane::start().await;
    plane.create(SERVICES, service("web")).await;
    plane.create(PODS, pod("web-1", "web")).await;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let status_path = format!("{PODS}/web-1/status");
    let set = |ready: &str| {
        json!({"status": {
            "podIP": "10.96.0.9",
            "podIPs": [{"ip": "10.96.0.9"}, {"ip": "fd57:6060::9"}],
            "conditions": [{"type": "Ready", "status": ready}],
        }})
        .to_string()
    };

    plane
        .send(Method::PATCH, &status_path, MERGE, set("True"))
        .await;
    let (_, list) = plane.get(slices).await;
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    assert_eq!(items[0]["endpoints"][0]["addresses"], json!(["10.96.0.9"]));
    assert_eq!(items[0]["endpoints"][0]["conditions"]["ready"], true);
    assert_eq!(
        items[0]["ports"][0]["port"], 8080,
        "the target port is found by its name"
    );

    plane
        .send(Method::PATCH, &status_path, MERGE, set("False"))
        .await;
    let (_, list) = plane.get(slices).await;
    assert_eq!(
        list["items"][0]["endpoints"][0]["conditions"]["ready"],
        false
    );

    let (status, _) = plane
        .post(slices, &json!({"metadata": {"name": "mine"}}))
        .await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let plane = Plane::start().await;
    plane.create(DEPLOYMENTS, deployment("web")).await;
    let path = format!("{DEPLOYMENTS}/web");
    let both = json!({"spec": {"replicas": 3}, "status": {"readyReplicas": 1}}).to_string();

    let (_, by_status) = plane
        .send(
            Method::PATCH,
            &format!("{path}/status"),
            MERGE,
            both.clone(),
        )
        .await;
    assert_eq!(by_status["spec"]["replicas"], 1);
    assert_eq!(by_status["status"]["readyReplicas"], 1);

    let other = json!({"spec": {"replicas": 3}, "status": {"readyReplicas": 9}}).to_string();
    let (_, by_spec) = plane.send(Method::PATCH, &path, MERGE, other).await;
    assert_eq!(by_spec["spec"]["replicas"], 3);
    assert_eq!(by_spec["status"]["readyReplicas"], 1);
}

#[tokio::test]
async fn a_deployment_is_scaled_by_its_scale() {
    let plane = Plane::start().await;
    plane.create(DEPLOYMENTS, deployment("web")).await;
    let path = format!("{DEPLOYMENTS}/web/scale");

    let change = json!({"spec": {"replicas": 4}}).to_string();
    let (status, scale) = plane.send(Method::PATCH, &path, MERGE, change).await;

    assert_eq!(status, StatusCode::OK, "{scale}");
    assert_eq!(scale["spec"]["replicas"], 4);
    assert_eq!(scale["status"]["selector"], "app=web");
    let (_, deployment) = plane.get(&format!("{DEPLOYMENTS}/web")).await;
    assert_eq!(deployment["spec"]["replicas"], 4);
    let bad = json!({"spec": {"replicas": -1}}).to_string();
    let (status, _) = plane.send(Method::PATCH, &path, MERGE, bad).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn server_side_apply_creates_changes_and_takes_away() {
    let plane = Plane::start().await;
    let path = format!("{DEPLOYMENTS}/web?fieldManager=one");
    let yaml = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  labels: {a: b}\nspec:\n  replicas: 2\n  \
                selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    \
                spec: {containers: [{name: web, image: 'web:1'}]}\n";
    let (status, created) = plane.send(Method::PATCH, &path, APPLY, yaml).await;
    assert_eq!(status, StatusCode::CREATED, "{created}");

    let (status, again) = plane.send(Method::PATCH, &path, APPLY, yaml).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        again["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"],
        "applying the same changes nothing"
    );

    let without = yaml.replace("  labels: {a: b}\n", "  annotations: {c: d}\n");
    let (_, changed) = plane.send(Method::PATCH, &path, APPLY, without).await;
    assert!(changed["metadata"]["labels"].is_null(), "{changed}");
    assert_eq!(changed["metadata"]["annotations"]["c"], "d");

    let other = format!("{DEPLOYMENTS}/web?fieldManager=two");
    let config = "{apiVersion: apps/v1, kind: Deployment, spec: {replicas: 5}}";
    let (status, conflict) = plane.send(Method::PATCH, &other, APPLY, config).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(
        conflict["message"],
        r#"Apply failed with 1 conflict: .spec.replicas: conflict with "one" using apps/v1"#
    );
    let (status, _) = plane
        .send(Method::PATCH, &format!("{other}&force=true"), APPLY, config)
        .await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_probe_that_is_no_longer_applied_goes_with_its_defaults() {
    let plane = Plane::start().await;
    let path = format!("{DEPLOYMENTS}/web?fieldManager=one&force=true");
    let without = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web:1"}]},
            },
        },
    });
    let mut with = without.clone();
    with["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] =
        json!({"exec": {"command": ["true"]}, "periodSeconds": 5});
    let probe = |deployment: &Value| {
        deployment["spec"]["template"]["spec"]["containers"][0]["readinessProbe"].clone()
    };
    let (_, created) = plane
        .send(Method::PATCH, &path, APPLY, with.to_string())
        .await;
    assert_eq!(probe(&created)["timeoutSeconds"], 1, "{created}");

    let (status, changed) = plane
        .send(Method::PATCH, &path, APPLY, without.to_string())
        .await;

    assert_eq!(status, StatusCode::OK, "{changed}");
    assert!(probe(&changed).is_null(), "{changed}");
}

#[tokio::test]
async fn a_dry_run_checks_everything_and_keeps_nothing() {
    let plane = Plane::start().await;

    let (status, body) = plane
        .post(&format!("{SERVICES}?dryRun=All"), &service("web"))
        .await;
    assert_eq!(status, StatusCode::CREATED);
    assert!(body["spec"]["clusterIP"].is_string());

    assert_eq!(
        plane.get(&format!("{SERVICES}/web")).await.0,
        StatusCode::NOT_FOUND
    );
    let bad = json!({"metadata": {"name": "bad"}, "spec": {"ports": [{"port": 0}]}});
    let (status, _) = plane.post(&format!("{SERVICES}?dryRun=All"), &bad).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn unknown_fields_of_workloads_are_dropped_with_a_warning_or_refused() {
    let plane = Plane::start().await;
    let mut object = service("web");
    object["spec"]["portz"] = json!([]);
    let body = object.to_string();

    let request = plane.request(Method::POST, SERVICES, "application/json", body.clone());
    let response = plane.response(request).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let warning = response.headers()["warning"].to_str().unwrap();
    assert_eq!(
        warning,
        r#"299 - "unknown field \"spec.portz\"; did you mean \"ports\"?""#
    );
    let (_, stored) = plane.get(&format!("{SERVICES}/web")).await;
    assert!(stored["spec"]["portz"].is_null());

    let strict = format!("{SERVICES}?fieldValidation=Strict");
    let (status, refused) = plane
        .send(Method::POST, &strict, "application/json", body)
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused["details"]["causes"][0]["field"], "spec.portz");
}

#[tokio::test]
async fn a_set_of_objects_is_applied_as_a_whole_or_not_at_all() {
    let plane = Plane::start().await;
    let mut route = plane::route("web", "web", json!([{"name": "web", "port": 80}]));
    route["apiVersion"] = json!("gateway.networking.k8s.io/v1");
    route["kind"] = json!("HTTPRoute");
    let mut web = service("web");
    web["apiVersion"] = json!("v1");
    web["kind"] = json!("Service");
    let broken =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "bad"}, "spec": {}});

    let set = json!({"items": [route, web, broken]});
    let (status, _) = plane.post("/weft/v1/apply?fieldManager=test", &set).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        plane.get(&format!("{SERVICES}/web")).await.0,
        StatusCode::NOT_FOUND
    );

    // The route comes before the Service that it is attached to: order does not matter.
    let set = json!({"items": [route, web]});
    let (status, body) = plane.post("/weft/v1/apply?fieldManager=test", &set).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body["items"][0]["result"], "created");
    assert_eq!(body["revision"], 2);
    let (_, again) = plane.post("/weft/v1/apply?fieldManager=test", &set).await;
    assert_eq!(again["items"][0]["result"], "unchanged");
    assert!(again["revision"].is_null());
}

#[tokio::test]
async fn the_history_tells_who_changed_what() {
    let plane = Plane::start().await;
    plane
        .create(&format!("{SERVICES}?fieldManager=tester"), service("web"))
        .await;
    plane.create(PODS, pod("web-1", "web")).await;
    let change = json!({"spec": {"ports": [{"port": 81}]}}).to_string();
    plane
        .send(Method::PATCH, &format!("{SERVICES}/web"), MERGE, change)
        .await;

    let (_, history) = plane.get("/weft/v1/revisions").await;

    let summaries: Vec<&str> = history["revisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|revision| revision["summary"].as_str().unwrap())
        .collect();
    assert_eq!(
        summaries,
        [
            "configured Service default/web",
            "created Service default/web",
            "created Namespace default",
        ],
        "pods make no revisions"
    );
    assert_eq!(history["revisions"][1]["author"], "token");
    assert_eq!(history["revisions"][1]["manager"], "tester");
    let (_, one) = plane.get("/weft/v1/revisions/3").await;
    assert_eq!(one["changes"][0]["before"]["spec"]["ports"][0]["port"], 80);
    assert_eq!(one["changes"][0]["after"]["spec"]["ports"][0]["port"], 81);
    assert_eq!(
        plane.get("/weft/v1/revisions/99").await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn nonsense_is_refused_and_harms_nobody() {
    let plane = Plane::start().await;
    let deep = "[".repeat(100_000);
    for (method, path, content_type, body) in [
        (Method::POST, SERVICES, "application/json", "{"),
        (Method::POST, SERVICES, "application/json", "[]"),
        (
            Method::POST,
            SERVICES,
            "application/json",
            r#"{"metadata": []}"#,
        ),
        (
            Method::POST,
            SERVICES,
            "application/json",
            r#"{"metadata": {"name": "a/b"}}"#,
        ),
        (
            Method::POST,
            SERVICES,
            "application/json",
            r#"{"kind": "Pod"}"#,
        ),
        (Method::POST, SERVICES, "application/xml", "<a/>"),
        (Method::POST, SERVICES, "application/json", deep.as_str()),
        (Method::POST, SERVICES, "application/yaml", deep.as_str()),
        (Method::POST, "/api/v1/services", "application/json", "{}"),
        (Method::PUT, SERVICES, "application/json", "{}"),
        (
            Method::PATCH,
            "/api/v1/namespaces/default",
            "text/plain",
            "{}",
        ),
        (
            Method::PATCH,
            "/api/v1/namespaces/default",
            "application/json-patch+json",
            "{}",
        ),
        (
            Method::PATCH,
            "/api/v1/namespaces/default",
            "application/json-patch+json",
            r#"[{"op": "remove", "path": "/nothing/there"}]"#,
        ),
        (
            Method::GET,
            "/api/v1/services?labelSelector=%3D",
            "application/json",
            "",
        ),
        (
            Method::GET,
            "/api/v1/services?limit=many",
            "application/json",
            "",
        ),
        (
            Method::GET,
            "/api/v1/services?continue=%00",
            "application/json",
            "",
        ),
        (Method::GET, "/apis/nowhere/v1", "application/json", ""),
        (Method::GET, "/nowhere", "application/json", ""),
        (
            Method::DELETE,
            "/api/v1/namespaces/default",
            "application/json",
            "",
        ),
        (Method::POST, "/weft/v1/apply", "application/json", "{}"),
    ] {
        let (status, answer) = plane
            .send(method.clone(), path, content_type, body.to_owned())
            .await;

        assert!(
            status.is_client_error(),
            "{method} {path} {content_type}: {status} {answer}"
        );
        assert_eq!(answer["kind"], "Status", "{method} {path}");
    }
    assert_eq!(plane.get("/healthz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_body_without_end_is_cut_off() {
    let plane = Plane::start().await;
    let huge = vec![b' '; 4 * 1024 * 1024];

    let (status, body) = plane
        .send(Method::POST, SERVICES, "application/json", huge)
        .await;

    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{body}");
}

#[tokio::test]
async fn without_a_node_what_needs_it_says_so() {
    let plane = Plane::start().await;
    plane.create(PODS, pod("web-1", "web")).await;

    for path in [
        "/weft/v1/images",
        "/weft/v1/node",
        "/api/v1/namespaces/default/pods/web-1/log",
    ] {
        let (status, body) = plane.get(path).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}: {body}");
    }
    let (status, body) = plane.get("/weft/v1/status").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body["objects"]["pods"], 1);
    assert_eq!(body["apiAddress"], plane.address.to_string());
}

#[tokio::test]
async fn a_shutdown_is_refused_while_there_are_pods() {
    let plane = Plane::start().await;
    plane.create(PODS, pod("web-1", "web")).await;
    let (status, _) = plane.post("/weft/v1/shutdown", &json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let now = json!({"gracePeriodSeconds": 0}).to_string();
    plane
        .send(
            Method::DELETE,
            &format!("{PODS}/web-1"),
            "application/json",
            now,
        )
        .await;

    let (status, _) = plane.post("/weft/v1/shutdown", &json!({})).await;

    assert_eq!(status, StatusCode::OK);
    tokio::time::timeout(DEADLINE, plane.running.ended())
        .await
        .unwrap()
        .unwrap();
}
