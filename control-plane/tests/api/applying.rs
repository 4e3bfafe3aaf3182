//! Objects that are applied: on the server side, dry, as a set, with a history.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::plane::{DEPLOYMENTS, PODS, Plane, SERVICES, pod, service};
use super::{APPLY, MERGE};

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
    let mut route = super::plane::route("web", "web", json!([{"name": "web", "port": 80}]));
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
