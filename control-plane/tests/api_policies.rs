//! What the API accepts as policy, and what it refuses, with the field and the reason.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use http::{Method, StatusCode};
use serde_json::{Value, json};

#[path = "support/plane.rs"]
mod plane;

use plane::{
    DEPLOYMENTS, PODS, Plane, ROUTES, SERVICES, TRAFFIC, causes, deployment, pod, route, service,
};

const PEERS: &str = "/apis/weft.dev/v1alpha1/namespaces/default/peerauthentications";
const TELEMETRIES: &str = "/apis/weft.dev/v1alpha1/namespaces/default/telemetries";

async fn with_services() -> Plane {
    let plane = Plane::start().await;
    for name in ["reviews", "reviews-v2"] {
        plane.create(SERVICES, service(name)).await;
    }
    plane
}

/// The causes for which an object is refused.
async fn refused(plane: &Plane, collection: &str, object: Value) -> Vec<String> {
    let (status, body) = plane.post(collection, &object).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    assert_eq!(body["reason"], "Invalid");
    causes(&body)
}

fn traffic(name: &str, settings: Value) -> Value {
    let mut policy = json!({
        "metadata": {"name": name},
        "spec": {"targetRefs": [{"kind": "Service", "name": "reviews"}]},
    });
    for (field, value) in settings.as_object().unwrap() {
        policy["spec"][field] = value.clone();
    }
    policy
}

#[tokio::test]
async fn a_policy_for_a_service_that_does_not_exist_is_refused() {
    let plane = with_services().await;

    let mut policy = traffic(
        "slow",
        json!({"timeout": {"http": {"requestTimeout": "1s"}}}),
    );
    policy["spec"]["targetRefs"][0]["name"] = json!("review");
    assert_eq!(
        refused(&plane, TRAFFIC, policy).await,
        [
            r#"spec.targetRefs[0].name: Not found: Service "review" in namespace "default"; did you mean "reviews"?"#
        ]
    );
    assert_eq!(
        refused(
            &plane,
            ROUTES,
            route("split", "nothing", json!([{"name": "nowhere"}]))
        )
        .await,
        [
            r#"spec.parentRefs[0].name: Not found: Service "nothing" in namespace "default""#,
            r#"spec.rules[0].backendRefs[0].name: Not found: Service "nowhere" in namespace "default""#,
        ]
    );
    let (_, list) = plane.get(TRAFFIC).await;
    assert_eq!(
        list["items"],
        json!([]),
        "nothing is changed by what is refused"
    );
}

