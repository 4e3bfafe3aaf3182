//! What the API refuses, and how.

use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use serde_json::{Value, json};

use super::plane::{DEADLINE, PODS, Plane, SERVICES, pod, service};

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
