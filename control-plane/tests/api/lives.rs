//! How objects come, change and go with one another.

use http::{Method, StatusCode};
use serde_json::json;

use super::MERGE;
use super::plane::{DEPLOYMENTS, PODS, Plane, SERVICES, deployment, pod, service};

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