#[tokio::test]
async fn a_typo_in_a_policy_is_refused_whatever_the_caller_asks_for() {
    let plane = with_services().await;
    let policy = traffic("slow", json!({"timeouts": {}}));

    let lenient = format!("{TRAFFIC}?fieldValidation=Ignore");

    assert_eq!(
        refused(&plane, &lenient, policy).await,
        [r#"spec.timeouts: Forbidden: unknown field; did you mean "timeout"?"#]
    );
}

#[tokio::test]
async fn weights_that_are_all_zero_are_refused() {
    let plane = with_services().await;
    let backends = json!([
        {"name": "reviews", "port": 80, "weight": 0},
        {"name": "reviews-v2", "port": 80, "weight": 0},
    ]);

    let causes = refused(&plane, ROUTES, route("split", "reviews", backends)).await;

    assert_eq!(causes.len(), 1);
    assert!(
        causes[0].starts_with("spec.rules[0].backendRefs: Invalid value: 0: all weights are 0"),
        "{causes:?}"
    );
}

#[tokio::test]
async fn a_rule_that_can_never_match_is_refused() {
    let plane = with_services().await;
    let rule = |path: &str| json!({"matches": [{"path": {"type": "PathPrefix", "value": path}}], "backendRefs": [{"name": "reviews"}]});
    let mut object = route("paths", "reviews", json!([]));
    object["spec"]["rules"] = json!([rule("/shop"), rule("/"), rule("/shop/")]);

    let causes = refused(&plane, ROUTES, object.clone()).await;
    assert_eq!(causes.len(), 1);
    assert!(
        causes[0].starts_with("spec.rules[2].matches[0]: "),
        "{causes:?}"
    );
    assert!(
        causes[0].ends_with("can never match: spec.rules[0].matches[0] has the same conditions"),
        "{causes:?}"
    );

    object["spec"]["rules"] = json!([rule("/"), rule("/shop")]);
    plane.create(ROUTES, object.clone()).await;
    object["metadata"]["name"] = json!("younger");
    let causes = refused(&plane, ROUTES, object).await;
    assert!(
        causes[0].contains(r#"HTTPRoute "paths", which is older"#),
        "{causes:?}"
    );
}

#[tokio::test]
async fn two_policies_for_one_target_are_refused() {
    let plane = with_services().await;
    let settings = json!({"circuitBreaker": {"maxConnections": 1}});
    plane
        .create(TRAFFIC, traffic("one", settings.clone()))
        .await;

    let causes = refused(&plane, TRAFFIC, traffic("two", settings)).await;

    assert!(
        causes[0].contains(r#"BackendTrafficPolicy "one" has this target already"#),
        "{causes:?}"
    );
}

#[tokio::test]
async fn settings_that_contradict_each_other_are_refused() {
    let plane = with_services().await;
    for (settings, expected) in [
        (json!({}), "spec: Required value: at least one of"),
        (
            json!({"outlierDetection": {}, "healthCheck": {"passive": {}}}),
            "spec.outlierDetection: Forbidden",
        ),
        (
            json!({"faultInjection": {"abort": {"httpStatus": 503, "grpcStatus": 14}}}),
            "spec.faultInjection.abort.grpcStatus: Forbidden",
        ),
        (
            json!({"faultInjection": {"abort": {}}}),
            "spec.faultInjection.abort: Required value",
        ),
        (
            json!({"faultInjection": {}}),
            "spec.faultInjection: Required value",
        ),
        (
            json!({"loadBalancer": {"type": "Random", "slowStart": {"window": "1s"}}}),
            "spec.loadBalancer.slowStart: Forbidden",
        ),
        (
            json!({"retry": {"perRetry": {"backOff": {"baseInterval": "2s", "maxInterval": "1s"}}}}),
            "spec.retry.perRetry.backOff.maxInterval: Invalid value",
        ),
        (
            json!({"timeout": {"http": {"requestTimeout": "1s"}}, "retry": {"perRetry": {"timeout": "2s"}}}),
            "spec.retry.perRetry.timeout: Invalid value",
        ),
        (
            json!({"retry": {"retryOn": {"httpStatusCodes": [99]}}}),
            "spec.retry.retryOn.httpStatusCodes[0]: Invalid value",
        ),
    ] {
        let causes = refused(&plane, TRAFFIC, traffic("bad", settings.clone())).await;
        assert!(causes[0].starts_with(expected), "{settings}: {causes:?}");
    }
}

#[tokio::test]
async fn a_policy_for_one_rule_of_a_route_names_a_rule_that_exists() {
    let plane = with_services().await;
    let mut object = route("split", "reviews", json!([{"name": "reviews-v2"}]));
    object["spec"]["rules"][0]["name"] = json!("canary");
    plane.create(ROUTES, object).await;
    let target = |section: &str| json!([{"kind": "HTTPRoute", "group": "gateway.networking.k8s.io", "name": "split", "sectionName": section}]);
    let mut policy = traffic("canary", json!({"retry": {"numRetries": 1}}));

    policy["spec"]["targetRefs"] = target("canaries");
    assert!(refused(&plane, TRAFFIC, policy.clone()).await[0].contains("no rule named"));
    policy["spec"]["targetRefs"] = target("canary");
    plane.create(TRAFFIC, policy.clone()).await;

    policy["metadata"]["name"] = json!("balance");
    policy["spec"] = json!({"targetRefs": target("canary"), "loadBalancer": {"type": "Random"}});
    let causes = refused(&plane, TRAFFIC, policy).await;
    assert!(
        causes
            .iter()
            .any(|cause| cause.starts_with("spec.loadBalancer: Forbidden: belongs to a Service")),
        "{causes:?}"
    );
}

#[tokio::test]
async fn conditions_and_changes_of_routes_are_checked() {
    let plane = with_services().await;
    for (rule, expected) in [
        (
            json!({"matches": [{"path": {"value": "shop"}}]}),
            "spec.rules[0].matches[0].path.value",
        ),
        (
            json!({"matches": [{"path": {"value": "/a//b"}}]}),
            "spec.rules[0].matches[0].path.value",
        ),
        (
            json!({"matches": [{"path": {"type": "RegularExpression", "value": "("}}]}),
            "spec.rules[0].matches[0].path.value",
        ),
        (
            json!({"matches": [{"headers": [{"name": "a b", "value": "x"}]}]}),
            "spec.rules[0].matches[0].headers[0].name",
        ),
        (
            json!({"matches": [{"method": "get"}]}),
            "spec.rules[0].matches[0].method",
        ),
        (
            json!({"filters": [{"type": "RequestHeaderModifier"}]}),
            "spec.rules[0].filters[0]",
        ),
        (
            json!({"filters": [{"type": "ExtensionRef"}]}),
            "spec.rules[0].filters[0].type",
        ),
        (
            json!({"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "content-length", "value": "1"}]}}]}),
            "spec.rules[0].filters[0].requestHeaderModifier.set[0].name",
        ),
        (
            json!({"filters": [{"type": "RequestRedirect", "requestRedirect": {"statusCode": 200}}]}),
            "spec.rules[0].filters[0].requestRedirect.statusCode",
        ),
        (
            json!({"filters": [{"type": "RequestRedirect", "requestRedirect": {}}], "backendRefs": [{"name": "reviews"}]}),
            "spec.rules[0].backendRefs",
        ),
        (
            json!({"matches": [{"path": {"type": "Exact", "value": "/a"}}], "filters": [{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}}]}),
            "spec.rules[0].filters[0].urlRewrite.path.type",
        ),
        (
            json!({"timeouts": {"request": "1s", "backendRequest": "2s"}}),
            "spec.rules[0].timeouts.backendRequest",
        ),
        (
            json!({"retry": {"codes": [200]}}),
            "spec.rules[0].retry.codes[0]",
        ),
        (
            json!({"backendRefs": [{"name": "reviews", "port": 81}]}),
            "spec.rules[0].backendRefs[0].port",
        ),
    ] {
        let mut object = route("bad", "reviews", json!([]));
        object["spec"]["rules"] = json!([rule]);

        let causes = refused(&plane, ROUTES, object).await;

        assert!(
            causes[0].starts_with(&format!("{expected}: ")),
            "{rule}: {causes:?}"
        );
    }
}

#[tokio::test]
async fn deleting_a_service_that_a_route_names_is_allowed_with_a_warning() {
    let plane = with_services().await;
    let backends = json!([{"name": "reviews-v2", "port": 80}]);
    plane
        .create(ROUTES, route("split", "reviews", backends))
        .await;

    let path = format!("{SERVICES}/reviews-v2");
    let request = plane.request(Method::DELETE, &path, "application/json", "");
    let response = plane.response(request).await;

    assert_eq!(response.status(), StatusCode::OK);
    let warning = response.headers()["warning"].to_str().unwrap();
    assert!(
        warning.contains("HTTPRoute default/split: spec.rules[0].backendRefs[0].name: Not found"),
        "{warning}"
    );
    // What is broken elsewhere does not stand in the way of other changes.
    plane.create(SERVICES, service("ratings")).await;
}

#[tokio::test]
async fn one_namespace_has_one_rule_for_its_callers() {
    let plane = Plane::start().await;
    let peer = |name: &str, selector: Value| json!({"metadata": {"name": name}, "spec": {"selector": selector, "mtls": {"mode": "STRICT"}}});
    plane.create(PEERS, peer("default", json!({}))).await;

    let causes = refused(&plane, PEERS, peer("other", json!({}))).await;
    assert!(
        causes[0].contains("is for the whole namespace already"),
        "{causes:?}"
    );
    plane
        .create(PEERS, peer("web", json!({"matchLabels": {"app": "web"}})))
        .await;
    let lower = json!({"metadata": {"name": "x"}, "spec": {"mtls": {"mode": "strict"}}});
    let causes = refused(&plane, PEERS, lower).await;
    assert!(
        causes[0].contains(r#"supported values: "STRICT", "PERMISSIVE", "DISABLE""#),
        "{causes:?}"
    );
}

#[tokio::test]
async fn telemetry_goes_to_an_address_that_can_be_dialled() {
    let plane = Plane::start().await;
    let telemetry = |endpoint: &str| json!({"metadata": {"name": "all"}, "spec": {"tracing": {"endpoint": endpoint}}});
    for endpoint in [
        "collector",
        "https://a:1",
        "http://collector",
        "http://a:1/v1/traces",
    ] {
        refused(&plane, TELEMETRIES, telemetry(endpoint)).await;
    }

    plane
        .create(TELEMETRIES, telemetry("http://127.0.0.1:4317"))
        .await;
}

#[tokio::test]
async fn a_deployment_selects_its_own_pods() {
    let plane = Plane::start().await;
    let mut object = deployment("web");
    object["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});

    let causes = refused(&plane, DEPLOYMENTS, object).await;

    assert!(
        causes[0].ends_with("`selector` does not match template `labels`"),
        "{causes:?}"
    );
    let created = plane.create(DEPLOYMENTS, deployment("web")).await;
    let mut moved = created.clone();
    moved["spec"]["selector"]["matchLabels"] = json!({"app": "b"});
    moved["spec"]["template"]["metadata"]["labels"] = json!({"app": "b"});
    let (status, body) = plane
        .send(
            Method::PUT,
            &format!("{DEPLOYMENTS}/web"),
            "application/json",
            moved.to_string(),
        )
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(plane::causes(&body)[0].ends_with("field is immutable"));
}

#[tokio::test]
async fn a_port_is_published_once() {
    let plane = Plane::start().await;
    let publishing = |name: &str, address: &str| {
        let mut object = deployment(name);
        object["spec"]["template"]["spec"]["containers"][0]["ports"] =
            json!([{"containerPort": 80, "hostPort": 8080, "hostIP": address}]);
        object
    };
    plane
        .create(DEPLOYMENTS, publishing("web", "127.0.0.1"))
        .await;
    plane
        .create(DEPLOYMENTS, publishing("other-address", "127.0.0.2"))
        .await;

    let causes = refused(&plane, DEPLOYMENTS, publishing("thief", "0.0.0.0")).await;

    assert!(
        causes[0].contains("published by Deployment default/other-address already"),
        "{causes:?}"
    );
    assert!(
        causes[1].contains("published by Deployment default/web already"),
        "{causes:?}"
    );
}

#[tokio::test]
async fn pods_do_not_change_once_they_are_there() {
    let plane = Plane::start().await;
    plane.create(PODS, pod("web-1", "web")).await;
    let path = format!("{PODS}/web-1");
    let annotate =
        json!({"metadata": {"annotations": {"weft.dev/network-namespace": "4026531840"}}})
            .to_string();
    let (status, _) = plane
        .send(
            Method::PATCH,
            &path,
            "application/merge-patch+json",
            annotate,
        )
        .await;
    assert_eq!(status, StatusCode::OK);

    let change = json!({"spec": {"restartPolicy": "Never"}}).to_string();
    let (status, _) = plane
        .send(Method::PATCH, &path, "application/merge-patch+json", change)
        .await;

    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
}
